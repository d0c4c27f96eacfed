"""Looks: pictures drawn by the server stand on the page's own paper; a page shows only controls that do something."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from latentlab import Run, analysis, viz
from latentlab.app import server, state, theme
from latentlab.app.calls import Call
from latentlab.viz import colours

MAIN = str(server.MAIN)


@pytest.fixture(autouse=True)
def workspace(planted: dict[str, Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The pages look at the planted runs only."""
    folder = planted["alpha"].path.parent
    monkeypatch.setenv(server.RUNS_VARIABLE, str(folder))
    monkeypatch.setattr("latentlab.runs.ZOO", tmp_path)
    return folder


def picture(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"))


@pytest.fixture
def drawn(planted: dict[str, Run]) -> state.Drawn:
    model = planted["alpha"].model
    return state.Drawn(analysis.traverse(model, model.latent_space.mean[None].numpy(), ["z4"], steps=3))


def test_a_theme_that_changes_gets_its_own_picture_and_back_again(
    drawn: state.Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails a cache that keeps the picture of the theme that happened to be first."""
    seen = {}
    for dark in (True, False, True):
        monkeypatch.setattr(theme, "dark", lambda dark=dark: dark)
        corner = tuple(picture(drawn.address)[0, 0])
        assert corner == (colours.DARK if dark else colours.LIGHT).paper
        assert seen.setdefault(dark, drawn.address) is drawn.address  # drawn once


def test_what_is_saved_stands_on_light_paper(drawn: state.Drawn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a download that is dark because the page was."""
    monkeypatch.setattr(theme, "dark", lambda: True)
    assert drawn.picture.image.getpixel((0, 0)) == colours.DARK.paper
    assert drawn.png() == viz.show(drawn.result).png()
    still = Image.open(io.BytesIO(drawn.gif())).convert("RGB")
    assert min(still.getpixel((still.width - 1, still.height - 1))) > 240  # type: ignore[type-var]


def test_a_background_job_draws_for_the_page_that_asked(
    planted: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails a job that asks for the theme in its own thread, where there is no page to ask."""
    run, asked = planted["alpha"], []
    monkeypatch.setattr(theme, "dark", lambda: not asked.append(1))
    job = Call(run, "rank_units", ("generator.deconv1",), {"n": 2, "seed": 3}).job()
    asked.clear()
    assert job.wait(60) and not job.error
    assert not asked
    assert tuple(picture(job.result.address_on(True))[0, 0]) == colours.DARK.paper
    assert list(job.result._addresses) == [True]


def test_the_theme_of_no_page_is_light(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, dark in ((None, False), ("light", False), ("dark", True)):
        context = SimpleNamespace(theme=SimpleNamespace(type=kind))
        monkeypatch.setattr(theme.st, "context", context)
        assert theme.dark() is dark


def test_live_pictures_can_be_chosen_only_where_there_are_any_and_the_choice_is_kept() -> None:
    """Fails a control that does nothing on a page, and one that forgets what was chosen when it comes back."""

    def widget(app: AppTest):
        assert not app.exception
        return next((w for w in app.segmented_control if w.key == "engine"), None)

    app = AppTest.from_file(MAIN, default_timeout=180)
    app.query_params.update({"run": "alpha"})
    app = app.run().switch_page("views/traverse.py").run()
    control = widget(app)
    assert control is not None
    other = control.options[-1]
    assert control.value != other
    app = control.set_value(other).run()
    for page in ("layers", "scores", "map"):
        app = app.switch_page(f"views/{page}.py").run()
        assert widget(app) is None, page
    for page in ("compare", "traverse"):
        control = widget(app.switch_page(f"views/{page}.py").run())
        assert control is not None and control.value == other, page
