"""Small pictures of a map's points for the browser: asked for by row, drawn when asked for.

A *source* belongs to one person's page under an unguessable token; the route in ``routes.py`` looks it up. One request
at a time is answered for each source, so that nobody can hold all threads of the server.
"""

from __future__ import annotations

import json
import secrets
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from latentlab.app import engine
from latentlab.app.allowance import Allowance

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

MOST_ROWS = 256
MOST_SOURCES = 256
SIDE = 64  # larger pictures are averaged down to at most this
KEPT = 3600.0  # seconds since a source was last used
ANSWERS, SPAN = 6000, 10.0  # of a source, in seconds: ten times a batch at every frame that a screen shows
MOST_AT_ONCE = 4  # of a source, drawn or waiting for their turn
_PATIENCE = 5.0

Draw = Callable[[np.ndarray], np.ndarray]
"""Rows (k,) to images (k, channels, height, width) in [0, 1]."""


@dataclass(eq=False)
class _Source:
    name: tuple[str, str]
    revision: str
    draw: Draw
    rows: int
    touched: float = field(default_factory=time.monotonic)
    turn: threading.Lock = field(default_factory=threading.Lock)
    answers: Allowance = field(default_factory=lambda: Allowance(ANSWERS, SPAN))
    inside: int = 0

    def enter(self) -> str:
        """Lets one more request in, which ``leave``s again; else one sentence that says why not."""
        if self.inside >= MOST_AT_ONCE:
            return f"A page asks for one batch of pictures after the other; {self.inside} are being drawn."
        if not self.answers.take():
            return f"A page asks for pictures at most {ANSWERS:,} times in {SPAN:g} seconds."
        self.inside += 1
        return ""

    def leave(self) -> None:
        """Counts a request out again."""
        self.inside -= 1


class Sources:
    """All sources of this process, by token. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sources: dict[str, _Source] = {}

    def offer(self, owner: str, slot: str, revision: str, rows: int, draw: Draw) -> str:
        """Keeps a source; the token stays while owner, slot and revision do, and more rows may come."""
        with self._lock:
            now = time.monotonic()
            for token, source in list(self._sources.items()):
                if source.name == (owner, slot):
                    if source.revision == revision:
                        source.rows, source.draw, source.touched = rows, draw, now
                        return token
                    del self._sources[token]
                elif now - source.touched > KEPT:
                    del self._sources[token]
            while len(self._sources) >= MOST_SOURCES:
                del self._sources[min(self._sources, key=lambda t: self._sources[t].touched)]
            token = secrets.token_urlsafe(24)
            self._sources[token] = _Source((owner, slot), revision, draw, rows)
            return token

    def find(self, token: str) -> _Source | None:
        """The source of a token, or None."""
        with self._lock:
            source = self._sources.get(token)
            if source is not None:
                source.touched = time.monotonic()
            return source


sources = Sources()


def offer(slot: str, revision: str, rows: int, draw: Draw) -> str | None:
    """Offers pictures of this page's points; returns the token, or None when our routes are not served."""
    owner = engine.current_owner()
    if not engine.serving() or owner is None:
        return None
    return sources.offer(owner, slot, revision, rows, draw)


def read_rows(text: str, end: int) -> np.ndarray:
    """Row numbers written as "3,17,4".

    Raises:
        ValueError: if they are not 1 to 256 whole numbers below ``end``.
    """
    words = text.split(",", MOST_ROWS)
    if len(words) > MOST_ROWS or not all(w.isascii() and w.isdecimal() and len(w) < 10 for w in words):
        raise ValueError(f"Rows are 1 to {MOST_ROWS} whole numbers between commas.")
    rows = np.array([int(word) for word in words])
    if rows.max() >= end:
        raise ValueError(f"This map has rows 0 to {end - 1}.")
    return rows


def pack(images: np.ndarray, side: int = SIDE) -> bytes:
    """Images (k, channels, height, width) in [0, 1]: header length (u32), header (JSON), then uint8 (k, h, w, c).

    Images larger than ``side`` are averaged down by a whole number.
    """
    step = max(1, -(-max(images.shape[2:]) // side))
    if step > 1:
        height, width = (side // step * step for side in images.shape[2:])
        cut = images[:, :, :height, :width]
        shape = (*cut.shape[:2], height // step, step, width // step, step)
        images = cut.reshape(shape).mean(axis=(3, 5))
    if images.shape[1] not in (1, 3):
        images = images[:, :3] if images.shape[1] > 3 else images[:, :1]
    pixels = (np.nan_to_num(images).clip(0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    pixels = np.ascontiguousarray(np.moveaxis(pixels, 1, -1))
    count, height, width, channels = pixels.shape
    header = json.dumps({"n": count, "h": height, "w": width, "c": channels}).encode()
    return struct.pack("<I", len(header)) + header + pixels.tobytes()


def answer(request: Request, source: _Source) -> Response:
    """GET /ll/pictures/<token>?rows=…, let in by the server already; runs in a thread of the server's pool."""
    from starlette.responses import PlainTextResponse, Response

    try:
        rows = read_rows(request.query_params.get("rows", ""), source.rows)
    except ValueError as error:
        return PlainTextResponse(str(error), 400)
    if not source.turn.acquire(timeout=_PATIENCE):
        return PlainTextResponse("Pictures are still being drawn; ask again.", 503)
    try:
        data = pack(source.draw(rows))
    finally:
        source.turn.release()
    headers = {
        "Cache-Control": "no-store",
        "Cross-Origin-Resource-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(data, media_type="application/octet-stream", headers=headers)
