"""Occlusion against units whose answer is known."""

import numpy as np
import pytest
import torch
from planted import oriented

from latentlab.analysis import load_result, occlusion


def test_a_linear_unit_changes_by_what_was_covered_of_it(linear_model, left_as_found):
    """mu_k = A_k (x - 0.5): covering changes it by exactly A_k . (fill - x) over the patch. Fails a smooth heat map."""
    left_as_found(linear_model)
    x = linear_model.decode(torch.tensor([[1.0, -0.5, 0.3, 0.0]])).detach()
    found = occlusion(linear_model, "encoder", x, size=2, stride=1, fill=0.5)
    weights = linear_model.encoder.stages["posterior"][1].weight.detach().numpy().reshape(4, 3, 4, 4)
    for i, j in np.ndindex(3, 3):
        patch = np.s_[:, i : i + 2, j : j + 2]
        expected = (weights[(slice(None), *patch)] * (0.5 - x[0].numpy()[patch])).sum(axis=(1, 2, 3))
        assert found.change[:, i, j] == pytest.approx(expected, abs=1e-5)
    assert found.targets == ("z0", "z1", "z2", "z3") and found.clean[0] == pytest.approx(1.0, abs=1e-4)
    assert found.certificate["empty_patch"] < 1e-6 and found.certificate["loop_difference"] < 1e-6


def test_an_edge_is_lost_where_it_is_covered_and_nowhere_else():
    """Fails a sweep that is shifted, and change outside of the receptive field."""
    network, image = oriented.oriented_encoder("max"), oriented.edge_image(90.0)
    found = occlusion(network, "encoder", image, "lines", 3, size=4, stride=2)
    row, column = (2 * p + 1 for p in found.position)
    best = np.unravel_index(np.abs(found.change[0]).argmax(), found.change[0].shape)
    assert np.abs(found.corners[best] + 2 - (row, column)).max() <= 4
    assert found.change.min() < -0.2 * found.clean[0]
    assert found.certificate["outside_field"] < 1e-6
    far = np.abs(found.corners + 2 - (row, column)).max(axis=-1) > 10
    assert far.any() and np.abs(found.change[0][far]).max() < 1e-6
    assert found.heat.shape == (1, 32, 32) and found.targets == ("encoder.lines:3",)


def test_the_last_place_ends_at_the_edge_and_results_can_be_kept(tmp_path):
    network = oriented.oriented_encoder()
    found = occlusion(network, "encoder", oriented.edge_image(0.0, 30), "lines", 0, size=7, stride=5)
    assert found.corners[-1, -1].tolist() == [23, 23] and found.corners[0, 0].tolist() == [0, 0]
    loaded = load_result(found.save(tmp_path / "occlusion"))
    assert np.array_equal(loaded.change, found.change) and loaded.certificate == found.certificate


def test_errors_name_what_is_possible(gated_model):
    network, image = oriented.oriented_encoder(), oriented.edge_image(0.0)
    with pytest.raises(
        ValueError, match="Occlusion leads back to pixels, and network 'generator' reads codes"
    ):
        occlusion(gated_model, "generator", image, "maps")
    with pytest.raises(ValueError, match="size must be 1 to 32"):
        occlusion(network, "encoder", image, "lines", size=33)
    with pytest.raises(ValueError, match="one image"):
        occlusion(network, "encoder", torch.stack([image, image]), "lines")
    with pytest.raises(ValueError, match="has no encoder"):
        occlusion(network, "encoder", image)
    with pytest.raises(ValueError, match="has units 0 to 5"):
        occlusion(network, "encoder", image, "lines", 9)
