"""Meters: what is measured in an image by a formula and not by a learned judge.

A meter turns images into one number each, differentiable wherever the formula is. Surrogates, directions, concepts
and causal effects speak of what an image shows through meters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Meter:
    """One number of an image.

    Args:
        name: what it measures ("x").
        unit: in what unit ("share of the width").
        measure: images (n, channels, height, width) in [0, 1] to numbers (n,).
    """

    name: str
    unit: str
    measure: Callable[[Tensor], Tensor]

    def __call__(self, images: Tensor) -> Tensor:
        """The numbers (n,) of images (n, channels, height, width)."""
        return self.measure(images)


def light(images: Tensor) -> Tensor:
    """Luminance (n, height, width) of grey or colour images (n, channels, height, width)."""
    if images.shape[1] == 3:
        weights = torch.tensor(_LUMA, dtype=images.dtype, device=images.device)
        return torch.einsum("nchw,c->nhw", images, weights)
    return images.mean(dim=1)


def _places(images: Tensor) -> tuple[Tensor, Tensor]:
    height, width = images.shape[-2:]
    rows = (torch.arange(height, dtype=images.dtype, device=images.device) + 0.5) / height
    columns = (torch.arange(width, dtype=images.dtype, device=images.device) + 0.5) / width
    return rows[:, None], columns[None, :]


def _moments(images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    weights = light(images)
    rows, columns = _places(images)
    mass = weights.sum((1, 2)).clamp_min(1e-6)
    x, y = (weights * columns).sum((1, 2)) / mass, (weights * rows).sum((1, 2)) / mass
    dx, dy = columns - x[:, None, None], rows - y[:, None, None]
    xx, yy, xy = ((weights * m).sum((1, 2)) / mass for m in (dx * dx, dy * dy, dx * dy))
    return x, y, xx, yy, xy, mass


def _spread(images: Tensor) -> Tensor:
    _, _, xx, yy, _, _ = _moments(images)
    return (xx + yy).clamp_min(1e-12).sqrt()


def _elongation(images: Tensor) -> Tensor:
    _, _, xx, yy, xy, _ = _moments(images)
    apart = ((xx - yy).square() + 4 * xy.square()).clamp_min(1e-12).sqrt()
    return apart / (xx + yy).clamp_min(1e-6)


def _slant(images: Tensor) -> Tensor:
    _, _, xx, yy, xy, _ = _moments(images)
    return 2 * xy / (xx + yy).clamp_min(1e-6)


def _contrast(images: Tensor) -> Tensor:
    return light(images).flatten(1).std(dim=1, unbiased=False)


def _detail(images: Tensor) -> Tensor:
    weights = light(images)
    down, right = weights.diff(dim=1).abs(), weights.diff(dim=2).abs()
    return down.mean((1, 2)) + right.mean((1, 2))


METERS: dict[str, Meter] = {
    m.name: m
    for m in (
        Meter("brightness", "mean luminance, 0 to 1", lambda x: light(x).mean((1, 2))),
        Meter("contrast", "standard deviation of luminance", _contrast),
        Meter("detail", "mean absolute step between neighbouring pixels", _detail),
        Meter("x", "centre of light, share of the width", lambda x: _moments(x)[0]),
        Meter("y", "centre of light, share of the height, downwards", lambda x: _moments(x)[1]),
        Meter("spread", "root mean square distance from the centre of light, share of the side", _spread),
        Meter("elongation", "0 round to 1 a line", _elongation),
        Meter("slant", "covariance of x and y over their mean variance, -1 to 1", _slant),
    )
}
"""Meters for every image, by name; ``region_meter`` makes those of a region's colour."""

CHANNELS = ("red", "green", "blue")


def region_meter(
    box: Sequence[float] = (0.0, 0.0, 1.0, 1.0), channel: str | int | None = None, name: str | None = None
) -> Meter:
    """The mean of a box of the image, in one channel or in luminance.

    Args:
        box: top, left, bottom, right as shares of the height and width, 0 to 1.
        channel: "red", "green", "blue" or a channel's number; None for luminance.
        name: what to call it.

    Raises:
        ValueError: on an empty box or an unknown channel.
    """
    top, left, bottom, right = (float(v) for v in box)
    if not (0.0 <= top < bottom <= 1.0 and 0.0 <= left < right <= 1.0):
        raise ValueError(f"A box is top, left, bottom, right as shares from 0 to 1; got {tuple(box)}.")
    if isinstance(channel, str) and channel not in CHANNELS:
        raise ValueError(f"A channel is one of {', '.join(CHANNELS)} or its number; got {channel!r}.")
    index = CHANNELS.index(channel) if isinstance(channel, str) else channel

    def measure(images: Tensor) -> Tensor:
        if index is not None and not 0 <= index < images.shape[1]:
            raise ValueError(f"The images have {images.shape[1]} channels; got channel {channel!r}.")
        values = light(images) if index is None else images[:, index]
        height, width = values.shape[1:]
        rows = slice(int(top * height), max(int(top * height) + 1, round(bottom * height)))
        columns = slice(int(left * width), max(int(left * width) + 1, round(right * width)))
        return values[:, rows, columns].mean((1, 2))

    what = "luminance" if channel is None else str(channel)
    return Meter(
        name or f"{what} in {top:g}, {left:g}, {bottom:g}, {right:g}", f"mean {what}, 0 to 1", measure
    )


def meter_of(given: Any) -> Meter:
    """The meter of that name, or the meter or function itself.

    Args:
        given: a name in METERS, "red", "green" or "blue" (the mean of the whole image), a Meter, or a function from
            images (n, channels, height, width) to numbers (n,).

    Raises:
        ValueError: on an unknown name; the message lists the known ones.
        TypeError: on what is none of these.
    """
    if isinstance(given, Meter):
        return given
    if isinstance(given, str):
        if given in CHANNELS:
            return region_meter(channel=given, name=given)
        if given not in METERS:
            raise ValueError(f"No meter {given!r}; there are {', '.join((*METERS, *CHANNELS))}, or your own.")
        return METERS[given]
    if callable(given):
        measure: Callable[[Tensor], Any] = given
        return Meter(getattr(given, "__name__", "meter"), "", measure)
    raise TypeError(f"A meter is a name, a Meter or a function of images; got {type(given).__name__}.")
