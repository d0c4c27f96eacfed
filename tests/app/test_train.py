"""The Train page: form and YAML, trainings in processes of their own, stopped, killed, resumed, two at once."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from streamlit.testing.v1 import AppTest

from latentlab import viz
from latentlab.app import server, training_form, training_jobs
from latentlab.app.configuration import fields_of, from_yaml, meanings, read_value, to_yaml, written
from latentlab.app.training_jobs import Busy, TrainingJob
from latentlab.config import (
    MODELS,
    OBJECTIVES,
    AnnealedVAE,
    BetaVAE,
    BlockConfig,
    DataConfig,
    Experiment,
    InfoGANConfig,
    Schedule,
    VAEConfig,
    experiment_names,
    named_experiment,
)
from latentlab.processes import folder_identity
from latentlab.runs import CARD, METRICS, RESUME, Run

TRAIN = "views/train.py"
TINY = Experiment(
    name="tiny",
    data=DataConfig("digits"),
    model=VAEConfig(latents=2, width=4, hidden=8),
    max_steps=400,
    batch_size=8,
    log_every=5,
    preview_every=20,
    checkpoint_every=20,
)


@pytest.fixture(autouse=True)
def workspace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A workspace and locks of this test's own; whatever it started is ended behind it."""
    runs, locks = tmp_path / "runs", tmp_path / "locks"
    runs.mkdir()
    locks.mkdir()
    monkeypatch.setenv(server.RUNS_VARIABLE, str(runs))
    monkeypatch.setattr("latentlab.runs.ZOO", tmp_path / "zoo")
    monkeypatch.setattr(training_jobs, "locks_folder", lambda: locks)
    monkeypatch.setattr(
        training_jobs, "NICENESS", 1
    )  # beside busy neighbours 10 may take minutes to import torch
    yield runs
    for job in training_jobs.list_jobs(runs):
        if job.alive:
            os.kill(job.pid, signal.SIGKILL)
            until(lambda job=job: not job.alive)


def until(condition: Callable[[], object], seconds: float = 180.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def planted_job(folder: Path, process: subprocess.Popen, log: str = "") -> TrainingJob:
    """A job whose process is one of ours, in a run that was begun."""
    Run.create(folder, TINY, (1, 32, 32))
    birth = training_jobs.process_birth(process.pid) or ""
    kept = {"pid": process.pid, "birth": birth, "device": "cpu", "begun": time.time(), "log_from": 0}
    kept["folder"] = folder_identity(folder)
    (folder / training_jobs.JOB).write_text(json.dumps(kept), encoding="utf-8")
    (folder / training_jobs.LOG).write_text(log, encoding="utf-8")
    found = training_jobs.read_job(folder)
    assert found is not None
    return found


def sleeper() -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])


# -- configuration -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "experiment",
    [
        *(named_experiment(name)[0] for name in experiment_names()),
        Experiment(objective=AnnealedVAE(100.0, Schedule("cosine", 0.0, 12.5, 300, 7)), learning_rate=3e-7),
        Experiment(model=VAEConfig(blocks=[BlockConfig("kind", 3, "categorical", 0.5), BlockConfig("z", 2)])),
        Experiment(name="ünï: code #1", data=DataConfig("folder:/a b", {"image_size": 64})),
    ],
    ids=lambda e: e.name,
)
def test_the_yaml_gives_the_experiment_back(experiment: Experiment) -> None:
    """Catches a YAML that rounds numbers, loses blocks or schedules, or that only this page can read."""
    text = to_yaml(experiment.to_dict())
    assert Experiment.from_dict(from_yaml(text)) == experiment
    model = yaml.safe_load(text)["model"]
    assert model["class_path"] == type(experiment.model).__name__ and "family" not in model["init_args"]


