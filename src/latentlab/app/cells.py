"""Cells: a drawn result whose images can be clicked, each of which says what it is."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from latentlab.app import components
from latentlab.app.jump import Choose

if TYPE_CHECKING:
    from latentlab.app import state


def show(drawn: state.Drawn, alt: str, key: str, choose: Choose) -> None:
    """Shows the picture of a result with codes ``z`` (…, dim); ``choose`` is called with the code that was clicked."""
    result, cells = drawn.result, drawn.picture.cells
    assert cells is not None
    flat, codes, texts = cells.reshape(-1, 4), result.z.reshape(-1, result.z.shape[-1]), words(result)
    components.picture(
        drawn.address,
        alt,
        drawn.picture.image.size,
        [
            components.Cell(i, (int(box[0]), int(box[1]), int(box[2]), int(box[3])), text)
            for i, (box, text) in enumerate(zip(flat, texts, strict=True))
            if box.any()
        ],
        key=key,
        name=f"{zlib.crc32(drawn.address.encode()):08x}",
        on_choose=lambda i: choose(codes[i]),
    )


def words(result: Any) -> list[str]:
    """What each image of a traversal, a plane, a swap grid or a path is, in the order of its codes."""
    from latentlab.analysis import LatentArithmetic, SwapGrid, Traversal, TraversalGrid

    found = np.full(result.z.shape[:-1], "", dtype=object)
    if isinstance(result, Traversal):
        for (i, j), value in np.ndenumerate(result.values):
            whole = result.categorical[i]
            found[i, j] = "" if np.isnan(value) else f"{result.dims[i]} {_number(value, whole)}"
    elif isinstance(result, TraversalGrid):
        x, y = result.dims
        for i, j in np.ndindex(found.shape):
            found[i, j] = f"{x} {_number(result.x_values[j])}, {y} {_number(result.y_values[i])}"
    elif isinstance(result, SwapGrid):
        block = " and ".join(result.block)
        for i, j in np.ndindex(found.shape):
            found[i, j] = f"{block} of column {j + 1}, all else of row {i + 1}"
    elif isinstance(result, LatentArithmetic):
        for (i,), strength in np.ndenumerate(result.strengths):
            found[i] = f"strength {_number(strength)}"
    else:
        for (i,), t in np.ndenumerate(result.t):
            found[i] = f"{t:.0%} of the way from A to B"
    return [str(text) for text in found.ravel()]


def _number(value: Any, whole: bool = False) -> str:
    return f"{value:.0f}" if whole else f"{value:.2f}".replace("-", "−")


__all__ = ["show", "words"]
