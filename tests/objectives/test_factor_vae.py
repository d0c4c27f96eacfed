"""FactorVAE: what the discriminator sees, learns and costs."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal as NormalDistribution
from torch.nn import functional as F

from latentlab.config import BlockConfig, DataConfig, Experiment, VAEConfig
from latentlab.config import FactorVAE as FactorVAEConfig
from latentlab.data import open_dataset
from latentlab.latents import Block, Categorical, LatentSpace, Posterior
from latentlab.models.build import build_model
from latentlab.models.contract import ElboTerms
from latentlab.objectives.build import build_objective
from latentlab.objectives.factor_vae import FactorVAE, permute_variables
from latentlab.objectives.variational import AdamSettings, DataDescription
from latentlab.runs import Run
from latentlab.training.fit import fit, resume
from latentlab.training.vae import VAETraining

SPACE = LatentSpace([Block("z", 2)])


def terms_of(z: torch.Tensor, other: torch.Tensor | None = None, space: LatentSpace = SPACE) -> ElboTerms:
    q = Posterior(space, {"z": NormalDistribution(z, torch.ones_like(z))})
    further = () if other is None else (terms_of(other, None, space),)
    return ElboTerms(torch.zeros(len(z), 1, 1, 1), q, z, torch.zeros(len(z)), q.kl(), others=further)


def chance(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def correlated(n: int, rho: float, seed: int) -> torch.Tensor:
    noise = torch.randn(n, 2, generator=chance(seed))
    return torch.stack([noise[:, 0], rho * noise[:, 0] + math.sqrt(1 - rho**2) * noise[:, 1]], 1)


def small(gamma: float = 6.0, seed: int = 0) -> FactorVAE:
    config = FactorVAEConfig(gamma=gamma, layers=2, units=64, learning_rate=2e-3)
    model = build_model(VAEConfig(latents=2, width=4, hidden=8), (1, 28, 28))
    return build_objective(config, model, DataDescription(100, (1, 28, 28)), seed)


def test_the_discriminator_is_the_papers():
    """Would catch: another width, depth, slope or optimiser under the paper's name."""
    layers = list(FactorVAE(LatentSpace([Block("z", 10)]), 35.0).discriminator)
    shapes = [tuple(layer.weight.shape) for layer in layers if isinstance(layer, nn.Linear)]
    assert shapes == [(1000, 10), *[(1000, 1000)] * 5, (2, 1000)]
    assert [layer.negative_slope for layer in layers if isinstance(layer, nn.LeakyReLU)] == [0.2] * 6
    assert FactorVAE(SPACE, 35.0).auxiliary_adam == AdamSettings(1e-4, (0.5, 0.9))


