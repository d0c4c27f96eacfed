"""Concepts: what the units of a stage match, how concepts emerge with depth, and what units do to them."""

from __future__ import annotations

from typing import Any

import streamlit as st

from latentlab.app import calls, controls, figures
from latentlab.app.calls import Call
from latentlab.app.figures import Number, figure
from latentlab.app.inside.look import Look

IMAGES = 128
EFFECT_METERS = ("brightness", "x", "y", "spread")
ALONE = "This stage has one unit, and an effect is held against those of others; choose a stage with more."


def dissection(look: Look) -> Call:
    """The dissection of the open stage."""
    return Call(
        look.run,
        "dissect",
        (look.stage, look.network, *specimens(look)),
        {"n_images": IMAGES, "seed": look.seed, **drawn_images(look)},
        progress=True,
    )


def specimens(look: Look) -> tuple[Any, ...]:
    """The data set as an argument, where its images can reach the network."""
    reaches = not look.reads_codes or look.run.model.networks.get("encoder") is not None
    return (calls.data_of(look.run),) if look.has_data and reaches else ()


def drawn_images(look: Look) -> dict[str, Any]:
    """Images that the model draws, for a network of images without data."""
    return {} if look.reads_codes or look.has_data else {"inputs": look.several(IMAGES)}


def meter_menu(look: Look) -> str:
    """The meter of the picture that is chosen."""
    from latentlab.analysis.meters import CHANNELS, METERS

    meters = [*METERS, *(CHANNELS if look.run.model.image_shape[0] == 3 else ())]
    return controls.menu("On", meters, 0, "unit-meter", "What is measured in the picture.")


def score() -> calls.Made:
    """The meter of a discriminator: its score, as an argument."""

    def make() -> Any:
        from latentlab.analysis.meters import Meter

        return Meter("score", "before any sigmoid", lambda output: output.flatten(1).mean(dim=1))

    return calls.Made(
        'analysis.meters.Meter("score", "before any sigmoid", lambda output: output.flatten(1).mean(dim=1))',
        make,
    )


def draw(look: Look) -> None:
    """One of the views on concepts."""
    views = {"Units and concepts": units, "Emergence with depth": emergence, "Causal effects": effects}
    if look.run.steps:
        views["Emergence in training"] = training
    views[controls.choice("Concepts", list(views), "concept-view")](look)


def units(look: Look) -> None:
    """Each unit's best concept, with the maps against the masks."""
    call = dissection(look)
    result = figure(
        call,
        f"The units of {look.stage} that match concepts best",
        {
            "Detectors": Number(("certificate", "detectors"), "{:.0f}"),
            "By chance": Number(("certificate", "detectors_by_chance"), "{:.1f}"),
            "Of random directions": Number(("certificate", "detectors_random_directions"), "{:.1f}"),
        },
        meaning="A detector is a unit whose strongest positions overlap a concept's mask by more than 4 % (IoU).",
        key="dissection",
    )
    if result is None:
        return
    rows = [
        {
            "unit": u,
            "concept": result.concepts[int(result.best[u])],
            "level": result.levels[int(result.best[u])],
            "IoU": float(result.best_iou[u]),
            "by chance, 95 %": float(result.best_chance[u]),
            "p": float(result.p_value[u]),
        }
        for u in sorted(range(len(result.best)), key=lambda u: -result.best_iou[u])
    ]
    with st.expander("All units"):
        st.dataframe(rows, hide_index=True, height=320)
        figures.table_code(
            call,
            result,
            [
                "for u in sorted(range(len(result.best)), key=lambda u: -result.best_iou[u]):",
                "    name, level = result.concepts[result.best[u]], result.levels[result.best[u]]",
                "    numbers = result.best_iou[u], result.best_chance[u], result.p_value[u]",
                '    print(u, name, level, *numbers, sep="\\t")',
            ],
            "dissection-table",
        )


def emergence(look: Look) -> None:
    """How well each stage of the network knows concepts of each level."""
    call = Call(
        look.run,
        "emergence",
        (look.network, *specimens(look)),
        {"n_images": IMAGES, "seed": look.seed, **drawn_images(look)},
        progress=True,
    )
    result = figure(
        call,
        f"Concepts by stage of the {look.network}",
        {
            "Best with shuffled masks": Number(("certificate", "shuffled_score")),
            "Probes of shuffled labels": Number(("certificate", "shuffled_probe"), "{:.2f}", sometimes=True),
        },
        meaning="IoU of a concept's best unit above what other images' masks give, and a linear probe's area under "
        "the curve (0.5 is chance), by stage and level.",
        key="emergence",
    )
    if result is None:
        return
    rows = [
        {"stage": stage}
        | {f"{level}, IoU": float(result.score[i, k]) for k, level in enumerate(result.level_names)}
        | {f"{level}, probe": float(result.probe[i, k]) for k, level in enumerate(result.level_names)}
        for i, stage in enumerate(result.stages)
    ]
    st.dataframe(rows, hide_index=True)
    figures.table_code(
        call,
        result,
        [
            "for i, stage in enumerate(result.stages):",
            '    print(stage, *result.score[i], *result.probe[i], sep="\\t")',
        ],
        "emergence-table",
    )


def training(look: Look) -> None:
    """The same at the steps of the training that were kept."""
    steps = [int(step) for step in look.run.steps]
    models = calls.Made(
        f"[(step, run.at(step).model) for step in {steps}]",
        lambda: ((step, look.run.at(step).model) for step in steps),
    )
    figure(
        Call(
            look.run,
            "emergence_over_training",
            (models, look.network, *specimens(look)),
            {"n_images": 64, "seed": look.seed, **drawn_images(look)},
            model=False,
            progress=True,
        ),
        "Concepts over the steps of the training",
        {"Best with shuffled masks": Number(("certificate", "shuffled_score"))},
        key="emergence-training",
    )


def effects(look: Look) -> None:
    """What inserting and ablating each unit does to meters of the picture, or to the discriminator's score."""
    if not look.shape or look.shape[0] < 2:
        st.info(ALONE)
        return
    meters: list[Any] = [score()] if look.network == "discriminator" else list(EFFECT_METERS)
    if look.network != "discriminator" and look.run.model.image_shape[0] == 3:
        meters += ["red", "green", "blue"]
    options: dict[str, Any] = {"network": look.network, "n": 8, "seed": look.seed}
    if not look.reads_codes:
        options["inputs"] = look.several(8)
    figure(
        Call(look.run, "effects_of_units", (look.stage, meters), options, progress=True),
        f"Causal effect of each unit of {look.stage}",
        {
            "Controls": Number(("certificate", "draws"), "{:.0f}"),
            "Widest control band": Number(("certificate", "band_width")),
        },
        meaning="Mean of each meter with the unit inserted at its usual value, less the same with it switched off; "
        "the band holds 95 % of other units.",
        key="unit-effects",
    )
