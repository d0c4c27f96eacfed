"""Training a GAN: a function of (seed, step), both players stepped apart, collapse seen and said."""

import copy
import dataclasses
import logging
import re

import numpy as np
import pytest
import torch
from torch import nn

from latentlab.config import (
    Adversarial,
    BetaVAE,
    BlockConfig,
    ConditionalGANConfig,
    DataConfig,
    Experiment,
    GANConfig,
    InfoGANConfig,
    StyleGANConfig,
)
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

    def watched(x, edits=(), labels=None):
        seen.append(len(x))
        return real(x, edits, labels)

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

    monkeypatch.setitem(fit_module.TRAININGS, "adversarial", planted)
    sick = fit(experiment, tmp_path / "sick", device="cpu", progress=False).metrics()
    assert list(sick["collapsed"]) == [0.0] * 2 + [1.0] * 2
    assert sick["diversity"][-1] < 0.25 * healthy["diversity"][-1]
    assert caplog.text.count("The samples look alike at step 60: they differ by") == 1


class OneImageALabel(nn.Module):
    """A generator whose samples of a label differ by a share of what they did; its labels lie apart as before."""

    def __init__(self, inner: nn.Module, label: slice, share: float):
        super().__init__()
        self.inner, self.label, self.share = inner, label, share

    def forward(self, codes):
        still = torch.zeros_like(codes)
        still[:, self.label] = codes[:, self.label]
        return self.inner(still + self.share * (codes - still))


def conditional(**changes) -> Experiment:
    model = ConditionalGANConfig(label="digit", latents=4, width=8, spectral_norm=True)
    return dataclasses.replace(tiny({"discriminator_steps": 1}), model=model, **changes)


def test_diversity_within_is_the_mean_ratio_of_distances_among_samples_and_data_of_a_label():
    """Would catch: codes whose label was not set, the spread of all the data, and distances across labels."""
    training = training_of(conditional())
    seen = []
    real = training.model.forge
    training.model.forge = lambda raw, codes, chance: seen.append(codes) or real(raw, codes, chance)
    found = training.diversity_within()["diversity_within"].item()
    (codes,) = seen
    assert training.diversity_within()["diversity_within"].item() == found and training.raw.training
    label = training.model.latent_space.slice("digit")
    assert codes[:, label].sum() == 160 and codes[:, label].argmax(1).tolist() == [
        k for k in range(10) for _ in range(16)
    ]
    with torch.no_grad():
        samples = training.model.eval().decode(codes).view(10, 16, -1)
    data = training.images
    indices = data.batch(1024, gan_module.stream_seed(0, "diversity within", 0), 0)
    digits = data.factors(indices)[:, 0]
    ratios = [
        (
            torch.pdist(samples[k]).mean()
            / torch.pdist(data.images(indices[digits == k][:16]).flatten(1)).mean()
        )
        for k in range(10)
    ]
    assert found == pytest.approx(sum(r.item() for r in ratios) / 10, rel=1e-4)
    assert training_of(tiny()).diversity_within() == {}


def test_a_collapse_within_the_labels_fires_the_alarm_and_its_healthy_twin_does_not(
    tmp_path, monkeypatch, caplog
):
    """Would catch: one image a label, which lie as far apart as the data do, taken for variety."""
    from latentlab.card import headline, write_card

    monkeypatch.setattr(gan_module, "GRACE", 60)
    experiment = conditional(max_steps=80, log_every=20, batch_size=16)
    caplog.set_level(logging.WARNING, "latentlab")
    healthy = fit(experiment, tmp_path / "healthy", device="cpu", progress=False).metrics()
    assert not healthy["collapsed"].any() and healthy["diversity_within"][-1] > 0.4
    assert "look alike" not in caplog.text
    build = fit_module._adversarial

    def planted(experiment, dataset):
        training = build(experiment, dataset)
        first = next(iter(training.raw.stages))
        where = training.model.latent_space.slice("digit")
        training.raw.stages[first] = OneImageALabel(training.raw.stages[first], where, 0.05)
        monkeypatch.setattr(training, "_average", lambda: None)  # the mean's network has no such stage
        return training

    monkeypatch.setitem(fit_module.TRAININGS, "adversarial", planted)
    run = fit(experiment, tmp_path / "sick", device="cpu", progress=False)
    sick = run.metrics()
    assert list(sick["collapsed"]) == [0.0] * 2 + [1.0] * 2
    assert sick["diversity_within"][-1] < 0.25 < sick["diversity"][-1]
    assert caplog.text.count("The samples of one label look alike at step 60: they differ by") == 1
    assert "all samples of a label look alike" in headline(run)
    assert "diversity within labels" in write_card(run)


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


