"""Seed plane: drag over a lattice of seeds; in between, the codes of the four seeds around are blended."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from latentlab.app import components, controls, engine, sliders, state
from latentlab.app.calls import opened, written
from latentlab.app.lattice import KEY, SIDE, STRIDE, Lattice, standing
from latentlab.app.pull import W_PLUS, W
from latentlab.app.start import roll, temperature
from latentlab.latents import Categorical, Codebook, Normal, Uniform
from latentlab.models.contract import space_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from latentlab.app.components import Place
    from latentlab.app.jobs import Report
    from latentlab.app.pull import Pull
    from latentlab.latents import Block
    from latentlab.runs import Run

THUMBNAIL = 48  # pixels of the longer side of a seed's small picture, at most
PICTURES = f"{KEY}-pictures"

HELP = (
    "Each small picture is a seed: the draw from the prior that this number gives. In between, the codes of the four "
    "seeds around are mixed by nearness."
)
HOW = {
    "normal": "normal coordinates keep the spread of a single draw (their weights are divided by the root of the sum "
    "of their squares), so the picture stays as typical as a seed's",
    "uniform": "uniform ones are mixed as normal scores and stay uniform",
    "nearest": "categories and indices are those of the nearest seed, for there is nothing between them",
    "linear": "styles of W are averaged",
}


def draw(run: Run, pull: Pull | None, held: np.ndarray, edits: tuple) -> None:
    """The plane, live, and what to do with its code.

    Args:
        run: whose model.
        pull: what the sliders stand for; the plane's codes are of the same space.
        held: the sliders' numbers; the steps along directions and psi behind the code hold on the plane, too.
        edits: edits of the generator.
    """
    place = space_of(run.model, None if pull is None else pull.space)
    last = controls.LARGEST_SEED
    if not 0 <= st.session_state.get("plane", 0) <= last:
        del st.session_state["plane"]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        first = st.number_input(
            "First seed",
            0,
            last,
            0,
            key="plane",
            bind="query-params",
            width=150,
            help=f"Seed at the upper left; to the right they count by 1, downwards by {STRIDE}.",
        )
        st.button(
            "",
            icon=":material/casino:",
            key="plane-roll",
            on_click=roll,
            args=("plane", last + 1),
            help="Another plane of seeds.",
        )
        st.caption(HELP)
    heat, rest = temperature(run), held[place.dim :]
    seeds = (int(first) + np.arange(SIDE) + STRIDE * np.arange(SIDE)[:, None]) % (last + 1)
    of_codes = (int(first), place.name)
    of_pictures = (*of_codes, heat, rest.tobytes(), edits, pull)
    _leave(run, {KEY: of_codes, PICTURES: of_pictures})
    codes = _awaited(run, KEY, of_codes, lambda report: _codes(run, seeds, place.name, report))
    if codes is None:
        return
    board = st.container()  # stays while the small pictures are drawn anew
    sheet = _awaited(
        run,
        PICTURES,
        of_pictures,
        lambda report: _sheet(run, pull, codes, place.name, heat, rest, edits, report),
    )
    stands = standing(Lattice(run.digest, place.name, int(first)))
    where = stands.place
    code = blended(run, place.name, seeds, codes, where, heat)
    numbers = np.concatenate([code, rest]).astype(np.float32)
    ways = [_way(block) for block in place.blocks]
    with board:
        components.seed_plane(
            seeds,
            _scores(place, codes),
            [
                {"from": place.slice(b.name).start, "to": place.slice(b.name).stop, **way}
                for b, way in zip(place.blocks, ways, strict=True)
            ],
            where,
            key=KEY,
            image_shape=run.model.image_shape,
            sheet=sheet,
            revision=stands.revision,
            rest=rest.tolist(),
            temperature=heat,
            token=engine.open_session("seed-plane", run.model, z=numbers, edits=edits, pull=pull),
            render=lambda: sliders.decoded(run, pull, numbers, edits),
        )
        kinds = dict.fromkeys(str(way["kind"]) for way in ways)
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.button(
                "Put on the sliders",
                key="plane-put",
                on_click=sliders.put,
                args=(run, pull, code, place.name, rest.tolist()),
                help="The sliders above take the plane's code, as one step that can be undone.",
            )
            with st.popover(
                "Code", help="A program that makes this very code and its picture.", key="plane-code"
            ):
                st.code(
                    code_of(run, pull, place.name, seeds, where, heat, rest, edits),
                    language="python",
                    wrap_lines=True,
                )
        st.caption(f"How seeds are blended: {'; '.join(HOW[kind] for kind in kinds)}.")


def _awaited(run: Run, question: str, key: tuple, work: Callable[[Report], np.ndarray]) -> np.ndarray | None:
    """The result of one of the plane's jobs, None until it is there; notes that this person waits for it."""
    task = state.job(run, question, key, work, heavy=True)
    st.session_state.setdefault("plane-jobs", {})[question] = (run, key, task)
    return controls.await_job(run, question, key, task)


