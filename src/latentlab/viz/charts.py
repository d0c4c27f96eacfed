"""Interactive charts in Altair, the one chart library of the house: Streamlit and notebooks both show it.

Altair is imported when a chart is made. ``raster_map`` is the static map, which needs no Altair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from latentlab.analysis.encoding import Encoding
from latentlab.analysis.projection import Projection
from latentlab.viz.colours import ACCENT, CATEGORIES, LINE, on_paper
from latentlab.viz.raster import bars as bars
from latentlab.viz.raster import colour_values, is_categorical
from latentlab.viz.raster import matrix_picture as matrix_picture
from latentlab.viz.raster import raster_map as raster_map

if TYPE_CHECKING:
    import altair as alt

_MOST_POINTS = 20_000
_MOST_STEPS = 400


def training_curves(
    metrics: Mapping[str, Any], columns: Sequence[str] | None = None, *, x: str = "step", height: int = 180
) -> alt.Chart | alt.FacetChart:
    """Curves of a run's metrics, one panel each.

    Args:
        metrics: {column: values (n,)}, as ``Run.metrics()`` gives them.
        columns: which to draw; None for all numeric ones but ``x``.
        x: the column along the horizontal axis.
        height: pixels of a panel.

    Raises:
        ValueError: if a column is missing.
    """
    import altair as alt

    if x not in metrics:
        raise ValueError(f"No column {x!r} in the metrics; they have {', '.join(metrics)}.")
    if columns is None:
        columns = [name for name, v in metrics.items() if name != x and np.asarray(v).dtype.kind in "fiu"]
    missing = [name for name in columns if name not in metrics]
    if missing:
        raise ValueError(f"No column {missing[0]!r} in the metrics; they have {', '.join(metrics)}.")
    position = np.asarray(metrics[x], dtype=float)
    kept = np.unique(np.linspace(0, len(position) - 1, min(len(position), _MOST_STEPS)).astype(int))
    rows = []
    for name in columns:
        values = np.asarray(metrics[name], dtype=float)[kept]
        rows += [
            {x: at, "metric": name, "value": value}
            for at, value in zip(position[kept].tolist(), values.tolist(), strict=True)
            if np.isfinite(value)
        ]
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_line(color=_hex(ACCENT), strokeWidth=1.5)
        .encode(
            x=alt.X(f"{x}:Q", title=x),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
            tooltip=[alt.Tooltip(f"{x}:Q"), alt.Tooltip("value:Q", format=".4g")],
        )
        .properties(width=300, height=height)
        .facet(alt.Facet("metric:N", title=None, sort=list(columns)), columns=3)
        .resolve_scale(y="independent")
    )


def kl_bars(encoding: Encoding, *, height: int = 16) -> alt.Chart:
    """KL of each coordinate in nats, the most informative first, collapsed ones grey.

    Args:
        encoding: the encoding of a data set.
        height: pixels of a bar.
    """
    import altair as alt

    rows = [
        {
            "latent": encoding.dim_names[i],
            "KL": float(encoding.kl_per_dim[i]),
            "state": "active" if encoding.active[i] else "collapsed",
            "variance of means": float(encoding.mean[:, i].var()),
        }
        for i in encoding.order
    ]
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(height={"band": 0.8})
        .encode(
            x=alt.X("KL:Q", title="KL, nats per image"),
            y=alt.Y("latent:N", sort=[row["latent"] for row in rows], title=None),
            color=alt.Color(
                "state:N",
                scale=alt.Scale(domain=["active", "collapsed"], range=[_hex(ACCENT), _hex(LINE)]),
                legend=alt.Legend(title=None, orient="bottom-right"),
            ),
            tooltip=[
                alt.Tooltip("latent:N"),
                alt.Tooltip("KL:Q", format=".3f"),
                alt.Tooltip("variance of means:Q", format=".3f"),
                alt.Tooltip("state:N"),
            ],
        )
        .properties(height=max(60, height * len(rows)))
    )


def matrix(
    values: Any, rows: Sequence[str], columns: Sequence[str], title: str = "", *, dark: bool = False
) -> alt.LayerChart | alt.FacetChart:
    """A matrix as coloured cells with their numbers.

    Args:
        values: (rows, columns); negative ones make the scale diverge around 0.
        rows: names of the rows.
        columns: names of the columns.
        title: text above.
        dark: whether it stands on a dark page, where zero is dark and the largest value bright.

    Raises:
        ValueError: if the names don't fit the matrix.
    """
    import altair as alt

    values = np.asarray(values, dtype=float)
    if values.shape != (len(rows), len(columns)):
        raise ValueError(f"A matrix {values.shape} needs as many names; got {len(rows)} and {len(columns)}.")
    limit = max(float(np.abs(values).max(initial=0.0)), 1e-12)
    signed = bool((values < 0).any())
    table = [
        {"row": r, "column": c, "value": float(values[i, j]), "small": bool(abs(values[i, j]) < 0.55 * limit)}
        for i, r in enumerate(rows)
        for j, c in enumerate(columns)
    ]
    scale = (
        alt.Scale(
            domain=[-limit, 0, limit],
            range=["#8fc1ff", "#1d2327", "#ffb08f"] if dark else ["#103478", "#fafafa", "#7c1024"],
        )
        if signed
        else alt.Scale(domain=[0, limit], range=["#1d2327", "#3fb3cf"] if dark else ["#f4f6f7", _hex(ACCENT)])
    )
    on_small, on_large = ("#e6eaec", "#14181b") if dark else ("#1d2327", "#ffffff")
    grid = alt.Chart(alt.Data(values=table)).encode(
        x=alt.X(
            "column:N", sort=list(columns), title=None, axis=alt.Axis(labelAngle=-40, labelOverlap=False)
        ),
        y=alt.Y("row:N", sort=list(rows), title=None),
    )
    cells = grid.mark_rect().encode(
        color=alt.Color("value:Q", scale=scale, legend=None),
        tooltip=["row:N", "column:N", alt.Tooltip("value:Q", format=".4g")],
    )
    numbers = grid.mark_text(fontSize=10).encode(
        text=alt.Text("value:Q", format=".2f"),
        color=alt.condition("datum.small", alt.value(on_small), alt.value(on_large)),
    )
    size = {"width": max(120, 42 * len(columns)), "height": max(60, 30 * len(rows))}
    return (cells + numbers).properties(title=title, **size)


def scatter(projection: Projection, colour: Any = None, *, size: int = 520) -> alt.Chart:
    """A map as an interactive scatter plot: pan, zoom, tooltips.

    Args:
        projection: a projection to two dimensions, of at most 20,000 points (use ``raster_map`` above that).
        colour: a factor's name, or a value for each point; None for one colour.
        size: pixels of a side.

    Raises:
        ValueError: on more points, or on colours that don't fit.
    """
    import altair as alt

    n = len(projection.points)
    if n > _MOST_POINTS:
        raise ValueError(
            f"A scatter plot takes at most {_MOST_POINTS} points; got {n}. Use raster_map instead."
        )
    values, label, names = colour_values(projection, colour)
    label = label or "value"
    index = np.arange(n) if projection.indices is None else projection.indices
    rows: list[dict[str, Any]] = [
        {"x": float(x), "y": float(y), "image": int(i)}
        for (x, y), i in zip(projection.points[:, :2], index, strict=True)
    ]
    encodings: dict[str, Any] = {
        "x": alt.X("x:Q", axis=None, scale=alt.Scale(zero=False)),
        "y": alt.Y("y:Q", axis=None, scale=alt.Scale(zero=False)),
        "tooltip": ["image:Q"],
    }
    if values is not None:
        if is_categorical(values, names):
            texts = [names[int(v)] if names else str(int(v)) for v in values]
            domain = [names[v] if names else str(v) for v in np.unique(values.astype(int)).tolist()]
            colours = [_hex(CATEGORIES[v % len(CATEGORIES)]) for v in np.unique(values.astype(int)).tolist()]
            kind, scale = "N", alt.Scale(domain=domain, range=colours)
        else:
            texts = [float(v) for v in values]
            ramp = [_hex(c) for c in on_paper(np.linspace(0, 1, 8)).tolist()]
            kind, scale = "Q", alt.Scale(range=ramp)
        for row, text in zip(rows, texts, strict=True):
            row["colour"] = text
        encodings["color"] = alt.Color(f"colour:{kind}", scale=scale, legend=alt.Legend(title=label))
        encodings["tooltip"] = ["image:Q", alt.Tooltip(f"colour:{kind}", title=label)]
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_circle(size=float(np.clip(40_000 / max(n, 1), 8, 60)), opacity=0.75, color=_hex(ACCENT))
        .encode(**encodings)
        .properties(width=size, height=size)
        .interactive()
    )


def _hex(colour: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
