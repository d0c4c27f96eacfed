"""What each metric promises about any codes: invariances, ceilings, floors, dead, doubled and refused ones."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from latentlab import metrics

ON_POINTS = {
    "mig": metrics.mig,
    "mig_sup": metrics.mig_sup,
    "dcimig": metrics.dcimig,
    "jemmig": metrics.jemmig,
    "modularity": metrics.modularity,
    "irs": metrics.irs,
}
ON_SPLITS = {
    "explicitness": metrics.explicitness,
    "sap": metrics.sap,
    "sap continuous": lambda *a: metrics.sap(*a, continuous=True),
}
ALL = [*ON_POINTS, *ON_SPLITS]


def value_of(name, codes, factors):
    """A metric's value; metrics with a test part get the same points there, in another order."""
    if name in ON_POINTS:
        return ON_POINTS[name](codes, factors).value
    return ON_SPLITS[name](codes, factors, codes[::-1].copy(), factors[::-1].copy()).value


@pytest.fixture
def noisy(grid):
    """Perfect codes with some noise, beside one code of pure noise."""
    codes = grid.perfect + 0.3 * grid.rng.normal(size=grid.perfect.shape)
    return np.hstack([codes, grid.rng.normal(size=(len(codes), 1))])


@pytest.mark.parametrize("name", ALL)
def test_order_and_sign_of_latents_do_not_matter(name, noisy, grid):
    """Would catch a metric that pairs code i with factor i."""
    before = value_of(name, noisy, grid.factors)
    turned = noisy[:, [2, 0, 3, 1]] * [1, -1, -1, 1]
    assert value_of(name, turned, grid.factors) == pytest.approx(before, abs=0.02)


@pytest.mark.parametrize("name", ["mig", "modularity", "jemmig", "dcimig", "explicitness", "sap continuous"])
def test_scale_of_latents_does_not_matter(name, noisy, grid):
    """Would catch bins of a fixed width or unstandardised regressions. SAP's classifier does mind, by design."""
    before = value_of(name, noisy, grid.factors)
    assert value_of(name, noisy * [8.0, 0.5, 2.0, 4.0], grid.factors) == pytest.approx(before, abs=1e-6)


def test_perfect_codes_reach_the_ceiling(grid):
    """Would catch a gap over the wrong axis, or a joint entropy that forgets the code."""
    for name in ("mig", "mig_sup", "dcimig", "modularity", "irs", "explicitness", "sap continuous"):
        assert value_of(name, grid.perfect, grid.factors) == pytest.approx(1.0, abs=1e-3), name
    assert value_of("jemmig", grid.perfect, grid.factors) > 0.75  # its room for the bins is not used up
    table = metrics.StateTable(grid.perfect, grid.sizes)
    assert metrics.beta_vae_score(table, train_points=600, eval_points=300).value > 0.97
    assert metrics.factor_vae_score(table, train_points=600, eval_points=300).value > 0.99


def test_noise_reaches_the_floor(grid):
    """Would catch a score that rewards whatever it is given; modularity does, and says so."""
    sizes = (3, 6, 8, 20)
    factors = np.stack([axis.ravel() for axis in np.indices(sizes)], axis=1)
    noise = grid.rng.normal(size=(len(factors), 6))
    assert value_of("mig", noise, factors) < 0.02
    assert value_of("sap continuous", noise, factors) < 0.02
    assert value_of("explicitness", noise, factors) < 0.6
    assert value_of("modularity", noise, factors) > 0.4
    table = metrics.StateTable(noise, sizes)
    chance = metrics.beta_vae_score(table, train_points=800, eval_points=800)
    assert chance.value < 0.45


@pytest.mark.parametrize("name", ALL)
def test_a_constant_code_gives_a_finite_value(name, grid):
    """Would catch NaN in silence, and modularity decided by rounding dust."""
    with_dead = np.hstack([grid.perfect, np.full((len(grid.perfect), 2), 0.1)])
    before, after = value_of(name, grid.perfect, grid.factors), value_of(name, with_dead, grid.factors)
    if name == "modularity":
        assert after == pytest.approx(3 / 5, abs=1e-12)  # each dead code counts as exactly 0
    elif name == "mig_sup":
        assert after == pytest.approx(3 / 5, abs=1e-12)
    else:
        assert after == pytest.approx(before, abs=1e-6)


