import numpy as np
import pytest
import torch
from torch import nn

from latentlab.analysis import load_result, predictive_maps, unit_spread
from latentlab.models.adapt import adapt_model


def agrees(latent_std: np.ndarray, weight: torch.Tensor, s: float, n: int) -> bool:
    """The check: pixel variances are W diag(s^2) W' to within five of their own standard errors."""
    exact = (weight.square().sum(1) * s**2).numpy().reshape(latent_std.shape)
    return bool((np.abs(latent_std**2 - exact) <= 5 * exact * np.sqrt(2 / n) + 1e-12).all())


@pytest.fixture
def given(linear_model):
    return linear_model, linear_model.decode(linear_model.latent_space.sample(1, 0)).detach()


def test_pixel_variance_is_that_of_the_linear_model(given, left_as_found):
    model, x = given
    left_as_found(model)
    found = predictive_maps(model, x, n_draws=2000)
    assert agrees(found.latent_std, model.weight, 0.1, 2000)
    exact = np.sqrt((model.weight.square().sum(1) * 0.01).numpy()).reshape(3, 4, 4)
    assert np.allclose(found.linear_std, exact, atol=1e-6)
    assert found.certificate["beyond_linear"] < 0.05
    assert -0.62 < found.certificate["error_slope"] < -0.38
    error = np.abs(found.mean - found.x_hat)
    assert (error <= 5 * exact / np.sqrt(2000) + 1e-6).all()
    assert found.certificate["standard_error"] == pytest.approx(found.latent_std.max() / np.sqrt(2000))
    assert found.source == "posterior" and np.allclose(found.sigma, 0.1)


def test_a_point_estimate_and_draws_that_repeat_are_caught(given):
    """The named fakes: the mean called a distribution, and one draw shown again and again."""
    model, x = given
    assert not agrees(np.zeros((3, 4, 4)), model.weight, 0.1, 2000)
    point = predictive_maps(model, z=model.encode(x).code())
    assert not agrees(point.latent_std, model.weight, 0.1, 2000) and "error_slope" not in point.certificate

    class Repeating(nn.Module):
        """Gives every draw of a run of eight the same image."""

        image_shape, latent_space = model.image_shape, model.latent_space
        spaces, networks = model.spaces, model.networks
        encoder = model.encoder
        encode = staticmethod(model.encode)

        def decode(self, z, edits=(), space=None):
            return model.decode(z[::8].repeat_interleave(8, 0)[: len(z)])

    repeated = predictive_maps(Repeating(), x, n_draws=2048)
    independent = predictive_maps(model, x, n_draws=2048)
    assert repeated.certificate["error_slope"] > independent.certificate["error_slope"] + 0.1


def test_pictures_stay_as_they_are_from_call_to_call(given, tmp_path):
    """Fails draws from the global generator, which flicker with every rerun."""
    model, x = given
    one, two, other = (predictive_maps(model, x, n_draws=64, seed=s) for s in (3, 3, 4))
    assert np.array_equal(one.latent_std, two.latent_std) and np.array_equal(one.draws, two.draws)
    assert not np.array_equal(one.draws, other.draws)
    split = predictive_maps(model, x, n_draws=64, seed=3, batch_size=7)
    assert np.allclose(split.latent_std, one.latent_std, atol=1e-7)
    again = load_result(one.save(tmp_path / "maps"))
    assert again.certificate == one.certificate and np.array_equal(again.draws, one.draws)


def _foreign(scale=0.2):
    torch.manual_seed(0)
    decoder = nn.Sequential(
        nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 16), nn.Sigmoid(), nn.Unflatten(1, (1, 4, 4))
    )
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 6))
    with torch.no_grad():
        encoder[1].weight[3:], encoder[1].bias[3:] = 0.0, torch.tensor([-6.0, -4.0, 0.0])  # z2 is collapsed
        encoder[1].weight[2], encoder[1].bias[2] = 0.0, 0.0
    return adapt_model(decoder, latents=3, image_shape=(1, 4, 4), encoder=encoder, scale=scale)


def test_a_foreign_models_noise_and_its_collapsed_latent(left_as_found):
    model = _foreign()
    left_as_found(model)
    x = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(1))
    found = predictive_maps(model, x, n_draws=64)
    assert np.allclose(found.noise_std, 0.2, atol=1e-6)
    assert np.allclose(found.total_std**2, found.latent_std**2 + 0.04, atol=1e-6)
    assert found.sigma == pytest.approx([np.exp(-3), np.exp(-2), 1.0]) and found.kl[2] == pytest.approx(
        0, abs=1e-6
    )
    alone = predictive_maps(model, z=found.code)
    assert (alone.latent_std == 0).all() and np.allclose(alone.noise_std, 0.2) and alone.source == "code"
    prior = predictive_maps(model)
    assert prior.source == "prior" and prior.sigma is None and prior.latent_std.max() > 0


def test_units_spread_as_their_weights_say(linear_model):
    model, n = linear_model, 2000
    x = model.decode(model.latent_space.sample(1, 0)).detach()
    found = unit_spread(model, "output", x, n_draws=n)
    by_unit = model.weight.view(3, 16, 4).mean(1)  # a unit is a channel: the mean of its map
    exact = (by_unit.square().sum(1) * 0.01).sqrt().numpy()
    assert np.allclose(found.std, exact, rtol=5 / np.sqrt(2 * n))
    assert np.allclose(found.prior_std, exact * 10, rtol=5 / np.sqrt(2 * n))
    assert found.certificate["left_open"] == pytest.approx(0.1, rel=0.15)
    assert -0.65 < found.certificate["error_slope"] < -0.35
    prior = unit_spread(model, "output", n_draws=64)
    assert prior.source == "prior" and prior.certificate["left_open"] == pytest.approx(1)
    foreign = unit_spread(_foreign(), "1", n_draws=64)
    assert foreign.std.shape == (8,) and (foreign.map_std == pytest.approx(foreign.std))


def test_uncertainty_refuses_what_it_cannot_say(given, two_block_model):
    model, x = given
    with pytest.raises(ValueError, match="has no encoder"):
        predictive_maps(two_block_model(), np.zeros((1, 32, 32), np.float32))
    with pytest.raises(ValueError, match="or neither for the prior; got both"):
        predictive_maps(model, x, z=np.zeros(4))
    with pytest.raises(ValueError, match="n_draws must be at least 32"):
        predictive_maps(model, x, n_draws=3)
    with pytest.raises(ValueError, match="x must be one image; got 2"):
        predictive_maps(model, torch.cat([x, x]))
    with pytest.raises(ValueError, match=r"Network 'encoder' reads no codes.*take 'generator'"):
        unit_spread(model, "posterior", x, "encoder")
