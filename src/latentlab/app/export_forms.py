"""Export forms: what a person chooses for each kind of file, and the recipe that comes of it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from latentlab.app import controls, state

if TYPE_CHECKING:
    from latentlab.analysis.encoding import Encoding
    from latentlab.export.recipe import Recipe
    from latentlab.runs import Run

HERE = "the latent of the explorer"
PAGE_ITSELF = 160_000  # bytes of a page without its decoder: sliders, engine, card
COSTS = {
    "f16": "Half precision: no pixel is off by a whole grey level of 256.",
    "int8": "8 bits: a grey level of 256 in the mean, at sharp edges up to about 23.",
    "f32": "Full precision: what torch decodes, to rounding.",
}
FORMS = {
    "Page": "One HTML file with the decoder in it: sliders, strips and hidden units, from disk, without a server.",
    "Image": "The decoded image, or several, without any lettering.",
    "Strips": "One row a latent: it alone moves from one end of its range to the other.",
    "Movie": "Latents that move from one end of their range to the other and back, side by side.",
    "Codes": "Latents as numbers, for numpy: np.load reads them.",
    "ONNX": "The network for other programs, with any batch size, checked against torch.",
}
WANTING = {
    "mp4": (("av",), "MP4 needs the extra video: pip install 'latentlab[video]'. GIF needs nothing."),
    "onnx": (
        ("onnx", "onnxscript", "onnxruntime"),
        "ONNX needs the extra onnx: pip install 'latentlab[onnx]'.",
    ),
}


@dataclass(frozen=True)
class From:
    """What a file is made from, besides the run.

    Attributes:
        z: the code (dim,); None for draws from the prior.
        edits: edits of the generator.
        space: name of the code's space, None for the model's first one.
        encoding: of the run's data, where it is there already.
        ranges: low and high of each coordinate (dim, 2) as the sliders reach; None where there are no such sliders.
    """

    z: np.ndarray | None = None
    edits: tuple = ()
    space: str | None = None
    encoding: Encoding | None = None
    ranges: np.ndarray | None = None


def _page(run: Run, given: From, key: str) -> Recipe | None:
    from latentlab import rendering

    costs = state.computed(run, "page-sizes", (), lambda: page_sizes(run))
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        precision = controls.choice(
            "Weights", list(COSTS), f"{key}-precision", "How exactly the page keeps the decoder's weights."
        )
        here = given.z is not None and given.space in (None, run.model.latent_space.name)
        start = here and st.toggle(
            "Start from this latent",
            value=True,
            key=f"{key}-here",
            help="The page opens where the sliders stand; else at its own examples.",
        )
    st.caption(f"About {size(costs[precision])}. {COSTS[precision]} The page measures its own difference.")
    if given.edits:
        st.caption("Edits of hidden units are not part of a page; its own units can be switched off there.")
    return rendering.page_recipe(
        run,
        given.z if start else None,
        precision=precision,
        labels=state.labels(run) or None,
        start=HERE if start else "",
    )


def size(count: float) -> str:
    """A number of bytes in words."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{max(1, round(count / 1e3)):,} kB"


def page_sizes(run: Run) -> dict[str, float]:
    """About how many bytes a page has, by the precision of its weights.

    Raises:
        ValueError: if the browser engine can't run the model.
    """
    from latentlab.export import lower

    program = lower(run.model)
    return {
        precision: PAGE_ITSELF + sum(len(base64.b64encode(part)) for part in program.packed(precision)[1:])
        for precision in COSTS
    }


def _image(run: Run, given: From, key: str) -> Recipe:
    from latentlab import rendering

    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        count = 1
        if given.z is None:
            count = st.select_slider(
                "Images", (1, 4, 8, 16, 32, 64), value=16, key=f"{key}-images", width=220
            )
        scale = _scale(run, key, count)
    return rendering.image_recipe(run, count=count, scale=scale, **_code(given))


def _strips(run: Run, given: From, key: str) -> Recipe | None:
    from latentlab import rendering

    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        dims, span = _dims(run, given, key, 6), _span(given, key)
        steps = st.select_slider("Steps", range(5, 16, 2), value=9, key=f"{key}-steps", width=150)
    if not dims:
        st.info("Choose at least one latent.")
        return None
    return rendering.traversal_recipe(run, dims=dims, steps=steps, **span, **_code(given))


def _movie(run: Run, given: From, key: str) -> Recipe | None:
    from latentlab import rendering

    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        form = controls.choice(
            "As", ["GIF", "MP4"], f"{key}-movie", "A GIF plays everywhere; MP4 is smaller."
        )
        dims, span = _dims(run, given, key, 1), _span(given, key)
        steps = st.select_slider(
            "Frames each way", (12, 24, 48, 96), value=24, key=f"{key}-frames", width=150
        )
        fps = st.select_slider("Frames a second", (6, 12, 24), value=12, key=f"{key}-fps", width=120)
    if lacks(form.lower()):
        return None
    if not dims:
        st.info("Choose at least one latent.")
        return None
    return rendering.traversal_recipe(
        run, dims=dims, kind="movie", file=form.lower(), steps=steps, fps=float(fps), **span, **_code(given)
    )


