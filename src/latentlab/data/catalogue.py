"""Which data sets there are, and opening one by name; imports nothing heavy before one is opened."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latentlab.data.factors import FactorDataset


@dataclass(frozen=True)
class DatasetInfo:
    """One line of the catalogue; says what opening the data set gives, without opening it."""

    name: str
    """What ``open_dataset`` takes; names that end in ``:PATH`` read the user's own files."""
    size: int | None
    """Number of images with default options; None where the user's files decide."""
    image_shape: tuple[int, int, int] | None
    """(channels, height, width) with default options; None where the user's files decide."""
    factors: tuple[str, ...]
    """Names of the ground-truth factors or labels."""
    source: str
    """Origin and licence, one line."""
    available: bool
    """Whether it can be opened on this machine as it is."""
    how: str
    """How to get it where it is not available, else how to open it."""


@dataclass(frozen=True)
class _Entry:
    opener: str
    size: int | None
    image_shape: tuple[int, int, int] | None
    factors: tuple[str, ...]
    source: str
    files: tuple[str, ...] = ()  # any of them below the root means that it is here
    takes_path: bool = False
    get: str = ""  # where the user's own file comes from; empty where any will do
    sizes: tuple[int, ...] = ()  # how many values each factor has, where that is known before it is opened


_ENTRIES: dict[str, _Entry] = {
    "sprites": _Entry(
        "latentlab.data.sprites:Sprites",
        737_280,
        (1, 64, 64),
        ("shape", "scale", "orientation", "x", "y"),
        "drawn here in the geometry of dSprites (Matthey et al., 2017); no file; Apache-2.0",
        sizes=(3, 6, 40, 32, 32),
    ),
    "scenes": _Entry(
        "latentlab.data.scenes:Scenes",
        480_000,
        (3, 64, 64),
        ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation"),
        "ray-traced here in the manner of 3D Shapes (Burgess and Kim, 2018); no file; Apache-2.0",
        sizes=(10, 10, 10, 8, 4, 15),
    ),
    "digits": _Entry(
        "latentlab.data.sources:open_digits",
        1_797,
        (1, 32, 32),
        ("digit",),
        "UCI optical recognition of handwritten digits (Alpaydin and Kaynak, 1998), CC BY 4.0",
        sizes=(10,),
    ),
    "mnist": _Entry(
        "latentlab.data.sources:open_mnist",
        70_000,
        (1, 28, 28),
        ("digit",),
        "MNIST (LeCun, Cortes and Burges, 1998), CC BY-SA 3.0",
        files=("MNIST/raw", "mnist", "train-images-idx3-ubyte.gz"),
        sizes=(10,),
    ),
    "fashion-mnist": _Entry(
        "latentlab.data.sources:open_fashion_mnist",
        70_000,
        (1, 28, 28),
        ("garment",),
        "Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017), MIT",
        files=("FashionMNIST/raw", "fashion-mnist"),
        sizes=(10,),
    ),
    "cifar10": _Entry(
        "latentlab.data.sources:open_cifar10",
        60_000,
        (3, 32, 32),
        ("label",),
        "CIFAR-10 (Krizhevsky, 2009); free for research, no licence stated",
        files=("cifar-10-batches-bin",),
        sizes=(10,),
    ),
    "celeba": _Entry(
        "latentlab.data.celeba:open_celeba",
        202_599,
        (3, 64, 64),
        ("40 attributes",),
        "CelebA (Liu et al., 2015); for non-commercial research only",
        files=("celeba/img_align_celeba",),
    ),
    "folder": _Entry(
        "latentlab.data.sources:open_folder", None, None, ("folder",), "your own images", takes_path=True
    ),
    "dsprites": _Entry(
        "latentlab.data.grids:open_dsprites",
        737_280,
        (1, 64, 64),
        ("shape", "scale", "orientation", "x", "y"),
        "the original dSprites file, .npz (Matthey et al., 2017), Apache-2.0",
        takes_path=True,
        get="the .npz from github.com/google-deepmind/dsprites-dataset",
        sizes=(3, 6, 40, 32, 32),
    ),
    "shapes3d": _Entry(
        "latentlab.data.grids:open_shapes3d",
        480_000,
        (3, 64, 64),
        ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation"),
        "the original 3D Shapes file, .h5 (Burgess and Kim, 2018), Apache-2.0",
        takes_path=True,
        get="3dshapes.h5 from github.com/google-deepmind/3d-shapes",
        sizes=(10, 10, 10, 8, 4, 15),
    ),
}

