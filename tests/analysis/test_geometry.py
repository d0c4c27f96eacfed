"""Pullback metrics and magnification against closed forms."""

import numpy as np
import pytest
import torch
from planted import linear, manifolds, renderer
from torch import nn
from torch.distributions import Independent, Normal

from latentlab.analysis import load_result, magnification_map, pullback_metric
from latentlab.models.adapt import adapt_model


def test_a_linear_generators_metric_is_its_gram_matrix(left_as_found):
    """Would catch: J J', a metric of single pixels, means in place of sums."""
    model, weight, _ = linear.linear_model()
    left_as_found(model)
    found = pullback_metric(model, n=2)
    gram = (weight.T @ weight).numpy()
    assert np.allclose(found.metric, gram, atol=1e-6)
    values = np.linalg.eigvalsh(gram)[::-1]
    assert np.allclose(found.log_volume, 0.5 * np.log(values).sum(), atol=1e-3)
    assert np.allclose(found.condition, np.sqrt(values[0] / values[-1]), rtol=1e-3)
    assert np.allclose(found.effective_rank, values.sum() ** 2 / (values**2).sum(), rtol=1e-4)
    turned = found.eigenvectors[0] @ gram @ found.eigenvectors[0].T
    assert np.allclose(turned, np.diag(values), atol=1e-5)
    assert found.certificate["length_gap"] < 1e-4 and not found.sigma_term


def test_the_charts_have_their_known_metrics():
    """Would catch: coordinates exchanged, a volume without its root."""
    sphere = pullback_metric(manifolds.sphere(), [[0.5, 0.3]])
    assert np.allclose(sphere.metric[0], np.diag([1.0, np.cos(0.5) ** 2]), atol=1e-5)
    assert sphere.log_volume[0] == pytest.approx(np.log(np.cos(0.5)), abs=1e-5)
    polar = pullback_metric(manifolds.polar(), [[2.0, 0.3]])
    assert np.allclose(polar.metric[0], np.diag([1.0, 4.0]), atol=1e-5)


class Spread(nn.Module):
    """A linear generator whose likelihood has a scale that changes with the code."""

    def __init__(self, model):
        super().__init__()
        self.inner, self.image_shape, self.latent_space = model, model.image_shape, model.latent_space
        self.networks, self.spaces = model.networks, model.spaces

    def decode(self, z, edits=(), space=None):
        return self.inner.decode(z, edits)

    def sample_codes(self, n, seed):
        return self.inner.sample_codes(n, seed)

    def likelihood(self, z, edits=()):
        scale = (0.5 * z[:, :1]).exp()[:, :, None, None].expand(len(z), 1, 5, 5)
        return Independent(Normal(self.decode(z, edits), scale), 3)


def test_a_scale_that_changes_with_the_code_adds_its_part():
    model, weight, _ = linear.linear_model()
    z = torch.tensor([[0.4, 0.0, 0.1, 0.0]])
    found = pullback_metric(Spread(model), z)
    expected = (weight.T @ weight).double().numpy()
    expected[0, 0] += 25 * (0.5 * np.exp(0.2)) ** 2
    assert found.sigma_term and np.allclose(found.metric[0], expected, rtol=1e-4, atol=1e-6)
    assert found.certificate["length_gap"] < 1e-3


def test_the_fisher_metric_is_the_divergence_of_the_pixels():
    """Would catch: the Gaussian metric under the Bernoulli's name; small steps' KL says otherwise."""
    model = renderer.renderer_model()
    z = 0.5 * model.sample_codes(2, 1)
    found = pullback_metric(model, z, likelihood="bernoulli")
    gaussian = pullback_metric(model, z)
    assert found.certificate["length_gap"] < 0.02 and gaussian.certificate["length_gap"] < 1e-3
    assert (
        np.trace(found.metric, axis1=1, axis2=2) > 3.9 * np.trace(gaussian.metric, axis1=1, axis2=2)
    ).all()


def test_categories_are_left_out_and_foreign_decoders_measured(categorical_model):
    assert pullback_metric(categorical_model, [1.0, 0, 0, 0.2]).dims == ("z0",)
    decoder = nn.Linear(3, 16)
    model = adapt_model(
        nn.Sequential(decoder), latents=3, image_shape=(1, 4, 4), outputs=lambda y: 0.5 + 0.01 * y
    )
    weight = 0.01 * decoder.weight.detach().numpy()
    assert np.allclose(pullback_metric(model, n=1).metric[0], weight.T @ weight, atol=1e-8)
    with pytest.raises(ValueError, match="likelihood must be one of gaussian, bernoulli; got 'poisson'"):
        pullback_metric(model, likelihood="poisson")


def test_the_sphere_is_magnified_by_the_cosine_of_its_latitude(left_as_found):
    """Would catch: axes exchanged, rows that run down, volumes without their logarithm."""
    model, steps = manifolds.sphere(), []
    left_as_found(model)
    found = magnification_map(model, ("z1", "z0"), [0.0, 0.0], steps=5, progress=lambda *a: steps.append(a))
    expected = np.log(np.cos(found.y_values))[:, None].repeat(5, axis=1)
    assert np.allclose(found.log_area, expected, atol=1e-4) and np.allclose(
        found.log_volume, expected, atol=1e-4
    )
    assert found.certificate["area_gap"] < 1e-4 and found.certificate["loop_difference"] < 1e-4
    assert steps[-1] == (25, 25) and found.corners.shape == (4, 1, 1, 3)
    assert np.allclose(found.corners[1, 0, 0, 2], np.sin(found.y_values[0]), atol=1e-5)


def test_maps_are_reproducible_saved_and_refused(tmp_path, categorical_model):
    model = renderer.renderer_model()
    one, two = (magnification_map(model, (3, 4), steps=3, seed=5) for _ in range(2))
    assert np.array_equal(one.log_area, two.log_area) and one.certificate == two.certificate
    assert np.array_equal(load_result(one.save(tmp_path / "m")).log_volume, one.log_volume)
    with pytest.raises(ValueError, match="two different coordinates"):
        magnification_map(model, (1, 1))
    with pytest.raises(ValueError, match="no derivative by a category"):
        magnification_map(categorical_model, ("class0", "z0"))
    with pytest.raises(ValueError, match="steps must be a whole number of at least 2; got 1"):
        magnification_map(model, steps=1)
