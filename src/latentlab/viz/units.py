"""How what units draw, what a region reads, and the patches of units are drawn."""

from __future__ import annotations

import numpy as np
from PIL import Image

from latentlab.analysis.drawings import UnitDrawings
from latentlab.analysis.patches import TopInputs
from latentlab.analysis.pixel_reading import PixelReading
from latentlab.viz import images
from latentlab.viz.colours import WARNING, diverging, tones
from latentlab.viz.drawing import Drawing, drawn
from latentlab.viz.raster import bars

_MOST = 8
_BARS = 16


@drawn(
    UnitDrawings,
    interaction_gap="drawings miss what the units draw together by {} of it",
    loop_difference="batch and single runs agree to {}",
)
def _unit_drawings(result: UnitDrawings, *, scale: int | None = None, count: int = _MOST) -> Drawing:
    order = np.argsort(-result.strength.mean(axis=1), kind="stable")[:count]
    draws = result.operation == "draws"
    whose = "each unit" if len(order) > 1 else "a unit"
    what = "draws" if draws else "draws alone"
    title = f"{result.address}: what {whose} {what} (baseline {result.baseline})"
    if result.images.ndim != 4 or result.images.shape[1] not in (1, 3):
        still = bars(
            100 * result.strength.mean(axis=1)[order],
            [f"unit {u}" for u in result.units[order]],
            unit="%",
            title=title,
        )
        return Drawing(still, title)
    shown = min(len(result.images), 4)
    limit = images.difference_limit(result.drawings[order][:, :shown])
    ground = result.images if draws else result.ground
    if len(order) == 1:  # one unit has the room: an image a row
        i = order[0]
        scale = scale or images.fitting_scale(result.images.shape, 4, cell=144)
        rows = [
            [
                images.to_pil(ground[k], scale),
                images.to_pil(result.pictures[i, k], scale),
                images.difference(result.drawings[i, k], limit, scale=scale),
            ]
            for k in range(shown)
        ]
        heads = (
            ["the image", "without the unit", "what it draws"]
            if draws
            else ["without any unit", "with it alone", "what it draws"]
        )
        return Drawing(
            _with_scale(images.sheet(rows, column_labels=heads), limit), f"{title}, unit {result.units[i]}"
        )
    scale = scale or images.fitting_scale(result.images.shape, 2 * shown + 1, cell=72)
    head = [[cell for k in range(shown) for cell in (images.to_pil(ground[k], scale), None)]]
    cells = head + [
        [
            cell
            for k in range(shown)
            for cell in (
                images.to_pil(result.pictures[i, k], scale),
                images.difference(result.drawings[i, k], limit, scale=scale),
            )
        ]
        for i in order
    ]
    first = "the image" if draws else "baseline"
    sheet = images.sheet(
        cells,
        column_labels=["without it" if draws else "alone", "its drawing"] * shown,
        row_labels=[first, *(f"unit {u}" for u in result.units[order])],
        title=title,
    )
    return Drawing(_with_scale(sheet, limit), title)


@drawn(
    PixelReading,
    finite_difference="gradient and finite difference agree to {}",
    random_share="slope along random directions {} of the gradient's",
)
def _pixel_reading(result: PixelReading, *, scale: int | None = None, count: int = _BARS) -> Drawing:
    where = result.address if result.stage else f"the latents of {result.address}"
    by = result.attribution if result.stage else result.sensitivity
    values = np.abs(by).mean(axis=0)[result.order[:count]]
    kind = "unit " if result.stage else ""
    chart = bars(
        values,
        [f"{kind}{result.names[i]}" for i in result.order[:count]],
        title="|gradient x activation|" if result.stage else "|gradient| of the region's mean",
    )
    shown = min(len(result.images), 3)
    scale = scale or images.fitting_scale(result.images.shape, shown, cell=128)
    cells = []
    for image in result.images[:shown]:
        if image.shape[0] not in (1, 3):
            image = image.mean(axis=0, keepdims=True)
        cells.append([_outlined(images.to_pil(image, scale), result.region > 0, scale)])
    left = images.sheet(cells, column_labels=["read region"])
    title = f"What a region reads: {where}"
    return Drawing(images.titled(images.beside([left, chart], 8), title, 4), title)


@drawn(
    TopInputs,
    recomputed_difference="activations again, alone: {}",
    outside="outside the patch {}",
    inside="inside {}",
)
def _top_inputs(result: TopInputs, *, scale: int | None = None, count: int = _MOST) -> Drawing:
    order = np.argsort(-result.activations[:, 0], kind="stable")[:count]
    patches = result.patches[order]
    kept = patches.shape[1]
    edge = max(patches.shape[3:])
    scale = scale or max(1, min(round(64 / edge), 1300 // (edge * kept)))
    what = "sees" if result.role == "sees" else "can change"
    title = f"{result.address}: what each unit {what} where it is most active, of {result.n:,} inputs"
    sheet = images.grid(
        patches,
        row_labels=[
            f"unit {result.units[i]}\n{result.activations[i, 0]:.3g} to {result.activations[i, -1]:.3g}"
            for i in order
        ],
        column_labels=[f"{k + 1}" for k in range(kept)],
        scale=scale,
        title=title,
    )
    return Drawing(sheet, title)


def _with_scale(sheet: Image.Image, limit: float) -> Image.Image:
    bar = Image.new("RGB", (sheet.width - 20, 1), tones().paper)
    scale = images.with_bar(bar, diverging, f"-{limit:.2g}", "0", f"+{limit:.2g}")
    return images.above([sheet, images.titled(scale, "", 6)])


def _outlined(picture: Image.Image, mask: np.ndarray, scale: int) -> Image.Image:
    """The picture with a line around the pixels of a mask."""
    pixels = np.asarray(picture).copy()
    big = mask.repeat(scale, 0).repeat(scale, 1)
    inner = big.copy()
    width = max(1, scale // 3)
    for axis in (0, 1):
        for step in range(1, width + 1):
            for way in (step, -step):
                inner &= np.roll(big, way, axis)
    pixels[big & ~inner] = WARNING
    return Image.fromarray(pixels)
