"""Layers: open the network, see what its hidden units do, switch them off and compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from latentlab import analysis
from latentlab.app import components, controls, engine, state
from latentlab.app.start import Start, starting_point
from latentlab.models.edits import Edit, edits_from_json, edits_to_json

if TYPE_CHECKING:
    from latentlab.runs import Run

RANKED_INPUTS = 16
SHOWN_UNITS = 12


def page() -> None:
    """Draws the page."""
    run = controls.current_run()
    controls.heading(
        "Layers", "Click a feature map to switch its unit off, or scale it, and see what the image loses."
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
        below(run, start, held.stage, held.edits)


def stages_of(run: Run, start: Start) -> list[components.Stage]:
    """The stages that the start can run through: the encoder's only where there is an image."""
    networks = ("generator",) if start.image is None else ("generator", "encoder")
    infos = state.computed(
        run, "stages", networks, lambda: [i for name in networks for i in analysis.stages_of(run.model, name)]
    )
    return [components.Stage(i.address, tuple(i.shape), i.name, i.parameters, i.kind) for i in infos]


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


def compare(run: Run, start: Start, edits: tuple[Edit, ...]) -> Any:
    """Original against edited: from the image where there is one, through both networks, else from the latent."""
    if start.image is None:
        return analysis.compare_edits(run.model, start.z[None], edits, network="generator")
    return analysis.compare_edits(run.model, start.image[None], edits, network="encoder")


def frame(run: Run, start: Start, stage: str, edits: tuple[Edit, ...]) -> components.LayersFrame:
    """What the component shows when it has no socket: the pictures and the maps."""
    network = stage.split(".")[0]
    compared = compare(run, start, edits)
    inputs = start.z if network == "generator" or start.image is None else start.image
    maps = analysis.feature_maps(run.model, network, inputs[None], stage, edits=edits)
    return components.LayersFrame(compared.original[0], compared.edited[0], maps.maps)


def below(run: Run, start: Start, stage: str, edits: tuple[Edit, ...]) -> None:
    """What changed, which units matter, and the edits as a list."""
    change, ranking, recipe = st.tabs(
        ["Before and after", "Units that matter", "Edits"],
        key="layer-tabs",
        on_change="rerun",
        bind="query-params",
    )
    if change.open:
        with change, controls.one_sentence():
            draw_change(run, start, edits)
    if ranking.open:
        with ranking, controls.one_sentence():
            rank(run, stage)
    if recipe.open:
        with recipe, controls.one_sentence():
            list_edits(run, edits)


def draw_change(run: Run, start: Start, edits: tuple[Edit, ...]) -> None:
    """Original, edited and their difference, large, with the numbers."""
    if not edits:
        st.info("No edit yet. Click a feature map above: its unit is switched off and the change shows here.")
        return
    picture = state.drawn(run, "edited", (start.revision, edits), lambda: compare(run, start, edits))
    result = picture.result
    controls.show_drawn(
        picture, "Original, edited and difference", "change", controls.file_name(run.name, "edited")
    )
    controls.certificate(
        {
            "Mean change": f"{float(result.change[0]):.4f}",
            "Largest change": f"{float(result.largest[0]):.3f}",
            "Pixels changed": f"{100 * float(result.changed[0]):.1f} %",
        },
        "Changes of pixel values, 0 to 1; a pixel counts as changed above 1/255.",
    )


def rank(run: Run, stage: str) -> None:
    """Ranks a stage's units by what the image loses without each, in the background."""
    network = stage.split(".")[0]
    seed = int(st.session_state["seed"])
    key = (network, stage, seed, RANKED_INPUTS)
    st.caption(
        f"Each unit of **{stage}** is switched off in turn on {RANKED_INPUTS} inputs; its effect is the mean change "
        "of a pixel, 0 to 1."
    )
    inputs = None
    if network == "encoder":
        data = state.dataset(run)
        inputs = data.images(data.sample(RANKED_INPUTS, seed)).cpu().numpy()

    def work(report):
        report(0.0, "switching units off …")
        return analysis.rank_units(
            run.model,
            stage,
            network,
            inputs,
            n=RANKED_INPUTS,
            seed=seed,
            progress=lambda done, total: report(done / total, f"unit {done} of {total}"),
        )

    task = state.job(run, "units", key, work)
    result = controls.await_job(run, "units", key, task)
    if result is None:
        return
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
        share = float(result.effect[top].sum() / max(float(result.effect.sum()), 1e-12))
        st.caption(
            f"The first {len(top)} units carry {100 * share:.0f} % of the stage's summed effect. Switch one off:"
        )
        with st.container(horizontal=True, gap="xsmall"):
            for i in top:
                unit = int(result.units[i])
                st.button(
                    f"{unit}",
                    key=f"off-{stage}-{unit}",
                    on_click=switch_off,
                    args=(run, stage, unit),
                    help=f"Switch unit {unit} off (effect {float(result.effect[i]):.4f}).",
                )


def switch_off(run: Run, stage: str, unit: int) -> None:
    """Adds an ablation of one unit to the edits."""
    state.set_edits(run, (*state.edits_of(run), Edit(stage=stage, units=(unit,), operation="ablate")))


def list_edits(run: Run, edits: tuple[Edit, ...]) -> None:
    """The edits in order, with undo, clear, download and upload."""
    if edits:
        for number, edit in enumerate(edits):
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                st.markdown(f"{number + 1}. {edit_words(edit)}", width="stretch")
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
    engine.check_amount(edits)
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


if __name__ == "__main__":
    page()
