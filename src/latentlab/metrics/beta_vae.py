"""BetaVAE score: which factor do two groups share, read off the mean difference of their codes?"""

from __future__ import annotations

import warnings

import numpy as np

from latentlab.metrics.score import Score
from latentlab.metrics.table import StateTable

_CHUNK = 1000


def beta_vae_score(
    table: StateTable,
    seed: int = 0,
    *,
    batch_size: int = 64,
    train_points: int = 10_000,
    eval_points: int = 5_000,
) -> Score:
    """Accuracy at naming the factor that pairs of states share: 1 / factors (chance) to 1.

    A point is the mean absolute difference of the codes of ``batch_size`` pairs that agree in one factor; a
    logistic regression names the factor. It saturates early and does not ask for alignment: random rotations of
    perfect factors score high. A constant code changes nothing, a duplicated one hardly anything, factors with
    one value are refused.

    Args:
        table: codes of all states.
        seed: decides every draw.
        batch_size: pairs behind one point.
        train_points: points the classifier learns from.
        eval_points: points that score it.

    Returns:
        Score, the accuracy on the evaluation points, with details ``train_accuracy``.

    Raises:
        ValueError: for a single factor, factors of one value, or too few points.

    References:
        beta-VAE: learning basic visual concepts with a constrained variational framework (Higgins et al., 2017);
        raw, unstandardised differences as in Challenging common assumptions in the unsupervised learning of
        disentangled representations (Locatello et al., 2019).
    """
    import sklearn  # noqa: F401  (whole before its parts)
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    check_request(table, "beta_vae_score", batch_size, train_points, eval_points)
    rng = np.random.default_rng(seed)
    train_x, train_y = _points(table, train_points, batch_size, rng)
    eval_x, eval_y = _points(table, eval_points, batch_size, rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the field's convention stops at 100 iterations
        classifier = LogisticRegression().fit(train_x, train_y)
    return Score(
        "beta_vae_score",
        classifier.score(eval_x, eval_y),
        {"train_accuracy": float(classifier.score(train_x, train_y))},
        {"batch_size": batch_size, "train_points": train_points, "eval_points": eval_points, "seed": seed},
    )


def check_request(table: StateTable, metric: str, batch_size: int, *points: int) -> None:
    """Refuses what a metric of held factors can't answer.

    Raises:
        ValueError: for a single factor, factors of one value, or too few points.
    """
    if len(table.sizes) < 2:
        raise ValueError(
            f"{metric} asks which factor was held; it needs at least two, got {len(table.sizes)}."
        )
    if len(table.varying) < len(table.sizes):
        which = ", ".join(str(i) for i in np.flatnonzero(table.sizes < 2))
        raise ValueError(f"{metric} can't hold factor {which}: it has one value only; leave it out.")
    if batch_size < 2:
        raise ValueError(f"{metric} needs at least 2 states behind a point; got batch_size={batch_size}.")
    least = 10 * len(table.sizes)
    if min(points) < least:
        raise ValueError(
            f"{min(points)} points are too few for {metric} over {len(table.sizes)} factors; give at least "
            f"{least} (the field uses 10,000)."
        )


def _points(
    table: StateTable, n: int, batch_size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    held = rng.integers(len(table.sizes), size=n)
    found = np.empty((n, table.codes.shape[1]))
    for begin in range(0, n, _CHUNK):  # in parts: all pairs at once would take hundreds of megabytes
        part = held[begin : begin + _CHUNK]
        first = table.rows(len(part) * batch_size, rng).reshape(len(part), batch_size)
        second = np.empty_like(first)
        for column in range(len(table.sizes)):
            mine = part == column
            second[mine] = table.rows_with(column, table.factors[first[mine], column], rng)
        found[begin : begin + _CHUNK] = np.abs(table.codes[first] - table.codes[second]).mean(axis=1)
    return found, held