def test_yaml_from_elsewhere_is_read_too() -> None:
    """A run's config.json, what --print_config prints, and numbers such as 5e-4, which YAML 1.1 takes for words."""
    config = {"format": 1, "experiment": TINY.to_dict(), "image_shape": [1, 32, 32]}
    assert Experiment.from_dict(from_yaml(json.dumps(config))) == TINY
    printed = "out: null\nruns: runs\nobjective: {class_path: latentlab.config.BetaVAE, init_args: {beta: 3}}"
    assert from_yaml(printed)["objective"] == {"objective": "beta-vae", "beta": 3}
    assert from_yaml("learning_rate: 5e-4")["learning_rate"] == 5e-4


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: [", "This is no YAML in line"),
        ("just words", "A configuration is a table"),
        ("model: {class_path: os.system, init_args: {}}", "Unknown model class 'system'; known: VAEConfig"),
        ("steps: 3", "Unknown key 'steps' in Experiment"),
        ("max_steps: -1", "experiment.max_steps must lie in [1, 1000000000]; got -1."),
        ("a: &a [*a]", "aliases are not read"),
        ("a: !!python/object/apply:os.system [true]", "This is no YAML"),
        ("model: {family: gan}", "is trained by one of the objectives adversarial; got 'beta-vae'"),
        ("#" * 200_000, "at most 100,000 characters"),
    ],
)
def test_yaml_that_is_wrong_is_refused_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as found:
        from_yaml(text)
    assert sentence in str(found.value) and "\n" not in str(found.value)


def test_every_class_gives_a_form_whose_values_come_back_unchanged() -> None:
    """Catches a form that can't show a field of some family, or that changes it by being looked at."""
    for kind in (*MODELS.values(), *OBJECTIVES.values(), Experiment):
        told = meanings(kind)
        for field in fields_of(kind):
            assert told.get(field.name), f"{kind.__name__}.{field.name} has no meaning"
    for part, table in (("model", MODELS), ("objective", OBJECTIVES)):
        for name, kind in table.items():
            values = training_form.with_part(Experiment().to_dict(), part, name)
            for field in fields_of(kind):
                if field.kind == "text" and not field.plain:
                    assert read_value(written(values[part][field.name])) == values[part][field.name]


def test_another_family_begins_with_its_own_values_and_brings_an_objective_that_fits() -> None:
    values = training_form.with_part(TINY.to_dict(), "model", "info-gan")
    assert Experiment.from_dict(values).model == InfoGANConfig()
    assert values["objective"]["objective"] == "adversarial"
    back = training_form.with_part(values, "model", "vq-vae")
    assert Experiment.from_dict(back).objective == BetaVAE()


# -- processes -----------------------------------------------------------------------------------


def test_a_job_is_its_process_not_its_number(workspace: Path) -> None:
    """Catches liveness by pid alone (another process may get the number) and zombies taken for alive."""
    process = sleeper()
    job = planted_job(workspace / "a", process)
    assert job.alive and job.state == "starting"
    text = (job.folder / training_jobs.JOB).read_text().replace(job.birth, job.birth + "1")
    (job.folder / training_jobs.JOB).write_text(text)
    other = training_jobs.read_job(job.folder)
    assert other is not None and not other.alive and other.state == "killed"
    process.kill()
    until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    assert not job.alive, "a zombie has ended"
    process.wait()
    assert not job.alive


def test_stop_on_a_copied_run_leaves_the_originals_training_alone(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a copy of a training run that passes for running: its Stop would interrupt the other's process. Notes of
    an earlier version name no folder; then the process's own word on where it trains decides."""
    begun: list[subprocess.Popen] = []

    def launch(command: list[str], **options: Any) -> subprocess.Popen:
        begun.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], **options))
        return begun[-1]

    monkeypatch.setattr(
        training_jobs, "subprocess", SimpleNamespace(Popen=launch, DEVNULL=subprocess.DEVNULL)
    )
    job = training_jobs.start(TINY, workspace, "cpu")
    folder = job.folder.rename(workspace / "moved")  # the same folder still
    shutil.copytree(folder, workspace / "copy")

    def told() -> list[str]:
        return [job.folder.name for job in training_jobs.list_jobs(workspace) if job.alive]

    assert told() == ["moved"]
    for each in training_jobs.list_jobs(workspace):
        if each.folder.name == "copy":
            training_jobs.stop(each)
    time.sleep(0.2)
    assert begun[0].poll() is None, "the original trains on"
    for place in (folder, workspace / "copy"):
        note = json.loads((place / training_jobs.JOB).read_text())
        note.pop("folder", None)
        (place / training_jobs.JOB).write_text(json.dumps(note))
    assert told() == []
    listed = tmp_path / "locks" / "trainings"
    listed.mkdir()
    words = {"pid": job.pid, "birth": job.birth, "device": "cpu", "folder": str(folder.resolve())}
    (listed / "1-x.json").write_text(json.dumps(words))
    assert told() == ["moved"]
    begun[0].kill()
    until(lambda: not job.alive)
    states = {job.folder.name: job.state for job in training_jobs.list_jobs(workspace)}
    assert states == {"moved": "killed", "copy": "killed"}, "what has ended may be gone on with anywhere"


