"""InterFaceGAN: the direction across which an attribute changes, as the normal of a plane between two groups of codes.

Symbols: z codes (n, dim), w the plane's unit normal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from latentlab.analysis.direction import Direction
from latentlab.analysis.directions import Directions, home_space, lengths, ordered
from latentlab.analysis.inference import (
    BATCH_SIZE,
    as_codes,
    check_seed,
    decoded,
    draw_codes,
    in_chunks,
    inference,
    needs_generator,
    to_numpy,
)
from latentlab.analysis.meters import Meter, meter_of
from latentlab.analysis.results import provenance
from latentlab.models.contract import space_of

_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
_LEAST = 10


def boundary(
    model: Any,
    codes: Any = None,
    target: Any = "brightness",
    *,
    space: str | None = None,
    share: float = 0.02,
    held_out: float = 0.3,
    condition_on: Sequence[Direction] = (),
    name: str | None = None,
    n: int = 4000,
    seed: int = 0,
    n_draws: int = 20,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], object] | None = None,
) -> Directions:
    """The direction across which an attribute changes: the normal of a linear support vector machine.

    Args:
        model: a generative model.
        codes: codes (n, dim) of the space; None is ``n`` draws of the prior.
        target: what is told apart: a meter of images (a name in METERS, a Meter, a function), scores of the codes (n,),
            or labels (n,) of two values, of which the larger lies ahead.
        space: name of the space; None is W where there is one, else the model's own.
        share: of scores, the share at each end that is used: 0.02 is the highest and the lowest 2 %.
        held_out: share of the examples that the fit does not see.
        condition_on: directions of the same space that shall stay as they are: their span is taken out of the normal.
        name: what to call the direction; the meter's name by default.
        n: number of draws.
        seed: of draws, split and shuffles.
        n_draws: shuffles of the labels that the null is made of, at least 1.
        batch_size: codes decoded at a time.
        progress: called with (steps done, all) after each batch that is scored and each fit to shuffled labels; it may
            raise to cancel.

    Returns:
        One direction, its score the accuracy on held-out examples. The certificate holds ``accuracy``, the same;
        ``shuffled_accuracy``, mean and largest of the fits to shuffled labels, each scored on held-out examples with
        their true labels shuffled likewise; ``examples``, how many were fitted; ``conditioned_cosine``, the largest
        cosine to a direction of ``condition_on`` (0); and ``rank_correlation`` of all codes' places along the direction
        with their scores.

    Raises:
        ValueError: on fewer than 10 examples of either side, scores that don't vary, or codes that don't fit.

    References:
        Interpreting the latent space of GANs for semantic face editing (Shen et al., 2020),
        https://arxiv.org/abs/1907.10786. The machine's penalty is chosen here by two-fold accuracy on the
        examples it fits.
    """
    needs_generator(model)
    seed = check_seed(seed)
    place = space_of(model, space or home_space(model))
    where = ordered(place)
    if n_draws < 1:
        raise ValueError(f"n_draws must be at least 1; got {n_draws}.")
    if not 0.0 < share <= 0.5 or not 0.0 < held_out < 1.0:
        raise ValueError(f"share lies in (0, 0.5] and held_out between 0 and 1; got {share} and {held_out}.")
    given = codes is not None
    tensor = (
        as_codes(model, codes, name="codes", space=place.name)
        if given
        else draw_codes(model, n, seed, place.name)
    )
    z = to_numpy(tensor).astype(np.float64)[:, where]
    measures = isinstance(target, (str, Meter)) or callable(target)
    batches = -(-len(tensor) // max(batch_size, 1)) if measures else 0
    steps = _Steps(progress, batches + n_draws)
    scores, title = _scores(model, tensor, target, place.name, batch_size, steps)
    ends, labels = _ends(scores, share)
    rng = np.random.default_rng(seed)
    test = _split(labels, held_out, rng)
    centre = z[ends].mean(axis=0)
    scale = max(float(z[ends].std()), 1e-12)
    x = (z[ends] - centre) / scale
    penalty = _penalty(x[~test], labels[~test], seed)
    normal = _normal(x[~test], labels[~test], penalty, seed)
    others = [o.array[where] for o in _conditions(condition_on, place.name, place.dim)]
    if others:
        whole = Direction("normal", tuple(normal), space=place.name)
        rest = whole.without(*(Direction(f"c{i}", tuple(o), space=place.name) for i, o in enumerate(others)))
        normal = rest.array
    accuracy = _accuracy(x @ normal, labels, test)
    shuffled = []
    for _ in range(n_draws):
        wrong = rng.permutation(labels)
        shuffled.append(_accuracy(x @ _normal(x[~test], wrong[~test], penalty, seed), wrong, test))
        steps.done()
    table = np.zeros((1, place.dim))
    table[:, where] = normal
    return Directions(
        vectors=table,
        steps=lengths(model, place.name, table, seed),
        scores=np.array([accuracy]),
        stability=None,
        names=(name or title,),
        space=place.name,
        stage=None,
        layers=None,
        method="InterFaceGAN",
        score_name="held-out accuracy",
        certificate={
            "accuracy": accuracy,
            "shuffled_accuracy": (float(np.mean(shuffled)), float(np.max(shuffled))),
            "examples": int((~test).sum()),
            "conditioned_cosine": max((abs(float(o @ normal)) for o in others), default=0.0),
            "rank_correlation": _rank_correlation(z @ normal, scores),
        },
        provenance=provenance(
            model,
            {"codes": codes, "target": title if isinstance(target, (str, Meter)) else target, "space": place.name,
             "share": share, "held_out": held_out, "condition_on": list(condition_on), "n": len(z), "n_draws": n_draws},
            seed,
        ),
    )  # fmt: skip


class _Steps:
    """Counts the steps of one call and tells how far it is."""

    def __init__(self, progress: Callable[[int, int], object] | None, total: int) -> None:
        self.progress, self.total, self.count = progress, total, 0

    def done(self) -> None:
        self.count += 1
        if self.progress is not None:
            self.progress(self.count, self.total)


def _scores(
    model: Any, codes: torch.Tensor, target: Any, space: str, batch_size: int, steps: _Steps
) -> tuple[np.ndarray, str]:
    if isinstance(target, (str, Meter)) or callable(target):
        meter = meter_of(target)
        with inference(model):

            def measured(part: torch.Tensor) -> torch.Tensor:
                values = meter(decoded(model, part, (), space))
                steps.done()
                return values

            found = in_chunks(measured, codes, batch_size)
        return found.astype(np.float64), meter.name
    found = np.asarray(target.detach().cpu() if isinstance(target, torch.Tensor) else target, dtype=float)
    if found.shape != (len(codes),) or not np.isfinite(found).all():
        raise ValueError(
            f"Scores or labels must be one finite number a code ({len(codes)},); got {found.shape}."
        )
    return found, "boundary"


def _ends(scores: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the examples and whether each lies ahead; of two values all are examples."""
    values = np.unique(scores)
    if len(values) < 2:
        raise ValueError("All scores are the same, so nothing is told apart.")
    if len(values) == 2:
        ends, labels = np.arange(len(scores)), scores == values[1]
    else:
        count = round(share * len(scores))
        order = np.argsort(scores, kind="stable")
        ends = np.concatenate([order[:count], order[len(order) - count :]])
        labels = np.arange(2 * count) >= count
    if min(labels.sum(), (~labels).sum()) < _LEAST:
        raise ValueError(
            f"Expected at least {_LEAST} examples of either side; got {int((~labels).sum())} and {int(labels.sum())} "
            f"of {len(scores)} codes. Give more codes, or a larger share."
        )
    return ends, labels


