"""What a metric returns: a number that knows how it was made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Score:
    """The value of a metric, what it was made of, and under which conventions.

    Attributes:
        metric: name of the metric.
        value: the number; its range and direction stand in the docstring of the metric.
        details: the parts of it (arrays and numbers).
        protocol: the conventions that decide the number: bins, sample sizes, predictor, seed.

    Raises:
        ValueError: if the value is not finite; a metric says so in its own words before it comes to that.
    """

    metric: str
    value: float
    details: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", float(self.value))
        if not math.isfinite(self.value):
            raise ValueError(f"{self.metric} came out as {self.value}; no score is better than such a one.")

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        conventions = ", ".join(f"{name}={value}" for name, value in self.protocol.items())
        return f"{self.metric} {self.value:.4g} ({conventions})"

    def to_json(self) -> dict[str, Any]:
        """The score as plain values."""
        return {
            "metric": self.metric,
            "value": self.value,
            "details": _plain(self.details),
            "protocol": _plain(self.protocol),
        }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value
