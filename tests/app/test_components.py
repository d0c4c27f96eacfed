"""The components: what their Python side returns, and what a real browser sees while a person drags and clicks."""

import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch

from latentlab.app import components
from latentlab.app.components import Axis, Colour, Stage
from latentlab.app.components.map import MISSING, pack_colour, pack_points
from latentlab.config import VAEConfig
from latentlab.models.build import build_model
from latentlab.models.edits import Edit

PAGE = """
import numpy as np
import streamlit as st
import torch
from latentlab.app import components, engine
from latentlab.config import VAEConfig
from latentlab.models.build import build_model

st.set_page_config(layout="wide")


@st.cache_resource
def vivid():
    model = build_model(VAEConfig(), (3, 64, 64), seed=0).eval().requires_grad_(False)
    for parameter in model.generator.parameters():
        parameter.mul_(2.5)
    return model


model = vivid()
dim = model.latent_space.dim
z0 = np.linspace(-1, 1, dim).astype(np.float32)


def decode(z, edits=()):
    with torch.inference_mode():
        return model.decode(torch.as_tensor(z)[None], edits=edits)[0].numpy()


def maps(stage, edits):
    name, h = stage.split(".")[0], torch.as_tensor(z0)[None]
    with torch.inference_mode():
        h = h if name == "generator" else model.decode(h)
        return model.networks[name].activations(h, [stage], edits)[stage.split(".")[1]][0].numpy()


show = st.query_params.get("show", "traverse")
revision = st.query_params.get("revision", "0")
runs = st.session_state["runs"] = st.session_state.get("runs", 0) + 1
if show == "traverse":
    axes = [components.Axis(i, f"z{i}", -3, 3, kl=float(dim - i), inactive=i >= 8) for i in range(dim)]
    token = st.query_params.get("token") or engine.open_session("traverse", model)
    if st.button("expire"):
        engine.registry.close(token)
    if st.button("load"):
        st.session_state["loaded"] = "7"
    revision = st.session_state.get("loaded", revision)
    start = z0 if revision == "0" else -z0
    state = components.traverse(
        axes, start, key="t", image_shape=model.image_shape, token=token, render=decode, revision=revision,
        source=decode(z0),
    )
    st.text("state " + repr([round(float(v), 3) for v in state.z]) + f" {state.locks} {state.engine} {state.seed}")
    st.text(f"ranges {state.ranges.all} {state.ranges.own}")
elif show == "layers":
    stages = [components.Stage(i.address, i.shape) for i in model.generator.describe(torch.zeros(1, dim))]
    token = engine.open_session("layers", model, z=z0)
    state = components.layers(
        stages, key="l", image_shape=model.image_shape, token=token, stage="generator.deconv2",
        render=lambda stage, edits: components.LayersFrame(decode(z0), decode(z0, edits), maps(stage, edits)),
    )
    st.text("state " + repr([e.to_dict() for e in state.edits]) + f" {state.stage} {state.selected} {state.engine}")
else:
    xy = np.array([[x, y] for x in range(5) for y in range(5)], float)
    colour = components.Colour(np.arange(25) % 3, "kind", ("a", "b", "c"))
    names = [f"image {i}" for i in range(25)]
    state = components.latent_map(xy, key="m", colour=colour, marker=(2.5, 2.5), hover=names)
    st.text(f"state {state.point} {state.position} {state.polygon}")
st.text(f"runs {runs}")
"""


# ---- without a browser -------------------------------------------------------------------------------------------


def test_an_axis_needs_a_range():
    with pytest.raises(ValueError, match=r"Axis 'z3' needs low < high; got low=1\.0, high=1\.0"):
        Axis(3, "z3", 1.0, 1.0)


def test_points_are_packed_as_the_browser_reads_them():
    xy = np.array([[0.5, -1.0], [2.0, 3.0], [4.0, 5.0]])
    data = pack_points(xy)
    size = struct.unpack_from("<I", data)[0]
    assert (4 + size) % 4 == 0 and json.loads(data[4 : 4 + size]) == {"n": 3}
    assert np.frombuffer(data, "<f4", 6, 4 + size).tolist() == xy.ravel().tolist()
    data = pack_colour(Colour(np.array([2, 0, -1]), "shape", ("a", "b", "c")), 3)
    size = struct.unpack_from("<I", data)[0]
    header = json.loads(data[4 : 4 + size])
    assert header == {"n": 3, "colour": {"title": "shape", "names": ["a", "b", "c"]}}
    assert np.frombuffer(data, "<u2", 3, 4 + size).tolist() == [2, 0, MISSING]


