"""How a surrogate is drawn: its terms, its shapes or rules, and its predictions against what was measured."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from latentlab.analysis.surrogates import Surrogate
from latentlab.viz import images, lettering
from latentlab.viz.colours import tones
from latentlab.viz.drawing import Drawing, drawn
from latentlab.viz.raster import bars

_NAMES = {
    "ridge": "ridge regression",
    "logistic": "logistic regression",
    "tree": "a tree",
    "ebm": "an additive model",
}
_WEIGHTS = {
    "ridge": "change a standard deviation",
    "logistic": "log odds a standard deviation",
    "tree": "share of the variance explained",
    "ebm": "mean absolute contribution",
}
_SIDE = 200


@drawn(
    Surrogate,
    fidelity="held-out fidelity {}",
    fidelity_low="from {}",
    fidelity_high="to {}",
    ceiling="boosted trees reach {}",
    gap_to_ceiling="gap {}",
    shuffled="best on shuffled numbers {}",
    counterfactual_slope="measured a predicted change {}",
    counterfactual_r2="R2 of predicted changes {}",
    stability="top terms again in a share of {} of the refits",
)
def _surrogate(result: Surrogate, *, count: int = 10) -> Drawing:
    order = np.argsort(-np.abs(result.weights), kind="stable")[:count]
    names = [f"{result.terms[i]} ({'-' if result.weights[i] < 0 else '+'})" for i in order]
    if result.form in ("tree", "ebm"):
        names = [result.terms[i] for i in order]
    parts = [bars(np.abs(result.weights[order]), names, title=f"Terms: {_WEIGHTS[result.form]}", width=300)]
    parts.append(
        images.beside(
            [
                _scatter(result.predicted, result.measured, "Held-out codes"),
                _scatter(result.moved_predicted, result.moved_measured, "Changes by moved codes"),
            ],
            12,
        )
    )
    if result.shapes:
        shown = [result.terms[i] for i in order if result.terms[i] in result.shapes][:3]
        parts.append(images.titled(images.beside([_shape(result, n) for n in shown], 12), "Contributions"))
    if result.rules:
        parts.append(images.titled(_rules(result.rules), "The tree"))
    attribute = (
        result.attribute if result.threshold is None else f"{result.attribute} > {result.threshold:.3g}"
    )
    title = f"{attribute} imitated by {_NAMES[result.form]}, codes from {result.source}"
    return Drawing(images.above(parts, 4), title)


def _frame(low_x: float, high_x: float, low_y: float, high_y: float, title: str, x: str, y: str):
    left, top, bottom = 52, 22, 36
    picture = Image.new("RGB", (left + _SIDE + 22, top + _SIDE + bottom), tones().paper)
    draw = ImageDraw.Draw(picture)
    lettering.write(picture, (left, 0), title)
    draw.rectangle((left, top, left + _SIDE, top + _SIDE), outline=tones().line)

    def place(a: float, b: float) -> tuple[float, float]:
        u, v = (a - low_x) / max(high_x - low_x, 1e-12), (b - low_y) / max(high_y - low_y, 1e-12)
        return left + _SIDE * min(max(u, 0.0), 1.0), top + _SIDE * (1 - min(max(v, 0.0), 1.0))

    for value in (low_x, high_x):
        spot = (place(value, low_y)[0], top + _SIDE + 3)
        lettering.write(picture, spot, f"{value:.2g}", size=11, colour=tones().faint, anchor="ma")
    for value in (low_y, high_y):
        spot = (left - 5, place(low_x, value)[1])
        lettering.write(picture, spot, f"{value:.2g}", size=11, colour=tones().faint, anchor="rm")
    lettering.write(
        picture, (left + _SIDE / 2, top + _SIDE + 18), x, size=11, colour=tones().faint, anchor="ma"
    )
    if y:
        lettering.write(picture, (left + 4, top + 3), y, size=11, colour=tones().faint)
    return picture, draw, place


def _scatter(predicted: np.ndarray, measured: np.ndarray, title: str) -> Image.Image:
    both = np.concatenate([predicted, measured])
    low, high = float(both.min()), float(both.max())
    picture, draw, place = _frame(low, high, low, high, title, "predicted", "measured")
    draw.line((*place(low, low), *place(high, high)), fill=tones().faint)
    for a, b in zip(predicted[:400].tolist(), measured[:400].tolist(), strict=True):
        x, y = place(a, b)
        draw.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=tones().accent)
    return picture


def _shape(result: Surrogate, name: str) -> Image.Image:
    values, heights = np.asarray((result.shapes or {})[name])
    limit = max(float(np.abs(s[1]).max()) for s in map(np.asarray, (result.shapes or {}).values()))
    picture, draw, place = _frame(float(values[0]), float(values[-1]), -limit, limit, name, "value", "")
    draw.line((*place(values[0], 0.0), *place(values[-1], 0.0)), fill=tones().line)
    points = [c for v, h in zip(values.tolist(), heights.tolist(), strict=True) for c in place(v, h)]
    draw.line(points, fill=tones().ink, width=2)
    return picture


def _rules(rules: tuple[str, ...]) -> Image.Image:
    text = "\n".join(rule.replace("|   ", "|      ") for rule in rules)
    wide = lettering.width(text, lettering.SMALL) + 4
    picture = Image.new("RGB", (wide, lettering.height(text, lettering.SMALL) + 4), tones().paper)
    lettering.write(picture, (0, 0), text, size=lettering.SMALL)
    return picture