def test_how_a_process_ended_is_read_from_its_folder(workspace: Path) -> None:
    process = sleeper()
    logs = {
        "failed": "noise\nlatentlab: The loss became nan between steps 3 and 4.\n",
        "broken": "Traceback (most recent call last):\n  somewhere\nZeroDivisionError: division by zero\n",
        "stopped": "Stopped by Ctrl-C. Continue with: latentlab train --resume here\n",
        "killed": "half a li",
        "finished": "Trained it.\n",
    }
    jobs = {name: planted_job(workspace / name, process, log) for name, log in logs.items()}
    (workspace / "finished" / CARD).write_text("# card")
    process.kill()
    process.wait()
    states = {name: job.state for name, job in jobs.items()}
    assert states == {**{name: name for name in logs}, "broken": "failed"}
    assert jobs["failed"].sentence == "The loss became nan between steps 3 and 4."
    assert jobs["broken"].sentence == "ZeroDivisionError: division by zero"
    assert {jobs[name].sentence for name in ("stopped", "killed", "finished")} == {""}
    # Stopped while it was still loading: before the signal's handler is there, or while libraries are imported.
    for log in ("", "latentlab: interrupted\n"):
        early = planted_job(workspace / f"early{len(log)}", process, log)
        Run.open(early.folder).command(command="stop", at=time.time() - 1000)
        assert early.state == "killed", "a command to an earlier process"
        Run.open(early.folder).command(command="stop", at=time.time())
        assert early.state == "stopped"
    (workspace / "killed" / training_jobs.JOB).write_text("{")
    assert [job.folder.name for job in training_jobs.list_jobs(workspace)].count("killed") == 0


def test_a_training_is_killed_resumed_stopped_and_found_again_by_another_process(workspace: Path) -> None:
    """The whole life of a job. Catches a lock that outlives its process, one that dies with the page's, a second
    training on the device, a resume from nothing, and a state that only the starting process knows."""
    long = dataclasses.replace(TINY, max_steps=100_000)  # outlives the start of another process
    job = training_jobs.start(long, workspace, "cpu")
    with pytest.raises(
        Busy, match="The CPU is training tiny already, and each device trains one run at a time"
    ):
        training_jobs.start(long, workspace, "cpu")
    with pytest.raises(Busy, match="tiny is training already"):
        training_jobs.resume(job)
    assert os.getsid(job.pid) == job.pid, "a session of its own"
    assert os.getpriority(os.PRIO_PROCESS, job.pid) >= training_jobs.NICENESS
    until(lambda: job.step >= 20 and job.resumable)
    assert job.state == "running"
    # Another process, as a server that was started anew, knows the same.
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from latentlab.app import training_jobs as t; "
            "print([(j.folder.name, j.alive) for j in t.list_jobs(Path(sys.argv[1]))])",
            str(workspace),
        ],
        capture_output=True,
        text=True,
    )
    assert told.stdout.strip() == "[('tiny', True)]", told.stderr
    os.kill(job.pid, signal.SIGKILL)
    until(lambda: not job.alive)
    assert job.state == "killed" and job.resumable
    reached = job.step

    again = training_jobs.resume(job)
    assert again.state == "starting" and again.pid != job.pid and not job.alive
    until(lambda: again.state == "running" and again.step > reached)
    training_jobs.stop(again)
    training_jobs.stop(again)
    until(lambda: not again.alive)
    assert again.state == "stopped" and again.resumable and reached <= again.step <= long.max_steps
    steps = Run.open(job.folder).metrics()["step"]
    assert (steps[1:] > steps[:-1]).all(), "no row twice, none out of order"