@pytest.mark.parametrize("name", ["mig", "sap", "sap continuous", "jemmig"])
def test_a_duplicated_code_closes_the_gap(name, grid):
    """Would catch a gap to the third best, or duplicates left out in silence."""
    doubled = np.hstack([grid.perfect, grid.perfect])
    assert value_of(name, doubled, grid.factors) < value_of(name, grid.perfect, grid.factors) - 0.1
    if name != "jemmig":
        assert value_of(name, doubled, grid.factors) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_a_factor_of_one_value_is_refused_by_name(name, grid):
    """Would catch 0/0 in the entropy, or a free full mark for a factor that never moves."""
    factors = grid.factors.copy()
    factors[:, 1] = 4
    with pytest.raises(ValueError, match="factor 1 has one value only"):
        value_of(name, grid.perfect, factors)


@pytest.mark.parametrize("name", ALL)
def test_meaningless_requests_are_refused_with_the_reason(name, grid):
    """Would catch a number for 20 points, for no factor, or for codes that are not numbers."""
    some = slice(0, 20)
    with pytest.raises(ValueError, match=r"20 .*points are too few"):
        value_of(name, grid.perfect[some], grid.factors[some])
    with pytest.raises(ValueError, match="at least one"):
        value_of(name, grid.perfect, grid.factors[:, :0])
    broken = grid.perfect.copy()
    broken[3, 1] = np.nan
    with pytest.raises(ValueError, match="must be finite; 1 of 144 points"):
        value_of(name, broken, grid.factors)
    with pytest.raises(ValueError, match="must hold the same points"):
        value_of(name, grid.perfect[:-4], grid.factors)
    with pytest.raises(ValueError, match="whole numbers"):
        value_of(name, grid.perfect, grid.factors + 0.5)


def test_a_row_of_a_constant_code_is_exactly_zero(grid):
    """Would catch dust of 1e-16 that makes modularity's ratio a coin toss."""
    codes = np.hstack([grid.perfect, np.full((144, 1), 1 / 3)])
    assert (metrics.mutual_information_matrix(codes, grid.factors)[3] == 0).all()


def test_torch_tensors_are_read_like_arrays(noisy, grid):
    """Would catch a metric that needs numpy, or one that trips over a gradient."""
    codes = torch.tensor(noisy, requires_grad=True)
    found = metrics.mig(codes, torch.tensor(grid.factors))
    assert found.value == metrics.mig(noisy, grid.factors).value
    assert float(found) == found.value
    assert "mig" in repr(found) and found.to_json()["protocol"] == {"bins": 20, "points": 144}