def test_a_penalty_at_every_third_step_pays_on_average_what_it_pays_at_each():
    """Would catch: a lazy penalty without its factor, or one that is taken at other steps than it says."""

    def gradients(every: int) -> list[torch.Tensor]:
        training = training_of(
            tiny(
                {"discriminator_steps": 3, "penalty_every": every, "penalty_weight": 5.0},
                {"spectral_norm": False},
            )
        )
        real, codes = training.real(0), training.codes("discriminator", 0)
        training.real, training.codes = lambda index: real, lambda player, index: codes
        still = torch.optim.SGD(training.model.discriminator.parameters(), lr=0.0)
        found = []
        training.raw.eval()  # no running statistics to move
        for index in range(3):
            training._judge(still, index)
            found.append(
                torch.cat([p.grad.flatten().clone() for p in training.model.discriminator.parameters()])
            )
        assert training.sums and sum("penalty" in key.split(",") for key in training.sums) == 1
        return found

    each, lazy = gradients(1), gradients(3)
    assert torch.equal(each[0], each[1])
    assert not torch.allclose(lazy[0], each[0], rtol=1e-2) and torch.equal(lazy[1], lazy[2])
    assert torch.allclose(sum(lazy) / 3, each[0], rtol=1e-3, atol=1e-6)


CONDITIONAL = dataclasses.replace(TINY, model=ConditionalGANConfig(latents=4, width=4))
INFO = dataclasses.replace(
    TINY, model=InfoGANConfig(latents=4, width=4, cr_weight=0.5, cr_gap=0.2, cr_gap_steps=9)
)


def with_objective(experiment: Experiment, **changes) -> Experiment:
    return dataclasses.replace(experiment, objective=dataclasses.replace(experiment.objective, **changes))


EVERY_KIND = {
    "conditional": CONDITIONAL,
    "conditional, gradient penalty, ada": with_objective(
        CONDITIONAL, penalty="gradient", augment="ada", ada_images=80
    ),
    "info": INFO,
    "lazy, diffaugment": with_objective(TINY, augment="diffaugment", penalty_every=4),
    "ada": with_objective(TINY, augment="ada", ada_images=60),
    "style": dataclasses.replace(TINY, model=StyleGANConfig(latents=4, styles=4, mapping_layers=2, width=4)),
}


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_every_kind_logs_the_same_figures_and_resumes_to_the_same_bits(tmp_path, monkeypatch, kind):
    """Would catch: a contrast network, a share of augmentation or a running mean of styles that no checkpoint holds."""
    experiment = dataclasses.replace(EVERY_KIND[kind], max_steps=8, log_every=4)
    whole = fit(experiment, tmp_path / "whole", device="cpu", progress=False)
    metrics = whole.metrics()
    figures = {"d_real", "d_fake", "diversity", "collapsed", "discriminator_gradient", "generator_gradient"}
    assert figures <= set(metrics) and all(np.isfinite(column).all() for column in metrics.values())
    assert (metrics["discriminator_gradient"] > 0).all() and (metrics["generator_gradient"] > 0).all()
    real = GANTraining.training_step

    def interrupted(self, batch, batch_idx):
        real(self, batch, batch_idx)
        if self.step == 5:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(GANTraining, "training_step", interrupted)
    assert fit(experiment, tmp_path / "part", device="cpu", progress=False).stopped_by == "Ctrl-C"
    monkeypatch.setattr(GANTraining, "training_step", real)
    assert texts(resume(tmp_path / "part", device="cpu", progress=False)) == texts(whole)
    opened = Run.open(tmp_path / "whole", "cpu").model
    assert opened.sample(2, 0).shape == (2, 1, 28, 28)


