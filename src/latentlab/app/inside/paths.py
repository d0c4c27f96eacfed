"""Paths: the datapath, the fewest units that keep the output, and the bundles of edges between stages."""

from __future__ import annotations

import numpy as np
import streamlit as st

from latentlab.app import controls, state
from latentlab.app.calls import Call
from latentlab.app.figures import Number, figure
from latentlab.app.inside.look import Look
from latentlab.models.edits import Edit

EXAMPLES = 12
TOLERANCES = (0.01, 0.02, 0.05, 0.1, 0.2)


def draw(look: Look) -> None:
    """One of the views on what flows from stage to stage."""
    views = {"Fewest units": datapath, "Bundles of edges": bundles, "Traced graph": graph}
    views[controls.choice("Paths", list(views), "path-view")](look)


def graph(look: Look) -> None:
    """Which stage reads which, as measured."""
    figure(
        Call(look.run, "network_graph", (look.network,), {} if look.reads_codes else {"inputs": look.one()}),
        f"Stages of the {look.network} and what flows between them",
        {
            "Edges missed": Number(("certificate", "edges_missed"), "{:.0f}"),
            "Edges invented": Number(("certificate", "edges_invented"), "{:.0f}"),
            "Held stages move by": Number(("certificate", "held_difference"), "{:.1g}"),
        },
        meaning="Traced by holding all stages and perturbing one: the edges of the graph above, held against the flow.",
        key="graph",
    )


def bundles(look: Look) -> None:
    """What the units of the open stage add to those of the next one."""
    network = look.run.model.networks[look.network]
    names = list(network.names)
    here = names.index(network.stage_name(look.stage))
    if here + 1 == len(names):
        st.info("The last stage leads to no other; choose one before it.")
        return
    following = f"{look.network}.{names[here + 1]}"
    figure(
        Call(
            look.run,
            "edge_bundles",
            (look.stage, following),
            {"inputs": look.several(8), "network": look.network, "n": 8, "seed": look.seed},
            progress=True,
        ),
        f"Edges from {look.stage} to {following}",
        {
            "Edges missing": Number(("certificate", "missing_edges"), "{:.0f}"),
            "Invented": Number(("certificate", "invented_edges"), "{:.0f}"),
            "Ink": Number(("certificate", "ink_ratio"), "{:.2f}"),
            "Weight kept": Number(("certificate", "weight_kept"), "{:.2f}"),
        },
        meaning="Strong edges of one sign, drawn as bundles without loss; ink is lines drawn over edges.",
        key="bundles",
    )


def datapath(look: Look) -> None:
    """The fewest units that keep what the network gives."""
    network = look.run.model.networks[look.network]
    names = list(network.names)
    here = names.index(network.stage_name(look.stage))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        tolerance = st.select_slider(
            "Damage allowed",
            TOLERANCES,
            value=0.05,
            key="tolerance",
            bind="query-params",
            format_func=lambda share: f"{100 * share:g} %",
            width=240,
            help="Mean squared distance of the masked output from the whole one, over that without any unit.",
        )
        baseline = controls.choice(
            "Dropped units become",
            ["zero", "mean"],
            "baseline",
            "What is put in place of a unit that is dropped.",
        )
        reach = controls.choice(
            "Stages",
            ["This one", "This and the next"],
            "path-stages",
            "Over which stages the path is followed.",
        )
    stages = [look.stage]
    if reach != "This one" and here + 2 < len(names):
        stages.append(f"{look.network}.{names[here + 1]}")
    # A single score tells few units apart for each example.
    n = EXAMPLES if look.network != "discriminator" else max(EXAMPLES, min(2 * look.shape[0], 256))
    inputs = look.several(n)
    call = Call(
        look.run,
        "datapath",
        (inputs, look.network, stages),
        {"tolerance": tolerance, "baseline": baseline, "n": n, "seed": look.seed, "steps": 60},
        progress=True,
    )
    result = figure(
        call,
        f"The units of {look.stage} that keep the output",
        {
            "Damage": Number(("certificate", "masked_distance"), "{:.4f}"),
            "Least damage without one more": Number(("certificate", "smallest_break"), "{:.4f}"),
            "Best random set": Number(("certificate", "best_random_set"), "{:.3f}"),
            "Most active units": Number(("certificate", "activation_set"), "{:.3f}"),
        },
        meaning="Removing any one unit that is kept, of any of the stages, leads to more damage than is allowed; the "
        "last two numbers are the damage of other sets of as many units of the last stage.",
        key="datapath",
    )
    if result is None or baseline != "zero":
        return
    edits = dropped(look, result)
    if edits:
        st.button(
            "Switch off all other units",
            key="path-edits",
            on_click=state.set_edits,
            args=(look.run, (*state.edits_of(look.run), *edits)),
            help="Adds their ablation to the edits, to compare with the original above.",
        )


def dropped(look: Look, result) -> tuple[Edit, ...]:
    """The ablation of every unit that the path does without."""
    edits = []
    for address, kept in result.kept.items():
        width = len(result.gates[address])
        rest = np.setdiff1d(np.arange(width), kept)
        if len(rest):
            edits.append(Edit(stage=address, units=tuple(int(unit) for unit in rest)))
    return tuple(edits)