def _leave(run: Run, wanted: dict[str, tuple]) -> None:
    """Ends the jobs that this person waited for and that answer {question: key} no longer, unless others wait."""
    jobs = st.session_state.get("plane-jobs", {})
    for question, (whose, key, task) in list(jobs.items()):
        if (whose.digest, key) == (run.digest, wanted[question]):
            continue
        del jobs[question]
        st.session_state.get("awaited", {}).pop((whose.digest, question, key), None)
        if task.leave(engine.current_owner() or ""):
            state.forget_job(whose, question, key)


def _codes(run: Run, seeds: np.ndarray, space: str, report: Report) -> np.ndarray:
    """The codes (n, dim) of seeds (rows, columns), row by row, at a temperature of 1."""
    import torch

    from latentlab.analysis.inference import carry, to_numpy

    drawn = []
    with torch.inference_mode():
        for n, seed in enumerate(seeds.ravel()):
            report(n / seeds.size, "drawing seeds …")
            drawn.append(run.model.sample_codes(1, int(seed)).float())
        return to_numpy(carry(run.model, torch.cat(drawn), space))


def _sheet(
    run: Run,
    pull: Pull | None,
    codes: np.ndarray,
    space: str,
    heat: float,
    rest: np.ndarray,
    edits: tuple,
    report: Report,
) -> np.ndarray:
    """One image (channels, height, width) of the small pictures of all codes (n, dim), a row of seeds at a time."""
    import torch

    from latentlab.latents import temper

    if heat != 1.0:
        codes = temper(space_of(run.model, space), torch.from_numpy(codes.copy()), heat).numpy()
    numbers = np.concatenate([codes, np.repeat(rest[None], len(codes), axis=0)], axis=1)
    rows = []
    for n, row in enumerate(np.split(numbers, SIDE)):
        report(n / SIDE, "drawing the seeds' small pictures …")
        rows.append(sliders.decoded_all(run, pull, row, edits))
    pictures = np.concatenate(rows)
    while max(pictures.shape[-2:]) > THUMBNAIL and not pictures.shape[-1] % 2 and not pictures.shape[-2] % 2:
        pictures = (pictures[..., ::2, :] + pictures[..., 1::2, :]) / 2
        pictures = (pictures[..., ::2] + pictures[..., 1::2]) / 2
    _, channels, high, wide = pictures.shape
    sheet = pictures.reshape(SIDE, SIDE, channels, high, wide).transpose(2, 0, 3, 1, 4)
    return sheet.reshape(channels, SIDE * high, SIDE * wide)


def corners(where: Place) -> tuple[list[int], float, float]:
    """Numbers in the lattice of the four seeds around a place, and where it is between them, each from 0 to 1."""
    i, j = (min(math.floor(v), SIDE - 2) for v in (where.x, where.y))
    first = j * SIDE + i
    return [first, first + 1, first + SIDE, first + SIDE + 1], where.x - i, where.y - j


