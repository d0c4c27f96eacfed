"""Pictures of results by one call, ``show``; importing this lets results draw themselves in notebooks."""

# Each of these registers its drawings.
from latentlab.viz import (
    activation_maximisation,
    attribution,
    charts,
    datapath,
    deconvnet,
    directions,
    dissection,
    emergence,
    facets,
    geometry,
    graph,
    images,
    influence,
    pictures,
    scores,
    sobol,
    surrogates,
    tcav,
    uncertainty,
    units,
)
from latentlab.viz.drawing import Picture, show
from latentlab.viz.images import to_pil

__all__ = [
    "Picture",
    "activation_maximisation",
    "attribution",
    "charts",
    "datapath",
    "deconvnet",
    "directions",
    "dissection",
    "emergence",
    "facets",
    "geometry",
    "graph",
    "images",
    "influence",
    "pictures",
    "scores",
    "show",
    "sobol",
    "surrogates",
    "tcav",
    "to_pil",
    "uncertainty",
    "units",
]
