"""Training: every step a function of (seed, step), every file whole, every failure one sentence."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from latentlab.config import BlockConfig, VAEConfig
from latentlab.data import FactorDataset, open_dataset
from latentlab.latents import Posterior
from latentlab.models import precision
from latentlab.models.build import build_model
from latentlab.models.contract import ONE_DRAW, TermsRequest, weights_digest
from latentlab.models.precision import in_bf16
from latentlab.models.vae import VAE
from latentlab.objectives.variational import AdamSettings, BetaVAE, Loss, Objective
from latentlab.runs import Run
from latentlab.training import fit as fit_module
from latentlab.training.chance import stream_seed
from latentlab.training.fit import fit, resume
from latentlab.training.recorder import kept_steps
from latentlab.training.vae import VAETraining


def texts(run: Run) -> tuple[str, bytes]:
    return (run.path / "metrics.csv").read_text(), (run.path / "weights.safetensors").read_bytes()


def test_a_run_holds_weights_curves_and_configuration(tiny, tmp_path):
    state = torch.get_rng_state()
    previews = []
    run = fit(
        tiny(preview_every=6),
        tmp_path / "run",
        device="cpu",
        preview=lambda model, path: previews.append((path.name, model.training)),
        progress=False,
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert previews == [("step-6.png", False), ("step-12.png", False)]
    assert run.experiment == tiny(preview_every=6) and run.steps == [0, 10, 12]
    assert run.at(0).digest == weights_digest(build_model(run.experiment.model, run.image_shape, seed=0))
    assert run.at(12).digest == run.digest != run.at(0).digest
    metrics = run.metrics()
    assert list(metrics["step"]) == [4, 8, 12]
    assert np.allclose(metrics["loss"], metrics["reconstruction"] + 2.0 * metrics["kl"], rtol=1e-5)
    assert np.allclose(sum(metrics[f"kl_z{i}"] for i in range(4)), metrics["kl"], rtol=1e-4)
    assert len(run.timing()["images_per_second"]) == 3
    with pytest.raises(OSError, match="A run is at"):
        fit(tiny(), tmp_path / "run", device="cpu", progress=False)


def test_equal_seeds_give_equal_bits_whatever_is_logged_or_drawn(tiny, tmp_path):
    # The fake: a recorder that draws random numbers, or batch order that depends on the worker.
    first = fit(tiny(), tmp_path / "a", device="cpu", progress=False)
    watched = fit(
        tiny(log_every=1, preview_every=2, checkpoint_every=1),
        tmp_path / "b",
        device="cpu",
        preview=lambda model, path: model.sample(2, seed=9),
        progress=False,
    )
    other = fit(tiny(seed=1), tmp_path / "c", device="cpu", progress=False)
    assert first.digest == watched.digest != other.digest


def test_the_batch_of_a_step_can_be_named_afterwards(tiny):
    experiment = tiny()
    dataset = open_dataset("sprites", image_size=32)
    training = VAETraining(build_model(experiment.model, dataset.image_shape), BetaVAE(), dataset, experiment)
    for step in (0, 7):
        indices = dataset.batch(experiment.batch_size, experiment.seed, step)
        assert torch.equal(training.terms(step).x, dataset.images(indices))
    assert torch.equal(training.terms(3).z, training.terms(3).z)
    assert not torch.equal(training.terms(3).z, training.terms(4).z)
    seeds = {stream_seed(s, name, t) for s in range(3) for name in ("noise", "batch") for t in range(50)}
    assert len(seeds) == 300


def test_a_stopped_run_resumes_to_the_same_bits(tiny, tmp_path):
    whole = fit(tiny(), tmp_path / "whole", device="cpu", progress=False)
    path = tmp_path / "part"

    def stop_at_six(model, file):
        Run.open(path).command(command="stop")

    part = fit(tiny(preview_every=6), path, device="cpu", preview=stop_at_six, progress=False)
    assert part.stopped_by == "a stop command"
    assert list(part.metrics()["step"]) == [4, 8]  # the command is read when the next row is logged
    with (path / "metrics.csv").open("a") as file:
        file.write("11,1.0\n12")  # rows of steps that were lost, and half a line
    resumed = resume(path, device="cpu", progress=False)
    assert resumed.stopped_by == ""
    assert texts(resumed) == texts(whole)
    assert resume(path, device="cpu", progress=False).digest == whole.digest  # nothing left to do


def test_a_stop_in_the_middle_of_a_logged_interval_loses_no_step(tiny, tmp_path, monkeypatch):
    whole = fit(tiny(), tmp_path / "whole", device="cpu", progress=False)
    real = VAETraining.training_step

    def interrupted(self, batch, batch_idx):
        real(self, batch, batch_idx)
        if self.step == 7:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)  # a real Ctrl-C, at a step that is neither logged nor saved

    monkeypatch.setattr(VAETraining, "training_step", interrupted)
    part = fit(tiny(), tmp_path / "part", device="cpu", progress=False)
    assert part.stopped_by == "Ctrl-C"
    monkeypatch.setattr(VAETraining, "training_step", real)
    assert texts(resume(tmp_path / "part", device="cpu", progress=False)) == texts(whole)


class _Adversary(Objective):
    """Needs two batches and has a parameter of its own that it trains against the model."""

    requests = (ONE_DRAW, ONE_DRAW)

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, terms, step, generator):
        (other,) = terms.others
        assert not torch.equal(terms.x, other.x) and not torch.equal(terms.z, other.z)
        loss = terms.reconstruction.mean() + 0.0 * other.kl.sum() + self.scale * terms.kl.sum(1).mean()
        return Loss(loss, {"reconstruction": terms.reconstruction.mean()})

    def auxiliary_parameters(self):
        return [self.scale]

    def auxiliary(self, terms, step, generator):
        return (self.scale - terms.z.detach().mean()).square()


def test_an_objective_with_two_batches_and_own_parameters_trains_and_resumes(tiny, tmp_path, monkeypatch):
    made = []

    def build(config, model, data, seed):
        assert data.size == 737_280 and data.image_shape == model.image_shape
        made.append(_Adversary())
        return made[-1]

    monkeypatch.setattr(fit_module, "build_objective", build)
    run = fit(tiny(max_steps=6), tmp_path / "run", device="cpu", progress=False)
    # One Adam step moves a parameter by about the learning rate, and only its own optimiser moves it.
    assert made[0].scale.item() == pytest.approx(1.0 - 6 * run.experiment.learning_rate, abs=2e-4)
    assert np.isfinite(run.metrics()["auxiliary"]).all()
    part = fit(tiny(max_steps=6), tmp_path / "again", device="cpu", progress=False)
    assert part.digest == run.digest


class _Fails(BetaVAE):
    def forward(self, terms, step, generator):
        loss = super().forward(terms, step, generator)
        if step >= 10:
            loss.total = loss.total * float("nan")
        return loss


def test_a_loss_that_is_not_finite_stops_with_a_sentence_and_keeps_the_checkpoint(
    tiny, tmp_path, monkeypatch
):
    monkeypatch.setattr(fit_module, "build_objective", lambda *_: _Fails())
    with pytest.raises(
        FloatingPointError, match=r"The loss became nan between steps 8 and 12; step 10 is kept"
    ):
        fit(tiny(checkpoint_every=6, max_steps=40), tmp_path / "run", device="cpu", progress=False)
    assert torch.isfinite(Run.open(tmp_path / "run", "cpu").model.sample(1, 0)).all()
    monkeypatch.undo()
    assert resume(tmp_path / "run", device="cpu", progress=False).metrics()["step"][-1] == 40


def test_weights_that_are_not_finite_are_never_saved(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(fit_module, "build_objective", lambda *_: _Fails())
    with pytest.raises(
        FloatingPointError, match=r"weights were no longer finite at step 12; step 10 is kept"
    ):
        fit(tiny(log_every=1000, max_steps=40), tmp_path / "run", device="cpu", progress=False)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:500]), "is damaged or not a checkpoint"),
        (lambda p: torch.save({"format": 1, "step": 3}, p), "does not fit this run"),
        (lambda p: torch.save([1, 2], p), "is not a checkpoint of a run"),
        (lambda p: torch.save({"step": print}, p), "is damaged or not a checkpoint"),
    ],
)
def test_a_damaged_checkpoint_is_refused(tiny, tmp_path, damage, message):
    run = fit(tiny(max_steps=2), tmp_path / "run", device="cpu", progress=False)
    damage(run.path / "last.ckpt")
    with pytest.raises(ValueError, match=message):
        resume(run.path, device="cpu", progress=False)


def test_nothing_to_resume_is_said(tmp_path, tiny):
    with pytest.raises(OSError, match="No run at"):
        resume(tmp_path)
    run = fit(tiny(max_steps=2), tmp_path / "run", device="cpu", progress=False)
    (run.path / "last.ckpt").unlink()
    with pytest.raises(OSError, match="Nothing to resume"):
        resume(run.path)
    with pytest.raises(ValueError, match="is a run of 2 steps; max_steps can't be 9"):
        resume(run.path, max_steps=9)


def test_an_objective_says_how_many_images_it_needs(tiny):
    class Needy(BetaVAE):
        least_batch = 9

    dataset = open_dataset("sprites", image_size=32)
    with pytest.raises(ValueError, match="Needy needs at least 9 images a batch; got batch_size=8"):
        VAETraining(build_model(tiny().model, dataset.image_shape), Needy(), dataset, tiny())


def test_kept_steps_are_log_spaced_and_end_with_the_last():
    assert kept_steps(300) == [0, 10, 20, 50, 100, 200, 300]
    assert kept_steps(7) == [0, 7]


def test_precision_follows_the_hardware_or_says_no(monkeypatch):
    cpu = torch.device("cpu")
    assert in_bf16("fp32", cpu) is False
    monkeypatch.setattr(precision, "supports_bf16", lambda device: False)
    assert in_bf16("auto", cpu) is False
    with pytest.raises(ValueError, match="this cpu has no bfloat16"):
        in_bf16("bf16", cpu)


def test_it_learns(tiny, tmp_path):
    run = fit(
        tiny(max_steps=60, log_every=20, learning_rate=3e-3), tmp_path / "run", device="cpu", progress=False
    )
    loss = run.metrics()["loss"]
    assert loss[-1] < 0.6 * loss[0]


@pytest.mark.gpu
def test_the_same_training_runs_on_a_gpu(tiny, tmp_path):
    run = fit(
        tiny(max_steps=60, log_every=20, learning_rate=3e-3), tmp_path / "run", device="cuda", progress=False
    )
    assert next(run.model.parameters()).is_cuda
    loss = run.metrics()["loss"]
    assert loss[-1] < 0.6 * loss[0]


class _Schedules(BetaVAE):
    def forward(self, terms, step, generator):
        loss = super().forward(terms, step, generator)
        if step >= 6:
            loss.terms["capacity"] = loss.total.detach() * 0.0 + step
        loss.terms["chance"] = torch.rand((), generator=generator)
        return loss


def test_terms_that_come_later_get_a_column_and_chance_is_the_steps_own(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(fit_module, "build_objective", lambda *_: _Schedules())
    metrics = fit(tiny(), tmp_path / "a", device="cpu", progress=False).metrics()
    assert np.isnan(metrics["capacity"][0])
    assert list(metrics["capacity"][1:]) == [6.5, 9.5]  # means over the steps that had it: 6, 7 and 8 to 11
    assert np.allclose(metrics["loss"], metrics["reconstruction"] + metrics["kl"], rtol=1e-5)
    again = fit(tiny(log_every=12), tmp_path / "b", device="cpu", progress=False).metrics()
    assert again["chance"][0] == pytest.approx(metrics["chance"].mean(), rel=1e-6)


@pytest.mark.gpu
def test_a_run_stopped_between_two_logs_resumes_on_a_gpu(tiny, tmp_path):
    path = tmp_path / "run"
    stop = lambda model, file: Run.open(path).command(command="stop")  # noqa: E731
    fit(tiny(preview_every=5, log_every=6), path, device="cuda", preview=stop, progress=False)
    assert resume(path, device="cuda", progress=False).metrics()["step"][-1] == 12


def _dataset() -> FactorDataset:
    return open_dataset("sprites", image_size=32)


def _steps(training: VAETraining, steps: int) -> list[torch.optim.Optimizer]:
    """Steps as a trainer makes them, without the run around them."""
    optimisers = training.configure_optimizers()
    training.optimizers = lambda use_pl_optimizer=False: optimisers
    for step in range(steps):
        training.training_step(step, step)
    return optimisers


class _Head(BetaVAE):
    """Reads the factor "shape" off the code: a head that follows the main loss."""

    requests = (TermsRequest(labels=1.0),)

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(3, 4))
            self.head.bias.zero_()

    def forward(self, terms, step, generator):
        loss = super().forward(terms, step, generator)
        wrong = nn.functional.cross_entropy(self.head(terms.z), terms.labels[:, 0])
        return Loss(loss.total + 100.0 * wrong, {**loss.terms, "wrong": wrong})


def test_a_head_of_the_objective_follows_the_main_loss(tiny):
    """Would catch: a label head that stays as it was made, its gradient never asked for."""
    dataset, experiment = _dataset(), tiny(learning_rate=1e-2)
    objective = _Head()
    before = objective.head.weight.detach().clone()
    training = VAETraining(build_model(experiment.model, dataset.image_shape), objective, dataset, experiment)
    optimisers = _steps(training, 40)
    assert len(optimisers) == 1
    assert (objective.head.weight - before).abs().min() > 1e-3
    labels = training.terms(3).labels
    indices = dataset.batch(experiment.batch_size, experiment.seed, 3)
    assert torch.equal(labels, dataset.factors(indices))


def test_a_run_with_a_head_resumes_to_the_same_bits(tiny, tmp_path, monkeypatch):
    """Would catch: a head's weights or moments that are not part of what a run resumes from."""
    monkeypatch.setattr(fit_module, "build_objective", lambda *_: _Head())
    whole = fit(tiny(), tmp_path / "whole", device="cpu", progress=False)
    path = tmp_path / "part"
    stop = lambda model, file: Run.open(path).command(command="stop")  # noqa: E731
    fit(tiny(preview_every=6), path, device="cpu", preview=stop, progress=False)
    assert texts(resume(path, device="cpu", progress=False)) == texts(whole)
    assert "wrong" in whole.metrics()