def test_metrics_import_without_torch():
    """Would catch an import of torch on the way to a metric, or a package that takes seconds to import."""
    code = (
        "import sys\n"
        "import latentlab.metrics.report\n"
        "assert not {'sklearn', 'scipy', 'numba'} & set(sys.modules)\n"
        "import numpy as np\n"
        "from latentlab.metrics import *\n"
        "v = np.indices((4, 5, 6)).reshape(3, -1).T\n"
        "print(mig(v, v).value, factor_vae_score(StateTable(v, (4, 5, 6)), train_points=99, eval_points=99).value)\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [float(x) for x in done.stdout.split()] == pytest.approx([1.0, 1.0])


# -- the table and the metrics that hold a factor -------------------------------------------------------


def test_a_table_of_a_full_grid_counts_its_last_factor_fastest(grid):
    """Would catch a table whose rows are column-major."""
    table = metrics.StateTable(grid.perfect, grid.sizes)
    assert (table.factors == grid.factors).all()
    codes, factors = table.sample(500, seed=3)
    np.testing.assert_allclose(codes, (factors - grid.factors.mean(0)) / grid.factors.std(0))
    again, _ = table.sample(500, seed=3)
    assert (codes == again).all() and not (codes == table.sample(500, seed=4)[0]).all()


def test_rows_with_a_value_have_it_and_are_drawn_uniformly(grid):
    """Would catch a held factor that is not held, or that drags others with it."""
    table = metrics.StateTable(grid.perfect, grid.sizes)
    rows = table.rows_with(1, np.full(24_000, 4), grid.rng)
    assert (table.factors[rows, 1] == 4).all()
    counts = np.bincount(rows, minlength=len(table))[table.factors[:, 1] == 4]
    assert len(counts) == 24 and abs(counts - 1000).max() < 5 * np.sqrt(1000)


def test_a_table_of_any_rows_gives_the_scores_of_the_same_grid(grid):
    """Would catch conditional sampling by index that differs from sampling a grid."""
    order = grid.rng.permutation(len(grid.perfect))
    codes = grid.perfect @ np.linalg.qr(grid.rng.normal(size=(3, 3)))[0]
    full = metrics.StateTable(codes, grid.sizes)
    rows = metrics.StateTable(codes[order], factors=grid.factors[order] * 3 + 1)
    for metric in (metrics.beta_vae_score, metrics.factor_vae_score):
        a = np.mean([metric(full, seed, train_points=2000, eval_points=2000).value for seed in range(3)])
        b = np.mean([metric(rows, seed, train_points=2000, eval_points=2000).value for seed in range(3)])
        assert a == pytest.approx(b, abs=0.04), metric.__name__


def test_a_table_refuses_what_does_not_fit(grid):
    """Would catch sizes that do not make up the rows."""
    with pytest.raises(ValueError, match="make up 126 states, but there are 144 codes"):
        metrics.StateTable(grid.perfect, (3, 6, 7))
    with pytest.raises(ValueError, match="needs factor_sizes"):
        metrics.StateTable(grid.perfect)
    with pytest.raises(ValueError, match="same states"):
        metrics.StateTable(grid.perfect, factors=grid.factors[:5])
    single = metrics.StateTable(grid.perfect[:8], (8,))
    with pytest.raises(ValueError, match="at least two, got 1"):
        metrics.factor_vae_score(single)
    still = metrics.StateTable(grid.perfect, (1, 18, 8))
    with pytest.raises(ValueError, match="can't hold factor 0"):
        metrics.beta_vae_score(still)
    with pytest.raises(ValueError, match="20 points are too few"):
        metrics.factor_vae_score(metrics.StateTable(grid.perfect, grid.sizes), train_points=20)


def test_dead_and_tiny_codes_never_vote(grid):
    """Would catch 0/0 at threshold 0, and a code below the threshold that votes."""
    codes = np.hstack([np.zeros((144, 1)), grid.perfect, 1e-3 * grid.perfect[:, :1]])
    table = metrics.StateTable(codes, grid.sizes)
    found = metrics.factor_vae_score(table, train_points=500, eval_points=500)
    assert found.value > 0.99 and found.details["active"].tolist() == [False, True, True, True, False]
    loose = metrics.factor_vae_score(table, train_points=500, eval_points=500, threshold=0)
    assert loose.details["active_codes"] == 4 and np.isfinite(loose.value)
    nothing = metrics.factor_vae_score(table.with_codes(np.ones((144, 2))), train_points=500, eval_points=500)
    assert nothing.value == 0.0 and nothing.details["active_codes"] == 0


# -- unsupervised ---------------------------------------------------------------------------------------


def test_total_correlation_of_a_gaussian_is_its_closed_form():
    """Would catch log base 2, a missing half, or the entropy for the correlation."""
    rho = 0.8
    z = np.random.default_rng(1).normal(size=(200_000, 2)) @ np.linalg.cholesky([[1, rho], [rho, 1]]).T
    expected = -0.5 * np.log(1 - rho**2)
    assert metrics.gaussian_total_correlation(z).value == pytest.approx(expected, abs=0.01)
    assert metrics.gaussian_total_correlation(z * [1, 1e-6]).value == pytest.approx(expected, abs=0.01)


def test_singular_codes_are_refused_or_valued_as_the_docstrings_say(grid):
    """Would catch an infinite or NaN score in silence."""
    dead = np.hstack([grid.perfect, np.ones((144, 1))])
    with pytest.raises(ValueError, match="Code 3 is constant"):
        metrics.gaussian_total_correlation(dead)
    with pytest.raises(ValueError, match="linearly dependent"):
        metrics.gaussian_total_correlation(np.hstack([grid.perfect, grid.perfect[:, :1]]))
    assert metrics.gaussian_wasserstein_correlation(np.ones((60, 2))).details["normalized"] == 0
    plain = metrics.gaussian_wasserstein_correlation(grid.perfect).value
    assert metrics.gaussian_wasserstein_correlation(dead).value == pytest.approx(plain, abs=1e-9)
    doubled = metrics.mutual_info_between_codes(grid.perfect[:, [1, 1]])
    assert doubled.value == pytest.approx(np.log(6), abs=1e-9)
    with pytest.raises(ValueError, match="at least two, got one"):
        metrics.mutual_info_between_codes(grid.perfect[:, :1])


# -- udr ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lasso", "spearman"])
def test_udr_ranks_agreeing_models_above_rotated_ones(method, grid):
    """Would catch a score that any invertible map passes."""
    z = grid.rng.normal(size=(2000, 4))
    kl = np.array([2.0, 2.0, 2.0, 0.0])
    same = metrics.udr([(z, kl), (-z[:, [2, 0, 1, 3]], kl[[2, 0, 1, 3]]), (2 * z, kl)], method=method)
    turns = [np.linalg.qr(grid.rng.normal(size=(3, 3)))[0] for _ in range(3)]
    turned = metrics.udr([(z[:, :3] @ q, kl[:3]) for q in turns], method=method)
    assert same.value > 0.85 > 0.75 > turned.value
    assert same.details["per_model"].shape == (3,) and np.isnan(np.diag(same.details["pairs"])).all()


def test_udr_of_models_that_collapsed_is_zero_not_nan(grid):
    """Would catch defect D13: a mean over no code."""
    z = grid.rng.normal(size=(200, 3))
    found = metrics.udr([(z, np.zeros(3)), (z, np.ones(3)), (np.ones((200, 2)), np.ones(2))])
    assert found.value == 0.0
    with pytest.raises(ValueError, match="at least two, got 1"):
        metrics.udr([(z, np.ones(3))])
    with pytest.raises(ValueError, match="3 codes but 2 KL values"):
        metrics.udr([(z, np.ones(2)), (z, np.ones(3))])
    with pytest.raises(ValueError, match="lasso, spearman"):
        metrics.udr([(z, np.ones(3)), (z, np.ones(3))], method="pearson")


# -- continuous MIG --------------------------------------------------------------------------------------


def test_continuous_information_equals_a_closed_form():
    """Would catch a density that is not the mixture: two well separated posteriors tell ln 2 nats apart."""
    factors = np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 20)
    mean = np.stack([10.0 * factors[:, 0], 0.0 * factors[:, 0]], axis=1)
    found = metrics.continuous_mig(mean, np.zeros_like(mean), factors)
    np.testing.assert_allclose(found.details["information"], [[np.log(2), 0], [0, 0]], atol=1e-5)
    assert found.details["per_factor"] == pytest.approx([1.0, 0.0], abs=1e-5)
    assert found.details["mass_error"] < 1e-5


