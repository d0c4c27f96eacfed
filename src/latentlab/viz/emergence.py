"""How the emergence of concepts over stages and over a training is drawn."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from latentlab.analysis.emergence import Emergence
from latentlab.analysis.training_emergence import TrainingEmergence
from latentlab.viz import images, lettering
from latentlab.viz.colours import category, diverging, letters_on, tones
from latentlab.viz.drawing import Drawing, drawn
from latentlab.viz.images import titled, with_bar

_CELL = (62, 26)
_PLOT = (330, 130)


@drawn(
    Emergence,
    shuffled_score="score with shuffled masks {}",
    shuffled_probe="probes of shuffled labels {}",
    peaks="largest score: {}",
    images="{} images",
    permutations="{} permutations",
    reconstruction_error="pictures differ from the masks' images by {}",
)
def _emergence(result: Emergence, *, concepts: bool = False) -> Drawing:
    if concepts:
        names = result.concepts
        score, probe = result.concept_iou - result.concept_chance, result.concept_probe
    else:
        names, score, probe = result.level_names, result.score, result.probe
    tables = [
        _table(score, result.stages, names, "best unit's IoU above chance", 0.0),
        _table(probe, result.stages, names, "held-out area under the curve of a probe", 0.5),
    ]
    still = images.above(tables) if concepts else images.beside(tables, gap=16)
    return Drawing(still, f"Emergence of concepts in {result.network}")


@drawn(TrainingEmergence, first_half="half of the last score at step: {}")
def _training(result: TrainingEmergence) -> Drawing:
    panels = [
        _curves(result.steps, result.score[:, :, k], result.stages, f"{level}: IoU above chance")
        for k, level in enumerate(result.level_names)
    ]
    legend = _legend(result.stages)
    still = images.above([images.above(panels, gap=8), legend])
    return Drawing(
        titled(still, ""), f"Emergence of concepts in {result.network} over {len(result.steps)} steps"
    )


def _table(
    values: np.ndarray, rows: tuple[str, ...], columns: tuple[str, ...], title: str, zero: float
) -> Image.Image:
    """Stages down, concepts across, each cell with its number; white is ``zero``."""
    wide, high = _CELL
    left = max(lettering.width(r) for r in rows) + 10
    tilted = max(lettering.width(c, 11) for c in columns) > wide - 4
    top = max(lettering.width(c, 11) for c in columns) + 8 if tilted else 20
    wide = 34 if tilted else wide
    picture = Image.new("RGB", (left + wide * len(columns), top + high * len(rows)), tones().paper)
    distance = np.abs(values - zero)
    limit = float(distance[np.isfinite(distance)].max(initial=0.05))
    for j, name in enumerate(columns):
        centre = left + wide * (j + 0.5)
        if tilted:
            side = Image.new("RGB", (top, 16), tones().paper)
            lettering.write(side, (4, 1), name, size=11, colour=tones().faint)
            picture.paste(side.rotate(90, expand=True), (round(centre) - 8, 0))
        else:
            lettering.write(picture, (centre, 2), name, size=11, colour=tones().faint, anchor="ma")
    for i, stage in enumerate(rows):
        y = top + high * i
        lettering.write(picture, (left - 8, y + high / 2), stage, anchor="rm")
        for j in range(len(columns)):
            x, value = left + wide * j, values[i, j]
            middle = (x + wide / 2, y + high / 2)
            if not np.isfinite(value):
                lettering.write(picture, middle, "-", size=10, colour=tones().faint, anchor="mm")
                continue
            colour = tuple(int(c) for c in diverging(np.array((value - zero) / limit)))
            picture.paste(colour, (x, y, x + wide - 1, y + high - 1))
            text = f"{value:.2f}"
            text = "0.00" if text == "-0.00" else text
            lettering.write(picture, middle, text, size=10, colour=letters_on(colour), anchor="mm")
    bar = with_bar(picture, diverging, f"{zero - limit:.2g}", f"{zero:g}", f"{zero + limit:.2g}")
    return titled(bar, title)


def _curves(steps: np.ndarray, values: np.ndarray, stages: tuple[str, ...], title: str) -> Image.Image:
    """One line a stage over the logarithm of the step."""
    (wide, high), left = _PLOT, 46
    sheet = Image.new("RGB", (left + wide + 20, high + 46), tones().paper)
    draw = ImageDraw.Draw(sheet)
    lettering.write(sheet, (left, 0), title)
    low, top = min(0.0, float(np.nanmin(values))), max(0.05, float(np.nanmax(values)))
    place = np.log10(steps + 1.0)
    place = (place - place.min()) / max(float(np.ptp(place)), 1e-9)

    def y(value: float) -> float:
        return 22 + (top - value) / (top - low) * (high - 4)

    draw.line((left, 22, left, 18 + high), fill=tones().faint)
    draw.line((left, y(0.0), left + wide, y(0.0)), fill=tones().faint)
    for number in (top, 0.0):
        lettering.write(
            sheet, (left - 5, y(number)), f"{number:.2g}", size=11, colour=tones().faint, anchor="rm"
        )
    for i in range(len(stages)):
        points = [(left + p * wide, y(v)) for p, v in zip(place, values[:, i], strict=True)]
        if len(points) > 1:
            draw.line(points, fill=category(i), width=2)
        for px, py in points:
            draw.ellipse((px - 2, py - 2, px + 2, py + 2), fill=category(i))
    for step, x, anchor in ((steps[0], left, "la"), (steps[-1], left + wide, "ra")):
        lettering.write(sheet, (x, high + 26), f"step {step}", size=11, colour=tones().faint, anchor=anchor)
    return sheet


def _legend(stages: tuple[str, ...]) -> Image.Image:
    rows, x, widest = [[]], 0, 376
    for i, stage in enumerate(stages):
        need = lettering.width(stage, 11) + 28
        if x + need > widest and rows[-1]:
            rows.append([])
            x = 0
        rows[-1].append((i, stage, x))
        x += need
    sheet = Image.new("RGB", (widest + 20, 18 * len(rows)), tones().paper)
    draw = ImageDraw.Draw(sheet)
    for j, row in enumerate(rows):
        for i, stage, x in row:
            draw.ellipse((x + 8, 18 * j + 4, x + 16, 18 * j + 12), fill=category(i))
            lettering.write(sheet, (x + 20, 18 * j + 8), stage, size=11, colour=tones().faint, anchor="lm")
    return sheet