def _codes(run: Run, given: From, key: str) -> Recipe:
    from latentlab import rendering

    sources = {} if given.z is None else {"This latent": "given"}
    sources["Prior draws"] = "prior"
    if state.encodes(run) and state.dataset_or_reason(run)[0] is not None:
        sources["Encoded images"] = "data"
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        source = sources[
            controls.choice("Of", list(sources), f"{key}-codes", "Drawn ones follow the seed in the sidebar.")
        ]
        count = 1000
        if source != "given":
            count = st.select_slider(
                "How many", (100, 1000, 10_000, 50_000), value=1000, key=f"{key}-count", width=180
            )
    if source == "given":
        return rendering.codes_recipe(run, given.z, space=given.space, start=HERE)
    if source == "data":
        count = min(count, len(state.dataset(run)))
    space = None if source == "data" else given.space
    return rendering.codes_recipe(run, source=source, count=count, seed=_drawn(), space=space)


def _onnx(run: Run, given: From, key: str) -> Recipe | None:
    from latentlab import rendering

    networks = ["generator", "encoder"] if state.encodes(run) else ["generator"]
    network = controls.choice(
        "Network",
        networks,
        f"{key}-network",
        "Codes to images, or images to codes; Cancel waits for its end.",
    )
    if lacks("onnx"):
        return None
    theirs = tuple(e for e in state.edits_of(run) if e.network == "encoder") if given.edits else ()
    edits, space = (theirs, None) if network == "encoder" else (given.edits, given.space)
    if edits:
        st.caption(f"{len(edits)} edits of hidden units become part of the file.")
    return rendering.onnx_recipe(run, network, edits=edits, space=space)


def lacks(file: str) -> bool:
    """Whether a file can't be made because an extra is not installed; says which."""
    packages, words = WANTING.get(file, ((), ""))
    missing = any(find_spec(package) is None for package in packages)
    if missing:
        st.info(words)
    return missing


def _code(given: From) -> dict[str, Any]:
    """The code that a recipe leaves from, and the edits."""
    shared = {"edits": given.edits, "space": given.space}
    return {**shared, "seed": _drawn()} if given.z is None else {**shared, "z": given.z, "start": HERE}


def _drawn() -> int:
    return int(st.session_state["seed"])


def _dims(run: Run, given: From, key: str, first: int) -> list[str]:
    """Latents that move, the most telling ones chosen at first."""
    from latentlab.latents import Categorical
    from latentlab.models.contract import space_of

    space = space_of(run.model, given.space)
    blocks = {b.name for b in space.blocks if isinstance(b.prior, Categorical)}
    names = [space.block_of(n).name if space.block_of(n).name in blocks else n for n in space.names]
    names = list(dict.fromkeys(names))
    if given.space in (None, run.model.latent_space.name) and given.encoding is not None:
        told = [name for name, _ in controls.latents_by_kl(run, given.encoding)]
        names = [*(n for n in told if n in names), *(n for n in names if n not in told)]
    return st.multiselect(
        "Latents",
        names,
        default=names[:first],
        key=f"{key}-dims-{first}-{run.digest[:8]}-{given.space}-{given.encoding is not None}",
        width=300,
        max_selections=16,
        help="Which latents move, the most telling ones first.",
    )


def _span(given: From, key: str) -> dict[str, Any]:
    """How far they move."""
    spans: dict[str, Any] = {"Prior": "prior", "± 2 σ": 2.0, "± 3 σ": 3.0}
    if given.encoding is not None and given.space is None:
        spans = {"Data": "posterior", **spans}
    if given.ranges is not None:
        spans = {"Sliders": given.ranges, **spans}
    chosen = spans[controls.choice("Range", list(spans), f"{key}-span", "How far each latent is moved.")]
    data = isinstance(chosen, str) and chosen == "posterior"
    return {"span": chosen, "encoding": given.encoding if data else None}


def _scale(run: Run, key: str, count: int) -> int:
    """Pixels of the picture for each of an image."""
    most, usual = (8, 1) if count > 8 else (16, 4)
    offered = [k for k in (1, 2, 4, 8, 16) if k <= most and k * run.image_shape[-1] <= 2048] or [1]
    return st.select_slider(
        "Enlarged",
        offered,
        value=max(k for k in offered if k <= usual),
        key=f"{key}-scale-{most}",
        width=150,
        format_func=lambda k: f"× {k}",
        help="Each pixel of an image becomes a square of so many.",
    )


CHOICES: dict[str, Callable[[Run, From, str], Recipe | None]] = {
    "Page": _page,
    "Image": _image,
    "Strips": _strips,
    "Movie": _movie,
    "Codes": _codes,
    "ONNX": _onnx,
}
