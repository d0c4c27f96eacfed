"""Which images are labelled: a share of each class, the same at every step, by the seed alone."""

import dataclasses

import numpy as np
import pytest
import torch

from latentlab.config import BlockConfig, ConditionalVAEConfig, DataConfig
from latentlab.data import open_dataset
from latentlab.data.arrays import ImageArray
from latentlab.data.factors import FactorSpace
from latentlab.models.build import build_model
from latentlab.objectives.variational import BetaVAE
from latentlab.training.labels import Labels
from latentlab.training.vae import VAETraining


def rare(sizes=(700, 250, 48, 2)) -> ImageArray:
    """Images of classes of very different size, in an order that mixes them, with a second factor."""
    kinds = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    table = np.stack([np.arange(len(kinds)) % 2, kinds], 1)
    return ImageArray(
        name="rare",
        source="drawn here",
        images=torch.zeros(len(kinds), 1, 28, 28, dtype=torch.uint8),
        factor_space=FactorSpace(("side", "kind"), (2, len(sizes))),
        table=table,
    )


def counts(known: torch.Tensor, dataset) -> list[int]:
    kinds = dataset.factors(torch.arange(len(dataset)))[:, 1]
    return torch.bincount(kinds[known], minlength=4).tolist()


def test_every_class_gets_its_share_and_at_least_one():
    """The fakes: a draw from all images, which leaves rare classes out, and equal numbers of each class."""
    dataset = rare()
    assert counts(Labels(dataset, 0).known(0.1, ("kind",)), dataset) == [70, 25, 5, 1]
    assert counts(Labels(dataset, 0).known(0.02, ("kind",)), dataset) == [14, 5, 1, 1]
    assert counts(Labels(dataset, 0).known(0.001, ("kind",)), dataset) == [1, 1, 1, 1]
    assert counts(Labels(dataset, 0).known(0.9, ("kind",)), dataset) == [630, 225, 43, 2]


def test_a_handful_of_real_digits_is_the_same_number_of_each():
    dataset = open_dataset("digits", split="train")
    known = Labels(dataset, 5).known(0.07, ("digit",))
    digits = dataset.factors(torch.arange(len(dataset)))[:, 0]
    assert int(known.sum()) == round(0.07 * len(dataset)) == 101
    assert set(torch.bincount(digits[known]).tolist()) <= {9, 10, 11}


def test_several_factors_are_balanced_together():
    """Would catch: a share of each factor apart, by which a rare combination could go unlabelled."""
    dataset = rare()
    known = Labels(dataset, 0).known(0.1, ("side", "kind"))
    table = dataset.factors(torch.arange(len(dataset)))
    assert len(table[known].unique(dim=0)) == len(table.unique(dim=0)) == 8


def test_the_choice_is_the_seeds_alone_and_the_same_at_every_step():
    """The fakes: the process's generator, a choice by position in the data, a share of each batch."""
    dataset = rare()
    state = torch.get_rng_state()
    first, again, other = (Labels(dataset, seed).known(0.1, ("kind",)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.nonzero().float().mean() == pytest.approx(500, abs=100)
    labels = Labels(dataset, 0)
    for step in range(4):
        indices = dataset.batch(100, 0, step)
        given = labels.of(indices, 0.1, ("kind",))
        assert torch.equal(given[:, 0] >= 0, first[indices])
        kinds = dataset.factors(indices)[:, 1]
        assert torch.equal(given[first[indices], 0], kinds[first[indices]])
    assert labels.of(indices, 0.0, ("kind",)) is None
    assert torch.equal(labels.of(indices, 1.0, ("kind",))[:, 0], kinds)
    # Without named factors, labels are of images drawn from all.
    assert int(labels.known(0.1).sum()) == 100 and labels.of(indices, 0.1).shape == (100, 2)


def test_few_labels_are_among_the_many():
    """Would catch: a comparison of few with many labels that is also one of different labels."""
    dataset = rare()
    few, many = (Labels(dataset, 0).known(share, ("kind",)) for share in (0.02, 0.2))
    assert not (few & ~many).any()


def training(tiny, **changes) -> VAETraining:
    model = ConditionalVAEConfig(width=4, hidden=8, latents=2, labelled=0.1, **changes)
    experiment = tiny(model=model, data=DataConfig("digits"), batch_size=64)
    dataset = open_dataset("digits")
    return VAETraining(build_model(model, dataset.image_shape), BetaVAE(), dataset, experiment)


def test_training_hands_the_model_the_labels_it_may_read_and_no_others(tiny):
    """Would catch: all labels handed on, by which any classifier looks semi-supervised."""
    made = training(tiny)
    known = Labels(made.images, made.experiment.seed).known(0.1, ("digit",))
    seen = 0
    for step in range(3):
        terms = made.terms(step)
        indices = made.images.batch(64, made.experiment.seed, step)
        assert torch.equal(terms.extra["classification"] > 0.0, known[indices])
        seen += int(known[indices].sum())
    assert seen


def test_labels_that_the_data_do_not_have_are_refused_in_one_sentence(tiny):
    with pytest.raises(
        ValueError, match="has 7 classes of the factor 'digit', which has 10 values in data set"
    ):
        training(tiny, classes=7)
    with pytest.raises(
        ValueError, match="reads labels of the factor 'garment', and the factors of data set 'dig"
    ):
        training(tiny, label="garment")
    blocks = [BlockConfig("style", 2)]
    assert dataclasses.replace(training(tiny, blocks=blocks).experiment.model, blocks=None).classes == 10
