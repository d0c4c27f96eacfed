"""How the results about latents, maps and edits are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from latentlab.analysis.activations import Activations, FeatureMaps
from latentlab.analysis.encoding import Encoding
from latentlab.analysis.interpolation import Interpolation
from latentlab.analysis.inversion import Inversion
from latentlab.analysis.projection import Projection
from latentlab.analysis.readout import LinearReadout
from latentlab.analysis.traversal import SwapGrid, Traversal, TraversalGrid
from latentlab.analysis.units import EditComparison, UnitRanking
from latentlab.viz import images
from latentlab.viz.colours import diverging, tones
from latentlab.viz.drawing import Drawing, drawn
from latentlab.viz.raster import bars, raster_map

_MOST_ROWS = 8
_MOST_BARS = 24


def _there_and_back(count: int) -> list[int]:
    return [*range(count), *range(count - 2, 0, -1)]


def _number(value: float) -> str:
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text


@drawn(Traversal)
def _traversal(result: Traversal, *, scale: int | None = None, animate: bool = True) -> Drawing:
    rows, steps = result.images.shape[:2]
    labels, shared = [], all(np.array_equal(v, result.values[0], equal_nan=True) for v in result.values)
    for i, name in enumerate(result.dims):
        last = result.lengths[i] - 1
        lines = (
            [name]
            if result.categorical[i]
            else [name, f"{_number(result.values[i, 0])} to {_number(result.values[i, last])}"]
        )
        if rows > 1:
            lines.append(f"change {100 * result.effect[i]:.1f} %")
        labels.append("\n".join(lines))
    columns = [_number(v) for v in result.values[0]] if shared and not any(result.categorical) else None
    if shared and columns:
        labels = ["\n".join(line for line in text.split("\n") if " to " not in line) for text in labels]
    still = images.grid(result.images, row_labels=labels, column_labels=columns, scale=scale)
    cells = images.grid_boxes(result.images, row_labels=labels, column_labels=columns, scale=scale)
    cells[np.arange(steps) >= result.lengths[:, None]] = 0  # behind the end of a shorter strip
    what = {
        "prior": "prior range",
        "posterior": "posterior range",
        "sigma": "around the code",
        "values": "values given",
        "direction": "steps in standard deviations",
    }

    def movie() -> list[Image.Image]:
        size = scale or images.fitting_scale(result.images.shape, rows, cell=128)
        frames = []
        for t in _there_and_back(steps):
            step = np.minimum(
                round(t / max(steps - 1, 1) * 1e6) / 1e6 * (result.lengths - 1), result.lengths - 1
            )
            at = step.round().astype(int)
            row = result.images[np.arange(rows), at]
            texts = [
                f"{n} {int(v)}" if c else f"{n} {_number(v)}"
                for n, v, c in zip(
                    result.dims, result.values[np.arange(rows), at], result.categorical, strict=True
                )
            ]
            columns_ = max(1, min(rows, 5))
            padded = np.full((-(-rows // columns_) * columns_, *row.shape[1:]), np.nan, dtype=row.dtype)
            padded[:rows] = row
            sheets = [
                images.strip(
                    padded[k : k + columns_],
                    labels=[*texts[k : k + columns_], *[""] * (columns_ - len(texts[k : k + columns_]))],
                    scale=size,
                )
                for k in range(0, rows, columns_)
            ]
            frames.append(images.above(sheets))
        return _same_size(frames)

    title = f"Traversal of {_listed(result.dims)}, {what.get(result.span, result.span)}"
    return Drawing(still, title, movie if animate else None, cells)


@drawn(TraversalGrid)
def _traversal_grid(result: TraversalGrid, *, scale: int | None = None, animate: bool = True) -> Drawing:
    # The array's rows go down; a person expects the larger y on top.
    order = np.argsort(-np.asarray(result.y_values), kind="stable")
    x, y = result.dims
    shown = np.asarray(result.images)[order]
    look: dict[str, Any] = {
        "row_labels": [_number(v) for v in np.asarray(result.y_values)[order]],
        "column_labels": [_number(v) for v in result.x_values],
        "scale": scale or images.fitting_scale(result.images.shape, result.images.shape[1], cell=72),
        "gap": 1,
    }
    named = images.with_axis_names(images.grid(shown, **look), x, y)
    cells = np.zeros((*shown.shape[:2], 4), int)
    cells[order] = images.grid_boxes(shown, **look) + np.tile([images.axis_band(), 0], 2)

    def movie() -> list[Image.Image]:
        size = scale or images.fitting_scale(result.images.shape, 1, cell=192)
        frames = []
        for k, i in enumerate(order):
            columns = range(len(result.x_values))
            for j in columns if k % 2 == 0 else reversed(columns):
                text = f"{x} {_number(float(result.x_values[j]))}, {y} {_number(float(result.y_values[i]))}"
                frames.append(images.strip(result.images[i, j][None], labels=[text], scale=size))
        return _same_size(frames)

    return Drawing(named, f"Grid of {x} (across) and {y} (up)", movie if animate else None, cells)


@drawn(SwapGrid)
def _swap_grid(result: SwapGrid, *, scale: int | None = None, animate: bool = True) -> Drawing:
    rows, columns = result.images.shape[:2]
    block = " and ".join(result.block)
    scale = scale or images.fitting_scale(result.images.shape, columns + 1)
    gap, between = 3, 8
    body = images.grid(result.images, scale=scale, gap=gap)
    head = images.grid(result.column_images[None], scale=scale, gap=gap)
    side = images.grid(result.row_images[:, None], scale=scale, gap=gap)
    corner = Image.new("RGB", (side.width, head.height), tones().paper)
    sheet = images.above(
        [images.beside([corner, head], between), images.beside([side, body], between)], between
    )

    def movie() -> list[Image.Image]:
        frames = []
        for j in range(columns):
            cells = np.concatenate([result.column_images[j][None], result.images[:, j]])
            frames.append(
                images.strip(cells, labels=[block, *[f"row {i}" for i in range(rows)]], scale=scale)
            )
        return _same_size(frames)

    title = f"{block} from the column, all else from the row"
    left, top = images.titled_corner(title)
    origin = np.array([left + side.width + between, top + head.height + between])
    cells = images.grid_boxes(result.images, scale=scale, gap=gap) + np.tile(origin, 2)
    still = images.titled(sheet, title)
    return Drawing(still, f"Swap grid of {block}", movie if animate else None, cells)


@drawn(Interpolation)
def _interpolation(result: Interpolation, *, scale: int | None = None, animate: bool = True) -> Drawing:
    near = (
        [""] * len(result.t)
        if result.neighbours is None
        else [f"\n{int(count)} near" for count in result.neighbours]
    )
    labels = [f"{t:.2f}{count}" for t, count in zip(result.t, near, strict=True)]
    still = images.strip(result.images, labels=labels, scale=scale)
    cells = images.grid_boxes(result.images[None], column_labels=labels, scale=scale)[0]

    def movie() -> list[Image.Image]:
        size = scale or images.fitting_scale(result.images.shape, 1, cell=192)
        return _same_size(
            [
                images.strip(result.images[i][None], labels=[f"t = {result.t[i]:.2f}"], scale=size)
                for i in _there_and_back(len(result.t))
            ]
        )

    return Drawing(still, f"Interpolation ({result.method})", movie if animate else None, cells)


@drawn(Inversion)
def _inversion(result: Inversion, *, scale: int | None = None, count: int = _MOST_ROWS) -> Drawing:
    rows = np.stack([a[:count] for a in (result.targets, result.start_images, result.images)])
    still = images.grid(
        rows,
        row_labels=["given", f"start\n({result.start})", "found"],
        column_labels=[f"{e:.1e}" for e in result.error[:count]],
        title="Mean squared error of what was found",
        scale=scale or images.fitting_scale(result.images.shape, rows.shape[1]),
    )
    return Drawing(still, f"Inversion in {result.space}")


@drawn(Encoding)
def _encoding(result: Encoding, *, count: int = 32) -> Drawing:
    order = result.order[:count]
    labels = [f"{result.dim_names[i]}" for i in order]
    title = f"KL of {result.n:,} images of {result.dataset}, {int(result.active.sum())} of {len(result.active)} active"
    still = bars(
        result.kl_per_dim[order],
        labels,
        unit="nats",
        title="KL a latent",
        faint=[not result.active[i] for i in order],
    )
    return Drawing(still, title)


@drawn(LinearReadout)
def _linear_readout(result: LinearReadout, *, count: int = _MOST_BARS) -> Drawing:
    names = [f"{n} (circular)" if c else n for n, c in zip(result.factors, result.circular, strict=True)]
    labels = [label for name in names for label in (name, "shuffled")][: 2 * count]
    values = np.stack([result.r2, result.null], axis=1).clip(0.0).ravel()[: 2 * count]
    still = bars(
        values, labels, title="Held-out R2 of a linear fit", faint=[i % 2 == 1 for i in range(len(labels))]
    )
    return Drawing(still, "Linear fits from the latents to the factors")


@drawn(Projection)
def _projection(result: Projection, *, colour: Any = None, size: int = 640) -> Drawing:
    if colour is None and result.factor_names and result.factors is not None:
        colour = result.factor_names[0]
    method = {"umap": "UMAP", "tsne": "t-SNE", "pca": "PCA"}.get(result.method, result.method)
    title = f"{method} of {len(result.points):,} codes"
    if isinstance(colour, str):
        title += f", coloured by {colour}"
    return Drawing(raster_map(result, colour, size=size), title)


@drawn(FeatureMaps)
def _feature_maps(
    result: FeatureMaps,
    *,
    scale: int | None = None,
    columns: int | None = None,
    off: Sequence[int] = (),
    each: bool = False,
) -> Drawing:
    sheet = images.feature_sheet(
        result.maps, columns=columns, off=off, scale=scale, each=each, title=result.address
    )
    if result.image is not None:
        role = "input" if result.network == "encoder" else "image"
        sheet = images.beside(
            [images.strip(result.image[None], labels=[role], scale=_image_scale(result.image)), sheet]
        )
    return Drawing(sheet, f"Feature maps of {result.address}")


@drawn(Activations)
def _activations(result: Activations, *, count: int = 12) -> Drawing:
    rows = []
    for address, state in zip(result.addresses, result.states.values(), strict=True):
        first = np.asarray(state)[0]
        maps = first.reshape(first.shape[0], *(first.shape[1:] if first.ndim == 3 else (1, 1)))[:count]
        shape = "x".join(map(str, first.shape))
        edge = max(maps.shape[1:])
        rows.append(
            images.feature_sheet(
                maps, columns=count, scale=max(1, round(48 / edge)), title=f"{address}  {shape}"
            )
        )
    return Drawing(images.above(rows), f"Activations of {result.network}, first {count} units a stage")


@drawn(EditComparison)
def _edit_comparison(result: EditComparison, *, scale: int | None = None, count: int = _MOST_ROWS) -> Drawing:
    where = (
        ", ".join(f"{e.get('operation', 'ablate')} {e['stage']}{_units(e)}" for e in result.edits)
        or "no edits"
    )
    if result.original.ndim != 4 or result.original.shape[1] not in (1, 3):
        top = np.argsort(-np.abs(result.difference[0].ravel()))[:_MOST_BARS]
        still = bars(
            np.abs(result.difference[0].ravel())[top], [f"output {i}" for i in top], title="Change of outputs"
        )
        return Drawing(still, f"Edit: {where}")
    n = min(count, len(result.original))
    scale = scale or images.fitting_scale(result.original.shape, 3, cell=128 if n <= 3 else 80)
    limit = images.difference_limit(result.difference[:n])
    cells = [
        [
            images.to_pil(result.original[i], scale),
            images.to_pil(result.edited[i], scale),
            images.difference(result.difference[i], limit, scale=scale),
        ]
        for i in range(n)
    ]
    sheet = images.sheet(
        cells,
        column_labels=["original", "edited", "difference"],
        row_labels=[f"{100 * c:.2g} %\nchange" for c in result.change[:n]],
    )
    bar = images.with_bar(
        Image.new("RGB", (sheet.width - 20, 1), tones().paper),
        diverging,
        f"-{limit:.2g}",
        "0",
        f"+{limit:.2g}",
    )
    still = images.above([sheet, images.titled(bar, "", 6)])

    def movie() -> list[Image.Image]:
        frames = []
        for name, pictures in (("original", result.original), ("edited", result.edited)):
            frames += [images.strip(pictures[:n], labels=[name, *[""] * (n - 1)], scale=scale)] * 8
        return _same_size(frames)

    return Drawing(still, f"Edit: {where}", movie)


@drawn(UnitRanking)
def _unit_ranking(result: UnitRanking, *, count: int = _MOST_BARS) -> Drawing:
    top = result.order[:count]
    still = bars(
        100 * result.effect[top],
        [f"unit {result.units[i]}" for i in top],
        unit="%",
        title=f"{result.address}: change of the image without the unit",
    )
    return Drawing(still, f"Units of {result.address} by effect, over {result.per_input.shape[1]} inputs")


def _units(edit: Mapping[str, Any]) -> str:
    units = edit.get("units")
    if units is None:
        return ""
    return f":{','.join(map(str, units[:6]))}{'…' if len(units) > 6 else ''}"


def _image_scale(image: np.ndarray) -> int:
    return images.fitting_scale(image.shape, 1, cell=160)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:5])} and {len(names) - 5} more"


def _same_size(frames: Sequence[Image.Image]) -> list[Image.Image]:
    """Frames on paper of one size: labels of different length would make an animation jump."""
    wide, high = max(f.width for f in frames), max(f.height for f in frames)
    sized = []
    for frame in frames:
        sheet = Image.new("RGB", (wide, high), tones().paper)
        sheet.paste(frame, (0, 0))
        sized.append(sheet)
    return sized
