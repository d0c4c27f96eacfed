"""Interventional robustness: does a code stay put when all factors but one are changed?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from latentlab.metrics.mutual_information import BINS, discretize, relabel
from latentlab.metrics.representation import as_pair, needs_variety
from latentlab.metrics.score import Score


def irs(codes: Any, factors: Any, quantile: float = 0.99, bins: int = BINS) -> Score:
    """Interventional robustness score: 0 (every factor moves every code) to 1.

    For each code and factor: 1 - (how far the code strays from its mean while the factor is held, averaged over
    the factor's values) / (how far it strays at all); a code takes its best factor, and codes are averaged by
    how far they stray. A constant code is left out (all constant: the score is 0); a duplicated code counts
    twice; a one-valued factor is refused.

    Args:
        codes: (n, d).
        factors: whole numbers (n, k); those with more than ``bins`` values are binned, as in the reference.
        quantile: of the straying within a value; 1 is the paper's maximum.
        bins: most values of a factor.

    Returns:
        Score with details ``per_code`` (active codes), ``parents`` (their factors), ``matrix`` (active codes, k),
        ``active`` bool (d,) and ``active_codes``, their number.

    Raises:
        ValueError: on too few points, a quantile outside (0, 1], or a factor of one value.

    References:
        Robustly disentangled causal mechanisms (Suter et al., 2019), https://arxiv.org/abs/1811.00007.
    """
    z, v = as_pair(codes, factors)
    needs_variety(v, "irs")
    if not 0 < quantile <= 1:
        raise ValueError(f"quantile must lie above 0 and at most at 1; got {quantile}.")
    labels, sizes = relabel(discretize(v, bins))
    active = np.ptp(z, axis=0) > 0
    protocol = {"quantile": quantile, "bins": bins, "points": len(z)}
    if not active.any():
        empty = {"per_code": np.zeros(0), "parents": np.zeros(0, int), "matrix": np.zeros((0, v.shape[1]))}
        return Score("irs", 0.0, {**empty, "active": active, "active_codes": 0}, protocol)
    z = z[:, active]
    reach = np.abs(z - z.mean(axis=0)).max(axis=0)
    strays = np.zeros((z.shape[1], v.shape[1]))
    for j, size in enumerate(sizes):
        order = np.argsort(labels[:, j], kind="stable")
        ends = np.cumsum(np.bincount(labels[:, j], minlength=size))
        for group in np.split(z[order], ends[:-1]):
            away = np.abs(group - group.mean(axis=0))
            strays[:, j] += np.percentile(away, 100 * quantile, axis=0)
        strays[:, j] /= size
    matrix = 1.0 - strays / reach[:, None]
    per_code = matrix.max(axis=1)
    return Score(
        "irs",
        np.average(per_code, weights=reach),
        {
            "per_code": per_code,
            "parents": matrix.argmax(axis=1),
            "matrix": matrix,
            "active": active,
            "active_codes": int(active.sum()),
        },
        protocol,
    )


@dataclass(frozen=True)
class InterventionalView:
    """Where the codes go when one factor is set and all others vary.

    Attributes:
        factor: column of the factor.
        values: its values that occur, ascending, (values,).
        mean: mean of each code while the factor has a value, (values, d).
        low: lower end of the central share of each code, (values, d).
        high: upper end, (values, d).
        moved: share of each code's variance that the factor's value explains, 0 to 1, (d,): 1 for a code that
            knows the value and nothing else, 0 for one that ignores it. A constant code gets 0.
    """

    factor: int
    values: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    moved: np.ndarray


def interventional_view(codes: Any, factors: Any, factor: int, coverage: float = 0.9) -> InterventionalView:
    """What setting one factor does to every code, the others left to vary as they do in the points.

    Args:
        codes: (n, d).
        factors: whole numbers (n, k).
        factor: column of the factor that is set.
        coverage: central share of a code's values between ``low`` and ``high``.

    Raises:
        ValueError: on too few points, a column that is not there, a factor of one value, or a coverage outside
            (0, 1).

    References:
        Robustly disentangled causal mechanisms (Suter et al., 2019), https://arxiv.org/abs/1811.00007, figures of
        interventional effects; the explained share of variance is the first-order Sobol index.
    """
    z, v = as_pair(codes, factors)
    if not 0 <= factor < v.shape[1]:
        raise ValueError(f"factor must be a column from 0 to {v.shape[1] - 1}; got {factor}.")
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must lie between 0 and 1; got {coverage}.")
    needs_variety(v[:, [factor]], "interventional_view")
    values, labels, counts = np.unique(v[:, factor], return_inverse=True, return_counts=True)
    groups = np.split(z[np.argsort(labels, kind="stable")], np.cumsum(counts)[:-1])
    ends = ((1 - coverage) / 2, (1 + coverage) / 2)
    mean = np.stack([group.mean(axis=0) for group in groups])
    low, high = (np.stack([np.quantile(group, end, axis=0) for group in groups]) for end in ends)
    between = (counts[:, None] * (mean - z.mean(axis=0)) ** 2).sum(axis=0) / len(z)
    total, constant = z.var(axis=0), np.ptp(z, axis=0) == 0
    moved = np.where(constant, 0.0, between / np.where(constant, 1.0, total)).clip(0.0, 1.0)
    return InterventionalView(factor, values, mean, low, high, moved)
