"""Recipe: the edits as a list, which is their undo history and a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from latentlab import analysis
from latentlab.app import controls, live_session, state
from latentlab.app.inside.look import Look
from latentlab.models.edits import Edit, edits_from_json, edits_to_json

if TYPE_CHECKING:
    from latentlab.runs import Run


def draw(look: Look) -> None:
    """The edits in order, with undo, clear, download and upload."""
    run, edits = look.run, look.edits
    if edits:
        for number, edit in enumerate(edits):
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                st.markdown(f"{number + 1}. {controls.plainly(edit_words(edit))}", width="stretch")
                st.button(
                    "Remove",
                    key=f"drop-{number}",
                    type="tertiary",
                    on_click=state.set_edits,
                    args=(run, edits[:number] + edits[number + 1 :]),
                )
    else:
        st.caption("No edits: the network runs as it was trained.")
    with st.container(horizontal=True, vertical_alignment="bottom", gap="xsmall"):
        st.button("Undo last", disabled=not edits, on_click=state.set_edits, args=(run, edits[:-1]))
        st.button("Clear all", disabled=not edits, on_click=state.set_edits, args=(run, ()))
        st.download_button(
            "Download as JSON",
            edits_to_json(edits),
            controls.file_name(run.name, "edits") + ".json",
            "application/json",
            disabled=not edits,
            on_click="ignore",
        )
        with st.popover("Load JSON"):
            text = st.text_area(
                "Edits as JSON", key="edits-json", help="As downloaded here or written by a script."
            )
            if st.button("Apply", disabled=not text):
                loaded = edits_from_json(text)
                check_fits(run, loaded)
                state.set_edits(run, loaded)
                st.rerun()


def check_fits(run: Run, edits: tuple[Edit, ...]) -> None:
    """Refuses edits that do not fit the model, before anything is drawn with them.

    Raises:
        ValueError: on a stage or unit that the model does not have, or more edits than can be made.
    """
    live_session.check_amount(edits)
    known = {address for network in run.model.networks.values() for address in network.addresses}
    for edit in edits:
        if edit.stage not in known:
            raise ValueError(f"No stage {edit.stage!r} in this model; it has {', '.join(sorted(known))}.")
    codes = state.nearest(run, run.model.latent_space.mean.numpy()[None])
    analysis.decode_latents(run.model, codes, edits=[e for e in edits if e.network == "generator"])
    if any(e.network == "encoder" for e in edits):
        analysis.encode_images(run.model, np.zeros((1, *run.model.image_shape), np.float32), edits=edits)


def edit_words(edit: Edit) -> str:
    """An edit as a sentence."""
    units = (
        "all units"
        if edit.units is None
        else f"unit{'s' if len(edit.units) > 1 else ''} {', '.join(map(str, edit.units))}"
    )
    what = {
        "ablate": "switched off",
        "scale": f"scaled by {edit.value:g}",
        "set": f"set to {edit.value:g}",
        "shift": f"shifted by {edit.value:g}",
        "replace": "replaced by another sample's",
    }[edit.operation]
    part = "" if edit.amount == 1.0 else f", {100 * edit.amount:.0f} %"
    where = ", in a region" if edit.region is not None else ""
    return f"`{edit.stage}` {units} {what}{part}{where}"
