"""The GAN and its networks: every size, spectral norm against SVD, weights that survive the disk."""

import copy

import pytest
import torch
from torch import nn

from latentlab.config import BlockConfig, Experiment, GANConfig
from latentlab.models.build import build_model
from latentlab.models.contract import GenerativeModel, is_inference_model, weights_digest
from latentlab.models.edits import Edit
from latentlab.models.spectral import Spectral, SpectralConv2d, SpectralLinear, update_norms
from latentlab.runs import load_weights, save_weights


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(**changes) -> GANConfig:
    return GANConfig(**{"width": 4, "latents": 6, **changes})


@pytest.mark.parametrize("spectral_norm", [False, True])
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (1, 45), (3, 64), (1, 128)])
def test_every_size_gives_images_scores_and_every_parameter_a_gradient(channels, size, spectral_norm):
    """Would catch: a size that odd halvings break, a stage that no loss reaches, edits that pass a network by."""
    model = build_model(small(spectral_norm=spectral_norm), (channels, size, size))
    assert isinstance(model, GenerativeModel) and not is_inference_model(model)
    z = model.sample_codes(3, 0)
    images = model.decode(z)
    assert images.shape == (3, channels, size, size) and images.min() >= 0.0 and images.max() <= 1.0
    scores = model.discriminate(images)
    assert scores.shape == (3,)
    scores.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    model.eval()
    images = model.decode(z)
    for name, h in (("generator", z), ("discriminator", images)):
        staged = model.networks[name]
        assert staged.name == name and all(torch.isfinite(a).all() for a in staged.activations(h).values())
        assert len(staged.describe(h)) == len(staged.names)
    assert not torch.equal(model.decode(z, [Edit(model.generator.addresses[0])]), images)
    edit = [Edit(model.discriminator.addresses[0])]
    assert not torch.equal(model.discriminate(images, edit), model.discriminate(images))


def test_the_network_is_the_papers_without_norm_in_the_discriminator():
    """Would catch: widths that shrink the wrong way, and batch norm where a gradient penalty forbids it."""
    model = build_model(GANConfig(width=64, latents=100), (3, 64, 64))
    ups = [m.out_channels for m in model.generator.modules() if isinstance(m, nn.ConvTranspose2d)]
    downs = [m.out_channels for m in model.discriminator.modules() if isinstance(m, nn.Conv2d)]
    assert ups == [256, 128, 64, 3] and downs == [64, 128, 256, 512]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.discriminator.modules())
    assert model.generator.kinds()["deconv1"] == "ConvTranspose2d + BatchNorm2d + ReLU"
    weights = next(m.weight for m in model.generator.modules() if isinstance(m, nn.ConvTranspose2d))
    assert weights.std().item() == pytest.approx(0.02, rel=0.02)


def test_images_in_the_unit_interval_reach_the_discriminator_centred():
    """Would catch: scores of images in [0, 1] by a network that was trained on [-1, 1]."""
    model = build_model(small(), (1, 28, 28))
    first = model.discriminator.stages["conv1"]
    x = torch.rand(2, 1, 28, 28, generator=noise())
    by_hand = nn.functional.leaky_relu(
        nn.functional.conv2d(2 * x - 1, first[1].weight, first[1].bias, 2, 1), 0.2
    )
    assert torch.allclose(model.discriminator.run(x, stop="conv1"), by_hand, atol=1e-6)


def test_one_image_or_many_give_the_same_image_in_eval_mode():
    """Would catch: batch norm left in training mode, where an image depends on the codes beside it."""
    model = build_model(small(), (1, 28, 28)).eval()
    z = model.sample_codes(5, 1)
    assert torch.allclose(model.decode(z)[2:3], model.decode(z[2:3]), atol=1e-6)
    assert torch.equal(model.sample(5, 1), model.decode(z))


def layers():
    generator = noise(5)
    for layer in (SpectralConv2d(3, 7, 4, 2, 1), SpectralLinear(20, 6)):
        with torch.no_grad():
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * 0.3)
            layer.u.copy_(nn.functional.normalize(torch.randn(layer.u.shape, generator=generator), dim=0))
        yield layer


def test_spectral_norm_is_the_largest_singular_value_by_svd():
    """Would catch: a Frobenius norm, a kernel flattened the wrong way, an iteration that does not converge."""
    for layer in layers():
        layer.update(200)
        top = torch.linalg.svdvals(layer.weight.detach().flatten(1))[0]
        assert layer.sigma().item() == pytest.approx(top.item(), rel=1e-5)
        worked_with = torch.linalg.svdvals(layer.normalised().detach().flatten(1))[0]
        assert worked_with.item() == pytest.approx(1.0, rel=1e-5)
        assert layer.sigma().item() > 1.05 or layer.sigma().item() < 0.95  # a norm of 1 would prove nothing


