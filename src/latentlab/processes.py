"""Processes that train: who trains a run, and on which device, told so that no old file can pass for a living one.

A process is named by its number and its birth, which together no other process ever has. What trains a run is noted
in the run's folder (``job.json``) and, for the devices, in a folder of this machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from latentlab.files import atomic_write

JOB = "job.json"
_TRAININGS = "trainings"
_LARGEST = 10_000


@dataclass(frozen=True)
class Training:
    """A process that trains a run on a device of this machine at this moment.

    Attributes:
        folder: the run's.
        device: "cpu" or "cuda:0".
        pid: number of the process.
    """

    folder: Path
    device: str
    pid: int


def process_birth(pid: int) -> str | None:
    """When a process began, as the system tells it; None if there is none, or it has ended and is yet uncollected."""
    if Path("/proc/self/stat").exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return None
        return None if fields[0] in "ZX" else f"{boot} {fields[19]}"
    if os.name != "posix":
        return None
    told = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True)
    state, _, birth = told.stdout.strip().partition(" ")
    return birth.strip() if state and not state.startswith("Z") else None


def folder_identity(folder: Path) -> str:
    """Names a folder for good on this machine: a copy of it is another one. "" where it is gone."""
    try:
        status = folder.stat()
    except OSError:
        return ""
    return f"{status.st_dev}:{status.st_ino}"


def locks_folder() -> Path:
    """Where devices' locks and trainings are noted: this machine's and this user's, whatever the workspace."""
    folder = Path(tempfile.gettempdir()) / f"latentlab-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextmanager
def announced(folder: Path, device: str, stopped: Callable[[], str]) -> Iterator[None]:
    """Notes that this process trains the run in ``folder`` as long as the block lasts, and then how it ended.

    A process that the explorer started has its note from there already. Where nothing can be written, nothing is:
    a training never fails for want of a note.

    Args:
        folder: the run's.
        device: what it trains on, "cpu" or "cuda:0".
        stopped: what ended it early, "" for nothing; asked at the end.
    """
    pid = os.getpid()
    birth = process_birth(pid) or ""
    note = {
        "pid": pid,
        "birth": birth,
        "device": device,
        "begun": time.time(),
        "log_from": 0,
        "origin": "terminal",
        "folder": folder_identity(folder),
    }
    kept = _read(folder / JOB)
    own = (kept.get("pid"), kept.get("birth")) == (pid, birth) and kept.get("origin") != "terminal"
    if not own:
        _write(folder / JOB, note)
    listed = _list(folder, device, pid, birth)
    outcome, sentence = "failed", ""
    try:
        yield
        outcome = "stopped" if stopped() else "finished"
    except KeyboardInterrupt:
        outcome = "stopped"
        raise
    except BaseException as error:
        sentence = " ".join(str(error).split())[:500] or type(error).__name__
        raise
    finally:
        if listed is not None:
            listed.unlink(missing_ok=True)
        if not own and _read(folder / JOB) == note:
            _write(folder / JOB, {**note, "outcome": outcome, "sentence": sentence})


def trainings(locks: Path | None = None) -> list[Training]:
    """All processes of this user that train on this machine now, whatever started them; notes of others are dropped.

    Args:
        locks: ``locks_folder()`` unless given.
    """
    found = []
    for path in sorted(((locks or locks_folder()) / _TRAININGS).glob("*.json")):
        kept = _read(path)
        try:
            pid, birth = int(kept["pid"]), str(kept["birth"])
            training = Training(Path(str(kept["folder"])), str(kept["device"]), pid)
        except (KeyError, TypeError, ValueError):
            continue  # being written
        if birth and process_birth(pid) == birth:
            found.append(training)
        else:
            with suppress(OSError):
                path.unlink()
    return found


def _list(folder: Path, device: str, pid: int, birth: str) -> Path | None:
    try:
        place = locks_folder() / _TRAININGS
        place.mkdir(mode=0o700, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=place, prefix=f"{pid}-", suffix=".json")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"folder": str(folder.resolve()), "device": device, "pid": pid, "birth": birth}, file)
    except OSError:
        return None
    return Path(name)


def _read(path: Path) -> dict:
    try:
        if path.stat().st_size > _LARGEST:
            return {}
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _write(path: Path, note: dict) -> None:
    with suppress(OSError), atomic_write(path, "w") as file:
        json.dump(note, file, indent=1)
