"""What a button could not do, told in one sentence on the page that has the button."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from latentlab.app import controls
from latentlab.app.jobs import USER_ERRORS


def attempt(place: str, act: Callable[..., object], *arguments: Any) -> None:
    """Does what a button says, for its ``on_click``; what went wrong stands there until a button does its work.

    Args:
        place: names the part of the page that tells it, by ``say_what_went_wrong``.
        act: what to do.
        arguments: with what.
    """
    forget_what_went_wrong(place)
    try:
        act(*arguments)
    except OSError as error:
        reason = str(error.strerror or error).rstrip(".")
        st.session_state[_key(place)] = f"Nothing was saved: {reason}."
    except USER_ERRORS as error:
        st.session_state[_key(place)] = str(error)


def say_what_went_wrong(place: str) -> None:
    """Tells why the last button of a place did nothing, if it did not."""
    if _key(place) in st.session_state:
        st.error(controls.plainly(st.session_state[_key(place)]))


def forget_what_went_wrong(place: str) -> None:
    """Takes the sentence away."""
    st.session_state.pop(_key(place), None)


def _key(place: str) -> str:
    return f"{place}-went-wrong"