def _split(labels: np.ndarray, held_out: float, rng: np.random.Generator) -> np.ndarray:
    """Which examples are held out, the same share of either side, at least one and never all."""
    test = np.zeros(len(labels), dtype=bool)
    for side in (False, True):
        rows = rng.permutation(np.nonzero(labels == side)[0])
        test[rows[: int(np.clip(round(held_out * len(rows)), 1, len(rows) - 2))]] = True
    return test


def _normal(x: np.ndarray, labels: np.ndarray, penalty: float, seed: int) -> np.ndarray:
    import sklearn  # noqa: F401  (whole before its parts)
    from sklearn.svm import LinearSVC

    machine = LinearSVC(
        C=penalty,
        dual=False,  # pyright: ignore[reportArgumentType]
        random_state=seed % 2**32,
        max_iter=10_000,
    )
    normal = machine.fit(x, labels).coef_[0]
    return normal / max(float(np.linalg.norm(normal)), 1e-12)


def _penalty(x: np.ndarray, labels: np.ndarray, seed: int) -> float:
    """The smallest penalty of those that tell the most examples apart in two folds: of equals, the calmest plane."""
    half = _split(labels, 0.5, np.random.default_rng(seed))
    hits = [
        _accuracy(x @ _normal(x[~half], labels[~half], c, seed), labels, half)
        + _accuracy(x @ _normal(x[half], labels[half], c, seed), labels, ~half)
        for c in _PENALTIES
    ]
    return _PENALTIES[int(np.argmax(hits))]


def _accuracy(along: np.ndarray, labels: np.ndarray, test: np.ndarray) -> float:
    """Share of the held-out examples told apart by the midpoint between the fitted groups' means."""
    middle = (along[~test & labels].mean() + along[~test & ~labels].mean()) / 2
    return float(((along[test] > middle) == labels[test]).mean())


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    ranks = [np.argsort(np.argsort(v, kind="stable"), kind="stable") for v in (a, b)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _conditions(given: Sequence[Direction], space: str, dim: int) -> list[Direction]:
    for direction in given:
        if direction.space != space or len(direction.vector) != dim:
            raise ValueError(
                f"condition_on must hold directions of space {space!r}; {direction.name!r} is one of "
                f"{direction.space or direction.stage!r}."
            )
    return list(given)
