"""Derivatives of what a model does with codes and images: products with the Jacobian, forward and in reverse.

Internal to this package; ``jacobian``, ``pullback_metric`` and ``geodesic`` are what people call.
"""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.inference import BATCH_SIZE, decoded, needs_encoder
from latentlab.analysis.subject import subject_of
from latentlab.latents import Categorical, Codebook, LatentSpace
from latentlab.models.edits import Edit

_FORWARD_MODE = threading.RLock()
"""Torch counts the levels of its forward mode for the whole process: two threads in it at once raise errors."""


def outcome(
    model: Any, network: str, stage: str | None, place: LatentSpace | None, edits: Sequence[Edit] = ()
) -> Callable[[Tensor], Tensor]:
    """The function that is studied: from codes of a space, or a network's inputs, to images or a stage's state.

    An encoder's output is its posterior means, in which a category's coordinates are probabilities.
    """
    subject = subject_of(model, network)
    if place is not None:
        if stage is None:
            return lambda codes: decoded(model, codes, edits, place.name)

        def state(codes: Tensor) -> Tensor:
            reads = subject.reads
            h = codes if place.name == reads else model.map(codes, place.name, reads)
            return subject.state(h, stage, edits)

        return state
    if stage is not None:
        return lambda h: subject.state(h, stage, edits)
    if subject.whole and subject.name == "encoder":
        needs_encoder(model)
        return lambda h: model.encode(h, edits=edits).mean
    return lambda h: subject.output(h, edits)


def ordered_rows(place: LatentSpace, dims: Sequence[int | str] | None, categories: bool = True) -> list[int]:
    """Positions of the coordinates that can be differentiated by: those asked for, else all that can.

    Raises:
        ValueError: on indices of a codebook among them, or where there are none.
    """
    left_out = (Codebook,) if categories else (Codebook, Categorical)
    asked = range(place.dim) if dims is None else [place.index(d) for d in dims]
    found = [i for i in asked if not isinstance(place.block_of(i).prior, left_out)]
    if not found or (dims is not None and len(found) < len(asked)):
        what = "an index of a codebook" if categories else "a category or an index of a codebook"
        raise ValueError(f"There is no derivative by {what}; take other coordinates of space {place.name!r}.")
    return found


def directions_at(place: LatentSpace, codes: Tensor, rows: Sequence[int]) -> Tensor:
    """The direction (n, rows, dim) that each row moves codes in: its axis; for a category, towards it."""
    ways = torch.zeros(len(codes), len(rows), place.dim, dtype=codes.dtype, device=codes.device)
    for row, i in enumerate(rows):
        ways[:, row, i] = 1.0
        block = place.block_of(i)
        if isinstance(block.prior, Categorical):
            ways[:, row, place.slice(block.name)] -= codes[:, place.slice(block.name)]
    return ways


def pushforward(
    f: Callable[[Tensor], Tensor],
    points: Tensor,
    ways: Tensor,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], object] | None = None,
) -> Tensor:
    """J times each direction, (n, rows, …), by forward mode; ``ways`` are directions (n, rows, …) at points (n, …).

    Each pair of point and direction is a row of one batch: no vectorising transform, which foreign modules may refuse.
    """
    _forward_mode()
    rows = ways.shape[1]
    at, along = points.repeat_interleave(rows, dim=0), ways.flatten(0, 1)
    parts, done = [], 0
    for p, d in zip(at.split(batch_size), along.split(batch_size), strict=True):
        with _FORWARD_MODE:
            parts.append(torch.func.jvp(f, (p,), (d.contiguous(),))[1])
        done += len(p)
        if progress is not None:
            progress(done, len(at))
    return torch.cat(parts).unflatten(0, (len(points), rows))


def pullback(
    f: Callable[[Tensor], Tensor],
    points: Tensor,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], object] | None = None,
) -> Tensor:
    """The derivatives (n, outputs, …) of every output by points (n, …), by reverse mode."""
    outputs = f(points[:1]).numel()
    at = points.repeat_interleave(outputs, dim=0)
    which = torch.arange(outputs, device=points.device).repeat(len(points))
    parts, done = [], 0
    for p, i in zip(at.split(batch_size), which.split(batch_size), strict=True):
        p = p.detach().requires_grad_()
        with torch.enable_grad():
            chosen = f(p).flatten(1).gather(1, i[:, None]).sum()
            (slope,) = torch.autograd.grad(chosen, p, allow_unused=True) if chosen.requires_grad else (None,)
        if slope is None:
            raise ValueError(
                "No gradient leads from these outputs back to the inputs, as from indices of a codebook; "
                "name a stage before them."
            )
        parts.append(slope)
        done += len(p)
        if progress is not None:
            progress(done, len(at))
    return torch.cat(parts).unflatten(0, (len(points), outputs))


def in_double(
    model: Any,
    network: str,
    stage: str | None,
    place: LatentSpace | None,
    edits: Sequence[Edit],
    example: Tensor,
) -> Callable[[Tensor], Tensor] | None:
    """What ``outcome`` gives, of a float64 copy of the model; None for a model that runs in float32 only."""
    f = outcome(copy.deepcopy(model).double().eval(), network, stage, place, edits)
    try:
        with torch.no_grad():
            found = f(example.double())
    except RuntimeError:  # torch's word for two types in one product
        return None
    return f if found.dtype == torch.float64 else None


def central_difference(f: Callable[[Tensor], Tensor], points: Tensor, along: Tensor, step: float) -> Tensor:
    """(f(p + h v) - f(p - h v)) / 2h for points (n, …) and directions (n, …)."""
    return (f(points + step * along) - f(points - step * along)) / (2.0 * step)


def random_direction(shape: Sequence[int], seed: int) -> Tensor:
    """Normal numbers, float64; not those that codes of the same seed are made of, along which styles stand still."""
    return torch.as_tensor(np.random.default_rng([seed, 3]).standard_normal(tuple(shape)))


@cache
def _forward_mode() -> None:
    """Lets torch load its forward mode, which warns of a deprecation of its own the first time."""
    with _FORWARD_MODE, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.func.jvp(torch.sin, (torch.zeros(1),), (torch.ones(1),))