def test_real_images_are_judged_with_their_own_labels_and_fakes_with_those_of_their_codes():
    """Would catch: labels of another batch, fakes judged with the real images' labels, a generator judged without."""
    training = training_of(CONDITIONAL)
    seen = []
    judge = training.model.discriminate

    def watched(x, edits=(), labels=None):
        seen.append(labels)
        return judge(x, edits, labels)

    training.model.discriminate = watched
    make_steps(training, 1)
    dataset = open_dataset("digits", image_size=28)
    truth = [dataset.factors(dataset.batch(8, 0, index))[:, :1] for index in range(2)]
    told = [training.codes("discriminator", index)[:, :10].argmax(1, keepdim=True) for index in range(2)]
    asked = training.codes("generator", 0)[:, :10].argmax(1, keepdim=True)
    # Real and fake images, then the penalty of the real ones, twice; then the generator's.
    expected = [torch.cat([truth[0], told[0]]), truth[0], torch.cat([truth[1], told[1]]), truth[1], asked]
    assert len(seen) == 5 and all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))
    assert len(set(truth[0].flatten().tolist())) > 1


def test_swapped_labels_train_another_discriminator():
    """Would catch: labels that arrive and count for nothing."""
    digests = []
    for shift in (0, 1):
        training = training_of(CONDITIONAL)
        own = training.real_labels
        training.real_labels = lambda index, own=own, shift=shift: (own(index) + shift) % 10
        make_steps(training, 1)
        digests.append(weights_digest(training.model.discriminator))
    assert digests[0] != digests[1]


def test_a_label_that_the_data_lack_or_the_model_has_no_room_for_is_refused():
    dataset = open_dataset("digits", image_size=28)
    for changes, message in (
        (
            {"label": "shape"},
            "ConditionalGAN reads labels of the factor 'shape', and the factors of .* are: digit",
        ),
        (
            {"classes": 4},
            "'digit' of data set .* has 10 values, and the model has room for 4; set model.classes",
        ),
    ):
        config = ConditionalGANConfig(latents=4, width=4, **changes)
        with pytest.raises(ValueError, match=message):
            GANTraining(
                build_model(config, dataset.image_shape),
                build_adversarial(Adversarial()),
                dataset,
                CONDITIONAL,
            )


def test_further_terms_move_head_trunk_and_generator_and_never_the_other_way_round():
    """Would catch: a contrast network or head that no optimiser holds, and terms left out of one player's loss."""
    training = training_of(INFO)
    before = copy.deepcopy(training.state_dict())
    generator, discriminator = make_steps(training, 1)
    held = [{id(p) for group in o.param_groups for p in group["params"]} for o in (generator, discriminator)]
    own = [*training.model.judging.parameters(), *training.terms.parameters()]
    assert held == [{id(p) for p in training.raw.parameters()}, {id(p) for p in own}]
    after = training.state_dict()
    for part in ("raw.", "model.head.", "terms.contrast.", "model.discriminator."):
        moved = [not torch.equal(before[k], after[k]) for k in after if k.startswith(part)]
        assert moved and any(moved)
    means = training.take_means()
    assert {"information_class", "information_code", "contrast", "contrast_accuracy"} <= set(means)
    # Without their weights the same step ends elsewhere: for the generator and for the head.
    silent = training_of(dataclasses.replace(INFO, model=dataclasses.replace(INFO.model, info_weight=0.0)))
    make_steps(silent, 1)
    other = silent.state_dict()
    assert any(not torch.equal(other[k], after[k]) for k in after if k.startswith("raw."))
    heads = [k for k in after if k.startswith("model.head.")]
    assert all(torch.equal(other[k], before[k]) for k in heads)


