"""Disentanglement, completeness, informativeness: who needs which code to tell a factor?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from latentlab.metrics.representation import as_array, split_pairs
from latentlab.metrics.score import Score

PREDICTORS = ("gbt", "gbt-sklearn", "lasso", "random_forest")

# The reference's own guard against the logarithm of 0.
_LEAST_IMPORTANCE = 1e-11
_ALPHA = 0.02
_TREES, _DEPTH = 10, 5


def dci(
    train_codes: Any,
    train_factors: Any,
    test_codes: Any,
    test_factors: Any,
    predictor: str = "gbt",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> Score:
    """Disentanglement of codes by how much each matters to a predictor of each factor; 0 to 1, higher is better.

    The score depends on the predictor several-fold, so never compare two that differ in it:

    - ``"gbt"``: a gradient-boosted classifier of each factor, scikit-learn's default trees grown many times
      faster (see ``boosting``); importance is the squared error that splits remove, informativeness is accuracy.
    - ``"gbt-sklearn"``: the same from scikit-learn itself, minutes where ``"gbt"`` takes seconds. Its values
      change in the third digit with the seed, as equally good splits are taken at random; those of ``"gbt"`` too.
    - ``"lasso"``: Lasso(alpha=0.02) on codes and factors standardised by their training part; importance is
      the absolute coefficient. A factor without order (shape) is read as a number.
    - ``"random_forest"``: a regression forest of 10 trees of depth 5 on the same; importance is the forest's.

    The two regressors' informativeness is 1 - NRMSE: one minus the root mean square error over that of always
    guessing the factor's training mean; 1 is perfect, 0 no better than that guess, and it may be negative.

    A constant code has importance 0 and no weight. A duplicated code shares its twin's importance (trees and
    forest: at random, node by node; Lasso: as its solver leaves it), which lowers completeness and leaves
    disentanglement. A factor of one value is refused. Single values: with one factor a code that matters is
    disentangled (1), with one code a factor that needs it is complete (1). A factor value that only the test
    points have counts as wrong.

    Args:
        train_codes: (n, d).
        train_factors: whole numbers (n, k).
        test_codes: (m, d).
        test_factors: whole numbers (m, k).
        predictor: one of the above.
        seed: of equally good splits, or of the forest.
        progress: called with (steps done, steps in all): stages of all trees, or factors. What it raises ends
            the work.
        threads: for ``"gbt"``, threads that grow trees; by default the cores this process may use. The score
            does not depend on it.

    Returns:
        Score whose value is the disentanglement, with details ``disentanglement``, ``completeness``,
        ``informativeness_train``, ``informativeness_test``, ``importance`` (d, k), ``per_code`` (d,)
        disentanglement, ``code_weights`` (d,), ``per_factor`` (k,) completeness, ``factor_weights`` (k,),
        ``per_factor_train`` and ``per_factor_test`` (k,) informativeness.

    Raises:
        ValueError: on an unknown predictor, parts that do not fit together, too few points, or a factor of one
            value.

    References:
        A framework for the quantitative evaluation of disentangled representations (Eastwood and Williams,
        2018), where completeness is averaged over factors without weights. Challenging common assumptions in the
        unsupervised learning of disentangled representations (Locatello et al., 2019), whose gradient-boosted
        trees and weights these are. InfoGAN-CR and ModelCentrality (Lin et al., 2020) for the Lasso's alpha.
    """
    if predictor not in PREDICTORS:
        raise ValueError(f"Unknown predictor {predictor!r}; possible are {', '.join(PREDICTORS)}.")
    z, v, test_z, test_v = split_pairs(train_codes, train_factors, test_codes, test_factors, "dci")
    if predictor == "gbt":
        importance, train, test = _boosted(z, v, test_z, test_v, seed, threads, progress)
    else:
        fit = {"gbt-sklearn": _reference, "lasso": _lasso, "random_forest": _forest}[predictor]
        importance, train, test = _each_factor(fit, z, v, test_z, test_v, seed, progress)
    per_code, code_weights = _by_code(importance)
    per_factor, factor_weights = _by_code(importance.T)
    details = {
        "disentanglement": disentanglement(importance),
        "completeness": completeness(importance),
        "informativeness_train": float(train.mean()),
        "informativeness_test": float(test.mean()),
        "importance": importance,
        "per_code": per_code,
        "code_weights": code_weights,
        "per_factor": per_factor,
        "factor_weights": factor_weights,
        "per_factor_train": train,
        "per_factor_test": test,
    }
    protocol = {
        "predictor": predictor,
        **_settings(predictor),
        "train_points": len(z),
        "test_points": len(test_z),
        "seed": seed,
    }
    return Score("dci", details["disentanglement"], details, protocol)


def disentanglement(importance: Any) -> float:
    """How far each code matters to one factor only; 0 (all codes serve all factors alike) to 1.

    The sum over codes of rho_i (1 - H(R_i)): H is the entropy of the code's importances R_i, each plus 1e-11,
    to the base of the number of factors; rho_i is the code's share of all importance. With a single factor a code
    that matters counts 1. No importance at all gives 0.

    Args:
        importance: (codes, factors), none negative.

    Raises:
        ValueError: if it is not a finite matrix of numbers that are not negative.
    """
    per_code, weights = _by_code(importance)
    return float(per_code @ weights)


def completeness(importance: Any) -> float:
    """How far each factor needs one code only; 0 (all codes matter alike) to 1.

    The sum over factors of w_j (1 - H(R_j)): as ``disentanglement``, of the importances' columns and to the base of
    the number of codes.

    Args:
        importance: (codes, factors), none negative.

    Raises:
        ValueError: if it is not a finite matrix of numbers that are not negative.
    """
    per_factor, weights = _by_code(as_array(importance).T)
    return float(per_factor @ weights)


def _by_code(importance: Any) -> tuple[np.ndarray, np.ndarray]:
    """One minus the normalised entropy of each row, and each row's share of the whole."""
    matrix = as_array(importance)
    if matrix.ndim != 2 or not matrix.size or matrix.dtype.kind not in "fiub":
        raise ValueError(
            f"importance must be numbers (codes, factors); got shape {matrix.shape} of {matrix.dtype}."
        )
    matrix = matrix.astype(np.float64)
    if not np.isfinite(matrix).all() or (matrix < 0).any():
        raise ValueError("importance must be finite and not negative; take absolute values of coefficients.")
    rows, columns = matrix.shape
    if columns == 1:
        concentration = (matrix[:, 0] > 0).astype(np.float64)
    else:
        share = matrix + _LEAST_IMPORTANCE
        share /= share.sum(axis=1, keepdims=True)
        entropy = -(share * np.log(share)).sum(axis=1) / np.log(columns)
        concentration = np.where(matrix.any(axis=1), np.clip(1.0 - entropy, 0.0, 1.0), 0.0)
    total = matrix.sum()
    return concentration, matrix.sum(axis=1) / total if total > 0 else np.full(rows, 1.0 / rows)


