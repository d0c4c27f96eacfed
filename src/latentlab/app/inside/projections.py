"""Projections: deconvnet, image by image: what the units of a stage answered to, back in the pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

from latentlab.app import controls
from latentlab.app.calls import Call
from latentlab.app.figures import Number, figure
from latentlab.app.inside.look import Look

RULES = {"Deconvnet": "deconvnet", "Guided": "guided", "Gradient": "gradient"}
RULE_HELP = (
    "How a signal passes a rectifier on its way back. **Deconvnet**: where the signal is positive. **Gradient**: where "
    "the input was. **Guided**: where both are."
)
SEARCHED = 256


def draw(look: Look) -> None:
    """The strongest units of the open stage for the present image, or for the images that excite them most."""
    if look.reads_codes:
        st.info(
            "Deconvnet leads from a unit back to the pixels of the image that it answered to. A generator has no such "
            "way: it draws. Choose a stage of the encoder or discriminator, or look at what a unit draws on its card."
        )
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        rule = RULES[controls.choice("Rule", list(RULES), "rule", RULE_HELP)]
        where = controls.choice(
            "Of",
            ["This image", "The images of the data that excite each unit most"],
            "projected",
            "Which images are looked at.",
        )
    one = where == "This image"
    call = Call(
        look.run,
        "deconvnet",
        (look.network, look.stage, look.one() if one else look.several(SEARCHED)),
        {
            "rule": rule,
            "keep": "all" if one else "max",
            "count": 1 if one else 5,
            "n_units": 8 if one else 6,
            "seed": look.seed,
        },
        progress=True,
    )
    result = figure(
        call,
        f"Projections of the strongest units of {look.stage}",
        {
            "Like another unit's map": Number(("certificate", "other_unit"), "{:.2f}", sometimes=True),
            "Outside the receptive field": Number(("certificate", "outside_field"), "{:.1g}", sometimes=True),
            "Against autograd": Number(("certificate", "gradient_difference"), "{:.1g}", sometimes=True),
            "Changed by the rule": Number(("certificate", "rule_share"), "{:.2f}", sometimes=True),
        },
        key="deconvnet",
        compose=side_by_side if one else None,
    )
    if result is not None:
        st.caption(result.caveat)


def side_by_side(result: Any) -> Image.Image:
    """The units of one image beside one another: the image, and below it what comes back from each unit's map."""
    from latentlab.viz import images

    scale = images.fitting_scale(result.images.shape, 1, cell=112)
    picture = images.to_pil(result.images[0, 0], scale)
    cells = [picture]
    labels = ["image"]
    for i, unit in enumerate(result.units):
        signed = result.projections[i, 0]
        limit = max(float(np.abs(signed).max()), 1e-12)
        cells.append(images.difference(signed, limit, scale=scale))
        labels.append(f"unit {unit}\nup to {limit:.2g}")
    return images.sheet([cells], column_labels=labels)
