"""Attribute vectors and latent arithmetic against planted answers, and vectors that mean nothing told as such."""

import math

import numpy as np
import pytest
import torch
from planted.linear import linear_model as planted_linear
from planted.model import PlantedModel
from torch import nn

from latentlab import analysis, viz
from latentlab.analysis.clusters import find_clusters
from latentlab.latents import Block, Categorical, Codebook, LatentSpace
from latentlab.models.staged import StagedNetwork

APART = np.array([1.2, -0.9, 0.0, 0.0])  # of length 1.5, so d' is 1.5 where the spread is 1


def clouds(n: int = 800, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Codes of two normal clouds of spread 1, whose centres are APART, and which cloud each is of."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    return (rng.standard_normal((n, 4)) + labels[:, None] * APART).astype(np.float32), labels


@pytest.fixture(scope="module")
def model():
    return planted_linear()[0]


def test_two_normal_clouds_are_told_apart_as_signal_detection_says(model, left_as_found):
    """The vector is the way between the centres; d' is its length in spreads, and accuracy Phi(d' / 2)."""
    left_as_found(model)
    codes, labels = clouds(4000)
    found = analysis.attribute_vector(model, codes, labels, name="planted")
    np.testing.assert_allclose(found.vector, APART, atol=0.1)
    assert found.d_prime == pytest.approx(1.5, abs=0.1)
    assert found.accuracy == pytest.approx(0.5 * (1 + math.erf(0.75 / math.sqrt(2))), abs=0.02)
    assert found.certificate["p_value"] == pytest.approx(1 / 101)
    assert found.accuracy > found.null_accuracy.max() and abs(found.null_accuracy.mean() - 0.5) < 0.01
    assert found.direction.space == "z" and found.direction.step == pytest.approx(1.0, abs=0.05)
    np.testing.assert_allclose(found.direction.array, found.vector / np.linalg.norm(found.vector))


def test_a_vector_of_chance_is_told_by_codes_it_was_not_found_on():
    """A judge that looks at the codes it was found on would find 20 codes in 60 dimensions told apart perfectly."""
    out = nn.Sequential(nn.Linear(60, 4), nn.Unflatten(1, (1, 2, 2)))
    model = PlantedModel((1, 2, 2), LatentSpace([Block("z", 60)]), generator=StagedNetwork({"out": out}))
    codes = np.random.default_rng(0).standard_normal((40, 60)).astype(np.float32)
    labels = np.arange(40) % 2
    found = analysis.attribute_vector(model, codes, labels, seed=1)
    vector = found.vector / np.linalg.norm(found.vector)
    middle = (codes[labels == 1].mean(0) + codes[labels == 0].mean(0)) / 2
    assert (((codes - middle) @ vector > 0) == labels).mean() > 0.85  # what the fake would report
    assert found.accuracy < 0.7 and found.certificate["p_value"] > 0.05


def test_labels_of_a_factor():
    values = np.array([0, 1, 1, 2, 3])
    assert analysis.value_labels(values, 1).tolist() == [0, 1, 1, 0, 0]
    assert analysis.value_labels(values, 1, 3).tolist() == [-1, 1, 1, -1, 0]
    assert analysis.half_labels(values).tolist() == [0, -1, -1, 1, 1]


def test_codes_that_do_not_count_are_left_out(model):
    codes, labels = clouds(200)
    kinds = labels.copy()
    kinds[:60] = -1
    codes[:60] = 50.0
    found = analysis.attribute_vector(model, codes, kinds, n_draws=5)
    assert len(found.places) == 140
    np.testing.assert_allclose(found.vector, APART, atol=0.5)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros(30, int), "at least 5 codes with it and 5 without; got 0 and 30"),
        (np.full(30, 2), "labels must be 1, 0 or -1"),
        (np.zeros(7, int), "for each of the 30 codes"),
    ],
)
def test_labels_that_are_none_are_refused(model, labels, words):
    with pytest.raises(ValueError, match=words):
        analysis.attribute_vector(model, clouds(30)[0], labels)


def test_sums_of_a_linear_model_are_sums_of_its_images(model):
    """x(A + s (C - B)) = x(A) + s (x(C) - x(B)): would catch a swapped sign, or a strength that is not used."""
    a, b, c = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32) * 0.3
    for strength in (1.0, -0.5, 1.7):
        found = analysis.latent_arithmetic(model, a, b, c, strength=strength, steps=3)
        x = found.operands
        np.testing.assert_allclose(found.images[-1], x[0] + strength * (x[2] - x[1]), atol=1e-5)
        np.testing.assert_allclose(found.result, a + strength * (c - b), atol=1e-6)
        np.testing.assert_allclose(found.strengths, [0, strength / 2, strength])
        assert found.certificate["closure"] < 1e-6


