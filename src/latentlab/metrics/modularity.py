"""Modularity: does a code know one factor only?"""

from __future__ import annotations

from typing import Any

import numpy as np

from latentlab.metrics.mutual_information import BINS, mutual_information_matrix
from latentlab.metrics.representation import as_pair, needs_variety
from latentlab.metrics.score import Score


def modularity(codes: Any, factors: Any, bins: int = BINS) -> Score:
    """How close the information of each code is to sitting with one factor: 0 to 1, the mean over codes.

    1 - (sum of squared information but the greatest) / (greatest squared x (factors - 1)). It rewards noise: ten
    codes of pure noise score about 0.65 on dSprites, since the dust of an estimate is uneven. A constant code
    scores exactly 0 and drags the mean; a duplicated code counts twice; a one-valued factor is refused, since
    its zero would raise the score.

    Args:
        codes: (n, d).
        factors: whole numbers (n, k), k at least 2.
        bins: number of equal-width bins over each code's range.

    Returns:
        Score with details ``per_code`` (d,).

    Raises:
        ValueError: for a single factor, too few points, or a factor of one value.

    References:
        Learning deep disentangled embeddings with the F-statistic loss (Ridgeway and Mozer, 2018),
        https://arxiv.org/abs/1802.05312.
    """
    z, v = as_pair(codes, factors)
    needs_variety(v, "modularity")
    if v.shape[1] < 2:
        raise ValueError("modularity compares the factors of a code; it needs at least two, got one.")
    per_code = modularity_of(mutual_information_matrix(z, v, bins))
    return Score("modularity", per_code.mean(), {"per_code": per_code}, {"bins": bins, "points": len(z)})


def modularity_of(information: np.ndarray) -> np.ndarray:
    """Modularity of each row of an information matrix (d, k) -> (d,); a row of zeros scores 0."""
    squared = np.square(information)
    greatest = squared.max(axis=1)
    rest = squared.sum(axis=1) - greatest
    room = greatest * (information.shape[1] - 1)
    return np.where(greatest > 0, 1.0 - rest / np.where(greatest > 0, room, 1.0), 0.0)
