"""The table of budgets (`benchmarks/explorer.py`): what is broken is told as broken.

Fakes that are caught: a rate held against its budget the wrong way round, and a measurement that never came, counted as
kept.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

SOURCE = Path(__file__).parents[1] / "benchmarks" / "budgets" / "finding.py"


@pytest.fixture(scope="module")
def finding():
    spec = importlib.util.spec_from_file_location("budget_finding", SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[spec.name]


@pytest.mark.parametrize(
    ("measured", "at_least", "holds"),
    [(49.9, False, True), (50.0, False, True), (50.1, False, False), (np.inf, False, False), (np.nan, False, False),
     (50.1, True, True), (49.9, True, False), (np.nan, True, False)],
)  # fmt: skip
def test_a_budget_holds_only_where_the_number_keeps_it(finding, measured, at_least, holds):
    assert finding.Finding("drag", measured, "ms", 50.0, at_least).holds is holds


def test_without_a_budget_nothing_is_promised(finding):
    row = finding.Finding("drag", 1e9, "ms")
    assert row.holds is None and row.cells()[2:] == ("", "")


def test_times_are_held_by_their_95th_percentile(finding):
    """Would catch a middle in its place: here it keeps the budget and the slow pictures do not."""
    row = finding.times("drag", [10.0] * 90 + [100.0] * 10, 50.0)
    assert row.measured == 100.0 and row.holds is False
    assert row.cells() == ("drag, p95", "100 ms (p50 10, n 100)", "≤ 50 ms", "NO")


def test_a_table_is_written_as_markdown_and_as_json(finding, tmp_path: Path):
    rows = [
        finding.Finding("pan", 59.62, "frames a second", 58.0, True),
        finding.Finding("drag", 7.123, "ms"),
    ]
    finding.write(tmp_path / "t.md", rows, {"cores": "2"})
    lines = (tmp_path / "t.md").read_text().splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == list(finding.HEADS)
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == [
        "pan", "59.6 frames a second", "≥ 58 frames a second", "yes"
    ]  # fmt: skip
    assert len({len(line) for line in lines[:4]}) == 1 and lines[-1] == "cores 2"
    finding.write(tmp_path / "t.json", rows, {"cores": "2"})
    kept = json.loads((tmp_path / "t.json").read_text())
    assert [row["holds"] for row in kept["findings"]] == [True, None] and kept["machine"] == {"cores": "2"}
