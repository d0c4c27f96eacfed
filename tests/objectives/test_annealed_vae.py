"""AnnealedVAE: the distance of the batch's KL from a capacity."""

import pytest
import torch
from torch.distributions import Normal as NormalDistribution

from latentlab.config import AnnealedVAE as AnnealedVAEConfig
from latentlab.config import DataConfig, Experiment, Schedule, VAEConfig
from latentlab.latents import Block, LatentSpace, Posterior
from latentlab.models.contract import ElboTerms
from latentlab.objectives.annealed_vae import AnnealedVAE
from latentlab.training.fit import fit

CHANCE = torch.Generator()


def test_the_kl_is_averaged_over_the_batch_before_the_distance_is_taken():
    """Would catch: a distance per image, which forbids images that need more nats than others."""
    mean = torch.tensor([[0.0, 0.0], [6.0, 0.0]])
    q = Posterior(LatentSpace([Block("z", 2)]), {"z": NormalDistribution(mean, torch.ones(2, 2))})
    terms = ElboTerms(torch.zeros(2, 1, 1, 1), q, mean, torch.tensor([-3.0, -5.0]), q.kl())
    loss = AnnealedVAE(100.0, 9.0)(terms, 0, CHANCE)  # KL 0 and 18: their mean is the capacity
    assert loss.total.item() == pytest.approx(4.0, abs=1e-5)
    assert 100.0 * (q.kl().sum(1) - 9.0).abs().mean() == 900.0  # the faulty form
    assert loss.terms["kl"].item() == 9.0


def test_the_capacity_follows_the_optimiser_steps_and_is_logged():
    """Would catch: a capacity counted in epochs, or one that the curves don't show."""
    mean = torch.zeros(2, 2)
    q = Posterior(LatentSpace([Block("z", 2)]), {"z": NormalDistribution(mean, torch.ones(2, 2))})
    terms = ElboTerms(torch.zeros(2, 1, 1, 1), q, mean, torch.zeros(2), q.kl())
    objective = AnnealedVAE(10.0, Schedule("linear", 0.0, 25.0, 100))
    for step, capacity in ((0, 0.0), (50, 12.5), (100, 25.0), (1000, 25.0)):
        loss = objective.loss(terms, step, CHANCE)
        assert loss.terms["capacity"].item() == capacity and loss.total.item() == 10.0 * capacity


def test_a_short_training_reaches_its_capacity(tmp_path):
    """Would catch: a capacity that is a ceiling only, or is never approached from below."""
    experiment = Experiment(
        data=DataConfig("digits"),
        model=VAEConfig(latents=6, width=8, hidden=32),
        objective=AnnealedVAEConfig(gamma=100.0, capacity=Schedule("linear", 0.0, 6.0, 150)),
        max_steps=300,
        batch_size=64,
        learning_rate=2e-3,
        log_every=50,
        preview_every=0,
        keep_memory=False,
    )
    metrics = fit(experiment, tmp_path / "run", device="cpu", progress=False).metrics()
    assert metrics["kl"][-1] == pytest.approx(6.0, abs=0.3)
    assert metrics["capacity"][-1] == 6.0 and metrics["capacity"][0] < 1.5
