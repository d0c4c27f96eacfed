"""Blending and tempering codes so that they stay what the prior gives: each block by its own prior.

Symbols: z_k codes drawn from the prior, w_k their weights, at least 0 and of sum 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from latentlab.latents.codebook import Codebook
from latentlab.latents.priors import Categorical, Normal, Uniform
from latentlab.latents.space import LatentSpace

_EDGE = 1e-6  # of a uniform's range, beyond which a normal score would be infinite


def blend(space: LatentSpace, codes: Tensor, weights: Tensor) -> Tensor:
    """Codes between several draws of the prior, each as typical as a draw.

    - A normal block is mean + sum of w_k (z_k - mean), divided by the root of the sum of w_k squared: of independent
      draws that is again exactly a draw, while the plain average would lie nearer to the mean.
    - A uniform block is blended likewise as normal scores, so that it stays uniform and inside its range.
    - Categories and indices of a codebook have nothing in between: the block is that of the largest weight.
    - A block without a prior in closed form (W) is the plain average.

    Where one weight is 1 the result is that code, to rounding.

    Args:
        space: the codes' space.
        codes: independent draws (k, dim).
        weights: (n, k), each row at least 0 and of sum 1.

    Returns:
        Codes (n, dim).

    Raises:
        ValueError: on codes of another space, or weights that are none.
    """
    space.check(codes)
    if weights.ndim != 2 or weights.shape[1] != len(codes) or not len(codes):
        raise ValueError(f"Expected weights (n, {len(codes)}), one a code; got {tuple(weights.shape)}.")
    weights = weights.to(codes)
    if bool((weights < 0).any()) or not torch.allclose(
        weights.sum(1), torch.ones(len(weights)).to(codes), atol=1e-4
    ):
        raise ValueError("Weights of a blend are at least 0 and their sum is 1.")
    typical = weights / weights.norm(dim=1, keepdim=True)
    largest = weights.argmax(1)
    parts = {}
    for block in space.blocks:
        part, prior = codes[:, space.slice(block.name)], block.prior
        if isinstance(prior, Normal):
            mean = prior.moments(block.dim)[0]
            parts[block.name] = mean + typical @ (part - mean)
        elif isinstance(prior, Uniform):
            blended = typical @ normal_scores(part, prior)
            share = torch.special.ndtr(blended)
            parts[block.name] = prior.low + (prior.high - prior.low) * share
        elif isinstance(prior, (Categorical, Codebook)):
            parts[block.name] = part[largest]
        else:
            parts[block.name] = weights @ part
    return space.join(parts)


def normal_scores(part: Tensor, prior: Uniform) -> Tensor:
    """Uniform coordinates as standard normal ones with the same ranks."""
    share = ((part - prior.low) / (prior.high - prior.low)).clamp(_EDGE, 1.0 - _EDGE)
    return torch.special.ndtri(share)


def bilinear_weights(x: float, y: float) -> Tensor:
    """Weights (1, 4) of the corners (0, 0), (1, 0), (0, 1), (1, 1) of a unit square at a place in it.

    Raises:
        ValueError: outside the square.
    """
    if not (0.0 <= x <= 1.0 and 0.0 <= y <= 1.0):
        raise ValueError(f"A place in the unit square has coordinates from 0 to 1; got {x} and {y}.")
    return torch.tensor([[(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y]])


def temper(space: LatentSpace, z: Tensor, temperature: float) -> Tensor:
    """Codes nearer to the prior's mean, or further from it: mean + temperature (z - mean).

    Uniform blocks are kept inside their range. Categories, indices of a codebook and blocks without a prior in
    closed form stay as they are: they have no mean to come near to.

    Args:
        space: the codes' space.
        z: codes (n, dim).
        temperature: 1 for the codes as they are, 0 for the prior's mean.

    Raises:
        ValueError: on codes of another space, or a temperature below 0.
    """
    space.check(z)
    if not 0.0 <= temperature < float("inf"):
        raise ValueError(f"A temperature is a number of at least 0; got {temperature}.")
    parts = space.split(z)
    for block in space.blocks:
        if has_temperature(block.prior):
            mean = block.prior.moments(block.dim)[0]
            parts[block.name] = mean + temperature * (parts[block.name] - mean)
            if isinstance(block.prior, Uniform):
                parts[block.name] = parts[block.name].clamp(block.prior.low, block.prior.high)
    return space.join(parts)


def has_temperature(prior: object) -> bool:
    """Whether codes of a block with this prior can be drawn towards its mean."""
    return isinstance(prior, (Normal, Uniform))
