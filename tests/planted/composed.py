"""A conv encoder set by hand in which lines compose to corners and corners to a whole, at one stage each.

x (1, 20, 20) holds, in lines a pixel wide: a square, a plus, or the square's corners lying loose.

* "lines": 2 units, 1 where a pixel and both its neighbours are lit, along the row and along the column.
* "corners": 5 units, 1 at the corner of two lines (four kinds) and at their crossing.
* "wholes": 2 units, 1 on the 5 x 5 pixels of a square whose four corners are in place, and of a crossing's plus.
* "code": 2 numbers, how much of each there is.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from latentlab.analysis.concepts import ConceptMasks
from latentlab.models.staged import StagedNetwork

SIDE, REACH = 20, 2
CORNERS = {"top left": (1, 1), "top right": (1, -1), "bottom left": (-1, 1), "bottom right": (-1, -1)}
"""Which way, in rows and columns, the two lines of a corner leave it."""


def composed_network() -> StagedNetwork:
    """The encoder, alone, as a staged network of images."""
    lines = nn.Conv2d(1, 2, 3, padding=1)
    corners = nn.Conv2d(2, 5, 3, padding=1)
    wholes = nn.Conv2d(5, 2, 2 * REACH + 1, padding=REACH)
    fill = nn.Conv2d(2, 2, 2 * REACH + 1, padding=REACH, groups=2, bias=False)
    with torch.no_grad():
        for layer, bias in ((lines, [-2.0] * 2), (corners, [-1.0] * 5), (wholes, [-3.0, 0.0])):
            layer.weight.zero_()
            layer.load_state_dict({"weight": layer.weight, "bias": torch.tensor(bias)})
        lines.weight[0, 0, 1, :] = 1.0
        lines.weight[1, 0, :, 1] = 1.0
        for unit, (down, right) in enumerate(CORNERS.values()):
            corners.weight[unit, 0, 1, 1 + right] = 1.0
            corners.weight[unit, 1, 1 + down, 1] = 1.0
            corners.weight[unit, :, 1, 1] = -1.0  # where lines cross, none ends
            wholes.weight[0, unit, REACH - REACH * down, REACH - REACH * right] = 1.0
        corners.weight[4, :, 1, 1] = 1.0
        wholes.weight[1, 4, REACH, REACH] = 1.0
        fill.weight.fill_(1.0)
    stages = {
        "lines": nn.Sequential(lines, nn.ReLU()),
        "corners": nn.Sequential(corners, nn.ReLU()),
        "wholes": nn.Sequential(wholes, nn.ReLU(), fill),
        "code": nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()),
    }
    return StagedNetwork(stages, "encoder")


def pictures(n: int = 48, seed: int = 0) -> tuple[Tensor, ConceptMasks]:
    """Images (n, 1, 20, 20) of the three kinds in turn, at random places, and exact masks of what they show."""
    rng = np.random.default_rng(seed)
    images = np.zeros((n, SIDE, SIDE), dtype=np.float32)
    names = ("line along rows", "line along columns", *CORNERS, "crossing", "square", "plus")
    masks = np.zeros((n, len(names), SIDE, SIDE), dtype=bool)
    width = 2 * REACH + 1
    for i in range(n):
        kind = i % 3
        row, column = rng.integers(0, SIDE - width + 1, 2)
        if kind == 2:
            # One corner a quarter of the image, so that none touches another and no square stands.
            quarters = rng.permutation([(0, 0), (0, 10), (10, 0), (10, 10)])
            for unit, ((down, right), (top, left)) in enumerate(zip(CORNERS.values(), quarters, strict=True)):
                y, x = (int(v) for v in rng.integers(1, 4, 2))
                y, x = top + (y if down > 0 else y + 4), left + (x if right > 0 else x + 4)
                for step in range(4):
                    images[i, y + step * down, x] = images[i, y, x + step * right] = 1.0
                masks[i, 2 + unit, y, x] = True
            continue
        box = slice(row, row + width), slice(column, column + width)
        masks[i, 7 + kind][box] = True
        if kind == 0:
            images[i][box] = 1.0
            images[i, row + 1 : row + width - 1, column + 1 : column + width - 1] = 0.0
            for unit, (down, right) in enumerate(CORNERS.values()):
                masks[
                    i,
                    2 + unit,
                    row + (0 if down > 0 else width - 1),
                    column + (0 if right > 0 else width - 1),
                ] = True
        else:
            images[i, row + REACH, box[1]] = images[i, box[0], column + REACH] = 1.0
            masks[i, 6, row + REACH, column + REACH] = True
    lit = np.pad(images > 0, ((0, 0), (1, 1), (1, 1)))
    masks[:, 0] = lit[:, 1:-1, :-2] & lit[:, 1:-1, 1:-1] & lit[:, 1:-1, 2:]
    masks[:, 1] = lit[:, :-2, 1:-1] & lit[:, 1:-1, 1:-1] & lit[:, 2:, 1:-1]
    levels = ("edge",) * 2 + ("part",) * 5 + ("whole",) * 2
    return torch.from_numpy(images)[:, None], ConceptMasks(names, levels, masks)
