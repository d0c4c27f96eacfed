"""One lasso over the maps of several models: where do the images that lie together for one lie for the others?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from latentlab import analysis
from latentlab.app import components, controls, state
from latentlab.app.components.map import corners
from latentlab.app.jobs import Job
from latentlab.app.mapping import pictures
from latentlab.app.mapping.lasso import Lasso

if TYPE_CHECKING:
    from latentlab.data.factors import FactorDataset
    from latentlab.runs import Run

QUESTION, KEPT = "compare-map", "compare-lasso"
SHOWN = 2000
GALLERY = 24
DRAWS = 20
MOST = 300  # images of a group whose distances are measured


@dataclass(frozen=True, eq=False)
class SharedMap:
    """The same images as one model lays them out.

    Attributes:
        points: (n, 2), the two widest directions of the codes.
        codes: (n, dim), posterior means.
        indices: (n,), numbers of the images.
        explained: share of the codes' variance that the map shows.
    """

    points: np.ndarray
    codes: np.ndarray
    indices: np.ndarray
    explained: float


def map_job(first: Run, run: Run) -> Job:
    """The job that encodes images of the first run's data with a model and lays them out."""

    def work(report) -> SharedMap:
        encoding = analysis.encode_dataset(
            run.model,
            state.dataset(first),
            SHOWN,
            seed=0,
            batch_size=64,
            progress=lambda done, total: report(done / total, f"encoding {done:,} of {total:,}"),
        )
        laid = analysis.project(encoding, "pca")
        shown = laid.certificate.get("explained_variance")
        return SharedMap(
            np.asarray(laid.points[:, :2]),
            encoding.mean,
            encoding.indices,
            float("nan") if shown is None else float(np.sum(shown)),
        )

    return state.job(run, QUESTION, state.data_key(first), work, heavy=True)


def draw(first: Run, runs: Mapping[str, Run]) -> None:
    """Maps side by side; what is lassoed on one lights up on all."""
    wide = {name: run for name, run in runs.items() if state.encodes(run) and run.model.latent_space.dim > 1}
    data, why = state.dataset_or_reason(first)
    if data is None or len(wide) < 2:
        st.caption(f"Maps need encoders with two latents or more, and the data. {controls.plainly(why)}")
        return
    maps: dict[str, SharedMap] = {}
    with controls.awaiting("shared-maps"):
        for name, run in wide.items():
            found = controls.await_job(run, QUESTION, state.data_key(first), map_job(first, run))
            if found is None:
                return
            maps[name] = found
    st.caption(
        f"The same {len(next(iter(maps.values())).points):,} images on each model's map (PCA of its codes). Choose "
        "**Lasso** and draw around points on any of them: these images light up on all."
    )
    identity = "-".join(run.digest[:8] for run in wide.values())
    selected = selection(maps, identity)
    columns = st.columns(min(len(maps), 2))
    for k, (name, shown) in enumerate(maps.items()):
        with columns[k % len(columns)]:
            st.markdown(f"**{controls.plainly(name)}**")
            components.latent_map(
                shown.points,
                key=f"compare-map-{k}",
                colour=colour(data, shown.indices, selected),
                revision=identity,
                height=380,
                hover=shown.indices,
                pictures=pictures.offer(
                    f"compare-{k}",
                    f"{identity}-{state.data_key(first)}",
                    len(shown.points),
                    lambda rows, at=shown.indices: data.images(at[rows]).cpu().numpy(),
                ),
                on_lasso=lambda k=k: remember(identity, k),
            )
            values = {"Variance shown": f"{100 * shown.explained:.0f} %"}
            if selected is not None and len(selected) > 1:
                own, low, high = closeness(shown.codes, selected)
                values |= {"Selected lie apart": f"{own:.2f}", "random groups": f"{low:.2f} to {high:.2f}"}
            controls.figures(values)
    if selected is None:
        return
    if not len(selected):
        st.info("No image lies inside the lasso.")
        return
    st.caption(
        f"{len(selected):,} images selected. Selected lie apart: their mean distance in the model's latent space, over "
        "that of any two images. Well below what random groups of as many images have, the model keeps them together."
    )
    indices = next(iter(maps.values())).indices[selected]
    gallery(data, indices)


def remember(identity: str, number: int) -> None:
    """Keeps what was drawn, and on which map; an empty drawing forgets it."""
    drawn = corners(f"compare-map-{number}", "polygon")
    st.session_state[KEPT] = (identity, number, drawn) if drawn is not None and len(drawn) > 2 else None


def selection(maps: Mapping[str, SharedMap], identity: str) -> np.ndarray | None:
    """Rows of the images inside the last lasso; None where there is none on these maps."""
    kept = st.session_state.get(KEPT)
    if kept is None or kept[0] != identity or kept[1] >= len(maps):
        return None
    return Lasso(list(maps.values())[kept[1]].points).inside(kept[2])


def colour(data: FactorDataset, indices: np.ndarray, selected: np.ndarray | None) -> components.Colour | None:
    """The selection, where there is one, else the data's first factor that has several values."""
    if selected is not None:
        chosen = np.zeros(len(indices), dtype=int)
        chosen[selected] = 1
        return components.Colour(chosen, "lasso", ("others", "selected"))
    space = data.factor_space
    if space is None:
        return None
    at = next((k for k, size in enumerate(space.sizes) if size > 1), None)
    if at is None:
        return None
    name = space.names[at]
    values = data.factors(indices).cpu().numpy()[:, at]
    names = data.categories.get(name)
    return components.Colour(values if names else values.astype(float), name, names)


def closeness(codes: np.ndarray, rows: Sequence[int] | np.ndarray) -> tuple[float, float, float]:
    """How far apart images lie in a latent space, over any two images.

    Args:
        codes: (n, dim).
        rows: of the group, at least two.

    Returns:
        The group's mean distance over that of all images, and the least and greatest of random groups of its size.
    """
    from scipy.spatial.distance import pdist

    rng = np.random.default_rng(0)

    def apart(chosen: np.ndarray) -> float:
        return float(pdist(codes[chosen]).mean())

    rows = np.asarray(rows)
    if len(rows) > MOST:
        rows = rng.choice(rows, MOST, replace=False)
    usual = apart(rng.choice(len(codes), min(MOST, len(codes)), replace=False)) or 1.0
    null = [apart(rng.choice(len(codes), len(rows), replace=False)) / usual for _ in range(DRAWS)]
    return apart(rows) / usual, min(null), max(null)


def gallery(data: FactorDataset, indices: np.ndarray) -> None:
    """Some of the selected images."""
    from latentlab import viz
    from latentlab.app import theme

    some = (
        indices
        if len(indices) <= GALLERY
        else np.random.default_rng(0).choice(indices, GALLERY, replace=False)
    )
    images = data.images(np.sort(some)).cpu().numpy()
    rows = [images[k : k + 12] for k in range(0, len(images), 12)]
    scale = max(1, 64 // images.shape[-1])
    cells = [[viz.to_pil(image, scale) for image in row] for row in rows]
    with theme.paper():
        sheet = viz.images.sheet(cells, gap=2)
    st.image(theme.data_uri(sheet), alt="Images inside the lasso")
