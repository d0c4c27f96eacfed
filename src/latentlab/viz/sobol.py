"""How shares of variance are drawn."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from latentlab.analysis.sobol import Sobol
from latentlab.viz import images, lettering
from latentlab.viz.colours import sequential, tones
from latentlab.viz.drawing import Drawing, drawn
from latentlab.viz.raster import matrix_picture

_MOST = 24
_WIDTH, _ROW = 380, 26


@drawn(
    Sobol,
    sum_first="first-order shares sum to {}",
    additivity_gap="gap to 1 {}",
    negative_shares="negative ones {}",
    first_error="standard errors {}",
    total_error="and {}",
    undriven_share="an undriven latent has {}",
    codes_run="{} codes run",
)
def _sobol(result: Sobol, *, count: int = _MOST, scale: int | None = None) -> Drawing:
    order = np.argsort(-result.total, kind="stable")[:count]
    parts = [_shares(result, order)]
    names = [result.variables[i] for i in order]
    if result.total_map is not None:
        shown = order[:8]
        maps = np.nan_to_num(np.clip(result.total_map[shown], 0.0, 1.0)).mean(axis=1)
        # Where hardly anything varies a share says nothing: the maps fade with the place's standard deviation.
        spread = np.sqrt(result.variance).mean(axis=0)
        maps = maps * (spread / max(float(spread.max()), 1e-12))
        scale = scale or images.fitting_scale(maps.shape, len(shown), cell=96, widest=900)
        cells = [
            Image.fromarray(sequential(m / max(float(maps.max()), 1e-12))).resize(
                (m.shape[1] * scale, m.shape[0] * scale), Image.Resampling.NEAREST
            )
            for m in maps
        ]
        title = "Where: total share times standard deviation"
        parts.append(images.sheet([cells], column_labels=[result.variables[i] for i in shown], title=title))
    if result.unit_total is not None:
        units = np.argsort(-np.nan_to_num(result.variance), kind="stable")[:16]
        table = np.nan_to_num(result.unit_total[order][:, units])
        title = "Total shares of the units that vary most"
        parts.append(
            matrix_picture(
                np.clip(table, 0.0, None).round(2) + 0.0, names, [f"unit {u}" for u in units], title=title
            )
        )
    how = "given the others" if result.method == "conditional" else "under the prior"
    return Drawing(images.above(parts, 6), f"Variance shares of {result.target}, latents {how}")


def _shares(result: Sobol, order: np.ndarray) -> Image.Image:
    """Two bars a latent, first order over total, each with its interval; and the latent that drives nothing."""
    rows = [(result.variables[i], *_row(result, i)) for i in order]
    nothing = np.array([np.nan, np.nan])
    rows.append(("undriven", (result.null_first, nothing), (result.null_total, nothing)))
    top = max(
        1e-12, *(float(np.nanmax([v, *(w for w in s if np.isfinite(w))])) for r in rows for v, s in r[1:])
    )
    left = max(lettering.width(r[0]) for r in rows) + 12
    picture = Image.new("RGB", (left + _WIDTH + 70, _ROW * len(rows) + 22), tones().paper)
    draw = ImageDraw.Draw(picture)
    for i, (name, *bars) in enumerate(rows):
        y = _ROW * i
        lettering.write(picture, (left - 10, y + _ROW / 2 - 1), name, colour=tones().ink, anchor="rm")
        furthest = left
        for k, (value, (low, high)) in enumerate(bars):
            above = y + 2 + 11 * k
            end = left + max(round(_WIDTH * max(value, 0.0) / top), 1)
            draw.rectangle((left, above, end, above + 9), fill=(tones().accent, tones().line)[k])
            furthest = max(furthest, end)
            if np.isfinite(low):
                a, b = (left + max(round(_WIDTH * max(v, 0.0) / top), 0) for v in (low, high))
                draw.line((a, above + 5, b, above + 5), fill=tones().ink)
                furthest = max(furthest, b)
        text = f"{_brief(bars[0][0])} / {_brief(bars[1][0])}"
        lettering.write(
            picture, (furthest + 6, y + _ROW / 2 - 1), text, size=11, colour=tones().faint, anchor="lm"
        )
    y = _ROW * len(rows) + 4
    draw.rectangle((left, y + 2, left + 12, y + 11), fill=tones().accent)
    lettering.write(picture, (left + 18, y), "alone", size=11, colour=tones().faint)
    draw.rectangle((left + 80, y + 2, left + 92, y + 11), fill=tones().line)
    lettering.write(picture, (left + 98, y), "with interactions", size=11, colour=tones().faint)
    draw.line((left + 216, y + 7, left + 232, y + 7), fill=tones().ink)
    lettering.write(picture, (left + 238, y), "95 % of the bootstrap", size=11, colour=tones().faint)
    unit = f" ({result.unit})" if result.unit else ""
    return images.titled(picture, f"Shares of the variance of {result.target}{unit}")


def _brief(value: float) -> str:
    return f"{value:.2g}" if abs(value) >= 0.005 else "0"


def _row(result: Sobol, i: int):
    return (
        (float(result.first[i]), result.first_interval[i]),
        (float(result.total[i]), result.total_interval[i]),
    )
