"""Arithmetic: an attribute's vector with the proof that it means something, and A - B + C on the present code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from latentlab.app import attempts, controls, kept_codes, sliders, state
from latentlab.app.attributes import Sum, factors_of, group_codes, groups_of, of_factor, of_groups
from latentlab.app.between import codes_of
from latentlab.app.calls import Call, Made
from latentlab.app.figures import Number, figure
from latentlab.app.jump import jumper
from latentlab.app.kept_codes import KeptCode
from latentlab.app.start import drawn_code, temperature
from latentlab.latents import Categorical, Codebook
from latentlab.models.contract import space_of

if TYPE_CHECKING:
    from latentlab.analysis.arithmetic import LatentArithmetic
    from latentlab.analysis.encoding import Encoding
    from latentlab.app.pull import Pull
    from latentlab.latents import LatentSpace
    from latentlab.runs import Run

FACTOR, GROUPS, CODES = "Factor", "Groups", "A − B + C"

STEPS = 7

_COUNT, _PLACE = "codes-put-aside", "arithmetic"

MODE_HELP = (
    "What is added to the present code. **Factor**: the mean code of images with a value of a factor minus that of "
    "images without. **Groups**: the same of two groups of the Map. **A − B + C**: any three codes or groups; what "
    "leads from B to C is added to A."
)
STRENGTH_HELP = (
    "How much of the way is gone: 1 is A − B + C itself, 0 leaves A as it is, below 0 goes backwards."
)
NO_ADDING = (
    "Categories and indices are not added: where A has that of B, the result takes that of C from strength ½ on; "
    "elsewhere it keeps A's."
)


def draw(
    run: Run,
    encoding: Encoding | None,
    pull: Pull | None,
    z: np.ndarray,
    edits: tuple,
    space: str | None,
) -> None:
    """The tab: what is added, what comes out, and codes put aside by name."""
    modes = modes_of(run, space)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        mode = controls.choice("Add", modes, "sum", MODE_HELP) if len(modes) > 1 else CODES
        strength = st.slider(
            "Strength",
            -2.0,
            2.0,
            1.0,
            0.1,
            key="strength",
            bind="query-params",
            help=STRENGTH_HELP,
            width=260,
        )
    summed = None
    with controls.one_sentence():
        if mode == FACTOR and encoding is None:
            st.info("Vectors of factors are made of the data's codes: once some images are encoded.")
        elif mode == FACTOR and encoding is not None:
            summed = of_factor(run, encoding, factors_of(encoding))
        elif mode == GROUPS:
            summed = of_groups(run)
        else:
            summed = _of_codes(run, space, z)
    if summed is not None:
        with controls.one_sentence():
            _result(run, encoding, pull, z, edits, space, summed, float(strength))
    attempts.say_what_went_wrong(_PLACE)
    _put_aside(run, z, space)


def modes_of(run: Run, space: str | None) -> list[str]:
    """What can be added here: the data's codes are known in the model's first space, where it encodes."""
    data = state.dataset_or_reason(run)[0]
    if space is not None or data is None or not state.encodes(run) or not _has_order(run.model.latent_space):
        return [CODES]
    return [*([FACTOR] if data.factor_space is not None else []), GROUPS, CODES]


def _has_order(place: LatentSpace) -> bool:
    return not all(isinstance(block.prior, (Categorical, Codebook)) for block in place.blocks)


def _has_support(run: Run, encoding: Encoding) -> bool:
    """Whether it can be measured how near data lie: not where most of their codes are alike."""

    def measured() -> bool:
        from latentlab.analysis.neighbourhood import Neighbourhood

        try:
            return Neighbourhood(run.model, encoding.mean).radius > 0.0
        except ValueError:
            return False

    return state.computed(run, "support", (encoding.n, state.data_key(run)), measured)


def _of_codes(run: Run, space: str | None, z: np.ndarray) -> Sum | None:
    """Any three codes or groups."""
    offered = _operands(run, space, z)
    names = list(offered)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        a = controls.menu("A", names, 0, "sum-a", "The code that is changed.")
        b = controls.menu("− B", names, min(1, len(names) - 1), "sum-b", "What is taken away.")
        c = controls.menu("+ C", names, min(2, len(names) - 1), "sum-c", "What is added.")
    if b == c:
        st.info("B and C are the same, so nothing would be added; choose two.")
        return None
    return Sum(offered[b], offered[c], offered[a])


def _operands(run: Run, space: str | None, z: np.ndarray) -> dict[str, Any]:
    """What A, B and C may be, by name: the present code, one that was kept or drawn, the codes of a group."""
    here, first = space_of(run.model, space).name, run.model.latent_space.name
    seed, found = int(st.session_state["seed"]), dict[str, Any]({kept_codes.PRESENT: z})
    for code in _kept(run):
        # A name that a file from elsewhere gives, and that stands for something else here, is told apart.
        name = f"{code.name} (kept)" if kept_codes.is_reserved(code.name) else code.name
        if code.space == here:
            found[name] = code.z
        elif code.space == first:
            found[name] = sliders.carried(run, code.z, here)
    if state.encodes(run) and here == first and state.dataset_or_reason(run)[0] is not None:
        for group in groups_of(run):
            found[f"{group.name} (group)"] = group_codes(run, group)
    for other in (seed + 1, seed + 2):
        found[f"Seed {other}"] = sliders.carried(run, drawn_code(run, other, temperature(run)), here)
    return found


def _result(
    run: Run,
    encoding: Encoding | None,
    pull: Pull | None,
    z: np.ndarray,
    edits: tuple,
    space: str | None,
    summed: Sum,
    strength: float,
) -> None:
    """The pictures of A, B, C and the result, and what can be done with it."""
    place = space_of(run.model, space)
    options: dict[str, Any] = {"strength": strength, "steps": STEPS}
    if space is not None:
        options["space"] = space
    if edits:
        options["edits"] = edits
    near = codes_of(encoding) if encoding is not None and _has_support(run, encoding) else None
    if near is not None:
        options["data_codes"] = near
    start = z if summed.start is None else summed.start
    choose = jumper(run, pull, space)
    call = Call(run, "latent_arithmetic", (start, summed.less, summed.more), options)
    found: LatentArithmetic | None = figure(
        call,
        "A, B, C and the result, and the way from A to the result",
        {
            "Image changes by": Number(("certificate", "change"), "{:.3f}"),
            "random moves of that length": Number(("certificate", "random_change"), "{:.3f}", sometimes=True),
            "Fewest codes near": Number(("certificate", "least_neighbours"), "{:.0f}", sometimes=True),
        },
        key="latent-arithmetic",
        background=isinstance(summed.less, Made) or isinstance(summed.more, Made),
        choose=choose,
    )
    if found is None:
        return
    words = []
    if near is not None:
        words.append(
            "Near: how many codes of the data lie as close as a typical code's tenth neighbour: about ten where data "
            "is typical, 0 where there is none and the picture is a guess."
        )
    if any(isinstance(block.prior, (Categorical, Codebook)) for block in place.blocks):
        words.append(NO_ADDING)
        if found.swapped:
            shown = ", ".join(found.swapped[:6]) + (" …" if len(found.swapped) > 6 else "")
            words.append(f"Taken over here: {controls.plainly(shown)}.")
    if words:
        st.caption(" ".join(words))
    with st.container(horizontal=True, gap="small"):
        if choose is None:
            st.caption("Single layers of styles have no sliders, so this result can't be put there.")
        else:
            st.button(
                "Put the result on the sliders",
                key="sum-put",
                on_click=choose,
                args=(found.result,),
                help="The sliders above take the result, as one step that can be undone.",
            )
        if summed.vector is not None:
            vector = summed.vector
            st.button(
                "Keep as a direction",
                key="sum-direction",
                on_click=attempts.attempt,
                args=(_PLACE, state.save_direction, run, vector.direction),
                help="It then stands under Directions above, as a slider in steps of one standard deviation.",
            )


def _kept(run: Run) -> tuple[KeptCode, ...]:
    with controls.one_sentence():
        return kept_codes.load_codes(kept_codes.codes_file(state.workspace(), run))
    return ()


def _put_aside(run: Run, z: np.ndarray, space: str | None) -> None:
    """Keeps the present code by a name, and shows those that were kept."""
    codes, count = _kept(run), int(st.session_state.get(_COUNT, 0))
    path = kept_codes.codes_file(state.workspace(), run)
    with st.expander(f"Codes put aside ({len(codes)})", key="codes-aside"):
        with st.form("aside-form", border=False):
            with st.container(horizontal=True, vertical_alignment="bottom"):
                name = st.text_input(
                    "Name of the present code",
                    placeholder="such as: thin seven",
                    max_chars=kept_codes.LONGEST_NAME,
                    key=f"aside-name-{count}",  # another widget, so empty, once a code was kept
                )
                given = st.form_submit_button("Put aside")
        if given:
            with controls.one_sentence():
                code = KeptCode(name, space_of(run.model, space).name, z)
                kept_codes.keep_code(path, code)
                st.session_state[_COUNT] = count + 1
                attempts.forget_what_went_wrong(_PLACE)
                st.rerun()
        for i, code in enumerate(codes):
            with st.container(horizontal=True, vertical_alignment="center"):
                st.text(f"{code.name} · {code.space.upper()}, {len(code.z)} numbers", width="stretch")
                st.button(
                    "Forget",
                    key=f"aside-drop-{i}",
                    on_click=attempts.attempt,
                    args=(_PLACE, kept_codes.forget_code, path, code.name),
                )
        if not codes:
            st.caption(
                "Name the code on the sliders to use it as A, B or C later; it stays with these weights."
            )


__all__ = ["draw"]
