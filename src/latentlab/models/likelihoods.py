"""p(x | z): how the generator's outputs become a distribution over images."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli as BernoulliDistribution
from torch.distributions import Distribution, Independent
from torch.distributions import Normal as NormalDistribution


class Bernoulli(nn.Module):
    """Each pixel a probability, the outputs their logits.

    On grey values in [0, 1] its log-likelihood is the (negative) cross-entropy, the field's usual
    reconstruction term: proper as an objective, not a density of grey values.
    """

    def image(self, outputs: Tensor) -> Tensor:
        """The mean image, in [0, 1], as a plain tensor function: what export and the browser run."""
        return outputs.sigmoid()

    def forward(self, outputs: Tensor) -> Distribution:
        """Distribution over images from logits (batch, channels, height, width)."""
        return Independent(BernoulliDistribution(logits=outputs, validate_args=False), 3, validate_args=False)


class Gaussian(nn.Module):
    """Each pixel N(sigmoid(output), scale^2), so that the mean is an image in [0, 1].

    Args:
        scale: standard deviation of a pixel value.
        learn: treat the scale as a parameter shared by all pixels.
    """

    def __init__(self, scale: float = 0.1, learn: bool = False) -> None:
        super().__init__()
        log_scale = torch.tensor(math.log(scale))
        if learn:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    def image(self, outputs: Tensor) -> Tensor:
        """The mean image, in [0, 1], as a plain tensor function: what export and the browser run."""
        return outputs.sigmoid()

    def forward(self, outputs: Tensor) -> Distribution:
        """Distribution over images from outputs (batch, channels, height, width) before the sigmoid."""
        scale = self.log_scale.clamp(-7.0, 3.0).exp()
        return Independent(
            NormalDistribution(outputs.sigmoid(), scale, validate_args=False), 3, validate_args=False
        )
