"""Paper: what runs the page again when the browser turns dark or light, which Streamlit alone does not do."""

from __future__ import annotations

from importlib.resources import files

from streamlit.components.v2 import component

from latentlab.app.components.mount import nothing

_component = component(
    "latentlab.paper",
    html='<span class="ll-turn" hidden></span>',
    js=files("latentlab.app.components").joinpath("paper.js").read_text("utf-8"),
)


def watch(key: str) -> None:
    """Lets the script run again whenever the page turns dark or light; draws nothing.

    Args:
        key: Streamlit's key, unique on the page.
    """
    _component(key=key, on_turned_change=nothing)
