"""The generative adversarial network: a generator of images and a discriminator that scores them.

Symbols: z a code, p(z) its prior, G(z) an image, D(x) the discriminator's score of an image, before any sigmoid.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from latentlab.latents import LatentSpace
from latentlab.models.contract import identity_text
from latentlab.models.edits import Edit
from latentlab.models.precision import full
from latentlab.models.staged import StagedNetwork


class GAN(nn.Module):
    """A GAN over a structured latent space. It has no encoder: it can't tell which code an image comes from.

    Args:
        image_shape: (channels, height, width).
        latent_space: blocks of any prior; codes are drawn from it.
        generator: codes (batch, dim) to numbers of an image's shape, before the tanh.
        discriminator: images (batch, channels, height, width) in [0, 1] to scores (batch, 1).

    References:
        Generative adversarial networks (Goodfellow et al., 2014), https://arxiv.org/abs/1406.2661
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_space: LatentSpace,
        generator: StagedNetwork,
        discriminator: StagedNetwork,
    ) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.latent_space = latent_space
        self.generator = generator
        self.discriminator = discriminator

    @property
    def spaces(self) -> dict[str, LatentSpace]:
        """The one space of a plain GAN."""
        return {self.latent_space.name: self.latent_space}

    @property
    def identity(self) -> str:
        """What the model is apart from its weights; part of the weights' digest."""
        return identity_text(self)

    @property
    def networks(self) -> dict[str, StagedNetwork]:
        """The networks that can be opened."""
        return {"generator": self.generator, "discriminator": self.discriminator}

    def map(self, z: Tensor, source: str, target: str) -> Tensor:
        """Carries codes between spaces; a plain GAN has one, so the codes stay as they are.

        Raises:
            ValueError: on a space that the model does not have.
        """
        for name in (source, target):
            if name not in self.spaces:
                raise ValueError(f"No space {name!r} in this model; it has {', '.join(self.spaces)}.")
        return z

    def decode(self, z: Tensor, edits: Iterable[Edit] = ()) -> Tensor:
        """Images (batch, channels, height, width) in [0, 1] of codes (batch, dim)."""
        self.latent_space.check(z)
        return image(self.generator.run(z, edits))

    def discriminate(self, x: Tensor, edits: Iterable[Edit] = ()) -> Tensor:
        """Scores (batch,) of images (batch, channels, height, width) in [0, 1]; high where they look real.

        Raises:
            ValueError: on images of another shape than the model's.
        """
        if x.ndim != 4 or tuple(x.shape[1:]) != self.image_shape:
            raise ValueError(
                f"Expected images (batch, {', '.join(map(str, self.image_shape))}); got {tuple(x.shape)}."
            )
        return full(self.discriminator.run(x, edits)).squeeze(1)

    def sample_codes(self, n: int, seed: int) -> Tensor:
        """Codes (n, dim) from the prior, on the model's device; equal seeds give equal codes."""
        return self.latent_space.sample(n, seed, next(self.parameters()).device)

    def sample(self, n: int, seed: int) -> Tensor:
        """Images of ``n`` codes from the prior; equal seeds give equal images."""
        return self.decode(self.sample_codes(n, seed))


def image(outputs: Tensor) -> Tensor:
    """A generator's outputs as images in [0, 1]: tanh, which lies in [-1, 1], halved and shifted."""
    return 0.5 * full(outputs).tanh() + 0.5
