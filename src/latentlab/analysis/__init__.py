"""Analyses of a model: pure functions, model first, numpy out, with provenance and certificate."""

from latentlab.analysis.activations import Activations, FeatureMaps, activations, feature_maps, stages_of
from latentlab.analysis.encoding import Encoding, encode_dataset
from latentlab.analysis.inference import decode_latents, encode_images
from latentlab.analysis.interpolation import Interpolation, interpolate
from latentlab.analysis.inversion import Inversion, invert
from latentlab.analysis.projection import Projection, Support, project, umap_is_warm, warm_up
from latentlab.analysis.readout import LinearReadout, linear_readout
from latentlab.analysis.results import Provenance, Result, load_result
from latentlab.analysis.suggestion import Suggestion, suggest
from latentlab.analysis.traversal import (
    SwapGrid,
    Traversal,
    TraversalGrid,
    dim_range,
    dim_ranges,
    swap_grid,
    traverse,
    traverse_grid,
)
from latentlab.analysis.units import EditComparison, UnitRanking, compare_edits, rank_units

__all__ = [
    "Activations",
    "EditComparison",
    "Encoding",
    "FeatureMaps",
    "Interpolation",
    "Inversion",
    "LinearReadout",
    "Projection",
    "Provenance",
    "Result",
    "Suggestion",
    "Support",
    "SwapGrid",
    "Traversal",
    "TraversalGrid",
    "UnitRanking",
    "activations",
    "compare_edits",
    "decode_latents",
    "dim_range",
    "dim_ranges",
    "encode_dataset",
    "encode_images",
    "feature_maps",
    "interpolate",
    "invert",
    "linear_readout",
    "load_result",
    "project",
    "rank_units",
    "stages_of",
    "suggest",
    "swap_grid",
    "traverse",
    "traverse_grid",
    "umap_is_warm",
    "warm_up",
]
