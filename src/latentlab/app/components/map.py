"""Map: many points in the plane, to pan, zoom, pick and lasso; drawn in the browser from one packed buffer."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from latentlab.app import engine, wire
from latentlab.app.components.mount import base_path, nothing, register, saved

_component = register("map")
MISSING = 0xFFFF


@dataclass(frozen=True, eq=False)
class Colour:
    """What points are coloured by.

    Args:
        values: one number a point (n,); integers when ``names`` are given. NaN (or -1 with names) is grey.
        title: what it is, such as "shape".
        names: the categories' names; None for a continuous scale.
    """

    values: np.ndarray
    title: str = ""
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class MapState:
    """What a person picked: a point, or an empty position in data coordinates; and the last lasso.

    Attributes:
        point: index of the point clicked, or None.
        position: (x, y) clicked where no point was, or None.
        polygon: corners of the lasso in data coordinates, or None.
        serial: counts picks, so that a page can tell a new one from an old one.
    """

    point: int | None = None
    position: tuple[float, float] | None = None
    polygon: tuple[tuple[float, float], ...] | None = None
    serial: int = 0


def pack_points(xy: np.ndarray, colour: Colour | None = None, hover: Sequence[str] | None = None) -> bytes:
    """Points and their colour as one buffer: header length (u32), header (JSON), xy (float32), colour (uint16).

    Args:
        xy: (n, 2) coordinates.
        colour: categories as they are, continuous values in 65,535 steps from ``low`` to ``high``.
        hover: a line of text a point, kept in the header.

    Raises:
        ValueError: if shapes do not fit, coordinates are not finite or there are too many categories.
    """
    xy = np.ascontiguousarray(np.asarray(xy, "<f4"))
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise ValueError(f"A map needs coordinates (n, 2); got {xy.shape}.")
    if not np.isfinite(xy).all():
        raise ValueError("A map needs finite coordinates; some are NaN or infinite.")
    header: dict = {"n": len(xy), "colour": None}
    body = xy.tobytes()
    if colour is not None:
        values = np.asarray(colour.values, np.float64)
        if values.shape != (len(xy),):
            raise ValueError(f"Colour needs one value a point, ({len(xy)},); got {values.shape}.")
        known = np.isfinite(values)
        codes = np.full(len(xy), MISSING, "<u2")
        scale: dict = {"title": colour.title}
        if colour.names is not None:
            known &= values >= 0
            if len(colour.names) >= MISSING or (known.any() and values[known].max() >= len(colour.names)):
                raise ValueError(
                    f"Categories run from 0 to {len(colour.names) - 1}; got {values[known].max():g}."
                )
            codes[known] = values[known].astype(np.uint16)
            scale["names"] = [str(name) for name in colour.names]
        else:
            low, high = (
                (float(values[known].min()), float(values[known].max())) if known.any() else (0.0, 1.0)
            )
            span = high - low or 1.0
            codes[known] = ((values[known] - low) / span * (MISSING - 1)).round().astype(np.uint16)
            scale |= {"low": low, "high": high}
        header["colour"] = scale
        body += codes.tobytes()
    if hover is not None:
        if len(hover) != len(xy):
            raise ValueError(f"Hover needs one text a point, {len(xy)}; got {len(hover)}.")
        header["hover"] = [str(text) for text in hover]
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 4) % 4)  # the browser reads the floats in place, which must be aligned
    return struct.pack("<I", len(text)) + text + body


def latent_map(
    xy: np.ndarray,
    *,
    key: str,
    colour: Colour | None = None,
    marker: Sequence[float] | None = None,
    revision: str | int = 0,
    height: int = 520,
    on_pick: Callable[[], None] | None = None,
    on_lasso: Callable[[], None] | None = None,
    hover: Sequence[str] | None = None,
    marker_label: str = "current",
) -> MapState:
    """Draws the map.

    Args:
        xy: (n, 2) coordinates, finite.
        key: Streamlit's key, unique on the page.
        colour: what to colour by.
        marker: (x, y) of the current latent.
        revision: change it to return to the view of all points.
        height: of the map in CSS pixels.
        on_pick: runs before the script after a click.
        on_lasso: runs before the script after a lasso.
        hover: a line of text a point for the tooltip.
        marker_label: what the marker is called.

    Returns:
        The last pick and the last lasso.
    """
    data = pack_points(xy, colour, hover)
    token = engine.publish(f"map:{key}", data)
    _component(
        key=key,
        data={
            "token": token,
            "points": None if token else wire.to_text(data),
            "base": base_path(),
            "marker": None if marker is None else [float(v) for v in marker],
            "marker_label": marker_label,
            "revision": str(revision),
            "height": height,
        },
        on_pick_change=on_pick or nothing,
        on_polygon_change=on_lasso or nothing,
        on_expired_change=nothing,
    )
    return _state(key, len(xy))


def _state(key: str, n: int) -> MapState:
    """The last pick and lasso; what a browser sent that makes no sense is passed over."""
    pick, lasso = saved(key, "pick") or {}, saved(key, "polygon") or {}
    point, position, polygon, serial = None, None, None, 0
    try:
        serial = int(pick.get("serial", 0))
        if pick.get("point") is not None:
            point = int(pick["point"]) if 0 <= int(pick["point"]) < n else None
        elif pick.get("position") is not None:
            position = _pair(pick["position"])
    except (TypeError, ValueError, OverflowError):
        point, position = None, None
    try:
        polygon = tuple(_pair(corner) for corner in lasso.get("points") or ()) or None
    except (TypeError, ValueError, OverflowError):
        polygon = None
    return MapState(point, position, polygon, serial)


def _pair(values: Sequence[float]) -> tuple[float, float]:
    x, y = (float(v) for v in values)
    if not (math.isfinite(x) and math.isfinite(y)):
        raise ValueError(f"A position is two finite numbers; got {values!r}.")
    return x, y
