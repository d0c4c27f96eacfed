"""Pictures of results by one call, ``show``; importing this lets results draw themselves in notebooks."""

# Each of these registers its drawings.
from latentlab.viz import (
    charts,
    directions,
    dissection,
    emergence,
    geometry,
    images,
    pictures,
    scores,
    sobol,
    tcav,
)
from latentlab.viz.drawing import Picture, show
from latentlab.viz.images import to_pil

__all__ = [
    "Picture",
    "charts",
    "directions",
    "dissection",
    "emergence",
    "geometry",
    "images",
    "pictures",
    "scores",
    "show",
    "sobol",
    "tcav",
    "to_pil",
]
