"""Scoring a run and keeping the report with it."""

import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image

import latentlab
from latentlab.config import DataConfig, named_experiment
from latentlab.evaluation import evaluate, labels_of, load_report, load_reports, save_report
from latentlab.metrics.features import random_feature_network, save_feature_network, train_feature_network
from latentlab.runs import Run, Workspace

QUICK = {"states": 1500, "measures": ["mig", "modularity"], "seeds": (0, 1)}


@pytest.fixture(scope="module")
def sprites():
    """The shipped run on sprites."""
    return Run.open("zoo:sprites-beta-vae")


@pytest.fixture(scope="module")
def report(sprites):
    """A quick report of it."""
    return evaluate(sprites, **QUICK)


def test_a_shipped_run_knows_its_factors(sprites, report):
    """Would catch codes paired with other images' factors: the MIG would sit at the noise mark."""
    row = report.row("MIG")
    assert row.noise + 0.05 < row.value < row.perfect
    assert report.states == 1500 and report.weights_digest == sprites.digest
    assert {"x", "y", "scale"} <= {label[0] for d in report.dim_names if (label := report.factor_of(d))}


def test_references_and_encodings_are_kept_between_calls(sprites, report, tmp_path):
    """Would catch a cache that is never read, or one that answers for other seeds."""
    home = Workspace(tmp_path / "runs")
    first = evaluate(sprites, workspace=home, **QUICK)
    ticks = []
    again = evaluate(sprites, workspace=home, progress=lambda s, what: ticks.append(what), **QUICK)
    assert again.rows == first.rows == report.rows
    assert not any("noise codes" in what for what in ticks)
    other = []
    evaluate(sprites, workspace=home, progress=lambda s, what: other.append(what), **{**QUICK, "seeds": (5,)})
    assert any("noise codes" in what for what in other)


def test_a_report_of_a_shipped_run_goes_to_the_workspace(sprites, report, tmp_path):
    """Would catch an attempt to write into the installed package."""
    home = Workspace(tmp_path / "runs")
    path = save_report(sprites, report, home)
    assert path.is_relative_to(home.path)
    assert load_report(sprites, "dlib", home).rows == report.rows


def test_a_report_stands_in_the_run_and_its_card_and_names_its_latents(sprites, report, tmp_path):
    """Would catch a card that collects a section at each evaluation, or a report of old weights shown for new."""
    shutil.copytree(sprites.path, tmp_path / "mine", ignore=shutil.ignore_patterns("scores"))
    run = Run.open(tmp_path / "mine")
    before = run.card
    assert save_report(run, report) == run.path / "scores" / "dlib.json"
    save_report(run, report)
    card = run.card
    assert (
        card.count("## Scores") == 1 and "| MIG |" in card and card.count("## Use") == before.count("## Use")
    )
    assert [r.protocol for r in load_reports(run)] == ["dlib"]
    labels = labels_of(run)
    assert any(factor == "scale" for factor, _ in labels.values())
    shutil.copy(Run.open("zoo:sprites-beta-vae").path / "config.json", run.path / "config.json")
    stale = run.path / "scores" / "dlib.json"
    stale.write_text(stale.read_text().replace(report.weights_digest, "0" * 64))
    assert load_report(run, "dlib") is None
    stale.write_text("{}")
    assert load_reports(run) == [] and labels_of(run) == {}


def test_what_cannot_be_scored_is_refused_in_a_sentence(sprites):
    """Would catch a traceback, or minutes of encoding before a typing error is found."""
    with pytest.raises(ValueError, match="protocol must be one of"):
        evaluate(sprites, "dilb")
    with pytest.raises(ValueError, match="at least 1; got 0"):
        evaluate(sprites, states=0)
    with pytest.raises(ValueError, match="20 states are too few"):
        evaluate(sprites, states=20)


def test_one_factor_is_enough_for_some_scores():
    """Would catch a report that fails on labelled images, which have one factor."""
    report = evaluate(latentlab.Run.open("zoo:digits-vae"), **{**QUICK, "states": None})
    assert report.row("MIG").value is not None
    assert "at least two, got one" in report.row("Modularity").reason


def test_images_are_scored_between_noise_and_data(tmp_path):
    """Would catch features of one set compared with themselves, or marks that are swapped."""
    run, home = Run.open("zoo:digits-vae"), Workspace(tmp_path / "runs")
    network = train_feature_network(run.dataset(), steps=60)
    save_feature_network(network, home.cache(run.digest, "features", ""))
    report = evaluate(run, "images", workspace=home, seeds=(0, 1))
    for label in ("Fréchet distance", "Kernel distance", "Reconstruction error (mean square per pixel)"):
        row = report.row(label)
        assert row.perfect < row.value < row.noise, label
        assert not row.higher_is_better and row.low < row.value < row.high
    for label in ("Recall", "Coverage"):
        assert report.row(label).noise < report.row(label).value < report.row(label).perfect, label
    assert report.row("Active units").value > 2 and network.name in report.notes[0]
    assert report.factor_of("z0") is None
    save_report(run, report, home)
    assert load_report(run, "images", home).rows == report.rows


def test_plain_images_get_the_protocol_that_suits_them(tmp_path):
    """Would catch a default that refuses every data set without factors."""
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for number in range(210):
        pixels = (rng.random((28, 28)) * 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.png")
    experiment = dataclasses.replace(
        named_experiment("digits-vae")[0],
        data=DataConfig(f"folder:{tmp_path / 'pictures'}", {"image_size": 28, "channels": 1}),
        max_steps=2,
        batch_size=16,
        preview_every=0,
    )
    run = latentlab.fit(experiment, tmp_path / "run", progress=False)
    save_feature_network(random_feature_network(run.image_shape), run.path / "features")
    report = evaluate(run, seeds=(0,))
    assert report.protocol == "images" and report.row("Fréchet distance").value > 0
    with pytest.raises(ValueError, match="no ground-truth factors"):
        evaluate(run, "dlib")
