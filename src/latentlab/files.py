"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO


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
