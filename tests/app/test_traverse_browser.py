"""Traverse in a real Chromium: clicks on images, the order of sliders, a copied code, and a link to all of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from visiting import chromium, exceptions, explorer, until, watch

from latentlab import Run, analysis
from latentlab.models.edits import Edit

pytestmark = pytest.mark.browser
RUN = "zoo:sprites-beta-vae"
PAGE = f"run={RUN}&image=1234&engine=Server"  # one engine, so that pictures are equal to the last bit
STAGE = "generator.deconv1"


@pytest.fixture(scope="module")
def run() -> Run:
    return Run.open(RUN, device="cpu")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory):
    """Our own server over the shipped runs; its address."""
    folder = tmp_path_factory.mktemp("server")
    with explorer(folder / "runs", folder) as address:
        yield address


@pytest.fixture(scope="module")
def browser(chromium_path: str):
    with chromium(chromium_path) as browser:
        yield browser


@pytest.fixture
def visit(browser, address: str):
    """Opens pages, each in a browser context of its own; fails on errors and on requests that leave."""
    contexts, troubles = [], []

    def open_page(path: str):
        context = browser.new_context(
            viewport={"width": 1440, "height": 1000}, permissions=["clipboard-read", "clipboard-write"]
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(45_000)
        watch(page, address, troubles)
        page.goto(path if path.startswith("http") else address + path)
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            troubles += exceptions(page)
        context.close()
    assert not troubles


def settled(page) -> None:
    """Waits until sliders have their final ranges and the script rests."""
    page.wait_for_function(
        "() => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'"
        " && !document.querySelector('[data-testid=stProgress]')",
        timeout=45_000,
    )


def ready(page) -> None:
    page.wait_for_function("() => (window.__latentlab?.traverse?.frames ?? 0) > 0", timeout=45_000)
    page.get_by_text("latents are active").wait_for()
    page.locator("img.ll-sheet-image").first.wait_for()
    settled(page)


def code(page) -> list[float]:
    """The sliders' code, as "Copy z" gives it."""
    page.get_by_role("button", name="Copy z as JSON").click()
    page.get_by_role("button", name="Copy z as JSON").get_by_text("Copied").wait_for()
    return json.loads(page.evaluate("navigator.clipboard.readText()"))


def here(page) -> str:
    """The address; Playwright's own idea of it only follows while it talks to the page."""
    return page.evaluate("location.href")


def pixels(page) -> np.ndarray:
    data = page.eval_on_selector(
        "canvas.ll-main",
        "c => [c.width, c.height, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]",
    )
    return np.array(data[2:], dtype=float).reshape(data[1], data[0], 4)[..., 0]


def shows(page, run: Run, z, edits=()) -> bool:
    image = analysis.decode_latents(run.model, np.array([z], np.float32), edits=edits)[0, 0] * 255
    return bool(np.abs(pixels(page) - image).max() <= 1)


def click_cell(page, grid, row: int, column: int, box: np.ndarray) -> None:
    """Clicks the middle of a cell, wherever the page shows the picture and however large."""
    image = page.locator("img.ll-sheet-image")
    image.scroll_into_view_if_needed()
    shown, wide = image.bounding_box(), image.evaluate("i => i.naturalWidth")
    scale = shown["width"] / wide
    left, top, right, bottom = box[row, column] * scale
    page.mouse.click(shown["x"] + (left + right) / 2, shown["y"] + (top + bottom) / 2)


