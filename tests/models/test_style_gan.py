"""The style GAN: modulation against the loop, spaces that keep to themselves, styles that reach their layers alone."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from latentlab.config import Adversarial, Experiment, StyleGANConfig
from latentlab.latents import Block, LatentSpace, Mapped
from latentlab.models.build import build_model
from latentlab.models.contract import GenerativeModel, is_inference_model, weights_digest
from latentlab.models.edits import Edit
from latentlab.models.style_networks import EqualLinear, ModulatedConv2d, Noise, PixelNorm, Styles
from latentlab.runs import load_weights, save_weights


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(**changes) -> StyleGANConfig:
    return StyleGANConfig(**{"width": 4, "latents": 6, "styles": 5, "mapping_layers": 2, **changes})


def loud(model):
    """The model with noise of some strength, which is 0 before training."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, Noise):
                module.strength.fill_(0.3)
    return model


@pytest.fixture
def model():
    return loud(build_model(small(), (1, 28, 28))).eval()


def kernels_one_by_one(layer: ModulatedConv2d, h, scales):
    """The paper's own words: every sample's kernel scaled and brought to unit length, one convolution a sample."""
    outputs, lengths = [], []
    for sample, scale in zip(h, scales, strict=True):
        weight = layer.weight * layer.scale * scale[None, :, None, None]
        if layer.demodulate:
            weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        lengths.append(weight.flatten(1).norm(dim=1))
        outputs.append(functional.conv2d(sample[None], weight, padding=layer.padding))
    return torch.cat(outputs), torch.stack(lengths)


@pytest.mark.parametrize(("kernel", "demodulate"), [(3, True), (3, False), (1, True)])
def test_a_modulated_convolution_equals_one_kernel_a_sample(kernel, demodulate):
    """Would catch: scales on the wrong axis, a length without the scale, samples that share a kernel."""
    layer = ModulatedConv2d(4, 7, kernel, demodulate)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=chance(1)))
    h = torch.randn(3, 4, 6, 5, generator=chance(2))
    scales = torch.randn(3, 4, generator=chance(3)) * torch.tensor([[0.1], [1.0], [30.0]])
    expected, lengths = kernels_one_by_one(layer, h, scales)
    assert torch.allclose(layer(h, scales), expected, rtol=1e-4, atol=1e-5)
    if demodulate:
        assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-3)
        # Unit length takes the scales' common factor away; without it the sample of 30 would be 300 times as large.
        assert torch.allclose(layer(h, 5.0 * scales), layer(h, scales), rtol=1e-3, atol=1e-4)


def test_pixel_norm_keeps_the_direction_alone():
    """Would catch: a norm over the batch, or a length instead of a root mean square."""
    z = torch.randn(4, 9, generator=chance())
    out = PixelNorm()(z)
    assert torch.allclose(out.square().mean(dim=1), torch.ones(4), atol=1e-5)
    assert torch.allclose(PixelNorm()(7.0 * z), out, atol=1e-5)


def test_a_layer_with_a_hundredth_of_the_rate_starts_the_same_and_moves_a_hundredth():
    """Would catch: a rate that scales the output too, or does not slow the steps of Adam."""
    layers = []
    for rate in (1.0, 0.01):
        layer = EqualLinear(6, 3, rate=rate)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(3, 6, generator=chance()) / rate)
        layers.append(layer)
    h = torch.randn(5, 6, generator=chance(1))
    before = [layer(h).detach() for layer in layers]
    assert torch.allclose(*before, atol=1e-5)
    for layer in layers:
        layer(h).sum().backward()
        with torch.no_grad():
            for p in layer.parameters():
                p -= 1e-3 * p.grad.sign()  # Adam's first step
    moved = [(layer(h) - start).norm().item() for layer, start in zip(layers, before, strict=True)]
    assert moved[1] == pytest.approx(0.01 * moved[0], rel=1e-2)


