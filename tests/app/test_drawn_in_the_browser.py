"""The sliders drawn by the browser itself, as a person meets them: the same pictures, quicker, and never worse.

The page under test holds the explorer's own component over a shipped run. Who draws is chosen in it as in the
explorer's sidebar, so that the browser's picture and the server's are two pictures of one canvas.
"""

from __future__ import annotations

import itertools
import os
import re
import sys

import numpy as np
import pytest
import torch
from live import free_port
from pace import slowdown, stretched
from visiting import chromium, running, until

from latentlab.app import browser_engine
from latentlab.runs import Run

pytestmark = pytest.mark.browser
RUNS = {"vae": "zoo:sprites-beta-vae", "colour": "zoo:scenes-vae", "style": "zoo:digits-stylegan"}
PAGE = """
import numpy as np
import streamlit as st
from latentlab import Run
from latentlab.app import components, controls, engine, wire
from latentlab.app.pull import Pull
from latentlab.models.edits import Edit

st.set_page_config(layout="wide")
wire.RAW_SIDE = 32 if "large" in st.query_params else 128  # what counts as too large to travel as it is


@st.cache_resource
def opened(name):
    return Run.open(name, device="cpu").model


model = opened(st.query_params["run"])
wanted = st.segmented_control("Who", engine.DRAWING, default="auto", required=True, key="engine", bind="query-params")
stages = [i.address for i in model.generator.describe(model.map(model.sample_codes(1, 0), "z", "w+")
          if "w+" in model.spaces else model.sample_codes(1, 0))]
made = st.segmented_control("Edits", ["none", "units", "region"], default="none", required=True, key="made",
                            bind="query-params")
edits = {
    "none": (),
    "units": (Edit(stages[0], (0, 3)), Edit(stages[1], (1,), "scale", 2.5),
              Edit(stages[1], (2,), "set", 0.7, amount=0.5), Edit(stages[-2], None, "shift", 0.3)),
    "region": (Edit(stages[-2], None, "shift", 0.3, region=((0.0, 1.0),)),),
}[made]
pull = Pull("w", cutoff=0) if st.query_params.get("space") == "w" else None
z = model.sample_codes(1, 3)
if pull is not None:
    z = np.concatenate([model.map(z, "z", "w")[0].detach().numpy(), [0.7]])
z = np.asarray(z, np.float32).reshape(-1)
axes = [components.Axis(i, f"z{i}", -3, 3) for i in range(min(4, len(z)))]
token = engine.open_session("traverse", model, z=z, edits=edits, pull=pull)
if st.button("forget"):
    engine.registry.close(token)
state = components.traverse(axes, z, key="t", image_shape=model.image_shape, token=token,
                            revision=str(pull))
st.text(f"state {state.engine} {len(engine.registry)} {made} {wanted}")
"""
LAUNCH = """
import sys
import streamlit as st
from latentlab.app import server
app = st.App(sys.argv[1], routes=server.routes(), lifespan=server.lifespan)
app.run(config={"server.port": int(sys.argv[2]), "server.address": "127.0.0.1", "server.headless": True,
                "server.fileWatcherType": "none", "browser.gatherUsageStats": False, "server.showEmailPrompt": False,
                "server.baseUrlPath": "tools/lab"})
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory):
    """The page over our routes, under a base path, in a process of its own."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    (folder / "page.py").write_text(PAGE)
    (folder / "launch.py").write_text(LAUNCH)
    address = f"http://127.0.0.1:{port}/tools/lab"
    command = [sys.executable, "launch.py", "page.py", str(port)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with running(command, f"{address}/_stcore/health", folder / "log.txt", cwd=folder, env=environment):
        yield address


@pytest.fixture(scope="module")
def browser(chromium_path: str):
    with chromium(chromium_path) as browser:
        yield browser


@pytest.fixture
def visit(browser, address: str):
    """Opens the page; afterwards fails on console errors, page errors, failed requests, and requests that leave."""
    pages, troubles = [], []

    def open_page(query: str, prepare=None, expect: str = "nothing is expected"):
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(60_000)
        pages.append(page)

        def note(text: str) -> None:
            if expect not in text:
                troubles.append(text)

        def leaves(url: str) -> None:
            if not url.startswith((address, address.replace("http", "ws"), "blob:", "data:")):
                troubles.append(f"outside: {url}")

        page.on("console", lambda m: note(f"{m.text} {m.location}") if m.type == "error" else None)
        page.on("pageerror", lambda e: troubles.append(f"error: {e}"))
        page.on("requestfailed", lambda r: note(f"failed: {r.url}"))
        page.on("request", lambda r: leaves(r.url))
        page.on("websocket", lambda w: leaves(w.url))
        if prepare:
            prepare(page)
        page.goto(f"{address}/?{query}")
        page.wait_for_function("() => (window.__latentlab?.traverse?.frames ?? 0) > 0")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not troubles


def badge(page) -> str:
    return page.locator(".ll-badge").inner_text()


def why(page) -> str:
    return page.locator(".ll-badge").get_attribute("title")


def drawn_by(page, words: str) -> None:
    until(lambda: badge(page) == words)


def picture(page) -> np.ndarray:
    data = page.eval_on_selector(
        "canvas.ll-main",
        "c => [c.width, c.height, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]",
    )
    return np.array(data[2:]).reshape(data[1], data[0], 4)[..., :3]


def press(page, group: str, choice: str) -> None:
    page.get_by_role("radiogroup", name=group).get_by_role("radio", name=choice, exact=True).click()


def frames(page) -> int:
    return page.evaluate("window.__latentlab.traverse.frames")


def move(page, index: int, value: float) -> np.ndarray:
    """Moves a slider as a person's hand does, and gives the picture that came of it."""
    before = frames(page)
    page.locator(f"input.ll-slider[data-index='{index}']").evaluate(
        "(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change')); }",
        value,
    )
    page.wait_for_function(
        "([i, v, n]) => { const { last_z, frames } = window.__latentlab.traverse;"
        " return frames > n && Math.abs(last_z[i] - v) < 1e-6; }",
        arg=[index, value, before],
    )
    return picture(page)


def by_both(page, places: list[tuple[float, float]]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Pictures of the same codes, drawn by the browser and by the server."""
    found = []
    for choice, words in (("auto", "live · browser"), ("server", "live")):
        press(page, "Who", choice)
        drawn_by(page, words)
        found.append([])
        for first, second in places:
            move(page, 0, first)
            found[-1].append(move(page, 1, second))
        by = page.evaluate("window.__latentlab.traverse.engine")
        assert by == ("browser" if choice == "auto" else "server")
    return found[0], found[1]


PLACES = [(-2.0, 1.5), (2.0, 1.5), (0.5, -1.0)]


@pytest.mark.parametrize("kind", RUNS)
def test_the_browsers_pictures_are_the_servers(visit, kind, record_property) -> None:
    """Within one level of 255: both round a number of the same decoder to a whole level, each its own float32."""
    page = visit(f"run={RUNS[kind]}")
    seen = {}
    for made in ("none", "units"):
        if made == "units":
            press(page, "Edits", made)
            page.get_by_text(f" {made} server").wait_for()
        ours, theirs = by_both(page, PLACES)
        away = max(int(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))
        record_property(f"levels, {made}", away)
        assert away <= 1
        apart = [np.abs(a - b).max() for a, b in itertools.pairwise(ours)]
        assert min(apart) > 5, "pictures that do not change prove nothing"
        seen[made] = ours
    assert np.abs(seen["none"][-1] - seen["units"][-1]).max() > 5, "the edits must show"
    assert page.evaluate("window.__latentlab.decoded_in") == "worker"


def test_codes_of_w_under_a_truncation_too(visit) -> None:
    page = visit(f"run={RUNS['style']}&space=w")
    ours, theirs = by_both(page, PLACES[:2])
    assert max(np.abs(a - b).max() for a, b in zip(ours, theirs, strict=True)) <= 1
    assert np.abs(ours[0] - ours[1]).max() > 5


def test_edits_that_only_the_server_knows_bring_it_back_at_once(visit) -> None:
    page = visit(f"run={RUNS['vae']}")
    drawn_by(page, "live · browser")
    assert "from the server's picture" in why(page)
    plain = move(page, 0, 1.0)
    press(page, "Edits", "region")
    drawn_by(page, "live")
    until(lambda: np.abs(picture(page) - plain).max() > 5)  # nobody moved a slider
    assert "has a region" in why(page)
    edited = picture(page)
    press(page, "Edits", "units")
    drawn_by(page, "live · browser")
    until(lambda: np.abs(picture(page) - edited).max() > 5)
    press(page, "Edits", "none")
    until(lambda: np.abs(picture(page) - plain).max() <= 1)
    assert badge(page) == "live · browser" and "made=none" not in page.url


def test_a_drag_follows_the_hand(visit, record_property) -> None:
    """Counted in one page: the browser draws while the hand moves, the server does not hear of it."""
    page = visit(f"run={RUNS['colour']}")
    for choice, words in (("browser", "live · browser"), ("server", "live")):
        press(page, "Who", choice)
        drawn_by(page, words)
        page.get_by_text(f" none {choice}").wait_for()
        box = page.locator("input.ll-slider[data-index='0']").bounding_box()
        x, y, width = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, box["width"]
        page.mouse.move(x, y)
        page.mouse.down()
        before = frames(page)
        for step in range(60):
            page.mouse.move(x + 0.4 * width * np.sin(step / 8), y)
            page.wait_for_timeout(15)
        count = frames(page) - before
        page.mouse.up()
        times = page.evaluate(f"window.__latentlab.traverse.latencies_ms.slice(-{count})")
        p50, p95 = np.quantile(times, (0.5, 0.95))
        print(f"\n{choice}: {count} frames for 60 moves, p50 {p50:.1f} ms, p95 {p95:.1f} ms")
        for name, value in (("frames", count), ("p50", float(p50)), ("p95", float(p95))):
            record_property(f"{choice} {name}", value)
        stretch = stretched(slowdown())
        assert count >= 20 / stretch
        # 30 pictures a second of an idle machine; a rerun takes 200 ms and more even there.
        assert choice == "server" or p50 < 100 * stretch


def test_a_program_that_does_not_come_leaves_the_server_drawing(visit) -> None:
    page = visit(
        f"run={RUNS['vae']}",
        lambda page: page.route("**/ll/program/*", lambda route: route.abort()),
        expect="/ll/program/",
    )
    until(lambda: "did not load" in why(page))
    assert badge(page) == "live" and page.locator(".ll-note[role=status]").inner_text() == ""
    before = picture(page)
    assert np.abs(move(page, 0, 2.5) - before).max() > 5
    assert page.evaluate("window.__latentlab.traverse.engine") == "server"


@pytest.mark.parametrize("damage", ["cut", "weights", "wasm"])
def test_a_program_that_draws_something_else_is_not_used(visit, damage) -> None:
    """The fakes: a file that is too short, other weights, a module that is none."""

    def spoil(route) -> None:
        answer = route.fetch()
        body = bytearray(answer.body())
        if damage == "cut":
            del body[-100:]
        elif damage == "wasm":
            at = body.index(b"\0asm")
            body[at : at + 4] = b"none"
        else:
            middle = len(body) // 2
            body[middle : middle + 60_000 : 2] = body[middle + 2 : middle + 60_002 : 2]
            body[middle : middle + 4000] = bytes(4000)
        route.fulfill(response=answer, body=bytes(body))

    page = visit(f"run={RUNS['vae']}", lambda page: page.route("**/ll/program/*", spoil))
    words = {"cut": "bytes were expected", "weights": "of 255 levels away", "wasm": "did not load"}[damage]
    until(lambda: words in why(page))
    assert badge(page) == "live"
    before = picture(page)
    assert np.abs(move(page, 0, 2.5) - before).max() > 5


def test_large_pictures_are_proved_as_strictly_as_small_ones(visit) -> None:
    page = visit(f"run={RUNS['vae']}&large=1")
    drawn_by(page, "live · browser")
    most = re.search(r"At most (\d) of 255 levels from the server's picture", why(page))
    assert most is not None and int(most[1]) <= 2
    before = picture(page)
    shown = move(page, 0, 2.5)
    assert np.abs(shown - before).max() > 5
    press(page, "Who", "server")
    drawn_by(page, "live")
    assert 2 < np.abs(move(page, 0, 2.4) - shown).max(), "a JPEG, as the server sends them"


def test_a_large_picture_that_is_wrong_in_one_place_alone_is_not_taken(visit) -> None:
    """The fake: other weights of a unit that draws one corner, so that the mean says little. Catches a proof on a JPEG,
    which has to bear with as much."""
    right, wrong = (Run.open(RUNS["vae"], device="cpu").model for _ in range(2))
    corner = [m for m in wrong.generator.modules() if isinstance(m, torch.nn.Linear)][-1]
    with torch.no_grad():
        corner.bias[485] += 6.0
        z = torch.from_numpy(np.asarray(right.sample_codes(1, 3), np.float32))
        away = 255 * (right.decode(z) - wrong.decode(z)).abs()
    assert float(away.max()) > 20 and float(away.mean()) < 3
    body = browser_engine.programs.data(wrong, None)
    page = visit(
        f"run={RUNS['vae']}&large=1",
        lambda page: page.route(
            "**/ll/program/*", lambda route: route.fulfill(response=route.fetch(), body=body)
        ),
    )
    until(lambda: "of 255 levels away from the server's" in why(page))
    assert badge(page) == "live"


def test_the_switch_loses_no_request(visit) -> None:
    """The hand moves until the browser takes over, and stops at that moment: its last code is drawn all the same."""
    page = visit(f"run={RUNS['vae']}&engine=server")
    drawn_by(page, "live")
    page.locator("input.ll-slider[data-index='0']").evaluate("""(slider) => {
      const badge = slider.getRootNode().querySelector(".ll-badge");
      window.moves = 0;
      window.kinds = [];
      const hand = setInterval(() => {
        window.last = Math.fround(2.5 * Math.sin(window.moves++ / 5));
        slider.value = window.last;
        slider.dispatchEvent(new Event("input"));
      }, 8);
      new MutationObserver(() => {
        window.kinds.push(badge.textContent);
        if (badge.textContent === "live · browser") clearInterval(hand);
      }).observe(badge, { childList: true });
    }""")
    press(page, "Who", "auto")
    page.wait_for_function("() => window.kinds.includes('live · browser')")
    page.wait_for_function("() => Math.abs(window.__latentlab.traverse.last_z[0] - window.last) < 1e-6")
    assert page.evaluate("window.moves") > 5 and page.evaluate("window.kinds") == ["live · browser"]
    shown, last = picture(page), page.evaluate("window.last")
    press(page, "Who", "server")
    drawn_by(page, "live")
    assert np.abs(move(page, 0, last) - shown).max() <= 1


def test_a_session_that_ends_meanwhile_stops_nothing(visit) -> None:
    page = visit(f"run={RUNS['vae']}")
    drawn_by(page, "live · browser")
    page.get_by_role("button", name="forget").click()
    before = picture(page)
    assert np.abs(move(page, 0, 2.5) - before).max() > 5
    press(page, "Edits", "units")
    shown = picture(page)
    until(lambda: np.abs(picture(page) - shown).max() > 5)
    drawn_by(page, "live · browser")


def test_a_program_is_fetched_once_for_all_pages_of_a_browser(browser, address) -> None:
    context, sizes = browser.new_context(), []
    for _ in range(2):
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(f"{address}/?run={RUNS['vae']}")
        drawn_by(page, "live · browser")
        entry = "performance.getEntriesByType('resource').filter((e) => e.name.includes('/ll/program/'))"
        sizes.append(page.evaluate(f"{entry}.map((e) => e.transferSize)"))
        page.close()
    context.close()
    assert [len(each) for each in sizes] == [1, 1] and sizes[0][0] > 100_000 and sizes[1][0] == 0
