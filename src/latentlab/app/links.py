"""Links between pages: an address that makes choices on the page it opens."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import streamlit as st
from streamlit.errors import StreamlitAPIException

from latentlab.app import state
from latentlab.app.start import WAYS

LINK = "to-"


def link(**choices: Any) -> dict[str, str]:
    """The address part of a link between pages that makes these choices there (``follow_link``)."""
    return {LINK + name: str(value) for name, value in choices.items()}


def follow_link() -> None:
    """Takes the choices that a link names over into the session, before any widget is drawn.

    Links have parameters of their own: while a widget lives, Streamlit prefers what it holds to what a link
    says, and drops from addresses what equals a widget's default.
    """
    known = {
        "run": lambda text: text if text in state.runs() else None,
        "start": lambda text: text if text in WAYS else None,
        "image": lambda text: int(text) if text.isdecimal() else None,
        "z": str,
    }
    for name, read in known.items():
        if LINK + name not in st.query_params:
            continue
        value = read(st.query_params[LINK + name])
        del st.query_params[LINK + name]
        if value is not None:
            st.session_state[name] = value
            with suppress(StreamlitAPIException):  # its widget still lives and will say so itself
                st.query_params[name] = str(value)
