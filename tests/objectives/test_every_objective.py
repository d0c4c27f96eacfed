"""What holds for every objective of the table: it trains, resumes, is configured and says what it is."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from latentlab import config as configs
from latentlab.config import OBJECTIVES, BlockConfig, DataConfig, Experiment, VAEConfig
from latentlab.data import open_dataset
from latentlab.models.build import build_model
from latentlab.objectives.build import build_objective
from latentlab.objectives.variational import DataDescription
from latentlab.runs import Run
from latentlab.training.fit import fit, resume
from latentlab.training.vae import VAETraining

VARIATIONAL = {name: kind for name, kind in OBJECTIVES.items() if kind.kind == "variational"}
SETTINGS = {"factor-vae": {"layers": 2, "units": 32}, "pair-vae": {"changing": []}}
"""What keeps a test short, or the digits' pairs to what they have: two images of a class."""
BATCHED = {"beta-tcvae", "factor-vae", "dip-vae", "info-vae"}
PARTS = ("mutual_information_half_own", "total_correlation_half_own", "dimension_wise_kl_half_own")


def experiment(name: str, **changes) -> Experiment:
    plain = Experiment(
        data=DataConfig("digits"),
        model=VAEConfig(latents=4, width=4, hidden=16),
        objective=VARIATIONAL[name](**SETTINGS.get(name, {})),
        max_steps=20,
        batch_size=16,
        log_every=5,
        preview_every=0,
        checkpoint_every=10,
        keep_memory=False,
    )
    return dataclasses.replace(plain, **changes)


def training_of(chosen: Experiment) -> VAETraining:
    dataset = open_dataset(chosen.data.name, **chosen.data.options)
    model = build_model(chosen.model, dataset.image_shape, chosen.seed)
    objective = build_objective(chosen.objective, model, DataDescription.of(dataset), chosen.seed)
    return VAETraining(model, objective, dataset, chosen)


@pytest.mark.parametrize("name", VARIATIONAL)
def test_it_trains_logs_its_parts_and_is_repeated_and_resumed_to_the_same_bits(name, tmp_path):
    """Would catch: an objective that can be configured and not trained, and state that a resumed run lacks."""
    chosen = experiment(name)
    whole = fit(chosen, tmp_path / "whole", device="cpu", progress=False)
    metrics = whole.metrics()
    for column in ("loss", "reconstruction", "kl", *PARTS):
        assert np.isfinite(metrics[column]).all() and len(metrics[column]) == 4, column
    assert (metrics[PARTS[0]] <= math.log(1797) + 1e-4).all() and (metrics["measured_images"] == 26).all()
    assert metrics["reconstruction"][-1] < metrics["reconstruction"][0]
    path = tmp_path / "part"
    stop = lambda model, file: Run.open(path).command(command="stop")  # noqa: E731
    fit(dataclasses.replace(chosen, preview_every=7), path, device="cpu", preview=stop, progress=False)
    resumed = resume(path, device="cpu", progress=False)
    assert resumed.digest == whole.digest
    assert (path / "metrics.csv").read_text() == (whole.path / "metrics.csv").read_text()


@pytest.mark.parametrize("name", VARIATIONAL)
def test_every_parameter_gets_a_finite_gradient_and_equal_seeds_give_equal_objectives(name):
    """Would catch: a head or a discriminator outside its loss, or drawn from the process's generator."""
    chosen = experiment(name)
    training, again = training_of(chosen), training_of(chosen)
    for a, b in zip(training.objective.parameters(), again.objective.parameters(), strict=True):
        assert torch.equal(a, b)
    optimisers = training.configure_optimizers()
    training.optimizers = lambda use_pl_optimizer=False: optimisers
    state = torch.get_rng_state()
    training.training_step(0, 0)
    assert torch.equal(torch.get_rng_state(), state)
    for parameter_name, parameter in training.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), parameter_name


@pytest.mark.parametrize("name", VARIATIONAL)
def test_a_single_image_is_trained_on_or_refused_in_a_sentence(name):
    """Would catch: a covariance, a permutation or a discrepancy of one code, which is nan or nothing."""
    chosen = experiment(name, batch_size=1)
    if name in BATCHED:
        with pytest.raises(ValueError, match="needs at least 2 images a batch; got batch_size=1"):
            training_of(chosen)
        return
    training = training_of(chosen)
    terms = training.terms(0)
    assert torch.isfinite(training.objective.loss(terms, 0, torch.Generator()).total)
    training.step = 4
    measured = training._measured()  # of two images at least: nothing to compare one with
    assert measured["measured_images"] == 2 and all(torch.isfinite(v) for v in measured.values())


