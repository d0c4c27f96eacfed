"""The Compare page: a model beside its twin, whose latents are the same in another order and turned round."""

from __future__ import annotations

import base64
import io
import itertools
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest
from visiting import chromium, explorer, watch
from visiting import until as wait_until

from latentlab import analysis
from latentlab.app import server, shared_lasso, state
from latentlab.app.components.compare import Link, Other
from latentlab.app.linking import links_of
from latentlab.config import Experiment, VAEConfig
from latentlab.evaluation import evaluate, save_report
from latentlab.models.build import build_model
from latentlab.runs import CHECKPOINTS, WEIGHTS, Run, save_weights

COMPARE = "views/compare.py"
ORDER, SIGNS = [2, 4, 0, 5, 1, 3], [1.0, -1.0, 1.0, 1.0, -1.0, 1.0]


def turned(model: torch.nn.Module) -> torch.nn.Module:
    """The model itself, changed so that its latent j is ``SIGNS[j]`` times what its latent ``ORDER[j]`` was."""
    linear = torch.nn.Linear
    head = [m for m in model.encoder.modules() if isinstance(m, linear)][-1]
    first = next(m for m in model.generator.modules() if isinstance(m, linear))
    dim, signs = len(ORDER), torch.tensor(SIGNS)
    with torch.no_grad():
        for values in (head.weight, head.bias):
            column = signs[:, None] if values.ndim == 2 else signs
            values[:dim] = values[:dim][ORDER] * column
            values[dim:] = values[dim:][ORDER].clone()
        first.weight.copy_(first.weight[:, ORDER] * signs)
    return model


