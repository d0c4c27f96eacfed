"""How integrated gradients and conductance are drawn: signed images, in one scale, with their shares."""

from __future__ import annotations

import numpy as np
from PIL import Image

from latentlab.analysis.attribution import Attribution
from latentlab.analysis.conductance import Conductance
from latentlab.viz import images
from latentlab.viz.colours import diverging
from latentlab.viz.drawing import Drawing, drawn
from latentlab.viz.raster import matrix_picture

_COLUMNS = 8


def signed_picture(picture: np.ndarray, limit: float, scale: int) -> Image.Image:
    """A signed image: blue and red around white of one channel; of three, their colours around grey, which is none."""
    if picture.shape[0] == 1:
        return images.difference(picture, limit, scale=scale)
    return images.to_pil(0.5 + picture / (2 * max(limit, 1e-12)), scale)


def signed_limit(*pictures: np.ndarray) -> float:
    """The largest absolute value, as the end of a scale; at least 1/255."""
    return max(1 / 255, *(float(np.abs(p).max(initial=0.0)) for p in pictures))


def signed_sheet(
    pictures: np.ndarray, labels: list[str], limit: float, scale: int, title: str = ""
) -> Image.Image:
    """Signed images (n, channels, height, width) in rows of eight, in one colour scale, a label above each."""
    cells = [signed_picture(p, limit, scale) for p in pictures]
    columns = min(_COLUMNS, len(cells))
    strips = [
        images.sheet(
            [cells[k : k + columns]], column_labels=labels[k : k + columns], title=title if k == 0 else ""
        )
        for k in range(0, len(cells), columns)
    ]
    return images.above(strips)


def with_scale(picture: Image.Image, limit: float, channels: int = 1) -> Image.Image:
    """The picture with the scale of signed colours below."""
    ends = (f"-{limit:.2g}", "0", f"+{limit:.2g}")
    if channels == 1:
        return images.titled(images.with_bar(picture, diverging, *ends), "")
    return images.titled(images.with_bar(picture, _grey, *ends), "")


def _grey(values: np.ndarray) -> np.ndarray:
    return (255 * np.repeat(np.asarray(values)[..., None], 3, axis=-1)).round().astype(np.uint8)


def _ends(start: np.ndarray, end: np.ndarray, scale: int, more: list[tuple[str, np.ndarray]], limit: float):
    cells = [images.to_pil(np.clip(start, 0, 1), scale), images.to_pil(np.clip(end, 0, 1), scale)]
    labels = ["start", "end"]
    for label, picture in more:
        cells.append(signed_picture(picture, limit, scale))
        labels.append(label)
    return images.sheet([cells], column_labels=labels)


@drawn(
    Attribution,
    completeness_gap="sum of the images and change differ by {} at most",
    gap_share="{} of the range",
    image_sum_gap="over the whole image by {}",
    nodes="{} nodes",
    gap_allowed="{} of the range allowed",
)
def _attribution(result: Attribution, *, scale: int | None = None, count: int = 16) -> Drawing:
    order = np.argsort(-np.asarray(result.amount), kind="stable")[:count]
    pictures = np.asarray(result.images)[order]
    forward = result.share is not None
    shown = result.end_output - result.start_output if forward else pictures
    limit = signed_limit(pictures, shown)
    scale = scale or images.fitting_scale(pictures.shape, min(_COLUMNS, len(pictures)))
    if result.share is not None:
        labels = [f"{result.dims[i]}: {round(100 * float(result.share[i]))} %" for i in order]
        more = [("change", shown)]
        if np.abs(result.rest).max() > 0:
            more.append(("all others", result.rest))
        ends = _ends(result.start_output, result.end_output, scale, more, limit)
        what = "What each latent adds to the change, and its share"
    else:
        labels = [f"{result.dims[i]}: {result.total[i]:+.2f}" for i in order]
        ends = _ends(result.start, result.end, scale, [], limit)
        what = "What each pixel adds to an output, and their sum"
    left_out = f" ({len(order)} of {len(result.dims)})" if len(order) < len(result.dims) else ""
    body = images.above([ends, signed_sheet(pictures, labels, limit, scale, what + left_out)])
    where = f" of {result.network}" + (f", straight in {result.space}" if result.space else "")
    return Drawing(
        with_scale(body, limit, pictures.shape[1]), f"Integrated gradients{where}, from {result.baseline}"
    )


@drawn(
    Conductance,
    completeness_gap="sum of the units and change differ by {} at most",
    gap_share="{} of the range",
    gap_allowed="{} of the range allowed",
    complete="kept to: {}",
    stage_gap="without what goes around the stage by {}",
    bypass="the stage's state alone misses {}",
)
def _conductance(result: Conductance, *, scale: int | None = None, count: int = 16) -> Drawing:
    order = np.asarray(result.order)[:count]
    chosen = np.asarray(result.contributions)[order]
    names = [f"{result.units[i]}" for i in order]
    kind = "all routes pass here" if result.cut else "some routes go around"
    title = f"Conductance of {result.address} ({kind}), from {result.baseline}"
    if chosen.ndim == 4 and chosen.shape[1] in (1, 3):
        change = result.end_output - result.start_output
        limit = signed_limit(chosen, change)
        scale = scale or images.fitting_scale(chosen.shape, min(_COLUMNS, len(chosen)))
        more = [("change", change)] + ([] if result.cut else [("around", result.around)])
        labels = [f"{n}: {round(100 * float(result.share[i]))} %" for n, i in zip(names, order, strict=True)]
        head = f"What the strongest {len(order)} of {len(result.units)} units add, and their share"
        ends = _ends(result.start_output, result.end_output, scale, more, limit)
        body = images.above([ends, signed_sheet(chosen, labels, limit, scale, head)])
        return Drawing(with_scale(body, limit, chosen.shape[1]), title)
    columns = [result.meter] if result.meter else [f"{i}" for i in range(int(np.prod(chosen.shape[1:])))]
    table = matrix_picture(
        chosen.reshape(len(chosen), -1),
        [f"unit {n}" for n in names],
        columns,
        title="What each unit adds" + (f" to {result.meter}" if result.meter else " to each output"),
        signed=True,
        cell=44,
    )
    return Drawing(table, title)
