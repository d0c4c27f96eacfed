"""Training a style GAN: mapping and generator step and are averaged together, the mean of the styles with them."""

import os
import signal

import pytest
import torch

from latentlab.config import Adversarial, DataConfig, Experiment, StyleGANConfig
from latentlab.data import open_dataset
from latentlab.models.build import build_model
from latentlab.objectives.adversarial import build_adversarial
from latentlab.runs import Run
from latentlab.training.fit import fit, resume
from latentlab.training.gan import GANTraining

TINY = Experiment(
    name="tiny-style-gan",
    data=DataConfig("digits", {"image_size": 28}),
    model=StyleGANConfig(latents=4, styles=4, mapping_layers=2, width=4),
    objective=Adversarial(penalty_weight=0.1, penalty_every=2, ema=0.9),
    max_steps=6,
    batch_size=4,
    learning_rate=2e-3,
    log_every=2,
    preview_every=0,
    checkpoint_every=2,
    keep_memory=False,
)


def texts(run: Run) -> tuple[str, bytes]:
    return (run.path / "metrics.csv").read_text(), (run.path / "weights.safetensors").read_bytes()


def test_a_stopped_run_resumes_to_the_same_bits_and_opens_like_any_other(tmp_path, monkeypatch):
    """Would catch: noise or mixing from a global generator, a mean of styles or strengths that no checkpoint holds."""
    state = torch.get_rng_state()
    whole = fit(TINY, tmp_path / "whole", device="cpu", progress=False)
    real = GANTraining.training_step

    def interrupted(self, batch, batch_idx):
        real(self, batch, batch_idx)
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(GANTraining, "training_step", interrupted)
    part = fit(TINY, tmp_path / "part", device="cpu", progress=False)
    assert part.stopped_by == "Ctrl-C"
    monkeypatch.setattr(GANTraining, "training_step", real)
    assert texts(resume(tmp_path / "part", device="cpu", progress=False)) == texts(whole)
    assert torch.equal(torch.get_rng_state(), state)
    model = Run.open(tmp_path / "whole").model
    assert list(model.spaces) == ["z", "w", "w+"] and model.mapping.mean.abs().max() > 0
    assert torch.equal(
        model.sample(2, 0), model.decode(model.map(model.sample_codes(2, 0), "z", "w"), space="w")
    )


def test_both_networks_step_and_both_means_follow():
    """Would catch: a mapping left out of the optimiser or of the average, noise with no strength to learn."""
    dataset = open_dataset("digits", image_size=28)
    model = build_model(TINY.model, dataset.image_shape)
    training = GANTraining(model, build_adversarial(TINY.objective), dataset, TINY)
    optimisers = training.configure_optimizers()
    training.optimizers = lambda use_pl_optimizer=False: optimisers
    before = {k: v.clone() for k, v in training.raw.state_dict().items()}
    kept = {k: v.clone() for k, v in model.generating.state_dict().items()}
    training.training_step(0, 0)
    after = training.raw.state_dict()
    fixed = {k for k in before if torch.equal(before[k], after[k])}
    assert fixed == {k for k in before if k.endswith("noise.fixed")}
    decay = min(TINY.objective.ema, 2 / 11)
    for name in ("mapping.stages.fc1.0.weight", "mapping.mean", "generator.stages.conv1.noise.strength"):
        expected = decay * kept[name] + (1 - decay) * after[name]
        assert torch.allclose(model.generating.state_dict()[name], expected, rtol=1e-5, atol=1e-9)
    means = training.take_means()
    assert {"d_real", "d_fake", "penalty", "generator_gradient"} <= set(means)


@pytest.mark.slow
def test_a_short_training_brings_samples_nearer_to_the_data():
    """Would catch: a generator that steps up its loss, or whose noise drowns what it learns."""
    experiment = Experiment(
        name="short",
        data=DataConfig("digits", {"image_size": 28}),
        model=StyleGANConfig(latents=8, styles=8, width=4),
        objective=Adversarial(penalty_weight=1.0, ema=0.9),
        max_steps=120,
        batch_size=16,
        learning_rate=3e-3,
    )
    dataset = open_dataset("digits", image_size=28)
    model = build_model(experiment.model, dataset.image_shape)
    real = dataset.images(dataset.batch(256, 0, 0)).mean(dim=0)
    far = (model.sample(256, 0).mean(dim=0) - real).abs().mean().item()
    training = GANTraining(model, build_adversarial(experiment.objective), dataset, experiment)
    optimisers = training.configure_optimizers()
    training.optimizers = lambda use_pl_optimizer=False: optimisers
    for step in range(experiment.max_steps):
        training.training_step(step, step)
    near = (model.sample(256, 0).mean(dim=0) - real).abs().mean().item()
    assert near < 0.6 * far
