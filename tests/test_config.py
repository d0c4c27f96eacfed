"""Configurations: they survive JSON, refuse what is wrong by name, and never import torch."""

import subprocess
import sys

import pytest

from latentlab.config import (
    BetaVAE,
    BlockConfig,
    DataConfig,
    Experiment,
    VAEConfig,
    experiment_names,
    named_experiment,
)


def test_an_experiment_survives_json():
    import json

    experiment = Experiment(
        name="a",
        data=DataConfig("digits", {"split": "train"}),
        model=VAEConfig(
            blocks=[BlockConfig("pose", 2), BlockConfig("kind", 8, "categorical")], likelihood="gaussian"
        ),
        objective=BetaVAE(beta=6.0),
    )
    assert Experiment.from_dict(json.loads(json.dumps(experiment.to_dict()))) == experiment


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": {"objective": "os.system"}}, "Unknown objective 'os.system'; known: beta-vae"),
        ({"objective": {"objective": "beta-vae", "bita": 1.0}}, "Unknown key 'bita' in BetaVAE; known: beta"),
        ({"model": {"family": "vae", "network": "../evil"}}, "network must be one of burgess, locatello"),
        ({"model": {"family": "vae", "latents": 10**9}}, r"model.latents must lie in \[1, 1024\]"),
        ({"model": {"family": "vae", "width": "32"}}, "VAEConfig.width must be of type int"),
        ({"name": "../../etc"}, "can't be empty, hidden or a path"),
        ({"max_steps": True}, "must be of type int"),
        ({"learning_rate": float("nan")}, "learning_rate must lie in"),
        ({"data": "sprites"}, "data must be a table"),
        ({"data": {"name": "sprites", "options": [1]}}, r"data.options must be a table .* got \[1\]"),
        (
            {"model": {"family": "vae", "blocks": [{"name": "kind", "dim": 1, "prior": "categorical"}]}},
            r"block.dim must lie in \[2, 1024\]; got 1",
        ),
        (
            {"model": {"family": "vae", "blocks": [{"name": "kind", "dim": 2, "prior": "codebook"}]}},
            "prior must be one of normal, uniform, categorical; got 'codebook'",
        ),
        ({"colour": 1}, "Unknown key 'colour'"),
    ],
)
def test_a_wrong_configuration_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        Experiment.from_dict({**Experiment().to_dict(), **change})


def test_every_shipped_experiment_loads_is_named_after_its_file_and_says_what_it_claims():
    assert {"sprites-beta-vae", "digits-vae", "scenes-vae"} <= set(experiment_names())
    for name in experiment_names():
        experiment, claim = named_experiment(name)
        assert experiment.name == name
        assert claim.startswith(f"{name}: ")
        assert "Claim:" in claim and "Time:" in claim
    with pytest.raises(ValueError, match=r"Unknown experiment 'nope'; known: .*digits-gan, .*digits-vae"):
        named_experiment("nope")


def test_reading_experiments_imports_no_torch():
    code = (
        "import sys; from latentlab.config import experiment_names, named_experiment\n"
        "[named_experiment(n) for n in experiment_names()]\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
