"""Inversion: the code whose image is nearest to a given one, found by descending the generator itself.

Symbols: x an image, c a code of some space, G(c) its image. The loss of an image is the mean squared error of G(c),
and what is added to it; each image has a descent of its own, so that what stands beside it does not matter.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.descent import Descent
from latentlab.analysis.inference import (
    as_codes,
    as_images,
    carry,
    check_edits,
    check_seed,
    device_of,
    draw_codes,
    encode_images,
    evaluating,
    input_spaces,
    named,
    needs_encoder,
    needs_generator,
    to_numpy,
)
from latentlab.analysis.results import Result, provenance
from latentlab.latents import Categorical, LatentSpace, Mapped, Normal, Uniform
from latentlab.models.contract import is_inference_model, space_of

STARTS = ("encoder", "mean", "best")
CATEGORIES = ("keep", "all")
_SPREAD_DRAWS = 2048
_MOST_CATEGORIES = 256


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Inversion(Result):
    """Codes whose images come near to given ones.

    Attributes:
        z: the codes found, (n, dim); of all codes on the way those of the least loss.
        start_z: the codes that the descents left from, (n, dim).
        images: images of ``z``, (n, channels, height, width) in [0, 1].
        start_images: images of ``start_z``, likewise.
        targets: the given images, likewise.
        losses: loss before each step, (steps + 1, n); NaN behind an image's end. Row 0 is that of ``start_z``.
        error_start: mean squared error of the start's images, (n,).
        error: mean squared error of ``images``, (n,).
        steps: steps taken for each image, (n,).
        stopped: whether the loss had come to rest before the steps ran out, (n,).
        start: what the descents left from: "encoder", "mean", "best" or "codes".
        space: name of the codes' space.

    The certificate holds ``error_start`` and ``error``, the means of both; ``worst_error``, the largest of any
    image; ``stopped``, the share of images whose descent came to rest; and ``distance``, the root mean square of how
    far the codes lie from the middle of their space, in standard deviations of each coordinate, about 1 for draws of
    the space: a code far out may show the image and say little about it.
    """

    z: np.ndarray
    start_z: np.ndarray
    images: np.ndarray
    start_images: np.ndarray
    targets: np.ndarray
    losses: np.ndarray
    error_start: np.ndarray
    error: np.ndarray
    steps: np.ndarray
    stopped: np.ndarray
    start: str
    space: str


def invert(
    model: Any,
    images: Any,
    space: str | None = None,
    *,
    start: Any = None,
    steps: int = 300,
    learning_rate: float = 0.1,
    pyramid: float = 0.0,
    closeness: float | None = None,
    categories: str = "keep",
    candidates: int = 256,
    tolerance: float = 1e-3,
    window: int = 30,
    edits: Sequence = (),
    seed: int = 0,
) -> Inversion:
    """Looks for the codes whose images come nearest to given ones, by Adam on the codes.

    The model stays as it is: no weight, gradient or flag of it is touched.

    Args:
        model: a generative model.
        images: (n, channels, height, width) or one of them, in [0, 1].
        space: name of the space to look in, the model's first one where it is not given. W+ of a style-based model
            comes nearest, and is the easiest to leave the space of good images in.
        start: "encoder" for the codes of the model's encoder; "mean" for the middle of the space; "best" for the
            nearest of ``candidates`` draws; or codes (n, dim). None is "encoder" where there is one, else "best".
        steps: most steps of any image.
        learning_rate: Adam's step size, in standard deviations of each coordinate; it rises over the first
            twentieth of the steps, so as not to leap away from a good start, and falls to 0 over the last quarter.
        pyramid: weight of the mean squared errors of the images halved, and halved again, down to 4 pixels; their
            slopes reach farther than those of single pixels.
        closeness: weight of a code's mean squared distance from the middle of its space, in standard deviations of
            each coordinate. None is 0.001 in a space that others are mapped to layer by layer (W+), where images
            else tempt the codes away from all that the model learned, and 0 elsewhere.
        categories: of a space with categorical blocks: "keep" those of the start, or try "all" their combinations
            and keep the best for each image. No slope leads from one category to another.
        candidates: draws that "best" compares.
        tolerance: an image is done when the last ``window`` steps have lowered its least loss by less than this
            share; 0 takes all steps.
        window: see ``tolerance``.
        edits: edits of the generator that are in force.
        seed: decides the candidates.

    Raises:
        ValueError: on images or codes that don't fit, on a start that this model or space does not have, on a space
            without a continuous coordinate, or on numbers out of range.

    References:
        Generative visual manipulation on the natural image manifold (Zhu et al., 2016),
        https://arxiv.org/abs/1609.03552
        Image2StyleGAN: how to embed images into the StyleGAN latent space? (Abdal et al., 2019),
        https://arxiv.org/abs/1904.03189, for W+. Their perceptual loss needs a network trained elsewhere, which the
        pyramid stands in for here.
    """
    needs_generator(model)
    place = space_of(model, space)
    targets = as_images(model, images, name="images")
    edits = check_edits(
        edits, "generator", *(n for n, reads in input_spaces(model).items() if reads == place.name)
    )
    _check_numbers(steps, learning_rate, pyramid, closeness, tolerance, window, candidates)
    if categories not in CATEGORIES:
        raise ValueError(f"categories must be one of {', '.join(CATEGORIES)}; got {categories!r}.")
    _check_slopes(model)
    free = _free(place).to(targets.device)
    middle, spread = _spread(model, place)
    if closeness is None:
        layered = len(place.blocks) > 1 and all(isinstance(b.prior, Mapped) for b in place.blocks)
        closeness = 1e-3 if layered else 0.0
    search = Descent(model, place, edits, middle, spread, free, pyramid, closeness)
    first, kind = _first(search, targets, start, candidates, check_seed(seed), space)
    rows, copies = torch.arange(len(targets), device=targets.device), 1
    if categories == "all":
        combined = _combinations(place, first)
        copies = len(combined) // len(first)
        rows, first = rows.repeat_interleave(copies), combined
    with evaluating(model):
        found = search.descend(first, targets[rows], steps, learning_rate, tolerance, window)
        codes, least, losses, taken, stopped = found
        if copies > 1:
            best = least.view(-1, copies).argmin(dim=1) + copies * torch.arange(
                len(targets), device=least.device
            )
            codes, first, taken, stopped = codes[best], first[best], taken[best], stopped[best]
            losses = losses[:, best]
        with torch.no_grad():
            reached, begun = search.images(codes), search.images(first)
    errors, errors_start = ((i - targets).square().mean(dim=(1, 2, 3)) for i in (reached, begun))
    away = ((codes - middle) / spread)[:, free].square().mean().sqrt()
    return Inversion(
        z=to_numpy(codes),
        start_z=to_numpy(first),
        images=to_numpy(reached),
        start_images=to_numpy(begun),
        targets=to_numpy(targets),
        losses=to_numpy(losses[: int(taken.max()) + 1]),
        error_start=to_numpy(errors_start),
        error=to_numpy(errors),
        steps=to_numpy(taken),
        stopped=to_numpy(stopped),
        start=kind,
        space=place.name,
        certificate={
            "error_start": errors_start.mean().item(),
            "error": errors.mean().item(),
            "worst_error": errors.max().item(),
            "stopped": stopped.float().mean().item(),
            "distance": away.item(),
        },
        provenance=provenance(
            model,
            {"images": targets, "start": first if kind == "codes" else kind, "steps": steps,
             "learning_rate": learning_rate, "pyramid": pyramid, "closeness": closeness,
             "categories": categories, "candidates": candidates, "tolerance": tolerance, "window": window,
             "edits": edits, **named(space)},
            seed if kind == "best" else None,
        ),
    )  # fmt: skip


def _first(
    search: Descent, targets: Tensor, start: Any, candidates: int, seed: int, space: str | None
) -> tuple[Tensor, str]:
    """Codes to leave from, and what they are."""
    model, place = search.model, search.place
    if start is None:
        start = "encoder" if is_inference_model(model) else "best"
    if not isinstance(start, str):
        codes = as_codes(model, start, name="start", space=space)
        if len(codes) not in (1, len(targets)):
            raise ValueError(f"start must be one code, or {len(targets)} codes; got {len(codes)}.")
        return codes.expand(len(targets), -1).clone(), "codes"
    if start not in STARTS:
        raise ValueError(f"start must be one of {', '.join(STARTS)}, or codes; got {start!r}.")
    if start == "encoder":
        needs_encoder(model)
        codes = as_codes(model, encode_images(model, targets))
        return carry(model, codes, place.name).clone(), start
    if start == "mean":
        middle = search.middle.clone()
        for block in place.blocks:
            if isinstance(block.prior, Categorical):  # an average of categories is none of them
                where = place.slice(block.name)
                middle[where] = torch.eye(block.dim, device=middle.device)[0]
        return middle.expand(len(targets), -1).clone(), start
    draws = draw_codes(model, candidates, seed, space).clone()
    with evaluating(model), torch.no_grad():
        pictures = search.images(draws)
        nearest = torch.stack([search.judge(pictures, draws, x[None]).argmin() for x in targets])
    return draws[nearest], start


def _spread(model: Any, place: LatentSpace) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each coordinate, (dim,), where there is no prior from mapped draws."""
    if place.name == model.latent_space.name:
        return place.mean.to(device_of(model)), place.std.to(device_of(model))
    draws = draw_codes(model, _SPREAD_DRAWS, 0, place.name).clone()
    return draws.mean(dim=0), draws.std(dim=0).clamp_min(1e-6)


