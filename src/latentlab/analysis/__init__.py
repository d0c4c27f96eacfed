"""Analyses of a model: pure functions, model first, numpy out, with provenance and certificate."""

from latentlab.analysis.activation_maximisation import MaximisedActivation, maximise_activation
from latentlab.analysis.activations import Activations, FeatureMaps, activations, feature_maps, stages_of
from latentlab.analysis.alignment import procrustes
from latentlab.analysis.arithmetic import LatentArithmetic, latent_arithmetic
from latentlab.analysis.attribute_vector import AttributeVector, attribute_vector, half_labels, value_labels
from latentlab.analysis.attribution import Attribution, integrated_gradients
from latentlab.analysis.boundary import boundary
from latentlab.analysis.bundles import EdgeBundles, edge_bundles
from latentlab.analysis.causal_effect import CausalEffect, causal_effect
from latentlab.analysis.concepts import (
    ConceptMap,
    ConceptMasks,
    concept_map,
    dataset_concepts,
    image_concepts,
    light_map,
)
from latentlab.analysis.conductance import Conductance, conductance
from latentlab.analysis.datapath import Datapath, datapath
from latentlab.analysis.deconvnet import Deconvolution, deconvnet
from latentlab.analysis.direction import Direction, load_directions, save_directions
from latentlab.analysis.direction_effects import DirectionEffects, direction_effects
from latentlab.analysis.directions import Directions, traverse_direction
from latentlab.analysis.dissection import Dissection, dissect
from latentlab.analysis.drawings import UnitDrawings, unit_draws, unit_isolates
from latentlab.analysis.emergence import Emergence, emergence
from latentlab.analysis.encoding import Encoding, encode_dataset
from latentlab.analysis.facets import UnitFacets, unit_facets
from latentlab.analysis.ganspace import ganspace
from latentlab.analysis.geodesic import Geodesic, geodesic
from latentlab.analysis.geometry import PullbackMetric, pullback_metric
from latentlab.analysis.graph import NetworkGraph, network_graph
from latentlab.analysis.groups import Analogy, analogy, group_direction
from latentlab.analysis.inference import decode_latents, encode_images
from latentlab.analysis.influence import InfluenceByStage, LatentUnits, influence_by_stage, latent_unit_pixel
from latentlab.analysis.interpolation import Interpolation, interpolate
from latentlab.analysis.inversion import Inversion, invert
from latentlab.analysis.jacobian import Jacobian, jacobian
from latentlab.analysis.magnification import MagnificationMap, magnification_map
from latentlab.analysis.matching import LatentMatching, match_latents
from latentlab.analysis.nearest_masks import NearestMasks, nearest_masks
from latentlab.analysis.occlusion import Occlusion, occlusion
from latentlab.analysis.patches import TopInputs, top_inputs
from latentlab.analysis.pixel_reading import PixelReading, pixel_reads
from latentlab.analysis.projection import Projection, Support, project, umap_is_warm, warm_up
from latentlab.analysis.readout import LinearReadout, linear_readout
from latentlab.analysis.results import Provenance, Result, load_result
from latentlab.analysis.sefa import sefa
from latentlab.analysis.sobol import Sobol, sobol
from latentlab.analysis.suggestion import Suggestion, suggest
from latentlab.analysis.surrogates import Surrogate, surrogate
from latentlab.analysis.tcav import Tcav, tcav
from latentlab.analysis.training_emergence import TrainingEmergence, emergence_over_training
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
from latentlab.analysis.uncertainty import PredictiveMaps, UnitSpread, predictive_maps, unit_spread
from latentlab.analysis.unit_effects import UnitEffects, effects_of_units
from latentlab.analysis.units import EditComparison, UnitRanking, compare_edits, rank_units

__all__ = [
    "Activations",
    "Analogy",
    "AttributeVector",
    "Attribution",
    "CausalEffect",
    "ConceptMap",
    "ConceptMasks",
    "Conductance",
    "Datapath",
    "Deconvolution",
    "Direction",
    "DirectionEffects",
    "Directions",
    "Dissection",
    "EdgeBundles",
    "EditComparison",
    "Emergence",
    "Encoding",
    "FeatureMaps",
    "Geodesic",
    "InfluenceByStage",
    "Interpolation",
    "Inversion",
    "Jacobian",
    "LatentArithmetic",
    "LatentMatching",
    "LatentUnits",
    "LinearReadout",
    "MagnificationMap",
    "MaximisedActivation",
    "NearestMasks",
    "NetworkGraph",
    "Occlusion",
    "PixelReading",
    "PredictiveMaps",
    "Projection",
    "Provenance",
    "PullbackMetric",
    "Result",
    "Sobol",
    "Suggestion",
    "Support",
    "Surrogate",
    "SwapGrid",
    "Tcav",
    "TopInputs",
    "TrainingEmergence",
    "Traversal",
    "TraversalGrid",
    "UnitDrawings",
    "UnitEffects",
    "UnitFacets",
    "UnitRanking",
    "UnitSpread",
    "activations",
    "analogy",
    "attribute_vector",
    "boundary",
    "causal_effect",
    "compare_edits",
    "concept_map",
    "conductance",
    "datapath",
    "dataset_concepts",
    "decode_latents",
    "deconvnet",
    "dim_range",
    "dim_ranges",
    "direction_effects",
    "dissect",
    "edge_bundles",
    "effects_of_units",
    "emergence",
    "emergence_over_training",
    "encode_dataset",
    "encode_images",
    "feature_maps",
    "ganspace",
    "geodesic",
    "group_direction",
    "half_labels",
    "image_concepts",
    "influence_by_stage",
    "integrated_gradients",
    "interpolate",
    "invert",
    "jacobian",
    "latent_arithmetic",
    "latent_unit_pixel",
    "light_map",
    "linear_readout",
    "load_directions",
    "load_result",
    "magnification_map",
    "match_latents",
    "maximise_activation",
    "nearest_masks",
    "network_graph",
    "occlusion",
    "pixel_reads",
    "predictive_maps",
    "procrustes",
    "project",
    "pullback_metric",
    "rank_units",
    "save_directions",
    "sefa",
    "sobol",
    "stages_of",
    "suggest",
    "surrogate",
    "swap_grid",
    "tcav",
    "top_inputs",
    "traverse",
    "traverse_direction",
    "traverse_grid",
    "umap_is_warm",
    "unit_draws",
    "unit_facets",
    "unit_isolates",
    "unit_spread",
    "value_labels",
    "warm_up",
]
