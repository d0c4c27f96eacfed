import numpy as np
import pytest
from planted import manifolds

from latentlab.analysis import interpolate


def test_lerp_through_a_linear_generator_is_straight(linear_model, left_as_found):
    left_as_found(linear_model)
    a, b = np.array([1.0, 0, 0, 0]), np.array([-1.0, 1, 1, 0])
    path = interpolate(linear_model, a, b, steps=5)
    hops = np.diff(path.images, axis=0)
    assert np.allclose(hops, hops[0], atol=1e-6)
    assert path.certificate["straightness"] == pytest.approx(1.0, abs=1e-4)
    assert np.array_equal(path.z[0], a) and np.array_equal(path.z[-1], b)


def test_slerp_keeps_the_length_and_turns_evenly(linear_model):
    """Fails a lerp that is called slerp: its codes shrink in the middle."""
    a, b = np.array([3.0, 0, 0, 0]), np.array([0, 3.0, 0, 0])
    path = interpolate(linear_model, a, b, steps=7, method="slerp")
    assert np.allclose(np.linalg.norm(path.z, axis=1), 3.0, atol=1e-5)
    angles = np.degrees(np.arctan2(path.z[:, 1], path.z[:, 0]))
    assert np.allclose(angles, np.linspace(0, 90, 7), atol=1e-3)


def test_slerp_of_equal_codes_stays_there(linear_model):
    a = np.array([0.5, 0.5, 0, 0])
    assert np.allclose(interpolate(linear_model, a, a, method="slerp").z, a)


def test_categories_are_mixed_linearly(categorical_model):
    path = interpolate(categorical_model, [1, 0, 0, 1.0], [0, 0, 1, 2.0], steps=3, method="slerp")
    assert np.allclose(path.z[1, :3], [0.5, 0, 0.5])


@pytest.mark.parametrize(
    ("za", "zb", "options", "wording"),
    [
        ([1, 0, 0, 0], [-1, 0, 0, 0], {"method": "slerp"}, "opposite codes has no unique great circle"),
        ([0, 0, 0, 0], [1, 0, 0, 0], {"method": "slerp"}, "away from the origin"),
        ([1, 0, 0, 0], [1, 0, 0, 0], {"method": "spline"}, "one of lerp, slerp, geodesic; got 'spline'"),
        ([1, 0, 0, 0], [1, 0, 0, 0], {"steps": 1}, "at least 2"),
        ([1, 0, 0], [1, 0, 0, 0], {}, "za must be codes"),
    ],
)
def test_paths_that_do_not_exist_get_a_sentence(linear_model, za, zb, options, wording):
    with pytest.raises(ValueError, match=wording):
        interpolate(linear_model, za, zb, **options)


def test_a_slerp_never_leaves_the_support_of_a_uniform_block(uniform_model):
    # The fake: a great circle through a box, which passes 1.4 on the way from corner to corner of [-1, 1].
    za, zb = [2.0, 0.0, 1.0, 1.0], [0.0, 2.0, -1.0, 1.0]
    path = interpolate(uniform_model, za, zb, steps=5, method="slerp")
    assert np.allclose(np.linalg.norm(path.z[:, :2], axis=1), 2.0, atol=1e-5)
    assert np.allclose(path.z[:, 2], np.linspace(1, -1, 5)) and np.allclose(path.z[:, 3], 1.0)


def test_a_geodesic_is_a_path_beside_the_others():
    """Would catch: another path under that name; through the sphere chart only the great circle has this length."""
    a, b = [0.8, -1.0], [0.7, 1.2]
    model = manifolds.sphere()
    path = interpolate(model, a, b, steps=33, method="geodesic")
    points = path.images[:, 0, 0]
    angle = np.arccos(points[0] @ points[-1])
    assert np.linalg.norm(np.diff(points, axis=0), axis=1).sum() == pytest.approx(angle, rel=0.01)
    assert path.certificate["length_ratio"] < 0.9 and path.certificate["end_difference"] < 1e-6
    assert path.method == "geodesic" and path.neighbours is None and path.radius is None
    lerp = interpolate(model, a, b, steps=33)
    assert np.linalg.norm(np.diff(lerp.images[:, 0, 0], axis=0), axis=1).sum() > 1.1 * angle


@pytest.mark.parametrize("method", ["lerp", "slerp", "geodesic"])
def test_the_support_meter_counts_the_codes_of_the_data(linear_model, method):
    """Would catch: a meter of the path's own codes, or of distances in another scale than the data's."""
    data = 0.2 * np.random.default_rng(0).standard_normal((200, 4))
    path = interpolate(linear_model, [0.1, 0, 0, 0], [3.0, 1, 0, 0], 5, method, data_codes=data)
    apart = np.linalg.norm(data[:, None] - data[None], axis=2)
    assert path.radius == pytest.approx(np.median(np.sort(apart, axis=1)[:, 10]), rel=1e-4)
    expected = (np.linalg.norm(path.z[:, None] - data[None], axis=2) <= path.radius).sum(1)
    assert np.array_equal(path.neighbours, expected)
    assert path.neighbours[0] > 5 and path.neighbours[-1] == 0 == path.certificate["least_neighbours"]
    with pytest.raises(ValueError, match="at least 3 codes"):
        interpolate(linear_model, data[0], data[1], data_codes=data[:2])