@pytest.mark.parametrize(("channels", "size", "layers"), [(1, 28, 8), (3, 32, 8), (1, 45, 10), (3, 64, 10)])
def test_every_size_gives_images_and_every_parameter_a_gradient(channels, size, layers):
    """Would catch: a size that odd halvings break, a stage that no loss reaches."""
    model = build_model(small(), (channels, size, size))
    assert isinstance(model, GenerativeModel) and not is_inference_model(model)
    images = model.forge(model.generating, model.sample_codes(4, 0), chance())
    assert images.shape == (4, channels, size, size) and images.min() >= 0.0 and images.max() <= 1.0
    assert model.generator.layers == layers and model.spaces["w+"].dim == 5 * layers
    model.discriminate(images).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert all(p.grad.abs().sum() > 0 for p in model.generating.parameters())
    model.eval()
    for name, network in model.networks.items():
        h = model.sample_codes(2, 0) if name != "discriminator" else images.detach()
        h = model.map(h, "z", model.input_spaces[name]) if name in model.input_spaces else h
        assert network.name == name and len(network.describe(h)) == len(network.names)


def test_the_stock_sizes_stay_small():
    """Would catch: widths that double without end."""
    for size, limit in ((32, 2e6), (64, 3e6), (128, 3.3e6)):
        with torch.device("meta"):
            model = build_model(StyleGANConfig(), (3, size, size))
        assert 4 * sum(t.numel() for t in model.state_dict().values()) < limit


def test_images_begin_inside_the_tanh():
    """Would catch: images of all resolutions that add up until the tanh passes no gradient."""
    model = build_model(StyleGANConfig(), (1, 64, 64))
    z = model.sample_codes(16, 0)
    outputs = model.generator.run(model.map(z, "z", "w+"))
    assert 0.1 < outputs.std().item() < 1.0


def test_a_code_has_the_same_image_in_every_space_it_is_carried_to(model):
    """Would catch: layers that read their neighbours' styles, or a decoding that maps what is mapped already."""
    z = model.sample_codes(3, 1)
    w, each = model.map(z, "z", "w"), model.map(z, "z", "w+")
    assert w.shape == (3, 5) and each.shape == (3, 40)
    assert torch.equal(model.map(w, "w", "w+"), each) and torch.equal(each.view(3, 8, 5)[:, 3], w)
    images = model.decode(z)
    assert torch.equal(model.decode(z, space="z"), images)
    assert torch.equal(model.decode(w, space="w"), images)
    assert torch.equal(model.decode(each, space="w+"), images)
    assert torch.equal(model.map(w, "w", "w"), w)
    assert images.std(dim=0).max() > 1e-3  # one image for all codes would prove nothing


def test_codes_stay_out_of_spaces_that_are_not_theirs(model):
    """Would catch: a direction of W applied in Z, and a way back that no network knows."""
    z = model.sample_codes(2, 0)
    with pytest.raises(ValueError, match=r"Expected codes \(batch, 5\) of space 'w'; got \(2, 6\)"):
        model.decode(z, space="w")
    with pytest.raises(ValueError, match=r"No map leads from 'w' back to 'z'; latentlab.invert"):
        model.map(model.map(z, "z", "w"), "w", "z")
    with pytest.raises(ValueError, match="No map leads from 'w\\+' back to 'w'"):
        model.map(model.map(z, "z", "w+"), "w+", "w")
    with pytest.raises(ValueError, match="No space 'v' in this model; it has z, w, w\\+"):
        model.decode(z, space="v")
    with pytest.raises(ValueError, match="A mapped block has no prior in closed form"):
        model.spaces["w"].sample(1, 0)
    with pytest.raises(ValueError, match="A mapped block has no prior in closed form"):
        _ = model.spaces["w+"].std


def test_a_space_of_mapped_blocks_survives_json():
    """Would catch: a kind of block that only its own process can read."""
    space = LatentSpace([Block("layer0_", 3, Mapped), Block("layer1_", 3, Mapped)], "w+")
    assert LatentSpace.from_dict(space.to_dict()) == space and space.names[3] == "layer1_0"


