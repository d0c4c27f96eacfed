"""Gradient-boosted trees that equal scikit-learn's default classifier, grown from codes that are sorted once.

Importing this module imports numba; ``dci`` does so only when it grows trees.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numba import njit

from latentlab.metrics.representation import as_array, as_codes

Progress = Callable[[int, int], None]

DEPTH = 3
STAGES = 100
LEARNING_RATE = 0.1

_INNER = 2**DEPTH - 1
_NODES = 2 ** (DEPTH + 1) - 1
# scikit-learn's own constants: a purer node is a leaf, and closer values of a code are one value.
_PURE = 10 * np.finfo(np.float64).eps
_CLOSE = np.float32(1e-7)
_FLAT = 1e-150
# Sums of the same numbers in another order differ by less than this: such splits are equally good.
_TIE = 1e-11
# The top bit of a presorted row says that its value is close to the one before it.
_ROW = np.uint32(0x7FFFFFFF)
_REPEATED = np.uint32(0x80000000)
_BLOCK = 1024


class GradientBoostedClassifier:
    """The trees of scikit-learn's ``GradientBoostingClassifier()``, many times faster.

    100 stages of one depth-3 regression tree a class (one tree for two classes), learning rate 0.1, squared-error
    splits, Newton leaf values, prior initialisation; codes are cast to float32 and thresholds lie midway between
    neighbouring values. Probabilities and importances agree with scikit-learn's to rounding. The exception is a
    node with several equally good splits. Between codes scikit-learn takes the first in a random order of codes,
    this class the one that a hash of ``seed`` and the node prefers, so both are one draw from the same few trees;
    between two places on one code rounding decides, there and here.
    What comes out does not depend on the number of threads.

    Args:
        seed: breaks ties between equally good codes; no other randomness.
        stages: number of boosting stages.
        threads: threads that grow trees; by default the cores this process may use.

    Attributes:
        classes: the labels seen in training, sorted.
        feature_importances: (d,) share of the squared error that splits on each code removed; sums to 1, or all
            0 where no code can be split. A constant code has 0; a duplicate shares with its twin at random.

    References:
        Greedy function approximation: a gradient boosting machine (Friedman, 2001).
        Scikit-learn: machine learning in Python (Pedregosa et al., 2011), the behaviour that is matched.
    """

    classes: np.ndarray
    feature_importances: np.ndarray
    # Raw prior of each tree of a stage; feature, threshold and value of every node of every tree.
    _prior: np.ndarray | None = None
    _trees: tuple[np.ndarray, np.ndarray, np.ndarray]

    def __init__(self, *, seed: int = 0, stages: int = STAGES, threads: int | None = None) -> None:
        if stages < 1:
            raise ValueError(f"stages must be at least 1; got {stages}.")
        self.seed, self.stages, self.threads = seed, stages, _count_threads(threads)

    def fit(self, codes: Any, labels: Any, progress: Progress | None = None) -> GradientBoostedClassifier:
        """Grows the trees.

        Args:
            codes: finite numbers (n, d).
            labels: (n,) of at least two values, any that numpy can sort.
            progress: called with (stages done, stages in all); what it raises ends the fit.

        Raises:
            ValueError: if codes and labels do not belong together, or there are fewer than two classes.
        """
        _boost([self], codes, [labels], progress)
        return self

    def predict(self, codes: Any) -> np.ndarray:
        """The most probable class of each point (m,)."""
        raw = self._raw(codes)
        best = (raw[0] >= 0).astype(np.int64) if len(raw) == 1 else raw.argmax(axis=0)
        return self.classes[best]

    def predict_proba(self, codes: Any) -> np.ndarray:
        """Probabilities (m, classes), in the order of ``classes``."""
        raw = self._raw(codes)
        if len(raw) == 1:
            positive = np.exp(-np.logaddexp(0.0, -raw[0]))
            return np.stack([1.0 - positive, positive], axis=1)
        weights = np.exp(raw - raw.max(axis=0))
        return (weights / weights.sum(axis=0)).T

    def _raw(self, codes: Any) -> np.ndarray:
        if self._prior is None:
            raise ValueError("This classifier has no trees yet; call fit first.")
        columns = _as_columns(codes)
        if len(columns) != len(self.feature_importances):
            raise ValueError(
                f"The trees were grown on {len(self.feature_importances)} codes; got {len(columns)}."
            )
        raw = np.repeat(self._prior[:, None], columns.shape[1], axis=1)
        with _Crew(self.threads) as crew:
            parts = _parts(len(raw), crew.threads)
            crew.run([partial(_add_trees, a, b, columns, *self._trees, raw) for a, b in parts])
        return raw


def fit_factors(
    codes: Any,
    factors: Any,
    *,
    seed: int = 0,
    stages: int = STAGES,
    threads: int | None = None,
    progress: Progress | None = None,
) -> list[GradientBoostedClassifier]:
    """One classifier for each column of ``factors`` (n, k), grown side by side over codes that are sorted once.

    Classifier j equals ``GradientBoostedClassifier(seed=seed).fit(codes, factors[:, j])``; see there.
    """
    factors = as_array(factors)
    classifiers = [
        GradientBoostedClassifier(seed=seed, stages=stages, threads=threads) for _ in range(factors.shape[1])
    ]
    _boost(classifiers, codes, list(factors.T), progress)
    return classifiers


class _Crew:
    """Threads that share out independent tasks; the caller is one of them."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads - 1, "boosting") if threads > 1 else None

    def __enter__(self) -> _Crew:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def run(self, tasks: Sequence[Callable[[], object]]) -> None:
        if self._pool is None or len(tasks) < 2:
            for task in tasks:
                task()
            return
        waiting = deque(tasks)
        helpers = [self._pool.submit(_work, waiting) for _ in range(min(self.threads, len(tasks)) - 1)]
        _work(waiting)
        for helper in helpers:
            # On a busy machine a helper may not have woken up before all was done.
            if not helper.cancel():
                helper.result()


