"""Share: the button that copies a link to the page as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import streamlit as st

from latentlab.app.components.mount import nothing, register

_component = register("share")


def share(parameter: str, make: Callable[[], str] | None, *, run: str, key: str) -> None:
    """Draws the button.

    Args:
        parameter: the address's parameter that holds the state.
        make: gives its value, when a link is asked for; raises ValueError with one sentence. None for a page whose
            address says all.
        run: address of the run, which the link names even where it is the default.
        key: Streamlit's key, unique on the page.
    """
    held = st.session_state.get(key)
    asked = held.get("asked") if isinstance(held, Mapping) else None
    answer = None
    if isinstance(asked, int) and not isinstance(asked, bool) and make is not None:
        try:
            answer = {"serial": asked, "text": make(), "error": ""}
        except ValueError as error:
            answer = {"serial": asked, "text": "", "error": str(error)}
    _component(
        key=key,
        data={"parameter": parameter, "run": run, "plain": make is None, "answer": answer},
        on_asked_change=nothing,
        on_state_change=nothing,
    )
