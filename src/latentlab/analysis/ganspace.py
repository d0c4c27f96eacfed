"""GANSpace: the directions of the code along which a stage's activations vary most.

Symbols: h the features (n, p) of a stage for n codes z, u their principal components, c = (h - mean) u the coordinates,
s their standard deviations; a direction is the least squares fit of z on c / s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from latentlab.analysis.directions import Directions, home_space, layers_of, lengths, ordered, signed
from latentlab.analysis.inference import (
    BATCH_SIZE,
    carry,
    check_seed,
    draw_codes,
    inference,
    input_spaces,
    needs_generator,
    to_numpy,
)
from latentlab.analysis.results import provenance
from latentlab.analysis.subject import subject_of
from latentlab.latents import Mapped
from latentlab.models.contract import space_of

_MOST = 2**28
_RANDOM = 32


def ganspace(
    model: Any,
    stage: str | None = None,
    *,
    network: str = "generator",
    space: str | None = None,
    n: int = 10,
    draws: int = 2000,
    layers: Iterable[int] | None = None,
    move: str = "codes",
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], object] | None = None,
) -> Directions:
    """Principal components of a stage's features over the prior, as directions of the code.

    Features are the whole state of the stage, flattened; the draws' are held in memory together.

    Args:
        model: a generative model.
        stage: name or address of the stage; None for W itself, whose components are directions as they are.
        network: the network that holds the stage; one that reads codes.
        space: space of the directions; None is W where there is one, else the model's own.
        n: how many directions.
        draws: how many codes are drawn; each half of them must be more than ``n``.
        layers: for W: the layers of W+ that the directions move.
        move: "codes" for directions of the space; "stage" for directions that shift the stage's own units, whose
            features are then the means over positions.
        seed: decides the draws.
        batch_size: codes run at a time.
        progress: called with (draws done, draws in all); it may raise to cancel.

    Returns:
        Directions whose scores are the components' shares of the features' variance, descending, and whose
        ``stability`` is the cosine between what two halves of the draws give. The certificate holds ``eigen_gap``,
        how far a component is from an eigenvector of the covariance, at most, as a share of the first eigenvalue;
        ``explained``, the variance share of all of them together; ``random_share``, the mean
        share along random directions of feature space; ``code_r2``, for each component how much of its coordinate a
        linear map of the code tells (all its variance where the code is the feature); and ``least_stability``.

    Raises:
        ValueError: on an unknown stage, on the codes of a prior themselves, whose components are chance, or on sizes
            that make no sense.

    References:
        GANSpace: discovering interpretable GAN controls (Harkonen et al., 2020), https://arxiv.org/abs/2004.02546.
        They draw 300,000 codes, take 80 components and find them batch by batch; here 2000 and 10 by default,
        with what two halves agree on shown beside each.
    """
    needs_generator(model)
    seed = check_seed(seed)
    subject = subject_of(model, network)
    if subject.reads is None:
        raise ValueError(
            f"GANSpace needs a network that reads codes, one of {', '.join(input_spaces(model))}; got {network!r}."
        )
    name = space or home_space(model)
    place = space_of(model, name)
    chosen, where = layers_of(place, layers), ordered(place)
    if move not in ("codes", "stage"):
        raise ValueError(f"move must be 'codes' or 'stage'; got {move!r}.")
    if n < 1 or draws < 2 * n + 2 or batch_size < 1:
        raise ValueError(
            f"Expected at least 1 direction, 2 n + 2 draws and a batch of 1; got n={n}, draws={draws}, "
            f"batch_size={batch_size}."
        )
    if stage is None and not any(isinstance(b.prior, Mapped) for b in place.blocks):
        raise ValueError(
            f"Codes of space {name!r} are drawn from their prior, the same in every direction, so their principal "
            f"components are chance; name a stage, one of {', '.join(subject.network.addresses)}."
        )
    if stage is None and move == "stage":
        raise ValueError("move='stage' shifts units of a stage; name the stage.")
    address = None if stage is None else subject.address(stage)

    codes = draw_codes(model, draws, seed, model.latent_space.name)
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    with inference(model):
        for batch in codes.split(batch_size):
            known = carry(model, batch, name)
            if stage is None:
                features = known[:, torch.as_tensor(where, device=known.device)]
            else:
                states = subject.network.activations(carry(model, batch, subject.reads), [stage])
                features = next(iter(states.values()))
                if move == "stage":
                    features = subject.state(carry(model, batch, subject.reads), stage)
                    features = features.flatten(2).mean(2) if features.ndim == 4 else features
            if draws * features[0].numel() > _MOST:
                raise ValueError(
                    f"Stage {address!r} has {features[0].numel():,} features, so at most "
                    f"{_MOST // features[0].numel():,} draws fit in memory; got draws={draws}."
                )
            parts.append((to_numpy(known)[:, where], to_numpy(features.flatten(1))))
            if progress is not None:
                progress(sum(len(p) for p, _ in parts), draws)
    z = np.concatenate([p for p, _ in parts]).astype(np.float64)
    h = np.concatenate([f for _, f in parts])
    del parts
    if n > (most := min(h.shape[1], len(where)) if move == "codes" else h.shape[1]):
        raise ValueError(f"There are {most} directions to find there at most; got n={n}.")
    half = draws // 2
    whole = _components(h, n, seed)
    halves = (slice(0, half), slice(half, None))
    fits = [_directions(z[s], h[s], _components(h[s], n, seed), stage, move) for s in halves]
    found, r2 = _directions(z, h, whole, stage, move)
    mean, components = whole
    total = float(h.var(axis=0, dtype=np.float64).sum())
    shares = ((h - mean) @ components.T).var(axis=0, dtype=np.float64) / max(total, 1e-12)
    order = np.argsort(-shares, kind="stable")
    cosines = np.abs((fits[0][0] * fits[1][0]).sum(axis=1))[order]
    found, shares, r2 = found[order], shares[order], r2[order]
    chance = np.random.default_rng(seed).standard_normal((h.shape[1], _RANDOM)).astype(np.float32)
    chance /= np.linalg.norm(chance, axis=0)
    random_share = float((h @ chance).var(axis=0).mean() / max(total, 1e-12))
    if move == "stage":
        table = signed(found)
        steps = np.maximum((h @ table.T).std(axis=0), 1e-12)
    else:
        table = np.zeros((n, place.dim))
        table[:, where] = signed(found)
        steps = lengths(model, name, table, seed)
    return Directions(
        vectors=table,
        steps=steps,
        scores=shares,
        stability=cosines,
        names=tuple(f"pc{i}" for i in range(n)),
        space=None if move == "stage" else name,
        stage=address if move == "stage" else None,
        layers=chosen,
        method="GANSpace" + (f" at {address}" if address else " in W"),
        score_name="share of variance",
        certificate={
            "eigen_gap": _residual(h, whole),
            "explained": float(shares.sum()),
            "random_share": random_share,
            "code_r2": r2.round(4).tolist(),
            "least_stability": float(cosines.min()),
        },
        provenance=provenance(
            model,
            {"stage": address, "space": name, "n": n, "draws": draws, "layers": chosen, "move": move},
            seed,
        ),
    )


Basis = tuple[np.ndarray, np.ndarray]


def _components(h: np.ndarray, n: int, seed: int) -> Basis:
    """Mean (p,) and the first principal components (n, p) of features (rows, p)."""
    import sklearn  # noqa: F401  (whole before its parts)
    from sklearn.utils.extmath import randomized_svd

    mean = h.mean(axis=0, dtype=np.float64).astype(np.float32)
    _, _, found = randomized_svd(
        h - mean,
        n,
        n_oversamples=20,
        n_iter=6,  # pyright: ignore[reportArgumentType]
        random_state=seed % 2**32,
    )
    return mean, found


def _residual(h: np.ndarray, basis: Basis) -> float:
    """How far the components (n, p) are from eigenvectors of the covariance, as a share of the first value."""
    mean, components = basis
    coordinates = (h - mean) @ components.T
    images = (coordinates.T @ (h - mean)) / len(h)
    values = (coordinates**2).mean(axis=0)
    return float(
        np.linalg.norm(images - values[:, None] * components, axis=1).max() / max(values.max(), 1e-12)
    )


def _directions(
    z: np.ndarray, h: np.ndarray, basis: Basis, stage: str | None, move: str
) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (n, dim), and for each component the share of its coordinate that the code tells linearly."""
    mean, components = basis
    if stage is None or move == "stage":
        return components, np.ones(len(components))
    coordinates = (h - mean) @ components.T
    coordinates = coordinates / np.maximum(coordinates.std(axis=0), 1e-12)
    centred = z - z.mean(axis=0)
    found = np.linalg.lstsq(coordinates.astype(np.float64), centred, rcond=None)[0]
    told = centred @ np.linalg.lstsq(centred, coordinates.astype(np.float64), rcond=None)[0]
    r2 = 1.0 - (coordinates - told).var(axis=0) / np.maximum(coordinates.var(axis=0), 1e-12)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12), r2
