"""Widgets that several pages share, made from a run and its latent space. They compute nothing."""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from latentlab.app import engine, state, theme

if TYPE_CHECKING:
    from PIL import Image

    from latentlab.analysis.encoding import Encoding
    from latentlab.app.components import Axis
    from latentlab.app.jump import Choose
    from latentlab.app.start import Start
    from latentlab.latents import Block, LatentSpace
    from latentlab.runs import Run

logger = logging.getLogger("latentlab.app")
_awaiting = ContextVar("latentlab-awaiting", default="")

LARGEST_SEED = 999_999

ENGINE_HELP = (
    "Who computes the picture while you drag. **Browser**: this browser itself, by a copy of the decoder; it does not "
    "wait for the network or for others. **Server**: the machine that runs latentlab. **Auto** takes the browser "
    "where the model and the edits allow it and it is quick enough, else the server. The line under the picture says "
    "who draws."
)


_CODE = re.compile(r"((?<!`)`[^`]+`(?!`))")
_MARKS = re.compile(
    r"[\\`*\[\]$~]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # none inside a word, where it marks nothing
    r"|<(?=[A-Za-z/!?])|&(?=#|\w+;)"
    # Streamlit's colours; of others, such as that in zoo:digits, it leaves the text.
    r"|(?<!\w):(?=[A-Za-z])|:(?=[\w-]+[\[{])"
    r"|:(?=red|orange|yellow|green|blue|violet|gr[ae]y|primary|rainbow|small|shimmer|material|streamlit)"
)
_BREAK = "\u2060"  # a word joiner: no width, no line break


def plainly(text: object) -> str:
    """Text that others may have written, on one line, as Markdown that shows its characters and does nothing else.

    No picture is fetched, nothing becomes a link, a formula, an emoji, a colour or HTML. What stands between single
    backticks stays code, in which Markdown does nothing either.
    """
    parts = _CODE.split(" ".join(str(text).split()))
    told = "".join(part if i % 2 else _escaped(part) for i, part in enumerate(parts))
    return re.sub(r"^([#>+=|:-]|\d+(?=[.)]))", _at_the_start, told)


def _at_the_start(found: re.Match) -> str:
    """What would begin a heading, a quotation, a list or a directive."""
    return f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}"


def _escaped(text: str) -> str:
    text = _MARKS.sub(r"\\\g<0>", text)
    # These are looked for in the text that Markdown has read, where a backslash is gone.
    text = re.sub(r"(:[+\w-]+)(?=:)|(:material)(?=/)", rf"\g<0>{_BREAK}", text)
    return re.sub(r"https?(?=://)|www(?=\.)|@(?=\w)", rf"\g<0>{_BREAK}", text, flags=re.IGNORECASE)


@contextmanager
def one_sentence() -> Iterator[None]:
    """Shows what went wrong inside as one sentence on the page instead of a traceback."""
    try:
        yield
    except state.USER_ERRORS as error:
        st.error(plainly(error))


@contextmanager
def one_view() -> Iterator[None]:
    """Keeps whatever goes wrong in one view of a page to that view, in one sentence."""
    try:
        with one_sentence():
            yield
    except Exception as error:
        if not engine.serving():  # a test must see it
            raise
        logger.exception("A view failed")
        st.error(
            f"This view failed ({type(error).__name__}); the details are in the terminal that runs latentlab."
        )


