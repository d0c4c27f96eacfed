"""Ranking: which of a stage's units matter, by what the picture loses without each."""

from __future__ import annotations

from typing import Any

import streamlit as st

from latentlab.app import controls, figures, state
from latentlab.app.calls import Call
from latentlab.app.inside.look import Look
from latentlab.models.edits import Edit

RANKED_INPUTS = 16
SHOWN_UNITS = 12


def call_of(look: Look) -> Call:
    """The ranking of the open stage's units."""
    return Call(
        look.run,
        "rank_units",
        (look.stage, look.network, look.several(RANKED_INPUTS)),
        {"n": RANKED_INPUTS, "seed": look.seed, "batch_size": 64},
        progress=True,
    )


def draw(look: Look) -> None:
    """Ranks the stage's units in the background; the strongest can be switched off here."""
    what = "score" if look.network == "discriminator" else "of a pixel, 0 to 1"
    st.caption(
        f"Each unit of **{look.stage}** is switched off in turn on {RANKED_INPUTS} inputs; its effect is the mean "
        f"change {what}."
    )
    call = call_of(look)
    found = controls.await_job(look.run, call.name, call.key, call.job())
    if found is None:
        return
    result = found.result
    table(look, call, result)
    figures.proof(found)
    strongest = int(result.order[0])
    numbers = {
        f"Effect of unit {int(result.units[strongest])}": ("effect", strongest),
        "Units that hold half of the effect": ("certificate", "half_of_units"),
    }
    with st.expander("As a picture"):
        controls.show_drawn(
            found,
            f"Effect of each unit of {look.stage}",
            "ranking",
            controls.file_name(look.run.name, look.stage, "units"),
            call.code(numbers, result),
        )


def table(look: Look, call: Call, result: Any) -> None:
    """All units with their effect, and buttons that switch the strongest off."""
    left, right = st.columns([3, 2])
    top = [int(i) for i in result.order[:SHOWN_UNITS]]
    with left:
        peak = float(result.effect.max()) or 1.0
        rows = [
            {"unit": int(result.units[i]), "effect": float(result.effect[i])}
            for i in (int(j) for j in result.order)
        ]
        st.dataframe(
            rows,
            height=320,
            hide_index=True,
            column_config={
                "unit": st.column_config.NumberColumn("Unit", width="small"),
                "effect": st.column_config.ProgressColumn(
                    "Effect", min_value=0.0, max_value=peak, format="%.4f"
                ),
            },
        )
    with right:
        share = 100 * float(result.effect[top].sum() / max(float(result.effect.sum()), 1e-12))
        st.caption(
            f"The first {len(top)} units carry {share:.0f} % of the stage's summed effect. Switch one off:"
        )
        with st.container(horizontal=True, gap="xsmall"):
            for i in top:
                unit = int(result.units[i])
                st.button(
                    f"{unit}",
                    key=f"off-{look.stage}-{unit}",
                    on_click=switch_off,
                    args=(look, (unit,)),
                    help=f"Switch unit {unit} off (effect {float(result.effect[i]):.4f}).",
                )
        first = f"result.effect[result.order[:{len(top)}]].sum()"
        figures.table_code(
            call,
            result,
            [
                f"print(100 * {first} / max(result.effect.sum(), 1e-12))  # % that the first carry: {share:.9g}",
                "for i in result.order:",
                '    print(result.units[i], result.effect[i], sep="\\t")',
            ],
            "ranking-table",
        )


def switch_off(look: Look, units: tuple[int, ...]) -> None:
    """Adds an ablation of units of the open stage to the edits."""
    edits = state.edits_of(look.run)
    state.set_edits(look.run, (*edits, Edit(stage=look.stage, units=units, operation="ablate")))
