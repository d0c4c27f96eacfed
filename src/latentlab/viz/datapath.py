"""How a datapath is drawn: what it keeps of the image, its units and edges, and size against damage."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from latentlab.analysis.datapath import Datapath
from latentlab.viz import images, lettering
from latentlab.viz.colours import WARNING, tones
from latentlab.viz.drawing import Drawing, drawn

_CELL, _ROW, _WIDE = 15, 40, 660
_WORDS = {"zero": "0", "mean": "its mean", "given": "a given baseline"}


@drawn(
    Datapath,
    masked_distance="damage with these units alone {}",
    tolerance="allowed {}",
    within_tolerance="kept to: {}",
    minimal="no unit can go: {}",
    smallest_break="removing one more leads to at least {}",
    prediction_gap="prediction off by {}",
    best_random_set="best random set of this size {}",
    activation_set="by activation {}",
    gradient_set="by activation x gradient {}",
)
def _datapath(result: Datapath, *, count: int = 6, edges: int = 60) -> Drawing:
    parts = []
    if result.outputs.ndim == 4 and result.outputs.shape[1] in (1, 3):
        rows = np.clip(np.stack([result.outputs[:count], result.masked[:count]]), 0.0, 1.0)
        whole = "all units" if result.network != "encoder" else "reconstruction\nall units"
        scale = images.fitting_scale(rows.shape, rows.shape[1], cell=80)
        parts.append(images.grid(rows, row_labels=[whole, "path alone"], scale=scale))
    heading = "Units kept, and the strongest edges between them" if result.edges else "Units kept"
    parts.append(images.titled(_units(result, edges), heading))
    charts = [_curve(result, i) for i in range(len(result.stages))]
    rows = [images.beside(charts[i : i + 2], 16) for i in range(0, len(charts), 2)]
    parts.append(images.titled(images.above(rows, 10), "Damage against number of units"))
    title = (
        f"Datapath of {', '.join(result.stages)} ({result.target}), dropped units set to {_WORDS[result.baseline]}, by "
        f"{', '.join(result.chosen)}; a sparse path that keeps the output need not hold the information that matters "
        "most, and what units do together is judged on these examples alone"
    )
    return Drawing(images.above(parts, 4), title)


def _units(result: Datapath, edges: int) -> Image.Image:
    """One row of cells a stage, the units kept dark; lines between rows for edges, thicker for larger shares."""
    columns = _WIDE // _CELL
    heights = [-(-len(result.gates[stage]) // columns) * _CELL for stage in result.stages]
    head = lettering.line_height() + 5
    tops, y = [], 0
    for i, high in enumerate(heights):
        y += head
        tops.append(y)
        y += high + (_ROW if i + 1 < len(heights) and result.edges else 8)
    picture = Image.new("RGB", (_WIDE + 4, y), tones().paper)
    draw = ImageDraw.Draw(picture)

    def centre(i: int, unit: int) -> tuple[float, float]:
        return _CELL * (unit % columns + 0.5), tops[i] + _CELL * (unit // columns + 0.5)

    for i in range(len(result.stages) - 1):
        key = f"{result.stages[i]} > {result.stages[i + 1]}"
        for lower, upper, share in np.asarray((result.edges or {}).get(key, np.zeros((0, 3))))[:edges][::-1]:
            start, end = centre(i, int(lower)), centre(i + 1, int(upper))
            pale = tuple(
                round(p + (a - p) * min(1.0, 0.25 + share))
                for p, a in zip(tones().paper, tones().accent, strict=True)
            )
            draw.line((*start, *end), fill=pale, width=1 + round(3 * float(share)))
    for i, stage in enumerate(result.stages):
        kept, gates = set(np.asarray(result.kept[stage]).tolist()), np.asarray(result.gates[stage])
        carried = f", edges carry {100 * result.carried[i]:.3g} %" if i < len(result.carried) else ""
        text = f"{stage}: {len(kept)} of {len(gates)} units, damage {result.distances[i]:.2g}{carried}"
        # Written on paper, so that no line runs through it.
        wide = lettering.width(text)
        draw.rectangle((0, tops[i] - head, wide + 6, tops[i] - 3), fill=tones().paper)
        lettering.write(picture, (0, tops[i] - head + 1), text)
        for unit in range(len(gates)):
            x, y = centre(i, unit)
            half = _CELL / 2 - 1.5
            box = (x - half, y - half, x + half, y + half)
            draw.rectangle(
                box,
                fill=tones().accent if unit in kept else tones().paper,
                outline=tones().accent if unit in kept else tones().line,
            )
    return picture


def _curve(result: Datapath, i: int, wide: int = 310, high: int = 170) -> Image.Image:
    stage = result.stages[i]
    left, bottom, top = 34, 34, 46
    picture = Image.new("RGB", (left + wide + 8, top + high + bottom), tones().paper)
    draw = ImageDraw.Draw(picture)
    sizes = np.asarray(result.sizes[stage])
    units, most = max(int(sizes.max()), 1), 1.05

    def place(size: float, damage: float) -> tuple[float, float]:
        return left + wide * size / units, top + high * (1 - min(max(damage, 0.0), most) / most)

    lettering.write(picture, (0, 0), stage)
    x = 0
    for text, colour in (
        ("path order", tones().accent),
        ("activation", WARNING),
        ("random", tones().faint),
        ("the path", tones().ink),
    ):
        draw.rectangle((x, 25, x + 8, 33), fill=colour)
        lettering.write(picture, (x + 13, 22), text, size=lettering.SMALL, colour=tones().faint)
        x += lettering.width(text, lettering.SMALL) + 30
    draw.rectangle((left, top, left + wide, top + high), outline=tones().line)
    if len(result.stages) == 1:  # several are held to the tolerance together, none by itself
        limit = place(0, result.limit)[1]
        draw.line((left, limit, left + wide, limit), fill=tones().faint)
    for values, colour in ((result.curve_by_activation, WARNING), (result.curve, tones().accent)):
        points = [place(s, d) for s, d in zip(sizes, np.asarray(values[stage]), strict=True)]
        draw.line([c for point in points for c in point], fill=colour, width=2)
    for damage in np.asarray(result.random[stage]):
        px, py = place(len(result.kept[stage]), float(damage))
        draw.ellipse((px - 2, py - 2, px + 2, py + 2), fill=tones().faint)
    px, py = place(len(result.kept[stage]), result.distances[i])
    draw.ellipse((px - 4, py - 4, px + 4, py + 4), fill=tones().ink, outline=tones().paper)
    for value in (0.0, 0.5, 1.0):
        lettering.write(
            picture, (left - 5, place(0, value)[1]), f"{value:g}", size=11, colour=tones().faint, anchor="rm"
        )
    for value in (0, units):
        px = place(value, 0)[0]
        lettering.write(picture, (px, top + high + 3), str(value), size=11, colour=tones().faint, anchor="ma")
    lettering.write(
        picture, (left + wide / 2, top + high + 17), "units", size=11, colour=tones().faint, anchor="ma"
    )
    return picture
