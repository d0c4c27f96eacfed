"""Sliders: moves of one latent from the low to the high end of its prior, and what flows through stages as they move.

Symbols: a slider goes from code a to code b; D its change of the image; the *flow* through unit u is <C_u, D>, with C_u
the conductance of u along the slider. Internal to this package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.inference import check_seed, draw_codes, to_numpy
from latentlab.analysis.paths import Linearised, along, gauss_legendre
from latentlab.analysis.traversal import dim_ranges
from latentlab.analysis.ways import Nudge, Way, variables
from latentlab.latents import Categorical

_SMALLEST = 1e-12  # squared change of an image that is no more than rounding
Progress = Callable[[int, int], object] | None


@dataclass(frozen=True)
class Sliders:
    """The two ends of each slider of each code, and of random directions of the same mean length.

    Attributes:
        names: the latents; the sliders behind them are random directions.
        low: (codes, sliders, dim).
        high: (codes, sliders, dim).
    """

    names: tuple[str, ...]
    low: Tensor
    high: Tensor


def sliders_of(way: Way, dims: Any, n: int, coverage: float, directions: int, seed: int) -> Sliders:
    """Sliders of the chosen latents at ``n`` prior draws.

    Raises:
        ValueError: on unknown names or numbers out of range.
    """
    space = way.space
    if space is None:
        raise ValueError(
            f"Network {way.subject.name!r} reads no codes, so there are no sliders to follow into it; expected one "
            "that does, such as 'generator'."
        )
    if n < 2 or directions < 1:
        raise ValueError(f"Expected n of at least 2 and directions of at least 1; got {n} and {directions}.")
    groups = variables(space, dims)
    codes = draw_codes(way.model, n, check_seed(seed), space.name).clone()
    ranges = dim_ranges(
        way.model, coverage=coverage, space=None if space.name == way.model.latent_space.name else space.name
    )
    low, high = (codes[:, None].repeat(1, len(groups) + directions, 1) for _ in range(2))
    for k, (_, where) in enumerate(groups):
        if isinstance(space.block_of(where[0]).prior, Categorical):
            high[:, k, where] = codes[:, where].roll(1, dims=1)
        else:
            for i in where:
                low[:, k, i], high[:, k, i] = (float(end) for end in ranges[i])
    lengths = (high - low)[:, : len(groups)].norm(dim=2)
    chance = torch.Generator().manual_seed(seed)
    random = torch.randn(directions, space.dim, generator=chance).to(codes)
    free = [isinstance(space.block_of(i).prior, Categorical) for i in range(space.dim)]
    if not all(free):
        random[:, free] = 0.0
    step = random / random.norm(dim=1, keepdim=True).clamp_min(1e-12) * lengths.mean() / 2
    low[:, len(groups) :] -= step
    high[:, len(groups) :] += step
    return Sliders(tuple(name for name, _ in groups), low, high)


@dataclass
class Sweep:
    """What flows through the stages as the sliders move.

    Attributes:
        matrices: {stage: (latents, units)}, the flow's share of the squared change, over all codes.
        nulls: {stage: (directions, units)}.
        half_differences: of each latent the largest difference, over all stages, between its rows from the first and
            the second half of the codes, (latents,).
        starts: outcomes of the first code at the start of each slider, (latents, …).
        ends: at the end.
        effect: root mean squared change of the outcome by each latent's slider, (latents,); 0 below rounding.
        rows: rows that were run.
    """

    matrices: dict[str, np.ndarray] = field(default_factory=dict)
    nulls: dict[str, np.ndarray] = field(default_factory=dict)
    half_differences: np.ndarray = field(default_factory=lambda: np.empty(0))
    starts: np.ndarray = field(default_factory=lambda: np.empty(0))
    ends: np.ndarray = field(default_factory=lambda: np.empty(0))
    effect: np.ndarray = field(default_factory=lambda: np.empty(0))
    rows: int = 0


def sweep(
    way: Way,
    sliders: Sliders,
    stages: Sequence[str],
    steps: int,
    batch_size: int,
    progress: Progress,
    more: int,
) -> Sweep:
    """Moves all sliders and splits what they do among the units of the stages.

    Args:
        way: from codes to what is looked at.
        sliders: the sliders.
        stages: names of the stages.
        steps: nodes on each slider, two a panel.
        batch_size: rows run at a time.
        progress: called with (rows done, rows in all).
        more: rows that the caller will run besides.

    Raises:
        ValueError: on steps or a batch size below 1.
    """
    if steps < 1 or batch_size < 1:
        raise ValueError(f"steps and batch_size must be at least 1; got {steps} and {batch_size}.")
    order = 2 if steps > 1 else 1
    edges = np.linspace(0.0, 1.0, steps // order + 1)
    t, w = (m.ravel() for m in gauss_legendre(np.stack([edges[:-1], edges[1:]], axis=1), order))
    codes, count = sliders.low.shape[:2]
    low, high = sliders.low.flatten(0, 1), sliders.high.flatten(0, 1)
    flows: dict[str, list[Tensor]] = {stage: [] for stage in stages}
    sizes, first, done = [], [], 0
    group = max(1, batch_size // len(t))
    for k in range(0, len(low), group):
        a, b = low[k : k + group], high[k : k + group]
        with torch.no_grad():
            starts, ends = way.outcome(a), way.outcome(b)
        change = ends - starts
        sizes.append(change.flatten(1).double().square().sum(dim=1))
        if k < count:
            first.append(torch.stack([starts, ends], dim=1))
        rows = torch.cat([along(p[None], q[None], t) for p, q in zip(a, b, strict=True)])
        weights = torch.as_tensor(np.tile(w, len(a)), device=a.device)
        found = _flows(
            way, stages, rows, (b - a).repeat_interleave(len(t), 0), change.repeat_interleave(len(t), 0)
        )
        for stage, flow in found.items():
            flows[stage].append((flow.double() * weights[:, None]).view(len(a), len(t), -1).sum(dim=1))
        done += len(rows)
        if progress is not None:
            progress(done, len(low) * len(t) + more)
    size = torch.cat(sizes).view(codes, count)
    real = len(sliders.names)
    result = Sweep(rows=done, half_differences=np.zeros(real))
    for stage, parts in flows.items():
        flow = torch.cat(parts).view(codes, count, -1)
        share = to_numpy(_ratio(flow, size))
        result.matrices[stage], result.nulls[stage] = share[:real], share[real:]
        halves = [
            _ratio(flow[part], size[part])[:real] for part in (slice(0, codes // 2), slice(codes // 2, None))
        ]
        apart = to_numpy((halves[0] - halves[1]).abs().amax(dim=1))
        result.half_differences = np.maximum(result.half_differences, apart)
    pictures = to_numpy(torch.cat(first)[:real])
    result.starts, result.ends = pictures[:, 0], pictures[:, 1]
    mean = size[:, :real].mean(dim=0)
    mean = torch.where(mean > _SMALLEST, mean, torch.zeros_like(mean))
    result.effect = to_numpy((mean / pictures[0, 0].size).sqrt())
    return result


def _ratio(flow: Tensor, size: Tensor) -> Tensor:
    total = size.sum(dim=0)
    share = flow.sum(dim=0) / total.clamp_min(1e-24)[:, None]
    return torch.where((total > _SMALLEST * len(size))[:, None], share, torch.zeros_like(share))


def _flows(way: Way, stages: Sequence[str], rows: Tensor, step: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """At each row, <dx/dh_u, weights> times the unit's own motion, summed over its map: {stage: (rows, units)}."""

    def joined(z: Tensor) -> Tensor:
        states = way.subject.network.activations(way.enter(z), stages, way.edits)
        shapes.update({stage: states[stage].shape for stage in stages})
        return torch.cat([states[stage].flatten(1) for stage in stages], dim=1)

    shapes: dict[str, torch.Size] = {}
    moved = Linearised(joined, rows).forward(step)
    widths = [int(np.prod(shapes[stage][1:])) for stage in stages]
    still = [torch.zeros(shapes[stage], device=rows.device, requires_grad=True) for stage in stages]
    with torch.enable_grad():
        nudges = [Nudge(stage=way.subject.address(s), change=c) for s, c in zip(stages, still, strict=True)]
        slopes = torch.autograd.grad(way.outcome(rows, *nudges), still, weights, allow_unused=True)
    found = {}
    for stage, slope, motion in zip(stages, slopes, moved.split(widths, dim=1), strict=True):
        motion = motion.view(shapes[stage])
        flow = torch.zeros_like(motion) if slope is None else slope * motion
        found[stage] = flow.reshape(*flow.shape[:2], -1).sum(dim=2)
    return found


