"""Files from the app: made in the background, and the same bytes as the command that stands beside them makes."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest
from visiting import chromium, explorer, watch

from latentlab import cli, rendering
from latentlab.app import export_forms, exporting, server, state
from latentlab.export.recipe import Recipe
from latentlab.models.edits import Edit
from latentlab.runs import Run

TRAVERSE = "views/traverse.py"


@pytest.fixture(autouse=True)
def workspace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    runs = tmp_path / "runs"
    runs.mkdir()
    monkeypatch.setenv(server.RUNS_VARIABLE, str(runs))
    monkeypatch.chdir(tmp_path)
    return runs


def rerun(changed) -> AppTest:
    app = changed.run()
    assert not app.exception, app.exception[0].message
    assert not app.error, app.error[0].value
    return app


def taking_away(**choices: object) -> AppTest:
    app = AppTest.from_file(str(server.MAIN), default_timeout=180)
    values = {"run": "zoo:digits-vae", "start": "Seed", "below": "Take away", **choices}
    app.query_params.update({name: str(value) for name, value in values.items()})
    return rerun(rerun(app).switch_page(TRAVERSE))


def made(app: AppTest, key: str = "away") -> exporting.Exported:
    """Presses the button and waits for the file."""
    app = rerun(app.button(key=f"{key}-make").click())
    end = time.monotonic() + 180
    while not commands(app):
        assert time.monotonic() < end, "the job did not end"
        time.sleep(0.1)
        rerun(app)
    return app.session_state[exporting.MADE][1]


def commands(app: AppTest) -> list[str]:
    return next((c.value for c in app.code if c.language == "bash"), "").splitlines()


def remade(found: exporting.Exported, app: AppTest, folder: Path) -> None:
    """Follows the command beside the download in an empty folder; the bytes must be those that were handed over."""
    lines = commands(app)
    words = shlex.split(lines[0])
    assert words[:2] == ["latentlab", "render"] and len(words) == 3
    folder.mkdir()
    (folder / words[2]).write_text(found.recipe.to_json(), encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert cli.main(words[1:]) == 0
        name = words[2].removesuffix(".recipe.json")
        assert Path(name).read_bytes() == found.content
        Path(name).unlink()
        if len(lines) > 1:
            (command,) = lines[2:]
            assert cli.main([*shlex.split(command)[1:], *(["--quiet"] if "html" in command else [])]) == 0
            assert Path(name).read_bytes() == found.content, command
    finally:
        os.chdir(before)


def test_a_file_and_its_recipe(tmp_path: Path) -> None:
    """Catches a recipe that says something else than what was made, a command that makes another file, a time or a
    path in it, and anything written beside the workspace's own caches."""
    app = taking_away()
    outside = sorted(tmp_path.iterdir())
    for form, choices, exact in (
        ("Strips", {"away-span": "± 2 σ"}, False),
        ("Movie", {"away-movie": "MP4", "away-span": "Prior"}, False),
        ("Codes", {"away-codes": "This latent"}, False),
        ("Codes", {"away-codes": "Encoded images"}, True),
        ("Page", {"away-precision": "int8", "away-here": False}, True),
    ):
        app = rerun(app.segmented_control(key="away-form").set_value(form))
        for key, value in choices.items():
            widget = app.toggle(key=key) if value is False else app.segmented_control(key=key)
            app = rerun(widget.set_value(value))
        found = made(app)
        told = found.recipe.output
        assert told is not None and told["bytes"] == len(found.content)
        assert sorted(tmp_path.iterdir()) == outside
        assert (len(commands(app)) > 1) == exact, form
        again = tmp_path / "again"
        remade(found, app, again)
        shutil.rmtree(again)


def test_the_gallery_exports_what_the_seed_draws(tmp_path: Path) -> None:
    """Its files come with the one command too, since chance decides them and not a person's sliders."""
    app = AppTest.from_file(str(server.MAIN), default_timeout=180)
    app.query_params["seed"] = "3"
    app = rerun(app)
    app = rerun(app.button(key="export-zoo:digits-infogan").click())
    for form in ("Image", "Strips"):
        app = rerun(app.segmented_control(key="gallery-form").set_value(form))
        found = made(app, "gallery")
        assert found.recipe.seed == 3 and len(commands(app)) > 1
        remade(found, app, tmp_path / form)


