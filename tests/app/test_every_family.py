"""Every page on a run of every family: drawn without an error, and without words meant for another kind of model.

Would catch: a page that takes every model for a VAE with one block of normal latents.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from latentlab.app import server, state
from latentlab.config import MODELS, Adversarial, BetaVAE, DataConfig, Experiment
from latentlab.models.build import build_model
from latentlab.models.contract import is_inference_model
from latentlab.runs import WEIGHTS, Run, save_weights

SMALL = {
    "vae": {"latents": 4, "width": 4, "hidden": 8},
    "ladder-vae": {"levels": [2, 2, 2], "width": 4, "hidden": 8},
    "vq-vae": {"codes": 4, "code_dim": 3, "width": 4, "prior_width": 16, "prior_layers": 1},
    "conditional-vae": {"latents": 3, "width": 4, "hidden": 8},
    "gan": {"latents": 4, "width": 4},
    "conditional-gan": {"latents": 3, "width": 4},
    "info-gan": {"width": 4},
    "style-gan": {"latents": 4, "styles": 6, "mapping_layers": 2, "width": 4},
}
PAGES = ("gallery", "traverse", "layers", "map", "scores")
TABS = ("Strips", "Plane", "Swap blocks", "Seed plane", "Arithmetic", "Take away")


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder, runs = tmp_path_factory.mktemp("families"), {}
    for family, kind in MODELS.items():
        config = kind(**SMALL[family])
        objective = Adversarial() if config.kind == "adversarial" else BetaVAE()
        made = Experiment(name=family, data=DataConfig("digits"), model=config, objective=objective)
        run = Run.create(folder / family, made, (1, 32, 32))
        save_weights(build_model(config, (1, 32, 32), 1), run.path / WEIGHTS)
        runs[family] = Run.open(run.path)
    return runs


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("family", sorted(MODELS))
def test_the_page_is_drawn(
    family: str, page: str, families: dict[str, Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(server.RUNS_VARIABLE, str(families[family].path.parent))
    monkeypatch.setattr("latentlab.runs.ZOO", tmp_path)
    job = state.encoding_job(families[family]) if is_inference_model(families[family].model) else None
    if job is not None:
        assert job.wait(180.0) and not job.error, job.error
    for tab in TABS if page == "traverse" else (None,):
        app = AppTest.from_file(str(server.MAIN), default_timeout=180)
        app.query_params["run"] = family
        if tab:
            app.query_params["below"] = tab
        app.run()
        if page != "gallery":
            app.switch_page(f"views/{page}.py").run()
        assert not app.exception, app.exception[0].message
        assert not app.error, app.error[0].value
