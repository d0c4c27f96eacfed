"""Training the conditional VAE: by every objective, to a card, and with a handful of labels beyond what they teach."""

import re

import numpy as np
import pytest
import torch

from latentlab import generation
from latentlab.analysis import encode_dataset, swap_grid, traverse
from latentlab.card import preview, write_card
from latentlab.config import OBJECTIVES, BetaVAE, ConditionalVAEConfig, DataConfig, Experiment
from latentlab.data import open_dataset
from latentlab.data.arrays import ImageArray
from latentlab.models.build import build_model
from latentlab.objectives import variational
from latentlab.objectives.build import build_objective
from latentlab.objectives.variational import DataDescription
from latentlab.runs import Run
from latentlab.training.fit import fit
from latentlab.training.labels import Labels
from latentlab.training.vae import VAETraining

SETTINGS = {"factor-vae": {"layers": 2, "units": 32}}
"""What keeps a test short."""
FITTING = ("beta-vae", "annealed-vae", "joint-vae", "beta-tcvae", "factor-vae", "info-vae")


def training_of(chosen: Experiment, dataset=None, objective=None) -> VAETraining:
    dataset = dataset or open_dataset(chosen.data.name, **chosen.data.options)
    model = build_model(chosen.model, dataset.image_shape, chosen.seed)
    made = objective or build_objective(chosen.objective, model, DataDescription.of(dataset), chosen.seed)
    training = VAETraining(model, made, dataset, chosen)
    optimisers = training.configure_optimizers()
    training.optimizers = lambda use_pl_optimizer=False: optimisers
    return training


def digits(name: str = "beta-vae", labelled: float = 0.1, **changes) -> Experiment:
    return Experiment(
        data=DataConfig("digits", {"split": "train"}),
        model=ConditionalVAEConfig(latents=3, width=4, hidden=16, labelled=labelled),
        objective=OBJECTIVES[name](**SETTINGS.get(name, {})),
        **{"batch_size": 16, "log_every": 4, "preview_every": 0, "keep_memory": False, **changes},
    )


@pytest.mark.parametrize("name", FITTING)
@pytest.mark.parametrize("labelled", [0.1, 1.0])
def test_every_objective_that_takes_a_category_trains_it(name, labelled):
    """Would catch: a point mass that is infinitely sure, draws of another shape, a term counted twice."""
    training = training_of(digits(name, labelled))
    for _ in range(3):
        training.training_step(0, 0)
    means = training.take_means()
    assert all(np.isfinite(value) for value in means.values()) and means["classification"] > 0.0
    if name == "beta-vae":
        assert means["loss"] == pytest.approx(means["reconstruction"] + means["kl"] + means["classification"])


def test_a_run_is_saved_opened_encoded_traversed_and_has_its_card(tmp_path):
    """Would catch: a run whose folder can't be opened again, or analyses that trip over label and style."""
    chosen = digits(max_steps=8, checkpoint_every=4)
    run = fit(chosen, tmp_path / "run", device="cpu", preview=preview, progress=False)
    opened = Run.open(tmp_path / "run", "cpu")
    assert opened.digest == run.digest and opened.experiment == chosen
    assert np.isfinite(opened.metrics()["classification"]).all()
    card = write_card(opened, "A claim.")
    assert "tags: [conditional-vae, beta-vae]" in card
    assert re.search(r"\d of 4 latents active", card) and re.search(r"KL by latent, nats: .*\bdigit \d", card)
    assert "digit0" not in card
    assert re.search(
        r"- digit: read off \d+\.\d % of these images .* training knew that of 10 % of them", card
    )
    for picture in ("samples.png", "traversal.png"):
        assert (opened.path / picture).stat().st_size > 200
    dataset = open_dataset("digits", split="test")
    encoding = encode_dataset(opened.model, dataset, 20, reconstruction=True)
    assert np.allclose(encoding.mean[:, :10].sum(1), 1.0, atol=1e-5)
    strips = traverse(opened.model, None, ["digit", "z0"], encoding=encoding)
    assert strips.dims == ("digit", "z0") and strips.lengths.tolist() == [10, 11]
    assert swap_grid(opened.model, block="digit", rows=3).images.shape == (3, 3, 1, 32, 32)


def test_the_report_on_images_takes_a_category_for_one_latent():
    """Would catch: a column of a category taken for a KL, which may be negative."""
    model = build_model(digits().model, (1, 32, 32))
    with torch.no_grad():
        model.encoder.stages["label"].weight *= 0.0
        model.encoder.stages["label"].bias.copy_(torch.arange(10.0))
    assert model.encode(torch.zeros(1, 1, 32, 32)).kl().min() < -0.01
    found = {}
    generation._posteriors(
        model, open_dataset("digits"), 40, 0, False, lambda name, value, higher: found.update({name: value})
    )
    assert found["Collapsed share of the latents"] in (0.0, 0.25, 0.5, 0.75)


@pytest.mark.slow
def test_unlabelled_images_teach_the_classifier_what_its_few_labels_do_not():
    """The fakes: a classifier trained on its labels alone, and one that was handed all labels."""
    train, test = (open_dataset("digits", split=split) for split in ("train", "test"))
    chosen = Experiment(
        data=DataConfig("digits", {"split": "train"}),
        model=ConditionalVAEConfig(latents=6, width=16, hidden=128, labelled=0.035, alpha=10.0),
        objective=BetaVAE(3.0),
        batch_size=32,
        learning_rate=1e-3,
    )
    known = Labels(train, chosen.seed).known(0.035, ("digit",)).nonzero()[:, 0]
    few = ImageArray(
        name="few",
        source="the labelled digits alone",
        images=(train.images(known) * 255).round().to(torch.uint8),
        factor_space=train.factor_space,
        table=train.factors(known).numpy(),
    )
    everything = torch.arange(len(test))
    x, digit = test.images(everything), test.factors(everything)[:, 0]
    right = {}
    for name, dataset in (("few", few), ("all", train)):
        training = training_of(chosen, dataset, variational.BetaVAE(3.0))
        if dataset is few:
            training._labelled = training.model.labelled = 1.0
        for _ in range(800):
            training.training_step(0, 0)
        with torch.inference_mode():
            right[name] = float((training.model.encode(x).mean[:, :10].argmax(1) == digit).float().mean())
    print(f"{len(known)} labels: alone {right['few']:.3f}, with unlabelled images {right['all']:.3f}")
    assert len(known) == 50
    assert right["all"] > right["few"] + 0.03
