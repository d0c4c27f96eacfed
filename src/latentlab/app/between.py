"""Between: the images on ways from code A to code B, and how many codes of the data lie near each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from latentlab.app import controls, state
from latentlab.app.calls import Call, Made
from latentlab.app.figures import Number, figure
from latentlab.app.start import drawn_code, temperature
from latentlab.latents import Codebook, Normal
from latentlab.models.contract import space_of

if TYPE_CHECKING:
    from latentlab.analysis.encoding import Encoding
    from latentlab.app.jump import Choose
    from latentlab.runs import Run

WAYS = {"Straight": "lerp", "Great circle": "slerp", "Geodesic": "geodesic"}
WAYS_HELP = (
    "**Straight**: each number in equal steps. **Great circle**: at the distance from the origin where normal codes "
    "lie. **Geodesic**: the way on which the images change least; it takes a while."
)


def draw(
    run: Run,
    encoding: Encoding | None,
    z: np.ndarray,
    edits: tuple,
    space: str | None,
    slots: Sequence[np.ndarray | None],
    choose: Choose | None = None,
) -> None:
    """Strips from A to B, one a way; ``choose`` is told the code whose image was clicked."""
    place = space_of(run.model, space)
    if any(isinstance(block.prior, Codebook) for block in place.blocks):
        st.info("There is no way between the indices of a codebook; pull one index at a time.")
        return
    a, b = slots
    if a is None or b is None:
        st.caption(
            "Keep two codes with the buttons A and B above; until then the way leads from the present code to one "
            "drawn by the next seed."
        )
    start = z if a is None else a
    end = another(run, place.name) if b is None else b
    if np.array_equal(start, end):
        st.info("A and B are the same code; move a slider and press B with Shift.")
        return
    ways = [w for w in WAYS if w != "Great circle" or any(isinstance(p.prior, Normal) for p in place.blocks)]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.pills(
            "Ways",
            ways,
            default=ways[:2],
            selection_mode="multi",
            key="ways",
            bind="query-params",
            help=WAYS_HELP,
        )
        steps = st.select_slider(
            "Steps", range(5, 16, 2), value=9, key="path-steps", bind="query-params", width=180
        )
    options: dict[str, Any] = {"edits": edits} if edits else {}
    if space is not None:
        options["space"] = space
    near = codes_of(encoding)
    if near is not None:
        options["data_codes"] = near
    for way in (w for w in ways if w in chosen):
        with controls.one_sentence():
            st.markdown(f"**{way}**")
            _strip(run, WAYS[way], start, end, int(steps), options, choose)
    if near is not None:
        st.caption(
            "Near: how many codes of the data lie as close to this one as a typical code's tenth neighbour: about "
            "ten where data is typical, 0 where there is none."
        )


def _strip(
    run: Run,
    method: str,
    start: np.ndarray,
    end: np.ndarray,
    steps: int,
    options: dict[str, Any],
    choose: Choose | None,
) -> None:
    figure(
        Call(run, "interpolate", (start, end, steps, method), options, progress=method == "geodesic"),
        f"Images from A to B, {method}",
        {
            "Length in images": Number(("certificate", "image_length"), "{:.3f}"),
            "Fewest codes near": Number(("certificate", "least_neighbours"), "{:.0f}", sometimes=True),
            "Length, straight way 1": Number(("certificate", "length_ratio"), "{:.3f}", sometimes=True),
        },
        key=f"path-{method}",
        background=method == "geodesic",
        choose=choose,
    )


def another(run: Run, space: str) -> np.ndarray:
    """A code drawn by the seed after the sidebar's, carried to a space."""
    from latentlab.analysis.inference import carry, device_of, to_numpy, to_tensor

    code = drawn_code(run, int(st.session_state["seed"]) + 1, temperature(run))
    return to_numpy(carry(run.model, to_tensor(code[None], device_of(run.model)), space))[0]


def codes_of(encoding: Encoding | None) -> Made | None:
    """The codes of the data, as an argument; None where none were encoded."""
    if encoding is None:
        return None
    return Made(
        "encoding.mean",
        lambda: encoding.mean,
        (
            "data = run.dataset()",
            f"encoding = latentlab.encode_dataset(run.model, data, {state.ENCODED})",
        ),
    )


__all__ = ["draw"]
