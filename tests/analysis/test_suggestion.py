"""suggest: what is proposed for images whose best answer is known."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from latentlab.analysis.suggestion import beta_of_mean_error, suggest
from latentlab.data.arrays import ImageArray
from latentlab.data.factors import FactorSpace


def planted(noise: float = 0.05, n: int = 1500, factors: bool = False) -> ImageArray:
    """Images 8 x 8 that lie in a plane of standard deviations 1 and 0.5 a pixel direction, with noise."""
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(64, 2)))[0]
    x = 0.5 + (rng.normal(size=(n, 2)) * (1.0, 0.5)) @ directions.T + noise * rng.normal(size=(n, 64))
    table = np.stack([np.arange(n) // 50, np.arange(n) % 50], 1)
    space = FactorSpace(("row", "column"), (n // 50, 50)) if factors else None
    images = torch.from_numpy((255 * x).round().clip(0, 255).reshape(n, 1, 8, 8).astype(np.uint8))
    return ImageArray("planted", "made here", images, space, table if factors else None)


def test_the_scale_is_the_noise_that_was_planted_and_bounds_beta():
    """Would catch: the standard deviation of whole images as the scale, and a beta in units of pixels."""
    found = suggest(planted(), latents=2)
    assert found.model.likelihood == "gaussian" and found.model.learn_scale
    assert found.model.scale == pytest.approx(0.05, rel=0.1)
    assert found.highest_beta == pytest.approx(
        0.5**2 / 0.05**2, rel=0.2
    )  # the second direction over the noise
    assert found.model.latents == 2


def test_above_the_highest_beta_a_linear_model_gives_up_its_last_latent():
    """Would catch: a bound that has nothing to do with what training does: a linear VAE in its exact optimum."""
    found = suggest(planted(), latents=2)
    variances, noise = np.array([1.0, 0.25]), 0.05**2
    for beta, active in ((0.5 * found.highest_beta, 2), (2.0 * found.highest_beta, 1)):
        z = nn.Parameter(
            torch.tensor([0.5, 0.5], dtype=torch.float64)
        )  # share of each direction that is coded
        optimiser = torch.optim.Adam([z], lr=0.05)
        for _ in range(400):  # a linear VAE's bound by direction, at its best variance
            optimiser.zero_grad()
            kept = z.square().clamp(max=1.0 - 1e-9)
            error = torch.from_numpy(variances) * (1.0 - kept) / (2.0 * noise)
            loss = (error - 0.5 * beta * (1.0 - kept).log()).sum()
            loss.backward()
            optimiser.step()
        assert int((z.detach().square() > 1e-3).sum()) == active


def test_black_and_white_images_get_probabilities():
    rng = np.random.default_rng(0)
    images = torch.from_numpy(255 * (rng.random((200, 1, 8, 8)) < 0.3).astype(np.uint8))
    found = suggest(ImageArray("bits", "made here", images), latents=4)
    assert found.model.likelihood == "bernoulli" and not found.model.learn_scale
    assert "100% of the pixel values" in found.reasons["likelihood"]


def test_the_capacity_names_an_image_and_no_more():
    """Would catch: a capacity by rule of thumb, above what any code can tell about which image it is."""
    assert suggest(planted(), latents=2).annealed.capacity.end == pytest.approx(math.log(1500), rel=0.01)
    grid = suggest(planted(factors=True), latents=2)
    assert grid.annealed.capacity.end == pytest.approx(math.log(30) + math.log(50), rel=0.01)
    assert "row, column" in grid.reasons["capacity"]


def test_a_weight_beside_a_mean_error_is_translated_exactly():
    """Would catch: a factor of two, or the number of pixels forgotten."""
    x, mean, kl, scale = torch.rand(3, 8, 8), torch.rand(3, 8, 8), 7.0, 0.3
    weight = 0.00025
    theirs = (x - mean).square().mean() + weight * kl
    ours = (x - mean).square().sum() / (2 * scale**2) + beta_of_mean_error(weight, 192, scale) * kl
    assert ours.item() == pytest.approx(theirs.item() * 192 / (2 * scale**2), rel=1e-5)


def test_what_is_suggested_can_be_trained_and_is_told_in_options():
    text = str(suggest(planted(), latents=3))
    for part in (
        "likelihood: Gaussian",
        "--model.learn_scale true",
        "--objective AnnealedVAE",
        "3rd strongest",
    ):
        assert part in text
    assert text.count("--objective BetaVAE") == 2


def test_too_few_or_equal_images_are_refused():
    with pytest.raises(ValueError, match="A suggestion for 10 latents needs at least 1 latent and 12 images"):
        suggest(planted(n=50), latents=10, n=5)
    same = ImageArray("same", "made here", torch.full((20, 1, 8, 8), 128, dtype=torch.uint8))
    with pytest.raises(ValueError, match="All 20 images of same are alike"):
        suggest(same, latents=2)
