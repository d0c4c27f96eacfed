"""JointVAE: categories and continuous latents each keep a capacity of their own."""

import math

import pytest
import torch
from torch.distributions import Normal as NormalDistribution
from torch.distributions import OneHotCategorical

from latentlab.config import BlockConfig, DataConfig, Experiment, Schedule, VAEConfig
from latentlab.config import JointVAE as JointVAEConfig
from latentlab.latents import Block, Categorical, GumbelSoftmax, LatentSpace, Posterior
from latentlab.models.build import build_model
from latentlab.models.contract import ElboTerms
from latentlab.objectives.joint_vae import JointVAE
from latentlab.training.fit import fit

CHANCE = torch.Generator()
SPACE = LatentSpace([Block("pose", 2), Block("kind", 4, Categorical)])


def planted() -> ElboTerms:
    """Continuous KL 0 and 8 nats; one image knows its kind, the other does not: discrete KL ln 4 and 0."""
    mean = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    kinds = OneHotCategorical(logits=torch.tensor([[200.0, 0, 0, 0], [0.0, 0, 0, 0]]))
    q = Posterior(SPACE, {"pose": NormalDistribution(mean, torch.ones(2, 2)), "kind": kinds})
    return ElboTerms(torch.zeros(2, 1, 1, 1), q, q.mean, torch.tensor([-3.0, -5.0]), q.kl())


def test_each_kl_of_the_batch_keeps_its_own_capacity():
    """Would catch: one capacity for the sum, by which either part may carry everything, and distances per image."""
    terms = planted()
    assert JointVAE(SPACE, 10.0, 4.0, math.log(4) / 2)(terms, 0, CHANCE).total.item() == pytest.approx(
        4.0, abs=1e-4
    )
    # The same sum of both, on the wrong sides: a capacity of the sum would find no distance.
    swapped = JointVAE(SPACE, 10.0, 4.0 + math.log(4) / 2, 0.0)(terms, 0, CHANCE)
    assert swapped.total.item() == pytest.approx(4.0 + 10.0 * math.log(4), abs=1e-3)
    assert swapped.terms["kl_continuous"].item() == pytest.approx(4.0)
    assert swapped.terms["kl_discrete"].item() == pytest.approx(math.log(4) / 2, abs=1e-5)
    assert swapped.terms["kl"].item() == pytest.approx(4.0 + math.log(4) / 2, abs=1e-5)


def test_the_discrete_capacity_stops_at_what_the_categories_can_hold():
    """Would catch: a capacity of 25 nats for four categories, whose distance can never close."""
    terms = planted()
    most = JointVAE(SPACE, 10.0, 4.0, math.log(4))(terms, 0, CHANCE).total
    assert JointVAE(SPACE, 10.0, 4.0, 25.0)(terms, 0, CHANCE).total == most


def test_capacities_follow_their_schedules_and_are_logged():
    """Would catch: two schedules that share a name in the log."""
    objective = JointVAE(SPACE, 1.0, Schedule("linear", 0.0, 8.0, 100), Schedule("linear", 0.0, 1.0, 10))
    logged = objective.loss(planted(), 50, CHANCE).terms
    assert (logged["capacity_continuous"].item(), logged["capacity_discrete"].item()) == (4.0, 1.0)


def test_soft_draws_become_categories_as_the_temperature_falls_and_uniform_as_it_rises():
    """Would catch: a temperature that multiplies, and Gumbel noise of the wrong sign."""
    logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(20_000, 3)
    cold = GumbelSoftmax(logits, 0.01).soft(torch.Generator().manual_seed(0))
    assert cold.max(1).values.mean() > 0.98
    shares = torch.nn.functional.one_hot(cold.argmax(1), 3).float().mean(0)
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.015, rtol=0)
    hot = GumbelSoftmax(logits, 1000.0).soft(torch.Generator().manual_seed(0))
    torch.testing.assert_close(hot, torch.full_like(hot, 1 / 3), atol=5e-3, rtol=0)
    for soft in (cold, hot):
        torch.testing.assert_close(soft.sum(1), torch.ones(20_000))


def test_soft_draws_have_the_gradient_of_what_they_are():
    """Would catch: a detached draw, or noise drawn again in the backward pass."""
    logits = torch.randn(
        5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    ).requires_grad_()
    torch.autograd.gradcheck(
        lambda numbers: GumbelSoftmax(numbers, 0.7).soft(torch.Generator().manual_seed(3)), logits
    )


def test_a_posterior_with_a_temperature_trains_softly_and_samples_categories():
    """Would catch: blends of categories shown as samples, or a KL of the softened distribution."""
    space = LatentSpace([Block("kind", 4, Categorical(temperature=0.7))])
    numbers = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    q, hard = space.posterior(numbers), LatentSpace([Block("kind", 4, Categorical)]).posterior(numbers)
    soft = q.rsample(torch.Generator().manual_seed(0))
    assert ((soft > 0.01) & (soft < 0.99)).any()
    drawn = q.sample(seed=0)
    assert set(drawn.unique().tolist()) == {0.0, 1.0} and (drawn.sum(1) == 1).all()
    torch.testing.assert_close(q.kl(), hard.kl())
    torch.testing.assert_close(q.mean, hard.mean)
    assert torch.equal(q.code(), hard.code()) and torch.equal(drawn, hard.sample(seed=0))
    assert LatentSpace.from_dict(space.to_dict()) == space


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_out_of_range_is_refused(temperature):
    with pytest.raises(ValueError, match="A temperature lies above 0; got"):
        Categorical(temperature=temperature)
    with pytest.raises(ValueError, match=r"block.temperature must lie in \[0.001, 1000.0\]"):
        BlockConfig("kind", 4, "categorical", temperature)


def test_a_temperature_belongs_to_categories():
    with pytest.raises(ValueError, match="belongs to categorical blocks; block 'pose' is normal"):
        BlockConfig("pose", 4, temperature=0.5)


def test_a_short_training_holds_both_capacities(tmp_path):
    """Would catch: categories that stay unused while the continuous latents carry everything."""
    blocks = [BlockConfig("kind", 10, "categorical", 0.67), BlockConfig("style", 6)]
    experiment = Experiment(
        data=DataConfig("digits"),
        model=VAEConfig(blocks=blocks, width=8, hidden=32),
        objective=JointVAEConfig(100.0, Schedule("linear", 0.0, 4.0, 150), Schedule("linear", 0.0, 1.5, 150)),
        max_steps=300,
        batch_size=64,
        learning_rate=2e-3,
        log_every=50,
        preview_every=0,
        keep_memory=False,
    )
    metrics = fit(experiment, tmp_path / "run", device="cpu", progress=False).metrics()
    assert metrics["kl_continuous"][-1] == pytest.approx(4.0, abs=0.3)
    assert metrics["kl_discrete"][-1] == pytest.approx(1.5, abs=0.2)


def test_the_block_of_a_configuration_brings_its_temperature():
    model = build_model(
        VAEConfig(blocks=[BlockConfig("kind", 3, "categorical", 0.5)], width=4, hidden=8), (1, 28, 28)
    )
    assert model.latent_space.blocks[0].prior == Categorical(temperature=0.5)
