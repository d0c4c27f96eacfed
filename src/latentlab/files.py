"""Files that are written whole or not at all, and by one writer after the other."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows: threads wait for each other, processes don't
    fcntl = None

PATIENCE = 30.0
"""Seconds that a writer waits for its turn; each takes milliseconds."""

_turn = threading.Lock()


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO]:
    """Opens a temporary neighbour of ``path`` that takes its place only if the block ends well.

    Args:
        path: the file to write; its folder must exist.
        mode: "wb" for bytes, "w" for UTF-8 text.

    Raises:
        OSError: if the folder can't be written or the disk is full; what stood at ``path`` is still there.
    """
    encoding = None if "b" in mode else "utf-8"
    newline = None if "b" in mode else ""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, mode, encoding=encoding, newline=newline) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Keeps other threads and processes from changing a file while the block reads, changes and writes it.

    Only those wait that ask for their turn here as well; readers don't. What is locked is the file's folder, which is
    made where it is missing, so no further file is left behind.

    Args:
        path: the file, which need not exist.

    Raises:
        OSError: if the folder can't be made, or no turn comes within ``PATIENCE`` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + PATIENCE
    if not _turn.acquire(timeout=PATIENCE):
        raise _busy(path)
    try:
        handle = None if fcntl is None else os.open(path.parent, os.O_RDONLY)
        try:
            while handle is not None and not _locked(handle):
                if time.monotonic() > end:
                    raise _busy(path)
                time.sleep(0.005)
            yield
        finally:
            if handle is not None:
                os.close(handle)  # lets go of the lock, too
    finally:
        _turn.release()


def _locked(handle: int) -> bool:
    """Takes the lock of an open folder; False while another process has it."""
    assert fcntl is not None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _busy(path: Path) -> OSError:
    return TimeoutError(f"{path.name} is being written by somebody else for {PATIENCE:g} seconds; try again.")
