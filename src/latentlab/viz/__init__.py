"""Pictures of results by one call, ``show``; importing this lets results draw themselves in notebooks."""

from latentlab.viz import charts, images, pictures, scores  # each of them registers its drawings
from latentlab.viz.drawing import Picture, show
from latentlab.viz.images import to_pil

__all__ = ["Picture", "charts", "images", "pictures", "scores", "show", "to_pil"]
