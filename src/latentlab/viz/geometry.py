"""How Jacobians, metrics, magnification maps and geodesics are drawn."""

from __future__ import annotations

import numpy as np
from PIL import Image

from latentlab.analysis.geodesic import Geodesic
from latentlab.analysis.geometry import PullbackMetric
from latentlab.analysis.jacobian import Jacobian
from latentlab.analysis.magnification import MagnificationMap
from latentlab.viz import images
from latentlab.viz.colours import sequential, tones
from latentlab.viz.drawing import Drawing, drawn
from latentlab.viz.raster import bars, matrix_picture

_MOST = 8


def _is_picture(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) > 1


@drawn(
    Jacobian,
    checked_in="checked in {}",
    svd_difference="singular parts add up to {}",
    vanishing="{} of the rows vanish",
)
def _jacobian(result: Jacobian, *, scale: int | None = None, count: int = _MOST, code: int = 0) -> Drawing:
    of = f"stage {result.stage}" if result.stage else "output"
    title = f"Jacobian of the {result.network}'s {of}"
    s = result.singular_values[code]
    spectrum = bars(s[:count], [f"singular {i}" for i in range(min(count, len(s)))], title="Singular values")
    shape = result.jacobian.shape[2:]
    if not _is_picture(shape):
        size = np.linalg.norm(result.jacobian[code].reshape(len(result.rows), -1), axis=1)
        order = np.argsort(-size)[: 2 * count]
        rows = bars(size[order], [result.rows[i] for i in order], title="Length of each row")
        return Drawing(images.beside([rows, spectrum], 16), title)
    size = np.linalg.norm(result.jacobian[code].reshape(len(result.rows), -1), axis=1)
    shown = np.sort(np.argsort(-size, kind="stable")[:count])
    scale = scale or images.fitting_scale(shape, count, cell=96, widest=900)
    limit = images.difference_limit(result.jacobian[code][shown])
    cells = [images.difference(result.jacobian[code, i], limit, scale=scale) for i in shown]
    per_unit = "a unit of each latent" if result.side == "input" else "each output"
    upper = images.sheet(
        [cells],
        column_labels=[result.rows[i] for i in shown],
        title=f"Derivative for {per_unit}: blue falls, red rises, up to {limit:.2g}",
    )
    parts = min(count, len(s))
    patterns = [images.difference(result.patterns[code, k], None, scale=scale) for k in range(parts)]
    lower = images.sheet(
        [patterns],
        column_labels=[f"{s[k]:.3g}" for k in range(parts)],
        title="Singular images, each in its own scale, with their singular values",
    )
    pull = matrix_picture(
        result.directions[code, :parts][:, shown].round(2) + 0.0,
        [f"singular {k}" for k in range(parts)],
        [result.rows[i] for i in shown],
        title="Singular directions",
    )
    return Drawing(images.above([upper, lower, pull], 4), title)


@drawn(
    PullbackMetric,
    length_gap="small steps agree to {}",
    asymmetry="asymmetry {}",
)
def _pullback_metric(result: PullbackMetric, *, code: int = 0, count: int = 16) -> Drawing:
    dims = list(result.dims[:count])
    metric = result.metric[code]
    own = np.sqrt(np.diagonal(metric).clip(0.0))
    cosines = metric / np.maximum(np.outer(own, own), 1e-300)
    matrix = matrix_picture(
        np.clip(cosines[:count, :count], -1.0, 1.0).round(2) + 0.0,
        dims,
        dims,
        title="Cosine between what two latents change",
        signed=True,
        cell=40,
    )
    stretch = np.sqrt(result.eigenvalues[code])[:count]
    lengths = images.above(
        [
            bars(own[:count], dims, title="Change of the image a unit of each latent", width=300),
            bars(
                stretch,
                [f"direction {i}" for i in range(len(stretch))],
                title="The same of the metric's own directions",
                width=300,
            ),
        ]
    )
    numbers = (
        f"log volume {result.log_volume[code]:.3g} nats   condition {result.condition[code]:.3g}   "
        f"effective rank {result.effective_rank[code]:.2f} of {len(result.dims)}"
    )
    still = images.titled(images.beside([matrix, lengths], 12), numbers)
    return Drawing(still, f"Pullback metric ({result.likelihood})")