def test_edits_are_in_a_file_and_not_in_a_page(tmp_path: Path) -> None:
    run = Run.open("zoo:digits-vae", "cpu")
    edit = Edit(run.model.generator.addresses[1], (0, 1))
    given = export_forms.From(np.zeros(10, np.float32), (edit,))
    recipe = rendering.image_recipe(run, given.z, edits=given.edits)
    task = exporting.job(run, recipe)
    assert task.wait(180) and task.result.recipe.edits == (edit,)
    plain = rendering.render(rendering.image_recipe(run, given.z), run)
    assert task.result.content != plain
    assert exporting.command(run, recipe, "a.png") == ""


def test_a_file_that_is_too_large_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.open("zoo:digits-vae", "cpu")
    monkeypatch.setattr(exporting, "LARGEST", 1000)
    task = exporting.job(run, rendering.codes_recipe(run, count=999))
    assert task.wait(180) and "the explorer hands over up to 0; choose fewer" in task.error


def test_a_job_is_cancelled_between_two_looks() -> None:
    run = Run.open("zoo:digits-vae", "cpu")
    recipe = rendering.codes_recipe(run, source="data", count=1400, seed=9)
    task = exporting.job(run, recipe)
    task.cancel()
    assert task.wait(180) and task.cancelled and task.result is None
    state.forget_job(run, "export", recipe.to_json())


def test_what_an_extra_would_make_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_forms, "find_spec", lambda name: None)
    for choices, extra in (({"away-form": "Movie"}, "video"), ({"away-form": "ONNX"}, "onnx")):
        app = taking_away(**choices)
        if extra == "video":
            assert "away-make" in [b.key for b in app.button], "a GIF needs nothing"
            app = rerun(app.segmented_control(key="away-movie").set_value("MP4"))
        assert [i.value for i in app.info if f"pip install 'latentlab[{extra}]'" in i.value]
        assert "away-make" not in [b.key for b in app.button]


def test_a_page_costs_about_what_is_said() -> None:
    run = Run.open("zoo:digits-vae", "cpu")
    sizes = export_forms.page_sizes(run)
    real = len(rendering.render(rendering.page_recipe(run, precision="int8", labels={}), run))
    assert sizes["int8"] == pytest.approx(real, rel=0.15) and sizes["int8"] < sizes["f16"] < sizes["f32"]


# -- browser -------------------------------------------------------------------------------------


@pytest.mark.browser
def test_a_page_made_in_the_app_opens_from_disk(chromium_path: str, tmp_path: Path, workspace: Path) -> None:
    """The downloaded bytes, opened from disk in a browser that is offline, draw the person's own latent."""
    troubles: list[str] = []
    with explorer(workspace, tmp_path) as address, chromium(chromium_path) as browser:
        context = browser.new_context(viewport={"width": 1440, "height": 1200}, accept_downloads=True)
        page = context.new_page()
        page.set_default_timeout(90_000)
        watch(page, address, troubles)
        page.goto(f"{address}/traverse?run=zoo:digits-vae&start=Seed&below=Take+away")
        page.get_by_role("button", name="Make HTML").click()
        page.get_by_role("button", name="digits-vae-explorer.html").wait_for()
        files = {}
        for name in ("digits-vae-explorer.html", "Recipe"):
            with page.expect_download() as waiting:
                page.get_by_role("button", name=name).click()
            files[name] = tmp_path / waiting.value.suggested_filename
            waiting.value.save_as(files[name])
        shots = Path(os.environ.get("LATENTLAB_SCREENSHOTS", tmp_path))
        page.screenshot(path=shots / "take-away.png")
        recipe = Recipe.read(files["Recipe"])
        assert files["Recipe"].name == "digits-vae-explorer.html.recipe.json"
        alone = browser.new_context(offline=True, viewport={"width": 1200, "height": 900}).new_page()
        alone.on("pageerror", lambda error: troubles.append(str(error)))
        alone.on("console", lambda m: troubles.append(m.text) if m.type == "error" else None)
        alone.goto(files["digits-vae-explorer.html"].as_uri())
        alone.wait_for_function(
            "() => window.__latentlab?.page?.frames > 0 || window.__latentlab?.traverse?.frames > 0"
        )
        alone.wait_for_selector("canvas.ll-main[data-drawn]")
        drawn = alone.eval_on_selector(
            "canvas.ll-main", "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
        )
    assert not troubles
    run = Run.open("zoo:digits-vae", "cpu")
    from latentlab.analysis import decode_latents

    wanted = np.rint(255 * decode_latents(run.model, recipe.codes)[0, 0])
    shown = np.array(drawn, dtype=float).reshape(*wanted.shape, 4)[..., 0]
    assert np.abs(shown - wanted).max() <= 1, "the latent of the sliders comes first"
    again = rendering.render(recipe)
    assert again == files["digits-vae-explorer.html"].read_bytes()
