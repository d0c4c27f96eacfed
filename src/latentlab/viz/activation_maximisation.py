"""How inputs that excite units most are drawn."""

from __future__ import annotations

import numpy as np
from PIL import Image

from latentlab.analysis.activation_maximisation import MaximisedActivation
from latentlab.viz import images
from latentlab.viz.drawing import Drawing, drawn
from latentlab.viz.raster import matrix_picture

_MOST_CELLS = 12


@drawn(
    MaximisedActivation,
    reached="reached {}",
    sample_max="best samples {}",
    percentile="percentile {} at least",
    found_nothing="units that nothing excites more than the samples {}",
    re_evaluated="evaluated anew to {}",
    diagonal_share="units most excited by their own {}",
    agreement="seeds agree by {} at least",
    agreement_by_chance="samples by {}",
    shifted="share kept under shifts {}",
    radius_percentile="percentiles of the codes' norms {}",
)
def _maximised(result: MaximisedActivation, *, scale: int | None = None, count: int = 8) -> Drawing:
    """One row a unit: the best sample and what each seed found; beside it the matrix of unit by image."""
    shown = result.images[:count]
    rows = np.concatenate([result.sample_images[:count, None], shown], axis=1)
    labels = [
        f"unit {unit}\n{top:.3g} (samples {most:.3g})"
        for unit, top, most in zip(result.units, result.reached[:, 0], result.sample_max, strict=True)
    ][:count]
    columns = ["best sample", "found", *[f"seed {i + 1}" for i in range(1, shown.shape[1])]]
    sheet: Image.Image = images.grid(
        rows,
        row_labels=labels,
        column_labels=columns,
        scale=scale or images.fitting_scale(rows.shape, rows.shape[1], cell=80),
        gap=4,
    )
    few = min(len(result.units), _MOST_CELLS)
    if few > 1:
        names = [str(unit) for unit in result.units[:few]]
        matrix = matrix_picture(
            result.selectivity[:few, :few], names, names, title="Unit (row) on the input of unit (column)"
        )
        sheet = images.beside([sheet, matrix], 16)
    over = {"pixels": "pixels", "prior": "images the model draws", "latents": "codes within the prior"}[
        result.over
    ]
    return Drawing(
        sheet, f"What excites units of {result.address} most ({result.summary} of the map), over {over}"
    )
