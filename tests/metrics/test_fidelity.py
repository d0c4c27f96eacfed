"""Fidelity and collapse against closed forms, planted faults, and examples small enough to do by hand."""

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist

from latentlab.metrics import fidelity
from latentlab.metrics.collapse import active_units, posterior_collapse, reconstruction_error
from latentlab.metrics.fidelity import (
    density_coverage,
    frechet_distance,
    kernel_distance,
    path_length,
    precision_recall,
)


def normal(n, d, seed):
    return np.random.default_rng(seed).normal(size=(n, d))


def exact_normal(mean, covariance, n, seed):
    """Points whose sample mean and covariance are exactly the given ones."""
    x = normal(n, len(mean), seed)
    x -= x.mean(axis=0)
    white = x @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(x.T)))).T
    return white @ np.linalg.cholesky(covariance).T + mean


def a_covariance(d, seed):
    root = normal(d, d, seed)
    return root @ root.T / d + 0.1 * np.eye(d)


def test_frechet_distance_of_known_gaussians_is_the_formula():
    """Would catch: a trace of roots instead of the root of the product, and a biased covariance."""
    d, mean = 6, np.arange(6.0)
    a, b = a_covariance(d, 1), a_covariance(d, 2)
    assert np.abs(a @ b - b @ a).max() > 0.1, "commuting covariances would hide a wrong order"
    x, y = exact_normal(np.zeros(d), a, 40, 3), exact_normal(mean, b, 60, 4)
    expected = mean @ mean + np.trace(a + b - 2.0 * np.real(sqrtm(a @ b)))
    score = frechet_distance(x, y, features="six numbers")
    assert score.value == pytest.approx(expected, rel=1e-9)
    assert score.details["mean_term"] == pytest.approx(mean @ mean, rel=1e-9)
    assert score.details["real_variance"] == pytest.approx(np.trace(a), rel=1e-9)
    assert score.protocol == {"features": "six numbers", "dimensions": 6, "real": 40, "generated": 60}
    assert frechet_distance(y, x).value == pytest.approx(score.value, rel=1e-9)
    one = frechet_distance(
        exact_normal(np.zeros(1), np.array([[4.0]]), 10, 1), exact_normal(np.ones(1), np.eye(1), 10, 2)
    )
    assert one.value == pytest.approx(1.0 + (2.0 - 1.0) ** 2)


def test_frechet_distance_of_a_set_from_itself_is_nothing_and_grows_with_noise():
    """Would catch: the complex dust of a matrix root on singular covariances, and a distance with the sign off."""
    x = normal(300, 20, 0)
    x[:, 10:] = x[:, :10]  # a singular covariance
    x[:, 0] = 3.0  # a dead feature
    assert 0.0 <= frechet_distance(x, x).value < 1e-10
    worse = [frechet_distance(x, x + s * normal(300, 20, 1)).value for s in (0.1, 0.5, 1.0, 2.0)]
    assert worse == sorted(worse) and worse[0] > 0
    collapsed = frechet_distance(x, np.tile(x.mean(axis=0), (50, 1)))
    assert collapsed.value == pytest.approx(collapsed.details["real_variance"])


def kernel_distance_by_loops(x, y):
    def k(a, b):
        return (a @ b / len(a) + 1.0) ** 3

    n = len(x)
    own = sum(k(x[i], x[j]) + k(y[i], y[j]) for i in range(n) for j in range(n) if i != j)
    return own / (n * (n - 1)) - 2.0 * sum(k(a, b) for a in x for b in y) / n**2


def test_kernel_distance_is_its_definition_and_unbiased():
    """Would catch: the diagonal left in (which makes equal distributions differ), and a wrong kernel."""
    x, y = normal(12, 3, 0), normal(12, 3, 1) + 0.5
    whole = kernel_distance(x, y, subsets=1, subset_size=12)
    assert whole.value == pytest.approx(kernel_distance_by_loops(x, y))
    values = [
        kernel_distance(normal(60, 5, s), normal(60, 5, 1000 + s), subsets=1, subset_size=60).value
        for s in range(300)
    ]
    error = np.std(values) / math.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * error
    assert min(values) < 0, "an unbiased estimate of 0 falls below it half of the time"
    # The diagonal would add about E[k(x, x)] / n for each set, far more than that.
    assert 2 * np.mean((np.square(normal(1000, 5, 1)).mean(1) + 1) ** 3) / 60 > 20 * error


