"""How far a surrogate can be trusted: scores, its largest terms, and the test of moving codes as it says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.generated_attribute import Attribute
from latentlab.analysis.surrogate_models import Simple

_TOP, _CANDIDATES, _MOVED = 3, 16, 256


def top_terms(simple: Simple, floor: float = 0.0) -> list[str]:
    """The terms of largest weight, at most three, none below a share ``floor`` of the largest."""
    size = np.abs(simple.weights)
    order = np.argsort(-size, kind="stable")[:_TOP]
    return [simple.terms[i] for i in order if size[i] >= floor * size[order[0]]]


def counterfactual(
    view: Attribute,
    simple: Simple,
    z: Tensor,
    x: np.ndarray,
    goal: np.ndarray,
    cut: float | None,
    held: np.ndarray,
    top: Sequence[str],
    chance: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and measured changes (k,) where held-out codes are moved as the surrogate says.

    Each code is to go up or down, by the toss of a coin. Of the values that other codes have in a feature of the top
    terms, it takes the one for which the surrogate predicts most.
    """
    rows = held[:_MOVED]
    named = {part.removesuffix("^2") for term in top for part in term.split(" & ")}
    groups = [g for g in view.groups if any(view.names[i] in named for i in g)]
    moves = np.repeat(x[rows][:, None], _CANDIDATES, axis=1)
    for i in range(len(rows)):
        for j in range(_CANDIDATES):
            group = groups[chance.integers(len(groups))]
            moves[i, j, group] = x[chance.integers(len(x)), group]
    before = simple.predict(x[rows])
    change = simple.predict(moves.reshape(-1, x.shape[1])).reshape(len(rows), -1) - before[:, None]
    sign = chance.choice([-1.0, 1.0], len(rows))
    best = np.argmax(change * sign[:, None], axis=1)
    chosen, expected = moves[np.arange(len(rows)), best], change[np.arange(len(rows)), best]
    if view.stage is None:
        after = view.measure(torch.as_tensor(chosen, dtype=z.dtype, device=z.device))
    else:
        after = view.measure(z[torch.as_tensor(rows)], chosen - x[rows])
    return expected, (after if cut is None else (after > cut).astype(float)) - goal[rows]


def agreement(expected: np.ndarray, measured: np.ndarray, binary: bool) -> tuple[float, float]:
    """Slope of measured on predicted changes, and R2 of the predictions as they are (below 0: worse than the mean).

    A yes or no scatters around its probability, so for them means of ten groups of equal predictions are compared.
    """
    if binary and len(expected) >= 40:
        groups = np.array_split(np.argsort(expected, kind="stable"), 10)
        expected = np.array([expected[g].mean() for g in groups])
        measured = np.array([measured[g].mean() for g in groups])
    spread = float(np.var(expected))
    slope = (
        float(np.mean((expected - expected.mean()) * (measured - measured.mean())) / spread)
        if spread > 0
        else 0.0
    )
    return slope, r2(measured, expected)


def r2(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Share of the variance that the predictions explain; below 0 they are worse than the mean."""
    total = float(np.square(truth - truth.mean()).sum())
    return 1.0 - float(np.square(truth - predicted).sum()) / total if total > 0 else 0.0


def auc(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Area under the ROC curve of predictions of 0 and 1; NaN where only one of the two occurs."""
    import sklearn  # noqa: F401  (whole before its parts)
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(truth, predicted)) if 0 < truth.mean() < 1 else float("nan")
