"""Trainings in processes of their own: started, watched, stopped and resumed through the run's folder alone.

The process is ``latentlab train``, in a session of its own, so that neither a reload nor the server's end touches it.
All that is known of it lies in the run's folder: ``job.json`` (process and device), ``training.yaml`` (what was asked
for), ``training.log`` (what it printed) and what every training writes. A process is the one that was started if its
number and its birth agree. Two locks live exactly as long as the process, however it ends: it inherits the open files.

A training that was started in a terminal, or by a program, notes the same of itself in ``job.json``, and how it ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from latentlab.app.configuration import to_yaml
from latentlab.config import Experiment
from latentlab.files import atomic_write
from latentlab.processes import JOB as JOB
from latentlab.processes import Training, folder_identity, locks_folder, process_birth, trainings

try:
    import fcntl
except ImportError:  # no such locks on Windows: there the processes that are known are asked
    fcntl = None

LOG, CONFIGURATION = "training.log", "training.yaml"
NICENESS = 10  # a dragged slider goes first
TAIL = 60
PATIENCE = 1.0  # seconds
_LARGEST_TAIL = 40_000

ALIVE = ("starting", "running", "stopping")
EXPLORER, TERMINAL = "explorer", "terminal"
KILLED = "The training ended without a word: it was killed, or the machine was switched off."


class Busy(OSError):
    """A device, or a run, that is training already."""


@dataclass(frozen=True)
class TrainingJob:
    """One process that trains a run, as its folder tells it.

    Attributes:
        folder: the run's.
        pid: number of the process.
        birth: when the process began, as the system tells it; with the number it names the process for good.
        device: what it trains on, "cpu" or "cuda:0".
        begun: when it was started, seconds since 1970.
        log_from: where in the log its words begin.
        origin: "explorer", or "terminal" for what was started in a terminal or by a program.
        outcome: how it ended as itself noted, "finished", "stopped" or "failed"; "" for none, and for the explorer's.
        told: why it failed, as itself noted.
    """

    folder: Path
    pid: int
    birth: str
    device: str
    begun: float
    log_from: int
    origin: str = EXPLORER
    outcome: str = ""
    told: str = ""

    @property
    def alive(self) -> bool:
        """Whether the process still runs; one that has ended but was not yet collected does not."""
        return bool(self.birth) and not self.outcome and process_birth(self.pid) == self.birth

    @property
    def state(self) -> str:
        """What it is at: starting, running or stopping; after its end finished, stopped, failed or killed."""
        from latentlab.runs import CARD

        if self.alive:
            if self._asked_to_stop():
                return "stopping"
            return "running" if self._has_begun() else "starting"
        if self.outcome:
            return self.outcome
        if (self.folder / CARD).is_file():
            return "finished"
        if self.sentence:
            return "failed"
        told = any(line.startswith("Stopped by") for line in self.tail())
        return "stopped" if told or self._asked_to_stop() else "killed"

    @property
    def resumable(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        from latentlab.runs import RESUME

        return (self.folder / RESUME).is_file()

    @property
    def step(self) -> int:
        """The last step that was logged, 0 before the first."""
        from latentlab.runs import METRICS

        for line in reversed(_end_of(self.folder / METRICS, 4000)):
            first = line.split(",")[0]
            if first.isdigit():
                return int(first)
        return 0

    @property
    def sentence(self) -> str:
        """Why it failed, in one sentence; "" where it did not."""
        if self.told:
            return self.told
        lines = self.tail()
        for line in reversed(lines):
            if line.startswith("latentlab: ") and line != "latentlab: interrupted":
                return line.removeprefix("latentlab: ")
        if any(line.startswith("Traceback") for line in lines) and "KeyboardInterrupt" not in lines[-1]:
            return lines[-1]
        return ""

    @property
    def can_be_stopped(self) -> bool:
        """Whether it can be asked from here to end: by its run's commands, which it reads every few seconds."""
        from latentlab.runs import COMMANDS

        path = self.folder / COMMANDS
        return self.alive and os.access(path if path.exists() else self.folder, os.W_OK)

    def tail(self) -> list[str]:
        """The last lines that this process printed; of one in a terminal they are there."""
        if self.origin == TERMINAL:
            return []
        return _end_of(self.folder / LOG, _LARGEST_TAIL, self.log_from)[-TAIL:]

    def _has_begun(self) -> bool:
        """Whether this process has written to the curves; a resumed one first drops the rows it will make again."""
        from latentlab.runs import METRICS

        try:
            return (self.folder / METRICS).stat().st_mtime >= self.begun
        except OSError:
            return False

    def _asked_to_stop(self) -> bool:
        from latentlab.runs import COMMANDS

        for line in _end_of(self.folder / COMMANDS, 4000):
            with suppress(ValueError, TypeError, AttributeError):
                entry = json.loads(line)
                if entry.get("command") == "stop" and float(entry.get("at", 0.0)) >= self.begun:
                    return True
        return False


