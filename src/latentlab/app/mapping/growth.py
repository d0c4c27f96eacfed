"""A map that grows while it is looked at: pieces are encoded, placed and measured one after the other.

Each piece is a job of its own of a few seconds, so that other computations get their turn and whoever leaves the page
leaves nothing running.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import streamlit as st

from latentlab.app import controls, engine, state
from latentlab.app.mapping.codes import FIRST, PIECE, CodeStore

if TYPE_CHECKING:
    from latentlab.app.mapping.view import MapView
    from latentlab.runs import Run

CODES, ERRORS, PLACES = "map-codes", "map-errors", "map-places"


def next_mark(shown: int, wanted: int) -> int:
    """How many points the map shows next: it is sent anew a few times only, however far it grows."""
    if shown < FIRST:
        return min(FIRST, wanted)
    if shown < PIECE:
        return min(PIECE, wanted)
    return min(max(2 * PIECE, 2 * shown // PIECE * PIECE), wanted)


def first_codes(run: Run, store: CodeStore, rows: int) -> bool:
    """Waits for the first codes, with a bar; whether they are there."""
    while store.count < rows:
        begin = store.count
        task = state.job(run, CODES, begin, store.extend, heavy=True)
        if controls.await_job(run, CODES, begin, task) is None:
            return False
        state.forget_job(run, CODES, begin)
        if store.count == begin:
            return False
    return True


@st.fragment(run_every=1.0)
def growing(view: MapView, errors: bool = False, measured: int = 0) -> None:
    """Goes on with the next piece, says how far it is, and redraws the page when there is more to show.

    Args:
        view: the map.
        errors: measure reconstruction errors of the points shown, too.
        measured: how many of them the map shows now.
    """
    store, layout = view.store, view.layout
    flag = f"stopped-{view.identity}"
    mark = next_mark(view.n, view.wanted)
    behind_errors = errors and store.measured < view.n
    placed = store.count if layout.quick else layout.count
    if view.n < view.wanted and min(store.count, placed) >= mark:
        st.rerun()
    if errors and store.measured > measured and store.measured >= min(view.n, 2 * measured):
        st.rerun()
    if view.n >= view.wanted and not behind_errors:
        return
    question, begin, work, what = _next(view, mark, behind_errors)
    done, total = (
        (store.measured, view.n)
        if question == ERRORS
        else (layout.count if question == PLACES else store.count, view.wanted)
    )
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if st.session_state.get(flag):
            st.caption(f"Stopped: {done:,} of {total:,} images {what}. They are kept.")
            st.button("Go on", key="grow-on", on_click=lambda: st.session_state.pop(flag, None))
            return
        task = state.job(view.at, question, begin, work, heavy=True)
        task.audience.add(engine.current_owner() or "")
        if task.done:
            state.forget_job(view.at, question, begin)
            if task.error:
                st.session_state[flag] = True
                st.error(controls.plainly(task.error))
                return
        st.progress(done / max(total, 1), text=_words(view, question, what, done, total), width="stretch")
        st.button("Stop", key="grow-stop", on_click=_stop, args=(flag, task))


def _next(view: MapView, mark: int, behind_errors: bool):
    """The next piece: its question, where it begins, what does it, and what it is called."""
    store, layout = view.store, view.layout
    if behind_errors:
        return ERRORS, store.measured, store.measure, "decoded"
    if store.count < mark:
        return CODES, store.count, store.extend, "encoded"
    return PLACES, layout.count, lambda report: layout.place(mark, report), "placed"


def _stop(flag: str, task: state.Job) -> None:
    st.session_state[flag] = True
    task.cancel()


def _words(view: MapView, question: str, what: str, done: int, total: int) -> str:
    now = time.monotonic()
    name, begun, start = st.session_state.get("map-pace", ("", now, done))
    if name != f"{view.identity}-{question}":
        name, begun, start = f"{view.identity}-{question}", now, done
    st.session_state["map-pace"] = (name, begun, start)
    words = f"{done:,} of {total:,} images {what}"
    if done > start and now > begun + 1:
        left = (total - done) * (now - begun) / (done - start)
        words += f", about {_time(left)} left"
    return words + ("; the grey points follow" if question == ERRORS else "; the map grows meanwhile")


def _time(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(1, round(seconds / 5) * 5)} s"
