"""A path drawn on the map: what the model decodes on it, played, with the stretches where no data lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from latentlab.app import components, controls, state
from latentlab.app.mapping.pictures import pack

if TYPE_CHECKING:
    from latentlab.app.mapping.view import MapView

FRAMES = 48
STRIP = 8
SIDE = 128


def resample(corners: Sequence[Sequence[float]], count: int = FRAMES) -> np.ndarray:
    """``count`` places (count, 2) at equal distances along a drawn line.

    Raises:
        ValueError: on fewer than two different corners.
    """
    line = np.asarray(corners, dtype=float)
    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    if len(line) < 2 or along[-1] == 0.0:
        raise ValueError("A path leads from one place to another; draw a longer one.")
    at = np.linspace(0.0, along[-1], count)
    return np.stack([np.interp(at, along, line[:, axis]) for axis in (0, 1)], axis=1)


def walk(
    view: MapView, corners: Sequence[Sequence[float]]
) -> tuple[components.Route, np.ndarray, np.ndarray]:
    """The path as the map plays it, with the images (k, channels, height, width) and codes (k, dim) on it."""
    places = resample(corners)

    def decode() -> tuple[components.Route, np.ndarray, np.ndarray]:
        from latentlab import analysis

        probe = view.probe
        codes = state.nearest(view.at, probe.lift(places))
        images = analysis.decode_latents(view.at.model, codes)
        route = components.Route(places, probe.support(places).inside, pack(images, SIDE))
        return route, images, codes

    return state.computed(view.at, "map-path", (view.identity, view.n, places.tobytes()), decode)


def show_path(view: MapView, corners: Sequence[Sequence[float]]) -> None:
    """The path's pictures in a row, how much of it data support, and the moving picture to keep."""
    route, images, codes = walk(view, corners)
    some = np.linspace(0, len(images) - 1, STRIP).round().astype(int)
    from latentlab.app.mapping.selection import contact_sheet

    controls.show(
        contact_sheet(images[some]), "Images decoded along the path", "along the path, from its start"
    )
    steps = np.linalg.norm(np.diff(codes, axis=0), axis=1)
    controls.certificate(
        {
            "Among the data": f"{100 * float(np.mean(route.inside)):.0f} %",
            "Longest step": f"{float(steps.max() / max(np.median(steps), 1e-9)):.1f} ×",
        },
        "Share of the path with data around it; the rest, dashed on the map, the model makes up. The longest step "
        "between two pictures in the latent space, in typical steps: a high number is a jump that the map bends away.",
    )

    def gif() -> bytes:
        from latentlab import viz

        scale = max(1, 192 // images.shape[-1])
        return viz.images.gif_bytes([viz.to_pil(image, scale) for image in images], fps=11)

    st.download_button("GIF", gif, "path.gif", "image/gif", on_click="ignore", key="path-gif")
