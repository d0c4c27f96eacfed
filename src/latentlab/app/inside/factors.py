"""Factors: which stage carries which latent, and what the units of a stage have to do with latents and pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from latentlab.app import controls, state
from latentlab.app.calls import Call, Made
from latentlab.app.figures import Number, figure
from latentlab.app.inside.look import Look, code_network

GAP = 5e-3
"""Of conductance, in ranges of the two images: coarser than the function's default, so that the page need not wait."""


def draw(look: Look) -> None:
    """One of the views on latents and layers."""
    views = {
        "Latent → layer": by_stage,
        "Latent → unit → pixel": by_unit,
        "Variance": variance,
        "Pixels by unit": units,
        "Region → units": region,
        "Unit profiles": profiles,
        "Uncertainty": uncertainty,
    }
    views[controls.choice("Factors", list(views), "factor-view")](look)


def _network(look: Look) -> str:
    """The network of codes that is spoken of: the open stage's, else the generator."""
    return look.network if look.reads_codes else code_network(look.run)


def by_stage(look: Look) -> None:
    """How many units carry each latent, stage by stage."""
    figure(
        Call(
            look.run,
            "influence_by_stage",
            (),
            {"network": _network(look), "n": 4, "seed": look.seed, "batch_size": 64},
            progress=True,
        ),
        "Which stage carries which latent",
        {
            "Rows add up to 1 within": Number(("certificate", "row_gap"), "{:.1g}"),
            "Halves of the codes differ by": Number(("certificate", "half_difference")),
        },
        meaning="How many units of each stage carry what a latent's slider does to the image: 1 where one unit does it "
        "all. The last row is that of random directions.",
        key="by-stage",
    )


def by_unit(look: Look) -> None:
    """Which units of the open stage carry each latent, and what they paint."""
    if not _is_generators(look):
        return
    figure(
        Call(
            look.run,
            "latent_unit_pixel",
            (look.stage,),
            {"network": look.network, "seed": look.seed, "n": 8, "batch_size": 64},
            progress=True,
        ),
        f"Latents, units of {look.stage} and pixels",
        {
            "Rows add up to 1 within": Number(("certificate", "row_gap"), "{:.1g}"),
            "Shares and losses when held correlate by": Number(("certificate", "held_correlation"), "{:.2f}"),
        },
        key="by-unit",
    )


def variance(look: Look) -> None:
    """How much of the variance of the image, or of the open stage, each latent answers for."""
    what = ["The image", "This stage"] if look.reads_codes else ["The image"]
    where = controls.choice("Of", what, "sobol-of")
    options: dict[str, Any] = {"n": 64, "n_draws": 100, "seed": look.seed, "batch_size": 64}
    if where == "This stage":
        options |= {"stage": look.stage, "network": look.network}
    figure(
        Call(look.run, "sobol", (), options, progress=True),
        "Share of the variance by latent",
        {
            "First-order shares add up to": Number(("certificate", "sum_first"), "{:.2f}"),
            "Largest error": Number(("certificate", "total_error"), "{:.3f}"),
            "A latent that drives nothing": Number(("certificate", "undriven_share"), "{:.1g}"),
        },
        meaning="First-order: by the latent alone; total: with its interactions. 64 pairs of draws.",
        key="sobol",
    )


def units(look: Look) -> None:
    """What each unit of the open stage adds to the picture, complete in every pixel."""
    if not _is_generators(look):
        return
    result = figure(
        Call(
            look.run,
            "conductance",
            (look.stage, look.code()),
            {"network": look.network, "seed": look.seed, "tolerance": GAP, "most_steps": 256},
            progress=True,
        ),
        f"What each unit of {look.stage} adds to the image",
        {
            "Largest gap of a pixel": Number(("certificate", "gap_share"), "{:.2%}"),
            "Gap allowed": Number(("certificate", "gap_allowed"), "{:.2%}"),
            "Around the stage": Number(("certificate", "bypass"), "{:.1g}"),
        },
        meaning="From the image of the prior's mean to the present one: the units' pictures add up to the change, but "
        "for a gap, as a share of the two images' range.",
        key="conductance",
    )
    if result is not None:
        st.caption(gap_in_words(result.certificate))


