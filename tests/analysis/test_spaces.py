"""Analyses in spaces of a model that are not its first: W and W+, whose codes only the model itself can draw."""

import numpy as np
import pytest
import torch

from latentlab.analysis import (
    activations,
    compare_edits,
    decode_latents,
    dim_range,
    dim_ranges,
    encode_dataset,
    feature_maps,
    interpolate,
    rank_units,
    stages_of,
    swap_grid,
    traverse,
    traverse_grid,
)
from latentlab.config import StyleGANConfig
from latentlab.models.build import build_model
from latentlab.models.edits import Edit


@pytest.fixture(scope="module")
def model():
    config = StyleGANConfig(width=4, latents=5, styles=5, mapping_layers=2)
    return build_model(config, (1, 28, 28)).eval().requires_grad_(False)


def carried(model, n, seed, space):
    with torch.no_grad():
        return model.map(model.sample_codes(n, seed), "z", space)


def test_ranges_of_w_are_those_of_mapped_codes(model, left_as_found):
    """Would catch: the prior of Z taken for that of W, and ranges that change with the seed of the start."""
    left_as_found(model)
    w = carried(model, 20_000, 7, "w").numpy()
    expected = np.quantile(w, [0.05, 0.95], axis=0).T
    found = dim_ranges(model, space="w", coverage=0.9)
    assert (
        np.abs(found - expected).max() < 0.1 * w.std()
        and np.abs(found - 1.645 * np.array([-1, 1])).max() > 0.5
    )
    assert np.array_equal(dim_ranges(model, space="w", coverage=0.9, seed=3), found)
    assert dim_range(model, "w2", space="w", coverage=0.9) == tuple(found[2])
    code = w[0]
    sigma = dim_ranges(model, span=2.0, z=code, space="w")
    assert np.allclose(sigma.mean(axis=1), code, atol=1e-5)
    assert np.allclose(np.diff(sigma, axis=1)[:, 0], 4.0 * w.std(axis=0), rtol=0.1)
    assert np.allclose(dim_ranges(model, space="w+", coverage=0.9), np.tile(found, (8, 1)))


def test_a_traversal_moves_the_space_it_names(model):
    """Would catch: codes of W decoded as codes of Z, which here have as many coordinates."""
    w = carried(model, 1, 0, "w")[0].numpy()
    strips = traverse(model, w, ["w1"], space="w", steps=3)
    assert strips.space == "w" and strips.dims == ("w1",) and strips.provenance.parameters["space"] == "w"
    expected = model.decode(torch.tensor(strips.z[0]), space="w").numpy()
    assert np.allclose(strips.images[0], expected, atol=1e-6)
    assert not np.allclose(strips.images[0], model.decode(torch.tensor(strips.z[0])).numpy(), atol=1e-3)
    assert strips.certificate["off_axis"] == 0.0 and strips.certificate["loop_difference"] < 1e-5
    drawn = traverse(model, dims=[0], space="w", steps=2, seed=4)
    assert np.allclose(drawn.start, carried(model, 1, 4, "w")[0], atol=1e-6)
    plain = traverse(model, dims=[0], steps=2)
    assert plain.space == "z" and "space" not in plain.provenance.parameters
    with pytest.raises(ValueError, match=r"Expected a coordinate of latent space 'w'; got 'z0'"):
        traverse(model, w, ["z0"], space="w")
    with pytest.raises(ValueError, match=r"No space 'u' in this model; it has z, w, w\+"):
        traverse(model, w, space="u")


def test_layers_are_traversed_crossed_and_planned_in_w_plus(model):
    """Would catch: layers that stay together though one alone is moved, and styles taken from the wrong code."""
    each = carried(model, 3, 1, "w+").numpy()
    strips = traverse(model, each[0], ["layer3_2"], space="w+", steps=2)
    assert np.array_equal(np.flatnonzero(strips.z[0, 0] != strips.z[0, 1]), [17])
    grid = traverse_grid(model, each[0], ["layer0_0", "layer7_0"], space="w+", steps=2)
    assert grid.space == "w+" and grid.images.shape[:2] == (2, 2)
    mixed = swap_grid(model, each, ["layer0_", "layer1_"], space="w+")
    expected = model.mix(torch.tensor(each[:1]), torch.tensor(each[2:]), [0, 1])
    assert np.array_equal(mixed.z[0, 2], expected[0].numpy()) and mixed.space == "w+"
    assert np.allclose(mixed.images[1, 1], model.decode(torch.tensor(each[1:2]), space="w+")[0], atol=1e-5)


