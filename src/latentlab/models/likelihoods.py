"""p(x | z): how the generator's outputs become a distribution over images."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli as BernoulliDistribution
from torch.distributions import Distribution, Independent
from torch.distributions import Laplace as LaplaceDistribution
from torch.distributions import Normal as NormalDistribution
from torch.nn.functional import logsigmoid, softplus

LEVELS = 256
"""Grey values that an image of 8 bits can have."""


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


class _Scaled(nn.Module):
    """What the likelihoods with one scale for all pixels share: the scale, fixed or learned, kept as its log."""

    log_scale: Tensor

    def __init__(self, scale: float = 0.1, learn: bool = False) -> None:
        super().__init__()
        log_scale = torch.tensor(math.log(scale))
        if learn:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    @property
    def scale(self) -> Tensor:
        """The scale of a pixel value, between 0.0009 and 20 so that no density runs away."""
        return self.log_scale.clamp(-7.0, 3.0).exp()


class Gaussian(_Scaled):
    """Each pixel N(sigmoid(output), scale^2), so that the mean is an image in [0, 1].

    Args:
        scale: standard deviation of a pixel value.
        learn: treat the scale as a parameter shared by all pixels.
    """

    def image(self, outputs: Tensor) -> Tensor:
        """The mean image, in [0, 1], as a plain tensor function: what export and the browser run."""
        return outputs.sigmoid()

    def forward(self, outputs: Tensor) -> Distribution:
        """Distribution over images from outputs (batch, channels, height, width) before the sigmoid."""
        return Independent(
            NormalDistribution(outputs.sigmoid(), self.scale, validate_args=False), 3, validate_args=False
        )


class Laplace(_Scaled):
    """Each pixel Laplace(sigmoid(output), scale): errors count by their size and not by their square.

    Args:
        scale: mean absolute deviation of a pixel value; its standard deviation is 1.41 times that.
        learn: treat the scale as a parameter shared by all pixels.
    """

    def image(self, outputs: Tensor) -> Tensor:
        """The mean image, in [0, 1], as a plain tensor function: what export and the browser run."""
        return outputs.sigmoid()

    def forward(self, outputs: Tensor) -> Distribution:
        """Distribution over images from outputs (batch, channels, height, width) before the sigmoid."""
        return Independent(
            LaplaceDistribution(outputs.sigmoid(), self.scale, validate_args=False), 3, validate_args=False
        )


class Logistic(_Scaled):
    """Each pixel one of 256 levels, with the mass that a logistic distribution has between their borders.

    The lowest level takes all mass below it, the highest all above, so the masses of the levels sum to 1 and
    log-likelihoods are those of 8-bit images, comparable between models. The logistic stands at
    1/2 + output / 4, which is the tangent of the sigmoid in the middle and, unlike it, goes past 0 and 1: so can
    all mass lie on black or white.

    Args:
        scale: of the logistic distribution of a pixel value; its standard deviation is 1.81 times that.
        learn: treat the scale as a parameter shared by all pixels.

    References:
        PixelCNN++ (Salimans et al., 2017), https://arxiv.org/abs/1701.05517; here one logistic for each value
        instead of a mixture, and channels independent
        Improved variational inference with inverse autoregressive flow (Kingma et al., 2016),
        https://arxiv.org/abs/1606.04934
    """

    def image(self, outputs: Tensor) -> Tensor:
        """The mean image, in [0, 1], as a plain tensor function: what export and the browser run.

        That of the logistic values cut off at 0 and 1; rounding to levels moves it by less than half a level.
        """
        location, scale = 0.5 + 0.25 * outputs, self.scale
        below = softplus((1.0 - location) / scale) - softplus(-location / scale)
        return (1.0 - scale * below).clamp(0.0, 1.0)

    def forward(self, outputs: Tensor) -> Distribution:
        """Distribution over images from outputs (batch, channels, height, width)."""
        return DiscretisedLogistic(0.5 + 0.25 * outputs, self.scale, self.image(outputs))


class DiscretisedLogistic(Distribution):
    """Independent logistic values, sorted into 256 levels; the last three dimensions are one image.

    Args:
        location: (batch, channels, height, width), 0 to 1 the range of grey values.
        scale: of all of them, a scalar.
        mean: the mean image of the levels, of the shape of ``location``.
    """

    arg_constraints: ClassVar[dict] = {}

    def __init__(self, location: Tensor, scale: Tensor, mean: Tensor) -> None:
        super().__init__(location.shape[:-3], location.shape[-3:], validate_args=False)
        self.location, self.scale, self._mean = location, scale, mean

    @property
    def mean(self) -> Tensor:
        """The mean image, in [0, 1]."""
        return self._mean

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of images in [0, 1], nats (batch,); a grey value counts as the level next to it.

        A level's mass is the difference of two sigmoids, written as a product of which no factor vanishes:
        s(b) - s(a) = s(b) s(-a) (1 - exp(a - b)).
        """
        level = (value * (LEVELS - 1)).round()
        width = 1.0 / ((LEVELS - 1) * self.scale)
        away = level / (LEVELS - 1) - self.location
        upper, lower = away / self.scale + 0.5 * width, away / self.scale - 0.5 * width
        below, above = logsigmoid(upper), logsigmoid(-lower)
        mass = below + above + torch.log(-torch.expm1(-width))
        mass = torch.where(level <= 0, below, torch.where(level >= LEVELS - 1, above, mass))
        return mass.sum((-3, -2, -1))


Likelihood = Bernoulli | Gaussian | Laplace | Logistic
"""What makes p(x | z) of a generator's outputs."""
