"""The original factor grids from the user's files: dSprites (.npz) and 3D Shapes (.h5)."""

from __future__ import annotations

import os
import threading
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from latentlab.data.arrays import ImageArray, checked_table
from latentlab.data.factors import FactorDataset, FactorSpace
from latentlab.data.scenes import SHAPES as SCENE_SHAPES
from latentlab.data.scenes import SPACE as SCENE_SPACE
from latentlab.data.sprites import SHAPES, SPACE

_DSPRITES = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz from github.com/google-deepmind/dsprites-dataset"
_SHAPES3D = "3dshapes.h5 from github.com/google-deepmind/3d-shapes"


class BitGrid(ImageArray):
    """Black-and-white images at one bit a pixel: all of dSprites in 377 MB, on any device."""

    def __init__(
        self, bits: np.ndarray, side: int, factor_space: FactorSpace, table: np.ndarray, **about: Any
    ):
        super().__init__(images=bits[:, None, None, :], factor_space=factor_space, table=table, **about)
        self.image_shape = (1, side, side)
        self._shifts = torch.arange(7, -1, -1, dtype=torch.uint8)

    def _read(self, indices: Tensor) -> Tensor:
        bits = self._images[indices, 0, 0].unsqueeze(-1).bitwise_right_shift(self._shifts).bitwise_and_(1)
        return bits.flatten(1)[:, : self.image_shape[1] ** 2].to(torch.float32).view(-1, *self.image_shape)

    def _move(self, device: torch.device) -> None:
        super()._move(device)
        self._shifts = self._shifts.to(device)


def open_dsprites(path: str | Path) -> BitGrid:
    """Open the original dSprites file. It is streamed, so that 3 GB of pixels take 377 MB of memory.

    Only its images and factor classes are read; the pickled description beside them is not.

    Args:
        path: The ``.npz`` file.

    Returns:
        Images (1, 64, 64), 0 or 1, with the factors of ``sprites``.

    Raises:
        OSError: The file is missing, truncated or no npz file.
        ValueError: It holds something else.
    """
    file = _existing(path, _DSPRITES)
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if not {"imgs.npy", "latents_classes.npy"} <= set(names):
                raise ValueError(
                    f"{file} is not the dSprites file: expected the arrays imgs and latents_classes, "
                    f"got {', '.join(name.removesuffix('.npy') for name in names) or 'none'}; use {_DSPRITES}"
                )
            with archive.open("latents_classes.npy") as member:
                classes = np.lib.format.read_array(member, allow_pickle=False)
            with archive.open("imgs.npy") as member:
                bits, side = _read_bits(member, file)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise OSError(f"{file} is truncated or no npz file ({error}); download {_DSPRITES} again") from None
    except ValueError as error:
        if str(file) in str(error):
            raise
        raise OSError(f"{file} is damaged ({error}); download {_DSPRITES} again") from None
    names = ("color", *SPACE.names)
    if classes.ndim != 2 or classes.dtype.kind not in "iu" or classes.shape != (len(bits), len(names)):
        raise ValueError(
            f"latents_classes in {file} must be integers of shape {(len(bits), len(names))}, "
            f"got {classes.dtype} {classes.shape}; use {_DSPRITES}"
        )
    if classes.min() < 0:
        raise ValueError(f"latents_classes in {file} must not be negative, got {classes.min()}")
    sizes = classes.max(0) + 1
    first = 1 if sizes[0] == 1 else 0  # dSprites' colour is always white
    space = FactorSpace(names[first:], [int(size) for size in sizes[first:]])
    return BitGrid(
        bits,
        side,
        space,
        classes[:, first:],
        name="dsprites",
        source="dSprites (Matthey et al., 2017), Apache-2.0",
        categories={"shape": SHAPES} if sizes[1] <= 3 else {},
        circular={"orientation": int(sizes[3]) - 1} if sizes[3] > 2 else {},
    )


class H5Grid(FactorDataset):
    """3D Shapes read from its file as needed: little memory, but slow for training in random order."""

    def __init__(self, file: Any, images: Any, factor_space: FactorSpace, table: np.ndarray, **about: Any):
        _, height, width, channels = images.shape
        super().__init__(
            image_shape=(channels, height, width), size=len(images), factor_space=factor_space, **about
        )
        self._file, self._images, self._lock = file, images, threading.Lock()
        if checked_table(self.name, len(self), factor_space, table) is not None:
            raise ValueError(
                "the images of 3D Shapes are not in grid order; open the file with in_memory=True"
            )

    def _read(self, indices: Tensor) -> Tensor:
        rows, place = np.unique(indices.cpu().numpy(), return_inverse=True)
        with self._lock:  # the file has one position, and a data set is shared by threads
            images = self._images[rows] if len(rows) else self._images[:0]
        images = torch.from_numpy(images).permute(0, 3, 1, 2)[torch.from_numpy(place)]
        return images.to(self.device).to(torch.float32).div_(255)


