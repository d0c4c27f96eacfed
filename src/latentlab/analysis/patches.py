"""Patches: the inputs on which a unit is most active, where on its map, and the part of the image that belongs to it.

Of a network that reads images that part is what the unit sees there: its receptive field. Of one that makes images it
is what the unit can change from there. Both are found exactly, by what a value that is not a number spreads to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.inference import BATCH_SIZE, check_seed, inference, to_numpy
from latentlab.analysis.ranking import chosen_units
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.resumption import look_from
from latentlab.analysis.subject import Subject, subject_of

_GREY = 0.5


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TopInputs(Result):
    """The inputs on which each unit is most active.

    Attributes:
        activations: the largest activation on each input, the largest input first, (units, count).
        indices: which input, its number among those given, (units, count).
        positions: row and column on the unit's map where it is, (units, count, 2); 0 for a flat stage.
        boxes: the patch in pixels: top, left, bottom, right, the last two exclusive, (units, count, 4).
        patches: the image's part there, (units, count, channels, height, width), NaN around smaller ones.
        images: the whole images, read or made, (units, count, channels, height, width).
        mean: mean over all inputs of a unit's largest activation, (units,).
        units: numbers of the units, (units,).
        n: number of inputs looked at.
        role: "sees" for a network that reads images, "draws" for one that makes them.
        stage: name of the stage.
        address: its address within the model.
        network: name of the network.

    The certificate holds ``recomputed_difference``, the largest difference between these activations and those of
    the same inputs run alone, at the same place; and ``outside``: for a network that reads images the largest change
    of such an activation when all outside its patch is made grey, as a share of the activation (0: the patch is all
    that the unit sees); for one that makes them the largest change of a pixel outside the patch when the unit is
    silenced there. ``inside`` is the same for the patch itself.
    """

    activations: np.ndarray
    indices: np.ndarray
    positions: np.ndarray
    boxes: np.ndarray
    patches: np.ndarray
    images: np.ndarray
    mean: np.ndarray
    units: np.ndarray
    n: int
    role: str
    stage: str
    address: str
    network: str


def top_inputs(
    model: Any,
    stage: str,
    network: str = "encoder",
    inputs: Any = None,
    *,
    units: Sequence[int] | int | None = None,
    count: int = 9,
    n: int = 1024,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], object] | None = None,
) -> TopInputs:
    """Looks through many inputs for those that a unit answers most, and cuts out the patch it answers to.

    Args:
        model: a model.
        stage: name or address of the stage.
        network: name of the model's network.
        inputs: images (n, channels, height, width) or a data set, for a network that reads images; codes (n, dim)
            for one that makes them. None is ``n`` prior draws. A data set is read batch by batch, ``n`` images of
            it where it has more.
        units: which units, one or several, each once; None for all.
        count: inputs kept for each unit.
        n: number of prior draws, or of a data set's images.
        seed: decides which.
        batch_size: inputs run at a time.
        progress: called with (inputs done, inputs in all); it may raise to cancel.

    Raises:
        ValueError: on an unknown network, stage or unit, a network alone, or a stage whose units can't be told.
    """
    subject = subject_of(model, network)
    if not subject.whole:
        raise ValueError(
            f"Network {subject.name!r} was given alone, so nothing says what its images are; give the model."
        )
    if batch_size < 1 or n < 1 or count < 1:
        raise ValueError(f"batch_size, n and count must be at least 1; got {batch_size}, {n} and {count}.")
    size, read = _source(subject, inputs, n, check_seed(seed), batch_size)
    reads_images = subject.reads is None
    best, where, which, total = None, None, None, 0.0
    with inference(model):
        name, address = subject.network.stage_name(stage), subject.address(stage)
        numbers: np.ndarray | None = None
        done = 0
        for part in read():
            state = subject.state(part, stage)
            if numbers is None:
                numbers = chosen_units(units, state, address)
            flat = (
                state[:, torch.as_tensor(numbers, device=state.device)].flatten(2)
                if state.ndim == 4
                else (state[:, torch.as_tensor(numbers, device=state.device), None])
            )
            value, at = flat.max(dim=2)
            index = torch.arange(done, done + len(part), device=state.device)[:, None].expand_as(at)
            total = total + value.double().sum(dim=0)
            if best is None or where is None or which is None:
                best, where, which = value, at, index
            else:
                best, where, which = (torch.cat(p) for p in ((best, value), (where, at), (which, index)))
            best, kept = best.topk(min(count, len(best)), dim=0)
            where, which = where.gather(0, kept), which.gather(0, kept)
            done += len(part)
            if progress is not None:
                progress(done, size)
        if best is None or where is None or which is None or numbers is None:
            raise ValueError("inputs must hold at least one input.")
        wide = state.shape[3] if state.ndim == 4 else 1
        positions = torch.stack([where // wide, where % wide], dim=2)
        chosen = torch.unique(which)
        rows = _rows(read(), chosen)
        at = torch.searchsorted(chosen, which).T  # (units, count): which of the rows
        images = rows if reads_images else subject.output(rows, ())
        boxes = _boxes(subject, name, rows[:1], state[:1], positions.transpose(0, 1).cpu().numpy())
        certificate = _certificate(
            subject, name, rows[at], numbers, best.T, positions.transpose(0, 1), boxes, batch_size
        )
    chosen_images = to_numpy(images[at])
    return TopInputs(
        activations=to_numpy(best.T),
        indices=to_numpy(which.T),
        positions=to_numpy(positions.transpose(0, 1)),
        boxes=boxes,
        patches=_cut(chosen_images, boxes),
        images=chosen_images,
        mean=np.asarray(to_numpy(total / size)),  # pyright: ignore[reportArgumentType]
        units=numbers,
        n=size,
        role="sees" if reads_images else "draws",
        stage=name,
        address=address,
        network=subject.name,
        certificate=certificate,
        provenance=provenance(
            model,
            {
                "network": subject.name,
                "stage": name,
                "inputs": getattr(inputs, "name", inputs),
                "units": units,
                "count": count,
                "n": n,
            },
            seed,
        ),
    )


def _source(
    subject: Subject, inputs: Any, n: int, seed: int, batch_size: int
) -> tuple[int, Callable[[], Iterator[Tensor]]]:
    """How many inputs there are, and how to read them batch by batch, as often as wanted."""
    if callable(getattr(inputs, "images", None)) and hasattr(inputs, "__len__"):
        if subject.reads is not None:
            raise ValueError(
                f"Network {subject.name!r} reads codes; give codes, or None for prior draws, and no data set."
            )
        size = len(inputs)
        indices = np.arange(size)
        if n < size:
            indices = np.sort(np.random.default_rng(seed).choice(size, n, replace=False))
        parts = np.array_split(indices, -(-len(indices) // batch_size))
        return len(indices), lambda: (subject.inputs(inputs.images(torch.as_tensor(p)), seed) for p in parts)
    h = subject.inputs(inputs, seed, n)
    return len(h), lambda: iter(h.split(batch_size))


def _rows(parts: Iterator[Tensor], chosen: Tensor) -> Tensor:
    """The inputs of ascending numbers, read in one more pass."""
    found, done = [], 0
    for part in parts:
        mine = chosen[(chosen >= done) & (chosen < done + len(part))] - done
        found.append(part[mine.to(part.device)])
        done += len(part)
    return torch.cat(found)


def _boxes(subject: Subject, stage: str, example: Tensor, state: Tensor, positions: np.ndarray) -> np.ndarray:
    """The patch of each position (…, 2), (…, 4) in pixels."""
    image_shape = tuple(subject.model.image_shape[1:])
    if state.ndim != 4:
        return np.broadcast_to([0, 0, *image_shape], (*positions.shape[:-1], 4)).copy()
    spans = [
        _spread(subject, stage, example, state, axis, image_shape, sorted(set(positions[..., axis].ravel())))
        for axis in (0, 1)
    ]
    ends = [np.array([span[int(p)] for p in positions[..., i].ravel()]) for i, span in enumerate(spans)]
    first, last = (np.stack([ends[0][:, k], ends[1][:, k]], axis=1) for k in (0, 1))
    return np.concatenate([first, last], axis=1).reshape(*positions.shape[:-1], 4)


def _spread(
    subject: Subject,
    stage: str,
    example: Tensor,
    state: Tensor,
    axis: int,
    image_shape: tuple[int, ...],
    wanted: Sequence[int],
) -> dict[int, tuple[int, int]]:
    """The pixels along one axis, (first, last + 1), that belong to each row or column of a stage's map.

    A row of the image (of the map, where the network makes images) is set to NaN, which reaches whatever depends on
    it, however small its weight, and nothing else.
    """
    nan = float("nan")
    if subject.reads is None:
        rows = example.repeat_interleave(image_shape[axis], 0)
        for i in range(len(rows)):
            rows[i].select(1 + axis, i).fill_(nan)
        reached = torch.cat([subject.state(part, stage) for part in rows.split(64)]).isnan()
        touched = to_numpy(reached.any(1).any(3 - axis - 1)).T  # (positions, pixels)
        table = {int(p): touched[p] for p in wanted}
    else:
        held = state.repeat_interleave(len(wanted), 0)
        for i, p in enumerate(wanted):
            held[i].select(1 + axis, int(p)).fill_(nan)
        codes = example.expand(len(wanted), *example.shape[1:])
        images = torch.cat(
            [look_from(subject, c, stage, s)[1] for c, s in zip(codes.split(64), held.split(64), strict=True)]
        )
        touched = to_numpy(images.isnan().any(1).any(3 - axis - 1))
        table = {int(p): touched[i] for i, p in enumerate(wanted)}
    found = {}
    for p, mask in table.items():
        reached_at = np.flatnonzero(mask)
        found[p] = (int(reached_at[0]), int(reached_at[-1]) + 1) if len(reached_at) else (0, 0)
    return found


def _certificate(
    subject: Subject,
    stage: str,
    inputs: Tensor,
    numbers: np.ndarray,
    values: Tensor,
    positions: Tensor,
    boxes: np.ndarray,
    batch_size: int,
) -> dict[str, float]:
    """Runs every kept input again, alone with its patch, and without it."""
    rows = inputs.flatten(0, 1)
    value, place, box = values.reshape(-1), positions.reshape(-1, 2), boxes.reshape(-1, 4)
    unit = torch.as_tensor(np.repeat(numbers, inputs.shape[1]), device=rows.device)
    inside = _mask(box, subject.model.image_shape[1:]).to(rows.device)
    gaps, outside, within = [0.0], [0.0], [0.0]

    def there(state: Tensor, at: slice) -> Tensor:
        each = torch.arange(len(state), device=state.device)
        if state.ndim == 2:
            return state[each, unit[at]]
        return state[each, unit[at], place[at, 0], place[at, 1]]

    for start in range(0, len(rows), batch_size):
        at = slice(start, start + batch_size)
        part, mask, was = rows[at], inside[at], value[at]
        state = subject.state(part, stage)
        gaps.append(float((there(state, at) - was).abs().max()))
        if subject.reads is None:
            scale = was.abs().clamp_min(1e-6)
            kept = there(subject.state(torch.where(mask, part, _GREY), stage), at)
            left = there(subject.state(torch.where(mask, _GREY, part), stage), at)
            outside.append(float(((kept - was).abs() / scale).max()))
            within.append(float(((left - was).abs() / scale).max()))
        else:
            silent = state.clone()
            each = torch.arange(len(state), device=state.device)
            if state.ndim == 2:
                silent[each, unit[at]] = 0.0
            else:
                silent[each, unit[at], place[at, 0], place[at, 1]] = 0.0
            moved = (look_from(subject, part, stage, silent)[1] - subject.output(part, ())).abs()
            outside.append(float((moved * ~mask).max()))
            within.append(float((moved * mask).max()))
    return {
        "recomputed_difference": max(gaps),
        "outside": max(outside),
        "inside": max(within),
    }


def _mask(boxes: np.ndarray, shape: Sequence[int]) -> Tensor:
    """Whether a pixel is inside each box, (n, 1, height, width)."""
    y, x = np.arange(shape[0])[None, :], np.arange(shape[1])[None, :]
    rows = (y >= boxes[:, :1]) & (y < boxes[:, 2:3])
    columns = (x >= boxes[:, 1:2]) & (x < boxes[:, 3:])
    return torch.from_numpy(rows[:, None, :, None] & columns[:, None, None, :])


def _cut(images: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    high, wide = int((boxes[..., 2] - boxes[..., 0]).max()), int((boxes[..., 3] - boxes[..., 1]).max())
    patches = np.full((*images.shape[:3], high, wide), np.nan, dtype=np.float32)
    for place in np.ndindex(images.shape[:2]):
        top, left, bottom, right = boxes[place]
        patches[place][:, : bottom - top, : right - left] = images[place][:, top:bottom, left:right]
    return patches
