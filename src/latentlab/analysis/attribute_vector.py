"""Attribute vectors: the mean code with an attribute minus the mean code without, and whether that means something.

Symbols: z codes (n, dim); v the vector; d' the distance of two sides along v in pooled standard deviations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from latentlab.analysis.arithmetic import middle
from latentlab.analysis.direction import Direction
from latentlab.analysis.directions import lengths, ordered
from latentlab.analysis.inference import (
    BATCH_SIZE,
    as_codes,
    check_seed,
    decode_latents,
    needs_generator,
    to_numpy,
)
from latentlab.analysis.results import Result, provenance
from latentlab.models.contract import space_of

LEAST_CODES = 5
FOLDS = 5


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AttributeVector(Result):
    """The way from the codes without an attribute to those with it, and how well it tells the two apart.

    Attributes:
        vector: (dim,), mean code with the attribute minus mean code without; 0 for categories and indices.
        means: (2, dim), the two means, without first, as the generator knows them.
        images: (2, channels, height, width) in [0, 1], of the two means.
        places: (n,), where each code lies along the vector when that is found without it, from half-way between the
            means, in the codes' own units.
        labels: (n,), 1 for a code with the attribute, 0 without.
        accuracy: share of codes on their side of half-way, mean of the two sides, 0 to 1; each code is judged by a
            vector that was found without it, and chance is 0.5.
        d_prime: distance of the two sides' mean places in pooled standard deviations.
        null_accuracy: (n_draws,), the same accuracy after the labels were shuffled.
        null_d_prime: (n_draws,), the same of d'.
        spread: standard deviation of the prior's codes along the vector.
        name: what the attribute is called.
        space: name of the codes' space.

    The certificate holds ``accuracy`` and ``d_prime``; ``shuffled_accuracy`` and ``shuffled_d_prime``, mean and largest
    of the null; ``p_value``, the share of draws, the true labels counted in, that are at least as accurate; and
    ``with_it`` and ``without_it``, the numbers of codes.
    """

    vector: np.ndarray
    means: np.ndarray
    images: np.ndarray
    places: np.ndarray
    labels: np.ndarray
    accuracy: float
    d_prime: float
    null_accuracy: np.ndarray
    null_d_prime: np.ndarray
    spread: float
    name: str
    space: str

    @property
    def direction(self) -> Direction:
        """The vector as a direction, whose step is one standard deviation of the prior's codes along it."""
        return Direction(
            self.name,
            tuple(float(v) for v in self.vector),
            space=self.space,
            step=self.spread,
            method="attribute",
            weights_digest=self.provenance.weights_digest,
        )


def value_labels(values: Any, value: Any, against: Any = None) -> np.ndarray:
    """Labels (n,) of a factor's value: 1 where it is, 0 where it isn't or where ``against`` is; -1 elsewhere."""
    values = np.asarray(values)
    rest = values != value if against is None else values == against
    return np.where(values == value, 1, np.where(rest, 0, -1))


def half_labels(values: Any) -> np.ndarray:
    """Labels (n,) of a value with an order: 1 above the median, 0 below, -1 for the median itself."""
    values = np.asarray(values, dtype=float)
    middle = np.median(values)
    return np.where(values > middle, 1, np.where(values < middle, 0, -1))