def test_continuous_colour_keeps_its_range_and_marks_what_is_missing():
    data = pack_colour(Colour(np.array([-1.0, np.nan, 3.0])), 3)
    size = struct.unpack_from("<I", data)[0]
    assert json.loads(data[4 : 4 + size])["colour"] == {"title": "", "low": -1.0, "high": 3.0}
    assert np.frombuffer(data, "<u2", 3, 4 + size).tolist() == [0, MISSING, MISSING - 1]


@pytest.mark.parametrize(
    "xy, colour, sentence",
    [
        (np.zeros((3, 3)), None, r"coordinates \(n, 2\); got \(3, 3\)"),
        (np.array([[np.nan, 0.0]]), None, "finite coordinates"),
        (np.zeros((3, 2)), Colour(np.zeros(2)), r"one value a point, \(3,\); got \(2,\)"),
        (np.zeros((1, 2)), Colour(np.array([4]), "", ("a", "b")), "Categories run from 0 to 1; got 4"),
    ],
)
def test_what_can_not_be_mapped_is_said(xy, colour, sentence):
    with pytest.raises(ValueError, match=sentence):
        pack_points(xy)
        pack_colour(colour, len(xy))


def test_layers_say_which_stages_there_are():
    with pytest.raises(ValueError, match="at least one stage"):
        components.layers([], key="l", image_shape=(1, 4, 4))
    with pytest.raises(ValueError, match=r"can show generator\.fc1; got 'generator\.fc9'"):
        components.layers(
            [Stage("generator.fc1", (4,))], key="l", image_shape=(1, 4, 4), stage="generator.fc9"
        )


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "page.py"
    path.write_text(PAGE)
    return path


def page_test(script, **query):
    from streamlit.testing.v1 import AppTest

    test = AppTest.from_file(str(script), default_timeout=60)
    for name, value in query.items():
        test.query_params[name] = value
    return test


def texts(test):
    return [element.value for element in test.text]


def test_traverse_state_follows_what_the_browser_sent_until_the_revision_changes(script):
    test = page_test(script).run()
    assert (
        not test.exception
        and texts(test)[0].startswith("state [-1.0, ")
        and texts(test)[0].endswith("() rerun 0")
    )
    moved = {"z": [0.5] * 10, "locks": [2], "revision": "0", "engine": "rerun", "seed": 4}
    test.session_state["t"] = {"state": moved}
    test.run()
    assert texts(test)[0] == "state " + repr([0.5] * 10) + " (2,) rerun 4"
    test.query_params["revision"] = "1"
    test.run()
    assert texts(test)[0].startswith("state [1.0, ") and "(2,)" not in texts(test)[0]


@pytest.mark.parametrize(
    "state",
    [
        {"z": "nonsense", "revision": "0"},
        {"z": [None] * 10, "revision": "0"},
        {"z": [float("nan")] * 10, "revision": "0"},
        {"z": [0.0] * 10, "revision": "0", "locks": "abc", "seed": []},
        "nonsense",
    ],
)
def test_a_broken_traverse_state_is_passed_over(script, state):
    test = page_test(script)
    test.session_state["t"] = {"state": state}
    test.run()
    assert not test.exception and texts(test)[0].startswith("state [-1.0, ")


def test_layers_state_becomes_edits_and_broken_ones_are_passed_over(script):
    test = page_test(script, show="layers")
    edits = [{"stage": "generator.deconv2", "units": [1, 5]}]
    state = {"edits": edits, "stage": "generator.fc1", "selected": [1], "revision": "0", "engine": "rerun"}
    test.session_state["l"] = {"state": state}
    test.run()
    assert not test.exception
    assert (
        texts(test)[0] == "state [{'stage': 'generator.deconv2', 'units': (1, 5)}] generator.fc1 (1,) rerun"
    )
    for broken in ([{"units": [1]}], [{"stage": "generator.deconv2", "operation": "melt"}], 7, [3]):
        test.session_state["l"] = {"state": {**state, "edits": broken}}
        test.run()
        assert not test.exception and texts(test)[0].startswith("state [] ")