def test_a_planted_overfit_raises_the_share_of_augmented_images_and_its_honest_twin_does_not():
    """Would catch: a share that follows the fakes, or one that real images never move."""
    shares = []
    for certain in (True, False):
        training = training_of(with_objective(TINY, augment="ada", ada_images=200, penalty="none"))
        judge = training.model.discriminate

        def planted(x, edits=(), labels=None, certain=certain, judge=judge):
            scores = judge(x, edits, labels)
            mixed, half = (-1.0) ** torch.arange(len(x)), len(x) // 2  # the second half are fakes
            mixed[:half], mixed[half:] = (1.0, -1.0) if certain else (mixed[:half], 1.0)
            return scores - scores.detach() + 2.0 * mixed

        training.model.discriminate = planted
        make_steps(training, 6)
        shares.append(training.augmentation.share.item())
    assert shares == pytest.approx([3 * 4 * 8 / 200, 0.0])


def test_both_players_see_the_images_augmented():
    """Would catch: real images changed and fakes not, by which the discriminator tells them apart."""
    training = training_of(with_objective(TINY, augment="diffaugment", penalty="none", discriminator_steps=1))
    seen = []
    training.augmentation.forward = lambda x, chance: seen.append(len(x)) or torch.full_like(x, 0.25)
    judge = training.model.discriminate
    judged = []
    training.model.discriminate = lambda x, edits=(), labels=None: judged.append(x) or judge(x, edits, labels)
    make_steps(training, 1)
    assert seen == [16, 8] and all((x == 0.25).all() for x in judged)


def test_an_info_gan_run_encodes_maps_and_traverses_real_images(tmp_path):
    """Would catch: an encoder that analyses can't use, or whose noise has no posterior."""
    import latentlab

    run = fit(dataclasses.replace(INFO, max_steps=2), tmp_path / "run", device="cpu", progress=False)
    assert is_inference_model(run.model) and set(run.model.networks) == {
        "generator",
        "discriminator",
        "encoder",
    }
    images = run.dataset().images([0, 5])
    code = run.model.encode(images).code()
    strips = latentlab.traverse(run.model, code[0].detach(), dims=["code0", "class3"], steps=5)
    assert strips.images.shape[0] == 2
    encoded = latentlab.encode_dataset(run.model, run.dataset(), 50)
    assert len(encoded.mean) == 50 and np.isfinite(encoded.mean).all()
    maps = latentlab.feature_maps(run.model, "encoder", inputs=images[:1])
    assert maps is not None


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


@pytest.mark.slow
def test_a_classifier_of_real_digits_reads_the_digit_that_was_ordered(tmp_path):
    """Would catch: a label that reaches only one of generator and discriminator."""
    from sklearn.linear_model import LogisticRegression

    from latentlab.config import named_experiment

    run = fit(named_experiment("digits-cgan")[0], tmp_path / "digits", device="cpu", progress=False)
    data = open_dataset("digits", split="train")
    indices = np.arange(len(data))
    judge = LogisticRegression(C=0.05, max_iter=2000)
    judge.fit(data.images(indices).flatten(1).numpy(), data.factors(indices)[:, 0].numpy())
    with torch.inference_mode():
        codes = run.model.sample_codes(2000, 1)
        samples = run.model.decode(codes).flatten(1).numpy()
    ordered, read = codes[:, :10].argmax(1).numpy(), judge.predict(samples)
    shares = [(read[ordered == digit] == digit).mean() for digit in range(10)]
    print(f"read as ordered {(read == ordered).mean():.3f}, by digit {np.round(shares, 3)}")
    assert (read == ordered).mean() >= 0.95 and min(shares) >= 0.9
    assert not run.metrics()["collapsed"].any()
