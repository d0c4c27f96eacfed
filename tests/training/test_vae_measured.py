"""What training logs of the KL's parts: right by a closed form, at every row, at no cost to what is trained."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal as NormalDistribution

from latentlab.config import BlockConfig, DataConfig, PairVAE, VAEConfig
from latentlab.data import FactorDataset, open_dataset
from latentlab.latents import Block, LatentSpace, Posterior
from latentlab.models.build import build_model
from latentlab.models.contract import ElboTerms
from latentlab.objectives.build import build_objective
from latentlab.objectives.total_correlation import decompose, measure
from latentlab.objectives.variational import DataDescription
from latentlab.training import vae as module
from latentlab.training.vae import VAETraining

PARTS = ("mutual_information", "total_correlation", "dimension_wise_kl")
MEASURED = [f"{name}_half_own" for name in PARTS]
BOUNDS = ["mutual_information_least", "mutual_information_most"]
RHO, SCALE, STD, DEAD = 0.6, 0.95, 0.2, 2


class Gaussians(FactorDataset):
    """Images of three grey values, each a normal number's share of the bell; two of the numbers go together."""

    def __init__(self, size: int = 20_000) -> None:
        super().__init__("gaussians", "planted", (1, 1, 3), size)
        e = torch.randn(size, 3, generator=torch.Generator().manual_seed(0))
        e[:, 1] = RHO * e[:, 0] + math.sqrt(1 - RHO**2) * e[:, 1]
        self.values = torch.special.ndtr(e)[:, None, None]

    def _read(self, indices):
        return self.values[indices]


class Reads(nn.Module):
    """A model whose posterior is those numbers and some noise, and two dead coordinates."""

    label_factors, labelled = (), 0.0

    def __init__(self) -> None:
        super().__init__()
        self.latent_space = LatentSpace([Block("z", 3 + DEAD)])
        self.one = nn.Parameter(torch.ones(()))
        self.modes: list[bool] = []

    def encode(self, x):
        self.modes.append(self.training)
        mean = SCALE * self.one * torch.special.ndtri(x.flatten(1))
        std = torch.full_like(mean, STD)
        dead = mean.new_zeros(len(mean), DEAD)
        parts = {"z": NormalDistribution(torch.cat([mean, dead], 1), torch.cat([std, dead + 1.0], 1))}
        return Posterior(self.latent_space, parts)

    def elbo_terms(self, x, generator, request=None, *, labels=None, posterior=None):
        q = posterior or self.encode(x)
        return ElboTerms(x, q, q.rsample(generator), -self.one * x.flatten(1).sum(1), q.kl(), labels)


def training_of(experiment, model=None, dataset=None) -> VAETraining:
    dataset = dataset or open_dataset(experiment.data.name, **experiment.data.options)
    model = model or build_model(experiment.model, dataset.image_shape)
    objective = build_objective(experiment.objective, model, DataDescription.of(dataset))
    training = VAETraining(model, objective, dataset, experiment)
    training.on_fit_start()
    optimisers = training.configure_optimizers()
    training.optimizers = lambda use_pl_optimizer=False: optimisers
    return training


def closed_form() -> list[float]:
    """Of q(z) = N(0, C), C the covariance of the numbers and of the noise: MI, TC, dimension-wise KL, nats."""
    v, shared = SCALE**2 + STD**2, RHO * SCALE**2
    joint = v * (v**2 - shared**2)
    return [
        0.5 * math.log(joint) - 3 * math.log(STD),
        0.5 * math.log(v**3 / joint),
        1.5 * (v - 1.0 - math.log(v)),
    ]


def test_at_batch_64_the_logged_parts_are_those_of_the_closed_form_and_the_batch_alone_gives_others(tiny):
    """Would catch: a batch's own stratified weights read as an estimate: information above the KL, and TC below 0."""
    experiment = tiny(batch_size=64, log_every=100, max_steps=200)
    training = training_of(experiment, Reads(), Gaussians())
    training.step = 99
    found = training._measured()
    assert set(found) == {*MEASURED, *BOUNDS, "measured_images"} and found["measured_images"] == 2048
    exact = closed_form()
    assert sum(exact) == pytest.approx(4.74, abs=0.01)
    # Tolerances: three standard errors of 1,024 codes, and for the first two the bias at 2,048 images.
    for name, value, tolerance in zip(MEASURED, exact, (0.2, 0.15, 0.03), strict=True):
        assert found[name].item() == pytest.approx(value, abs=tolerance), name
    least, most = (found[name].item() for name in BOUNDS)
    assert exact[0] - 0.3 < least < exact[0] < most + 0.1 and least < found[MEASURED[0]] <= most
    kl = sum(found[name].item() for name in MEASURED)
    assert kl == pytest.approx(training.terms(0).kl.sum(1).mean().item(), abs=0.5)
    rows = []
    for step in range(50):  # as training logged them: means over steps of one batch each
        with torch.no_grad():
            terms = training.terms(step)
        rows.append(
            [v.mean() for v in vars(decompose(terms.posterior, terms.z, 20_000, "stratified")).values()]
        )
    information, correlation, _ = torch.tensor(rows).mean(0).tolist()
    assert information > sum(exact) + 0.3 and correlation < -0.3


