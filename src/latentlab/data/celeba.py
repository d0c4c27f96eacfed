"""CelebA: faces with 40 yes-or-no attributes, decoded once."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from latentlab.data.arrays import ImageArray, check_image_size, load_images
from latentlab.data.catalogue import data_root
from latentlab.data.factors import FactorSpace
from latentlab.data.sources import check_split, download_into


def open_celeba(
    split: str = "all", image_size: int = 64, root: str | Path | None = None, download: bool = True
) -> ImageArray:
    """Open CelebA: 202,599 faces with 40 yes-or-no attributes.

    The first opening decodes every file, centre-cropped to 148 pixels as usual, and keeps the result beside
    them, so that later ones take seconds.

    Args:
        split: "train", "test", "valid" or "all".
        image_size: Side in pixels.
        root: Folder of the data, default ``$LATENTLAB_DATA`` or ``~/.cache/latentlab/data``; ``celeba`` below
            it holds ``img_align_celeba/``, ``list_attr_celeba.txt`` and ``list_eval_partition.txt``.
        download: Download it if it is missing, with a progress bar.

    Returns:
        Images (3, side, side) with 40 factors of 2 values.

    Raises:
        OSError: A file is missing or damaged.
        ValueError: A file is not what its name says, or an unknown split or image size.
    """
    check_split("celeba", split, ("train", "valid", "test", "all"))
    check_image_size(image_size)
    base = data_root(root)
    folder = base / "celeba"
    attributes, parts = folder / "list_attr_celeba.txt", folder / "list_eval_partition.txt"
    if download and not all(path.exists() for path in (attributes, parts, folder / "img_align_celeba")):
        from torchvision.datasets import CelebA

        download_into("celeba", base, lambda: CelebA(str(base), split="all", download=True))
    names, table, files = _read_attributes(attributes)
    part_of = dict(line.split()[:2] for line in _read_lines(parts) if len(line.split()) >= 2)
    part = {"train": "0", "valid": "1", "test": "2"}.get(split)
    rows = [row for row, file in enumerate(files) if part is None or part_of.get(file) == part]
    if not rows:
        raise ValueError(f"{parts} names no image of the split {split!r}; replace it by the original file")
    images = _cached_faces(folder, [files[row] for row in rows], split, image_size)
    return ImageArray(
        name="celeba",
        source="CelebA (Liu et al., 2015); for non-commercial research only",
        images=images,
        factor_space=FactorSpace(names, (2,) * len(names)),
        table=table[rows],
        categories={name: ("no", "yes") for name in names},
    )


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"celeba needs {path}; put the original file there, or pass download=True"
        ) from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text file; replace it by the original file") from None


def _read_attributes(path: Path) -> tuple[tuple[str, ...], np.ndarray, list[str]]:
    """Attribute names, 0/1 table (n, attributes) and file names of CelebA's list."""
    lines = _read_lines(path)
    names = tuple(lines[1].split()) if len(lines) > 1 else ()
    rows = [line.split() for line in lines[2:] if line.strip()]
    count = int(lines[0]) if lines and lines[0].strip().isdigit() else -1
    wrong = next((row for row in rows if len(row) != len(names) + 1 or {*row[1:]} - {"1", "-1"}), None)
    if not names or count != len(rows) or wrong is not None:
        raise ValueError(
            f"{path} is truncated or no attribute list: expected a count, a line of names, and a line of 1 or -1 "
            "an image; replace it by the original file"
        )
    files = [row[0] for row in rows]
    if any(Path(file).name != file for file in files):
        raise ValueError(f"{path} names files outside img_align_celeba; replace it by the original file")
    return names, np.array([[int(value == "1") for value in row[1:]] for row in rows]), files


def _cached_faces(folder: Path, files: list[str], split: str, size: int) -> np.ndarray:
    """Decoded images (n, 3, size, size), from the file kept beside them if it is there and fits."""
    kept = folder / f"latentlab-{split}-{size}.npy"
    try:
        images = np.load(kept, allow_pickle=False)
        if images.dtype == np.uint8 and images.shape == (len(files), 3, size, size):
            return images
    except (OSError, ValueError, EOFError):
        pass  # none yet, or a damaged one: it is only a copy
    images = load_images([folder / "img_align_celeba" / file for file in files], size, 3, crop=148)
    partial = kept.with_suffix(".partial.npy")
    try:
        np.save(partial, images)
        partial.replace(kept)
    except OSError:
        partial.unlink(missing_ok=True)  # a full or read-only disk costs only the next opening's time
    return images
