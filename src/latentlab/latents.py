"""The latent space: ordered, named blocks of coordinates, and distributions over them.

Symbols: ``z`` is a code, one flat tensor (batch, dim); a *block* is a run of coordinates with one prior; ``q``
is a posterior over ``z`` given an image. Everything that speaks of latents speaks of these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, OneHotCategorical
from torch.distributions import Normal as NormalDistribution

ACTIVE_NATS = 0.1
"""A coordinate whose mean KL to the prior exceeds this, nats, counts as active everywhere."""

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


@dataclass(frozen=True)
class Categorical:
    """One categorical variable, uniform over ``dim`` categories, its code a one-hot row of ``dim`` numbers."""

    kind: ClassVar[str] = "categorical"

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


PRIORS: dict[str, type] = {prior.kind: prior for prior in (Normal, Uniform, Categorical)}
Prior = Normal | Uniform | Categorical


@dataclass(frozen=True)
class Block:
    """A named run of coordinates with one prior, such as ``Block("pose", 6)`` or ``Block("class", 10, Categorical)``.

    Args:
        name: an identifier; its coordinates are called name0, name1, …
        dim: number of coordinates (of categories for a categorical block), at least 1.
        prior: a prior or its class; standard normal by default.
    """

    name: str
    dim: int
    prior: Prior = field(default_factory=Normal)

    def __post_init__(self) -> None:
        if isinstance(self.prior, type):
            object.__setattr__(self, "prior", self.prior())
        if not isinstance(self.prior, Prior):
            raise TypeError(f"A block's prior must be one of {sorted(PRIORS)}; got {self.prior!r}.")
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise ValueError(f"A block's name must be an identifier such as 'pose'; got {self.name!r}.")
        if not isinstance(self.dim, int) or self.dim < 1:
            raise ValueError(f"Block {self.name!r} needs at least 1 coordinate; got dim={self.dim!r}.")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the coordinates: block "pose" of dim 2 has pose0 and pose1."""
        return tuple(f"{self.name}{i}" for i in range(self.dim))