def read_job(folder: Path) -> TrainingJob | None:
    """The last process that trained the run in a folder; None where none is noted.

    A living process is believed only in the folder that it was started for: a copy of that one's note would hand
    somebody else's training over to be stopped.
    """
    from latentlab.runs import read_text

    try:
        kept = json.loads(read_text(folder / JOB))
        origin = TERMINAL if kept.get("origin") == TERMINAL else EXPLORER
        outcome = str(kept.get("outcome", ""))
        job = TrainingJob(
            folder,
            int(kept["pid"]),
            str(kept["birth"]),
            str(kept["device"]),
            float(kept["begun"]),
            int(kept["log_from"]),
            origin,
            outcome if outcome in ("finished", "stopped", "failed") else "",
            str(kept.get("sentence", ""))[:500],
        )
        return None if job.alive and not _of_this_folder(job, kept.get("folder")) else job
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _of_this_folder(job: TrainingJob, identity: str | None) -> bool:
    """Whether a living process trains the run whose folder its note lies in."""
    if identity is not None:
        return identity == folder_identity(job.folder)
    # A note from before folders were named in it: the process itself has listed where its run lies.
    return any(t.pid == job.pid and t.folder == job.folder.resolve() for t in all_trainings())


def list_jobs(runs: Path) -> list[TrainingJob]:
    """The jobs of all runs in a workspace, the last started first."""
    folders = {path.parent for depth in ("*", "*/*") for path in runs.glob(f"{depth}/{JOB}")}
    jobs = [job for folder in folders if (job := read_job(folder)) is not None]
    return sorted(jobs, key=lambda job: -job.begun)


def devices() -> dict[str, str]:
    """What can be trained on here: {"cuda:0": its name, …, "cpu": "CPU"}, the fastest first."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {**{f"cuda:{i}": torch.cuda.get_device_name(i) for i in range(count)}, "cpu": "CPU"}


def all_trainings() -> list[Training]:
    """Every training on this machine now, wherever its run lies and whatever started it."""
    return trainings(locks_folder())


def busy_devices(runs: Path) -> dict[str, str]:
    """{device: what trains on it now}, of this workspace's runs by their address in it, of others by their folder."""
    found = {job.device: job.folder.relative_to(runs).as_posix() for job in list_jobs(runs) if job.alive}
    for training in all_trainings():
        folder = training.folder
        inside = folder.is_relative_to(runs.resolve())
        found.setdefault(
            training.device, folder.relative_to(runs.resolve()).as_posix() if inside else str(folder)
        )
    return found


def start(experiment: Experiment, runs: Path, device: str) -> TrainingJob:
    """Starts a training in a new folder of the workspace.

    Args:
        experiment: what to train; its name becomes the folder's, with a number behind where that is taken.
        runs: the workspace.
        device: one of ``devices()``.

    Raises:
        Busy: if a training holds the device.
        OSError: if the workspace can't be written to.
    """
    from latentlab.runs import FolderTaken, Run

    with _hold_device(device, runs) as lock:
        number = 1
        while True:
            folder = runs / (experiment.name if number == 1 else f"{experiment.name}-{number}")
            number += 1
            if folder.exists():
                continue
            try:
                # The training writes the true shape of the images over this when it has opened the data.
                Run.create(folder, experiment, (1, 64, 64))
                break
            except FolderTaken:  # by another one, since we looked
                continue
        with atomic_write(folder / CONFIGURATION, "w") as file:
            file.write(to_yaml(experiment.to_dict()))
        return _launch(folder, device, lock)


