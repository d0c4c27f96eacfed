"""The codes by which variance is shared out: one latent exchanged and all others kept, and the sums over them.

Internal to this package; ``sobol`` is what people call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from latentlab.latents import Categorical, Codebook, LatentSpace, Normal, Uniform

Variable = tuple[str, list[int]]
"""A latent variable: its name and the positions of its coordinates."""
Progress = Callable[[int, int], object] | None


@dataclass
class Sums:
    """Sums over draws, from which shares are made, and per-draw pooled sums, from which the bootstrap is made.

    Attributes:
        first: sums for V_i, (variables + 1, …); the last is the latent that drives nothing.
        total: sums for the total variance, (variables + 1, …).
        variance: Var f, (…).
        first_each: contributions of each draw to the pooled ``first``, (variables + 1, n).
        total_each: the same of ``total``.
        moments_each: pooled squared distance of each draw from the mean of all, (n,).
    """

    first: np.ndarray
    total: np.ndarray
    variance: np.ndarray
    first_each: np.ndarray
    total_each: np.ndarray
    moments_each: np.ndarray

    @property
    def count(self) -> int:
        """How many draws there are."""
        return self.first_each.shape[1]

    def pooled(self, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """First-order and total shares (variables + 1,), of all draws or of some of them."""
        where = slice(None) if rows is None else rows
        variance = max(float(self.moments_each[where].mean()), np.finfo(float).tiny)
        return (
            self.first_each[:, where].mean(axis=1) / variance,
            self.total_each[:, where].mean(axis=1) / variance,
        )

    def each(self, still: float) -> tuple[np.ndarray, np.ndarray]:
        """Shares (variables, …) of every number; NaN where it varies less than ``still`` of the most varying."""
        return self._shares(self.first[:-1], self.total[:-1], self.variance, still)

    def unit_variance(self) -> np.ndarray:
        """Variance of each unit (units,), the mean over its map."""
        return self.variance.reshape(len(self.variance), -1).mean(axis=1)

    def each_unit(self, still: float) -> tuple[np.ndarray, np.ndarray]:
        """Shares (variables, units), a unit's map pooled."""
        first, total = (a[:-1].reshape(*a[:-1].shape[:2], -1).mean(axis=2) for a in (self.first, self.total))
        return self._shares(first, total, self.unit_variance(), still)

    @staticmethod
    def _shares(
        first: np.ndarray, total: np.ndarray, variance: np.ndarray, still: float
    ) -> tuple[np.ndarray, np.ndarray]:
        varies = variance > still * variance.max()
        safe = np.where(varies, variance, 1.0)
        return np.where(varies, first / safe, np.nan), np.where(varies, total / safe, np.nan)


class Swaps(Protocol):
    """Codes in which latents are exchanged one at a time."""

    method: str

    @property
    def calls(self) -> int:
        """How many codes are run."""
        ...

    def accumulate(
        self, values: Callable[[Tensor], Tensor], device: torch.device, batch_size: int, progress: Progress
    ) -> Sums:
        """Runs all codes through ``values``, codes (n, dim) to numbers (n, …), and sums up."""
        ...


def variables_of(place: LatentSpace, dims: Sequence[int | str] | None) -> list[Variable]:
    """The variables of a space that are asked for, each with its coordinates; all for None."""
    numbers = place.variables
    asked = sorted({numbers[place.index(d)] for d in dims}) if dims is not None else sorted(set(numbers))
    if not asked:
        raise ValueError("dims names no latent; give at least one, or None for all.")
    found = []
    for number in asked:
        where = [i for i, v in enumerate(numbers) if v == number]
        block = place.block_of(where[0])
        found.append((block.name if isinstance(block.prior, Categorical) else place.names[where[0]], where))
    return found


class IndependentSwaps:
    """Pairs of independent codes A and B of the prior, and A with one variable of B."""

    method = "independent"

    def __init__(self, place: LatentSpace, n: int, chosen: Sequence[Variable], seed: int) -> None:
        from scipy.stats import qmc  # slow to import

        everything = variables_of(place, None)
        points = qmc.Sobol(2 * len(everything), scramble=True, rng=np.random.default_rng([seed, 0]))
        u = points.random_base2(n.bit_length() - 1).clip(1e-9, 1.0 - 1e-9)
        self.a, self.b = (
            np.concatenate(
                [_from_uniform(place, where, part[:, k]) for k, (_, where) in enumerate(everything)], 1
            )
            for part in (u[:, : len(everything)], u[:, len(everything) :])
        )
        self.chosen = list(chosen)

    @property
    def calls(self) -> int:
        """Codes that are run, n (variables + 3): A, B, one exchange a variable, and A once more for the null."""
        return len(self.a) * (len(self.chosen) + 3)

    def accumulate(
        self, values: Callable[[Tensor], Tensor], device: torch.device, batch_size: int, progress: Progress
    ) -> Sums:
        """Saltelli's (2010) first-order and Jansen's total estimator.

        Each exchange runs in a batch of its own, so that codes that are equal are computed separately.
        """
        count = len(self.chosen) + 1
        firsts: list[list[Tensor]] = [[] for _ in range(count)]
        totals: list[list[Tensor]] = [[] for _ in range(count)]
        moments: list[Tensor] = []
        first_sum: list = [0.0] * count
        total_sum: list = [0.0] * count
        middle: Tensor | None = None
        once: Tensor | float = 0.0
        squares: Tensor | float = 0.0
        done, rows = 0, min(batch_size, len(self.a))
        for start in range(0, len(self.a), rows):
            a, b = (m[start : start + rows] for m in (self.a, self.b))
            fa, fb = (values(torch.as_tensor(m, dtype=torch.float32, device=device)) for m in (a, b))
            if middle is None:  # any constant does; one near the mean keeps the noise of the product down
                middle = (fa.mean(0) + fb.mean(0)) / 2
            fa, fb = fa - middle, fb - middle
            once, squares = once + fa.sum(0) + fb.sum(0), squares + fa.square().sum(0) + fb.square().sum(0)
            moments.append(_pooled((fa.square() + fb.square()) / 2))
            for k in range(count):
                mixed = a.copy()
                if k < len(self.chosen):
                    where = self.chosen[k][1]
                    mixed[:, where] = b[:, where]
                change = values(torch.as_tensor(mixed, dtype=torch.float32, device=device)) - middle - fa
                first, total = fb * change, change.square() / 2
                first_sum[k], total_sum[k] = first_sum[k] + first.sum(0), total_sum[k] + total.sum(0)
                firsts[k].append(_pooled(first))
                totals[k].append(_pooled(total))
            done += (count + 2) * len(a)
            if progress is not None:
                progress(done, self.calls)
        n = len(self.a)
        mean = torch.as_tensor(once) / (2 * n)
        variance = (torch.as_tensor(squares) / (2 * n) - mean.square()).clamp_min(0.0)
        shift = float(mean.square().sum())
        each = torch.cat(moments).cpu().numpy() - shift
        return Sums(
            first=torch.stack([torch.as_tensor(s) for s in first_sum]).cpu().numpy() / n,
            total=torch.stack([torch.as_tensor(s) for s in total_sum]).cpu().numpy() / n,
            variance=variance.cpu().numpy(),
            first_each=np.stack([torch.cat(f).cpu().numpy() for f in firsts]),
            total_each=np.stack([torch.cat(t).cpu().numpy() for t in totals]),
            moments_each=each,
        )