def paint(way: Way, sliders: Sliders, stage: str, units: np.ndarray, steps: int) -> np.ndarray:
    """What units (latents, top) of a stage add to each latent's change at the first code, (latents, top, …)."""
    order = 2 if steps > 1 else 1
    edges = np.linspace(0.0, 1.0, steps // order + 1)
    t, w = (m.ravel() for m in gauss_legendre(np.stack([edges[:-1], edges[1:]], axis=1), order))
    pictures = []
    for k, chosen in enumerate(units):
        a, b = sliders.low[:1, k], sliders.high[:1, k]
        rows, weights = along(a, b, t), torch.as_tensor(w, device=a.device)
        state = Linearised(lambda z: way.state(z, stage), rows)
        moved = state.forward((b - a).expand_as(rows))
        onward = Linearised(lambda h, z=rows: way.outcome_from(z, stage, h), state.value)
        for unit in chosen.tolist():
            alone = torch.zeros_like(moved)
            alone[:, unit] = moved[:, unit]
            pictures.append(to_numpy(torch.tensordot(weights, onward.forward(alone).double(), dims=1)))
    return np.stack(pictures).reshape(*units.shape, *pictures[0].shape)


def hold(
    way: Way,
    sliders: Sliders,
    stage: str,
    codes: int,
    batch_size: int,
    done: int,
    total: int,
    progress: Progress,
) -> np.ndarray:
    """Share (latents, units) of each latent's change that is lost when one unit stays as it was at the start."""
    lost, size = [], []
    for k in range(len(sliders.names)):
        a, b = sliders.low[:codes, k], sliders.high[:codes, k]
        with torch.no_grad():
            still, moved = way.state(a, stage), way.state(b, stage)
            ends = way.outcome(b)
            change = (ends - way.outcome(a)).flatten(1)
            width = moved.shape[1]
            row = []
            for u in range(0, width, max(1, batch_size // codes)):
                units = range(u, min(u + max(1, batch_size // codes), width))
                mixed = moved.repeat(len(units), *[1] * (moved.ndim - 1))
                for j, unit in enumerate(units):
                    mixed[j * codes : (j + 1) * codes, unit] = still[:, unit]
                outcome = way.outcome_from(b.repeat(len(units), 1), stage, mixed)
                missed = (ends.repeat(len(units), *[1] * (ends.ndim - 1)) - outcome).flatten(1)
                row.append(
                    (missed * change.repeat(len(units), 1)).sum(dim=1).view(len(units), codes).sum(dim=1)
                )
                done += len(mixed)
                if progress is not None:
                    progress(done, total)
        lost.append(to_numpy(torch.cat(row)))
        size.append(float(change.square().sum()))
    return np.stack(lost) / np.maximum(np.array(size), 1e-12)[:, None]
