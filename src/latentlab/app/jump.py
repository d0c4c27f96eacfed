"""Jump: a click on an image of a code puts the sliders onto that code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from latentlab.app import sliders
from latentlab.app.pull import Pull, moved_space

if TYPE_CHECKING:
    from latentlab.runs import Run

Choose = Callable[[np.ndarray], None]


def jumper(run: Run, pull: Pull | None, space: str | None) -> Choose | None:
    """What puts the sliders onto a code (dim,) of a space, or None where no slider moves such codes.

    Args:
        run: whose model.
        pull: what the sliders stand for; None for codes of the first space alone.
        space: whose codes they are; None for the first one.
    """
    place = space or run.model.latent_space.name
    if pull is None:
        return None if space is not None else lambda code: sliders.put(run, None, code, place)
    if not sliders.holds(run, place):
        return None
    reached = list(run.model.spaces)[list(run.model.spaces).index(place) :]
    kept = tuple(d for d in pull.directions if d.space is None or moved_space(d) in reached)
    return lambda code: sliders.put(run, replace(pull, directions=kept), code, place)
