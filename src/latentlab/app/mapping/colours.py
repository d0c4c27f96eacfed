"""What the colour of a point says: a factor, KL, reconstruction error, a cluster, a latent or a group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from latentlab.app import components, controls, state
from latentlab.app.mapping import groups as kept

if TYPE_CHECKING:
    from latentlab.analysis.clusters import Clusters
    from latentlab.app.mapping.view import MapView
    from latentlab.data.factors import FactorDataset
    from latentlab.runs import Run

KL, ERROR, CLUSTER, GROUPS, NOTHING = "KL", "Reconstruction error", "Cluster", "Groups", "Nothing"
LATENT = "Latent "
METHODS = {"k-means": "kmeans", "HDBSCAN": "hdbscan"}
CATEGORIES = 24
MOST_LATENTS = 40


def options(run: Run, data: FactorDataset) -> list[str]:
    """What points may be coloured by."""
    latents = [LATENT + name for name in run.model.latent_space.names[:MOST_LATENTS]]
    groups = [GROUPS] if named(run) else []
    return [*data.labels, KL, ERROR, CLUSTER, *groups, *latents, NOTHING]


def named(run: Run) -> tuple[kept.ImageGroup, ...]:
    """The groups that were saved for a run's data; none where their file can't be read."""
    try:
        return kept.load_groups(kept.groups_file(state.workspace(), state.data_key(run)))
    except state.USER_ERRORS:
        return ()


def cluster_pickers() -> None:
    """How clusters are found, and how many."""
    method = controls.choice("Clusters by", list(METHODS), "cluster", CLUSTER_HELP)
    if method == "k-means":
        st.number_input("How many", 2, CATEGORIES, 8, key="clusters", bind="query-params", width=110)


CLUSTER_HELP = (
    "Found among the first 10,000 codes; all others go to the nearest cluster. **k-means** makes as many as you say, "
    "**HDBSCAN** finds dense regions and leaves the rest grey."
)


def colour_of(view: MapView, chosen: str | None) -> components.Colour | None:
    """The colours of the points shown, or None for plain ones."""
    store, n = view.store, view.n
    if chosen == KL:
        return components.Colour(store.kl[:n], "KL, nats")
    if chosen == ERROR:
        words = "squared error a pixel" + (", being measured" if store.measured < n else "")
        return components.Colour(store.errors[:n], words)
    if chosen == CLUSTER:
        return _clusters(view)
    if chosen == GROUPS:
        return _groups(view)
    if chosen and chosen.startswith(LATENT):
        names = list(view.at.model.latent_space.names)
        latent = chosen.removeprefix(LATENT)
        return components.Colour(store.mean[:n, names.index(latent)], latent) if latent in names else None
    if view.data.factor_space is None or chosen not in view.data.labels:
        return None
    values = store.factors(n)[:, list(view.data.labels).index(chosen)]
    names = view.data.categories.get(chosen)
    if names and len(names) <= CATEGORIES:
        return components.Colour(values, chosen, tuple(names))
    return components.Colour(values, chosen)


def _clusters(view: MapView) -> components.Colour | None:
    method = METHODS.get(st.session_state.get("cluster") or "", "kmeans")
    k = int(st.session_state.get("clusters") or 8)
    rows = len(view.layout.fitted.points)
    key = (method, k if method == "kmeans" else 0, rows, state.data_key(view.at))
    codes = np.array(view.store.mean[:rows])

    def find(report):
        from latentlab.analysis.clusters import find_clusters

        return find_clusters(codes, method, k)

    task = state.job(view.at, "map-clusters", key, find, heavy=True)
    found: Clusters | None = controls.await_job(view.at, "map-clusters", key, task)
    if found is None:
        return None
    values = state.computed(
        view.at, "map-assigned", (*key, view.n), lambda: found.assign(view.store.mean[: view.n])
    )
    st.caption(
        f"{len(found.centres)} clusters by {'k-means' if method == 'kmeans' else 'HDBSCAN'} on {rows:,} codes: "
        f"silhouette {_two(found.certificate['silhouette'])}; in normal noise of the same spread "
        f"{_two(found.certificate['silhouette_by_chance'])} (1 is well apart, 0 is no clusters)."
    )
    return components.Colour(values, "cluster", found.names) if len(found.centres) else None


def _two(number: float | None) -> str:
    return "none" if number is None else f"{number:.2f}"


def _groups(view: MapView) -> components.Colour:
    groups = named(view.run)[:CATEGORIES]
    values = np.full(view.n, -1, np.int16)
    for i, group in enumerate(groups):
        values[view.store.rows_of(group.images, view.n)] = i
    return components.Colour(values, "group", tuple(group.name for group in groups) or ("none",))
