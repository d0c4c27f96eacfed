"""Text in pictures, in Pillow's own scalable font, so that no font file is needed."""

from __future__ import annotations

import math
from functools import cache, lru_cache

from PIL import Image, ImageDraw, ImageFont

from latentlab.viz.colours import RGB, tones

SMALL, NORMAL, LARGE = 11, 13, 16
# What the font lacks, in letters that it has.
_SPELLED = str.maketrans(
    {"σ": "s.d.", "β": "beta", "×": "x", "−": "-", "–": "-", "→": ">", "²": "2", "µ": "u"}
)


@lru_cache(maxsize=2048)
def _letters(line: str, size: int) -> Image.Image:
    """How much of each pixel a line of text covers.

    Drawn four times as large and averaged: at this size the font's whole-pixel steps would crowd its letters.
    """
    ratio = 4
    wide, high = width(line, size) + 2, line_height(size)
    mask = Image.new("L", (wide * ratio, high * ratio))
    middle = high * ratio / 2
    ImageDraw.Draw(mask).text((0, middle), line, fill=255, font=font(size * ratio), anchor="lm")
    return mask.resize((wide, high), Image.Resampling.BOX)


@cache
def font(size: int = NORMAL) -> ImageFont.FreeTypeFont:
    """Pillow's scalable default font."""
    return ImageFont.load_default(size)  # type: ignore[return-value]


def width(text: str, size: int = NORMAL) -> int:
    """Width of a text in pixels; that of its longest line."""
    lines = text.translate(_SPELLED).split("\n")
    return max(math.ceil(font(size * 4).getlength(line) / 4) for line in lines)


def line_height(size: int = NORMAL) -> int:
    """Pixels from one line to the next."""
    return round(size * 1.32)


def height(text: str, size: int = NORMAL) -> int:
    """Height of a text of one or more lines in pixels."""
    return line_height(size) * (text.count("\n") + 1)


def write(
    image: Image.Image,
    position: tuple[float, float],
    text: str,
    *,
    size: int = NORMAL,
    colour: RGB | None = None,
    anchor: str = "la",
) -> None:
    """Writes lines of text into an image.

    Args:
        image: RGB image to write into.
        position: where the text's anchor stands, in pixels.
        text: one or more lines.
        size: height of the letters in pixels.
        colour: RGB; None is ink.
        anchor: two letters: l, m, r for left, middle, right; a for the top, m for the middle.
    """
    lines = text.translate(_SPELLED).split("\n")
    x, y = position
    if anchor[1] == "m":
        y -= line_height(size) * len(lines) / 2
    for line in lines:
        mask = _letters(line, size)
        shift = {"l": 0.0, "m": width(line, size) / 2, "r": width(line, size)}[anchor[0]]
        image.paste(tones().ink if colour is None else colour, (round(x - shift), round(y)), mask)
        y += line_height(size)


def wrapped(text: str, limit: int, size: int = SMALL) -> str:
    """The text with line breaks, so that it is at most ``limit`` pixels wide where its words allow."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width(longer, size) <= limit:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


def captioned(image: Image.Image, caption: str, *, margin: int = 10) -> Image.Image:
    """The image with a small caption below."""
    if not caption:
        return image
    text = wrapped(caption, max(image.width - 2 * margin, 220))
    sheet = Image.new("RGB", (max(image.width, width(text, SMALL) + 2 * margin), image.height), tones().paper)
    sheet = sheet.resize((sheet.width, image.height + height(text, SMALL) + margin))
    sheet.paste(tones().paper, (0, 0, *sheet.size))
    sheet.paste(image, (0, 0))
    write(sheet, (margin, image.height), text, size=SMALL, colour=tones().faint)
    return sheet
