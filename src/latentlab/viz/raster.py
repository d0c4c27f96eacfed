"""Static pictures of numbers, drawn by numpy and Pillow alone: maps of a projection, bars, matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from latentlab.analysis.projection import Projection
from latentlab.viz import lettering
from latentlab.viz.colours import category, diverging, letters_on, on_paper, sequential, tones
from latentlab.viz.images import titled, with_axis_names, with_bar

_OVERSAMPLING = 2
_MOST_CATEGORIES = 12


def raster_map(
    projection: Projection, colour: Any = None, *, size: int = 760, title: str = ""
) -> Image.Image:
    """A map as a picture, for any number of points.

    Args:
        projection: a projection to two dimensions.
        colour: a factor's name, or a value for each point (n,); None for one colour.
        size: width and height of the map in pixels, without labels.
        title: text above; None to say the method and the number of points.

    Raises:
        ValueError: on an unknown factor, values of another number, or a map that is not two-dimensional.
    """
    points = np.asarray(projection.points, dtype=float)
    if points.shape[1] != 2:
        raise ValueError(
            f"Only two-dimensional maps can be drawn; this one has {points.shape[1]} dimensions."
        )
    values, label, names = colour_values(projection, colour)
    low, high = points.min(axis=0), points.max(axis=0)
    middle, reach = (low + high) / 2, max(float((high - low).max()) * 0.53, 1e-9)
    big = size * _OVERSAMPLING
    position = ((points - middle) / reach * [1, -1] + 1) / 2 * (big - 1)
    paints = _paints(len(points), values, names)
    # In random order, or the last category would cover the others; the order does not depend on the data.
    order = np.random.default_rng(0).permutation(len(points))
    radius = int(np.clip(round(12.5 - 2.2 * np.log10(max(len(points), 1))), 1, 8)) * _OVERSAMPLING / 2
    canvas = np.full((big, big, 3), tones().paper, dtype=np.uint8)
    span = int(np.ceil(radius))
    for dy in range(-span, span + 1):
        for dx in range(-span, span + 1):
            if dx * dx + dy * dy <= radius * radius:
                x = np.clip(position[order, 0].round().astype(int) + dx, 0, big - 1)
                y = np.clip(position[order, 1].round().astype(int) + dy, 0, big - 1)
                canvas[y, x] = paints[order]
    picture = Image.fromarray(canvas).resize((size, size), Image.Resampling.BOX)
    ImageDraw.Draw(picture).rectangle((0, 0, size - 1, size - 1), outline=tones().line)
    picture = _with_axes(picture, projection)
    legend = _legend(values, label, names)
    if legend is not None:
        whole = Image.new(
            "RGB", (picture.width + legend.width, max(picture.height, legend.height)), tones().paper
        )
        whole.paste(picture, (0, 0))
        whole.paste(legend, (picture.width, 0))
        picture = whole
    return titled(picture, title)


def colour_values(
    projection: Projection, colour: Any
) -> tuple[np.ndarray | None, str, tuple[str, ...] | None]:
    """What colours the points: values (n,), what they are called, and names of the values where known.

    Raises:
        ValueError: on an unknown factor, or values of another number.
    """
    if colour is None:
        return None, "", None
    if isinstance(colour, str):
        if projection.factors is None or colour not in projection.factor_names:
            known = ", ".join(projection.factor_names) or "none, for this map has no factors"
            raise ValueError(f"No factor {colour!r} to colour by; it has {known}.")
        values = np.asarray(projection.factors)[:, projection.factor_names.index(colour)]
        names = projection.categories.get(colour)
        return values, colour, tuple(names) if names else None
    values = np.asarray(colour)
    if values.shape != (len(projection.points),):
        raise ValueError(
            f"Colours must be one value a point ({len(projection.points)},); got {values.shape}."
        )
    if values.dtype.kind in "US":
        names, numbers = np.unique(values, return_inverse=True)
        return numbers, "", tuple(str(n) for n in names)
    return values, "", None


def is_categorical(values: np.ndarray, names: tuple[str, ...] | None) -> bool:
    """Whether values are shown as categories: they have names, or are few whole numbers that name a class."""
    return names is not None or (values.dtype.kind in "iub" and int(values.max(initial=0)) < _MOST_CATEGORIES)


def _paints(n: int, values: np.ndarray | None, names: tuple[str, ...] | None) -> np.ndarray:
    if values is None:
        return np.array(tones().accent, dtype=np.uint8)[None].repeat(n, axis=0)
    if is_categorical(values, names):
        return np.array([category(int(v)) for v in range(int(values.max()) + 1)], dtype=np.uint8)[
            values.astype(int)
        ]
    low, high = np.nanmin(values), np.nanmax(values)
    return on_paper((values - low) / max(high - low, 1e-12))


def _with_axes(picture: Image.Image, projection: Projection) -> Image.Image:
    if projection.explained is not None:
        names = [f"principal component {i + 1} ({100 * e:.0f} %)" for i, e in enumerate(projection.explained)]
    else:
        method = {"umap": "UMAP", "tsne": "t-SNE"}.get(projection.method, projection.method)
        names = [f"{method} {i + 1}" for i in range(2)]
    return with_axis_names(picture, *names)


def _legend(values: np.ndarray | None, label: str, names: tuple[str, ...] | None) -> Image.Image | None:
    if values is None:
        return None
    head = lettering.line_height() + 8 if label else 0
    if is_categorical(values, names):
        present = sorted(int(v) for v in np.unique(values))
        texts = [names[v] if names and v < len(names) else str(v) for v in present]
        wide = max(lettering.width(t) for t in [*texts, label]) + 44
        legend = Image.new("RGB", (wide, head + 20 * len(present) + 8), tones().paper)
        draw = ImageDraw.Draw(legend)
        for i, (value, text) in enumerate(zip(present, texts, strict=True)):
            y = head + 20 * i
            draw.ellipse((16, y + 2, 26, y + 12), fill=category(value))
            lettering.write(legend, (34, y), text)
    else:
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        marks = [f"{low + (high - low) * (1 - i / 4):.3g}" for i in range(5)]
        wide = max(*(lettering.width(m) for m in marks), lettering.width(label) - 24) + 56
        legend = Image.new("RGB", (wide, head + 200), tones().paper)
        ramp = on_paper(np.linspace(1.0, 0.0, 170))[:, None].repeat(14, axis=1)
        legend.paste(Image.fromarray(ramp), (16, head + 6))
        for i, mark in enumerate(marks):
            y = head + 6 + 169 * i / 4
            lettering.write(legend, (38, y), mark, size=11, colour=tones().faint, anchor="lm")
    if label:
        lettering.write(legend, (16, 0), label)
    return legend


def bars(
    values: Any,
    labels: Sequence[str],
    *,
    unit: str = "",
    title: str = "",
    faint: Sequence[bool] | None = None,
    width: int = 420,
) -> Image.Image:
    """Horizontal bars from 0, one a row, each with its number.

    Args:
        values: lengths, at least 0.
        labels: a text for each.
        unit: written behind the largest number.
        title: text above.
        faint: bars drawn grey.
        width: pixels of the longest bar.
    """
    values = np.asarray(values, dtype=float)
    top = max(float(values.max(initial=0.0)), 1e-12)
    left = max((lettering.width(t) for t in labels), default=0) + 10
    numbers = [f"{v:.3g}" + (f" {unit}" if unit else "") for v in values]
    right = max((lettering.width(t, lettering.SMALL) for t in numbers), default=0) + 8
    row = 19
    picture = Image.new("RGB", (left + width + right, row * len(values)), tones().paper)
    draw = ImageDraw.Draw(picture)
    for i, (value, text, number) in enumerate(zip(values, labels, numbers, strict=True)):
        y = row * i
        end = left + max(round(width * value / top), 1)
        pale = faint is not None and bool(faint[i])
        ink = tones().faint if pale else tones().ink
        draw.rectangle((left, y + 3, end, y + row - 4), fill=tones().line if pale else tones().accent)
        lettering.write(picture, (left - 10, y + row / 2), text, colour=ink, anchor="rm")
        lettering.write(picture, (end + 6, y + row / 2), number, size=11, colour=tones().faint, anchor="lm")
    return titled(picture, title)


def matrix_picture(
    values: Any,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str = "",
    signed: bool | None = None,
    cell: int = 34,
) -> Image.Image:
    """A matrix as coloured cells with their numbers.

    Args:
        values: (rows, columns).
        rows: a text for each row.
        columns: a text for each column.
        title: text above.
        signed: blue and red around 0; None: if there are negative values.
        cell: pixels of a cell.
    """
    values = np.asarray(values, dtype=float)
    signed = bool((values < 0).any()) if signed is None else signed
    limit = max(float(np.nanmax(np.abs(values), initial=0.0)), 1e-12)
    colours = diverging if signed else sequential
    left = max(lettering.width(t) for t in rows) + 8
    tilted = max(lettering.width(t, 11) for t in columns) > cell - 2
    top = (max(lettering.width(t, 11) for t in columns) + 6) if tilted else 18
    picture = Image.new("RGB", (left + cell * len(columns), top + cell * len(rows)), tones().paper)
    paint = colours(values / limit)
    for i in range(len(rows)):
        lettering.write(picture, (left - 8, top + cell * (i + 0.5)), rows[i], anchor="rm")
        for j in range(len(columns)):
            x, y = left + cell * j, top + cell * i
            picture.paste(tuple(int(c) for c in paint[i, j]), (x, y, x + cell - 1, y + cell - 1))
            lettering.write(
                picture,
                (x + cell / 2, y + cell / 2),
                f"{values[i, j]:.2g}",
                size=10,
                colour=letters_on(paint[i, j]),
                anchor="mm",
            )
    for j, text in enumerate(columns):
        if tilted:
            side = Image.new("RGB", (top, 16), tones().paper)
            lettering.write(side, (4, 1), text, size=11, colour=tones().faint)
            picture.paste(side.rotate(90, expand=True), (left + cell * j + cell // 2 - 8, 0))
        else:
            centre = left + cell * (j + 0.5)
            lettering.write(picture, (centre, 2), text, size=11, colour=tones().faint, anchor="ma")
    low = f"-{limit:.2g}" if signed else "0"
    return titled(with_bar(picture, colours, low, "0" if signed else "", f"{limit:.2g}"), title)
