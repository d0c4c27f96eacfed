"""The variational autoencoder: an encoder, a generator, a likelihood, and the one ELBO pipeline.

Symbols: x an image, z a code, q(z | x) the posterior, p(z) the prior, p(x | z) the likelihood.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from latentlab.latents import LatentSpace, Posterior
from latentlab.models.contract import ONE_DRAW, ElboTerms, TermsRequest, identity_text, space_of
from latentlab.models.edits import Edit
from latentlab.models.likelihoods import Likelihood
from latentlab.models.precision import full
from latentlab.models.staged import StagedNetwork


class VAE(nn.Module):
    """A VAE over a structured latent space.

    Args:
        image_shape: (channels, height, width).
        latent_space: blocks whose priors define a posterior (normal, categorical).
        encoder: images (batch, channels, height, width) to (batch, latent_space.posterior_size) numbers.
        generator: codes (batch, dim) to the parameters of the likelihood, of an image's shape.
        likelihood: those parameters to a distribution over images, and by ``image`` to its mean.

    Attributes:
        label_factors: names of the data's factors that ``elbo_terms`` reads as labels; none here.
        labelled: share of the data's images whose labels it may read, 0 to 1.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2013), https://arxiv.org/abs/1312.6114
    """

    label_factors: tuple[str, ...] = ()
    labelled: float = 1.0

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_space: LatentSpace,
        encoder: StagedNetwork,
        generator: StagedNetwork,
        likelihood: Likelihood,
    ) -> None:
        super().__init__()
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
    def identity(self) -> str:
        """What the model is apart from its weights; part of the weights' digest."""
        return identity_text(self, likelihood=type(self.observation).__name__)

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
        self.check_images(x)
        return self.latent_space.posterior(full(self.encoder.run(x, edits)))

    def check_images(self, x: Tensor) -> None:
        """Refuses anything that is no batch of images of the model's shape.

        Raises:
            ValueError: with both shapes.
        """
        if x.ndim != 4 or tuple(x.shape[1:]) != self.image_shape:
            raise ValueError(
                f"Expected images (batch, {', '.join(map(str, self.image_shape))}); got {tuple(x.shape)}."
            )

    def likelihood(self, z: Tensor, edits: Iterable[Edit] = ()) -> Distribution:
        """p(x | z) of codes (batch, dim)."""
        self.latent_space.check(z)
        return self.observation(full(self.generator.run(z, edits)))

    def decode(self, z: Tensor, edits: Iterable[Edit] = (), space: str | None = None) -> Tensor:
        """Mean images (batch, channels, height, width) in [0, 1] of codes (batch, dim); there is one space.

        Raises:
            ValueError: on codes of another space.
        """
        space_of(self, space).check(z)
        return self.observation.image(full(self.generator.run(z, edits)))

    def sample_codes(self, n: int, seed: int) -> Tensor:
        """Codes (n, dim) from the prior, on the model's device; equal seeds give equal codes."""
        return self.latent_space.sample(n, seed, next(self.parameters()).device)

    def sample(self, n: int, seed: int) -> Tensor:
        """Mean images of ``n`` codes from the prior; equal seeds give equal images."""
        return self.decode(self.sample_codes(n, seed))

    def elbo_terms(
        self,
        x: Tensor,
        generator: torch.Generator,
        request: TermsRequest = ONE_DRAW,
        *,
        labels: Tensor | None = None,
        posterior: Posterior | None = None,
    ) -> ElboTerms:
        """Encodes, draws, decodes: the parts of the ELBO of a batch.

        Args:
            x: images (batch, channels, height, width) in [0, 1].
            generator: source of the reparametrisation noise, on x's device.
            request: whether to decode, and how many draws an image.
            labels: factors of the images (batch, factors), handed on in the terms.
            posterior: q(z | x) to draw from instead of ``encode(x)``.
        """
        posterior = self.encode(x) if posterior is None else posterior
        z, log_likelihood = posterior.rsample(generator), None
        if request.samples == 1:
            if request.decode:
                log_likelihood = self.likelihood(z).log_prob(x)
        else:
            z = torch.stack([z, *(posterior.rsample(generator) for _ in range(request.samples - 1))])
            if request.decode:
                repeated = x.repeat(request.samples, 1, 1, 1)
                log_likelihood = self.likelihood(z.flatten(0, 1)).log_prob(repeated).view(z.shape[:2])
        return ElboTerms(x, posterior, z, log_likelihood, posterior.kl(), labels)
