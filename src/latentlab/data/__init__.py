"""Data sets: images with ground-truth factors, drawn on the fly, shipped, or read from the user's files."""

from typing import TYPE_CHECKING

from latentlab.data.catalogue import (
    DOWNLOADABLE,
    DatasetInfo,
    dataset_names,
    factor_sizes,
    list_datasets,
    open_dataset,
)

if TYPE_CHECKING:
    from latentlab.data.correlation import Correlation
    from latentlab.data.factors import FactorDataset, FactorSpace

__all__ = [
    "DOWNLOADABLE",
    "Correlation",
    "DatasetInfo",
    "FactorDataset",
    "FactorSpace",
    "dataset_names",
    "factor_sizes",
    "list_datasets",
    "open_dataset",
]


def __getattr__(name: str) -> object:
    # These need torch, which listing the data sets does not.
    if name == "Correlation":
        from latentlab.data.correlation import Correlation

        return Correlation
    if name in ("FactorDataset", "FactorSpace"):
        from latentlab.data import factors

        return getattr(factors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