def _free(place: LatentSpace) -> Tensor:
    """Which coordinates can be descended, bool (dim,)."""
    slopes = (Normal, Uniform, Mapped)
    free = torch.cat([torch.full((b.dim,), isinstance(b.prior, slopes)) for b in place.blocks])
    if not free.any():
        raise ValueError(
            f"Space {place.name!r} has no continuous coordinate, so there is nothing to descend."
        )
    return free


def _combinations(place: LatentSpace, codes: Tensor) -> Tensor:
    """Every code with every combination of the categorical blocks' categories, (n x combinations, dim)."""
    blocks = [b for b in place.blocks if isinstance(b.prior, Categorical)]
    count = math.prod(b.dim for b in blocks)
    if count > _MOST_CATEGORIES:
        raise ValueError(
            f"Space {place.name!r} has {count} combinations of categories, more than the {_MOST_CATEGORIES} that are "
            "tried; use categories='keep' and start from codes."
        )
    codes = codes.repeat_interleave(count, dim=0)
    for k, chosen in enumerate(itertools.product(*(range(b.dim) for b in blocks))):
        for block, category in zip(blocks, chosen, strict=True):
            codes[k::count, place.slice(block.name)] = torch.eye(block.dim, device=codes.device)[category]
    return codes


def _check_slopes(model: Any) -> None:
    if torch.is_inference_mode_enabled() or any(p.is_inference() for p in model.parameters()):
        raise ValueError(
            "No slope leads through weights that were opened under torch.inference_mode, nor through any inside it; "
            "open the model and invert images outside."
        )


def _check_numbers(
    steps: int,
    learning_rate: float,
    pyramid: float,
    closeness: float | None,
    tolerance: float,
    window: int,
    candidates: int,
) -> None:
    for name, number in (("steps", steps), ("window", window), ("candidates", candidates)):
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 1:
            raise ValueError(f"{name} must be a whole number of at least 1; got {number!r}.")
    if not 0.0 < learning_rate < 100.0:
        raise ValueError(f"learning_rate must lie in (0, 100); got {learning_rate!r}.")
    for name, weight in (("pyramid", pyramid), ("closeness", closeness or 0.0), ("tolerance", tolerance)):
        if not 0.0 <= weight < float("inf"):
            raise ValueError(f"{name} must be a number of at least 0; got {weight!r}.")
