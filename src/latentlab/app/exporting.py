"""Exporting: files of a run made in the background and handed over, each with its recipe and its command.

``latentlab.rendering`` makes them; nothing is written to the disk here: a finished file waits in memory for its
download, one for each browser session, and gives way to the next.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

import streamlit as st

from latentlab.app import calls, controls, engine, server, state
from latentlab.app.export_forms import CHOICES, FORMS, From, size

if TYPE_CHECKING:
    from latentlab.app.jobs import Report
    from latentlab.export.recipe import Recipe
    from latentlab.runs import Run

LARGEST = 100_000_000
"""Bytes of a file that the explorer hands over; the command makes larger ones."""

MADE = "exported"
WORDS = {
    "page": "explorer",
    "image": "image",
    "traversal": "strips",
    "movie": "movie",
    "codes": "codes",
    "onnx": "model",
}
MIME = {
    "html": "text/html",
    "png": "image/png",
    "gif": "image/gif",
    "mp4": "video/mp4",
    "npz": "application/octet-stream",
    "onnx": "application/octet-stream",
}


@dataclass(frozen=True, eq=False)
class Exported:
    """A finished file.

    Attributes:
        content: the file.
        recipe: what it was made from, with its size and digest.
    """

    content: bytes
    recipe: Recipe


def panel(run: Run, given: From, key: str) -> None:
    """Lets a person choose a file, makes it in the background and hands it over.

    Args:
        run: whose file.
        given: the code and the edits it is made from.
        key: of the widgets: one panel's own.
    """
    form = controls.choice("File", list(FORMS), f"{key}-form", "What to take along.")
    st.caption(FORMS[form])
    try:
        recipe = CHOICES[form](run, given, key)
    except state.USER_ERRORS as error:
        st.error(controls.plainly(error))
        return
    if recipe is None:
        return
    name = controls.file_name(run.name.rpartition(":")[2], WORDS[recipe.kind]) + f".{recipe.file}"
    wanted = recipe.to_json()
    made = st.session_state.get(MADE)
    if made is None or made[0] != wanted:
        made = _make(run, recipe, wanted, key)
    if made is not None:
        hand_over(run, made[1], name, key)


def _make(run: Run, recipe: Recipe, wanted: str, key: str) -> tuple[str, Exported] | None:
    """The button, then the progress of the job; the file once it is there."""
    asked = f"{key}-asked"
    before = st.session_state.get(asked)
    if before is not None and before != wanted:  # something else is chosen now
        _leave(run, before, asked)
        before = None
    if before is None:
        st.button(
            f"Make {recipe.file.upper()}",
            type="primary",
            icon=":material/build:",
            key=f"{key}-make",
            on_click=st.session_state.__setitem__,
            args=(asked, wanted),
        )
        return None
    task = job(run, recipe)
    found = controls.await_job(run, "export", wanted, task)
    if found is None:
        return None
    st.session_state[MADE] = (wanted, found)
    _leave(run, wanted, asked)
    return st.session_state[MADE]


def _leave(run: Run, wanted: str, asked: str) -> None:
    """Stops waiting for a file: it is here, or something else is wanted; ends and forgets what nobody else awaits."""
    st.session_state.pop(asked, None)
    entry = st.session_state.get("awaited", {}).pop((run.digest, "export", wanted), None)
    if entry is None:
        return
    task = entry[1]
    task.audience.discard(engine.current_owner() or "")
    if not task.audience:
        task.cancel()
        state.forget_job(run, "export", wanted)


def job(run: Run, recipe: Recipe) -> state.Job:
    """The background job that makes a recipe's file."""
    wanted = recipe.to_json()

    def work(report: Report) -> Exported:
        from latentlab import rendering

        report(0.0, f"making the {recipe.file.upper()} …")
        doing = "encoding images" if recipe.kind in ("page", "codes") else "drawing"
        content, noted = rendering.make(
            recipe,
            run,
            progress=lambda done, total: report(done / total, f"{doing}: {done:,} of {total:,}"),
        )
        report(1.0, "handing it over …")  # somebody may have cancelled
        if len(content) > LARGEST:
            raise ValueError(
                f"The file has {len(content) / 1e6:.0f} MB and the explorer hands over up to {LARGEST / 1e6:.0f}; "
                "choose fewer or smaller pictures, or make it with latentlab export."
            )
        return Exported(content, noted)

    return state.job(run, "export", wanted, work, heavy=True)


def hand_over(run: Run, made: Exported, name: str, key: str) -> None:
    """The downloads, and the command that makes the same bytes."""
    recipe = made.recipe
    with st.container(horizontal=True, gap="xsmall", vertical_alignment="center"):
        st.download_button(
            f"{name} ({size(len(made.content))})",
            made.content,
            name,
            MIME[recipe.file],
            type="primary",
            icon=":material/download:",
            key=f"{key}-file",
            on_click="ignore",
        )
        if run.name in server.BROUGHT:
            return  # no command could open it: a recipe names a run's folder
        st.download_button(
            "Recipe",
            recipe.to_json(),
            f"{name}.recipe.json",
            "application/json",
            key=f"{key}-recipe",
            on_click="ignore",
            help="All that the file was made from, as JSON. With it the command below makes the same bytes again.",
        )
    lines = [f"latentlab render {name}.recipe.json"]
    if line := command(run, recipe, name):
        lines += ["# or without the recipe:", line]
    st.code("\n".join(lines), language="bash", wrap_lines=True)


def command(run: Run, recipe: Recipe, name: str) -> str:
    """The ``latentlab export`` that makes the same file; "" where only the recipe holds what it was made from."""
    given = bool(recipe.z) and (recipe.seed is None or recipe.kind == "page")
    ranges = recipe.kind in ("traversal", "movie") and recipe.span != "prior"
    if given or ranges or recipe.edits or recipe.directions or recipe.network == "encoder":
        return ""
    words = ["latentlab", "export", calls.place(run), f"--{recipe.file}", name]
    if recipe.space != run.model.latent_space.name:
        words += ["--space", recipe.space]
    moving = {"dims": ",".join(recipe.dims), "steps": recipe.steps, "span": recipe.span}
    options = {
        "page": {"precision": recipe.precision, "runs": server.runs_dir()},
        "image": {"count": len(recipe.z), "scale": recipe.scale},
        "codes": {"codes": recipe.source, "count": recipe.count},
        "traversal": moving,
        "movie": {**moving, "fps": f"{recipe.fps:g}"},
    }.get(recipe.kind, {})
    if recipe.kind not in ("page", "onnx"):
        options["seed"] = recipe.seed
    return shlex.join([*words, *(text for n, v in options.items() for text in (f"--{n}", str(v)))])
