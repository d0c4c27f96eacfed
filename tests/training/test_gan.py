"""Training a GAN: a function of (seed, step), both players stepped apart, collapse seen and said."""

import copy
import dataclasses
import logging
import re

import numpy as np
import pytest
import torch
from torch import nn

from latentlab.config import Adversarial, BetaVAE, BlockConfig, DataConfig, Experiment, GANConfig
from latentlab.data import open_dataset
from latentlab.models.build import build_model
from latentlab.models.contract import is_inference_model, weights_digest
from latentlab.models.spectral import update_norms
from latentlab.objectives.adversarial import build_adversarial
from latentlab.runs import Run
from latentlab.training import fit as fit_module
from latentlab.training import gan as gan_module
from latentlab.training.fit import fit, resume
from latentlab.training.gan import GANTraining

TINY = Experiment(
    name="tiny-gan",
    data=DataConfig("digits", {"image_size": 28}),
    model=GANConfig(latents=4, width=4, spectral_norm=True),
    objective=Adversarial(penalty="r1", penalty_weight=0.1, discriminator_steps=2, ema=0.9, beta1=0.5),
    max_steps=12,
    batch_size=8,
    learning_rate=2e-3,
    log_every=4,
    preview_every=0,
    checkpoint_every=6,
    keep_memory=False,
)


def tiny(objective: dict | None = None, model: dict | None = None, **changes) -> Experiment:
    return dataclasses.replace(
        TINY,
        **{
            "objective": dataclasses.replace(TINY.objective, **(objective or {})),
            "model": dataclasses.replace(TINY.model, **(model or {})),
            **changes,
        },
    )


def texts(run: Run) -> tuple[str, bytes]:
    return (run.path / "metrics.csv").read_text(), (run.path / "weights.safetensors").read_bytes()


def training_of(experiment: Experiment) -> GANTraining:
    dataset = open_dataset("digits", image_size=28)
    model = build_model(experiment.model, dataset.image_shape, experiment.seed)
    return GANTraining(model, build_adversarial(experiment.objective), dataset, experiment)


def make_steps(training: GANTraining, steps: int) -> list[torch.optim.Optimizer]:
    """Steps as a trainer makes them, without the run around them."""
    optimisers = training.configure_optimizers()
    training.optimizers = lambda use_pl_optimizer=False: optimisers
    for step in range(steps):
        training.training_step(step, step)
    return optimisers


def test_a_gan_run_opens_like_any_other_and_leaves_the_global_generator_alone(tmp_path):
    """Would catch: a run that can't be opened, weights that are not the log's, dropout-like global chance."""
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
    assert not is_inference_model(run.model) and set(run.model.networks) == {"generator", "discriminator"}
    assert run.model.sample(3, 0).shape == (3, 1, 28, 28)
    metrics = run.metrics()
    assert list(metrics["step"]) == [4, 8, 12]
    logged = {
        *("discriminator_loss", "generator_loss", "d_real", "d_fake", "penalty"),
        *("discriminator_gradient", "generator_gradient", "diversity", "collapsed"),
    }
    assert set(metrics) == {"step", *logged} and all(np.isfinite(metrics[name]).all() for name in logged)
    assert (metrics["d_real"] > 0).all() and (metrics["d_real"] < 1).all()


def test_equal_seeds_give_equal_bits_whatever_is_logged_or_drawn(tmp_path):
    """Would catch: a diversity figure or a preview that moves running statistics or draws numbers."""
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


@pytest.mark.parametrize("ema", [0.9, 0.0])
def test_a_stopped_run_resumes_to_the_same_bits(tmp_path, monkeypatch, ema):
    """Would catch: raw weights, running statistics, singular vectors or moments that no checkpoint holds."""
    experiment = tiny({"ema": ema})
    whole = fit(experiment, tmp_path / "whole", device="cpu", progress=False)
    real = GANTraining.training_step

    def interrupted(self, batch, batch_idx):
        real(self, batch, batch_idx)
        if self.step == 7:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)  # a real Ctrl-C, at a step that is neither logged nor saved

    monkeypatch.setattr(GANTraining, "training_step", interrupted)
    part = fit(experiment, tmp_path / "part", device="cpu", progress=False)
    assert part.stopped_by == "Ctrl-C"
    monkeypatch.setattr(GANTraining, "training_step", real)
    assert texts(resume(tmp_path / "part", device="cpu", progress=False)) == texts(whole)


