"""Matching: which latent of one model is which of another, as told by what both say about the same images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from latentlab.analysis.category_matching import contingency, partner_categories, shared_share
from latentlab.analysis.inference import (
    BATCH_SIZE,
    as_images,
    check_seed,
    device_of,
    inference,
    needs_encoder,
    to_numpy,
)
from latentlab.analysis.results import Result, provenance
from latentlab.latents import ACTIVE_NATS, UNORDERED, Categorical
from latentlab.metrics.mutual_information import discretize, label_information
from latentlab.models.contract import weights_digest

MEASURES = ("mutual_information", "correlation")
LEAST_IMAGES = 50
LEVELS = 33
_CHANCE = 0.95


@dataclass(frozen=True, kw_only=True)
class LatentMatching(Result):
    """The latents of two models, paired one to one so that the paired ones agree most about the same images.

    A category, or a position of a codebook, is one latent; it is paired with its like alone.

    Attributes:
        strength: (latents of a, latents of b), nats for "mutual_information", 0 to 1 for "correlation".
        permutation: (latents of a,), the partner in b of each latent of a, -1 where it has none.
        signs: (latents of a,), -1 where the partner grows as it falls, 1 where both grow together; 0 without a
            partner, and for values that have no order.
        matched: (latents of a,), strength of each pair, NaN without a partner.
        sure: (latents of a,), whether the pair agrees more than 95 % of the best pairs of shuffled images.
        null: (n_draws,), the strongest pair when the images of b are shuffled.
        names_a: names of the latents of a.
        names_b: names of the latents of b.
        coordinates_a: (latents of a,), where each begins in the code.
        coordinates_b: (latents of b,).
        active_a: (latents of a,), whether the encoder uses it: mean KL above 0.1 nats; others have no partner.
        active_b: (latents of b,).
        quantiles_a: (latents of a, levels), quantiles of the codes of these images, from the least to the greatest.
        quantiles_b: (latents of b, levels).
        measure: what strength is.
        contingency: {category of a: (its categories, those of its partner)}, how many of the images fall into each.
        categories: {category of a: (its categories,)}, which of its partner's each is, -1 for one without images.
        categories_null: {category of a: (n_draws,)}, share of images in paired categories when those of b are shuffled.
    """

    strength: np.ndarray
    permutation: np.ndarray
    signs: np.ndarray
    matched: np.ndarray
    sure: np.ndarray
    null: np.ndarray
    names_a: tuple[str, ...]
    names_b: tuple[str, ...]
    coordinates_a: np.ndarray
    coordinates_b: np.ndarray
    active_a: np.ndarray
    active_b: np.ndarray
    quantiles_a: np.ndarray
    quantiles_b: np.ndarray
    measure: str
    contingency: dict[str, np.ndarray]
    categories: dict[str, np.ndarray]
    categories_null: dict[str, np.ndarray]

    def pairs(self) -> list[tuple[str, str, float]]:
        """(latent of a, latent of b, strength) of the sure pairs, the strongest first."""
        order = np.argsort(-np.nan_to_num(self.matched), kind="stable")
        return [
            (self.names_a[i], self.names_b[self.permutation[i]], float(self.matched[i]))
            for i in order
            if self.sure[i]
        ]

    def agreement(self, name: str) -> float:
        """Share of the images that lie in paired categories of a's category ``name`` and its partner, in [0, 1]."""
        return shared_share(self.contingency[name])

    def carried(self, values: np.ndarray, latent: int) -> np.ndarray:
        """Values of a latent of a, carried to its partner's: to the same quantile, from the other end for sign -1.

        Args:
            values: any shape.
            latent: number of the latent of a.

        Raises:
            ValueError: if it has no partner, or one whose values have no order.
        """
        if self.signs[latent] == 0:
            raise ValueError(f"Latent {self.names_a[latent]!r} has no partner whose values have an order.")
        target = self.quantiles_b[self.permutation[latent]]
        target = target if self.signs[latent] > 0 else target[::-1]
        return np.interp(values, self.quantiles_a[latent], target)


@dataclass(frozen=True)
class _Latents:
    names: tuple[str, ...]
    coordinates: np.ndarray
    values: np.ndarray  # (n, latents); of an unordered latent the category's number
    ordered: np.ndarray
    sizes: np.ndarray  # number of categories, 0 for what is no category
    kl: np.ndarray


