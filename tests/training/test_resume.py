"""Real interruptions of the real command: kill -9, Ctrl-C, a disk that takes no more."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from latentlab.runs import Run

pytestmark = pytest.mark.slow

OPTIONS = [
    "--data.options", '{"image_size": 32}',
    "--model.width", "8", "--model.hidden", "32", "--model.latents", "4",
    "--batch_size", "16", "--max_steps", "1500",
    "--log_every", "10", "--preview_every", "0", "--checkpoint_every", "30",
    "--device", "cpu", "--quiet",
]  # fmt: skip


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "latentlab.cli", "train", *arguments]


def saved_step(path: Path) -> int:
    try:
        return torch.load(path / "last.ckpt", weights_only=True)["step"]
    except FileNotFoundError:
        return -1


def start_and_wait(path: Path, step: int) -> subprocess.Popen:
    process = subprocess.Popen(
        command("sprites-beta-vae", *OPTIONS, "--out", str(path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    limit = time.monotonic() + 240
    while saved_step(path) < step:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < limit, "training did not reach the step in time"
        time.sleep(0.02)
    return process


def finish(path: Path) -> tuple[bytes, str]:
    subprocess.run(
        command("--resume", str(path), "--device", "cpu", "--quiet"), check=True, capture_output=True
    )
    run = Run.open(path, "cpu")
    assert run.metrics()["step"][-1] == 1500
    return run.weights_path.read_bytes(), (path / "metrics.csv").read_text()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> tuple[bytes, str]:
    path = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(command("sprites-beta-vae", *OPTIONS, "--out", str(path)), check=True, capture_output=True)
    return (path / "weights.safetensors").read_bytes(), (path / "metrics.csv").read_text()


def test_kill_9_loses_at_most_an_interval_and_resumes_to_the_same_bits(uninterrupted, tmp_path):
    path = tmp_path / "run"
    process = start_and_wait(path, 120)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    process.stderr.close()
    rows = (path / "metrics.csv").read_text().splitlines()
    reached = int(rows[-1].split(",")[0])
    assert reached < 1500
    assert reached - saved_step(path) <= 40  # an interval of 30, and the rows of one log interval
    assert not [p for p in path.rglob("*.part") if p.stat().st_size == 0 and p.name == "weights.safetensors"]
    assert Run.open(path, "cpu").digest  # what is on disk can be opened as it is
    assert finish(path) == uninterrupted


def test_ctrl_c_saves_at_once_and_says_how_to_go_on(uninterrupted, tmp_path):
    path = tmp_path / "run"
    process = start_and_wait(path, 60)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 130, err
    assert f"Continue with: latentlab train --resume {path}" in out
    assert "Traceback" not in err
    assert finish(path) == uninterrupted


def test_a_full_disk_ends_with_one_sentence_and_keeps_the_last_checkpoint(uninterrupted, tmp_path):
    path = tmp_path / "run"
    start_and_stop = start_and_wait(path, 30)
    start_and_stop.send_signal(signal.SIGINT)
    start_and_stop.communicate(timeout=180)
    kept = saved_step(path)

    def smaller_files():
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = subprocess.run(
        command("--resume", str(path), "--device", "cpu", "--quiet"),
        capture_output=True,
        text=True,
        preexec_fn=smaller_files,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("latentlab: Could not save at step")
    assert f"the checkpoint of step {kept} is kept" in line
    assert not list(path.rglob("*.part"))
    assert saved_step(path) == kept
    assert finish(path) == uninterrupted