DOWNLOADABLE = ("mnist", "fashion-mnist", "cifar10", "celeba")
"""Sets that ``open_dataset`` fetches where they are missing, unless it is called with ``download=False``."""


def dataset_names() -> tuple[str, ...]:
    """Names that ``open_dataset`` takes; those that read the user's own files end in ``:PATH``."""
    return tuple(f"{name}:PATH" if entry.takes_path else name for name, entry in _ENTRIES.items())


def list_datasets(root: str | Path | None = None) -> list[DatasetInfo]:
    """Describe every data set, without opening, drawing or downloading any.

    Args:
        root: Folder where downloads are looked for; default ``$LATENTLAB_DATA`` or
            ``~/.cache/latentlab/data``.

    Returns:
        One ``DatasetInfo`` a data set.
    """
    folder = data_root(root)
    rows = []
    for name, entry in _ENTRIES.items():
        if entry.takes_path:
            here, how = not entry.get, f'open_dataset("{name}:PATH")'
            how = f"download {entry.get}, then {how}" if entry.get else f"{how} with your own files"
        else:
            here = not entry.files or any((folder / file).exists() for file in entry.files)
            how = f'open_dataset("{name}")' + ("" if here else f" downloads it into {folder}")
        title = f"{name}:PATH" if entry.takes_path else name
        rows.append(DatasetInfo(title, entry.size, entry.image_shape, entry.factors, entry.source, here, how))
    return rows


def factor_sizes(name: str, options: Mapping[str, object] | None = None) -> dict[str, int]:
    """Say how many values each factor of a data set has, without opening it.

    Args:
        name: What ``open_dataset`` takes.
        options: Of the data set.

    Returns:
        {factor: number of values}; {} where only the files would tell, or there is no such data set.
    """
    entry = _ENTRIES.get(kind := str(name).partition(":")[0])
    if entry is None or not entry.sizes:
        return {}
    more = {"color": 10} if kind == "sprites" and (options or {}).get("color") is True else {}
    return more | dict(zip(entry.factors, entry.sizes, strict=True))


def open_dataset(name: str, **options: object) -> FactorDataset:
    """Open a data set by name.

    Args:
        name: One of ``dataset_names()``; ``"folder:PATH"`` names the user's own files.
        options: What this data set's own opener takes, such as ``split``, ``image_size`` or ``root``.

    Returns:
        The data set, on the CPU; ``.to(device)`` moves it.

    Raises:
        ValueError: Unknown name or option (the sentence lists the valid ones), or a wrong file.
        OSError: A file is missing or damaged.
    """
    kind, colon, path = str(name).partition(":")
    entry = _ENTRIES.get(kind)
    if entry is None or (colon and not entry.takes_path):
        close = difflib.get_close_matches(kind, _ENTRIES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close and close[0] != name else ""
        raise ValueError(f"unknown data set {name!r}; the data sets are {', '.join(dataset_names())}{hint}")
    if path:
        if options.get("path") is not None:
            raise ValueError(f"{name!r} names its path already; leave out path={options['path']!r}")
        options["path"] = path
    elif entry.takes_path and not options.get("path"):
        raise ValueError(f'{kind} needs the path of your files: "{kind}:PATH"')
    module, _, attribute = entry.opener.partition(":")
    opener: Callable[..., FactorDataset] = getattr(importlib.import_module(module), attribute)
    valid = tuple(inspect.signature(opener).parameters)
    for option in options:
        if option not in valid:
            raise ValueError(
                f"data set {kind!r} has no option {option!r}; its options are {', '.join(valid)}"
            )
    return opener(**options)


def data_root(root: str | Path | None = None) -> Path:
    """Folder of downloaded data: ``root``, else ``$LATENTLAB_DATA``, else ``~/.cache/latentlab/data``."""
    chosen = root or os.environ.get("LATENTLAB_DATA")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "latentlab" / "data"
