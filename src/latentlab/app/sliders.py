"""Sliders: what a person pulls: coordinates of one of the model's spaces, steps along directions, truncation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from latentlab.app import controls, placing, state
from latentlab.app.pull import W_PLUS, Pull
from latentlab.app.start import temperature, temperature_slider
from latentlab.latents.blending import has_temperature

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
PSI_HELP = (
    "ψ draws the style towards the mean of all styles: below 1 pictures become cleaner and more alike, what is rare is "
    "lost; 1 leaves the style as it is; 0 is the same mean picture for every code."
)
CUTOFF_HELP = (
    "How many layers the truncation slider ψ acts on, counted from the first. The first layers decide the coarse "
    "shape, the last ones fine strokes: truncating the first alone keeps the shape typical and the details varied."
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
    cutoff = _cutoff(run)
    if space == first and not names and cutoff is None:
        return None
    return Pull(space, tuple(known[name] for name in names), cutoff)


def heat_of_dice(run: Run) -> None:
    """The temperature at which the dice draw, where it does not already stand beside the seed."""
    if st.session_state.get("start") != "Seed":
        temperature_slider(run)


def _cutoff(run: Run) -> int | None:
    """How many of the first layers are truncated, 0 for all; None for a model that can't be truncated."""
    if not hasattr(run.model, "truncate"):
        return None
    layers = len(run.model.spaces[STYLES].blocks)
    if st.session_state.get("cutoff") not in (None, *range(1, layers + 1)):
        del st.session_state["cutoff"]

    def cutoff(chosen: int) -> int:
        return 0 if chosen == layers else int(chosen)

    def changed() -> None:  # the sliders stay where they are
        now = placing.present(run)
        if now is not None and now.pull is not None:
            placing.put(run, replace(now.pull, cutoff=cutoff(st.session_state["cutoff"])), now.z)

    return cutoff(
        st.select_slider(
            "ψ on the first layers",
            range(1, layers + 1),
            value=layers,
            key="cutoff",
            bind="query-params",
            format_func=lambda k: "all" if k == layers else str(k),
            on_change=changed,
            help=CUTOFF_HELP,
            width=200,
        )
    )


def put(
    run: Run, pull: Pull | None, code: np.ndarray, space: str, rest: Sequence[float] | None = None
) -> None:
    """Puts a code of a space on the sliders, which then show that space.

    Args:
        run: whose sliders.
        pull: what they stand for now.
        code: (dim,) of the space.
        space: its name; ``holds`` tells whether there are sliders for it.
        rest: steps along the directions, then psi; no steps and a psi of 1 by default.
    """
    order = list(run.model.spaces)
    if space != (order[0] if pull is None else pull.space):
        reached = order[order.index(space) :]
        old = () if pull is None else pull.directions
        kept = tuple(d for d in old if d.space is None or d.space in reached)
        pull = Pull(space, kept, None if pull is None else pull.cutoff)
    if len(order) > 1:
        st.session_state["space"] = space
    placing.put(run, pull, _filled(np.asarray(code, np.float32), pull, rest))


def holds(run: Run, space: str) -> bool:
    """Whether there are sliders for codes of a space: single layers of styles have none."""
    return space in run.model.spaces and space != STYLES


def numbers(run: Run, pull: Pull | None, start: Start) -> np.ndarray:
    """The start's code in the sliders' space, with no step along any direction."""
    if pull is None:
        return start.z
    rest = [0.0] * len(pull.directions) + ([] if pull.cutoff is None else [_psi()])
    return _filled(carried(run, start.z, pull.space), pull, rest)


def _filled(code: np.ndarray, pull: Pull | None, rest: Sequence[float] | None) -> np.ndarray:
    """A code with the numbers that follow it: those given where they fit, else no steps and no truncation."""
    if pull is None:
        return code
    plain = [0.0] * len(pull.directions) + ([] if pull.cutoff is None else [1.0])
    fits = rest is not None and len(rest) == len(plain)
    return np.concatenate([code, np.asarray(rest if fits else plain, np.float32)]).astype(np.float32)


def _psi() -> float:
    """The truncation in the address, 1 where there is none."""
    try:
        found = float(st.query_params.get("psi", "1"))
    except ValueError:
        return 1.0
    return found if 0.0 <= found <= 1.0 else 1.0


