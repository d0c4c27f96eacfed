"""Recipe values: what each field of a recipe takes, from Python or from JSON, and how it is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from latentlab.analysis.direction import Direction
from latentlab.models.edits import Edit

_MOST = {"steps": 500, "scale": 64, "count": 1_000_000}


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a text; got {value!r}.")
    return value


def _number(name: str, value: Any) -> float:
    # No whole number is taken as it is: JSON's may be too long for a float.
    known = isinstance(value, (float, np.number)) or (isinstance(value, int) and abs(value) < 2**63)
    if isinstance(value, bool) or not known or not math.isfinite(value):
        raise ValueError(f"{name} must hold finite numbers; got {repr(value)[:40]}.")
    return float(value)


def _list(name: str, value: Any) -> tuple:
    if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "__iter__"):
        raise ValueError(f"{name} must be a list; got {value!r}.")
    return tuple(value)


def _whole(least: int, optional: bool = False) -> Callable[[str, Any], Any]:
    def check(name: str, value: Any) -> int | None:
        if optional and value is None:
            return None
        most = _MOST.get(name, 2**63 - 1)
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole or not least <= value <= most:
            raise ValueError(f"{name} must be a whole number from {least} to {most:,}; got {value!r}.")
        return int(value)

    return check


def _codes(name: str, value: Any) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(_number(name, v) for v in _list(name, row)) for row in _list(name, value))


def _ranges(name: str, value: Any) -> tuple[tuple[float, float] | None, ...]:
    found: list[tuple[float, float] | None] = []
    for ends in _list(name, value):
        pair = None if ends is None else tuple(_number(name, v) for v in _list(name, ends))
        if pair is not None and (len(pair) != 2 or pair[0] == pair[1]):
            raise ValueError(f"{name} must hold pairs of a low and a high end; got {list(pair)}.")
        found.append(pair)  # type: ignore[arg-type]
    return tuple(found)


def _names(name: str, value: Any) -> tuple[str, ...]:
    return tuple(_text(name, v) for v in _list(name, value))


def _edits(name: str, value: Any) -> tuple[Edit, ...]:
    return tuple(e if isinstance(e, Edit) else Edit.from_dict(e) for e in _list(name, value))


def _labels(name: str, value: Any) -> dict[str, tuple[str, float]] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a JSON object; got {value!r}.")
    found = {}
    for latent, label in value.items():
        if len(pair := _list(name, label)) != 2:
            raise ValueError(f"{name} must hold pairs of a factor and nats; got {label!r}.")
        found[_text(name, latent)] = (_text(name, pair[0]), _number(name, pair[1]))
    return found


def _directions(name: str, value: Any) -> tuple[Direction, ...] | None:
    if value is None:
        return None
    return tuple(d if isinstance(d, Direction) else Direction.from_dict(d) for d in _list(name, value))


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false; got {value!r}.")
    return value


def _rate(name: str, value: Any) -> float:
    if not 0 < _number(name, value) <= 50:
        raise ValueError(f"{name} must lie above 0 and at most at 50; got {value!r}.")
    return float(value)


def _notes(name: str, value: Any) -> Any:
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a JSON object; got {value!r}.")
    return value if name == "output" else value or {}


CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "run": _text,
    "weights_digest": _text,
    "step": _whole(0, optional=True),
    "space": _text,
    "z": _codes,
    "start": _text,
    "seed": _whole(0, optional=True),
    "edits": _edits,
    "dims": _names,
    "ranges": _ranges,
    "span": _text,
    "steps": _whole(2),
    "scale": _whole(1),
    "caption": _flag,
    "fps": _rate,
    "source": _text,
    "count": _whole(1),
    "network": _text,
    "precision": _text,
    "labels": _labels,
    "directions": _directions,
    "made_with": _notes,
    "output": _notes,
}
"""``check(name, value)`` of each field: the value as it is kept; it raises a ValueError that names the field."""
