"""Layers: a graph of stages, a stage's units as a sheet, and the picture before and after what is done to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from latentlab.app import wire
from latentlab.app.components.mount import base_path, image_data, nothing, register, saved
from latentlab.models.edits import Edit

_component = register("layers")


@dataclass(frozen=True)
class Stage:
    """One stage as the graph shows it.

    Args:
        address: such as "generator.block2".
        shape: of its state without the batch, (units,) or (units, height, width).
        label: what to call it; by default its name.
        parameters: how many it has.
        kind: what it is made of, such as "Conv2d + ReLU".
        inputs: names of the stages of its network that it reads; "input" for the network's own input, and where
            nothing is said, the stage before.
        feeds: what the network's first stage is given, such as "image", shown at the left of its row.
        gives: what the network's last stage gives, shown at the right.
    """

    address: str
    shape: tuple[int, ...]
    label: str = ""
    parameters: int = 0
    kind: str = ""
    inputs: tuple[str, ...] = ()
    feeds: str = ""
    gives: str = ""


@dataclass(frozen=True, eq=False)
class LayersFrame:
    """What the rerun engine draws: images (channels, height, width) in [0, 1], maps (units, …) after the edits.

    ``scores`` are what a discriminator says of the image, without and with the edits, where its stage is shown.
    """

    original: np.ndarray
    edited: np.ndarray
    maps: np.ndarray
    scores: tuple[float, float] | None = None


@dataclass(frozen=True)
class LayersState:
    """What a person did: edits, the stage they look at, the units they selected, the one they look at."""

    edits: tuple[Edit, ...]
    stage: str
    selected: tuple[int, ...] = ()
    engine: str = "rerun"
    unit: int | None = None


def layers_state(key: str, edits: Sequence[Edit], stage: str, revision: str | int = 0) -> LayersState:
    """The component's state, readable before it is drawn; ``edits`` until the person changes something."""
    state = saved(key, "state")
    if state is None:
        return LayersState(tuple(edits), stage)
    drawn_by = "server" if state.get("engine") == "server" else "rerun"
    shown = str(state.get("stage") or stage)
    unit = state.get("unit")
    unit = unit if isinstance(unit, int) and not isinstance(unit, bool) and unit >= 0 else None
    try:
        if str(state["revision"]) == str(revision):
            made = tuple(Edit.from_dict(dict(spec)) for spec in state["edits"])
            chosen = tuple(int(u) for u in state.get("selected", ()))
            return LayersState(made, shown, chosen, drawn_by, unit)
    except (KeyError, TypeError, ValueError, OverflowError):
        pass  # what a browser sends may be anything; the person then starts from the edits given
    return LayersState(tuple(edits), shown, (), drawn_by, unit)


def layers(
    stages: Sequence[Stage],
    *,
    key: str,
    image_shape: Sequence[int],
    token: str | None = None,
    render: Callable[[str, tuple[Edit, ...]], LayersFrame] | None = None,
    stage: str | None = None,
    edits: Sequence[Edit] = (),
    revision: str | int = 0,
    on_change: Callable[[], None] | None = None,
) -> LayersState:
    """Draws the graph of stages, the sheet and the pictures; the input is what ``engine.open_session`` was given.

    Args:
        stages: the stages to choose from, in order; grouped by network.
        key: Streamlit's key, unique on the page.
        image_shape: (channels, height, width) of the model's images.
        token: of ``engine.open_session``; None for the rerun engine.
        render: draws (stage address, edits); used by the rerun engine.
        stage: address of the stage shown first.
        edits: edits to start from, taken at first and whenever ``revision`` changes.
        revision: change it when the input or the edits given here changed.
        on_change: runs before the script when the person changed the edits, the stage or the selection.

    Returns:
        Edits, stage and selection as the person left them.

    Raises:
        ValueError: if there is no stage, or not the one asked for.
    """
    addresses = [s.address for s in stages]
    if not addresses:
        raise ValueError("Layers needs at least one stage to show; got none.")
    stage = addresses[-1] if stage is None else stage
    if stage not in addresses:
        raise ValueError(f"Layers can show {', '.join(addresses)}; got {stage!r}.")
    state = layers_state(key, edits, stage, revision)
    if state.stage not in addresses:
        state = LayersState(state.edits, stage, (), state.engine)
    frame = None
    if render is not None and (token is None or (saved(key, "state") or {}).get("engine") == "rerun"):
        drawn = render(state.stage, state.edits)
        sheet, stats = wire.pack_sheet(np.asarray(drawn.maps), state.stage)
        frame = {
            "original": image_data(drawn.original),
            "image": image_data(drawn.edited),
            "sheet": {**sheet, "data": wire.to_text(sheet["data"])},
            "stats": {**stats, "data": wire.to_text(stats["data"])},
        }
        if drawn.scores is not None:
            frame["scores"] = {"values": list(drawn.scores), "data": ""}
    _component(
        key=key,
        data={
            "stages": [asdict(s) for s in stages],
            "stage": state.stage,
            "unit": state.unit,
            "edits": [edit.to_dict() for edit in state.edits],
            "image_shape": list(image_shape),
            "token": token,
            "base": base_path(),
            "frame": frame,
            "revision": str(revision),
        },
        on_state_change=on_change or nothing,
        on_expired_change=nothing,
    )
    return state