@drawn(
    MagnificationMap,
    area_gap="area of small steps agrees to {}",
)
def _magnification_map(result: MagnificationMap, *, size: int = 300) -> Drawing:
    x, y = result.dims
    panels = [
        _heat(result.log_area, result, size, f"log area of {x}, {y} (nats)"),
        _heat(result.log_volume, result, size, "log volume of all (nats)"),
        _heat(result.effective_rank, result, size, "effective rank"),
    ]
    return Drawing(images.beside(panels, 8), f"Magnification over {x} and {y}")


def _heat(values: np.ndarray, result: MagnificationMap, size: int, title: str) -> Image.Image:
    shown = np.where(np.isfinite(values), values, np.nan)
    low, high = (float(f(shown)) if np.isfinite(shown).any() else 0.0 for f in (np.nanmin, np.nanmax))
    unit = (np.nan_to_num(shown, nan=low) - low) / max(high - low, 1e-12)
    cell = max(1, size // len(values))
    # Rows of the array rise with y; a person expects the larger y on top.
    picture = Image.fromarray(sequential(unit[::-1])).resize(
        (cell * len(values), cell * len(values)), Image.Resampling.NEAREST
    )
    x, y = result.dims
    named = images.with_axis_names(
        picture,
        f"{x}: {result.x_values[0]:.2g} to {result.x_values[-1]:.2g}",
        f"{y}: {result.y_values[0]:.2g} to {result.y_values[-1]:.2g}",
    )
    return images.titled(images.with_bar(named, sequential, f"{low:.3g}", "", f"{high:.3g}"), title)


@drawn(
    Geodesic,
    length_ratio="{} of the straight line's length",
    speed_variation="speed varies by {}",
    acceleration="acceleration within the manifold {}",
    straight_acceleration="the straight line's {}",
    slope_left="slope left {}",
)
def _geodesic(result: Geodesic, *, scale: int | None = None) -> Drawing:
    steps = len(result.z)
    scale = scale or images.fitting_scale(result.images.shape, steps, cell=72, widest=1000)
    rows = [
        ("geodesic", result.length, result.images),
        ("straight line", result.straight_length, result.straight_images),
    ]
    grid = images.grid(
        np.stack([x for _, _, x in rows]),
        row_labels=[f"{name}\nlength {length:.3g}" for name, length, _ in rows],
        scale=scale,
    )
    labels = [f"{i} to {i + 1}" for i in range(steps - 1)]
    top = max(float(result.speeds.max(initial=0)), float(result.straight_speeds.max(initial=0)), 1e-12)
    speeds = images.beside(
        [
            _speed_bars(result.speeds, labels, top, "Steps of the geodesic"),
            _speed_bars(result.straight_speeds, labels, top, "Steps of the straight line"),
        ],
        24,
    )
    parts = [grid, speeds]
    if result.neighbours is not None and result.straight_neighbours is not None:
        support = matrix_picture(
            np.stack([result.neighbours, result.straight_neighbours]),
            ["geodesic", "straight line"],
            [str(i) for i in range(steps)],
            title="Data codes near each step (about 10 where data is typical)",
        )
        parts.append(support)
    kind = f"Geodesic, support weight {result.support_weight:g}" if result.support_weight else "Geodesic"
    return Drawing(images.above(parts, 4), kind)


def _speed_bars(values: np.ndarray, labels: list[str], top: float, title: str) -> Image.Image:
    wide = max(round(260 * float(values.max(initial=0)) / top), 1)
    picture = bars(values, labels, title=title, width=wide)
    sheet = Image.new("RGB", (max(picture.width, 400), picture.height), tones().paper)
    sheet.paste(picture, (0, 0))
    return sheet
