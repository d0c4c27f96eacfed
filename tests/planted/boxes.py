"""A data set of coloured boxes on a grey floor whose masks are known."""

from __future__ import annotations

import torch
from torch import Tensor

from latentlab.data.factors import FactorDataset, FactorSpace
from latentlab.data.sprites import hue_colors

SIDE, BOX, HUES = 16, 6, 6


class Boxes(FactorDataset):
    """A 6 x 6 box of one of six hues at one of 5 x 5 places, 16 x 16 pixels or ``zoom`` times as many."""

    mask_names = ("floor", "object")

    def __init__(self, zoom: int = 1) -> None:
        self.zoom, side = zoom, zoom * SIDE
        space = FactorSpace(("object_hue", "x", "y"), (HUES, 5, 5))
        super().__init__(
            "boxes", "made here", (3, side, side), len(space), space, circular={"object_hue": HUES}
        )

    def masks(self, indices) -> Tensor:
        """Floor and object, (n, 2, 16, 16)."""
        _, x, y = self.factors(indices).unbind(1)
        pixels = torch.arange(SIDE)
        columns = (pixels >= 2 * x[:, None]) & (pixels < 2 * x[:, None] + BOX)
        rows = (pixels >= 2 * y[:, None]) & (pixels < 2 * y[:, None] + BOX)
        inside = rows[:, :, None] & columns[:, None, :]
        inside = inside.repeat_interleave(self.zoom, 1).repeat_interleave(self.zoom, 2)
        return torch.stack([~inside, inside], dim=1)

    def _read(self, indices: Tensor) -> Tensor:
        hue = self.factors(indices)[:, 0]
        inside = self.masks(indices)[:, 1, None]
        return torch.where(inside, hue_colors(HUES)[hue][:, :, None, None], torch.full((1, 3, 1, 1), 0.3))