def attribute_vector(
    model: Any,
    codes: Any,
    labels: Any,
    *,
    name: str = "attribute",
    space: str | None = None,
    n_draws: int = 100,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], object] | None = None,
) -> AttributeVector:
    """The mean code with an attribute minus the mean code without, judged on codes that it was not found on.

    The judge is the vector itself: a code counts as having the attribute when it lies beyond half-way between the
    means. A boundary fitted to the labels (``boundary``) may tell the two sides apart better, but isn't what is added.

    Args:
        model: a generative model.
        codes: (n, dim), such as posterior means of a data set.
        labels: (n,), 1 for codes with the attribute, 0 for codes without, -1 for those that don't count;
            ``value_labels`` and ``half_labels`` make them of a factor. At least 5 of each.
        name: what the attribute is called.
        space: name of the codes' space, the model's first one where it is not given.
        n_draws: how often the labels are shuffled for the null.
        seed: of the five folds and the shuffles.
        batch_size: codes decoded at a time.
        progress: called with (vectors judged, all of them); it may raise to cancel.

    Raises:
        ValueError: on codes or labels that don't fit, fewer than 5 codes of either kind, equal means, or a space
            without coordinates that have an order.

    References:
        Sampling generative networks (White, 2016), https://arxiv.org/abs/1609.04468, for attribute vectors and for
        judging them by where held-out codes fall along them
        Deep feature interpolation for image content changes (Upchurch et al., 2017), https://arxiv.org/abs/1611.05507
    """
    needs_generator(model)
    if n_draws < 1:
        raise ValueError(f"n_draws must be at least 1; got {n_draws}.")
    place = space_of(model, space)
    where = ordered(place)
    given = as_codes(model, codes, name="codes", space=space)
    kinds = np.asarray(labels)
    if kinds.shape != (len(given),) or not np.isin(kinds, (-1, 0, 1)).all():
        raise ValueError(
            f"labels must be 1, 0 or -1 for each of the {len(given)} codes; got shape {kinds.shape} with values "
            f"{np.unique(kinds)[:5].tolist()}."
        )
    counts = [int((kinds == side).sum()) for side in (1, 0)]
    if min(counts) < LEAST_CODES:
        raise ValueError(
            f"An attribute takes at least {LEAST_CODES} codes with it and {LEAST_CODES} without; got {counts[0]} and "
            f"{counts[1]}."
        )
    used = kinds >= 0
    z, y = to_numpy(given)[used].astype(np.float64), kinds[used]
    x = z[:, where]
    apart = x[y == 1].mean(axis=0) - x[y == 0].mean(axis=0)
    if np.linalg.norm(apart) < 1e-9:
        raise ValueError(
            "The codes with and without the attribute have the same mean, so no vector leads across."
        )
    rng = np.random.default_rng(check_seed(seed))
    places = _held_out(x, y, rng)
    accuracy, d_prime = _judged(places, y)
    null = np.zeros((n_draws, 2))
    for k in range(n_draws):
        wrong = rng.permutation(y)
        null[k] = _judged(_held_out(x, wrong, rng), wrong)
        if progress is not None:
            progress(k + 1, n_draws)
    vector = np.zeros(place.dim)
    vector[where] = apart
    means = np.stack([middle(place, z[y == side]) for side in (0, 1)]).astype(np.float32)
    return AttributeVector(
        vector=vector,
        means=means,
        images=decode_latents(model, means, space=space, batch_size=batch_size),
        places=places,
        labels=y.astype(np.int8),
        accuracy=accuracy,
        d_prime=d_prime,
        null_accuracy=null[:, 0],
        null_d_prime=null[:, 1],
        spread=float(lengths(model, place.name, vector[None] / np.linalg.norm(vector), seed)[0]),
        name=name,
        space=place.name,
        certificate={
            "accuracy": accuracy,
            "shuffled_accuracy": (float(null[:, 0].mean()), float(null[:, 0].max())),
            "d_prime": d_prime,
            "shuffled_d_prime": (float(null[:, 1].mean()), float(null[:, 1].max())),
            "p_value": float((1 + (null[:, 0] >= accuracy).sum()) / (1 + n_draws)),
            "with_it": counts[0],
            "without_it": counts[1],
        },
        provenance=provenance(
            model,
            {"codes": codes, "labels": kinds, "name": name, "space": place.name, "n_draws": n_draws},
            seed,
        ),
    )


def _held_out(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Where each code (n, dim) lies along the vector of the other folds, from half-way between its means."""
    fold = np.empty(len(y), int)
    for side in (0, 1):
        rows = rng.permutation(np.flatnonzero(y == side))
        fold[rows] = np.arange(len(rows)) % FOLDS
    places = np.zeros(len(y))
    for k in range(FOLDS):
        test = fold == k
        without, having = (x[~test & (y == side)].mean(axis=0) for side in (0, 1))
        vector = having - without
        length = np.linalg.norm(vector)
        if length > 0.0:
            places[test] = (x[test] - (having + without) / 2) @ vector / length
    return places


def _judged(places: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Accuracy, mean of both sides with a place of 0 half right, and d'."""
    having, without = places[y == 1], places[y == 0]
    right = (_share(having) + _share(-without)) / 2
    pooled = np.sqrt((having.var(ddof=1) + without.var(ddof=1)) / 2)
    return right, float((having.mean() - without.mean()) / max(float(pooled), 1e-12))


def _share(places: np.ndarray) -> float:
    return float((places > 0).mean() + (places == 0).mean() / 2)