def test_the_checkpoint_holds_the_raw_generator_and_the_run_its_running_mean(tmp_path):
    """Would catch: the raw weights shipped as the run's, and a mean that a resumed run would train on."""
    run = fit(tiny(), tmp_path / "a", device="cpu", progress=False)
    state = torch.load(run.path / "last.ckpt", weights_only=True)
    assert {"model", "raw"} <= set(state)
    kept = run.model.generator.state_dict()
    name = "stages.project.0.weight"
    assert torch.equal(kept[name], state["model"]["generator." + name])
    assert not torch.equal(kept[name], state["raw"][name])
    last = fit(tiny({"ema": 0.0}), tmp_path / "b", device="cpu", progress=False)
    raw = torch.load(last.path / "last.ckpt", weights_only=True)["raw"]
    assert all(torch.equal(t, raw[k]) for k, t in last.model.generator.state_dict().items())


def test_the_running_mean_is_that_of_the_weights_by_hand():
    """Would catch: a decay applied to the wrong side, running statistics left as they were made."""
    training = training_of(tiny({"ema": 0.2}))
    names = ("stages.project.0.weight", "stages.project.2.running_mean")
    mean = {n: training.raw.state_dict()[n].clone() for n in names}
    optimisers = training.configure_optimizers()
    training.optimizers = lambda use_pl_optimizer=False: optimisers
    for step in range(1, 5):
        training.training_step(0, 0)
        decay = min(0.2, (1 + step) / (10 + step))
        for n in names:
            mean[n] = decay * mean[n] + (1 - decay) * training.raw.state_dict()[n]
            assert torch.allclose(training.model.generator.state_dict()[n], mean[n], atol=1e-6)
    counts = "stages.project.2.num_batches_tracked"
    assert training.model.generator.state_dict()[counts] == training.raw.state_dict()[counts] == 12


def test_each_player_is_moved_by_its_own_optimiser_and_loss_alone():
    """Would catch: a generator's loss that also trains the discriminator, or too few discriminator steps."""
    training = training_of(tiny({"discriminator_steps": 3, "ema": 0.9}))
    seen = []
    real = training.model.discriminate
    before = copy.deepcopy(training.raw.state_dict())

    def watched(x, edits=()):
        seen.append(len(x))
        return real(x, edits)

    training.model.discriminate = watched
    generator, discriminator = make_steps(training, 1)
    # Three steps of real and fake images with their penalty, then one of fakes for the generator.
    assert seen == [16, 8, 16, 8, 16, 8, 8]
    held = [{id(p) for group in o.param_groups for p in group["params"]} for o in (generator, discriminator)]
    assert held[0] == {id(p) for p in training.raw.parameters()}
    assert held[1] == {id(p) for p in training.model.discriminator.parameters()}
    assert [group["betas"] for o in (generator, discriminator) for group in o.param_groups] == [
        (0.5, 0.99)
    ] * 2
    steps = [next(iter(o.state.values()))["step"].item() for o in (generator, discriminator)]
    assert steps == [1.0, 3.0]
    # Adam's first step goes against the sign of the gradient: that of the generator's own loss.
    for name, p in training.raw.named_parameters():
        clear = p.grad.abs() > 1e-5
        assert torch.equal((before[name] - p)[clear].sign(), p.grad[clear].sign())
    assert all(p.grad is None for p in training.model.generator.parameters())


