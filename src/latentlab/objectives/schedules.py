"""The value of a coefficient at a step: numbers stay, schedules are worked out."""

from __future__ import annotations

import math

from latentlab.config import Coefficient, Schedule


def at(coefficient: Coefficient, step: int) -> float:
    """What a coefficient is at an optimiser step, counted from 0; a number is what it is at every step."""
    if not isinstance(coefficient, Schedule):
        return coefficient
    share = max(0, step - coefficient.delay) / coefficient.steps
    if coefficient.shape == "cyclic":
        share = 2.0 * (share % 1.0)
    share = min(1.0, share)
    if coefficient.shape == "cosine":
        share = 0.5 - 0.5 * math.cos(math.pi * share)
    return coefficient.start + (coefficient.end - coefficient.start) * share


def scheduled(owner: object, step: int) -> dict[str, float]:
    """The attributes of ``owner`` that are schedules, by name, as they are at a step."""
    return {name: at(value, step) for name, value in vars(owner).items() if isinstance(value, Schedule)}
