"""Unit: one hidden unit's card: what it draws or answers to, its concept, its effect and what drives it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import streamlit as st

from latentlab.app import calls, controls, figures, state
from latentlab.app.calls import Call
from latentlab.app.figures import Number, figure
from latentlab.app.inside import concepts, projections
from latentlab.app.inside.look import Look
from latentlab.models.edits import Edit

SAMPLES = 10_000
"""Draws of the prior that an input found by ascent is compared with."""

FEW_SAMPLES = 2000
"""The same where each must be drawn large and then read, so that nobody waits longer than ten seconds."""

SMALL = 3 * 32 * 32
"""Values of an image, up to which it counts as small."""

SEARCHED = 512  # inputs looked through for those that excite a unit most


def card(look: Look) -> None:
    """The card of the unit that was clicked; one view is computed at a time."""
    unit = look.unit
    if unit is None:
        return
    with st.container(border=True, key="unit-card"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"**Unit {unit}** of {controls.plainly(look.stage)}", width="content")
            off = _is_off(look)
            st.button(
                "Switch on" if off else "Switch off",
                key="card-off",
                on_click=_switch,
                args=(look, off),
                help="Adds or takes back the ablation of this unit; “Before and after” shows what changes.",
            )
        views = views_of(look)
        chosen = controls.choice("View of the unit", list(views), "unit-view")
        with controls.one_view():
            views[chosen](look, unit)


def views_of(look: Look) -> dict[str, Callable[[Look, int], Any]]:
    """The views that a unit of the open stage has."""
    views: dict[str, Callable[[Look, int], Any]] = {}
    if look.reads_codes:
        views |= {"Draws": draws, "Draws alone": isolates, "Top images": top_inputs}
        views |= {"Concept": concept, "Causal effect": effect, "Latents": latents, "Spread": spread}
    else:
        views |= {"Sees": projection, "Top patches": top_inputs, "Covering": occlusion, "Concept": concept}
        views["Causal effect"] = effect
        if look.network == "encoder":
            views["Codes"] = codes
    views["Excite"] = excite
    return views


def _is_off(look: Look) -> bool:
    return any(_ablates(edit, look) for edit in look.edits)


def _ablates(edit: Edit, look: Look) -> bool:
    mine = edit.stage == look.stage and edit.operation == "ablate" and edit.region is None
    return mine and edit.amount == 1.0 and (edit.units is None or look.unit in edit.units)


def _switch(look: Look, off: bool) -> None:
    edits = state.edits_of(look.run)
    if not off:
        state.set_edits(look.run, (*edits, Edit(stage=look.stage, units=(look.unit,))))  # type: ignore[arg-type]
        return
    kept = []
    for edit in edits:
        if not _ablates(edit, look):
            kept.append(edit)
        elif edit.units is not None and len(edit.units) > 1:
            others = tuple(unit for unit in edit.units if unit != look.unit)
            kept.append(Edit(**{**vars(edit), "units": others}))
    state.set_edits(look.run, kept)


def draws(look: Look, unit: int) -> None:
    """What the unit adds to the present image."""
    _drawing(
        look, unit, "unit_draws", "What the image has with the unit and has not without it: signed, causal."
    )


def isolates(look: Look, unit: int) -> None:
    """What the unit draws with all others of its stage at zero."""
    _drawing(
        look,
        unit,
        "unit_isolates",
        "The picture of this unit alone, all others of its stage at zero, less the picture of none. Such states "
        "are far from those that the network was trained on.",
    )


def _drawing(look: Look, unit: int, name: str, meaning: str) -> None:
    figure(
        Call(
            look.run,
            name,
            (look.stage, (unit,)),
            {"inputs": look.one(), "network": look.network},
        ),
        f"What unit {unit} draws",
        {
            "Mean strength": Number(("strength", (0, 0)), "{:.4f}"),
            "Batch and single runs agree to": Number(("certificate", "loop_difference"), "{:.1g}"),
        },
        meaning=meaning,
        key="unit-drawing",
        background=False,
    )


def top_inputs(look: Look, unit: int) -> None:
    """The inputs that the unit answers most, and the patch of each that it answers to."""
    inputs = look.several(SEARCHED)
    figure(
        Call(
            look.run,
            "top_inputs",
            (look.stage, look.network),
            {"inputs": inputs, "units": (unit,), "n": SEARCHED, "seed": look.seed, "batch_size": 64},
            progress=True,
        ),
        f"The inputs that excite unit {unit} most",
        {
            "Largest activation": Number(("activations", (0, 0))),
            "Mean of the largest": Number(("mean", 0)),
        },
        meaning=f"Of {SEARCHED} {'draws of the prior' if inputs is None else 'images'}, those with its largest "
        "activation, and the part of the picture that it can "
        + ("draw there." if look.reads_codes else "see there."),
        key="unit-top",
    )


def projection(look: Look, unit: int) -> None:
    """The unit's activation for the present image, projected back to the pixels."""
    result = figure(
        Call(
            look.run,
            "deconvnet",
            (look.network, look.stage, look.one(), (unit,)),
            {"count": 1, "keep": "all"},
        ),
        f"What unit {unit} answers to in the present image",
        {
            "Largest activation": Number(("activations", (0, 0))),
            "Like another unit's map": Number(("certificate", "other_unit"), "{:.2f}", sometimes=True),
        },
        meaning="Deconvnet from the whole map of the unit, back to the pixels.",
        key="unit-projection",
        background=False,
        compose=projections.side_by_side,
    )
    if result is not None:
        st.caption(result.caveat)


