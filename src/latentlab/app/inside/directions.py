"""Directions: found in a space or a stage, shown with their effects, and saved as sliders for the Traverse page."""

from __future__ import annotations

import math
from typing import Any

import streamlit as st

from latentlab.app import attempts, controls, state
from latentlab.app.calls import Call, Made
from latentlab.app.figures import Number, figure
from latentlab.app.inside.look import Look
from latentlab.app.pull import W_PLUS

COUNT = 8
PLACE = "directions"
METHODS = {"SeFa": "sefa", "GANSpace": "ganspace", "Boundary": "boundary"}
METHOD_HELP = (
    "**SeFa**: what the first weights that read the code magnify most, in closed form. "
    "**GANSpace**: principal components of the open stage's features. "
    "**Boundary**: across the plane that tells the highest from the lowest values of a meter."
)


def draw(look: Look) -> None:
    """Looks for directions, shows where one leads, and saves it by a name."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        method = METHODS[controls.choice("Method", list(METHODS), "method", METHOD_HELP)]
        layers = _layers(look)
        options = _options(look, method)
    if options is None:
        st.info("Principal components are taken of a stage that reads codes; choose one of the generator.")
        return
    if layers is not None and method != "boundary":
        options["layers"] = layers
    call = Call(look.run, method, (), options, progress=method != "sefa")
    certificate = {
        "sefa": {"First map affine to": "affine_gap", "Orthogonal to": "orthogonality"},
        "ganspace": {"Variance explained": "explained", "Of random directions": "random_share"},
        "boundary": {"Accuracy, held out": "accuracy", "Rank correlation": "rank_correlation"},
    }[method]
    result = figure(
        call,
        f"Directions found by {method}",
        {name: Number(("certificate", key)) for name, key in certificate.items()},
        key="directions",
    )
    if result is not None:
        one(look, call, result)
    saved(look)


def _options(look: Look, method: str) -> dict[str, Any] | None:
    from latentlab.analysis.directions import home_space, ordered

    model = look.run.model
    most = min(COUNT, len(ordered(model.spaces[home_space(model)])))
    if method == "sefa":
        return {"n": most, "seed": look.seed}
    if method == "ganspace":
        if not look.reads_codes:
            return None
        most = min(most, math.prod(look.shape))
        return {"stage": look.stage, "network": look.network, "n": most, "seed": look.seed}
    from latentlab.analysis.meters import METERS

    meter = controls.menu("Meter", list(METERS), 0, "boundary-meter", "What is told apart in the picture.")
    return {"target": meter, "n": 2000, "seed": look.seed, "batch_size": 64}


def _layers(look: Look) -> tuple[int, ...] | None:
    """The layers of W+ that directions shall move; None for all, or where there are none."""
    if W_PLUS not in look.run.model.spaces:
        return None
    count = len(look.run.model.spaces[W_PLUS].blocks)
    first, last = st.select_slider(
        "Layers",
        range(count),
        value=(0, count - 1),
        key="layer-range",
        bind="query-params",
        width=220,
        help="The layers whose styles a direction moves: the first decide the coarse shape, the last the strokes.",
    )
    return None if (first, last) == (0, count - 1) else tuple(range(first, last + 1))


def one(look: Look, call: Call, result: Any) -> None:
    """One of the directions: images along it, what it changes, and saving it."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = controls.menu("Direction", list(result.names), 0, "direction", "One of those found.")
        view = controls.choice(
            "Show", ["Images along it", "What it changes"], "direction-view", "Of the one chosen."
        )
        name = st.text_input("Name", value=chosen, key=f"direction-name-{chosen}", width=180)
        if st.button(
            "Save", key="direction-save", help="Keeps it in the workspace, as a slider on Traverse."
        ):
            state.save_direction(look.run, result.direction(chosen).named(name.strip() or chosen))
            told = controls.plainly(name.strip() or chosen)
            st.toast(f"Saved “{told}”: choose it under Directions on the Traverse page.")
    way = Made(
        f"found.direction({chosen!r})",
        lambda: result.direction(chosen),
        (f"found = {call.expression}",),
    )
    if view == "Images along it":
        figure(
            Call(look.run, "traverse_direction", (way, look.code()), {}),
            f"Images along {chosen}",
            {"Mean change": Number(("effect", 0), "{:.4f}")},
            key="direction-images",
            background=False,
        )
    else:
        figure(
            Call(
                look.run,
                "direction_effects",
                (way,),
                {"n": 32, "seed": look.seed, "batch_size": 64},
                progress=True,
            ),
            f"What {chosen} changes",
            {
                "Beyond random directions": Number(("certificate", "beyond_random"), "{:.2f}"),
                "Change of pixels": Number(("image_change", 0), "{:.4f}"),
                "Of random ones": Number(("null_image_change", 0), "{:.4f}"),
            },
            key="direction-effects",
        )


def saved(look: Look) -> None:
    """The directions kept in the workspace."""
    kept = state.directions(look.run)
    attempts.say_what_went_wrong(PLACE)
    if not kept:
        return
    with st.expander(f"Saved ({len(kept)})"):
        st.caption("Sliders on the Traverse page, under Directions.")
        for direction in kept:
            place = direction.stage or (direction.space or "").upper()
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                told = f"{direction.name} · {direction.method} in {place}"
                st.markdown(controls.plainly(told), width="stretch")
                st.button(
                    "Remove",
                    key=f"forget-{direction.name}",
                    type="tertiary",
                    on_click=attempts.attempt,
                    args=(PLACE, state.drop_direction, look.run, direction.name),
                )