@pytest.mark.parametrize("name", [name for name in VARIATIONAL if name != "dip-vae"])
def test_it_trains_several_blocks_and_a_category(name):
    """Would catch: an estimate that takes one-hot coordinates for independent variables and returns nan."""
    blocks = [BlockConfig("kind", 3, "categorical"), BlockConfig("pose", 2), BlockConfig("style", 2)]
    training = training_of(experiment(name, model=VAEConfig(blocks=blocks, width=4, hidden=16)))
    optimisers = training.configure_optimizers()
    training.optimizers = lambda use_pl_optimizer=False: optimisers
    for step in range(3):
        training.training_step(step, step)
    assert all(torch.isfinite(p).all() for p in training.parameters())
    assert all(math.isfinite(v) for v in training.take_means().values())


@pytest.mark.parametrize("name", VARIATIONAL)
def test_its_configuration_survives_json_and_names_paper_and_year(name):
    """Would catch: an objective that a run's config.json can't bring back, or a name without a source."""
    chosen = experiment(name)
    assert Experiment.from_dict(json.loads(json.dumps(chosen.to_dict()))) == chosen
    first = (VARIATIONAL[name].__doc__ or "").splitlines()[0]
    assert " et al., 20" in first or (" and " in first and "20" in first)
    built = training_of(chosen).objective
    assert "https://" in (type(built).__doc__ or "")


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (configs.AnnealedVAE, {"gamma": -1.0}, r"objective.gamma must lie in \[0.0, 1000000.0\]; got -1.0"),
        (configs.AnnealedVAE, {"capacity": "25"}, "objective.capacity must lie in .*; got '25'"),
        (
            configs.BetaTCVAE,
            {"estimator": "mss"},
            "estimator must be one of weighted, stratified, stratified-f",
        ),
        (configs.BetaTCVAE, {"beta": float("inf")}, "objective.beta must lie in"),
        (configs.FactorVAE, {"units": 0}, r"objective.units must lie in \[1, 16384\]; got 0"),
        (configs.FactorVAE, {"learning_rate": 0.0}, "objective.learning_rate must lie in"),
        (configs.DIPVAE, {"variant": "iii"}, "variant must be one of i, ii; got 'iii'"),
        (configs.DIPVAE, {"lambda_d": -2.0}, "objective.lambda_d must lie in"),
        (configs.InfoVAE, {"kernel": "linear"}, "kernel must be one of rbf, imq; got 'linear'"),
        (configs.InfoVAE, {"alpha": 2.0}, r"objective.alpha must lie in \[-1000000.0, 1.0\]; got 2.0"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(kind, values, message):
    """Would catch: a typing slip that trains for hours before it shows."""
    with pytest.raises(ValueError, match=message):
        kind(**values)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("AnnealedVAE", ["--objective.gamma", "10", "--objective.capacity.end", "5"]),
        ("BetaTCVAE", ["--objective.beta", "4", "--objective.estimator", "stratified"]),
        ("FactorVAE", ["--objective.gamma", "6", "--objective.units", "32"]),
        ("DIPVAE", ["--objective.variant", "i", "--objective.lambda_od", "5"]),
        ("InfoVAE", ["--objective.lambda_mmd", "50", "--objective.kernel", "imq"]),
        ("PairVAE", ["--objective.average", "product", "--objective.changing", "[]"]),
        ("BetaVAE", ["--objective.beta", '{"shape": "cyclic", "end": 4, "steps": 10}']),
    ],
)
def test_one_line_trains_it(name, options, tmp_path, capsys):
    """Would catch: an objective that is in the table and not on the command line."""
    from latentlab.cli import main

    small = ["--model.width", "4", "--model.hidden", "8", "--batch_size", "8", "--smoke", "--quiet"]
    where = ["--device", "cpu", "--out", str(tmp_path / "run")]
    assert main(["train", "digits-vae", "--objective", name, *options, *small, *where]) == 0, (
        capsys.readouterr()
    )
    objective = Run.open(tmp_path / "run", "cpu").experiment.objective
    assert type(objective) is getattr(configs, name)
    expected = {
        "AnnealedVAE": {"gamma": 10.0, "capacity": configs.Schedule("linear", 0.0, 5.0, 100_000)},
        "BetaTCVAE": {"beta": 4.0, "estimator": "stratified"},
        "FactorVAE": {"gamma": 6.0, "units": 32},
        "DIPVAE": {"variant": "i", "lambda_od": 5.0, "lambda_d": None},
        "InfoVAE": {"lambda_mmd": 50.0, "kernel": "imq"},
        "PairVAE": {"average": "product", "changing": [], "shared": None},
        "BetaVAE": {"beta": configs.Schedule("cyclic", 0.0, 4.0, 10)},
    }[name]
    assert {key: getattr(objective, key) for key in expected} == expected
