"""Advice on a new training: likelihood, scale, beta and capacity that suit the data, with the reasons."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import streamlit as st

from latentlab.app import controls
from latentlab.app.configuration import fits
from latentlab.app.jobs import Job

if TYPE_CHECKING:
    from latentlab.analysis.suggestion import Suggestion

ADVICE = "train-advice"
ADVISED = ("likelihood", "scale", "learn_scale")


def offer(values: dict, put: Callable[[dict], None]) -> None:
    """Offers likelihood, scale, beta and capacity that suit the data, with the reasons."""
    if not all(name in values["model"] for name in ADVISED):
        return
    latents = values["model"].get("latents", 10)
    question = json.dumps([values["data"], latents, values["max_steps"]], default=str)

    def ask() -> None:
        st.session_state[ADVICE] = (
            question,
            Job(lambda report: _suggest(values, latents, report), heavy=True),
        )

    asked, task = st.session_state.get(ADVICE, ("", None))
    st.button(
        "Suggest likelihood, scale and beta",
        icon=":material/lightbulb:",
        key="train-suggest",
        on_click=ask,
        help="Looks at 2,000 images of the data and proposes where to start, with the reasons.",
    )
    if task is None or asked != question:
        return
    if not task.wait(0.4):
        controls.watch(task)
        return
    if task.error:
        st.error(controls.plainly(task.error))
        return
    found = task.result
    ways = {
        "For detail": found.faithful,
        "For latents that mean something": found.separating,
        "By a capacity": found.annealed,
    }
    with st.container(horizontal=True, gap="xsmall"):
        for words, objective in ways.items():
            changed = advised(values, found, objective)
            if fits(changed):
                st.button(
                    words, key=f"train-advice-{objective.objective}-{words}", on_click=put, args=(changed,)
                )
    with st.expander("Reasons"):
        for name, text in found.reasons.items():
            st.markdown(f"**{name.capitalize()}**: {text}")


def _suggest(values: Mapping, latents: int, report: Any) -> Suggestion:
    from latentlab.analysis.suggestion import suggest
    from latentlab.data import DOWNLOADABLE, open_dataset

    report(0.1, "looking at some images …")
    name, options = values["data"]["name"], dict(values["data"]["options"])
    if name.partition(":")[0] in DOWNLOADABLE:
        options["download"] = False
    return suggest(open_dataset(name, **options), latents, int(values["max_steps"]))


def advised(values: Mapping, found: Suggestion, objective: Any) -> dict:
    """A spec with the suggestion's likelihood and scale, and one of its objectives."""
    changed = copy.deepcopy(dict(values))
    changed["model"].update({name: getattr(found.model, name) for name in ADVISED})
    changed["objective"] = {"objective": objective.objective, **dataclasses.asdict(objective)}
    return changed
