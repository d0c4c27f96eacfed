"""F4: a generator that is an exact, differentiable renderer of five factors, with masks and factor meters.

z (5), uniform in [-1, 1] -> shape (ellipse .. box), scale, angle, x, y -> one white object on black, 32 x 32, its
edge a pixel wide. The stages are "factors" (5 units, the factors in their own units) and "output".
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from latentlab.latents import Block, LatentSpace, Uniform
from latentlab.models.staged import StagedNetwork
from planted.model import PlantedModel

SIDE = 32
FACTORS = ("shape", "scale", "angle", "x", "y")
LOW = torch.tensor([2.0, 4.0, -math.pi / 3, 11.0, 11.0])
HIGH = torch.tensor([6.0, 7.0, math.pi / 3, 20.0, 20.0])
"""Each factor's range: power of the outline (2 an ellipse, 6 nearly a box), half the length, radians, pixels."""
ASPECT = 0.6


def factors_of(z: Tensor) -> Tensor:
    """Factors (n, 5) in their own units of codes (n, 5)."""
    return LOW + (z + 1) / 2 * (HIGH - LOW)


def distance(factors: Tensor) -> Tensor:
    """Signed distance, about pixels, inside positive, (n, 32, 32), of factors (n, 5)."""
    shape, scale, angle, x, y = (f[:, None, None] for f in factors.unbind(1))
    rows, columns = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
    dx, dy = columns - x, rows - y
    along, across = dx * angle.cos() + dy * angle.sin(), -dx * angle.sin() + dy * angle.cos()
    a, b = (along / scale).square() + 1e-6, (across / (ASPECT * scale)).square() + 1e-6
    radius = (a ** (shape / 2) + b ** (shape / 2)) ** (1 / shape)
    return (1 - radius) * ASPECT * scale


def masks(factors: Tensor) -> Tensor:
    """Exact masks (n, 32, 32), bool, of the object."""
    return distance(factors) > 0


class _Factors(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return factors_of(z)


class _Render(nn.Module):
    def forward(self, factors: Tensor) -> Tensor:
        return torch.sigmoid(4 * distance(factors))[:, None]


def renderer_model() -> PlantedModel:
    """The renderer as a model of five uniform latents, one a factor; images (1, 32, 32) in [0, 1]."""
    stages = {"factors": _Factors(), "output": _Render()}
    space = LatentSpace([Block("z", 5, Uniform(-1.0, 1.0))])
    return PlantedModel((1, SIDE, SIDE), space, generator=StagedNetwork(stages, "generator"))


def meters(images: Tensor) -> Tensor:
    """scale, angle, x, y (n, 4) by moments of images (n, 1, 32, 32): no learned judge."""
    weights = images[:, 0]
    mass = weights.sum((1, 2))
    rows, columns = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
    x, y = (weights * columns).sum((1, 2)) / mass, (weights * rows).sum((1, 2)) / mass
    dx, dy = columns - x[:, None, None], rows - y[:, None, None]
    xx, yy, xy = ((weights * m).sum((1, 2)) / mass for m in (dx * dx, dy * dy, dx * dy))
    angle = 0.5 * torch.atan2(2 * xy, xx - yy)
    scale = (mass / (math.pi * ASPECT)).sqrt()
    return torch.stack([scale, angle, x, y], dim=1)
