"""The latent space: ordered, named blocks of coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from latentlab.latents.codebook import Codebook
from latentlab.latents.posterior import Posterior
from latentlab.latents.priors import PRIORS, Categorical, Normal, Prior


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

    def nearest(self, z: Tensor) -> Tensor:
        """Codes (batch, dim) as a generator knows them: categories are one-hot and indices whole, the rest stays.

        Means and blends of codes lie between the categories; this gives each its largest.
        """
        parts = self.split(z)
        for block in self.blocks:
            part = parts[block.name]
            if isinstance(block.prior, Categorical):
                parts[block.name] = torch.nn.functional.one_hot(part.argmax(1), block.dim).to(z.dtype)
            elif isinstance(block.prior, Codebook):
                parts[block.name] = part.round().clamp(0, block.prior.size - 1)
        return self.join(parts)

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