class _Idle(_Head):
    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(4, 1)


class _IdleJudge(_Adversary):
    def __init__(self):
        super().__init__()
        self.spare = nn.Parameter(torch.zeros(()))

    def auxiliary_parameters(self):
        return [self.scale, self.spare]


def test_a_parameter_that_nothing_trains_is_refused_at_the_first_step(tiny):
    """Would catch: a forgotten head that is saved, resumed and reported, and never learns."""
    dataset, experiment = _dataset(), tiny()
    for objective, name, part in (
        (_Idle(), "spare.weight", "the loss"),
        (_IdleJudge(), "spare", "the auxiliary"),
    ):
        model = build_model(experiment.model, dataset.image_shape)
        training = VAETraining(model, objective, dataset, experiment)
        kind = type(objective).__name__
        with pytest.raises(ValueError, match=f"{kind}'s parameter '{name}' has no part in {part}"):
            _steps(training, 1)
    fixed = _Idle()
    fixed.spare.requires_grad_(False)
    _steps(VAETraining(build_model(experiment.model, dataset.image_shape), fixed, dataset, experiment), 1)


class _Codes(BetaVAE):
    """Wants no more than the codes of a second batch, to tell them from permuted ones."""

    requests = (ONE_DRAW, TermsRequest(decode=False))

    def __init__(self):
        super().__init__()
        self.judge = nn.Linear(4, 2)

    def forward(self, terms, step, generator):
        loss = super().forward(terms, step, generator)
        logits = self.judge(terms.z)
        return Loss(loss.total + (logits[:, 0] - logits[:, 1]).mean(), loss.terms)

    def auxiliary_parameters(self):
        return self.judge.parameters()

    def auxiliary(self, terms, step, generator):
        (other,) = terms.others
        order = torch.rand(other.z.shape, generator=generator).argsort(0)
        fake = self.judge(other.z.detach().gather(0, order))
        real = self.judge(terms.z.detach())
        joint = torch.zeros(len(real), dtype=torch.long)
        return 0.5 * (nn.functional.cross_entropy(real, joint) + nn.functional.cross_entropy(fake, joint + 1))