def test_groups_are_their_means_and_the_support_is_counted(model):
    codes, labels = clouds(600)
    found = analysis.latent_arithmetic(
        model, codes[labels == 0], codes[labels == 0], codes[labels == 1], strength=8.0, data_codes=codes
    )
    np.testing.assert_allclose(found.operand_z[1], codes[labels == 0].mean(0), atol=1e-6)
    assert found.neighbours is not None
    assert found.neighbours[0] > 10 and found.neighbours[-1] == 0  # where data is, and far away from all
    assert found.certificate["least_neighbours"] == 0


def kinds_model() -> PlantedModel:
    """One categorical, one normal and one codebook block, all painted linearly."""
    place = LatentSpace([Block("kind", 3, Categorical), Block("z", 1), Block("k", 2, Codebook(5))])
    torch.manual_seed(0)
    out = nn.Sequential(nn.Linear(6, 4), nn.Unflatten(1, (1, 2, 2)))
    return PlantedModel((1, 2, 2), place, generator=StagedNetwork({"out": out}))


def code(kind: int, z: float, *indices: int) -> np.ndarray:
    return np.array([*np.eye(3)[kind], z, *indices], np.float32)


def test_categories_are_taken_over_where_a_has_that_of_b_and_never_added():
    """Would catch a category of [1, -1, 1], or index 7 of a codebook of 5."""
    model = kinds_model()
    a, b, c = code(0, 1.0, 4, 1), code(0, 0.2, 4, 3), code(2, 0.5, 0, 2)
    found = analysis.latent_arithmetic(model, a, b, c)
    np.testing.assert_allclose(found.result, code(2, 1.3, 0, 1), atol=1e-6)  # the second index was not B's
    assert found.swapped == ("kind", "k0") and found.certificate["swaps"] == 2
    weak = analysis.latent_arithmetic(model, a, b, c, strength=0.4)
    np.testing.assert_allclose(weak.result, code(0, 1.12, 4, 1), atol=1e-6)
    back = analysis.latent_arithmetic(model, c, b, c, strength=-1.0)  # C is what is taken away now
    np.testing.assert_allclose(back.result, code(0, 0.2, 4, 3), atol=1e-6)


def test_a_group_stands_for_its_most_frequent_category():
    model = kinds_model()
    group = np.stack([code(1, 0.0, 2, 2), code(1, 1.0, 3, 2), code(2, 2.0, 3, 4)])
    found = analysis.latent_arithmetic(model, code(0, 0, 0, 0), code(0, 0, 0, 0), group)
    np.testing.assert_allclose(found.operand_z[2], code(1, 1.0, 3, 2))


def test_an_attribute_adds_nothing_to_categories():
    model = kinds_model()
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    codes = np.stack([code(int(y), y + 0.1 * rng.standard_normal(), 4 * int(y), 1) for y in labels])
    found = analysis.attribute_vector(model, codes, labels, n_draws=5)
    assert found.vector[3] == pytest.approx(1.0, abs=0.1) and not found.vector[[0, 1, 2, 4, 5]].any()
    assert found.means[1, :3].tolist() == [0, 1, 0]


def test_what_was_found_is_saved_and_drawn(model, tmp_path):
    codes, labels = clouds(120)
    vector = analysis.attribute_vector(model, codes, labels, n_draws=5)
    summed = analysis.latent_arithmetic(
        model, codes[0], codes[labels == 0], codes[labels == 1], data_codes=codes
    )
    for found in (vector, summed):
        again = analysis.load_result(found.save(tmp_path / found.kind))
        assert again.certificate == found.certificate
        np.testing.assert_array_equal(again.images, found.images)
        picture = viz.show(again)
        assert picture.image.width > 200 and np.asarray(picture.image).std() > 5
    assert viz.show(summed).cells.shape == (5, 4)
    assert "with shuffled labels" in viz.show(vector).caption


def test_clusters_are_drawn_each_in_its_colour():
    codes = np.concatenate([np.full((60, 3), 4.0), np.full((40, 3), -4.0)]) + np.random.default_rng(0).normal(
        size=(100, 3)
    )
    picture = viz.show(find_clusters(codes, k=2))
    colours = {tuple(p) for p in np.asarray(picture.image).reshape(-1, 3).tolist()}
    assert {viz.colours.category(0), viz.colours.category(1)} <= colours
    assert "2 clusters by kmeans" in picture.caption
