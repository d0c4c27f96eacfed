"""How the graph of a network is drawn: stages from left to right, edges between, skips above."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from latentlab.analysis.graph import INPUT, NetworkGraph
from latentlab.viz import lettering
from latentlab.viz.colours import tones
from latentlab.viz.drawing import Drawing, drawn
from latentlab.viz.images import titled

_WIDE, _HIGH, _GAP, _ROW_GAP = 118, 74, 34, 26
_FEEDS = 3
_FRAME = (150, 162, 170)


@drawn(
    NetworkGraph,
    edges_missed="edges that flow and are not declared {}",
    edges_invented="declared edges that nothing flows along {}",
    held_difference="held stages move by {}",
    parameters_left="weights in no stage {}",
)
def _network_graph(result: NetworkGraph, *, columns: int = 10) -> Drawing:
    depth = {INPUT: 0, **dict(zip(result.names, result.depths, strict=True))}
    row = _rows(result, depth)
    # An input that many stages read (a style) is a rail below them, not a bundle of lines.
    rail = sum(a == INPUT for a, _ in result.edges) > _FEEDS
    far = [e for e in result.edges if depth[e[1]] - depth[e[0]] > 1 and row[e[0]] == row[e[1]] == 0]
    arcs = [e for e in far if not (rail and e[0] == INPUT)]
    bands = _bands(arcs, depth)
    per_band = max(columns, 2)
    lanes = max(row.values()) + 1
    top = 10 + 13 * (max(bands.values(), default=-1) + 1)
    height = top + lanes * (_HIGH + _ROW_GAP) + (24 if rail else 0)
    last = max(depth.values())
    folds = 1 + last // per_band if last >= per_band and not arcs and not rail and lanes == 1 else 1
    across = per_band if folds > 1 else last + 1
    sheet = Image.new("RGB", (across * (_WIDE + _GAP) - _GAP + 4, folds * height), tones().paper)
    draw = ImageDraw.Draw(sheet)

    def corner(name: str) -> tuple[int, int]:
        fold, column = divmod(depth[name], across) if folds > 1 else (0, depth[name])
        return column * (_WIDE + _GAP) + 2, fold * height + top + row[name] * (_HIGH + _ROW_GAP)

    for a, b in result.edges:
        (xa, ya), (xb, yb) = corner(a), corner(b)
        if rail and a == INPUT:
            base = top + lanes * (_HIGH + _ROW_GAP) + 6
            x = xb + 16
            draw.line((x, base, x, yb + _HIGH), fill=tones().line, width=2)
            _head(draw, x, yb + _HIGH, (0, -1), tones().faint)
        elif (a, b) in bands:
            y = top - 9 - 13 * bands[a, b]
            start, end = xa + _WIDE - 14, xb + 14
            draw.line((start, ya, start, y, end, y, end, yb), fill=tones().accent, width=2)
            _head(draw, end, yb, (0, 1), tones().accent)
        elif ya == yb and xb > xa:
            draw.line((xa + _WIDE, ya + _HIGH // 2, xb, yb + _HIGH // 2), fill=tones().faint, width=2)
            _head(draw, xb, yb + _HIGH // 2, (1, 0), tones().faint)
        elif xb > xa:
            x = xb - _GAP // 2
            low, high = ya + _HIGH // 2 + 8, yb + _HIGH // 2 + 8
            draw.line((xa + _WIDE, low, x, low, x, high, xb, high), fill=tones().accent, width=2)
            _head(draw, xb, yb + _HIGH // 2 + 8, (1, 0), tones().accent)
        else:  # to the next line of a long chain
            middle = ya + _HIGH + (_ROW_GAP // 2)
            out, into = xa + _WIDE // 2, xb + _WIDE // 2
            draw.line((out, ya + _HIGH, out, middle, into, middle, into, yb), fill=tones().faint, width=2)
            _head(draw, xb + _WIDE // 2, yb, (0, 1), tones().faint)
    if rail:
        base = top + lanes * (_HIGH + _ROW_GAP) + 6
        ends = [corner(b)[0] + 16 for a, b in result.edges if a == INPUT]
        x, y = corner(INPUT)
        side = x + _WIDE + 8
        draw.line(
            (x + _WIDE, y + _HIGH - 12, side, y + _HIGH - 12, side, base, max(ends), base),
            fill=tones().line,
            width=2,
        )
    _box(sheet, corner(INPUT), INPUT, "", result.input_shape, None)
    cells = zip(result.names, result.modules, result.shapes, result.parameters, strict=True)
    for name, kind, shape, count in cells:
        _box(sheet, corner(name), name, kind, shape, count)
    total = sum(result.parameters)
    title = f"{result.network}: {len(result.names)} stages, {len(result.edges)} edges, {total:,} weights"
    return Drawing(titled(sheet, title), f"Graph of {title}")


def _rows(result: NetworkGraph, depth: dict[str, int]) -> dict[str, int]:
    """A longest way stands on the first line; of the other stages those of one column below each other."""
    end = max(result.names, key=lambda k: (depth[k], result.names.index(k)))
    way = {end}
    while end != INPUT:
        before = [a for a, b in result.edges if b == end and depth[a] == depth[end] - 1]
        if not before:
            break
        end = max(before, key=lambda a: -1 if a == INPUT else np.prod(result.shapes[result.names.index(a)]))
        way.add(end)
    rows, used = {INPUT: 0}, {}
    for name in result.names:
        if name in way and depth[name]:
            rows[name] = 0
        else:
            rows[name] = used[depth[name]] = used.get(depth[name], 0) + 1
    return rows


def _bands(arcs: list[tuple[str, str]], depth: dict[str, int]) -> dict[tuple[str, str], int]:
    """How high each skip runs, so that none lies on another."""
    bands: dict[tuple[str, str], int] = {}
    for edge in sorted(arcs, key=lambda e: depth[e[1]] - depth[e[0]]):
        span = range(depth[edge[0]], depth[edge[1]] + 1)
        taken = {height for (a, b), height in bands.items() if depth[a] <= span[-1] and depth[b] >= span[0]}
        bands[edge] = next(k for k in range(len(arcs) + 1) if k not in taken)
    return bands


def _box(
    sheet: Image.Image,
    corner: tuple[int, int],
    name: str,
    kind: str,
    shape: tuple[int, ...],
    count: int | None,
) -> None:
    x, y = corner
    ImageDraw.Draw(sheet).rounded_rectangle(
        (x, y, x + _WIDE - 1, y + _HIGH - 1), radius=6, fill=tones().paper, outline=_FRAME
    )
    inner = _WIDE - 14
    lettering.write(sheet, (x + 7, y + 4), _fitting(name, inner, 13), colour=tones().ink)
    lettering.write(sheet, (x + 7, y + 22), _fitting(kind, inner, 10), size=10, colour=tones().faint)
    size = " x ".join(map(str, shape))
    lettering.write(sheet, (x + 7, y + 38), _fitting(size, inner, 11), size=11, colour=tones().accent)
    if count is not None:
        lettering.write(sheet, (x + 7, y + 54), f"{count:,} weights", size=10, colour=tones().faint)


def _fitting(text: str, limit: int, size: int) -> str:
    if lettering.width(text, size) <= limit:
        return text
    while text and lettering.width(text + "…", size) > limit:
        text = text[:-1]
    return text.rstrip(" +") + "…"


def _head(
    draw: ImageDraw.ImageDraw, x: float, y: float, way: tuple[int, int], colour: tuple[int, int, int]
) -> None:
    dx, dy = way
    base = (x - 7 * dx, y - 7 * dy)
    side = (4 * dy, 4 * dx)
    draw.polygon(
        [(x, y), (base[0] + side[0], base[1] + side[1]), (base[0] - side[0], base[1] - side[1])], fill=colour
    )
