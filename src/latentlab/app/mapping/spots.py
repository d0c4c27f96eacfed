"""The panel beside the map for one place: a data image, or what the model decodes where no image is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from latentlab.app import controls, links, state
from latentlab.app.mapping.layout import PROBED
from latentlab.app.start import factor_words, image_of

if TYPE_CHECKING:
    from latentlab.app.mapping.view import MapView


def pull_link(view: MapView, code: np.ndarray) -> None:
    """The way to pull a code; it belongs to the finished weights alone."""
    if view.at is view.run:
        numbers = ",".join(f"{float(v):.4g}" for v in code)
        st.page_link(
            "views/traverse.py",
            label="**Pull it in Traverse** →",
            query_params=links.link(start="Numbers", z=numbers),
        )


def show_point(view: MapView, row: int) -> None:
    """A data image with its reconstruction, and the way to pull its latent."""
    from latentlab import analysis

    run, store = view.at, view.store
    index = int(store.order[row])
    image = image_of(view.data, index)
    decoded = analysis.decode_latents(run.model, state.nearest(run, store.mean[row][None]))[0]
    scale = controls.scale_for(run, 2)
    left, right = st.columns(2, gap="small")
    with left:
        controls.show(state.picture(image, scale), f"Image {index} of the data", "image")
    with right:
        controls.show(state.picture(decoded, scale), f"Reconstruction of image {index}", "reconstruction")
    words = factor_words(view.data, index)
    told = f"Image {index:,} of {run.config.data.name}" + (f": {words}" if words else "")
    st.caption(controls.plainly(told))
    controls.figures(
        {
            "KL": f"{float(store.kl[row]):.1f} nats",
            "Squared error a pixel": f"{float(np.square(image - decoded).mean()):.4f}",
        }
    )
    st.page_link(
        "views/traverse.py",
        label="**Pull it in Traverse** →",
        query_params=links.link(start="Image", image=index),
    )


def show_position(view: MapView, position: tuple[float, float]) -> None:
    """The image that the model decodes at an empty place, and how far from the data that is."""
    from latentlab import analysis

    run, probe = view.at, view.probe
    place = np.asarray(position, dtype=float)[None]
    code = state.nearest(run, probe.lift(place))[0]
    support = probe.support(place)
    image = analysis.decode_latents(run.model, code[None])[0]
    picture = state.picture(image, controls.scale_for(run, 2))
    controls.show(picture, "Image decoded at the clicked position", "decoded here")
    controls.certificate(
        {
            "Distance to data": f"{float(support.relative[0]):.1f} ×",
            "Density": f"{float(support.density[0]):.2f} ×",
        },
        "Distance to the nearest data image in typical neighbour distances; density of data there against the map's "
        "median. "
        + (
            "The data support this image."
            if support.inside[0]
            else "Far from all data: the model makes this up."
        )
        + (f" Measured on {PROBED:,} of the points." if view.n > PROBED else ""),
    )
    pull_link(view, code)
