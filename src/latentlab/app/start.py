"""Start: the latent that a person starts from, read off an image, drawn by a seed or given in numbers."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from latentlab.app import state, theme
from latentlab.app.controls import LARGEST_SEED, await_job, awaiting, plainly
from latentlab.latents.blending import has_temperature

if TYPE_CHECKING:
    from latentlab.analysis.inversion import Inversion
    from latentlab.app.jobs import Report
    from latentlab.data.factors import FactorDataset
    from latentlab.runs import Run

THUMBS = 8
WAYS = ("Image", "Seed", "Numbers")


@dataclass(frozen=True)
class Start:
    """Where a person starts from: a code, and the image it was read from if there is one.

    Attributes:
        z: the code (dim,).
        image: (channels, height, width) in [0, 1], or None.
        label: what it is, in words.
        revision: changes whenever another start was chosen.
        index: number of the image in its data set, or None.
        final: whether it is there; False while it is still looked for.
    """

    z: np.ndarray
    image: np.ndarray | None
    label: str
    revision: str
    index: int | None = None
    final: bool = True


HOTTEST = 1.5
TEMPERATURE_HELP = (
    "How far draws lie from the prior's mean, for seeds, the dice and the seed plane. Below 1: cleaner, more usual "
    "pictures, less variety. Above 1: more variety, more that looks like nothing. Categories and indices stay as drawn."
)

START_HELP = (
    "**Image** reads the latent off a picture of the data set with the encoder; for a model without one it looks for "
    "the latent whose image comes nearest, which takes a while. "
    "**Seed** draws one from the prior, by the seed in the sidebar. "
    "**Numbers** takes one that you paste."
)


def starting_point(run: Run) -> Start:
    """Lets a person choose what to start from: an image of the data, a draw from the prior, or numbers."""
    with awaiting("start"):  # an image that is no longer wanted is no longer looked for
        return _choice(run)


def _choice(run: Run) -> Start:
    data, missing = state.dataset_or_reason(run)
    can_encode = state.encodes(run) and data is not None
    ways = list(WAYS if can_encode else WAYS[1:] if data is None else (*WAYS[1:], WAYS[0]))
    if st.session_state.get("start") not in (None, *ways):
        del st.session_state["start"]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        way = st.segmented_control(
            "Start from",
            ways,
            default=ways[0],
            required=True,
            key="start",
            bind="query-params",
            help=START_HELP,
        )
        if way == "Image" and data is not None:
            index = _image_picker(run, data)
        elif way == "Numbers":
            text = st.text_input(
                "Latent",
                key="z",
                bind="query-params",
                placeholder=f"{run.model.latent_space.dim} numbers, such as 0.5, -1, …",
                help="One number a latent, as copied from “Take away” below; empty stands for the prior's mean.",
            )
        else:
            st.button(
                "Another seed",
                icon=":material/casino:",
                on_click=roll,
                args=("seed", LARGEST_SEED + 1),
                help="Draws another latent.",
            )
            temperature_slider(run)
    if data is None:
        st.caption(f"No image to start from: {plainly(missing)}")
    elif not can_encode:
        st.caption(
            "This model has no encoder, so it can't read a latent off an image; Image looks for one by inversion."
        )
    if way == "Image" and data is not None and not can_encode:
        return inverted(run, data, index)
    if way == "Image" and data is not None:
        image = image_of(data, index)
        code = state.computed(run, "code", (index, state.data_key(run)), lambda: _code_of(run, image))
        return Start(code, image, f"image {index:,}", f"{run.digest[:12]}-image-{index}", index)
    if way == "Numbers":
        numbers = read_latent(text or "", run.model.latent_space.dim)
        if numbers is None:
            numbers = state.nearest(run, run.model.latent_space.mean.numpy()[None])[0]
        return Start(
            numbers, None, "the numbers given", f"{run.digest[:12]}-numbers-{hash(numbers.tobytes())}"
        )
    seed, heat = st.session_state["seed"], temperature(run)
    hot = "" if heat == 1.0 else f", temperature {heat:g}"
    revision = f"{run.digest[:12]}-seed-{seed}" + ("" if heat == 1.0 else f"-{heat:g}")
    return Start(drawn_code(run, seed, heat), None, f"seed {seed}{hot}", revision)


def warms(run: Run) -> bool:
    """Whether a temperature means something here: not where only a code's direction counts, or all are categories."""
    return not hasattr(run.model, "truncate") and any(
        has_temperature(block.prior) for block in run.model.latent_space.blocks
    )


