"""What a path of units is to keep: a network's own outcome, or the kept maps of the stage behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal

from latentlab.analysis.certifying import Damage, Outcome
from latentlab.analysis.subject import Subject
from latentlab.models.edits import Edit


def addresses_of(subject: Subject, stages: str | Sequence[str] | None, h: Tensor) -> list[str]:
    """Addresses of the stages asked for, in running order; by default the last one whose units are not the output."""
    network = subject.network
    if stages is not None:
        asked = [stages] if isinstance(stages, str) else list(stages)
        if not asked:
            raise ValueError("stages must name at least one stage, or be None; got none.")
        names = {network.stage_name(name) for name in asked}
        return [subject.address(name) for name in network.names if name in names]
    described = [stage for stage in network.describe(h[:1]) if len(stage.shape) in (1, 3)]
    numbers = [int(np.prod(stage.shape)) for stage in described]
    before = [s.name for s in described if s.name != network.names[-1]]
    # The output in another shape holds no units of its own.
    inner = [s.name for s, size in zip(described, numbers, strict=True) if size != numbers[-1]] or before
    if not inner:
        raise ValueError(
            f"Network {subject.name!r} has no stage before its output with units to choose from; pass stages=, out of "
            f"{', '.join(network.addresses)}."
        )
    return [subject.address(inner[-1])]


def outcome_of(subject: Subject) -> tuple[Outcome, str]:
    """What is to be kept, as (n, numbers), and in words."""
    if subject.whole and subject.name == "encoder":
        spread = subject.model.latent_space.std

        def posterior(h: Tensor, edits: Sequence[Edit]) -> Tensor:
            q = subject.model.encode(h, edits=edits)
            parts = [q.mean / spread.to(q.mean)]
            parts += [2 * p.stddev.log() for p in q.parts.values() if isinstance(p, Normal)]
            return torch.cat(parts, dim=1)

        return posterior, "posterior means in prior standard deviations and log variances"
    words = "the image" if subject.reads is not None else "the raw output"
    return lambda h, edits: subject.output(h, edits).flatten(1), words


def ground(subject: Subject, h: Tensor, stage: str, baseline: Any) -> tuple[Tensor, Tensor]:
    """A stage's states (n, units, …) and baseline (1, units, …)."""
    state = subject.state(h, stage).clone()
    if isinstance(baseline, str):
        if baseline not in ("zero", "mean"):
            raise ValueError(f"baseline is 'zero', 'mean' or numbers; got {baseline!r}.")
        mean = state.mean(0, keepdim=True)
        return state, mean if baseline == "mean" else torch.zeros_like(mean)
    given = torch.as_tensor(np.asarray(baseline), dtype=state.dtype, device=state.device)
    if tuple(given.shape) == (state.shape[1],):
        given = given.reshape(-1, *[1] * (state.ndim - 2)).expand(state.shape[1:])
    if given.shape != state.shape[1:] or not bool(torch.isfinite(given).all()):
        raise ValueError(
            f"baseline for {stage!r} must be finite numbers ({state.shape[1]},) or {tuple(state.shape[1:])}; got shape "
            f"{tuple(np.shape(baseline))}."
        )
    return state, given[None].clone()


def enough(damage: Damage, stage: str) -> None:
    """Refuses a target that is too small to tell the units apart: their contributions would cancel."""
    examples, numbers = damage.whole.shape
    units = len(damage.active)
    if examples * numbers < units:
        raise ValueError(
            f"{numbers} numbers for each of {examples} examples can't tell {units} active units of {stage!r} apart: "
            f"contributions would cancel and all be dropped; give at least {-(-units // numbers)} examples."
        )


def kept_maps(subject: Subject, stage: str, kept: np.ndarray, state: Tensor, baseline: Tensor) -> Outcome:
    """The kept units of a stage as the goal of the one before it, each in units of its own spread."""
    apart = (state - baseline)[:, kept]
    spread = (
        apart.square().flatten(2).sum(2).mean(0).sqrt() if apart.ndim > 2 else apart.square().mean(0).sqrt()
    )

    def maps(h: Tensor, edits: Sequence[Edit]) -> Tensor:
        found = subject.state(h, stage, edits)[:, kept]
        return (found / spread.reshape(1, -1, *[1] * (found.ndim - 2)).clamp_min(1e-12)).flatten(1)

    return maps
