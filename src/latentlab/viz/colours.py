"""Colours, the same in every picture: a sequential scale, a diverging one, a palette for categories.

Pictures are drawn on light paper, or within ``on_dark`` on dark.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np

RGB = tuple[int, int, int]


@dataclass(frozen=True)
class Tones:
    """What a picture is drawn with besides its data's colours.

    Attributes:
        paper: the ground.
        ink: letters and what must stand out.
        faint: lesser letters, axes.
        line: frames, pale bars.
        pale: bands behind what is drawn.
        accent: bars and curves.
        rim: around the images of a sheet, whose dark ones would run into dark paper; None for no rim.
        dark: whether the paper is.
    """

    paper: RGB
    ink: RGB
    faint: RGB
    line: RGB
    pale: RGB
    accent: RGB
    rim: RGB | None = None
    dark: bool = False


LIGHT = Tones(
    (255, 255, 255), (29, 35, 39), (110, 120, 127), (221, 227, 230), (240, 240, 240), (11, 110, 138)
)
DARK = Tones(
    (20, 24, 27),
    (230, 234, 236),
    (154, 165, 172),
    (62, 72, 79),
    (38, 45, 50),
    (63, 179, 207),
    (62, 72, 79),
    True,
)
PAPER, INK, LINE, ACCENT = LIGHT.paper, LIGHT.ink, LIGHT.line, LIGHT.accent
WARNING = (205, 60, 40)

_TONES: ContextVar[Tones] = ContextVar("tones", default=LIGHT)


def tones() -> Tones:
    """What pictures are drawn with at present."""
    return _TONES.get()


@contextmanager
def on_dark(dark: bool = True) -> Iterator[None]:
    """Draws what is drawn within on dark paper, or where ``dark`` is False on light."""
    token = _TONES.set(DARK if dark else LIGHT)
    try:
        yield
    finally:
        _TONES.reset(token)


# Anchors, evenly spaced: dark violet to pale yellow, rising in lightness; and blue over white, or black, to red.
_SEQUENTIAL = np.array(
    [(12, 8, 38), (60, 18, 96), (118, 32, 112), (178, 48, 98), (226, 84, 66), (250, 144, 44), (252, 240, 170)]
)
_DIVERGING = np.array(
    [
        (16, 52, 120),
        (62, 126, 186),
        (166, 204, 226),
        (250, 250, 250),
        (246, 184, 150),
        (210, 88, 70),
        (124, 16, 36),
    ]
)
_DIVERGING_ON_DARK = np.array(
    [
        (160, 205, 255),
        (92, 155, 228),
        (45, 86, 138),
        (25, 29, 33),
        (138, 62, 42),
        (226, 116, 80),
        (255, 188, 158),
    ]
)
# Readable on white, and apart for the common kinds of colour blindness as far as twelve colours can be.
CATEGORIES = (
    (0, 114, 178),
    (230, 145, 0),
    (0, 150, 110),
    (204, 70, 30),
    (160, 95, 175),
    (80, 180, 230),
    (120, 85, 50),
    (225, 90, 150),
    (105, 115, 125),
    (150, 175, 30),
    (30, 50, 110),
    (190, 160, 110),
)


def sequential(values: np.ndarray) -> np.ndarray:
    """Colours (…, 3), uint8, of values (…) in [0, 1], from dark to light; values outside are clipped."""
    return _interpolate(_SEQUENTIAL, values)


def diverging(values: np.ndarray) -> np.ndarray:
    """Colours (…, 3), uint8, of signed values (…) in [-1, 1]: blue below 0, the paper's at 0, red above."""
    return _interpolate(_DIVERGING_ON_DARK if tones().dark else _DIVERGING, (np.asarray(values) + 1.0) / 2.0)


def on_paper(values: np.ndarray) -> np.ndarray:
    """Like ``sequential``, without the part next to the paper's own colour, so that every colour shows on it."""
    shown = np.clip(values, 0.0, 1.0) * 0.86
    return _interpolate(_SEQUENTIAL, 0.3 + shown * 0.7 / 0.86 if tones().dark else shown)


def letters_on(colour: Sequence[float]) -> RGB:
    """Light letters where a colour is dark, dark ones elsewhere, whatever the paper."""
    red, green, blue = (float(c) for c in colour)
    return PAPER if 0.299 * red + 0.587 * green + 0.114 * blue < 130 else INK


def category(number: int) -> RGB:
    """The colour of a category, on dark paper a lighter tone of it; colours repeat after the twelfth."""
    red, green, blue = CATEGORIES[number % len(CATEGORIES)]
    if not tones().dark:
        return red, green, blue
    share = 0.5 if red + green + blue < 270 else 0.2  # of white
    return tuple(round(c + (255 - c) * share) for c in (red, green, blue))  # type: ignore[return-value]


def _interpolate(anchors: np.ndarray, values: np.ndarray) -> np.ndarray:
    position = np.clip(np.nan_to_num(np.asarray(values, dtype=float)), 0.0, 1.0) * (len(anchors) - 1)
    steps = np.arange(len(anchors))
    return (
        np.stack([np.interp(position, steps, anchors[:, c]) for c in range(3)], axis=-1)
        .round()
        .astype(np.uint8)
    )