def test_a_judge_of_codes_is_stepped_apart_and_the_second_batch_is_not_decoded(tiny, monkeypatch):
    """Would catch: a discriminator that helps the model it should resist, and a reconstruction nobody reads."""
    dataset, experiment = _dataset(), tiny()
    model = build_model(experiment.model, dataset.image_shape)
    decoded, run = [], model.generator.run
    monkeypatch.setattr(model.generator, "run", lambda z, *a, **k: decoded.append(len(z)) or run(z, *a, **k))
    objective = _Codes()
    training = VAETraining(model, objective, dataset, experiment)
    weights = [p.detach().clone() for p in objective.judge.parameters()]
    first, second = _steps(training, 1)
    assert decoded == [8]
    # Adam's first step goes against the sign of the gradient: that of the judge's own loss, not of the main one.
    for p, w in zip(objective.judge.parameters(), weights, strict=True):
        clear = p.grad.abs() > 1e-4
        assert clear.any() and torch.equal((w - p)[clear].sign(), p.grad[clear].sign())
    judge = {id(p) for p in objective.judge.parameters()}
    held = [{id(p) for group in o.param_groups for p in group["params"]} for o in (first, second)]
    assert held[1] == judge and not held[0] & judge and len(held[0]) == len(list(model.parameters()))


