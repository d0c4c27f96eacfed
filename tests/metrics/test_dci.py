"""DCI against the field's reference values, closed forms and what must not change it."""

import subprocess
import sys

import numpy as np
import pytest

from latentlab.metrics.dci import PREDICTORS, completeness, dci, disentanglement

PARTS = ("disentanglement", "completeness", "informativeness_train", "informativeness_test")


def _split(codes, factors, train=400):
    return codes[:train], factors[:train], codes[train:], factors[train:]


@pytest.fixture
def noisy():
    """600 points of 4 noisy mixtures of 3 factors with 3, 4 and 2 values."""
    rng = np.random.default_rng(0)
    factors = np.stack([rng.integers(0, size, 600) for size in (3, 4, 2)], axis=1)
    codes = factors @ rng.normal(size=(3, 4)) + 0.3 * rng.normal(size=(600, 4))
    return codes, factors


def test_equals_the_reference(golden):
    """Would catch importances of another kind, transposed sums, unweighted means, error for accuracy."""
    expected = golden.fixed["dci_gbt"]
    found = dci(*golden.train, *golden.test)
    for part in PARTS:
        # The reference's own spread over seeds, where equally good splits make one. Without such splits only
        # the order of additions differs: importances of 1e-14 for 0 move the entropies by about 1e-13.
        room = 4 * expected[part]["std"] + 1e-10
        assert found.details[part] == pytest.approx(expected[part]["mean"], abs=room), part
    room = 2 * expected["importance_matrix_max_abs_diff_over_seeds"] + 1e-10
    np.testing.assert_allclose(found.details["importance"], expected["importance_matrix_seed0"], atol=room)
    assert found.value == found.details["disentanglement"]


def test_equals_scikit_learn_on_one_code(noisy):
    """Would catch a fast path that is another metric than the slow one."""
    codes, factors = noisy
    # The third factor's two classes leave mirrored splits of one code equally good, which rounding decides.
    parts = _split(codes[:, :1], factors[:, :2])
    fast, slow = dci(*parts), dci(*parts, predictor="gbt-sklearn")
    for key in ("importance", "per_factor_train", "per_factor_test", "per_code", "per_factor"):
        np.testing.assert_allclose(fast.details[key], slow.details[key], atol=1e-9)


def test_closed_forms():
    """Would catch D and C swapped, a logarithm to another base, weights left out, or a NaN of an empty row."""
    exact = pytest.approx(1.0, abs=1e-8)
    assert disentanglement(np.eye(4)) == exact and completeness(np.eye(4)) == exact
    assert disentanglement(np.ones((5, 3))) == pytest.approx(0.0, abs=1e-12)
    assert completeness(np.ones((5, 3))) == pytest.approx(0.0, abs=1e-12)
    assert disentanglement(np.zeros((5, 3))) == completeness(np.zeros((5, 3))) == 0.0
    # Two codes share each of two factors: each code is pure, each factor is half of log 4 away from it.
    shared = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    assert disentanglement(shared) == exact
    assert completeness(shared) == pytest.approx(0.5, abs=1e-8)
    # Code 0 carries three quarters of the importance and is pure; code 1 serves both factors alike.
    weighted = np.array([[6.0, 0], [1, 1]])
    assert disentanglement(weighted) == pytest.approx(0.75, abs=1e-8)
    entropy = -(6 / 7 * np.log2(6 / 7) + 1 / 7 * np.log2(1 / 7))
    assert completeness(weighted) == pytest.approx(7 / 8 * (1 - entropy) + 1 / 8, abs=1e-8)


def test_single_codes_and_factors_are_defined():
    """Would catch a logarithm to the base 1."""
    column = np.array([[2.0], [1.0], [0.0]])
    assert disentanglement(column) == 1.0
    assert 0 < completeness(column) < 1
    assert completeness(column.T) == 1.0
    assert disentanglement(np.zeros((3, 1))) == completeness(np.zeros((1, 3))) == 0.0


@pytest.mark.parametrize(
    ("importance", "message"),
    [
        (np.zeros(3), r"must be numbers \(codes, factors\); got shape \(3,\)"),
        (np.array([[1.0, -0.1]]), "finite and not negative; take absolute values"),
        (np.array([[1.0, np.nan]]), "finite and not negative"),
    ],
)
def test_a_wrong_importance_is_refused(importance, message):
    """Would catch signed coefficients that cancel in a sum."""
    for part in (disentanglement, completeness):
        with pytest.raises(ValueError, match=message):
            part(importance)


def test_a_perfect_code_is_perfect_for_every_predictor(grid):
    """Would catch a predictor whose importances are not read per factor. Forests of depth 5 leave a remainder."""
    rows = grid.rng.permutation(np.repeat(np.arange(len(grid.factors)), 4))
    parts = _split(grid.perfect[rows], grid.factors[rows])
    for predictor in PREDICTORS:
        found = dci(*parts, predictor=predictor)
        assert found.value == pytest.approx(1.0, abs=1e-3), predictor
        assert found.details["completeness"] == pytest.approx(1.0, abs=1e-3), predictor
        assert found.details["informativeness_test"] > 0.95, predictor
        assert found.protocol["predictor"] == predictor


