"""Magnification: how much a generator stretches its latent space, over a plane of two coordinates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.derivatives import central_difference, directions_at, in_double, ordered_rows, outcome
from latentlab.analysis.geometry import generator_edits, gram, groups, spectrum, volume_and_rank
from latentlab.analysis.inference import (
    BATCH_SIZE,
    as_code,
    check_seed,
    evaluating,
    named,
    needs_generator,
    to_numpy,
)
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.traversal import dim_ranges
from latentlab.latents import LatentSpace
from latentlab.models.contract import space_of
from latentlab.models.edits import Edit


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class MagnificationMap(Result):
    """How much the generator stretches the latent space, over a plane of two coordinates.

    Attributes:
        log_area: log sqrt(det M) of the two coordinates alone, nats (steps of y, steps of x), y rising.
        log_volume: the same of all ordered coordinates, at the same codes.
        effective_rank: participation ratio of the full metric there.
        x_values: values of the first coordinate, (steps,).
        y_values: values of the second, (steps,).
        dims: names of the two.
        start: the code through which the plane goes, (dim,).
        corners: images of the plane's corners: low x low y, high x low y, low x high y, high x high y.
        space: name of the codes' space.

    The certificate holds ``area_gap``, the largest relative difference at four random cells between the area element
    and the area of the parallelogram that two small steps span among the images (precision ``checked_in``); and
    ``loop_difference``, the largest difference between those cells' log areas in the batch and alone.
    """

    log_area: np.ndarray
    log_volume: np.ndarray
    effective_rank: np.ndarray
    x_values: np.ndarray
    y_values: np.ndarray
    dims: tuple[str, str]
    start: np.ndarray
    corners: np.ndarray
    space: str


def magnification_map(
    model: Any,
    dims: Sequence[int | str] = (0, 1),
    z: Any = None,
    *,
    steps: int = 15,
    span: str | float = "prior",
    space: str | None = None,
    seed: int = 0,
    edits: Sequence[Edit] = (),
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], object] | None = None,
) -> MagnificationMap:
    """How much images change a unit of latent area and volume, over a plane of two coordinates.

    Args:
        model: a generative model.
        dims: the two coordinates, by name or position.
        z: the code through which the plane goes; None is a prior draw of ``seed``.
        steps: values of each coordinate, at least 2.
        span: their range, "prior" or a number of standard deviations around the code, as for ``traverse``.
        space: name of the codes' space, the model's first one where it is not given.
        seed: decides the code where none is given, and which cells the certificate checks.
        edits: edits of the generator.
        batch_size: products computed at a time.
        progress: called with (cells done, cells in all); it may raise to cancel.

    Raises:
        ValueError: unless there are two different coordinates of ordered blocks, or on fewer than 2 steps.

    References:
        Metrics for deep generative models (Chen et al., 2018), for magnification factors
    """
    needs_generator(model)
    place = space_of(model, space)
    pair = [place.index(d) for d in dims]
    if len(pair) != 2 or pair[0] == pair[1]:
        raise ValueError(f"A plane needs two different coordinates; got {tuple(dims)!r}.")
    ordered_rows(place, pair, categories=False)
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 2:
        raise ValueError(f"steps must be a whole number of at least 2; got {steps!r}.")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}.")
    edits = generator_edits(model, edits, place)
    start = as_code(model, z, check_seed(seed), space=space)
    ranges = dim_ranges(model, span=span, z=to_numpy(start), space=space)
    x, y = (np.linspace(float(ranges[i, 0]), float(ranges[i, 1]), steps) for i in pair)
    codes = start.repeat(steps * steps, 1)
    codes[:, pair[0]] = torch.as_tensor(np.tile(x, steps)).to(codes)
    codes[:, pair[1]] = torch.as_tensor(np.repeat(y, steps)).to(codes)
    rows = ordered_rows(place, None, categories=False)
    two = [rows.index(i) for i in pair]
    f = outcome(model, "generator", None, place, edits)
    chosen = np.random.default_rng(seed).choice(len(codes), min(4, len(codes)), replace=False)
    with evaluating(model), torch.no_grad():
        parts = []
        for done, part in groups(codes, len(rows), batch_size):
            parts.append(gram(f, part, place, rows, batch_size))
            if progress is not None:
                progress(done, len(codes))
        full = torch.cat(parts)
        area = full[:, two][:, :, two]
        alone = torch.cat([gram(f, codes[i : i + 1], place, pair, batch_size) for i in chosen.tolist()])
        steps_, checked_in = _small_steps(model, f, place, edits, codes[chosen], pair)
        corners = to_numpy(f(codes[[0, steps - 1, len(codes) - steps, len(codes) - 1]]))
    log_volume, _, rank = volume_and_rank(spectrum(full)[0])
    log_area = volume_and_rank(spectrum(area)[0])[0]
    measured = volume_and_rank(spectrum(steps_ @ steps_.transpose(1, 2))[0])[0]
    by_itself = volume_and_rank(spectrum(alone)[0])[0]
    with np.errstate(invalid="ignore"):
        gap = np.abs(np.expm1(log_area[chosen] - measured))
        loop = np.abs(log_area[chosen] - by_itself)
    return MagnificationMap(
        log_area=log_area.reshape(steps, steps),
        log_volume=log_volume.reshape(steps, steps),
        effective_rank=rank.reshape(steps, steps),
        x_values=x,
        y_values=y,
        dims=(place.names[pair[0]], place.names[pair[1]]),
        start=to_numpy(start),
        corners=corners,
        space=place.name,
        certificate={
            "area_gap": float(np.nan_to_num(gap).max()),
            "checked_in": checked_in,
            "loop_difference": float(np.nan_to_num(loop).max()),
        },
        provenance=provenance(
            model,
            {"dims": list(dims), "z": start, "steps": steps, "span": span, "edits": edits, **named(space)},
            seed,
        ),
    )


def _small_steps(
    model: Any,
    f: Callable[[Tensor], Tensor],
    place: LatentSpace,
    edits: Sequence[Edit],
    codes: Tensor,
    pair: Sequence[int],
) -> tuple[Tensor, str]:
    """Central differences (n, 2, pixels) along two coordinates."""
    precise = in_double(model, "generator", None, place, edits, codes[:1])
    g, h = (f, 3e-3) if precise is None else (precise, 1e-5)
    codes = codes if precise is None else codes.double()
    ways = directions_at(place, codes, pair)
    found = [central_difference(g, codes, ways[:, i], h).double().flatten(1) for i in (0, 1)]
    return torch.stack(found, dim=1), "float32" if precise is None else "float64"
