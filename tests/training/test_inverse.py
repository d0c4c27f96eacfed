"""An encoder for a given generator: codes found again, likelihoods by hand, a generator left as it was."""

import math
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from latentlab.analysis import invert
from latentlab.config import Adversarial, Experiment, GANConfig, StyleGANConfig, VAEConfig
from latentlab.latents import Block, LatentSpace, Uniform
from latentlab.models.build import build_model
from latentlab.models.contract import is_inference_model, weights_digest
from latentlab.models.gan import GAN
from latentlab.models.inverse import WithEncoder
from latentlab.models.staged import StagedNetwork
from latentlab.runs import WEIGHTS, Run, save_weights
from latentlab.training.inverse import code_loss, fit_encoder


def painter(dim: int = 2) -> GAN:
    """A generator whose images tell its first two coordinates: brightness of the left and of the right half."""
    weight = torch.zeros(28 * 28, dim)
    left = torch.arange(28 * 28) % 28 < 14
    weight[left, 0], weight[~left, 1] = 0.4, 0.4
    linear = nn.Linear(dim, 28 * 28, bias=False)
    linear.weight.data.copy_(weight)
    generator = StagedNetwork({"output": nn.Sequential(linear, nn.Unflatten(1, (1, 28, 28)))}, "generator")
    judge = StagedNetwork({"score": nn.Sequential(nn.Flatten(), nn.Linear(784, 1))}, "discriminator")
    return GAN((1, 28, 28), LatentSpace([Block("z", dim)]), generator, judge).eval().requires_grad_(False)


def small(model, **options):
    return fit_encoder(model, **{"width": 4, "hidden": 16, "batch_size": 32, **options})


def test_codes_that_an_image_tells_are_found_and_others_left_to_the_prior():
    """Would catch: a squared error in place of a likelihood, which is as sure of what it can't know."""
    model = painter(3)
    state, before = torch.get_rng_state(), weights_digest(model)
    found = small(model, steps=120, learning_rate=1e-2)
    assert torch.equal(torch.get_rng_state(), state) and weights_digest(model) == before
    assert is_inference_model(found.model) and not is_inference_model(model)
    z = model.sample_codes(200, 99)
    with torch.no_grad():
        posterior = found.model.encode(model.decode(z))
    error = (posterior.mean - z).square().mean(dim=0)
    assert error[0] < 0.1 and error[1] < 0.1
    assert posterior.mean[:, 2].abs().max() < 0.5 and posterior.stddev[:, 2].mean() == pytest.approx(
        1.0, abs=0.2
    )
    assert posterior.stddev[:, :2].max() < 0.7
    assert found.losses[-20:].mean() < found.losses[0] - 1.0


def test_the_loss_is_the_likelihood_of_the_codes_by_hand():
    """Would catch: a mean over coordinates, a variance for a log-variance, a constant that is left out."""
    model = painter()
    encoder = StagedNetwork({"posterior": nn.Sequential(nn.Flatten(), nn.Linear(784, 4))}, "encoder")
    joined = WithEncoder(model, encoder)
    z = model.sample_codes(7, 1)
    with torch.no_grad():
        mean, log_var = encoder.run(model.decode(z)).chunk(2, dim=1)
        by_hand = 0.5 * ((z - mean).square() / log_var.exp() + log_var + math.log(2 * math.pi))
        assert code_loss(joined, z).item() == pytest.approx(by_hand.sum(dim=1).mean().item(), rel=1e-5)


def test_equal_seeds_give_equal_bits_and_the_joined_model_is_its_generator():
    """Would catch: weights or codes from a global generator, and a wrapper that draws other images."""
    model = build_model(StyleGANConfig(width=4, latents=4, styles=4, mapping_layers=1), (1, 28, 28)).train()
    a, b, c = (small(model, steps=2, batch_size=4, seed=s) for s in (0, 0, 1))
    assert np.array_equal(a.losses, b.losses) and not np.array_equal(a.losses, c.losses)
    assert weights_digest(a.model) == weights_digest(b.model) != weights_digest(c.model)
    assert model.training and all(m.training for m in model.modules())
    joined, model = a.model, model.eval()
    assert torch.equal(joined.sample(2, 0), model.sample(2, 0))
    w = joined.map(joined.sample_codes(2, 0), "z", "w")
    assert torch.equal(joined.decode(w, space="w"), model.decode(w, space="w"))
    assert list(joined.networks) == ["generator", "mapping", "discriminator", "encoder"]
    found = invert(joined, joined.sample(1, 0).detach(), "w", steps=2)
    assert found.start == "encoder" and found.space == "w"


def test_what_has_or_can_have_no_such_encoder_is_refused():
    """Would catch: a second encoder beside the first, and a posterior that nobody defined."""
    with pytest.raises(ValueError, match="VAE has an encoder of its own"):
        small(build_model(VAEConfig(width=4, hidden=8), (1, 28, 28)), steps=1)
    with pytest.raises(ValueError, match="Unknown network 'vgg'; known: burgess"):
        small(painter(), network="vgg")
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1; got 0"):
        small(painter(), steps=0)
    model = painter()
    model.latent_space = LatentSpace([Block("u", 2, Uniform())])
    with pytest.raises(ValueError, match="uniform"):
        small(model, steps=1)


def test_an_encoder_is_kept_in_a_runs_folder_and_opened_with_it(tmp_path):
    """Would catch: another network built than was trained, weights of another run taken for one's own."""
    made = Experiment(name="small", model=GANConfig(latents=3, width=4), objective=Adversarial())
    run = Run.create(tmp_path / "run", made, (1, 28, 28))
    save_weights(build_model(made.model, (1, 28, 28), 1), run.path / WEIGHTS)
    run = Run.open(run.path, device="cpu")
    fit = small(run.model, steps=2, hidden=12)
    kept = run.keep_encoder(fit.model)
    again = Run.open(run.path, device="cpu").model
    x = run.model.sample(3, 0)
    for model in (kept.model, again):
        assert isinstance(model, WithEncoder) and is_inference_model(model)
        torch.testing.assert_close(model.encode(x).mean, fit.model.encode(x).mean, rtol=0, atol=0)
        assert weights_digest(model) == weights_digest(fit.model)
    assert invert(again, x.numpy(), steps=2).z.shape == (3, 3)
    save_weights(build_model(made.model, (1, 28, 28), 2), run.path / WEIGHTS)
    with pytest.raises(ValueError, match="made for other weights than the run has now"):
        _ = Run.open(run.path, device="cpu").model


def test_an_encoder_that_does_not_belong_to_the_run_is_refused(tmp_path):
    run = Run.open("zoo:digits-stylegan", device="cpu")
    fit = small(run.model, steps=1)
    with pytest.raises(OSError, match="ships with latentlab and is read-only"):
        run.keep_encoder(fit.model)
    copied = Run.open(shutil.copytree(run.path, tmp_path / "copy"), device="cpu")
    with pytest.raises(ValueError, match="made for other weights"):
        copied.keep_encoder(small(painter(), steps=1).model)
    with pytest.raises(ValueError, match="with the spec of its encoder"):
        copied.keep_encoder(WithEncoder(copied.model, fit.model.encoder))
    (copied.path / "encoder.json").write_text('{"model": "x", "encoder": {"network": "none"}}')
    with pytest.raises(ValueError, match=r"encoder\.json could not be read: Unknown network 'none'"):
        _ = Run.open(copied.path, device="cpu").model