def gap_in_words(certificate: Mapping[str, Any]) -> str:
    """Whether the largest gap of a conductance is within what was allowed."""
    share, allowed = (f"{certificate[name]:.2%}" for name in ("gap_share", "gap_allowed"))
    if certificate["complete"]:
        return f"The gap, {share}, is within the {allowed} that this page allows; the function's own default is finer."
    return (
        f"The gap, {share}, is beyond the {allowed} that this page allows: {certificate['nodes']} nodes do not reach "
        "it. Call conductance with a larger most_steps."
    )


def region(look: Look) -> None:
    """Which units of the open stage a region of the present image depends on."""
    if not _is_generators(look):
        return
    _, height, width = look.run.model.image_shape
    with st.container(horizontal=True, vertical_alignment="bottom"):
        rows, columns = (
            st.select_slider(
                name,
                range(size + 1),
                value=(size // 3, 2 * size // 3),
                key=f"region-{name.lower()}",
                bind="query-params",
                width=220,
                help=f"{name} of the region, first and last.",
            )
            for name, size in (("Rows", height), ("Columns", width))
        )
    (top, bottom), (left, right) = rows, columns
    if top == bottom or left == right:
        st.info("Choose a region with at least one pixel.")
        return

    box = (top / height, left / width, bottom / height, right / width)
    figure(
        Call(
            look.run,
            "pixel_reads",
            (box,),
            {"inputs": look.code(), "stage": look.stage, "network": look.network, "seed": look.seed},
        ),
        f"The units of {look.stage} that the region depends on",
        {
            "Mean of the region": Number(("value", 0), "{:.4f}"),
            "Gradient against differences": Number(("certificate", "finite_difference"), "{:.1g}"),
            "Random directions": Number(("certificate", "random_share"), "{:.2f}"),
        },
        meaning="From the region's mean back to the units: gradient times activation, to first order what it loses "
        "without the unit.",
        key="region",
        background=False,
    )


def uncertainty(look: Look) -> None:
    """How sure the model is of each pixel."""
    options: dict[str, Any] = {"n_draws": 128, "seed": look.seed, "batch_size": 64}
    if look.start.index is not None:
        image = look.image()
        options["x"] = Made(f"{image.code}[0]", lambda: image.make()[0], image.before)
    figure(
        Call(look.run, "predictive_maps", (), options, progress=True),
        "How sure the model is of each pixel",
        {
            "Largest standard error": Number(("certificate", "standard_error"), "{:.4f}"),
            "Slope of error by draws": Number(("certificate", "error_slope"), "{:.2f}"),
        },
        meaning="Mean and spread of the image over 128 draws of its code"
        + (" from its posterior." if "x" in options else " from the prior."),
        key="uncertainty",
    )


def profiles(look: Look) -> None:
    """Units that answer alike, by the facets of the data or the latents."""
    inputs = look.several(256)
    call = Call(
        look.run,
        "unit_facets",
        (look.stage, inputs, _facets(look)),
        {"network": look.network, "n": 256, "seed": look.seed},
        progress=True,
    )
    figure(
        call,
        f"Profiles of the units of {look.stage}",
        {
            "Silhouette": Number(("certificate", "silhouette"), "{:.2f}"),
            "With shuffled labels": Number(("certificate", "silhouette_null"), "{:.2f}"),
        },
        meaning="Each unit's mean response to each facet; units that answer alike stand side by side.",
        key="profiles",
    )


def _facets(look: Look) -> Any:
    """The factors of the images that ``several(256)`` draws, as an argument; None where nothing is known."""
    data = state.dataset_or_reason(look.run)[0]
    if look.reads_codes or data is None or data.factor_space is None:
        return None
    seed, names = look.seed, list(data.factor_space.names)

    def make() -> dict:
        table = data.factors(data.sample(256, seed)).cpu().numpy()
        return {name: table[:, i] for i, name in enumerate(names)}

    line = f"table = data.factors(data.sample(256, {seed})).cpu().numpy()"
    return Made(
        f"{{name: table[:, i] for i, name in enumerate({names})}}", make, ("data = run.dataset()", line)
    )


def _is_generators(look: Look) -> bool:
    if look.reads_codes:
        return True
    st.info("Choose a stage of the generator: this view follows latents through it to the pixels.")
    return False
