"""Widgets that several pages share, made from a run, its data and its latent space. They compute nothing."""

from __future__ import annotations

import html
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import streamlit as st
from streamlit.errors import StreamlitAPIException

from latentlab.app import state, theme

if TYPE_CHECKING:
    from PIL import Image

    from latentlab.analysis.encoding import Encoding
    from latentlab.app.components import Axis
    from latentlab.data.factors import FactorDataset
    from latentlab.runs import Run

THUMBS = 8
LARGEST_SEED = 999_999
LINK = "to-"
WAYS = ("Image", "Seed", "Numbers")


@contextmanager
def one_sentence() -> Iterator[None]:
    """Shows what went wrong inside as one sentence on the page instead of a traceback."""
    try:
        yield
    except state.USER_ERRORS as error:
        st.error(str(error))


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


def sidebar(picker: bool = True) -> None:
    """Run picker and seed: the choices every page shares, kept in the address."""
    addresses = [address for address, summary in state.runs().items() if summary.has_weights]
    if st.session_state.get("run") not in (None, *addresses):
        del st.session_state["run"]
    if picker and addresses:
        st.selectbox(
            "Run", addresses, key="run", bind="query-params", help="The trained model all pages look into."
        )
    st.number_input(
        "Seed",
        min_value=0,
        max_value=LARGEST_SEED,
        key="seed",
        bind="query-params",
        help="Decides everything drawn by chance: the same seed always shows the same pictures.",
    )


def current_run() -> Run:
    """The run chosen in the sidebar; where there is none, or it is damaged, says so and ends the page."""
    address = st.session_state.get("run")
    if address is None:
        st.info(
            "No run yet. Train one with `latentlab train digits-vae --out runs/first`, then reload this page."
        )
        st.stop()
    with one_sentence():
        run = state.open_run(address)
        with st.sidebar:
            run_facts(run)
        return run
    st.stop()


def device_name(run: Run) -> str:
    """Where the model runs, in words."""
    import torch

    device = next(iter(run.model.parameters())).device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return {"cpu": "CPU", "mps": "Apple GPU"}.get(device.type, device.type)


def run_facts(run: Run) -> None:
    """What the run is, in a few lines under the picker."""
    channels, height, width = run.model.image_shape
    blocks = ", ".join(f"{block.name} {block.dim}" for block in run.model.latent_space.blocks)
    facts(
        {
            "Data": run.config.data.name,
            "Model": f"{run.config.model.family}, {sum(p.numel() for p in run.model.parameters()) / 1e6:.2f} M",
            "Objective": objective_name(run.config),
            "Images": f"{height} × {width}, {'colour' if channels == 3 else 'grey'}",
            "Latents": blocks,
            "Weights": run.digest[:10],
            "Device": device_name(run),
        }
    )


def objective_name(config: Any) -> str:
    """The objective and its coefficients, such as "beta-vae, beta 6"."""
    plain = vars(config.objective)
    numbers = [f"{name} {value:g}" for name, value in plain.items() if isinstance(value, int | float)]
    return ", ".join([config.objective.objective, *numbers[:3]])


def facts(values: Mapping[str, Any]) -> None:
    """Names and values in two columns."""
    rows = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(str(v))}</dd>" for k, v in values.items())
    st.html(f'<dl class="ll-facts">{rows}</dl>')


def figures(values: Mapping[str, Any]) -> None:
    """Names and numbers in one line."""
    cells = "".join(
        f"<div><span>{html.escape(k)}</span><b>{html.escape(str(v))}</b></div>" for k, v in values.items()
    )
    st.html(f'<div class="ll-figures">{cells}</div>')


def heading(title: str, meaning: str) -> None:
    """A page's title and what one does there."""
    st.title(title, anchor=False)
    st.caption(meaning)


def show(picture: Image.Image, alt: str, width: int | Literal["stretch", "content"] = "content") -> None:
    """Shows a picture with its text alternative."""
    st.image(theme.data_uri(picture), alt=alt, width=width)


