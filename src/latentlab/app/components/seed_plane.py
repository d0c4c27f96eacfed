"""Seed plane: a lattice of seeds over which a person drags, and the picture of the four seeds around, blended."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from latentlab.app import wire
from latentlab.app.components.mount import base_path, image_data, nothing, register, saved

_component = register("seed_plane")


@dataclass(frozen=True)
class Place:
    """A place on the plane.

    Attributes:
        x: columns from the left, 0 to columns - 1.
        y: rows from the top, 0 to rows - 1.
    """

    x: float
    y: float

    @property
    def column(self) -> int:
        """The column of the nearest seed."""
        return math.floor(self.x + 0.5)

    @property
    def row(self) -> int:
        """The row of the nearest seed."""
        return math.floor(self.y + 0.5)


def plane_place(key: str, shape: tuple[int, int], revision: str, first: Place | None = None) -> Place:
    """Where a person left the plane of (columns, rows) seeds; ``first``, else its middle, for another revision."""
    columns, rows = shape
    state = saved(key, "state") or {}
    try:
        x, y = float(state["x"]), float(state["y"])
        inside = 0.0 <= x <= columns - 1 and 0.0 <= y <= rows - 1
        if inside and str(state["revision"]) == revision:
            return Place(x, y)
    except (KeyError, TypeError, ValueError, OverflowError):
        pass  # what a browser sends may be anything
    return first or Place((columns - 1) / 2, (rows - 1) / 2)


def seed_plane(
    seeds: np.ndarray,
    codes: np.ndarray,
    blocks: Sequence[Mapping[str, Any]],
    place: Place,
    *,
    key: str,
    image_shape: Sequence[int],
    sheet: np.ndarray | None,
    revision: str,
    rest: Sequence[float] = (),
    temperature: float = 1.0,
    token: str | None = None,
    render: Callable[[], np.ndarray] | None = None,
) -> None:
    """Draws the plane and the picture; ``plane_place`` tells where a person left it.

    Args:
        seeds: (rows, columns).
        codes: (rows * columns, dim), their codes, row by row; of a uniform block the normal scores.
        blocks: how each is blended: "from", "to", "kind" ("normal", "uniform", "nearest", "linear"), "mean", "low" and
            "high".
        place: where to start, taken at first and whenever ``revision`` changes.
        key: Streamlit's key, unique on the page.
        image_shape: (channels, height, width) of the model's images.
        sheet: one image (channels, height, width) in [0, 1] with a small picture for each seed; None while there is
            none, which leaves the last one of the same ``revision`` where it is.
        revision: names the lattice; change it with the seeds.
        rest: numbers that follow each code.
        temperature: of the blended codes.
        token: of ``engine.open_session``; None for the rerun engine.
        render: draws the picture of the place (channels, height, width); used by the rerun engine.
    """
    rows, columns = seeds.shape
    image = None
    if render is not None and (token is None or (saved(key, "state") or {}).get("engine") == "rerun"):
        image = image_data(render())
    _component(
        key=key,
        data={
            "columns": columns,
            "rows": rows,
            "seeds": [int(seed) for seed in seeds.ravel()],
            "codes": wire.to_text(np.ascontiguousarray(codes, "<f4").tobytes()),
            "dim": codes.shape[1],
            "blocks": [dict(block) for block in blocks],
            "rest": [float(v) for v in rest],
            "temperature": float(temperature),
            "x": place.x,
            "y": place.y,
            "sheet": image_data(sheet),
            "sheet_digest": None
            if sheet is None
            else hashlib.blake2b(np.ascontiguousarray(sheet).tobytes(), digest_size=16).hexdigest(),
            "image_shape": list(image_shape),
            "token": token,
            "base": base_path(),
            "image": image,
            "revision": revision,
        },
        on_state_change=nothing,
        on_expired_change=nothing,
    )
