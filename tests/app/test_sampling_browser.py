"""The seed plane and the truncation as a person meets them: live while dragged, by mouse and by keys, and true."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
import torch
from live import free_port
from visiting import tracebacks

import latentlab
from latentlab.latents import bilinear_weights, blend

pytestmark = pytest.mark.browser
SERVE = "import sys; from latentlab.app import server; server.serve(int(sys.argv[1]), sys.argv[2])"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory):
    """Our own server over the shipped runs."""
    port, folder = free_port(), tmp_path_factory.mktemp("server")
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(port), str(folder)],
            cwd=folder,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        end = time.monotonic() + 90
        while time.monotonic() < end and process.poll() is None:
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


@pytest.fixture
def visit(chromium_path: str, address: str):
    """Opens a page; fails on errors in the console, in scripts or shown, and on requests that fail or leave."""
    playwright = pytest.importorskip("playwright.sync_api")
    troubles: list[str] = []

    def note(text: str, url: str) -> None:
        # Streamlit itself asks for its health under a page's address first, which is answered by a 404.
        if "/traverse/_stcore/" not in url:
            troubles.append(text)

    def leaves(url: str) -> None:
        if not url.startswith((address, address.replace("http", "ws"), "blob:", "data:")):
            troubles.append(f"outside: {url}")

    def console(message) -> None:
        if message.type == "error":
            note(f"console: {message.text} {message.location}", message.location.get("url", ""))

    def answered(response) -> None:
        if response.status >= 400:
            note(f"refused: {response.status} {response.url}", response.url)

    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium_path, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1440, "height": 1500}, has_touch=True)
        page.set_default_timeout(60_000)
        page.on("console", console)
        page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        page.on("requestfailed", lambda request: note(f"failed: {request.url}", request.url))
        page.on("response", answered)
        page.on("request", lambda request: leaves(request.url))
        page.on("websocket", lambda socket: leaves(socket.url))

        def opened(path: str):
            page.goto(address + path)
            return page

        yield opened
        assert not page.locator("[data-testid=stException], [data-testid=stAlert]").count()
        browser.close()
    assert not troubles


def numbers(page, kind: str) -> np.ndarray:
    return np.array(page.evaluate(f"window.__latentlab.{kind}?.last_z ?? []"))


def until(page, ready, what: str) -> None:
    end = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < end, what
        page.wait_for_timeout(50)


def settled(page, kind: str) -> np.ndarray:
    """The last code drawn, once nothing new is drawn."""
    before = None
    while before is None or not np.array_equal(before, numbers(page, kind)) or not before.size:
        before = numbers(page, kind)
        page.wait_for_timeout(400)
    return before


def test_the_seed_plane_follows_the_pointer_and_its_code_goes_to_the_sliders(visit):
    """Would catch a browser that blends otherwise than Python, and a plane that answers only when let go."""
    model = latentlab.Run.open("zoo:digits-infogan", device="cpu").model
    page = visit("/traverse?run=zoo:digits-infogan&below=Seed+plane&start=Seed&plane=20")
    page.get_by_text("latents are active").wait_for()  # nothing above the plane moves from now on
    field = page.locator(".ll-field")
    field.wait_for()
    until(page, lambda: numbers(page, "seed_plane").size, "the plane never drew its middle")
    settled(page, "seed_plane")
    field.scroll_into_view_if_needed()
    field.focus()
    for key in ["Home", *["ArrowRight"] * 3]:
        page.keyboard.press(key)
    seeds = [20 + 303, 20 + 304, 20 + 403, 20 + 404]
    codes = torch.cat([model.sample_codes(1, seed) for seed in seeds])
    wanted = blend(model.latent_space, codes, bilinear_weights(0.3, 0.0))[0].numpy()
    page.get_by_text("Between seeds, nearest 323").wait_for()
    found = settled(page, "seed_plane")
    np.testing.assert_allclose(found, wanted, atol=1e-4)

    box = field.bounding_box()
    begin = page.evaluate("window.__latentlab.seed_plane.frames")
    page.mouse.move(box["x"] + 40, box["y"] + 40)
    page.mouse.down()
    for step in range(30):
        page.mouse.move(box["x"] + 40 + 11 * step, box["y"] + 40 + 9 * step)
        page.wait_for_timeout(30)
    during = page.evaluate("window.__latentlab.seed_plane.frames") - begin
    page.mouse.up()
    assert during >= 5, f"{during} pictures while dragging"
    page.get_by_role("button", name="Go to the nearest seed").click()
    page.wait_for_timeout(600)
    held = settled(page, "seed_plane")
    page.get_by_role("button", name="Put on the sliders").click()
    until(
        page, lambda: np.allclose(numbers(page, "traverse"), held, atol=1e-4), "the sliders took another code"
    )
    start = model.sample_codes(1, 0)[0].numpy()
    page.get_by_role("button", name="Undo (Z)").click()
    until(page, lambda: np.allclose(numbers(page, "traverse"), start, atol=1e-4), "undo did not return")


def test_the_plane_on_show_is_drawn_at_the_temperature_that_is_chosen(visit):
    """Would catch a picture at the old temperature beside a code at the new one, and a place that is lost over it."""
    model = latentlab.Run.open("zoo:digits-vae", device="cpu").model
    page = visit("/traverse?run=zoo:digits-vae&below=Seed+plane&start=Seed&plane=20")
    page.get_by_text("latents are active").wait_for()
    page.locator(".ll-field").focus()
    page.keyboard.press("Shift+ArrowRight")
    page.get_by_text("Seed 324", exact=True).wait_for()
    code = model.sample_codes(1, 324)[0].numpy()
    np.testing.assert_allclose(settled(page, "seed_plane"), code, atol=1e-4)
    page.locator(".ll-field").evaluate("field => { field.dataset.mounted = 'once'; }")
    slider = page.get_by_role("slider", name="Temperature")
    slider.focus()
    for _ in range(10):
        slider.press("ArrowLeft")
    until(page, lambda: "temperature=0.5" in page.url, "the temperature is not in the address")
    until(
        page,
        lambda: np.allclose(numbers(page, "seed_plane"), 0.5 * code, atol=1e-4),
        "the plane is still drawn at the old temperature",
    )
    assert page.locator(".ll-field").get_attribute("data-mounted") == "once", (
        "the plane was taken away meanwhile"
    )
    page.get_by_role("button", name="Put on the sliders").click()
    until(page, lambda: np.allclose(numbers(page, "traverse"), 0.5 * code, atol=1e-4), "another code was put")


def test_truncation_is_live_and_stays_in_the_address(visit):
    """Would catch a picture at psi 0 that is not the mean style's, a dice that resets psi, and a lost address."""
    model = latentlab.Run.open("zoo:digits-stylegan", device="cpu").model
    page = visit("/traverse?run=zoo:digits-stylegan")
    psi = page.get_by_role("slider", name="truncation (ψ)")
    psi.wait_for()
    until(page, lambda: numbers(page, "traverse").size == 33, "no picture of 32 numbers and psi")
    psi.focus()
    begin = page.evaluate("window.__latentlab.traverse.frames")
    for _ in range(3):
        page.keyboard.press("PageDown")
    page.keyboard.press("Home")
    until(page, lambda: numbers(page, "traverse")[-1] == 0.0, "psi did not reach 0")
    assert page.evaluate("window.__latentlab.traverse.frames") > begin
    until(page, lambda: "psi=0" in page.url, "psi is not in the address")
    settled(page, "traverse")
    pixels = page.locator(".ll-traverse .ll-main").evaluate(
        "c => Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).filter((_, i) => i % 4 === 0)"
    )
    with torch.inference_mode():
        mean = model.decode(model.mapping.mean[None], space="w")[0, 0].numpy()
    assert np.abs(np.array(pixels).reshape(mean.shape) - 255 * mean).max() <= 3
    page.get_by_role("button", name="Draw a new code").click()
    settled(page, "traverse")
    assert numbers(page, "traverse")[-1] == 0.0
