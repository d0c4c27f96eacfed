"""The Map page: what a lasso, a path, a group and a cluster show, and the same in a real Chromium."""

from __future__ import annotations

import base64
import io
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from streamlit.testing.v1 import AppTest
from visiting import chromium, exceptions, explorer, watch
from visiting import until as until_true

from latentlab import analysis
from latentlab.app import server
from latentlab.app.mapping import groups
from latentlab.app.mapping.lasso import Lasso
from latentlab.runs import Run

MAIN, MAP = str(server.MAIN), "views/map.py"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one run: the shipped digits, with two earlier steps that differ from it."""
    folder = tmp_path_factory.mktemp("map")
    source = Path(Run.open("zoo:digits-vae").path)
    run = folder / "digits"
    shutil.copytree(source, run)
    weights = load_file(run / "weights.safetensors")
    (run / "checkpoints").mkdir()
    for step, by in ((10, -1.0), (20, 0.5)):
        changed = dict(weights)
        for name, value in weights.items():
            if name.startswith("encoder") and value.shape[0] == 20:  # the head: means, then log-variances
                changed[name] = value.clone()
                changed[name][:10] *= by
        save_file(changed, run / "checkpoints" / f"step-{step}.safetensors")
    return folder


@pytest.fixture(autouse=True)
def workspace(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(server.RUNS_VARIABLE, str(home))
    monkeypatch.setattr("latentlab.runs.ZOO", tmp_path)


@pytest.fixture
def run(home: Path) -> Run:
    return Run.open(home / "digits")


def rerun(changed) -> AppTest:
    app = changed.run()
    assert not app.exception, app.exception[0].message
    return app


def until(app: AppTest, ready) -> AppTest:
    end = time.monotonic() + 180
    while not ready(app):
        assert time.monotonic() < end, "the background job did not end"
        time.sleep(0.1)
        rerun(app)
    return app


def texts(app: AppTest) -> str:
    return "\n".join(str(e.value) for kind in ("caption", "markdown", "info") for e in app.get(kind))


def html(app: AppTest) -> str:
    return "\n".join(e.proto.body for e in app.get("html"))


def on_map(**choices: object) -> AppTest:
    app = AppTest.from_file(MAIN, default_timeout=180)
    app.query_params.update({"run": "digits", **{name: str(value) for name, value in choices.items()}})
    app = rerun(rerun(app).switch_page(MAP))
    return until(app, lambda a: "Neighbours kept" in html(a))


def all_points(run: Run) -> tuple[analysis.Encoding, analysis.Projection]:
    order = run.dataset().batch(len(run.dataset()), 0, 0).numpy()
    encoding = analysis.encode_dataset(run.model, run.dataset(), order)
    return encoding, analysis.project(encoding)


def place(app: AppTest, run: Run, **what: object) -> AppTest:
    app.session_state["places"] = {f"{run.digest[:12]}-pca-1438": what}
    return rerun(app)


def test_a_lasso_shows_what_it_holds_and_keeps_it_as_a_group(run: Run, home: Path) -> None:
    """Fails a page that lassos other points than it shows, or saves rows in place of image numbers."""
    encoding, layout = all_points(run)
    app = on_map(points=1438)
    low, high = np.quantile(layout.points, 0.2), np.quantile(layout.points, 0.7)
    polygon = [(low, low), (high, low), (high, high), (low, high)]
    app = place(app, run, polygon=polygon)
    rows = Lasso(layout.points).inside(polygon)
    assert 50 < len(rows) < 1400
    assert f"**Selected: {len(rows):,} of 1,438 images**" in texts(app)
    share = (encoding.factors[rows, 0][:, None] == np.arange(10)).mean(0)
    overall = (encoding.factors[:, 0][:, None] == np.arange(10)).mean(0)
    most = int(np.argmax(share - overall))
    assert (
        f"<td>digit</td><td>{most}</td><td>{100 * share[most]:.0f} %</td><td>{100 * overall[most]:.0f} %</td>"
        in html(app)
    )
    app.text_input[0].set_value("a few")
    app = rerun(next(b for b in app.button if b.label == "Keep as a group").click())
    (kept,) = groups.load_groups(next((home / "groups").glob("*.npz")))
    assert kept.name == "a few" and kept.images.tolist() == sorted(encoding.indices[rows].tolist())
    app = place(rerun(app), run, group="a few")
    assert f"**Group “a few”: {len(rows):,} of 1,438 images**" in texts(app)
    assert app.expander[0].label == "Groups (1)"
    rerun(next(b for b in app.button if b.label == "Forget").click())
    assert not groups.load_groups(next((home / "groups").glob("*.npz")))


def test_a_path_is_decoded_where_it_leads(run: Run) -> None:
    from latentlab.app.mapping.path import resample

    _, layout = all_points(run)
    app = on_map(points=1438)
    corners = [tuple(map(float, layout.points[3])), (40.0, 40.0)]
    app = place(app, run, path=corners)
    assert not app.error
    places = resample(corners)
    inside = 100 * layout.support(places).inside.mean()
    assert 0 < inside < 60 and f"<span>Among the data</span><b>{inside:.0f} %</b>" in html(app)
    images = analysis.decode_latents(run.model, layout.lift(places).astype(np.float32))
    from latentlab.app.mapping.selection import contact_sheet

    some = np.linspace(0, 47, 8).round().astype(int)
    sheet = contact_sheet(images[some])
    (shown,) = [i for e in app.get("image") for i in e.proto.imgs if i.alt == "Images decoded along the path"]
    with Image.open(io.BytesIO(base64.b64decode(shown.url.split(",", 1)[1]))) as picture:
        assert np.abs(np.asarray(picture, int) - np.asarray(sheet, int)).max() <= 1


def test_clusters_and_groups_colour_the_points_with_their_proof(run: Run) -> None:
    app = on_map(points=1438, colour="Cluster")
    until(app, lambda a: "silhouette" in texts(a))
    assert "8 clusters by k-means on 1,438 codes" in texts(app) and not app.error


def test_an_earlier_step_lies_on_the_last_ones_map(run: Run) -> None:
    """The step's encoder has all means mirrored: without alignment its map would stand on its head."""
    from latentlab.app.mapping.codes import store_of
    from latentlab.app.mapping.layout import checkpoint, layout_job

    def quiet(share: float, message: str) -> None:
        pass

    earlier = checkpoint(run, 10)
    assert earlier.digest != run.digest and checkpoint(run, None) is run
    store = store_of(earlier)
    store.extend(quiet)
    rows = store.count
    task = layout_job(earlier, store, "pca", rows, run)
    assert task.wait(180) and task.result is not None, task.error
    aligned = task.result.fitted
    _, last = all_points(run)
    plain = analysis.project(np.array(store.mean[:rows]))
    np.testing.assert_allclose(store.mean[:rows], -last.codes, atol=1e-4)
    assert aligned.certificate["disparity"] < 1e-6
    np.testing.assert_allclose(aligned.points, last.points, atol=1e-2)
    assert np.abs(plain.points - last.points).max() > 1.0
    app = on_map(points=1438, step=10)
    assert "Off the last step" in html(app)


