"""Bicliques of a bipartite graph: every left node of one joined to every right node of it. Internal to this package.

Symbols: a graph is a matrix (left, right) of booleans; sets of nodes are bits of whole numbers.
"""

from __future__ import annotations

import numpy as np

MOST_NODES = 60
_MOST_BRANCHES = 20_000


def largest_biclique(
    graph: np.ndarray, most_branches: int = _MOST_BRANCHES
) -> tuple[list[int], list[int], bool]:
    """The biclique with the most edges, by branch and bound over sets of left nodes.

    A set of left nodes leaves the right nodes that all of them are joined to. A branch is cut off where even all of
    the left nodes it may still take could not give more edges than the best biclique so far.

    Args:
        graph: (left, right), bool.
        most_branches: branches at which to stop with the best so far.

    Returns:
        Its left nodes, its right nodes, and whether all branches were searched, so that none is larger.
    """
    rows = [sum(1 << int(j) for j in np.flatnonzero(row)) for row in graph]
    order = sorted((i for i, row in enumerate(rows) if row), key=lambda i: -rows[i].bit_count())
    best: tuple[int, list[int], int] = (0, [], 0)
    branches = 0
    stack: list[tuple[list[int], int, list[int]]] = [([], (1 << graph.shape[1]) - 1, order)]
    while stack:
        taken, common, candidates = stack.pop()
        branches += 1
        if branches > most_branches:
            break
        if taken:
            # Whoever is joined to all of what is left comes along at no loss.
            closed = [i for i in candidates if rows[i] & common == common]
            taken, candidates = taken + closed, [i for i in candidates if rows[i] & common != common]
            edges = len(taken) * common.bit_count()
            if edges > best[0]:
                best = (edges, taken, common)
        further = []
        for k, i in enumerate(candidates):
            left = common & rows[i]
            rest = [j for j in candidates[k + 1 :] if rows[j] & left]
            if left and _bound(len(taken) + 1, left, [rows[j] for j in rest]) > best[0]:
                further.append(([*taken, i], left, rest))
        stack += reversed(further)
    left_nodes = sorted(best[1])
    right_nodes = [j for j in range(graph.shape[1]) if best[2] >> j & 1]
    return left_nodes, right_nodes, branches <= most_branches


def _bound(taken: int, common: int, others: list[int]) -> int:
    """The most edges that a set can have: with m further left nodes, at most the m-th largest number of right ones."""
    widths = sorted(((row & common).bit_count() for row in others), reverse=True)
    most = taken * common.bit_count()
    for m, width in enumerate(widths, start=1):
        most = max(most, (taken + m) * width)
    return most


def cover(graph: np.ndarray) -> tuple[list[tuple[list[int], list[int]]], bool]:
    """Splits all edges into bicliques, each edge in exactly one: again and again the largest of what is left.

    Returns:
        The bicliques, the largest first, and whether each was proved to be the largest.

    Raises:
        ValueError: on more nodes than can be searched.
    """
    if max(graph.shape) > MOST_NODES:
        raise ValueError(
            f"Bicliques are searched among at most {MOST_NODES} x {MOST_NODES} nodes; got {graph.shape}."
        )
    left, found, proved = graph.copy(), [], True
    while left.any():
        rows, columns, exact = largest_biclique(left)
        proved &= exact
        left[np.ix_(rows, columns)] = False
        found.append((rows, columns))
    return found, proved


def ink(bundles: list[tuple[list[int], list[int]]]) -> int:
    """Lines that a drawing needs: a bundle of several by several has one a node, any other one an edge."""
    return sum(len(a) + len(b) if min(len(a), len(b)) > 1 else len(a) * len(b) for a, b in bundles)