def test_truncation_ends_at_the_mean_image_and_at_the_code_itself(model):
    """Would catch: psi the wrong way round, a mean of zeros, layers that are truncated though not named."""
    model.mapping.mean.copy_(torch.randn(5, generator=chance(4)))
    w = model.map(model.sample_codes(3, 0), "z", "w")
    assert torch.equal(model.truncate(w, 1.0), w)
    mean_image = model.decode(model.mapping.mean[None], space="w")
    assert torch.allclose(model.decode(model.truncate(w, 0.0), space="w"), mean_image.expand(3, -1, -1, -1))
    assert torch.allclose(model.sample(3, 0, truncation=0.0), mean_image.expand(3, -1, -1, -1), atol=1e-6)
    assert torch.equal(model.sample(3, 0, truncation=1.0), model.sample(3, 0))
    half = model.truncate(w, 0.5)
    assert torch.allclose(half - model.mapping.mean, 0.5 * (w - model.mapping.mean), atol=1e-6)
    each = model.map(w, "w", "w+")
    some = model.truncate(each, 0.5, layers=[0, 2], space="w+").view(3, 8, 5)
    assert torch.equal(some[:, 0], half) and torch.equal(some[:, 2], half)
    assert torch.equal(some[:, [1, 3, 4, 5, 6, 7]], each.view(3, 8, 5)[:, [1, 3, 4, 5, 6, 7]])
    with pytest.raises(ValueError, match="Single layers are truncated in 'w\\+'"):
        model.truncate(w, 0.5, layers=[0])
    with pytest.raises(ValueError, match="Only codes of 'w' and 'w\\+' can be truncated; got the space 'z'"):
        model.truncate(w, 0.5, space="z")
    with pytest.raises(ValueError, match="W\\+ has layers 0 to 7; got 8"):
        model.truncate(each, 0.5, layers=[8], space="w+")


def test_styles_mixed_from_a_layer_on_leave_every_stage_before_it_as_it_was(model):
    """Would catch: a stage that reads another layer's style than its own."""
    a, b = model.map(model.sample_codes(2, 3), "z", "w+")[:, None].unbind(0)
    reads = {}
    states = model.generator.activations(a)
    for layer in range(model.generator.layers):
        other = model.generator.activations(model.mix(a, b, [layer]))
        changed = [name for name in states if not torch.equal(states[name], other[name])]
        own = [n for n in model.generator.names if getattr(model.generator.stages[n], "where", None)]
        reads[layer] = [n for n in own if model.generator.stages[n].where.start == 5 * layer]
        first = min(model.generator.names.index(n) for n in reads[layer])
        assert changed and min(model.generator.names.index(n) for n in changed) == first
    assert reads == {
        0: ["conv1"], 1: ["image1", "conv2"], 2: ["conv3"], 3: ["image2", "conv4"], 4: ["conv5"],
        5: ["image3", "conv6"], 6: ["conv7"], 7: ["output"],
    }  # fmt: skip
    everything = model.mix(a, b, range(8))
    assert torch.equal(everything, b) and torch.equal(model.mix(a, b, []), a)


def test_edits_reach_the_network_they_name_and_the_image(model):
    """Would catch: edits of the mapping that a decoding passes by, and a layer that can't be opened alone."""
    z = model.sample_codes(2, 0)
    images = model.decode(z)
    for address in ("mapping.fc1", "generator.conv3", "generator.image1"):
        assert not torch.equal(model.decode(z, [Edit(address)]), images)
    edited = model.map(z, "z", "w", [Edit("mapping.fc2", operation="shift", value=0.5)])
    assert torch.allclose(edited, model.map(z, "z", "w") + 0.5)
    assert torch.equal(
        model.decode(edited, space="w"), model.decode(z, [Edit("mapping.fc2", operation="shift", value=0.5)])
    )


def test_an_image_is_a_function_of_its_code_in_every_mode(model):
    """Would catch: noise drawn anew at each look, or an image that depends on the codes beside it."""
    z = model.sample_codes(5, 1)
    images = model.decode(z)
    assert torch.equal(model.train().decode(z), images) and torch.equal(model.eval().sample(5, 1), images)
    assert torch.allclose(model.decode(z[2:3]), images[2:3], atol=1e-6)
    assert torch.equal(model.forge(model.generating, z, chance()), images)


def test_noise_of_no_strength_changes_nothing_and_of_some_strength_each_image(model):
    """Would catch: noise whose strength is not read, and one noise for the whole batch."""
    styles = model.map(model.sample_codes(1, 0), "z", "w+").repeat(2, 1)
    with_noise = model.generator.run(Styles(styles, model.generator.draw_noise(2, chance())))
    assert not torch.equal(with_noise[0], with_noise[1])
    for module in model.modules():
        if isinstance(module, Noise):
            nn.init.zeros_(module.strength)
    silent = model.generator.run(Styles(styles, model.generator.draw_noise(2, chance())))
    assert torch.allclose(silent[0], silent[1], atol=1e-6)
    assert torch.allclose(silent, model.generator.run(styles), atol=1e-6)