class ConditionalSwaps:
    """Dependent codes: the next code in z_i for first-order shares, z_i drawn anew given all others for total ones."""

    method = "conditional"

    def __init__(self, place: LatentSpace, codes: Tensor, chosen: Sequence[Variable], seed: int) -> None:
        if any(isinstance(b.prior, (Categorical, Codebook)) for b in place.blocks):
            raise ValueError(
                f"Conditional swaps need ordered coordinates, and space {place.name!r} holds categories; drop "
                "data_codes= for the shares under the prior."
            )
        if len(codes) < 16:
            raise ValueError(f"Conditional swaps need at least 16 codes; got {len(codes)}.")
        self.codes = codes.double().cpu().numpy()
        self.chosen = list(chosen)
        self.rng = np.random.default_rng([seed, 2])

    @property
    def calls(self) -> int:
        """Codes that are run, n (variables + 2): the codes, one exchange a variable, the null."""
        return len(self.codes) * (len(self.chosen) + 2)

    def accumulate(
        self, values: Callable[[Tensor], Tensor], device: torch.device, batch_size: int, progress: Progress
    ) -> Sums:
        """Ranks for the first order; Jansen's estimator of the total share, with conditional draws."""
        n, done = len(self.codes), 0

        def run(codes: np.ndarray) -> Tensor:
            nonlocal done
            parts = []
            for part in torch.as_tensor(codes, dtype=torch.float32).split(batch_size):
                parts.append(values(part.to(device)).cpu())
                done += len(part)
                if progress is not None:
                    progress(done, self.calls)
            return torch.cat(parts)

        f = run(self.codes)
        centred = f - f.mean(0)
        first, total, first_each, total_each = [], [], [], []
        for k in range(len(self.chosen) + 1):
            mixed, following = self.codes.copy(), self.rng.permutation(n)
            if k < len(self.chosen):
                (where,) = self.chosen[k][1]
                mixed[:, where] = self._anew(where)
                order = np.argsort(self.codes[:, where], kind="stable")
                following = np.empty(n, dtype=int)
                following[order] = np.roll(order, -1)
                following[order[-1]] = order[-2]  # the last has no next one; the code before it is as near
            both = centred * centred[torch.as_tensor(following)]
            change = (run(mixed) - f).square() / 2
            for part, sums, each in ((both, first, first_each), (change, total, total_each)):
                sums.append(part.mean(0).numpy())
                each.append(_pooled(part).numpy())
        square = centred.square()
        return Sums(
            first=np.stack(first),
            total=np.stack(total),
            variance=square.mean(0).numpy(),
            first_each=np.stack(first_each),
            total_each=np.stack(total_each),
            moments_each=_pooled(square).numpy(),
        )

    def _anew(self, where: int) -> np.ndarray:
        """A coordinate drawn given all others: predicted linearly, plus the residual of another code."""
        rest = np.delete(self.codes, where, axis=1)
        design = np.concatenate([rest, np.ones((len(rest), 1))], axis=1)
        own = self.codes[:, where]
        predicted = design @ np.linalg.lstsq(design, own, rcond=None)[0]
        return predicted + (own - predicted)[self.rng.permutation(len(own))]


def _pooled(each: Tensor) -> Tensor:
    """The sum over all numbers of each draw, (n,) of (n, …)."""
    return each.flatten(1).sum(1) if each.ndim > 1 else each


def _from_uniform(place: LatentSpace, where: Sequence[int], u: np.ndarray) -> np.ndarray:
    """A variable's coordinates (n, dims) of numbers in (0, 1)."""
    prior = place.block_of(where[0]).prior
    if isinstance(prior, Normal):
        return ndtri(u)[:, None]
    if isinstance(prior, Uniform):
        return (prior.low + (prior.high - prior.low) * u)[:, None]
    if isinstance(prior, Categorical):
        return np.eye(len(where))[np.floor(u * len(where)).astype(int)]
    if isinstance(prior, Codebook):
        return np.floor(u * prior.size)[:, None]
    raise ValueError(f"Space {place.name!r} has no prior to draw from; give data_codes=.")
