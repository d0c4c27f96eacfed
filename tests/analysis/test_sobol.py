"""Sobol shares against closed forms: additive toys, Ishigami's function, F1's drivers, dependent normals."""

import numpy as np
import pytest
import torch
from planted import gated, linear
from planted.model import PlantedModel
from torch import nn

from latentlab.analysis import load_result, sobol
from latentlab.config import StyleGANConfig
from latentlab.latents import Block, Codebook, LatentSpace, Normal, Uniform
from latentlab.models.adapt import adapt_model
from latentlab.models.build import build_model
from latentlab.models.staged import StagedNetwork


class OnePixel(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, z):
        return self.function(z)[:, None, None, None]


def one_pixel(function, latents, prior=Normal):
    generator = StagedNetwork({"output": OnePixel(function)}, "generator")
    return PlantedModel((1, 1, 1), LatentSpace([Block("z", latents, prior)]), generator=generator)


def ishigami():
    def function(z):
        return z[:, 0].sin() + 7 * z[:, 1].sin().square() + 0.1 * z[:, 2] ** 4 * z[:, 0].sin()

    return one_pixel(function, 3, Uniform(-np.pi, np.pi))


ISHIGAMI_FIRST, ISHIGAMI_TOTAL = np.array([0.3139, 0.4424, 0.0]), np.array([0.5576, 0.4424, 0.2437])


def test_ishigamis_shares_are_the_analytic_ones():
    """Would catch: first-order and total shares exchanged, an estimator without its pairs, a biased variance."""
    found = sobol(ishigami(), n=2048)
    assert np.allclose(found.first, ISHIGAMI_FIRST, atol=0.02)
    assert np.allclose(found.total, ISHIGAMI_TOTAL, atol=0.02)
    assert (found.first_interval[:, 0] < ISHIGAMI_FIRST).all() and (
        found.first_interval[:, 1] > ISHIGAMI_FIRST
    ).all()
    assert (found.total_interval[:, 0] < ISHIGAMI_TOTAL).all() and (
        found.total_interval[:, 1] > ISHIGAMI_TOTAL
    ).all()
    assert found.certificate["additivity_gap"] == pytest.approx(0.2437, abs=0.03)
    assert found.certificate["codes_run"] == 2048 * 6 and found.certificate["undriven_share"] < 1e-6
    assert found.variance.shape == (1, 1, 1) and found.variance.item() == pytest.approx(13.845, rel=0.02)


def test_the_fake_a_traversals_spread_at_one_code_fails_the_same_check():
    """The fake: squared standard deviation of a slider's traversal at one code, as shares."""
    model = ishigami()
    spread = []
    for k in range(3):
        z = torch.zeros(101, 3)
        z[:, k] = torch.linspace(-np.pi, np.pi, 101)
        spread.append(model.decode(z).var().item())
    fake = np.array(spread) / np.sum(spread)
    assert fake[2] < 1e-6 < 0.2 < ISHIGAMI_TOTAL[2]  # it never sees what z2 does away from z0 = 0
    assert not np.allclose(fake, ISHIGAMI_TOTAL, atol=0.02) and not np.allclose(
        fake, ISHIGAMI_FIRST, atol=0.02
    )


def test_an_additive_generators_shares_are_its_squared_weights(left_as_found):
    """Would catch: shares pooled as a mean of the pixels' shares, and maps of another latent."""
    model, weight, _ = linear.linear_model()
    left_as_found(model)
    found = sobol(model, n=1024)
    squares = weight.square().numpy()
    expected = squares.sum(0) / squares.sum()
    assert np.allclose(found.first, expected, atol=0.02) and np.allclose(found.total, expected, atol=0.02)
    assert found.certificate["sum_first"] == pytest.approx(1.0, abs=0.02)
    maps = (squares / squares.sum(1, keepdims=True)).T.reshape(4, 1, 5, 5)
    assert found.first_map.shape == (4, 1, 5, 5)
    assert np.abs(found.first_map - maps).max() < 0.04 and np.abs(found.total_map - maps).max() < 0.04
    assert np.allclose(found.variance, squares.sum(1).reshape(1, 5, 5), rtol=0.05)


def test_undriven_latents_have_no_share_and_units_only_their_driver():
    """Would catch: noise in the shares of latents that draw nothing there."""
    model = gated.gated_model()

    def glyph(images):
        return images[:, 0, 2:4, 2:4].sum((1, 2))

    found = sobol(model, glyph, n=128)
    assert np.abs(found.first[1:]).max() < 1e-6 and found.total[1:].max() < 1e-6
    assert (
        found.first[0] == pytest.approx(1.0, abs=0.1) and found.first_map is None and found.target == "glyph"
    )
    units = sobol(model, stage="gates", n=128)
    drivers = np.eye(5)[:, list(gated.DRIVERS)]
    assert np.abs(units.unit_total[drivers == 0]).max() < 1e-6
    assert np.allclose(units.unit_total[drivers == 1], 1.0, atol=0.1) and units.target == "generator.gates"
    maps = sobol(model, stage="generator.maps", n=128, dims=["z1"])
    assert maps.unit_total.shape == (1, 10) and np.allclose(maps.unit_total, units.unit_total[1:2], atol=1e-6)


