"""What a region of the image reads: the units of a stage, or the latents, that it depends on, by its gradient.

The way back from pixels to units, in a network that makes images; ``unit_draws`` is the way there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.drawings import must_draw
from latentlab.analysis.inference import check_seed, evaluating, to_numpy, to_tensor
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.resumption import edits_behind, look_from
from latentlab.analysis.subject import Subject, subject_of
from latentlab.models.edits import Edit


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PixelReading(Result):
    """Which units of a stage, or which latents, a region of the image depends on.

    Attributes:
        gradient: gradient of the region's mean by the state of the stage, (n, units, …).
        attribution: gradient times activation, summed over a unit's map, (n, units): to first order what the region
            loses without the unit.
        sensitivity: root of the summed squares of a unit's gradient, (n, units).
        order: units by mean absolute attribution (of latents: by mean sensitivity), the strongest first, (units,).
        value: the region's mean, (n,).
        region: weights of the pixels, (height, width), that sum to 1.
        images: the images, (n, channels, height, width).
        names: what the units are called: latents by name, units by number.
        stage: name of the stage; "" for the network's own input.
        address: its address within the model, or the name of the latent space.
        network: name of the network.

    The certificate holds ``finite_difference``, the largest relative difference between the gradient's length and the
    central difference along it; ReLUs that switch on the way make it larger. And ``random_share``, the slope along
    random directions as a share of the slope along the gradient (mean of 8).
    """

    gradient: np.ndarray
    attribution: np.ndarray
    sensitivity: np.ndarray
    order: np.ndarray
    value: np.ndarray
    region: np.ndarray
    images: np.ndarray
    names: tuple[str, ...]
    stage: str
    address: str
    network: str


def pixel_reads(
    model: Any,
    region: Any,
    inputs: Any = None,
    stage: str | None = None,
    network: str = "generator",
    *,
    n: int = 1,
    seed: int = 0,
    edits: Sequence[Edit] = (),
) -> PixelReading:
    """From a region of the image back to the units of a stage, or to the latents: gradient, and gradient x activation.

    Args:
        model: a model with a network that makes images.
        region: a box (top, left, bottom, right) as shares of height and width from 0 to 1, or a mask (height, width)
            of weights of at least 0. What is read is the weighted mean over it and over the channels.
        inputs: codes (n, dim); None is ``n`` prior draws.
        stage: name or address of the stage; None for the network's own input, the latents.
        network: name of the model's network.
        n: number of prior draws.
        seed: decides the draws.
        edits: edits that are in force throughout.

    Raises:
        ValueError: on a network that makes no images, an unknown stage, a region that covers no pixel, or where no
            gradient leads back, as to indices of a codebook.
    """
    subject = subject_of(model, network)
    must_draw(subject)
    edits = subject.check(edits)
    h = subject.inputs(inputs, check_seed(seed), n).clone()
    with evaluating(model):
        if stage is None:
            name, address, state, behind = "", str(subject.reads or "input"), h, edits
        else:
            name, address = subject.network.stage_name(stage), subject.address(stage)
            with torch.no_grad():
                state = subject.state(h, stage, edits)
            behind = edits_behind(subject.network, name, edits)

        def images_of(states: Tensor) -> Tensor:
            given = states if stage is None else h
            return (
                subject.output(given, behind)
                if stage is None
                else look_from(subject, given, name, states, behind)[1]
            )

        state = state.detach().clone().requires_grad_()
        with torch.enable_grad():
            images = images_of(state)
            weights = _weights(region, images)
            value = (images.mean(dim=1) * weights).sum((1, 2))
            (gradient,) = (
                torch.autograd.grad(value.sum(), state, allow_unused=True) if value.requires_grad else (None,)
            )
        if gradient is None:
            raise ValueError(
                f"No gradient leads from the region back to {address!r}, as to indices of a codebook; "
                "name a stage behind it."
            )
        state, images = state.detach(), images.detach()

        def slope(direction: Tensor) -> Tensor:
            """The central difference of the region's mean along a direction of length 1 a row, (n,)."""
            step = 1e-2 * state.flatten(1).square().mean(1).sqrt().clamp_min(1e-3)
            step = step.view(-1, *[1] * (state.ndim - 1))
            with torch.no_grad():
                ends = [
                    (images_of(state + s * step * direction).double().mean(1) * weights).sum((1, 2))
                    for s in (1, -1)
                ]
            return (ends[0] - ends[1]) / (2 * step.flatten(1)[:, 0])

        length = gradient.flatten(1).norm(dim=1)
        shape = (-1, *[1] * (state.ndim - 1))
        along = slope(gradient / length.clamp_min(1e-20).view(shape))
        gap = ((along - length).abs() / length.clamp_min(1e-20))[length > 1e-12]
        chance = torch.Generator().manual_seed(seed)
        random = []
        for _ in range(8):
            d = torch.randn(state.shape, generator=chance).to(state)
            random.append(slope(d / d.flatten(1).norm(dim=1).view(shape)).abs())
        share = torch.stack(random).mean(0) / length.clamp_min(1e-20)
    sensitivity = to_numpy(gradient.flatten(2).norm(dim=2) if gradient.ndim > 2 else gradient.abs())
    product = gradient * state
    attribution = to_numpy(product.flatten(2).sum(2) if product.ndim > 2 else product)
    by = sensitivity if stage is None else np.abs(attribution)
    return PixelReading(
        gradient=to_numpy(gradient),
        attribution=attribution,
        sensitivity=sensitivity,
        order=np.argsort(-by.mean(axis=0), kind="stable"),
        value=to_numpy(value),
        region=to_numpy(weights),
        images=to_numpy(images),
        names=_names(subject, stage, state.shape[1]),
        stage=name,
        address=address,
        network=subject.name,
        certificate={
            "finite_difference": float(gap.max()) if len(gap) else 0.0,
            "random_share": float(share[length > 1e-12].mean()) if len(gap) else 0.0,
        },
        provenance=provenance(
            model,
            {"network": subject.name, "stage": name, "inputs": h, "region": region, "edits": edits},
            seed,
        ),
    )


def _weights(region: Any, images: Tensor) -> Tensor:
    """Weights (height, width) that sum to 1 of a box or mask."""
    if images.ndim != 4:
        raise ValueError(f"Expected a network that gives images; got outputs {tuple(images.shape[1:])}.")
    height, width = images.shape[2:]
    given = to_tensor(region, images.device)
    if given.shape == (4,):
        top, left, bottom, right = (float(v) for v in given)
        if not (0.0 <= top < bottom <= 1.0 and 0.0 <= left < right <= 1.0):
            raise ValueError(f"A box is top, left, bottom, right as shares from 0 to 1; got {tuple(region)}.")
        mask = torch.zeros(height, width, device=images.device)
        first, start = int(top * height), int(left * width)
        mask[first : max(first + 1, round(bottom * height)), start : max(start + 1, round(right * width))] = 1
    elif given.shape == (height, width):
        mask = given
    else:
        raise ValueError(
            f"A region is a box of 4 shares or a mask ({height}, {width}); got shape {tuple(given.shape)}."
        )
    if not bool((mask >= 0).all()) or float(mask.sum()) <= 0:
        raise ValueError("A region needs weights of at least 0, not all of them 0.")
    return mask / mask.sum()


def _names(subject: Subject, stage: str | None, width: int) -> tuple[str, ...]:
    if stage is None and subject.reads is not None:
        return tuple(subject.model.spaces[subject.reads].names)
    return tuple(str(i) for i in range(width))
