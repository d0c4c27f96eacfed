"""Figures summed over the steps on the device: reading a number there and then would make each step wait for it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Sums = dict[str, tuple[Tensor, int]]
"""{names, joined by commas: (sum of their rows, how many)}: one vector for each set of names that steps logged."""


def add_row(sums: Sums, row: Mapping[str, Tensor]) -> None:
    """Adds the scalars that one step logged, without waiting for the device."""
    values = torch.stack([value.detach().float().reshape(()) for value in row.values()])
    key = ",".join(row)
    total, count = sums.get(key, (0.0, 0))
    sums[key] = (total + values, count + 1)


def means_of(sums: Mapping[str, tuple[Tensor, int]]) -> dict[str, float]:
    """The mean of each figure over the steps that had it; waits for the device once a set of names."""
    totals: dict[str, list[float]] = {}
    for key, (total, count) in sums.items():
        for name, value in zip(key.split(","), total.tolist(), strict=True):
            found = totals.setdefault(name, [0.0, 0.0])
            found[0] += value
            found[1] += count
    return {name: value / count for name, (value, count) in totals.items()}
