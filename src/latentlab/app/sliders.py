"""Sliders: which numbers a person pulls: coordinates of one of the model's spaces, and steps along saved directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from latentlab.app import controls, state
from latentlab.app.pull import W_PLUS, Pull

if TYPE_CHECKING:
    from latentlab.analysis.encoding import Encoding
    from latentlab.app.components import Axis
    from latentlab.app.start import Start
    from latentlab.models.edits import Edit
    from latentlab.runs import Run

STYLES = W_PLUS
REACH = 3.0  # steps to either side along a direction
SHOWN = 8  # coordinates of W at first
THUMBNAILS = 32  # sliders whose ends are shown
LARGEST_THUMBNAIL = 128  # pixels; larger pictures would take longer than a person waits after each move

SPACE_HELP = (
    "**Z** is where codes are drawn from. **W** is what the mapping network makes of them: there the generator's "
    "styles can be pulled one by one."
)
DIRECTIONS_HELP = "Directions saved on the Layers page, each as a slider in steps of one standard deviation."


def chosen(run: Run) -> Pull | None:
    """The space and the directions that a person chose; None for codes of the first space alone."""
    first = run.model.latent_space.name
    offered = [name for name in run.model.spaces if name != STYLES]
    space = first
    if len(offered) > 1:
        if st.session_state.get("space") not in (None, *offered):
            del st.session_state["space"]
        space = st.segmented_control(
            "Space",
            offered,
            default=first,
            required=True,
            key="space",
            bind="query-params",
            format_func=str.upper,
            help=SPACE_HELP,
        )
    reached = list(run.model.spaces)[list(run.model.spaces).index(space) :]
    known = {d.name: d for d in state.directions(run) if d.space is None or d.space in reached}
    names: list[str] = []
    if known:
        st.session_state["directions"] = [n for n in st.session_state.get("directions", ()) if n in known]
        names = st.multiselect("Directions", list(known), key="directions", help=DIRECTIONS_HELP, width=360)
    if space == first and not names:
        return None
    return Pull(space, tuple(known[name] for name in names))


def numbers(run: Run, pull: Pull | None, start: Start) -> np.ndarray:
    """Where the sliders start: the start's code in their space, and no step along any direction."""
    if pull is None:
        return start.z
    return np.concatenate([_carried(run, start.z, pull.space), np.zeros(len(pull.directions), np.float32)])


def _carried(run: Run, z: np.ndarray, space: str) -> np.ndarray:
    from latentlab.analysis.inference import carry, device_of, to_numpy, to_tensor

    return to_numpy(carry(run.model, to_tensor(z[None], device_of(run.model)), space))[0]


def axes(run: Run, pull: Pull | None, encoding: Encoding | None, start: Start) -> list[Axis]:
    """The sliders of the chosen space, then one for each direction."""
    from latentlab.app.components import Axis

    if pull is None:
        return controls.sliders(run, encoding, start)
    if pull.space == run.model.latent_space.name:
        found = controls.sliders(run, encoding, start)
    else:
        found = _mapped(run, pull.space, _carried(run, start.z, pull.space))
    own = run.model.spaces[pull.space].dim
    steps = [
        Axis(
            index=own + i,
            name=direction.name,
            low=-REACH,
            high=REACH,
            std=1.0,
            group="Directions",
            help=_words(direction),
        )
        for i, direction in enumerate(pull.directions)
    ]
    return [*steps, *found]


def _words(direction) -> str:
    where = direction.stage or (direction.space or "").upper()
    layers = "" if direction.layers is None else f", layers {', '.join(map(str, direction.layers))}"
    return f"{direction.method or 'direction'} in {where}{layers}; one step is a standard deviation"


def _mapped(run: Run, space: str, code: np.ndarray) -> list[Axis]:
    """Sliders of a space that codes are carried to, widest first; the narrow ones folded."""
    from latentlab.app.components import Axis

    place, ranges = run.model.spaces[space], _ranges(run, space)
    order = np.argsort(-(ranges[:, 1] - ranges[:, 0]), kind="stable")
    return [
        Axis(
            index=int(i),
            name=place.names[i],
            low=float(min(ranges[i, 0], code[i])),
            high=float(max(ranges[i, 1], code[i])) + 1e-6,
            default=float(code[i]),
            std=float((ranges[i, 1] - ranges[i, 0]) / 4.65),  # 98 % of a normal spans so many
            group=space.upper(),
            help="An axis of W: the widest come first",
        )
        for i in order
    ]


def _ranges(run: Run, space: str) -> np.ndarray:
    from latentlab.analysis import dim_ranges

    return state.computed(
        run, "ranges", space, lambda: dim_ranges(run.model, span="prior", coverage=0.98, space=space)
    )


def widest(run: Run, space: str) -> list[str]:
    """The coordinates of a space that codes are carried to which vary most."""
    ranges, place = _ranges(run, space), run.model.spaces[space]
    return [place.names[int(i)] for i in np.argsort(ranges[:, 0] - ranges[:, 1], kind="stable")[:SHOWN]]


def decoded(run: Run, pull: Pull | None, z: np.ndarray, edits: tuple[Edit, ...]) -> np.ndarray:
    """The image (channels, height, width) of the sliders' numbers, where there is no live session."""
    import torch

    from latentlab import analysis
    from latentlab.analysis.inference import device_of, to_numpy, to_tensor

    if pull is None:
        return analysis.decode_latents(run.model, z[None], edits=edits)[0]
    with torch.inference_mode():
        return to_numpy(pull.decode(run.model, to_tensor(z[None], device_of(run.model)), edits))[0]


def ends(
    run: Run, pull: Pull | None, found: list[Axis], z: np.ndarray, edits: tuple[Edit, ...]
) -> tuple[list[int], np.ndarray]:
    """The coordinates of up to ``THUMBNAILS`` sliders, and the images (k, 2, channels, height, width) of their ends."""
    shown = [axis for axis in found if not axis.choices and not axis.inactive][:THUMBNAILS]
    channels, high, wide = run.model.image_shape
    if not shown or max(high, wide) > LARGEST_THUMBNAIL:
        return [], np.zeros((0, 2, channels, high, wide), np.float32)
    codes = np.repeat(z[None], 2 * len(shown), axis=0)
    for i, axis in enumerate(shown):
        codes[2 * i, axis.index], codes[2 * i + 1, axis.index] = axis.low, axis.high
    if pull is None:
        from latentlab import analysis

        pictures = analysis.decode_latents(run.model, codes, edits=edits)
    else:
        pictures = np.stack([decoded(run, pull, code, edits) for code in codes])
    while pictures.shape[-1] > 32 and not pictures.shape[-1] % 2 and not pictures.shape[-2] % 2:
        pictures = (pictures[..., ::2, :] + pictures[..., 1::2, :]) / 2
        pictures = (pictures[..., ::2] + pictures[..., 1::2]) / 2
    return [axis.index for axis in shown], pictures.reshape(len(shown), 2, *pictures.shape[1:])


def held_code(run: Run, pull: Pull, z: np.ndarray) -> tuple[np.ndarray, str | None]:
    """The code that the sliders' numbers stand for, and its space; None for the model's first one."""
    import torch

    from latentlab.analysis.inference import device_of, to_numpy, to_tensor

    with torch.inference_mode():
        code, space = pull.code(run.model, to_tensor(z[None], device_of(run.model)))
    return to_numpy(code)[0], None if space == run.model.latent_space.name else space
