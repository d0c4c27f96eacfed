"""The batches of a step: partners of the first one's images, and batches that are only looked at."""

import pytest
import torch

from latentlab.config import BlockConfig, DataConfig, FactorVAE, PairVAE, VAEConfig
from latentlab.data import open_dataset
from latentlab.models.build import build_model
from latentlab.models.contract import ONE_DRAW, TermsRequest, weights_digest
from latentlab.objectives.build import build_objective
from latentlab.objectives.variational import BetaVAE, DataDescription, Loss
from latentlab.training.vae import VAETraining


def training_of(experiment, objective=None) -> VAETraining:
    dataset = open_dataset(experiment.data.name, **experiment.data.options)
    model = build_model(experiment.model, dataset.image_shape)
    if objective is None:
        objective = build_objective(experiment.objective, model, DataDescription.of(dataset))
    training = VAETraining(model, objective, dataset, experiment)
    training.on_fit_start()
    optimisers = training.configure_optimizers()
    training.optimizers = lambda use_pl_optimizer=False: optimisers
    return training


@pytest.fixture
def pairs(tiny):
    blocks = [BlockConfig("pose", 2), BlockConfig("content", 3)]
    return tiny(
        data=DataConfig("sprites", {"image_size": 32}),
        model=VAEConfig(blocks=blocks, width=4, hidden=8),
        objective=PairVAE(shared=["content"], changing=["x", "y"]),
    )


def test_image_by_image_the_second_batch_holds_the_partners_of_the_first(pairs):
    """Would catch: partners of other images than those of the step, or in another order."""
    training = training_of(pairs)
    data, steps = training.images, []
    for step in range(3):
        terms = training.terms(step)
        (other,) = terms.others
        factors = data.factors(data.batch(pairs.batch_size, pairs.seed, step))
        assert torch.equal(terms.x, data.images(data.index(factors)))
        partners = factors[:, None].repeat(1, 32 * 32, 1)
        grid = torch.cartesian_prod(torch.arange(32), torch.arange(32))
        partners[:, :, 3:] = grid  # every place of the same shape, scale and orientation
        for k in range(pairs.batch_size):
            same = data.images(data.index(partners[k])) == other.x[k]
            assert same.flatten(1).all(1).any()
        content = terms.posterior.space.slice("content")
        assert torch.equal(terms.posterior.mean[:, content], other.posterior.mean[:, content])
        assert not torch.equal(terms.posterior.mean, other.posterior.mean)
        steps.append((terms.x, other.x, terms.z, other.z))
    again = training_of(pairs)
    for step in (2, 0):  # a function of (seed, step), whatever came before
        terms = again.terms(step)
        for a, b in zip(steps[step], (terms.x, terms.others[0].x, terms.z, terms.others[0].z), strict=True):
            assert torch.equal(a, b)
    assert not torch.equal(steps[0][1], steps[1][1])


def test_what_is_logged_of_a_pair_is_the_averaged_kl_of_its_images(pairs):
    """Would catch: a log of posteriors that no draw was taken from, or of one image where the loss is of two."""
    training = training_of(pairs)
    terms = training.terms(0)
    expected = (terms.posterior.kl() + terms.others[0].posterior.kl()).mean(0) / 2
    training.training_step(0, 0)
    means = training.take_means()
    for name, value in zip(training.model.latent_space.names, expected, strict=True):
        assert means[f"kl_{name}"] == pytest.approx(value.item(), rel=1e-5, abs=1e-6)


def test_pairs_need_factors_and_a_first_batch_of_their_own(tiny):
    """Would catch: a step without anything to train on, which lowers nothing and says nothing."""
    for first in (TermsRequest(kind="pair"), TermsRequest(gradient=False)):
        objective = BetaVAE()
        objective.requests = (first, ONE_DRAW)
        with pytest.raises(ValueError, match="BetaVAE's first batch must be independent and have a gradient"):
            training_of(tiny(), objective)
    digits = tiny(data=DataConfig("digits"), objective=PairVAE())
    with pytest.raises(ValueError, match="change at random need a full grid of them, and data set 'digits'"):
        training_of(digits)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_batch_that_is_only_looked_at_keeps_no_graph_and_changes_no_bit(tiny, precision):
    """Would catch: a second batch drawn otherwise for want of a graph, and memory kept for a gradient nobody takes."""
    found = []
    for gradient in (False, True):
        training = training_of(tiny(objective=FactorVAE(6.0, 2, 32), precision=precision))
        first, second = training.objective.requests
        assert not second.gradient  # what the objective asks for
        training.objective.requests = (first, TermsRequest(decode=False, gradient=gradient))
        terms = training.terms(0)
        assert terms.z.requires_grad and terms.others[0].z.requires_grad == gradient
        for step in range(3):
            training.training_step(step, step)
        found.append(
            (weights_digest(training.model), weights_digest(training.objective), training.take_means())
        )
    assert found[0] == found[1]


class _Looks(BetaVAE):
    """Trains on its first and its last batch; only the batch between is decoded without a graph before."""

    requests = (TermsRequest(decode=False), TermsRequest(gradient=False), ONE_DRAW)

    def forward(self, terms, step, generator):
        looked, last = terms.others
        assert not looked.reconstruction.requires_grad
        return Loss(
            terms.kl.sum(1).mean() + last.reconstruction.mean(), {"looked": looked.reconstruction.mean()}
        )


def test_weights_cast_without_a_graph_are_cast_anew_for_the_batch_that_needs_one(tiny):
    """Would catch: 16-bit copies of the generator's weights kept from a forward without a graph: no gradient ever."""
    training = training_of(tiny(precision="bf16"), _Looks())
    training.training_step(0, 0)
    for name, p in training.model.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all(), name
    assert any((p.grad != 0).any() for p in training.model.generator.parameters())


def test_a_category_counts_as_one_active_latent(tiny):
    """Would catch: ten active dimensions for one category of ten values."""
    model = VAEConfig(
        blocks=[BlockConfig("kind", 10, "categorical", 0.7), BlockConfig("style", 2)], width=4, hidden=8
    )
    training = training_of(tiny(model=model))
    names = training.model.latent_space.names
    kl = torch.tensor([[0.2] * 10 + [0.3, 0.01]])
    training._add({"kl": kl.sum()}, kl)
    assert names[:2] == ("kind0", "kind1") and training.take_means()["active_dimensions"] == 2
