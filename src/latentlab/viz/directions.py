"""How directions, their effects and analogies are drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from latentlab.analysis.direction_effects import DirectionEffects
from latentlab.analysis.directions import Directions
from latentlab.analysis.groups import Analogy
from latentlab.viz import images
from latentlab.viz.drawing import Drawing, drawn
from latentlab.viz.raster import bars, matrix_picture

_MOST = 16
_LONGEST = 22


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


@drawn(
    Directions,
    affine_gap="the first map is affine to {}",
    orthogonality="directions orthogonal to {}",
    gain_gap="gains agree with scores to {}",
    random_gain="random directions have gain {}",
    covered="share of the squared gains covered {}",
    eigen_gap="components are eigenvectors to {}",
    random_share="a random direction has a share of {}",
    code_r2="share of a component that the code tells {}",
    least_stability="two halves of the draws agree to a cosine of {}",
    shuffled_accuracy="with shuffled labels {} (mean to largest)",
    examples="{} examples fitted",
    conditioned_cosine="cosine to what is held fixed {}",
    rank_correlation="rank correlation of all codes {}",
    shuffled_distance="groups mixed at random {} apart (mean to largest)",
)
def _directions(result: Directions, *, count: int = _MOST) -> Drawing:
    shown = range(min(count, len(result)))
    labels = [_short(result.names[i]) for i in shown]
    faint = None
    title = f"{result.method}: {result.score_name}"
    if result.stability is not None:
        faint = [bool(result.stability[i] < 0.8) for i in shown]
        title += "\ngrey where two halves of the draws disagree (cosine below 0.8)" if any(faint) else ""
    still = bars(result.scores[: len(labels)], labels, title=title, faint=faint)
    where = f"space {result.space}" if result.space else str(result.stage)
    layers = f", layers {_range(result.layers)}" if result.layers is not None else ""
    return Drawing(still, f"{len(result)} directions of {where}{layers} by {result.method}")


@drawn(
    DirectionEffects,
    zero_step_change="0 steps change {}",
    beyond_random="share of the matrix beyond random directions {}",
)
def _effects(result: DirectionEffects, *, scale: int | None = None, count: int = _MOST) -> Drawing:
    n = min(count, len(result.direction_names))
    names = [_short(name) for name in result.direction_names[:n]]
    matrix = matrix_picture(
        _clean(result.effect[:n]),
        names,
        list(result.meters),
        title="Change of each meter a step, in its spreads",
        signed=True,
    )
    null = bars(
        np.concatenate([result.image_change[:n], result.null_image_change[:1]]) * 100,
        [*names, "random"],
        unit="%",
        title="Change of the pixels a step",
        faint=[False] * n + [True],
        width=220,
    )
    strips = images.grid(
        result.images[:n],
        row_labels=names,
        column_labels=[f"{s:+g}" if s else "0" for s in result.steps],
        title="One code along each direction, in steps",
        scale=scale or images.fitting_scale(result.images.shape, result.images.shape[1], cell=64),
    )
    kept = np.argwhere(result.significant[:n])
    kept = sorted(kept.tolist(), key=lambda c: -abs(result.effect[c[0], c[1]]))[:_MOST]
    parts = [images.beside([matrix, null], 24)]
    if kept:
        rows = [f"{names[i]} on {result.meters[j]}" for i, j in kept for _ in (0, 1)]
        rows[1::2] = ["random, 95 %"] * len(kept)
        values = [v for i, j in kept for v in (abs(result.effect[i, j]), result.null[i, j])]
        parts.append(
            bars(
                values,
                rows,
                title="Beyond random directions of the same length",
                faint=[False, True] * len(kept),
            )
        )
    parts.append(strips)

    def movie() -> list[Image.Image]:
        size = scale or images.fitting_scale(result.images.shape, n, cell=112)
        order = [*range(len(result.steps)), *range(len(result.steps) - 2, 0, -1)]
        return [images.strip(result.images[:n, t], labels=names, scale=size) for t in order]

    return Drawing(images.above(parts, 12), f"Effects of {len(result.direction_names)} directions", movie)


@drawn(
    Analogy,
    closure="the parallelogram closes to {}",
    random_change="random moves of that length change {}",
)
def _analogy(result: Analogy, *, scale: int | None = None) -> Drawing:
    still = images.strip(
        result.images,
        labels=["a", "is to b", "as c", "is to d"],
        scale=scale or images.fitting_scale(result.images.shape, 4, cell=128),
    )
    return Drawing(still, "Analogy: d = c + (b - a)")


def _range(layers: Sequence[int]) -> str:
    whole = len(layers) > 1 and layers[-1] - layers[0] == len(layers) - 1
    return f"{layers[0]} to {layers[-1]}" if whole else ", ".join(map(str, layers))


def _clean(values: np.ndarray) -> np.ndarray:
    """Rounded for print, so that what is next to nothing reads 0."""
    return np.round(np.asarray(values, dtype=float), 2) + 0.0
