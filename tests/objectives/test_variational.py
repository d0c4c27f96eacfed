"""Objectives: nats per image, by hand."""

import pytest
import torch

from latentlab.config import BetaVAE as BetaVAEConfig
from latentlab.config import ObjectiveConfig, VAEConfig
from latentlab.models.build import build_model
from latentlab.objectives.variational import BetaVAE, Objective, build_objective

CHANCE = torch.Generator()


@pytest.fixture
def terms():
    model = build_model(VAEConfig(width=4, hidden=8), (1, 28, 28))
    x = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return model.elbo_terms(x, torch.Generator().manual_seed(1))


def test_the_loss_is_summed_over_pixels_and_dimensions_and_averaged_over_the_batch(terms):
    # The fakes: a mean over pixels or dimensions, which changes what beta means.
    loss = BetaVAE(4.0)(terms, 0, CHANCE)
    reconstruction = sum(-terms.log_likelihood[i] for i in range(6)) / 6
    kl = sum(terms.kl[i, k] for i in range(6) for k in range(10)) / 6
    assert loss.terms["reconstruction"].item() == pytest.approx(reconstruction.item(), rel=1e-5)
    assert loss.terms["kl"].item() == pytest.approx(kl.item(), rel=1e-5)
    assert loss.total.item() == pytest.approx((reconstruction + 4.0 * kl).item(), rel=1e-5)
    # 784 grey pixels before training: about ln 2 nats each.
    assert reconstruction.item() == pytest.approx(784 * 0.693, rel=0.05)


def test_beta_one_is_the_negative_elbo(terms):
    elbo = (terms.log_likelihood - terms.kl.sum(1)).mean()
    assert BetaVAE(1.0)(terms, 0, CHANCE).total.item() == pytest.approx(-elbo.item(), rel=1e-6)


def test_objectives_are_built_by_configuration_and_unknown_ones_refused(terms):
    assert build_objective(BetaVAEConfig(beta=3.0), 100).beta == 3.0
    with pytest.raises(TypeError, match="No objective for ObjectiveConfig; known: \\['BetaVAE'\\]"):
        build_objective(ObjectiveConfig(), 100)
    with pytest.raises(TypeError, match="defines no loss"):
        Objective()(terms, 0, CHANCE)
    assert BetaVAE().auxiliary(terms, 0, CHANCE) is None