@pytest.fixture(scope="module")
def workspace(planted: dict[str, Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ "alpha", its twin, a model of other weights with an earlier step, and one of smaller images."""
    folder = tmp_path_factory.mktemp("compared")
    for name, source in (("alpha", "alpha"), ("twin", "alpha"), ("beta", "beta")):
        shutil.copytree(planted[source].path, folder / name)
    model = build_model(planted["alpha"].experiment.model, (1, 64, 64))
    model.load_state_dict(planted["alpha"].model.state_dict())
    save_weights(turned(model), folder / "twin" / WEIGHTS)
    (folder / "beta" / CHECKPOINTS).mkdir()
    save_weights(turned(model), folder / "beta" / CHECKPOINTS / "step-100.safetensors")
    small = VAEConfig(latents=2, width=4, hidden=8)
    save_weights(
        build_model(small, (1, 32, 32), 0),
        Run.create(folder / "small", Experiment(name="small", model=small), (1, 32, 32)).path / WEIGHTS,
    )
    return folder


@pytest.fixture(autouse=True)
def shown(workspace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The pages look at these runs only."""
    monkeypatch.setenv(server.RUNS_VARIABLE, str(workspace))
    monkeypatch.setattr("latentlab.runs.ZOO", tmp_path)


def rerun(changed) -> AppTest:
    app = changed.run()
    assert not app.exception, app.exception[0].message
    return app


def opened(names: tuple[str, ...] = (), **choices: object) -> AppTest:
    app = AppTest.from_file(str(server.MAIN), default_timeout=180)
    app.query_params.update({name: str(value) for name, value in choices.items()})
    app = rerun(rerun(app).switch_page(COMPARE))
    return rerun(app.multiselect(key="with").set_value(list(names))) if names else app


def words(app: AppTest) -> str:
    kinds = ("caption", "markdown", "info", "error")
    shown = [str(e.value) for kind in kinds for e in app.get(kind)]
    return "\n".join([*shown, *(e.proto.body for e in app.get("html"))])


def until(app: AppTest, ready) -> AppTest:
    end = time.monotonic() + 180
    while not ready(app):
        assert time.monotonic() < end, "the background job did not end"
        time.sleep(0.1)
        rerun(app)
    return app


def rgb_pictures(app: AppTest) -> dict[str, np.ndarray]:
    found = {}
    for element in app.get("image"):
        for image in element.proto.imgs:
            with Image.open(io.BytesIO(base64.b64decode(image.url.split(",", 1)[1]))) as picture:
                found[image.alt] = np.asarray(picture.convert("RGB"))
    return found


def matched(workspace: Path):
    a, b = Run.open(workspace / "alpha"), Run.open(workspace / "twin")
    data = a.dataset()
    return a, b, analysis.match_latents(a.model, b.model, data.images(data.sample(1000, 0)).cpu().numpy())


# -- following -----------------------------------------------------------------------------------


def test_linked_sliders_draw_the_same_image_in_the_twin(workspace: Path) -> None:
    """Catches links by number, signs left out, and a partner that does not begin at its own code of the image."""
    a, b, match = matched(workspace)
    assert match.certificate["sure"] == 2 and match.active_a.sum() == 2
    image = a.dataset().images(np.array([1234])).cpu().numpy()
    origin, theirs = (analysis.encode_images(run.model, image)[0] for run in (a, b))
    other = Other("twin", theirs, (1, 64, 64), links_of(match))
    np.testing.assert_array_equal(other.followed(origin, origin), theirs)
    for i in np.flatnonzero(match.active_a):
        z = origin.copy()
        z[i] = np.quantile(match.quantiles_a[i], 0.9)
        mine, twins = (
            analysis.decode_latents(a.model, z[None]),
            analysis.decode_latents(b.model, other.followed(z, origin)[None]),
        )
        assert np.abs(mine - analysis.decode_latents(a.model, origin[None])).max() > 0.05, (
            "the slider does something"
        )
        np.testing.assert_allclose(mine, twins, atol=0.01)
        by_number = theirs + z - origin  # the fake
        assert np.abs(mine - analysis.decode_latents(b.model, by_number[None])).max() > 0.05


def test_a_link_moves_its_target_by_quantiles_and_stops_at_their_ends() -> None:
    other = Other("b", np.array([5.0, 0.0]), (1, 4, 4), (Link(1, 0, (-1.0, 0.0, 2.0), (10.0, 0.0, -2.0)),))
    origin = np.array([0.0, 0.0])
    assert other.followed(np.array([9.0, 1.0]), origin).tolist() == [4.0, 0.0]
    assert other.followed(np.array([0.0, -9.0]), origin).tolist() == [15.0, 0.0]


# -- page ----------------------------------------------------------------------------------------


def test_the_page_offers_what_can_be_compared_and_says_how_to_begin() -> None:
    app = opened(run="alpha")
    assert "Choose a run to compare with" in words(app)
    assert set(app.multiselect(key="with").options) == {"alpha", "twin", "beta"}, "no run of other images"


def test_the_matching_on_the_page_is_the_call_in_its_code(workspace: Path) -> None:
    app = until(opened(("twin",), run="alpha"), lambda a: "Sure pairs" in words(a))
    _, _, match = matched(workspace)
    assert "2 of 2 active latents" in words(app)
    assert f"{match.certificate['matched_mean']:.2f} nats" in words(app)
    picture = rgb_pictures(app)["Agreement of latents with twin"]
    from latentlab import viz

    np.testing.assert_array_equal(picture, np.asarray(viz.show(match, caption=False).image.convert("RGB")))
    names: dict[str, object] = {}
    exec(app.code[0].value, names)
    assert names["result"].pairs() == match.pairs()


def test_the_same_images_and_an_earlier_step() -> None:
    """Catches a step slider that shows the last weights all the same."""
    app = opened(("beta",), run="alpha", **{"compare-below": "Same images"})
    last = rgb_pictures(app)["The same images through each model"]
    app = rerun(app.select_slider(key="step-1").set_value("100"))
    earlier = rgb_pictures(app)["The same images through each model"]
    assert last.shape[0] == earlier.shape[0] and not np.array_equal(
        last[..., -400:, :], earlier[..., -400:, :]
    )
    app = rerun(app.segmented_control(key="start").set_value("Seed"))
    assert app.select_slider(key="step-1").value == "100" and not app.error


def test_a_step_that_somebody_looks_at_stays_open(workspace: Path) -> None:
    """Catches models among the pictures of slider releases: others' drags would end this one's live session."""
    run = Run.open(workspace / "beta")
    earlier = state.checkpoint(run, 100)
    for i in range(100):
        state.computed(run, "picture", i, lambda: object())
    again = state.checkpoint(Run.open(workspace / "beta"), 100)
    assert again is earlier and again.model is earlier.model and again.step == 100
    with pytest.raises(ValueError, match="No weights of step 7"):
        state.checkpoint(run, 7)


def test_one_lasso_selects_the_same_images_on_all_maps(workspace: Path) -> None:
    """Catches a lasso that is cut anew on each map, or that outlives the maps it was drawn on."""
    app = opened(("twin",), run="alpha", **{"compare-below": "Maps"})
    app = until(app, lambda a: "on each model's map" in words(a))
    run = Run.open(workspace / "alpha")
    encoding = analysis.encode_dataset(run.model, run.dataset(), shared_lasso.SHOWN, seed=0)
    points = analysis.project(encoding, "pca").points
    inside = (points > 0).all(axis=1)
    top = float(points.max()) + 1
    square = ((0.0, 0.0), (top, 0.0), (top, top), (0.0, top))
    identity = "-".join(Run.open(workspace / name).digest[:8] for name in ("alpha", "twin"))
    app.session_state[shared_lasso.KEPT] = (identity, 0, square)
    app = rerun(app)
    assert f"{inside.sum():,} images selected" in words(app)
    apart = shared_lasso.closeness(encoding.mean, np.flatnonzero(inside))[0]
    assert words(app).count(f"<b>{apart:.2f}</b>") == 2, "its twin keeps them together as much"
    app.session_state[shared_lasso.KEPT] = ("another", 0, square)
    assert "images selected" not in words(rerun(app))


def test_closeness_is_a_share_of_the_usual_distance() -> None:
    codes = np.random.default_rng(0).normal(size=(2000, 4))
    near = np.argsort((codes**2).sum(axis=1))[:100]
    own, low, high = shared_lasso.closeness(codes, near)
    assert own < 0.6 < low < 1 < high < 1.2
    chance = shared_lasso.closeness(codes, np.arange(100))[0]
    assert low - 0.05 < chance < high + 0.05


def test_scores_are_compared_under_the_same_protocol_only(workspace: Path) -> None:
    reports = {}
    try:
        for name in ("alpha", "beta"):
            run = Run.open(workspace / name)
            reports[name] = evaluate(run, "dlib", states=1000, measures=["mig"], seeds=(0,), references=False)
            save_report(run, reports[name])
        app = opened(("beta",), run="alpha", **{"compare-below": "Scores"})
        table = app.dataframe[0].value
        a, b = (next(r.value for r in reports[name].rows) for name in ("alpha", "beta"))
        row = table.iloc[0]
        assert row["alpha"] == pytest.approx(a) and row["beta − alpha"] == pytest.approx(b - a)
        app = opened(("twin",), run="alpha", **{"compare-below": "Scores"})
        assert "Fewer than two of these models were scored" in words(app) and not app.dataframe
    finally:
        for path in workspace.glob("*/scores/*.json"):
            path.unlink()


# -- browser -------------------------------------------------------------------------------------


@pytest.mark.browser
def test_dragging_one_slider_moves_both_pictures_alike(
    workspace: Path, chromium_path: str, tmp_path: Path
) -> None:
    troubles: list[str] = []
    with explorer(workspace, tmp_path) as address, chromium(chromium_path) as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(60_000)
        watch(page, address, troubles)
        page.goto(f"{address}/compare?run=alpha&with=twin&image=1234")
        page.get_by_text("2 latents linked").wait_for()
        page.wait_for_selector("canvas.ll-other[data-drawn]")
        page.wait_for_function("() => !document.querySelector('[data-testid=stProgress]')")
        before = pixels(page, "canvas.ll-main")
        box = page.locator("input.ll-slider[data-index='4']").bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        frames, places = page.evaluate("window.__latentlab.compare.frames"), itertools.count()

        def redrawn() -> bool:
            share = 0.5 - 0.4 * (next(places) % 30) / 30
            page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] / 2)
            return page.evaluate("window.__latentlab.compare.frames") > frames + 5

        wait_until(redrawn)
        page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] / 2)
        page.mouse.up()
        assert page.evaluate("window.__latentlab.compare.engine") in ("server", "browser")

        def alike() -> bool:
            mine, twins = pixels(page, "canvas.ll-main"), pixels(page, "canvas.ll-other")
            return bool(np.abs(mine - before).max() > 10 and np.abs(mine - twins).max() <= 3)

        wait_until(alike)
        page.get_by_role("tab", name="Maps").click()
        page.locator("[data-testid=ll-map] canvas.ll-points[data-drawn]").nth(1).wait_for()
        page.wait_for_timeout(500)
        plot = page.locator("[data-testid=ll-map] canvas.ll-points").first
        plot.scroll_into_view_if_needed()
        box = plot.bounding_box()
        assert box is not None
        page.keyboard.down("Shift")
        around = [(0.3, 0.3), (0.7, 0.3), (0.7, 0.8), (0.3, 0.8), (0.3, 0.3)]
        page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
        page.mouse.down()
        for x, y in around:
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=8)
        page.mouse.up()
        page.keyboard.up("Shift")
        page.get_by_text("images selected").wait_for()
        shots = Path(os.environ.get("LATENTLAB_SCREENSHOTS", tmp_path))
        page.screenshot(path=shots / "compare.png")
    assert not troubles


def pixels(page, selector: str) -> np.ndarray:
    data = page.eval_on_selector(
        selector, "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    )
    return np.array(data, dtype=float).reshape(-1, 4)[:, 0]
