"""Training: every step a function of (seed, step), every file whole, every failure one sentence."""

import numpy as np
import pytest
import torch
from torch import nn

from latentlab.data import open_dataset
from latentlab.models.build import build_model
from latentlab.models.contract import weights_digest
from latentlab.objectives.variational import BetaVAE, Loss, Objective
from latentlab.runs import Run
from latentlab.training import fit as fit_module
from latentlab.training import vae as vae_module
from latentlab.training.fit import fit, resume
from latentlab.training.recorder import kept_steps
from latentlab.training.vae import VAETraining, stream_seed, use_bf16


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
    """Needs two batches and has a parameter of its own."""

    batches = 2

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, terms, step, generator):
        (other,) = terms.others
        assert not torch.equal(terms.x, other.x) and not torch.equal(terms.z, other.z)
        loss = -terms.log_likelihood.mean() + 0.0 * other.kl.sum() + self.scale * terms.kl.sum(1).mean()
        return Loss(loss, {"reconstruction": -terms.log_likelihood.mean()})

    def auxiliary(self, terms, step, generator):
        return (self.scale - terms.z.detach().mean()).square()


def test_an_objective_with_two_batches_and_own_parameters_trains_and_resumes(tiny, tmp_path, monkeypatch):
    made = []

    def build(config, size):
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
    monkeypatch.setattr(fit_module, "build_objective", lambda config, size: _Fails())
    with pytest.raises(
        FloatingPointError, match=r"The loss became nan between steps 8 and 12; step 10 is kept"
    ):
        fit(tiny(checkpoint_every=6, max_steps=40), tmp_path / "run", device="cpu", progress=False)
    assert torch.isfinite(Run.open(tmp_path / "run", "cpu").model.sample(1, 0)).all()
    monkeypatch.undo()
    assert resume(tmp_path / "run", device="cpu", progress=False).metrics()["step"][-1] == 40


def test_weights_that_are_not_finite_are_never_saved(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(fit_module, "build_objective", lambda config, size: _Fails())
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
    assert use_bf16("fp32", cpu) is False
    monkeypatch.setattr(vae_module, "supports_bf16", lambda device: False)
    assert use_bf16("auto", cpu) is False
    with pytest.raises(ValueError, match="this cpu has no bfloat16"):
        use_bf16("bf16", cpu)


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
    monkeypatch.setattr(fit_module, "build_objective", lambda config, size: _Schedules())
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
