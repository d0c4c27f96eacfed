"""Map: many points in the plane, to pan, zoom, pick, lasso and draw paths on; drawn from packed buffers."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from latentlab.app import engine, wire
from latentlab.app.components.mount import base_path, nothing, register, saved

_component = register("map", ("splat", "thumbs", "player"))
MISSING = 0xFFFF
MANY = 1_000
MOST_CORNERS = 2_000


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


@dataclass(frozen=True, eq=False)
class Route:
    """A path drawn on the map, with what the model decodes on it.

    Args:
        points: (k, 2) places along the path.
        inside: whether data lie around each of them, (k,).
        frames: packed pictures, one a place (``mapping.pictures.pack``).
    """

    points: np.ndarray
    inside: np.ndarray
    frames: bytes


@dataclass(frozen=True)
class MapState:
    """What a person picked: a point, or an empty position in data coordinates; the last lasso, the last path.

    Attributes:
        point: index of the point clicked, or None.
        position: (x, y) clicked where no point was, or None.
        polygon: corners of the lasso in data coordinates, or None.
        serial: counts picks, so that a page can tell a new one from an old one.
        path: corners of the drawn path in data coordinates, or None.
    """

    point: int | None = None
    position: tuple[float, float] | None = None
    polygon: tuple[tuple[float, float], ...] | None = None
    serial: int = 0
    path: tuple[tuple[float, float], ...] | None = None


def pack_points(xy: np.ndarray, hover: Sequence[str] | np.ndarray | None = None) -> bytes:
    """Points as one buffer: header length (u32), header (JSON), xy (float32), image numbers (int32) if given.

    Args:
        xy: (n, 2) coordinates.
        hover: a line of text a point, kept in the header, or an image number a point.

    Raises:
        ValueError: if shapes do not fit or coordinates are not finite.
    """
    xy = np.ascontiguousarray(np.asarray(xy, "<f4"))
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise ValueError(f"A map needs coordinates (n, 2); got {xy.shape}.")
    if not np.isfinite(xy).all():
        raise ValueError("A map needs finite coordinates; some are NaN or infinite.")
    header: dict = {"n": len(xy)}
    body = [xy.tobytes()]
    if hover is not None:
        if len(hover) != len(xy):
            raise ValueError(f"Hover needs one text a point, {len(xy)}; got {len(hover)}.")
        if isinstance(hover, np.ndarray):
            header["ids"] = True
            body.append(hover.astype("<i4").tobytes())
        else:
            header["hover"] = [str(text) for text in hover]
    return _packed(header, body)


def pack_colour(colour: Colour, n: int) -> bytes:
    """Colours of ``n`` points as one buffer: header length (u32), header (JSON), codes (uint16).

    Categories are codes as they are; continuous values come in 65,535 steps from the header's ``low`` to ``high``,
    which leave out the outermost percent ("cut") where they lie far off.

    Raises:
        ValueError: if there are not n values, or too many categories.
    """
    values = np.asarray(colour.values)
    if values.shape != (n,):
        raise ValueError(f"Colour needs one value a point, ({n},); got {values.shape}.")
    whole = values.dtype.kind in "iu"
    known = np.ones(n, bool) if whole else np.isfinite(values)
    codes = np.full(n, MISSING, "<u2")
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
        some = values[known].astype(np.float64)
        low, high = (float(some.min()), float(some.max())) if len(some) else (0.0, 1.0)
        if len(some) >= MANY:
            inner = np.quantile(some[:: len(some) // MANY], (0.005, 0.995))
            if 2 * (inner[1] - inner[0]) < high - low:  # a few far values would leave all others one colour
                (low, high), scale["cut"] = (float(v) for v in inner), True
        share = ((some - low) / (high - low or 1.0)).clip(0.0, 1.0)
        codes[known] = (share * (MISSING - 1)).round().astype(np.uint16)
        scale |= {"low": low, "high": high}
    return _packed({"n": n, "colour": scale}, [codes.tobytes()])


def _packed(header: dict, body: Sequence[bytes]) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 4) % 4)  # the browser reads the floats in place, which must be aligned
    return b"".join([struct.pack("<I", len(text)), text, *body])


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
    on_path: Callable[[], None] | None = None,
    hover: Sequence[str] | np.ndarray | None = None,
    marker_label: str = "current",
    pictures: str | None = None,
    route: Route | None = None,
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
        on_path: runs before the script after a path was drawn or closed.
        hover: a line of text a point for the tooltip, or an image number a point.
        marker_label: what the marker is called.
        pictures: token under which the browser asks for pictures of points (``mapping.pictures.offer``).
        route: the last path, to play.

    Returns:
        The last pick, the last lasso and the last path.
    """
    points, points_text = _sent(key, pack_points(xy, hover))
    paint, paint_text = _sent(f"{key}:colour", None if colour is None else pack_colour(colour, len(xy)))
    frames, frames_text = _sent(f"{key}:path", None if route is None else route.frames)
    path = None
    if route is not None:
        places = np.asarray(route.points, float).round(6).tolist()
        path = {
            "token": frames,
            "frames": frames_text,
            "points": places,
            "inside": np.asarray(route.inside).tolist(),
        }
    _component(
        key=key,
        data={
            "token": points,
            "points": points_text,
            "colour_token": paint,
            "colour": paint_text,
            "pictures": pictures,
            "path": path,
            "base": base_path(),
            "marker": None if marker is None else [float(v) for v in marker],
            "marker_label": marker_label,
            "revision": str(revision),
            "height": height,
        },
        on_pick_change=on_pick or nothing,
        on_polygon_change=on_lasso or nothing,
        on_path_change=on_path or nothing,
        on_expired_change=nothing,
    )
    return _state(key, len(xy))


def _sent(slot: str, data: bytes | None) -> tuple[str | None, str | None]:
    """A buffer on its way to the browser: its token where our routes are served, else its text."""
    if data is None:
        return None, None
    token = engine.publish(f"map:{slot}", data)
    return token, None if token else wire.to_text(data)


def corners(key: str, name: str) -> tuple[tuple[float, float], ...] | None:
    """The polygon or path that the browser sent last; None where there is none or it makes no sense."""
    drawn = saved(key, name) or {}
    try:
        found = tuple(_pair(corner) for corner in drawn.get("points") or ())
    except (TypeError, ValueError, OverflowError):
        return None
    return found if 1 < len(found) <= MOST_CORNERS else None


def _state(key: str, n: int) -> MapState:
    """The last pick, lasso and path; what a browser sent that makes no sense is passed over."""
    pick = saved(key, "pick") or {}
    point, position, serial = None, None, 0
    try:
        serial = int(pick.get("serial", 0))
        if pick.get("point") is not None:
            point = int(pick["point"]) if 0 <= int(pick["point"]) < n else None
        elif pick.get("position") is not None:
            position = _pair(pick["position"])
    except (TypeError, ValueError, OverflowError):
        point, position = None, None
    return MapState(point, position, corners(key, "polygon"), serial, corners(key, "path"))


def _pair(values: Sequence[float]) -> tuple[float, float]:
    x, y = (float(v) for v in values)
    if not (math.isfinite(x) and math.isfinite(y)):
        raise ValueError(f"A position is two finite numbers; got {values!r}.")
    return x, y
