"""The explorer as a person meets it: our server, its pages, a real Chromium; drags, clicks, and the clock.

Budgets are those of an idle machine with two cores. Where other processes hold the cores the limits stretch by as
much as plain arithmetic is slowed down there, and the numbers are printed either way.
"""

from __future__ import annotations

import itertools
import os
import re
import time
import urllib.request
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from pace import slowdown, stretched
from visiting import chromium, exceptions, explorer, until, watch

from latentlab import analysis
from latentlab.app import server
from latentlab.runs import Run

pytestmark = pytest.mark.browser
FIRST_IMAGE, DRAG_P95, TOGGLE = 3.0, 50.0, 250.0  # seconds, milliseconds, milliseconds


@pytest.fixture(scope="module")
def address(planted: dict[str, Run], tmp_path_factory: pytest.TempPathFactory):
    """Our own server over the planted runs; its address."""
    with explorer(planted["alpha"].path.parent, tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture(scope="module")
def browser(chromium_path: str):
    with chromium(chromium_path) as browser:
        yield browser


@pytest.fixture
def visit(browser, address: str):
    """Opens pages; afterwards fails on console errors, page errors, shown exceptions, and requests that leave."""
    pages, troubles = [], []

    def open_page(path: str, width: int = 1440, dark: bool = False):
        page = browser.new_page(
            viewport={"width": width, "height": 1000}, color_scheme="dark" if dark else "light"
        )
        page.set_default_timeout(120_000)
        pages.append(page)
        watch(page, address, troubles)
        page.goto(address + path)
        return page

    yield open_page
    for page in (page for page in pages if not page.is_closed()):
        troubles += exceptions(page)
        page.close()
    assert not troubles


def within(what: str, measured: float, budget: float, unit: str, record) -> None:
    """Holds a measurement against its budget, stretched where the machine is busy."""
    busy = slowdown()
    limit = budget * stretched(busy)
    print(
        f"\n{what}: {measured:.3g} {unit} (budget {budget:g}, machine slowed down {busy:.2f}x, limit {limit:.3g})"
    )
    record(what, measured)
    assert measured <= limit, f"{what} took {measured:.3g} {unit}; the limit here is {limit:.3g}"


def drawn(page, kind: str) -> None:
    """Waits for a live component's first picture."""
    canvas = {"traverse": "canvas.ll-main", "layers": "canvas.ll-sheet", "map": "canvas.ll-points"}[kind]
    page.wait_for_selector(f"[data-testid=ll-{kind}] {canvas}", timeout=120_000)
    page.wait_for_function(f"() => (window.__latentlab?.{kind}?.frames ?? 0) > 0", timeout=120_000)
    if kind == "map":  # the count of frames outlives the page; a canvas without its points takes no clicks
        page.wait_for_selector(f"[data-testid=ll-map] {canvas}[data-drawn]", timeout=120_000)


def settled(page) -> None:
    """Waits until the script has run and no background job is being watched."""
    page.wait_for_function(
        "() => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'"
        " && !document.querySelector('[data-testid=stProgress]')",
        timeout=300_000,  # UMAP compiles first: half a minute, several times that beside busy neighbours
    )


def metrics(page, kind: str) -> dict:
    return page.evaluate(f"window.__latentlab.{kind}")


def pixels(page, selector: str) -> np.ndarray:
    data = page.eval_on_selector(
        selector, "c => [c.width, c.height, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    )
    return np.array(data[2:], dtype=float).reshape(data[1], data[0], 4)[..., 0]


def picture(page, words: str):
    """The shown picture whose text alternative begins so."""
    return page.locator(f"[data-testid=stImage] img[alt^='{words}'], img.ll-sheet-image[alt^='{words}']")


def shoot(page, name: str, tmp_path: Path) -> None:
    """Keeps a screenshot for people to look at, in $LATENTLAB_SCREENSHOTS if that is set."""
    folder = Path(os.environ.get("LATENTLAB_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png")


def test_one_click_on_a_card_opens_its_run_and_the_choice_stays(visit, tmp_path: Path) -> None:
    page = visit("/?seed=3")
    card = page.locator("[data-testid=stPageLink] a[href*='run=beta']", has_text="Traverse")
    card.wait_for(timeout=120_000)
    settled(page)
    shoot(page, "gallery", tmp_path)
    card.click()
    drawn(page, "traverse")
    until(lambda: "/traverse?" in page.url and "run=beta" in page.url and "seed=3" in page.url)
    page.get_by_role("link", name="Layers", exact=True).click()
    drawn(page, "layers")
    until(lambda: "/layers?" in page.url and "run=beta" in page.url)
    page.get_by_role("link", name="Gallery", exact=True).click()
    page.locator("[data-testid=stPageLink] a[href*='run=alpha']", has_text="Map").click()
    drawn(page, "map")
    until(lambda: "/map?" in page.url and "run=alpha" in page.url and "to-" not in page.url)
    page.get_by_role("link", name="Gallery", exact=True).click()
    card.click()  # what was chosen before does not win over the card
    drawn(page, "traverse")
    settled(page)
    until(lambda: "run=beta" in page.url)


def test_the_card_of_the_menus_default_opens_it_too(visit) -> None:
    """Streamlit drops defaults from addresses, so a link that relied on them would open the run before."""
    page = visit("/traverse")
    drawn(page, "traverse")
    default = page.get_by_label("Run", exact=True).input_value()
    page = visit("/traverse?run=" + ("alpha" if default != "alpha" else "beta"))
    drawn(page, "traverse")
    page.get_by_role("link", name="Gallery", exact=True).click()
    page.locator(f"[data-testid=stPageLink] a[href*='run={quote(default, safe='')}']").first.click()
    drawn(page, "traverse")
    settled(page)
    until(lambda: page.get_by_label("Run", exact=True).input_value() == default)


def test_dragging_a_slider_redraws_in_time(
    visit, planted: dict[str, Run], tmp_path: Path, record_property
) -> None:
    page = visit("/traverse?run=full")
    page.wait_for_selector("canvas.ll-main", timeout=120_000)  # the server's own first time
    openings = []
    for _ in range(3):  # a new window each; a shared machine only ever adds to the time, by up to half
        settled(page)
        page.close()
        started = time.monotonic()
        page = visit("/traverse?run=full&image=1234&engine=server")
        drawn(page, "traverse")
        openings.append(time.monotonic() - started)
    first = min(openings)
    print(f"\nfirst image: {', '.join(f'{seconds:.2f} s' for seconds in openings)}")
    page.get_by_text("latents are active").wait_for(timeout=120_000)
    settled(page)
    assert page.locator(".ll-badge").inner_text() == "live"
    assert [s.get_attribute("data-index") for s in page.locator("input.ll-slider:visible").all()] == [
        "4",
        "1",
    ]
    strips = picture(page, "Traversal strips").get_attribute("src")
    before, frames = pixels(page, "canvas.ll-main"), metrics(page, "traverse")["frames"]
    box = page.locator("input.ll-slider[data-index='4']").bounding_box()
    x, y, width = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, box["width"]
    page.mouse.move(x, y)
    page.mouse.down()
    moves = 90
    for step in range(moves):
        page.mouse.move(x + 0.42 * width * np.sin(step / 12), y)
        page.wait_for_timeout(16)
    page.mouse.move(x + 0.4 * width, y)
    assert picture(page, "Traversal strips").get_attribute("src") == strips, (
        "the page follows on release only"
    )
    page.mouse.up()
    during = metrics(page, "traverse")
    count = during["frames"] - frames
    late = float(np.quantile(during["latencies_ms"][-count:], 0.95))
    print(f"\ndrag: {count} frames for {moves} moves")
    assert during["engine"] == "server" and count >= moves / 5
    until(lambda: picture(page, "Traversal strips").get_attribute("src") != strips)
    settled(page)
    shoot(page, "traverse", tmp_path)
    last = metrics(page, "traverse")["last_z"]
    image = analysis.decode_latents(planted["full"].model, np.array([last], dtype=np.float32))[0, 0] * 255
    assert np.abs(pixels(page, "canvas.ll-main") - image).max() <= 1
    assert np.abs(pixels(page, "canvas.ll-main") - before).max() > 10
    within("first image", first, FIRST_IMAGE, "s", record_property)
    within("drag p95", late, DRAG_P95, "ms", record_property)


def test_two_runs_draw_their_own_images_in_two_windows(visit, planted: dict[str, Run]) -> None:
    shown = {}
    pages = {name: visit(f"/traverse?run={name}&start=Seed&seed=5") for name in ("alpha", "beta")}
    for name, page in pages.items():
        drawn(page, "traverse")
        settled(page)
        z = planted[name].model.latent_space.sample(1, 5).numpy()
        image = analysis.decode_latents(planted[name].model, z)[0, 0] * 255
        shown[name] = pixels(page, "canvas.ll-main")
        assert np.abs(shown[name] - image).max() <= 1, f"{name} is drawn by another model"
    assert np.abs(shown["alpha"] - shown["beta"]).max() > 10


def test_a_unit_goes_off_at_a_click_and_on_again(
    visit, planted: dict[str, Run], tmp_path: Path, record_property
) -> None:
    page = visit("/layers?run=full&image=1234")
    drawn(page, "layers")
    settled(page)
    original = pixels(page, "canvas.ll-main")
    assert page.get_by_text("No edit yet.").is_visible()
    sheet = page.locator("canvas.ll-sheet")
    until(lambda: sheet.bounding_box()["width"] > 300)
    box, took = sheet.bounding_box(), []
    for column in range(6):  # six units of the first row, off one after the other
        place = (box["x"] + (column + 0.5) * box["width"] / 8, box["y"] + 20)
        page.mouse.click(*place)  # looks at it
        started, frames = time.monotonic(), metrics(page, "layers")["frames"]
        page.mouse.click(*place)
        page.wait_for_function(f"() => window.__latentlab.layers.frames > {frames}", timeout=120_000)
        took.append(1000 * (time.monotonic() - started))
    page.get_by_text("Pixels changed").wait_for(timeout=120_000)
    settled(page)
    shoot(page, "layers", tmp_path)
    assert np.abs(pixels(page, "canvas.ll-main") - original).max() > 2
    page.get_by_role("tab", name="Edits").click()
    page.get_by_role("button", name="Clear all").click()
    until(lambda: np.abs(pixels(page, "canvas.ll-main") - original).max() <= 1)
    page.get_by_text("No edits: the network runs as it was trained.").wait_for(timeout=120_000)
    within("unit toggle", float(np.median(took)), TOGGLE, "ms", record_property)


def test_the_stage_that_is_looked_at_survives_a_reload_and_stays_on_its_page(visit) -> None:
    """Catches an address that never says which stage is open, or that says it on other pages too."""
    page = visit("/layers?run=alpha&start=Seed")
    drawn(page, "layers")
    settled(page)
    assert "stage=" not in page.evaluate("location.search")
    stage = page.locator(".ll-stage:not([aria-current=true])").first
    address = stage.get_attribute("data-stage")
    stage.click()
    page.wait_for_function("stage => location.search.includes(stage)", arg=f"stage={address}")
    page.reload()
    drawn(page, "layers")
    assert page.locator(".ll-stage[aria-current=true]").get_attribute("data-stage") == address
    settled(page)
    assert f"stage={address}" in page.evaluate("location.search")
    page.get_by_role("link", name="Traverse", exact=True).click()
    drawn(page, "traverse")
    settled(page)
    assert "stage=" not in page.evaluate("location.search")


def test_from_the_graph_to_a_units_card_to_what_the_image_loses_without_it(visit, tmp_path: Path) -> None:
    """Would catch: a card of another unit than the one clicked, and a switch whose effect is not the one shown."""
    page = visit("/layers?run=full&image=1234")
    drawn(page, "layers")
    settled(page)
    stages = [node.get_attribute("data-stage") for node in page.locator(".ll-stage").all()]
    assert stages[0].startswith("encoder.") and stages[-1].startswith("generator.")
    boxes = [
        page.locator(f"[data-stage='{stage}']").bounding_box() for stage in stages if "generator" in stage
    ]
    assert all(a["x"] + a["width"] < b["x"] for a, b in itertools.pairwise(boxes)), "left to right"
    assert len(page.locator(".ll-lines path").all()) == len(stages) + 2, (
        "an edge a stage, and one to each end"
    )
    stage = "generator.deconv2"
    page.locator(f"[data-stage='{stage}']").click()
    page.wait_for_function("stage => location.search.includes(stage)", arg=f"stage={stage}")
    settled(page)
    sheet = page.locator("canvas.ll-sheet")
    until(lambda: sheet.bounding_box()["width"] > 300)
    box, grid = sheet.bounding_box(), metrics(page, "layers")["grid"]
    size = grid["size"] + grid["gap"]
    page.mouse.click(box["x"] + 2.5 * size, box["y"] + 0.5 * size)
    page.get_by_text("Unit 2 of generator.deconv2").wait_for(timeout=120_000)
    picture(page, "What unit 2 draws").wait_for(timeout=120_000)
    settled(page)
    assert metrics(page, "layers")["difference"]["largest"] == 0
    page.get_by_role("button", name="Switch off").click()
    page.wait_for_function("() => window.__latentlab.layers.difference.largest > 0", timeout=120_000)
    page.get_by_text("Mean change").first.wait_for(timeout=120_000)
    settled(page)
    picture(page, "Original, edited and difference").wait_for(timeout=120_000)
    assert page.locator(".ll-chip").inner_text().startswith(f"{stage}: unit 2 off")
    assert page.get_by_role("button", name="Switch on").is_visible()
    shoot(page, "layers-card", tmp_path)
    page.get_by_test_id("stMain").get_by_role("button", name="Code").last.click()
    page.get_by_text("analysis.compare_edits(").wait_for(timeout=120_000)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Switch on").click()
    page.wait_for_function("() => window.__latentlab.layers.difference.largest === 0", timeout=120_000)
    page.get_by_text("No edit yet.").wait_for(timeout=120_000)


def test_a_category_has_a_button_for_each_kind_and_the_image_follows(visit, planted: dict[str, Run]) -> None:
    """Would catch: a slider for each one-hot coordinate, by which kinds are blended that the model never saw."""
    page = visit("/traverse?run=kinds&start=Seed&seed=4")
    drawn(page, "traverse")
    settled(page)
    group = page.get_by_role("radiogroup", name="kind")
    kinds = group.get_by_role("radio")
    assert kinds.all_inner_texts() == ["0", "1", "2"] and group.locator("[aria-checked=true]").count() == 1
    assert page.locator("input.ll-slider").count() == 2  # the style's
    for kind in (2, 0):
        before = metrics(page, "traverse")["frames"]
        kinds.nth(kind).click()
        until(lambda: metrics(page, "traverse")["frames"] > before)  # noqa: B023
        until(lambda: metrics(page, "traverse")["last_z"][:3] == [float(i == kind) for i in range(3)])  # noqa: B023
        expected = analysis.decode_latents(
            planted["kinds"].model, np.array([metrics(page, "traverse")["last_z"]], np.float32)
        )[0, 0]
        until(lambda: np.abs(pixels(page, "canvas.ll-main") / 255 - expected).max() < 0.02)  # noqa: B023
    page.keyboard.press("ArrowRight")  # the buttons are one stop of the keyboard; arrows choose
    until(lambda: metrics(page, "traverse")["last_z"][:3] == [0.0, 1.0, 0.0])
    page.keyboard.press("r")
    until(lambda: sorted(metrics(page, "traverse")["last_z"][:3]) == [0.0, 0.0, 1.0])


def test_the_map_shows_a_points_image_and_decodes_the_space_between(
    visit, planted: dict[str, Run], tmp_path: Path
) -> None:
    page = visit("/map?run=alpha&points=2000")
    drawn(page, "map")
    settled(page)
    run = planted["alpha"]
    encoding = analysis.encode_dataset(run.model, run.dataset(), 2000, seed=0)
    layout = analysis.project(encoding, "pca")
    box = page.locator("canvas.ll-points").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    for step in range(12):  # look for a point near the middle
        page.mouse.click(middle[0] + 9 * step, middle[1] + 5 * step)
        picked = metrics(page, "map").get("picked")
        if picked and picked["point"] is not None:
            break
    point = picked["point"]
    index = int(encoding.indices[point])
    np.testing.assert_allclose(picked["position"], layout.points[point, :2], rtol=1e-4, atol=1e-4)
    picture(page, f"Image {index} of the data").wait_for(timeout=120_000)
    settled(page)
    shoot(page, "map", tmp_path)
    page.mouse.click(box["x"] + 6, box["y"] + box["height"] - 6)
    picture(page, "Image decoded at the clicked position").wait_for(timeout=120_000)
    page.get_by_text("Distance to data").wait_for(timeout=120_000)
    code = layout.lift(np.array([metrics(page, "map")["picked"]["position"]]))[0]
    page.locator("a[href*='to-start=Numbers']", has_text="Pull it in Traverse").click()
    drawn(page, "traverse")
    until(lambda: "start=Numbers" in page.url)
    until(lambda: np.allclose(metrics(page, "traverse")["last_z"], code, rtol=1e-3, atol=2e-3))
    settled(page)
    page.get_by_role("link", name="Map", exact=True).click()
    drawn(page, "map")
    settled(page)
    page.mouse.click(*(middle[0] + 9 * step, middle[1] + 5 * step))
    picture(page, f"Image {index} of the data").wait_for(timeout=120_000)
    page.locator(f"a[href*='to-image={index}']").click()
    drawn(page, "traverse")
    settled(page)
    until(lambda: f"image={index}" in page.url and "start=Numbers" not in page.url and "to-" not in page.url)
    until(lambda: page.get_by_label("Image", exact=True).input_value() == str(index))


def test_umap_comes_in_the_background_while_the_pca_map_works(visit) -> None:
    page = visit("/map?run=alpha&points=2000&layout=UMAP")
    page.wait_for_selector("[data-testid=ll-map], [data-testid=stProgress]", timeout=120_000)
    drawn(page, "map")
    settled(page)
    page.get_by_text("Neighbours kept", exact=True).wait_for(timeout=120_000)
    kept = float(re.search(r"Neighbours kept\s*(\d+) %", page.locator(".ll-figures").first.inner_text())[1])
    assert kept >= 1
    assert not page.get_by_text("Variance shown").count(), "the map shown is UMAP's, not PCA's"


def test_a_narrow_dark_window_shows_every_page_without_scrolling_sideways(visit, tmp_path: Path) -> None:
    for name, kind in (("traverse", "traverse"), ("layers", "layers"), ("map", "map")):
        page = visit(f"/{name}?run=alpha&points=2000", width=1024, dark=True)
        drawn(page, kind)
        settled(page)
        shoot(page, f"{name}-dark-1024", tmp_path)
        over = page.evaluate(
            "() => { const m = document.querySelector('[data-testid=stMain]'); return m.scrollWidth - m.clientWidth; }"
        )
        assert over <= 0, f"{name} is {over} px too wide"


def test_the_options_of_our_server_hold(address: str) -> None:
    assert server.MAIN.is_file()
    with urllib.request.urlopen(f"{address}/", timeout=10) as answer:
        text = answer.read().decode()
    assert "fonts.googleapis" not in text and "https://" not in re.sub(
        r"<!--.*?-->", "", text, flags=re.DOTALL
    )
