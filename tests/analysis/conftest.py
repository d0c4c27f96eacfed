"""Planted models, whose every answer is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from latentlab.data.factors import FactorDataset, FactorSpace
from latentlab.latents import Block, Categorical, LatentSpace, Posterior, Uniform
from latentlab.models.staged import StagedNetwork


class Planted(nn.Module):
    """A generative model around a staged generator; its images are the generator's outputs."""

    def __init__(self, image_shape, space, generator, encoder=None, posterior_std=0.1):
        super().__init__()
        self.image_shape, self.latent_space = image_shape, space
        self.generator = generator
        if encoder is not None:
            self.encoder = encoder
        self.posterior_std = posterior_std
        self.has_encoder = encoder is not None
        self.eval()

    @property
    def spaces(self):
        return {self.latent_space.name: self.latent_space}

    @property
    def networks(self):
        encoder = {"encoder": self.encoder} if self.has_encoder else {}
        return {"generator": self.generator, **encoder}

    def decode(self, z: Tensor, edits=()) -> Tensor:
        return self.generator.run(z, edits)

    def sample_codes(self, n, seed):
        return self.latent_space.sample(n, seed)

    def sample(self, n, seed):
        return self.decode(self.sample_codes(n, seed))


class PlantedInference(Planted):
    def encode(self, x: Tensor, edits=()) -> Posterior:
        mean = self.encoder.run(x, edits)
        std = torch.full_like(mean, self.posterior_std)
        normal = torch.distributions.Normal
        parts = {
            name: normal(mean[:, where], std[:, where])
            for name, where in ((n, self.latent_space.slice(n)) for n in self.latent_space.block_names)
        }
        return Posterior(self.latent_space, parts)


def _frozen(weight, bias):
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


@pytest.fixture
def linear_model():
    """x = 0.5 + W z, the columns of W orthogonal; the encoder inverts it exactly: mu = W^+ (x - 0.5)."""
    weight = np.linalg.qr(np.random.default_rng(3).standard_normal((48, 4)))[0] * [0.2, 0.15, 0.1, 0.0]
    inverse = np.linalg.pinv(weight)
    weight, inverse = (torch.tensor(m, dtype=torch.float32) for m in (weight, inverse))
    draw = nn.Sequential(_frozen(weight, torch.full((48,), 0.5)), nn.Unflatten(1, (3, 4, 4)))
    generator = StagedNetwork({"output": draw}, "generator")
    read = nn.Sequential(nn.Flatten(), _frozen(inverse, -inverse.sum(1) * 0.5))
    encoder = StagedNetwork({"posterior": read}, "encoder")
    model = PlantedInference((3, 4, 4), LatentSpace([Block("z", 4)]), generator, encoder)
    model.weight = weight
    return model


class _Blob(nn.Module):
    """Draws one elliptic Gaussian spot: content = size, intensity, elongation; pose = x, y."""

    def __init__(self, pose_first: bool, size: int = 32):
        super().__init__()
        self.pose_first = pose_first
        self.register_buffer("grid", torch.arange(size) - (size - 1) / 2)

    def forward(self, z: Tensor) -> Tensor:
        pose, content = (z[:, :2], z[:, 2:]) if self.pose_first else (z[:, 3:], z[:, :3])
        x, y = (4.0 * torch.tanh(pose)).unbind(1)
        size = 1.6 + 0.5 * torch.tanh(content[:, 0])
        intensity = 0.6 + 0.3 * torch.tanh(content[:, 1])
        stretch = torch.exp(0.2 * torch.tanh(content[:, 2]))
        dx = (self.grid[None, None] - x[:, None, None]) / (size * stretch)[:, None, None]
        dy = (self.grid[None, :, None] - y[:, None, None]) / (size / stretch)[:, None, None]
        return (intensity[:, None, None] * torch.exp(-0.5 * (dx**2 + dy**2)))[:, None]


@pytest.fixture
def two_block_model():
    """Blocks content (3) and pose (2); ``permuted=True`` plants the fault of exchanged names."""

    def build(permuted: bool = False):
        space = LatentSpace([Block("content", 3), Block("pose", 2)])
        if permuted:
            space = LatentSpace([Block("pose", 3), Block("content", 2)])
        return Planted((1, 32, 32), space, StagedNetwork({"output": _Blob(pose_first=False)}))

    return build


def meters(images: np.ndarray) -> dict[str, np.ndarray]:
    """Exact factor meters of single-spot images (…, 1, h, w), by moments."""
    mass = images[..., 0, :, :]
    grid = np.arange(mass.shape[-1]) - (mass.shape[-1] - 1) / 2
    total = mass.sum(axis=(-2, -1))
    x = (mass * grid).sum(axis=(-2, -1)) / total
    y = (mass * grid[:, None]).sum(axis=(-2, -1)) / total
    xx = (mass * grid**2).sum(axis=(-2, -1)) / total - x**2
    yy = (mass * grid[:, None] ** 2).sum(axis=(-2, -1)) / total - y**2
    area = np.sqrt(xx * yy)
    return {
        "x": x,
        "y": y,
        "size": np.sqrt(area),
        "elongation": np.sqrt(xx / yy),
        "intensity": total / (2 * np.pi * area),
    }


