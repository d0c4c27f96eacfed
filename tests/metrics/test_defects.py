"""Known defects of public implementations: each faulty form is written down, and the check that it fails."""

import numpy as np

from latentlab import metrics


def test_mig_does_not_scramble_the_axes(grid):
    """D10: codes (n, d) viewed as (d, n) mix points and dimensions; the MIG of perfect codes drops to nothing."""

    def scrambled(codes, factors):
        return metrics.mig(codes.reshape(codes.shape[1], -1).T, factors).value

    factors = np.tile(grid.factors, (20, 1))
    order = grid.rng.permutation(len(factors))
    factors = factors[order]
    codes = np.tile(grid.perfect, (20, 1))[order]

    def right(score):
        return score(codes, factors) > 0.99

    assert not right(scrambled)
    assert right(lambda z, v: metrics.mig(z, v).value)


def test_active_codes_of_the_factor_vae_score_are_counted(grid):
    """D11: the length of the mask is the number of all codes, never of the active ones."""
    codes = np.hstack([grid.perfect, np.zeros((144, 4))])
    found = metrics.factor_vae_score(metrics.StateTable(codes, grid.sizes), train_points=200, eval_points=200)
    faulty = len(found.details["active"])
    assert faulty == 7 and found.details["active_codes"] == 3
    assert isinstance(found.details["active_codes"], int)


def test_active_codes_of_irs_are_counted_not_summed(grid):
    """D12: the sum over the active codes is a sum of values, about zero for centred codes, and no number of codes."""
    codes = np.hstack([grid.perfect, np.full((144, 2), 3.0)])
    found = metrics.irs(codes, grid.factors)
    faulty = codes[:, found.details["active"]].sum()
    assert abs(faulty) < 1e-9 and found.details["active_codes"] == 3


def test_udr_has_a_value_when_a_model_has_no_informative_code(grid):
    """D13: means and medians over an empty matrix are NaN, which then wins or loses every comparison."""

    def faulty(matrix):
        with np.errstate(all="ignore"):
            return np.float64(matrix.sum()) / matrix.size if matrix.size else np.float64("nan")

    z, kl = grid.perfect, np.ones(3)
    collapsed = np.zeros(3)
    assert np.isnan(faulty(np.zeros((3, 0))))
    found = metrics.udr([(z, kl), (z, kl), (z, collapsed)])
    assert np.isfinite(found.details["per_model"]).all()
    assert found.details["per_model"][2] == 0.0 and found.details["per_model"][0] > 0.3


def test_udr_regresses_each_code_on_its_own(grid):
    """D13: a lasso that shares its choice of inputs among targets can't tell which code answers which."""
    z = grid.rng.normal(size=(3000, 3))
    turned = z[:, [1, 2, 0]]
    found = metrics.udr([(z, np.ones(3)), (turned, np.ones(3))])
    shared = np.abs(np.linalg.lstsq(z, turned.sum(1), rcond=None)[0])  # one fit for the sum of all targets
    faulty = np.mean(np.tile(shared[:, None], (1, 3)).max(0) ** 2 / np.tile(shared[:, None], (1, 3)).sum(0))
    assert faulty < 0.5 < found.value
