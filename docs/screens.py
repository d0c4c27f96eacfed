"""The explorer's pages and exported pages in a headless Chromium, each brought to a state worth showing."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
ARGUMENTS += ["--disable-background-networking", "--disable-component-update"]
PATIENCE = 300_000  # milliseconds; UMAP compiles first
WIDE = 1440
SERVE = "import sys; from latentlab.app import server; server.serve(int(sys.argv[1]), sys.argv[2])"


@contextmanager
def explorer(workspace: str) -> Iterator[str]:
    """The explorer on a free port; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(port), workspace], stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{address}/_stcore/health", timeout=2):
                    break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait()


@contextmanager
def opened(browser: Any, theme: str, address: str, width: int = WIDE, height: int = 900) -> Iterator[Any]:
    """A page in a window of its own; fails afterwards if it asked for anything but the address."""
    own = (address, address.replace("http", "ws", 1), "blob:", "data:")
    away: list[str] = []
    # What lies on disk must do without a network altogether.
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, offline=address.startswith("file:")
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.on("request", lambda request: None if request.url.startswith(own) else away.append(request.url))
    try:
        yield page
    finally:
        context.close()
    if away:
        raise RuntimeError(f"The page asked for {', '.join(away)}; expected nothing but {address}.")


def settle(page: Any) -> None:
    """Waits until the page's script and its background jobs have ended."""
    page.wait_for_function(
        "() => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'"
        " && !document.querySelector('[data-testid=stProgress]')"
    )
    page.wait_for_timeout(1500)
    if page.locator("[data-testid=stException]").count():
        raise RuntimeError(f"An error stands on {page.url}; see what the server printed.")


def drawn(page: Any, kind: str) -> None:
    """Waits for a live component's picture."""
    page.wait_for_function(f"() => (window.__latentlab?.{kind}?.frames ?? 0) > 0")
    settle(page)


def pull(page: Any, slider: Any, begin: float, end: float, steps: int = 20) -> None:
    """Drags a slider's thumb from one share of its track to another."""
    box = slider.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + begin * box["width"], y)
    page.mouse.down()
    for step in range(1, steps + 1):
        page.mouse.move(box["x"] + (begin + (end - begin) * step / steps) * box["width"], y)
        page.wait_for_timeout(20)
    page.mouse.up()


def gallery(page: Any, address: str) -> None:
    """All shipped runs."""
    page.goto(f"{address}/")
    page.locator("[data-testid=stImage] img").nth(2).wait_for()
    settle(page)


def traverse(page: Any, address: str) -> None:
    """A scene encoded, its strongest latent pulled."""
    page.set_viewport_size({"width": WIDE, "height": 1040})
    page.goto(f"{address}/traverse?run=zoo%3Ascenes-beta-vae&image=151515")
    drawn(page, "traverse")
    pull(page, page.locator("input.ll-slider:visible").first, 0.5, 0.8)
    settle(page)


def layers(page: Any, address: str) -> None:
    """The strongest unit of a VAE's decoder on its card, and what the picture is without it."""
    page.set_viewport_size({"width": WIDE, "height": 1480})
    page.goto(f"{address}/layers?run=zoo%3Ascenes-vae&image=1515&stage=generator.deconv3")
    drawn(page, "layers")
    look_at_unit(page, 6)
    page.get_by_role("button", name="Switch off").click()
    settle(page)


def layers_of_a_gan(page: Any, address: str) -> None:
    """A style GAN's graph, one of its units, and a direction found in its styles."""
    page.set_viewport_size({"width": WIDE, "height": 1900})
    page.goto(
        f"{address}/layers?run=zoo%3Adigits-stylegan&start=Seed&seed=3&stage=generator.conv4&layer-tabs=Directions"
    )
    drawn(page, "layers")
    look_at_unit(page, 14)
    settle(page)