def occlusion(look: Look, unit: int) -> None:
    """How the unit changes when a patch of the present image is covered."""
    image = look.image()
    one = calls.Made(f"{image.code}[0]", lambda: image.make()[0], image.before)
    figure(
        Call(look.run, "occlusion", (look.network, one, look.stage, unit), {"batch_size": 64}, progress=True),
        f"Where covering the image changes unit {unit}",
        {"Activation of the clean image": Number(("clean", 0))},
        meaning="A grey patch moves over the image; brighter where covering it changes the unit more.",
        key="unit-occlusion",
    )


def concept(look: Look, unit: int) -> None:
    """The concept that the unit's map matches best, against chance."""
    call = concepts.dissection(look)
    found = controls.await_job(look.run, call.name, call.key, call.job())
    if found is None:
        return
    result = found.result
    best = int(result.best[unit])
    name, level = result.concepts[best], result.levels[best]
    numbers = {
        "IoU": Number(("best_iou", unit)),
        "By chance, 95 %": Number(("best_chance", unit)),
        "p": Number(("p_value", unit)),
    }
    words = "matches" if result.best_iou[unit] > result.best_chance[unit] else "matches no better than chance"
    st.markdown(f"Its map {words} **{controls.plainly(name)}** ({controls.plainly(level)}).")
    figures.numbers_with_code(call, result, numbers, "unit-concept")
    order = np.argsort(-result.iou[unit])[:8]
    figures.bars(
        {result.concepts[i]: float(result.iou[unit, i]) for i in order},
        {result.concepts[i]: float(result.chance[unit, i]) for i in order},
        "IoU with each concept; the pale bar is what other images' masks would give",
    )
    figures.proof(found)


def effect(look: Look, unit: int) -> None:
    """What inserting and ablating the unit does to a meter of the picture, or to the discriminator's score."""
    if look.shape[0] < 2:
        st.info(concepts.ALONE)
        return
    if look.network == "discriminator":
        meter, measured = "score", concepts.score()
    else:
        meter = measured = concepts.meter_menu(look)
    options: dict[str, Any] = {"network": look.network, "n": 32, "seed": look.seed, "batch_size": 64}
    if not look.reads_codes:
        options["inputs"] = look.several(32)
    call = Call(look.run, "causal_effect", (look.stage, (unit,), measured), options, progress=True)
    figure(
        call,
        f"Causal effect of unit {unit} on {meter}",
        {
            "Effect": Number(("ace",), "{:+.4f}"),
            "From": Number(("interval", 0), "{:+.4f}"),
            "To": Number(("interval", 1), "{:+.4f}"),
            "p against other units": Number(("p_value",)),
        },
        meaning=f"Mean {meter} with the unit inserted at its usual value, less the same with it switched off; the "
        "band is that of other single units.",
        key="unit-effect",
    )


def latents(look: Look, unit: int) -> None:
    """The latents that drive the unit, and what each hands on through it to the image."""
    left, right = st.columns(2)
    with left:
        driven = _drivers(look, unit)
    if driven:
        with right:
            _handed_on(look, unit)


def _drivers(look: Look, unit: int) -> bool:
    """Share of the unit's own variance by latent; says whether it is there."""
    options: dict[str, Any] = {"stage": look.stage, "network": look.network, "n": 64, "n_draws": 100}
    options |= {"seed": look.seed, "batch_size": 64}
    call = Call(look.run, "sobol", (), options, progress=True)
    found = controls.await_job(look.run, call.name, call.key, call.job())
    if found is None:
        return False
    result = found.result
    shares = result.unit_total[:, unit]
    if not np.isfinite(shares).all():
        st.info(f"Unit {unit} does not vary over the prior, so no latent drives it.")
        return True
    order = [int(i) for i in np.argsort(-shares, kind="stable")[:8]]
    first = order[0]
    figures.bars(
        {result.variables[i]: float(shares[i]) for i in order},
        {result.variables[i]: max(result.null_total, 0.0) for i in order},
        f"What drives unit {unit}: share of its variance by latent, interactions included; the pale bar is that of a "
        "latent that drives nothing",
    )
    figures.numbers_with_code(
        call,
        result,
        {
            f"Share of {result.variables[first]}": Number(("unit_total", (first, unit))),
            "A latent that drives nothing": Number(("certificate", "undriven_share"), "{:.1g}"),
            "Largest error, all units": Number(("certificate", "total_error"), "{:.3f}"),
        },
        "unit-drivers",
    )
    return True


