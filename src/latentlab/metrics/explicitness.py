"""Explicitness: can a linear classifier read each value of a factor?"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from latentlab.metrics.representation import split_pairs
from latentlab.metrics.score import Score


def explicitness(train_codes: Any, train_factors: Any, test_codes: Any, test_factors: Any) -> Score:
    """Area under the ROC curve of a logistic regression, over values and factors: 0.5 (chance) to 1.

    Codes are standardised with the training points' mean and deviation. A constant code is left at zero and
    changes nothing (the field's reference divides by zero there); a duplicated code changes little; a one-valued
    factor is refused. A value that is missing among the test points is left out of the test mean, one that is
    missing among the training points can't be asked for.

    Args:
        train_codes: (n, d), where the classifiers learn.
        train_factors: whole numbers (n, k).
        test_codes: (m, d).
        test_factors: whole numbers (m, k).

    Returns:
        Score, the test area, with details ``train``, ``per_factor_train``, ``per_factor_test`` (k,) and
        ``converged``: whether each regression did so within scikit-learn's 100 iterations.

    Raises:
        ValueError: on parts that do not fit together, too few points, or a factor of one value.

    References:
        Learning deep disentangled embeddings with the F-statistic loss (Ridgeway and Mozer, 2018),
        https://arxiv.org/abs/1802.05312. Regression and averaging as in Challenging common assumptions in the
        unsupervised learning of disentangled representations (Locatello et al., 2019).
    """
    import sklearn  # noqa: F401  (whole before its parts)
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    z, v, test_z, test_v = split_pairs(train_codes, train_factors, test_codes, test_factors, "explicitness")
    center, scale = z.mean(axis=0), z.std(axis=0)
    scale[np.ptp(z, axis=0) == 0] = np.inf  # a constant column says nothing, whatever the test points hold
    z, test_z = (z - center) / scale, (test_z - center) / scale
    areas: dict[str, list[float]] = {"train": [], "test": []}
    converged = []
    for factor in range(v.shape[1]):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            classifier = LogisticRegression().fit(z, v[:, factor])
        converged.append(not any(issubclass(w.category, ConvergenceWarning) for w in caught))
        for part, points, truth in (("train", z, v), ("test", test_z, test_v)):
            chance = classifier.predict_proba(points)
            areas[part].append(area_under_roc(chance, truth[:, factor], classifier.classes_))
    per_train, per_test = np.array(areas["train"]), np.array(areas["test"])
    return Score(
        "explicitness",
        per_test.mean(),
        {
            "train": float(per_train.mean()),
            "per_factor_train": per_train,
            "per_factor_test": per_test,
            "converged": np.array(converged),
        },
        {"train_points": len(z), "test_points": len(test_z), "classifier": "logistic regression, C=1"},
    )


def area_under_roc(chance: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> float:
    """Mean over classes of the one-against-rest area, ties counted half; classes without both sides are left out.

    Args:
        chance: probabilities (n, classes).
        labels: the true class of each point, (n,).
        classes: the class of each column, (classes,).

    Raises:
        ValueError: if no class has points on both sides.
    """
    from scipy.stats import rankdata

    member = labels[:, None] == classes
    inside = member.sum(axis=0)
    outside = len(labels) - inside
    usable = (inside > 0) & (outside > 0)
    if not usable.any():
        raise ValueError("No value of the factor occurs beside another one in these points.")
    ranks = rankdata(chance[:, usable], axis=0)
    inside, outside = inside[usable], outside[usable]
    won = (ranks * member[:, usable]).sum(axis=0) - inside * (inside + 1) / 2
    return float((won / (inside * outside)).mean())
