"""The simple models that a surrogate can be: ridge, logistic, a small tree, an additive model; and the ceiling above.

Each is fitted to features (n, features) and numbers (n,), and says what it holds in plain values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

KINDS = ("ridge", "logistic", "tree", "ebm")
_LEAVES, _PAIRS, _GRID, _ROUNDS = 16, 10, 64, 1000


@dataclass(frozen=True)
class Simple:
    """A fitted simple model.

    Attributes:
        predict: features (n, features) to predictions (n,); probabilities for "logistic".
        terms: names of its terms.
        weights: weight of each term: the change of the prediction a standard deviation of the feature for "ridge" (of
            its log odds for "logistic"), share of the variance explained for "tree", mean absolute contribution for
            "ebm".
        rules: the tree as lines of text.
        tree: the tree as nested plain values.
        shapes: {feature: (2, k)}, values and contributions, of an additive model.
        pairs: {"a & b": (3, k, k)}, values of a, values of b, contributions, of an additive model.
        splits: (feature, value, jump) of the largest step for each feature of a tree or additive model, the largest
            jump first.
    """

    predict: Callable[[np.ndarray], np.ndarray]
    terms: tuple[str, ...]
    weights: np.ndarray
    rules: tuple[str, ...] = ()
    tree: Mapping[str, Any] | None = None
    shapes: Mapping[str, np.ndarray] = field(default_factory=dict)
    pairs: Mapping[str, np.ndarray] = field(default_factory=dict)
    splits: tuple[tuple[str, float, float], ...] = ()


def fit_simple(
    kind: str,
    x: np.ndarray,
    y: np.ndarray,
    names: Sequence[str],
    seed: int,
    squares: bool = False,
    light: bool = False,
) -> Simple:
    """Fits one simple model.

    Args:
        kind: one of KINDS.
        x: features (n, features).
        y: numbers (n,); 0 and 1 for "logistic".
        names: names of the features.
        seed: decides what chance decides, below 2**32.
        squares: for "ridge" and "logistic", also a term for the square of each feature.
        light: for "ebm", fewer rounds and interactions, for refits that only the largest terms are wanted of.

    Raises:
        ImportError: for "ebm" where interpret-core is not installed.
    """
    if kind in ("ridge", "logistic"):
        return _linear(kind, x, y, names, squares)
    return _tree(x, y, names, seed) if kind == "tree" else _additive(x, y, names, seed, light)


def fit_ceiling(x: np.ndarray, y: np.ndarray, seed: int, binary: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Boosted trees: about what any model could predict from these features and this many samples."""
    import sklearn  # noqa: F401  (whole before its parts)
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    if binary:
        classifier = HistGradientBoostingClassifier(max_iter=200, random_state=seed).fit(x, y)
        return lambda rows: classifier.predict_proba(rows)[:, 1]
    return HistGradientBoostingRegressor(max_iter=200, random_state=seed).fit(x, y).predict


def _linear(kind: str, x: np.ndarray, y: np.ndarray, names: Sequence[str], squares: bool) -> Simple:
    import sklearn  # noqa: F401  (whole before its parts)
    from sklearn.linear_model import LogisticRegression, RidgeCV

    middle, spread = x.mean(axis=0), np.where(x.std(axis=0) > 1e-12, x.std(axis=0), 1.0)

    def terms_of(rows: np.ndarray) -> np.ndarray:
        scaled = (rows - middle) / spread
        return np.concatenate([scaled, scaled**2 - 1.0], axis=1) if squares else scaled

    terms = (*names, *(f"{name}^2" for name in names)) if squares else tuple(names)
    if kind == "ridge":
        ridge = RidgeCV(alphas=np.logspace(-3, 3, 13)).fit(terms_of(x), y)
        return Simple(lambda rows: ridge.predict(terms_of(rows)), terms, np.asarray(ridge.coef_))
    logistic = LogisticRegression(max_iter=2000).fit(terms_of(x), y)
    return Simple(
        lambda rows: logistic.predict_proba(terms_of(rows))[:, 1], terms, np.asarray(logistic.coef_)[0]
    )