def test_every_step_has_images_and_codes_of_its_own_that_can_be_named_afterwards():
    """Would catch: the same batch for all discriminator steps, and codes that both players share."""
    training = training_of(tiny())
    dataset = open_dataset("digits", image_size=28)
    for index in (0, 7):
        assert torch.equal(training.real(index), dataset.images(dataset.batch(8, 0, index)))
    codes = [training.codes(p, i) for p in ("discriminator", "generator") for i in range(4)]
    assert len({tuple(c.flatten().tolist()) for c in codes}) == 8
    assert torch.equal(training.codes("generator", 3), codes[7])


def test_the_logged_figures_are_those_of_the_networks_by_hand():
    """Would catch: real and fake exchanged in the log, the penalty counted into the loss, a norm per tensor."""
    training = training_of(tiny({"discriminator_steps": 1, "penalty": "none"}, max_steps=100, log_every=50))
    model, raw = copy.deepcopy(training.model), copy.deepcopy(training.raw)
    make_steps(training, 1)
    means = training.take_means()
    update_norms(model.discriminator)
    fake = 0.5 * raw.run(training.codes("discriminator", 0)).tanh() + 0.5
    of_real, of_fake = model.discriminate(training.real(0)), model.discriminate(fake.detach())
    loss = nn.functional.softplus(-of_real).mean() + nn.functional.softplus(of_fake).mean()
    gradients = torch.autograd.grad(loss, list(model.discriminator.parameters()))
    length = torch.cat([g.flatten() for g in gradients]).norm()
    assert means["d_real"] == pytest.approx(of_real.sigmoid().mean().item(), rel=1e-5)
    assert means["d_fake"] == pytest.approx(of_fake.sigmoid().mean().item(), rel=1e-5)
    assert means["discriminator_loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert means["discriminator_gradient"] == pytest.approx(length.item(), rel=1e-4)
    assert training.sums == {} and "diversity" not in means


class Squeezed(nn.Module):
    """A stage whose states keep a share of their distance to the batch's mean: samples that look alike."""

    def __init__(self, inner: nn.Module, share: float):
        super().__init__()
        self.inner, self.share = inner, share

    def forward(self, h):
        y = self.inner(h)
        mean = y.mean(0, keepdim=True)
        return mean + self.share * (y - mean)


def test_diversity_is_the_mean_distance_of_samples_over_that_of_the_data():
    """Would catch: distances to itself counted in, means of squares, a figure that moves with each call."""
    training = training_of(tiny())
    before = copy.deepcopy(training.raw.state_dict())
    found = training.diversity().item()
    seed = gan_module.stream_seed(0, "diversity", 0)
    codes = training.model.latent_space.sample(64, seed)
    samples = training.model.eval().decode(codes).detach()
    data = training.images.images(training.images.batch(64, seed, 0))

    def spread(images):
        pairs = [(i, j) for i in range(64) for j in range(i)]
        return sum((images[i] - images[j]).norm().item() for i, j in pairs) / len(pairs)

    assert found == pytest.approx(spread(samples) / spread(data), rel=1e-4)
    assert training.diversity().item() == found and training.raw.training
    assert all(torch.equal(t, before[k]) for k, t in training.raw.state_dict().items())


def test_a_planted_collapse_fires_the_alarm_and_its_healthy_twin_does_not(tmp_path, monkeypatch, caplog):
    """Would catch: an alarm that never fires, and one that fires at every run's grey beginning."""
    monkeypatch.setattr(gan_module, "GRACE", 60)
    experiment = tiny({"discriminator_steps": 1}, {"width": 8}, max_steps=80, log_every=20, batch_size=16)
    caplog.set_level(logging.WARNING, "latentlab")
    healthy = fit(experiment, tmp_path / "healthy", device="cpu", progress=False).metrics()
    assert not healthy["collapsed"].any() and healthy["diversity"][-1] > 0.4
    assert "look alike" not in caplog.text
    build = fit_module._adversarial

    def planted(experiment, dataset):
        training = build(experiment, dataset)
        training.raw.stages["output"] = Squeezed(training.raw.stages["output"], 0.05)
        monkeypatch.setattr(training, "_average", lambda: None)  # the mean's network has no such stage
        return training

    monkeypatch.setitem(fit_module._TRAININGS, "adversarial", planted)
    sick = fit(experiment, tmp_path / "sick", device="cpu", progress=False).metrics()
    assert list(sick["collapsed"]) == [0.0] * 2 + [1.0] * 2
    assert sick["diversity"][-1] < 0.25 * healthy["diversity"][-1]
    assert caplog.text.count("The samples look alike at step 60: they differ by") == 1


def test_the_bar_shows_both_verdicts_diversity_and_collapse():
    """Would catch: a bar that speaks of reconstruction, and a collapse that only the file knows."""
    training = training_of(tiny())
    means = {"d_real": 0.71, "d_fake": 0.304, "diversity": 0.9, "generator_loss": 1.0, "collapsed": 0.0}
    assert training.status(means) == "D(real) 0.71, D(fake) 0.30, diversity 0.90"
    assert training.status({**means, "diversity": 0.1, "collapsed": 1.0}).endswith(
        "diversity 0.10, COLLAPSED"
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "wasserstein", "penalty": "gradient", "penalty_weight": 10.0},
        {"loss": "hinge", "penalty": "none"},
        {"loss": "non-saturating", "penalty": "gradient"},
        {"loss": "hinge", "penalty": "r1"},
    ],
)
def test_every_loss_and_penalty_trains_and_is_opened(tmp_path, settings):
    """Would catch: a combination that can be configured and not trained."""
    run = fit(tiny(settings, max_steps=4), tmp_path / "a", device="cpu", progress=False)
    metrics = run.metrics()
    assert all(np.isfinite(column).all() for column in metrics.values())
    assert ("penalty" in metrics) == (settings["penalty"] != "none")
    assert run.at(0).digest != run.digest


