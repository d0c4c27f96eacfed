"""Category matching: which category of one model is which of another, as told by how they sort the same images."""

from __future__ import annotations

import numpy as np


def contingency(labels_a: np.ndarray, labels_b: np.ndarray, size_a: int, size_b: int) -> np.ndarray:
    """How many images fall into each pair of categories, (categories of a, categories of b).

    Args:
        labels_a: (n,), category of each image by a, from 0 to ``size_a`` - 1.
        labels_b: (n,), by b.
        size_a: number of categories of a.
        size_b: number of categories of b.
    """
    pairs = labels_a.astype(int) * size_b + labels_b.astype(int)
    return np.bincount(pairs, minlength=size_a * size_b).reshape(size_a, size_b)


def partner_categories(table: np.ndarray) -> np.ndarray:
    """The category of b that each category of a goes to, -1 for one that no image fell into.

    First one to one, so that the most images lie in paired categories; a category that is left over, because b has
    fewer or has none like it, goes where most of its images lie, beside the one that has that partner.

    Args:
        table: (categories of a, categories of b), numbers of images as ``contingency`` gives them.

    Returns:
        (categories of a,) whole numbers.

    References:
        Unsupervised deep embedding for clustering analysis (Xie et al., 2016), https://arxiv.org/abs/1511.06335, whose
            clustering accuracy is the share of images that the one-to-one part pairs
    """
    from scipy.optimize import linear_sum_assignment

    partner = np.where(table.any(axis=1), table.argmax(axis=1), -1)
    rows, columns = linear_sum_assignment(table, maximize=True)
    paired = table[rows, columns] > 0
    partner[rows[paired]] = columns[paired]
    return partner


def shared_share(table: np.ndarray) -> float:
    """Share of the images that lie in categories paired one to one, in [0, 1].

    Args:
        table: (categories of a, categories of b), numbers of images.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(table[rows, columns].sum() / max(1, table.sum()))
