"""Unsupervised disentanglement ranking: do runs that differ in their seed find the same codes?"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from latentlab.metrics.representation import LEAST_POINTS, as_array, as_codes
from latentlab.metrics.score import Score

METHODS = ("lasso", "spearman")


def udr(
    models: Sequence[tuple[Any, Any]], *, method: str = "lasso", least_kl: float = 0.01, alpha: float = 0.1
) -> Score:
    """Agreement of the codes of several models on the same images, up to order and sign: 0 to 1.

    For each ordered pair of models, the strength matrix R between their informative codes gives the mean over
    rows and columns of (greatest)^2 / sum; a model scores the median over its partners. A code whose KL is below
    ``least_kl`` (a constant one among them) is left out; a pair in which one model has no informative code scores
    0; a duplicated code lowers the score of its model.

    Args:
        models: at least two pairs (codes (n, d), kl (d,) mean KL in nats); n is the same for all, d may differ.
        method: "lasso" (absolute coefficients of one regression for each code of the second model on all of the
            first) or "spearman" (absolute rank correlations).
        least_kl: nats below which a code counts as uninformative.
        alpha: penalty of the lasso on standardised codes.

    Returns:
        Score, the mean over models, with details ``per_model`` (models,) and ``pairs`` (models, models), NaN on
        its diagonal.

    Raises:
        ValueError: for fewer than two models, other numbers of points, or an unknown method.

    References:
        Unsupervised model selection for variational disentangled representation learning (Duan et al., 2020),
        https://arxiv.org/abs/1905.12614. Here only informative codes take part in the regressions.
    """
    from scipy.stats import rankdata

    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}.")
    if len(models) < 2:
        raise ValueError(f"udr compares models with each other; it needs at least two, got {len(models)}.")
    informative = []
    for number, (codes, kl) in enumerate(models):
        z, bits = as_codes(codes, f"codes of model {number}"), as_array(kl).astype(float).ravel()
        if len(z) < LEAST_POINTS:
            raise ValueError(f"{len(z)} points are too few for udr; give at least {LEAST_POINTS}.")
        if bits.shape != (z.shape[1],):
            raise ValueError(
                f"Model {number} has {z.shape[1]} codes but {bits.size} KL values; give one for each code."
            )
        kept = z[:, (bits > least_kl) & (np.ptp(z, axis=0) > 0)]
        informative.append(_standardise(rankdata(kept, axis=0) if method == "spearman" else kept))
    if len({len(z) for z in informative}) > 1:
        raise ValueError("The models must have encoded the same images; their numbers of points differ.")
    count = len(informative)
    pairs = np.full((count, count), np.nan)
    for i in range(count):
        for j in range(count):
            if i != j:
                pairs[i, j] = _strength(_matrix(informative[i], informative[j], method, alpha))
    per_model = np.nanmedian(pairs, axis=1)
    return Score(
        "udr",
        per_model.mean(),
        {"per_model": per_model, "pairs": pairs},
        {"method": method, "least_kl": least_kl, "models": count, "points": len(informative[0])},
    )


def _standardise(z: np.ndarray) -> np.ndarray:
    return (z - z.mean(axis=0)) / z.std(axis=0) if z.size else z


def _matrix(a: np.ndarray, b: np.ndarray, method: str, alpha: float) -> np.ndarray:
    if not a.size or not b.size:
        return np.zeros((a.shape[1], b.shape[1]))
    if method == "spearman":
        return np.abs(a.T @ b) / len(a)
    import sklearn  # noqa: F401  (whole before its parts)
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import Lasso

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        columns = [np.abs(Lasso(alpha=alpha).fit(a, target).coef_) for target in b.T]
    return np.stack(columns, axis=1)


def _strength(matrix: np.ndarray) -> float:
    if not matrix.size:
        return 0.0
    parts = []
    for axis in (0, 1):
        total = matrix.sum(axis=axis)
        best = matrix.max(axis=axis) ** 2
        parts.append(float(np.divide(best, total, out=np.zeros_like(best), where=total > 0).mean()))
    return sum(parts) / 2
