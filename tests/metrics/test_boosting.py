"""The fast trees against scikit-learn's own, and what they owe whatever the threads, seed or labels."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier

from latentlab.metrics.boosting import GradientBoostedClassifier, fit_factors


def _points(n, d, k, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    codes = rng.normal(size=(n, d))
    codes[:, 0] += 0.5 * labels
    codes[:, -1] += 0.7 * (labels == 1)
    return codes, labels, codes[::-1] + 0.3 * rng.normal(size=(n, d))


# Data in which no two splits are equally good, which scikit-learn's own seeds agree on (asserted below).
UNTIED = [
    pytest.param(*_points(2000, 4, 2, 0), 10, id="two classes"),
    pytest.param(*_points(2000, 4, 3, 1), 10, id="three classes"),
    pytest.param(*_points(1500, 3, 4, 0), 6, id="four classes"),
    pytest.param(*_points(500, 1, 3, 0), 100, id="one code, every stage"),
    pytest.param(*_points(500, 1, 2, 1), 100, id="one code, two classes, every stage"),
]


@pytest.mark.parametrize(("codes", "labels", "others", "stages"), UNTIED)
def test_equals_scikit_learn_where_no_splits_tie(codes, labels, others, stages):
    """Would catch another loss, prior, leaf value, depth, threshold, or importances normalised tree by tree."""
    expected, again = (
        GradientBoostingClassifier(n_estimators=stages, random_state=seed).fit(codes, labels)
        for seed in (0, 1)
    )
    np.testing.assert_allclose(again.feature_importances_, expected.feature_importances_, atol=1e-12)
    found = GradientBoostedClassifier(stages=stages).fit(codes, labels)
    np.testing.assert_allclose(found.feature_importances, expected.feature_importances_, atol=1e-10)
    for points in (codes, others):
        np.testing.assert_allclose(found.predict_proba(points), expected.predict_proba(points), atol=1e-10)
        np.testing.assert_array_equal(found.predict(points), expected.predict(points))


def test_order_sign_and_scale_of_codes_change_nothing_where_no_splits_tie():
    """Would catch thresholds off the middle, or sums that favour one side of a split."""
    codes, labels, others = _points(2000, 4, 2, 0)
    plain = GradientBoostedClassifier(stages=10).fit(codes, labels)
    order, scale = [2, 0, 3, 1], np.array([4.0, -0.5, -1.0, 2.0])
    moved = GradientBoostedClassifier(stages=10).fit(codes[:, order] * scale, labels)
    np.testing.assert_allclose(moved.feature_importances, plain.feature_importances[order], atol=1e-10)
    np.testing.assert_allclose(
        moved.predict_proba(others[:, order] * scale), plain.predict_proba(others), atol=1e-10
    )


def test_ties_give_a_draw_like_scikit_learns():
    """Would catch ties that always go to the first code: an extra code of the same information would get nothing."""
    codes, labels, _ = _points(300, 2, 3, 5)
    codes = np.concatenate([codes, codes[:, :1]], axis=1)
    expected = np.mean(
        [
            GradientBoostingClassifier(n_estimators=30, random_state=seed)
            .fit(codes, labels)
            .feature_importances_
            for seed in range(6)
        ],
        axis=0,
    )
    found = [
        GradientBoostedClassifier(stages=30, seed=seed).fit(codes, labels).feature_importances
        for seed in range(40)
    ]
    np.testing.assert_allclose(np.mean(found, axis=0), expected, atol=0.06)
    assert np.mean(found, axis=0)[0] == pytest.approx(np.mean(found, axis=0)[2], rel=0.15)
    assert np.std(found, axis=0)[0] > 0.001


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(np.arange(6.0), id="six values"),
        pytest.param(np.array([0.0, 5e-8, 1.2e-7, 1.0, 1.0 + 1e-9, 2.0]), id="values too close to split"),
        pytest.param(np.array([3e7, 3e7 + 1, 3e7 + 2, 3e7 + 4, 3e7 + 6, -1e30]), id="float32 merges"),
    ],
)
def test_repeated_and_close_values_split_as_in_scikit_learn(values):
    """Would catch a split between equal values, in float64, or without scikit-learn's least distance of 1e-7."""
    rng = np.random.default_rng(0)
    index = rng.integers(0, 6, 400)
    labels = (index + rng.integers(0, 4, 400)) % 5
    codes = values[index, None]
    expected = GradientBoostingClassifier(n_estimators=20, random_state=0).fit(codes, labels)
    found = GradientBoostedClassifier(stages=20).fit(codes, labels)
    np.testing.assert_allclose(found.predict_proba(codes), expected.predict_proba(codes), atol=1e-10)
    between = np.linspace(-1, 3, 50)[:, None]
    np.testing.assert_allclose(found.predict_proba(between), expected.predict_proba(between), atol=1e-10)


@pytest.mark.parametrize("names", [np.array([-7, 3, 90]), np.array(["ellipse", "heart", "square"])])
def test_labels_may_be_any_values(names):
    """Would catch labels used as positions."""
    codes, labels, others = _points(300, 3, 3, 2)
    plain = GradientBoostedClassifier(stages=20).fit(codes, labels)
    named = GradientBoostedClassifier(stages=20).fit(codes, names[labels])
    np.testing.assert_array_equal(named.classes, names)
    np.testing.assert_array_equal(named.predict(others), names[plain.predict(others)])
    np.testing.assert_array_equal(named.predict_proba(others), plain.predict_proba(others))


