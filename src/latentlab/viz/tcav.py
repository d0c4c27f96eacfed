"""How tests of concepts are drawn: each concept's effect beside those of random concepts."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from latentlab.analysis.tcav import Tcav
from latentlab.viz import lettering
from latentlab.viz.colours import tones
from latentlab.viz.drawing import Drawing, drawn
from latentlab.viz.images import titled

_WIDTH, _ROW = 420, 44


@drawn(
    Tcav,
    gradient_gap="gradients agree with differences to {}",
    null_rejected="random concepts called significant {}",
    customary_rejected="by the customary test {}",
)
def _tcav(result: Tcav, *, width: int = _WIDTH) -> Drawing:
    names = [*result.concepts, "random concepts"]
    notes = [
        f"p = {_p(a)}, CAV accuracy {100 * c:.0f} %, score {s:.2f}"
        for a, c, s in zip(result.adjusted, result.accuracy, result.score.mean(axis=1), strict=True)
    ]
    notes.append(f"{len(result.null_effect)} sets, accuracy {100 * result.null_accuracy.mean():.0f} %")
    left = max(lettering.width(t) for t in names) + 16
    right = max(lettering.width(t, lettering.SMALL) for t in notes) + 24
    limit = max(float(np.abs(np.concatenate([result.effect, result.null_effect])).max()), 1e-12) * 1.05
    picture = Image.new("RGB", (left + width + right, _ROW * len(names) + 26), tones().paper)
    draw = ImageDraw.Draw(picture)

    def place(value: float) -> float:
        return left + width * (value / limit + 1) / 2

    low, high = np.quantile(result.null_effect, [0.025, 0.975])
    draw.rectangle((place(low), 0, place(high), _ROW * len(names)), fill=tones().pale)
    draw.line((place(0), 0, place(0), _ROW * len(names)), fill=tones().line)
    for i, (name, note) in enumerate(zip(names, notes, strict=True)):
        y = _ROW * i + _ROW / 2
        last = i == len(names) - 1
        for value in result.null_effect if last else result.effect[i : i + 1]:
            sure = not last and result.adjusted[i] < 0.05
            radius, colour = 3 if last else 7, tones().accent if sure else tones().faint
            x = place(float(value))
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        lettering.write(
            picture, (left - 12, y), name, colour=tones().faint if last else tones().ink, anchor="rm"
        )
        lettering.write(
            picture, (left + width + 16, y), note, size=lettering.SMALL, colour=tones().faint, anchor="lm"
        )
    y = _ROW * len(names) + 6
    for value, anchor in ((-limit, "la"), (0.0, "ma"), (limit, "ra")):
        text = "0" if value == 0 else f"{value:+.2g}"
        lettering.write(
            picture, (place(value), y), text, size=lettering.SMALL, colour=tones().faint, anchor=anchor
        )
    unit = f" ({result.unit})" if result.unit else ""
    still = titled(picture, f"First-order effect on {result.target}{unit}")
    return Drawing(still, f"Concepts at {result.address}, {result.features} features; p after Bonferroni")


def _p(value: float) -> str:
    return f"{value:.1g}" if value < 0.095 else f"{value:.2f}"
