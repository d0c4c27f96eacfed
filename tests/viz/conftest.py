"""Small results of a planted model, one of each kind, to draw."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from latentlab.analysis import (
    Encoding,
    activations,
    compare_edits,
    feature_maps,
    interpolate,
    invert,
    linear_readout,
    project,
    rank_units,
    swap_grid,
    traverse,
    traverse_grid,
)
from latentlab.analysis.results import provenance
from latentlab.latents import Block, Categorical, LatentSpace
from latentlab.models.edits import Edit
from latentlab.models.staged import StagedNetwork


class Painter(nn.Module):
    """Three latents, one of them a class of two, set the red, green and blue of an 8x8 image."""

    def __init__(self):
        super().__init__()
        self.image_shape = (3, 8, 8)
        self.latent_space = LatentSpace([Block("tone", 2), Block("kind", 2, Categorical)])
        mix = nn.Linear(4, 12)
        paint = nn.ConvTranspose2d(12, 3, 4, stride=4)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in (*mix.parameters(), *paint.parameters()):
                p.copy_(0.2 * torch.randn(p.shape, generator=generator))
        maps = nn.Sequential(nn.Unflatten(1, (12, 1, 1)), nn.Upsample(scale_factor=2), nn.ReLU())
        stages = {"mix": mix, "maps": maps, "output": nn.Sequential(paint, nn.Sigmoid())}
        self.generator = StagedNetwork(stages)
        self.eval()

    @property
    def networks(self):
        return {"generator": self.generator}

    def decode(self, z, edits=()):
        return self.generator.run(z, edits)


@pytest.fixture
def painter():
    return Painter()


@pytest.fixture
def encoding():
    rng = np.random.default_rng(0)
    mean = rng.standard_normal((60, 3)).astype(np.float32) * [1.0, 0.5, 0.01]
    kl = mean**2 / 2
    return Encoding(
        mean=mean,
        log_var=np.zeros_like(mean),
        kl=kl,
        indices=np.arange(60) + 100,
        factors=np.stack([np.arange(60) % 3, np.arange(60)], axis=1),
        factor_names=("shape", "x"),
        categories={"shape": ("square", "ellipse", "heart")},
        dim_names=("z0", "z1", "z2"),
        kl_per_dim=kl.mean(axis=0),
        active=kl.mean(axis=0) > 0.1,
        active_variance=mean.var(axis=0) > 0.01,
        aggregate_mean=mean.mean(axis=0),
        aggregate_std=mean.std(axis=0),
        reconstruction_error=None,
        dataset="planted",
        certificate={"kl_total": 1.0},
        provenance=provenance("ab" * 32, {}, 0),
    )


@pytest.fixture
def results(painter, encoding):
    """One result of every kind, by name."""
    z = painter.latent_space.sample(3, 0)
    found = [
        traverse(painter, z[0], steps=5),
        traverse_grid(painter, z[0], ("tone0", "tone1"), steps=3),
        swap_grid(painter, z, "kind"),
        interpolate(painter, z[0], z[1], steps=4),
        invert(painter, painter.decode(z).detach(), start=z[[1, 2, 0]], steps=4),
        encoding,
        project(encoding),
        activations(painter, inputs=z),
        feature_maps(painter, inputs=z, stage="maps"),
        compare_edits(painter, z, [Edit("generator.maps", (1, 2))]),
        rank_units(painter, "maps", inputs=z),
        linear_readout(encoding, {"x": 60}),
    ]
    return {result.kind: result for result in found}
