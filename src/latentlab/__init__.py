"""latentlab: train, measure, open and explore deep generative models.

Importing this package is cheap: a name loads its module (and torch) when it is first used.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latentlab import metrics as metrics
    from latentlab import viz as viz
    from latentlab.analysis import activations as activations
    from latentlab.analysis import compare_edits as compare_edits
    from latentlab.analysis import encode_dataset as encode_dataset
    from latentlab.analysis import feature_maps as feature_maps
    from latentlab.analysis import interpolate as interpolate
    from latentlab.analysis import invert as invert
    from latentlab.analysis import linear_readout as linear_readout
    from latentlab.analysis import load_result as load_result
    from latentlab.analysis import project as project
    from latentlab.analysis import rank_units as rank_units
    from latentlab.analysis import suggest as suggest
    from latentlab.analysis import swap_grid as swap_grid
    from latentlab.analysis import traverse as traverse
    from latentlab.analysis import traverse_grid as traverse_grid
    from latentlab.brought import bring as bring
    from latentlab.config import Experiment as Experiment
    from latentlab.data import list_datasets as list_datasets
    from latentlab.data import open_dataset as open_dataset
    from latentlab.evaluation import evaluate as evaluate
    from latentlab.latents import Block as Block
    from latentlab.latents import LatentSpace as LatentSpace
    from latentlab.models.adapt import adapt as adapt
    from latentlab.models.adapt import adapt_model as adapt_model
    from latentlab.models.edits import Edit as Edit
    from latentlab.notebook import widget as widget
    from latentlab.runs import Run as Run
    from latentlab.training.fit import fit as fit
    from latentlab.training.fit import resume as resume
    from latentlab.training.inverse import fit_encoder as fit_encoder

_WHERE = {
    "Run": "runs",
    "Experiment": "config",
    "fit": "training.fit",
    "resume": "training.fit",
    "fit_encoder": "training.inverse",
    "open_dataset": "data",
    "list_datasets": "data",
    "Block": "latents",
    "LatentSpace": "latents",
    "Edit": "models.edits",
    "adapt": "models.adapt",
    "adapt_model": "models.adapt",
    "bring": "brought",
    "traverse": "analysis",
    "traverse_grid": "analysis",
    "swap_grid": "analysis",
    "interpolate": "analysis",
    "invert": "analysis",
    "encode_dataset": "analysis",
    "linear_readout": "analysis",
    "project": "analysis",
    "activations": "analysis",
    "feature_maps": "analysis",
    "compare_edits": "analysis",
    "rank_units": "analysis",
    "suggest": "analysis",
    "load_result": "analysis",
    "evaluate": "evaluation",
    "metrics": "metrics",
    "viz": "viz",
    "widget": "notebook",
}
__all__ = ["__version__", *_WHERE]

try:
    __version__ = metadata.version("latentlab")
except metadata.PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0+source"


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'latentlab' has no attribute {name!r}; it has {', '.join(__all__)}")
    where = _WHERE[name]
    module = importlib.import_module(f"latentlab.{where}")
    if where == "analysis":
        importlib.import_module("latentlab.viz")  # so that results draw themselves in notebooks
    value = module if name == where else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
