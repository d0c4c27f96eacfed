"""The codes of every state of a data set: encode once, look up as often as a metric asks.

The field's sampled metrics ask for millions of images. Codes are a function of the state, so each state is
encoded one time and the metrics draw rows of the table instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from latentlab.metrics.mutual_information import relabel
from latentlab.metrics.representation import as_codes, as_factors


class StateTable:
    """Codes of all states, and how to draw states with one factor held.

    Args:
        codes: (states, d), numpy or torch.
        factor_sizes: number of values of each factor, (k,); the states are then the full grid, row-major, the
            last factor fastest. May be None when ``factors`` is given.
        factors: the factors of each row, whole numbers (states, k), for data that is no full grid: holding a
            factor then means drawing among the rows that share its value.

    Attributes:
        codes: float64 (states, d).
        factors: int64 (states, k), counted 0, 1, 2, ….
        sizes: number of values of each factor that occur, (k,).

    Raises:
        ValueError: if the sizes do not make up the number of rows, or there is no factor.
    """

    def __init__(self, codes: Any, factor_sizes: Sequence[int] | None = None, factors: Any = None) -> None:
        self.codes = as_codes(codes)
        if factors is None:
            if factor_sizes is None or not len(factor_sizes):
                raise ValueError("A table of states needs factor_sizes (a full grid) or factors (any rows).")
            sizes = np.asarray(factor_sizes, dtype=np.int64)
            if (sizes < 1).any() or int(np.prod(sizes)) != len(self.codes):
                raise ValueError(
                    f"factor_sizes {tuple(sizes.tolist())} make up {int(np.prod(sizes)):,} states, but there are "
                    f"{len(self.codes):,} codes; for data that is no full grid give factors instead."
                )
            self.factors = np.stack(np.unravel_index(np.arange(len(self.codes)), tuple(sizes)), axis=1)
            self.sizes = sizes
        else:
            given = as_factors(factors)
            if len(given) != len(self.codes):
                raise ValueError(
                    f"factors and codes must hold the same states; got {len(given)} and {len(self.codes)}."
                )
            self.factors, self.sizes = relabel(given)
        self._order: list[np.ndarray] = []
        self._starts: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []
        for column, size in enumerate(self.sizes):
            counts = np.bincount(self.factors[:, column], minlength=size)
            self._order.append(np.argsort(self.factors[:, column], kind="stable"))
            self._starts.append(np.concatenate([[0], np.cumsum(counts)[:-1]]))
            self._counts.append(counts)

    def __len__(self) -> int:
        return len(self.codes)

    def __repr__(self) -> str:
        grid = "x".join(str(s) for s in self.sizes)
        return f"StateTable({len(self):,} states, {self.codes.shape[1]} codes, factors {grid})"

    @property
    def varying(self) -> np.ndarray:
        """The factors that take more than one value; only these can be asked about."""
        return np.flatnonzero(self.sizes > 1)

    def with_codes(self, codes: Any) -> StateTable:
        """The same states with other codes, such as noise or the factors themselves."""
        other = object.__new__(StateTable)
        other.__dict__.update(self.__dict__)
        other.codes = as_codes(codes)
        if len(other.codes) != len(self.codes):
            raise ValueError(f"A table of {len(self):,} states can't hold {len(other.codes):,} codes.")
        return other

    def only(self, columns: Sequence[int]) -> StateTable:
        """The same states with some of the factors; the others still vary but are not asked about."""
        other = object.__new__(StateTable)
        chosen = [int(c) for c in columns]
        other.codes = self.codes
        other.factors, other.sizes = self.factors[:, chosen], self.sizes[chosen]
        for name in ("_order", "_starts", "_counts"):
            setattr(other, name, [getattr(self, name)[c] for c in chosen])
        return other

    def rows(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Rows of ``n`` states drawn uniformly with replacement, int64 (n,)."""
        return rng.integers(len(self.codes), size=n)

    def rows_with(self, column: int, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """For each value, a row drawn uniformly among those where factor ``column`` has it; same shape."""
        offset = rng.integers(self._counts[column][values])
        return self._order[column][self._starts[column][values] + offset]

    def sample(self, n: int, seed: int | np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Codes (n, d) and factors (n, k) of states drawn uniformly with replacement."""
        rows = self.rows(n, np.random.default_rng(seed))
        return self.codes[rows], self.factors[rows]
