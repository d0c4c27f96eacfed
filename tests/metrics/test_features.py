"""Feature networks: they learn, are what they were after saving, refuse what is damaged, and leave no trace."""

import builtins
import hashlib
import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from latentlab.data import open_dataset
from latentlab.data.arrays import ImageArray
from latentlab.data.factors import FactorSpace
from latentlab.latents import Block, Categorical, LatentSpace, Normal, Uniform
from latentlab.metrics import features as rooms
from latentlab.metrics.features import (
    FeatureNetwork,
    InceptionNetwork,
    between,
    dataset_features,
    extract,
    generated_features,
    inception_network,
    load_feature_network,
    path_features,
    perceptual_path_length,
    random_feature_network,
    save_feature_network,
    train_feature_network,
)
from latentlab.metrics.fidelity import frechet_distance, precision_recall


@pytest.fixture(scope="module")
def digits():
    return open_dataset("digits", image_size=16)


@pytest.fixture(scope="module")
def network(digits):
    return train_feature_network(digits, steps=150, seed=0)


class LinearModel(torch.nn.Module):
    """Images that move in a straight line with the code: a path length in closed form."""

    image_shape = (1, 16, 16)

    def __init__(self, space, seed=0):
        super().__init__()
        self.latent_space = space
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.nn.Parameter(0.01 * torch.randn((space.dim, 256), generator=generator))
        self.dropout = torch.nn.Dropout(0.5)
        self.seen = []

    def sample_codes(self, n, seed):
        return self.latent_space.sample(n, seed)

    def decode(self, z, edits=()):
        assert not torch.is_grad_enabled()
        self.seen.append(z)
        return (0.5 + self.dropout(z @ self.weight)).clamp(0, 1).unflatten(1, self.image_shape)


class Pixels:
    """A feature space without a network: the pixels themselves."""

    name, dim, device = "256 pixels", 256, torch.device("cpu")

    def check(self, image_shape):
        pass

    def __call__(self, x):
        return x.flatten(1)


def test_a_network_learns_the_digits_quickly_and_says_so(digits, network):
    """Would catch: heads mixed up with factors, held-out images that were trained on, a name that boasts."""
    assert network.accuracy["digit"] > 0.9
    expected = "64 features of a network trained on the factors of digits (150 steps, seed 0), accuracy "
    assert network.name == f"{expected}{network.accuracy['digit']:.2f}"
    untrained = FeatureNetwork(digits.image_shape, {"digit": 10}, kind="factors", seed=0)
    x, truth = digits.images(range(300)), digits.factors(range(300))[:, 0]
    assert (untrained.logits(x)["digit"].argmax(1) == truth).double().mean() < 0.4
    assert (network.logits(x)["digit"].argmax(1) == truth).double().mean() > 0.9
    assert not network.training and not any(p.requires_grad for p in network.parameters())


def test_held_out_images_are_never_trained_on(monkeypatch):
    """Would catch: an accuracy measured on what the network has memorised: labels that mean nothing stay so."""
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=(800, 1))
    images = rng.integers(0, 256, size=(800, 1, 8, 8), dtype=np.uint8)
    data = ImageArray("coins", "made here", images, FactorSpace(("side",), (2,)), labels)
    memory = train_feature_network(data, steps=250)
    known = (memory.logits(data.images(range(800)))["side"].argmax(1).numpy() == labels[:, 0]).mean()
    assert known > 0.85 and memory.accuracy["side"] < 0.7


def test_features_are_standardised_over_the_data_and_float32(digits, network):
    """Would catch: distances that depend on how large a network's outputs happen to be."""
    found = extract(network, digits.images(range(len(digits))))
    assert found.dtype == np.float32 and found.shape == (len(digits), 64)
    np.testing.assert_allclose(found.mean(axis=0), 0.0, atol=1e-3)
    np.testing.assert_allclose(found.std(axis=0), 1.0, atol=1e-3)
    parts = extract(network, digits.images(range(50)).numpy(), batch_size=7)
    np.testing.assert_allclose(parts, found[:50], atol=1e-5)
    images = digits.images(range(50)).double().numpy()
    images.flags.writeable = False  # as in a frozen result
    np.testing.assert_allclose(extract(network, images[::-1]), found[49::-1], atol=1e-5)


