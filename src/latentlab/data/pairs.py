"""Pairs: for each image a partner that shares its factors but for some."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from latentlab.data.factors import FactorDataset


class Pairs:
    """Partners of images, drawn so that all factors but some stay as they are.

    On a full grid of factors the changed ones are drawn anew, uniformly from all their values, so that one may come
    out as it was; a correlation of the data set is not followed there. Elsewhere the partner is one of the other
    images with the same values of the unchanged factors, and an image without such another is its own partner.

    Args:
        dataset: images with factors.
        changed: how many factors change, the same number for every image; which ones is drawn for each. None
            draws the number too, uniformly from 1 to one less than there are factors. Factors with a single value
            don't count. Both need a full grid.
        changing: names of the factors that change, in place of a draw. An empty list is for a data set that is no
            full grid: a pair is then two images with the same factors.
        mirrored: whether the pairs in the second half of every batch change the other factors, those that ``changing``
            does not name, and keep these. Needs a full grid.

    Raises:
        ValueError: for a data set without factors, or factors and numbers that leave nothing to share or to change.

    References:
        Weakly-Supervised Disentanglement Without Compromises (Locatello et al., 2020),
        https://arxiv.org/abs/2002.02886, whose pairs are those of ``changed``. Its published program draws a single
        change for half of the pairs whatever the number asked for; here the number is what it says.
    """

    def __init__(
        self,
        dataset: FactorDataset,
        changed: int | None = None,
        changing: Sequence[str] | None = None,
        mirrored: bool = False,
    ) -> None:
        space = dataset.factor_space
        if space is None:
            raise ValueError(
                f"Pairs share factors, and data set {dataset.name!r} has no ground-truth factors; "
                "take one that has."
            )
        self.dataset = dataset
        self.changed = changed
        self.mirrored = mirrored
        if mirrored and not (changing and dataset.is_grid):
            raise ValueError(
                "Mirrored pairs need named factors that change and a full grid of factors, in which any value goes "
                f"with any other; got changing={changing} of data set {dataset.name!r}."
            )
        self._sizes = np.array(space.sizes)
        self._columns = [k for k, size in enumerate(space.sizes) if size > 1]
        self._changing: list[int] | None = None
        if changing is not None:
            self._changing = sorted({space.position(name) for name in changing})
            if changed is not None:
                raise ValueError(
                    f"Pairs change {changed} factors drawn at random or the named ones {list(changing)}; give one."
                )
            if not set(self._columns) - set(self._changing):
                raise ValueError(
                    f"A pair must share a factor, and {', '.join(changing)} are all that data set "
                    f"{dataset.name!r} has; name fewer."
                )
            if dataset.is_grid and not set(self._columns) & set(self._changing):
                raise ValueError(
                    f"In data set {dataset.name!r} each image has factors of its own, so a pair must change one of "
                    f"{', '.join(space.names)}; got {list(changing)}."
                )
            if not dataset.is_grid:
                self._find_groups()
            return
        if not dataset.is_grid:
            raise ValueError(
                f"Factors that change at random need a full grid of them, and data set {dataset.name!r} is none; "
                f"name the factors that change among {', '.join(space.names)}, or none of them."
            )
        most = len(self._columns) - 1
        if most < 1 or (changed is not None and not 1 <= changed <= most):
            asked = "" if changed is None else f", from 1 to {max(most, 0)}; got {changed}"
            raise ValueError(
                f"A pair must change a factor and share one, which data set {dataset.name!r} allows for {max(most, 0)} "
                f"changed factors at most{asked}."
            )

    def of(self, indices: Tensor, seed: int, step: int) -> Tensor:
        """Indices of the partners, a pure function of the arguments, the same on every device.

        Args:
            indices: images (n,).
            seed: a non-negative int.
            step: a non-negative int.

        Returns:
            Int64 (n,), on the data set's device.
        """
        rng = np.random.default_rng((seed, step))
        indices = indices.to(self.dataset.device)
        if not self.dataset.is_grid:
            return self._another(indices, torch.from_numpy(rng.random(len(indices))))
        values = torch.from_numpy(rng.integers(self._sizes, size=(len(indices), len(self._sizes))))
        mask = torch.from_numpy(self._which(rng, len(indices)))
        # Drawn on the CPU, so that every device sees the same partners, and sent over without waiting.
        values, mask = (part.to(indices.device, non_blocking=True) for part in (values, mask))
        return self.dataset.index(torch.where(mask, values, self.dataset.factors(indices)))

    def _which(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Which factors of each image change, bool (n, factors)."""
        mask = np.zeros((n, len(self._sizes)), dtype=bool)
        if self._changing is not None:
            mask[:, self._changing] = True
            if self.mirrored:
                mask[n // 2 :] = ~mask[n // 2 :]
            return mask
        eligible = len(self._columns)
        count = rng.integers(1, eligible, size=n) if self.changed is None else np.full(n, self.changed)
        ranks = rng.random((n, eligible)).argsort(1).argsort(1)
        mask[:, self._columns] = ranks < count[:, None]
        return mask

    def _find_groups(self) -> None:
        """Sorts all images by their unchanged factors: where each image's group begins, its size, the place in it."""
        factors = self.dataset.factors(torch.arange(len(self.dataset))).cpu()
        kept = [k for k in range(len(self._sizes)) if k not in set(self._changing or ())]
        _, group, sizes = factors[:, kept].unique(dim=0, return_inverse=True, return_counts=True)
        if int(sizes.max()) < 2:
            names = ", ".join(self.dataset.labels[k] for k in kept)
            raise ValueError(
                f"No two images of data set {self.dataset.name!r} share their {names}; name more factors that change."
            )
        order = group.argsort(stable=True)
        begin = sizes.cumsum(0) - sizes
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order)) - begin[group[order]]
        self._groups = order, begin[group], sizes[group], place

    def _another(self, indices: Tensor, chance: Tensor) -> Tensor:
        """Another image of each image's group; ``chance`` float64 (n,) in [0, 1) says which."""
        self._groups = order, begin, size, place = tuple(part.to(indices.device) for part in self._groups)
        size, begin, place = size[indices], begin[indices], place[indices]
        onward = 1 + (chance.to(indices.device, non_blocking=True) * (size - 1)).long()
        return order[begin + (place + onward) % size]
