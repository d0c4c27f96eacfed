"""Sharing: a page's state is put into a link, and taken out of one when the page is opened by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import streamlit as st

from latentlab.app import components, controls, lattice, permalink, placing, state
from latentlab.app.components.mount import saved
from latentlab.app.permalink import View

if TYPE_CHECKING:
    from latentlab.app.pull import Pull
    from latentlab.app.ranges import Ranges
    from latentlab.models.edits import Edit
    from latentlab.runs import Run

PARAMETER = "view"
PAGES = ("traverse", "layers")
"""Pages whose state is more than their address says."""

_SEEN, _REFUSED = "views-seen", "view-refused"
_MOST_SEEN = 64


def gather(run: Run) -> View:
    """What a link to the present page has to carry."""
    held, layers = placing.present(run), saved("open", "state") or {}
    unit, stage = layers.get("unit"), layers.get("stage")
    looked_at = isinstance(unit, int) and not isinstance(unit, bool) and isinstance(stage, str)
    view = View(
        run=str(st.session_state["run"]),
        weights=permalink.short(run.digest),
        edits=state.edits_of(run),
        keep_edits=bool(st.session_state.get("keep-edits", False)),
        stage=stage if looked_at else None,
        unit=unit if looked_at else None,
    )
    stands = lattice.present(run)
    if stands is not None:
        view = replace(view, plane=(stands.lattice.first, stands.place.x, stands.place.y))
    if held is None:
        return view
    pull = held.pull
    return replace(
        view,
        z=held.z,
        slots=held.slots,
        locks=tuple(sorted(held.locks)),
        seed=held.seed,
        ranges=held.ranges,
        space=None if pull is None else pull.space,
        directions=() if pull is None else tuple((d.name, permalink.fingerprint(d)) for d in pull.directions),
        cutoff=None if pull is None else pull.cutoff,
    )


def follow() -> None:
    """Takes the state that the address carries over into the session, once, before any widget is drawn."""
    text = st.query_params.get(PARAMETER)
    if text is None or text in st.session_state.get(_SEEN, ()):
        return
    _remember(text)
    st.session_state.pop(_REFUSED, None)
    try:
        view = permalink.decode(text)
        run, held = checked(view)
    except state.USER_ERRORS as error:
        st.session_state[_REFUSED] = str(error)
        del st.query_params[PARAMETER]
        return
    st.session_state["run"] = view.run
    state.set_edits(run, view.edits)
    if any(edit.network == "generator" for edit in view.edits):
        st.session_state["keep-edits"] = view.keep_edits
    if view.unit is not None:
        st.session_state["open"] = {"state": {"stage": view.stage, "unit": view.unit}}
    if view.plane is not None:
        first, x, y = view.plane
        space = run.model.latent_space.name if held is None or held.pull is None else held.pull.space
        lattice.restore(lattice.Lattice(run.digest, space, first), components.Place(x, y))
    if held is not None:
        placing.restore(held)
        if held.pull is not None:
            st.session_state["space"] = held.pull.space
            st.session_state["directions"] = [d.name for d in held.pull.directions]


def _remember(text: str) -> None:
    """Notes a state that the session has held, so that its address is not taken for a new link; the last ones do."""
    others = [other for other in st.session_state.get(_SEEN, ()) if other != text]
    st.session_state[_SEEN] = [*others, text][-_MOST_SEEN:]


def refusal() -> None:
    """Says what was wrong with the link that the page was opened by, until it is put away."""
    sentence = st.session_state.get(_REFUSED)
    if sentence is None:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.warning(f"{controls.plainly(sentence)} The page is shown without it.")
        st.button(
            "Close",
            key="close-refusal",
            type="tertiary",
            on_click=st.session_state.pop,
            args=(_REFUSED, None),
        )


def checked(view: View) -> tuple[Run, placing.Held | None]:
    """The run that a view is of, and what its sliders hold, if all of it fits.

    Raises:
        ValueError: if the run isn't here or has other weights, or the view names what the model does not have.
        OSError: if the run can't be read.
    """
    asked = st.query_params.get("run", view.run)
    if asked != view.run:
        raise ValueError(
            f"The link's state is of the run {view.run[:60]!r}, but the address asks for {asked[:60]!r}."
        )
    summary = state.runs().get(view.run)
    if summary is None or not summary.has_weights:
        raise ValueError(f"The link is about the run {view.run[:60]!r}, which is not here.")
    run = state.open_run(view.run)
    if permalink.short(run.digest) != view.weights:
        raise ValueError(
            f"The link was made with other weights of {view.run!r} ({view.weights[:10]}; here {run.digest[:10]})."
        )
    shapes = _shapes(run)
    for edit in view.edits:
        _check_edit(edit, shapes)
    if view.edits:
        from latentlab.app.inside.recipe import check_fits

        _decodable("edits", lambda: check_fits(run, view.edits))
    if view.unit is not None and not (
        view.stage in shapes and shapes[view.stage] and view.unit < shapes[view.stage][0]
    ):
        raise ValueError(
            f"The link looks at unit {view.unit} of {str(view.stage)[:60]!r}, which this model has not."
        )
    if view.plane is not None:
        _check_plane(*view.plane)
    return run, None if view.z is None else _held(view, run)


def _shapes(run: Run) -> dict[str, tuple[int, ...]]:
    """The shape of each stage's state, by address."""
    from latentlab import analysis

    networks = tuple(run.model.networks)
    infos = state.computed(
        run, "stages", networks, lambda: [(n, analysis.stages_of(run.model, n)) for n in networks]
    )
    return {info.address: tuple(info.shape) for _, members in infos for info in members}