class _Few(_Head):
    requests = (TermsRequest(labels=0.25),)

    def forward(self, terms, step, generator):
        loss = BetaVAE.forward(self, terms, step, generator)
        return Loss(loss.total + 0.0 * sum(p.sum() for p in self.parameters()), loss.terms)


def test_the_labelled_images_are_a_share_of_the_data_and_the_same_at_every_step(tiny):
    """Would catch: a share of each batch, by which all images would in time have been labelled."""
    dataset = open_dataset("digits")
    experiment = tiny(batch_size=600, model=VAEConfig(latents=4, width=4, hidden=8))
    training = VAETraining(build_model(experiment.model, dataset.image_shape), _Few(), dataset, experiment)
    seen: dict[int, bool] = {}
    for step in range(8):
        indices = dataset.batch(600, experiment.seed, step)
        labels = training._labels.of(indices, training.objective.requests[0].labels)
        known = labels[:, 0] >= 0
        assert torch.equal(labels[known], dataset.factors(indices)[known]) and (labels[~known] == -1).all()
        for index, is_known in zip(indices.tolist(), known.tolist(), strict=True):
            assert seen.setdefault(index, is_known) == is_known
    assert len(seen) == len(dataset) and sum(seen.values()) == round(0.25 * len(dataset))


def test_what_training_can_not_give_is_refused_in_one_sentence(tiny):
    """Would catch: a pair that is two unrelated images, and labels of a set that has none."""
    dataset, experiment = _dataset(), tiny()
    model = build_model(experiment.model, dataset.image_shape)

    def asking(*requests):
        objective = BetaVAE()
        objective.requests = requests
        return objective

    triple = asking(ONE_DRAW, TermsRequest(kind="triple"))
    with pytest.raises(ValueError, match="a batch of kind 'triple'; training can draw: independent, pair"):
        VAETraining(model, triple, dataset, experiment)
    plain = FactorDataset("photos", "drawn here", dataset.image_shape, 64)
    with pytest.raises(
        ValueError, match="BetaVAE needs labels, and data set 'photos' has no ground-truth factors"
    ):
        VAETraining(model, asking(TermsRequest(labels=0.5)), plain, experiment)
    with pytest.raises(
        ValueError, match="Pairs share factors, and data set 'photos' has no ground-truth factors"
    ):
        VAETraining(model, asking(ONE_DRAW, TermsRequest(kind="pair")), plain, experiment)
    with pytest.raises(ValueError, match="BetaVAE asks for no batch"):
        VAETraining(model, asking(), dataset, experiment)


