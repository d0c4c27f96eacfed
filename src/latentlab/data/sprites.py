"""The dSprites grid, drawn on the fly: white squares, ellipses and hearts on black, 64x64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from latentlab.data.arrays import check_image_size
from latentlab.data.correlation import Correlation
from latentlab.data.factors import FactorDataset, FactorSpace, Indices, as_indices

SHAPES = ("square", "ellipse", "heart")
SPACE = FactorSpace(("shape", "scale", "orientation", "x", "y"), (3, 6, 40, 32, 32))
COLORS = 10

# Geometry in pixels of a 64x64 image, fitted to frames of the data set's own animation. REACH is the largest
# distance of a shape's point from its centre at scale 1, rounded up: nothing is drawn beyond it.
_SQUARE = 9.598
_ELLIPSE = (12.766, 7.214)
_HEART_X, _HEART_Y, _HEART_OFFSET = 0.599643, 0.662225, -1.436744
_REACH = (13.58, 12.77, 11.26)

_MULTIPLIERS = (-1640531527, -2048144789, -1028477387)  # odd 32-bit constants of integer hashing


class Sprites(FactorDataset):
    """dSprites in all but provenance: 3 shapes x 6 scales x 40 orientations x 32 x 32 positions.

    Drawn when asked for, on the CPU or an accelerator; no file. The index of an image is that of dSprites
    (row-major, last factor fastest). Orientation 39 equals 0, as in dSprites, where both ends of the turn
    are in the grid.

    Args:
        color: RGB instead of one channel, with a sixth ground-truth factor ``color`` (10 hues) in front,
            where dSprites keeps its constant one; ``index % 737280`` is the index of the white image.
        background: "black", or "noise": uniform noise in [0, 1], fixed for an image.
        correlation: Correlated training distribution, see ``Correlation``: ``("x", "y", 0.2)``. ``sample``
            and ``batch`` follow it; ``images`` and ``index`` stay the full grid.
        image_size: Side in pixels; the shapes grow with it.

    Raises:
        ValueError: An unknown background, an image size outside 8 .. 512, or a correlation that cannot be read.

    References:
        beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework (Higgins et al.,
        2017) for the data; the renderer is our own, its geometry fitted to published frames. ``color``
        differs from the random tint of Challenging Common Assumptions in the Unsupervised Learning of
        Disentangled Representations (Locatello et al., 2019): here the hue is a factor that can be measured.
    """

    mask_names = ("object", *SHAPES)
    """Channels of ``masks``: the last three divide the first."""

    def __init__(
        self,
        color: bool = False,
        background: str = "black",
        correlation: object = None,
        image_size: int = 64,
    ):
        if background not in ("black", "noise"):
            raise ValueError(f'the background of sprites must be "black" or "noise", got {background!r}')
        check_image_size(image_size)
        space = FactorSpace(("color", *SPACE.names), (COLORS, *SPACE.sizes)) if color else SPACE
        super().__init__(
            name="sprites",
            source="drawn here in the geometry of dSprites (Matthey et al., 2017); no file; Apache-2.0",
            image_shape=(3 if color else 1, image_size, image_size),
            size=len(space),
            factor_space=space,
            categories={"shape": SHAPES},
            circular={"orientation": 39, **({"color": COLORS} if color else {})},
            correlation=None if correlation is None else Correlation(space, correlation),
        )
        self.color = bool(color)
        self.background = background
        self._canvas = _Canvas(image_size)
        self._hues = hue_colors(COLORS)

    def masks(self, indices: Indices) -> Tensor:
        """Exact segmentation of the given images: the pixels that the shape covers, whatever lies behind.

        Args:
            indices: Int (n,), each in 0 .. len - 1.

        Returns:
            Bool (n, 4, height, width) on the data set's device, channels as in ``mask_names``: an object pixel is
            exactly one shape.
        """
        indices = as_indices(indices, len(self), self.name).reshape(-1).to(self.device)
        factors = SPACE.factors(indices.remainder(len(SPACE)) if self.color else indices)
        inside = self._canvas.draw(factors)[:, 0] > 0
        shape = factors[:, 0, None, None]
        return torch.stack([inside, *(inside & (shape == which) for which in range(3))], dim=1)

    def _move(self, device: torch.device) -> None:
        self._canvas = self._canvas.to(device)
        self._hues = self._hues.to(device)

    def _read(self, indices: Tensor) -> Tensor:
        white = self._canvas.draw(SPACE.factors(indices.remainder(len(SPACE)) if self.color else indices))
        images = white
        if self.color:
            hues = self._hues[torch.div(indices, len(SPACE), rounding_mode="floor")]
            images = white * hues[:, :, None, None]
        if self.background == "noise":
            images = torch.where(white > 0, images, noise(indices, self.image_shape))
        return images


class _Canvas:
    """Pixel windows and angle tables for one image size on one device."""

    def __init__(self, image_size: int):
        self.image_size = image_size
        self.unit = image_size / 64
        turns = [orientation * 2 * math.pi / 39 for orientation in range(39)] + [0.0]
        self.cos = torch.tensor([math.cos(turn) for turn in turns])
        self.sin = torch.tensor([math.sin(turn) for turn in turns])
        self.windows = [math.floor(2 * reach * self.unit) + 1 for reach in _REACH]
        self.steps = torch.arange(max(self.windows))

    def to(self, device: torch.device) -> _Canvas:
        moved = _Canvas(self.image_size)
        moved.cos, moved.sin, moved.steps = (t.to(device) for t in (self.cos, self.sin, self.steps))
        return moved

    def draw(self, factors: Tensor, by_shape: bool | None = None) -> Tensor:
        """Images (n, 1, size, size), 0 or 1, of dSprites factors (n, 5)."""
        images = torch.zeros(len(factors), self.image_size**2, device=factors.device)
        if by_shape is None:
            by_shape = factors.device.type == "cpu"
        if by_shape:
            for shape in range(3):
                rows = (factors[:, 0] == shape).nonzero()[:, 0]
                if len(rows):
                    places, inside = self._window(factors[rows], (shape,))
                    images.view(-1).index_put_((places + (rows * self.image_size**2)[:, None, None],), inside)
        elif len(factors):
            # Which rows hold which shape is known only to the device: drawing all three avoids the wait.
            places, inside = self._window(factors, (0, 1, 2))
            images.scatter_(1, places.flatten(1), inside.flatten(1))
        return images.view(-1, 1, self.image_size, self.image_size)

    def _window(self, factors: Tensor, shapes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Flat pixel numbers (n, side, side) around each sprite's centre, and whether each is inside.

        The window holds every pixel centre within reach, so what it leaves out is black.
        """
        side = max(self.windows[shape] for shape in shapes)
        reach = max(_REACH[shape] for shape in shapes) * self.unit
        _, scale, orientation, x, y = factors.unbind(1)
        scale = (0.5 + 0.1 * scale) * self.unit
        # A centre in pixel numbers; pixel p of this image lies at (p + 0.5) / unit - 0.5 of the 64x64 one.
        centers = [(16 + place.to(torch.float32) * (32 / 31)) * self.unit - 0.5 for place in (x, y)]
        corners = [torch.ceil(center - reach).to(torch.int64) for center in centers]
        steps = self.steps[:side]
        columns, rows = (corner[:, None] + steps for corner in corners)
        dx, dy = (
            (pixels - c[:, None]) / scale[:, None] for pixels, c in zip((columns, rows), centers, strict=True)
        )
        cos, sin = self.cos[orientation][:, None], self.sin[orientation][:, None]
        u = (cos * dx)[:, None, :] - (sin * dy)[:, :, None]
        v = (sin * dx)[:, None, :] + (cos * dy)[:, :, None]
        inside = _TESTS[shapes[0]](u, v)
        for shape in shapes[1:]:
            inside = torch.where((factors[:, 0] == shape)[:, None, None], _TESTS[shape](u, v), inside)
        return rows[:, :, None] * self.image_size + columns[:, None, :], inside.to(torch.float32)