def test_threads_change_nothing():
    """Would catch sums that depend on how trees or points were shared out, or scratch memory that is shared."""
    codes, labels, others = _points(3000, 5, 7, 3)
    factors = np.stack([labels, labels % 2, (codes[:, 1] > 0).astype(int) + labels // 3], axis=1)
    one, two, five = (fit_factors(codes, factors, threads=threads, stages=12) for threads in (1, 2, 5))
    for j in range(factors.shape[1]):
        for other in (two[j], five[j]):
            np.testing.assert_array_equal(other.feature_importances, one[j].feature_importances)
            np.testing.assert_array_equal(other.predict_proba(others), one[j].predict_proba(others))


def test_fits_at_once_equal_fits_in_turn():
    """Would catch state shared between calls: the app measures for several sessions at once."""
    codes, labels, _ = _points(1000, 4, 3, 4)

    def fit(seed):
        return GradientBoostedClassifier(seed=seed, stages=20, threads=2).fit(codes, labels)

    turn = [fit(seed).predict_proba(codes) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        once = [model.predict_proba(codes) for model in pool.map(fit, range(4))]
    np.testing.assert_array_equal(once, turn)


def test_factors_side_by_side_equal_factors_alone():
    """Would catch a tie-breaking or a presorting that leaks from one factor into another."""
    codes, labels, others = _points(500, 4, 3, 6)
    factors = np.stack([labels, 1 - labels // 2], axis=1)
    for j, model in enumerate(fit_factors(codes, factors, seed=9, stages=15)):
        alone = GradientBoostedClassifier(seed=9, stages=15).fit(codes, factors[:, j])
        np.testing.assert_array_equal(model.predict_proba(others), alone.predict_proba(others))


def test_the_seed_decides_and_nothing_else():
    """Would catch NumPy's global generator read or moved."""
    codes, labels, _ = _points(300, 2, 3, 5)
    codes = np.concatenate([codes, codes], axis=1)
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the global state is what must not move
    first, again, other = (
        GradientBoostedClassifier(stages=10, seed=seed).fit(codes, labels).feature_importances
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_constant_codes_leave_the_prior():
    """Would catch 0/0 importances, or a constant code that takes part."""
    labels = np.repeat([0, 1, 2], [10, 30, 60])
    model = GradientBoostedClassifier(stages=5).fit(np.ones((100, 3)), labels)
    np.testing.assert_array_equal(model.feature_importances, np.zeros(3))
    np.testing.assert_allclose(model.predict_proba(np.zeros((2, 3))), [[0.1, 0.3, 0.6]] * 2, atol=1e-12)
    codes, labels, _ = _points(300, 2, 3, 1)
    padded = np.insert(codes, [0, 1, 2], 4.0, axis=1)
    with_constants = GradientBoostedClassifier(stages=5).fit(padded, labels)
    without = GradientBoostedClassifier(stages=5).fit(codes, labels)
    np.testing.assert_array_equal(with_constants.feature_importances[[0, 2, 4]], 0)
    np.testing.assert_allclose(with_constants.predict_proba(padded), without.predict_proba(codes), atol=1e-12)


def test_few_points_do_not_break_a_tree():
    """Would catch nodes of one point that are split, or divisions by an empty side."""
    model = GradientBoostedClassifier().fit([[0.0], [1.0], [2.0]], [0, 1, 2])
    assert model.predict([[0.0], [1.0], [2.0]]).tolist() == [0, 1, 2]
    assert GradientBoostedClassifier().fit([[0.0], [1.0]], [5, 4]).predict([[0.2], [0.9]]).tolist() == [5, 4]


def test_progress_counts_stages_and_may_cancel():
    """Would catch a bar that stands still, and a cancel that is swallowed by the threads."""
    codes, labels, _ = _points(200, 2, 3, 1)
    seen = []
    GradientBoostedClassifier(stages=4).fit(codes, labels, progress=lambda *step: seen.append(step))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]

    def cancel(done, total):
        raise KeyboardInterrupt(f"stopped at {done} of {total}")

    model = GradientBoostedClassifier(threads=2)
    with pytest.raises(KeyboardInterrupt, match="stopped at 1 of 100"):
        model.fit(codes, labels, progress=cancel)
    with pytest.raises(ValueError, match=r"no trees yet; call fit first\."):
        model.predict(codes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z, v: GradientBoostedClassifier().fit(z, v[:-1]), r"same points; got 200 and \(199,\)\."),
        (
            lambda z, v: GradientBoostedClassifier().fit(z, v * 0 + 3),
            "at least two classes; all labels are 3",
        ),
        (lambda z, v: GradientBoostedClassifier().fit(z * 1e39, v), "must fit into float32"),
        (lambda z, v: GradientBoostedClassifier().fit(z * np.nan, v), "200 of 200 points hold NaN"),
        (lambda z, v: GradientBoostedClassifier(stages=0), "stages must be at least 1; got 0"),
        (lambda z, v: GradientBoostedClassifier(threads=0), "threads must be at least 1; got 0"),
        (
            lambda z, v: GradientBoostedClassifier(stages=1).fit(z, v).predict(z[:, :1]),
            "grown on 2 codes; got 1",
        ),
    ],
)
def test_what_is_wrong_is_said(call, message):
    """Would catch a crash deep in compiled code, or silent nonsense."""
    codes, labels, _ = _points(200, 2, 3, 1)
    with pytest.raises(ValueError, match=message):
        call(codes, labels)
