"""Kept codes: codes that a person put aside by name, in the workspace, for these weights alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from latentlab.files import atomic_write, sole_writer

if TYPE_CHECKING:
    from latentlab.runs import Run, Workspace

FORMAT = 1
MOST_CODES = 200
LONGEST_NAME = 60
PRESENT = "Sliders"
"""What the code on the sliders is called beside kept ones."""

_RESERVED = re.compile(rf"{PRESENT}|seed \d+|.* \(group\)", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class KeptCode:
    """A code with a name.

    Args:
        name: what a person calls it.
        space: name of its space.
        z: the code (dim,).

    Raises:
        ValueError: on an empty or overlong name, or a code that is no row of finite numbers.
    """

    name: str
    space: str
    z: np.ndarray

    def __post_init__(self) -> None:
        name = " ".join(str(self.name).split())
        if not 1 <= len(name) <= LONGEST_NAME:
            raise ValueError(f"A kept code's name has 1 to {LONGEST_NAME} characters; got {len(name)}.")
        z = np.asarray(self.z, np.float32)
        if z.ndim != 1 or not len(z) or not np.isfinite(z).all():
            raise ValueError("A kept code is a row of finite numbers.")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "z", z)


def codes_file(workspace: Workspace, run: Run) -> Path:
    """Where the kept codes of these weights are."""
    return workspace.path / "codes" / f"{run.digest[:16]}.json"


def load_codes(path: Path) -> tuple[KeptCode, ...]:
    """The codes in a file, by name; none where there is no file.

    Raises:
        ValueError: if it is damaged, or of another format.
        OSError: if it can't be read.
    """
    if not path.exists():
        return ()
    try:
        content = json.loads(path.read_bytes())
        if (written := content["format"]) != FORMAT:
            raise ValueError(f"it is of format {str(written)[:20]}; this latentlab reads format {FORMAT}")
        return tuple(KeptCode(c["name"], str(c["space"]), np.array(c["z"], float)) for c in content["codes"])
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{path.name} holds no kept codes that can be read ({error}).") from None


def save_codes(path: Path, codes: Iterable[KeptCode]) -> None:
    """Keeps codes in place of those that were there.

    Raises:
        ValueError: if there are too many.
        OSError: if the file can't be written.
    """
    kept = sorted(codes, key=lambda code: code.name)
    if len(kept) > MOST_CODES:
        raise ValueError(f"At most {MOST_CODES} codes are kept; got {len(kept)}.")
    plain = [{"name": c.name, "space": c.space, "z": [float(v) for v in c.z]} for c in kept]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "w") as file:
        json.dump({"format": FORMAT, "codes": plain}, file, allow_nan=False)


def with_code(codes: Iterable[KeptCode], code: KeptCode) -> list[KeptCode]:
    """The codes with one more; one of the same name gives way."""
    return [other for other in codes if other.name != code.name] + [code]


def keep_code(path: Path, code: KeptCode) -> None:
    """Adds a code to those that are in the file now; one of the same name gives way.

    Raises:
        ValueError: if its name means something else, there are too many, or the file can't be understood.
        OSError: if the file can't be read or written. In either case it stays as it is.
    """
    if is_reserved(code.name):
        raise ValueError(
            f"{code.name!r} means something else in the menus of A, B and C; give the code another name."
        )
    with sole_writer(path):
        save_codes(path, with_code(_present(path), code))


def forget_code(path: Path, name: str) -> None:
    """Takes a code out of those that are in the file now.

    Raises:
        ValueError: if the file can't be understood.
        OSError: if the file can't be read or written. In either case it stays as it is.
    """
    with sole_writer(path):
        save_codes(path, [code for code in _present(path) if code.name != name])


def is_reserved(name: str) -> bool:
    """Whether a name is one that is offered beside kept codes: the sliders, a seed, a group."""
    return _RESERVED.fullmatch(" ".join(name.split())) is not None


def _present(path: Path) -> tuple[KeptCode, ...]:
    try:
        return load_codes(path)
    except ValueError as error:
        raise ValueError(f"Nothing was saved: {error}") from None
