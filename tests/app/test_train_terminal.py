"""Trainings that were started in a terminal: shown, stopped by their own folder, and in the way of no other."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from latentlab.app import server, training_jobs
from latentlab.app.configuration import to_yaml
from latentlab.app.training_jobs import Busy
from latentlab.config import DataConfig, Experiment, VAEConfig
from latentlab.processes import JOB, folder_identity, process_birth
from latentlab.runs import COMMANDS, METRICS, Run

TRAIN = "views/train.py"
LONG = Experiment(
    name="long",
    data=DataConfig("digits"),
    model=VAEConfig(latents=2, width=4, hidden=8),
    max_steps=1_000_000,
    batch_size=8,
    log_every=5,
    preview_every=20,
    checkpoint_every=20,
)


@pytest.fixture(autouse=True)
def workspace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A workspace and locks of this test's own, as a process with this TMPDIR would have."""
    runs, locks = tmp_path / "runs", tmp_path / f"latentlab-{os.getuid()}"
    runs.mkdir()
    locks.mkdir()
    monkeypatch.setenv(server.RUNS_VARIABLE, str(runs))
    monkeypatch.setattr("latentlab.runs.ZOO", tmp_path / "zoo")
    monkeypatch.setattr(training_jobs, "locks_folder", lambda: locks)
    monkeypatch.setattr(training_jobs, "NICENESS", 1)  # beside busy neighbours 10 may take minutes
    return runs


