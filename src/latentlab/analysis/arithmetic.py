"""Latent arithmetic: A - B + C with its pictures, for codes and for means of groups.

Only coordinates with an order are added; what happens to categories is said in ``latent_arithmetic``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from latentlab.analysis.inference import (
    BATCH_SIZE,
    as_codes,
    check_seed,
    decode_latents,
    needs_generator,
    to_numpy,
)
from latentlab.analysis.neighbourhood import Neighbourhood
from latentlab.analysis.results import Result, provenance
from latentlab.latents import UNORDERED, Categorical, LatentSpace
from latentlab.models.contract import space_of

_RANDOM_MOVES = 16
_SWAPPED_FROM = 0.5


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LatentArithmetic(Result):
    """A - B + C: what a code becomes on the way that leads from one group of codes to another.

    Attributes:
        operands: images of A, B and C, (3, channels, height, width) in [0, 1].
        operand_z: their codes, (3, dim); of groups the means, with the most frequent of each category.
        images: of the way from A to the result, (steps, channels, height, width) in [0, 1]; the last is the result.
        z: their codes, (steps, dim).
        strengths: (steps,), from 0 to the strength asked for.
        swapped: names of the categories or indices that the result takes from C.
        space: name of the codes' space.
        neighbours: the support meter: how many codes of the data set lie near each code of the way, (steps,); about
            ten where data is typical, 0 where there is none; None where no data was given.
        radius: how near that is: median distance of a code of the data to its tenth nearest; None without data.

    The certificate holds ``closure``, the largest entry of (result - A) - strength (C - B) over coordinates with an
    order (0); ``change``, the mean absolute difference between the images of A and the result; ``random_change``, the
    same for random moves of equal length, where there are coordinates with an order; ``swaps``, the number of
    ``swapped``; and with data codes ``least_neighbours``.
    """

    operands: np.ndarray
    operand_z: np.ndarray
    images: np.ndarray
    z: np.ndarray
    strengths: np.ndarray
    swapped: tuple[str, ...]
    space: str
    neighbours: np.ndarray | None = None
    radius: float | None = None

    @property
    def result(self) -> np.ndarray:
        """The code A - B + C, (dim,)."""
        return self.z[-1]


def latent_arithmetic(
    model: Any,
    a: Any,
    b: Any,
    c: Any,
    *,
    strength: float = 1.0,
    steps: int = 5,
    space: str | None = None,
    edits: Sequence = (),
    data_codes: Any = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
) -> LatentArithmetic:
    """A - B + C: the code A moved by strength times the way from B to C.

    Coordinates with an order are added. A category, or an index of a codebook, is not a number and is not added: where
    A has that of B, the result takes that of C from strength 0.5 on; elsewhere A keeps its own. Below 0 the way is
    gone backwards, with B and C exchanged.

    Args:
        model: a generative model.
        a: a code (dim,), or codes whose mean is moved.
        b: a code or codes (n, dim), whose mean is taken away: such as those without an attribute.
        c: a code or codes (m, dim), whose mean is added: such as those with it.
        strength: how much of the way is gone; 1 is A - B + C.
        steps: images of the way, A and the result included, at least 2.
        space: name of the codes' space, the model's first one where it is not given.
        edits: edits of the generator.
        data_codes: codes (n, dim) of a data set, for the support meter.
        seed: of the random moves.
        batch_size: codes decoded at a time.

    Raises:
        ValueError: on codes that don't fit, a strength that is not finite, or fewer than 2 steps.

    References:
        Unsupervised representation learning with deep convolutional generative adversarial networks (Radford et al.,
        2016), https://arxiv.org/abs/1511.06434, for arithmetic on means of codes
    """
    needs_generator(model)
    seed = check_seed(seed)
    place = space_of(model, space)
    if not np.isfinite(strength):
        raise ValueError(f"strength must be a finite number; got {strength}.")
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 2:
        raise ValueError(f"steps must be a whole number of at least 2; got {steps!r}.")
    start, less, more = (
        to_numpy(as_codes(model, z, name=n, space=space)).astype(np.float64)
        for z, n in ((a, "a"), (b, "b"), (c, "c"))
    )
    operands = np.stack([middle(place, codes) for codes in (start, less, more)])
    strengths = np.linspace(0.0, float(strength), int(steps))
    z, swapped = _way(place, operands, strengths)
    mask = _with_order(place)
    codes = np.concatenate([operands, z]).astype(np.float32)
    length = float(np.linalg.norm(z[-1, mask] - z[0, mask]))
    moves = np.zeros((0, place.dim), np.float32)
    if length > 0.0:
        noise = np.random.default_rng(seed).standard_normal((_RANDOM_MOVES, int(mask.sum())))
        moves = np.repeat(codes[:1], _RANDOM_MOVES, axis=0)
        moves[:, mask] += (noise / np.linalg.norm(noise, axis=1, keepdims=True) * length).astype(np.float32)
    images = decode_latents(
        model, np.concatenate([codes, moves]), edits=edits, space=space, batch_size=batch_size
    )
    way = images[3 : 3 + len(z)]
    proof: dict[str, Any] = {
        "closure": float(
            np.abs((codes[-1] - codes[0])[mask] - strength * (operands[2] - operands[1])[mask]).max(
                initial=0.0
            )
        ),
        "change": float(np.abs(way[-1] - way[0]).mean()),
        "swaps": len(swapped),
    }
    if len(moves):
        proof["random_change"] = float(np.abs(images[3 + len(z) :] - way[0]).mean())
    around = None if data_codes is None or not mask.any() else Neighbourhood(model, data_codes, space)
    neighbours = None if around is None else around.near(codes[3:])
    if neighbours is not None:
        proof["least_neighbours"] = int(neighbours.min())
    return LatentArithmetic(
        operands=images[:3],
        operand_z=codes[:3],
        images=way,
        z=codes[3:],
        strengths=strengths,
        swapped=swapped,
        space=place.name,
        neighbours=neighbours,
        radius=None if around is None else around.radius,
        certificate=proof,
        provenance=provenance(
            model,
            {
                "a": a,
                "b": b,
                "c": c,
                "strength": strength,
                "steps": steps,
                "space": place.name,
                "edits": [edit.to_dict() for edit in edits],
                "data_codes": data_codes,
            },
            seed,
        ),
    )


def _with_order(place: LatentSpace) -> np.ndarray:
    """Which coordinates have an order, bool (dim,)."""
    return np.array([not isinstance(place.block_of(i).prior, UNORDERED) for i in range(place.dim)])


def middle(place: LatentSpace, codes: np.ndarray) -> np.ndarray:
    """The mean code (dim,), with the most frequent of each category and index."""
    found = codes.mean(axis=0)
    known = place.nearest(torch.from_numpy(codes)).numpy()
    for where, _ in _variables(place) if len(codes) > 1 else ():
        values, counts = np.unique(known[:, where], axis=0, return_counts=True)
        found[where] = values[counts.argmax()]
    return found


def _variables(place: LatentSpace) -> list[tuple[slice, str]]:
    """The categories and indices: where each stands in a code, and its name."""
    found = []
    for block in place.blocks:
        where = place.slice(block.name)
        if isinstance(block.prior, Categorical):
            found.append((where, block.name))
        elif isinstance(block.prior, UNORDERED):
            found += [(slice(i, i + 1), place.names[i]) for i in range(where.start, where.stop)]
    return found


def _way(
    place: LatentSpace, operands: np.ndarray, strengths: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The codes (steps, dim) of the way, and the categories that its end has taken over."""
    a, b, c = operands
    z = np.repeat(a[None], len(strengths), axis=0)
    mask = _with_order(place)
    z[:, mask] += strengths[:, None] * (c - b)[mask]
    swapped = []
    for where, name in _variables(place):
        for t, strength in enumerate(strengths):
            away, to = (b, c) if strength > 0 else (c, b)
            taken = abs(strength) >= _SWAPPED_FROM and np.array_equal(a[where], away[where])
            if taken:
                z[t, where] = to[where]
        if not np.array_equal(z[-1, where], a[where]):
            swapped.append(name)
    return z, tuple(swapped)
