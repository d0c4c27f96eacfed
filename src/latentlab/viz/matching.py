"""How the matching of two models' latents is drawn."""

from __future__ import annotations

import numpy as np

from latentlab.analysis.matching import LatentMatching
from latentlab.viz.drawing import Drawing, drawn
from latentlab.viz.raster import matrix_picture


@drawn(
    LatentMatching,
    matched_mean="pairs agree by {} in the mean",
    null_high="shuffled images by at most {}",
    sure="{} pairs above that",
    margin="{} more than with any other latent",
)
def _latent_matching(result: LatentMatching, *, cell: int = 40) -> Drawing:
    rows = [i for i in _by_strength(result) if result.active_a[i]] or list(range(len(result.names_a)))
    partners = [int(result.permutation[i]) for i in rows if result.permutation[i] >= 0]
    columns = partners + [j for j in np.flatnonzero(result.active_b).tolist() if j not in partners]
    columns = columns or list(range(len(result.names_b)))
    signs = {int(result.permutation[i]): result.signs[i] for i in rows if result.permutation[i] >= 0}
    unit = "nats" if result.measure == "mutual_information" else "absolute rank correlation"
    still = matrix_picture(
        result.strength[np.ix_(rows, columns)],
        [result.names_a[i] for i in rows],
        [("-" if signs.get(j, 1) < 0 else "") + result.names_b[j] for j in columns],
        title=f"Agreement, {unit}: rows the first model, columns the second",
        cell=cell,
    )
    return Drawing(still, f"Latents of two models, {len(partners)} pairs along the diagonal")


def _by_strength(result: LatentMatching) -> list[int]:
    return np.argsort(-np.nan_to_num(result.matched, nan=-1.0), kind="stable").tolist()