def _handed_on(look: Look, unit: int) -> None:
    """How much of the image's change each latent hands on through the unit."""
    call = Call(
        look.run,
        "latent_unit_pixel",
        (look.stage,),
        {"network": look.network, "seed": look.seed, "n": 8, "batch_size": 64},
        progress=True,
    )
    found = controls.await_job(look.run, call.name, call.key, call.job())
    if found is None:
        return
    result = found.result
    live = np.flatnonzero(result.live)
    if not len(live):
        st.info("No latent's slider changes the image.")
        return
    order = [int(i) for i in live[np.argsort(-result.through[live, unit], kind="stable")][:8]]
    first = order[0]
    figures.bars(
        {result.dims[i]: float(result.through[i, unit]) for i in order},
        None,
        f"What each latent's slider does to the image through unit {unit}: the unit's share, times the slider's "
        "effect. Latents with less than 5 % of the largest effect are left out",
    )
    figures.numbers_with_code(
        call,
        result,
        {
            f"Through it by {result.dims[first]}": Number(("through", (first, unit))),
            f"Share in {result.dims[first]}": Number(("matrix", (first, unit)), "{:+.3f}"),
            "Lost when held": Number(("held", (first, unit)), "{:.3f}"),
            "Shares and losses correlate by": Number(("certificate", "held_correlation"), "{:.2f}"),
        },
        "unit-latents",
    )
    st.caption(
        "Held: how much of that slider's change is lost when this unit alone stays where it is, the causal check."
    )


def spread(look: Look, unit: int) -> None:
    """How much the unit varies over what the code leaves open."""
    options: dict[str, Any] = {"network": look.network, "n_draws": 128, "seed": look.seed, "batch_size": 64}
    if look.start.index is not None:
        image = look.image()
        options["x"] = calls.Made(f"{image.code}[0]", lambda: image.make()[0], image.before)
        meaning = "Over draws of the code from the present image's posterior, against draws of the prior."
    else:
        meaning = "Over draws of the code from the prior. Start from an image to see what its posterior leaves open."
    figure(
        Call(look.run, "unit_spread", (look.stage,), options),
        f"Spread of the units of {look.stage}",
        {
            f"Mean of unit {unit}": Number(("mean", unit)),
            "Spread": Number(("std", unit)),
            "Over the prior": Number(("prior_std", unit)),
            "Left open, all units": Number(("certificate", "left_open"), "{:.2f}"),
        },
        meaning=meaning,
        key="unit-spread",
    )


def codes(look: Look, unit: int) -> None:
    """The codes that read the unit: what moves when it is switched off."""
    call = Call(
        look.run,
        "rank_units",
        (look.stage, look.network, look.several(32)),
        {"units": (unit,), "seed": look.seed, "batch_size": 64},
    )
    found = call.drawn()
    moved, names = found.result.code_effect[0], look.run.model.latent_space.names
    order = [int(i) for i in np.argsort(-moved, kind="stable")[:8]]
    figures.bars(
        {names[i]: float(moved[i]) for i in order},
        None,
        f"Mean change of each code when unit {unit} is switched off, in prior standard deviations, over 32 images",
    )
    first = order[0]
    figures.numbers_with_code(
        call,
        found.result,
        {
            f"Change of {names[first]}": Number(("code_effect", (0, first)), "{:.4f}"),
            "Change of the reconstruction": Number(("effect", 0), "{:.4f}"),
        },
        "unit-codes",
    )
    figures.proof(found)


def excite(look: Look, unit: int) -> None:
    """Inputs found by ascent that excite the unit more than any sample."""
    overs = ["latents"] if look.reads_codes else ["pixels", "prior"]
    over = controls.choice("Over", overs, "unit-over") if len(overs) > 1 else overs[0]
    samples = (
        FEW_SAMPLES if math.prod(look.run.model.image_shape) > SMALL and not look.reads_codes else SAMPLES
    )
    options: dict[str, Any] = {"over": over, "seed": look.seed, "n_reference": samples, "batch_size": 64}
    figure(
        Call(
            look.run,
            "maximise_activation",
            (look.network, look.stage, (unit,)),
            options,
            progress=True,
        ),
        f"Inputs that excite unit {unit} most",
        {
            "Reached": Number(("reached", (0, 0))),
            f"Best of {samples:,} samples": Number(("sample_max", 0)),
            "Percentile": Number(("percentile", 0), "{:.1f}"),
        },
        meaning="Found by ascent from four starts, beside the sample that excites the unit most.",
        key="unit-excite",
    )
