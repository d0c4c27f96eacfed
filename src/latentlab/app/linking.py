"""Linked sliders: which latents of other models follow the first one's, and from where they begin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from latentlab import analysis
from latentlab.app import engine, linked_categories, state, theme
from latentlab.app.components.compare import CategoryLink, Link, Other
from latentlab.app.jobs import Job
from latentlab.app.start import Start, drawn_code, temperature

if TYPE_CHECKING:
    from latentlab.analysis.matching import LatentMatching
    from latentlab.app.components import Axis
    from latentlab.runs import Run

MATCHED_ON = 1000  # images


def partners(axes: list[Axis], found: Mapping[str, LatentMatching], others: Mapping[str, Run]) -> list[Axis]:
    """The sliders, each with the names of the latents that follow it, and of the categories on hover."""
    named = []
    for axis in axes:
        told, categories = [], []
        for name, match in found.items():
            at = np.flatnonzero(match.coordinates_a == axis.index)
            if not len(at) or not match.sure[at[0]] or not linked(match, int(at[0])):
                told.append("–")
                continue
            partner = match.names_b[match.permutation[at[0]]]
            told.append(("−" if match.signs[at[0]] < 0 else "") + partner)
            if axis.choices:
                theirs = linked_categories.choices(others[name], partner)
                words = linked_categories.moves(axis.choices, theirs, match.categories[axis.name])
                categories.append(f"{partner} of {name}: {words}")
        if any(name != "–" for name in told):
            known = " · ".join(filter(None, (axis.known, f"with {', '.join(told)}")))
            axis = replace(axis, known=known, help="\n".join(categories) or axis.help)
        named.append(axis)
    return named


def linked(match: LatentMatching, latent: int) -> bool:
    """Whether a paired latent can take its partner along: both have an order, or both are categories."""
    return bool(match.signs[latent]) or match.names_a[latent] in match.categories


def follower(
    first: Run, name: str, other: Run, start: Start, match: LatentMatching | None, matching: bool = False
) -> Other:
    """A model beside the first, at the same image or seed, with the latents that follow; ``matching``: not yet."""
    slot = f"compare-{name}"
    z, note = start_of(first, other, start), "being matched …" if matching else "not linked"
    links: tuple[Link, ...] = ()
    categories: tuple[CategoryLink, ...] = ()
    if same_kind(first, other) and not state.encodes(first):
        span = 1e3
        links = tuple(Link(i, i, (-span, span), (-span, span)) for i in range(len(z)))
        note = "same latents"
    elif match is not None:
        links, categories = links_of(match), category_links_of(match)
        count = len(links) + len(categories)
        note = f"{count} latent{'' if count == 1 else 's'} linked"
    return Other(
        name,
        z,
        other.image_shape,
        links,
        categories,
        engine.open_session(slot, other.model, z=z),
        lambda code: analysis.decode_latents(other.model, code[None])[0],
        note,
    )


def same_kind(first: Run, other: Run) -> bool:
    """Whether these are two states of one training, whose latents are the same by number."""
    return first.path == other.path


def links_of(match: LatentMatching) -> tuple[Link, ...]:
    """The sure pairs whose values have an order: each carries a quantile to the same quantile."""
    found = []
    for i in np.flatnonzero(match.sure & (match.signs != 0)):
        j = int(match.permutation[i])
        target = match.quantiles_b[j] if match.signs[i] > 0 else match.quantiles_b[j][::-1]
        found.append(
            Link(
                int(match.coordinates_a[i]),
                int(match.coordinates_b[j]),
                tuple(float(v) for v in match.quantiles_a[i]),
                tuple(float(v) for v in target),
            )
        )
    return tuple(found)


def category_links_of(match: LatentMatching) -> tuple[CategoryLink, ...]:
    """The sure pairs of categories, each with where its categories lead."""
    found = []
    for i in np.flatnonzero(match.sure):
        name = match.names_a[i]
        if name in match.categories:
            found.append(
                CategoryLink(
                    int(match.coordinates_a[i]),
                    int(match.coordinates_b[match.permutation[i]]),
                    match.contingency[name].shape[1],
                    tuple(int(k) for k in match.categories[name]),
                )
            )
    return tuple(found)


def start_of(first: Run, other: Run, start: Start) -> np.ndarray:
    """Where another model begins: its own code of the same image, else its draw by the same seed."""
    if start.image is not None and state.encodes(other):
        return analysis.encode_images(other.model, start.image[None])[0]
    if same_kind(first, other):
        return start.z
    if start.image is None and start.label.startswith("seed"):
        return drawn_code(other, int(st.session_state["seed"]), temperature(other))
    return state.nearest(other, other.model.latent_space.mean.numpy()[None])[0]


def matching_job(first: Run, other: Run) -> Job | None:
    """The job that matches two models on images of the first one's data; None where that can't be done."""
    if not (state.encodes(first) and state.encodes(other)) or state.dataset_or_reason(first)[0] is None:
        return None
    dark = theme.dark()

    def work(report) -> state.Drawn:
        data = state.dataset(first)
        report(0.0, "encoding images with both models …")
        images = data.images(data.sample(MATCHED_ON, 0)).cpu().numpy()
        found = state.Drawn(
            analysis.match_latents(
                first.model,
                other.model,
                images,
                batch_size=64,
                progress=lambda done, total: report(done / total, f"matching latents: {done:,} of {total:,}"),
            )
        )
        found.address_on(dark)  # drawn here, so that no page waits for it
        return found

    return state.job(first, "match", (other.digest, state.data_key(first)), work, heavy=True)