def test_dependent_latents_are_swapped_given_the_others():
    """Would catch: independent swaps, which give each half of the variance, codes off the data."""
    rho = 0.6
    codes = np.random.default_rng(0).standard_normal((2000, 2)) @ np.linalg.cholesky([[1, rho], [rho, 1]]).T
    model = one_pixel(lambda z: z.sum(1), 2)
    found = sobol(model, data_codes=codes)
    assert found.method == "conditional" and found.n == 2000
    assert np.allclose(found.first, (1 + rho) / 2, atol=0.03) and np.allclose(
        found.total, (1 - rho) / 2, atol=0.03
    )
    assert np.allclose(sobol(model).first, 0.5, atol=0.03)
    assert abs(found.null_first) < 0.06 and found.null_total < 1e-6


def test_a_category_is_one_latent(categorical_model):
    """Would catch: one-hot coordinates exchanged one by one."""
    found = sobol(categorical_model, n=1024)
    between = np.var([0.1, 0.2, 0.3])
    expected = np.array([between, 0.05**2]) / (between + 0.05**2)
    assert found.variables == ("class", "z0") and np.allclose(found.first, expected, atol=0.02)
    assert sobol(categorical_model, dims=["class1"], n=16).variables == ("class",)
    with pytest.raises(ValueError, match="space 'z' holds categories"):
        sobol(categorical_model, data_codes=categorical_model.sample_codes(20, 0))
    draw = StagedNetwork(
        {"output": OnePixel(lambda z: (z[:, 0] == 2).float() + 0.5 * (z[:, 1] == 0))}, "generator"
    )
    indices = PlantedModel((1, 1, 1), LatentSpace([Block("i", 2, Codebook(4))]), generator=draw)
    assert np.allclose(sobol(indices, n=512).first, [0.8, 0.2], atol=0.03)


def test_styles_have_no_prior_and_are_swapped_given_the_others(left_as_found):
    model = build_model(StyleGANConfig(width=4, latents=5, styles=4, mapping_layers=2), (1, 28, 28)).eval()
    left_as_found(model)
    found = sobol(model, "brightness", space="w", n=64)
    assert found.method == "conditional" and found.variables == ("w0", "w1", "w2", "w3")
    by_z = sobol(model, stage="mapping.fc2", network="mapping", n=16)
    assert by_z.unit_first.shape == (5, 4)
    with pytest.raises(ValueError, match="reads no codes"):
        sobol(model, network="discriminator")


def test_seeds_batches_files_and_foreign_decoders(tmp_path):
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 16), nn.Sigmoid())
    model, steps = adapt_model(decoder, latents=3, image_shape=(1, 4, 4)), []
    one = sobol(model, n=33, seed=4, n_draws=20, progress=lambda *a: steps.append(a))
    assert one.n == 64 and steps[-1] == (64 * 6, 64 * 6)
    same = sobol(model, n=64, seed=4, n_draws=20, batch_size=10)
    assert np.allclose(one.first, same.first, atol=1e-2) and np.allclose(one.total, same.total, atol=1e-5)
    assert np.array_equal(one.first_interval, sobol(model, n=64, seed=4, n_draws=20).first_interval)
    assert not np.array_equal(one.first, sobol(model, n=64, seed=5, n_draws=20).first)
    again = load_result(one.save(tmp_path / "s"))
    assert np.array_equal(again.total_map, one.total_map) and again.unit_first is None

    def cancel(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sobol(model, progress=cancel)


@pytest.mark.parametrize(
    ("arguments", "wording"),
    [
        ({"n": 4}, "n must be a whole number of at least 8; got 4"),
        ({"target": "hight"}, "No meter 'hight'"),
        ({"target": lambda x: x}, "A meter gives one number an image"),
        ({"target": lambda x: 0 * x[:, 0, 0, 0]}, "does not vary"),
        ({"target": "brightness", "stage": "hidden"}, "A meter reads images; drop stage="),
        ({"dims": []}, "dims names no latent"),
        ({"data_codes": np.zeros((5, 4))}, "at least 16 codes; got 5"),
    ],
)
def test_wrong_arguments_get_a_sentence(arguments, wording):
    model, _, _ = linear.linear_model()
    with pytest.raises(ValueError, match=wording):
        sobol(model, **arguments)