class _Averages(BetaVAE):
    """Gives both images of a step the mean of their posteriors, as methods for pairs do."""

    requests = (ONE_DRAW, ONE_DRAW)
    drop = False

    def adjust_posteriors(self, posteriors, labels, step, generator):
        first, second = (q.parts["z"] for q in posteriors)
        mean = 0.5 * (first.mean + second.mean)
        variance = 0.5 * (first.variance + second.variance)
        shared = Posterior(posteriors[0].space, {"z": torch.distributions.Normal(mean, variance.sqrt())})
        return (shared,) if self.drop else (shared, shared)

    def forward(self, terms, step, generator):
        parts = [super(_Averages, self).forward(t, step, generator) for t in (terms, *terms.others)]
        return Loss(sum(p.total for p in parts), parts[0].terms)


def test_posteriors_can_be_replaced_before_anything_is_drawn_from_them(tiny):
    """Would catch: an average that comes after the draw, so that neither decoding nor KL knows of it."""
    dataset, experiment = _dataset(), tiny()
    model = build_model(experiment.model, dataset.image_shape)
    training = VAETraining(model, _Averages(), dataset, experiment)
    terms = training.terms(0)
    (other,) = terms.others
    expected = 0.5 * (model.encode(terms.x).mean + model.encode(other.x).mean)
    assert torch.allclose(terms.posterior.mean, expected, atol=1e-6) and terms.posterior is other.posterior
    assert torch.equal(terms.kl, terms.posterior.kl()) and not torch.equal(terms.z, other.z)
    assert torch.equal(terms.log_likelihood, model.likelihood(terms.z).log_prob(terms.x))
    before = [p.detach().clone() for p in model.encoder.parameters()]
    _steps(training, 1)
    assert all(not torch.equal(p, b) for p, b in zip(model.encoder.parameters(), before, strict=True))
    training.objective.drop = True
    with pytest.raises(ValueError, match="adjust_posteriors must give 2 posteriors, one a batch; got 1"):
        training.terms(0)


