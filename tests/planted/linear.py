"""F2: x = W z + b through two linear stages, so that Jacobian, metric, geodesics and every attribution are W itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentlab.latents import Block, LatentSpace
from latentlab.models.staged import StagedNetwork
from planted.model import PlantedModel


def linear_model(
    latents: int = 4, hidden: int = 6, side: int = 5, channels: int = 1, seed: int = 0
) -> tuple[PlantedModel, Tensor, Tensor]:
    """A linear generator with the stages "hidden" (flat) and "output", its W (pixels, latents) and b (pixels,).

    The singular values of W are all different (at least a fifth apart), so each direction is told from the others.
    """
    g = torch.Generator().manual_seed(seed)
    pixels = channels * side * side
    u = torch.linalg.qr(torch.randn(pixels, hidden, generator=g))[0]
    v = torch.linalg.qr(torch.randn(hidden, latents, generator=g))[0]
    turn = torch.linalg.qr(torch.randn(latents, latents, generator=g))[0]
    first = v @ torch.diag(0.1 * 1.5 ** torch.arange(latents).flip(0).float()) @ turn.T
    bias = 0.1 * torch.randn(hidden, generator=g)
    one, two = nn.Linear(latents, hidden), nn.Linear(hidden, pixels)
    with torch.no_grad():
        one.weight.copy_(first)
        one.bias.copy_(bias)
        two.weight.copy_(u)
        two.bias.fill_(0.5)
    stages = {"hidden": one, "output": nn.Sequential(two, nn.Unflatten(1, (channels, side, side)))}
    model = PlantedModel(
        (channels, side, side),
        LatentSpace([Block("z", latents)]),
        generator=StagedNetwork(stages, "generator"),
    )
    return model, u @ first, u @ bias + 0.5