def test_a_loss_that_is_not_finite_stops_with_a_sentence_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    """Would catch: a loop over nan that nobody notices because the word "loss" stands elsewhere."""
    real = GANTraining.real
    monkeypatch.setattr(
        GANTraining, "real", lambda self, i: real(self, i) * (float("nan") if i >= 20 else 1.0)
    )
    with pytest.raises(
        FloatingPointError, match=r"discriminator loss became nan between steps 8 and 12; step"
    ):
        fit(tiny(max_steps=40), tmp_path / "run", device="cpu", progress=False)
    assert torch.isfinite(Run.open(tmp_path / "run", "cpu").model.sample(1, 0)).all()


def test_what_a_gan_can_not_be_trained_on_is_refused_in_one_sentence():
    """Would catch: a spread of one image, which is nan, and a GAN trained by an evidence lower bound."""
    with pytest.raises(ValueError, match="at least 2 images a batch and in the data; got batch_size=1"):
        training_of(tiny(batch_size=1))
    with pytest.raises(ValueError, match="family 'gan' is trained by one of the objectives adversarial; got"):
        dataclasses.replace(TINY, objective=BetaVAE())
    with pytest.raises(ValueError, match="family 'vae' is trained by one of the objectives beta-vae"):
        Experiment(objective=Adversarial())
    with pytest.raises(ValueError, match="A wasserstein loss needs a discriminator of bounded slope"):
        tiny({"loss": "wasserstein"}, {"spectral_norm": False})


@pytest.mark.gpu
def test_the_same_training_runs_on_a_gpu(tmp_path):
    run = fit(tiny(), tmp_path / "run", device="cuda", progress=False)
    assert next(run.model.parameters()).is_cuda
    assert all(np.isfinite(column).all() for column in run.metrics().values())


