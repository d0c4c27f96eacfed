"""Real images: scikit-learn's digits, MNIST, FashionMNIST, CIFAR-10, and the user's own folder."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from latentlab.data.arrays import ImageArray, check_image_size, load_images, resized
from latentlab.data.catalogue import data_root
from latentlab.data.factors import FactorSpace

DIGITS = tuple(str(digit) for digit in range(10))
GARMENTS = (
    *("t-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_SPLITS = ("train", "test", "all")
_IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def open_digits(split: str = "all", image_size: int = 32) -> ImageArray:
    """Open scikit-learn's 1,797 real handwritten digits; in the installed packages, no download.

    Args:
        split: "test" (every fifth image of each digit), "train" (the rest) or "all"; fixed for good.
        image_size: Side in pixels; the 8x8 originals are enlarged bicubically.

    Returns:
        Images (1, side, side) with the factor ``digit``.

    Raises:
        ValueError: Unknown split or image size.
    """
    import sklearn  # noqa: F401  (whole before its parts)
    from sklearn.datasets import load_digits

    check_split("digits", split)
    check_image_size(image_size)
    images, labels = load_digits(return_X_y=True)
    small = torch.as_tensor(np.asarray(images).reshape(-1, 1, 8, 8) / 16, dtype=torch.float32)
    large = torch.nn.functional.interpolate(small, (image_size, image_size), mode="bicubic").clamp_(0, 1)
    in_test = np.zeros(len(labels), bool)
    for digit in range(10):
        in_test[np.flatnonzero(labels == digit)[2::5]] = True
    keep = {"train": ~in_test, "test": in_test, "all": in_test | True}[split]
    return ImageArray(
        name="digits",
        source="UCI optical recognition of handwritten digits (Alpaydin and Kaynak, 1998), CC BY 4.0",
        images=large.mul_(255).round_().to(torch.uint8)[torch.from_numpy(keep)],
        factor_space=FactorSpace(("digit",), (10,)),
        table=np.asarray(labels)[keep, None],
        categories={"digit": DIGITS},
    )


def open_mnist(
    split: str = "all", image_size: int = 28, root: str | Path | None = None, download: bool = True
) -> ImageArray:
    """Open MNIST: handwritten digits, 60,000 to train and 10,000 to test.

    Args:
        split: "train", "test" or "all".
        image_size: Side in pixels; resized bicubically where it is not 28.
        root: Folder of the data, default ``$LATENTLAB_DATA`` or ``~/.cache/latentlab/data``. The idx files,
            packed or not, may lie in it, in ``mnist`` or in torchvision's ``MNIST/raw`` below it.
        download: Download what is missing, with a progress bar.

    Returns:
        Images (1, side, side) with the factor ``digit``.

    Raises:
        OSError: A file is missing or damaged.
        ValueError: A file is not what its name says, or an unknown split or image size.
    """
    return _open_idx("mnist", "MNIST", split, image_size, root, download)


def open_fashion_mnist(
    split: str = "all", image_size: int = 28, root: str | Path | None = None, download: bool = True
) -> ImageArray:
    """Open FashionMNIST: 10 kinds of garment, 60,000 to train and 10,000 to test.

    Args:
        split: "train", "test" or "all".
        image_size: Side in pixels; resized bicubically where it is not 28.
        root: Folder of the data, default ``$LATENTLAB_DATA`` or ``~/.cache/latentlab/data``. The idx files,
            packed or not, may lie in it, in ``fashion-mnist`` or in torchvision's ``FashionMNIST/raw``.
        download: Download what is missing, with a progress bar.

    Returns:
        Images (1, side, side) with the factor ``garment``.

    Raises:
        OSError: A file is missing or damaged.
        ValueError: A file is not what its name says, or an unknown split or image size.
    """
    return _open_idx("fashion-mnist", "FashionMNIST", split, image_size, root, download)


def open_cifar10(
    split: str = "all", image_size: int = 32, root: str | Path | None = None, download: bool = True
) -> ImageArray:
    """Open CIFAR-10: 10 kinds of thing in colour, 50,000 to train and 10,000 to test.

    Args:
        split: "train", "test" or "all".
        image_size: Side in pixels; resized bicubically where it is not 32.
        root: Folder of the data, default ``$LATENTLAB_DATA`` or ``~/.cache/latentlab/data``. Its binary
            version, ``cifar-10-batches-bin``, is read: the Python one holds pickles.
        download: Download it if it is missing, with a progress bar.

    Returns:
        Images (3, side, side) with the factor ``label``.

    Raises:
        OSError: A file is missing or damaged.
        ValueError: A file is not what its name says, or an unknown split or image size.
    """
    check_split("cifar10", split)
    check_image_size(image_size)
    base = data_root(root)
    folder = base if (base / "test_batch.bin").exists() else base / "cifar-10-batches-bin"
    files = [f"data_batch_{number}.bin" for number in range(1, 6)] if split != "test" else []
    files += ["test_batch.bin"] if split != "train" else []
    if download and not all((folder / file).exists() for file in files):
        from torchvision.datasets.utils import download_and_extract_archive

        url, md5 = (
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "c32a1d4ab5d03f1284b67883e8d87530",
        )
        download_into("cifar10", base, lambda: download_and_extract_archive(url, str(base), md5=md5))
    rows = np.concatenate([_read_cifar(folder / file) for file in files])
    images, labels = rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, :1]
    return ImageArray(
        name="cifar10",
        source="CIFAR-10 (Krizhevsky, 2009); free for research, no licence stated",
        images=resized(images, image_size),
        factor_space=FactorSpace(("label",), (10,)),
        table=labels.astype(np.int64),
        categories={"label": CIFAR10},
    )


def open_folder(path: str | Path, image_size: int = 64, channels: int = 3) -> ImageArray:
    """Open a folder of images, read with its sub-folders; each is centre-cropped to a square and resized.

    Args:
        path: The folder.
        image_size: Side in pixels.
        channels: 1 (grey) or 3 (RGB).

    Returns:
        Images (channels, side, side) in the order of their paths; with two sub-folders or more, their names
        are the values of a factor ``folder``, and images beside them have the value ".".

    Raises:
        OSError: No such folder, or a file in it cannot be read.
        ValueError: No image in it, or channels or image size out of range.
    """
    check_image_size(image_size)
    if channels not in (1, 3):
        raise ValueError(f"a folder of images is read with 1 or 3 channels, got {channels!r}")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; give the path of a folder with images")
    paths = sorted(
        file for file in folder.rglob("*") if file.suffix.lower() in _IMAGE_ENDINGS and file.is_file()
    )
    if not paths:
        raise ValueError(f"no image in {folder}; expected files ending in {', '.join(_IMAGE_ENDINGS)}")
    inside = [file.relative_to(folder).parts for file in paths]
    labels = [parts[0] if len(parts) > 1 else "." for parts in inside]
    values = sorted(set(labels))
    labelled = len(set(values) - {"."}) >= 2
    return ImageArray(
        name=f"folder:{folder.resolve().name}",
        source="your own images",
        images=load_images(paths, image_size, channels),
        factor_space=FactorSpace(("folder",), (len(values),)) if labelled else None,
        table=np.array([[values.index(label)] for label in labels]) if labelled else None,
        categories={"folder": values} if labelled else None,
    )


def check_split(name: str, split: str, splits: tuple[str, ...] = _SPLITS) -> None:
    """Refuse a split that a data set does not have.

    Raises:
        ValueError: Lists the splits.
    """
    if split not in splits:
        raise ValueError(f"{name} has no split {split!r}; its splits are {', '.join(splits)}")


def download_into(name: str, base: Path, fetch: Callable[[], object]) -> None:
    """Make the folder ``base`` and call ``fetch``, which downloads into it.

    Raises:
        OSError: It failed; the sentence says why and what to do.
    """
    try:
        base.mkdir(parents=True, exist_ok=True)
        fetch()
    except (OSError, RuntimeError, ImportError, EOFError) as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise OSError(
            f"could not download {name} ({reason}); check the network, or put its files into {base} yourself"
        ) from None


def _open_idx(
    name: str, torchvision_name: str, split: str, image_size: int, root: str | Path | None, download: bool
) -> ImageArray:
    check_split(name, split)
    check_image_size(image_size)
    base = data_root(root)
    prefixes = {"train": ("train",), "test": ("t10k",), "all": ("train", "t10k")}[split]
    wanted = [f"{prefix}-{kind}" for prefix in prefixes for kind in ("images-idx3", "labels-idx1")]
    folders = (base / torchvision_name / "raw", base / name, base)
    found = {stem: _find_idx(folders, stem) for stem in wanted}
    missing = [f"{stem}-ubyte.gz" for stem, path in found.items() if path is None]
    if missing and download:
        from torchvision import datasets

        opener = getattr(datasets, torchvision_name)
        download_into(name, base, lambda: opener(str(base), download=True))
        found = {stem: _find_idx(folders, stem) for stem in wanted}
        missing = [f"{stem}-ubyte.gz" for stem, path in found.items() if path is None]
    if missing:
        present = [
            part
            for part, prefix in (("train", "train"), ("test", "t10k"))
            if f"{prefix}-images-idx3" in found
        ]
        raise FileNotFoundError(
            f"{name} ({' and '.join(present)}) needs {', '.join(missing)} in {base}; "
            "put the files there, choose the split that is there, or pass download=True"
        )
    images, labels = [], []
    for prefix in prefixes:
        pictures, digits = (_read_idx(found[f"{prefix}-{kind}"]) for kind in ("images-idx3", "labels-idx1"))
        if pictures.ndim != 3 or digits.ndim != 1 or len(pictures) != len(digits):
            raise ValueError(
                f"{found[f'{prefix}-images-idx3']} holds {pictures.shape} and {found[f'{prefix}-labels-idx1']} "
                f"{digits.shape}; expected as many images as labels, so download both again"
            )
        images.append(pictures[:, None])
        labels.append(digits)
    factor, values = ("digit", DIGITS) if name == "mnist" else ("garment", GARMENTS)
    table = np.concatenate(labels).astype(np.int64)[:, None]
    if table.size and table.max() > 9:
        raise ValueError(
            f"the labels of {name} in {base} must be 0..9, got {table.max()}; download them again"
        )
    return ImageArray(
        name=name,
        source={
            "mnist": "MNIST (LeCun, Cortes and Burges, 1998), CC BY-SA 3.0",
            "fashion-mnist": "Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017), MIT",
        }[name],
        images=resized(np.concatenate(images), image_size),
        factor_space=FactorSpace((factor,), (10,)),
        table=table,
        categories={factor: values},
    )


def _find_idx(folders: tuple[Path, ...], stem: str) -> Path | None:
    dotted = stem.replace("-idx", ".idx")
    names = [f"{form}-ubyte{packed}" for form in (stem, dotted) for packed in ("", ".gz")]
    paths = (folder / name for folder in folders for name in names)
    return next((path for path in paths if path.is_file()), None)


def _read_idx(path: Path | None) -> np.ndarray:
    """Array of an idx file of unsigned bytes, packed or not."""
    assert path is not None
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise OSError(
            f"{path} is truncated or no gzip file ({error}); delete it and download it again"
        ) from None
    rank = data[3] if len(data) > 3 and data[:3] == b"\x00\x00\x08" else 0
    if not 1 <= rank <= 4 or len(data) < 4 + 4 * rank:
        raise ValueError(f"{path} is no idx file of bytes; expected MNIST's format, so download it again")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", count=rank, offset=4))
    expected, there = int(np.prod(shape, dtype=object)), len(data) - 4 - 4 * rank
    if there != expected:
        raise OSError(f"{path} should hold {expected} bytes of data but has {there}; download it again")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _read_cifar(path: Path) -> np.ndarray:
    """Rows of label and 3,072 pixels from one batch of 10,000."""
    if not path.is_file():
        raise FileNotFoundError(f"cifar10 needs {path}; put the binary version there, or pass download=True")
    size, expected = path.stat().st_size, 10_000 * 3073
    if size != expected:
        raise OSError(f"{path} should have {expected} bytes but has {size}; delete it and download it again")
    rows = np.fromfile(path, np.uint8).reshape(10_000, 3073)
    if rows[:, 0].max() > 9:
        raise ValueError(f"{path} has the label {rows[:, 0].max()}, expected 0..9; download it again")
    return rows