def test_features_rank_images_by_their_faults(digits, network):
    """Would catch: features that are blind to what the metrics are meant to see."""
    images = digits.images(range(len(digits)))
    real, other = images[::2], images[1::2]
    noise = torch.rand(other.shape, generator=torch.Generator().manual_seed(0))
    clouds = [extract(network, (1 - s) * other + s * noise) for s in (0.0, 0.2, 0.5, 1.0)]
    distances = [frechet_distance(extract(network, real), c, features=network.name) for c in clouds]
    assert [d.value for d in distances] == sorted(d.value for d in distances)
    assert distances[1].value > 2 * distances[0].value
    assert distances[0].protocol["features"] == network.name
    half = other[digits.factors(range(1, len(digits), 2))[:, 0] < 5]
    dropped = precision_recall(extract(network, real), extract(network, half))
    whole = precision_recall(extract(network, real), clouds[0])
    assert dropped.details["recall"] < 0.8 * whole.details["recall"]
    assert dropped.value > whole.value - 0.1


def test_equal_seeds_give_equal_networks_and_no_global_seed_moves(digits):
    """Would catch: weights or batches drawn from the global generators, and a seed that decides nothing."""
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    seen = []
    first = train_feature_network(digits, steps=3, seed=1, progress=lambda i, n: seen.append((i, n)))
    with torch.no_grad():  # gradients are its own business
        second = train_feature_network(digits, steps=3, seed=1)
    third = train_feature_network(digits, steps=3, seed=2)
    random_feature_network((1, 16, 16), 0)
    assert torch.equal(before, torch.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()  # noqa: NPY002
    same = [torch.equal(a, second.state_dict()[k]) for k, a in first.state_dict().items()]
    assert all(same) and seen == [(1, 3), (2, 3), (3, 3)]
    assert not torch.equal(first.features.weight, third.features.weight)


def test_images_without_factors_are_told_by_their_turns(digits):
    """Would catch: a plain image set that can't be measured, and a task that gives itself away."""
    images = (255 * digits.images(range(len(digits)))).to(torch.uint8)
    turned = train_feature_network(ImageArray("plain", "made here", images), steps=150)
    assert turned.heads == {"rotation": 4} and turned.accuracy["rotation"] > 0.6
    assert turned.name.startswith("64 features of a network trained to tell rotations of plain (150 steps")
    # Noise has no upper side: whoever tells its turns has seen the answer.
    noise = np.random.default_rng(0).integers(0, 256, size=(500, 3, 8, 12), dtype=np.uint8)
    blind = train_feature_network(ImageArray("noise", "made here", noise), steps=300)
    assert blind.heads == {"rotation": 2} and 0.2 < blind.accuracy["rotation"] < 0.8


def test_a_random_network_costs_nothing_and_is_named_so(digits):
    """Would catch: a fallback that passes for a trained network."""
    first, second = (random_feature_network(digits.image_shape, s) for s in (0, 1))
    assert first.name == "64 features of a random network (seed 0)" and first.accuracy == {}
    x = digits.images(range(100))
    assert np.abs(extract(first, x) - extract(second, x)).max() > 0.1
    scaled = random_feature_network(digits.image_shape, 0, images=x)
    np.testing.assert_allclose(extract(scaled, x).std(axis=0), 1.0, atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28), (3, 33, 65), (1, 128, 128)])
def test_images_of_any_size_have_features(shape):
    """Would catch: a network for squares of a power of two alone."""
    assert extract(random_feature_network(shape), np.zeros((2, *shape), np.float32)).shape == (2, 64)


def test_a_saved_network_is_itself_again(digits, network, tmp_path):
    """Would catch: the scale of the features forgotten, a name that changes, half-written files left over."""
    save_feature_network(network, tmp_path / "run" / "features")
    again = load_feature_network(tmp_path / "run" / "features")
    x = digits.images(range(20))
    assert (extract(again, x) == extract(network, x)).all()
    assert (again.name, again.accuracy, again.heads) == (network.name, network.accuracy, network.heads)
    files = sorted(p.name for p in (tmp_path / "run" / "features").iterdir())
    assert files == ["features.json", "weights.safetensors"]
    assert not again.training and not any(p.requires_grad for p in again.parameters())
    save_feature_network(random_feature_network((1, 8, 8)), tmp_path / "run" / "features")
    assert load_feature_network(tmp_path / "run" / "features").kind == "random"