def test_map_state_is_a_point_or_a_position(script):
    test = page_test(script, show="map").run()
    assert not test.exception and texts(test)[0] == "state None None None"
    test.session_state["m"] = {
        "pick": {"point": 12, "serial": 1},
        "polygon": {"points": [[0, 0], [1, 0], [0, 1]]},
    }
    test.run()
    assert texts(test)[0] == "state 12 None ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))"
    test.session_state["m"] = {"pick": {"position": [0.5, -2], "serial": 2}}
    test.run()
    assert texts(test)[0] == "state None (0.5, -2.0) None"
    for broken in ({"point": 99}, {"point": "x"}, {"position": [1]}, {"position": [None, 2]}):
        test.session_state["m"] = {"pick": broken, "polygon": {"points": "abc"}}
        test.run()
        assert not test.exception and texts(test)[0] == "state None None None"


# ---- with a browser ----------------------------------------------------------------------------------------------

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LAUNCH = """
import sys
import streamlit as st
from latentlab.app import server
app = st.App(sys.argv[1], routes=server.routes(), lifespan=server.lifespan)
app.run(config={"server.port": int(sys.argv[2]), "server.address": "127.0.0.1", "server.headless": True,
                "server.fileWatcherType": "none", "browser.gatherUsageStats": False, "server.showEmailPrompt": False,
                "server.baseUrlPath": sys.argv[3]})
"""


def start(folder: Path, live: bool, base: str = ""):
    """A server over the page above, with our routes or without; yields its address."""
    page, launcher = folder / "page.py", folder / "launch.py"
    page.write_text(PAGE)
    launcher.write_text(LAUNCH)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    plain = f"-m streamlit run {page} --server.port {port} --server.address 127.0.0.1 --server.headless true"
    plain += " --browser.gatherUsageStats false --server.fileWatcherType none --server.showEmailPrompt false"
    command = (
        [sys.executable, str(launcher), str(page), str(port), base]
        if live
        else [sys.executable, *plain.split()]
    )
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    address = f"http://127.0.0.1:{port}" + (f"/{base}" if base else "")
    try:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and process.poll() is None:
            try:
                with urllib.request.urlopen(f"{address}/_stcore/health", timeout=2):
                    break
            except OSError:
                time.sleep(0.1)
        assert process.poll() is None, (folder / "log.txt").read_text()
        yield address
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    yield from start(tmp_path_factory.mktemp("live"), live=True)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    yield from start(tmp_path_factory.mktemp("plain"), live=False)


@pytest.fixture(scope="module")
def based(tmp_path_factory):
    yield from start(tmp_path_factory.mktemp("based"), live=True, base="tools/lab")


@pytest.fixture(scope="module")
def browser(chromium_path):
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium_path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Opens a page and afterwards fails on console errors, page errors and requests that leave the machine."""
    pages, troubles = [], []

    def open_page(url, expect=(), **options):
        page = browser.new_page(viewport={"width": 1280, "height": 900}, **options)
        pages.append(page)

        def note(kind, text):
            if not any(re.search(pattern, text) for pattern in expect):
                troubles.append(f"{kind}: {text}")

        page.on("console", lambda m: note("console", f"{m.text} {m.location}") if m.type == "error" else None)
        page.on("pageerror", lambda e: note("error", str(e)))
        page.on("requestfailed", lambda r: note("failed", r.url))
        page.on(
            "request",
            lambda r: (
                None
                if r.url.startswith(("http://127.0.0.1:", "blob:", "data:"))
                else troubles.append(f"outside: {r.url}")
            ),
        )
        page.on(
            "websocket",
            lambda w: None if w.url.startswith("ws://127.0.0.1:") else troubles.append(f"outside: {w.url}"),
        )
        page.goto(url)
        page.wait_for_selector("canvas[data-drawn='1']", timeout=60_000)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not troubles


def metrics(page, kind="traverse"):
    return page.evaluate(f"window.__latentlab.{kind}")


def state(page):
    return page.locator("[data-testid=stText]").filter(has_text="state ").inner_text()


def runs(page):
    return int(page.locator("[data-testid=stText]").filter(has_text="runs ").inner_text().split()[1])


def wait(page, expression, argument=None):
    page.wait_for_function(expression, arg=argument, timeout=30_000)


def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def canvas_pixels(page, selector):
    data = page.eval_on_selector(
        selector, "c => Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)"
    )
    return np.array(data).reshape(64, 64, 4)[..., :3]


@pytest.fixture(scope="module")
def model():
    """The page's model. Fresh weights draw flat grey, on which no test could fail, so they are turned up."""
    model = build_model(VAEConfig(), (3, 64, 64), seed=0).eval().requires_grad_(False)
    for parameter in model.generator.parameters():
        parameter.mul_(2.5)
    codes = np.linspace(-1, 1, 10), np.linspace(1, -1, 10)
    assert np.abs(decoded(model, codes[0]) - decoded(model, codes[1])).max() > 10
    return model


