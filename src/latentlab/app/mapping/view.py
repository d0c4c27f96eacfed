"""What the parts of the Map page hand each other: a run, its codes, their layout, and what was picked on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from latentlab.app.mapping.codes import CodeStore
from latentlab.app.mapping.lasso import Lasso
from latentlab.app.mapping.layout import GrowingLayout

if TYPE_CHECKING:
    from latentlab.analysis.projection import Projection
    from latentlab.data.factors import FactorDataset
    from latentlab.runs import Run


@dataclass(frozen=True, eq=False)
class MapView:
    """A map as it is shown now.

    Attributes:
        run: the finished run that was chosen.
        at: the run with the weights of the chosen step; ``run`` itself where none was.
        data: its images.
        store: their codes under ``at``.
        layout: their positions.
        n: points shown now.
        wanted: points asked for.
        method: "pca", "umap" or "tsne".
    """

    run: Run
    at: Run
    data: FactorDataset
    store: CodeStore
    layout: GrowingLayout
    n: int
    wanted: int
    method: str

    @property
    def identity(self) -> str:
        """Names what was picked on this map; the same at all checkpoints, whose maps are aligned."""
        return f"{self.run.digest[:12]}-{self.method}-{self.wanted}"

    @property
    def points(self) -> np.ndarray:
        """Positions (n, 2)."""
        return self.layout.points[: self.n]

    @property
    def probe(self) -> Projection:
        """The map to ask for codes, distances and densities of positions."""
        return self.layout.probe(self.n)

    @property
    def lasso(self) -> Lasso:
        """The points, ready for lassos."""
        return self.layout.lasso(self.n)

    def place(self) -> dict[str, Any] | None:
        """What was picked last: a point, a position, a polygon, a path or a group."""
        return st.session_state.get("places", {}).get(self.identity)


def remember(identity: str, **place: Any) -> None:
    """Keeps what was picked with the map it was picked on; nothing forgets it."""
    places = st.session_state.setdefault("places", {})
    if place:
        places[identity] = place
    else:
        places.pop(identity, None)
