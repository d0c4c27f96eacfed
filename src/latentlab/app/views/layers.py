"""Layers: open the networks, look at what their hidden units do, switch them off and compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import streamlit as st

from latentlab import analysis
from latentlab.analysis.inference import device_of, input_spaces, to_tensor
from latentlab.app import components, controls, engine, live_session, sharing, state
from latentlab.app.inside import (
    change,
    concepts,
    directions,
    factors,
    paths,
    projections,
    ranking,
    recipe,
    unit,
)
from latentlab.app.inside.look import Look, code_network, drawing_networks
from latentlab.app.start import Start, starting_point
from latentlab.models.edits import Edit

if TYPE_CHECKING:
    from latentlab.runs import Run

TABS: Mapping[str, Callable[[Look], None]] = {
    "Before and after": change.draw,
    "Units that matter": ranking.draw,
    "Deconvnet": projections.draw,
    "Concepts": concepts.draw,
    "Datapath": paths.draw,
    "Latents and layers": factors.draw,
    "Directions": directions.draw,
    "Edits": recipe.draw,
}


def page() -> None:
    """Draws the page."""
    run = controls.current_run()
    controls.heading(
        "Layers",
        "Choose a stage, click a unit: see what it does, switch it off and see what the image loses.",
    )
    with controls.one_sentence():
        live(run, starting_point(run))


@st.fragment
def live(run: Run, start: Start) -> None:
    """The open network and what follows the edits."""
    with controls.one_sentence():
        stages = stages_of(run, start)
        first = first_stage(stages, st.query_params.get("stage"))
        revision = f"{start.revision}-{state.edit_revision(run)}"
        edits = components.layers_state("open", state.edits_of(run), first, revision).edits
        edits = tuple(edit for edit in edits if edit.stage in {s.address for s in stages})
        if start.image is None:
            token = engine.open_session("layers", run.model, z=start.z, edits=edits)
        else:
            token = engine.open_session("layers", run.model, image=start.image, edits=edits)
        held = components.layers(
            stages,
            key="open",
            image_shape=run.model.image_shape,
            token=token,
            render=lambda stage, edits: frame(run, start, stage, edits),
            stage=first,
            edits=edits,
            revision=revision,
        )
        keep_stage(held.stage, first_stage(stages))
        state.keep_edits(run, held.edits)
        sharing.keep(run)
        shape = next(s.shape for s in stages if s.address == held.stage)
        chosen = held.unit if shape and held.unit is not None and held.unit < shape[0] else None
        with controls.awaiting("layers"):
            below(Look(run, start, held.stage, held.edits, shape, chosen))


def stages_of(run: Run, start: Start) -> list[components.Stage]:
    """The stages that the start can run through, network by network as an image passes them.

    The encoder's only where there is an image.
    """
    networks = [n for n in drawing_networks(run) if n != "encoder" or start.image is not None]
    networks += [name for name in run.model.networks if name == "discriminator"]
    infos = state.computed(
        run, "stages", tuple(networks), lambda: [(n, analysis.stages_of(run.model, n)) for n in networks]
    )
    spaces = input_spaces(run.model)
    found = []
    for network, members in infos:
        feeds = spaces.get(network, "image")
        gives = {"encoder": "code", "mapping": "w", "discriminator": "score"}.get(network, "image")
        found += [
            components.Stage(i.address, tuple(i.shape), i.name, i.parameters, i.kind, i.inputs, feeds, gives)
            for i in members
        ]
    return found


def keep_stage(stage: str, default: str) -> None:
    """Names the stage that is looked at in the address, as widgets do: unless it is the default."""
    if stage == default:
        st.query_params.pop("stage", None)
    elif st.query_params.get("stage") != stage:
        st.query_params["stage"] = stage


def first_stage(stages: list[components.Stage], asked: str | None = None) -> str:
    """The stage to open with: the one asked for, else the first of the generator that has maps to look at."""
    addresses = [s.address for s in stages]
    if asked in addresses:
        return asked
    maps = [
        s.address
        for s in stages
        if s.address.startswith("generator.") and len(s.shape) == 3 and s.shape[1] >= 8
    ]
    return (maps or addresses)[0]


def frame(run: Run, start: Start, stage: str, edits: tuple[Edit, ...]) -> components.LayersFrame:
    """What the component shows when it has no socket: the pictures and the maps."""
    network, source = stage.split(".")[0], "encoder" if start.image is not None else code_network(run)
    met = [
        e for e in edits if e.network != "discriminator" and (source == "encoder" or e.network != "encoder")
    ]
    given = start.z if start.image is None else start.image
    compared = analysis.compare_edits(run.model, given[None], met, network=source)
    inputs, scores = start.z, None
    if network not in input_spaces(run.model):
        inputs = compared.edited[0] if start.image is None else start.image
    if network == "discriminator":
        judged = [e for e in edits if e.network == network]
        scores = (scored(run, inputs, start.z, ()), scored(run, inputs, start.z, judged))
    mine = [e for e in edits if e.network == network]
    maps = analysis.feature_maps(run.model, network, inputs[None], stage, edits=mine)
    return components.LayersFrame(compared.original[0], compared.edited[0], maps.maps, scores)


def scored(run: Run, image, z, edits) -> float:
    """The discriminator's score of an image drawn from a code, under edits of its own."""
    import torch

    with torch.inference_mode():
        x, codes = (to_tensor(value[None], device_of(run.model)) for value in (image, z))
        return live_session.scores(run.model, x, codes, edits)[1]


def below(look: Look) -> None:
    """What is known about the open stage and its units, each question computed only while its tab is open."""
    with controls.one_view():
        unit.card(look)
    tabs = st.tabs(list(TABS), key="layer-tabs", on_change="rerun", bind="query-params")
    for tab, draw in zip(tabs, TABS.values(), strict=True):
        if tab.open:
            with tab, controls.one_view():
                draw(look)


if __name__ == "__main__":
    page()
