"""Mutual information between binned codes and factors, the ground of MIG, modularity and many others."""

from __future__ import annotations

from typing import Any

import numpy as np

from latentlab.metrics.representation import as_codes, as_factors

BINS = 20
# Sums of p log p of independent variables leave rounding dust of this size; it is no information.
_DUST = 1e-13


def discretize(codes: Any, bins: int = BINS) -> np.ndarray:
    """Bin numbers 0 to ``bins`` - 1, int64 (n, d): equal widths over each code's own range.

    A constant code falls into one bin.

    Raises:
        ValueError: for fewer than two bins, or codes that are not finite numbers (n, d).
    """
    z = as_codes(codes)
    if bins < 2:
        raise ValueError(f"bins must be at least 2; got {bins}.")
    found = np.empty(z.shape, dtype=np.int64)
    for column in range(z.shape[1]):
        edges = np.histogram_bin_edges(z[:, column], bins)
        # The last edge is left out so that the greatest value falls into the last bin, not behind it.
        found[:, column] = np.digitize(z[:, column], edges[:-1]) - 1
    return np.maximum(found, 0)


def relabel(factors: Any) -> tuple[np.ndarray, np.ndarray]:
    """Factor values counted 0, 1, 2, … in their order, int64 (n, k), and how many each factor takes, (k,)."""
    v = as_factors(factors)
    found = np.empty_like(v)
    sizes = np.empty(v.shape[1], dtype=np.int64)
    for column in range(v.shape[1]):
        values, found[:, column] = np.unique(v[:, column], return_inverse=True)
        sizes[column] = len(values)
    return found, sizes


def entropies(factors: Any) -> np.ndarray:
    """Entropy of each factor as it occurs in the points, nats, (k,)."""
    labels, sizes = relabel(factors)
    found = []
    for column, size in enumerate(sizes):
        p = np.bincount(labels[:, column], minlength=size) / len(labels)
        found.append(max(0.0, float(-(p * np.log(p)).sum())))
    return np.array(found)


def label_information(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Plug-in mutual information of two sets of labels, nats, (columns of a, columns of b).

    Args:
        a: labels 0, 1, …, int64 (n, d).
        b: labels 0, 1, …, int64 (n, k).
    """
    n, d = a.shape
    a_sizes = a.max(axis=0) + 1
    offsets = np.concatenate([[0], np.cumsum(a_sizes)])
    found = np.zeros((d, b.shape[1]))
    for j in range(b.shape[1]):
        size = int(b[:, j].max()) + 1
        # One count over all codes at once: the rows of code i begin at its offset.
        flat = ((a + offsets[:-1]) * size + b[:, [j]]).ravel()
        joint = np.bincount(flat, minlength=int(offsets[-1]) * size).reshape(-1, size) / n
        p_b = np.bincount(b[:, j], minlength=size) / n
        p_a = joint.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = joint * (np.log(joint) - np.log(p_a)[:, None] - np.log(p_b))
        terms[joint == 0] = 0.0
        found[:, j] = np.add.reduceat(terms.sum(axis=1), offsets[:-1])
    found[found < _DUST] = 0.0
    return found


def mutual_information_matrix(codes: Any, factors: Any, bins: int = BINS) -> np.ndarray:
    """Mutual information of each code, binned, with each factor.

    The plug-in estimate over equal-width bins. Its bias is about (bins - 1)(values - 1) / 2n nats: 0.037 for 40
    values at 10,000 points, 0.37 at 1,000.

    Args:
        codes: (n, d), numpy or torch.
        factors: whole numbers (n, k).
        bins: number of bins over each code's range.

    Returns:
        Nats, (d, k), never negative. A constant code gives a row of exact zeros, a one-valued factor a column
        of zeros, and a duplicated code two equal rows.

    Raises:
        ValueError: if the arrays do not belong together or are not finite.

    References:
        Challenging common assumptions in the unsupervised learning of disentangled representations
        (Locatello et al., 2019), https://arxiv.org/abs/1811.12359, for the binning.
    """
    z = as_codes(codes)
    labels, _ = relabel(factors)
    if len(z) != len(labels):
        raise ValueError(f"codes and factors must hold the same points; got {len(z)} and {len(labels)}.")
    return label_information(discretize(z, bins), labels)