@torch.inference_mode()
def decoded(model, z, edits=()):
    image = model.decode(torch.tensor(z, dtype=torch.float32)[None], edits=edits)[0]
    return np.moveaxis(image.numpy() * 255, 0, -1)


def slider(page, index):
    return page.locator(f"input.ll-slider[data-index='{index}']")


def value(page, index):
    return float(slider(page, index).evaluate("e => e.value"))


def centre(locator):
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, box["width"]


@pytest.mark.browser
def test_the_image_changes_while_a_slider_is_dragged(live, visit, model, record_property):
    page = visit(live)
    assert page.locator(".ll-badge").inner_text() == "live"
    before, started = state(page), metrics(page)["frames"]
    x, y, width = centre(slider(page, 0))
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(60):
        page.mouse.move(x + width * 0.4 * np.sin(step / 8), y)
        page.wait_for_timeout(15)
    during = metrics(page)
    assert during["engine"] == "server" and during["frames"] - started >= 20
    assert state(page) == before  # Python hears of it on release, not before
    page.mouse.move(x + width * 0.3, y)
    page.mouse.up()
    wait(page, "() => Math.abs(window.__latentlab.last_z[0] - 1.8) < 0.3")
    until(lambda: state(page) != before)
    last = metrics(page)
    latencies = np.array(last["latencies_ms"][-60:])
    record_property("drag_ms_p50", float(np.median(latencies)))
    record_property("drag_ms_p95", float(np.quantile(latencies, 0.95)))
    # The budget (p95 of 50 ms on an idle machine) is the benchmark's; a rerun takes 200 ms and more even there.
    assert np.median(latencies) < 120
    assert np.abs(canvas_pixels(page, "canvas.ll-main") - decoded(model, last["last_z"])).max() <= 1
    assert f"state [{last['last_z'][0]:.3f}"[:10] == state(page)[:10] and "server" in state(page)