class _Weighted(Objective):
    """The importance-weighted bound."""

    requests = (TermsRequest(samples=6),)

    def forward(self, terms, step, generator):
        space = terms.posterior.space
        ratio = torch.stack([(space.log_prob(z) - terms.posterior.log_prob(z)).sum(1) for z in terms.z])
        bound = ((terms.log_likelihood + ratio).logsumexp(0) - np.log(len(terms.z))).mean()
        return Loss(-bound, {"elbo": (terms.log_likelihood + ratio).mean()})


def test_several_draws_an_image_reach_the_objective_and_train_the_model(tiny, tmp_path, monkeypatch):
    """Would catch: one draw repeated, whose importance-weighted bound is the plain one."""
    monkeypatch.setattr(fit_module, "build_objective", lambda *_: _Weighted())
    metrics = fit(
        tiny(max_steps=60, learning_rate=3e-3), tmp_path / "a", device="cpu", progress=False
    ).metrics()
    assert (-metrics["loss"] > metrics["elbo"]).all()
    assert metrics["loss"][-1] < 0.7 * metrics["loss"][0]


class _Committed(VAE):
    """A model with a term of its own, as a codebook has one."""

    def elbo_terms(self, x, generator, request=ONE_DRAW, *, labels=None, posterior=None):
        terms = super().elbo_terms(x, generator, request, labels=labels, posterior=posterior)
        terms.extra = {"commitment": terms.z.square().sum(1)}
        return terms


def test_a_term_of_the_model_is_minimised_and_gets_its_column(tiny, tmp_path, monkeypatch):
    """Would catch: a commitment or a ladder's KL that the model gives and no loss holds."""

    def build(config, shape, seed=0):
        model = build_model(config, shape, seed)
        model.__class__ = _Committed
        return model

    monkeypatch.setattr(fit_module, "build_model", build)
    metrics = fit(tiny(), tmp_path / "a", device="cpu", progress=False).metrics()
    parts = metrics["reconstruction"] + 2.0 * metrics["kl"] + metrics["commitment"]
    assert (metrics["commitment"] > 0.1).all() and np.allclose(metrics["loss"], parts, rtol=1e-5)


