"""Priors: what a block of latents is distributed as, and what an encoder's numbers mean for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NoReturn

import torch
from torch import Tensor
from torch.distributions import Distribution, OneHotCategorical
from torch.distributions import Normal as NormalDistribution

from latentlab.latents.codebook import Codebook

_LOG_VAR_RANGE = (-20.0, 20.0)


def _uniform(n: int, dim: int, generator: torch.Generator) -> Tensor:
    return torch.rand((n, dim), generator=generator, device=generator.device)


@dataclass(frozen=True)
class Normal:
    """Standard normal prior, each coordinate N(0, 1)."""

    kind: ClassVar[str] = "normal"

    def sample(self, n: int, dim: int, generator: torch.Generator) -> Tensor:
        """Draws (n, dim) float32 codes."""
        return torch.randn((n, dim), generator=generator, device=generator.device)

    def quantile(self, p: float) -> float:
        """The value below which a share ``p`` of the prior lies."""
        return math.sqrt(2.0) * torch.erfinv(torch.tensor(2.0 * p - 1.0, dtype=torch.float64)).item()

    def moments(self, dim: int) -> tuple[float, float]:
        """Mean and standard deviation of every coordinate."""
        return 0.0, 1.0

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density of each coordinate, nats, shape of ``z``."""
        return -0.5 * (z.square() + math.log(2.0 * math.pi))

    def posterior_size(self, dim: int) -> int:
        """How many numbers an encoder gives for a block: a mean and a log-variance a coordinate."""
        return 2 * dim

    def posterior(self, numbers: Tensor) -> Distribution:
        """N(mean, variance) of (batch, 2 dim) numbers: the means, then the log-variances."""
        mean, log_var = numbers.chunk(2, dim=1)
        std = (0.5 * log_var.clamp(*_LOG_VAR_RANGE)).exp()
        return NormalDistribution(mean, std, validate_args=False)

    def code(self, q: Distribution) -> Tensor:
        """The code that stands for ``q``: its mean (batch, dim)."""
        return q.mean

    def kl(self, q: Distribution) -> Tensor:
        """KL(q || prior) of each coordinate, nats (batch, dim), in closed form for a normal ``q``."""
        if not isinstance(q, NormalDistribution):
            raise TypeError(f"A normal block needs a Normal posterior; got {type(q).__name__}.")
        variance = q.variance
        return 0.5 * (q.mean.square() + variance - 1.0 - variance.log())


@dataclass(frozen=True)
class Uniform:
    """Uniform prior on [low, high], each coordinate independent."""

    low: float = -1.0
    high: float = 1.0
    kind: ClassVar[str] = "uniform"

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"A uniform prior needs low < high; got low={self.low}, high={self.high}.")

    def sample(self, n: int, dim: int, generator: torch.Generator) -> Tensor:
        """Draws (n, dim) float32 codes in [low, high]."""
        return self.low + (self.high - self.low) * _uniform(n, dim, generator)

    def quantile(self, p: float) -> float:
        """The value below which a share ``p`` of the prior lies."""
        return self.low + (self.high - self.low) * p

    def moments(self, dim: int) -> tuple[float, float]:
        """Mean and standard deviation of every coordinate."""
        return (self.low + self.high) / 2.0, (self.high - self.low) / math.sqrt(12.0)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density of each coordinate, nats (-inf outside the support), shape of ``z``."""
        inside = (z >= self.low) & (z <= self.high)
        return torch.where(inside, -math.log(self.high - self.low), -math.inf)

    def posterior_size(self, dim: int) -> int:
        """No encoder here infers a uniform block.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "A block with a uniform prior can be sampled, but no posterior is defined for it here."
        )

    def posterior(self, numbers: Tensor) -> Distribution:
        """No posterior is defined for a uniform block; see ``posterior_size``."""
        raise ValueError(
            "A block with a uniform prior can be sampled, but no posterior is defined for it here."
        )

    def code(self, q: Distribution) -> Tensor:
        """The code that stands for ``q``: its mean (batch, dim)."""
        return q.mean

    def kl(self, q: Distribution) -> Tensor:
        """KL(q || prior) of each coordinate, nats (batch, dim), for a ``q`` supported inside the prior."""
        return -q.entropy() + math.log(self.high - self.low)


