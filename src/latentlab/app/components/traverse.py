"""Traverse: one slider per latent coordinate and the decoded image, redrawn while a slider is dragged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from latentlab.app.components.mount import base_path, image_data, nothing, register, saved
from latentlab.app.ranges import USUAL, Ranges, applied

_component = register("traverse", ["ranges"])

Slots = tuple[np.ndarray | None, np.ndarray | None]
"""The codes (dim,) kept as A and B."""


@dataclass(frozen=True)
class Axis:
    """One slider, or the buttons of one category.

    Args:
        index: the coordinate of the code that it moves; the first of a category's one-hot coordinates.
        name: its name in the latent space, such as "z3".
        low: left end of its range, in the code's own units.
        high: right end of its range.
        default: where its tick stands, and what a reset returns to.
        std: spread that the dice uses around ``default``; 0 where it leaves the slider alone.
        kl: KL divergence in nats, drawn as a bar; None for no bar.
        inactive: fold it under "Inactive".
        group: name of its block, shown when there are several.
        meaning: the name a person gave, such as "rotation".
        known: the factor it was measured to know most of, such as "scale".
        help: one line shown on hover.
        choices: names of the categories of a one-hot block, one button each; () for a slider. ``default`` is then the
            number of the category, ``low`` and ``high`` are not used.
        whole: the slider stops at whole numbers only, the indices of a codebook.
        sigma: middle and standard deviation of its prior, from which ranges of so many of them are made; None where
            ranges for all sliders leave it alone.
    """

    index: int
    name: str
    low: float
    high: float
    default: float = 0.0
    std: float = 1.0
    kl: float | None = None
    inactive: bool = False
    group: str = ""
    meaning: str = ""
    known: str = ""
    help: str = ""
    choices: tuple[str, ...] = ()
    whole: bool = False
    sigma: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"Axis {self.name!r} needs low < high; got low={self.low}, high={self.high}.")


@dataclass(frozen=True, eq=False)
class TraverseState:
    """Where a person left the sliders.

    Attributes:
        z: the code (dim,) float32.
        locks: coordinates that the dice leaves alone.
        engine: "browser", "server" or "rerun": who draws the pictures.
        seed: the dice's last seed.
        slots: the codes (dim,) kept as A and B, None where none was.
        ranges: how far the sliders reach.
    """

    z: np.ndarray
    locks: tuple[int, ...]
    engine: str = "rerun"
    seed: int = 0
    slots: Slots = (None, None)
    ranges: Ranges = USUAL


def traverse_state(
    key: str,
    z: Sequence[float] | np.ndarray,
    revision: str | int = 0,
    locks: Sequence[int] = (),
    slots: Slots = (None, None),
    ranges: Ranges = USUAL,
) -> TraverseState:
    """The component's state, readable before it is drawn; what is given here until the person moves something."""
    given = np.asarray(z, np.float32).reshape(-1)
    state = saved(key, "state")
    if state is None:
        return TraverseState(given, tuple(locks), slots=slots, ranges=ranges)
    drawn_by = str(state["engine"]) if state.get("engine") in ("browser", "server") else "rerun"
    told: Slots = (None, None)
    try:
        told = _slots(state.get("slots"), given.shape)
        moved = np.asarray(state["z"], np.float32)
        if (
            str(state["revision"]) == str(revision)
            and moved.shape == given.shape
            and np.isfinite(moved).all()
        ):
            held = tuple(int(i) for i in state.get("locks", ()))
            reach = _ranges(state.get("ranges"), ranges).below(len(given))
            return TraverseState(moved, held, drawn_by, int(state.get("seed", 0)), told, reach)
    except (KeyError, TypeError, ValueError, OverflowError):
        pass  # what a browser sends may be anything; the person then starts from the code given
    a, b = (kept if given is None else given for given, kept in zip(slots, told, strict=True))
    return TraverseState(given, tuple(locks), drawn_by, slots=(a, b), ranges=ranges)


def _ranges(told: Any, before: Ranges) -> Ranges:
    """The ranges that a browser told; those before where it told none that can be read."""
    try:
        return Ranges.read(told)
    except ValueError:
        return before