def test_a_click_on_an_image_puts_the_sliders_there(visit, run: Run) -> None:
    """Fails a click that lands on a neighbour, a jump without undo, and sliders that snap back when moved on."""
    from latentlab import viz

    page = visit(
        f"/traverse?{PAGE}&below=Plane&plane-range=%C2%B1+2+%CF%83&plane-steps=5&across=z0&upwards=z8"
    )
    ready(page)
    start = code(page)
    grid = analysis.traverse_grid(run.model, np.array(start, np.float32), ("z0", "z8"), steps=5, span=2.0)
    boxes = viz.show(grid, caption=False).cells
    assert boxes is not None
    click_cell(page, grid, 1, 3, boxes)
    until(lambda: shows(page, run, grid.z[1, 3]))
    settled(page)
    assert np.allclose(code(page), grid.z[1, 3], atol=1e-6)
    page.get_by_label("Undo (Z)").click()
    until(lambda: shows(page, run, start))
    assert code(page) == start
    settled(page)
    page.locator(".ll-cells").focus()
    for key in ("Home", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    said = page.locator(".ll-cell[role=gridcell]").get_attribute("aria-label")
    assert said == f"z0 {grid.x_values[1]:.2f}, z8 {grid.y_values[0]:.2f}".replace(
        "-", "−"
    )  # from the clicked one
    page.keyboard.press("Enter")
    until(lambda: shows(page, run, grid.z[0, 1]))
    settled(page)
    slider = page.locator("input.ll-slider").first
    slider.focus()
    page.keyboard.press("End")
    top = float(slider.get_attribute("max"))
    page.wait_for_timeout(700)  # Python heard of it and the page was drawn again
    settled(page)
    assert code(page)[0] == pytest.approx(top, abs=1e-6)


def test_sliders_in_another_order_keep_their_numbers_and_keys_pick_as_shown(visit) -> None:
    page = visit(f"/traverse?{PAGE}")
    ready(page)
    before = code(page)
    shown = "() => [...document.querySelectorAll('input.ll-slider')].length"
    assert page.evaluate(shown) is not None
    page.get_by_text("Name", exact=True).click()
    names = page.locator(".ll-sliders .ll-label")
    until(
        lambda: [n for n in names.all_inner_texts() if n] == sorted(n for n in names.all_inner_texts() if n)
    )
    until(lambda: "sort=Name" in here(page))
    settled(page)
    page.locator(".ll-traverse").hover()
    page.keyboard.press("2")
    focused = page.locator("input.ll-slider:focus")
    second = page.locator("input.ll-slider:visible").nth(1)
    assert focused.get_attribute("data-index") == second.get_attribute("data-index")
    page.get_by_text("Factor", exact=True).click()
    page.locator(".ll-group", has_text="scale").wait_for()
    assert code(page) == before
    page.get_by_role("button", name="Copy z as Python").click()
    page.get_by_role("button", name="Copy z as Python").get_by_text("Copied").wait_for()
    text = page.evaluate("navigator.clipboard.readText()")
    given = eval(text, {"np": np})
    assert given.dtype == np.float32 and given.tolist() == np.array(before, np.float32).tolist()


def test_a_link_opens_the_same_picture_elsewhere(visit, run: Run) -> None:
    """Fails a code that is rounded, an edit or a lock that stays behind, and a link that wins over the person."""
    page = visit(f"/layers?{PAGE}")
    sheet = page.locator("canvas.ll-sheet")
    page.wait_for_function("() => (window.__latentlab?.layers?.frames ?? 0) > 0", timeout=45_000)
    settled(page)
    until(lambda: sheet.bounding_box()["width"] > 300)
    box = sheet.bounding_box()
    for _ in range(2):  # looks at the unit, then switches it off
        page.mouse.click(box["x"] + box["width"] / 16, box["y"] + 20)
    page.locator(".ll-chip", has_text=f"{STAGE}: unit 0 off").wait_for()
    page.wait_for_timeout(500)
    settled(page)
    page.get_by_role("link", name="Traverse", exact=True).click()
    ready(page)
    page.get_by_text("made on Layers").click()
    settled(page)
    handle = page.locator("input.ll-slider").first.bounding_box()
    page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2)
    page.mouse.down()
    for step in range(5):
        page.mouse.move(handle["x"] + handle["width"] * (0.5 + 0.063 * step), handle["y"] + 10)
    page.mouse.up()
    page.get_by_label("lock z8").click()
    page.get_by_role("button", name="Copy link").click()
    page.get_by_role("button", name="Copy link").get_by_text("Copied").wait_for()
    link = page.evaluate("navigator.clipboard.readText()")
    z, edits = code(page), (Edit(STAGE, (0,)),)
    until(lambda: shows(page, run, z, edits))

    other = visit(link)
    ready(other)
    until(lambda: shows(other, run, z, edits))
    apart = np.abs(pixels(other).astype(int) - pixels(page))
    assert code(other) == z and apart.max() <= 1  # one may be drawn in the browser, the other by the server
    assert not shows(other, run, z)  # the edit is seen
    assert other.get_by_label("lock z8").get_attribute("aria-pressed") == "true"
    assert other.locator("button.ll-lock[aria-pressed=true]").count() == 1
    first = other.locator("input.ll-slider").first
    first.focus()
    other.keyboard.press("Home")
    until(lambda: f"view={link.split('view=')[1]}" not in here(other))
    settled(other)
    moved = code(other)
    assert moved[int(first.get_attribute("data-index"))] == pytest.approx(
        float(first.get_attribute("min")), abs=1e-6
    )
    other.reload()  # the address followed
    ready(other)
    assert code(other) == moved
    other.get_by_role("link", name="Layers", exact=True).click()
    other.locator(".ll-chip", has_text=f"{STAGE}: unit 0 off").wait_for()
    other.get_by_role(
        "link", name="Traverse", exact=True
    ).click()  # what the sliders hold outlives a change of page
    ready(other)
    assert code(other) == moved