def open_shapes3d(path: str | Path, in_memory: bool | None = None) -> FactorDataset:
    """Open the original 3D Shapes file (needs the extra ``h5``).

    Args:
        path: The ``.h5`` file.
        in_memory: Hold all images (5.9 GB) in memory, which training wants; False reads from the file; None
            holds them if they fill less than half of this machine's memory.

    Returns:
        Images (3, 64, 64) with the factors of ``scenes``.

    Raises:
        OSError: The file is missing, truncated or no HDF5 file.
        ValueError: It holds something else, or h5py is not installed.
    """
    try:
        import h5py
    except ModuleNotFoundError:
        raise ValueError(
            "reading 3D Shapes needs h5py, which is not installed: pip install 'latentlab[h5]'"
        ) from None
    name = _existing(path, _SHAPES3D)
    try:
        file = h5py.File(name, "r")
        images: Any = file.get("images")
        labels: Any = file.get("labels")
        whole = isinstance(images, h5py.Dataset) and isinstance(labels, h5py.Dataset)
        values = np.asarray(labels) if whole else np.empty(0)
    except OSError as error:
        raise OSError(f"{name} is truncated or no HDF5 file ({error}); download {_SHAPES3D} again") from None
    if not whole:
        raise ValueError(
            f"{name} is not the 3D Shapes file: expected the arrays images and labels, "
            f"got {', '.join(file) or 'none'}; use {_SHAPES3D}"
        )
    fits = images.ndim == 4 and images.shape[-1] == 3 and images.dtype == np.uint8
    if not fits or values.shape != (len(images), len(SCENE_SPACE.names)):
        raise ValueError(
            f"{name} must hold uint8 images (n, height, width, 3) and labels (n, 6), got {images.dtype} "
            f"{images.shape} and {values.shape}; use {_SHAPES3D}"
        )
    columns = [np.unique(column, return_inverse=True) for column in values.T]
    table = np.stack([inverse.reshape(-1) for _, inverse in columns], axis=1)
    sizes = [len(found) for found, _ in columns]
    about: dict[str, Any] = {
        "name": "shapes3d",
        "source": "3D Shapes (Burgess and Kim, 2018), Apache-2.0",
        "factor_space": FactorSpace(SCENE_SPACE.names, sizes),
        "table": table,
        "categories": {"shape": SCENE_SHAPES} if sizes[4] == 4 else {},
        "circular": {
            factor: size for factor, size in zip(SCENE_SPACE.names, sizes, strict=True) if "hue" in factor
        },
    }
    if in_memory is None:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        in_memory = bool(np.prod(images.shape, dtype=object) < memory / 2)
    if not in_memory:
        return H5Grid(file, images, **about)
    with file:
        return ImageArray(images=_read_images(images, name), **about)


def _existing(path: str | Path, wanted: str) -> Path:
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}; expected {wanted}")
    return file


def _read_bits(member: IO[bytes], file: Path) -> tuple[np.ndarray, int]:
    """Packed rows (n, side * side / 8) of the images in an opened imgs.npy, and their side."""
    from tqdm import tqdm

    version = np.lib.format.read_magic(member)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = header(member)
    if len(shape) != 3 or shape[1] != shape[2] or fortran or dtype.kind not in "ub" or dtype.itemsize != 1:
        raise ValueError(f"imgs in {file} must be uint8 (n, 64, 64), got {dtype} {shape}; use {_DSPRITES}")
    n, pixels = shape[0], shape[1] * shape[2]
    bits = np.empty((n, -(-pixels // 8)), np.uint8)
    for start in tqdm(range(0, n, 4096), desc=f"reading {file.name}", unit="block", disable=None):
        count = min(4096, n - start)
        data = member.read(count * pixels)
        if len(data) != count * pixels:
            raise EOFError(f"imgs ends after {start * pixels + len(data)} of {n * pixels} bytes")
        images = np.frombuffer(data, np.uint8).reshape(count, pixels)
        if images.max(initial=0) > 1:
            raise ValueError(f"imgs in {file} must be 0 or 1, got {images.max()}; use {_DSPRITES}")
        bits[start : start + count] = np.packbits(images, axis=1)
    return bits, shape[1]


def _read_images(images: Any, name: Path) -> Tensor:
    """All images as uint8 (n, 3, height, width)."""
    from tqdm import tqdm

    n, height, width, channels = images.shape
    held = torch.empty(n, channels, height, width, dtype=torch.uint8)
    try:
        for start in tqdm(range(0, n, 4096), desc=f"reading {name.name}", unit="block", disable=None):
            rows = torch.from_numpy(images[start : start + 4096])
            held[start : start + len(rows)] = rows.permute(0, 3, 1, 2)
    except OSError as error:
        raise OSError(f"{name} is damaged ({error}); download {_SHAPES3D} again") from None
    return held
