"""Where codes may go while something is maximised over them: where the prior has its mass.

Internal to this package.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from latentlab.latents import Categorical, Codebook, LatentSpace, Normal, Uniform

_TAIL = 5e-5
_MOST_CHOICES = 32


class PriorRegion:
    """The region of a space: a shell for its normal coordinates together, a box for uniform ones, else choices.

    In many dimensions a normal distribution has its mass in a shell around 0 and none near it: the shell holds 99.99 %
    of it, so that it ends about where the furthest of ten thousand draws do. Categories are not moved but chosen.

    Args:
        space: a latent space with a prior in closed form.
    """

    def __init__(self, space: LatentSpace) -> None:
        from scipy.stats import chi

        self.space = space
        at: dict[type, Tensor] = {
            kind: torch.zeros(space.dim, dtype=torch.bool)
            for kind in (Normal, Uniform, Categorical, Codebook)
        }
        self._low, self._high = torch.full((space.dim,), -torch.inf), torch.full((space.dim,), torch.inf)
        for block in space.blocks:
            where = space.slice(block.name)
            at[type(block.prior)][where] = True
            if isinstance(block.prior, Uniform):
                self._low[where], self._high[where] = block.prior.low, block.prior.high
        self._normal, self._indices = at[Normal], at[Codebook]
        self.free = at[Normal] | at[Uniform]
        self.shell = tuple(float(r) for r in chi.ppf((_TAIL, 1.0 - _TAIL), max(int(self._normal.sum()), 1)))

    @property
    def discrete(self) -> bool:
        """Whether the codes are indices of a codebook."""
        return bool(self._indices.any())

    def inside(self, codes: Tensor) -> Tensor:
        """The nearest codes (n, dim) within the region."""
        codes = codes.clamp(self._low.to(codes), self._high.to(codes))
        normal = self._normal.to(codes.device)
        radius = torch.where(normal, codes, 0.0).norm(dim=1, keepdim=True)
        wanted = radius.clamp(*self.shell)
        return torch.where(normal, codes * wanted / radius.clamp_min(1e-12), codes)

    def radius_percentiles(self, codes: Tensor) -> Tensor | None:
        """Share of the prior, in per cent, whose normal coordinates are nearer to 0, (n,); None without any."""
        from scipy.stats import chi

        if not self._normal.any():
            return None
        radius = codes[:, self._normal.to(codes.device)].norm(dim=1).cpu().numpy()
        return torch.as_tensor(100.0 * chi.cdf(radius, int(self._normal.sum())))

    def choices(self, codes: Tensor) -> Tensor:
        """Codes (n, choices, dim) with every combination of categories; with more than 32, the codes' own alone."""
        blocks = [b for b in self.space.blocks if isinstance(b.prior, Categorical)]
        combinations = list(
            itertools.islice(itertools.product(*(range(b.dim) for b in blocks)), _MOST_CHOICES + 1)
        )
        if not blocks or len(combinations) > _MOST_CHOICES:
            return codes[:, None].clone()
        chosen = codes[:, None].repeat(1, len(combinations), 1)
        for i, combination in enumerate(combinations):
            for block, category in zip(blocks, combination, strict=True):
                row = one_hot(torch.tensor(category), block.dim)
                chosen[:, i, self.space.slice(block.name)] = row.to(codes)
        return chosen

    def neighbours(self, codes: Tensor, count: int, chance: torch.Generator) -> Tensor:
        """Codes (n, count, dim) with one index each replaced by another at random; the first are the codes' own."""
        sizes = torch.zeros(self.space.dim)
        for block in self.space.blocks:
            if isinstance(block.prior, Codebook):
                sizes[self.space.slice(block.name)] = block.prior.size
        proposed = codes[:, None].repeat(1, count, 1)
        n = len(codes)
        places = torch.nonzero(self._indices)[:, 0]
        at = places[torch.randint(len(places), (n, count - 1, 1), generator=chance)]
        value = (torch.rand((n, count - 1, 1), generator=chance) * sizes[at]).floor()
        proposed[:, 1:].scatter_(2, at.to(codes.device), value.to(codes))
        return proposed
