"""Placing: what the sliders hold, kept between pages, and put there by a click on a picture or by a link."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from latentlab.app import components
from latentlab.app.components.traverse import Slots
from latentlab.app.ranges import USUAL, Ranges

if TYPE_CHECKING:
    from latentlab.app.components import TraverseState
    from latentlab.app.pull import Pull
    from latentlab.runs import Run

KEY = "pull"
"""The sliders' key in the session."""

_HELD, _COUNT = "held", "placings"


@dataclass(frozen=True, eq=False)
class Held:
    """What the sliders hold.

    Attributes:
        digest: of the run's weights.
        pull: what the sliders stand for; None for codes of the first space alone.
        start: revision of the start that they left from; None until the next one is known.
        z: their numbers.
        locks: coordinates that the dice leaves alone.
        slots: the numbers kept as A and B.
        seed: of the dice, 0 where it was not thrown.
        ranges: how far they reach.
        serial: counts what was put there from outside the sliders.
    """

    digest: str
    pull: Pull | None
    start: str | None
    z: np.ndarray
    locks: tuple[int, ...] = ()
    slots: Slots = (None, None)
    seed: int = 0
    ranges: Ranges = USUAL
    serial: int = 0

    @property
    def revision(self) -> str:
        """What the sliders are told: they take the numbers anew when it changes."""
        return f"{self.start}~{self.serial}" if self.serial else str(self.start)


def held(run: Run, pull: Pull | None, start: str, numbers: np.ndarray, final: bool = True) -> Held:
    """What the sliders hold since this start; ``numbers`` where that is a new one.

    Args:
        run: whose model.
        pull: what the sliders stand for.
        start: revision of the start.
        numbers: where the start puts the sliders.
        final: whether the start is there already; one that is still looked for takes nothing away.
    """
    kept: Held | None = st.session_state.get(_HELD)
    if (
        kept is not None
        and (kept.digest, kept.pull, kept.z.shape) == (run.digest, pull, numbers.shape)
        and kept.start in (None, start)
    ):
        now = replace(kept, start=start)
        st.session_state[_HELD] = now if final else kept
        return now
    now = Held(run.digest, pull, start, numbers, ranges=_kept_ranges(present(run), run, pull))
    st.session_state[_HELD] = now
    return now


def _kept_ranges(before: Held | None, run: Run, pull: Pull | None) -> Ranges:
    """What stays of the ranges when the sliders stand for something else: those of the same space's coordinates."""
    if before is None:
        return USUAL
    first = run.model.latent_space.name
    old, new = (first if each is None else each.space for each in (before.pull, pull))
    if old != new:
        return USUAL
    return before.ranges if before.pull == pull else before.ranges.below(run.model.spaces[new].dim)


def keep(before: Held, found: TraverseState) -> None:
    """Remembers where a person left the sliders."""
    kept = st.session_state.get(_HELD, before)
    st.session_state[_HELD] = replace(
        kept,
        z=found.z,
        locks=found.locks,
        slots=found.slots,
        seed=found.seed or before.seed,
        ranges=found.ranges,
    )


def present(run: Run) -> Held | None:
    """What the sliders of this run hold now, as the browser last said; None where they were never shown."""
    kept = st.session_state.get(_HELD)
    if kept is None or kept.digest != run.digest:
        return None
    found = components.traverse_state(KEY, kept.z, kept.revision, kept.locks, kept.slots, kept.ranges)
    return replace(
        kept,
        z=found.z,
        locks=found.locks,
        slots=found.slots,
        seed=found.seed or kept.seed,
        ranges=found.ranges,
    )


def put(run: Run, pull: Pull | None, numbers: np.ndarray) -> None:
    """Puts numbers into the sliders, which take them as one step that can be undone."""
    now = present(run)
    numbers = np.asarray(numbers, np.float32)
    if now is None or now.z.shape != numbers.shape:
        seed, ranges = 0 if now is None else now.seed, _kept_ranges(now, run, pull)
        now = Held(run.digest, pull, None, numbers, seed=seed, ranges=ranges)
    elif now.pull != pull:
        now = replace(now, pull=pull, start=None, ranges=_kept_ranges(now, run, pull))
    st.session_state[_HELD] = replace(now, z=numbers, serial=_next())


def restore(state: Held) -> None:
    """Takes over what a link says; the sliders take it whatever the start is."""
    st.session_state[_HELD] = replace(state, start=None, serial=_next())


def _next() -> int:
    st.session_state[_COUNT] = st.session_state.get(_COUNT, 0) + 1
    return st.session_state[_COUNT]
