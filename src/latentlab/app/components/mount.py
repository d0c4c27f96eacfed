"""Registers a component's JavaScript and CSS with Streamlit, inline, so that an installed wheel needs no manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import streamlit as st
from streamlit.components.v2 import component

from latentlab.app import wire


def register(name: str, parts: Sequence[str] = ()) -> Callable[..., Any]:
    """Registers the component ``name``: its .js on top of core, engines and ``parts``. Returns what mounts it."""
    folder, engines = files("latentlab.app.components"), files("latentlab.export")
    own = [folder.joinpath(f"{part}.js") for part in ("browser", *parts, name, "streamlit")]
    script = "\n".join(
        part.read_text("utf-8") for part in (folder.joinpath("core.js"), engines.joinpath("decoder.js"), *own)
    )
    css = folder.joinpath("core.css").read_text("utf-8")
    return component(
        f"latentlab.{name}",
        html=f'<div class="ll" data-testid="ll-{name}"></div>',
        css=css,
        js=script.replace("LATENTLAB_COMPONENT", name),
    )


def saved(key: str, name: str) -> dict[str, Any] | None:
    """The value ``name`` of a component's state as the browser last sent it, or None."""
    state = st.session_state.get(key)
    value = state.get(name) if isinstance(state, Mapping) else None
    return dict(value) if isinstance(value, Mapping) else None


def base_path() -> str:
    """The path that the server lives under, without slashes at its ends."""
    return str(st.get_option("server.baseUrlPath") or "").strip("/")


def image_data(image: np.ndarray | None) -> dict[str, Any] | None:
    """An image (channels, height, width) in [0, 1] as a part that travels in a component's data."""
    if image is None:
        return None
    part = wire.pack_image(np.asarray(image))
    return {**part, "data": wire.to_text(part["data"])}


def nothing() -> None:
    """Stands in for a callback: Streamlit only keeps state that has one."""
