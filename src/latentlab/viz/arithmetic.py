"""How attribute vectors and latent arithmetic are drawn."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from latentlab.analysis.arithmetic import LatentArithmetic
from latentlab.analysis.attribute_vector import AttributeVector
from latentlab.viz import images, lettering
from latentlab.viz.colours import tones
from latentlab.viz.drawing import Drawing, drawn

_WARM = (214, 126, 44)
_BINS = 41


@drawn(
    AttributeVector,
    accuracy="held-out accuracy {}",
    shuffled_accuracy="with shuffled labels {} (mean to largest)",
    d_prime="d' {}",
    shuffled_d_prime="with shuffled labels {} (mean to largest)",
    with_it="{} codes with it",
    without_it="{} without",
)
def _attribute(result: AttributeVector, *, scale: int | None = None) -> Drawing:
    pair = images.strip(
        result.images,
        labels=["mean without", "mean with"],
        scale=scale or images.fitting_scale(result.images.shape, 2, cell=112),
    )
    parts = [pair, _sides(result), _against_chance(result)]
    still = images.titled(
        images.beside(parts, 28), f"{result.name}: mean code with it minus mean code without"
    )
    return Drawing(still, f"Attribute vector {result.name} in {result.space}")


def _sides(result: AttributeVector, wide: int = 300, high: int = 112) -> Image.Image:
    """Where held-out codes lie along the vector, those with the attribute and those without."""
    reach = float(np.abs(result.places).max()) or 1.0
    edges = np.linspace(-reach, reach, _BINS + 1)
    counts = [np.histogram(result.places[result.labels == side], edges)[0] for side in (0, 1)]
    shares = [c / max(int(c.sum()), 1) for c in counts]
    top = max(float(s.max()) for s in shares)
    bars = [Image.new("RGBA", (wide, high), (0, 0, 0, 0)) for _ in shares]
    for share, colour, bar in zip(shares, (_WARM, tones().accent), bars, strict=True):
        draw = ImageDraw.Draw(bar)
        for i, value in enumerate(share):
            if value > 0:
                left, right = wide * i // _BINS, wide * (i + 1) // _BINS - 1
                draw.rectangle(
                    (left, high - 1 - round((high - 4) * value / top), right, high), fill=(*colour, 150)
                )
    both = Image.alpha_composite(*bars)
    line, head = lettering.line_height(lettering.SMALL), lettering.line_height()
    picture = Image.new("RGB", (wide, head + 6 + high + line + 4), tones().paper)
    lettering.write(picture, (0, 0), "Codes along a vector found without them")
    picture.paste(both, (0, head + 6), both)
    draw = ImageDraw.Draw(picture)
    draw.line((0, head + 6 + high, wide, head + 6 + high), fill=tones().line)
    draw.line((wide // 2, head + 6, wide // 2, head + 6 + high), fill=tones().faint)
    y = head + 6 + high + 3
    for x, text, colour, anchor in ((0, "without", _WARM, "la"), (wide, "with", tones().accent, "ra")):
        lettering.write(picture, (x, y), text, size=lettering.SMALL, colour=colour, anchor=anchor)
    lettering.write(
        picture, (wide / 2, y), "half-way", size=lettering.SMALL, colour=tones().faint, anchor="ma"
    )
    return picture


def _against_chance(result: AttributeVector, wide: int = 220, high: int = 112) -> Image.Image:
    """The accuracy on a line from 0.4 to 1 beside those of shuffled labels."""
    low = min(0.4, float(result.null_accuracy.min()), result.accuracy)
    line, head = lettering.line_height(lettering.SMALL), lettering.line_height()
    picture = Image.new("RGB", (wide, head + 6 + high + line + 4), tones().paper)
    lettering.write(picture, (0, 0), "Accuracy against shuffled labels")
    draw, base = ImageDraw.Draw(picture), head + 6 + high

    def at(value: float) -> float:
        return 4 + (wide - 8) * (value - low) / (1.0 - low)

    draw.line((0, base, wide, base), fill=tones().line)
    counts, edges = np.histogram(result.null_accuracy, np.linspace(low, 1.0, 41))
    for count, left, right in zip(counts, edges, edges[1:], strict=False):
        if count:
            tall = round((high - 26) * count / counts.max())
            draw.rectangle((at(left), base - tall, at(right) - 1, base), fill=tones().line)
    x = at(result.accuracy)
    draw.line((x, head + 24, x, base), fill=tones().accent, width=2)
    anchor = "ra" if x > wide / 2 else "la"
    lettering.write(picture, (x, head + 6), f"{result.accuracy:.2f}", colour=tones().ink, anchor=anchor)
    for value in (0.5, 1.0):
        lettering.write(
            picture,
            (min(at(value), wide - 2), base + 3),
            f"{value:.1f}",
            size=lettering.SMALL,
            colour=tones().faint,
            anchor="ra" if value == 1.0 else "ma",
        )
    return picture


@drawn(
    LatentArithmetic,
    closure="sums agree to {}",
    change="images of A and the result differ by {}",
    random_change="random moves of that length change {}",
    swaps="{} categories taken over",
    least_neighbours="at least {} codes of the data near",
)
def _arithmetic(result: LatentArithmetic, *, scale: int | None = None) -> Drawing:
    strength = float(result.strengths[-1])
    times = "" if strength == 1.0 else f" {abs(strength):.2g} x"
    signs = ("-", "+") if strength >= 0 else ("+", "-")
    four = np.concatenate([result.operands, result.images[-1:]])
    size = scale or images.fitting_scale(four.shape, 4, cell=128)
    first = images.strip(
        four, labels=["A", f"{signs[0]}{times} B", f"{signs[1]}{times} C", "= result"], scale=size, gap=12
    )
    near = (
        [""] * len(result.strengths)
        if result.neighbours is None
        else [f"\n{int(count)} near" for count in result.neighbours]
    )
    labels = [
        f"{s:+.2f}{count}" if s else f"0{count}" for s, count in zip(result.strengths, near, strict=True)
    ]
    small = scale or images.fitting_scale(result.images.shape, len(labels), cell=84)
    title, gap = "The way, by strength", 8
    way = images.strip(result.images, labels=labels, scale=small, title=title)
    cells = images.grid_boxes(result.images[None], column_labels=labels, scale=small, title=title)[0]
    cells = cells + np.tile([0, first.height + gap], 2)

    def movie() -> list[Image.Image]:
        large = scale or images.fitting_scale(result.images.shape, 1, cell=192)
        order = [*range(len(labels)), *range(len(labels) - 2, 0, -1)]
        return [
            images.strip(result.images[i][None], labels=[f"{result.strengths[i]:+.2f}"], scale=large)
            for i in order
        ]

    return Drawing(images.above([first, way], gap), f"Latent arithmetic in {result.space}", movie, cells)
