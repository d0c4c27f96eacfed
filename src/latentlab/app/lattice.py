"""Lattice: the seeds of the seed plane, and where on it a person stands, kept while the plane is not on show."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import streamlit as st

from latentlab.app import components

if TYPE_CHECKING:
    from latentlab.app.components import Place
    from latentlab.runs import Run

SIDE = 7
"""Seeds in a row and in a column."""

STRIDE = 100
"""From a seed to the one below it."""

KEY = "seed-plane"
"""The plane's key in the session."""

TAB = "Seed plane"

_STANDING = "plane-standing"


@dataclass(frozen=True)
class Lattice:
    """Which seeds a plane is made of.

    Attributes:
        digest: of the run's weights.
        space: whose codes are blended.
        first: seed at the upper left.
    """

    digest: str
    space: str
    first: int


@dataclass(frozen=True)
class Standing:
    """Where a person stands.

    Attributes:
        lattice: on which one.
        place: where on it.
        serial: counts what was put there from outside the plane.
    """

    lattice: Lattice
    place: Place
    serial: int = 0

    @property
    def revision(self) -> str:
        """What the plane is told: it takes the place anew when it changes."""
        of = self.lattice
        named = f"{of.digest[:12]}-{of.space}-{of.first}"
        return f"{named}~{self.serial}" if self.serial else named


def middle() -> Place:
    """Where the plane opens."""
    return components.Place((SIDE - 1) / 2, (SIDE - 1) / 2)


def standing(lattice: Lattice) -> Standing:
    """Where a person stands on a lattice now: as the browser last said, else as kept, else in its middle."""
    kept = st.session_state.get(_STANDING)
    if kept is None or kept.lattice != lattice:
        kept = Standing(lattice, middle())
    place = components.plane_place(KEY, (SIDE, SIDE), kept.revision, kept.place)
    now = replace(kept, place=place)
    st.session_state[_STANDING] = now
    return now


def present(run: Run) -> Standing | None:
    """Where a person stands on the plane of this run, if it is the one on show and they have left its middle."""
    kept = st.session_state.get(_STANDING)
    if kept is None or kept.lattice.digest != run.digest or st.session_state.get("below") != TAB:
        return None
    if kept.lattice.first != st.session_state.get("plane", 0):
        return None
    now = standing(kept.lattice)
    return None if now.place == middle() else now


def restore(lattice: Lattice, place: Place) -> None:
    """Takes over what a link says."""
    before = st.session_state.get(_STANDING)
    st.session_state[_STANDING] = Standing(lattice, place, 1 if before is None else before.serial + 1)
