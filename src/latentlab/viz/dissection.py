"""How dissections and causal effects of units are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from latentlab.analysis.causal_effect import CausalEffect
from latentlab.analysis.dissection import Dissection
from latentlab.analysis.unit_effects import UnitEffects
from latentlab.viz import images, lettering
from latentlab.viz.colours import PAPER, WARNING, tones
from latentlab.viz.drawing import Drawing, drawn
from latentlab.viz.images import titled

_CELL = 128
_PLOT = 300


@drawn(
    Dissection,
    share_above="positions above T_u {}",
    share_wanted="wanted {}",
    share_gap="shares differ from the concepts' by {}",
    images="{} images",
    permutations="{} permutations",
    permuted_gap="permuted and exact chance differ by {}",
    chance_iou_95="best IoU by chance, 95 % quantile, {}",
    detectors="detectors {}",
    detectors_by_chance="by chance {}",
    detectors_random_directions="of random directions {}",
    reconstruction_error="pictures differ from the masks' images by {}",
)
def _dissection(result: Dissection, *, count: int = 8) -> Drawing:
    rows, labels = [], []
    for i, unit in enumerate(result.shown[:count]):
        cells = _examples(result, i)
        rows.append(cells)
        labels.append(
            f"unit {unit}: {result.concepts[result.best[unit]]}\n"
            f"IoU {result.best_iou[unit]:.3f}\nchance {result.best_chance[unit]:.3f}, p {result.p_value[unit]:.2g}"
        )
    names = [f"highest peak {j + 1}" for j in range(result.regions.shape[1])]
    grid = images.sheet(rows, row_labels=labels, column_labels=names, gap=4)
    still = images.above([grid, _key("mask of the concept", "map above T_u")])
    return Drawing(
        still, f"Dissection of {result.address}: {len(result.best)} units, {len(result.concepts)} concepts"
    )


@drawn(
    CausalEffect,
    no_dose_effect="effect of dose 0 {}",
    dose_rank="dose and effect agree in rank {}",
    control_95="random sets reach {}",
    draws="{} random sets",
    inputs="{} inputs",
    change_in_place="share of the change at the place {}",
)
def _causal_effect(result: CausalEffect) -> Drawing:
    several = "unit" if len(result.units) == 1 else "units"
    more = " …" if len(result.units) > 6 else ""
    head = f"{result.address}: {several} {', '.join(map(str, result.units[:6]))}{more}"
    low, high = _reach(result.interval, result.control_ace)
    band = np.quantile(result.control_ace, [0.025, 0.975])
    plot = Image.new("RGB", (_PLOT, 30), tones().paper)
    _interval(plot, 15, result.ace, result.interval, band, low, high)
    parts = [
        _captioned(plot, f"effect on {result.concept}: {result.ace:.3g}, p {result.p_value:.2g}", low, high)
    ]
    parts.append(_doses(result))
    if result.originals is not None and result.with_units is not None and result.without_units is not None:
        scale = images.fitting_scale(result.originals.shape, len(result.originals), cell=_CELL)
        stack = np.stack([result.originals, result.with_units, result.without_units])
        parts.append(
            images.grid(np.clip(stack, 0, 1), row_labels=["unedited", "inserted", "ablated"], scale=scale)
        )
    still = titled(images.above(parts, gap=10), head)
    return Drawing(
        still, f"Causal effect of {len(result.units)} {several} of {result.address} on {result.concept}"
    )


@drawn(UnitEffects, band_width="widest control band {}")
def _unit_effects(result: UnitEffects, *, count: int = 10, concept: str | None = None) -> Drawing:
    columns, order = _shown(result, concept)
    order = order[:count]
    low, high = _reach(
        np.stack([result.interval[u, columns[u]] for u in order]), result.band[[columns[u] for u in order]]
    )
    rows = []
    for u in order:
        c = columns[u]
        row = Image.new("RGB", (150 + _PLOT, _CELL + 6), tones().paper)
        text = [f"unit {result.units[u]}", result.concepts[c]]
        if result.iou is not None and np.isfinite(result.iou[u, c]):
            text.append(f"IoU {result.iou[u, c]:.3f}")
        text.append(f"ACE {result.ace[u, c]:.3g}, p {result.p_value[u, c]:.2g}")
        for i, line in enumerate(text):
            size = lettering.NORMAL if i == 0 else lettering.SMALL
            lettering.write(
                row,
                (8, _CELL / 2 - 34 + 18 * i),
                line,
                size=size,
                colour=tones().ink if i == 0 else tones().faint,
            )
        _interval(
            row,
            (_CELL + 6) / 2,
            float(result.ace[u, c]),
            result.interval[u, c],
            result.band[c],
            low,
            high,
            150,
        )
        if result.images is not None and result.masks is not None and result.regions is not None:
            cell = _outlined(result.images[u], result.masks[u], result.regions[u])
            row = images.beside([images.framed(cell), row], gap=4)
        rows.append(row)
    table = images.above(rows, gap=2)
    left = table.width - _PLOT
    axis = Image.new("RGB", (table.width, 34), tones().paper)
    _axis(axis, 0, low, high, left)
    unit = result.concept_units[columns[order[0]]]
    lettering.write(
        axis, (left + _PLOT / 2, 18), f"causal effect, {unit}", size=11, colour=tones().faint, anchor="ma"
    )
    parts = [table, axis]
    if result.images is not None:
        parts.append(_key("mask of the concept", "map above T_u", "effects of other units"))
    else:
        parts.append(_key(None, None, "effects of other units"))
    still = titled(images.above(parts, gap=4), f"{result.address}: what single units do")
    return Drawing(still, f"Causal effects of {len(order)} units of {result.address}")


def _shown(result: UnitEffects, concept: str | None) -> tuple[np.ndarray, np.ndarray]:
    """The concept drawn for each unit, and the units in the order drawn."""
    if concept is not None:
        if concept not in result.concepts:
            raise ValueError(f"No concept {concept!r}; there are {', '.join(result.concepts)}.")
        column = result.concepts.index(concept)
        return np.full(len(result.units), column), result.order[:, column]
    if result.best is not None and (result.best >= 0).any():
        column = np.maximum(result.best, 0)
        kept = np.flatnonzero(result.best >= 0)
        effect = np.abs(result.ace[kept, column[kept]])
        return column, kept[np.argsort(-effect, kind="stable")]
    strongest = np.abs(result.ace).argmax(axis=1)
    effect = np.take_along_axis(np.abs(result.ace), strongest[:, None], axis=1)[:, 0]
    return strongest, np.argsort(-effect, kind="stable")


def _reach(*values: Any) -> tuple[float, float]:
    """Ends of an axis that holds all values and 0, with some room."""
    every = np.concatenate([[0.0], *(np.ravel(v) for v in values)])
    low, high = float(every.min()), float(every.max())
    room = 0.06 * max(high - low, 1e-6)
    return low - room, high + room


def _interval(
    picture: Image.Image,
    y: float,
    value: float,
    interval: np.ndarray,
    band: np.ndarray,
    low: float,
    high: float,
    left: int = 0,
) -> None:
    """A value with its interval, over the band of the controls and a line at 0."""

    def x(v: float) -> float:
        return left + (v - low) / (high - low) * (_PLOT - 1)

    draw = ImageDraw.Draw(picture)
    draw.rectangle((x(band[0]), y - 9, max(x(band[1]), x(band[0]) + 1), y + 9), fill=tones().line)
    draw.line((x(0), y - 14, x(0), y + 14), fill=tones().faint)
    draw.line((x(interval[0]), y, x(interval[1]), y), fill=tones().accent, width=3)
    draw.ellipse((x(value) - 4, y - 4, x(value) + 4, y + 4), fill=tones().accent)


def _axis(picture: Image.Image, y: int, low: float, high: float, left: int = 0) -> None:
    draw = ImageDraw.Draw(picture)
    draw.line((left, y, left + _PLOT - 1, y), fill=tones().faint)
    zero = left + (0 - low) / (high - low) * (_PLOT - 1)
    marks: list[tuple[float, float, str]] = [(left, low, "la"), (left + _PLOT - 1, high, "ra")]
    if left + 60 < zero < left + _PLOT - 60:
        marks.append((zero, 0.0, "ma"))
    for x, number, anchor in marks:
        lettering.write(picture, (x, y + 3), f"{number:.2g}", size=11, colour=tones().faint, anchor=anchor)


def _captioned(plot: Image.Image, text: str, low: float, high: float) -> Image.Image:
    sheet = Image.new("RGB", (max(plot.width, lettering.width(text)) + 4, plot.height + 40), tones().paper)
    lettering.write(sheet, (0, 0), text)
    sheet.paste(plot, (0, 18))
    _axis(sheet, 18 + plot.height, low, high)
    return sheet


def _doses(result: CausalEffect) -> Image.Image:
    """Mean scores over the dose, inserted and ablated."""
    high, left = 110, 52
    sheet = Image.new("RGB", (left + _PLOT + 80, high + 34), tones().paper)
    draw = ImageDraw.Draw(sheet)
    every = np.concatenate([result.inserted, result.ablated])
    low, top = float(every.min()), float(every.max())
    span = max(top - low, 1e-9)
    draw.line((left, 6, left, high), fill=tones().faint)
    draw.line((left, high, left + _PLOT, high), fill=tones().faint)
    for values, colour, name in (
        (result.inserted, tones().accent, "inserted"),
        (result.ablated, WARNING, "ablated"),
    ):
        points = [
            (left + 4 + d * (_PLOT - 8), high - 6 - (v - low) / span * (high - 18))
            for d, v in zip(result.doses, values, strict=True)
        ]
        draw.line(points, fill=colour, width=2)
        for px, py in points:
            draw.ellipse((px - 3, py - 3, px + 3, py + 3), fill=colour)
        y = points[-1][1]
        if name == "ablated" and abs(y - (high - 6 - (result.inserted[-1] - low) / span * (high - 18))) < 14:
            y += 14
        lettering.write(sheet, (left + _PLOT + 4, y), name, size=11, colour=colour, anchor="lm")
    lettering.write(sheet, (left - 4, 12), f"{top:.3g}", size=11, colour=tones().faint, anchor="rm")
    lettering.write(sheet, (left - 4, high - 6), f"{low:.3g}", size=11, colour=tones().faint, anchor="rm")
    for dose, anchor in ((0.0, "la"), (1.0, "ra")):
        lettering.write(
            sheet, (left + dose * _PLOT, high + 2), f"{dose:g}", size=11, colour=tones().faint, anchor=anchor
        )
    lettering.write(
        sheet,
        (left + _PLOT / 2, high + 16),
        f"dose alpha; above, mean {result.concept}",
        size=11,
        colour=tones().faint,
        anchor="ma",
    )
    return sheet


def _examples(result: Dissection, i: int) -> list[Image.Image]:
    cells = []
    for j in range(result.regions.shape[1]):
        if result.images is None:
            ground = np.full((1, *result.masks.shape[2:]), 0.5)
        else:
            ground = result.images[i, j]
        cells.append(_outlined(ground, result.masks[i, j], result.regions[i, j]))
    return cells


def _outlined(image: np.ndarray, mask: np.ndarray, region: np.ndarray) -> Image.Image:
    """An image about _CELL pixels wide: what the map takes is bright, the rest dimmed, the mask's outline drawn."""
    scale = max(1, round(_CELL / max(image.shape[1:])))
    picture = np.asarray(images.to_pil(np.clip(image, 0, 1), scale), dtype=float)
    size = picture.shape[1::-1]
    on = np.asarray(Image.fromarray(region.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST)) > 0
    inside = (
        np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST)) > 0
    )
    shown = np.where(on[..., None], picture, 0.55 * picture + 0.45 * 128)
    shown[_rim(on)] = (255, 255, 255)
    shown[_rim(inside)] = WARNING
    cell = Image.fromarray(shown.round().astype(np.uint8))
    if cell.size == (_CELL, _CELL):
        return cell
    sheet = Image.new("RGB", (max(_CELL, cell.width), max(_CELL, cell.height)), tones().paper)
    sheet.paste(cell, ((sheet.width - cell.width) // 2, (sheet.height - cell.height) // 2))
    return sheet


def _rim(mask: np.ndarray) -> np.ndarray:
    """The outermost pixels of a mask."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def _key(mask: str | None, region: str | None, band: str | None = None) -> Image.Image:
    parts = [(t, c) for t, c in ((mask, WARNING), (region, PAPER), (band, tones().line)) if t]
    wide = sum(lettering.width(t, 11) + 34 for t, _ in parts) + 10
    sheet = Image.new("RGB", (wide, 20), tones().paper)
    draw, x = ImageDraw.Draw(sheet), 10
    for text, colour in parts:
        if colour == PAPER:
            draw.rectangle((x - 2, 2, x + 13, 17), fill=(128, 128, 128))
        draw.rectangle(
            (x, 4, x + 11, 15), outline=colour, fill=tones().line if colour == tones().line else None, width=2
        )
        lettering.write(sheet, (x + 17, 10), text, size=11, colour=tones().faint, anchor="lm")
        x += lettering.width(text, 11) + 34
    return sheet