def _check_edit(edit: Edit, shapes: dict[str, tuple[int, ...]]) -> None:
    if edit.stage not in shapes:
        raise ValueError(f"The link edits the stage {edit.stage[:60]!r}, which this model has not.")
    shape = shapes[edit.stage]
    if edit.units and (not shape or edit.units[-1] >= shape[0]):
        raise ValueError(
            f"The link edits unit {edit.units[-1]} of {edit.stage!r}, which has {shape[0] if shape else 0} units."
        )
    if edit.region is not None and len(shape) != 3:
        raise ValueError(f"The link edits a region of {edit.stage!r}, which has no map.")


def _check_plane(first: int, x: float, y: float) -> None:
    last = lattice.SIDE - 1
    if not (first <= controls.LARGEST_SEED and 0.0 <= x <= last and 0.0 <= y <= last):
        raise ValueError(f"The link stands beside the seed plane, which reaches from 0 to {last}.")


def _check_ranges(ranges: Ranges, run: Run, pull: Pull | None, dim: int) -> None:
    from latentlab.latents import Categorical, Codebook

    space = run.model.spaces[run.model.latent_space.name if pull is None else pull.space]
    for index, low, high in ranges.own:
        if index >= dim:
            raise ValueError(f"The link sets the range of a slider that is not there; there are {dim}.")
        prior = space.block_of(index).prior if index < space.dim else None
        if isinstance(prior, Categorical):
            raise ValueError(f"The link sets the range of a category, {space.block_of(index).name!r}.")
        if isinstance(prior, Codebook) and not (
            low.is_integer() and high.is_integer() and 0 <= low and high < prior.size
        ):
            raise ValueError(
                f"The link's range of {space.names[index]!r} is none of its {prior.size} indices."
            )


def _held(view: View, run: Run) -> placing.Held:
    """What the sliders hold, as the view says."""
    assert view.z is not None
    pull, dim = _pull(view, run), run.model.latent_space.dim
    if pull is not None:
        dim = pull.dim(run.model)
    if view.z.shape != (dim,):
        raise ValueError(f"The link's code has {len(view.z)} numbers; the sliders here take {dim}.")
    if any(slot is not None and slot.shape != (dim,) for slot in view.slots):
        raise ValueError(f"The link's A or B has not the {dim} numbers that the sliders here take.")
    if not all(0 <= lock < dim for lock in view.locks):
        raise ValueError(f"The link locks a slider that is not there; there are {dim}.")
    _check_ranges(view.ranges, run, pull, dim)
    from latentlab.app import sliders

    for numbers in (view.z, *view.slots):
        if numbers is not None:
            _decodable("code", lambda numbers=numbers: sliders.decoded(run, pull, numbers, ()))
    return placing.Held(run.digest, pull, None, view.z, view.locks, view.slots, view.seed, view.ranges)


def _pull(view: View, run: Run) -> Pull | None:
    if view.space is None:
        if view.directions or view.cutoff is not None:
            raise ValueError("The link's state is damaged: its sliders have no space.")
        return None
    from latentlab.app import sliders
    from latentlab.app.pull import Pull

    if not sliders.holds(run, view.space):
        raise ValueError(f"The link pulls codes of {view.space[:40]!r}, for which this model has no sliders.")
    known, found = {d.name: d for d in state.directions(run)}, []
    for name, mark in view.directions:
        if name not in known:
            raise ValueError(f"The link pulls the direction {name[:60]!r}, which is not saved here.")
        if permalink.fingerprint(known[name]) != mark:
            raise ValueError(f"The link pulls a direction {name[:60]!r} that is not the one saved here.")
        found.append(known[name])
    if len({d.name for d in found}) < len(found):
        raise ValueError("The link pulls a direction twice.")
    return Pull(view.space, tuple(found), view.cutoff)


def _decodable(what: str, call: Callable[[], object]) -> None:
    try:
        call()
    except state.USER_ERRORS:
        raise
    except Exception as error:  # a model of a user's own may fail in any way on numbers that nobody dragged
        raise ValueError(
            f"The link's {what} can't be drawn by this model ({type(error).__name__})."
        ) from None


def keep(run: Run) -> None:
    """Lets an address that carries a state follow what a person changes, so that a reload gives it back."""
    if PARAMETER not in st.query_params:
        return
    try:
        text = permalink.encode(gather(run))
    except ValueError:
        del st.query_params[PARAMETER]
        return
    _remember(text)
    if st.query_params[PARAMETER] != text:
        st.query_params[PARAMETER] = text


@st.fragment
def button(page: str) -> None:
    """The button that copies a link to the page."""
    address = st.session_state.get("run")
    if address is None:
        return

    def make() -> str:
        try:
            return permalink.encode(gather(state.open_run(address)))
        except OSError as error:
            raise ValueError(str(error)) from None

    components.share(PARAMETER, make if page in PAGES else None, run=address, key="share")


def leave(page: str) -> None:
    """Drops the state from the address of a page that has none."""
    if page not in PAGES and PARAMETER in st.query_params:
        del st.query_params[PARAMETER]
