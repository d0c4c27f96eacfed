"""Dependence among codes, without any factor."""

from __future__ import annotations

from typing import Any

import numpy as np

from latentlab.metrics.mutual_information import BINS, discretize, label_information
from latentlab.metrics.representation import LEAST_POINTS, as_codes
from latentlab.metrics.score import Score


def _covariance(codes: Any, metric: str) -> np.ndarray:
    z = as_codes(codes)
    if len(z) < LEAST_POINTS:
        raise ValueError(f"{len(z)} points are too few for {metric}; give at least {LEAST_POINTS}.")
    return np.atleast_2d(np.cov(z.T))


def gaussian_total_correlation(codes: Any) -> Score:
    """Total correlation of the Gaussian with the codes' covariance: nats, 0 (uncorrelated) and up.

    Half the sum of log variances less half the log determinant: - 1/2 ln det of the correlation matrix. A
    constant code or a duplicated one makes the covariance singular, where it is infinite: refused.

    Args:
        codes: (n, d).

    Raises:
        ValueError: if the covariance is singular to rounding, or the points are too few.

    References:
        Challenging common assumptions in the unsupervised learning of disentangled representations (Locatello et
        al., 2019), https://arxiv.org/abs/1811.12359.
    """
    covariance = _covariance(codes, "gaussian_total_correlation")
    scale = np.sqrt(np.diag(covariance))
    if (scale == 0).any():
        which = ", ".join(str(i) for i in np.flatnonzero(scale == 0))
        raise ValueError(f"Code {which} is constant, so the total correlation has no value; leave it out.")
    # Of the correlation matrix, so that codes of very different scales do not look singular.
    eigenvalues = np.linalg.eigvalsh(covariance / np.outer(scale, scale))
    if eigenvalues[0] <= len(scale) * np.finfo(float).eps:
        raise ValueError(
            "The codes are linearly dependent (one repeats others), so the total correlation is infinite; "
            "leave the repeated code out."
        )
    return Score(
        "gaussian_total_correlation",
        max(0.0, -0.5 * float(np.log(eigenvalues).sum())),
        {"covariance": covariance},
        {"points": len(as_codes(codes))},
    )


def gaussian_wasserstein_correlation(codes: Any) -> Score:
    """Squared 2-Wasserstein distance between the codes' Gaussian and its independent version; 0 and up.

    In squared units of the codes; details ``normalized`` divides it by the total variance. A constant code
    changes nothing, a duplicated one raises it; if all codes are constant both are 0.

    Args:
        codes: (n, d).

    References:
        Challenging common assumptions in the unsupervised learning of disentangled representations (Locatello et
        al., 2019), https://arxiv.org/abs/1811.12359.
    """
    covariance = _covariance(codes, "gaussian_wasserstein_correlation")
    root = np.sqrt(np.diag(covariance))
    # The eigenvalues of cov diag(var) are those of this symmetric matrix, which needs no complex square root.
    eigenvalues = np.linalg.eigvalsh(covariance * np.outer(root, root)).clip(min=0)
    total = float(np.trace(covariance))
    value = max(0.0, 2 * total - 2 * float(np.sqrt(eigenvalues).sum()))
    return Score(
        "gaussian_wasserstein_correlation",
        value,
        {"normalized": value / total if total > 0 else 0.0},
        {"points": len(as_codes(codes))},
    )


def mutual_info_between_codes(codes: Any, bins: int = BINS) -> Score:
    """Mean mutual information between two codes, nats, over all pairs; 0 and up.

    A constant code gives 0 with every other; a duplicated one its own entropy.

    Args:
        codes: (n, d), d at least 2.
        bins: number of equal-width bins over each code's range.

    Raises:
        ValueError: for a single code or too few points.
    """
    z = as_codes(codes)
    if z.shape[1] < 2:
        raise ValueError("mutual_info_between_codes compares codes; it needs at least two, got one.")
    if len(z) < LEAST_POINTS:
        raise ValueError(f"{len(z)} points are too few; give at least {LEAST_POINTS}.")
    binned = discretize(z, bins)
    matrix = label_information(binned, binned)
    np.fill_diagonal(matrix, 0.0)
    pairs = len(matrix) * (len(matrix) - 1)
    return Score(
        "mutual_info_between_codes",
        matrix.sum() / pairs,
        {"matrix": matrix},
        {"bins": bins, "points": len(z)},
    )