def _in_square(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) <= _SQUARE


def _in_ellipse(u: Tensor, v: Tensor) -> Tensor:
    return (u / _ELLIPSE[0]) ** 2 + (v / _ELLIPSE[1]) ** 2 <= 1


def _in_heart(u: Tensor, v: Tensor) -> Tensor:
    # The curve x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t in closed form.
    across = u.abs() / (_HEART_X * 16)
    squared = (1 - across ** (2 / 3)).clamp_(min=0)  # cos^2 t
    middle = 4 - squared * (2 + 8 * squared)
    half = squared.sqrt() * (19 - 8 * squared)
    return (((_HEART_OFFSET - v) / _HEART_Y - middle).abs() <= half) & (across <= 1)


_TESTS = (_in_square, _in_ellipse, _in_heart)


def hue_colors(count: int, saturation: float = 1.0, value: float = 1.0) -> Tensor:
    """RGB colours (count, 3) in [0, 1] of hues 0, 1 / count, ..., at one saturation and value."""
    hues = torch.arange(count, dtype=torch.float64) / count
    wave = (hues[:, None] * 6 + torch.tensor([5.0, 3.0, 1.0])) % 6
    ramp = torch.minimum(wave, 4 - wave).clamp(0, 1)
    return (value * (1 - saturation * ramp)).to(torch.float32)


def noise(indices: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Uniform noise (n, channels, height, width) in [0, 1): a fixed function of index and pixel.

    A 32-bit integer hash, so that every device and every batch gives an image the same noise.
    """
    salt = torch.arange(math.prod(shape), dtype=torch.int32, device=indices.device) * _MULTIPLIERS[0]
    keys = _mix(indices.to(torch.int32))
    # On the CPU a few images at a time, so that the passes of the hash stay in the cache.
    rows = 16 if indices.device.type == "cpu" else max(len(indices), 1)
    images = torch.empty(len(indices), len(salt), device=indices.device)
    for start in range(0, len(indices), rows):
        bits = _mix(keys[start : start + rows, None] + salt)
        torch.mul(
            bits.bitwise_right_shift_(8).bitwise_and_(0xFFFFFF), 2.0**-24, out=images[start : start + rows]
        )
    return images.view(-1, *shape)


def _mix(bits: Tensor) -> Tensor:
    for shift, multiplier in ((16, _MULTIPLIERS[1]), (13, _MULTIPLIERS[2]), (16, 1)):
        # The shift must bring in zeros, an arithmetic one brings in the sign.
        bits = bits ^ (bits >> shift).bitwise_and_((1 << (32 - shift)) - 1)
        bits *= multiplier
    return bits
