"""Pictures of results by one call, ``show``; importing this lets results draw themselves in notebooks."""

from latentlab.viz import charts, images, scores
from latentlab.viz.images import to_pil
from latentlab.viz.pictures import Picture, show

__all__ = ["Picture", "charts", "images", "scores", "show", "to_pil"]