def rewritten(**parts):
    def damage(folder):
        spec = json.loads((folder / "features.json").read_text())
        (folder / "features.json").write_text(json.dumps({**spec, **parts}))

    return damage


def cut(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-100])


def with_tensors(change):
    """Weights that were changed and whose digest was made to fit."""

    def damage(folder):
        tensors = load_file(folder / "weights.safetensors")
        change(tensors)
        save_file(tensors, folder / "weights.safetensors")
        digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
        rewritten(weights_sha256=digest)(folder)

    return damage


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (cut("weights.safetensors"), ValueError, "weights.safetensors is damaged, or not the weights"),
        (cut("features.json"), ValueError, "features.json is damaged: it is no JSON"),
        (lambda f: (f / "features.json").write_text("[" * 100_000), ValueError, "is no JSON"),
        (lambda f: (f / "features.json").write_text("[]"), ValueError, "of format 1; got 'list'"),
        (lambda f: (f / "features.json").write_bytes(b" " * 2_000_000), ValueError, "it has 2,000,000 bytes"),
        (lambda f: (f / "features.json").unlink(), OSError, "No feature network at .*; train one first"),
        (lambda f: (f / "weights.safetensors").unlink(), OSError, "No feature network at"),
        (rewritten(format=2), ValueError, "of format 1; got 2"),
        (rewritten(dim=10**9), ValueError, "describes no feature network: No feature network has 1000000000"),
        (
            rewritten(dim=32),
            ValueError,
            "'centre' should be torch.float32 \\(32,\\); got torch.float32 \\(64,",
        ),
        (rewritten(image_shape=[1, 10**6, 16]), ValueError, "the sides in 8..512"),
        (rewritten(image_shape=None), ValueError, "describes no feature network"),
        (rewritten(kind="evil"), ValueError, "is trained on one of"),
        (rewritten(heads={"digit": 10**9}), ValueError, "heads is"),
        (rewritten(heads={}), ValueError, "or random; got 'factors'"),
        (rewritten(accuracy=[1]), ValueError, "accuracy is"),
        (rewritten(seed=-1), ValueError, "seed is -1"),
        (rewritten(dataset="x" * 1000), ValueError, "dataset is"),
        (with_tensors(lambda t: t.pop("centre")), ValueError, "tensor 'centre' is missing"),
        (with_tensors(lambda t: t.update(odd=torch.zeros(1))), ValueError, "tensor 'odd' is unexpected"),
        (
            with_tensors(lambda t: t["scale"].fill_(torch.nan)),
            ValueError,
            "'scale' holds numbers that are not",
        ),
    ],
)
def test_a_damaged_network_is_refused_with_one_sentence(network, tmp_path, damage, error, message):
    """Would catch: weights of another network taken for these, memory for a billion features, a traceback."""
    save_feature_network(network, tmp_path)
    damage(tmp_path)
    with pytest.raises(error, match=message) as caught:
        load_feature_network(tmp_path)
    assert "\n" not in str(caught.value)


def test_features_of_a_data_set_and_of_a_model(digits, network):
    """Would catch: a model left in eval mode or sampled with dropout, and images drawn twice."""
    model = LinearModel(LatentSpace([Block("z", 4, Normal)])).train()
    steps = []
    first = generated_features(
        network, model, 30, 5, batch_size=8, progress=lambda i, n: steps.append((i, n))
    )
    assert first.shape == (30, 64) and steps[-1] == (30, 30) and len(steps) == 4
    assert (first == generated_features(network, model, 30, 5, batch_size=8)).all()
    assert model.training and model.dropout.training and model.weight.requires_grad
    assert (torch.cat(model.seen[:4]) == model.latent_space.sample(30, 5)).all()
    everything = dataset_features(network, digits, 10_000)
    assert len(everything) == len(digits)
    some = dataset_features(network, digits, 100, seed=3)
    assert len(np.unique(some.round(4), axis=0)) == len(np.unique(some[:100].round(4), axis=0)) > 95
    assert (some == dataset_features(network, digits, 100, seed=3)).all()
    with pytest.raises(ValueError, match=r"of images \(1, 16, 16\); got images \(1, 32, 32\)"):
        dataset_features(network, open_dataset("digits"), 10)


