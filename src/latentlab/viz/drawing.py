"""One call, ``show``, from any result to the picture of it, the same in app, notebook and file.

How each kind of result is drawn is registered here by the modules beside this one.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from latentlab.analysis.results import Result, draw_with
from latentlab.viz import lettering
from latentlab.viz.colours import on_dark
from latentlab.viz.media import png_bytes, save_media


@dataclass(frozen=True, eq=False)
class Picture:
    """A drawn result.

    Attributes:
        image: the still picture, RGB.
        caption: what it is, with certificate and provenance, in one line.
        cells: where the images of the result's codes ``z`` (…, dim) lie on the still: left, top, right and bottom in
            pixels, (…, 4); 0 throughout for a code without an image. None where the drawing doesn't tell.
    """

    image: Image.Image
    caption: str
    movie: Callable[[], Sequence[Image.Image]] | None = field(default=None, repr=False)
    cells: np.ndarray | None = field(default=None, repr=False)

    @cached_property
    def frames(self) -> tuple[Image.Image, ...]:
        """The pictures of the animation, drawn when first asked for; the still alone where nothing moves."""
        return tuple(self.movie()) if self.movie is not None else (self.image,)

    def save(self, path: str | Path, fps: float = 12) -> Path:
        """Writes the picture.

        Args:
            path: ending in .png or .jpg (the still), .gif or .mp4 (the frames).
            fps: frames a second.

        Raises:
            ValueError: on another ending, or .mp4 without the video extra.
            OSError: if the folder is not there or can't be written.
        """
        moving = Path(path).suffix.lower() in (".gif", ".mp4")
        return save_media(self.frames if moving else (self.image,), path, fps, self.caption)

    def png(self) -> bytes:
        """The still as PNG."""
        return png_bytes(self.image, self.caption)

    def _repr_png_(self) -> bytes:
        return self.png()

    def html(self) -> str:
        """The still as an image element. Not a notebook's own display, which would keep the picture twice."""
        data = base64.b64encode(self.png()).decode()
        return f'<img src="data:image/png;base64,{data}" alt="{escape(self.caption, quote=True)}">'


@dataclass(frozen=True)
class Drawing:
    """What is drawn of a result: the still, its title, the frames where it moves, and the cells of ``Picture``."""

    still: Image.Image
    title: str
    movie: Callable[[], Sequence[Image.Image]] | None = None
    cells: np.ndarray | None = None


_DRAW: dict[type, Callable[..., Drawing]] = {}
_WORDS_OF: dict[type, Mapping[str, str]] = {}


def show(result: Result, *, caption: bool = True, dark: bool = False, **options: Any) -> Picture:
    """Draws a result.

    Args:
        result: what an analysis returned.
        caption: write the caption (what it is, certificate, provenance) below the still picture, too.
        dark: draw on dark paper, for a dark page; cells and sizes are the same.
        options: how to draw it: ``scale`` (pixels of an image's pixel) for all that show images,
            ``animate`` for traversals (frames come by themselves; False keeps the still alone),
            ``colour`` and ``size`` for projections, ``columns``, ``off`` and ``each`` for feature maps,
            ``count`` for comparisons.

    Raises:
        TypeError: for what is no result, or an option that this kind of result does not have.
    """
    draw = next((_DRAW[c] for c in type(result).__mro__ if c in _DRAW), None)
    if draw is None:
        raise TypeError(f"Nothing is known about drawing a {type(result).__name__}; expected {_kinds()}.")
    known = set(draw.__kwdefaults__ or {})
    unknown = sorted(set(options) - known)
    if unknown:
        raise TypeError(
            f"A {type(result).__name__} is not drawn with {unknown[0]!r}; its options: {', '.join(sorted(known))}."
        )
    with on_dark(dark):
        drawing = draw(result, **options)
    line = f"{drawing.title} · {_proof(result)} · {_origin(result)}".replace(" ·  · ", " · ")
    with on_dark(dark):
        still = lettering.captioned(drawing.still, line) if caption else drawing.still
    movie = drawing.movie

    def frames() -> Sequence[Image.Image]:
        assert movie is not None
        with on_dark(dark):
            return movie()

    return Picture(still, line, None if movie is None else frames, drawing.cells)


def _kinds() -> str:
    return ", ".join(sorted(c.__name__ for c in _DRAW))


def drawn(kind: type, **words: str) -> Callable[[Callable[..., Drawing]], Callable[..., Drawing]]:
    """Registers a drawing function of a kind of result, for ``show`` and for notebooks.

    The function takes the result, and its options as keyword arguments with defaults. ``words`` puts the numbers of
    its certificate in words, {name: "batch and single runs agree to {}"}.
    """
    _WORDS_OF[kind] = words

    def register(draw: Callable[..., Drawing]) -> Callable[..., Drawing]:
        _DRAW[kind] = draw
        draw_with(kind, lambda result: show(result).html())
        return draw

    return register


# How the numbers of many kinds' certificates are put in words; "{}" is the number.
WORDS = {
    "loop_difference": "batch and single runs agree to {}",
    "off_axis": "other latents move by {}",
    "contains_start": "share of ranges that hold the code {}",
    "data_inside": "share of the data inside {}",
    "block_spread": "block within a column differs by {}",
    "rest_spread": "rest within a row by {}",
    "end_difference": "ends hit to {}",
    "empty_edit_change": "edits of amount 0 change {}",
    "neighbours_kept_by_chance": "by chance {}",
    "kl_total": "KL {} nats per image",
    "silent": "silent units {}",
    "silent_share": "silent pairs {}",
    "half_of_units": "half of the effect in {} units",
}


def _proof(result: Result) -> str:
    words = {**WORDS, **next((_WORDS_OF[c] for c in type(result).__mro__ if c in _WORDS_OF), {})}
    parts = []
    for name, value in result.certificate.items():
        if isinstance(value, (bool, np.bool_)):
            value = "yes" if value else "no"
        elif isinstance(value, (tuple, list)) and value and isinstance(value[0], str):
            value = ", ".join(value)
        elif isinstance(value, (tuple, list)):
            value = f"{min(value):.3g} to {max(value):.3g}" if len(value) else "none"
        elif isinstance(value, float):
            value = f"{value:.2g}" if abs(value) < 0.01 else f"{value:.3g}"
        parts.append(words.get(name, name.replace("_", " ") + " {}").format(value))
    return ", ".join(parts)


def _origin(result: Result) -> str:
    origin = result.provenance
    parts = [f"model {origin.weights_digest[:8]}"] if origin.weights_digest else []
    if origin.seed is not None:
        parts.append(f"seed {origin.seed}")
    if origin.versions.get("latentlab"):
        parts.append(f"latentlab {origin.versions['latentlab']}")
    return ", ".join(parts)
