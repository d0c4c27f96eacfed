"""The numbers that prove projections back to the pixels, taken on the batch itself. Internal to this package."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.backpropagation import Walk, pulled_back, walked
from latentlab.analysis.subject import Subject

_TOLERANCE = 1e-4
_FACTOR = 2.5
_CONTROLS = 16


def certify(
    subject: Subject,
    stage: str,
    rule: str,
    images: Tensor,
    marks: Tensor,
    found: tuple[Tensor, Walk | None, Tensor],
    x: Tensor,
    rng: np.random.Generator,
) -> dict[str, float]:
    """The certificate of one batch of projections, as ``Deconvolution`` tells it.

    Args:
        subject: the network.
        stage: name of the stage.
        rule: that of the projections.
        images: the batch (n, channels, height, width), requiring a gradient.
        marks: 1 at the entries of the stage that are kept, else 0.
        found: the state, its walk (None where there is none) and the projections.
        x: all images, to take other switches from.
        rng: decides other units and images.

    Raises:
        ValueError: if the walk is not what the network does, though every operation is known.
    """
    state, walk, projection = found
    proof: dict[str, float] = {}
    if walk is not None:
        with torch.enable_grad():
            plain = subject.state(images, stage)
        same, _ = walked(subject, images, stage, "gradient")
        signal = torch.as_tensor(
            rng.standard_normal(tuple(state.shape)), dtype=state.dtype, device=state.device
        )
        true = pulled_back(plain, signal, images)
        proof["gradient_difference"] = _relative(pulled_back(same, signal, images), true)
        proof["state_difference"] = _relative(state.detach(), plain.detach())
        if max(proof.values()) > _TOLERANCE and rule != "gradient":
            raise ValueError(
                f"What stage {subject.address(stage)!r} does can't be followed: a walk with the gradient's own rule is "
                f"{max(proof.values()):.1g} away from autograd's gradient, so rule {rule!r} would be wrong; "
                "rule='gradient' is possible."
            )
    seeds = marks * state.detach()
    if walk is not None:
        walk.passed = []
    proof["homogeneity"] = _relative(pulled_back(state, _FACTOR * seeds, images), _FACTOR * projection)
    if walk is not None:
        proof |= _way_back(rule, walk.passed or [])
        walk.passed = None
    few = slice(0, _CONTROLS)
    if state.shape[1] > 1:
        other = pulled_back(state, _others(marks, seeds, state.detach(), rng), images)
        cosines = torch.cosine_similarity(projection[few].flatten(1), other[few].flatten(1), dim=1)
        proof["other_unit"] = float(cosines.median())
    if walk is not None and walk.pools:
        shift = rng.integers(1, max(len(x), 2), len(images))
        theirs = x[torch.as_tensor(shift, device=x.device) % len(x)].requires_grad_()
        _, other_walk = walked(subject, theirs, stage, rule)
        swapped, _ = walked(subject, images, stage, rule, [pool[2] for pool in other_walk.pools])
        moved = pulled_back(swapped, seeds, images)
        total = float(moved.abs().sum() + projection.abs().sum())
        proof["switch_share"] = float((moved - projection).abs().sum()) / total if total else 0.0
    return proof


def _others(marks: Tensor, seeds: Tensor, state: Tensor, rng: np.random.Generator) -> Tensor:
    """For each row a signal as strong as its own from the same place, but of another unit that is active there."""
    place, strength = marks.sum(dim=1, keepdim=True), seeds.abs().sum(dim=1, keepdim=True)
    active = _nonzero(state * place)
    luck = torch.as_tensor(rng.random(tuple(active.shape)), device=state.device) + active
    luck[_nonzero(marks)] = -1.0
    chosen = torch.nn.functional.one_hot(luck.argmax(dim=1), state.shape[1]).to(state)
    return chosen.view(*chosen.shape, *(1,) * (state.ndim - 2)) * strength


def _nonzero(state: Tensor) -> Tensor:
    return (state.reshape(*state.shape[:2], -1) != 0).any(dim=2)


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


def _way_back(rule: str, passed: list[tuple[tuple[Tensor, Any], Tensor, Tensor]]) -> dict[str, float]:
    """How the noted signals passed each rectifier and pool, against the rule as it is defined."""
    wrong, apart, total, pools = [], 0.0, 0.0, []
    for (x, how), arrived, left in passed:
        if isinstance(how, dict):
            pools.append(_relative(left, _unpooled(x, how, arrived)))
            continue
        gradient = arrived * (x > 0) + how * arrived * (x <= 0)
        signal = arrived if rule == "deconvnet" else gradient
        expected = gradient if rule == "gradient" else signal.clamp_min(0) + how * signal.clamp_max(0)
        wrong.append(float((left - expected).abs().max() / arrived.abs().max().clamp_min(1e-12)))
        apart += float((left - gradient).abs().sum())
        total += float(arrived.abs().sum())
    proof = {"switches": max(pools)} if pools else {}
    if wrong:
        proof |= {"rule_difference": max(wrong), "rule_share": apart / max(total, 1e-12)}
    return proof


def _unpooled(x: Tensor, asked: dict[str, Any], signal: Tensor) -> Tensor:
    """The signal brought back through max-pooling of x by autograd's own backward pass."""
    with torch.enable_grad():
        x = x.clone().requires_grad_()
        (found,) = torch.autograd.grad(torch.nn.functional.max_pool2d(x, **asked), x, signal)
    return found
