"""Ranges in a real Chromium: set by the keyboard alone, for one slider and for all, refused, undone and handed on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from live import free_port
from visiting import tracebacks

from latentlab import Run, analysis

pytestmark = pytest.mark.browser
RUN = "zoo:sprites-beta-vae"
PAGE = f"/traverse?run={RUN}&image=1234&engine=Server&below=Plane"
SERVE = "import sys; from latentlab.app import server; server.serve(int(sys.argv[1]), sys.argv[2])"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory):
    """Our own server over the shipped runs; its address."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(port), str(folder / "runs")],
            cwd=folder,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2):
                    break
            except OSError:
                time.sleep(0.1)
        assert process.poll() is None, (folder / "log.txt").read_text()
        yield f"http://127.0.0.1:{port}"
        assert not tracebacks((folder / "log.txt").read_text()), (folder / "log.txt").read_text()[-3000:]
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def visit(chromium_path: str, address: str):
    """Opens pages, each in a browser context of its own; fails on errors and on requests that leave."""
    playwright, troubles = pytest.importorskip("playwright.sync_api"), []

    def outside(url: str) -> None:
        if not url.startswith((address, address.replace("http", "ws"), "blob:", "data:")):
            troubles.append(f"outside: {url}")

    def console(message) -> None:
        if message.type == "error" and "/_stcore/" not in message.location.get("url", ""):
            troubles.append(f"console: {message.text} {message.location}")

    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium_path, args=ARGUMENTS)

        def open_page(path: str):
            context = browser.new_context(
                viewport={"width": 1440, "height": 1000}, permissions=["clipboard-read", "clipboard-write"]
            )
            page = context.new_page()
            page.set_default_timeout(45_000)
            page.on("console", console)
            page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
            page.on("request", lambda request: outside(request.url))
            page.on("websocket", lambda socket: outside(socket.url))
            page.goto(path if path.startswith("http") else address + path)
            page.wait_for_function("() => (window.__latentlab?.traverse?.frames ?? 0) > 0")
            page.get_by_text("latents are active").wait_for()
            settled(page)
            return page

        yield open_page
        for context in browser.contexts:
            for page in context.pages:
                troubles += page.locator("[data-testid=stException]").all_inner_texts()
        browser.close()
    assert not troubles


def settled(page) -> None:
    """Waits until sliders have their final ranges and the script rests."""
    page.wait_for_function(
        "() => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'"
        " && !document.querySelector('[data-testid=stProgress]')"
    )


