"""Colours, the same in every picture: a sequential scale, a diverging one, a palette for categories."""

from __future__ import annotations

import numpy as np

PAPER = (255, 255, 255)
INK = (29, 35, 39)
FAINT = (110, 120, 127)
LINE = (221, 227, 230)
ACCENT = (11, 110, 138)
WARNING = (205, 60, 40)

# Anchors, evenly spaced: dark violet to pale yellow, rising in lightness; and blue over white to red.
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
    """Colours (…, 3), uint8, of signed values (…) in [-1, 1]: blue below 0, white at 0, red above."""
    return _interpolate(_DIVERGING, (np.asarray(values) + 1.0) / 2.0)


def on_paper(values: np.ndarray) -> np.ndarray:
    """Like ``sequential``, without the palest part, so that every colour shows on white."""
    return _interpolate(_SEQUENTIAL, np.clip(values, 0.0, 1.0) * 0.86)


def category(number: int) -> tuple[int, int, int]:
    """The colour of a category; colours repeat after the twelfth."""
    return CATEGORIES[number % len(CATEGORIES)]


def _interpolate(anchors: np.ndarray, values: np.ndarray) -> np.ndarray:
    position = np.clip(np.nan_to_num(np.asarray(values, dtype=float)), 0.0, 1.0) * (len(anchors) - 1)
    steps = np.arange(len(anchors))
    return (
        np.stack([np.interp(position, steps, anchors[:, c]) for c in range(3)], axis=-1)
        .round()
        .astype(np.uint8)
    )