@pytest.fixture
def terminal(workspace: Path, tmp_path: Path) -> Iterator[subprocess.Popen]:
    """``latentlab train`` as a person types it, at its first rows."""
    (tmp_path / "long.yaml").write_text(to_yaml(LONG.to_dict()), encoding="utf-8")
    words = [
        "train",
        str(tmp_path / "long.yaml"),
        "--out",
        str(workspace / "mine"),
        "--device",
        "cpu",
        "--quiet",
    ]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "latentlab.cli", *words],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    try:
        until(lambda: any(workspace.glob("mine/previews/*.png")) or process.poll() is not None)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def until(condition: Callable[[], object], seconds: float = 180.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def shown(**choices: str) -> AppTest:
    app = AppTest.from_file(str(server.MAIN), default_timeout=180)
    app.query_params.update(choices)
    app = app.run().switch_page(TRAIN).run()
    assert not app.exception, app.exception[0].message
    return app


def words(app: AppTest) -> str:
    kinds = ("caption", "markdown", "info", "error", "progress")
    return "\n".join(
        [*(str(e.proto) for kind in kinds for e in app.get(kind)), *(e.proto.body for e in app.get("html"))]
    )


def test_a_training_in_a_terminal_is_shown_and_stopped(terminal: subprocess.Popen, workspace: Path) -> None:
    """Catches a page that knows only what it started, a Stop by a signal, a second training on the device and a state
    that is read off a file's age."""
    (job,) = training_jobs.list_jobs(workspace)
    assert job.alive and job.pid == terminal.pid and job.origin == "terminal" and job.state == "running"
    assert training_jobs.busy_devices(workspace) == {"cpu": "mine"}
    with pytest.raises(Busy, match="The CPU is training mine already"):
        training_jobs.start(LONG, workspace, "cpu")
    with pytest.raises(Busy, match="mine is training already"):
        training_jobs.resume(job)
    app = shown()
    said = words(app)
    assert "1,000,000 steps" in said and "running" in said and "terminal" in said
    assert app.selectbox(key="job").options == ["mine"] and str(terminal.pid) in said
    assert app.multiselect(key="curves-mine").value and "Samples" in str([e.proto for e in app.get("image")])
    assert app.code[-1].value == to_yaml(Run.open(job.folder).experiment.to_dict()).strip()
    new = shown(**{"train-view": "New training"})
    assert "training mine" in new.selectbox(key="train-device").options[-1]
    assert new.button(key="train-start").disabled and "The CPU is training mine" in words(new)

    app.button(key="stop-mine").click().run()
    told = [json.loads(line) for line in (job.folder / COMMANDS).read_text().splitlines()]
    assert [entry["command"] for entry in told] == ["stop"]
    assert terminal.wait(180) == 0, "a signal would have made it 130, or killed it"
    ended = training_jobs.read_job(job.folder)
    assert ended is not None and not ended.alive and ended.state == "stopped" and ended.resumable
    assert training_jobs.busy_devices(workspace) == {}
    app = shown()
    assert app.button(key="resume-mine").label == "Resume" and not [
        b for b in app.button if b.label == "Stop"
    ]


@pytest.mark.slow
def test_what_a_terminal_began_the_explorer_goes_on_with(terminal: subprocess.Popen, workspace: Path) -> None:
    """Catches a resume that needs the explorer's own files, and a process that writes over the explorer's note."""
    terminal.kill()
    terminal.wait()
    (ended,) = training_jobs.list_jobs(workspace)
    assert ended.state == "killed" and ended.resumable
    reached = ended.step
    again = training_jobs.resume(ended)
    try:
        assert again.origin == "explorer" and again.alive
        until(lambda: again.step > reached)
        read = training_jobs.read_job(again.folder)
        assert read is not None and read.alive and read.origin == "explorer", (
            "the process left the note alone"
        )
        training_jobs.stop(again)
        until(lambda: not again.alive)
        assert again.state == "stopped"
    finally:
        if again.alive:
            os.kill(again.pid, 9)


def planted(folder: Path, **values: object) -> Path:
    """A run whose note names a process, ours unless said otherwise."""
    Run.create(folder, LONG, (1, 32, 32))
    kept = {
        "pid": os.getpid(),
        "birth": process_birth(os.getpid()),
        "device": "cpu",
        "begun": time.time(),
        "log_from": 0,
        "origin": "terminal",
        "folder": folder_identity(folder),
        **values,
    }
    (folder / JOB).write_text(json.dumps(kept), encoding="utf-8")
    return folder


def test_old_files_and_copies_are_no_living_training(workspace: Path) -> None:
    """Fresh rows, a number that lives and a whole copied folder: none of them is a process that trains here."""
    assert [job.alive for job in training_jobs.list_jobs(workspace)] == []
    planted(workspace / "reused", birth="another boot 12")
    planted(workspace / "ended", outcome="stopped")
    for name in ("reused", "ended"):
        (workspace / name / METRICS).write_text("step,loss\n5,1.0\n")  # as fresh as can be
    living = planted(workspace / "living")
    shutil.copytree(living, workspace / "copy")
    states = {job.folder.name: job.state for job in training_jobs.list_jobs(workspace)}
    assert states == {"reused": "killed", "ended": "stopped", "living": "starting"}


def test_where_nothing_can_be_asked_it_says_how_to_stop(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(workspace / "theirs")
    monkeypatch.setattr(training_jobs.os, "access", lambda path, mode: False)
    app = shown()
    assert f"press Ctrl-C where process {os.getpid()} runs" in words(app)
    assert not [b for b in app.button if b.label == "Stop"]


def test_a_failure_is_told_in_its_own_words(workspace: Path) -> None:
    planted(workspace / "broken", outcome="failed", sentence="The loss became nan between steps 3 and 4.")
    assert [e.value for e in shown().error] == ["The loss became nan between steps 3 and 4."]


def test_a_training_of_another_folder_is_named_and_in_the_way(workspace: Path, tmp_path: Path) -> None:
    place = tmp_path / f"latentlab-{os.getuid()}" / "trainings"
    place.mkdir()
    note = {"pid": os.getpid(), "birth": process_birth(os.getpid()), "device": "cpu", "folder": "/far/away"}
    (place / "1-x.json").write_text(json.dumps(note))
    app = shown(**{"train-view": "New training"})
    assert app.button(key="train-start").disabled and "The CPU is training /far/away" in words(app)
    with pytest.raises(Busy, match="The CPU is training /far/away already"):
        training_jobs.start(dataclasses.replace(LONG, name="x"), workspace, "cpu")
