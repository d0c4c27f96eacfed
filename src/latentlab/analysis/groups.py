"""Directions from two groups of codes: the way from the mean of one to that of the other, and analogies by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from latentlab.analysis.directions import Directions, lengths, ordered
from latentlab.analysis.inference import as_codes, check_seed, decoded, inference, needs_generator, to_numpy
from latentlab.analysis.results import Result, provenance
from latentlab.models.contract import space_of


def group_direction(
    model: Any,
    codes_a: Any,
    codes_b: Any,
    *,
    space: str | None = None,
    name: str = "a to b",
    n_draws: int = 200,
    seed: int = 0,
) -> Directions:
    """The way from the mean of one group of codes to that of another.

    Args:
        model: a generative model.
        codes_a: codes (n, dim) to start from.
        codes_b: codes (m, dim) to go to.
        space: name of the codes' space, the model's first one where it is not given.
        name: what to call the direction.
        n_draws: how often the groups are mixed for the null.
        seed: of the shuffles.

    Returns:
        One direction, its score the distance between the means. The certificate holds ``distance``, the same;
        ``shuffled_distance``, mean and largest of groups mixed at random; ``p_value``, the share of n_draws, the
        true grouping counted in, with a distance at least as large; and ``steps_apart``, the distance in steps.

    Raises:
        ValueError: on codes that don't fit, or groups with equal means.
    """
    needs_generator(model)
    place = space_of(model, space)
    where = ordered(place)
    a, b = (
        to_numpy(as_codes(model, c, name=n, space=space)).astype(np.float64)[:, where]
        for c, n in ((codes_a, "codes_a"), (codes_b, "codes_b"))
    )
    apart = b.mean(axis=0) - a.mean(axis=0)
    distance = float(np.linalg.norm(apart))
    if distance < 1e-9:
        raise ValueError("The two groups have the same mean, so no direction leads from one to the other.")
    rng, both = np.random.default_rng(check_seed(seed)), np.concatenate([a, b])
    mixed = []
    for _ in range(n_draws):
        order = rng.permutation(len(both))
        mixed.append(np.linalg.norm(both[order[len(a) :]].mean(axis=0) - both[order[: len(a)]].mean(axis=0)))
    table = np.zeros((1, place.dim))
    table[0, where] = apart / distance
    steps = lengths(model, place.name, table, seed)
    return Directions(
        vectors=table,
        steps=steps,
        scores=np.array([distance]),
        stability=None,
        names=(name,),
        space=place.name,
        stage=None,
        layers=None,
        method="group means",
        score_name="distance of the means",
        certificate={
            "distance": distance,
            "shuffled_distance": (float(np.mean(mixed)), float(np.max(mixed))) if mixed else (),
            "p_value": float((1 + sum(m >= distance for m in mixed)) / (1 + n_draws)),
            "steps_apart": distance / float(steps[0]),
        },
        provenance=provenance(
            model, {"codes_a": codes_a, "codes_b": codes_b, "space": place.name, "n_draws": n_draws}, seed
        ),
    )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Analogy(Result):
    """a is to b as c is to d, where d = c + (mean of b - mean of a).

    Attributes:
        images: of the means of a and b, of c, and of d, (4, channels, height, width) in [0, 1].
        z: their codes, (4, dim).
        space: name of the codes' space.

    The certificate holds ``closure``, the largest entry of (b - a) - (d - c) over the coordinates with an order (0);
    ``change``, the mean absolute difference between the images of c and d; and ``random_change``, the mean of the same
    for 16 random moves of equal length.
    """

    images: np.ndarray
    z: np.ndarray
    space: str


def analogy(
    model: Any, codes_a: Any, codes_b: Any, code_c: Any, *, space: str | None = None, seed: int = 0
) -> Analogy:
    """What c becomes by the way that leads from a to b.

    Categories and indices of c stay as they are; those of a and b are rounded to the nearest for their images.

    Args:
        model: a generative model.
        codes_a: codes (n, dim), or one.
        codes_b: codes (m, dim), or one.
        code_c: one code (dim,).
        space: name of the codes' space, the model's first one where it is not given.
        seed: of the random moves.

    Raises:
        ValueError: on codes that don't fit.
    """
    needs_generator(model)
    place = space_of(model, space)
    where = torch.as_tensor(ordered(place))
    a, b, c = (
        as_codes(model, z, name=n, space=space).cpu()
        for z, n in ((codes_a, "codes_a"), (codes_b, "codes_b"), (code_c, "code_c"))
    )
    if len(c) != 1:
        raise ValueError(f"code_c must be one code ({place.dim},); got {len(c)} codes.")
    a, b, c = a.mean(dim=0), b.mean(dim=0), c[0]
    d = c.clone()
    d[where] += (b - a)[where]
    noise = torch.randn(
        16, len(where), generator=torch.Generator().manual_seed(check_seed(seed)), dtype=c.dtype
    )
    moves = torch.zeros(16, place.dim)
    moves[:, where] = noise / noise.norm(dim=1, keepdim=True) * (b - a)[where].norm()
    codes = torch.cat([place.nearest(torch.stack([a, b])), torch.stack([c, d]), c + moves])
    device = as_codes(model, code_c, space=space).device
    with inference(model):
        images = to_numpy(decoded(model, codes.to(device), (), place.name))
    far = ((b - a) - (d - c))[where].abs().max()
    return Analogy(
        images=images[:4],
        z=to_numpy(torch.stack([a, b, c, d])),
        space=place.name,
        certificate={
            "closure": float(far),
            "change": float(np.abs(images[3] - images[2]).mean()),
            "random_change": float(np.abs(images[4:] - images[2]).mean()),
        },
        provenance=provenance(
            model, {"codes_a": codes_a, "codes_b": codes_b, "code_c": code_c, "space": place.name}, seed
        ),
    )