def test_a_layout_helper_tells_how_far_it_is_and_is_given_up_when_told(run: Run) -> None:
    from latentlab.app.layouts import LayoutProcess

    rng, told = np.random.default_rng(0), []
    codes = rng.standard_normal((120, 4)).astype(np.float32)
    process = LayoutProcess()
    try:
        found = process.project(codes, "tsne", report=lambda share, message: told.append((share, message)))
        assert found.points.shape == (120, 2)
        assert any("t-SNE round" in message for _, message in told)
        assert [share for share, _ in told] == sorted(share for share, _ in told)
        onward = process.project(codes, "tsne", start=found.points)
        assert analysis.procrustes(onward, found).certificate["disparity"] < 0.05

        def cancel(share: float, message: str) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            process.project(codes, "tsne", report=cancel)
        assert process._process is None
    finally:
        process.close()


def test_a_map_shows_the_first_images_at_once_and_grows(
    planted: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails a page that waits for all images, and one that never shows the others."""
    fresh = tmp_path / "runs" / "fresh"
    shutil.copytree(planted["alpha"].path, fresh)
    weights = load_file(fresh / "weights.safetensors")
    save_file({name: 1.01 * value for name, value in weights.items()}, fresh / "weights.safetensors")
    monkeypatch.setenv(server.RUNS_VARIABLE, str(fresh.parent))
    for module in ("codes", "growth"):
        monkeypatch.setattr(f"latentlab.app.mapping.{module}.FIRST", 100)
        monkeypatch.setattr(f"latentlab.app.mapping.{module}.PIECE", 500)
    app = AppTest.from_file(MAIN, default_timeout=180)
    app.query_params.update({"run": "fresh", "points": "2000"})
    app = rerun(rerun(app).switch_page(MAP))
    seen = []

    def grown(app: AppTest) -> bool:
        seen.extend(e.proto.text for e in app.get("progress"))
        return "Neighbours kept" in html(app) and not app.get("progress")

    until(app, grown)
    counts = [int(text.split(" of ")[0].replace(",", "")) for text in seen if "images encoded" in text]
    assert counts and counts == sorted(counts) and counts[0] < 2_000, seen
    pieces = [p.name for p in sorted((fresh.parent / ".cache").glob("*/map-*/codes-*.npy"))]
    assert pieces == [f"codes-{begin:07d}.npy" for begin in (0, 100, 500, 1000, 1500)]
    app = place(app, Run.open(fresh), group="nobody")
    assert not app.error


# -- in a browser ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(home: Path, tmp_path_factory: pytest.TempPathFactory):
    with explorer(home, tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture
def page(chromium_path: str, address: str):
    """The map in a browser; afterwards fails on console errors, page errors and requests that leave."""
    troubles: list[str] = []
    with chromium(chromium_path) as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(90_000)
        watch(page, address, troubles)
        page.goto(f"{address}/map?run=digits&points=1438")
        page.wait_for_selector("[data-testid=ll-map] canvas.ll-points[data-drawn]")
        page.get_by_text("Neighbours kept", exact=True).wait_for()
        yield page
        troubles += exceptions(page)
    assert not troubles


def metrics(page) -> dict:
    return page.evaluate("window.__latentlab.map")


def drag(page, *places: tuple[float, float]) -> None:
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=6)
    page.mouse.up()


@pytest.mark.browser
def test_a_person_lassos_hovers_zooms_and_plays_a_path(page, run: Run) -> None:
    box = page.locator("canvas.ll-points").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.get_by_role("button", name="Lasso:").click()
    drag(page, (x - 90, y - 90), (x + 90, y - 90), (x + 90, y + 90), (x - 90, y + 90))
    page.get_by_text("Selected:").wait_for()
    page.locator("img[alt^='48 of']").wait_for()
    page.get_by_role("button", name="Move:").click()
    # A thumbnail comes to whichever point the pointer meets.
    for step in range(40):
        page.mouse.move(x + 4 * step, y + 3 * step)
        if page.locator(".ll-tip").is_visible():
            break
    page.locator(".ll-tip-image canvas").wait_for()
    assert page.locator(".ll-tip").inner_text().startswith("image ")
    page.get_by_role("button", name="Images:").click()
    until_true(lambda: metrics(page)["images"] > 20)
    page.get_by_role("button", name="Images:").click()
    until_true(lambda: metrics(page)["images"] == 0)
    page.mouse.move(x, y)
    for _ in range(8):
        page.mouse.wheel(0, -200)
    until_true(lambda: metrics(page)["images"] > 0)
    page.keyboard.press("0")
    page.keyboard.press("p")
    drag(page, (x - 150, y), (x, y - 80), (x + 150, y + 60), (x + 300, y + 250))
    page.locator(".ll-player").wait_for()
    page.get_by_text("Among the data").wait_for()
    assert metrics(page)["frames_on_path"] == 48
    first = page.locator(".ll-player > span").inner_text()
    until_true(lambda: page.locator(".ll-player > span").inner_text() != first)
    page.get_by_role("button", name="Play or pause").click()
    page.get_by_label("place on the path").fill("47")
    assert page.locator(".ll-player > span").inner_text().startswith("48 of 48")
    page.get_by_role("button", name="Close the path").click()
    page.locator(".ll-player").wait_for(state="hidden")


@pytest.mark.browser
def test_points_glide_to_an_earlier_step_and_the_view_stays(page) -> None:
    """Fails a map that is fitted anew, or sent as another one, when the step changes."""
    scale = """() => {
      const at = '[data-testid=ll-map]', inside = (e) => e.shadowRoot?.querySelector(at) ?? e.querySelector(at);
      const root = [...document.querySelectorAll('*')].map(inside).find(Boolean);
      return [root.__ll.view.scale, root.__ll.xy[0], root.__ll.goal[0], root.__ll.home];
    }"""
    page.mouse.move(600, 500)
    page.mouse.wheel(0, -300)
    until_true(lambda: page.evaluate(scale)[0] > 1.5 * page.evaluate(scale)[3])
    before = page.evaluate(scale)
    drawn = metrics(page)["drawn_at"]
    page.get_by_role("slider", name="Training step").press("ArrowLeft")
    page.get_by_text("Off the last step's map", exact=True).wait_for()
    until_true(lambda: metrics(page)["drawn_at"] != drawn)
    until_true(lambda: abs(page.evaluate(scale)[1] - page.evaluate(scale)[2]) < 1e-6)
    after = page.evaluate(scale)
    assert after[0] == before[0], "the view was fitted anew"
    assert abs(after[1]) < 0.6 * abs(before[1]), "codes half as far out lie half as far out"
