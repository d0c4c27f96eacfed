"""Sheets of images: grids and strips with labels, signed differences, overlays, feature maps.

Arrays are images (channels, height, width) in [0, 1], of 1 or 3 channels; pictures are Pillow's, RGB.
Pixels are enlarged by whole factors without smoothing, so that what is seen is what the model drew.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from latentlab.viz import lettering
from latentlab.viz.colours import WARNING, diverging, sequential, tones
from latentlab.viz.layout import MARGIN as _MARGIN
from latentlab.viz.layout import boxes, layout
from latentlab.viz.media import gif_bytes as gif_bytes
from latentlab.viz.media import mp4_bytes as mp4_bytes
from latentlab.viz.media import png_bytes as png_bytes
from latentlab.viz.media import save_media as save_media

_CELL = 80
_WIDEST = 1400


def to_pil(image: Any, scale: int = 1) -> Image.Image:
    """An image as an RGB picture.

    Args:
        image: (channels, height, width) or (height, width) in [0, 1]; values outside are clipped, NaN is
            paper.
        scale: whole factor of enlargement.

    Raises:
        ValueError: unless it has 1 or 3 channels.
    """
    array = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image, dtype=float)
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[0] not in (1, 3):
        raise ValueError(f"Expected an image (1 or 3 channels, height, width); got shape {np.shape(image)}.")
    array = np.broadcast_to(array, (3, *array.shape[1:])).transpose(1, 2, 0)
    pixels = np.where(
        np.isnan(array), np.array(tones().paper, float), np.clip(np.nan_to_num(array), 0.0, 1.0) * 255.0
    )
    return _enlarged(Image.fromarray(pixels.round().astype(np.uint8)), scale)


def fitting_scale(image_shape: Sequence[int], columns: int, cell: int = _CELL, widest: int = _WIDEST) -> int:
    """The factor that brings images near ``cell`` pixels while ``columns`` of them stay below ``widest``."""
    high, wide = image_shape[-2:]
    room = widest / max(columns, 1)
    return max(1, min(round(cell / max(high, wide)), int(room // max(wide, 1))))


def grid(
    images: Any,
    *,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    scale: int | None = None,
    gap: int = 3,
    title: str = "",
    marked: Collection[tuple[int, int]] = (),
) -> Image.Image:
    """A sheet of images in rows and columns.

    Args:
        images: (rows, columns, channels, height, width) in [0, 1]; a cell that is NaN throughout stays empty.
        row_labels: texts to the left, of one or more lines each.
        column_labels: texts above.
        scale: whole factor of enlargement; None chooses one.
        gap: pixels between images.
        title: text above all.
        marked: cells (row, column) that get a frame.

    Raises:
        ValueError: on another shape, or labels of another number.
    """
    array = np.asarray(images.detach().cpu() if hasattr(images, "detach") else images)
    if array.ndim != 5 or not array.shape[0] or not array.shape[1]:
        raise ValueError(
            f"Expected images (rows, columns, channels, height, width); got shape {array.shape}."
        )
    cells = [[None if np.isnan(cell).all() else to_pil(cell) for cell in row] for row in array]
    scale = scale or fitting_scale(array.shape, array.shape[1])
    return sheet(
        [[cell and _enlarged(cell, scale) for cell in row] for row in cells],
        row_labels=row_labels,
        column_labels=column_labels,
        gap=gap,
        title=title,
        marked=marked,
        cell=(array.shape[4] * scale, array.shape[3] * scale),
    )


def sheet(
    cells: Sequence[Sequence[Image.Image | None]],
    *,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    gap: int = 3,
    title: str = "",
    marked: Collection[tuple[int, int]] = (),
    cell: tuple[int, int] | None = None,
) -> Image.Image:
    """A sheet of pictures of one size; arguments as for ``grid``. ``cell`` is that size (width, height)."""
    rows, columns = len(cells), max(len(row) for row in cells)
    for labels, count, what in ((row_labels, rows, "row_labels"), (column_labels, columns, "column_labels")):
        if labels is not None and len(labels) != count:
            raise ValueError(f"{what} must be {count} texts; got {len(labels)}.")
    wide, high = cell or next(c.size for row in cells for c in row if c is not None)
    plan = layout(
        rows,
        columns,
        (wide, high),
        row_labels=row_labels,
        column_labels=column_labels,
        gap=gap,
        title=title,
    )
    picture = Image.new("RGB", plan.size, tones().paper)
    if title:
        lettering.write(picture, (plan.margin, plan.margin), title, size=lettering.LARGE)
    for j, text in enumerate(column_labels or ()):
        centre = plan.corner(0, j)[0] + wide / 2
        lettering.write(
            picture, (centre, plan.head), text, size=lettering.SMALL, colour=tones().faint, anchor="ma"
        )
    draw, rim = ImageDraw.Draw(picture), tones().rim
    for i, row in enumerate(cells):
        if row_labels:
            _row_label(picture, row_labels[i], plan.margin, plan.corner(i, 0)[1] + high / 2)
        for j, content in enumerate(row):
            x, y = plan.corner(i, j)
            if content is not None:
                if rim is not None and gap:
                    edge = max(1, gap // 2)
                    draw.rectangle((x - edge, y - edge, x + wide + edge - 1, y + high + edge - 1), fill=rim)
                picture.paste(content, (x, y))
            if (i, j) in marked:
                draw.rectangle((x - 2, y - 2, x + wide + 1, y + high + 1), outline=WARNING, width=2)
    return picture


def grid_boxes(
    images: Any,
    *,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    scale: int | None = None,
    gap: int = 3,
    title: str = "",
) -> np.ndarray:
    """Where ``grid`` puts its images: left, top, right and bottom in pixels, (rows, columns, 4); arguments as there."""
    rows, columns, _, high, wide = np.shape(images)
    scale = scale or fitting_scale((high, wide), columns)
    plan = layout(
        rows,
        columns,
        (wide * scale, high * scale),
        row_labels=row_labels,
        column_labels=column_labels,
        gap=gap,
        title=title,
    )
    return boxes(plan, rows, columns)


def _row_label(picture: Image.Image, text: str, x: float, middle: float) -> None:
    """The first line dark, the others small and faint, the whole centred on the row."""
    first, _, rest = text.partition("\n")
    tall = lettering.line_height() + (lettering.height(rest, lettering.SMALL) if rest else 0)
    y = middle - tall / 2
    lettering.write(picture, (x, y), first, colour=tones().ink)
    if rest:
        lettering.write(
            picture, (x, y + lettering.line_height()), rest, size=lettering.SMALL, colour=tones().faint
        )


def strip(
    images: Any,
    *,
    labels: Sequence[str] | None = None,
    scale: int | None = None,
    gap: int = 3,
    title: str = "",
) -> Image.Image:
    """One row of images (n, channels, height, width) with a label above each; arguments as for ``grid``."""
    array = np.asarray(images.detach().cpu() if hasattr(images, "detach") else images)
    return grid(array[None], column_labels=labels, scale=scale, gap=gap, title=title)


def difference(
    difference: Any, limit: float | None = None, *, scale: int = 1, bar: bool = False
) -> Image.Image:
    """A signed difference, mean over channels: blue where darker, the paper's colour for none, red where brighter.

    Args:
        difference: (channels, height, width) or (height, width), signed.
        limit: the absolute difference that gets the strongest colour; None is the largest there is.
        scale: whole factor of enlargement.
        bar: draw the colour scale below, with its limits in numbers.
    """
    signed = np.asarray(difference, dtype=float)
    signed = signed.mean(axis=0) if signed.ndim == 3 else signed
    limit = difference_limit(signed) if limit is None else limit
    picture = _enlarged(Image.fromarray(diverging(signed / max(limit, 1e-12))), scale)
    return with_bar(picture, diverging, f"-{limit:.2g}", "0", f"+{limit:.2g}") if bar else picture


def difference_limit(difference: Any) -> float:
    """The largest absolute difference, mean over channels, as the end of a colour scale; at least 1/255."""
    signed = np.asarray(difference, dtype=float)
    signed = signed.mean(axis=-3) if signed.ndim >= 3 else signed
    return max(float(np.abs(signed).max(initial=0.0)), 1 / 255)


def with_bar(picture: Image.Image, colours: Any, low: str, middle: str, high: str) -> Image.Image:
    """The picture with a bar of the colour scale below and three numbers on it."""
    wide = max(picture.width, lettering.width(low + middle + high, lettering.SMALL) + 24)
    sheet_ = Image.new(
        "RGB", (wide, picture.height + 8 + 8 + lettering.line_height(lettering.SMALL)), tones().paper
    )
    sheet_.paste(picture, ((wide - picture.width) // 2, 0))
    ends = (-1.0, 1.0) if colours is diverging else (0.0, 1.0)
    ramp = np.broadcast_to(colours(np.linspace(*ends, wide)), (8, wide, 3))
    sheet_.paste(Image.fromarray(np.ascontiguousarray(ramp)), (0, picture.height + 6))
    y = picture.height + 15
    for x, text, anchor in ((0, low, "la"), (wide / 2, middle, "ma"), (wide, high, "ra")):
        lettering.write(sheet_, (x, y), text, size=lettering.SMALL, colour=tones().faint, anchor=anchor)
    return sheet_


def overlay(image: Any, heat: Any, *, strength: float = 0.75, scale: int = 1) -> Image.Image:
    """An image, greyed, with heat in [0, 1] laid over it: stronger where hotter.

    Args:
        image: (channels, height, width) in [0, 1].
        heat: (rows, columns) of any resolution, stretched over the image.
        strength: share of the heat's colour where it is 1.
        scale: whole factor of enlargement.
    """
    ground = np.asarray(to_pil(image, scale).convert("L").convert("RGB"), dtype=float)
    warm = Image.fromarray(np.clip(np.asarray(heat, dtype=np.float32), 0.0, 1.0))
    weight = np.asarray(warm.resize(ground.shape[1::-1], Image.Resampling.BILINEAR))
    share = strength * weight[..., None]
    mixed = (1.0 - share) * ground + share * sequential(0.35 + 0.65 * weight)
    return Image.fromarray(mixed.round().astype(np.uint8))


def feature_sheet(
    maps: Any,
    *,
    columns: int | None = None,
    off: Collection[int] = (),
    units: Sequence[int] | None = None,
    scale: int | None = None,
    each: bool = False,
    title: str = "",
) -> Image.Image:
    """All maps of a stage as one sheet, in one colour scale that is drawn below.

    Maps without negative values run from dark (0) to light; others from blue over the paper's colour (0) to red.

    Args:
        maps: (units, height, width).
        columns: maps in a row; None chooses.
        off: units that are switched off: crossed out.
        units: numbers shown; None counts from 0.
        scale: whole factor of enlargement; None chooses.
        each: stretch every map to its own largest value instead of a common one.
        title: text above.

    Raises:
        ValueError: unless the maps are (units, height, width).
    """
    maps = np.asarray(maps, dtype=float)
    if maps.ndim != 3 or not len(maps):
        raise ValueError(f"Expected maps (units, height, width); got shape {maps.shape}.")
    count, high, wide = maps.shape
    numbers = list(range(count)) if units is None else list(units)
    target = 16 if high * wide == 1 else 64 if count <= 64 else 44
    scale = scale or max(1, round(target / max(high, wide)))
    columns = columns or max(
        1, min(count, _WIDEST // 2 // (wide * scale + 2), max(8, round(count**0.5 * 1.4)))
    )
    limit = np.abs(maps).max()
    limits = np.abs(maps).max(axis=(1, 2), keepdims=True) if each else np.full((count, 1, 1), limit)
    scaled = maps / np.maximum(limits, 1e-12)
    signed = bool((maps < 0).any())
    colours = diverging if signed else sequential
    gap = 2
    cell_w, cell_h = wide * scale, high * scale
    rows = -(-count // columns)
    picture = Image.new("RGB", (columns * (cell_w + gap) - gap, rows * (cell_h + gap) - gap), tones().paper)
    draw = ImageDraw.Draw(picture)
    labelled = min(cell_w, cell_h) >= 28
    for i in range(count):
        y, x = (divmod(i, columns)[0] * (cell_h + gap), divmod(i, columns)[1] * (cell_w + gap))
        picture.paste(_enlarged(Image.fromarray(colours(scaled[i])), scale), (x, y))
        if labelled:
            tag = str(numbers[i])
            draw.rectangle((x, y, x + lettering.width(tag, 9) + 3, y + 11), fill=tones().paper)
            lettering.write(picture, (x + 2, y), tag, size=9, colour=tones().ink)
        if numbers[i] in off:
            end = (x + cell_w - 1, y + cell_h - 1)
            draw.rectangle((x, y, *end), outline=WARNING, width=2)
            draw.line((x, y, *end), fill=WARNING, width=2)
    ends = ("low", "0", "high") if each else (f"{-limit:.2g}" if signed else "0", "", f"{limit:.2g}")
    middle = "0" if signed else ends[1]
    picture = with_bar(picture, colours, ends[0], middle, ends[2])
    return titled(picture, title)


def titled(picture: Image.Image, title: str, margin: int = _MARGIN) -> Image.Image:
    """The picture with a margin, and a title above where there is one."""
    left, top = titled_corner(title, margin)
    wide = max(picture.width, lettering.width(title, lettering.LARGE)) + 2 * margin
    framed = Image.new("RGB", (wide, top + picture.height + margin), tones().paper)
    if title:
        lettering.write(framed, (margin, margin), title, size=lettering.LARGE)
    framed.paste(picture, (left, top))
    return framed


def titled_corner(title: str, margin: int = _MARGIN) -> tuple[int, int]:
    """Left and top that a picture has within ``titled``."""
    return margin, margin + (lettering.height(title, lettering.LARGE) + 4 if title else 0)


def axis_band() -> int:
    """Width of the bands that ``with_axis_names`` puts to the left and below."""
    return lettering.line_height() + 4


def with_axis_names(picture: Image.Image, x: str, y: str) -> Image.Image:
    """The picture with the name of its horizontal axis below and that of the vertical one, turned, beside it."""
    band = axis_band()
    named = Image.new("RGB", (picture.width + band, picture.height + band), tones().paper)
    named.paste(picture, (band, 0))
    lettering.write(named, (band + picture.width / 2, picture.height), x, colour=tones().faint, anchor="ma")
    side = Image.new("RGB", (picture.height, band), tones().paper)
    lettering.write(side, (picture.height / 2, 3), y, colour=tones().faint, anchor="ma")
    named.paste(side.rotate(90, expand=True), (0, 0))
    return named


def beside(pictures: Sequence[Image.Image], gap: int = 0) -> Image.Image:
    """Pictures side by side, aligned at the top."""
    wide = sum(p.width for p in pictures) + gap * (len(pictures) - 1)
    row = Image.new("RGB", (wide, max(p.height for p in pictures)), tones().paper)
    x = 0
    for picture in pictures:
        row.paste(picture, (x, 0))
        x += picture.width + gap
    return row


def above(pictures: Sequence[Image.Image], gap: int = 0) -> Image.Image:
    """Pictures one above the other, aligned at the left."""
    high = sum(p.height for p in pictures) + gap * (len(pictures) - 1)
    column = Image.new("RGB", (max(p.width for p in pictures), high), tones().paper)
    y = 0
    for picture in pictures:
        column.paste(picture, (0, y))
        y += picture.height + gap
    return column


def framed(picture: Image.Image) -> Image.Image:
    """The picture with a thin line around it."""
    edged = Image.new("RGB", (picture.width + 2, picture.height + 2), tones().line)
    edged.paste(picture, (1, 1))
    return edged


def _enlarged(picture: Image.Image, scale: int) -> Image.Image:
    if scale < 1:
        raise ValueError(f"scale must be a whole number of at least 1; got {scale}.")
    if scale == 1:
        return picture
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