def test_images_in_training_are_a_function_of_the_chance_given(model):
    """Would catch: noise or mixing from the process's generator."""
    z, state = model.sample_codes(4, 0), torch.get_rng_state()
    model.train()
    a, b, c = (model.forge(copy.deepcopy(model.generating), z, chance(s)) for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), state)


def test_mixing_gives_later_layers_the_styles_of_a_second_code():
    """Would catch: second codes that reach the first layer, so that an image is not its code's at all."""
    seen = []

    class Watching(nn.Module):
        def __init__(self, generator):
            super().__init__()
            self.generator, self.layers = generator, generator.layers
            self.draw_noise = generator.draw_noise

        def run(self, h):
            seen.append(h.w.detach())
            return self.generator.run(h)

    for share in (0.0, 0.5, 1.0):
        model = build_model(small(mixing=share), (1, 28, 28)).train()
        z = model.sample_codes(200, 0)
        w = model.map(z, "z", "w").detach()
        model.forge({"mapping": model.mapping, "generator": Watching(model.generator)}, z, chance(7))
        own = (seen[-1].view(200, 8, 5) == w[:, None]).all(dim=2)
        assert own[:, 0].all() and (own[:, 1:] <= own[:, :-1]).all()
        assert (~own[:, -1]).float().mean().item() == pytest.approx(share, abs=0.1)
        if share == 1.0:
            assert set(own.sum(dim=1).tolist()) == set(range(1, 8))


def test_the_running_mean_follows_the_styles_in_training_alone():
    """Would catch: a mean that stays at zero, or one that moves when images are looked at."""
    model = build_model(small(), (1, 28, 28))
    z = model.sample_codes(64, 0)
    mean = model.map(z, "z", "w").mean(dim=0).detach()
    model.eval().forge(model.generating, z, chance())
    assert model.mapping.mean.abs().max() == 0.0
    model.train()
    with torch.no_grad():
        model.forge(model.generating, z, chance())
        assert torch.allclose(model.mapping.mean, 0.005 * mean, atol=1e-7)
        for _ in range(1500):
            model.mapping.follow(model.mapping.run(z))
    assert torch.allclose(model.mapping.mean, mean, rtol=1e-2, atol=1e-5)


def test_building_is_seeded_and_weights_survive_the_disk(tmp_path):
    """Would catch: parameters drawn from the process's generator, and noise or a mean that is not saved."""
    state = torch.get_rng_state()
    digests = [weights_digest(build_model(small(), (1, 28, 28), seed)) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state) and digests[0] == digests[1] != digests[2]
    model = loud(build_model(small(), (1, 28, 28), 3))
    model.train().forge(model.generating, model.sample_codes(8, 0), chance())
    save_weights(model, tmp_path / "w.safetensors")
    with torch.device("meta"):
        other = build_model(small(), (1, 28, 28))
    load_weights(other, tmp_path / "w.safetensors")
    assert weights_digest(other) == weights_digest(model)
    assert torch.equal(other.eval().sample(3, 0, truncation=0.7), model.eval().sample(3, 0, truncation=0.7))


def test_what_can_not_be_is_refused_by_name():
    """Would catch: settings that run through and give nonsense."""
    with pytest.raises(ValueError, match=r"model.mixing must lie in \[0.0, 1.0\]; got 1.5"):
        StyleGANConfig(mixing=1.5)
    with pytest.raises(ValueError, match=r"set objective.penalty to 'gradient'"):
        Experiment(model=StyleGANConfig(), objective=Adversarial(loss="wasserstein"))
    with pytest.raises(ValueError, match="trained by one of the objectives adversarial"):
        Experiment(model=StyleGANConfig())
    spec = Experiment(model=StyleGANConfig(styles=12), objective=Adversarial()).to_dict()
    assert Experiment.from_dict(spec).model == StyleGANConfig(styles=12)