def test_kernel_distance_is_seeded_and_grows_with_the_shift():
    """Would catch: a hidden global seed, and subsets that are all the same."""
    x, y = normal(400, 8, 0), normal(500, 8, 1)
    score = kernel_distance(x, y, subsets=20, subset_size=100, seed=3)
    again = kernel_distance(x, y, subsets=20, subset_size=100, seed=3)
    assert score.value == again.value
    assert score.value != kernel_distance(x, y, subsets=20, subset_size=100, seed=4).value
    assert score.details["spread"] > 0 and len(set(score.details["subsets"])) == 20
    assert {"subset_size": 100, "subsets": 20, "seed": 3}.items() <= score.protocol.items()
    shifted = [kernel_distance(x, y + s, subsets=20, subset_size=100).value for s in (0.0, 0.3, 0.6)]
    assert shifted == sorted(shifted) and shifted[1] > 5 * abs(shifted[0])


def two_modes(n, seed):
    points = normal(n, 2, seed)
    points[::2, 0] += 40.0
    return points


def test_mode_dropping_lowers_recall_and_strays_lower_precision():
    """Would catch: precision and recall exchanged, and a point that counts as its own neighbour."""
    real = two_modes(400, 0)
    good = precision_recall(real, two_modes(400, 1))
    assert good.value > 0.9 and good.details["recall"] > 0.9
    dropped = precision_recall(real, two_modes(800, 1)[1::2])
    assert dropped.value > 0.9 and 0.4 < dropped.details["recall"] < 0.55
    strays = two_modes(400, 1)
    strays[:100] += [0.0, 1000.0]
    astray = precision_recall(real, strays)
    assert astray.value == pytest.approx(0.75 * good.value, abs=0.05)
    apart = precision_recall(real, two_modes(400, 1) + 1e4)
    assert (apart.value, apart.details["recall"], apart.details["f1"]) == (0.0, 0.0, 0.0)


def test_an_outlier_fools_recall_but_not_coverage():
    """Would catch: balls drawn around generated points where real ones are meant."""
    real = normal(300, 2, 0)
    faraway = 0.001 * normal(300, 2, 1)
    faraway[:4] = [[50.0, 0.0], [-50.0, 0.0], [0.0, 50.0], [0.0, -50.0]]
    assert precision_recall(real, faraway).details["recall"] == 1.0
    assert density_coverage(real, faraway).details["coverage"] < 0.1


def test_precision_and_recall_by_hand():
    """Would catch: an open ball, the wrong neighbour, and a radius of the other set."""
    real = [[0.0], [1.0], [3.0], [7.0]]  # radii to the nearest other point: 1, 1, 2, 4
    generated = [[-1.0], [5.5], [20.0], [30.0]]  # radii: 6.5, 6.5, 10, 10
    score = precision_recall(real, generated, k=1)
    assert score.value == 2 / 4  # -1 lies on a rim; 5.5 in the ball of 7; 20 and 30 in none
    assert score.details["recall"] == 4 / 4  # all within 6.5 of -1 or of 5.5
    second = precision_recall(real, generated, k=2)  # radii of the real: 3, 2, 3, 6
    assert second.value == 2 / 4
    assert precision_recall(generated, real, k=1).value == score.details["recall"]
    assert score.details["f1"] == pytest.approx(2 / 3)


def test_density_and_coverage_by_hand():
    """Would catch: a density over the number of real points, and coverage counted over generated ones."""
    real = [[0.0], [1.0], [3.0], [7.0]]  # radii to the 2nd nearest other point: 3, 2, 3, 6
    generated = [[2.0], [2.5], [100.0]]
    # 2.0 lies in the balls of 0, 1, 3 and 7; 2.5 in those of 0, 1, 3 and 7; 100 in none.
    score = density_coverage(real, generated, k=2)
    assert score.value == pytest.approx((4 + 4 + 0) / (2 * 3))
    assert score.details["coverage"] == 1.0
    narrow = density_coverage(real, [[6.0], [100.0], [-50.0]], k=1)  # radii 1, 1, 2, 4
    assert narrow.value == pytest.approx(1 / 3) and narrow.details["coverage"] == 1 / 4


def test_equal_distributions_reach_the_expected_density_and_coverage():
    """Would catch: a ball too small or too large by one neighbour."""
    scores = [density_coverage(normal(150, 4, s), normal(100, 4, 500 + s)) for s in range(60)]
    expected = scores[0].details["coverage_expected"]
    assert expected == pytest.approx(1 - math.comb(149, 5) / math.comb(249, 5))
    assert np.mean([s.details["coverage"] for s in scores]) == pytest.approx(expected, abs=0.015)
    assert np.mean([s.value for s in scores]) == pytest.approx(1.0, abs=0.05)