def scale_for(run: Run, count: int, width: int = 400) -> int:
    """How many screen pixels an image pixel gets when ``count`` images share ``width`` pixels."""
    return max(1, width // (count * run.model.image_shape[2]))


@dataclass(frozen=True)
class Start:
    """Where a person starts from: a code, and the image it was read from if there is one.

    Attributes:
        z: the code (dim,).
        image: (channels, height, width) in [0, 1], or None.
        label: what it is, in words.
        revision: changes whenever another start was chosen.
        index: number of the image in its data set, or None.
    """

    z: np.ndarray
    image: np.ndarray | None
    label: str
    revision: str
    index: int | None = None


START_HELP = (
    "**Image** reads the latent off a picture of the data set with the encoder. "
    "**Seed** draws one from the prior, by the seed in the sidebar. "
    "**Numbers** takes one that you paste."
)


def starting_point(run: Run) -> Start:
    """Lets a person choose what to start from: an image of the data, a draw from the prior, or numbers."""
    data, missing = state.dataset_or_reason(run)
    can_encode = state.encodes(run) and data is not None
    ways = list(WAYS if can_encode else WAYS[1:])
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
                on_click=_roll,
                args=("seed", LARGEST_SEED + 1),
                help="Draws another latent.",
            )
    if not can_encode:
        st.caption(
            "No image to start from: "
            + (
                missing
                if data is None
                else "this model has no encoder, so it can't read a latent off an image."
            )
        )
    if way == "Image" and data is not None:
        image = image_of(data, index)
        code = state.computed(run, "code", (index, state.data_key(run)), lambda: _code_of(run, image))
        return Start(code, image, f"image {index:,}", f"{run.digest[:12]}-image-{index}", index)
    if way == "Numbers":
        numbers = read_latent(text or "", run.model.latent_space.dim)
        if numbers is None:
            numbers = run.model.latent_space.mean.numpy()
        return Start(
            numbers, None, "the numbers given", f"{run.digest[:12]}-numbers-{hash(numbers.tobytes())}"
        )
    seed = st.session_state["seed"]
    return Start(
        run.model.latent_space.sample(1, seed)[0].numpy(),
        None,
        f"seed {seed}",
        f"{run.digest[:12]}-seed-{seed}",
    )


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


def _roll(key: str, end: int) -> None:
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
        on_click=_roll,
        args=("image", last + 1),
        help="A random image.",
    )
    if data.factor_space is not None:
        with st.popover("By factor", help="Choose the image by what is in it."):
            _factor_picker(data, index)
    shown = [int(i) for i in data.sample(THUMBS, st.session_state["seed"])]
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


def _thumbs(data: FactorDataset, indices: Sequence[int]) -> list[str]:
    return [theme.data_uri(state.picture(image)) for image in data.images(np.array(indices)).cpu().numpy()]


def _choose(number: int) -> None:
    st.session_state["image"] = number


def _factor_picker(data: FactorDataset, index: int) -> None:
    space = data.factor_space
    if space is None:
        return
    now = data.factors(np.array([index])).cpu().numpy()[0]
    keys = [f"factor-{name}" for name in space.names]

    def choose() -> None:
        row = np.array([[st.session_state[key] for key in keys]])
        st.session_state["image"] = int(data.index(row)[0])

    for key, name, size, value in zip(keys, space.names, space.sizes, now, strict=True):
        if size < 2:
            st.session_state[key] = 0
            continue
        st.session_state[key] = int(value)
        names = data.categories.get(name)
        if names:
            st.selectbox(name, range(size), format_func=list(names).__getitem__, key=key, on_change=choose)
        else:
            st.slider(name, 0, size - 1, key=key, on_change=choose)


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


