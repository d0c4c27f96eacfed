"""Change: the picture, or the discriminator's score, without and with the edits."""

from __future__ import annotations

import streamlit as st

from latentlab.app.calls import Call
from latentlab.app.figures import Number, figure
from latentlab.app.inside.look import Look


def comparison(look: Look) -> Call | None:
    """Original against edited, from where the input was given; None where no edit can change the picture."""
    source = look.source
    edits = tuple(edit for edit in look.edits if edit.network != "discriminator")
    if source == "encoder":
        met = tuple(edit for edit in edits if edit.network in ("encoder", "generator"))
    else:
        met = tuple(edit for edit in edits if edit.network != "encoder")
    if not met:
        return None
    inputs = look.image() if source == "encoder" else look.code()
    return Call(look.run, "compare_edits", (inputs, met), {"network": source})


def draw(look: Look) -> None:
    """Original, edited and their difference, large, with the numbers."""
    if not look.edits:
        st.info(
            "No edit yet. Click a feature map above and switch its unit off: the change of the picture shows here."
        )
        return
    call = comparison(look)
    if call is not None:
        figure(
            call,
            "Original, edited and difference",
            {
                "Mean change": Number(("change", 0), "{:.4f}"),
                "Largest change": Number(("largest", 0), "{:.3f}"),
                "Share of pixels changed": Number(("changed", 0), "{:.3f}"),
            },
            meaning="Changes of pixel values, 0 to 1; a pixel counts as changed above 1/255.",
            key="change",
            background=False,
        )
    judged = look.edits_of("discriminator")
    if judged:
        figure(
            Call(look.run, "compare_edits", (look.image(), judged), {"network": "discriminator"}),
            "Change of the discriminator's score",
            {
                "Score": Number(("original", (0, 0)), "{:.3f}"),
                "Score under the edits": Number(("edited", (0, 0)), "{:.3f}"),
            },
            meaning="The discriminator's score of the picture, before any sigmoid: higher looks more real to it.",
            key="judged",
            background=False,
        )
