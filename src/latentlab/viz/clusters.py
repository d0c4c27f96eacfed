"""How clusters of codes are drawn."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from latentlab.analysis.clusters import Clusters
from latentlab.viz import images, lettering
from latentlab.viz.colours import category, tones
from latentlab.viz.drawing import Drawing, drawn


@drawn(
    Clusters,
    silhouette="mean silhouette {}",
    silhouette_by_chance="of normal noise {}",
    left_over="share of codes in no cluster {}",
)
def _clusters(result: Clusters, *, size: int = 420) -> Drawing:
    plane, share = _plane(result)
    spots = Image.new("RGB", (size, size), tones().paper)
    draw = ImageDraw.Draw(spots)
    for (x, y), cluster in zip(plane[: len(result.codes)] * (size - 16) + 8, result.fitted, strict=True):
        draw.rectangle(
            (x - 1, y - 1, x + 1, y + 1), fill=tones().line if cluster < 0 else category(int(cluster))
        )
    for i, (x, y) in enumerate(plane[len(result.codes) :] * (size - 16) + 8):
        draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=category(i), outline=tones().ink, width=2)
    sizes = [int((result.fitted == i).sum()) for i in range(len(result.centres))]
    counts = _counts([*zip(result.names, sizes, strict=True)], int((result.fitted < 0).sum()))
    title = f"Clusters of {len(result.codes):,} codes on their two main axes ({100 * share:.0f} % of the variance)"
    still = images.titled(images.beside([images.framed(spots), counts], 24), title)
    return Drawing(still, f"{len(result.centres)} clusters by {result.method}")


def _counts(sizes: list[tuple[str, int]], rest: int) -> Image.Image:
    """How many codes each cluster has, as bars of its colour."""
    rows = [*sizes, *([("in none", rest)] if rest else [])]
    top, row, left, wide = max((n for _, n in rows), default=1), 20, 84, 180
    picture = Image.new("RGB", (left + wide + 60, max(row * len(rows), 1)), tones().paper)
    draw = ImageDraw.Draw(picture)
    for i, (name, n) in enumerate(rows):
        y, end = row * i, left + max(round(wide * n / top), 1)
        draw.rectangle((left, y + 3, end, y + row - 4), fill=category(i) if i < len(sizes) else tones().line)
        lettering.write(picture, (left - 10, y + row / 2), name, anchor="rm")
        lettering.write(picture, (end + 6, y + row / 2), f"{n:,}", size=11, colour=tones().faint, anchor="lm")
    return picture


def _plane(result: Clusters) -> tuple[np.ndarray, float]:
    """Codes, then centres, on the codes' two main axes in [0, 1], and the share of the variance they hold."""
    codes = result.codes.astype(float)
    middle = codes.mean(axis=0)
    _, values, axes = np.linalg.svd(codes - middle, full_matrices=False)
    both = np.concatenate([codes, result.centres.astype(float)]) - middle
    found = np.zeros((len(both), 2))
    found[:, : len(axes[:2])] = both @ axes[:2].T
    low, span = found.min(axis=0), np.maximum(np.ptp(found, axis=0), 1e-12)
    return (found - low) / span, float((values[:2] ** 2).sum() / max((values**2).sum(), 1e-12))
