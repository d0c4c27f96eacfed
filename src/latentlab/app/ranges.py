"""Ranges: how far sliders reach where a person widened or narrowed them, all at once or one by one.

``components/ranges.js`` follows the same rules in the browser.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from latentlab.app.components.traverse import Axis

LARGEST = 1e6
"""How far from 0 a range may reach, in a code's own units."""

SIGMAS = (2.0, 3.0)
"""Standard deviations to either side that all sliders can be given."""

Ends = tuple[float, float]


@dataclass(frozen=True)
class Ranges:
    """What was chosen in place of the ranges that the sliders come with.

    Attributes:
        all: for all sliders: one of ``SIGMAS`` (standard deviations of the prior around its middle), low and high as
            typed, or None for the ranges that they come with.
        own: coordinate, low and high of each slider that was set by itself, by rising coordinate.
    """

    all: float | Ends | None = None
    own: tuple[tuple[int, float, float], ...] = ()

    @classmethod
    def read(cls, plain: Any) -> Ranges:
        """The inverse of ``plain``, of what may be anything; None stands for nothing chosen.

        Raises:
            ValueError: on anything else; one sentence.
        """
        if plain is None:
            return cls()
        if not isinstance(plain, dict) or not set(plain) <= {"all", "own"}:
            raise ValueError("Ranges are those of all sliders and those of single ones; these can't be read.")
        chosen, own = plain.get("all"), plain.get("own", [])
        if isinstance(chosen, (list, tuple)):
            chosen = _ends(chosen)
        elif chosen is not None:
            chosen = _number(chosen)
            if chosen not in SIGMAS:
                raise ValueError(f"All sliders reach 2 or 3 standard deviations far; got {chosen:g}.")
        if not isinstance(own, (list, tuple)):
            raise ValueError("The ranges of single sliders can't be read.")
        found: dict[int, Ends] = {}
        for entry in own:
            if not isinstance(entry, (list, tuple)) or len(entry) != 3:
                raise ValueError("A slider's range is its number, low and high; one of these is not.")
            index = entry[0]
            if not isinstance(index, int) or isinstance(index, bool) or index < 0 or index in found:
                raise ValueError(f"A range belongs to one slider, counted from 0; got {str(index)[:20]}.")
            found[index] = _ends(entry[1:])
        return cls(chosen, tuple((index, *found[index]) for index in sorted(found)))

    def plain(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        chosen = list(self.all) if isinstance(self.all, tuple) else self.all
        return {"all": chosen, "own": [list(entry) for entry in self.own]}

    def below(self, dim: int) -> Ranges:
        """Without the ranges of sliders that move a coordinate from ``dim`` on."""
        return replace(self, own=tuple(entry for entry in self.own if entry[0] < dim))

    def __bool__(self) -> bool:
        return self.all is not None or bool(self.own)


USUAL = Ranges()
"""The ranges that the sliders come with."""


def applied(axes: Sequence[Axis], ranges: Ranges) -> list[Axis]:
    """The sliders with the ranges that were chosen; what does not fit a slider leaves it as it is."""
    own = {index: (low, high) for index, low, high in ranges.own}
    found = []
    for axis in axes:
        ends = own.get(axis.index)
        if ends is None or not _fits(axis, ends):
            ends = _of_all(axis, ranges.all)
        found.append(
            axis if ends is None or not _fits(axis, ends) else replace(axis, low=ends[0], high=ends[1])
        )
    return found


def table(axes: Sequence[Axis], dim: int) -> np.ndarray:
    """Low and high of each of a code's coordinates (dim, 2) as sliders reach, 0 and 1 of categories."""
    found = np.tile(np.array([0.0, 1.0]), (dim, 1))
    for axis in axes:
        if axis.index < dim and not axis.choices:
            found[axis.index] = axis.low, axis.high
    return found


def words(ranges: Ranges) -> str:
    """What was chosen, as a sentence without its stop; "" for nothing."""
    several = len(ranges.own)
    single = (
        f"{several} sliders have ranges of their own" if several > 1 else "1 slider has a range of its own"
    )
    if ranges.all is None:
        return single if several else ""
    far = (
        f"Ranges go from {ranges.all[0]:g} to {ranges.all[1]:g}"
        if isinstance(ranges.all, tuple)
        else f"Ranges are ± {ranges.all:g} σ of the prior"
    )
    return f"{far}; {single}" if several else far


def _of_all(axis: Axis, chosen: float | Ends | None) -> Ends | None:
    if chosen is None or axis.sigma is None:
        return None
    if isinstance(chosen, tuple):
        return chosen
    middle, sigma = axis.sigma
    return middle - chosen * sigma, middle + chosen * sigma


def _fits(axis: Axis, ends: Ends) -> bool:
    low, high = ends
    if axis.choices or not np.float32(low) < np.float32(high):
        return False
    if max(abs(low), abs(high)) > LARGEST:
        return False
    inside = axis.low <= low and high <= axis.high
    return not axis.whole or (inside and low.is_integer() and high.is_integer())


def _ends(pair: Sequence[Any]) -> Ends:
    if len(pair) != 2:
        raise ValueError(f"A range has a low and a high end; got {len(pair)} numbers.")
    low, high = (_number(end) for end in pair)
    if max(abs(low), abs(high)) > LARGEST:
        raise ValueError(f"A range lies between -{LARGEST:,.0f} and {LARGEST:,.0f}; got {low:g} to {high:g}.")
    if not np.float32(low) < np.float32(high):
        raise ValueError(f"A range goes from a lower number to a higher one; got {low:g} to {high:g}.")
    return low, high


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"A range needs numbers; got {str(value)[:20]!r}.")
    if (isinstance(value, int) and abs(value) > LARGEST) or not math.isfinite(value):
        raise ValueError(f"A range lies between -{LARGEST:,.0f} and {LARGEST:,.0f}; got {str(value)[:20]}.")
    return float(value)
