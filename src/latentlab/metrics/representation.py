"""Codes and factors as every metric reads them: numpy or torch in, checked arrays out, one sentence when wrong."""

from __future__ import annotations

from typing import Any

import numpy as np

LEAST_POINTS = 50


def as_array(values: Any) -> np.ndarray:
    """A numpy array of a numpy array, a torch tensor on any device, or nested lists."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values)


def as_codes(codes: Any, name: str = "codes") -> np.ndarray:
    """Codes as float64 (n, d).

    Raises:
        ValueError: if they are not numbers (n, d), or not all finite.
    """
    array = as_array(codes)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "fiub":
        raise ValueError(
            f"{name} must be numbers (points, dimensions); got shape {array.shape} of {array.dtype}."
        )
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array).all(axis=1)).sum())
        raise ValueError(f"{name} must be finite; {bad} of {len(array)} points hold NaN or infinity.")
    return array


def as_factors(factors: Any, name: str = "factors") -> np.ndarray:
    """Ground-truth factors as int64 (n, k); whole numbers, not necessarily 0, 1, 2, ….

    Raises:
        ValueError: if there are none, or they are not whole numbers (n, k).
    """
    array = as_array(factors)
    if array.ndim != 2 or array.shape[0] == 0:
        raise ValueError(f"{name} must be whole numbers (points, factors); got shape {array.shape}.")
    if array.shape[1] == 0:
        raise ValueError(f"{name} holds no factor; a score needs ground-truth factors, at least one.")
    if array.dtype.kind == "f" and np.isfinite(array).all() and (array == np.rint(array)).all():
        array = array.astype(np.int64)
    if array.dtype.kind not in "iub":
        raise ValueError(
            f"{name} must be whole numbers (points, factors), the index of each factor's value; "
            f"got {array.dtype}."
        )
    return array.astype(np.int64)


def as_pair(
    codes: Any, factors: Any, part: str = "", least: int = LEAST_POINTS
) -> tuple[np.ndarray, np.ndarray]:
    """Codes float64 (n, d) and the factors int64 (n, k) of the same points.

    Args:
        codes: (n, d).
        factors: (n, k).
        part: "train", "test" or "" for the words of an error.
        least: the fewest points that can say anything.

    Raises:
        ValueError: if they do not belong together, or are too few.
    """
    prefix = f"{part}_" if part else ""
    z, v = as_codes(codes, f"{prefix}codes"), as_factors(factors, f"{prefix}factors")
    if len(z) != len(v):
        raise ValueError(
            f"{prefix}codes and {prefix}factors must hold the same points; got {len(z)} and {len(v)}."
        )
    if len(z) < least:
        raise ValueError(
            f"{len(z)} {part + ' ' if part else ''}points are too few for a score that means anything; "
            f"give at least {least} (the field uses 10,000)."
        )
    return z, v


def needs_variety(factors: np.ndarray, metric: str) -> None:
    """Refuses a factor that never changes.

    Raises:
        ValueError: naming the factors that have one value only.
    """
    still = np.flatnonzero((factors == factors[:1]).all(axis=0))
    if len(still):
        which = ", ".join(str(i) for i in still)
        raise ValueError(
            f"{metric} asks what the codes say of each factor, but factor {which} has one value only in these "
            "points; leave it out."
        )


def split_pairs(
    train_codes: Any, train_factors: Any, test_codes: Any, test_factors: Any, metric: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Train and test points of a metric that learns a predictor, checked.

    Raises:
        ValueError: if widths differ, points are too few, or a factor has one value only in either part.
    """
    z, v = as_pair(train_codes, train_factors, "train")
    test_z, test_v = as_pair(test_codes, test_factors, "test")
    if z.shape[1] != test_z.shape[1] or v.shape[1] != test_v.shape[1]:
        raise ValueError(
            "Train and test points must have the same dimensions and factors; got "
            f"{z.shape[1]} and {test_z.shape[1]} dimensions, {v.shape[1]} and {test_v.shape[1]} factors."
        )
    needs_variety(v, metric)
    return z, v, test_z, test_v
