"""Foreign modules as staged networks: equal to the module, edited as it would be by hand, and left untouched."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torchvision
from torch import nn

from latentlab.models.adapt import adapt, adapt_model
from latentlab.models.contract import GenerativeModel, is_inference_model, weights_digest
from latentlab.models.edits import Edit


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torchvision.models.resnet18(weights=None)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class _Branching(nn.Module):
    """Not sequential: one layer used twice, a skip, an in-place layer, and control flow."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.relu = nn.ReLU(inplace=True)
        self.out = nn.Linear(4, 6)

    def forward(self, h):
        first = self.relu(self.inner(h))
        second = self.relu(self.inner(first))
        return self.out(first - 2.0 * second if h.ndim == 2 else second)


def snapshot(module: nn.Module):
    return (
        {k: v.clone() for k, v in module.state_dict().items()},
        [m.training for m in module.modules()],
        [p.requires_grad for p in module.parameters()],
        sum(len(m._forward_hooks) for m in module.modules()),
        torch.get_rng_state(),
    )


def assert_same(before, after):
    assert all(torch.equal(v, after[0][k]) for k, v in before[0].items())
    assert before[1:4] == after[1:4]
    assert torch.equal(before[4], after[4])


def test_a_torchvision_network_keeps_its_output_names_and_state(resnet, x):
    resnet.train()
    before = snapshot(resnet)
    network = adapt(resnet, x, "encoder")
    assert set(network.names) - {n for n in network.names if "@" in n} <= dict(resnet.named_modules()).keys()
    with torch.no_grad():
        shown, states = network.run(x), network.activations(x)
        network.describe(x)
    assert_same(before, snapshot(resnet))  # batch-norm statistics among them, though it is in training mode
    resnet.eval()
    with torch.no_grad():
        assert torch.equal(shown, resnet(x))
        h = resnet.layer1(resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(x)))))
    assert torch.equal(states["layer1"], h)
    assert states["layer1.0.conv1"].shape == (2, 64, 16, 16)


def test_an_edit_equals_the_same_change_made_by_hand(resnet, x):
    resnet.eval()
    network = adapt(resnet, x)
    with torch.no_grad():
        h = resnet.layer1(resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(x)))))
        h[:, 5] = 0.0
        h = resnet.layer4(resnet.layer3(resnet.layer2(h)))
        expected = resnet.fc(resnet.avgpool(h).flatten(1))
        edited = network.run(x, [Edit("network.layer1", (5,))])
        assert torch.allclose(edited, expected, atol=1e-6)
        assert not torch.allclose(edited, network.run(x))


def test_a_reused_layer_has_one_stage_a_call():
    module = _Branching()
    h = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    network = adapt(module, h)
    assert network.names == ("inner@1", "relu@1", "inner@2", "relu@2", "out")
    with torch.no_grad():
        first = module.inner(h).relu()
        second = module.inner(first).relu()
        assert torch.equal(network.run(h), module(h))
        assert torch.allclose(network.run(h, [Edit("network.relu@2")]), module.out(first))
        assert torch.allclose(
            network.run(h, [Edit("network.relu@1")]), module.out(-2.0 * module.inner(0 * first).relu())
        )
        # What the in-place layer wrote over must not show in what was handed out.
        assert torch.equal(network.activations(h, ["inner@1"])["inner@1"], module.inner(h))
        assert torch.equal(network.run(h, stop="relu@2"), second)
        replaced = network.run(h, [Edit("network.relu@1", operation="replace", source=tuple(h[1].tolist()))])
        assert torch.allclose(replaced, module(h[1:2]).expand(3, 6), atol=1e-6)


def test_hooks_and_modes_are_restored_after_an_error():
    module = _Branching().train()
    network = adapt(module, torch.zeros(1, 4))
    before = snapshot(module)
    with pytest.raises(ValueError, match="units 0 to 3"):
        network.run(torch.zeros(1, 4), [Edit("network.relu@1", (99,))])
    with pytest.raises(RuntimeError):
        network.run(torch.zeros(1, 5))
    assert_same(before, snapshot(module))


def test_threads_share_one_foreign_module():
    module = _Branching()
    h = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    network = adapt(module, h)
    with torch.no_grad():
        expected = [network.run(h, e) for e in ((), (Edit("network.relu@1"),))]

    def run(i):
        with torch.no_grad():
            return network.run(h, ((), (Edit("network.relu@1"),))[i % 2])

    with ThreadPoolExecutor(6) as pool:
        for i, found in enumerate(pool.map(run, range(60))):
            assert torch.equal(found, expected[i % 2])


def test_what_an_adapted_network_can_not_do_is_said():
    network = adapt(_Branching(), torch.zeros(1, 4))
    with pytest.raises(ValueError, match="can't be resumed half-way"):
        network.run(torch.zeros(1, 4), start="relu@1")
    with pytest.raises(ValueError, match=r"No stage 'relu' in network 'network'; it has network\.inner@1"):
        network.activations(torch.zeros(1, 4), ["relu"])
    with pytest.raises(ValueError, match="No submodule"):
        adapt(nn.ReLU(), torch.zeros(1, 4))