def blended(
    run: Run, space: str, seeds: np.ndarray, codes: np.ndarray, where: Place, heat: float
) -> np.ndarray:
    """The code (dim,) of a place: at a seed exactly that seed's."""
    import torch

    from latentlab.latents import bilinear_weights, blend, temper

    around, x, y = corners(where)
    place = space_of(run.model, space)
    code = blend(place, torch.from_numpy(codes[around].copy()), bilinear_weights(x, y))
    return (code if heat == 1.0 else temper(place, code, heat))[0].numpy()


def _way(block: Block) -> dict[str, Any]:
    """How a block is blended, for the browser."""
    prior = block.prior
    if isinstance(prior, (Categorical, Codebook)):
        return {"kind": "nearest"}
    if isinstance(prior, (Normal, Uniform)):
        ends = {"low": prior.low, "high": prior.high} if isinstance(prior, Uniform) else {}
        return {"kind": prior.kind, "mean": prior.moments(block.dim)[0], **ends}
    return {"kind": "linear"}


def _scores(place: Any, codes: np.ndarray) -> np.ndarray:
    """The codes with normal scores in place of uniform coordinates."""
    import torch

    from latentlab.latents.blending import normal_scores

    out = codes.copy()
    for block in place.blocks:
        if isinstance(block.prior, Uniform):
            where = place.slice(block.name)
            out[:, where] = normal_scores(torch.from_numpy(codes[:, where].copy()), block.prior).numpy()
    return out


def code_of(
    run: Run,
    pull: Pull | None,
    space: str,
    seeds: np.ndarray,
    where: Place,
    heat: float,
    rest: np.ndarray,
    edits: tuple,
) -> str:
    """Python that makes the place's code from its seeds, and its picture; steps along directions are left out."""
    around, x, y = corners(where)
    first = run.model.latent_space.name
    names = "bilinear_weights, blend" + ("" if heat == 1.0 else ", temper")
    truncation, last = _truncation(pull, space, rest)
    made = "" if not edits else f", edits={written(list(edits))}"
    steps = rest if pull is None or pull.cutoff is None else rest[:-1]
    lines = [
        "import torch",
        "import latentlab",
        f"from latentlab.latents import {names}",
        "",
        f"run = {opened(run)}",
        f"space = run.model.spaces[{space!r}]",
        f"seeds = {[int(seeds.ravel()[n]) for n in around]}",
        "with torch.inference_mode():",
        "    codes = torch.cat([run.model.sample_codes(1, seed) for seed in seeds])",
        *([] if space == first else [f"    codes = run.model.map(codes, {first!r}, {space!r})"]),
        f"    z = blend(space, codes, bilinear_weights({round(x, 6)!r}, {round(y, 6)!r}))",
        *([] if heat == 1.0 else [f"    z = temper(space, z, {heat!r})"]),
        *truncation,
        f"image = latentlab.analysis.decode_latents(run.model, z, space={last!r}{made})[0]",
        *(["# before the steps along directions that are set on the sliders"] if steps.any() else []),
    ]
    return "\n".join(lines)


def _truncation(pull: Pull | None, space: str, rest: np.ndarray) -> tuple[list[str], str]:
    """Lines that truncate the code as the sliders say, and the space it is of then."""
    if pull is None or pull.cutoff is None or rest[-1] == 1.0:
        return [], space
    last = W_PLUS if pull.cutoff else W
    layers = f", range({pull.cutoff}), {W_PLUS!r}" if pull.cutoff else ""
    carried = [] if space == last else [f"    z = run.model.map(z, {space!r}, {last!r})"]
    return [*carried, f"    z = run.model.truncate(z, {float(f'{rest[-1]:.6g}')!r}{layers})"], last


__all__ = ["blended", "code_of", "corners", "draw"]