@pytest.mark.browser
def test_every_control_of_the_sliders(live, visit):
    page = visit(live)
    start = value(page, 3)
    slider(page, 3).focus()
    page.keyboard.press("ArrowRight")
    assert value(page, 3) == pytest.approx(start + 0.03, abs=1e-4)
    page.keyboard.press("Shift+ArrowRight")
    assert value(page, 3) == pytest.approx(start + 0.33, abs=1e-4)
    page.keyboard.press("Home")
    assert value(page, 3) == -3
    until(lambda: f", -3.0, {1 / 9 * -1 + 0:.3f}" in state(page) or ", -3.0, " in state(page))
    page.keyboard.press("z")
    assert value(page, 3) == pytest.approx(start, abs=1e-4)
    page.keyboard.press("Shift+Z")
    assert value(page, 3) == -3
    slider(page, 3).dblclick(position={"x": 30, "y": 13})
    assert value(page, 3) == 0
    page.get_by_label("lock z1", exact=True).click()
    held, free = value(page, 1), value(page, 2)
    page.keyboard.press("r")
    assert value(page, 1) == held and value(page, 2) != free
    assert page.locator(".ll-seed").input_value() == "1"
    first = value(page, 2)
    page.keyboard.press("r")
    page.locator(".ll-seed").fill("1")
    page.keyboard.press("Enter")
    assert value(page, 2) == pytest.approx(first)  # the same seed gives the same code
    until(lambda: "(1,) server 1" in state(page))
    page.get_by_label("Return all unlocked sliders to their ticks").click()
    assert value(page, 2) == 0 and value(page, 1) == held
    page.get_by_label("value of z2", exact=True).fill("1.25")
    page.keyboard.press("Enter")
    assert value(page, 2) == 1.25
    page.get_by_label("value of z2", exact=True).fill("nonsense")
    page.keyboard.press("Enter")
    assert value(page, 2) == 1.25
    slots = page.locator(".ll-slot")
    slots.nth(0).click()
    page.get_by_label("Return all unlocked sliders to their ticks").click()
    slots.nth(1).click()
    slots.nth(0).click()
    assert value(page, 2) == 1.25
    page.get_by_label("blend from slot A to slot B").evaluate(
        "e => { e.value = .6; e.dispatchEvent(new Event('input')) }"
    )
    assert value(page, 2) == pytest.approx(0.5)
    assert page.locator("details.ll-idle").inner_text().startswith("Inactive (2)")
    assert page.locator("input.ll-slider:not([aria-label])").count() == 0


@pytest.mark.browser
def test_a_new_revision_moves_the_sliders_and_can_be_undone(live, visit):
    page = visit(live)
    assert value(page, 0) == -1
    page.get_by_role("button", name="load").click()
    until(lambda: value(page, 0) == 1)
    wait(page, "() => window.__latentlab.last_z[0] === 1")
    page.locator("canvas.ll-main").hover()
    page.keyboard.press("z")
    assert value(page, 0) == -1
    until(lambda: state(page).startswith("state [-1.0"))


@pytest.mark.browser
def test_an_expired_session_is_opened_again(live, visit):
    page = visit(live)
    page.get_by_role("button", name="expire").click()
    until(lambda: runs(page) >= 2)
    slider(page, 0).focus()
    page.keyboard.press("End")
    wait(page, "() => window.__latentlab.last_z[0] === 3")
    assert metrics(page)["engine"] == "server"
    until(lambda: page.locator(".ll-badge").inner_text() == "live")


@pytest.mark.browser
def test_without_our_server_the_same_sliders_follow_by_reruns(plain, visit, model):
    page = visit(plain)
    assert page.locator(".ll-badge").inner_text() == "on rerun"
    slider(page, 0).focus()
    page.keyboard.press("End")
    wait(page, "() => (window.__latentlab.last_z ?? [])[0] === 3")
    assert metrics(page)["engine"] == "rerun"
    assert np.abs(canvas_pixels(page, "canvas.ll-main") - decoded(model, metrics(page)["last_z"])).max() <= 1


@pytest.mark.browser
def test_without_our_server_a_range_reaches_python_too(plain, visit):
    """Fails ranges that only a live connection tells of."""
    page = visit(plain)
    page.locator("button.ll-opener[aria-label^='range of z1,']").click()
    page.get_by_label("high end of the range of z1", exact=True).fill("8")
    page.keyboard.press("Enter")
    page.get_by_text("ranges None ((1, -3.0, 8.0),)").wait_for()
    slider(page, 1).focus()
    page.keyboard.press("End")
    wait(page, "() => (window.__latentlab.last_z ?? [])[1] === 8")
    page.get_by_label("Ranges: how far all sliders reach").click()
    assert page.get_by_role("button", name="all ranges: ± 2 σ").count() == 0  # these sliders have no prior
    page.get_by_role("button", name="all ranges: Data").click()
    page.get_by_text("ranges None ()").wait_for()
    assert slider(page, 1).get_attribute("max") == "3" and value(page, 1) == 3  # as far as it goes; z stays
    assert "8.0" in state(page)


@pytest.mark.browser
def test_an_unreachable_socket_falls_back_to_reruns(plain, visit, model):
    page = visit(f"{plain}/?token=nobody", expect=["WebSocket connection to 'ws://127.0.0.1"])
    until(lambda: page.locator(".ll-badge").inner_text() == "on rerun", 40)
    slider(page, 1).focus()
    page.keyboard.press("End")
    wait(page, "() => (window.__latentlab.last_z ?? [])[1] === 3")
    assert np.abs(canvas_pixels(page, "canvas.ll-main") - decoded(model, metrics(page)["last_z"])).max() <= 1