def _slots(kept: Any, shape: tuple[int, ...]) -> Slots:
    """The two codes that were kept, where they fit the sliders."""
    codes = [None if code is None else np.asarray(code, np.float32) for code in (kept or (None, None))]
    fit = [
        code if code is not None and code.shape == shape and np.isfinite(code).all() else None
        for code in codes
    ]
    a, b = fit
    return a, b


def traverse(
    axes: Sequence[Axis],
    z: Sequence[float] | np.ndarray,
    *,
    key: str,
    image_shape: Sequence[int],
    token: str | None = None,
    render: Callable[[np.ndarray], np.ndarray] | None = None,
    source: np.ndarray | None = None,
    source_label: str = "Input",
    locks: Sequence[int] = (),
    slots: Slots = (None, None),
    ranges: Ranges = USUAL,
    revision: str | int = 0,
    seed: int = 0,
    height: int | None = None,
    ends: Callable[[np.ndarray, list[Axis]], tuple[list[int], np.ndarray]] | None = None,
    code: Callable[[np.ndarray], np.ndarray] | None = None,
    on_change: Callable[[], None] | None = None,
) -> TraverseState:
    """Draws the sliders and the picture.

    Args:
        axes: the sliders in display order; inactive ones are shown last by themselves.
        z: the code (dim,) to start from, taken at first and whenever ``revision`` changes.
        key: Streamlit's key, unique on the page.
        image_shape: (channels, height, width) of the model's images.
        token: of ``engine.open_session``; None for the rerun engine.
        render: decodes a code (dim,) to an image (channels, height, width) in [0, 1]; used by the rerun engine.
        source: image (channels, height, width) in [0, 1] shown beside the picture.
        source_label: what to call it.
        locks: coordinates locked at first.
        slots: codes kept as A and B at first; None leaves what the person kept.
        ranges: how far the sliders reach at first, where that is not what ``axes`` say.
        revision: change it to make the sliders take ``z``, ``locks``, ``slots`` and ``ranges`` anew.
        seed: the dice's first seed.
        height: side of the picture in CSS pixels; by default it follows the width.
        ends: of a code (dim,) and the sliders as far as they reach now, what they lead to: k coordinates, and images
            (k, 2, channels, height, width) with each at its low and at its high end.
        code: of the sliders' numbers, the code (dim,) they stand for, for "Copy z"; None where it is the same.
        on_change: runs before the script when the person let go of a slider or changed a lock.

    Returns:
        The code, locks and ranges as the person left them.
    """
    state = traverse_state(key, z, revision, locks, slots, ranges)
    image = None
    if render is not None and (token is None or (saved(key, "state") or {}).get("engine") == "rerun"):
        image = image_data(render(state.z))
    indices, pairs = ([], None) if ends is None else ends(state.z, applied(axes, state.ranges))
    sheet = None
    if pairs is not None and len(pairs):  # one picture: a row for each slider, low and high side by side
        _, _, channels, high, wide = pairs.shape
        sheet = pairs.transpose(2, 0, 3, 1, 4).reshape(channels, len(pairs) * high, 2 * wide)
    _component(
        key=key,
        data={
            "axes": [asdict(axis) for axis in axes],
            "ends": {"of": indices, "image": image_data(sheet)},
            # What the person has, so that a component mounted anew starts there.
            "z": [float(v) for v in state.z],
            "drawn": [float(v) for v in state.z] if image is not None else None,
            "code": None if code is None else {"of": state.z.tolist(), "values": code(state.z).tolist()},
            "image_shape": list(image_shape),
            "token": token,
            "base": base_path(),
            "image": image,
            "source": image_data(source),
            "source_label": source_label,
            "locks": list(state.locks),
            "slots": [None if code is None else [float(v) for v in code] for code in state.slots],
            "ranges": state.ranges.plain(),
            "revision": str(revision),
            "seed": state.seed or seed,
            "height": height,
        },
        on_state_change=on_change or nothing,
        on_expired_change=nothing,
    )
    return state
