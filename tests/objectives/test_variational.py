"""Objectives: nats per image, by hand."""

import pytest
import torch
from torch import nn

from latentlab.config import BetaVAE as BetaVAEConfig
from latentlab.config import ObjectiveConfig, VAEConfig
from latentlab.data import open_dataset
from latentlab.models.build import build_model
from latentlab.models.contract import ONE_DRAW
from latentlab.objectives import build
from latentlab.objectives.build import build_objective
from latentlab.objectives.variational import BetaVAE, DataDescription, Objective

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
    model, data = build_model(VAEConfig(width=4, hidden=8), (1, 28, 28)), DataDescription(100, (1, 28, 28))
    assert build_objective(BetaVAEConfig(beta=3.0), model, data).beta == 3.0
    with pytest.raises(TypeError, match="No objective for ObjectiveConfig; known: \\['BetaVAE', "):
        build_objective(ObjectiveConfig(), model, data)
    with pytest.raises(TypeError, match="defines no loss"):
        Objective()(terms, 0, CHANCE)
    assert BetaVAE().auxiliary(terms, 0, CHANCE) is None
    assert BetaVAE().requests == (ONE_DRAW,) and BetaVAE().followers() == ([], [])
    assert not BetaVAE().adjusts_posteriors


def test_an_objective_is_built_knowing_the_model_and_the_data(monkeypatch):
    """Would catch: a head of the wrong width, since neither latents nor factors were known where it is made."""

    class HeadConfig(ObjectiveConfig):
        pass

    def make(config, model, data, seed):
        objective = Objective()
        objective.head = nn.Linear(model.latent_space.dim, data.factor_space.sizes[0])
        objective.known = (data.size, data.image_shape, seed)
        return objective

    monkeypatch.setitem(build._OBJECTIVES, HeadConfig, make)
    dataset = open_dataset("sprites", image_size=32)
    model = build_model(VAEConfig(width=4, hidden=8, latents=6), dataset.image_shape)
    objective = build_objective(HeadConfig(), model, DataDescription.of(dataset), 5)
    assert objective.head.weight.shape == (dataset.factor_space.sizes[0], 6)
    assert objective.known == (len(dataset), (1, 32, 32), 5)


def test_extra_terms_of_the_model_are_added_unless_they_are_taken_over(terms):
    """Would catch: a commitment or a ladder's KL that no objective knows of and that nothing minimises."""
    plain = BetaVAE(2.0).loss(terms, 0, CHANCE)
    terms.extra = {"commitment": torch.arange(6.0, requires_grad=True)}
    loss = BetaVAE(2.0).loss(terms, 0, CHANCE)
    assert loss.total.item() == pytest.approx(plain.total.item() + 2.5, rel=1e-6)
    assert loss.terms["commitment"].item() == 2.5 and set(loss.terms) == {
        "reconstruction",
        "kl",
        "commitment",
    }
    loss.total.backward()
    assert terms.extra["commitment"].grad.tolist() == [pytest.approx(1 / 6)] * 6

    class Weighs(BetaVAE):
        takes_over = ("commitment",)

        def forward(self, terms, step, generator):
            loss = super().forward(terms, step, generator)
            loss.total = loss.total + 10.0 * terms.extra["commitment"].mean()
            return loss

    taken = Weighs(2.0).loss(terms, 0, CHANCE)
    assert taken.total.item() == pytest.approx(plain.total.item() + 25.0, rel=1e-6)
    terms.extra = {"kl": torch.ones(6)}
    with pytest.raises(ValueError, match="BetaVAE and the model both have a term 'kl'"):
        BetaVAE().loss(terms, 0, CHANCE)


class _Parts(Objective):
    def __init__(self, declared=("discriminator",)):
        super().__init__()
        self.head, self.discriminator, self.declared = nn.Linear(2, 3), nn.Linear(2, 1), declared

    def auxiliary_parameters(self):
        return [p for name in self.declared for p in getattr(self, name).parameters()]


class _Judged(_Parts):
    def auxiliary(self, terms, step, generator):
        return self.discriminator(terms.z).mean()


def test_own_parameters_follow_the_loss_unless_they_are_declared_auxiliary():
    """Would catch: a head or a discriminator that belongs to no optimiser, or to the wrong one."""
    objective = _Judged()
    loss, auxiliary = objective.followers()
    assert [id(p) for p in loss] == [id(p) for p in objective.head.parameters()]
    assert [id(p) for p in auxiliary] == [id(p) for p in objective.discriminator.parameters()]
    with pytest.raises(
        TypeError, match="_Parts has auxiliary_parameters, but no auxiliary loss that would train"
    ):
        _Parts().followers()
    with pytest.raises(TypeError, match="_Judged has an auxiliary loss, but no auxiliary_parameters"):
        _Judged(()).followers()
    foreign = _Judged()
    foreign.auxiliary_parameters = nn.Linear(1, 1).parameters
    with pytest.raises(TypeError, match="gives a parameter that is not the objective's own"):
        foreign.followers()
