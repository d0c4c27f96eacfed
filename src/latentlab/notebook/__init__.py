"""A run's sliders in a notebook: the explorer's own view as a widget, its value in Python."""

from latentlab.notebook.opening import widget

__all__ = ["widget"]