def test_continuous_information_agrees_with_sampling(grid):
    """Would catch the information of the means in place of the samples: posterior noise must cost."""
    mean, sigma = grid.perfect[:, :1], 0.5
    found = metrics.continuous_mig(mean, np.full_like(mean, 2 * np.log(sigma)), grid.factors)
    rng, n = np.random.default_rng(0), 40_000
    rows = rng.integers(144, size=n)
    z = mean[rows, 0] + sigma * rng.normal(size=n)

    def log_density(points, centers):
        return np.log(np.exp(-0.5 * ((points[:, None] - centers) / sigma) ** 2).mean(axis=1))

    marginal = log_density(z, mean[:, 0])
    given = np.empty(n)
    for value in range(3):
        mine = grid.factors[rows, 0] == value
        given[mine] = log_density(z[mine], mean[grid.factors[:, 0] == value, 0])
    expected = (given - marginal).mean()
    assert found.details["information"][0, 0] == pytest.approx(expected, abs=0.02)
    assert expected < 0.95 * np.log(3)


def test_a_posterior_too_narrow_for_the_grid_is_refused(grid):
    """Would catch a quadrature that misses the peaks and reports information out of nothing."""
    log_var = np.full_like(grid.perfect, 2 * np.log(1e-5))
    with pytest.raises(ValueError, match="too narrow for 2000 grid points"):
        metrics.continuous_mig(grid.perfect + grid.rng.normal(size=grid.perfect.shape), log_var, grid.factors)


# -- interventional view ---------------------------------------------------------------------------------


def test_the_interventional_view_tells_what_moves_from_what_does_not(grid):
    """Would catch groups of another factor, bands of the means, or NaN for a constant code."""
    noise = grid.rng.normal(size=144)
    codes = np.stack(
        [grid.perfect[:, 1], grid.perfect[:, 1] + noise, grid.perfect[:, 0], np.ones(144)], axis=1
    )
    view = metrics.interventional_view(codes, grid.factors * 10, 1)
    assert view.values.tolist() == [0, 10, 20, 30, 40, 50] and view.mean.shape == (6, 4)
    np.testing.assert_allclose(view.low[:, 0], view.high[:, 0])
    assert view.moved[0] == pytest.approx(1) and 0.3 < view.moved[1] < 0.7
    assert view.moved[2] == pytest.approx(0) and view.moved[3] == 0
    assert (view.low[:, 1] < view.mean[:, 1]).all() and (view.mean[:, 1] < view.high[:, 1]).all()
    with pytest.raises(ValueError, match="a column from 0 to 2; got 3"):
        metrics.interventional_view(codes, grid.factors, 3)
    with pytest.raises(ValueError, match="between 0 and 1; got 1"):
        metrics.interventional_view(codes, grid.factors, 0, coverage=1.0)
