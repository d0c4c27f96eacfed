"""Edit: one change of hidden units, as an immutable and serialisable value.

A list of edits is the undo history, the permalink and the recipe of a picture. An edit never touches the
network: ``StagedNetwork.run(h, edits=…)`` applies it to the state that flows through.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

OPERATIONS = ("ablate", "set", "scale", "shift", "replace")
LONGEST_TOLD = 120
"""Characters of a wrong value that a message repeats."""


def brief(value: Any) -> str:
    """A value as it is written, for a sentence: cut where it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST_TOLD else f"{text[: LONGEST_TOLD - 1]}…"


@dataclass(frozen=True)
class Edit:
    """Where, what and how much: ``h' = (1 - w) h + w target``, with w = amount x region.

    Args:
        stage: address of the stage, such as "generator.block2".
        units: channels (or features of a flat stage) to edit, one whole number or several; None for all.
        operation: "ablate" (target 0), "set" (``value``), "scale" (``value`` x h), "shift" (h + ``value``), or
            "replace" (the activation that the sample ``source`` has there).
        value: the number that "set", "scale" and "shift" use.
        amount: convex mix in [0, 1]: 0 leaves the state as it is, 1 applies the edit fully.
        region: None for everywhere, or rows of weights in [0, 1], a grid of any resolution that is stretched
            (nearest) over the stage's map.
        source: for "replace": the other sample, as the network's input (a code, an image) flattened.

    Raises:
        ValueError: on an unknown operation, an address without a network, or numbers out of range.
    """

    stage: str
    units: tuple[int, ...] | None = None
    operation: str = "ablate"
    value: float = 0.0
    amount: float = 1.0
    region: tuple[tuple[float, ...], ...] | None = None
    source: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.stage, str) or self.stage.count(".") < 1:
            raise ValueError(
                f"An edit's stage is an address such as 'generator.block2'; got {brief(self.stage)}."
            )
        if self.operation not in OPERATIONS:
            raise ValueError(
                f"An edit's operation is one of {', '.join(OPERATIONS)}; got {brief(self.operation)}."
            )
        for name in ("value", "amount"):
            number = _number(name, getattr(self, name))
            if not math.isfinite(number):
                raise ValueError(f"An edit's {name} must be a finite number; got {number}.")
            object.__setattr__(self, name, number)
        if not 0.0 <= self.amount <= 1.0:
            raise ValueError(f"An edit's amount lies in [0, 1]; got {self.amount}.")
        if self.units is not None:
            object.__setattr__(self, "units", _whole_numbers(self.units))
            if any(u < 0 for u in self.units):
                raise ValueError(f"An edit's units are counted from 0; got {brief(self.units)}.")
        if self.region is not None:
            rows = tuple(_numbers("region", row) for row in _sequence("region", self.region))
            widths = {len(row) for row in rows}
            if not rows or widths in ({0}, set()) or len(widths) > 1:
                raise ValueError("An edit's region must be rows of equal, non-zero length.")
            if any(not 0.0 <= w <= 1.0 for row in rows for w in row):
                raise ValueError("An edit's region must hold weights in [0, 1].")
            object.__setattr__(self, "region", rows)
        if self.source is not None:
            object.__setattr__(self, "source", _numbers("source", self.source))
        if (self.operation == "replace") != (self.source is not None):
            raise ValueError("A source is needed for operation 'replace', and for no other.")

    @property
    def network(self) -> str:
        """Name of the network that the edit speaks of."""
        return self.stage.split(".", 1)[0]

    def apply(self, h: Tensor, other: Tensor | None = None) -> Tensor:
        """Returns the edited state; ``h`` itself stays as it is.

        Args:
            h: state of the stage, (batch, units) or (batch, units, height, width).
            other: for "replace": the source's state at this stage, batch of 1.

        Raises:
            ValueError: on units that the stage does not have or that can't be told, or a region on a flat stage.
        """
        if not isinstance(h, Tensor):
            raise ValueError(
                f"Stage {self.stage!r} gives {type(h).__name__}, not one tensor; edit one before it."
            )
        units = h.shape[1]
        if self.units is not None and self.units and self.units[-1] >= units:
            raise ValueError(
                f"Stage {self.stage!r} has units 0 to {units - 1}; the edit names unit {self.units[-1]}."
            )
        if self.units is not None and h.ndim == 3:
            raise ValueError(
                f"Stage {self.stage!r} gives {tuple(h.shape[1:])} numbers a sample, such as tokens by features, "
                "so its units can't be told; edit all of it (units=None) or a stage that is flat or a map."
            )
        if self.region is not None and h.ndim != 4:
            raise ValueError(
                f"Stage {self.stage!r} has no spatial map, so an edit of it can't have a region."
            )
        where = slice(None) if self.units is None else list(self.units)
        part = h[:, where]
        if self.operation == "ablate":
            target = torch.zeros_like(part)
        elif self.operation == "set":
            target = torch.full_like(part, self.value)
        elif self.operation == "scale":
            target = part * self.value
        elif self.operation == "shift":
            target = part + self.value
        else:
            if other is None:
                raise ValueError(f"An edit of {self.stage!r} that replaces needs the other sample's state.")
            target = other[:, where].expand_as(part)
        weight = self.amount
        if self.region is not None:
            grid = torch.tensor(self.region, dtype=h.dtype, device=h.device)[None, None]
            weight = weight * torch.nn.functional.interpolate(grid, size=h.shape[2:], mode="nearest")
        if not (isinstance(weight, float) and weight == 1.0):
            target = part + weight * (target - part)
        edited = h.clone()
        edited[:, where] = target
        return edited

    def to_dict(self) -> dict:
        """Plain values for JSON, defaults left out."""
        return {
            k: v
            for k, v in asdict(self).items()
            if k == "stage" or v != type(self).__dataclass_fields__[k].default
        }

    @classmethod
    def from_dict(cls, spec: dict) -> Edit:
        """The inverse of ``to_dict``.

        Raises:
            ValueError: on unknown keys or values that no edit has.
        """
        known = set(cls.__dataclass_fields__)
        if not isinstance(spec, dict) or not set(spec) <= known or "stage" not in spec:
            raise ValueError(f"An edit has the keys {sorted(known)}, 'stage' among them; got {brief(spec)}.")
        try:
            return cls(**spec)
        except (TypeError, OverflowError) as error:
            why = str(error)[:LONGEST_TOLD]
            raise ValueError(f"An edit could not be read from {brief(spec)}: {why}.") from None