def resume(job: TrainingJob, device: str | None = None) -> TrainingJob:
    """Goes on from the last checkpoint of a job that has ended, or begins again where there is none.

    Raises:
        Busy: if it still runs, or another training holds the device.
        OSError: if its folder can't be written to.
    """
    from latentlab.runs import Run

    if job.alive:
        raise Busy(f"{job.folder.name} is training already.")
    device = device or job.device
    with _hold_device(device, job.folder.parent) as lock:
        if not (job.folder / CONFIGURATION).is_file():  # started in a terminal
            with atomic_write(job.folder / CONFIGURATION, "w") as file:
                file.write(to_yaml(Run.open(job.folder).experiment.to_dict()))
        return _launch(job.folder, device, lock)


def stop(job: TrainingJob) -> None:
    """Asks a job to end after the step it is at, with a checkpoint to go on from; asking twice changes nothing."""
    from latentlab.runs import Run

    if not job.alive or job._asked_to_stop():
        return
    Run.open(job.folder).command(command="stop", at=time.time())
    if job.origin == TERMINAL:
        return  # no signal: what else that process is about is not known here
    # The command is obeyed within seconds; an interrupt at the next step, and also before the first.
    if os.name == "posix" and job.alive:
        with suppress(ProcessLookupError):
            os.kill(job.pid, signal.SIGINT)


@contextmanager
def _hold_device(device: str, runs: Path) -> Iterator[IO[str]]:
    """Takes a device's lock, which a process started meanwhile keeps.

    Raises:
        Busy: naming what trains on it.
    """
    handle = os.open(
        locks_folder() / f"{device.replace(':', '-')}.lock",
        os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0),
        0o600,
    )
    with os.fdopen(handle, "r+", encoding="utf-8") as lock:
        name = "" if fcntl is None or _locked(lock) else Path(lock.read().strip() or "a run").name
        name = name or busy_devices(runs).get(device, "")
        if name:
            raise Busy(
                f"{device_words(device)} is training {name} already, and each device trains one run at a time: "
                "wait for it, or stop it."
            )
        lock.seek(0)
        lock.truncate()
        yield lock


def _locked(file: IO) -> bool:
    """Takes a file's lock; waits a moment for a process that was killed and still lets go of its files."""
    assert fcntl is not None
    end = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.05)


def device_words(device: str) -> str:
    """A device in words."""
    return "The CPU" if device == "cpu" else f"GPU {device.partition(':')[2] or 0}"


def _launch(folder: Path, device: str, lock: IO[str]) -> TrainingJob:
    """Starts the process, which keeps the device's lock and its run's as long as it lives."""
    from latentlab.runs import RESUME

    lock.write(str(folder))
    lock.flush()
    what = (
        ["--resume", str(folder)]
        if (folder / RESUME).is_file()
        else [str(folder / CONFIGURATION), "--out", str(folder)]
    )
    with (folder / LOG).open("ab") as log:
        if fcntl is not None and not _locked(log):
            raise Busy(f"{folder.name} is training already.")
        begins, begun = log.tell(), time.time()
        process = subprocess.Popen(
            # -P: a file in the folder one stands in must not shadow a module.
            [sys.executable, "-P", "-m", "latentlab.cli", "train", *what, "--device", device, "--quiet"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=(lock.fileno(),) if fcntl is not None else (),
            env=_environment(),
        )
        if hasattr(os, "setpriority"):
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        job = TrainingJob(folder, process.pid, process_birth(process.pid) or "", device, begun, begins)
        with atomic_write(folder / JOB, "w") as file:
            kept = {k: v for k, v in asdict(job).items() if k not in ("folder", "outcome", "told")}
            json.dump({**kept, "folder": folder_identity(folder)}, file, indent=1)
    # Collects the process when it ends, should this one still be there.
    threading.Thread(target=process.wait, daemon=True, name="latentlab-training").start()
    return job


def _environment() -> dict[str, str]:
    """The process's environment: one core is left to the pages, and what it prints is written at once."""
    given: dict[str, Any] = {name: value for name, value in os.environ.items() if name != "LATENTLAB_DEBUG"}
    threads = str(max(1, (os.cpu_count() or 2) - 1))
    return {**given, "OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}


def _end_of(path: Path, size: int, begin: int = 0) -> list[str]:
    """The last lines of a text file, of those behind ``begin``, from at most ``size`` bytes."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(begin, end - size))
            return file.read(size).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