def test_order_sign_and_scale_of_codes_do_not_matter():
    """Would catch a dependence on the order of codes, or thresholds in absolute units.

    Equally good splits may go another way; what they leave is far below what any code is worth here.
    """
    rng = np.random.default_rng(1)
    factors = rng.integers(0, 2, (4000, 2))
    codes = factors @ np.array([[1.0, 0.2, 0], [0, 0.5, 1]]) + rng.normal(size=(4000, 3))
    parts = _split(codes, factors, 3000)
    plain = dci(*parts)
    order = [2, 0, 1]
    moved = dci(*_split(codes[:, order] * [4.0, -0.5, 2.0], factors, 3000))
    np.testing.assert_allclose(moved.details["importance"], plain.details["importance"][order], atol=4e-3)
    for part in PARTS:
        assert moved.details[part] == pytest.approx(plain.details[part], abs=4e-3)


def test_constant_and_duplicated_codes():
    """Would catch a constant code with weight, or a duplicate that lowers disentanglement."""
    rng = np.random.default_rng(2)
    factors = rng.integers(0, 4, (600, 2))
    codes = np.concatenate([factors, factors[:, :1], np.full((600, 1), 0.1)], axis=1) + 0.0
    for predictor in ("gbt", "lasso", "random_forest"):
        found = dci(*_split(codes, factors), predictor=predictor).details
        np.testing.assert_allclose(found["importance"][3], 0.0, atol=1e-12)
        assert found["code_weights"][3] == 0
        assert found["disentanglement"] > 0.99, predictor
    shared = dci(*_split(codes, factors)).details
    assert min(shared["importance"][0, 0], shared["importance"][2, 0]) > 0.3
    assert shared["per_factor"][0] < 0.6 < shared["per_factor"][1]


def test_regressors_say_one_minus_nrmse(noisy):
    """Would catch R² or an error that is lower when better; noise must come out near 0, not near 1."""
    rng = np.random.default_rng(3)
    factors = rng.integers(0, 10, (3000, 2))
    target = (factors[:, :1] - factors[:, 0].mean()) / factors[:, 0].std()
    codes = np.concatenate([target + 0.5 * rng.normal(size=(3000, 1)), rng.normal(size=(3000, 1))], axis=1)
    found = dci(*_split(codes, factors, 2000), predictor="lasso").details
    # The best linear guess of unit variance through noise of variance 1/4 leaves 1/5 of it.
    assert found["per_factor_test"][0] == pytest.approx(1 - np.sqrt(0.2), abs=0.03)
    assert abs(found["per_factor_test"][1]) < 0.02
    assert found["importance"][0, 0] == pytest.approx(1 / np.sqrt(1.25) - 0.02, abs=0.03)
    assert dci(*_split(*noisy), predictor="random_forest").details["informativeness_test"] > 0.3


def test_a_value_that_only_the_test_points_have_counts_as_wrong(noisy):
    """Would catch classes encoded over train and test together."""
    codes, factors = noisy
    train_z, train_v, test_z, test_v = _split(codes, factors * 3 + 1)
    unseen = test_v.copy()
    unseen[:, 0] = 99
    found = dci(train_z, train_v, test_z, unseen).details["per_factor_test"]
    assert found[0] == 0
    assert found[1] == dci(train_z, train_v, test_z, test_v).details["per_factor_test"][1] > 0.3


def test_progress_is_told_and_may_cancel(noisy):
    """Would catch a predictor that forgets its bar."""
    parts = _split(*noisy)
    for predictor, last in (("gbt", (100, 100)), ("lasso", (3, 3))):
        seen = []
        dci(*parts, predictor=predictor, progress=lambda *step, seen=seen: seen.append(step))
        assert seen[-1] == last and len(seen) == last[1]

    def cancel(done, total):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        dci(*parts, progress=cancel)


def test_what_is_wrong_is_said(noisy):
    """Would catch a predictor that is silently replaced, and a one-valued factor that becomes NaN."""
    codes, factors = noisy
    with pytest.raises(
        ValueError,
        match=r"Unknown predictor 'xgboost'; possible are gbt, gbt-sklearn, lasso, random_forest\.",
    ):
        dci(*_split(codes, factors), predictor="xgboost")
    with pytest.raises(ValueError, match=r"dci asks what the codes say .* factor 1 has one value only"):
        dci(*_split(codes, factors * [1, 0, 1]))
    with pytest.raises(ValueError, match="same dimensions and factors"):
        dci(codes, factors, codes[:, :2], factors)


def test_the_score_is_plain_and_repeats(noisy):
    """Would catch a hidden seed, and details that can't be written to a report."""
    parts = _split(*noisy)
    one, two = dci(*parts, threads=1), dci(*parts, threads=2)
    assert one.to_json() == two.to_json()
    assert one.protocol["train_points"] == 400 and one.protocol["test_points"] == 200
    assert one.details["importance"].shape == (4, 3)
    np.testing.assert_allclose(one.details["importance"].sum(axis=0), 1.0)
    assert one.value == pytest.approx(one.details["per_code"] @ one.details["code_weights"])


def test_importing_the_metric_compiles_nothing():
    """Would catch numba or torch imported with the module, a second for everyone who only wants MIG."""
    code = "import sys, latentlab.metrics.dci; print([m for m in ('numba', 'torch', 'llvmlite') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