def test_equal_seeds_give_equal_discriminators_and_touch_no_global_generator():
    """Would catch: a discriminator drawn from the process's generator, which no seed repeats."""
    state = torch.get_rng_state()
    first, again, other = small(seed=3), small(seed=3), small(seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    for a, b, c in zip(first.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b) and not torch.equal(a, c)


def test_every_variable_is_shuffled_across_the_batch_and_keeps_its_values():
    """Would catch: D1, a shuffle of the entries within each row, which mixes the variables."""
    z = correlated(400, 0.95, 0) * torch.tensor([1.0, 30.0])
    permuted = permute_variables(z, SPACE, chance(1))
    assert torch.equal(permuted.sort(0).values, z.sort(0).values)
    assert torch.corrcoef(permuted.T)[0, 1].abs() < 0.15 < torch.corrcoef(z.T)[0, 1]
    within = z.gather(1, torch.rand(z.shape, generator=chance(1)).argsort(1))
    assert not torch.equal(within.sort(0).values, z.sort(0).values)
    rows = torch.stack([z[order] for order in [torch.randperm(400, generator=chance(2))]])[0]
    assert torch.corrcoef(rows.T)[0, 1] > 0.9  # one order for all: nothing becomes independent


def test_a_category_moves_as_a_whole():
    """Would catch: one-hot rows torn apart, which any discriminator tells at once."""
    space = LatentSpace([Block("kind", 3, Categorical), Block("z", 2)])
    z = space.sample(50, seed=0)
    permuted = permute_variables(z, space, chance(1))
    assert torch.equal(permuted[:, :3].sum(1), torch.ones(50)) and not torch.equal(permuted, z)
    assert torch.equal(permuted.sort(0).values, z.sort(0).values)


def trained(z_of, steps: int = 400) -> tuple[FactorVAE, list[float]]:
    objective = small()
    adam = torch.optim.Adam(objective.auxiliary_parameters(), lr=2e-3, betas=(0.5, 0.9))
    losses = []
    for step in range(steps):
        loss = objective.auxiliary(terms_of(z_of(2 * step), z_of(2 * step + 1)), step, chance(step))
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    return objective, losses


def test_on_factorised_codes_the_discriminator_is_lost_and_sees_no_total_correlation():
    """Would catch: classes or batches that differ by something else than dependence."""
    objective, losses = trained(lambda seed: correlated(256, 0.0, seed))
    assert sum(losses[-50:]) / 50 == pytest.approx(math.log(2), abs=0.02)
    seen = objective(terms_of(correlated(4000, 0.0, 9_999)), 0, chance(0)).terms
    assert seen["total_correlation_discriminator"].item() == pytest.approx(0.0, abs=0.08)


def test_on_dependent_codes_it_estimates_the_total_correlation():
    """Would catch: the logits' sign turned round, so that dependence is rewarded."""
    rho = 0.9
    objective, _ = trained(lambda seed: correlated(256, rho, seed))
    seen = objective(terms_of(correlated(4000, rho, 9_999)), 0, chance(0))
    exact = -0.5 * math.log(1 - rho**2)
    assert seen.terms["total_correlation_discriminator"].item() == pytest.approx(exact, abs=0.2)
    kl, tc = seen.terms["kl"], seen.terms["total_correlation_discriminator"]
    assert seen.total.item() == pytest.approx((kl + 6.0 * tc).item(), rel=1e-5)


def test_the_discriminator_judges_the_first_batch_and_a_permuted_second_one():
    """Would catch: both classes from one batch, whose permuted rows it has seen, or a loss of twice the size."""
    objective = small()
    z, other = correlated(64, 0.5, 0), 5.0 + correlated(64, 0.5, 1)
    loss = objective.auxiliary(terms_of(z, other), 0, chance(7))
    fake = permute_variables(other, SPACE, chance(7))
    real, drawn = torch.zeros(64, dtype=torch.long), objective.discriminator(z)
    expected = 0.5 * F.cross_entropy(drawn, real)
    expected = expected + 0.5 * F.cross_entropy(objective.discriminator(fake), real + 1)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    z.requires_grad_(), other.requires_grad_()
    objective.auxiliary(terms_of(z, other), 0, chance(7)).backward()
    assert z.grad is None and other.grad is None  # the codes are given: the encoder has no part in this loss


TINY = Experiment(
    data=DataConfig("sprites", {"image_size": 32}),
    model=VAEConfig(latents=4, width=4, hidden=8),
    objective=FactorVAEConfig(gamma=6.0, layers=2, units=32),
    max_steps=12,
    batch_size=8,
    log_every=4,
    preview_every=0,
    checkpoint_every=6,
    keep_memory=False,
)


def test_training_steps_both_sides_with_their_own_settings(monkeypatch):
    """Would catch: D2, weights changed between a forward and its backward; a discriminator at the model's rate."""
    dataset = open_dataset("sprites", image_size=32)
    model = build_model(TINY.model, dataset.image_shape)
    decoded, run = [], model.generator.run
    monkeypatch.setattr(model.generator, "run", lambda z, *a, **k: decoded.append(len(z)) or run(z, *a, **k))
    objective = build_objective(TINY.objective, model, DataDescription.of(dataset))
    training = VAETraining(model, objective, dataset, TINY)
    first, second = training.configure_optimizers()
    training.optimizers = lambda use_pl_optimizer=False: [first, second]
    assert (second.defaults["lr"], second.defaults["betas"]) == (1e-4, (0.5, 0.9))
    assert (first.defaults["lr"], first.defaults["betas"]) == (TINY.learning_rate, (0.9, 0.999))
    before = {n: p.detach().clone() for n, p in training.named_parameters()}
    gradients = {}
    for step in range(2):  # the second step would meet D2's error: a version of a weight that is gone
        training.training_step(step, step)
        gradients = {n: p.grad for n, p in training.named_parameters()}
    assert decoded == [8, 8]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients.values())
    moved = {n: (p - before[n]).abs().max().item() for n, p in training.named_parameters()}
    own = [v for n, v in moved.items() if n.startswith("objective.")]
    assert all(0.0 < v <= 2.1e-4 for v in own) and len(own) == 6
    assert max(v for n, v in moved.items() if n.startswith("model.")) > 5e-4