def test_copies_of_real_images_are_inside_even_where_real_images_repeat():
    """Would catch: rounding in the products that puts a copy outside a ball of radius 0."""
    real = np.repeat(normal(20, 30, 0), 6, axis=0) + 1e3
    both = precision_recall(real, real[::-1], k=3)
    assert both.value == 1.0 and both.details["recall"] == 1.0
    assert density_coverage(real, real).details["coverage"] == 1.0
    assert precision_recall(real, real + 1e-3, k=3).value == 0.0


def test_distances_in_chunks_are_distances(monkeypatch):
    """Would catch: a chunk that excludes the wrong point as a point's own neighbour."""
    x, y = normal(101, 5, 0), normal(67, 5, 1) + 0.3
    whole = [f(x, y).to_json() for f in (precision_recall, density_coverage)]
    monkeypatch.setattr(fidelity, "_CHUNK", 1000)
    assert [f(x, y).to_json() for f in (precision_recall, density_coverage)] == whole
    parts = [part for _, part in fidelity._squared_distances(x, y)]
    assert len(parts) > 3
    np.testing.assert_allclose(np.concatenate(parts), cdist(x, y, "sqeuclidean"), rtol=1e-9)
    others = np.sort(cdist(x, x), axis=1)[:, 3] ** 2
    np.testing.assert_allclose(fidelity._squared_radii(x, 3), others, rtol=1e-9)


@pytest.mark.parametrize("epsilon", [1e-4, 1e-2])
def test_path_length_of_a_linear_map_is_closed_form(epsilon):
    """Would catch: a division by ε instead of ε², and a mean over dimensions instead of a sum."""
    matrix, directions = normal(3, 7, 0), normal(500, 3, 1)
    places = normal(500, 3, 2)
    a, b = places @ matrix, (places + epsilon * directions) @ matrix
    expected = np.square(directions @ matrix).sum(axis=1)
    score = path_length(a, b, epsilon, trim=0.0)
    assert score.value == pytest.approx(expected.mean(), rel=1e-6)
    assert score.details["kept"] == 500
    low, high = np.sort(expected)[[4, -5]]  # 1 % of 499 steps between ranks, to the outer rank
    kept = expected[(expected >= low) & (expected <= high)]
    trimmed = path_length(a, b, epsilon)
    assert trimmed.value == pytest.approx(kept.mean(), rel=1e-6)
    assert trimmed.details["kept"] == 492 and trimmed.details["untrimmed"] == pytest.approx(score.value)
    assert trimmed.protocol["epsilon"] == epsilon and trimmed.protocol["trim"] == 0.01


def test_planted_collapse_is_counted():
    """Would catch: a mean KL in place of its share, a bound on the wrong side, and columns taken for rows."""
    kl = np.full((100, 4), 2.0)
    kl[:, 1] = 0.001  # collapsed
    kl[:, 2] = 0.001
    kl[0, 2] = 5.0  # one image of a hundred may exceed it, though the mean KL does by far
    kl[:, 3] = 0.001
    kl[:2, 3] = 0.5  # two may not
    score = posterior_collapse(kl)
    assert score.value == 0.5 and score.details["collapsed"].tolist() == [False, True, True, False]
    assert score.details["share_below"].tolist() == [0.0, 1.0, 0.99, 0.98]
    assert posterior_collapse(kl, delta=0.02).value == 0.75
    assert posterior_collapse(np.full((10, 3), 0.01)).value == 0.0  # KL < ε, not ≤
    with pytest.raises(
        ValueError, match=r"column 2 holds -0\.5 nats; sum the columns of a categorical block"
    ):
        posterior_collapse([[0.1, 0.2, -0.5]])


def test_a_category_is_one_active_unit():
    """Would catch: ten units for one category of ten values, as counting by coordinate gives."""
    means = np.zeros((60, 12))
    means[np.arange(60), np.arange(60) % 10] = 1.0
    means[:, 10] = np.linspace(-1, 1, 60)
    assert active_units(means).value == 11
    score = active_units(means, variables=[0] * 10 + [1, 2])
    assert score.value == 2 and score.details["variance"].shape == (3,)
    with pytest.raises(ValueError, match="one latent for each of 12 coordinates"):
        active_units(means, variables=[0, 1])


