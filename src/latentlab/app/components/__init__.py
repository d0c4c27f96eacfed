"""The explorer's live components: sliders that redraw while dragged, hidden layers, maps.

Each is a Streamlit v2 component: a Python function with typed arguments over a JavaScript file, all on one core
(``core.js``) that fetches pictures from an *engine*: "server" (our WebSocket) or "rerun" (plain Streamlit state).
"""

from latentlab.app.components.layers import LayersFrame, LayersState, Stage, layers, layers_state
from latentlab.app.components.map import Colour, MapState, Route, latent_map
from latentlab.app.components.traverse import Axis, TraverseState, traverse, traverse_state

__all__ = [
    "Axis",
    "Colour",
    "LayersFrame",
    "LayersState",
    "MapState",
    "Route",
    "Stage",
    "TraverseState",
    "latent_map",
    "layers",
    "layers_state",
    "traverse",
    "traverse_state",
]