def sequential_vae(dim=3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2 * dim))
        decoder = nn.Sequential(nn.Linear(dim, 16), nn.ReLU(), nn.Linear(16, 64))
    return encoder, decoder


def test_a_plain_sequential_vae_becomes_a_model_that_encodes_decodes_and_edits():
    encoder, decoder = sequential_vae()
    model = adapt_model(decoder, latents=3, image_shape=(1, 8, 8), encoder=encoder, outputs="logits")
    assert isinstance(model, GenerativeModel) and is_inference_model(model)
    z = model.latent_space.sample(4, 0)
    with torch.no_grad():
        assert torch.equal(model.decode(z), decoder(z).sigmoid().view(4, 1, 8, 8))
        x = model.decode(z)
        posterior = model.encode(x)
        assert torch.allclose(posterior.mean, encoder(x)[:, :3])
        assert torch.allclose(posterior.log_var, encoder(x)[:, 3:], atol=1e-5)
        assert torch.equal(model.sample(4, 0), x)
        bias = decoder[2].bias.sigmoid().view(1, 1, 8, 8)
        assert torch.allclose(model.decode(z, [Edit("generator.1")]), bias.expand(4, 1, 8, 8))
    other = adapt_model(sequential_vae()[1], latents=3, image_shape=(1, 8, 8))
    assert isinstance(other, GenerativeModel) and not is_inference_model(other)
    assert len(weights_digest(model)) == 64
    with pytest.raises(ValueError, match="without an encoder"):
        other.encode(x)


def test_a_decoder_that_does_not_fit_is_refused():
    decoder = sequential_vae()[1]
    with pytest.raises(ValueError, match="outputs must be one of unit, logits, signed"):
        adapt_model(decoder, latents=3, image_shape=(1, 8, 8), outputs="tanh")
    with pytest.raises(ValueError, match="Expected the decoder to give images"):
        adapt_model(decoder, latents=3, image_shape=(1, 9, 9))
    with pytest.raises(ValueError, match="Expected 6 numbers an image for a posterior"):
        adapt_model(decoder, latents=3, image_shape=(1, 8, 8), encoder=sequential_vae(2)[0])


class _Sampling(nn.Module):
    """An encoder that draws in its forward."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, h):
        return self.inner(h) + torch.randn(4)


def test_a_module_that_draws_neither_reads_nor_moves_the_global_generator():
    """Fails running it as it is: looking at a model would change what a training draws next, and vary itself."""
    module, before = _Sampling(), torch.get_rng_state()
    network = adapt(module, torch.zeros(1, 4))
    first = network.run(torch.zeros(1, 4)).detach()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(network.run(torch.zeros(1, 4)), first)
    torch.set_rng_state(before)


class _Wrapped(nn.Module):
    """A submodule with the network's own name, and outside of it a layer with the name of one inside."""

    def __init__(self, twice: bool):
        super().__init__()
        self.generator = nn.ModuleDict({"fc": nn.Linear(3, 4), "out": nn.Linear(4, 4)})
        if twice:
            self.fc = nn.Linear(4, 4)

    def forward(self, z):
        h = self.generator["out"](self.generator["fc"](z))
        return self.fc(h) if hasattr(self, "fc") else h


@torch.no_grad()
def test_a_stage_is_found_under_its_own_name_though_the_network_is_called_the_same():
    """Fails cutting off the network's name first: the stage's own name would be refused."""
    module, z = _Wrapped(twice=False), torch.ones(2, 3)
    network = adapt(module, z, "generator")
    assert network.names == ("generator.fc", "generator.out")
    for name in ("generator.fc", "generator.generator.fc"):
        assert torch.equal(network.run(z, stop=name), module.generator["fc"](z))
        assert not network.activations(z, [name], [Edit(name)])["generator.fc"].any()


@torch.no_grad()
def test_a_name_that_means_two_stages_is_never_guessed():
    """Fails taking the other stage in silence; an edit always gives an address, so it is plain."""
    module, z = _Wrapped(twice=True), torch.ones(2, 3)
    network = adapt(module, z, "generator")
    with pytest.raises(
        ValueError, match=r"say 'generator\.generator\.fc' for the first, 'fc' for the second"
    ):
        network.run(z, stop="generator.fc")
    inner = module.generator["fc"](z)
    assert torch.equal(network.run(z, stop="generator.generator.fc"), inner)
    assert torch.equal(network.run(z, stop="fc"), module(z))
    assert torch.equal(network.run(z, [Edit("generator.fc")]), torch.zeros(2, 4))
    edited = network.run(z, [Edit("generator.generator.fc")])
    assert torch.equal(edited, module.fc(module.generator["out"](torch.zeros(2, 4))))


@torch.no_grad()
def test_a_foreign_in_place_layer_leaves_the_callers_input():
    """Fails handing over the input itself: the codes would differ after the first look."""
    module = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2))
    z = torch.tensor([[-1.0, 2.0, 3.0]])
    adapt(module, z.clone()).run(z)
    assert z.tolist() == [[-1.0, 2.0, 3.0]]