def sidebar(picker: bool = True, live: bool = True) -> None:
    """Run picker, seed, and who draws ``live`` pictures: the choices that pages share, kept in the address."""
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
    if not live and "engine" in st.session_state:
        st.session_state["engine"] = st.session_state["engine"]  # kept for the pages that show it
    if live:
        st.segmented_control(
            "Live pictures",
            engine.DRAWING,
            default=engine.DRAWING[0],
            required=True,
            key="engine",
            bind="query-params",
            help=ENGINE_HELP,
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
    """The objective, its first setting and what else was chosen, such as "beta-vae, beta 6"."""
    objective, usual = config.objective, type(config.objective)()
    settings = {k: v for k, v in vars(objective).items() if isinstance(v, int | float | str)}
    first = next(iter(settings), None)
    told = []
    for name, value in settings.items():
        if name != first and value == getattr(usual, name):
            continue
        called = name.replace("_", " ")
        if isinstance(value, bool):
            told.append(called if value else f"no {called}")
        elif isinstance(value, str):
            told.append(value if name == first else f"{called} {value}")
        else:
            told.append(f"{called} {value:g}")
    return ", ".join([objective.objective, *told[:3]])


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


def show(picture: Image.Image, alt: str, caption: str | None = None) -> None:
    """Shows a picture with its text alternative, and what it is below it."""
    st.image(theme.data_uri(picture), caption, alt=alt)


def scale_for(run: Run, count: int, width: int = 400) -> int:
    """How many screen pixels an image pixel gets when ``count`` images share ``width`` pixels."""
    return max(1, width // (count * run.model.image_shape[2]))


def sliders(run: Run, encoding: Encoding | None, start: Start) -> list[Axis]:
    """One slider a latent, buttons for a category, strongest first; ranges from the data where they are encoded."""
    from latentlab.analysis import dim_ranges
    from latentlab.app.components import Axis
    from latentlab.latents import ACTIVE_NATS, Categorical, Codebook

    space = run.model.latent_space
    span = "prior" if encoding is None else "posterior"
    ranges = dim_ranges(run.model, span=span, coverage=0.98, encoding=encoding)
    spread = space.std.numpy() if encoding is None else encoding.aggregate_std
    names, known = meanings(run), state.labels(run)
    axes = []
    for block in space.blocks:
        where = range(*space.slice(block.name).indices(space.dim))
        group = block.name if len(space.blocks) > 1 else ""
        if isinstance(block.prior, Categorical):
            kl = None if encoding is None else float(encoding.kl_per_dim[where].sum())
            words, meaning = known_words(known.get(block.name), kl)
            axes.append(
                Axis(
                    index=where[0],
                    name=block.name,
                    low=0.0,
                    high=float(block.dim - 1),
                    default=float(np.argmax(start.z[where])),
                    kl=kl,
                    inactive=kl is not None and kl <= ACTIVE_NATS,
                    meaning=names.get(block.name, ""),
                    choices=choices_of(run, block),
                    known=words,
                    help=meaning,
                )
            )
            continue
        for i in where:
            low, high = (float(v) for v in ranges[i])
            kl = None if encoding is None else float(encoding.kl_per_dim[i])
            words, meaning = known_words(known.get(space.names[i]), kl)
            axes.append(
                Axis(
                    index=i,
                    name=space.names[i],
                    low=min(low, float(start.z[i])),
                    high=max(high, float(start.z[i])),
                    default=float(start.z[i]),
                    std=float(spread[i]),
                    kl=kl,
                    inactive=encoding is not None and not bool(encoding.active[i]),
                    group=group,
                    meaning=names.get(space.names[i], ""),
                    whole=isinstance(block.prior, Codebook),
                    sigma=None
                    if isinstance(block.prior, Codebook)
                    else (float(space.mean[i]), float(space.std[i])),
                    known=words,
                    help=meaning,
                )
            )
    # Stable, so that nothing moves where nothing was encoded; a block's latents stay together.
    blocks = {axis.index: axis.group or axis.name for axis in axes}
    strongest: dict[str, float] = {}
    for axis in axes:
        strongest[blocks[axis.index]] = max(strongest.get(blocks[axis.index], 0.0), axis.kl or 0.0)
    several = len(space.blocks) > 1
    return sorted(axes, key=lambda a: (-strongest[blocks[a.index]] if several else 0.0, -(a.kl or 0.0)))


def choices_of(run: Run, block: Block) -> tuple[str, ...]:
    """Names of a categorical block's categories: those of the data's factor of that name, else their numbers."""
    data = state.dataset_or_reason(run)[0]
    named = data.categories.get(block.name, ()) if data is not None else ()
    return tuple(named) if len(named) == block.dim else tuple(str(i) for i in range(block.dim))


def meanings(run: Run) -> dict[str, str]:
    """Names that a person gave to latents, {"z3": "rotation"}, kept in the run's annotations."""
    names = run.annotations.get("names", {})
    return {str(k): str(v) for k, v in names.items()} if isinstance(names, dict) else {}


def known_words(label: tuple[str, float] | None, kl: float | None) -> tuple[str, str]:
    """A slider's words on the factor its latent was measured to know most of: beside the name, and in the tooltip."""
    if label is None:
        return "", ""
    factor, nats = label
    told = "" if kl is None else f"; KL divergence {kl:.2f} nats an image"
    return factor, f"Knows most of {factor}: mutual information {nats:.2f} nats{told}"


def latents_by_kl(run: Run, encoding: Encoding) -> list[tuple[str, float]]:
    """Each latent and its mean KL in nats, strongest first; a category is one latent, named by its block."""
    from latentlab.latents import Categorical

    space, found = run.model.latent_space, {}
    for i in encoding.order:
        block = space.block_of(int(i))
        name = block.name if isinstance(block.prior, Categorical) else space.names[int(i)]
        found[name] = found.get(name, 0.0) + float(encoding.kl_per_dim[i])
    return sorted(found.items(), key=lambda latent: -latent[1])


def active_names(run: Run, encoding: Encoding | None) -> list[str]:
    """Latents worth looking at, strongest first; all of them where nothing was encoded."""
    if encoding is None:
        return list(run.model.latent_space.names)
    latents, least = latents_by_kl(run, encoding), float(encoding.certificate["kl_threshold"])
    return [name for name, kl in latents if kl > least] or [name for name, _ in latents[:2]]


def ordered(space: LatentSpace, names: Sequence[str]) -> list[str]:
    """Those of the latents whose values have an order; categories have none."""
    from latentlab.latents import UNORDERED

    kinds = {block.name for block in space.blocks if isinstance(block.prior, UNORDERED)}
    return [n for n in names if n not in kinds and not isinstance(space.block_of(n).prior, UNORDERED)]


def menu(label: str, options: Sequence[str], index: int, key: str, meaning: str) -> str:
    """A menu bound to the address, which forgets a choice that the present run does not offer."""
    if st.session_state.get(key) not in (None, *options):
        del st.session_state[key]
    return st.selectbox(label, options, index=index, key=key, bind="query-params", help=meaning, width=210)


def choice(label: str, options: Sequence[str], key: str, meaning: str | None = None) -> str:
    """One of a few, side by side, bound to the address; forgets a choice that is not offered here."""
    if st.session_state.get(key) not in (None, *options):
        del st.session_state[key]
    return st.segmented_control(
        label,
        options,
        default=options[0],
        required=True,
        key=key,
        bind="query-params",
        help=meaning,
        label_visibility="visible" if meaning else "collapsed",
    )


def certificate(values: Mapping[str, Any], meaning: str) -> None:
    """The numbers that stand behind a picture, and what they mean."""
    figures(values)
    st.caption(meaning)


DATA_HELP = "The arrays (npz) and where they come from (json), as latentlab.load_result reads them."
CODE_HELP = "A program that makes this very call and prints the numbers shown."


def show_drawn(
    drawn: state.Drawn,
    alt: str,
    key: str,
    name: str,
    code: str = "",
    picture: Image.Image | None = None,
    choose: Choose | None = None,
) -> None:
    """Shows a drawn result, says what proves it, and offers it as PNG, as GIF where it moves, as data and as code.

    ``picture`` is shown in place of the usual drawing. ``choose`` is told the code whose image was clicked, where the
    drawing says where its images lie.
    """
    if choose is not None and picture is None and drawn.picture.cells is not None:
        from latentlab.app import cells

        cells.show(drawn, alt, f"cells-{key}", choose)
    else:
        with st.container(key=f"paper-{key}"):
            st.image(drawn.address if picture is None else theme.data_uri(picture), alt=alt)
    with st.container(horizontal=True, gap="xsmall", vertical_alignment="center"):
        _save("PNG", drawn.png, name, "png", "image/png", key)
        if drawn.picture.movie is not None:
            _save("GIF", drawn.gif, name, "gif", "image/gif", key)
        _save("Data", lambda: drawn.files(name), name, "zip", "application/zip", key, DATA_HELP)
        if code:
            with st.popover("Code", help=CODE_HELP, key=f"{key}-code"):
                st.code(code, language="python", wrap_lines=True)
    st.caption(plainly(drawn.picture.caption))


def _save(
    label: str, data: Any, name: str, ending: str, mime: str, key: str, meaning: str | None = None
) -> None:
    st.download_button(
        label, data, f"{name}.{ending}", mime, key=f"{key}-{ending}", on_click="ignore", help=meaning
    )


def await_job(run: Run, question: str, key: Any, task: state.Job) -> Any:
    """The result of a background job; until it is there shows how far it is and looks again by itself."""
    owner = engine.current_owner() or ""
    task.audience.add(owner)
    awaited = st.session_state.setdefault("awaited", {})
    awaited[run.digest, question, key] = (run, task, _awaiting.get())
    if not task.wait(0.4):
        watch(task, question)
        return None
    if task.cancelled:
        st.info("Cancelled.")
        st.button(
            "Start again", key=f"again-{question}", on_click=state.forget_job, args=(run, question, key)
        )
    elif task.error:
        st.error(plainly(task.error))
        st.button("Try again", key=f"again-{question}", on_click=state.forget_job, args=(run, question, key))
    return task.result


@contextmanager
def awaiting(place: str) -> Iterator[None]:
    """Cancels the heavy jobs that a place waited for at its last run and no longer does, unless others do.

    Args:
        place: names the part of a page. What is awaited elsewhere, on other pages too, goes on.
    """
    awaited = st.session_state.setdefault("awaited", {})
    before = {name: entry for name, entry in awaited.items() if entry[2] == place}
    for name in before:
        del awaited[name]
    token = _awaiting.set(place)
    try:
        yield
    except BaseException:  # ended early, so that nobody knows what it would have waited for
        awaited.update({name: entry for name, entry in before.items() if name not in awaited})
        raise
    finally:
        _awaiting.reset(token)
    owner = engine.current_owner() or ""
    for name, (run, task, _) in before.items():
        if name not in awaited and task.leave(owner):
            state.forget_job(run, *name[1:])


@st.fragment(run_every=0.5)
def watch(task: state.Job, question: str = "") -> None:
    """Shows how far a job is, with a button that cancels it; redraws the page when it has ended."""
    if task.done:
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.progress(task.share, text=f"{task.message} ({task.seconds:.0f} s)", width="stretch")
        if question:
            st.button("Cancel", key=f"cancel-{question}", on_click=task.cancel, disabled=task.stopping)


def file_name(*words: Any) -> str:
    """A tame file name made of words."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(str(w) for w in words)).strip("-.") or "latentlab"