def place_of_unit(page: Any, unit: int) -> tuple[float, float]:
    """Where a unit's map lies in the window."""
    page.locator("canvas.ll-sheet").scroll_into_view_if_needed()
    box = page.locator("canvas.ll-sheet").bounding_box()
    grid = page.evaluate("window.__latentlab.layers.grid")
    side, columns = grid["size"] + grid["gap"], grid["columns"]
    return (
        box["x"] + (unit % columns) * side + grid["size"] / 2,
        box["y"] + (unit // columns) * side + grid["size"] / 2,
    )


def look_at_unit(page: Any, unit: int) -> None:
    """Clicks a unit's map, which opens its card."""
    page.mouse.click(*place_of_unit(page, unit))
    page.locator("[class*=st-key-unit-card]").wait_for()
    settle(page)


def latent_map(page: Any, address: str) -> None:
    """Real digits laid out by UMAP, one of them picked."""
    page.goto(f"{address}/map?run=zoo%3Adigits-vae&layout=UMAP")
    drawn(page, "map")
    page.wait_for_function(
        "() => !document.body.innerText.includes('Meanwhile') && !document.body.innerText.includes('Variance shown')"
    )
    settle(page)
    box = page.locator("canvas.ll-points").bounding_box()
    for step in range(60):  # outwards from the middle until a point is met
        page.mouse.click(box["x"] + box["width"] / 2 - 5 * step, box["y"] + box["height"] / 2 + 3 * step)
        picked = page.evaluate("window.__latentlab.map.picked")
        if picked and picked["point"] is not None:
            break
    page.get_by_role("link", name="Pull it in Traverse").wait_for()
    settle(page)


def lasso(page: Any, address: str) -> None:
    """Ten thousand scenes by PCA, some of them in a lasso."""
    page.set_viewport_size({"width": WIDE, "height": 1000})
    page.goto(f"{address}/map?run=zoo%3Ascenes-beta-vae&points=10000")
    drawn(page, "map")
    settle(page)
    page.get_by_role("button", name="Lasso:").click()
    box = page.locator("canvas.ll-points").bounding_box()
    x, y, side = box["x"] + 0.62 * box["width"], box["y"] + 0.4 * box["height"], 90
    page.mouse.move(x - side, y - side)
    page.mouse.down()
    for corner in ((side, -0.7 * side), (1.2 * side, 0.6 * side), (0, side), (-1.1 * side, 0.5 * side)):
        page.mouse.move(x + corner[0], y + corner[1], steps=8)
    page.mouse.up()
    page.locator("img[alt*='selected images']").first.wait_for()
    settle(page)


def scores(page: Any, address: str) -> None:
    """The kept report of the shipped sprites run."""
    page.goto(f"{address}/scores?run=zoo%3Asprites-beta-tcvae")
    page.locator("[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg").nth(2).wait_for()
    settle(page)


def compare(page: Any, address: str) -> None:
    """Two VAEs of the sprites on the same image, their latents matched."""
    page.set_viewport_size({"width": WIDE, "height": 1200})
    page.goto(f"{address}/compare?run=zoo%3Asprites-beta-vae&with=zoo%3Asprites-beta-tcvae")
    drawn(page, "traverse")
    settle(page)


def train(page: Any, address: str) -> None:
    """The form of a training."""
    page.goto(f"{address}/train?train-view=New+training")
    page.get_by_role("button", name="Start training").wait_for()
    settle(page)


def training(page: Any, address: str) -> None:
    """A training that has ended: curves, and samples at any step."""
    page.set_viewport_size({"width": WIDE, "height": 960})
    page.goto(f"{address}/train?train-view=Trainings")
    page.locator("[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg").nth(2).wait_for()
    page.get_by_text("finished", exact=True).filter(visible=True).first.wait_for()
    page.wait_for_timeout(3000)  # its bar of progress stays, so the page never settles


PAGES = {
    "gallery": gallery,
    "traverse": traverse,
    "layers": layers,
    "layers-gan": layers_of_a_gan,
    "map": latent_map,
    "map-lasso": lasso,
    "scores": scores,
    "compare": compare,
    "train": train,
    "training": training,
}
"""Figure's name -> what brings a page of the explorer there."""


def until(page: Any, condition: str, seconds: float = 60.0) -> None:
    """Waits for a condition on an exported page. Playwright's own waiting needs eval, which the page forbids."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(f"Boolean({condition})"):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{page.url} did not come to {condition} in {seconds:g} s.")
        time.sleep(0.02)


def exported_sliders(page: Any, address: str) -> None:
    """An exported page with a latent pulled."""
    page.goto(address)
    until(page, "window.__latentlab?.largest_difference !== undefined")
    pull(page, page.locator("input.ll-slider:visible").first, 0.5, 0.8)
    page.wait_for_timeout(300)


def exported_units(page: Any, address: str) -> None:
    """An exported page with a hidden unit switched off."""
    page.goto(address)
    until(page, "window.__latentlab?.largest_difference !== undefined")
    page.get_by_role("tab", name="Units").or_(page.locator("#tab-units")).first.click()
    until(page, "document.querySelector('canvas.ll-sheet').dataset.drawn")
    page.get_by_role("button", name="Order the units by how much").click()
    until(page, "window.__latentlab.effects")
    page.locator("canvas.ll-sheet").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    until(page, "!document.querySelector('.ll-compare').hidden")
    page.wait_for_timeout(500)


EXPORTED = {
    "exported-sprites": ("zoo:sprites-beta-tcvae", exported_sliders),
    "exported-scenes": ("zoo:scenes-beta-vae", exported_units),
}
"""Figure's name -> the run that is exported, and what brings its page to where it is shown."""


def export(name: str, folder: Path) -> str:
    """Writes a run's page; its address on disk."""
    import latentlab
    from latentlab.export import export_html

    return export_html(latentlab.Run.open(name), folder / f"{name.removeprefix('zoo:')}.html").as_uri()