def _tree(x: np.ndarray, y: np.ndarray, names: Sequence[str], seed: int) -> Simple:
    import sklearn  # noqa: F401  (whole before its parts)
    from sklearn.tree import DecisionTreeRegressor, export_text

    model = DecisionTreeRegressor(max_leaf_nodes=_LEAVES, min_samples_leaf=5, random_state=seed).fit(x, y)
    inner = model.tree_
    split_by = [str(names[i]) for i in np.asarray(inner.feature)]
    thresholds = np.asarray(inner.threshold)
    left, right = np.asarray(inner.children_left), np.asarray(inner.children_right)
    values, counts = np.asarray(inner.value).reshape(-1), np.asarray(inner.n_node_samples)

    def nested(node: int) -> dict[str, Any]:
        here: dict[str, Any] = {
            "value": float(values[node]),
            "share": float(counts[node] / counts[0]),
        }
        if left[node] >= 0:
            here |= {
                "feature": split_by[node],
                "threshold": float(thresholds[node]),
                "below": nested(int(left[node])),
                "above": nested(int(right[node])),
            }
        return here

    steps: dict[str, tuple[float, float, float]] = {}
    for node in np.nonzero(left >= 0)[0]:
        name = split_by[node]
        jump = float(values[right[node]] - values[left[node]])
        # Weighed by how many samples meet the split: a jump deep in the tree concerns few.
        weight = abs(jump) * counts[node] / counts[0]
        if name not in steps or weight > steps[name][0]:
            steps[name] = (weight, float(thresholds[node]), jump)
    ranked = sorted(steps.items(), key=lambda item: -item[1][0])
    return Simple(
        model.predict,
        tuple(names),
        np.asarray(model.feature_importances_),
        rules=tuple(export_text(model, feature_names=list(names), decimals=3).splitlines()),
        tree=nested(0),
        splits=tuple((name, at, jump) for name, (_, at, jump) in ranked),
    )


def _additive(x: np.ndarray, y: np.ndarray, names: Sequence[str], seed: int, light: bool) -> Simple:
    try:
        from interpret.glassbox import ExplainableBoostingRegressor
    except ImportError:
        raise ImportError(
            "An explainable boosting machine needs interpret-core: pip install latentlab[surrogates]."
        ) from None
    most = min(_PAIRS // 2 if light else _PAIRS, len(names) * (len(names) - 1) // 2)
    # What a generator draws has no noise that would ever end the boosting: the rounds are bounded instead.
    model = ExplainableBoostingRegressor(
        feature_names=list(names),
        interactions=most,
        outer_bags=1 if light else 2,
        max_rounds=_ROUNDS // 4 if light else _ROUNDS,
        max_bins=256,
        max_interaction_bins=32,
        smoothing_rounds=100,
        interaction_smoothing_rounds=25,
        n_jobs=1,
        random_state=seed,
    ).fit(x, y)
    terms = tuple(" & ".join([str(names[i]) for i in term]) for term in model.term_features_)
    middle = np.median(x, axis=0)
    shapes, pairs, steps = {}, {}, []
    for k, term in enumerate(model.term_features_):
        grids = [
            np.linspace(low, high, _GRID if len(term) == 1 else 16)
            for low, high in (np.quantile(x[:, i], [0.005, 0.995]) for i in term)
        ]
        mesh = np.meshgrid(*grids, indexing="ij")
        rows = np.tile(middle, (mesh[0].size, 1))
        for i, values in zip(term, mesh, strict=True):
            rows[:, i] = values.ravel()
        heights = model.eval_terms(rows)[:, k].reshape(mesh[0].shape)
        (shapes if len(term) == 1 else pairs)[terms[k]] = np.stack([*mesh, heights])
        if len(term) == 1:
            cuts = np.asarray(model.bins_[term[0]][0], dtype=float)
            scores = np.asarray(model.term_scores_[k])[1:-1]
            if len(cuts) and scores.ndim == 1 and len(scores) == len(cuts) + 1:
                steps.append((terms[k], *_step(cuts, np.diff(scores))))
    return Simple(
        model.predict,
        terms,
        np.asarray(model.term_importances()),
        shapes=shapes,
        pairs=pairs,
        splits=tuple(sorted(steps, key=lambda step: -abs(step[2]))),
    )


def _step(cuts: np.ndarray, rises: np.ndarray) -> tuple[float, float]:
    """Where an additive model's contribution rises or falls most, and by how much.

    The rises beside the largest belong to it, while they have its sign and a tenth of its size: resampling spreads one
    step over neighbouring cuts.
    """
    first = last = int(np.argmax(np.abs(rises)))
    same = rises * np.sign(rises[first]) >= 0.1 * abs(rises[first])
    while first > 0 and same[first - 1]:
        first -= 1
    while last + 1 < len(rises) and same[last + 1]:
        last += 1
    part = rises[first : last + 1]
    total = float(part.sum())
    return float((cuts[first : last + 1] * part).sum() / total) if total else float(cuts[first]), total