def _settings(predictor: str) -> dict[str, Any]:
    """What decides the number besides the predictor's name."""
    if predictor == "gbt":
        return {"trees": "100 stages, depth 3, rate 0.1, own", "informativeness": "accuracy"}
    import sklearn

    version = {"scikit-learn": sklearn.__version__}
    if predictor == "gbt-sklearn":
        return {"trees": "100 stages, depth 3, rate 0.1", "informativeness": "accuracy", **version}
    if predictor == "lasso":
        return {"alpha": _ALPHA, "informativeness": "1 - NRMSE", **version}
    return {"trees": _TREES, "depth": _DEPTH, "informativeness": "1 - NRMSE", **version}


def _boosted(
    z: np.ndarray,
    v: np.ndarray,
    test_z: np.ndarray,
    test_v: np.ndarray,
    seed: int,
    threads: int | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # Imports numba, which whoever wants another predictor need not wait for.
    from latentlab.metrics.boosting import fit_factors

    classifiers = fit_factors(z, v, seed=seed, threads=threads, progress=progress)
    importance = np.stack([c.feature_importances for c in classifiers], axis=1)
    train = [(c.predict(z) == v[:, j]).mean() for j, c in enumerate(classifiers)]
    test = [(c.predict(test_z) == test_v[:, j]).mean() for j, c in enumerate(classifiers)]
    return importance, np.array(train), np.array(test)


def _each_factor(
    fit: Callable[..., tuple[np.ndarray, float, float]],
    z: np.ndarray,
    v: np.ndarray,
    test_z: np.ndarray,
    test_v: np.ndarray,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    importance = np.empty((z.shape[1], v.shape[1]))
    train, test = np.empty(v.shape[1]), np.empty(v.shape[1])
    for j in range(v.shape[1]):
        importance[:, j], train[j], test[j] = fit(z, v[:, j], test_z, test_v[:, j], seed)
        if progress is not None:
            progress(j + 1, v.shape[1])
    return importance, train, test


def _reference(
    z: np.ndarray, v: np.ndarray, test_z: np.ndarray, test_v: np.ndarray, seed: int
) -> tuple[np.ndarray, float, float]:
    import sklearn  # noqa: F401  (whole before its parts)
    from sklearn.ensemble import GradientBoostingClassifier

    model = GradientBoostingClassifier(random_state=seed).fit(z, v)
    train, test = (model.predict(z) == v).mean(), (model.predict(test_z) == test_v).mean()
    return np.abs(model.feature_importances_), float(train), float(test)


def _lasso(
    z: np.ndarray, v: np.ndarray, test_z: np.ndarray, test_v: np.ndarray, seed: int
) -> tuple[np.ndarray, float, float]:
    import sklearn  # noqa: F401  (whole before its parts)
    from sklearn.linear_model import Lasso

    return _regression(Lasso(alpha=_ALPHA), "coef_", z, v, test_z, test_v)


def _forest(
    z: np.ndarray, v: np.ndarray, test_z: np.ndarray, test_v: np.ndarray, seed: int
) -> tuple[np.ndarray, float, float]:
    import sklearn  # noqa: F401  (whole before its parts)
    from sklearn.ensemble import RandomForestRegressor

    model = RandomForestRegressor(n_estimators=_TREES, max_depth=_DEPTH, random_state=seed)
    return _regression(model, "feature_importances_", z, v, test_z, test_v)


def _regression(
    model: Any, importance: str, z: np.ndarray, v: np.ndarray, test_z: np.ndarray, test_v: np.ndarray
) -> tuple[np.ndarray, float, float]:
    mean, scale = z.mean(axis=0), z.std(axis=0)
    # A constant code's deviation is rounding, which division would blow up to a code of its own.
    still = (z == z[:1]).all(axis=0)
    scale[still] = 1.0
    z, test_z = np.where(still, 0.0, (z - mean) / scale), np.where(still, 0.0, (test_z - mean) / scale)
    middle, spread = v.mean(), v.std()
    target, test_target = (v - middle) / spread, (test_v - middle) / spread
    model.fit(z, target)
    quality = []
    for codes, truth in ((z, target), (test_z, test_target)):
        error, guess = np.mean((model.predict(codes) - truth) ** 2), np.mean(truth**2)
        # Test points that all hold the training mean leave nothing to explain; the training spread stands in.
        quality.append(1.0 - np.sqrt(error / guess) if guess > 0 else 1.0 - np.sqrt(error))
    return np.abs(getattr(model, importance)), float(quality[0]), float(quality[1])
