"""The explorer's live components: sliders that redraw while dragged, hidden layers, maps.

Each is a Streamlit v2 component: a Python function with typed arguments over a JavaScript file, all on one core
(``core.js``) that fetches pictures from an *engine*: "browser" (the decoder in a Worker), "server" (our WebSocket) or
"rerun" (plain Streamlit state), the best that can be had.
"""

from latentlab.app.components.layers import LayersFrame, LayersState, Stage, layers, layers_state
from latentlab.app.components.map import Colour, MapState, Route, latent_map
from latentlab.app.components.picture import Cell, picture
from latentlab.app.components.seed_plane import Place, plane_place, seed_plane
from latentlab.app.components.share import share
from latentlab.app.components.traverse import Axis, TraverseState, traverse, traverse_state

__all__ = [
    "Axis",
    "Cell",
    "Colour",
    "LayersFrame",
    "LayersState",
    "MapState",
    "Place",
    "Route",
    "Stage",
    "TraverseState",
    "latent_map",
    "layers",
    "layers_state",
    "picture",
    "plane_place",
    "seed_plane",
    "share",
    "traverse",
    "traverse_state",
]
