"""Runs beside each other under one protocol: seeds as distributions, never a single number alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from latentlab.metrics.report import REFERENCES, Report


def leaderboard(reports: Sequence[Report]) -> str:
    """Reports of several runs side by side as aligned text, best first by the first score; seeds as intervals.

    Runs whose names differ only by a number at the end ("factor-vae-1", "factor-vae-2") are seeds of one
    method: after them comes a line with the median and range over such runs.

    Raises:
        ValueError: if they are of different protocols or data sets, whose numbers must not be compared.
    """
    if len({report.protocol for report in reports}) > 1:
        raise ValueError("Only reports of one protocol can be compared; these differ.")
    if len({(report.dataset, report.factor_names, report.factor_sizes) for report in reports}) > 1:
        raise ValueError(
            "Only runs on one data set can be compared; these are on "
            f"{', '.join(sorted({r.dataset for r in reports}))}."
        )
    rows = reports[0].rows
    labels = [row.label for row in rows]
    values = {report.subject: {row.label: row for row in report.rows} for report in reports}

    def rank(report: Report) -> float:
        first = values[report.subject][labels[0]].value
        return float("-inf") if first is None else first if rows[0].higher_is_better else -first

    ordered = sorted(reports, key=rank, reverse=True)
    groups: dict[str, list[Report]] = {}
    for report in ordered:
        groups.setdefault(report.subject.rstrip("0123456789").rstrip("-_ "), []).append(report)
    columns: list[tuple[str, list[str]]] = []
    for report in ordered:
        cells = []
        for label in labels:
            row = values[report.subject][label]
            half = "" if row.high is None or row.value is None else f" ±{row.high - row.value:.3f}"
            cells.append("none" if row.value is None else f"{row.value:.3f}{half}")
        columns.append((report.subject, cells))
    for name, members in groups.items():
        if len(members) < 2:
            continue
        cells = []
        for label in labels:
            found = [v for m in members if (v := values[m.subject][label].value) is not None]
            cells.append(
                f"{np.median(found):.3f} ({min(found):.3f} to {max(found):.3f})" if found else "none"
            )
        columns.append((f"{name}, median of {len(members)}", cells))
    for kind in reversed(REFERENCES):
        marks = [getattr(row, kind) for row in rows]
        if any(mark is not None for mark in marks):
            columns.append((f"({kind})", ["" if mark is None else f"{mark:.3f}" for mark in marks]))
    head = [""] + [name for name, _ in columns]
    table = [head] + [[label, *(cells[i] for _, cells in columns)] for i, label in enumerate(labels)]
    widths = [max(len(line[i]) for line in table) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    )