def test_a_model_with_a_category_trains_and_is_opened_again(tiny, tmp_path):
    """Would catch: a structured latent space that can be configured and not trained or read back."""
    blocks = [BlockConfig("kind", 3, "categorical"), BlockConfig("z", 2)]
    experiment = tiny(model=VAEConfig(blocks=blocks, width=4, hidden=8))
    run = fit(experiment, tmp_path / "a", device="cpu", progress=False)
    code = run.model.encode(_dataset().images([0, 5])).code()
    assert set(code[:, :3].unique().tolist()) == {0.0, 1.0} and (code[:, :3].sum(1) == 1.0).all()
    assert {"kl_kind0", "kl_z1"} <= set(run.metrics())


def test_logs_and_estimates_leave_every_bit_of_beta_vae_as_a_plain_loop_makes_it(tiny, tmp_path):
    """Would catch: an estimate that is only to be logged and draws numbers, keeps a graph or moves a gradient."""
    experiment = tiny(max_steps=20)
    run = fit(experiment, tmp_path / "run", device="cpu", progress=False)
    dataset = _dataset()
    model = build_model(experiment.model, dataset.image_shape, experiment.seed)
    model.to(memory_format=torch.channels_last)
    adam = torch.optim.Adam(model.parameters(), lr=experiment.learning_rate, fused=True)
    for step in range(20):
        x = dataset.images(dataset.batch(8, 0, step)).contiguous(memory_format=torch.channels_last)
        noise = torch.Generator().manual_seed(stream_seed(0, "noise", step))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=in_bf16("auto", torch.device("cpu"))):
            terms = model.elbo_terms(x, noise)
        adam.zero_grad()
        (terms.reconstruction.mean() + 2.0 * terms.kl.sum(1).mean()).backward()
        adam.step()
    assert weights_digest(model) == run.digest


class _Turning(Objective):
    """Learns for eight steps and unlearns from then on, so that the last step is no row's best."""

    def forward(self, terms, step, generator):
        reconstruction, kl = terms.reconstruction.mean(), terms.kl.sum(1).mean()
        bound = reconstruction + 2.0 * kl
        return Loss(bound if step < 8 else -bound, {"reconstruction": reconstruction, "kl": kl})


class _Digests(pl.Callback):
    """The weights after each step."""

    def __init__(self):
        self.found = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.found.append(weights_digest(pl_module.model))


def test_the_run_keeps_the_last_weights_whatever_was_logged_before(tiny, tmp_path, monkeypatch):
    """Would catch: D15, a checkpoint chosen as the best of the rows, under the trained loss or another one."""
    monkeypatch.setattr(fit_module, "build_objective", lambda *_: _Turning())
    experiment, seen = tiny(max_steps=16, log_every=2, checkpoint_every=2, learning_rate=3e-3), _Digests()
    run = fit(experiment, tmp_path / "run", device="cpu", progress=False, callbacks=[seen])
    metrics = run.metrics()
    bound = metrics["reconstruction"] + 2.0 * metrics["kl"]
    for column in (bound, metrics["reconstruction"]):  # planted: every such choice is another step's
        assert metrics["step"][column.argmin()] < 16 and column[-1] > column.min() + 1.0
    assert len(set(seen.found)) == 16
    assert run.digest == run.at(16).digest == seen.found[-1]


def test_the_loss_that_is_logged_is_the_one_that_was_minimised(tiny, tmp_path):
    metrics = fit(tiny(log_every=12), tmp_path / "run", device="cpu", progress=False).metrics()
    assert metrics["loss"][-1] == pytest.approx(
        metrics["reconstruction"][-1] + 2.0 * metrics["kl"][-1], rel=1e-6
    )


class _Slow(_Codes):
    auxiliary_adam = AdamSettings(1e-3, (0.1, 0.2))


def test_an_objective_declares_how_its_own_side_is_stepped(tiny):
    """Would catch: a discriminator stepped with the model's rate and betas whatever its paper says."""
    dataset, experiment = _dataset(), tiny(learning_rate=5e-4)
    model = build_model(experiment.model, dataset.image_shape)
    for objective, rate, betas in ((_Codes(), 5e-4, (0.9, 0.999)), (_Slow(), 1e-3, (0.1, 0.2))):
        first, second = VAETraining(model, objective, dataset, experiment).configure_optimizers()
        assert (second.defaults["lr"], second.defaults["betas"]) == (rate, betas)
        assert (first.defaults["lr"], first.defaults["betas"]) == (5e-4, (0.9, 0.999))
