"""The variational autoencoder: an encoder, a generator, a likelihood, and the one ELBO pipeline.

Symbols: x an image, z a code, q(z | x) the posterior, p(z) the prior, p(x | z) the likelihood.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.distributions import Normal as NormalDistribution

from latentlab.latents import LatentSpace, Normal, Posterior
from latentlab.models.contract import ElboTerms
from latentlab.models.edits import Edit
from latentlab.models.staged import StagedNetwork

_LOG_VAR_RANGE = (-20.0, 20.0)


def posterior_size(space: LatentSpace) -> int:
    """How many numbers an encoder gives for a space: mean and log-variance of each coordinate."""
    return 2 * space.dim


def _full(outputs: Tensor) -> Tensor:
    """Half-precision outputs in 32 bits: distributions and losses are never computed in fewer."""
    return outputs.float() if outputs.dtype in (torch.bfloat16, torch.float16) else outputs


class VAE(nn.Module):
    """A VAE over a latent space of normal blocks.

    Args:
        image_shape: (channels, height, width).
        latent_space: blocks with normal priors.
        encoder: images (batch, channels, height, width) to (batch, 2 x dim): means, then log-variances.
        generator: codes (batch, dim) to the parameters of the likelihood, of an image's shape.
        likelihood: those parameters to a distribution over images.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2013), https://arxiv.org/abs/1312.6114
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_space: LatentSpace,
        encoder: StagedNetwork,
        generator: StagedNetwork,
        likelihood: nn.Module,
    ) -> None:
        super().__init__()
        foreign = [b.name for b in latent_space.blocks if not isinstance(b.prior, Normal)]
        if foreign:
            raise ValueError(f"A VAE's blocks need a normal prior; block {foreign[0]!r} has another.")
        self.image_shape = image_shape
        self.latent_space = latent_space
        self.encoder = encoder
        self.generator = generator
        self.observation = likelihood

    @property
    def spaces(self) -> dict[str, LatentSpace]:
        """The one space of a VAE."""
        return {self.latent_space.name: self.latent_space}

    @property
    def networks(self) -> dict[str, StagedNetwork]:
        """The networks that can be opened."""
        return {"generator": self.generator, "encoder": self.encoder}

    def map(self, z: Tensor, source: str, target: str) -> Tensor:
        """Carries codes between spaces; a VAE has one, so the codes stay as they are.

        Raises:
            ValueError: on a space that the model does not have.
        """
        for name in (source, target):
            if name not in self.spaces:
                raise ValueError(f"No space {name!r} in this model; it has {', '.join(self.spaces)}.")
        return z

    def encode(self, x: Tensor, edits: Iterable[Edit] = ()) -> Posterior:
        """q(z | x) of images (batch, channels, height, width) in [0, 1].

        Raises:
            ValueError: on images of another shape than the model's.
        """
        if x.ndim != 4 or tuple(x.shape[1:]) != self.image_shape:
            raise ValueError(
                f"Expected images (batch, {', '.join(map(str, self.image_shape))}); got {tuple(x.shape)}."
            )
        mean, log_var = _full(self.encoder.run(x, edits)).chunk(2, dim=1)
        std = (0.5 * log_var.clamp(*_LOG_VAR_RANGE)).exp()
        parts = {
            name: NormalDistribution(mean[:, where], std[:, where], validate_args=False)
            for name, where in ((n, self.latent_space.slice(n)) for n in self.latent_space.block_names)
        }
        return Posterior(self.latent_space, parts)

    def likelihood(self, z: Tensor, edits: Iterable[Edit] = ()) -> Distribution:
        """p(x | z) of codes (batch, dim)."""
        self.latent_space.check(z)
        return self.observation(_full(self.generator.run(z, edits)))

    def decode(self, z: Tensor, edits: Iterable[Edit] = ()) -> Tensor:
        """Mean images (batch, channels, height, width) in [0, 1] of codes (batch, dim)."""
        return self.likelihood(z, edits).mean

    def sample(self, n: int, seed: int) -> Tensor:
        """Mean images of ``n`` codes from the prior; equal seeds give equal images."""
        device = next(self.parameters()).device
        return self.decode(self.latent_space.sample(n, seed, device))

    def elbo_terms(self, x: Tensor, generator: torch.Generator) -> ElboTerms:
        """Encodes, draws, decodes: the parts of the ELBO of a batch.

        Args:
            x: images (batch, channels, height, width) in [0, 1].
            generator: source of the reparametrisation noise, on x's device.
        """
        posterior = self.encode(x)
        z = posterior.rsample(generator)
        return ElboTerms(x, posterior, z, self.likelihood(z).log_prob(x), posterior.kl())