def test_active_units_are_those_whose_means_vary():
    """Would catch: the mean of squares in place of the variance, and a sum over the wrong axis."""
    mean = np.zeros((200, 4))
    mean[:, 0] = normal(200, 1, 0)[:, 0]
    mean[:, 1] = 5.0  # far from the prior's mean, yet the same for every image
    mean[:, 2] = 0.19 * (np.arange(200) % 2)  # variance 0.009, mean square 0.018
    mean[:, 3] = 0.21 * (np.arange(200) % 2)
    score = active_units(mean)
    assert score.value == 2 and score.details["fraction"] == 0.5
    assert score.details["active"].tolist() == [True, False, False, True]


def test_reconstruction_error_is_per_pixel_with_its_ratio_in_decibels():
    """Would catch: a sum over pixels, and a logarithm of the root."""
    x = np.random.default_rng(0).uniform(0.2, 0.8, size=(600, 3, 4, 4)).astype(np.float32)
    score = reconstruction_error(x, x + 0.1)
    assert score.value == pytest.approx(0.01, rel=1e-4)
    assert score.details["psnr"] == pytest.approx(20.0, abs=1e-3)
    assert score.details["per_image"].shape == (600,)
    exact = reconstruction_error(x, x)
    assert exact.value == 0.0 and exact.to_json()["details"]["psnr"] is None


GOOD = normal(100, 4, 0)
BAD = GOOD.copy()
BAD[7, 1] = np.nan


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frechet_distance(GOOD, BAD), "generated features must be finite; 1 of 100 points hold NaN"),
        (lambda: frechet_distance(GOOD, GOOD[:, :3]), "same space; got 4 and 3 dimensions"),
        (lambda: frechet_distance(GOOD, GOOD[:4]), "needs more than 4 points of each kind; got 4 generated"),
        (lambda: kernel_distance(BAD, GOOD), "real features must be finite"),
        (lambda: kernel_distance(GOOD, GOOD[:50]), "number of points of either kind, 50; got 1000"),
        (lambda: kernel_distance(GOOD, GOOD, subsets=0), "subsets must be a whole number of at least 1"),
        (lambda: precision_recall(GOOD, GOOD[:3]), "reach to neighbour 3 need more than 3 points; got 3"),
        (lambda: precision_recall(GOOD, GOOD, k=0), "k must be a whole number of at least 1; got 0"),
        (lambda: precision_recall(GOOD, GOOD[:, 0]), "must be numbers \\(points, dimensions\\)"),
        (lambda: density_coverage(GOOD, BAD), "generated features must be finite"),
        (lambda: density_coverage(GOOD, GOOD, k=100), "need more than 100 points; got 100"),
        (
            lambda: path_length(GOOD, GOOD[:60], 0.1),
            "features of one shape; got \\(100, 4\\) and \\(60, 4\\)",
        ),
        (lambda: path_length(GOOD[:9], GOOD[:9], 0.1), "at least 50 pairs; got 9"),
        (lambda: path_length(GOOD, GOOD, 0.0), "epsilon must be a positive number; got 0.0"),
        (lambda: path_length(GOOD, GOOD, 0.1, trim=0.5), "trim must lie in \\[0, 0.5\\); got 0.5"),
        (lambda: path_length(GOOD, BAD, 0.1), "features_b must be finite"),
        (lambda: active_units(BAD), "mean must be finite"),
        (lambda: active_units(GOOD[:1]), "at least 2 images"),
        (lambda: active_units(GOOD, -1.0), "threshold must be a variance of at least 0"),
        (lambda: posterior_collapse(BAD**2), "kl must be finite"),
        (lambda: posterior_collapse(GOOD**2, epsilon=0.0), "epsilon must be a positive number of nats"),
        (lambda: posterior_collapse(GOOD**2, delta=1.0), "delta must lie in \\[0, 1\\); got 1.0"),
        (lambda: reconstruction_error(np.zeros((2, 1, 4, 4)), np.zeros((2, 1, 4, 5))), "of one shape; got"),
        (lambda: reconstruction_error(np.zeros((2, 1, 4, 4)), np.full((2, 1, 4, 4), 2.0)), "x_hat must be"),
        (
            lambda: reconstruction_error(np.full((2, 1, 4, 4), np.nan), np.zeros((2, 1, 4, 4))),
            "x must be images",
        ),
    ],
)
def test_bad_input_is_refused_with_one_sentence(call, message):
    """Would catch: a NaN that becomes a score, and a traceback of numpy's in place of what was wrong."""
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_importing_the_metrics_of_features_imports_no_torch():
    """Would catch: a report that waits for torch to compare two arrays."""
    code = "import sys, latentlab.metrics.fidelity, latentlab.metrics.collapse; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
