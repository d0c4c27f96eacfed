"""Masks for any image by the nearest image that a data set of factors can draw; nothing is learned."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from latentlab.analysis.concepts import ConceptMasks, dataset_concepts


class NearestMasks:
    """Finds concepts in images by the nearest image that a data set of factors can draw; see ``nearest_masks``.

    Attributes:
        agreement: mean IoU of the wholes that it finds in images of the data set, slightly noisy and none of those
            that the search starts from, with their true masks.
        distance: root mean square pixel difference to the image found, of the last images given.
    """

    def __init__(self, data: Any, n: int, sweeps: int, seed: int) -> None:
        self.data, self.sweeps = data, sweeps
        self._start = data.sample(n, seed).cpu()
        self._coarse = torch.cat([_coarse(data.images(part).cpu()) for part in self._start.split(256)])
        self.distance = math.nan
        held = data.sample(16, seed + 1).cpu()
        clean = data.images(held).cpu()
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
        truth = dataset_concepts(data, held).select(levels=["whole"]).masks
        found = self((clean + 0.02 * noise).clamp(0, 1)).select(levels=["whole"]).masks
        union = (truth | found).sum((0, 2, 3))
        self.agreement = float(((truth & found).sum((0, 2, 3))[union > 0] / union[union > 0]).mean())

    def __call__(self, images: Tensor) -> ConceptMasks:
        """The concepts of the nearest drawings of images (n, channels, height, width) in [0, 1]."""
        return dataset_concepts(self.data, self.indices(images))

    def indices(self, images: Tensor) -> Tensor:
        """Indices (n,) of the nearest drawings."""
        lots = [self._search(part) for part in torch.as_tensor(images).detach().cpu().float().split(32)]
        self.distance = float(torch.cat([apart for _, apart in lots]).mean().sqrt())
        return torch.cat([found for found, _ in lots])

    def _search(self, images: Tensor) -> tuple[Tensor, Tensor]:
        data, space = self.data, self.data.factor_space
        found = self._start[torch.cdist(_coarse(images), self._coarse).argmin(dim=1)]
        best = (data.images(found).cpu() - images).square().flatten(1).mean(1)
        for _ in range(self.sweeps):
            before = found
            for column, size in enumerate(space.sizes):
                factors = space.factors(found)[:, None].repeat(1, size, 1)
                factors[:, :, column] = torch.arange(size)
                tried = space.index(factors.flatten(0, 1))
                drawn = data.images(tried).cpu().view(len(images), size, *images.shape[1:])
                apart = (drawn - images[:, None]).square().flatten(2).mean(2)
                best, choice = apart.min(dim=1)
                found = tried.view(len(images), size).gather(1, choice[:, None])[:, 0]
            if torch.equal(found, before):
                break
        return found, best


def nearest_masks(data: Any, *, n: int = 4096, sweeps: int = 3, seed: int = 0) -> NearestMasks:
    """A segment function: an image gets the masks of the nearest image, in pixels, that a data set can draw.

    The search starts at the nearest of ``n`` samples and then goes through the factors, taking the best value of each,
    until nothing changes.

    Args:
        data: a full grid of factors with masks, such as scenes.
        n: samples to start from.
        sweeps: how often to go through the factors at most.
        seed: of the samples.

    Raises:
        ValueError: if the data set is no full grid or knows no masks.
    """
    if not hasattr(data, "masks") or not data.is_grid:
        raise ValueError(f"Expected a full grid of factors with masks, such as scenes; got {data!r}.")
    return NearestMasks(data, n, sweeps, seed)


def _coarse(images: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(images, 16).flatten(1)
