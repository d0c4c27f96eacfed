"""Gallery: every run as a card, the shipped ones first; one click opens a run."""

from __future__ import annotations

import base64
import logging
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from latentlab.app import controls, export_forms, exporting, links, server, state, theme

if TYPE_CHECKING:
    from latentlab.runs import Run, RunSummary

logger = logging.getLogger(__name__)

COLUMNS = 3
SAMPLES = (4, 8)
GAP = 4  # pixels between samples, of about 800
EXPORTED = "export-of"
LARGEST_PICTURE = 3_000_000
# Column of the training curves, its name on a card, how it is written: what variational and adversarial runs log.
FIGURES = (
    ("kl", "KL", ".1f", " nats"),
    ("reconstruction", "Reconstruction", ".1f", " nats"),
    ("diversity", "Diversity", ".2f", ""),
    ("d_real", "D(real)", ".2f", ""),
    ("d_fake", "D(fake)", ".2f", ""),
)
EMPTY = (
    "No run of your own yet. Train one in about two minutes:\n\n"
    "```\nlatentlab train digits-vae --out {folder}/first\n```\n\nThen reload this page."
)


def page() -> None:
    """Draws the page."""
    controls.heading(
        "Gallery",
        "Trained models, ready to open: pull their latents, switch off their hidden units, map their data.",
    )
    found = state.runs()
    shipped = {a: s for a, s in found.items() if a.startswith("zoo:")}
    brought = {a: s for a, s in found.items() if a in server.BROUGHT}
    own = {a: s for a, s in found.items() if a not in shipped and a not in brought}
    if brought:
        st.subheader(
            "Brought along", anchor=False, help="The model that the command line named; not kept here."
        )
        cards(brought)
    if shipped:
        st.subheader("Shipped with latentlab", anchor=False)
        cards(shipped)
    st.subheader("Your runs", anchor=False, help=f"Folders with a run in them under {server.runs_dir()}.")
    if own:
        cards(own)
    else:
        st.info(EMPTY.format(folder=shown_path(server.runs_dir())))
    export()


def shown_path(folder: Path) -> str:
    """A folder as a person would type it."""
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def cards(summaries: dict[str, RunSummary]) -> None:
    """Cards side by side."""
    items = list(summaries.items())
    for first in range(0, len(items), COLUMNS):
        columns = st.columns(COLUMNS, gap="small")
        for column, (address, summary) in zip(columns, items[first : first + COLUMNS], strict=False):
            with column, st.container(border=True, height="stretch"):
                try:
                    card(address, summary)
                except Exception as error:  # whatever one run holds, the others are shown
                    logger.exception("The card of %s failed", address)
                    why = " ".join(str(error).split())
                    st.error(controls.plainly(f"This run can't be shown ({type(error).__name__}: {why})."))


def card(address: str, summary: RunSummary) -> None:
    """One run: what it is, what it draws, its figures, and the ways in; or why it can't be opened."""
    st.markdown(f"**{controls.plainly(address.removeprefix('zoo:').removeprefix('brought:'))}**")
    if summary.error:
        st.error(controls.plainly(summary.error))
        return
    chips(summary, address)
    if not summary.has_weights:
        st.info("No weights yet: training writes them at its first checkpoint.")
        return
    seed = int(st.session_state["seed"])
    try:
        run = state.open_run(address)
        picture = state.computed(run, "sheet", (SAMPLES, seed, theme.dark()), lambda: sample_sheet(run, seed))
        figures, has_card = key_figures(run), bool(run.card)
    except state.USER_ERRORS as error:
        st.error(controls.plainly(error))
        return
    st.image(picture, alt=f"Images drawn by {address}", width="stretch")
    controls.figures(figures)
    with st.container(horizontal=True, gap="xsmall", vertical_alignment="center"):
        for name in ("traverse", "layers", "map"):
            st.page_link(
                f"views/{name}.py", label=f"**{name.title()}**", query_params=links.link(run=address)
            )
        if st.button("Model card", key=f"card-{address}", type="tertiary", disabled=not has_card):
            show_card(run)
        st.button(
            "Export",
            key=f"export-{address}",
            type="tertiary",
            on_click=st.session_state.__setitem__,
            args=(EXPORTED, address),
            help="The run as a page of its own, pictures, a movie, codes or ONNX.",
        )


