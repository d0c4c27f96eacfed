"""A slider dragged on Traverse under each engine, a slider let go without a live connection, a unit switched off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np

from budgets.chromium import Explorer, settled
from budgets.finding import Finding, times

RUN, IMAGE = "zoo:scenes-vae", 1234
DRAG, FALLBACK, TOGGLE = 50.0, 300.0, 250.0  # milliseconds
LEAST_RATE = 30.0  # pictures a second

# As a hand drags: an input event each time the screen is drawn.
HAND = """async (slider, [seconds, kind]) => {
  const live = () => window.__latentlab[kind], low = Number(slider.min), high = Number(slider.max);
  const first = live().frames, began = performance.now();
  let moves = 0;
  await new Promise((done) => {
    const step = () => {
      const t = (performance.now() - began) / 1000;
      if (t > seconds) return done();
      slider.value = String(low + (high - low) * (0.5 + 0.45 * Math.sin(2.2 * t)));
      slider.dispatchEvent(new Event('input', { bubbles: true }));
      moves += 1;
      requestAnimationFrame(step);
    };
    step();
  });
  const frames = live().frames - first, took = (performance.now() - began) / 1000;
  const result = { frames, moves, rate: frames / took, engine: live().engine,
    latencies: frames ? live().latencies_ms.slice(-frames) : [] };
  slider.dispatchEvent(new Event('change', { bubbles: true }));
  return result;
}"""

# From the pointer's release to the next picture, by the page's own clock.
STOPWATCH = """([event, kind]) => {
  const watch = (window.__watch = { took: null }), first = window.__latentlab[kind].frames;
  addEventListener(event, () => {
    const began = performance.now();
    const look = () => {
      if (window.__latentlab[kind].frames > first) watch.took = performance.now() - began;
      else requestAnimationFrame(look);
    };
    look();
  }, { capture: true, once: true });
}"""


@dataclass(frozen=True)
class Drag:
    """A drag: who drew, milliseconds from the hand to each picture, pictures a second."""

    engine: str
    latencies: list[float]
    rate: float


def drag(slider: Any, seconds: float) -> Drag:
    """Drags a slider of Traverse or of an exported page."""
    slider.evaluate(HAND, [0.5, "traverse"])  # warms up
    found = slider.evaluate(HAND, [seconds, "traverse"])
    latencies = [ms for ms in found["latencies"] if ms is not None]
    # Without a picture all that is known is that the first takes longer than the drag did.
    return Drag(found["engine"], latencies or [1000.0 * seconds], found["rate"])


def engines(explorer: Explorer) -> Iterator[Finding]:
    """A drag of four seconds under each engine, and what a release waits for without a live connection."""
    seconds = 1.0 if explorer.smoke else 4.0
    path = f"/traverse?run={quote(RUN, safe='')}&image={IMAGE}"
    for engine in ("server", "browser"):
        with explorer.page(f"{path}&engine={engine}") as page:
            found = drag(at_work(page, engine), seconds)
        expect(found, engine)
        told = f"{found.rate:.0f} pictures a second"
        yield times(f"drag, {engine} engine, {RUN}", found.latencies, DRAG, told)
    # Whoever is behind a proxy that lets no WebSocket of ours through.
    with explorer.page(path, ready=lambda page: page.route_web_socket("**/ll/decode", refuse)) as page:
        page.wait_for_function(rerun_badge())
        slider = at_work(page, "rerun")
        found = drag(slider, seconds)
        expect(found, "rerun")
        told = f"{found.rate:.0f} pictures a second"
        yield times(f"drag, rerun engine, {RUN}", found.latencies, None, told)
        settled(page)
        took = releases(page, slider, 4 if explorer.smoke else 30)
        yield times("slider let go, rerun engine", took, FALLBACK)


def refuse(connection: Any) -> None:
    """A live connection that can't be had."""
    connection.close()


def rerun_badge() -> str:
    """Whether the page says that pictures follow a rerun."""
    deep = "[...document.querySelectorAll('*')].map((e) => e.shadowRoot ?? e)"
    return f"() => {deep}.some((e) => e.querySelector?.('.ll-badge[data-kind=rerun]'))"


def at_work(page: Any, engine: str) -> Any:
    """The first slider of Traverse, once the page has come to rest and that engine draws."""
    page.locator("[data-testid=ll-traverse] canvas.ll-main").wait_for()
    settled(page)
    slider = page.locator("input.ll-slider:visible").first
    slider.evaluate(HAND, [0.5, "traverse"])  # the browser's engine proves itself on pictures of the server's
    page.wait_for_function("engine => window.__latentlab?.traverse?.engine === engine", arg=engine)
    settled(page)
    return slider


def expect(found: Drag, engine: str) -> None:
    """Fails where another engine drew than the one to be measured."""
    if found.engine != engine:
        raise RuntimeError(f"The pictures were drawn by the {found.engine} engine; expected {engine}.")


def releases(page: Any, slider: Any, count: int) -> list[float]:
    """Milliseconds from each release of a slider to its picture."""
    took = []
    box = slider.bounding_box()
    y = box["y"] + box["height"] / 2
    for number in range(count):
        page.mouse.move(box["x"] + box["width"] * (0.3 + 0.4 * (number % 2)), y)
        page.evaluate(STOPWATCH, ["pointerup", "traverse"])
        page.mouse.down()
        page.mouse.up()
        page.wait_for_function("() => window.__watch.took !== null")
        took.append(page.evaluate("window.__watch.took"))
        settled(page)
    return took


def toggles(explorer: Explorer) -> Iterator[Finding]:
    """A unit on the sheet of Layers, clicked: until the picture without it and all maps behind it are drawn."""
    count, took = 3 if explorer.smoke else 15, []
    with explorer.page(f"/layers?run={quote(RUN, safe='')}&image={IMAGE}") as page:
        page.wait_for_function("() => (window.__latentlab?.layers?.frames ?? 0) > 0")
        settled(page)
        sheet = page.locator("canvas.ll-sheet")
        sheet.scroll_into_view_if_needed()
        box, grid = sheet.bounding_box(), page.evaluate("window.__latentlab.layers.grid")
        side = grid["size"] + grid["gap"]
        for unit in range(min(count, grid["units"])):
            x = box["x"] + (unit % grid["columns"] + 0.5) * side
            y = box["y"] + (unit // grid["columns"] + 0.5) * side
            page.mouse.click(x, y)  # looks at it
            settled(page)
            for _ in ("off", "on"):
                page.evaluate(STOPWATCH, ["pointerdown", "layers"])
                page.mouse.click(x, y)
                page.wait_for_function("() => window.__watch.took !== null")
                took.append(page.evaluate("window.__watch.took"))
                settled(page)
    yield times(f"unit switched off or on, {RUN}", took, TOGGLE)


def rate_of(what: str, found: Drag, budget: float | None = LEAST_RATE) -> Finding:
    """Pictures a second, and how late they are."""
    middle, late = np.quantile(found.latencies, (0.5, 0.95))
    return Finding(
        what, found.rate, "pictures a second", budget, True, f"p50 {middle:.1f} ms, p95 {late:.1f} ms"
    )