def test_the_path_length_of_a_linear_model_is_closed_form():
    """Would catch: a step that is not ε of a path, places outside it, and slerp where the prior is no sphere."""
    space = LatentSpace([Block("box", 3, Uniform)])
    model = LinearModel(space)
    score = perceptual_path_length(model, Pixels(), n=400, epsilon=1e-2, seed=0)
    a, b = model.sample_codes(800, 0).double().split(400)
    lengths = ((b - a) @ model.weight.detach().double()).square().sum(1).numpy()
    assert score.details["untrimmed"] == pytest.approx(lengths.mean(), rel=1e-3)
    assert score.protocol["features"] == "256 pixels" and score.protocol["seed"] == 0
    small = perceptual_path_length(model, Pixels(), n=400, epsilon=1e-3, seed=0)
    assert small.value == pytest.approx(score.value, rel=1e-2)


def test_paths_follow_the_prior_of_each_block():
    """Would catch: a slerp over all coordinates, categories that blend, and paths that cut through the origin."""
    space = LatentSpace([Block("n", 50, Normal), Block("u", 2, Uniform), Block("c", 3, Categorical)])
    a, b = space.sample(200, 0).double(), space.sample(200, 1).double()
    half = torch.full((200, 1), 0.5, dtype=torch.float64)
    middle = between(space, a, b, half)
    lengths = middle[:, :50].norm(dim=1)
    assert abs(lengths.mean() - 50**0.5) < 0.3, "a straight line would come as near as sqrt(25)"
    assert torch.equal(middle[:, 50:52], (a + b)[:, 50:52] / 2)
    assert torch.equal(middle[:, 52:], a[:, 52:])
    torch.testing.assert_close(between(space, a, b, 0 * half)[:, :52], a[:, :52])
    torch.testing.assert_close(between(space, a, b, 2 * half)[:, :52], b[:, :52])
    torch.testing.assert_close(between(space, a, a, half), a)  # no angle, no circle
    line = LatentSpace([Block("n", 1, Normal)])
    torch.testing.assert_close(between(line, a[:, :1], b[:, :1], half), (a + b)[:, :1] / 2)
    with pytest.raises(ValueError, match="Categories have no path between them"):
        between(LatentSpace([Block("c", 3, Categorical)]), a[:, 52:], b[:, 52:], half)


def test_path_features_are_seeded_and_a_step_apart(network):
    """Would catch: two sides with places of their own, which would measure distance and not speed."""
    model = LinearModel(LatentSpace([Block("z", 4, Normal)])).eval()
    seen = []
    a, b = path_features(
        network, model, 60, 1e-3, 2, batch_size=25, progress=lambda i, n: seen.append((i, n))
    )
    again, _ = path_features(network, model, 60, 1e-3, 2, batch_size=25)
    assert (a == again).all() and a.shape == b.shape == (60, 64)
    assert seen[0] == (25, 120) and seen[-1] == (120, 120)
    assert 0 < np.abs(a - b).max() < 0.05 * np.abs(a - a[::-1]).max()


