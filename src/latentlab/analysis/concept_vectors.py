"""Concept activation vectors and what chance gives in their place: the numbers behind TCAV.

Symbols: rows h (n, p) of all examples, v the unit normal of a ridge classifier between a concept's rows and random
ones. Everything is computed among inner products, in which a fit costs the number of its examples, not of features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_TRAINED = 2 / 3


@dataclass(frozen=True)
class Found:
    """A concept's numbers, over partner sets.

    Attributes:
        scores: share of inputs with a positive sensitivity, (partners,).
        effect: mean sensitivity times the distance of held-out examples along the CAV, mean.
        magnitude: share of the summed absolute sensitivity that is positive, mean.
        accuracy: share of held-out examples told apart, mean.
        weights: the mean unit CAV as weights of all examples, (n,).
    """

    scores: np.ndarray
    effect: float
    magnitude: float
    accuracy: float
    weights: np.ndarray


def told_apart(
    inner: np.ndarray,
    sensed: np.ndarray,
    members: np.ndarray,
    random: np.ndarray,
    partners: int,
    ridge: float,
    rng: np.random.Generator,
) -> Found:
    """Tells a concept's examples apart from random sets of equal size, two thirds of both for the fit.

    Args:
        inner: inner products of all examples' features, (n, n).
        sensed: inner products of the examples' features and the target's gradients at the inputs, (n, inputs).
        members: rows of the concept's examples.
        random: rows to draw random sets from.
        partners: how many random sets.
        ridge: penalty of the classifier, in the fitted examples' whole variance.
        rng: decides sets and splits.
    """
    size = len(members)
    trained = round(_TRAINED * size)
    labels = np.repeat([1.0, -1.0], trained)
    centring = np.eye(2 * trained) - 1 / (2 * trained)
    fits, tests = [], []
    for _ in range(partners):
        ours, theirs = rng.permutation(members), rng.choice(random, size, replace=False)
        fits.append(np.concatenate([ours[:trained], theirs[:trained]]))
        tests.append(np.concatenate([ours[trained:], theirs[trained:]]))
    fit, test = np.array(fits), np.array(tests)
    gram = centring @ inner[fit[:, :, None], fit[:, None, :]] @ centring
    penalty = ridge * np.trace(gram, axis1=1, axis2=2) / 2
    gram[:, np.arange(2 * trained), np.arange(2 * trained)] += np.maximum(penalty, 1e-12)[:, None]
    dual = np.linalg.solve(gram, np.broadcast_to(labels, fit.shape)[..., None])[..., 0] @ centring
    own = inner[fit[:, :, None], fit[:, None, :]]
    norm = np.sqrt(np.maximum(np.einsum("ka,kab,kb->k", dual, own, dual), 1e-24))
    dual /= norm[:, None]
    sensitivity = np.einsum("ka,kan->kn", dual, sensed[fit])
    along = np.einsum("ka,kat->kt", dual, inner[fit[:, :, None], test[:, None, :]])
    middle = np.einsum("ka,kab->kb", dual, own).mean(axis=1, keepdims=True)
    held = size - trained
    positive = np.clip(sensitivity, 0.0, None).sum(axis=1)
    weights = np.zeros(len(inner))
    np.add.at(weights, fit.ravel(), dual.ravel() / partners)
    gap = along[:, :held].mean(axis=1) - along[:, held:].mean(axis=1)
    return Found(
        scores=(sensitivity > 0).mean(axis=1),
        effect=float((sensitivity.mean(axis=1) * gap).mean()),
        magnitude=float((positive / np.maximum(np.abs(sensitivity).sum(axis=1), 1e-24)).mean()),
        accuracy=float(((along > middle) == (np.arange(2 * held) < held)).mean()),
        weights=weights,
    )


def p_value(effect: float, null: np.ndarray) -> float:
    """Two-sided chance that one more draw of the null lies as far out, by Student's t."""
    from scipy import stats

    spread = null.std(ddof=1) * np.sqrt(1 + 1 / len(null))
    if spread <= 1e-12 * max(abs(effect), 1e-300):
        return 1.0 if effect == null.mean() else 0.0
    return float(2 * stats.t.sf(abs(effect - null.mean()) / spread, len(null) - 1))


def rank_p_value(effect: float, null: np.ndarray) -> float:
    """Share of the null, the effect counted in, that lies at least as far from the null's median."""
    middle = np.median(null)
    return float((1 + (np.abs(null - middle) >= abs(effect - middle)).sum()) / (1 + len(null)))


def welch(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sided p-value of Welch's t-test; shares of inputs are often all 0 or all 1, so a spread of 0 is no error."""
    from scipy import stats

    parts = [v.var(ddof=1) / len(v) for v in (a, b)]
    apart, squares = a.mean() - b.mean(), sum(parts)
    if squares < 1e-18:
        return 1.0 if abs(apart) < 1e-9 else 0.0
    freedom = squares**2 / sum(p**2 / (len(v) - 1) for p, v in zip(parts, (a, b), strict=True))
    return float(2 * stats.t.sf(abs(apart) / np.sqrt(squares), freedom))
