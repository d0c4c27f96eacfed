"""Traverse: pull one latent and see the image change; strips, planes and swaps of the same latent below."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from latentlab import analysis
from latentlab.app import (
    arithmetic,
    between,
    components,
    controls,
    engine,
    export_forms,
    exporting,
    lattice,
    placing,
    ranges,
    seed_plane,
    sharing,
    sliders,
    sorting,
    state,
)
from latentlab.app.calls import Call, Made, opened
from latentlab.app.figures import figure
from latentlab.app.jump import Choose, jumper
from latentlab.app.start import Start, reading_of, starting_point
from latentlab.models.contract import space_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from latentlab.analysis.encoding import Encoding
    from latentlab.app.pull import Pull
    from latentlab.runs import Run

SLIDERS = "Sliders"
SPANS = {"Data": "posterior", "Prior": "prior", "± 2 σ": 2.0, "± 3 σ": 3.0}
PATIENCE = 0.3  # seconds to wait for the encoding before the sliders are shown without it
SPAN_HELP = (
    "How far each latent is moved. **Sliders**: from one end of its slider to the other. "
    "**Data**: where the data's codes lie (the prior where none are encoded). "
    "**Prior**: the middle 95 % of the prior. "
    "**± 2 σ**, **± 3 σ**: so many prior standard deviations around the present latent."
)


def page() -> None:
    """Draws the page."""
    run = controls.current_run()
    controls.heading(
        "Traverse", "Drag a slider: the model redraws the image as one latent changes and the others stay."
    )
    with controls.one_sentence():
        start = starting_point(run)
        live(run, start)


@st.fragment
def live(run: Run, start: Start) -> None:
    """The sliders and everything that follows the latent they hold."""
    with controls.one_sentence():
        task = state.encoding_job(run)
        encoding = task.result if task is not None and task.wait(PATIENCE) else None
        with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
            pull = sliders.chosen(run)
            edits = chosen_edits(run)
        place = st.container()
        with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):  # below the picture
            order = sorting.chosen(run, pull)
            sliders.heat_of_dice(run)
        numbers = sliders.numbers(run, pull, start)
        token = engine.open_session("traverse", run.model, z=numbers, edits=edits, pull=pull)
        axes = sorting.arranged(run, pull, sliders.axes(run, pull, encoding, start), order)
        revision = start.revision if pull is None else f"{start.revision}-{hash(pull)}"
        before = placing.held(run, pull, revision, numbers, final=start.final)
        with place:
            held = components.traverse(
                axes,
                before.z,
                key=placing.KEY,
                image_shape=run.model.image_shape,
                token=token,
                render=lambda z: sliders.decoded(run, pull, z, edits),
                source=start.image,
                source_label=start.label,
                locks=before.locks,
                slots=before.slots,
                ranges=before.ranges,
                revision=before.revision,
                seed=before.seed or int(st.session_state["seed"]),
                ends=lambda z, reaching: sliders.ends(run, pull, reaching, z, edits),
                code=None if pull is None else lambda z: sliders.held_code(run, pull, z)[0],
            )
        placing.keep(before, held)
        sharing.keep(run)
        sliders.keep_psi(pull, held.z)
        if start.image is not None:
            reading_of(run, start)
        if pull is None or pull.space == run.model.latent_space.name:
            explain(run, task, encoding, held.ranges)
        else:
            far = ranges.words(held.ranges) or "Ranges span the middle 98 % of the prior carried there"
            st.caption(f"Sliders move a code of {pull.space.upper()}. {far}.")
        reaching = ranges.applied(axes, held.ranges)
        if pull is None:
            reach = ranges.table(reaching, run.model.latent_space.dim)
            below(run, encoding, held.z, edits, None, held.slots, pull, held.z, reach)
        else:
            z, kept, space = sliders.held_codes(run, pull, held.z, held.slots)
            own = pull.space == (space or run.model.latent_space.name)
            reach = ranges.table(reaching, run.model.spaces[pull.space].dim) if own else None
            below(run, encoding if space is None else None, z, edits, space, kept, pull, held.z, reach)


def chosen_edits(run: Run) -> tuple:
    """The edits made on the Layers page, if the person wants them here too."""
    # What was done to the encoder has no part in decoding.
    edits = tuple(edit for edit in state.edits_of(run) if edit.network == "generator")
    if not edits:
        return ()
    keep = st.toggle(
        f"Keep the {len(edits)} edit{'s' if len(edits) > 1 else ''} made on Layers",
        key="keep-edits",
        help="Decodes with the hidden units as you set them on the Layers page.",
    )
    return edits if keep else ()


def explain(run: Run, task: state.Job | None, encoding: Encoding | None, reach: ranges.Ranges) -> None:
    """One line on the order and range of the sliders, as they were drawn: the job may have ended since."""
    far = ranges.words(reach)
    if task is None or task.error:
        why = controls.plainly("there are no encoded data to order them by" if task is None else task.error)
        st.caption(f"{far}; {why}." if far else f"Sliders span the middle 98 % of the prior: {why}.")
    elif encoding is None:
        st.caption(f"{far}." if far else "Sliders span the prior until some data images are encoded.")
        controls.watch(task)
    else:
        latents, least = controls.latents_by_kl(run, encoding), float(encoding.certificate["kl_threshold"])
        active = sum(kl > least for _, kl in latents)
        st.caption(
            f"{active} of {len(latents)} latents are active (KL above 0.1 nats over "
            f"{encoding.n:,} data images). Bars show KL: how much a latent tells about an image. "
            + (far or "Ranges span 98 % of the data's codes")
            + "."
        )


def below(
    run: Run,
    encoding: Encoding | None,
    z: np.ndarray,
    edits: tuple,
    space: str | None,
    slots: Sequence[np.ndarray | None],
    pull: Pull | None,
    numbers: np.ndarray,
    reach: np.ndarray | None,
) -> None:
    """Strips, plane, paths, swaps and the latent itself, each drawn only while it is open.

    ``space`` is the code's, ``reach`` (dim, 2) how far its sliders go, None where it has none.
    """
    choose = jumper(run, pull, space)
    if space is not None:  # edits of the mapping are behind such a code
        edits = tuple(edit for edit in edits if edit.network == "generator")
    strips, plane, path, swaps, seeds, sums, away = st.tabs(
        ["Strips", "Plane", "A to B", "Swap blocks", lattice.TAB, "Arithmetic", "Take away"],
        key="below",
        on_change="rerun",
        bind="query-params",
    )
    if strips.open:
        with strips, controls.one_sentence():
            draw_strips(run, encoding, z, edits, space, choose, reach)
    if plane.open:
        with plane, controls.one_sentence():
            draw_plane(run, encoding, z, edits, space, choose, reach)
    if path.open:
        with path, controls.one_sentence():
            between.draw(run, encoding, z, edits, space, slots, choose)
    if swaps.open:
        with swaps, controls.one_sentence():
            draw_swaps(run, encoding, z, space, edits, jumper(run, pull, None))
    if seeds.open:
        with seeds, controls.one_sentence():
            seed_plane.draw(run, pull, numbers, edits)
    if sums.open:
        with sums, controls.one_sentence():
            arithmetic.draw(run, encoding, pull, z, edits, space)
    if away.open:
        with away, controls.one_sentence():
            take_away(run, z, edits, space)
            export_files(run, z, edits, space, encoding, reach)


def span_picker(encoding: Encoding | None, key: str, reach: np.ndarray | None) -> Any:
    """How far to move: what ``analysis.traverse`` takes as a span, a table as tuples."""
    offered = list(SPANS) if reach is None else [SLIDERS, *SPANS]
    chosen = controls.choice("Range", offered, key, SPAN_HELP)
    if chosen == SLIDERS and reach is not None:
        return tuple((low, high) for low, high in reach.tolist())
    return "prior" if encoding is None and chosen == "Data" else SPANS[chosen]


def draw_strips(
    run: Run,
    encoding: Encoding | None,
    z: np.ndarray,
    edits: tuple,
    space: str | None,
    choose: Choose | None,
    reach: np.ndarray | None,
) -> None:
    """One strip a latent: it alone moves from one end of its range to the other."""
    here = space_of(run.model, space)
    names = controls.active_names(run, encoding) if space is None else sliders.widest(run, space)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        span = span_picker(encoding, "strip-range", reach)
        steps = st.select_slider(
            "Steps",
            range(5, 16, 2),
            value=11,
            key="steps",
            bind="query-params",
            width=180,
            help="Images in a strip.",
        )
        everything = st.toggle(
            "Inactive too", key="all-dims", bind="query-params", help="Also latents that carry nothing."
        )
    dims = list(here.names) if everything else names
    picture = state.drawn(
        run,
        "strips",
        (z.tobytes(), tuple(dims), steps, span, edits, encoding is not None, space),
        lambda: analysis.traverse(
            run.model, z, dims, steps=steps, span=span, encoding=encoding, edits=edits, space=space
        ),
    )
    controls.show_drawn(
        picture,
        f"Traversal strips of {', '.join(picture.result.dims)}",
        "strips",
        controls.file_name(run.name, "strips"),
        choose=choose,
    )
    st.caption("Change: how much a pixel changes on average between the two ends of a strip.")


def draw_plane(
    run: Run,
    encoding: Encoding | None,
    z: np.ndarray,
    edits: tuple,
    space: str | None,
    choose: Choose | None,
    reach: np.ndarray | None,
) -> None:
    """A plane of images over two latents."""
    here = space_of(run.model, space)
    names = controls.active_names(run, encoding) if space is None else sliders.widest(run, space)
    menu = controls.ordered(here, [*names, *(name for name in here.names if name not in names)])
    if len(menu) < 2:
        st.info(f"A plane needs two latents with an order; this model has {len(menu) or 'none'}.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        x = controls.menu("Across", menu, 0, "across", "The latent that changes from left to right.")
        y = controls.menu("Upwards", menu, 1, "upwards", "The latent that changes from bottom to top.")
        span = span_picker(encoding, "plane-range", reach)
        steps = st.select_slider(
            "Steps", range(5, 14, 2), value=9, key="plane-steps", bind="query-params", width=150
        )
    if x == y:
        st.info("Choose two different latents to span a plane.")
        return
    picture = state.drawn(
        run,
        "plane",
        (z.tobytes(), x, y, steps, span, edits, encoding is not None, space),
        lambda: analysis.traverse_grid(
            run.model, z, (x, y), steps=steps, span=span, encoding=encoding, edits=edits, space=space
        ),
    )
    controls.show_drawn(
        picture,
        f"Images over {x} (across) and {y} (upwards)",
        "plane",
        controls.file_name(run.name, x, y),
        choose=choose,
    )


def draw_swaps(
    run: Run, encoding: Encoding | None, z: np.ndarray, at: str | None, edits: tuple, choose: Choose | None
) -> None:
    """One block of latents from the column, the others from the row."""
    space, seed = run.model.latent_space, int(st.session_state["seed"])
    if sliders.STYLES in run.model.spaces:
        draw_mixing(run, z, at, edits)
        return
    if len(space.blocks) < 2:
        st.info(
            f"This model keeps all its latents in one block ({space.block_names[0]!r}), so it has no blocks to swap. "
            "Models with blocks, such as pose and identity, show here how one goes with the other."
        )
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        block = controls.menu(
            "From the column",
            list(space.block_names),
            0,
            "block",
            "The block that each column brings along.",
        )
        rows = st.select_slider("Samples", range(3, 9), value=6, key="rows", bind="query-params", width=150)
    codes = (
        None
        if encoding is None
        else state.nearest(run, encoding.mean[np.random.default_rng(seed).permutation(encoding.n)[:rows]])
    )
    picture = state.drawn(
        run,
        "swaps",
        (block, rows, seed, edits, codes is not None),
        lambda: analysis.swap_grid(run.model, codes, block, rows=rows, edits=edits, seed=seed),
    )
    controls.show_drawn(
        picture,
        f"Swap grid of the block {block}",
        "swaps",
        controls.file_name(run.name, "swap", block),
        choose=choose,
    )
    st.caption(f"Each column brings its {block}, each row everything else; the diagonal is as it was.")


def draw_mixing(run: Run, z: np.ndarray, space: str | None, edits: tuple) -> None:
    """Styles of some layers from the column, those of all others from the row; the code on the sliders comes first."""
    seed, layers = int(st.session_state["seed"]), list(run.model.spaces[sliders.STYLES].block_names)
    numbers = [str(i) for i in range(len(layers))]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.pills(
            "Layers from the column",
            numbers,
            default=numbers[: max(1, len(layers) // 3)],
            selection_mode="multi",
            key="mixed",
            bind="query-params",
            help="Any of them. The first layers decide the coarse shape, the last ones the fine strokes.",
        )
        rows = st.select_slider("Samples", range(3, 9), value=6, key="rows", bind="query-params", width=150)
    if not 0 < len(chosen) < len(layers):
        st.info("Choose some of the layers, not none or all: the others come from the row.")
        return
    call = Call(
        run,
        "swap_grid",
        (_mixed_codes(run, z, space, rows, seed), [layers[int(i)] for i in chosen]),
        {"space": sliders.STYLES, "edits": _behind_mapping(edits)},
    )
    figure(
        call,
        "Style mixing grid",
        {},
        meaning=f"Each column brings the styles of layers {', '.join(chosen)}, each row those of all others. The first "
        "row and column are the code on the sliders, the others are drawn by the seed.",
        background=False,
    )


def _mixed_codes(run: Run, z: np.ndarray, space: str | None, rows: int, seed: int) -> Made:
    """The present code and ``rows`` - 1 draws of the prior as styles of every layer."""
    first, target = run.model.latent_space.name, sliders.STYLES
    source = space or first
    numbers = [float(str(v)) for v in np.asarray(z, np.float32)]

    def make() -> np.ndarray:
        import torch

        from latentlab.analysis.inference import device_of, inference, to_numpy

        model, device = run.model, device_of(run.model)
        with inference(model):
            here = torch.tensor([numbers], device=device)
            here = here if source == target else model.map(here, source, target)
            drawn = model.map(model.latent_space.sample(rows - 1, seed).to(device), first, target)
            return to_numpy(torch.cat([here, drawn]))

    here = "here" if source == target else f"run.model.map(here, {source!r}, {target!r})"
    before = (
        "import torch",
        f"here = torch.tensor([{numbers}])",
        f"drawn = run.model.latent_space.sample({rows - 1}, {seed})",
    )
    return Made(
        f"torch.cat([{here}, run.model.map(drawn, {first!r}, {target!r})]).detach().numpy()", make, before
    )


def _behind_mapping(edits: tuple) -> tuple:
    return tuple(edit for edit in edits if edit.network == "generator")


def take_away(run: Run, z: np.ndarray, edits: tuple, space: str | None) -> None:
    """The latent as JSON and as code, and its image."""
    numbers = [float(str(v)) for v in np.asarray(z, np.float32)]
    left, right = st.columns([1, 1])
    with left:
        st.caption(
            "Paste these numbers under Start from → Numbers to come back here."
            if space is None
            else f"A code of {space.upper()}, as scripts take it."
        )
        st.code(json.dumps(numbers), language="json", wrap_lines=True)
        text = json.dumps(
            {
                "run": run.name,
                "weights_digest": run.digest,
                "space": space_of(run.model, space).name,
                "z": numbers,
                "edits": [edit.to_dict() for edit in edits],
            }
        )
        side = max(1, 512 // run.model.image_shape[1])
        with st.container(horizontal=True, gap="xsmall"):
            st.download_button(
                "z as JSON", text, "latent.json", "application/json", key="z-json", on_click="ignore"
            )
            st.download_button(
                "Image as PNG",
                lambda: viz_png(
                    analysis.decode_latents(run.model, z[None], edits=edits, space=space)[0], side
                ),
                controls.file_name(run.name, "image") + ".png",
                "image/png",
                key="z-png",
                on_click="ignore",
            )
    with right:
        st.caption("The same picture from a script or a notebook:")
        st.code(code_for(run, numbers, edits, space), language="python", wrap_lines=True)


def export_files(
    run: Run,
    z: np.ndarray,
    edits: tuple,
    space: str | None,
    encoding: Encoding | None,
    reach: np.ndarray | None,
) -> None:
    """Files of the run and of this latent, made in the background."""
    with st.container(border=True):
        exporting.panel(run, export_forms.From(z, edits, space, encoding, reach), "away")


def viz_png(image: np.ndarray, scale: int) -> bytes:
    """An image as PNG, each pixel ``scale`` wide."""
    import io

    out = io.BytesIO()
    state.picture(image, scale).save(out, "PNG")
    return out.getvalue()


def code_for(run: Run, numbers: list[float], edits: tuple, space: str | None) -> str:
    """Lines of Python that decode the latent again, under the same edits."""
    made = ", ".join(f"latentlab.Edit(**{edit.to_dict()!r})" for edit in edits)
    options = (f", edits=[{made}]" if edits else "") + ("" if space is None else f", space={space!r}")
    return (
        "import latentlab, numpy as np\n"
        f"run = {opened(run)}\n"
        f"z = np.array({numbers})\n"
        f"strip = latentlab.traverse(run.model, z{options})\n"
        "latentlab.viz.show(strip)"
    )


if __name__ == "__main__":
    page()
