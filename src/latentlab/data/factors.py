"""Images with ground-truth factors: the factor grid and the data set contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from latentlab.data.correlation import Correlation

Indices = Tensor | np.ndarray | Sequence[int] | int


class FactorSpace:
    """Names and sizes of discrete ground-truth factors; a grid in row-major order, last factor fastest.

    Args:
        names: One unique name a factor.
        sizes: How many values each factor has; a value is an int in 0 .. size - 1.

    Raises:
        ValueError: Names and sizes do not fit together, a name repeats, or a size is below 1.
    """

    def __init__(self, names: Sequence[str], sizes: Sequence[int]):
        self.names = tuple(str(name) for name in names)
        self.sizes = tuple(int(size) for size in sizes)
        if len(self.names) != len(self.sizes):
            raise ValueError(
                f"a factor space needs one size a name, got {len(self.names)} names "
                f"and {len(self.sizes)} sizes"
            )
        if not self.names:
            raise ValueError("a factor space needs at least one factor, got none")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"factor names must be unique, got {', '.join(self.names)}")
        for name, size in zip(self.names, self.sizes, strict=True):
            if size < 1:
                raise ValueError(f"factor {name!r} must have at least 1 value, got {size}")
        strides = np.ones(len(self.sizes), dtype=np.int64)
        strides[:-1] = np.cumprod(self.sizes[:0:-1], dtype=np.int64)[::-1]
        self._strides = torch.from_numpy(strides.copy())
        self._sizes = torch.tensor(self.sizes, dtype=torch.int64)
        self._length = int(np.prod(self.sizes, dtype=object))

    def __len__(self) -> int:
        """Number of factor combinations."""
        return self._length

    def __repr__(self) -> str:
        """The factors with their sizes."""
        inside = ", ".join(f"{name} {size}" for name, size in zip(self.names, self.sizes, strict=True))
        return f"FactorSpace({inside})"

    def __eq__(self, other: object) -> bool:
        """Same names and sizes in the same order."""
        return isinstance(other, FactorSpace) and (self.names, self.sizes) == (other.names, other.sizes)

    def __hash__(self) -> int:
        """Hash of names and sizes."""
        return hash((self.names, self.sizes))

    def position(self, factor: str | int) -> int:
        """Column of a factor given by name (or by column).

        Raises:
            ValueError: No such factor; the sentence lists the names.
        """
        if isinstance(factor, str):
            if factor in self.names:
                return self.names.index(factor)
        elif 0 <= int(factor) < len(self.names):
            return int(factor)
        raise ValueError(f"unknown factor {factor!r}; the factors are {', '.join(self.names)}")

    def index(self, factors: Tensor | np.ndarray | Sequence) -> Tensor:
        """Grid index of factor values.

        Args:
            factors: Int (n, factors) (or one row (factors,)); each value in 0 .. size - 1. Values on an
                accelerator are not range-checked, since that would wait for it.

        Returns:
            Int64 (n,) (a scalar tensor for one row), on the device of ``factors``.

        Raises:
            TypeError: Values are not integers.
            ValueError: Wrong number of columns, or a value out of its factor's range.
        """
        values = as_integers(factors, "factor values")
        if values.ndim == 0 or values.shape[-1] != len(self.names):
            raise ValueError(
                f"factor values must have {len(self.names)} columns ({', '.join(self.names)}), "
                f"got shape {tuple(values.shape)}"
            )
        self.check(values)
        return (values * self._on(values.device)[0]).sum(-1)

    def factors(self, index: Indices) -> Tensor:
        """Factor values of grid indices.

        Args:
            index: Int (n,) in 0 .. len - 1 (or one int); not range-checked on an accelerator.

        Returns:
            Int64 (n, factors), on the device of ``index``.

        Raises:
            TypeError: Indices are not integers.
            ValueError: An index out of range.
        """
        index = as_indices(index, self._length, "the factor grid")
        strides, sizes = self._on(index.device)
        return torch.div(index.unsqueeze(-1), strides, rounding_mode="floor").remainder_(sizes)

    def check(self, values: Tensor) -> None:
        """Refuse factor values (n, factors) out of range; values on an accelerator pass unchecked.

        Raises:
            ValueError: Names the factor, the value and the valid range.
        """
        if values.device.type != "cpu" or not values.numel():
            return
        wrong = (values < 0) | (values >= self._sizes)
        if wrong.any():
            where = wrong.reshape(-1, len(self.names)).nonzero()[0]
            column = int(where[1])
            value = int(values.reshape(-1, len(self.names))[where[0], column])
            raise ValueError(
                f"factor {self.names[column]!r} must be in 0..{self.sizes[column] - 1}, got {value}"
            )

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if self._strides.device != device:
            if device.type == "cpu":
                return self._strides.to(device), self._sizes.to(device)
            # Keep the copies: sending them at every call would stall the device's queue.
            copies = self.__dict__.setdefault("_copies", {})
            if device not in copies:
                copies[device] = (self._strides.to(device), self._sizes.to(device))
            return copies[device]
        return self._strides, self._sizes


class FactorDataset:
    """Images plus integer ground-truth factors: the contract of every data set, and its shared half.

    A subclass implements ``_read`` (images of checked indices) and, when it is not a full grid,
    ``factors``. Indices may be lists, numpy arrays or tensors on any device; those on an accelerator are
    not range-checked, since that would wait for it.

    Args:
        name: What ``open_dataset`` calls it.
        source: One line: origin and licence.
        image_shape: (channels, height, width).
        size: Number of images.
        factor_space: Names and sizes of the factors, None for a plain image set.
        categories: ``{factor: (name of value 0, ...)}`` where values have names.
        circular: ``{factor: period}`` for factors that wrap: value + period means the same.
        correlation: Training distribution of ``sample`` and ``batch``; None is uniform over all images.
    """

    def __init__(
        self,
        name: str,
        source: str,
        image_shape: tuple[int, int, int],
        size: int,
        factor_space: FactorSpace | None = None,
        categories: Mapping[str, Sequence[str]] | None = None,
        circular: Mapping[str, int] | None = None,
        correlation: Correlation | None = None,
    ):
        self.name = name
        self.source = source
        self.image_shape = (int(image_shape[0]), int(image_shape[1]), int(image_shape[2]))
        self.factor_space = factor_space
        self.categories = {factor: tuple(names) for factor, names in (categories or {}).items()}
        self.circular = dict(circular or {})
        self.correlation = correlation
        self.device = torch.device("cpu")
        self._size = int(size)
        self._epochs: dict[tuple[int, int], Tensor] = {}
        if self._size < 1:
            raise ValueError(f"{name} holds no image; expected at least one")

    def __len__(self) -> int:
        """Number of images."""
        return self._size

    def __repr__(self) -> str:
        """Name, size, image shape and factors."""
        kind = type(self).__name__
        return f"{kind}({self.name!r}, {self._size} images {self.image_shape}, {self.factor_space})"

    @property
    def labels(self) -> tuple[str, ...]:
        """Factor names, usable for colouring; empty for a plain image set."""
        return self.factor_space.names if self.factor_space is not None else ()

    @property
    def is_grid(self) -> bool:
        """Whether every factor combination is one image, so that ``index`` works."""
        return self.factor_space is not None and len(self.factor_space) == self._size

    def images(self, indices: Indices, device: torch.device | str | None = None) -> Tensor:
        """Images of the given indices.

        Args:
            indices: Int (n,), each in 0 .. len - 1.
            device: Where the images should be; default the data set's device.

        Returns:
            Float32 (n, channels, height, width) in [0, 1].

        Raises:
            TypeError: Indices are not integers.
            ValueError: An index out of range.
        """
        indices = as_indices(indices, self._size, self.name).reshape(-1)
        images = self._read(indices.to(self.device, non_blocking=True))
        return images if device is None else images.to(device)

    def factors(self, indices: Indices) -> Tensor:
        """Ground-truth factors of the given images, int64 (n, factors), on the device of ``indices``.

        Raises:
            TypeError: Indices are not integers.
            ValueError: An index out of range, or the data set has no factors.
        """
        return self._factor_space().factors(as_indices(indices, self._size, self.name).reshape(-1))

    def index(self, factors: Tensor | np.ndarray | Sequence) -> Tensor:
        """Index of the image with the given factor values: int (n, factors) to int64 (n,).

        Raises:
            TypeError: Values are not integers.
            ValueError: A value out of range, or the data set is not a full grid of factors.
        """
        space = self._factor_space()
        if not self.is_grid:
            raise ValueError(
                f"{self.name} is not a full grid: factor values do not name one image; "
                "look for images by comparing factors(indices) with the values you want"
            )
        return space.index(factors)

    def sample(self, n: int, seed: int) -> Tensor:
        """Indices drawn from the training distribution, with replacement.

        Args:
            n: How many.
            seed: A non-negative int; the same seed gives the same indices.

        Returns:
            Int64 (n,), on the data set's device.
        """
        return self._draw(_count("n", n), np.random.default_rng(_count("seed", seed)))

    def batch(self, size: int, seed: int, step: int) -> Tensor:
        """Indices of training batch ``step``: a pure function of the arguments.

        Batches of one size cut an endless row of permutations, one an epoch, so each epoch shows every
        image once (a batch may span two epochs). A correlated data set draws independently instead.

        Args:
            size: Images in the batch.
            seed: A non-negative int.
            step: A non-negative int.

        Returns:
            Int64 (size,), on the data set's device.

        Raises:
            ValueError: A negative seed or step, or a size below 1.
        """
        size, seed, step = _count("size", size, 1), _count("seed", seed), _count("step", step)
        if self.correlation is not None:
            return self._draw(size, np.random.default_rng((seed, step)))
        parts, start, left = [], step * size, size
        while left:
            epoch, offset = divmod(start, self._size)
            part = self._permutation(seed, epoch)[offset : offset + left]
            parts.append(part)
            start, left = start + len(part), left - len(part)
        return parts[0].clone() if len(parts) == 1 else torch.cat(parts)

    def to(self, device: torch.device | str) -> FactorDataset:
        """Keep (or draw) the images on ``device`` from now on; returns self."""
        self.device = torch.empty(0, device=device).device  # "cuda" becomes "cuda:0"
        self._epochs = {}
        self._move(self.device)
        return self

    def _read(self, indices: Tensor) -> Tensor:
        raise TypeError(
            f"{type(self).__name__} does not say how its images are read; a data set defines _read."
        )

    def _move(self, device: torch.device) -> None:
        pass

    def _draw(self, n: int, rng: np.random.Generator) -> Tensor:
        if self.correlation is not None:
            indices = self.correlation.sample(n, rng)
        else:
            indices = torch.from_numpy(rng.integers(self._size, size=n))
        return indices.to(self.device, non_blocking=True)

    def _permutation(self, seed: int, epoch: int) -> Tensor:
        epochs = self._epochs
        permutation = epochs.get((seed, epoch))
        if permutation is None:
            state = int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0] >> 1)
            generator = torch.Generator().manual_seed(state)
            # Drawn on the CPU, so that every device sees the same order; two epochs are kept, since a batch
            # may span them. The dict is replaced, never changed, since threads share a data set.
            permutation = torch.randperm(self._size, generator=generator).to(self.device)
            newest = list(epochs.items())[-1:]
            self._epochs = dict([*newest, ((seed, epoch), permutation)])
        return permutation

    def _factor_space(self) -> FactorSpace:
        if self.factor_space is None:
            raise ValueError(f"{self.name} has no ground-truth factors; it is a plain image set")
        return self.factor_space


def as_indices(indices: Indices, size: int, of: str) -> Tensor:
    """Int64 tensor of indices, each checked to be in 0 .. size - 1 (unchecked on an accelerator).

    Raises:
        TypeError: Not integers.
        ValueError: Out of range.
    """
    tensor = as_integers(indices, "indices")
    if tensor.device.type == "cpu" and tensor.numel():
        low, high = torch.aminmax(tensor)
        if low < 0 or high >= size:
            wrong = int(low) if low < 0 else int(high)
            raise ValueError(f"an index into {of} must be in 0..{size - 1}, got {wrong}")
    return tensor


def as_integers(values: object, what: str) -> Tensor:
    """Int64 tensor of integer values.

    Raises:
        TypeError: Not integers.
    """
    if not isinstance(values, Tensor):
        array = np.asarray(values)
        if array.size == 0 and array.dtype == np.float64:
            array = array.astype(np.int64)  # an empty list has no type of its own
        if array.dtype.kind not in "iu":
            raise TypeError(f"{what} must be integers, got {array.dtype}")
        return torch.from_numpy(array.astype(np.int64))
    if values.dtype == torch.bool or values.is_floating_point() or values.is_complex():
        raise TypeError(f"{what} must be integers, got {values.dtype}")
    return values.to(torch.int64)


def _count(name: str, value: int, least: int = 0) -> int:
    if isinstance(value, bool) or int(value) != value or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)
