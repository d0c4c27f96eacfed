"""FactorVAE score: which code varies least while a factor is held?"""

from __future__ import annotations

import numpy as np

from latentlab.metrics.beta_vae import check_request
from latentlab.metrics.score import Score
from latentlab.metrics.table import StateTable

_CHUNK = 1000


def factor_vae_score(
    table: StateTable,
    seed: int = 0,
    *,
    batch_size: int = 64,
    train_points: int = 10_000,
    eval_points: int = 5_000,
    variance_points: int = 10_000,
    threshold: float = 0.05,
    held_out: bool = True,
) -> Score:
    """Accuracy of a majority vote from the least varying code to the held factor: 1 / factors (chance) to 1.

    Among ``batch_size`` states that share one factor, the code whose variance shrank most votes; each code stands
    for the factor it voted for most. Codes whose standard deviation is below ``threshold`` never vote, so the
    score depends on the scale of the codes. It does not ask for alignment: a random rotation of perfect factors
    scores 0.8 to 0.9. A constant code never votes (if none is left the score is 0), a duplicated code shares its
    votes, factors with one value are refused.

    Args:
        table: codes of all states.
        seed: decides every draw.
        batch_size: states behind one vote.
        train_points: votes that decide what a code stands for.
        eval_points: votes that score it.
        variance_points: states behind the overall variance.
        threshold: least standard deviation of a code that may vote, in units of the codes.
        held_out: score on fresh votes; False scores on the training votes, as InfoGAN-CR's protocol does.

    Returns:
        Score with details ``train_accuracy``, ``votes`` int (factors, d), ``active`` bool (d,), ``active_codes``.

    Raises:
        ValueError: for a single factor, factors of one value, or too few points.

    References:
        Disentangling by factorising (Kim and Mnih, 2018), https://arxiv.org/abs/1802.05983; pruning as in
        Challenging common assumptions in the unsupervised learning of disentangled representations (Locatello et
        al., 2019).
    """
    check_request(table, "factor_vae_score", batch_size, train_points, eval_points, variance_points)
    if threshold < 0:
        raise ValueError(f"threshold must not be negative; got {threshold}.")
    rng = np.random.default_rng(seed)
    seen = table.codes[table.rows(variance_points, rng)]
    variances = seen.var(axis=0, ddof=1)
    # A constant code varies least in every group, so it is pruned even at threshold 0.
    active = (np.sqrt(variances) >= threshold) & (np.ptp(seen, axis=0) > 0)
    protocol = {
        "batch_size": batch_size,
        "train_points": train_points,
        "eval_points": eval_points,
        "variance_points": variance_points,
        "threshold": threshold,
        "votes": "held out" if held_out else "training",
        "seed": seed,
    }
    shape = (len(table.sizes), table.codes.shape[1])
    if not active.any():
        empty = {"train_accuracy": 0.0, "votes": np.zeros(shape, int), "active": active, "active_codes": 0}
        return Score("factor_vae_score", 0.0, empty, protocol)
    train = _votes(table, train_points, batch_size, variances, active, rng)
    stands_for = train.argmax(axis=0)
    columns = np.arange(train.shape[1])
    train_accuracy = train[stands_for, columns].sum() / train.sum()
    value = train_accuracy
    if held_out:
        fresh = _votes(table, eval_points, batch_size, variances, active, rng)
        value = fresh[stands_for, columns].sum() / fresh.sum()
    details = {
        "train_accuracy": float(train_accuracy),
        "votes": train,
        "active": active,
        "active_codes": int(active.sum()),
    }
    return Score("factor_vae_score", value, details, protocol)


def _votes(
    table: StateTable,
    n: int,
    batch_size: int,
    variances: np.ndarray,
    active: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    found = np.zeros((len(table.sizes), table.codes.shape[1]), dtype=np.int64)
    codes, scale = table.codes[:, active], variances[active]
    columns = np.flatnonzero(active)
    held = rng.integers(len(table.sizes), size=n)
    for begin in range(0, n, _CHUNK):
        part = held[begin : begin + _CHUNK]
        for column in range(len(table.sizes)):
            count = int((part == column).sum())
            if not count:
                continue
            values = table.factors[table.rows(count, rng), column]
            rows = table.rows_with(column, np.repeat(values[:, None], batch_size, axis=1), rng)
            least = (codes[rows].var(axis=1, ddof=1) / scale).argmin(axis=1)
            np.add.at(found[column], columns[least], 1)
    return found
