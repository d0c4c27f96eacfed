"""Charts of score reports: each value beside its interval and its marks, and runs as distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from latentlab.metrics.irs import InterventionalView
from latentlab.metrics.report import REFERENCES, Report, Row
from latentlab.viz.charts import matrix

if TYPE_CHECKING:
    import altair as alt

_TONE = "#1489a8"  # reads on light and on dark
_CHROME = 76  # pixels of a stretched chart's height that its legend and axis take
_TITLE = 44  # and the title of its axis
_MARK_COLOURS = {"noise": "#9aa4ab", "rotation": "#c98a1b", "perfect": "#2f8f5b"}


def on_unit_scale(row: Row) -> bool:
    """Whether a score and its references lie between 0 and 1, so that it can share an axis with others."""
    shown = [v for v in (row.value, *(getattr(row, kind) for kind in REFERENCES)) if v is not None]
    return row.higher_is_better and bool(shown) and all(-0.05 <= v <= 1.05 for v in shown)


def score_strip(report: Report, *, height: int = 30) -> alt.LayerChart | alt.FacetChart:
    """Scores from 0 to 1 on one axis: a dot with its interval, and ticks where the references stand.

    Args:
        report: scores without a value, and those of another scale (nats, distances), are left out.
        height: pixels of a row.
    """
    import altair as alt

    rows = [row for row in report.rows if on_unit_scale(row)]
    order = [row.label for row in rows]
    values = [{"score": row.label, "value": row.value, "low": row.low, "high": row.high} for row in rows]
    marks = [
        {"score": row.label, "value": getattr(row, kind), "mark": kind}
        for row in rows
        for kind in REFERENCES
        if getattr(row, kind) is not None
    ]
    y = alt.Y("score:N", sort=order, title=None, axis=alt.Axis(labelLimit=280))
    shown = [v["value"] for v in (*values, *marks)]
    domain = [min(0.0, *shown), max(1.0, *shown)]
    x = alt.X("value:Q", title=None, scale=alt.Scale(domain=domain, nice=False))
    intervals = (
        alt.Chart(alt.Data(values=[v for v in values if v["low"] is not None]))
        .mark_rule(color=_TONE, strokeWidth=5, opacity=0.35)
        .encode(x=alt.X("low:Q", title=None), x2="high:Q", y=y)
    )
    ticks = (
        alt.Chart(alt.Data(values=marks))
        .mark_tick(thickness=3, size=max(10, height - 12))
        .encode(
            x=x,
            y=y,
            color=alt.Color(
                "mark:N",
                scale=alt.Scale(domain=list(_MARK_COLOURS), range=list(_MARK_COLOURS.values())),
                legend=alt.Legend(title=None, orient="top"),
            ),
            tooltip=["score:N", "mark:N", alt.Tooltip("value:Q", format=".3f")],
        )
    )
    dots = (
        alt.Chart(alt.Data(values=values))
        .mark_circle(size=110, color=_TONE, opacity=1)
        .encode(
            x=x,
            y=y,
            tooltip=[
                "score:N",
                alt.Tooltip("value:Q", format=".3f"),
                alt.Tooltip("low:Q", format=".3f"),
                alt.Tooltip("high:Q", format=".3f"),
            ],
        )
    )
    return alt.layer(ticks, intervals, dots).properties(height=_CHROME + height * len(rows))


def information_matrix(report: Report, *, dark: bool = False) -> Any:
    """Mutual information of code and factor, nats, as a heat map; codes in rows."""
    return matrix(report.information, report.dim_names, report.factor_names, dark=dark)


def importance_matrix(report: Report, *, dark: bool = False) -> Any:
    """DCI's importances as a heat map; codes in rows.

    Raises:
        ValueError: if the report's protocol has no DCI.
    """
    if report.importance is None:
        raise ValueError(f"A report under {report.protocol} holds no DCI importances.")
    return matrix(report.importance, report.dim_names, report.factor_names, dark=dark)


def interventions(
    view: InterventionalView, dim_names: Sequence[str], *, most: int = 6, height: int = 130
) -> alt.FacetChart | alt.LayerChart:
    """Each code's mean and central band against the value that a factor is set to, the most moved first.

    Args:
        view: of one factor.
        dim_names: names of the codes, (d,).
        most: number of codes shown.
        height: pixels of a panel.
    """
    import altair as alt

    order = [int(i) for i in (-view.moved).argsort(kind="stable")[:most]]
    titles = {i: f"{dim_names[i]} ({view.moved[i]:.0%} explained)" for i in order}
    rows = [
        {
            "code": titles[i],
            "value": int(value),
            "mean": float(view.mean[row, i]),
            "low": float(view.low[row, i]),
            "high": float(view.high[row, i]),
        }
        for i in order
        for row, value in enumerate(view.values)
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(x=alt.X("value:Q", title=None))
    band = base.mark_area(color=_TONE, opacity=0.25).encode(y=alt.Y("low:Q", title=None), y2="high:Q")
    line = base.mark_line(color=_TONE, point={"size": 12, "color": _TONE}).encode(
        y=alt.Y("mean:Q", title=None),
        tooltip=["code:N", "value:Q", alt.Tooltip("mean:Q", format=".2f")],
    )
    return (
        alt.layer(band, line)
        .properties(width=205, height=height)
        .facet(alt.Facet("code:N", title=None, sort=[titles[i] for i in order]), columns=3)
    )


def score_distributions(
    reports: Sequence[Report], label: str, *, height: int = 34
) -> alt.LayerChart | alt.FacetChart:
    """One score of several runs: every seed's value as a dot, the runs' means as ticks, references as lines.

    Args:
        reports: of one protocol.
        label: which score.
        height: pixels of a run's row.

    Raises:
        KeyError: if a report has no such score.
    """
    import altair as alt

    rows = [(report.subject, report.row(label)) for report in reports]
    rows = [(name, row) for name, row in rows if row.value is not None]
    order = [name for name, row in sorted(rows, key=lambda r: -(r[1].value or 0.0))]
    dots = [{"run": name, "value": value} for name, row in rows for value in row.values]
    means = [{"run": name, "value": row.value} for name, row in rows]
    y = alt.Y("run:N", sort=order, title=None, axis=alt.Axis(labelLimit=280, minExtent=150))
    x = alt.X("value:Q", title=label)
    lines = [
        {"mark": kind, "value": getattr(rows[0][1], kind)}
        for kind in REFERENCES
        if rows and getattr(rows[0][1], kind) is not None
    ]
    rule = (
        alt.Chart(alt.Data(values=lines))
        .mark_rule(strokeDash=[4, 3], strokeWidth=1.5)
        .encode(
            x=x,
            color=alt.Color(
                "mark:N",
                scale=alt.Scale(domain=list(_MARK_COLOURS), range=list(_MARK_COLOURS.values())),
                legend=alt.Legend(title=None, orient="top", symbolType="stroke"),
            ),
        )
    )
    points = (
        alt.Chart(alt.Data(values=dots))
        .mark_circle(size=70, opacity=0.55, color=_TONE)
        .encode(x=x, y=y, tooltip=["run:N", alt.Tooltip("value:Q", format=".3f")])
    )
    ticks = (
        alt.Chart(alt.Data(values=means))
        .mark_tick(thickness=3, size=height - 12, color=_TONE)
        .encode(x=x, y=y, tooltip=["run:N", alt.Tooltip("value:Q", format=".3f")])
    )
    return alt.layer(rule, points, ticks).properties(height=_CHROME + _TITLE + height * len(rows))