def _sequence(name: str, values: Any) -> Iterable:
    """Refuses a text, which would pass as its characters."""
    if isinstance(values, (str, bytes)):
        raise ValueError(f"An edit's {name} must be numbers; got the text {brief(values)}.")
    return values


def _whole_numbers(units: Any) -> tuple[int, ...]:
    try:
        several = _sequence("units", (units,) if isinstance(units, int) else units)
        return tuple(sorted({operator.index(u) for u in several}))
    except TypeError:
        raise ValueError(
            f"An edit's units are whole numbers, such as 12 or (1, 2); got {brief(units)}."
        ) from None


def _numbers(name: str, values: Any) -> tuple[float, ...]:
    return tuple(_number(name, v) for v in _sequence(name, values))


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"An edit's {name} must be a number or numbers; got {brief(value)}.") from None


def edits_to_json(edits: Iterable[Edit]) -> str:
    """A list of edits as one JSON text."""
    return json.dumps([edit.to_dict() for edit in edits])


def edits_from_json(text: str) -> tuple[Edit, ...]:
    """The inverse of ``edits_to_json``.

    Raises:
        ValueError: if the text is no JSON list of edits.
    """
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Expected a JSON list of edits; got text that is no JSON ({error}).") from None
    if not isinstance(entries, list):
        raise ValueError(f"Expected a JSON list of edits; got {type(entries).__name__}.")
    return tuple(Edit.from_dict(entry) for entry in entries)
