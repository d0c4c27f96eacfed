"""Geodesics against closed forms: chords, angles, an unrolled cylinder."""

import numpy as np
import pytest
import torch
from planted import linear, manifolds
from planted.model import PlantedModel
from torch import nn

from latentlab.analysis import geodesic, interpolate, load_result
from latentlab.latents import Block, LatentSpace
from latentlab.models.adapt import adapt_model

PATHS = {
    "polar": (manifolds.polar, [1.0, 0.2], [2.0, 1.9]),
    "sphere": (manifolds.sphere, [0.8, -1.0], [0.7, 1.2]),
    "half_cylinder": (manifolds.half_cylinder, [0.3, 0.2], [2.8, 1.5]),
}


def ends(model, a, b):
    return model.decode(torch.tensor([a, b]))[:, 0, 0].double().numpy()


def true_length(name, model, a, b):
    p, q = ends(model, a, b)
    if name == "polar":
        return np.linalg.norm(p - q)
    if name == "sphere":
        return np.arccos(p @ q)
    return float(np.hypot(a[0] - b[0], a[1] - b[1]))


def curve_length(model, codes):
    with torch.no_grad():
        points = model.decode(torch.tensor(np.array(codes)))[:, 0, 0].double().numpy()
    return np.linalg.norm(np.diff(points, axis=0), axis=1).sum()


@pytest.mark.parametrize("name", PATHS)
def test_lengths_are_those_of_the_closed_form(name, left_as_found):
    """Would catch: a straight line or a great circle of codes called geodesic, and a length of codes."""
    build, a, b = PATHS[name]
    model = build()
    left_as_found(model)
    found = geodesic(model, a, b, steps=65)
    length = true_length(name, model, a, b)
    assert found.length == pytest.approx(length, rel=0.01)
    assert curve_length(model, found.z) == pytest.approx(length, rel=0.01)
    assert (
        found.length <= found.straight_length * (1 + 1e-6) and found.certificate["length_ratio"] <= 1 + 1e-6
    )
    assert found.certificate["end_difference"] == 0.0 and found.certificate["speed_variation"] < 0.01
    assert found.certificate["converged"]
    assert found.certificate["acceleration"] < 0.25
    if name != "half_cylinder":
        assert found.certificate["acceleration"] < 0.2 * found.certificate["straight_acceleration"]


@pytest.mark.parametrize("name", ["polar", "sphere"])
def test_the_fake_a_slerp_fails_the_same_check(name):
    """The fake: a slerp of the codes under the name of a geodesic."""
    build, a, b = PATHS[name]
    model = build()
    normal = PlantedModel(model.image_shape, LatentSpace([Block("z", 2)]), generator=model.generator)
    fake = interpolate(normal, a, b, steps=65, method="slerp").z
    assert curve_length(model, fake) != pytest.approx(true_length(name, model, a, b), rel=0.01)


def test_through_a_linear_generator_it_is_the_straight_line():
    model, weight, _ = linear.linear_model()
    a, b = model.sample_codes(2, 4)
    found = geodesic(model, a, b, steps=5)
    assert np.allclose(found.z, found.straight_z, atol=1e-4)
    assert found.length == pytest.approx(float((weight @ (a - b)).norm()), rel=1e-4)
    assert np.allclose(found.speeds, found.length / 4, rtol=1e-3)


def test_speed_is_even_where_the_straight_line_rushes():
    """Would catch: codes at even distances of z; here the image changes as exp(z)."""

    class Rush(nn.Module):
        def forward(self, z):
            return z.exp()[:, None, None, :]

    from latentlab.models.staged import StagedNetwork

    space = LatentSpace([Block("z", 2)])
    model = PlantedModel((1, 1, 2), space, generator=StagedNetwork({"output": Rush()}, "generator"))
    found = geodesic(model, [0.0, 0.0], [2.0, 2.0], steps=6)
    assert found.straight_speeds[-1] > 3 * found.straight_speeds[0]
    assert found.certificate["speed_variation"] < 1e-2
    assert np.allclose(found.z[:, 0], np.log(np.linspace(1, np.exp(2), 6)), atol=0.01)


def test_support_bends_the_path_round_a_hole_and_says_so():
    """Would catch: a penalty without effect, and one that is kept from the result."""
    model, _, _ = linear.linear_model(latents=2, hidden=3)
    angle = np.random.default_rng(0).uniform(0, np.pi, 400)
    data = 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.1 * np.random.default_rng(
        1
    ).standard_normal((400, 2))
    a, b = [2.0, 0.0], [-2.0, 0.0]
    through = geodesic(model, a, b, data_codes=data)
    around = geodesic(model, a, b, data_codes=data, support_weight=1.0)
    assert through.support_weight == 0.0 and through.neighbours[4] == 0 and through.radius == around.radius
    assert around.support_weight == 1.0 and around.z[4, 1] > 1.0 > abs(through.z[4, 1])
    assert around.neighbours[1:-1].sum() > through.neighbours[1:-1].sum()
    assert around.length > through.length and around.cost < around.straight_cost
    assert np.array_equal(around.straight_neighbours, through.straight_neighbours)


def test_categories_are_mixed_and_bounds_kept(categorical_model):
    mixed = geodesic(categorical_model, [1, 0, 0, 0.0], [0, 0, 1, 1.0], steps=3)
    assert np.allclose(mixed.z[1, :3], [0.5, 0.0, 0.5], atol=1e-3)
    path = geodesic(manifolds.polar(), [0.3, 0.3], [0.3, 2.9], steps=17)
    assert (
        path.z[:, 0].min() >= 0.1 - 1e-6
    )  # the chord would pass nearer to the origin than the prior reaches


def test_it_is_reproducible_saved_cancelled_and_open_to_foreign_decoders(tmp_path):
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 16), nn.Sigmoid())
    model, steps = adapt_model(decoder, latents=2, image_shape=(1, 4, 4)), []
    one = geodesic(model, [-2, -1], [2, 1], steps=3, progress=lambda *a: steps.append(a))
    assert np.array_equal(one.z, geodesic(model, [-2, -1], [2, 1], steps=3).z)
    assert steps and steps[-1][0] == one.certificate["iterations"]
    assert all(p.grad is None for p in decoder.parameters())
    again = load_result(one.save(tmp_path / "g"))
    assert np.array_equal(again.images, one.images) and again.neighbours is None
    still = geodesic(model, [1, 1], [1, 1], steps=3)
    assert still.length < 1e-6 and still.certificate["converged"]

    def cancel(done, most):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        geodesic(model, [-2, -1], [2, 1], progress=cancel)


@pytest.mark.parametrize(
    ("options", "wording"),
    [
        ({"steps": 1}, "steps must be a whole number of at least 2; got 1"),
        ({"support_weight": 1.0}, "support_weight needs data_codes="),
        ({"support_weight": -1.0}, "finite number of at least 0"),
        ({"space": "w"}, "No space 'w'"),
    ],
)
def test_wrong_options_get_a_sentence(options, wording):
    model, _, _ = linear.linear_model()
    with pytest.raises(ValueError, match=wording):
        geodesic(model, [0, 0, 0, 0], [1, 0, 0, 0], **options)
