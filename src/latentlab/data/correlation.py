"""Correlated factors: a training distribution over a factor grid in which some factors go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from latentlab.data.factors import FactorSpace

_LARGEST_TABLE = 20_000_000


class Correlation:
    """Correlated factors: ``p(a, b)`` proportional to ``exp(-(a - b)^2 / (2 sigma^2))``, the rest uniform.

    ``a`` and ``b`` are the values of two factors scaled to [0, 1], so sigma does not depend on how many
    values a factor has: 0.1 is a strong correlation, 0.2 a clear one, 0.7 a weak one. Several pairs multiply.

    Args:
        space: The factor grid.
        pairs: ``("x", "y", 0.2)``, a list of such triples, or ``{"x": "y"}`` / ``{"x": ("y", 0.2)}``;
            sigma is 0.2 where it is not given.

    Raises:
        ValueError: Unknown factor, a factor paired with itself, a sigma that is not positive, or too many
            factors tied together.

    References:
        On Disentangled Representations Learned from Correlated Data (Traeuble et al., 2021). There sigma is
        applied with a factor's own scale as alpha; here both factors are scaled to [0, 1].
    """

    def __init__(self, space: FactorSpace, pairs: object):
        self.space = space
        self.pairs = _read_pairs(space, pairs)
        self.columns = tuple(sorted({space.position(name) for a, b, _ in self.pairs for name in (a, b)}))
        shape = tuple(space.sizes[column] for column in self.columns)
        if int(np.prod(shape, dtype=object)) > _LARGEST_TABLE:
            names = ", ".join(space.names[column] for column in self.columns)
            raise ValueError(f"too many factors are correlated at once ({names}); correlate fewer of them")
        energy = np.zeros(shape)
        for a, b, sigma in self.pairs:
            scaled = []
            for name in (a, b):
                axis = self.columns.index(space.position(name))
                values = np.arange(shape[axis]) / max(shape[axis] - 1, 1)
                scaled.append(values.reshape([-1 if i == axis else 1 for i in range(len(shape))]))
            energy = energy - (scaled[0] - scaled[1]) ** 2 / (2 * sigma**2)
        table = np.exp(energy - energy.max())
        self.table = table / table.sum()
        """Joint probabilities of the tied factors, one axis a factor, in grid order; sums to 1."""
        self._cumulative = np.cumsum(self.table.reshape(-1))

    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        """Draw ``n`` grid indices, int64 (n,), independent and with replacement."""
        values = np.stack([rng.integers(size, size=n) for size in self.space.sizes], axis=-1)
        drawn = np.searchsorted(self._cumulative, rng.random(n) * self._cumulative[-1], side="right")
        drawn = np.minimum(drawn, self._cumulative.size - 1)
        for column, tied in zip(self.columns, np.unravel_index(drawn, self.table.shape), strict=True):
            values[:, column] = tied
        return self.space.index(values)


def _read_pairs(space: FactorSpace, spec: object) -> tuple[tuple[str, str, float], ...]:
    expected = 'expected ("x", "y", 0.2), a list of such triples, or {"x": "y"}'
    if isinstance(spec, Mapping):
        rows = [(a, *((b,) if isinstance(b, str) else tuple(b))) for a, b in spec.items()]
    elif isinstance(spec, Sequence) and not isinstance(spec, str):
        rows = [tuple(spec)] if spec and isinstance(spec[0], str) else [tuple(row) for row in spec]
    else:
        raise ValueError(f"cannot read the correlation {spec!r}; {expected}")
    pairs = []
    for row in rows:
        if len(row) not in (2, 3):
            raise ValueError(f"cannot read the correlation {row!r}; {expected}")
        a, b = (space.names[space.position(name)] for name in row[:2])
        try:
            sigma = float(row[2]) if len(row) == 3 else 0.2
        except (TypeError, ValueError):
            raise ValueError(f"the sigma of a correlation must be a number, got {row[2]!r}") from None
        if a == b:
            raise ValueError(f"factor {a!r} cannot be correlated with itself")
        if not sigma > 0:
            raise ValueError(f"the sigma of a correlation must be above 0, got {sigma}")
        pairs.append((a, b, sigma))
    if not pairs:
        raise ValueError(f"the correlation names no factors; {expected}")
    return tuple(pairs)