def test_a_training_that_cannot_begin_says_why_and_frees_the_device(workspace: Path, tmp_path: Path) -> None:
    """Catches an error that only the terminal sees."""
    wrong = Experiment(name="wrong", data=DataConfig(f"folder:{tmp_path / 'nowhere'}"), model=TINY.model)
    job = training_jobs.start(wrong, workspace, "cpu")
    until(lambda: not job.alive)
    assert job.state == "failed" and "nowhere" in job.sentence and not job.resumable
    with training_jobs._hold_device("cpu", workspace) as lock:
        assert lock.read() == ""
    assert not (job.folder / RESUME).exists()


# -- the page ------------------------------------------------------------------------------------


def opened(**choices: object) -> AppTest:
    app = AppTest.from_file(str(server.MAIN), default_timeout=180)
    app.query_params.update({name: str(value) for name, value in choices.items()})
    return rerun(rerun(app).switch_page(TRAIN))


def rerun(changed) -> AppTest:
    app = changed.run()
    assert not app.exception, app.exception[0].message
    return app


def yaml_of(app: AppTest) -> dict:
    return from_yaml(app.text_area(key=training_form.TEXT).value)


def test_the_pages_open_without_what_only_training_needs(workspace: Path) -> None:
    """Catches a form that imports Lightning, or a page that waits for sklearn."""
    program = f"""
import sys
from streamlit.testing.v1 import AppTest
app = AppTest.from_file({str(server.MAIN)!r}, default_timeout=180).run()
for page in ("views/train.py", "views/compare.py"):
    app.switch_page(page).run()
    assert not app.exception, app.exception[0].message
heavy = ("pytorch_lightning", "jsonargparse", "umap", "numba", "sklearn")
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip().splitlines()[-1:] == ["[]"], done.stdout + done.stderr[-2000:]


def test_a_finished_training_shows_its_curves_and_samples_and_opens_elsewhere(
    planted: dict[str, Run], workspace: Path
) -> None:
    """Catches samples of other weights, a half-written preview that ends the page, and links to another run."""
    folder = workspace / "done"
    shutil.copytree(planted["alpha"].path, folder)
    kept = {"pid": 1, "birth": "another boot", "device": "cpu", "begun": 0.0, "log_from": 0}
    (folder / training_jobs.JOB).write_text(json.dumps(kept))
    (folder / METRICS).write_text("step,loss,kl\n100,5.5,\n200,4.5,1.25\n")
    app = opened(**{"train-view": "Trainings"})
    end = time.monotonic() + 180
    while not app.get("image") and time.monotonic() < end:
        time.sleep(0.2)
        app = rerun(app)
    (image,) = app.get("image")[0].proto.imgs
    samples = planted["alpha"].model.sample(32, 0).numpy().reshape(4, 8, 1, 64, 64)
    with Image.open(io.BytesIO(base64.b64decode(image.url.split(",", 1)[1]))) as shown:
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(viz.images.grid(samples)))
    assert len(app.get("vega_lite_chart")) == 2, "loss and KL"
    assert {link.proto.query_string for link in app.get("page_link")} == {"to-run=done"}
    assert not [b for b in app.button if b.key in ("stop-done", "resume-done")]
    (folder / "previews").mkdir()
    whole = viz.images.grid(samples)
    whole.save(folder / "previews" / "step-100.png")
    data = (folder / "previews" / "step-100.png").read_bytes()
    (folder / "previews" / "step-200.png").write_bytes(data[: len(data) // 2])
    app = opened(**{"train-view": "Trainings"})
    assert not app.get("image") and not app.error, "the last preview is being written"
    app = rerun(app.select_slider[0].set_value(100))
    assert app.get("image")[0].proto.imgs[0].alt == "Samples of done at step 100"


def test_form_and_yaml_follow_each_other() -> None:
    app = opened()
    assert Experiment.from_dict(yaml_of(app)) == named_experiment("digits-vae")[0]
    app = rerun(app.number_input(key="train-model-latents").set_value(7))
    app = rerun(app.text_input(key="train-objective-beta").set_value("2.5"))
    assert yaml_of(app)["model"]["latents"] == 7 and yaml_of(app)["objective"]["beta"] == 2.5
    app = rerun(app.selectbox(key="train-model").set_value("gan"))
    assert yaml_of(app)["model"]["latents"] == 32 and yaml_of(app)["objective"]["objective"] == "adversarial"
    app = rerun(app.text_area(key=training_form.TEXT).set_value(to_yaml(TINY.to_dict())))
    assert app.number_input(key="train-model-hidden").value == 8
    assert app.selectbox(key="train-data").value == "digits" and not app.error
    app = rerun(app.text_area(key=training_form.TEXT).set_value("name: ["))
    assert "This is no YAML" in app.error[0].value and app.button(key="train-start").disabled
    assert app.number_input(key="train-model-hidden").value == 8
    app = rerun(app.text_input(key="train-objective-beta").set_value("much"))
    assert "beta must lie in" in app.error[0].value and app.button(key="train-start").disabled
    app = rerun(app.selectbox(key=training_form.PRESET).set_value("sprites-beta-vae"))
    assert Experiment.from_dict(yaml_of(app)) == named_experiment("sprites-beta-vae")[0]


def test_a_label_is_one_of_the_data() -> None:
    """Would catch a form that asks sprites for their digit, or their 6 scales for 3 classes."""

    def label(app: AppTest) -> tuple[str, int]:
        model = yaml_of(app)["model"]
        assert Experiment.from_dict(yaml_of(app)) and not app.error
        assert app.selectbox(key="train-model-label").value == model["label"]
        return model["label"], model["classes"]

    app = rerun(opened().selectbox(key="train-model").set_value("conditional-vae"))
    assert label(app) == ("digit", 10)
    app = rerun(app.selectbox(key="train-data").set_value("sprites"))
    assert label(app) == ("shape", 3)
    assert app.selectbox(key="train-model-label").options == ["shape", "scale", "orientation", "x", "y"]
    app = rerun(app.selectbox(key="train-model-label").set_value("scale"))
    assert label(app) == ("scale", 6)
    app = rerun(app.number_input(key="train-model-classes").set_value(4))  # what is typed stands
    assert label(app) == ("scale", 4)
    app = rerun(app.selectbox(key="train-model").set_value("conditional-gan"))
    assert label(app) == ("scale", 6)
    app = rerun(app.selectbox(key="train-data").set_value("digits"))
    assert label(app) == ("digit", 10)
    wrong = app.text_area(key=training_form.TEXT).value.replace("label: digit", "label: shape")
    app = rerun(app.text_area(key=training_form.TEXT).set_value(wrong))
    assert label(app) == ("shape", 10), "the form shows what the YAML says, right or wrong"
    app = rerun(app.selectbox(key="train-data").set_value("folder"))
    assert yaml_of(app)["model"]["label"] == "shape" == app.text_input(key="train-model-label").value


def test_advice_fills_the_form_in() -> None:
    app = opened()
    app = rerun(app.button(key="train-suggest").click())
    end = time.monotonic() + 180
    keys = []
    while not keys:
        assert time.monotonic() < end
        time.sleep(0.2)
        app = rerun(app)
        keys = [b.key for b in app.button if b.key and b.key.startswith("train-advice-annealed-vae")]
    app = rerun(app.button(key=keys[0]).click())
    assert yaml_of(app)["objective"]["gamma"] == 100.0
    assert yaml_of(app)["model"]["likelihood"] == app.selectbox(key="train-model-likelihood").value


def test_the_page_starts_what_the_form_says_and_shows_how_it_ended(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a button that trains something else, a busy device that is taken, and a failure without a reason."""
    started = []

    def start(experiment: Experiment, runs: Path, device: str) -> TrainingJob:
        started.append((experiment, runs, device))
        return planted_job(runs / experiment.name, process)

    monkeypatch.setattr(training_jobs, "start", start)
    process = sleeper()
    try:
        app = rerun(opened().text_area(key=training_form.TEXT).set_value(to_yaml(TINY.to_dict())))
        app = rerun(app.button(key="train-start").click())
        assert started == [(TINY, workspace, "cpu")]
        assert not app.button(key="stop-tiny").disabled, "it looks at what it started"
        app = rerun(app.segmented_control(key="train-view").set_value("New training"))
        assert app.button(key="train-start").disabled, "one training a device"
    finally:
        process.kill()
        process.wait()
    (workspace / "tiny" / training_jobs.LOG).write_text("latentlab: The disk is full.\n")
    app = opened(**{"train-view": "Trainings"})
    assert [e.value for e in app.error] == ["The disk is full."]
    assert app.button(key="resume-tiny").label == "Start again"
    app = rerun(app.button(key="again-tiny").click())
    assert Experiment.from_dict(yaml_of(app)) == TINY