def test_a_card_without_an_encoder_shows_samples_a_traversal_and_the_course_of_training(tmp_path):
    """Would catch: a card that encodes, that speaks of KL, or that keeps a collapse to itself."""
    from latentlab.card import headline, preview, write_card

    blocks = [BlockConfig("kind", 3, "categorical"), BlockConfig("z", 2)]
    run = fit(tiny(model={"blocks": blocks}), tmp_path / "run", device="cpu", preview=preview, progress=False)
    card = write_card(run, "A claim.")
    assert card == run.card and "A claim." in card and "tags: [gan, adversarial]" in card
    assert "| step | D(real) | D(fake) | diversity | discriminator loss | generator loss |" in card
    assert [line.split(" |")[0] for line in card.splitlines() if line.startswith("| 1")] == ["| 12"]
    assert "KL" not in card and "collapsed" not in card and "by latent: z" in card
    for picture in ("samples.png", "traversal.png"):
        assert (run.path / picture).stat().st_size > 200
    rows = (run.path / "metrics.csv").read_text().splitlines()
    (run.path / "metrics.csv").write_text("\n".join([*rows[:-1], rows[-1][: rows[-1].rfind(",")] + ",1.0\n"]))
    assert "**collapsed**" in write_card(run)
    assert re.fullmatch(
        r"D\(real\) 0\.\d\d, D\(fake\) 0\.\d\d, diversity \d\.\d\d, all .* alike", headline(run)
    )


def test_traversals_edits_and_layers_work_on_a_gan_run(tmp_path):
    """Would catch: analyses that need an encoder where none is needed."""
    import latentlab

    run = fit(tiny(max_steps=2), tmp_path / "run", device="cpu", progress=False)
    strips = latentlab.traverse(run.model, dims=["z1", "z3"], steps=5)
    assert strips.images.shape == (2, 5, 1, 28, 28)
    units = latentlab.activations(run.model, "generator", seed=0)
    assert units is not None
    assert latentlab.feature_maps(run.model, "discriminator", inputs=run.dataset().images([0])) is not None
    with pytest.raises(ValueError, match="has no encoder"):
        latentlab.encode_dataset(run.model, run.dataset(), 10)


def test_a_gan_experiment_survives_json():
    """Would catch: adversarial settings that are written under another name than they are read."""
    import json

    assert Experiment.from_dict(json.loads(json.dumps(TINY.to_dict()))) == TINY
    spec = TINY.to_dict()
    for change, message in (
        ({"discriminator_steps": 0}, "objective.discriminator_steps must lie in"),
        ({"discriminator_steps": 1.5}, "discriminator_steps must be of type int"),
        ({"loss": "saturating"}, "loss must be one of non-saturating, wasserstein, hinge; got 'saturating'"),
        ({"ema": 1.0}, r"objective.ema must lie in \[0.0, 0.99999\]"),
    ):
        with pytest.raises(ValueError, match=message):
            Experiment.from_dict({**spec, "objective": {**spec["objective"], **change}})


@pytest.mark.slow
def test_a_classifier_of_real_digits_finds_all_ten_among_the_samples_of_the_named_experiment(tmp_path):
    """Would catch: samples that only look busy, which the judge would take for what lies between two digits."""
    from sklearn.linear_model import LogisticRegression

    from latentlab.config import named_experiment

    run = fit(named_experiment("digits-gan")[0], tmp_path / "digits", device="cpu", progress=False)
    pixels, labels = {}, {}
    for name in ("train", "test"):
        data = open_dataset("digits", split=name)
        indices = np.arange(len(data))
        pixels[name] = data.images(indices).flatten(1).numpy()
        labels[name] = data.factors(indices)[:, 0].numpy()
    judge = LogisticRegression(C=0.05, max_iter=2000).fit(pixels["train"], labels["train"])
    with torch.inference_mode():
        samples = run.model.sample(1000, 1).flatten(1).numpy()

    def certainty(images) -> float:
        return judge.predict_proba(images).max(1).mean()

    shares = np.bincount(judge.predict(samples), minlength=10) / len(samples)
    between = 0.5 * (pixels["test"][:-1:2] + pixels["test"][1::2])
    figures = [certainty(images) for images in (pixels["test"], samples, between)]
    print(f"certainty of real digits, samples, overlaid pairs {figures}; shares {shares}")
    assert shares.min() >= 0.04
    assert figures[1] > 0.5 * (figures[0] + figures[2])
    assert not run.metrics()["collapsed"].any()