@pytest.fixture
def factor_meters():
    return meters


@pytest.fixture
def categorical_model():
    """A class block of 3 categories, each with its own grey level, and one normal coordinate."""
    space = LatentSpace([Block("class", 3, Categorical), Block("z", 1)])
    weight = torch.tensor([[0.1, 0.2, 0.3, 0.05]]).repeat(4, 1)
    draw = nn.Sequential(_frozen(weight, torch.full((4,), 0.4)), nn.Unflatten(1, (1, 2, 2)))
    return Planted((1, 2, 2), space, StagedNetwork({"output": draw}))


@pytest.fixture
def gated_model():
    """Six units, each switched on by latents and painting its own rows, with decoys.

    Unit 0 paints by z0, 1 by z1 (half as strongly); 2 has a huge activation and no outgoing weight; 3 and 4
    cancel exactly; 5 is always silent.
    """
    gates = _frozen(
        torch.tensor([[1.0, 0], [0, 1], [0, 0], [1, 0], [1, 0], [0, 0]]),
        torch.tensor([1.0, 1, 50, 1, 1, -1]),
    )
    paint = torch.zeros(6, 1, 4, 4)
    paint[0, 0, 0] = 0.1
    paint[1, 0, 1] = 0.05
    paint[3, 0, 2] = 0.2
    paint[4, 0, 2] = -0.2
    output = nn.ConvTranspose2d(6, 1, 4, stride=4)
    with torch.no_grad():
        output.weight.copy_(paint)
        output.bias.fill_(0.2)
    generator = StagedNetwork(
        {
            "gates": nn.Sequential(gates, nn.ReLU()),
            "maps": nn.Sequential(nn.Unflatten(1, (6, 1, 1)), nn.Upsample(scale_factor=2)),
            "output": output,
        }
    )
    read = torch.zeros(2, 64)
    read[0, :8] = 1.25  # the mean of rows 0 (unit 0 paints them) gives z0 back
    read[1, 8:16] = 2.5
    features = nn.Sequential(nn.Flatten(), _frozen(read, torch.tensor([-3.0, -5.0])))
    encoder = StagedNetwork({"features": features, "posterior": nn.Identity()}, "encoder")
    return PlantedInference((1, 8, 8), LatentSpace([Block("z", 2)]), generator, encoder)


class GridOfCodes(FactorDataset):
    """Images that a planted model decodes from a known code for each combination of two factors."""

    def __init__(self, model, name="planted", shift=0.0, counts=(5, 7)):
        space = FactorSpace(("a", "b"), counts)
        super().__init__(name, "made here", model.image_shape, len(space), space)
        self.model, self.shift, self.reads = model, shift, 0

    def codes(self, indices) -> Tensor:
        values = self.factor_space.factors(torch.as_tensor(indices)).float()
        z = torch.zeros(len(values), self.model.latent_space.dim)
        z[:, 0] = values[:, 0] / 4 - 0.5 + self.shift
        z[:, 1] = values[:, 1] / 6 - 0.5
        return z

    def _read(self, indices):
        self.reads += 1
        with torch.no_grad():
            return self.model.decode(self.codes(indices))


@pytest.fixture
def planted_dataset():
    return GridOfCodes


@pytest.fixture
def left_as_found():
    """A check that a call left weights, flags, buffers, hooks and the global generators as they were."""
    found = []

    def snapshot(model):
        return (
            [
                (n, m.training, len(m._forward_hooks), len(m._forward_pre_hooks))
                for n, m in model.named_modules()
            ],
            {k: v.clone() for k, v in model.state_dict().items()},
            [(n, p.requires_grad, p.grad is None) for n, p in model.named_parameters()],
            torch.get_rng_state(),
            np.random.get_state()[1].copy(),  # noqa: NPY002 (the global generator is what must not move)
        )

    def remember(model):
        found.append((model, snapshot(model)))

    yield remember
    for model, before in found:
        after = snapshot(model)
        assert before[0] == after[0] and before[2] == after[2]
        assert all(torch.equal(before[1][k], after[1][k]) for k in before[1])
        assert torch.equal(before[3], after[3]) and np.array_equal(before[4], after[4])


@pytest.fixture(scope="session")
def uniform_model() -> Planted:
    """A linear generator over a normal and a uniform block."""
    space = LatentSpace([Block("n", 2), Block("u", 2, Uniform())])
    layer = nn.Sequential(_frozen(0.1 * torch.eye(4), torch.full((4,), 0.5)), nn.Unflatten(1, (1, 2, 2)))
    return Planted((1, 2, 2), space, StagedNetwork({"fc": layer}))
