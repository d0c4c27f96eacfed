"""F3: analytic manifolds as generators. Three numbers are a picture of one row: lengths are known in closed form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentlab.latents import Block, LatentSpace, Uniform
from latentlab.models.staged import StagedNetwork
from planted.model import PlantedModel


class _Chart(nn.Module):
    def __init__(self, points) -> None:
        super().__init__()
        self.points = points

    def forward(self, z: Tensor) -> Tensor:
        return self.points(z)[:, None, None, :]


def _model(points, pixels: int, low: float, high: float) -> PlantedModel:
    chart = StagedNetwork({"output": _Chart(points)}, "generator")
    return PlantedModel((1, 1, pixels), LatentSpace([Block("z", 2, Uniform(low, high))]), generator=chart)


def polar() -> PlantedModel:
    """(r, t) -> (r cos t, r sin t): a flat plane, so geodesics are straight in x and their length is the chord."""
    return _model(
        lambda z: torch.stack([z[:, 0] * z[:, 1].cos(), z[:, 0] * z[:, 1].sin()], dim=1), 2, 0.1, 3.0
    )


def sphere() -> PlantedModel:
    """(latitude, longitude) -> the unit sphere: the geodesic length is the angle between the two points."""

    def points(z: Tensor) -> Tensor:
        latitude, longitude = z[:, 0], z[:, 1]
        return torch.stack(
            [latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()], dim=1
        )

    return _model(points, 3, -1.5, 1.5)


def half_cylinder() -> PlantedModel:
    """(t, h) -> (cos t, sin t, h), "Swiss strip": it unrolls, so the length is sqrt(dt^2 + dh^2)."""
    return _model(lambda z: torch.stack([z[:, 0].cos(), z[:, 0].sin(), z[:, 1]], dim=1), 3, 0.0, 3.14159)
