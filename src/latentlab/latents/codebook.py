"""Indices of a codebook as latents: each coordinate one of K categories, written as a number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NoReturn

import torch
from torch import Tensor
from torch.distributions import Distribution

_QUANTISES = "A block of codebook indices has no posterior of its own; a model with a codebook quantises."


class PointMass(Distribution):
    """The distribution that gives one row of indices for sure: what an image is quantised to.

    Args:
        indices: (batch, dim) whole numbers, 0 to size - 1.
        size: number of codes.
        surprise: -log p of each index under the prior of the model, nats (batch, dim); by default log ``size``, that
            of indices which are uniform and independent.
    """

    arg_constraints: ClassVar[dict] = {}

    def __init__(self, indices: Tensor, size: int, surprise: Tensor | None = None) -> None:
        super().__init__(indices.shape, validate_args=False)
        self.indices, self.size = indices.long(), size
        self.surprise = (
            torch.full(indices.shape, math.log(size), device=indices.device) if surprise is None else surprise
        )

    @property
    def mean(self) -> Tensor:
        """The indices themselves, float32 (batch, dim)."""
        return self.indices.float()

    @property
    def variance(self) -> Tensor:
        """0 everywhere, (batch, dim)."""
        return torch.zeros_like(self.mean)

    def log_prob(self, value: Tensor) -> Tensor:
        """0 where a value is the index, else -inf, nats of each coordinate; a probability and no density."""
        return torch.where(value.round() == self.indices, 0.0, -math.inf)


@dataclass(frozen=True)
class Codebook:
    """Each coordinate the index of a code, 0 to ``size`` - 1, held as a float; uniform and independent.

    The numbers are names: index 3 is no nearer to 4 than to 40. A coordinate is one categorical variable. A model
    may have a prior of its own over all of them together, from which its ``sample_codes`` draws and by which the
    KL of its posteriors is taken.

    Args:
        size: number of codes, at least 2.

    References:
        Neural discrete representation learning (van den Oord et al., 2017), https://arxiv.org/abs/1711.00937
    """

    size: int
    kind: ClassVar[str] = "codebook"

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or self.size < 2:
            raise ValueError(f"A codebook needs a whole number of at least 2 codes; got {self.size!r}.")

    def sample(self, n: int, dim: int, generator: torch.Generator) -> Tensor:
        """Draws (n, dim) indices, float32."""
        return torch.randint(self.size, (n, dim), generator=generator, device=generator.device).float()

    def quantile(self, p: float) -> float:
        """The smallest index below or at which a share ``p`` of the indices lies; says nothing of images."""
        return float(min(max(math.ceil(p * self.size) - 1, 0), self.size - 1))

    def moments(self, dim: int) -> tuple[float, float]:
        """Mean and standard deviation of every index, as a number."""
        return (self.size - 1) / 2.0, math.sqrt((self.size**2 - 1) / 12.0)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log probability of each coordinate, nats (-inf for what is no index), shape of ``z``."""
        index = (z == z.round()) & (z >= 0) & (z <= self.size - 1)
        return torch.where(index, -math.log(self.size), -math.inf)

    def posterior_size(self, dim: int) -> NoReturn:
        """No numbers of an encoder name an index.

        Raises:
            ValueError: always.
        """
        raise ValueError(_QUANTISES)

    def posterior(self, numbers: Tensor) -> NoReturn:
        """No posterior follows from numbers alone; see ``posterior_size``."""
        raise ValueError(_QUANTISES)

    def code(self, q: Distribution) -> Tensor:
        """The code that stands for ``q``: its indices (batch, dim)."""
        return q.mean

    def kl(self, q: Distribution) -> Tensor:
        """KL(q || the model's prior), nats (batch, dim): of a point mass the surprise at each index, exactly.

        Raises:
            TypeError: if ``q`` is no point mass.
        """
        if not isinstance(q, PointMass):
            raise TypeError(f"A codebook block needs a PointMass posterior; got {type(q).__name__}.")
        return q.surprise

    def indices(self, steps: int) -> list[int]:
        """Indices that a strip of images shows: all of them, or ``steps`` spread evenly over the codebook."""
        if steps >= self.size:
            return list(range(self.size))
        return [round(i * (self.size - 1) / (steps - 1)) for i in range(steps)]
