"""Image sets that are held in memory as uint8, and how images get there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latentlab.data.factors import FactorDataset, FactorSpace, Indices, as_indices


class ImageArray(FactorDataset):
    """Images in memory, uint8 on the data set's device, with a table of their factors.

    Args:
        name: What ``open_dataset`` calls it.
        source: One line: origin and licence.
        images: Uint8 (n, channels, height, width) in 0 .. 255.
        factor_space: Names and sizes of the factors, None for a plain image set.
        table: Int (n, factors), the factors of each image; None when there are none, or when the images are
            the full grid in row-major order.
        categories: ``{factor: (name of value 0, ...)}`` where values have names.
        circular: ``{factor: period}`` for factors that wrap.

    Raises:
        ValueError: Images and factors do not fit together.
    """

    def __init__(
        self,
        name: str,
        source: str,
        images: np.ndarray | Tensor,
        factor_space: FactorSpace | None = None,
        table: np.ndarray | Tensor | None = None,
        categories: Mapping[str, Sequence[str]] | None = None,
        circular: Mapping[str, int] | None = None,
    ):
        images = torch.as_tensor(images)
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(
                f"{name} needs uint8 images (n, channels, height, width), "
                f"got {images.dtype} {tuple(images.shape)}"
            )
        channels, height, width = images.shape[1:]
        super().__init__(
            name, source, (channels, height, width), len(images), factor_space, categories, circular
        )
        self._images = images.contiguous()
        self._tables = checked_table(name, len(images), factor_space, table)

    @property
    def is_grid(self) -> bool:
        """Whether every factor combination is one image, so that ``index`` works."""
        return self._tables is None and super().is_grid

    def factors(self, indices: Indices) -> Tensor:
        """Ground-truth factors of the given images, int64 (n, factors), on the device of ``indices``.

        Raises:
            TypeError: Indices are not integers.
            ValueError: An index out of range, or the data set has no factors.
        """
        if self._tables is None:
            return super().factors(indices)
        indices = as_indices(indices, len(self), self.name).reshape(-1)
        if indices.device not in self._tables:
            self._tables = {
                **self._tables,
                indices.device: self._tables[torch.device("cpu")].to(indices.device),
            }
        return self._tables[indices.device][indices]

    def _read(self, indices: Tensor) -> Tensor:
        return self._images[indices].to(torch.float32).div_(255)

    def _move(self, device: torch.device) -> None:
        self._images = self._images.to(device)


def checked_table(
    name: str, size: int, space: FactorSpace | None, table: np.ndarray | Tensor | None
) -> dict[torch.device, Tensor] | None:
    """The factor table on the CPU, keyed by device; None when the images are the grid itself.

    Raises:
        ValueError: The table's shape or values do not fit the images or the factors.
    """
    if space is None:
        return None
    if table is None:
        if len(space) != size:
            raise ValueError(f"{name} has {size} images but {len(space)} factor combinations and no table")
        return None
    tensor = torch.as_tensor(table).to(torch.int64)
    if tensor.shape != (size, len(space.names)):
        expected = (size, len(space.names))
        raise ValueError(f"the factors of {name} must have shape {expected}, got {tuple(tensor.shape)}")
    space.check(tensor)
    if len(space) == size and torch.equal(space.index(tensor), torch.arange(size)):
        return None
    return {tensor.device: tensor}


def check_image_size(size: int) -> int:
    """Refuse a side in pixels that is no whole number in 8 .. 512.

    Raises:
        ValueError: Says the valid range.
    """
    if isinstance(size, bool) or not isinstance(size, int) or not 8 <= size <= 512:
        raise ValueError(f"the image size must be a whole number in 8..512, got {size!r}")
    return size


def resized(images: np.ndarray | Tensor, size: int) -> Tensor:
    """Bicubic resize of uint8 (n, channels, height, width) to a square side, values kept in 0 .. 255."""
    images = torch.as_tensor(images)
    if images.shape[-2:] == (size, size):
        return images
    parts = [
        torch.nn.functional.interpolate(
            part.to(torch.float32), (size, size), mode="bicubic", antialias=size < images.shape[-1]
        )
        .round_()
        .clamp_(0, 255)
        .to(torch.uint8)
        for part in images.split(4096)
    ]
    return torch.cat(parts)


def load_images(paths: Sequence[Path], size: int, channels: int, crop: int | None = None) -> np.ndarray:
    """Decode image files: centre-cropped to a square, resized, with a progress bar on a terminal.

    Args:
        paths: Image files that Pillow can read.
        size: Side in pixels.
        channels: 1 (grey) or 3 (RGB).
        crop: Side of the central square to keep, in pixels of the file; default the shorter side.

    Returns:
        Uint8 (n, channels, size, size).

    Raises:
        OSError: A file is missing, damaged or no image; the sentence names it.
    """
    from tqdm import tqdm

    images = np.empty((len(paths), channels, size, size), np.uint8)

    def load(number: int) -> None:
        images[number] = _load_image(paths[number], size, channels, crop)

    with ThreadPoolExecutor() as pool:
        rows = pool.map(load, range(len(paths)))
        for _ in tqdm(rows, desc="reading images", total=len(paths), unit="image", disable=None):
            pass
    return images


def _load_image(path: Path, size: int, channels: int, crop: int | None) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):  # 16 bits a pixel: Pillow itself would cut at 255
                image = Image.fromarray((np.asarray(image) / 257).clip(0, 255).astype(np.uint8))
            image = image.convert("L" if channels == 1 else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).rstrip(".")
        raise OSError(f"cannot read the image {path} ({reason}); replace or remove this file") from None
    side = min(*image.size, crop or max(image.size))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    pixels = np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
