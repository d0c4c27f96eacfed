"""How the way from latents over units to pixels is drawn: a matrix of shares, and what the strongest units paint."""

from __future__ import annotations

import numpy as np

from latentlab.analysis.influence import InfluenceByStage, LatentUnits
from latentlab.viz import images
from latentlab.viz.attribution import signed_limit, signed_picture, with_scale
from latentlab.viz.drawing import Drawing, drawn
from latentlab.viz.raster import matrix_picture


@drawn(
    LatentUnits,
    row_gap="rows add up to 1 within {}",
    held_correlation="shares and losses when held correlate by {}",
    half_difference="halves of the codes differ by {} at most",
    units_for_half="half of a latent in {} units",
    units_for_half_null="of a random direction in {}",
    live_latents="counted over {} latents",
)
def _latent_units(
    result: LatentUnits, *, scale: int | None = None, rows: int = 10, columns: int = 14
) -> Drawing:
    shown = _shown(result)
    latents = shown[np.argsort(-np.asarray(result.effect)[shown], kind="stable")][:rows]
    shares = np.asarray(result.matrix)[latents]
    units = np.sort(np.argsort(-np.abs(shares).max(axis=0), kind="stable")[:columns])
    null = np.asarray(result.null)[:, units].mean(axis=0)
    table = matrix_picture(
        np.concatenate([shares[:, units], null[None]]),
        [*(result.dims[k] for k in latents), "random"],
        [str(u) for u in units],
        title="Share of each unit in what a latent does",
        signed=True,
    )
    painted = np.asarray(result.painted)[latents]
    limit = signed_limit(painted, result.changes[latents])
    wide = 3 + painted.shape[1]
    scale = scale or images.fitting_scale(painted.shape, wide, cell=64)
    cells, labels = [], []
    for row, k in enumerate(latents):
        ends = [images.to_pil(np.clip(p, 0, 1), scale) for p in result.images[k]]
        signed = [result.changes[k], *painted[row]]
        cells.append([*ends, *(signed_picture(p, limit, scale) for p in signed)])
        units_of = result.painted_units[k][:3]
        labels.append(f"{result.dims[k]}\nunits {', '.join(str(u) for u in units_of)}")
    heads = ["low", "high", "change", *(f"unit no. {i + 1}" for i in range(painted.shape[1]))]
    sheet = images.sheet(
        cells, row_labels=labels, column_labels=heads, title="What the strongest units paint"
    )
    body = images.beside([table, with_scale(sheet, limit, painted.shape[2])], 12)
    kind = "all routes pass here" if result.cut else "some routes go around"
    first = f", the {len(latents)} strongest" if len(latents) < len(shown) else ""
    title = f"Latents of {result.space} in the units of {result.address} ({kind}){first}{_left_out(result)}"
    return Drawing(body, title)


@drawn(
    InfluenceByStage,
    row_gap="rows add up to 1 within {}",
    cuts="{} of the stages are passed by all routes",
    half_difference="halves of the codes differ by {} at most",
    live_latents="counted over {} latents",
)
def _by_stage(result: InfluenceByStage, *, cell: int = 48) -> Drawing:
    names = [f"{s}{'' if c else ' (around)'}" for s, c in zip(result.stages, result.cut, strict=True)]
    shown = _shown(result)
    dims = [result.dims[k] for k in shown]
    units = np.array([m.shape[1] for m in result.matrices.values()])
    values = (
        np.concatenate([np.asarray(result.effective)[shown], np.asarray(result.effective_null)[None]]) / units
    )
    effective = matrix_picture(
        values,
        [*dims, "random"],
        names,
        title="Share of the units that carry a latent",
        signed=False,
        cell=cell,
    )
    top = matrix_picture(
        np.stack([np.abs(m)[shown].max(axis=1) for m in result.matrices.values()], axis=1),
        dims,
        names,
        title="Share of the strongest unit",
        signed=False,
        cell=cell,
    )
    title = f"Latents of {result.space} through {result.network}{_left_out(result)}"
    return Drawing(images.beside([effective, top], 16), title)


def _shown(result: LatentUnits | InfluenceByStage) -> np.ndarray:
    """Positions of the live latents; of all where none is."""
    live = np.asarray(result.live)
    return np.flatnonzero(live if live.any() else ~live)


def _left_out(result: LatentUnits | InfluenceByStage) -> str:
    """The rest of a title, on the latents that are not drawn."""
    live = np.asarray(result.live)
    if not live.any():
        return "; no latent changes the image"
    dead = int((~live).sum())
    if not dead:
        return ""
    what = "1 latent that changes" if dead == 1 else f"{dead} latents that change"
    return f"; left out: {what} the image by less than 5 % of the strongest"