def test_a_path_in_w_is_straight_there_and_has_no_great_circle(model):
    """Would catch: a path of Z carried over, and a slerp in a space that has no sphere."""
    a, b = carried(model, 2, 2, "w").numpy()
    path = interpolate(model, a, b, steps=3, space="w")
    assert np.allclose(path.z[1], (a + b) / 2, atol=1e-6) and path.space == "w"
    assert np.allclose(path.images, decode_latents(model, path.z, space="w"), atol=1e-6)
    with pytest.raises(ValueError, match="A slerp needs a block with a normal prior"):
        interpolate(model, a, b, method="slerp", space="w")


def test_an_encoding_of_the_first_space_gives_no_range_in_another(linear_model, planted_dataset, model):
    """Would catch: posterior ranges of Z laid over the coordinates of W."""
    encoding = encode_dataset(linear_model, planted_dataset(linear_model))
    with pytest.raises(ValueError, match="The encoding belongs to another latent space"):
        dim_ranges(model, span="posterior", encoding=encoding, space="w")


def test_models_of_one_space_know_its_name_and_no_other(linear_model):
    """Would catch: models that must learn a new argument before they can be traversed by name."""
    named, plain = (traverse(linear_model, [0.1, 0, 0, 0], [0], steps=2, space=s) for s in ("z", None))
    assert np.array_equal(named.images, plain.images)
    with pytest.raises(ValueError, match="No space 'w' in this model; it has z"):
        traverse(linear_model, [0.1, 0, 0, 0], [0], space="w")


def test_generator_and_mapping_are_opened_with_codes_of_z(model, left_as_found):
    """Would catch: a generator run on codes of Z, which reads styles of W+."""
    left_as_found(model)
    z = model.sample_codes(2, 0)
    each = carried(model, 2, 0, "w+")
    states = activations(model, "generator", z)
    assert np.array_equal(states.inputs, each.numpy())
    assert np.allclose(
        states.states["conv2"], model.generator.activations(each, ["conv2"])["conv2"], atol=1e-6
    )
    mapped = activations(model, "mapping", z)
    assert np.allclose(mapped.states["fc2"], carried(model, 2, 0, "w"), atol=1e-6)
    maps = feature_maps(model, "mapping", z, "fc1")
    assert np.allclose(maps.image, model.decode(z)[0], atol=1e-6)
    assert [s.name for s in stages_of(model, "mapping")] == ["normalise", "fc1", "fc2"]
    with pytest.raises(ValueError, match=r"inputs must be codes \(5,\) or \(n, 5\)"):
        activations(model, "generator", each)


def test_edits_of_both_networks_show_in_the_images(model):
    """Would catch: an edit of the mapping that the generator's run passes by without a word."""
    z = model.sample_codes(2, 0)
    shift = Edit("mapping.fc2", (1,), "shift", 1.0)
    found = compare_edits(model, z, [shift], "mapping")
    assert np.allclose(found.edited, model.decode(z, [shift]), atol=1e-6) and found.change.min() > 0
    assert np.allclose(decode_latents(model, z, edits=[shift]), found.edited, atol=1e-6)
    with pytest.raises(ValueError, match="has no effect on network 'generator'"):
        decode_latents(model, carried(model, 2, 0, "w"), edits=[shift], space="w")
    with pytest.raises(ValueError, match="has no effect on network 'generator'"):
        compare_edits(model, z, [shift], "generator")
    ranking = rank_units(model, "conv3", inputs=z)
    assert ranking.effect.max() > 0 and ranking.certificate["loop_difference"] < 1e-6
