"""What every objective's configuration has: what it is called, and coefficients that may follow a schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from latentlab.config.fields import check_choice, check_range


@dataclass(frozen=True)
class ObjectiveConfig:
    """Base of all objective configurations; choose one of its subclasses.

    Attributes:
        objective: what it is called.
        kind: the kind of model that it can train, "variational" or "adversarial".
        year: when it was published.
        paper: where to read about it.
        use: when to choose it, in a few words.
    """

    objective: ClassVar[str] = ""
    kind: ClassVar[str] = "variational"
    year: ClassVar[int] = 0
    paper: ClassVar[str] = ""
    use: ClassVar[str] = ""


@dataclass(frozen=True)
class Schedule:
    """A coefficient that changes while training goes on, counted in optimiser steps from 0.

    Args:
        shape: "linear"; "cosine" for a half wave that begins and ends flat; "cyclic" for a linear rise during the
            first half of every period, then held at ``end`` for the other half.
        start: value at the first step.
        end: value after ``steps``, and from then on (cyclic: the top of every period).
        steps: length of the change, of the whole period for "cyclic".
        delay: steps at ``start`` before the change begins.

    References:
        Cyclical Annealing Schedule: A Simple Approach to Mitigating KL Vanishing (Fu et al., 2019),
        https://arxiv.org/abs/1903.10145, whose periods are the cyclic ones
    """

    shape: Literal["linear", "cosine", "cyclic"] = "linear"
    start: float = 0.0
    end: float = 1.0
    steps: int = 10_000
    delay: int = 0

    def __post_init__(self) -> None:
        check_choice(self, "shape")
        check_range("schedule", "start", self.start, -1e6, 1e6)
        check_range("schedule", "end", self.end, -1e6, 1e6)
        for name, low in (("steps", 1), ("delay", 0)):
            if not isinstance(getattr(self, name), int):
                raise ValueError(f"schedule.{name} must be a whole number; got {getattr(self, name)!r}.")
            check_range("schedule", name, getattr(self, name), low, 10**9)


Coefficient = float | Schedule
"""A number, or how it changes with the step."""


def check_coefficient(config: ObjectiveConfig, name: str, low: float = 0.0, high: float = 1e6) -> None:
    """Refuses a coefficient, or either end of its schedule, out of range.

    Raises:
        ValueError: with the range.
    """
    value = getattr(config, name)
    ends = (value.start, value.end) if isinstance(value, Schedule) else (value,)
    for end in ends:
        check_range("objective", name, end, low, high)