def test_the_whole_data_set_leaves_only_the_draw_to_chance(tiny):
    """Would catch: the own image counted by half, or 1 / N beside a sample that is all there is."""
    data = Gaussians(600)
    training = training_of(tiny(batch_size=64, log_every=100, max_steps=100), Reads(), data)
    training.step = 99
    found = training._measured()
    assert found["measured_images"] == 600
    q = training.model.encode(data.images(range(600)))
    z = q.sample(0)
    each = q.pairwise_log_prob(z)
    log_q = each.sum(2).logsumexp(1) - math.log(600)
    by_hand = (each.sum(2).diagonal() - log_q).mean().item()
    assert measure([q], z, 600).mutual_information.mean().item() == pytest.approx(by_hand, abs=1e-4)
    assert found[MEASURED[0]].item() == pytest.approx(by_hand, abs=0.25)
    assert found["mutual_information_least"].item() == pytest.approx(found[MEASURED[0]].item(), abs=1e-4)


@pytest.mark.parametrize(("log_every", "count"), [(100, [40]), (4, list(range(4, 41, 4))), (25, [25, 40])])
def test_every_row_has_its_parts_measured_once_after_its_last_step(tiny, log_every, count):
    """Would catch: a row without them, the last one that is shorter too, and figures of weights long gone."""
    training = training_of(tiny(log_every=log_every, max_steps=40), Reads(), Gaussians(100))
    rows = []
    for step in range(1, 41):
        training.training_step(0, 0)
        if any(name in key.split(",") for key in training.sums for name in MEASURED):
            rows.append(step)
            assert set(MEASURED) <= set(training.take_means())
    assert rows == count


def test_to_measure_takes_no_more_than_a_third_of_a_rows_images(tiny):
    """Would catch: 2,048 images encoded at every step where every step has a row."""
    for batch, log_every, images in (
        (64, 100, 2048),
        (64, 10, 213),
        (64, 1, 64),
        (8, 4, 10),
        (256, 100, 2048),
    ):
        experiment = tiny(batch_size=batch, log_every=log_every, max_steps=1000)
        training = training_of(experiment, Reads(), Gaussians())
        training.step = log_every - 1
        assert training._measured()["measured_images"] == images


def test_to_measure_leaves_the_step_as_it_was_and_is_a_function_of_seed_and_step(tiny):
    """Would catch: numbers drawn of the process's generator, a mode left behind, a graph kept, chance by history."""
    model = Reads().train()
    training = training_of(tiny(), model, Gaussians(500))
    before, state = training.terms(2), torch.random.get_rng_state()
    training.step = 3
    model.modes.clear()
    first, again = training._measured(), training._measured()
    assert not any(model.modes) and model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[n], again[n]) and not first[n].requires_grad for n in first)
    assert torch.equal(training.terms(2).z, before.z)
    training.step = 7
    assert not torch.equal(training._measured()[MEASURED[0]], first[MEASURED[0]])


def test_soft_draws_are_measured_as_the_categories_they_stand_for(tiny, monkeypatch):
    """Would catch: the parts of the KL of blends of categories, which have no probability."""
    blocks = [BlockConfig("kind", 5, "categorical", 2.0), BlockConfig("style", 2)]
    training = training_of(tiny(model=VAEConfig(blocks=blocks, width=4, hidden=8)))
    seen = []

    def watched(posteriors, z, data_size):
        seen.append((z, data_size))
        return measure(posteriors, z, data_size)

    monkeypatch.setattr(module, "measure", watched)
    training.step = 3
    assert training._measured()
    ((z, data_size),) = seen
    assert set(z[:, :5].unique().tolist()) == {0.0, 1.0} and (z[:, :5].sum(1) == 1.0).all()
    assert data_size == len(training.images)


def test_a_pairs_kl_is_logged_whole_and_what_the_loss_counts_of_it_apart(tiny):
    """Would catch: a KL 'per image' of 27.77 nats whose own columns sum to 37.00."""
    blocks = [BlockConfig("pose", 2), BlockConfig("content", 3)]
    experiment = tiny(
        data=DataConfig("sprites", {"image_size": 32}),
        model=VAEConfig(blocks=blocks, width=4, hidden=8),
        objective=PairVAE(beta=2.0, shared=["content"], changing=["x", "y"], mirrored=True),
    )
    training = training_of(experiment)
    with torch.no_grad():  # a code that says something
        training.model.encoder.stages["posterior"].weight.mul_(30.0)
    for _ in range(4):
        training.training_step(0, 0)
    row = training.take_means()
    columns = sum(row[f"kl_{name}"] for name in training.model.latent_space.names)
    assert row["kl"] > 0.1 and row["kl"] == pytest.approx(columns, rel=1e-5)
    assert row["kl_counted"] < 0.9 * row["kl"]
    assert row["loss"] == pytest.approx(row["reconstruction"] + 2.0 * row["kl_counted"], rel=1e-5)
    assert set(MEASURED) <= set(row)


def test_the_sample_is_of_different_images(tiny):
    """Would catch: draws with repeats, by which an image's own posterior counts twice."""
    data = Gaussians(300)
    training = training_of(tiny(), Reads(), data)
    assert len(set(training._different(300, 1).tolist())) == 300
    assert not torch.equal(training._different(300, 1), training._different(300, 2))


def test_a_data_set_of_one_image_has_nothing_to_compare_it_with(tiny):
    """Would catch: a division by no other image."""
    training = training_of(tiny(batch_size=1), Reads(), Gaussians(1))
    training.step = 3
    assert training._measured() == {}
