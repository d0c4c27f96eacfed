"""How facets of units and bundles of edges are drawn: the ordered response matrix, a graph with no invented line."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from latentlab.analysis.bundles import EdgeBundles
from latentlab.analysis.facets import UnitFacets
from latentlab.viz import images, lettering
from latentlab.viz.colours import category, diverging, tones
from latentlab.viz.drawing import Drawing, drawn
from latentlab.viz.raster import bars

_RATIO = 3
_PLUS, _MINUS = (205, 60, 40), (30, 90, 170)


@drawn(
    UnitFacets,
    silhouette="silhouette {}",
    silhouette_null="shuffled up to {}",
    ordering_cost="cost of the order {}",
    ordering_null="random orders from {}",
)
def _facets(result: UnitFacets, *, factors: int = 6, cell: int | None = None) -> Drawing:
    found = np.asarray(result.explained).max(axis=0)
    shown = np.sort(np.argsort(-found, kind="stable")[:factors])
    keep = [i for i, k in enumerate(result.factor_of) if k in shown]
    order = np.asarray(result.order)
    values = np.asarray(result.profiles)[order][:, keep]
    high = cell or max(2, min(16, 480 // len(order)))
    wide = max(12, min(22, 620 // len(keep)))
    limit = max(float(np.abs(values).max()), 1e-9)
    paint = Image.fromarray(diverging(values / limit)).resize(
        (wide * len(keep), high * len(order)), Image.Resampling.NEAREST
    )
    texts = [result.facets[i].removeprefix(result.factors[result.factor_of[i]] + " ") for i in keep]
    left, head, tall = 72, 22, max(lettering.width(text, 10) for text in texts) + 12
    sheet = Image.new("RGB", (left + paint.width + 4, head + paint.height + tall), tones().paper)
    sheet.paste(paint, (left, head))
    draw = ImageDraw.Draw(sheet)
    labels = np.asarray(result.clusters)[order]
    for k in dict.fromkeys(labels.tolist()):
        rows = np.flatnonzero(labels == k)
        top, end = head + high * rows[0], head + high * (rows[-1] + 1)
        draw.rectangle((left - 12, top, left - 5, end - 2), fill=category(k) if k >= 0 else tones().line)
        text = f"{len(rows)} units" if k >= 0 else "silent"
        lettering.write(sheet, (left - 16, (top + end) / 2), text, size=11, colour=tones().faint, anchor="rm")
        draw.line((left, end - 1, left + paint.width, end - 1), fill=tones().paper)
    for k in shown:
        places = [j for j, i in enumerate(keep) if result.factor_of[i] == k]
        x, width = left + wide * places[0], wide * len(places)
        if places[0]:
            draw.line((x - 1, head - 4, x - 1, head + paint.height), fill=tones().ink)
        name = result.factors[k]
        while len(name) > 1 and lettering.width(name, 11) > width:
            name = name[:-1]
        lettering.write(sheet, (x + width / 2, 4), name, size=11, anchor="ma")
    for j, text in enumerate(texts):
        side = Image.new("RGB", (tall, 14), tones().paper)
        lettering.write(side, (tall - 4, 0), text, size=10, colour=tones().faint, anchor="ra")
        sheet.paste(side.rotate(90, expand=True), (left + wide * j + wide // 2 - 7, head + paint.height + 2))
    matrix = images.titled(
        images.with_bar(sheet, diverging, f"-{limit:.2g}", "0", f"{limit:.2g}"),
        "Mean response, in standard deviations of the unit",
    )
    tries, scores = np.asarray(result.tries), np.asarray(result.silhouettes)
    names = [f"{k} clusters" for k in tries] + ["shuffled"]
    heights = np.append(scores, result.certificate["silhouette_null"]).clip(0.0)
    pale = [k != tries[scores.argmax()] for k in tries] + [True]
    side = bars(heights, names, title="Silhouette", faint=pale, width=150)
    left_out = f", {len(shown)} of {len(found)} factors" if len(shown) < len(found) else ""
    title = (
        f"Facets of the units of {result.address}, {len(np.unique(labels[labels >= 0]))} clusters{left_out}"
    )
    return Drawing(images.beside([matrix, side], 10), title)


@drawn(
    EdgeBundles,
    missing_edges="missing edges {}",
    invented_edges="invented {}",
    doubled_edges="doubled {}",
    mixed_signs="bundles of mixed sign {}",
    ink_ratio="lines over edges {}",
    proved="largest bicliques proved: {}",
    weight_kept="weight shown {}",
)
def _bundles(result: EdgeBundles, *, width: int = 640) -> Drawing:
    bundle_of, edges = np.asarray(result.bundle_of), np.asarray(result.edges)
    bundles = [np.nonzero(bundle_of == k) for k in range(len(result.signs))]
    used = [np.flatnonzero((edges != 0).any(axis=1 - axis)) for axis in (0, 1)]
    ranks = _untangled(edges, used)
    row = max(13, min(30, 620 // max(len(r) for r in ranks)))
    tall = row * max(len(r) for r in ranks)
    margin = [max(lettering.width(names[i]) for i in rank) + 14 for names, rank in zip(
        (result.nodes_from, result.nodes_to), ranks, strict=True)]  # fmt: skip
    place = [{int(i): (k + 0.5) * tall / len(rank) for k, i in enumerate(rank)} for rank in ranks]
    picture = Image.new("RGB", (width, tall), tones().paper)
    big = Image.new("RGB", (width * _RATIO, tall * _RATIO), tones().paper)
    draw = ImageDraw.Draw(big)
    x0, x1 = margin[0], width - margin[1]
    strongest = float(np.abs(result.weights).max())
    for k in reversed(range(len(bundles))):
        rows, columns = (np.unique(side) for side in bundles[k])
        colour = _PLUS if result.signs[k] > 0 else _MINUS
        mean = result.strength[k] / len(bundles[k][0]) / max(strongest, 1e-12)
        colour = tuple(
            round(p + (c - p) * (0.3 + 0.7 * min(mean, 1.0)))
            for c, p in zip(colour, tones().paper, strict=True)
        )
        thick = 1 + round(2 * _RATIO * float(mean) ** 0.5)
        if min(len(rows), len(columns)) > 1:
            ys = [place[0][int(i)] for i in rows] + [place[1][int(j)] for j in columns]
            hub = (x0 + (x1 - x0) * (0.3 + 0.4 * ((k * 0.618) % 1.0)), float(np.mean(ys)))
            lines = [((x0, place[0][int(i)]), hub) for i in rows] + [
                (hub, (x1, place[1][int(j)])) for j in columns
            ]
            x, y = (c * _RATIO for c in hub)
            draw.ellipse((x - 8, y - 8, x + 8, y + 8), fill=colour)
        else:
            lines = [((x0, place[0][int(i)]), (x1, place[1][int(j)])) for i in rows for j in columns]
        for a, b in lines:
            draw.line(_curve(a, b), fill=colour, width=thick, joint="curve")
    picture = big.resize(picture.size, Image.Resampling.BOX)
    for side, (names, x, anchor) in enumerate(
        ((result.nodes_from, x0 - 6, "rm"), (result.nodes_to, x1 + 6, "lm"))
    ):
        for i, y in place[side].items():
            lettering.write(picture, (x, y), names[i], size=11, anchor=anchor)
    head = f"{result.stage_from} to {result.stage_to}: red adds, blue takes away; a dot joins a bundle"
    title = f"{int(np.abs(edges).sum())} edges in {len(bundles)} bundles, weights of at least {result.threshold:.2g}"
    return Drawing(images.titled(picture, head), title)


def _untangled(edges: np.ndarray, used: list[np.ndarray]) -> list[np.ndarray]:
    """Nodes at both ends in an order with few crossings: each at the mean place of its partners, again and again."""
    ranks = [np.array(u) for u in used]
    for turn in range(24):
        side = turn % 2
        graph = np.abs(edges) if side == 0 else np.abs(edges).T
        where = np.zeros(graph.shape[1])
        where[ranks[1 - side]] = np.arange(len(ranks[1 - side])) / max(len(ranks[1 - side]) - 1, 1)
        mean = (graph @ where) / np.maximum(graph.sum(axis=1), 1)
        ranks[side] = ranks[side][np.argsort(mean[ranks[side]], kind="stable")]
    return ranks


def _curve(a: tuple[float, float], b: tuple[float, float]) -> list[tuple[float, float]]:
    """A smooth line that leaves and arrives level."""
    t = np.linspace(0.0, 1.0, 24)
    ease = t * t * (3 - 2 * t)
    return [
        (float(x) * _RATIO, float(y) * _RATIO)
        for x, y in zip(a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * ease, strict=True)
    ]
