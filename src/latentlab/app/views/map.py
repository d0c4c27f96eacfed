"""Map: all encoded images as points in the plane; click one to see it, click between them to decode."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from latentlab import analysis
from latentlab.app import components, controls, links, state
from latentlab.app.components.mount import saved
from latentlab.app.start import factor_words, image_of

if TYPE_CHECKING:
    from latentlab.analysis.encoding import Encoding
    from latentlab.analysis.projection import Projection
    from latentlab.data.factors import FactorDataset
    from latentlab.runs import Run

METHODS = {"PCA": "pca", "UMAP": "umap", "t-SNE": "tsne"}
METHOD_HELP = (
    "**PCA** turns the latent space until its two widest directions show: distances are true, at once. "
    "**UMAP** and **t-SNE** keep neighbours together and bend the rest."
)
SIZES = (2_000, 5_000, 10_000, 20_000)
CATEGORIES = 24
ERROR = "Reconstruction error"


def page() -> None:
    """Draws the page."""
    run = controls.current_run()
    controls.heading(
        "Map",
        "Each point is an image of the data. Click a point to see it, or the space between to decode it.",
    )
    with controls.one_sentence():
        if not state.encodes(run):
            st.info("This model has no encoder, so its data can't be laid out on a map.")
            return
        if run.model.latent_space.dim < 2:
            st.info("A map needs two latents; this model has one.")
            return
        data = state.dataset(run)
        method, n = pickers(data)
        layout(run, data, method, n)


def pickers(data: FactorDataset) -> tuple[str, int]:
    """How the points are laid out and how many there are."""
    sizes = [n for n in SIZES if n < len(data)] + ([len(data)] if len(data) <= SIZES[-1] else [])
    if st.session_state.get("points") not in (None, *sizes):
        del st.session_state["points"]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        method = st.segmented_control(
            "Layout",
            list(METHODS),
            default="PCA",
            required=True,
            key="layout",
            bind="query-params",
            help=METHOD_HELP,
        )
        n = st.selectbox(
            "Points",
            sizes,
            index=0,
            key="points",
            bind="query-params",
            width=120,
            help="How many images of the data are encoded and shown.",
        )
        colour_slot(data)
    return METHODS[method], n


def colour_slot(data: FactorDataset) -> None:
    """The menu of what to colour by."""
    options = [*data.labels, "KL", ERROR, "Nothing"]
    controls.menu("Colour", options, 0, "colour", "What the colour of a point says.")


def layout(run: Run, data: FactorDataset, method: str, n: int) -> None:
    """Waits for the layout in the background; the map by PCA is there meanwhile."""
    key = (method, n, 0, state.data_key(run))
    found = controls.await_job(run, "projection", key, state.projection_job(run, method, n))
    if found is None and method != "pca":
        quick = state.projection_job(run, "pca", n)
        if quick.wait(0.0) and quick.result is not None:
            st.caption("Meanwhile the same points by PCA:")
            found = quick.result
    if found is not None:
        explore(run, data, *found)


@st.fragment
def explore(run: Run, data: FactorDataset, encoding: Encoding, projection: Projection) -> None:
    """The map, and the place that was clicked beside it."""
    with controls.one_sentence():
        identity = f"{run.digest[:12]}-{projection.method}-{encoding.n}"
        place = st.session_state.get("places", {}).get(identity)
        left, right = st.columns([11, 5], gap="medium")
        with left:
            components.latent_map(
                projection.points[:, :2],
                key="map",
                colour=colour_of(run, data, encoding, st.session_state.get("colour")),
                marker=None if place is None else position_of(projection, place),
                marker_label="picked",
                revision=identity,
                height=560,
                hover=[f"image {index:,}" for index in encoding.indices.tolist()],
                on_pick=lambda: remember_pick(identity),
            )
            proof(projection)
        with right:
            if place is None:
                st.info(
                    "Click a point to see its image. Click between the points to decode what the model imagines there."
                )
            elif "point" in place:
                show_point(run, data, encoding, projection, int(place["point"]))
            else:
                show_position(run, projection, place["position"])


def remember_pick(identity: str) -> None:
    """Keeps what was clicked with the layout it was clicked on."""
    picked = saved("map", "pick") or {}
    known = {name: picked[name] for name in ("point", "position") if picked.get(name) is not None}
    if known:
        st.session_state.setdefault("places", {})[identity] = known


def position_of(projection: Projection, place: dict) -> tuple[float, float]:
    """Where a picked place lies on the map."""
    x, y = projection.points[int(place["point"]), :2] if "point" in place else place["position"]
    return float(x), float(y)


def colour_of(
    run: Run, data: FactorDataset, encoding: Encoding, chosen: str | None
) -> components.Colour | None:
    """The colour of each point: a factor or label, KL, or reconstruction error."""
    if chosen == "KL":
        return components.Colour(encoding.kl.sum(1), "KL, nats")
    if chosen == ERROR:
        task = state.encoding_job(run, encoding.n, reconstruction=True)
        if task is None:
            return None
        key = (encoding.n, 0, True, state.data_key(run))
        measured = None if task is None else controls.await_job(run, "encoding", key, task)
        if measured is None or not np.array_equal(measured.indices, encoding.indices):
            return None
        return components.Colour(measured.reconstruction_error, "squared error a pixel")
    if encoding.factors is None or chosen not in encoding.factor_names:
        return None
    values = encoding.factors[:, list(encoding.factor_names).index(chosen)]
    names = data.categories.get(chosen)
    if names and len(names) <= CATEGORIES:
        return components.Colour(values, chosen, tuple(names))
    return components.Colour(values.astype(float), chosen)


def show_point(run: Run, data: FactorDataset, encoding: Encoding, projection: Projection, row: int) -> None:
    """A data image with its reconstruction, and the way to pull its latent."""
    index = int(encoding.indices[row])
    image = image_of(data, index)
    decoded = analysis.decode_latents(run.model, state.nearest(run, encoding.mean[row][None]))[0]
    scale = controls.scale_for(run, 2)
    left, right = st.columns(2, gap="small")
    with left:
        controls.show(state.picture(image, scale), f"Image {index} of the data", "image")
    with right:
        controls.show(state.picture(decoded, scale), f"Reconstruction of image {index}", "reconstruction")
    words = factor_words(data, index)
    st.caption(f"Image {index:,} of {run.config.data.name}" + (f": {words}" if words else ""))
    controls.figures(
        {
            "KL": f"{float(encoding.kl[row].sum()):.1f} nats",
            "Squared error a pixel": f"{float(np.square(image - decoded).mean()):.4f}",
        }
    )
    st.page_link(
        "views/traverse.py",
        label="**Pull it in Traverse** →",
        query_params=links.link(start="Image", image=index),
    )


def show_position(run: Run, projection: Projection, position: tuple[float, float]) -> None:
    """The image that the model decodes at an empty place, and how far from the data that is."""
    code = state.nearest(run, projection.lift(np.asarray(position, dtype=float)[None]))[0]
    support = projection.support(np.asarray(position, dtype=float)[None])
    image = analysis.decode_latents(run.model, code[None])[0]
    picture = state.picture(image, controls.scale_for(run, 2))
    controls.show(picture, "Image decoded at the clicked position", "decoded here")
    inside = bool(support.inside[0])
    controls.certificate(
        {
            "Distance to data": f"{float(support.relative[0]):.1f} ×",
            "Density": f"{float(support.density[0]):.2f} ×",
        },
        "Distance to the nearest data image in typical neighbour distances; density of data there against the map's "
        "median. "
        + ("The data support this image." if inside else "Far from all data: the model makes this up."),
    )
    numbers = ",".join(f"{float(v):.4g}" for v in code)
    st.page_link(
        "views/traverse.py",
        label="**Pull it in Traverse** →",
        query_params=links.link(start="Numbers", z=numbers),
    )


def proof(projection: Projection) -> None:
    """How far the map can be trusted."""
    numbers = projection.certificate
    values = {
        "Neighbours kept": f"{100 * float(numbers['neighbours_kept']):.0f} %",
        "by chance": f"{100 * float(numbers['neighbours_kept_by_chance']):.1f} %",
        "Distance order": f"{float(numbers['distance_rank_correlation']):.2f}",
    }
    if numbers.get("explained_variance") is not None:
        values["Variance shown"] = f"{100 * float(np.sum(numbers['explained_variance'])):.0f} %"
    controls.certificate(
        values,
        "Neighbours kept: share of each image's nearest codes that are near on the map too. Distance order: rank "
        "correlation of distances in the latent space and on the map (1 is perfect).",
    )


if __name__ == "__main__":
    page()