def temperature_slider(run: Run) -> None:
    """Lets a person choose how far draws lie from the prior's mean, where that means something."""
    if warms(run):
        st.slider(
            "Temperature",
            0.0,
            HOTTEST,
            1.0,
            0.05,
            key="temperature",
            bind="query-params",
            help=TEMPERATURE_HELP,
            width=170,
        )


def temperature(run: Run) -> float:
    """The temperature that was chosen, 1 where there is none."""
    return float(st.session_state.get("temperature", 1.0)) if warms(run) else 1.0


def inverted(run: Run, data: FactorDataset, index: int) -> Start:
    """The latent whose image comes nearest to an image of the data, and how near; the prior's mean until it is found.

    What it gives is a code like any other: the encoder that would meet the image itself is not there.
    """

    def work(report: Report) -> Inversion:
        from latentlab.analysis import invert

        report(0.0, "looking for the latent whose image comes nearest …")
        return invert(run.model, image_of(data, index)[None])

    key = (index, state.data_key(run))
    task = state.job(run, "inversion", key, work, heavy=True)
    found = await_job(run, "inversion", key, task)
    if found is None:
        mean = state.nearest(run, run.model.latent_space.mean.numpy()[None])[0]
        return Start(mean, None, "the prior's mean", f"{run.digest[:12]}-inverting", final=False)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.image(
            theme.data_uri(state.picture(image_of(data, index), 64 // data.image_shape[-1] or 1)),
            width=64,
            alt=f"Image {index} of the data",
        )
        st.caption(
            f"Image {index:,}; the nearest that the model draws differs by {float(found.error[0]):.4f} (mean squared "
            "error per pixel)."
        )
    return Start(found.z[0].copy(), None, f"image {index:,}, inverted", f"{run.digest[:12]}-inverted-{index}")


def drawn_code(run: Run, seed: int, heat: float = 1.0) -> np.ndarray:
    """The code (dim,) that the model itself draws: where blocks depend on each other, so does the draw.

    ``heat`` is the temperature.
    """
    import torch

    from latentlab.latents import temper

    with torch.inference_mode():
        code = run.model.sample_codes(1, seed).float().cpu()
        return (code if heat == 1.0 else temper(run.model.latent_space, code, heat))[0].numpy()


def _code_of(run: Run, image: np.ndarray) -> np.ndarray:
    from latentlab.analysis import encode_images

    return encode_images(run.model, image[None])[0]


def image_of(data: FactorDataset, index: int) -> np.ndarray:
    """One image of a data set (channels, height, width) in [0, 1]."""
    return data.images(np.array([index])).cpu().numpy()[0]


def read_latent(text: str, dim: int) -> np.ndarray | None:
    """The code (dim,) written in ``text`` as JSON or as numbers between commas or blanks; None if it is empty.

    Raises:
        ValueError: if it is not ``dim`` finite numbers.
    """
    words = re.split(r"[\s,;]+", text.strip().strip("[]()").strip())
    if words == [""]:
        return None
    try:
        numbers = np.array([float(word) for word in words], dtype=np.float32)
    except ValueError:
        raise ValueError(f"Expected {dim} numbers such as 0.5, -1, 2; got {text[:60]!r}.") from None
    if len(numbers) != dim or not np.isfinite(numbers).all():
        raise ValueError(f"Expected {dim} finite numbers, one for each latent; got {len(numbers)}.")
    return numbers


def roll(key: str, end: int) -> None:
    """Puts a random whole number below ``end`` into a widget."""
    st.session_state[key] = secrets.randbelow(end)


def _image_picker(run: Run, data: FactorDataset) -> int:
    last = len(data) - 1
    if not 0 <= st.session_state.get("image", 0) <= last:
        del st.session_state["image"]
    if "image" not in st.session_state and "image" not in st.query_params:
        st.session_state["image"] = int(data.sample(1, 0)[0])  # number 0 is a corner of most grids
    index = st.number_input(
        "Image",
        min_value=0,
        max_value=last,
        key="image",
        bind="query-params",
        width=150,
        help=f"Number of the image in the data set, 0 to {last:,}.",
    )
    st.button(
        "",
        icon=":material/casino:",
        key="roll-image",
        on_click=roll,
        args=("image", last + 1),
        help="A random image.",
    )
    if data.factor_space is not None:
        with st.popover("By factor", help="Choose the image by what is in it."):
            _factor_picker(data, index)
    shown = offered(data, st.session_state["seed"])
    pictures = state.computed(
        run, "thumbs", (tuple(shown), state.data_key(run)), lambda: _thumbs(data, shown)
    )
    with st.container(horizontal=True, gap="xsmall", width="content"):
        for number, picture in zip(shown, pictures, strict=True):
            key = f"thumb-{'chosen' if number == index else 'other'}-{number}"
            st.button(
                f"![Image {number}]({picture})",
                key=key,
                on_click=_choose,
                args=(number,),
                help=f"Start from image {number:,}.",
            )
    return index


def offered(data: FactorDataset, seed: int) -> list[int]:
    """Numbers of the images to choose from, each once: all of a small set, else a few drawn by the seed."""
    if len(data) <= THUMBS:
        return list(range(len(data)))
    drawn = data.sample(4 * THUMBS, seed)  # with replacement
    return list(dict.fromkeys(int(i) for i in drawn))[:THUMBS]


def _thumbs(data: FactorDataset, indices: Sequence[int]) -> list[str]:
    return [theme.data_uri(state.picture(image)) for image in data.images(np.array(indices)).cpu().numpy()]


def _choose(number: int) -> None:
    st.session_state["image"] = number


def _factor_picker(data: FactorDataset, index: int) -> None:
    space = data.factor_space
    if space is None:
        return
    now = data.factors(np.array([index])).cpu().numpy()[0]

    def choose(name: str) -> None:
        value = int(st.session_state[f"factor-{name}"])
        found = image_with(data, index, name, value)
        if found is None:
            names = data.categories.get(name)
            wanted = f"{name} {names[value] if names else value}"
            st.toast(plainly(f"No image of {data.name} has {wanted}."))
        else:
            _choose(found)

    for name, size, value in zip(space.names, space.sizes, now, strict=True):
        if size < 2:
            continue
        key = f"factor-{name}"
        st.session_state[key] = int(value)
        names = data.categories.get(name)
        if names:
            st.selectbox(
                name, range(size), format_func=names.__getitem__, key=key, on_change=choose, args=(name,)
            )
        else:
            st.slider(name, 0, size - 1, key=key, on_change=choose, args=(name,))


def image_with(data: FactorDataset, index: int, factor: str, value: int) -> int | None:
    """The image that differs from image ``index`` in one factor.

    Where the data hold no such image, the one with that value that agrees in most other factors, the next
    one in order among equals; None if no image has the value.
    """
    space = data.factor_space
    if space is None:
        return None
    column = space.position(factor)
    if data.is_grid:
        row = data.factors(np.array([index])).cpu().numpy()
        row[0, column] = value
        return int(data.index(row)[0])
    table = data.factors(np.arange(len(data))).cpu().numpy()
    having = np.flatnonzero(table[:, column] == value)
    if not len(having):
        return None
    having = np.roll(having, -int(np.searchsorted(having, index)))  # those behind the present image first
    return int(having[(table[having] == table[index]).sum(axis=1).argmax()])


def factor_words(data: FactorDataset, index: int) -> str:
    """What is in an image, in words: each factor with its value."""
    if data is None or data.factor_space is None:
        return ""
    row = data.factors(np.array([index])).cpu().numpy()[0]
    words = []
    for name, value, size in zip(data.factor_space.names, row, data.factor_space.sizes, strict=True):
        names = data.categories.get(name)
        if size > 1:
            words.append(f"{name} {names[value] if names else int(value)}")
    return " · ".join(words)


def reading_of(run: Run, start: Start) -> None:
    """What is known about the image that one started from."""
    if start.index is None:
        return
    words = factor_words(state.dataset(run), start.index)
    told = f"Image {start.index:,} of {run.config.data.name}" + (f": {words}" if words else ".")
    st.caption(plainly(told))