class LatentSpace:
    """An ordered set of blocks; a latent of it is one flat tensor ``z`` (batch, dim).

    Args:
        blocks: the blocks in the order in which their coordinates stand in ``z``.
        name: the name of the space ("z", "w", …). A code belongs to the space it was found in.

    Raises:
        ValueError: on no blocks or on names that collide.
    """

    def __init__(self, blocks: Sequence[Block], name: str = "z") -> None:
        self.blocks: tuple[Block, ...] = tuple(blocks)
        self.name = name
        if not self.blocks:
            raise ValueError("A latent space needs at least one block; got none.")
        self.names: tuple[str, ...] = tuple(name for block in self.blocks for name in block.names)
        if len(set(self.names)) < len(self.names) or len(set(self.block_names)) < len(self.blocks):
            raise ValueError(
                f"The blocks of a latent space need distinct names; got {list(self.block_names)}."
            )
        self.dim: int = len(self.names)
        self._position = {name: i for i, name in enumerate(self.names)}
        self._slices: dict[str, slice] = {}
        start = 0
        for block in self.blocks:
            self._slices[block.name] = slice(start, start + block.dim)
            start += block.dim

    @property
    def block_names(self) -> tuple[str, ...]:
        """Names of the blocks, in order."""
        return tuple(block.name for block in self.blocks)

    @property
    def mean(self) -> Tensor:
        """Mean of the prior, (dim,)."""
        return self._moment(0)

    @property
    def std(self) -> Tensor:
        """Standard deviation of the prior, (dim,)."""
        return self._moment(1)

    def _moment(self, order: int) -> Tensor:
        return torch.cat([torch.full((b.dim,), b.prior.moments(b.dim)[order]) for b in self.blocks])

    def slice(self, block: str) -> slice:
        """Where a block stands in ``z``.

        Raises:
            ValueError: if there is no such block.
        """
        if block not in self._slices:
            raise ValueError(
                f"No block {block!r} in latent space {self.name!r}; it has {list(self.block_names)}."
            )
        return self._slices[block]

    def block_of(self, dim: int | str) -> Block:
        """The block that holds a coordinate."""
        i = self.index(dim)
        return next(b for b in self.blocks if self._slices[b.name].start <= i < self._slices[b.name].stop)

    def index(self, dim: int | str) -> int:
        """Position of a coordinate given by name ("z3") or by position (3, or -1 for the last).

        Raises:
            ValueError: if there is no such coordinate; the message lists the valid names.
        """
        if isinstance(dim, str) and dim in self._position:
            return self._position[dim]
        if isinstance(dim, str) and dim.lstrip("-").isdigit():
            dim = int(dim)
        if isinstance(dim, int) and not isinstance(dim, bool) and -self.dim <= dim < self.dim:
            return dim % self.dim
        if hasattr(dim, "__index__") and not isinstance(dim, (int, str)):
            return self.index(int(dim))
        shown = (
            ", ".join(self.names)
            if self.dim <= 12
            else f"{self.names[0]}, {self.names[1]}, … {self.names[-1]}"
        )
        raise ValueError(f"Expected a coordinate of latent space {self.name!r}; got {dim!r}. Valid: {shown}.")

    def split(self, z: Tensor) -> dict[str, Tensor]:
        """Splits codes (batch, dim) into {block name: (batch, block.dim)} views."""
        self.check(z)
        return {name: z[:, where] for name, where in self._slices.items()}

    def join(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Joins {block name: (batch, block.dim)} into codes (batch, dim); the inverse of ``split``."""
        if set(parts) != set(self.block_names):
            raise ValueError(f"Expected parts for the blocks {list(self.block_names)}; got {sorted(parts)}.")
        return torch.cat([parts[name] for name in self.block_names], dim=1)

    def check(self, z: Tensor) -> None:
        """Refuses anything that is no batch of codes of this space.

        Raises:
            ValueError: unless ``z`` is (batch, dim).
        """
        if z.ndim != 2 or z.shape[1] != self.dim:
            raise ValueError(
                f"Expected codes (batch, {self.dim}) of space {self.name!r}; got {tuple(z.shape)}."
            )

    def sample(self, n: int, seed: int, device: str | torch.device = "cpu") -> Tensor:
        """Draws codes (n, dim) from the prior; equal seeds give equal codes on every device."""
        return self.draw(n, torch.Generator().manual_seed(seed)).to(device)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draws codes (n, dim) from the prior with a generator, on that generator's device."""
        return torch.cat([b.prior.sample(n, b.dim, generator) for b in self.blocks], dim=1)

    def quantile(self, dim: int | str, p: float) -> float:
        """The prior's quantile of one coordinate.

        Args:
            dim: coordinate by name or position.
            p: a share strictly between 0 and 1.

        Raises:
            ValueError: on ``p`` outside (0, 1), or where the prior has no order (categorical).
        """
        if not 0.0 < p < 1.0:
            raise ValueError(f"A quantile needs 0 < p < 1; got p={p}.")
        return self.block_of(dim).prior.quantile(p)

    @property
    def posterior_size(self) -> int:
        """How many numbers an encoder gives an image, to say where in this space it lies."""
        return sum(b.prior.posterior_size(b.dim) for b in self.blocks)

    def posterior(self, numbers: Tensor) -> Posterior:
        """q(z | x) of an encoder's outputs.

        Args:
            numbers: (batch, posterior_size), block after block; for a normal block its means, then its
                log-variances (clamped to ±20), for a categorical one its logits.

        Raises:
            ValueError: on another width.
        """
        sizes = [b.prior.posterior_size(b.dim) for b in self.blocks]
        if numbers.ndim != 2 or numbers.shape[1] != sum(sizes):
            raise ValueError(
                f"Expected {sum(sizes)} numbers an image for a posterior over space {self.name!r}; "
                f"got {tuple(numbers.shape)}."
            )
        parts = zip(self.blocks, numbers.split(sizes, dim=1), strict=True)
        return Posterior(self, {b.name: b.prior.posterior(part) for b, part in parts})

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density of the prior at each coordinate, nats (batch, dim)."""
        parts = self.split(z)
        return torch.cat([b.prior.log_prob(parts[b.name]) for b in self.blocks], dim=1)

    @property
    def variables(self) -> tuple[int, ...]:
        """Of each coordinate, the number of the random variable it belongs to, counted from 0.

        A coordinate is a variable of its own, but the coordinates of a categorical block are one variable together.
        """
        found: list[int] = []
        for block in self.blocks:
            first = found[-1] + 1 if found else 0
            whole = isinstance(block.prior, Categorical)
            found += [first] * block.dim if whole else range(first, first + block.dim)
        return tuple(found)

    def to_dict(self) -> dict:
        """Plain numbers and strings, for JSON."""
        return {
            "name": self.name,
            "blocks": [
                {"name": b.name, "dim": b.dim, "prior": b.prior.kind, **vars(b.prior)} for b in self.blocks
            ],
        }

    @classmethod
    def from_dict(cls, spec: Mapping) -> LatentSpace:
        """The inverse of ``to_dict``.

        Raises:
            ValueError: on an unknown prior or a malformed block.
        """
        blocks = []
        for entry in spec["blocks"]:
            arguments = {k: v for k, v in entry.items() if k not in ("name", "dim", "prior")}
            kind = entry.get("prior", Normal.kind)
            if kind not in PRIORS:
                raise ValueError(f"Unknown prior {kind!r}; known: {sorted(PRIORS)}.")
            blocks.append(Block(entry["name"], entry["dim"], PRIORS[kind](**arguments)))
        return cls(blocks, name=spec.get("name", "z"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LatentSpace) and (self.name, self.blocks) == (other.name, other.blocks)

    def __hash__(self) -> int:
        return hash((self.name, self.blocks))

    def __repr__(self) -> str:
        blocks = ", ".join(f"{b.name}: {b.dim} {b.prior.kind}" for b in self.blocks)
        return f"LatentSpace({self.name!r}, {blocks})"


class Posterior:
    """A distribution over the codes of a space, one torch distribution per block.

    Args:
        space: the latent space.
        parts: {block name: distribution with batch shape (batch, block.dim)}; for a categorical block a
            ``OneHotCategorical`` or a relaxed one with event shape (block.dim,).
    """

    def __init__(self, space: LatentSpace, parts: Mapping[str, Distribution]) -> None:
        if set(parts) != set(space.block_names):
            raise ValueError(f"Expected distributions for {list(space.block_names)}; got {sorted(parts)}.")
        self.space = space
        self.parts = dict(parts)

    def _gather(self, of) -> Tensor:
        return torch.cat([of(self.parts[name]) for name in self.space.block_names], dim=1)

    @property
    def mean(self) -> Tensor:
        """Posterior mean (batch, dim); class probabilities for a categorical block.

        A statistic: what is decoded, edited or shown as an image's code is ``code()``.
        """
        return self._gather(lambda q: q.mean)

    def code(self) -> Tensor:
        """The one code (batch, dim) that stands for each posterior, a point of the space like any draw.

        The mean of a normal or uniform block; for a categorical one the likeliest category as a one-hot row,
        since a generator was trained on those and not on probabilities.
        """
        return torch.cat([b.prior.code(self.parts[b.name]) for b in self.space.blocks], dim=1)

    @property
    def variance(self) -> Tensor:
        """Posterior variance (batch, dim)."""
        return self._gather(lambda q: q.variance)

    @property
    def stddev(self) -> Tensor:
        """Posterior standard deviation (batch, dim)."""
        return self.variance.sqrt()

    @property
    def log_var(self) -> Tensor:
        """Log of the posterior variance (batch, dim), finite also where nothing varies any more.

        The floor is the log of the smallest normal number, -87.3 in 32 bits: a saturated category has variance 0.
        """
        variance = self.variance
        return variance.clamp_min(torch.finfo(variance.dtype).tiny).log()

    def sample(self, seed: int) -> Tensor:
        """Draws codes (batch, dim), reproducibly and without a gradient."""
        device = self.mean.device
        with torch.no_grad():
            return self.rsample(torch.Generator(device=device).manual_seed(seed))

    def rsample(self, generator: torch.Generator) -> Tensor:
        """Draws codes (batch, dim) by reparametrisation, so that gradients reach the encoder.

        Args:
            generator: source of randomness, on the posterior's device; the global one is never used.

        Raises:
            TypeError: for a block whose distribution has no reparametrised sampler here.
        """
        return torch.cat([_rsample(self.parts[name], generator) for name in self.space.block_names], dim=1)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density at codes ``z``, nats per coordinate (batch, dim); on a categorical block as in its prior."""
        parts = self.space.split(z)
        return torch.cat([_log_prob(self.parts[n], parts[n]) for n in self.space.block_names], dim=1)

    def pairwise_log_prob(self, z: Tensor) -> Tensor:
        """Log density of every code under every posterior of the batch, nats (n, batch, variables).

        Args:
            z: codes (n, dim).

        Returns:
            At [i, j, k] log q(z_ik | x_j) of variable k: a coordinate, or a whole categorical block (see
            ``LatentSpace.variables``). Needs n x batch x variables numbers.
        """
        parts = self.space.split(z)
        found = [_pairwise_log_prob(self.parts[n], parts[n]) for n in self.space.block_names]
        return found[0] if len(found) == 1 else torch.cat(found, dim=2)

    def kl(self) -> Tensor:
        """KL(q || prior) in nats, (batch, dim): a block's KL is the sum over its coordinates."""
        return torch.cat([b.prior.kl(self.parts[b.name]) for b in self.space.blocks], dim=1)

    def __repr__(self) -> str:
        return f"Posterior({self.space!r}, batch={self.mean.shape[0]})"


def _rsample(q: Distribution, generator: torch.Generator) -> Tensor:
    if isinstance(q, NormalDistribution):
        noise = torch.randn(q.mean.shape, generator=generator, device=q.mean.device, dtype=q.mean.dtype)
        return q.mean + q.stddev * noise
    if isinstance(q, OneHotCategorical):
        chosen = torch.multinomial(q.probs, 1, generator=generator).squeeze(1)
        hard = torch.nn.functional.one_hot(chosen, q.probs.shape[-1]).to(q.probs)
        return hard + q.probs - q.probs.detach()  # straight-through: exact draw forward, gradient of the mean
    raise TypeError(f"No reparametrised sampler for {type(q).__name__}; use Normal or OneHotCategorical.")


def _log_prob(q: Distribution, z: Tensor) -> Tensor:
    if isinstance(q, OneHotCategorical):
        return z * (q.logits - q.logits.logsumexp(-1, keepdim=True))
    return q.log_prob(z)


def _pairwise_log_prob(q: Distribution, z: Tensor) -> Tensor:
    if isinstance(q, OneHotCategorical):
        return (z @ torch.log_softmax(q.logits, -1).T)[:, :, None]
    if isinstance(q, NormalDistribution):
        # Scaled first and squared in place of torch's own log_prob: half the passes over (n, batch, dim) numbers.
        std = q.stddev
        away = z[:, None] / std - q.mean / std
        return torch.addcmul(-std.log() - 0.5 * math.log(2.0 * math.pi), away, away, value=-0.5)
    return q.log_prob(z[:, None])
