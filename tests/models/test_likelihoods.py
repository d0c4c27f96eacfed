"""Likelihoods of images: masses and densities against sums and integrals, edges, gradients, means."""

import math

import pytest
import torch
from torch.distributions import Laplace as LaplaceDistribution

from latentlab.config import LadderVAEConfig, VAEConfig
from latentlab.models.build import build_model
from latentlab.models.likelihoods import LEVELS, Bernoulli, Gaussian, Laplace, Logistic


def outputs(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


LEVEL_IMAGES = (torch.arange(LEVELS) / (LEVELS - 1)).view(-1, 1, 1, 1)


@pytest.mark.parametrize("scale", [0.001, 0.01, 0.1, 2.0])
@pytest.mark.parametrize("output", [-40.0, -2.0, 0.013, 1.7, 30.0])
def test_the_masses_of_the_levels_sum_to_one(scale, output):
    """Would catch: a density taken for a mass, edges without their tails, masses that cancel to 0 far from the mean."""
    log_mass = Logistic(scale)(outputs(output).double()).log_prob(LEVEL_IMAGES.double())
    assert torch.isfinite(log_mass).all()
    assert log_mass.exp().sum().item() == pytest.approx(1.0, abs=1e-5)


def test_black_and_white_take_the_tails_and_the_others_the_mass_between_their_borders():
    """Would catch: a level at the edge that gets the mass of its own width only, or of the other side."""
    location, scale = 0.5 + 0.25 * 1.2, 0.07
    log_mass = Logistic(scale)(outputs(1.2)).log_prob(LEVEL_IMAGES)

    def below(border: float) -> float:
        return 1.0 / (1.0 + math.exp(-(border - location) / scale))

    half = 0.5 / (LEVELS - 1)
    assert log_mass[0].exp().item() == pytest.approx(below(half), rel=1e-4)
    assert log_mass[-1].exp().item() == pytest.approx(1.0 - below(1.0 - half), rel=1e-4)
    for k in (1, 100, 254):
        x = k / (LEVELS - 1)
        assert log_mass[k].exp().item() == pytest.approx(below(x + half) - below(x - half), rel=1e-3)
    between = Logistic(scale)(outputs(1.2)).log_prob(LEVEL_IMAGES[100:101] + 0.4 / (LEVELS - 1))
    assert torch.equal(between, log_mass[100:101])  # counts as the level next to it


def test_the_mean_image_is_that_of_the_levels():
    """Would catch: the location for a mean, which a tail cut off at black moves by tens of levels."""
    for scale in (0.01, 0.1, 0.5):
        likelihood = Logistic(scale)
        for output in (-6.0, -1.9, 0.0, 2.1):
            masses = likelihood(outputs(output)).log_prob(LEVEL_IMAGES).exp()
            exact = (masses * LEVEL_IMAGES.flatten()).sum().item()
            found = likelihood.image(outputs(output)).item()
            assert found == pytest.approx(exact, abs=1.0 / (LEVELS - 1))
            assert likelihood(outputs(output)).mean.item() == found
    assert Logistic(0.1).image(outputs(-1e4, 1e4)).flatten().tolist() == pytest.approx([0.0, 1.0], abs=1e-6)


@pytest.mark.parametrize("kind", [Laplace, Logistic])
def test_gradients_are_finite_however_far_off_the_outputs_are(kind):
    """Would catch: the logarithm of a difference that rounds to 0, whose gradient is no number."""
    likelihood = kind(scale=0.001, learn=True)
    given = outputs(-1e4, -100.0, 0.0, 100.0, 1e4).requires_grad_()
    for x in (0.0, 0.5, 1.0):
        log_prob = likelihood(given).log_prob(torch.full_like(given, x))
        assert torch.isfinite(log_prob).all()
        log_prob.sum().backward()
    assert torch.isfinite(given.grad).all() and torch.isfinite(likelihood.log_scale.grad)
    assert likelihood.log_scale.grad != 0.0


def test_the_laplace_density_integrates_to_one_and_is_torchs():
    """Would catch: a scale taken for the standard deviation, or a constant left out."""
    likelihood = Laplace(scale=0.05)
    grid = torch.arange(-1.0, 2.0, 1e-4).view(-1, 1, 1, 1)
    density = likelihood(outputs(0.4)).log_prob(grid).exp()
    assert (density.sum() * 1e-4).item() == pytest.approx(1.0, abs=1e-3)
    location = outputs(0.4).sigmoid()
    away = (grid.flatten() - location.item()).abs()
    assert (density * away).sum().item() * 1e-4 == pytest.approx(0.05, rel=1e-2)
    x = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    many = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    by_torch = LaplaceDistribution(many.sigmoid(), 0.05).log_prob(x).sum((1, 2, 3))
    assert torch.allclose(likelihood(many).log_prob(x), by_torch, rtol=1e-5)
    assert torch.equal(likelihood(many).mean, many.sigmoid())


def test_the_likeliest_laplace_scale_is_the_mean_absolute_error():
    """Would catch: a learned scale that gets no gradient, or stands for something else than is said."""
    chance = torch.Generator().manual_seed(0)
    errors = torch.rand(20_000, 1, 1, 1, generator=chance) * 0.2 - 0.1
    own = errors.abs().mean().item()
    slopes = []
    for scale in (0.5 * own, own, 2.0 * own):
        likelihood = Laplace(scale, learn=True)
        likelihood(outputs(0.0)).log_prob(0.5 + errors).mean().backward()
        slopes.append(likelihood.log_scale.grad.item())
    assert slopes == pytest.approx([1.0, 0.0, -0.5], abs=1e-3)


@pytest.mark.parametrize("name", ["laplace", "logistic"])
@pytest.mark.parametrize("config", [VAEConfig, LadderVAEConfig])
def test_a_model_is_configured_with_it_and_decodes_to_its_mean(name, config):
    """Would catch: a name that every family but one knows, a scale that the configuration does not reach."""
    model = build_model(config(width=4, hidden=8, likelihood=name, scale=0.03, learn_scale=True), (3, 28, 28))
    assert model.observation.scale.item() == pytest.approx(0.03)
    assert model.observation.log_scale.requires_grad
    z = model.sample_codes(3, 0)
    assert torch.equal(model.decode(z), model.likelihood(z).mean)
    assert model.decode(z).min() >= 0.0 and model.decode(z).max() <= 1.0
    x = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    terms = model.elbo_terms(x, torch.Generator().manual_seed(1))
    (-terms.log_likelihood.sum()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.generator.parameters())


def test_likelihoods_are_told_apart_by_a_models_identity():
    """Would catch: models whose outputs mean different things sharing every cache."""
    names = ("bernoulli", "gaussian", "laplace", "logistic")
    models = [build_model(VAEConfig(width=4, hidden=8, likelihood=name), (1, 28, 28)) for name in names]
    assert len({model.identity for model in models}) == 4
    assert [type(m.observation) for m in models] == [Bernoulli, Gaussian, Laplace, Logistic]


def test_an_unknown_likelihood_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="likelihood must be one of bernoulli, gaussian, laplace, logistic"):
        VAEConfig(likelihood="cauchy")
    with pytest.raises(ValueError, match=r"model.scale must lie in \[0.0001, 10.0\]; got 0.0"):
        LadderVAEConfig(scale=0.0)
