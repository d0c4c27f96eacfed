"""Adversarial objectives: what discriminator and generator minimise, from scores, and what keeps them smooth.

A score is the discriminator's raw output for an image, before any sigmoid; every loss is a mean over the batch.
Losses and penalties are plain values without parameters, and never step an optimiser.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from latentlab.config import Adversarial as AdversarialConfig
from latentlab.config import ObjectiveConfig
from latentlab.objectives.augmentation import Augmentation

_SPAN = 2.0
"""Published weights hold for images in [-1, 1]; here they lie in [0, 1], where a gradient is twice as large."""

Discriminator = Callable[[Tensor], Tensor]
"""Images (batch, channels, height, width) in [0, 1] to scores (batch,)."""


class AdversarialLoss(Protocol):
    """What both players minimise, given scores (batch,)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """The discriminator's loss, a scalar."""
        ...

    def generator(self, fake: Tensor) -> Tensor:
        """The generator's loss, a scalar."""
        ...

    def verdict(self, scores: Tensor) -> Tensor:
        """D(x) as it is reported: a probability where the loss defines one, else the score."""
        ...


@dataclass(frozen=True)
class NonSaturating:
    """Logistic loss: -log sigmoid(D(x)) - log(1 - sigmoid(D(G(z)))), and -log sigmoid(D(G(z))) for the generator.

    References:
        Generative adversarial networks (Goodfellow et al., 2014), https://arxiv.org/abs/1406.2661, section 3
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Twice the cross-entropy of telling real from fake, nats."""
        return softplus(-real).mean() + softplus(fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        """Cross-entropy of the fakes with the label "real", nats."""
        return softplus(-fake).mean()

    def verdict(self, scores: Tensor) -> Tensor:
        """The probability that an image is real."""
        return scores.sigmoid()


@dataclass(frozen=True)
class Wasserstein:
    """Difference of mean scores; it estimates a distance only of a discriminator with bounded slope.

    References:
        Wasserstein generative adversarial networks (Arjovsky et al., 2017), https://arxiv.org/abs/1701.07875
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Mean score of the fakes less that of the real images."""
        return fake.mean() - real.mean()

    def generator(self, fake: Tensor) -> Tensor:
        """The fakes' mean score, turned round."""
        return -fake.mean()

    def verdict(self, scores: Tensor) -> Tensor:
        """The scores themselves."""
        return scores


@dataclass(frozen=True)
class Hinge:
    """Scores beyond a margin of 1 count no more for the discriminator; the generator raises its scores.

    References:
        Geometric GAN (Lim and Ye, 2017), https://arxiv.org/abs/1705.02894
        Spectral normalization for generative adversarial networks (Miyato et al., 2018),
        https://arxiv.org/abs/1802.05957
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Mean of max(0, 1 - D(x)) plus mean of max(0, 1 + D(G(z)))."""
        return relu(1.0 - real).mean() + relu(1.0 + fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        """The fakes' mean score, turned round."""
        return -fake.mean()

    def verdict(self, scores: Tensor) -> Tensor:
        """The scores themselves."""
        return scores


class Penalty(Protocol):
    """What is added to the discriminator's loss to keep its slope in bounds."""

    def __call__(
        self, discriminator: Discriminator, real: Tensor, fake: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The penalty of a batch, a scalar with a gradient to the discriminator's weights.

        Args:
            discriminator: images in [0, 1] to scores.
            real: images of the data (batch, channels, height, width) in [0, 1].
            fake: generated images, as many.
            generator: the only source of chance, on the images' device.
        """
        ...


@dataclass(frozen=True)
class R1:
    """weight / 2 x the mean squared length of the score's gradient at real images, taken in [-1, 1].

    Args:
        weight: the papers' gamma.

    References:
        Which training methods for GANs do actually converge? (Mescheder et al., 2018),
        https://arxiv.org/abs/1801.04406
    """

    weight: float = 10.0

    def __call__(
        self, discriminator: Discriminator, real: Tensor, fake: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The penalty of the real images; fakes and chance take no part."""
        return 0.5 * self.weight * _slopes(discriminator, real).square().sum((1, 2, 3)).mean()


@dataclass(frozen=True)
class GradientPenalty:
    """weight x the mean of (length of the score's gradient - 1)^2 between real and fake images, taken in [-1, 1].

    Args:
        weight: the paper's lambda.

    References:
        Improved training of Wasserstein GANs (Gulrajani et al., 2017), https://arxiv.org/abs/1704.00028
    """

    weight: float = 10.0

    def __call__(
        self, discriminator: Discriminator, real: Tensor, fake: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The penalty at one point an image, drawn evenly on the line from a fake to a real image."""
        share = torch.rand((len(real), 1, 1, 1), generator=generator, device=real.device)
        slopes = _slopes(discriminator, share * real + (1.0 - share) * fake)
        # The root has no slope at 0, where a gradient would become nan.
        lengths = (slopes.square().sum((1, 2, 3)) + 1e-12).sqrt()
        return self.weight * (lengths - 1.0).square().mean()


def _slopes(discriminator: Discriminator, x: Tensor) -> Tensor:
    """Gradients of each image's score with respect to its pixels in [-1, 1], of the shape of ``x``."""
    x = x.detach().requires_grad_()
    (found,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    return found / _SPAN


@dataclass(frozen=True)
class Adversarial:
    """A loss, a penalty or none, an augmentation or none.

    Attributes:
        loss: what both players minimise.
        penalty: what the discriminator's slope costs it.
        penalty_every: steps of the discriminator between two that pay the penalty, as many times as much.
        augmentation: what is done to all images before they are judged.

    References:
        Analyzing and improving the image quality of StyleGAN (Karras et al., 2020),
        https://arxiv.org/abs/1912.04958, appendix B, for the penalty at every k-th step. There Adam's decays are
        changed, too; here they stay as they are set.
    """

    loss: AdversarialLoss
    penalty: Penalty | None = None
    penalty_every: int = 1
    augmentation: Augmentation | None = None


_LOSSES: dict[str, Callable[[], AdversarialLoss]] = {
    "non-saturating": NonSaturating,
    "wasserstein": Wasserstein,
    "hinge": Hinge,
}
_PENALTIES: dict[str, Callable[[float], Penalty | None]] = {
    "none": lambda weight: None,
    "gradient": GradientPenalty,
    "r1": R1,
}


_AUGMENTATIONS: dict[str, Callable[[AdversarialConfig], Augmentation | None]] = {
    "none": lambda config: None,
    "diffaugment": lambda config: Augmentation(1.0),
    "ada": lambda config: Augmentation(0.0, True, config.ada_target, config.ada_images),
}


def build_adversarial(config: ObjectiveConfig) -> Adversarial:
    """From a configuration to an adversarial objective.

    Raises:
        TypeError: on the configuration of another kind of objective.
    """
    if not isinstance(config, AdversarialConfig):
        raise TypeError(f"No adversarial objective for {type(config).__name__}; known: Adversarial.")
    return Adversarial(
        _LOSSES[config.loss](),
        _PENALTIES[config.penalty](config.penalty_weight),
        config.penalty_every,
        _AUGMENTATIONS[config.augment](config),
    )
