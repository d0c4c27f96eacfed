"""Encoders of images in which each unit answers one known edge: what a unit looks for is its filter, in closed form.

image (1, side, side) -> "edges" (one unit an angle, ReLU) -> "pool" (max-pooling or a strided convolution that adds
each unit's own map up) -> "lines" (each unit the sum of its own edge over 3 x 3 places, leaky where asked).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from latentlab.models.staged import StagedNetwork

ANGLES = (0.0, 30.0, 60.0, 90.0, 120.0, 150.0)
"""Direction of each unit's edge in degrees, anticlockwise from the row; the brighter side is 90 degrees further."""
KERNEL = 7


def edge_filter(angle: float) -> Tensor:
    """A filter (7, 7) that answers an edge in a direction: a sine across it, under a Gaussian, of mean 0."""
    at = torch.arange(KERNEL) - (KERNEL - 1) / 2
    rows, columns = torch.meshgrid(at, at, indexing="ij")
    turned = math.radians(angle)
    # Rows go down, so up is minus the row.
    across = -columns * math.sin(turned) - rows * math.cos(turned)
    bump = torch.exp(-(rows.square() + columns.square()) / (2 * 2.0**2))
    found = torch.sin(across * 2 * math.pi / 8) * bump
    return found - found.mean() * bump / bump.mean()


def edge_image(angle: float, side: int = 32, shift: float = 0.0) -> Tensor:
    """A step edge (1, side, side) in a direction through the middle, moved ``shift`` pixels to its bright side.

    It fades to black towards the border, where zero padding would be an edge of its own.
    """
    at = torch.arange(side) - (side - 1) / 2
    rows, columns = torch.meshgrid(at, at, indexing="ij")
    turned = math.radians(angle)
    across = -columns * math.sin(turned) - rows * math.cos(turned)
    fading = torch.exp(-(rows.square() + columns.square()) / (2 * (side / 5) ** 2))
    return (torch.sigmoid(2 * (across - shift)) * fading)[None]


def oriented_encoder(pooling: str = "max", *, slope: float = 0.0, norm: bool = False) -> StagedNetwork:
    """The encoder.

    Args:
        pooling: "max" (2 x 2), "overlapping" (3 x 3, stride 2) or "strided" (a 3 x 3 convolution, stride 2).
        slope: of the rectifiers below 0.
        norm: put a batch norm with statistics of its own before the first rectifier.
    """
    units = len(ANGLES)

    def rectifier() -> nn.Module:
        return nn.LeakyReLU(slope) if slope else nn.ReLU()

    edges = nn.Conv2d(1, units, KERNEL, padding=KERNEL // 2)
    lines = nn.Conv2d(units, units, 3, padding=1)
    strided = nn.Conv2d(units, units, 3, stride=2, padding=1)
    batch_norm = nn.BatchNorm2d(units)
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        edges.weight.copy_(torch.stack([edge_filter(a) for a in ANGLES])[:, None])
        edges.bias.copy_(0.1 * torch.randn(units, generator=chance))
        for convolution in (lines, strided):
            convolution.weight.zero_()
            convolution.weight[range(units), range(units)] = 0.25
            convolution.bias.copy_(0.1 * torch.randn(units, generator=chance))
        batch_norm.running_mean.copy_(torch.rand(units, generator=chance))
        batch_norm.running_var.copy_(0.5 + torch.rand(units, generator=chance))
        batch_norm.weight.copy_(0.5 + torch.rand(units, generator=chance))
        batch_norm.bias.copy_(torch.rand(units, generator=chance))
    pools: dict[str, Any] = {"max": nn.MaxPool2d(2), "overlapping": nn.MaxPool2d(3, 2), "strided": strided}
    first = nn.Sequential(edges, *((batch_norm,) if norm else ()), rectifier())
    stages = {"edges": first, "pool": pools[pooling], "lines": nn.Sequential(lines, rectifier())}
    return StagedNetwork(stages, "encoder").eval()


def direction(picture: Tensor) -> float:
    """The direction in degrees, 0 to 180, along which a picture (height, width) changes least: its structure tensor."""
    down = (picture[2:, 1:-1] - picture[:-2, 1:-1]) / 2
    right = (picture[1:-1, 2:] - picture[1:-1, :-2]) / 2
    up = -down
    across = 0.5 * torch.atan2(2 * (right * up).sum(), (right * right - up * up).sum())
    return (math.degrees(float(across)) + 90.0) % 180.0