def until(condition, what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def ends(page, index: int) -> tuple[float, float]:
    slider = page.locator(f"input.ll-slider[data-index='{index}']")
    return float(slider.get_attribute("min")), float(slider.get_attribute("max"))


def pixels(page, selector: str) -> np.ndarray:
    data = page.locator(selector).evaluate(
        "c => [c.width, c.height, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    )
    return np.array(data[2:], dtype=float).reshape(data[1], data[0], 4)[..., 0]


def test_ranges_are_set_refused_undone_and_handed_on(visit) -> None:
    """Fails a range that moves the picture, that mouse or undo is needed for, whose ends show something else than they
    reach, and one that a colleague does not see."""
    run = Run.open(RUN, device="cpu")
    page = visit(PAGE)
    usual, others = ends(page, 0), ends(page, 8)
    z = np.array(page.evaluate("window.__latentlab.traverse.last_z"), np.float32)
    opener = page.locator("button.ll-opener[aria-label^='range of z0']")
    opener.focus()
    page.keyboard.press("Enter")
    low = page.get_by_label("low end of the range of z0")
    assert low.evaluate("e => e === e.getRootNode().activeElement")
    page.keyboard.type("-5")
    page.keyboard.press("Tab")
    page.keyboard.type("4,5")
    page.keyboard.press("Enter")
    assert ends(page, 0) == (-5.0, 4.5) and low.count() == 0
    assert opener.get_attribute("aria-label").endswith("−5 to 4.5")
    assert opener.evaluate("e => e === e.getRootNode().activeElement")

    def ended() -> bool:  # the picture at the slider's high end
        code = z.copy()
        code[0] = 4.5
        image = analysis.decode_latents(run.model, code[None])[0, 0]
        shown = pixels(page, ".ll-row:has(input[data-index='0']) canvas.ll-glimpse:last-child")
        return bool(np.abs(shown - image.reshape(32, 2, 32, 2).mean(axis=(1, 3)) * 255).max() <= 2)

    until(ended, "the picture at the end is of another range")
    assert page.evaluate("window.__latentlab.traverse.last_z") == z.tolist()  # nothing moved
    page.locator("input.ll-slider[data-index='0']").focus()
    page.keyboard.press("End")
    until(lambda: page.evaluate("window.__latentlab.traverse.last_z")[0] == 4.5, "the end was not reached")
    assert page.locator(".ll-outside").count() == 0

    opener.focus()
    page.keyboard.press("Enter")
    for typed, sentence in (
        ("6", "A range goes from a lower number to a higher one; got 6 to 4.5."),
        ("nan", "A range needs two numbers, such as −2.5; got “nan”."),
        ("-1e9", "A range lies between −1,000,000 and 1,000,000; got −1000000000 to 4.5."),
        ("", "A range needs two numbers, such as −2.5; got “”."),
    ):
        low.fill(typed)
        page.keyboard.press("Enter")
        assert page.locator(".ll-editor .ll-note").inner_text() == sentence
        assert low.input_value() == typed and ends(page, 0) == (-5.0, 4.5)
    page.keyboard.press("Escape")
    assert low.count() == 0

    page.get_by_role("button", name="Ranges: how far").click()
    page.get_by_role("button", name="all ranges: ± 2 σ").click()
    assert ends(page, 0) == ends(page, 8) == (-2.0, 2.0)
    assert (
        page.locator(".ll-outside input.ll-slider").get_attribute("data-index") == "0"
    )  # 4.5 is still there
    page.get_by_label("low end of all ranges").fill("-4")
    page.get_by_label("high end of all ranges").fill("4")
    page.keyboard.press("Enter")
    assert ends(page, 0) == ends(page, 8) == (-4.0, 4.0)
    undo, redo = page.get_by_label("Undo (Z)"), page.get_by_label("Redo (Shift+Z)")
    undo.click()
    assert ends(page, 8) == (-2.0, 2.0)
    undo.click()
    assert ends(page, 0) == (-5.0, 4.5) and ends(page, 8) == others
    undo.click()
    undo.click()
    assert ends(page, 0) == usual and undo.is_disabled()
    for _ in range(3):
        redo.click()
    page.locator("button.ll-opener[aria-label^='range of z8']").click()
    page.get_by_label("high end of the range of z8").fill("0.25")
    page.get_by_label("low end of the range of z8").focus()
    page.locator(".ll-seed").focus()  # leaving is enough
    assert ends(page, 8) == (-2.0, 0.25)
    page.get_by_role("button", name="Copy link").click()
    page.get_by_role("button", name="Copy link").get_by_text("Copied").wait_for()
    link = page.evaluate("navigator.clipboard.readText()")

    other = visit(link)
    until(lambda: ends(other, 8) == (-2.0, 0.25), "the range was not handed on")
    assert ends(other, 0) == (-2.0, 2.0)
    assert other.evaluate("window.__latentlab.traverse.last_z") == page.evaluate(
        "window.__latentlab.traverse.last_z"
    )
    other.get_by_text("Ranges are ± 2 σ of the prior; 1 slider has a range of its own").wait_for()
    other.get_by_role("link", name="Layers", exact=True).click()
    other.locator("canvas.ll-sheet").wait_for()
    other.get_by_role("link", name="Traverse", exact=True).click()  # ranges outlive a change of page
    other.locator("input.ll-slider[data-index='8']").wait_for()
    until(lambda: ends(other, 8) == (-2.0, 0.25), "the range was lost on the way")
    other.get_by_role("button", name="Ranges: how far").click()
    other.get_by_role("button", name="all ranges: Data").click()
    assert ends(other, 8) == others and ends(other, 0) == usual


def test_the_seed_plane_stands_at_the_same_place_elsewhere(visit) -> None:
    page = visit("/traverse?run=zoo:digits-vae&below=Seed+plane&start=Seed&plane=20")
    field = page.locator(".ll-field")
    field.focus()
    for key in ("Shift+ArrowRight", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    page.get_by_text("Between seeds, nearest 324").wait_for()
    code = np.array(page.evaluate("window.__latentlab.seed_plane.last_z"))
    page.wait_for_timeout(400)
    page.get_by_role("button", name="Copy link").click()
    page.get_by_role("button", name="Copy link").get_by_text("Copied").wait_for()
    other = visit(page.evaluate("navigator.clipboard.readText()"))
    other.get_by_text("Between seeds, nearest 324").wait_for()
    until(
        lambda: np.allclose(other.evaluate("window.__latentlab.seed_plane?.last_z ?? [0]"), code, atol=1e-6),
        "the plane stands elsewhere",
    )
