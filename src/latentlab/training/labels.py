"""Which labels a training may read: those of the same few images at every step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from latentlab.data.factors import FactorDataset
from latentlab.training.chance import stream_seed


class Labels:
    """Ground-truth factors of a data set, of which only a share may be seen.

    Args:
        dataset: images with factors.
        seed: decides which images are labelled.
    """

    def __init__(self, dataset: FactorDataset, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed
        self._known: dict[tuple[float, tuple[str, ...]], Tensor] = {}

    def of(self, indices: Tensor, share: float, factors: Sequence[str] = ()) -> Tensor | None:
        """Factors (batch, factors) of images, rows of -1 where an image is not labelled; None for a share of 0.

        Args:
            indices: images (batch,).
            share: share of the data set's images that are labelled, 0 to 1.
            factors: names of the factors wanted, all by default. Of named ones each value, or combination of
                values where there are several, gets its share of the labels and at least one.
        """
        if not share:
            return None
        labels = self._columns(self.dataset.factors(indices), factors).to(self.dataset.device)
        if share == 1.0:
            return labels
        known = self.known(share, factors).to(labels.device)
        self._known[share, tuple(factors)] = known
        return labels.where(known[indices.to(labels.device)][:, None], -1)

    def known(self, share: float, factors: Sequence[str] = ()) -> Tensor:
        """Whether each image of the data set is labelled, bool (images,).

        Args:
            share: as in ``of``.
            factors: as in ``of``.
        """
        key = (share, tuple(factors))
        if key not in self._known:
            # The same images at every step: a share of each batch would in time label them all.
            n = len(self.dataset)
            generator = torch.Generator().manual_seed(stream_seed(self.seed, "labels", 0))
            order = torch.randperm(n, generator=generator)
            if factors:
                classes = self._columns(self.dataset.factors(torch.arange(n)), factors).cpu()
                chosen = _of_each_class(classes.unique(dim=0, return_inverse=True)[1], order, share)
            else:
                chosen = order[: max(1, round(share * n))]
            self._known[key] = torch.zeros(n, dtype=torch.bool).index_fill_(0, chosen, True)
        return self._known[key]

    def _columns(self, labels: Tensor, factors: Sequence[str]) -> Tensor:
        return labels[:, [self.dataset.labels.index(name) for name in factors]] if factors else labels


def _of_each_class(classes: Tensor, order: Tensor, share: float) -> Tensor:
    """A share of the images, in each class those that come first in an order.

    The whole numbers nearest to the classes' shares that add up to the share of all images (the largest remainders
    are rounded up), and none is 0.

    Args:
        classes: number of each image's class, (images,).
        order: all images, (images,).
        share: share of the images, above 0, below 1.
    """
    sizes = classes.bincount()
    exact = share * sizes.double()
    counts = exact.floor().long()
    left = round(share * len(classes)) - int(counts.sum())
    if left > 0:
        counts[(counts - exact).argsort(stable=True)[:left]] += 1
    counts.clamp_(min=1)
    by_class = order[classes[order].argsort(stable=True)]
    place = torch.arange(len(order)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return by_class[place < counts.repeat_interleave(sizes)]
