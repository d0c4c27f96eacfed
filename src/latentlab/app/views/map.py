"""Map: all encoded images as points in the plane; click, lasso, draw a path, and see what the model makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from latentlab.app import components, controls, state
from latentlab.app.components.map import corners
from latentlab.app.components.mount import saved
from latentlab.app.mapping import colours, pictures
from latentlab.app.mapping.codes import FIRST, MOST, CodeStore, store_of
from latentlab.app.mapping.growth import first_codes, growing
from latentlab.app.mapping.layout import FITTED, QUESTION, checkpoint, fitted_rows, layout_job, layout_key
from latentlab.app.mapping.path import show_path, walk
from latentlab.app.mapping.selection import show_groups, show_selection
from latentlab.app.mapping.spots import show_point, show_position
from latentlab.app.mapping.view import MapView, remember

if TYPE_CHECKING:
    from latentlab.data.factors import FactorDataset
    from latentlab.runs import Run

METHODS = {"PCA": "pca", "UMAP": "umap", "t-SNE": "tsne"}
METHOD_HELP = (
    "**PCA** turns the latent space until its two widest directions show: distances are true, at once. "
    "**UMAP** and **t-SNE** keep neighbours together and bend the rest; they are fitted on 10,000 images, and all "
    "others placed among their nearest neighbours of these."
)
SIZES = (2_000, 10_000, 50_000, 100_000)
USUAL = 10_000
LAST = "last"


def page() -> None:
    """Draws the page."""
    run = controls.current_run()
    controls.heading(
        "Map",
        "Each point is an image of the data. Click a point to see it, or the space between to decode it; lasso points "
        "to see what they share; draw a path to play it.",
    )
    with controls.one_sentence():
        if not state.encodes(run):
            st.info(
                "This model has no encoder, so its data can't be laid out on a map. The latent of one image can be "
                "looked for by inversion: on Traverse, start from Image."
            )
            return
        if run.model.latent_space.dim < 2:
            st.info("A map needs two latents; this model has one.")
            return
        data = state.dataset(run)
        method, n, step = pickers(run, data)
        at = checkpoint(run, step)
        store = store_of(at)
        if first_codes(at, store, min(n, FIRST)):
            layout(run, at, data, store, method, n)


def pickers(run: Run, data: FactorDataset) -> tuple[str, int, int | None]:
    """How the points are laid out, how many there are, and at which step of the training."""
    most = min(len(data), MOST)
    sizes = [n for n in SIZES if n < most] + [most]
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
            index=sizes.index(USUAL) if USUAL in sizes else len(sizes) - 1,
            key="points",
            bind="query-params",
            width=130,
            help="How many images of the data are encoded and shown: at once the first ones, a fair sample, then more.",
        )
        if controls.menu("Colour", colours.options(run, data), 0, "colour", COLOUR_HELP) == colours.CLUSTER:
            colours.cluster_pickers()
        step = step_picker(run)
    return METHODS[method], n, step


COLOUR_HELP = "What the colour of a point says."


def step_picker(run: Run) -> int | None:
    """The step of the training whose weights are shown; None for the last."""
    steps = run.steps
    if not steps:
        return None
    names = [f"{step:,}" for step in steps] + [LAST]
    if st.session_state.get("step") not in (None, *names):
        del st.session_state["step"]
    chosen = st.select_slider(
        "Training step",
        names,
        value=LAST,
        key="step",
        bind="query-params",
        width=260,
        help="The same images under the weights of an earlier step. Maps are turned until they lie on the last one's, "
        "so that points move only as far as the model moved them.",
    )
    return None if chosen == LAST else steps[names.index(chosen)]


def layout(run: Run, at: Run, data: FactorDataset, store: CodeStore, method: str, n: int) -> None:
    """Waits for the layout in the background; the map by PCA is there meanwhile, and both grow."""
    final = None if at is run else run
    rows = fitted_rows(store, n)
    due = min(n, FITTED)
    found = None
    shown = method
    with controls.awaiting("map-layout"):
        if method == "pca" or store.count >= due:
            wanted = rows if method == "pca" else due
            task = layout_job(at, store, method, wanted, final)
            found = controls.await_job(at, QUESTION, layout_key(at, method, wanted, final), task)
    if found is None and method != "pca":
        quick = layout_job(at, store, "pca", rows, final)
        if quick.wait(1.0) and quick.result is not None:
            st.caption("Meanwhile the same points by PCA:")
            found, shown = quick.result, "pca"
    if found is None:
        return
    if found.quick:
        found.place(n)
    view = MapView(run, at, data, store, found, min(found.count, store.count, n), n, shown)
    found.prepare(view.n)
    explore(view)
    errors = st.session_state.get("colour") == colours.ERROR
    if view.n < n or (errors and store.measured < view.n):
        growing(view, errors, store.measured)


@st.fragment
def explore(view: MapView) -> None:
    """The map, and what was picked on it beside it."""
    with controls.one_sentence():
        place = view.place() or {}
        identity = view.identity
        left, right = st.columns([11, 5], gap="medium")
        with left:
            with controls.awaiting("map-clusters"):
                colour = colours.colour_of(view, st.session_state.get("colour"))
            components.latent_map(
                view.points,
                key="map",
                colour=colour,
                marker=position_of(view, place),
                marker_label="picked",
                revision=identity,
                height=600,
                hover=view.store.order[: view.n],
                pictures=pictures.offer(
                    "map", f"{view.run.digest}-{state.data_key(view.run)}", view.n, drawer(view)
                ),
                route=walk(view, place["path"])[0] if "path" in place else None,
                on_pick=lambda: remember_pick(identity),
                on_lasso=lambda: remember_drawn(identity, "polygon"),
                on_path=lambda: remember_drawn(identity, "path"),
            )
            proof(view)
        with right:
            panel(view, place)
            show_groups(view)


def drawer(view: MapView):
    """What draws the pictures of points: the images themselves."""
    data, order = view.data, view.store.order
    return lambda rows: data.images(order[rows]).cpu().numpy()


def panel(view: MapView, place: dict) -> None:
    """What is known about what was picked."""
    if "polygon" in place:
        show_selection(view, view.lasso.inside(place["polygon"]), "Selected")
    elif "path" in place:
        show_path(view, place["path"])
    elif "group" in place:
        group = next((g for g in colours.named(view.run) if g.name == place["group"]), None)
        if group is not None:
            show_selection(view, view.store.rows_of(group.images, view.n), f"Group “{group.name}”")
    elif "point" in place and int(place["point"]) < view.n:
        show_point(view, int(place["point"]))
    elif "position" in place:
        show_position(view, place["position"])
    else:
        st.info(
            "Click a point to see its image. Click between the points to decode what the model imagines there. "
            "Choose **Lasso** and draw around points, or **Path** and draw a line to play."
        )


def remember_pick(identity: str) -> None:
    """Keeps what was clicked with the layout it was clicked on."""
    picked = saved("map", "pick") or {}
    known = {name: picked[name] for name in ("point", "position") if picked.get(name) is not None}
    if known:
        remember(identity, **known)


def remember_drawn(identity: str, kind: str) -> None:
    """Keeps what was drawn with the layout it was drawn on; an empty drawing forgets it."""
    drawn = corners("map", kind)
    if drawn is not None and len(drawn) > (2 if kind == "polygon" else 1):
        remember(identity, **{kind: drawn})
    elif kind in (st.session_state.get("places", {}).get(identity) or {}):
        remember(identity)


def position_of(view: MapView, place: dict) -> tuple[float, float] | None:
    """Where a picked place lies on the map, if it is one."""
    if "point" in place and int(place["point"]) < view.n:
        x, y = view.points[int(place["point"])]
    elif "position" in place:
        x, y = place["position"]
    else:
        return None
    return float(x), float(y)


def proof(view: MapView) -> None:
    """How far the map can be trusted."""
    numbers = view.probe.certificate
    values = {
        "Neighbours kept": f"{100 * float(numbers['neighbours_kept']):.0f} %",
        "by chance": f"{100 * float(numbers['neighbours_kept_by_chance']):.1f} %",
        "Distance order": f"{float(numbers['distance_rank_correlation']):.2f}",
    }
    if numbers.get("explained_variance") is not None:
        values["Variance shown"] = f"{100 * float(np.sum(numbers['explained_variance'])):.0f} %"
    words = (
        "Neighbours kept: share of each image's nearest codes that are near on the map too. Distance order: rank "
        "correlation of distances in the latent space and on the map (1 is perfect)."
    )
    fitted = len(view.layout.fitted.fitted)
    if view.n > fitted:
        how = "turned with them" if view.layout.quick else "placed among their nearest neighbours of these"
        words += f" Fitted on the first {fitted:,} images; the others are {how}."
    if "disparity" in numbers:
        values["Off the last step's map"] = f"{100 * float(numbers['disparity']):.1f} %"
        words += (
            f" Off the last step's map: mean squared distance of points from where the trained model has them, in its "
            f"map's variance; {100 * float(numbers['disparity_before']):.0f} % before the map was turned."
        )
    controls.certificate(values, words)


if __name__ == "__main__":
    page()