def match_latents(
    model_a: Any,
    model_b: Any,
    images: Any,
    *,
    measure: str = "mutual_information",
    n_draws: int = 20,
    bins: int = 16,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], object] | None = None,
) -> LatentMatching:
    """Pairs the latents of two models one to one so that the sum of their agreements is greatest.

    Agreement is measured between the posterior means of the same images, by ranks, so that it does not depend on the
    latents' scales. Only likes are paired: what has an order with what has one, a category with a category, of which
    then each is paired with one of the other's. What the encoder does not use (mean KL at most 0.1 nats) takes no part:
    its means are noise that may well agree.

    Args:
        model_a: a model with an encoder.
        model_b: another one, or another state of it, for images of the same shape; its latents may differ in number.
        images: (n, channels, height, width) in [0, 1], at least 50; a thousand make a match sure.
        measure: "mutual_information" (nats, over ``bins`` bins of equal counts; categories as they are) or
            "correlation" (absolute rank correlation; categories take no part).
        n_draws: how often the images of b are shuffled for the null.
        bins: of mutual information.
        seed: of the shuffles.
        batch_size: images encoded at a time.
        progress: called with (images encoded and shuffles done, all of them); it may raise to cancel.

    Raises:
        ValueError: if a model has no encoder, the images don't fit both or are too few, or on an unknown measure.

    References:
        Convergent learning: do different neural networks learn the same representations? (Li et al., 2016),
            https://arxiv.org/abs/1511.07543, which pairs units one to one by correlation or mutual information
        Unsupervised model selection for variational disentangled representation learning (Duan et al., 2020),
            https://arxiv.org/abs/1905.12614, which compares the codes of two models up to order and sign
    """
    if measure not in MEASURES:
        raise ValueError(f"measure must be one of {', '.join(MEASURES)}; got {measure!r}.")
    if n_draws < 1:
        raise ValueError(f"n_draws must be at least 1; got {n_draws}.")
    for model in (model_a, model_b):
        needs_encoder(model)
    if tuple(model_a.image_shape) != tuple(model_b.image_shape):
        raise ValueError(
            f"Two models are matched on the same images; these read {tuple(model_a.image_shape)} and "
            f"{tuple(model_b.image_shape)}."
        )
    x = as_images(model_a, images, name="images")
    n, total = len(x), 2 * len(x) + n_draws
    if n < LEAST_IMAGES:
        raise ValueError(f"Matching latents takes at least {LEAST_IMAGES} images; got {n}.")

    def told(done: int) -> None:
        if progress is not None:
            progress(done, total)

    a = _latents(model_a, x, batch_size, told)
    b = _latents(model_b, x, batch_size, lambda done: told(n + done))
    compare = _information(a, b, bins) if measure == "mutual_information" else _correlation(a, b)
    active_a, active_b = a.kl > ACTIVE_NATS, b.kl > ACTIVE_NATS
    kinds_a, kinds_b = (np.where(m.sizes > 0, 2, m.ordered) for m in (a, b))
    usable = np.outer(active_a, active_b) & (kinds_a[:, None] == kinds_b)
    rows = np.arange(n)
    strength = compare(rows)
    permutation = _assigned(np.where(usable, strength, 0.0))
    paired = permutation >= 0
    matched = np.full(len(a.names), np.nan)
    matched[paired] = strength[np.flatnonzero(paired), permutation[paired]]
    both = {i: int(permutation[i]) for i in np.flatnonzero(paired).tolist() if a.sizes[i]}
    rng, null = np.random.default_rng(check_seed(seed)), np.zeros(n_draws)
    shuffled = {a.names[i]: np.zeros(n_draws) for i in both}
    for k in range(n_draws):
        order = rng.permutation(rows)
        null[k] = np.where(usable, compare(order), 0.0).max(initial=0.0)
        for i, j in both.items():
            shuffled[a.names[i]][k] = shared_share(_table(a, i, b, j, order))
        told(2 * n + k + 1)
    tables = {a.names[i]: _table(a, i, b, j, rows) for i, j in both.items()}
    high = float(np.quantile(null, _CHANCE))
    signs = np.zeros(len(a.names))
    for i in np.flatnonzero(paired):
        j = permutation[i]
        if a.ordered[i] and b.ordered[j]:
            signs[i] = 1.0 if _rank_correlation(a.values[:, [i]], b.values[:, [j]])[0, 0] >= 0 else -1.0
    others = np.where(np.outer(active_a, active_b), strength, 0.0)
    others[np.flatnonzero(paired), permutation[paired]] = 0.0
    margin = matched[paired] - others[paired].max(axis=1, initial=0.0)
    levels = np.linspace(0.0, 1.0, LEVELS)
    return LatentMatching(
        strength=strength,
        permutation=permutation,
        signs=signs,
        matched=matched,
        sure=np.nan_to_num(matched) > high,
        null=null,
        names_a=a.names,
        names_b=b.names,
        coordinates_a=a.coordinates,
        coordinates_b=b.coordinates,
        active_a=active_a,
        active_b=active_b,
        quantiles_a=np.quantile(a.values, levels, axis=0).T,
        quantiles_b=np.quantile(b.values, levels, axis=0).T,
        measure=measure,
        contingency=tables,
        categories={name: partner_categories(table) for name, table in tables.items()},
        categories_null=shuffled,
        certificate={
            "matched_mean": float(matched[paired].mean()) if paired.any() else 0.0,
            "null_high": high,
            "sure": int((np.nan_to_num(matched) > high).sum()),
            "margin": float(margin.mean()) if paired.any() else 0.0,
            "images": n,
        },
        provenance=provenance(
            model_a,
            {
                "model_b": weights_digest(model_b),
                "images": to_numpy(x),
                "measure": measure,
                "n_draws": n_draws,
                "bins": bins,
            },
            seed,
        ),
    )


