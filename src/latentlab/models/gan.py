"""The generative adversarial network: a generator of images and a discriminator that scores them.

Symbols: z a code, p(z) its prior, G(z) an image, D(x) the discriminator's score of an image, before any sigmoid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentlab.latents import LatentSpace
from latentlab.models.contract import identity_text, space_of
from latentlab.models.edits import Edit
from latentlab.models.precision import full
from latentlab.models.staged import StagedNetwork


@dataclass(frozen=True)
class Forged:
    """What a player's step has made, for the further terms of its loss.

    Attributes:
        codes: codes (batch, dim) from the prior.
        images: their images (batch, channels, height, width) in [0, 1], as they are made in training; with a gradient
            to the generator in its own step alone.
        forge: makes images of further codes, with a gradient or without one as ``images``.
        step: the generator's step, counted from 0.
        chance: the only source of chance, on the codes' device.
    """

    codes: Tensor
    images: Tensor
    forge: Callable[[Tensor], Tensor]
    step: int
    chance: torch.Generator


class AdversarialTerm(nn.Module):
    """Base of the terms that a model adds to the losses of both its players, who work together on them.

    A term's own parameters are stepped with the discriminator's.
    """

    def forward(self, model: GAN, forged: Forged) -> tuple[Tensor, dict[str, Tensor]]:
        """What is added to a player's loss, a scalar, and named scalars to log.

        Args:
            model: the model in training, with its discriminator and what else it judges by.
            forged: codes and images of the step.
        """
        raise TypeError(f"{type(self).__name__} defines no forward.")


class GAN(nn.Module):
    """A GAN over a structured latent space. It has no encoder: it can't tell which code an image comes from.

    Attributes:
        label_factors: names of the data's factors that ``discriminate`` reads as labels, each the name of a categorical
            block, too, by which the generator is told what to draw; none here.

    Args:
        image_shape: (channels, height, width).
        latent_space: blocks of any prior; codes are drawn from it.
        generator: codes (batch, dim) to numbers of an image's shape, before the tanh.
        discriminator: images (batch, channels, height, width) in [0, 1] to scores (batch, 1).

    References:
        Generative adversarial networks (Goodfellow et al., 2014), https://arxiv.org/abs/1406.2661
    """

    label_factors: tuple[str, ...] = ()

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

    @property
    def generating(self) -> nn.Module:
        """What makes images: stepped by the generator's optimiser, and kept as a running mean."""
        return self.generator

    @property
    def judging(self) -> nn.Module:
        """What judges images: stepped by the discriminator's optimiser."""
        return self.discriminator

    def further_terms(self) -> dict[str, AdversarialTerm]:
        """New terms, by name, that this kind of model adds to both players' losses; none here.

        Their parameters belong to the training, not to the model.
        """
        return {}

    def forge(self, generating: nn.Module, codes: Tensor, chance: torch.Generator) -> Tensor:
        """Images (batch, channels, height, width) in [0, 1] as they are made in training.

        Args:
            generating: ``generating`` of this model, or a copy of it that is being trained.
            codes: (batch, dim), from the prior.
            chance: source of whatever else decides an image, on the codes' device; nothing else does here.
        """
        return image(generating.run(codes))  # pyright: ignore[reportCallIssue]

    def labels(self, codes: Tensor) -> Tensor | None:
        """What codes (batch, dim) say of the ``label_factors``, int (batch, label_factors); None if there are none."""
        parts = self.latent_space.split(codes)
        chosen = [parts[name].argmax(1) for name in self.label_factors]
        return torch.stack(chosen, 1) if chosen else None

    def map(self, z: Tensor, source: str, target: str) -> Tensor:
        """Carries codes between spaces; a plain GAN has one, so the codes stay as they are.

        Raises:
            ValueError: on a space that the model does not have.
        """
        for name in (source, target):
            if name not in self.spaces:
                raise ValueError(f"No space {name!r} in this model; it has {', '.join(self.spaces)}.")
        return z

    def decode(self, z: Tensor, edits: Iterable[Edit] = (), space: str | None = None) -> Tensor:
        """Images (batch, channels, height, width) in [0, 1] of codes (batch, dim); there is one space.

        Raises:
            ValueError: on codes of another space.
        """
        space_of(self, space).check(z)
        return image(self.generator.run(z, edits))

    def discriminate(self, x: Tensor, edits: Iterable[Edit] = (), labels: Tensor | None = None) -> Tensor:
        """Scores (batch,) of images (batch, channels, height, width) in [0, 1]; high where they look real.

        Args:
            x: the images.
            edits: edits of the discriminator.
            labels: the ``label_factors`` of the images, int (batch, label_factors); not read here.

        Raises:
            ValueError: on images of another shape than the model's.
        """
        self.check_images(x)
        return full(self.discriminator.run(x, edits)).squeeze(1)

    def check_images(self, x: Tensor) -> None:
        """Refuses anything that is no batch of images of the model's shape.

        Raises:
            ValueError: with both shapes.
        """
        if x.ndim != 4 or tuple(x.shape[1:]) != self.image_shape:
            raise ValueError(
                f"Expected images (batch, {', '.join(map(str, self.image_shape))}); got {tuple(x.shape)}."
            )

    def sample_codes(self, n: int, seed: int) -> Tensor:
        """Codes (n, dim) from the prior, on the model's device; equal seeds give equal codes."""
        return self.latent_space.sample(n, seed, next(self.parameters()).device)

    def sample(self, n: int, seed: int) -> Tensor:
        """Images of ``n`` codes from the prior; equal seeds give equal images."""
        return self.decode(self.sample_codes(n, seed))


def image(outputs: Tensor) -> Tensor:
    """A generator's outputs as images in [0, 1]: tanh, which lies in [-1, 1], halved and shifted."""
    return 0.5 * full(outputs).tanh() + 0.5
