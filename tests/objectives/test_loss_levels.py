"""The formulas of `benchmarks/loss_levels.py`: the papers', and on demand the published program's."""

import importlib.util
import math
import sys
from pathlib import Path

import pytest
import torch

from latentlab.latents import Block, LatentSpace
from latentlab.models.contract import ElboTerms
from latentlab.objectives.beta_tcvae import BetaTCVAE

SOURCE = Path(__file__).parents[2] / "benchmarks" / "loss_levels.py"
N = 737_280


@pytest.fixture(scope="module")
def levels():
    """The benchmark as a module."""
    spec = importlib.util.spec_from_file_location("loss_levels", SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["loss_levels"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["loss_levels"]


def batch(scale: float = 1.0):
    """Means, log-variances and draws of 64 images' ten latents."""
    chance = torch.Generator().manual_seed(0)
    mean, noise = torch.randn(2, 64, 10, generator=chance)
    log_var = torch.full((64, 10), -2.0)
    return scale * mean, log_var, scale * mean + (0.5 * log_var).exp() * noise


def test_the_papers_formula_is_the_package_s_loss(levels):
    """Would catch: a table whose two columns train different losses unasked."""
    mean, log_var, z = batch()
    q = LatentSpace([Block("z", 10)]).posterior(torch.cat([mean, log_var], 1))
    terms = ElboTerms(torch.zeros(64, 1, 1, 1), q, z, torch.zeros(64), q.kl())
    ours = BetaTCVAE(6.4, 1.0, 1.0, "stratified-faulty", N)(terms, 0, torch.Generator()).total
    formula = levels.regulariser("beta-tcvae", 0, mean, log_var, z, N, published=False)
    assert formula.item() == pytest.approx(ours.item(), rel=1e-4)
    assert {levels.annealing(name, 0, False) for name in levels.OBJECTIVES} == {1.0}


def test_the_published_program_s_two_further_points_are_there_on_demand(levels):
    """Would catch: a published log of -31.1 nats set beside a loss that has neither, and is said to be its own."""
    mean, log_var, z = batch(scale=100.0)  # every image alone: what the logs' total correlation tends to
    q = LatentSpace([Block("z", 10)]).posterior(torch.cat([mean, log_var], 1))
    sampled = (q.log_prob(z) - q.space.log_prob(z)).sum(1).mean()
    loss = levels.regulariser("beta-tcvae", 0, mean, log_var, z, N, published=True)
    own = -math.log(63)  # almost every image's weight on itself
    shift = (loss - sampled).item() / 5.4
    paper = levels.regulariser("beta-tcvae", 0, mean, log_var, z, N, published=False)
    joint = (paper - q.kl().sum(1).mean()).item() / 5.4
    assert shift == pytest.approx(joint + 9 * own, abs=2.0) and shift < joint - 30.0
    weights = [levels.annealing("beta-vae", step, True) for step in (0, 4_999, 9_999, 200_000)]
    assert weights == [1e-4, 0.5, 1.0, 1.0]
    assert levels.annealing("annealed-vae", 0, True) == 1.0


@pytest.mark.parametrize("published", [False, True])
def test_a_few_steps_go_down_it(levels, published):
    """Would catch: an option that can be given and not run."""
    made = levels.experiment("beta-tcvae", 3)
    formula = levels.Formula("beta-tcvae", made, torch.device("cpu"), published)
    for _ in range(3):
        formula.train_step()
    first, *_, last = [row[0] for row in formula.rows]
    assert last < first and all(math.isfinite(v) for row in formula.rows for v in row)