def _latents(model: Any, x: Tensor, batch_size: int, told: Callable[[int], object]) -> _Latents:
    """What a model says of images, latent by latent."""
    codes, nats, device = [], [], device_of(model)
    with inference(model):
        for first in range(0, len(x), batch_size):
            posterior = model.encode(x[first : first + batch_size].to(device))
            codes.append(to_numpy(posterior.code()))
            nats.append(to_numpy(posterior.kl()))
            told(min(first + batch_size, len(x)))
    z, kl = np.concatenate(codes).astype(float), np.concatenate(nats).astype(float).mean(axis=0)
    names, coordinates, values, ordered, sizes, each = [], [], [], [], [], []
    space = model.latent_space
    for block in space.blocks:
        where = range(*space.slice(block.name).indices(space.dim))
        if isinstance(block.prior, Categorical):
            names.append(block.name)
            coordinates.append(where[0])
            values.append(z[:, where.start : where.stop].argmax(axis=1).astype(float))
            ordered.append(False)
            sizes.append(block.dim)
            each.append(kl[where.start : where.stop].sum())
            continue
        for i in where:
            names.append(space.names[i])
            coordinates.append(i)
            values.append(z[:, i])
            ordered.append(not isinstance(block.prior, UNORDERED))
            sizes.append(0)
            each.append(kl[i])
    return _Latents(
        tuple(names),
        np.array(coordinates),
        np.stack(values, 1),
        np.array(ordered),
        np.array(sizes),
        np.array(each),
    )


def _table(a: _Latents, i: int, b: _Latents, j: int, rows: np.ndarray) -> np.ndarray:
    """How the images fall into the categories of latent i of a and latent j of b, b's images in that order."""
    return contingency(a.values[:, i], b.values[rows, j], int(a.sizes[i]), int(b.sizes[j]))


def _information(a: _Latents, b: _Latents, bins: int) -> Callable[[np.ndarray], np.ndarray]:
    labels_a, labels_b = _labels(a, bins), _labels(b, bins)
    return lambda rows: label_information(labels_a, labels_b[rows])


def _labels(latents: _Latents, bins: int) -> np.ndarray:
    """Numbers of bins of equal counts; categories as they are."""
    ranked = discretize(_ranks(latents.values), bins)
    for column in np.flatnonzero(~latents.ordered):
        ranked[:, column] = np.unique(latents.values[:, column], return_inverse=True)[1]
    return ranked


def _correlation(a: _Latents, b: _Latents) -> Callable[[np.ndarray], np.ndarray]:
    both = np.outer(a.ordered, b.ordered)
    return lambda rows: np.where(both, np.abs(_rank_correlation(a.values, b.values[rows])), 0.0)


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each column with each, 0 for a constant one."""
    found = []
    for values in (a, b):
        centred = _ranks(values) - (len(values) + 1) / 2
        size = np.sqrt((centred**2).sum(axis=0))
        found.append(centred / np.where(size > 0, size, 1.0))
    return found[0].T @ found[1]


def _ranks(values: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    return rankdata(values, axis=0)


def _assigned(strength: np.ndarray) -> np.ndarray:
    """The column of each row in the assignment of the greatest sum, -1 where that is nothing."""
    from scipy.optimize import linear_sum_assignment

    partner = np.full(len(strength), -1)
    rows, columns = linear_sum_assignment(strength, maximize=True)
    kept = strength[rows, columns] > 0
    partner[rows[kept]] = columns[kept]
    return partner
