"""The Scores page: what it says of a run that was scored, was not, or can't be; and the names it gives to sliders."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from latentlab import evaluation
from latentlab.app import controls, server, state
from latentlab.evaluation import evaluate, save_report
from latentlab.runs import Run

SCORES = "views/scores.py"
QUICK = {"states": 1500, "measures": ["mig", "sap"], "seeds": (0, 1)}


@pytest.fixture
def workspace(planted: dict[str, Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The pages look at the planted runs only, and no report of them is left behind."""
    folder = planted["alpha"].path.parent
    monkeypatch.setenv(server.RUNS_VARIABLE, str(folder))
    monkeypatch.setattr("latentlab.runs.ZOO", tmp_path)
    yield folder
    for path in folder.glob("*/scores/*.json"):
        path.unlink()


def opened(**choices: object) -> AppTest:
    """The page, after the choices of its address."""
    app = AppTest.from_file(str(server.MAIN), default_timeout=180)
    app.query_params.update({name: str(value) for name, value in choices.items()})
    app = app.run().switch_page(SCORES).run()
    assert not app.exception, app.exception[0].message
    return app


def words(app: AppTest) -> str:
    """All text of the page."""
    return "\n".join(str(e.value) for kind in ("caption", "markdown", "info", "error") for e in app.get(kind))


def test_a_run_that_was_not_scored_can_be_scored_from_the_page(planted, workspace, monkeypatch):
    """Would catch a page that scores unasked, a job that never ends, or a report that is not kept."""
    whole = evaluation.evaluate

    def quick(run, protocol, **options):
        return whole(run, protocol, **{**options, **QUICK, "states": 1500})

    monkeypatch.setattr(evaluation, "evaluate", quick)
    app = opened(run="alpha")
    assert "was not scored under dlib yet" in words(app)
    assert "latentlab evaluate alpha" in words(app) and not app.get("vega_lite_chart")
    app.button(key="score").click().run()
    end = time.monotonic() + 180
    while not app.get("vega_lite_chart"):
        assert time.monotonic() < end, "the job did not end"
        time.sleep(0.2)
        app.run()
    assert evaluation.load_report(planted["alpha"], "dlib") is not None
    assert "Gaussian" not in words(app) and "| MIG |" in words(app)


def test_a_kept_report_is_shown_with_its_matrices_and_beside_others(planted, workspace):
    """Would catch a page that scores anew what is on disk, or compares runs under other protocols."""
    for name in ("alpha", "beta"):
        run = Run.open(planted[name].path)
        save_report(run, evaluate(run, "dlib", **QUICK))
    app = opened(run="alpha")
    assert len(app.get("vega_lite_chart")) == 4  # scores, information, interventions, beside other runs
    alpha, kept = Run.open(planted["alpha"].path), evaluation.load_report
    assert [r.subject for r in state.reports_like(alpha, kept(alpha, "dlib"))] == ["beta"]
    (planted["beta"].path / "scores" / "dlib.json").unlink()
    assert state.reports_like(alpha, kept(alpha, "dlib")) == []
    assert len(opened(run="alpha").get("vega_lite_chart")) == 3
    other = opened(run="alpha", protocol="continuous")
    assert "was not scored under continuous yet" in words(other)


def test_sliders_carry_the_factor_that_was_measured(planted, workspace):
    """Would catch labels of another run's report, or ones shown without a measurement."""
    run = Run.open(planted["alpha"].path)
    space = run.model.latent_space

    def known():
        start = controls_start(run)
        return {axis.name: (axis.known, axis.help) for axis in controls.sliders(run, None, start)}

    assert set(known().values()) == {("", "")}
    report = evaluate(run, "dlib", **QUICK)
    save_report(run, report)
    expected = {dim: label for dim in space.names if (label := report.factor_of(dim))}
    found = {dim: words for dim, words in known().items() if words[0]}
    assert found == {
        dim: (name, f"Knows most of {name}: mutual information {nats:.2f} nats")
        for dim, (name, nats) in expected.items()
    }
    assert state.labels(Run.open(planted["beta"].path)) == {}


def controls_start(run: Run):
    """Sliders at the prior's mean."""
    from latentlab.app.start import Start

    return Start(np.zeros(run.model.latent_space.dim, np.float32), None, "origin", "0")


def test_images_without_factors_are_offered_the_protocol_that_suits_them(planted, workspace):
    """Would catch a page that turns such runs away, or offers them metrics of factors."""
    app = opened(run="homeless")
    assert not app.exception and "folder" in "\n".join(e.value for e in app.error)
    app = opened(run="alpha", protocol="images")
    assert "was not scored under images yet" in words(app) and "feature network" in words(app)
