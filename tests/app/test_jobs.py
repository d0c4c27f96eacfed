"""Computations in the background: who still waits for them, and what becomes of them when Python ends."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from latentlab import analysis
from latentlab.app import server
from latentlab.app.jobs import Job, end_all
from latentlab.runs import Run

RUN = "zoo:digits-stylegan"
ENDING = """
import sys, time
import torch
from latentlab.app.jobs import Job

def work(report):
    layer, x = torch.nn.Conv2d(64, 64, 3, padding=1), torch.randn(8, 64, 64, 64)
    with torch.inference_mode():
        while True:
            layer(x)
            report(0.5, "working")

job = Job(work)
while job.share == 0.0:
    time.sleep(0.01)
"""


def test_python_ends_well_while_a_job_goes_on() -> None:
    """Would catch an explorer, or a test run, that is aborted at its end since a thread is inside of torch."""
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")


def test_all_jobs_end_at_once_and_who_asks_again_gets_them_anew() -> None:
    def work(report) -> None:
        while True:
            time.sleep(0.01)
            report(0.5, "working")

    jobs = [Job(work, heavy=heavy) for heavy in (True, True, False)]
    assert end_all(60.0) and all(job.cancelled and job.deserted for job in jobs)


# ---- who waits for an inversion ----


@pytest.fixture
def inversions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """Inversions that last until they are let go, and how many were begun."""
    monkeypatch.setenv(server.RUNS_VARIABLE, str(tmp_path))
    found = SimpleNamespace(go=threading.Event(), begun=0)
    dim = Run.open(RUN, device="cpu").model.latent_space.dim

    def invert(model, images) -> SimpleNamespace:
        found.begun += 1
        assert found.go.wait(120)
        return SimpleNamespace(z=np.zeros((1, dim), np.float32), error=np.array([0.25]))

    monkeypatch.setattr(analysis, "invert", invert)
    yield found
    found.go.set()


def opened(page: str, image: int) -> AppTest:
    app = AppTest.from_file(str(server.MAIN), default_timeout=180)
    app.query_params.update({"run": RUN, "start": "Image", "image": str(image), "layer-tabs": "Edits"})
    return rerun(rerun(app).switch_page(f"views/{page}.py"))


def rerun(app: AppTest) -> AppTest:
    app = app.run()
    assert not app.exception and not app.error, [e.value for e in app.error]
    return app


def awaited(app: AppTest) -> dict[tuple, Job]:
    return {name[2]: task for name, (_, task, _) in app.session_state["awaited"].items()}


@pytest.mark.parametrize("page", ["layers", "traverse"])
def test_an_image_is_looked_for_until_it_is_found(page: str, inversions: SimpleNamespace) -> None:
    """Would catch a page one part of which cancels what another waits for, and begins it anew at each run."""
    app = opened(page, 41 if page == "layers" else 42)
    for _ in range(2):
        rerun(app)
    (task,) = awaited(app).values()
    assert not task.done and not task.stopping and inversions.begun == 1
    inversions.go.set()
    assert task.wait(60) and not task.cancelled
    rerun(app)
    assert any("the nearest that the model draws differs by 0.2500" in c.value for c in app.caption)
    assert inversions.begun == 1


def test_an_image_that_is_no_longer_wanted_is_no_longer_looked_for(inversions: SimpleNamespace) -> None:
    """Would catch a page on which the image wanted now waits for all those that were wanted before."""
    app = opened("traverse", 43)
    (before,) = awaited(app).values()
    app.number_input(key="image").set_value(44)
    rerun(app)
    assert before.stopping
    (now,) = awaited(app).values()
    assert now is not before and not now.stopping
    app.segmented_control(key="start").set_value("Seed")
    rerun(app)
    assert now.wait(60) and now.cancelled and not awaited(app)  # it still waited for its turn
    inversions.go.set()


# ---- what a button could not do ----


def buttons() -> None:
    import streamlit as st

    from latentlab.app import attempts

    def full() -> None:
        raise OSError(28, "No space left on device")

    def wrong() -> None:
        raise ValueError("Nothing was saved: it is of *another* version.")

    for name, act in {"full": full, "wrong": wrong, "good": lambda: None}.items():
        st.button(name, on_click=attempts.attempt, args=("here", act))
    attempts.say_what_went_wrong("here")
    attempts.say_what_went_wrong("there")


def test_what_a_button_could_not_do_stands_there_until_one_does_its_work() -> None:
    app = AppTest.from_function(buttons, default_timeout=180).run()
    said = {
        "full": ["Nothing was saved: No space left on device."],
        "wrong": [r"Nothing was saved: it is of \*another\* version."],
        "good": [],
    }
    for i, name in enumerate(said):
        app.button[i].click().run()
        assert [e.value for e in app.error] == said[name] and not app.exception
