"""Reports: what a person reads, keeps and compares."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from latentlab.metrics.leaderboard import leaderboard
from latentlab.metrics.protocols import PROTOCOLS
from latentlab.metrics.report import Report, reference_codes, reference_marks, write_report
from latentlab.metrics.table import StateTable

NAMES = ("shape", "scale", "x")
QUICK = ("mig", "sap", "total_correlation")


@pytest.fixture
def grid():
    """3 x 6 x 60 states: enough that noise knows little of them."""
    sizes = (3, 6, 60)
    factors = np.stack([axis.ravel() for axis in np.indices(sizes)], axis=1)
    perfect = (factors - factors.mean(0)) / factors.std(0)
    return SimpleNamespace(sizes=sizes, factors=factors, perfect=perfect, rng=np.random.default_rng(0))


@pytest.fixture
def codes(grid):
    """Perfect codes with noise, beside one code of noise."""
    noise = grid.rng.normal(size=(len(grid.perfect), 4))
    return np.hstack([grid.perfect + 0.2 * noise[:, :3], noise[:, 3:]])


def report_of(codes, grid, **options):
    """A quick report of these codes."""
    given = {"measures": QUICK, "seeds": (0, 1, 2), "factor_names": NAMES, "subject": "a-1", **options}
    names = [f"z{i}" for i in range(codes.shape[1])]
    return write_report(codes, factors=given.pop("factors", grid.factors), dim_names=names, **given)


def test_marks_are_in_order_and_the_value_lies_between(codes, grid):
    """Would catch references scored on other conventions, or the noise mark computed from the codes."""
    row = report_of(codes, grid).row("MIG")
    assert row.noise < row.rotation < row.value < row.perfect
    assert row.noise < 0.1 and row.perfect > 0.85
    assert row.low < row.value < row.high
    assert len(row.values) == 3 and np.mean(row.values) == pytest.approx(row.value)


def test_reference_codes_hold_what_they_say(grid):
    """Would catch a rotation that scales, and perfect codes that leave a factor out in silence."""
    table = StateTable(grid.perfect, grid.sizes)
    rng = np.random.default_rng(0)
    perfect = reference_codes(table, "perfect", 5, rng)
    np.testing.assert_allclose(perfect[:, :3], grid.perfect)
    turned = reference_codes(table, "rotation", 5, rng)[:, :3]
    np.testing.assert_allclose(turned.T @ turned, grid.perfect.T @ grid.perfect, atol=1e-9)
    assert np.abs(turned - grid.perfect).max() > 0.3
    np.testing.assert_allclose(reference_codes(table, "perfect", 2, rng), grid.perfect[:, :2])


def test_a_report_survives_json_and_a_damaged_one_is_refused(codes, grid):
    """Would catch arrays lost on the way to disk, and a traceback for a file of something else."""
    report = report_of(codes, grid)
    again = Report.from_json(report.to_json())
    assert again.to_json() == report.to_json() and again.rows == report.rows
    assert json.loads(report.to_json())["matching"] == {"shape": "z0", "scale": "z1", "x": "z2"}
    for text in ("", "[]", "{}", '{"format": 99}', report.to_json().replace('"rows"', '"lines"')):
        with pytest.raises(ValueError, match="not a report"):
            Report.from_json(text)


def test_a_score_that_codes_cannot_have_is_said_in_its_row(codes, grid):
    """Would catch one refused score that takes the whole report with it."""
    dead = np.hstack([codes, np.ones((len(codes), 1))])
    report = report_of(dead, grid)
    row = report.row("Gaussian total correlation (nats)")
    assert row.value is None and "Code 4 is constant" in row.reason
    assert report.row("MIG").value > 0.5
    assert "Code 4 is constant" in report.table() and "Code 4 is constant" in report.markdown()


def test_factors_that_cannot_be_asked_about_are_named(codes, grid):
    """Would catch a factor dropped in silence, and a report about nothing."""
    factors = grid.factors.copy()
    factors[:, 0] = 2
    report = report_of(codes, grid, factors=factors)
    assert report.factor_names == ("scale", "x") and report.notes == (
        "shape has one value only and is left out",
    )
    with pytest.raises(ValueError, match="No factor takes more than one value"):
        report_of(codes, grid, factors=np.zeros_like(factors))
    with pytest.raises(ValueError, match="dlib, chen2018, infogan-cr, continuous"):
        report_of(codes, grid, protocol="mine")
    with pytest.raises(ValueError, match="no measure 'MIG'; it has mig"):
        report_of(codes, grid, measures=["MIG"])
    with pytest.raises(ValueError, match="at least one seed"):
        report_of(codes, grid, seeds=())
    with pytest.raises(ValueError, match="20 states are too few"):
        report_of(codes[::54], grid, factors=grid.factors[::54])


def test_chen2018_leaves_shape_out_and_needs_variances(codes, grid):
    """Would catch a protocol in name only."""
    log_var = np.full(codes.shape, -4.0)
    report = report_of(codes, grid, protocol="chen2018", measures=None, log_var=log_var)
    assert report.factor_names == ("scale", "x") and report.notes == (
        "shape is not asked about under chen2018",
    )
    row = report.row("MIG, continuous")
    assert row.exact and row.low is None and row.noise < 0.3 * row.perfect and row.value < row.perfect
    without = report_of(codes, grid, protocol="chen2018", measures=None)
    assert "variances of the posterior" in without.row("MIG, continuous").reason


def test_codes_are_named_after_the_factor_they_know(codes, grid):
    """Would catch a label for a code of noise, or nats for shares."""
    report = report_of(codes, grid)
    name, nats = report.factor_of("z1")
    assert name == "scale" and 0.8 * np.log(6) < nats <= np.log(6)
    assert report.factor_of("z3") is None


def test_known_references_are_taken_over(codes, grid):
    """Would catch references computed again, or mixed up between rows."""
    first = report_of(codes, grid)
    ticks = []
    second = report_of(
        codes, grid, known=reference_marks(first), progress=lambda share, what: ticks.append((share, what))
    )
    assert second.rows == first.rows
    shares = [share for share, _ in ticks]
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert not any("codes" in what for _, what in ticks)


def test_progress_may_cancel(codes, grid):
    """Would catch an interruption swallowed as a refused score."""

    def stop(share, what):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        report_of(codes, grid, progress=stop)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_runs_whole(protocol, grid):
    """Would catch a protocol that asks a metric for what it does not have."""
    sizes = (3, 4, 5)
    factors = np.stack([axis.ravel() for axis in np.indices(sizes)], axis=1)
    perfect = (factors - factors.mean(0)) / factors.std(0)
    report = write_report(
        perfect,
        factors=factors,
        factor_names=NAMES,
        dim_names=("a", "b", "c"),
        log_var=np.full(perfect.shape, -6.0),
        categorical=("shape",),
        protocol=protocol,
        seeds=(0,),
        references=False,
    )
    assert all(row.value is not None for row in report.rows), [row.reason for row in report.rows]
    assert report.rows[0].value > 0.9
    assert (report.importance is not None) == any(
        "DCI" in row.label for row in report.rows if "MIG" not in row.label
    )


def test_the_leaderboard_orders_runs_and_shows_seeds_as_a_spread(codes, grid):
    """Would catch a ranking by name, and a single number where there are several seeds."""
    good = report_of(codes, grid, subject="beta-1")
    worse = report_of(codes + grid.rng.normal(size=codes.shape), grid, subject="beta-2")
    other = report_of(grid.rng.normal(size=codes.shape), grid, subject="noise")
    text = leaderboard([other, worse, good])
    head = text.splitlines()[0]
    assert head.index("beta-1") < head.index("beta-2") < head.index("noise") < head.index("(perfect)")
    assert "beta, median of 2" in head and "±" in text
    with pytest.raises(ValueError, match="one protocol"):
        leaderboard([good, report_of(codes, grid, protocol="continuous", measures=["sap"])])
    with pytest.raises(ValueError, match="one data set"):
        leaderboard([good, report_of(codes, grid, dataset="other")])