def test_inception_says_what_is_missing(monkeypatch, tmp_path):
    """Would catch: a download behind the user's back, and a traceback for a package that is optional;
    and a pickle that is run."""
    real_import = builtins.__import__

    def without(name, *rest):
        if name.startswith("torch_fidelity"):
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"need the package torch-fidelity.*pip install torch-fidelity"):
        inception_network()
    monkeypatch.undo()

    def stand_in(name, wanted, path):
        state = torch.load(path, weights_only=True)
        return SimpleNamespace(to=lambda device: lambda x: (x.float().mean((2, 3)) * state["factor"],))

    package = SimpleNamespace(FeatureExtractorInceptionV3=stand_in)
    monkeypatch.setitem(sys.modules, "torch_fidelity", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", package)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(OSError, match=r"No Inception weights at .*6726825d\.pth: put .* or give the file as"):
        inception_network()
    evil = tmp_path / "evil.pth"

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "crater"),)

    torch.save(Bomb(), evil)
    with pytest.raises(ValueError, match="holds no Inception weights of torch-fidelity") as caught:
        inception_network(evil)
    assert "\n" not in str(caught.value) and not (tmp_path / "crater").exists()
    torch.save({"factor": torch.ones(1)}, tmp_path / "good.pth")
    network = inception_network(tmp_path / "good.pth")
    assert network.name.startswith("2048 features of Inception-v3 trained on ImageNet (weights ")
    grey = np.full((3, 1, 8, 8), 0.5, np.float32)
    assert (extract(network, grey) == 128.0).all() and extract(network, grey).shape == (3, 3)
    with pytest.raises(ValueError, match="grey or RGB images; got 2 channels"):
        extract(network, np.zeros((1, 2, 8, 8), np.float32))
    assert isinstance(network, InceptionNetwork)
    with pytest.raises(ValueError, match="hides small steps"):
        perceptual_path_length(LinearModel(LatentSpace([Block("z", 4)])), network)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d, n: extract(n, np.full((2, 1, 16, 16), np.nan)), "got NaN or values outside"),
        (lambda d, n: extract(n, np.full((2, 1, 16, 16), 1.5)), "images must be in \\[0, 1\\]"),
        (lambda d, n: extract(n, np.zeros((2, 1, 16, 16), np.uint8)), "must be floats .*; got uint8"),
        (lambda d, n: extract(n, np.zeros((1, 16, 16))), "must be floats \\(n, channels"),
        (lambda d, n: extract(n, np.zeros((2, 3, 16, 16))), "of images \\(1, 16, 16\\); got images \\(3, 16"),
        (
            lambda d, n: extract(n, np.zeros((2, 1, 16, 16)), batch_size=0),
            "batch_size must be a whole number",
        ),
        (lambda d, n: train_feature_network(d, steps=0), "steps must be a whole number of at least 1; got 0"),
        (lambda d, n: train_feature_network(d, seed=-1), "seed must be a whole number of at least 0"),
        (lambda d, n: train_feature_network(d, device="toaster"), "Unknown device 'toaster'"),
        (lambda d, n: random_feature_network((1, 4, 4)), "the sides in 8..512; got \\(1, 4, 4\\)"),
        (
            lambda d, n: generated_features(n, LinearModel(LatentSpace([Block("z", 2)])), 0),
            "n must be a whole",
        ),
        (lambda d, n: path_features(n, LinearModel(LatentSpace([Block("z", 2)])), 9, 0.5), "epsilon must be"),
    ],
)
def test_bad_input_is_refused(digits, network, call, message):
    """Would catch: a NaN that becomes a feature, and images of 0..255 read as if they were in [0, 1]."""
    with pytest.raises(ValueError, match=message) as caught:
        call(digits, network)
    assert "\n" not in str(caught.value)


def test_too_few_images_are_refused():
    """Would catch: an accuracy out of two images."""
    few = ImageArray("few", "made here", np.zeros((20, 1, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="needs at least 50 images; few has 20"):
        train_feature_network(few)


def test_an_interrupted_write_leaves_a_network_that_is_refused(network, tmp_path, monkeypatch):
    """Would catch: new weights under an old description, taken for one another."""
    save_feature_network(network, tmp_path)
    real = rooms.atomic_write

    def fails_at_the_description(path, mode="wb"):
        if path.name == "features.json":
            raise OSError(28, "No space left on device")
        return real(path, mode)

    monkeypatch.setattr(rooms, "atomic_write", fails_at_the_description)
    with pytest.raises(OSError, match=r"can't be written to .*: No space left on device"):
        save_feature_network(random_feature_network((1, 16, 16), 7), tmp_path)
    with pytest.raises(ValueError, match=r"not the weights that features\.json describes"):
        load_feature_network(tmp_path)
