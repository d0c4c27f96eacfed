"""The conditional GAN: a generator that is told a label, and a discriminator that asks whether the image bears it.

Symbols: y a label, z the rest of a code, phi(x) the features of an image, v_y the embedding of a label.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from latentlab.latents import Categorical, LatentSpace
from latentlab.models.edits import Edit
from latentlab.models.gan import GAN
from latentlab.models.precision import full
from latentlab.models.spectral import Spectral
from latentlab.models.staged import StagedNetwork


class SpectralEmbedding(nn.Embedding, Spectral):
    """A table of vectors, as a matrix (classes, features) over its largest singular value."""

    def __init__(self, classes: int, features: int) -> None:
        super().__init__(classes, features)
        self._start()

    def forward(self, input: Tensor) -> Tensor:
        """Integers (batch,) to vectors (batch, features)."""
        return embedding(input, self.normalised())


class ConditionalGAN(GAN):
    """A GAN one of whose blocks is a label of the data, with the score D(x, y) = psi(phi(x)) + <v_y, phi(x)>.

    psi is the stage "score" of the discriminator and phi its stage "features"; the generator reads the label as a
    one-hot part of its code. ``networks`` opens the discriminator without the label's part of the score.

    Args:
        image_shape: (channels, height, width).
        latent_space: blocks, one of them categorical and named as the data's factor.
        generator: codes (batch, dim) to numbers of an image's shape, before the tanh.
        discriminator: images (batch, channels, height, width) in [0, 1] to psi (batch, 1), through "features".
        embedding: labels, integers (batch,), to vectors (batch, features).
        label: that factor and block.

    Raises:
        ValueError: if the label is no categorical block.

    References:
        cGANs with projection discriminator (Miyato and Koyama, 2018), https://arxiv.org/abs/1802.05637. There phi is
        summed over the positions of the last map, here they stay apart; and the generator reads the label through its
        norms, here with its code.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_space: LatentSpace,
        generator: StagedNetwork,
        discriminator: StagedNetwork,
        embedding: nn.Embedding,
        label: str,
    ) -> None:
        super().__init__(image_shape, latent_space, generator, discriminator)
        kinds = {block.name: block.prior for block in latent_space.blocks}
        if not isinstance(kinds.get(label), Categorical):
            raise ValueError(
                f"The label of a conditional GAN is a categorical block; {label!r} is none of space {latent_space!r}."
            )
        self.embedding = embedding
        self.label_factors = (label,)

    @property
    def judging(self) -> nn.Module:
        """What judges images, trained together: the discriminator and the labels' vectors."""
        return nn.ModuleDict({"discriminator": self.discriminator, "embedding": self.embedding})

    def discriminate(self, x: Tensor, edits: Iterable[Edit] = (), labels: Tensor | None = None) -> Tensor:
        """Scores (batch,) of images with labels; high where an image looks real and of its label.

        Args:
            x: images (batch, channels, height, width) in [0, 1].
            edits: edits of the discriminator.
            labels: the images' labels, int (batch, 1).

        Raises:
            ValueError: without labels, or on images or labels of another shape.
        """
        self.check_images(x)
        if labels is None or labels.shape != (len(x), 1):
            came = "none" if labels is None else str(tuple(labels.shape))
            raise ValueError(
                f"A conditional GAN judges images with their labels {self.label_factors[0]!r}, int ({len(x)}, 1); "
                f"got {came}."
            )
        states = self.discriminator.activations(x, ("features", "score"), edits)
        phi, psi = full(states["features"]), full(states["score"])
        return psi.squeeze(1) + (self.embedding(labels[:, 0]) * phi).sum(1)


def label_vectors(classes: int, features: int, spectral_norm: bool) -> nn.Embedding:
    """The vectors v_y of labels; they begin small, so that a label counts for little at first.

    Args:
        classes: number of labels.
        features: length of a vector.
        spectral_norm: divide the table by its largest singular value.
    """
    if spectral_norm:
        return SpectralEmbedding(classes, features)
    vectors = nn.Embedding(classes, features)
    torch.nn.init.normal_(vectors.weight, 0.0, 0.02)
    return vectors
