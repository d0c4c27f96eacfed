"""Named groups of images, kept in the workspace for a data set: any model of the same data can use them.

``codes_of`` gives a group's codes under a model, as ``analysis.group_direction`` takes them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latentlab.files import atomic_write, sole_writer

if TYPE_CHECKING:
    from latentlab.runs import Workspace

FORMAT = 1
MOST_GROUPS = 100
LONGEST_NAME = 60


@dataclass(frozen=True, eq=False)
class ImageGroup:
    """A named set of images.

    Args:
        name: what a person calls it.
        images: numbers of the images in their data set, (n,), each once.

    Raises:
        ValueError: on an empty or overlong name, or no images.
    """

    name: str
    images: np.ndarray

    def __post_init__(self) -> None:
        name = " ".join(str(self.name).split())
        if not 1 <= len(name) <= LONGEST_NAME:
            raise ValueError(f"A group's name has 1 to {LONGEST_NAME} characters; got {len(name)}.")
        images = np.unique(np.asarray(self.images))
        if images.ndim != 1 or not len(images) or images.dtype.kind not in "iu" or images[0] < 0:
            raise ValueError("A group holds numbers of images, at least one.")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "images", images.astype(np.int64))


def groups_file(workspace: Workspace, data_key: str) -> Path:
    """Where the groups of a data set (with its options) are kept."""
    return workspace.path / "groups" / f"{hashlib.sha256(data_key.encode()).hexdigest()[:16]}.npz"


def load_groups(path: Path) -> tuple[ImageGroup, ...]:
    """The groups in a file, by name; none where there is no file.

    Raises:
        ValueError: if it is damaged.
        OSError: if it can't be read.
    """
    if not path.exists():
        return ()
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            if about["format"] != FORMAT:
                raise ValueError(f"format {about['format']}")
            return tuple(ImageGroup(name, file[f"group{i}"]) for i, name in enumerate(about["names"]))
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{path.name} holds no groups of images ({error}).") from None


def save_groups(path: Path, groups: Iterable[ImageGroup]) -> None:
    """Keeps groups in place of those that were there.

    Raises:
        ValueError: if there are too many.
        OSError: if the file can't be written.
    """
    kept = sorted(groups, key=lambda group: group.name)
    if len(kept) > MOST_GROUPS:
        raise ValueError(f"At most {MOST_GROUPS} groups are kept; got {len(kept)}.")
    about = np.array(json.dumps({"format": FORMAT, "names": [group.name for group in kept]}))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        arrays: Any = {f"group{i}": group.images for i, group in enumerate(kept)}
        np.savez_compressed(file, about=about, **arrays)


def keep_group(path: Path, group: ImageGroup) -> None:
    """Adds a group to those that are in the file now; one of the same name gives way.

    Raises:
        ValueError: if there are too many, or the file can't be understood.
        OSError: if the file can't be read or written. In either case it stays as it is.
    """
    with sole_writer(path):
        save_groups(path, with_group(_present(path), group))


def forget_group(path: Path, name: str) -> None:
    """Takes a group out of those that are in the file now.

    Raises:
        ValueError: if the file can't be understood.
        OSError: if the file can't be read or written. In either case it stays as it is.
    """
    with sole_writer(path):
        save_groups(path, [group for group in _present(path) if group.name != name])


def with_group(groups: Iterable[ImageGroup], group: ImageGroup) -> list[ImageGroup]:
    """The groups with one more; one of the same name gives way."""
    return [other for other in groups if other.name != group.name] + [group]


def some_of(group: ImageGroup, most: int, seed: int = 0) -> np.ndarray:
    """Numbers of a group's images (n,), of at most ``most`` of them, drawn by the seed."""
    images = group.images
    if len(images) > most:
        images = np.sort(np.random.default_rng(seed).choice(images, most, replace=False))
    return images


def codes_of(model: Any, data: Any, group: ImageGroup, most: int = 2_000, seed: int = 0) -> np.ndarray:
    """Posterior means (n, dim) of a group's images, of at most ``most`` of them, drawn by the seed."""
    from latentlab.analysis import encode_dataset

    return encode_dataset(model, data, some_of(group, most, seed)).mean


def _present(path: Path) -> tuple[ImageGroup, ...]:
    try:
        return load_groups(path)
    except ValueError as error:
        raise ValueError(f"Nothing was saved: {error}") from None