def _work(waiting: deque[Callable[[], object]]) -> None:
    while True:
        try:
            task = waiting.popleft()
        except IndexError:
            return
        task()


def _count_threads(threads: int | None) -> int:
    if threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads < 1:
        raise ValueError(f"threads must be at least 1; got {threads}.")
    return threads


def _parts(length: int, number: int) -> list[tuple[int, int]]:
    edges = np.linspace(0, length, min(length, number) + 1).astype(int).tolist()
    return list(itertools.pairwise(edges))


def _as_columns(codes: Any) -> np.ndarray:
    with np.errstate(over="ignore"):
        columns = np.ascontiguousarray(as_codes(codes).T.astype(np.float32))
    if not np.isfinite(columns).all():
        raise ValueError(
            "codes must fit into float32, in which trees compare them; some are larger than 3e38."
        )
    return columns


def _presort(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows in the order of each code that varies (f, n), and which codes those are (f,)."""
    orders, usable = [], []
    for j, column in enumerate(columns):
        order = np.argsort(column, kind="stable").astype(np.uint32)
        ranked = column[order]
        repeated = np.ones(len(order), bool)
        repeated[1:] = ranked[1:] <= ranked[:-1] + _CLOSE
        if repeated.all() and (j + 1 < len(columns) or orders):
            continue
        orders.append(np.where(repeated, order | _REPEATED, order))
        usable.append(j)
    return np.ascontiguousarray(orders, dtype=np.uint32), np.array(usable, dtype=np.int64)


def _boost(
    classifiers: Sequence[GradientBoostedClassifier],
    codes: Any,
    factors: Sequence[Any],
    progress: Progress | None,
) -> None:
    columns = _as_columns(codes)
    jobs = [
        _Job(classifier, labels, columns) for classifier, labels in zip(classifiers, factors, strict=True)
    ]
    order, usable = _presort(columns)
    points, stages = columns.shape[1], classifiers[0].stages
    reciprocal = np.zeros(points + 1)
    reciprocal[1:] = 1.0 / np.arange(1, points + 1)
    memory = threading.local()
    with _Crew(classifiers[0].threads) as crew:
        # Enough parts that no thread waits long for the last one, few enough that calls cost nothing.
        trees = sum(len(job.raw) for job in jobs)
        size = max(1, trees // (4 * crew.threads))
        slopes, growth = [], []
        for job in jobs:
            slopes += [partial(job.slope, a, b) for a, b in _parts(points, crew.threads)]
            growth += [
                partial(job.grow, a, b, columns, order, usable, reciprocal, memory)
                for a, b in _parts(len(job.raw), -(-len(job.raw) // size))
            ]
        for stage in range(stages):
            for job in jobs:
                job.stage = stage
            crew.run(slopes)
            crew.run(growth)
            if progress is not None:
                progress(stage + 1, stages)
    for job in jobs:
        job.hand_over()


class _Job:
    """What one classifier needs while its trees grow."""

    def __init__(self, classifier: GradientBoostedClassifier, labels: Any, columns: np.ndarray) -> None:
        labels = as_array(labels)
        if labels.shape != columns.shape[1:]:
            raise ValueError(
                f"codes and labels must hold the same points; got {columns.shape[1]} and {labels.shape}."
            )
        self.classes, encoded = np.unique(labels, return_inverse=True)
        if len(self.classes) < 2:
            raise ValueError(f"A classifier needs at least two classes; all labels are {self.classes[0]}.")
        self.classifier = classifier
        self.labels = encoded.reshape(-1).astype(np.int32)
        share = np.bincount(self.labels) / len(self.labels)
        logarithm = np.log(share)
        if len(share) == 2:
            self.prior = np.array([logarithm[1] - logarithm[0]])
        else:
            self.prior = logarithm - logarithm.mean()
        trees, points = len(self.prior), len(self.labels)
        self.raw = np.repeat(self.prior[:, None], points, axis=1)
        self.gradient = np.empty((trees, points))
        self.feature = np.full((classifier.stages, trees, _INNER), -1, np.int32)
        self.threshold = np.zeros((classifier.stages, trees, _INNER))
        self.value = np.zeros((classifier.stages, trees, _NODES))
        self.removed = np.zeros((trees, len(columns)))
        self.seed = np.uint64(classifier.seed % 2**64)
        self.stage = 0

    def slope(self, first: int, last: int) -> None:
        _negative_gradient(first, last, self.labels, self.raw, self.gradient)

    def grow(
        self,
        first: int,
        last: int,
        columns: np.ndarray,
        order: np.ndarray,
        usable: np.ndarray,
        reciprocal: np.ndarray,
        memory: threading.local,
    ) -> None:
        if not hasattr(memory, "orders"):
            codes, points = order.shape
            memory.orders = np.empty((DEPTH - 1, codes, points + DEPTH), np.uint32)
            memory.centred = np.empty(points)
            memory.weight = np.zeros(points)
            memory.side = np.empty(points, np.uint8)
        _grow_trees(
            first,
            last,
            self.stage,
            self.seed,
            columns,
            order,
            usable,
            reciprocal,
            self.labels,
            self.gradient,
            memory.orders,
            memory.centred,
            memory.weight,
            memory.side,
            self.raw,
            self.feature,
            self.threshold,
            self.value,
            self.removed,
        )

    def hand_over(self) -> None:
        removed = self.removed.sum(axis=0)
        total = removed.sum()
        own = self.classifier
        own.classes = self.classes
        own.feature_importances = removed / total if total > 0 else removed
        own._prior, own._trees = self.prior, (self.feature, self.threshold, self.value)


def _compiled(function: Callable) -> Callable:
    # The GIL is released for the threads above; numba's own parallel loops abort under concurrent callers.
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:
        # No folder to keep compiled code in, a read-only installation say: compiled anew by each process.
        return njit(**options)(function)


@_compiled
def _negative_gradient(first, last, labels, raw, gradient):
    """Label minus probability of the points first to last, for every class."""
    trees = len(raw)
    if trees == 1:
        for i in range(first, last):
            probability = 1.0 / (1.0 + np.exp(-raw[0, i]))
            gradient[0, i] = labels[i] - probability
        return
    highest, total = np.empty(_BLOCK), np.empty(_BLOCK)
    for start in range(first, last, _BLOCK):
        size = min(_BLOCK, last - start)
        highest[:] = -np.inf
        total[:] = 0.0
        for k in range(trees):
            for i in range(size):
                highest[i] = max(highest[i], raw[k, start + i])
        for k in range(trees):
            for i in range(size):
                weight = np.exp(raw[k, start + i] - highest[i])
                gradient[k, start + i] = weight
                total[i] += weight
        for k in range(trees):
            for i in range(size):
                gradient[k, start + i] = (labels[start + i] == k) - gradient[k, start + i] / total[i]


@_compiled
def _preference(key, node, code):
    """A number that orders equally good codes: the finaliser of splitmix64."""
    x = (
        key
        + np.uint64(node) * np.uint64(0x9E3779B97F4A7C15)
        + np.uint64(code) * np.uint64(0xD1B54A32D192ED03)
    )
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@_compiled
def _best_splits(column, other, order, other_order, centred, weight):
    """The most squared error that one split of a node on each of two codes removes, and where; 0 if none can.

    Two codes at a time, since a lone running sum would wait for its own last addition.
    """
    best, where, best_other, where_other = 0.0, -1, 0.0, -1
    total, total_other = 0.0, 0.0
    for p in range(len(order)):
        entry, entry_other = order[p], other_order[p]
        row, row_other = entry & _ROW, entry_other & _ROW
        gain = total * total * weight[p]
        gain_other = total_other * total_other * weight[p]
        if gain > best and (entry < _REPEATED or column[row] > column[order[p - 1] & _ROW] + _CLOSE):
            best, where = gain, p
        if gain_other > best_other and (
            entry_other < _REPEATED or other[row_other] > other[other_order[p - 1] & _ROW] + _CLOSE
        ):
            best_other, where_other = gain_other, p
        total += centred[row]
        total_other += centred[row_other]
    return best, where, best_other, where_other


@_compiled
def _grow_leaf(rows, start, end, tree, labels, gradient, trees, raw):
    """One Newton step for the points of a leaf: its value, added to their raw prediction."""
    slope, curvature = 0.0, 0.0
    positive = 1 if trees == 1 else tree
    for p in range(start, end):
        i = rows[p] & _ROW
        g = gradient[i]
        probability = (labels[i] == positive) - g
        slope += g
        curvature += probability * (1.0 - probability)
    size = end - start
    slope, curvature = slope / size, curvature / size
    if trees > 1:
        slope *= (trees - 1) / trees
    value = 0.0 if abs(curvature) < _FLAT else slope / curvature
    step = LEARNING_RATE * value
    for p in range(start, end):
        raw[rows[p] & _ROW] += step
    return value


@_compiled
def _grow_trees(
    first,
    last,
    stage,
    seed,
    columns,
    order,
    usable,
    reciprocal,
    labels,
    gradients,
    orders,
    centred,
    weight,
    side,
    raws,
    features,
    thresholds,
    values,
    removed,
):
    """The trees first to last of a stage. Nodes are numbered like a heap: the children of i are 2i+1, 2i+2."""
    trees = len(gradients)
    number, points = order.shape
    gains, places = np.zeros(number), np.zeros(number, np.int64)
    starts, ends = np.zeros(_NODES, np.int64), np.zeros(_NODES, np.int64)
    for tree in range(first, last):
        gradient, raw = gradients[tree], raws[tree]
        feature, threshold, value = features[stage, tree], thresholds[stage, tree], values[stage, tree]
        key = _preference(seed, stage, tree)
        ends[:] = 0
        starts[0], ends[0] = 0, points
        for node in range(_INNER):
            start, end = starts[node], ends[node]
            if end == 0:
                continue
            depth = 0 if node == 0 else 1 if node < 3 else 2
            current = order if depth == 0 else orders[depth - 1]
            size = end - start
            mean, impurity = 0.0, 0.0
            for p in range(start, end):
                mean += gradient[current[0, p] & _ROW]
            mean /= size
            for p in range(start, end):
                row = current[0, p] & _ROW
                difference = gradient[row] - mean
                centred[row] = difference
                impurity += difference * difference
            best, where, chosen = 0.0, -1, -1
            if impurity / size > _PURE:
                for p in range(1, size):
                    weight[p] = reciprocal[p] + reciprocal[size - p]
                for f in range(0, number, 2):
                    g = min(f + 1, number - 1)
                    gains[f], places[f], gains[g], places[g] = _best_splits(
                        columns[usable[f]],
                        columns[usable[g]],
                        current[f, start:end],
                        current[g, start:end],
                        centred,
                        weight,
                    )
                for f in range(number):
                    gain = gains[f]
                    if places[f] < 0 or gain < best * (1.0 - _TIE):
                        continue
                    if gain <= best * (1.0 + _TIE) and (
                        _preference(key, node, usable[f]) <= _preference(key, node, usable[chosen])
                    ):
                        continue
                    best, where, chosen = gain, start + places[f], f
            if chosen < 0:
                value[node] = _grow_leaf(current[0], start, end, tree, labels, gradient, trees, raw)
                continue
            code, rows = usable[chosen], current[chosen]
            feature[node] = code
            below, above = columns[code, rows[where - 1] & _ROW], columns[code, rows[where] & _ROW]
            threshold[node] = np.float64(below) / 2.0 + np.float64(above) / 2.0
            removed[tree, code] += best
            left, right = 2 * node + 1, 2 * node + 2
            if depth == DEPTH - 1:
                value[left] = _grow_leaf(rows, start, where, tree, labels, gradient, trees, raw)
                value[right] = _grow_leaf(rows, where, end, tree, labels, gradient, trees, raw)
                continue
            for p in range(start, end):
                side[rows[p] & _ROW] = p < where
            following = orders[depth]
            for f in range(number):
                source, lower, upper = current[f, start:end], following[f, start:], following[f, where + 1 :]
                a, b = 0, 0
                for p in range(size):
                    # Written to both sides without a branch; the wrong one is overwritten by the next row.
                    entry = source[p]
                    is_left = np.int64(side[entry & _ROW])
                    lower[a] = entry
                    upper[b] = entry
                    a += is_left
                    b += 1 - is_left
            # One place stays free between children, for the last row that was written to the wrong side.
            starts[left], ends[left], starts[right], ends[right] = start, where, where + 1, end + 1


@_compiled
def _add_trees(first, last, columns, features, thresholds, values, raw):
    """Adds what the trees first to last of every stage say of the points."""
    for tree in range(first, last):
        for stage in range(len(features)):
            feature, threshold, value = features[stage, tree], thresholds[stage, tree], values[stage, tree]
            for i in range(raw.shape[1]):
                node = 0
                while node < _INNER and feature[node] >= 0:
                    node = 2 * node + 1 + (columns[feature[node], i] > threshold[node])
                raw[tree, i] += LEARNING_RATE * value[node]