class GumbelSoftmax(OneHotCategorical):
    """A categorical posterior whose draws with a gradient are softened ones, at a temperature.

    Its ``sample`` and everything that is computed of it are those of the categorical distribution itself.

    Args:
        logits: (batch, categories).
        temperature: above 0; towards 0 the soft draws become one-hot, and their gradients noisy.
    """

    def __init__(self, logits: Tensor, temperature: float) -> None:
        super().__init__(logits=logits, validate_args=False)
        self.temperature = temperature

    def soft(self, generator: torch.Generator) -> Tensor:
        """Draws (batch, categories), each row positive and of sum 1, with a gradient to the logits."""
        chance = torch.rand(
            self.logits.shape, generator=generator, device=self.logits.device, dtype=self.logits.dtype
        )
        tiny = torch.finfo(self.logits.dtype).tiny
        gumbel = -(-chance.clamp_min(tiny).log()).clamp_min(tiny).log()
        return ((self.logits + gumbel) / self.temperature).softmax(-1)


@dataclass(frozen=True)
class Categorical:
    """One categorical variable, uniform over ``dim`` categories, its code a one-hot row of ``dim`` numbers.

    Args:
        temperature: that of the soft draws by which training reaches the encoder (Gumbel-Softmax); by default draws
            are one-hot and the gradient is that of the probabilities (straight-through).

    References:
        Categorical reparameterization with Gumbel-Softmax (Jang et al., 2017), https://arxiv.org/abs/1611.01144
        The concrete distribution (Maddison et al., 2017), https://arxiv.org/abs/1611.00712
    """

    temperature: float | None = None
    kind: ClassVar[str] = "categorical"

    def __post_init__(self) -> None:
        if self.temperature is not None and not 0.0 < self.temperature < float("inf"):
            raise ValueError(f"A temperature lies above 0; got {self.temperature}.")

    def sample(self, n: int, dim: int, generator: torch.Generator) -> Tensor:
        """Draws (n, dim) float32 one-hot codes."""
        chosen = torch.randint(dim, (n,), generator=generator, device=generator.device)
        return torch.nn.functional.one_hot(chosen, dim).float()

    def quantile(self, p: float) -> float:
        """A category has no order, hence no quantile.

        Raises:
            ValueError: always.
        """
        raise ValueError("A categorical coordinate has no quantiles; traverse its categories instead.")

    def moments(self, dim: int) -> tuple[float, float]:
        """Mean and standard deviation of every coordinate of the one-hot code."""
        return 1.0 / dim, math.sqrt((dim - 1.0) / dim**2)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log probability shared out over the coordinates: it stands on the coordinate that is 1, else 0."""
        return -math.log(z.shape[-1]) * z

    def posterior_size(self, dim: int) -> int:
        """How many numbers an encoder gives for a block: one logit a category."""
        return dim

    def posterior(self, numbers: Tensor) -> Distribution:
        """The categorical distribution of (batch, dim) logits."""
        if self.temperature is not None:
            return GumbelSoftmax(numbers, self.temperature)
        return OneHotCategorical(logits=numbers, validate_args=False)

    def code(self, q: Distribution) -> Tensor:
        """The code that stands for ``q``: one-hot (batch, dim), 1 at the likeliest category, without a gradient.

        Raises:
            TypeError: if ``q`` is no distribution over one-hot codes.
        """
        probs = getattr(q, "probs", None)
        if probs is None or q.event_shape != probs.shape[-1:]:
            raise TypeError(
                f"A categorical block needs a OneHotCategorical posterior; got {type(q).__name__}."
            )
        return torch.nn.functional.one_hot(probs.argmax(-1), probs.shape[-1]).to(probs.dtype)

    def kl(self, q: Distribution) -> Tensor:
        """KL(q || prior) in nats as its summands q_k log(q_k / prior_k), (batch, dim): the row sums to the KL."""
        if not isinstance(q, OneHotCategorical):
            raise TypeError(
                f"A categorical block needs a OneHotCategorical posterior; got {type(q).__name__}."
            )
        return q.probs * (q.logits - q.logits.logsumexp(-1, keepdim=True) + math.log(q.probs.shape[-1]))


@dataclass(frozen=True)
class Mapped:
    """No prior in closed form: codes of such a block come from another space of the model, through its ``map``."""

    kind: ClassVar[str] = "mapped"

    def _refuse(self, *given: object) -> NoReturn:
        raise ValueError(
            "A mapped block has no prior in closed form; draw codes of the model's first space and carry them over "
            "with model.map."
        )

    sample = quantile = moments = log_prob = _refuse
    posterior_size = posterior = code = kl = _refuse


PRIORS: dict[str, type] = {prior.kind: prior for prior in (Normal, Uniform, Categorical, Codebook, Mapped)}
Prior = Normal | Uniform | Categorical | Codebook | Mapped
UNORDERED = (Categorical, Codebook)
"""Priors of categories: between two values there is no path, and no value is larger than another."""
