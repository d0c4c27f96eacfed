"""Posteriors: distributions over the codes of a space, given an image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import Distribution, OneHotCategorical
from torch.distributions import Normal as NormalDistribution

from latentlab.latents.codebook import PointMass
from latentlab.latents.priors import GumbelSoftmax

if TYPE_CHECKING:
    from latentlab.latents.space import LatentSpace


class Posterior:
    """A distribution over the codes of a space, one torch distribution per block.

    Args:
        space: the latent space.
        parts: {block name: distribution with batch shape (batch, block.dim)}; for a categorical block a
            ``OneHotCategorical`` or a relaxed one with event shape (block.dim,).
    """

    def __init__(self, space: LatentSpace, parts: Mapping[str, Distribution]) -> None:
        if set(parts) != set(space.block_names):
            raise ValueError(f"Expected distributions for {list(space.block_names)}; got {sorted(parts)}.")
        self.space = space
        self.parts = dict(parts)

    def _gather(self, of) -> Tensor:
        return torch.cat([of(self.parts[name]) for name in self.space.block_names], dim=1)

    @property
    def mean(self) -> Tensor:
        """Posterior mean (batch, dim); class probabilities for a categorical block.

        A statistic: what is decoded, edited or shown as an image's code is ``code()``.
        """
        return self._gather(lambda q: q.mean)

    def code(self) -> Tensor:
        """The one code (batch, dim) that stands for each posterior, a point of the space like any draw.

        The mean of a normal or uniform block; for a categorical one the likeliest category as a one-hot row,
        since a generator was trained on those and not on probabilities.
        """
        return torch.cat([b.prior.code(self.parts[b.name]) for b in self.space.blocks], dim=1)

    @property
    def variance(self) -> Tensor:
        """Posterior variance (batch, dim)."""
        return self._gather(lambda q: q.variance)

    @property
    def stddev(self) -> Tensor:
        """Posterior standard deviation (batch, dim)."""
        return self.variance.sqrt()

    @property
    def log_var(self) -> Tensor:
        """Log of the posterior variance (batch, dim), finite also where nothing varies any more.

        The floor is the log of the smallest normal number, -87.3 in 32 bits: a saturated category has variance 0.
        """
        variance = self.variance
        return variance.clamp_min(torch.finfo(variance.dtype).tiny).log()

    def sample(self, seed: int) -> Tensor:
        """Draws codes (batch, dim), reproducibly and without a gradient."""
        generator = torch.Generator(device=self.mean.device).manual_seed(seed)
        with torch.no_grad():
            return self._gather(lambda q: _rsample(q, generator, soft=False))

    def rsample(self, generator: torch.Generator) -> Tensor:
        """Draws codes (batch, dim) by reparametrisation, so that gradients reach the encoder.

        A categorical block with a temperature gives soft draws, which lie between the categories.

        Args:
            generator: source of randomness, on the posterior's device; the global one is never used.

        Raises:
            TypeError: for a block whose distribution has no reparametrised sampler here.
        """
        return torch.cat([_rsample(self.parts[name], generator) for name in self.space.block_names], dim=1)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density at codes ``z``, nats per coordinate (batch, dim); on a categorical block as in its prior."""
        parts = self.space.split(z)
        return torch.cat([_log_prob(self.parts[n], parts[n]) for n in self.space.block_names], dim=1)

    def pairwise_log_prob(self, z: Tensor) -> Tensor:
        """Log density of every code under every posterior of the batch, nats (n, batch, variables).

        Args:
            z: codes (n, dim).

        Returns:
            At [i, j, k] log q(z_ik | x_j) of variable k on its own: a coordinate, or a whole categorical block (see
            ``LatentSpace.variables``). Needs n x batch x variables numbers.
        """
        parts = self.space.split(z)
        found = [_pairwise_log_prob(self.parts[n], parts[n]) for n in self.space.block_names]
        return found[0] if len(found) == 1 else torch.cat(found, dim=2)

    def pairwise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """What ``pairwise_log_prob`` gives, and the log density of each whole code, nats (n, batch).

        The second is the sum of the first over the variables, unless they depend on each other given the image.
        """
        each = self.pairwise_log_prob(z)
        return each, each.sum(2)

    def kl(self) -> Tensor:
        """KL(q || prior) in nats, (batch, dim): a block's KL is the sum over its coordinates."""
        return torch.cat([b.prior.kl(self.parts[b.name]) for b in self.space.blocks], dim=1)

    def __repr__(self) -> str:
        return f"Posterior({self.space!r}, batch={self.mean.shape[0]})"


def _rsample(q: Distribution, generator: torch.Generator, soft: bool = True) -> Tensor:
    if isinstance(q, NormalDistribution):
        noise = torch.randn(q.mean.shape, generator=generator, device=q.mean.device, dtype=q.mean.dtype)
        return q.mean + q.stddev * noise
    if soft and isinstance(q, GumbelSoftmax):
        return q.soft(generator)
    if isinstance(q, OneHotCategorical):
        chosen = torch.multinomial(q.probs, 1, generator=generator).squeeze(1)
        hard = torch.nn.functional.one_hot(chosen, q.probs.shape[-1]).to(q.probs)
        return hard + q.probs - q.probs.detach()  # straight-through: exact draw forward, gradient of the mean
    if isinstance(q, PointMass):
        return q.mean
    raise TypeError(f"No reparametrised sampler for {type(q).__name__}; use Normal or OneHotCategorical.")


def _log_prob(q: Distribution, z: Tensor) -> Tensor:
    if isinstance(q, OneHotCategorical):
        return z * (q.logits - q.logits.logsumexp(-1, keepdim=True))
    return q.log_prob(z)


def _pairwise_log_prob(q: Distribution, z: Tensor) -> Tensor:
    if isinstance(q, OneHotCategorical):
        return (z @ torch.log_softmax(q.logits, -1).T)[:, :, None]
    if isinstance(q, NormalDistribution):
        return pairwise_normal(z, q.mean, q.stddev)
    return q.log_prob(z[:, None])


def pairwise_normal(z: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Log density of codes (n, dim) under normal posteriors of mean and std (batch, dim): nats (n, batch, dim)."""
    # Scaled first and squared in place of torch's own log_prob: half the passes over (n, batch, dim) numbers.
    away = z[:, None] / std - mean / std
    return torch.addcmul(-std.log() - 0.5 * math.log(2.0 * math.pi), away, away, value=-0.5)