def chips(summary: RunSummary, address: str) -> None:
    """Data set, model and objective."""
    experiment = summary.experiment
    if experiment is None:
        return
    with st.container(key=f"chips-{address}", horizontal=True, gap="xsmall"):
        st.badge(controls.plainly(experiment.data.name), color="blue", help="Data set")
        st.badge(experiment.model.family, color="violet", help="Model")
        told = controls.plainly(controls.objective_name(experiment))
        # One line of chips, so that the pictures of a row stand side by side.
        short = ", ".join(told.split(", ")[:2]).removeprefix("adversarial, ")
        st.badge(short, color="gray", help=f"Objective and its settings: {told}")


def sample_sheet(run: Run, seed: int) -> str:
    """A sheet of images drawn from the model, as an address."""
    from latentlab import viz

    rows, columns = SAMPLES
    images = state.samples(run, rows * columns, seed)
    grid = images.reshape(rows, columns, *images.shape[1:])
    with theme.paper():
        return theme.data_uri(viz.images.grid(grid, scale=max(1, 96 // images.shape[-1]), gap=GAP))


def key_figures(run: Run) -> dict[str, str]:
    """A few numbers that tell runs apart: from the card, else from the last row of the training curves."""
    values = {}
    if found := re.search(r"(\d+ of \d+) latents active", run.card):
        values["Active"] = found[1]
    if found := re.search(r"squared error per pixel ([\d.]+)", run.card):
        values["MSE"] = found[1]
    curves = run.metrics()
    for column, name, form, unit in FIGURES:
        if len(values) < 3 and len(curves.get(column, ())):
            values[name] = number(curves[column][-1], form, unit)
    if len(curves.get("step", ())):
        values["Steps"] = number(curves["step"][-1], ",.0f")
    return values


def number(value: float, form: str, unit: str = "") -> str:
    """A number of a training curve in words, which a run from elsewhere may have filled with anything."""
    return f"{value:{form}}{unit}" if math.isfinite(value) else "not finite"


def export() -> None:
    """The dialog of the run that is being exported, if there is one: it stays open while files are made."""
    address = st.session_state.get(EXPORTED)
    if address is None:
        return
    name = address.removeprefix("zoo:").removeprefix("brought:")

    @st.dialog(f"Export {controls.plainly(name)}", width="large", on_dismiss=_dismiss)
    def show() -> None:
        with controls.one_sentence():
            exporting.panel(state.open_run(address), export_forms.From(), "gallery")

    show()


def _dismiss() -> None:
    st.session_state.pop(EXPORTED, None)


@st.dialog("Model card", width="large")
def show_card(run: Run) -> None:
    """The run's model card."""
    st.markdown(own_pictures(run, re.sub(r"\A---\n.*?\n---\n", "", run.card, flags=re.DOTALL)))


def own_pictures(run: Run, card: str) -> str:
    """The card with the run's own pictures in it; a picture from anywhere else is named, not fetched."""

    def embed(found: re.Match) -> str:
        path = run.path / found[2]
        plain = re.fullmatch(r"[\w-]+\.png", found[2]) and path.is_file() and not path.is_symlink()
        name = (found[1] or "picture").replace("!", "")
        if not plain or path.stat().st_size > LARGEST_PICTURE:
            return f"*({name} not shown)*"
        return f"![{name}](data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()})"

    # Whatever else could open a picture (brackets in brackets, references) stays text: nothing is fetched.
    parts, end = [], 0
    for found in re.finditer(r"!\[([^\[\]]*)\]\(([^)]*)\)", card):
        parts += [card[end : found.start()].replace("![", "!\\["), embed(found)]
        end = found.end()
    return "".join([*parts, card[end:].replace("![", "!\\[")])


if __name__ == "__main__":
    page()