def keep_psi(pull: Pull | None, held: np.ndarray) -> None:
    """Writes the truncation that the sliders hold into the address."""
    found = "" if pull is None or pull.cutoff is None else f"{float(held[-1]):.3g}"
    if found in ("", "1"):
        if "psi" in st.query_params:
            del st.query_params["psi"]
    elif st.query_params.get("psi") != found:
        st.query_params["psi"] = found


def carried(run: Run, z: np.ndarray, space: str) -> np.ndarray:
    """A code (dim,) of the model's first space, carried to another."""
    from latentlab.analysis.inference import carry, device_of, to_numpy, to_tensor

    return to_numpy(carry(run.model, to_tensor(z[None], device_of(run.model)), space))[0]


def axes(run: Run, pull: Pull | None, encoding: Encoding | None, start: Start) -> list[Axis]:
    """The sliders of the chosen space, then one for each direction."""
    from latentlab.app.components import Axis

    heat = temperature(run)
    if pull is None or pull.space == run.model.latent_space.name:
        found = [_tempered(run, axis, heat) for axis in controls.sliders(run, encoding, start)]
    else:
        found = _mapped(run, pull.space, carried(run, start.z, pull.space))
    if pull is None:
        return found
    own = run.model.spaces[pull.space].dim
    steps = [
        Axis(
            index=own + i,
            name=direction.name,
            low=-REACH,
            high=REACH,
            std=1.0,
            sigma=(0.0, 1.0),
            group="Directions",
            help=_words(direction),
        )
        for i, direction in enumerate(pull.directions)
    ]
    if pull.cutoff is not None:
        # A spread of 0: the dice leaves it alone.
        psi = Axis(
            own + len(steps), "ψ", 0.0, 1.0, 1.0, 0.0, group="Truncation", help=PSI_HELP, meaning="truncation"
        )
        steps.append(psi)
    return [*steps, *found]


def _tempered(run: Run, axis: Axis, heat: float) -> Axis:
    """A slider whose dice reaches as far as the temperature says."""
    warm = heat != 1.0 and has_temperature(run.model.latent_space.block_of(axis.index).prior)
    return replace(axis, std=axis.std * heat) if warm else axis


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
            sigma=(float(ranges[i].mean()), float((ranges[i, 1] - ranges[i, 0]) / 4.65)),
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


def decoded_all(run: Run, pull: Pull | None, codes: np.ndarray, edits: tuple[Edit, ...]) -> np.ndarray:
    """The images (n, channels, height, width) of several settings of the sliders (n, numbers)."""
    from latentlab import analysis

    if pull is None:
        return analysis.decode_latents(run.model, codes, edits=edits)
    if any(direction.stage is not None for direction in pull.directions):  # each has edits of its own
        return np.stack([decoded(run, pull, code, edits) for code in codes])
    first, others, space = held_codes(run, pull, codes[0], list(codes[1:]))
    if space is not None:  # edits of the mapping are behind such a code
        edits = tuple(edit for edit in edits if edit.network == "generator")
    return analysis.decode_latents(
        run.model, np.stack([first, *(c for c in others if c is not None)]), edits=edits, space=space
    )


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
    pictures = decoded_all(run, pull, codes, edits)
    while pictures.shape[-1] > 32 and not pictures.shape[-1] % 2 and not pictures.shape[-2] % 2:
        pictures = (pictures[..., ::2, :] + pictures[..., 1::2, :]) / 2
        pictures = (pictures[..., ::2] + pictures[..., 1::2]) / 2
    return [axis.index for axis in shown], pictures.reshape(len(shown), 2, *pictures.shape[1:])


def held_code(run: Run, pull: Pull, z: np.ndarray) -> tuple[np.ndarray, str | None]:
    """The code that the sliders' numbers stand for, and its space; None for the model's first one."""
    code, _, space = held_codes(run, pull, z)
    return code, space


def held_codes(
    run: Run, pull: Pull, z: np.ndarray, others: Sequence[np.ndarray | None] = ()
) -> tuple[np.ndarray, list[np.ndarray | None], str | None]:
    """``held_code`` of the sliders' numbers and of other settings of them, all of one space; None stays None."""
    import torch

    from latentlab.analysis.inference import device_of, to_numpy, to_tensor

    given = np.stack([z, *(numbers for numbers in others if numbers is not None)])
    with torch.inference_mode():
        codes, space = pull.code(run.model, to_tensor(given, device_of(run.model)))
    code, *rest = to_numpy(codes)
    found = iter(rest)
    kept = [None if numbers is None else next(found) for numbers in others]
    return code, kept, None if space == run.model.latent_space.name else space
