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
        self._known: dict[float, Tensor] = {}

    def of(self, indices: Tensor, share: float, factors: Sequence[str] = ()) -> Tensor | None:
        """Factors (batch, factors) of images, rows of -1 where an image is not labelled; None for a share of 0.

        Args:
            indices: images (batch,).
            share: share of the data set's images that are labelled, 0 to 1.
            factors: names of the factors wanted, all by default.
        """
        if not share:
            return None
        labels = self.dataset.factors(indices).to(self.dataset.device)
        if factors:
            labels = labels[:, [self.dataset.labels.index(name) for name in factors]]
        if share == 1.0:
            return labels
        if share not in self._known:
            # The same images at every step: a share of each batch would in time label them all.
            n = len(self.dataset)
            generator = torch.Generator().manual_seed(stream_seed(self.seed, "labels", 0))
            chosen = torch.randperm(n, generator=generator)[: max(1, round(share * n))]
            self._known[share] = torch.zeros(n, dtype=torch.bool).index_fill_(0, chosen, True)
        known = self._known[share] = self._known[share].to(labels.device)
        return labels.where(known[indices.to(labels.device)][:, None], -1)
