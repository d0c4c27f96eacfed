"""Charts of reports: the drawn numbers are the report's."""

import dataclasses

import numpy as np
import pytest

from latentlab.metrics import interventional_view
from latentlab.metrics.report import write_report
from latentlab.viz import scores


@pytest.fixture
def report():
    """A report with a refused score and one reference of each kind."""
    factors = np.stack([axis.ravel() for axis in np.indices((3, 6, 20))], axis=1)
    perfect = (factors - factors.mean(0)) / factors.std(0)
    return write_report(
        np.hstack([perfect, np.ones((360, 1))]),
        factors=factors,
        factor_names=("shape", "scale", "x"),
        dim_names=("z0", "z1", "z2", "z3"),
        measures=("mig", "sap", "total_correlation"),
        seeds=(0, 1),
        subject="mine",
    )


def values_of(chart):
    """All rows of data in a chart, layered or not."""
    found = []

    def walk(node):
        if isinstance(node, dict):
            data = node.get("data")
            if isinstance(data, dict):
                found.extend(data.get("values", []))
            for part in node.values():
                walk(part)
        elif isinstance(node, list):
            for part in node:
                walk(part)

    walk(chart.to_dict())
    return found


def test_the_strip_shows_values_intervals_and_marks(report):
    """Would catch marks of another row, and a refused score drawn at zero."""
    rows = values_of(scores.score_strip(report))
    dots = {row["score"]: row["value"] for row in rows if "low" in row}
    assert dots == {row.label: row.value for row in report.rows if row.value is not None}
    marks = {(row["score"], row["mark"]): row["value"] for row in rows if "mark" in row}
    assert marks["MIG", "noise"] == report.row("MIG").noise and len(marks) == 3 * len(dots)
    nats = dataclasses.replace(report.row("MIG"), value=1.9)
    assert scores.on_unit_scale(report.row("MIG")) and not scores.on_unit_scale(nats)


def test_the_matrices_show_the_reports(report):
    """Would catch codes and factors swapped."""
    cells = {
        (row["row"], row["column"]): row["value"] for row in values_of(scores.information_matrix(report))
    }
    assert cells["z1", "scale"] == report.information[1, 1] and cells["z3", "x"] == 0
    with pytest.raises(ValueError, match="holds no DCI importances"):
        scores.importance_matrix(report)


def test_distributions_show_every_seed(report):
    """Would catch a mean drawn for the seeds."""
    rows = values_of(scores.score_distributions([report], "SAP"))
    drawn = [row["value"] for row in rows if row.get("run") == "mine"]
    assert set(report.row("SAP").values) <= set(drawn)
    with pytest.raises(KeyError, match="MIG, SAP"):
        scores.score_distributions([report], "IRS")


def test_interventions_show_the_most_moved_codes_first(report):
    """Would catch panels in the order of the codes, or of other codes."""
    rng = np.random.default_rng(0)
    factors = rng.integers(0, 4, (400, 2))
    codes = np.stack(
        [rng.normal(size=400), factors[:, 1] + 0.1 * rng.normal(size=400), factors[:, 0]], axis=1
    )
    chart = scores.interventions(interventional_view(codes, factors, 1), ["a", "b", "c"], most=2)
    shown = list(dict.fromkeys(row["code"] for row in values_of(chart)))
    assert shown[0].startswith("b (9") and len(shown) == 2
