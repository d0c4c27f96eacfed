"""Separated attribute predictability: is one code clearly the best predictor of a factor?"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from latentlab.metrics.mig import gap
from latentlab.metrics.representation import split_pairs
from latentlab.metrics.score import Score

_LEAST_VARIANCE = 1e-12


def sap(
    train_codes: Any, train_factors: Any, test_codes: Any, test_factors: Any, continuous: bool = False
) -> Score:
    """The gap between the best and the second best single code at predicting a factor, averaged; 0 to 1.

    Two conventions that must never be compared. ``continuous=False`` (Locatello et al.): accuracy on the test
    points of a linear support vector classifier on one code (C=0.01, balanced), about 0.05 for trained models;
    it depends on the scale of the codes. ``continuous=True``: squared correlation on the training points, about
    0.2 to 0.55, whatever the scale. A constant code scores 0 correlation, or the accuracy of a constant guess; a
    duplicated code brings its factor's gap to 0; a one-valued factor is refused.

    Args:
        train_codes: (n, d).
        train_factors: whole numbers (n, k).
        test_codes: (m, d).
        test_factors: whole numbers (m, k).
        continuous: treat factors as numbers, not classes.

    Returns:
        Score with details ``matrix`` (d, k), ``per_factor`` (k,).

    Raises:
        ValueError: on parts that do not fit together, too few points, or a factor of one value.

    References:
        Variational inference of disentangled latent concepts from unlabeled observations (Kumar, Sattigeri and
        Balakrishnan, 2018), https://arxiv.org/abs/1711.00848; classifier as in Challenging common assumptions in
        the unsupervised learning of disentangled representations (Locatello et al., 2019).
    """
    z, v, test_z, test_v = split_pairs(train_codes, train_factors, test_codes, test_factors, "sap")
    matrix = _squared_correlation(z, v) if continuous else _accuracies(z, v, test_z, test_v)
    per_factor = gap(matrix)
    form = "squared correlation" if continuous else "LinearSVC(C=0.01, balanced), accuracy"
    return Score(
        "sap",
        per_factor.mean(),
        {"matrix": matrix, "per_factor": per_factor},
        {"predictor": form, "train_points": len(z), "test_points": len(test_z)},
    )


def _squared_correlation(z: np.ndarray, v: np.ndarray) -> np.ndarray:
    z, v = z - z.mean(axis=0), v - v.mean(axis=0)
    share = len(z) - 1
    covariance = z.T @ v / share
    variances = (z**2).sum(axis=0) / share
    alive = variances > _LEAST_VARIANCE
    room = np.where(alive, variances, 1.0)[:, None] * (v**2).sum(axis=0) / share
    return np.where(alive[:, None], covariance**2 / room, 0.0)


def _accuracies(z: np.ndarray, v: np.ndarray, test_z: np.ndarray, test_v: np.ndarray) -> np.ndarray:
    import sklearn  # noqa: F401  (whole before its parts)
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    found = np.empty((z.shape[1], v.shape[1]))
    with warnings.catch_warnings():
        # The field's convention stops after scikit-learn's default number of iterations.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for i in range(z.shape[1]):
            for j in range(v.shape[1]):
                classifier = LinearSVC(C=0.01, class_weight="balanced", random_state=0)
                classifier.fit(z[:, [i]], v[:, j])
                found[i, j] = np.mean(classifier.predict(test_z[:, [i]]) == test_v[:, j])
    return found
