"""ONNX files give what the model gives, for any number of codes, and say whose they are."""

import json
from copy import deepcopy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from latentlab.export import onnx as writer
from latentlab.export.onnx import TOLERANCE, to_onnx
from latentlab.latents import Block, LatentSpace
from latentlab.models.build import SeededWeights
from latentlab.models.edits import Edit
from latentlab.models.likelihoods import Bernoulli
from latentlab.models.staged import StagedNetwork
from latentlab.models.vae import VAE
from latentlab.runs import Run

MAP = nn.Unflatten(1, (1, 4, 4))
# A VAE, a GAN with categories, a style GAN by its W, and a VAE with a category.
CASES = [
    ("digits-vae", "generator", None),
    ("digits-infogan", "generator", None),
    pytest.param("digits-stylegan", "generator", "w", marks=pytest.mark.slow),  # traced twice
    ("digits-m2", "encoder", None),
]


@pytest.fixture(scope="module")
def model():
    """A VAE of few stages, which is quickly traced."""
    generator = {
        "fc": nn.Sequential(nn.Linear(2, 8), nn.ReLU()),
        "output": nn.Sequential(nn.Linear(8, 16), MAP),
    }
    encoder = {"output": nn.Sequential(nn.Flatten(), nn.Linear(16, 4))}
    with SeededWeights(0):
        made = VAE(
            (1, 4, 4),
            LatentSpace([Block("z", 2)]),
            StagedNetwork(encoder, "encoder"),
            StagedNetwork(generator),
            Bernoulli(),
        )
    return made.eval()


def ran(content, name, values):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, {name: values}), strict=True))


@pytest.mark.parametrize(("name", "network", "space"), CASES)
def test_the_file_gives_what_the_model_gives(name, network, space):
    """For batches that were neither traced nor checked: would catch a batch size or a constant that was fixed."""
    model = Run.open(f"zoo:{name}", "cpu").model
    made = to_onnx(model, network, space=space)
    assert made.certificate["difference"] <= TOLERANCE
    for n in (1, 33):
        codes = model.sample_codes(n, 100 + n)
        with torch.inference_mode():
            if network == "encoder":
                given = model.decode(codes)
                posterior = model.encode(given)
                wanted = {"code": posterior.code(), "mean": posterior.mean, "variance": posterior.variance}
            else:
                given = model.map(codes, "z", space) if space else codes
                wanted = {"image": model.decode(given, space=space)}
        found = ran(made.content, made.inputs, given.numpy())
        assert tuple(found) == tuple(wanted) == made.outputs
        for key, values in wanted.items():
            assert np.abs(found[key] - values.numpy()).max() <= TOLERANCE
    about = {entry.key: entry.value for entry in onnx.load_from_string(made.content).metadata_props}
    assert about == dict(made.metadata)
    assert about["latentlab.space"] == json.dumps(
        (model.spaces[space] if space else model.latent_space).to_dict()
    )
    assert about["latentlab.weights_digest"] == Run.open(f"zoo:{name}", "cpu").digest
    for path in (b"/work", b"site-packages", b".py"):  # nothing of the machine that wrote it
        assert path not in made.content


def test_edits_are_in_the_file(model):
    """A file that leaves the edits out fails: its images are the unedited ones."""
    edits = [Edit("generator.fc", tuple(range(6)), "scale", 2.0)]
    made = to_onnx(model, edits=edits)
    codes = model.sample_codes(3, 8)
    found = ran(made.content, "z", codes.numpy())["image"]
    with torch.inference_mode():
        wanted, plain = model.decode(codes, edits).numpy(), model.decode(codes).numpy()
    assert np.abs(found - wanted).max() <= TOLERANCE
    assert np.abs(plain - wanted).max() > 100 * TOLERANCE
    assert json.loads(made.metadata["latentlab.edits"])[0]["stage"] == edits[0].stage


class _Foreign(nn.Module):
    """A decoder whose Python code reads the batch's size."""

    def __init__(self):
        super().__init__()
        self.draw = nn.Linear(2, 16)

    def forward(self, z):
        drawn = self.draw(z)
        return torch.stack([drawn[i] for i in range(len(z))]).unflatten(1, (1, 4, 4)).sigmoid()


def test_a_model_that_can_t_be_traced_is_refused_with_the_reason():
    from latentlab.models.adapt import adapt_model

    foreign = adapt_model(_Foreign(), latents=2, image_shape=(1, 4, 4))
    with pytest.raises(
        ValueError, match="can't trace this model with a free batch size: its code reads the size"
    ):
        to_onnx(foreign)


def test_a_file_with_other_numbers_is_not_given_out(model, monkeypatch):
    """The fake: an exporter that loses the last bits of the weights, as half precision does."""
    honest = writer._written

    def careless(onnx_, traced, *rest):
        halved = {k: v.half().float() if v.is_floating_point() else v for k, v in traced.state_dict().items()}
        copy = type(traced)(deepcopy(model), traced.space, traced.edits)
        copy.load_state_dict(halved)
        return honest(onnx_, copy, *rest)

    monkeypatch.setattr(writer, "_written", careless)
    with pytest.raises(ValueError, match=r"ONNX Runtime and torch differ by .* so no ONNX is written"):
        to_onnx(model)


@pytest.mark.parametrize(
    ("arguments", "wording"),
    [
        ({"network": "discriminator"}, "network must be 'generator' or 'encoder'"),
        ({"space": "w"}, "No space 'w' in this model"),
        ({"edits": [Edit("encoder.output")]}, "has no effect on network 'generator'"),
        ({"network": "encoder", "edits": [Edit("generator.fc")]}, "has no effect on network 'encoder'"),
        ({"edits": [Edit("generator.fc", 10_000)]}, "has units 0 to"),
    ],
)
def test_what_can_t_be_written_is_refused(model, arguments, wording):
    with pytest.raises(ValueError, match=wording):
        to_onnx(model, **arguments)


def test_without_the_extra_it_says_what_to_install(model, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"needs the package onnxscript: pip install 'latentlab\[onnx\]'"):
        to_onnx(model)


def test_the_model_is_left_as_it_was(model):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    flags = [(p.requires_grad, p.grad) for p in model.parameters()]
    state, modes = torch.get_rng_state(), [m.training for m in model.modules()]
    to_onnx(model, "encoder")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert flags == [(p.requires_grad, p.grad) for p in model.parameters()]
    assert modes == [m.training for m in model.modules()] and torch.equal(state, torch.get_rng_state())
    assert not any(m._forward_hooks for m in model.modules())
