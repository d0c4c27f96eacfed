"""F1: a ReLU decoder set by hand, in which each unit draws one known glyph at a known place, and three kinds of decoy.

z (5) -> "gates" (10 units, ReLU, flat) -> "maps" (10 units, 8 x 8, each unit's gate spread over its place) -> "output"
(one channel, 16 x 16, a transposed convolution that paints each unit's glyph).

* units 0 to 4: unit k is driven by latent k alone, relu(1 + z_k / 2), and draws GLYPHS[k] at PLACES[k].
* unit 5, "loud": the largest activation of all, zero outgoing weights: draws nothing.
* units 6 and 7, "cancelling": driven by latent 0, equal activations and exactly opposite glyphs: together nothing.
* units 8 and 9, "twins": driven by latent 1, the same glyph at the same place, half the strength needed each.

The image is exactly the sum of what the units draw.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentlab.latents import Block, LatentSpace
from latentlab.models.staged import StagedNetwork
from planted.model import PlantedModel

LATENTS, UNITS, SIDE = 5, 10, 16
PLAIN, LOUD, CANCELLING, TWINS = (0, 1, 2, 3, 4), 5, (6, 7), (8, 9)
PLACES = ((1, 1), (1, 5), (5, 1), (5, 5), (3, 3), (0, 0), (6, 3), (6, 3), (3, 6), (3, 6))
"""Row and column on the 8 x 8 map where a unit is active; its glyph covers the 2 x 2 pixels at twice that place."""
GLYPHS = torch.tensor(
    [
        [[1.0, 1.0], [0.0, 0.0]],  # a line above
        [[1.0, 0.0], [1.0, 0.0]],  # a line at the left
        [[1.0, 0.0], [0.0, 1.0]],  # a diagonal
        [[0.0, 1.0], [1.0, 0.0]],  # the other diagonal
        [[1.0, 1.0], [1.0, 1.0]],  # a square
        [[0.0, 0.0], [0.0, 0.0]],  # nothing, however loud
        [[0.8, 0.2], [0.2, 0.8]],
        [[-0.8, -0.2], [-0.2, -0.8]],
        [[0.3, 0.3], [0.3, 0.3]],
        [[0.3, 0.3], [0.3, 0.3]],
    ]
)
DRIVERS = (0, 1, 2, 3, 4, 2, 0, 0, 1, 1)
"""The latent that drives each unit."""
SCALE = 0.3
"""What a unit of activation 1 adds to a pixel of its glyph."""
LOUDNESS = 40.0


def gated_model() -> PlantedModel:
    """The decoder as a model of five standard normal latents; images (1, 16, 16)."""
    gates = nn.Linear(LATENTS, UNITS)
    spread = nn.Linear(UNITS, UNITS * 64, bias=False)
    paint = nn.ConvTranspose2d(UNITS, 1, 2, stride=2, bias=False)
    with torch.no_grad():
        gates.weight.zero_()
        gates.bias.fill_(1.0)
        spread.weight.zero_()
        for unit, (latent, (row, column)) in enumerate(zip(DRIVERS, PLACES, strict=True)):
            gain = LOUDNESS if unit == LOUD else 1.0
            gates.weight[unit, latent] = 0.5 * gain
            gates.bias[unit] = gain
            spread.weight[unit * 64 + row * 8 + column, unit] = 1.0
        paint.weight.copy_(SCALE * GLYPHS[:, None])
    stages = {
        "gates": nn.Sequential(gates, nn.ReLU()),
        "maps": nn.Sequential(spread, nn.Unflatten(1, (UNITS, 8, 8)), nn.ReLU()),
        "output": paint,
    }
    return PlantedModel(
        (1, SIDE, SIDE), LatentSpace([Block("z", LATENTS)]), generator=StagedNetwork(stages, "generator")
    )


def activation(z: Tensor, unit: int) -> Tensor:
    """A unit's activation (n,) for codes (n, 5)."""
    gain = LOUDNESS if unit == LOUD else 1.0
    return torch.relu(gain * (1.0 + z[:, DRIVERS[unit]] / 2))


def drawing(z: Tensor, unit: int) -> Tensor:
    """What a unit adds to the images (n, 1, 16, 16) of codes (n, 5)."""
    images = torch.zeros(len(z), 1, SIDE, SIDE)
    row, column = (2 * p for p in PLACES[unit])
    images[:, 0, row : row + 2, column : column + 2] = (
        SCALE * activation(z, unit)[:, None, None] * GLYPHS[unit]
    )
    return images


def support(unit: int) -> Tensor:
    """The pixels (16, 16) that a unit's glyph covers, bool."""
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    row, column = (2 * p for p in PLACES[unit])
    mask[row : row + 2, column : column + 2] = GLYPHS[unit] != 0
    return mask