def sliders(run: Run, encoding: Encoding | None, start: Start) -> list[Axis]:
    """One slider a latent, strongest first, its range from the data where the model can encode them."""
    from latentlab.analysis import dim_ranges
    from latentlab.app.components import Axis

    space = run.model.latent_space
    if encoding is None:
        ranges = dim_ranges(run.model, span="prior", coverage=0.98)
        order, kl, active, spread = range(space.dim), None, None, space.std.numpy()
    else:
        ranges = dim_ranges(run.model, span="posterior", coverage=0.98, encoding=encoding)
        order, kl, active, spread = (
            encoding.order,
            encoding.kl_per_dim,
            encoding.active,
            encoding.aggregate_std,
        )
    names = meanings(run)
    blocks = {
        i: block.name for block in space.blocks for i in range(*space.slice(block.name).indices(space.dim))
    }
    several = len(space.blocks) > 1
    axes = []
    for i in (int(i) for i in order):
        low, high = (float(v) for v in ranges[i])
        axes.append(
            Axis(
                index=i,
                name=space.names[i],
                low=min(low, float(start.z[i])),
                high=max(high, float(start.z[i])),
                default=float(start.z[i]),
                std=float(spread[i]),
                kl=None if kl is None else float(kl[i]),
                inactive=active is not None and not bool(active[i]),
                group=blocks[i] if several else "",
                meaning=names.get(space.names[i], ""),
            )
        )
    return axes


def meanings(run: Run) -> dict[str, str]:
    """Names that a person gave to latents, {"z3": "rotation"}, kept in the run's annotations."""
    names = run.annotations.get("names", {})
    return {str(k): str(v) for k, v in names.items()} if isinstance(names, dict) else {}


def active_names(run: Run, encoding: Encoding | None) -> list[str]:
    """Latents worth looking at, strongest first; all of them where nothing was encoded."""
    names = run.model.latent_space.names
    if encoding is None:
        return list(names)
    active = [names[int(i)] for i in encoding.order if encoding.active[int(i)]]
    return active or [names[int(i)] for i in encoding.order[:2]]


def menu(label: str, options: Sequence[str], index: int, key: str, meaning: str) -> str:
    """A menu bound to the address, which forgets a choice that the present run does not offer."""
    if st.session_state.get(key) not in (None, *options):
        del st.session_state[key]
    return st.selectbox(label, options, index=index, key=key, bind="query-params", help=meaning, width=210)


def reading_of(run: Run, start: Start) -> None:
    """What is known about the image that one started from."""
    if start.index is None:
        return
    words = factor_words(state.dataset(run), start.index)
    st.caption(f"Image {start.index:,} of {run.config.data.name}" + (f": {words}" if words else "."))


def certificate(values: Mapping[str, Any], meaning: str) -> None:
    """The numbers that stand behind a picture, and what they mean."""
    figures(values)
    st.caption(meaning)


DATA_HELP = "The arrays (npz) and where they come from (json), as latentlab.load_result reads them."


def show_drawn(drawn: state.Drawn, alt: str, key: str, name: str) -> None:
    """Shows a drawn result, says what proves it, and offers it as PNG, as GIF where it moves, and as data."""
    st.image(drawn.address, alt=alt)
    with st.container(horizontal=True, gap="xsmall", vertical_alignment="center"):
        _save("PNG", drawn.png, name, "png", "image/png", key)
        if drawn.picture.movie is not None:
            _save("GIF", drawn.gif, name, "gif", "image/gif", key)
        _save("Data", lambda: drawn.files(name), name, "zip", "application/zip", key, DATA_HELP)
        st.caption(drawn.picture.caption)


def _save(
    label: str, data: Any, name: str, ending: str, mime: str, key: str, meaning: str | None = None
) -> None:
    st.download_button(
        label, data, f"{name}.{ending}", mime, key=f"{key}-{ending}", on_click="ignore", help=meaning
    )


def await_job(run: Run, question: str, key: Any, task: state.Job) -> Any:
    """The result of a background job; until it is there shows how far it is and looks again by itself."""
    if not task.wait(0.4):
        watch(task)
    elif task.error:
        st.error(task.error)
        st.button("Try again", key=f"again-{question}", on_click=state.forget_job, args=(run, question, key))
    return task.result


@st.fragment(run_every=0.5)
def watch(task: state.Job) -> None:
    """Shows how far a job is; redraws the page when it has ended."""
    if task.done:
        st.rerun()
    st.progress(task.share, text=f"{task.message} ({task.seconds:.0f} s)")


def file_name(*words: Any) -> str:
    """A tame file name made of words."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(str(w) for w in words)).strip("-.") or "latentlab"