def test_one_iteration_a_step_follows_a_weight_that_moves_slowly():
    """Would catch: vectors that are made once and stay where they were while the weight is trained."""
    for layer in layers():
        layer.update(50)
        drift = torch.randn(layer.weight.shape, generator=noise(9)) * 0.02
        for _ in range(100):
            with torch.no_grad():
                layer.weight.add_(drift)
            update_norms(nn.Sequential(layer))
        top = torch.linalg.svdvals(layer.weight.detach().flatten(1))[0]
        assert layer.sigma().item() == pytest.approx(top.item(), rel=0.02)


def test_the_gradient_goes_through_the_norm():
    """Would catch: a norm taken as a constant, whose gradient does not vanish along the weight itself."""
    for layer in layers():
        layer.update(200)
        h = torch.randn(2, *((3, 8, 8) if isinstance(layer, SpectralConv2d) else (20,)), generator=noise(2))
        (layer(h) * torch.randn(layer(h).shape, generator=noise(3))).sum().backward()
        # What the layer gives does not change with the weight's length, so the gradient is orthogonal to it.
        along = (layer.weight.grad * layer.weight).sum() / (layer.weight.grad.norm() * layer.weight.norm())
        assert abs(along.item()) < 1e-5 and layer.weight.grad.norm() > 1e-3


def test_a_forward_pass_moves_no_buffer_of_a_spectral_layer_in_any_mode():
    """Would catch: vectors that move at each look, so that scores depend on who looked before."""
    model = build_model(small(spectral_norm=True), (1, 28, 28))
    x = torch.rand(2, 1, 28, 28, generator=noise())
    before = copy.deepcopy(model.discriminator.state_dict())
    in_training, in_eval = model.train().discriminate(x), model.eval().discriminate(x)
    assert torch.equal(in_training, in_eval)
    assert all(torch.equal(t, before[k]) for k, t in model.discriminator.state_dict().items())


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_weights_on_disk_give_back_images_scores_and_digest(tmp_path, spectral_norm):
    """Would catch: running statistics or singular vectors that are not saved, or that a meta model lacks."""
    config = small(spectral_norm=spectral_norm)
    model = build_model(config, (1, 28, 28), seed=3)
    with torch.no_grad():
        for _ in range(3):
            model.decode(model.sample_codes(8, 0))  # moves the running statistics
            update_norms(model.discriminator)
    save_weights(model, tmp_path / "w.safetensors")
    with torch.device("meta"):
        other = build_model(config, (1, 28, 28))
    load_weights(other, tmp_path / "w.safetensors")
    assert weights_digest(other) == weights_digest(model)
    model.eval(), other.eval()
    images = model.sample(4, 0)
    assert torch.equal(other.sample(4, 0), images)
    assert torch.equal(other.discriminate(images), model.discriminate(images))
    assert any(isinstance(m, Spectral) for m in other.modules()) == spectral_norm


def test_building_is_seeded_and_leaves_the_global_generator_alone():
    """Would catch: singular vectors drawn from the process's generator, so that equal seeds differ."""
    state = torch.get_rng_state()
    config = small(spectral_norm=True)
    digests = [weights_digest(build_model(config, (1, 28, 28), seed)) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert digests[0] == digests[1] != digests[2]


def test_a_gan_takes_blocks_of_every_prior():
    """Would catch: a generator that is refused uniform codes because no encoder could infer them."""
    blocks = [BlockConfig("u", 2, "uniform"), BlockConfig("kind", 3, "categorical"), BlockConfig("z", 2)]
    model = build_model(small(blocks=blocks), (1, 28, 28))
    z = model.sample_codes(20, 0)
    assert z.shape == (20, 7) and z[:, :2].abs().max() <= 1.0 and (z[:, 2:5].sum(1) == 1.0).all()
    assert model.decode(z).shape == (20, 1, 28, 28)


def test_what_a_gan_can_not_take_is_refused_in_one_sentence():
    """Would catch: shapes that run through and give nonsense."""
    model = build_model(small(), (1, 28, 28))
    with pytest.raises(ValueError, match=r"Expected images \(batch, 1, 28, 28\); got \(2, 3, 28, 28\)"):
        model.discriminate(torch.zeros(2, 3, 28, 28))
    with pytest.raises(ValueError, match="Expected codes"):
        model.decode(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="No space 'w'"):
        model.map(torch.zeros(1, 6), "z", "w")
    with pytest.raises(ValueError, match="square images of 28 to 128 pixels"):
        build_model(small(), (1, 27, 27))
    with pytest.raises(ValueError, match=r"model.width must lie in \[4, 512\]; got 2"):
        GANConfig(width=2)
    with pytest.raises(ValueError, match="network must be one of dcgan"):
        Experiment.from_dict({"model": {"family": "gan", "network": "evil"}})