def test_it_is_resumed_to_the_same_bits_with_discriminator_and_both_optimisers(tmp_path):
    """Would catch: a discriminator that starts anew, or moments that are lost, when a run goes on."""

    def texts(run: Run) -> tuple[bytes, str]:
        return run.weights_path.read_bytes(), (run.path / "metrics.csv").read_text()

    whole = fit(TINY, tmp_path / "whole", device="cpu", progress=False)
    path = tmp_path / "part"
    stop = lambda model, file: Run.open(path).command(command="stop")  # noqa: E731
    fit(dataclasses.replace(TINY, preview_every=6), path, device="cpu", preview=stop, progress=False)
    state = torch.load(path / "last.ckpt", weights_only=True)
    assert state["step"] < 12 and len(state["optimisers"]) == 2
    assert any(name.startswith("discriminator.") for name in state["objective"])
    assert texts(resume(path, device="cpu", progress=False)) == texts(whole)
    ends = [torch.load(p / "last.ckpt", weights_only=True) for p in (whole.path, path)]
    for name, values in ends[0]["objective"].items():
        assert torch.equal(values, ends[1]["objective"][name])


def test_it_trains_a_model_with_a_category(tmp_path):
    """Would catch: a discriminator as wide as the number of variables, not of coordinates."""
    blocks = [BlockConfig("kind", 3, "categorical"), BlockConfig("z", 2)]
    experiment = dataclasses.replace(TINY, model=VAEConfig(blocks=blocks, width=4, hidden=8), max_steps=4)
    metrics = fit(experiment, tmp_path / "run", device="cpu", progress=False).metrics()
    assert metrics["auxiliary"][-1] == pytest.approx(math.log(2), abs=0.05)


def test_one_image_is_refused():
    """Would catch: a permutation of one code, which is that code, so that both classes are the same."""
    dataset = open_dataset("sprites", image_size=32)
    model = build_model(TINY.model, dataset.image_shape)
    objective = build_objective(TINY.objective, model, DataDescription.of(dataset))
    with pytest.raises(ValueError, match="FactorVAE needs at least 2 images a batch; got batch_size=1"):
        VAETraining(model, objective, dataset, dataclasses.replace(TINY, batch_size=1))


def test_the_discriminator_follows_the_arithmetic_of_the_model_and_its_logits_stay_in_32_bits():
    """Would catch: a discriminator in 32 bits beside a model in 16, or a loss in 16."""
    objective = small()
    objective.arithmetic = lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    seen = []
    objective.discriminator[0].register_forward_hook(lambda m, i, out: seen.append(out.dtype))
    logits = objective.logits(torch.zeros(4, 2))
    assert seen == [torch.bfloat16] and logits.dtype == torch.float32
