"""Jacobians against closed forms: F2, whose Jacobian is its matrix, and the charts of F3."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from planted import linear, manifolds, renderer
from planted.model import PlantedModel
from torch import nn

from latentlab.analysis import jacobian, load_result
from latentlab.analysis.derivatives import central_difference
from latentlab.config import StyleGANConfig
from latentlab.latents import Block, Codebook, LatentSpace
from latentlab.models.adapt import adapt, adapt_model
from latentlab.models.build import build_model
from latentlab.models.edits import Edit
from latentlab.models.staged import StagedNetwork


def test_a_linear_generators_jacobian_is_its_matrix(left_as_found):
    """Would catch: the transpose, a sum over pixels, finite differences with float32 noise."""
    model, weight, _ = linear.linear_model(seed=1)
    left_as_found(model)
    model.generator.requires_grad_(True)
    left_as_found(model)
    found = jacobian(model, n=3, seed=2)
    assert found.jacobian.shape == (3, 4, 1, 5, 5) and found.rows == ("z0", "z1", "z2", "z3")
    assert np.allclose(found.jacobian.reshape(3, 4, 25), weight.T.numpy(), atol=1e-6)
    u, s, v = np.linalg.svd(weight.numpy(), full_matrices=False)
    assert np.allclose(found.singular_values, s, rtol=1e-5)
    assert np.allclose(np.abs(np.sum(found.directions[0] * v, axis=1)), 1.0, atol=1e-5)
    assert np.allclose(np.abs(np.sum(found.patterns[0].reshape(4, -1) * u.T, axis=1)), 1.0, atol=1e-5)
    assert found.certificate["finite_difference"] < 1e-5 and found.certificate["svd_difference"] < 1e-12


def test_the_fake_differences_in_float32_fail_the_same_check():
    """The fake: differences with a step of 1e-6 in float32; what is kept of them is rounding."""
    model = renderer.renderer_model()
    z = model.sample_codes(1, 0)
    exact = jacobian(model, z, dtype="float64").jacobian
    found = jacobian(model, z)
    scale = np.linalg.norm(exact)
    assert np.linalg.norm(found.jacobian - exact) < 1e-3 * scale
    assert found.certificate["finite_difference"] < 1e-3
    fake = torch.stack([central_difference(model.decode, z, e[None], 1e-6)[0] for e in torch.eye(5)])
    assert np.linalg.norm(fake.numpy() - exact[0]) > 1e-2 * scale


def test_the_sphere_charts_stretches_are_one_and_the_cosine():
    found = jacobian(manifolds.sphere(), [[0.6, 0.2]], dtype="float64")
    assert np.allclose(found.singular_values, [[1.0, np.cos(0.6)]], atol=1e-6)
    assert found.certificate["finite_difference"] < 1e-8


def test_stages_and_dims_and_edits_are_those_asked_for():
    model, _, _ = linear.linear_model()
    hidden = model.generator.stages["hidden"].weight.detach().numpy()
    part = jacobian(model, n=2, stage="hidden", dims=["z2", 0])
    assert part.rows == ("z2", "z0") and np.allclose(part.jacobian, hidden.T[[2, 0]], atol=1e-6)
    assert part.stage == "hidden" and part.singular_values.shape == (2, 2)
    off = jacobian(model, edits=[Edit("generator.hidden", (1,))])
    second = model.generator.stages["output"][0].weight.detach().numpy()
    expected = second @ np.where(np.arange(6)[:, None] == 1, 0.0, hidden)
    assert np.allclose(off.jacobian[0].reshape(4, -1), expected.T, atol=1e-6)


def test_an_encoder_goes_in_reverse(linear_model, left_as_found):
    """Would catch: the derivative of reconstructions, or of all posterior means summed."""
    left_as_found(linear_model)
    x = linear_model.decode(linear_model.sample_codes(2, 0)).detach().clamp(0, 1)
    found = jacobian(linear_model, x, network="encoder", batch_size=3)
    read = linear_model.encoder.stages["posterior"][1].weight.detach().numpy()
    assert found.side == "output" and found.jacobian.shape == (2, 4, 3, 4, 4)
    assert np.allclose(found.jacobian.reshape(2, 4, 48), read, atol=1e-5)
    assert found.rows == ("z0", "z1", "z2", "z3") and found.certificate["finite_difference"] < 1e-5


def test_categories_go_along_the_edges_of_the_simplex(categorical_model):
    """Would catch: derivatives off the simplex, along one-hot coordinates on their own."""
    found = jacobian(categorical_model, [0.0, 1.0, 0.0, 0.3])
    greys = np.array([0.1, 0.2, 0.3])
    assert np.allclose(found.jacobian[0, :3, 0, 0, 0], greys - 0.2, atol=1e-6)
    assert np.allclose(found.jacobian[0, 3], 0.05, atol=1e-6)
    assert found.certificate["vanishing"] == 0.25


def test_styles_are_differentiated_in_w_and_through_the_mapping(left_as_found):
    model = build_model(StyleGANConfig(width=4, latents=5, styles=6, mapping_layers=2), (1, 28, 28)).eval()
    left_as_found(model)
    z = model.sample_codes(1, 0)
    by_z = jacobian(model, z)
    with torch.no_grad():
        w = model.map(z, "z", "w")
    by_w = jacobian(model, w, space="w")
    through = jacobian(model, z, network="mapping", stage="fc2")
    assert by_w.space == "w" and by_w.rows[0] == "w0"
    chained = through.jacobian[0] @ by_w.jacobian[0].reshape(6, -1)
    assert np.allclose(chained, by_z.jacobian[0].reshape(5, -1), atol=1e-5)
    assert jacobian(model, z, stage="conv2").certificate["finite_difference"] < 2e-2


def test_foreign_modules_are_differentiated_as_they_are():
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 16), nn.Sigmoid())
    model = adapt_model(decoder, latents=3, image_shape=(1, 4, 4))
    found = jacobian(model, n=2)
    z = torch.tensor(found.inputs[1:])
    expected = torch.func.jacrev(lambda c: decoder(c[None])[0])(z[0]).detach().T
    assert np.allclose(found.jacobian[1].reshape(3, 16), expected, atol=1e-6)
    assert not any(m._forward_hooks for m in decoder.modules())
    alone = adapt(nn.Sequential(nn.Linear(5, 2)), torch.zeros(1, 5), "net")
    assert jacobian(alone, torch.zeros(1, 5)).jacobian.shape == (1, 2, 5)


def test_batches_progress_and_files_change_nothing(tmp_path):
    model = renderer.renderer_model()
    z, steps = model.sample_codes(3, 1), []
    whole = jacobian(model, z)
    parts = jacobian(model, z, batch_size=2, progress=lambda *a: steps.append(a))
    assert np.allclose(whole.jacobian, parts.jacobian, atol=1e-5) and steps[-1] == (15, 15)
    alone = jacobian(model, z[1:2])
    assert np.allclose(alone.jacobian[0], whole.jacobian[1], atol=1e-5)
    again = load_result(whole.save(tmp_path / "j"))
    assert np.array_equal(again.patterns, whole.patterns) and again.certificate == whole.certificate
    same = jacobian(model, n=2, seed=3)
    assert np.array_equal(same.jacobian, jacobian(model, n=2, seed=3).jacobian)

    def cancel(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jacobian(model, z, progress=cancel)


def test_what_cannot_be_differentiated_gets_a_sentence():
    space = LatentSpace([Block("codes", 2, Codebook(4))])
    draw = StagedNetwork({"output": nn.Sequential(nn.Linear(2, 4), nn.Unflatten(1, (1, 2, 2)))}, "generator")
    with pytest.raises(ValueError, match="no derivative by an index of a codebook"):
        jacobian(PlantedModel((1, 2, 2), space, generator=draw))
    model = renderer.renderer_model()
    with pytest.raises(ValueError, match="one of float32, float64; got 'half'"):
        jacobian(model, dtype="half")
    with pytest.raises(ValueError, match="No network 'encoder'"):
        jacobian(model, network="encoder")
    with pytest.raises(ValueError, match="Expected a coordinate"):
        jacobian(model, dims=["z9"])


def test_many_threads_may_ask_at_once():
    """Would catch: torch's forward mode entered by two threads, which raises (its level belongs to the process)."""
    model, weight, _ = linear.linear_model()
    z = model.sample_codes(4, 0)

    def ask(_: int) -> float:
        found = jacobian(model, z).jacobian[0].reshape(4, -1).T
        return float(np.abs(found - weight.numpy()).max())

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(ask, range(40))) < 1e-5