@pytest.mark.browser
def test_under_a_base_path_the_routes_are_found(based, visit):
    page = visit(based)
    assert page.locator(".ll-badge").inner_text() == "live"
    visit(f"{based}/?show=map")


def unit_centre(page, unit):
    box, grid = page.locator("canvas.ll-sheet").bounding_box(), metrics(page, "layers")["grid"]
    size, columns = grid["size"] + grid["gap"], grid["columns"]
    return box["x"] + (unit % columns + 0.4) * size, box["y"] + (unit // columns + 0.4) * size


@pytest.mark.browser
@pytest.mark.parametrize("server", ["live", "plain"])
def test_a_second_click_switches_a_unit_off_and_the_picture_follows(
    server, request, visit, model, record_property
):
    page = visit(f"{request.getfixturevalue(server)}/?show=layers")
    page.wait_for_selector("canvas.ll-sheet[width]")
    until(lambda: page.locator("canvas.ll-sheet").bounding_box()["width"] > 400)
    z = np.linspace(-1, 1, 10)
    assert np.abs(canvas_pixels(page, "canvas.ll-main") - decoded(model, z)).max() <= 1
    plain = decoded(model, z)
    effects = [np.abs(decoded(model, z, [Edit("generator.deconv2", (u,))]) - plain).max() for u in range(32)]
    unit = int(np.argmax(effects))
    assert effects[unit] > 4
    page.mouse.click(*unit_centre(page, unit))  # looks at it, and changes nothing
    until(lambda: f"generator.deconv2 ({unit},)" in state(page))
    assert metrics(page, "layers")["difference"]["largest"] == 0
    page.mouse.click(*unit_centre(page, unit))
    until(lambda: f"'units': ({unit},)" in state(page))
    wait(page, "() => window.__latentlab.layers.difference.largest > 0")
    record_property("toggle_ms", metrics(page, "layers")["latencies_ms"][-1])
    off = Edit("generator.deconv2", (unit,))
    assert np.abs(canvas_pixels(page, "canvas.ll-main") - decoded(model, z, [off])).max() <= 1
    assert np.abs(canvas_pixels(page, "canvas.ll-original") - decoded(model, z)).max() <= 1
    assert metrics(page, "layers")["difference"]["largest"] == pytest.approx(
        effects[unit] / 255, abs=1.5 / 255
    )
    assert page.locator(".ll-mark").nth(4).inner_text() == "1"
    page.mouse.click(*unit_centre(page, unit))
    until(lambda: state(page).startswith("state [] "))
    wait(page, "() => window.__latentlab.layers.difference.largest === 0")


@pytest.mark.browser
def test_selecting_scaling_undoing_and_stages(live, visit, model):
    page = visit(f"{live}/?show=layers")
    until(lambda: page.locator("canvas.ll-sheet").bounding_box()["width"] > 400)
    x0, y0 = unit_centre(page, 1)
    x1, y1 = unit_centre(page, 3)
    page.mouse.move(x0, y0)
    page.mouse.down()
    page.mouse.move((x0 + x1) / 2, y0 + 5)
    page.mouse.move(x1, y1 + 5)
    page.mouse.up()
    assert page.locator(".ll-count").last.inner_text() == "3 selected"
    page.locator(".ll-scale").evaluate(
        "e => { e.value = 2; e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change')) }"
    )
    scaled = Edit("generator.deconv2", (1, 2, 3), "scale", 2.0)
    until(lambda: state(page).startswith(f"state [{scaled.to_dict()!r}] generator.deconv2 (1, 2, 3)"))
    z = np.linspace(-1, 1, 10)
    until(lambda: np.abs(canvas_pixels(page, "canvas.ll-main") - decoded(model, z, [scaled])).max() <= 1)
    page.keyboard.press("Delete")
    until(lambda: "'units': (1, 2, 3)}]" in state(page))
    page.keyboard.press("z")
    until(lambda: state(page).startswith(f"state [{scaled.to_dict()!r}]"))
    page.keyboard.press("r")
    until(lambda: state(page).startswith("state [] "))
    page.keyboard.press("z")
    until(lambda: state(page).startswith(f"state [{scaled.to_dict()!r}]"))
    page.locator("[data-stage='generator.fc1']").click()
    until(lambda: "generator.fc1 ()" in state(page))
    assert state(page).startswith(f"state [{scaled.to_dict()!r}]")  # edits of another stage stay
    page.locator("canvas.ll-sheet").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    until(lambda: "'generator.fc1', 'units': (1,)" in state(page))
    page.locator(".ll-chip button").last.click()
    until(lambda: "generator.fc1', 'units'" not in state(page))


def map_place(page, x, y):
    """Where data coordinates lie on the screen: 25 points on a 4 x 4 square, fitted with a margin of 30."""
    box = page.locator("canvas.ll-points").bounding_box()
    scale = min((box["width"] - 60) / 4, (box["height"] - 60) / 4)
    return box["x"] + box["width"] / 2 + (x - 2) * scale, box["y"] + box["height"] / 2 - (y - 2) * scale


@pytest.mark.browser
@pytest.mark.parametrize("server", ["live", "plain"])
def test_map_picks_points_positions_and_lassos(server, request, visit):
    page = visit(f"{request.getfixturevalue(server)}/?show=map")
    assert metrics(page, "map")["points"] == 25
    assert metrics(page, "map")["engine"] == ("server" if server == "live" else "rerun")
    page.mouse.move(*map_place(page, 3, 1))
    assert page.locator(".ll-tip").inner_text().split("\n") == ["image 16", "kind: b"]
    page.mouse.click(*map_place(page, 3, 1))
    until(lambda: state(page) == "state 16 None None")
    page.mouse.click(*map_place(page, 1.5, 0.5))
    until(lambda: state(page).startswith("state None (1.5"))
    numbers = [float(v) for v in re.findall(r"[\d.]+", state(page).split("(")[1])]
    assert numbers == pytest.approx([1.5, 0.5], abs=0.02)
    page.keyboard.down("Shift")
    page.mouse.move(*map_place(page, 0.5, 0.5))
    page.mouse.down()
    for corner in ((1.5, 0.5), (1.5, 1.5), (0.5, 1.5), (0.5, 0.6)):
        page.mouse.move(*map_place(page, *corner), steps=8)
    page.mouse.up()
    page.keyboard.up("Shift")
    until(lambda: "((" in state(page))
    corners = np.array([float(v) for v in re.findall(r"-?[\d.]+", state(page).split("((")[1])]).reshape(-1, 2)
    assert corners.min() == pytest.approx(0.5, abs=0.05) and corners.max() == pytest.approx(1.5, abs=0.05)
    page.mouse.move(*map_place(page, 0, 0))
    page.mouse.wheel(0, -400)
    page.mouse.click(*map_place(page, 0, 0))  # the place under the pointer stays where it is
    until(lambda: state(page).startswith("state 0 None"))
    page.get_by_role("button", name="a", exact=True).click()
    page.get_by_label("Show all points (0)").click()
    page.mouse.click(*map_place(page, 0, 0))  # hidden now, so it is an empty place
    until(lambda: state(page).startswith("state None ("))


@pytest.mark.browser
def test_a_hundred_thousand_points_stay_fluent(live, visit, tmp_path, record_property):
    page = visit(f"{live}/?show=map")
    took = page.evaluate(
        """async () => {
          const inside = (e) => e.shadowRoot?.querySelector('[data-testid=ll-map]');
          const root = [...document.querySelectorAll('*')].map(inside).find(Boolean);
          const view = root.__ll, n = 100000;
          view.xy = Float32Array.from({length: 2 * n}, () => Math.random() * 4);
          view.codes = Uint16Array.from({length: n}, (_, i) => i % 3);
          view.n = n;
          const times = [];
          for (let i = 0; i < 15; i++) { const t = performance.now(); view.paint(); times.push(performance.now() - t); }
          return times.sort((a, b) => a - b)[7];
        }"""
    )
    record_property("paint_ms_100k", took)
    assert took < 150
