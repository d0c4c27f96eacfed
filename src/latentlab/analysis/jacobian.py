"""The Jacobian of a network: what each latent does to each pixel to first order, and its singular directions.

Symbols: ``J`` has a row for each coordinate of the smaller side (the latents), and along a row the larger side in its
own shape (an image), so that each row is a picture. ``J = sum_k s_k u_k v_k``: ``u_k`` a unit direction among the
rows, ``v_k`` a unit image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.derivatives import (
    central_difference,
    directions_at,
    in_double,
    ordered_rows,
    outcome,
    pullback,
    pushforward,
    random_direction,
)
from latentlab.analysis.inference import (
    BATCH_SIZE,
    as_codes,
    check_seed,
    draw_codes,
    evaluating,
    named,
    to_numpy,
)
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.subject import Subject, subject_of
from latentlab.models.contract import space_of
from latentlab.models.edits import Edit

DTYPES = {"float32": torch.float32, "float64": torch.float64}
MOST_NUMBERS = 2**27
_STEP = 1e-5  # in float64: far above its rounding, and so small that hardly a ReLU switches on the way
_COARSE_STEP = 3e-3  # in float32, where smaller steps drown in rounding
_CHECKED = 4


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Jacobian(Result):
    """Derivatives of a network's output, or of a stage's state, and their singular value decomposition.

    Attributes:
        jacobian: (n, rows, …): row i holds the derivatives by input coordinate i in the output's shape (``side``
            "input", as for a generator), or those of output i in the input's shape (``side`` "output", as for an
            encoder). Per unit of the coordinate.
        singular_values: (n, k), falling; k is the smaller of rows and entries of a row.
        directions: (n, k, rows), unit vectors among the rows: for a generator directions of the latent space.
        patterns: (n, k, …), unit vectors in the shape of a row: what changes in the image.
        inputs: what was differentiated at: codes (n, dim) or images.
        outputs: the output there, (n, …).
        rows: a name for each row.
        side: "input" or "output".
        network: name of the network.
        stage: name of the stage, None for the output.
        space: name of the codes' space, None for a network of images.

    The row of a category is the derivative along the edge of the simplex from the code towards that category,
    since none is defined off it; it is 0 for the category that the code has.

    The certificate holds ``finite_difference``, the largest relative difference between J v and central differences
    of a float64 copy of the model along random directions v, ``checked_in`` their precision ("float32" for a model
    that runs in no other, where rounding and the kinks of ReLUs leave about 1e-3); ``svd_difference``, the largest
    difference between J and the sum of its singular parts, relative to J's largest entry; and ``vanishing``, the share
    of rows that are 0.
    """

    jacobian: np.ndarray
    singular_values: np.ndarray
    directions: np.ndarray
    patterns: np.ndarray
    inputs: np.ndarray
    outputs: np.ndarray
    rows: tuple[str, ...]
    side: str
    network: str
    stage: str | None
    space: str | None


def jacobian(
    model: Any,
    z: Any = None,
    *,
    network: str = "generator",
    stage: str | None = None,
    space: str | None = None,
    dims: Sequence[int | str] | None = None,
    n: int = 1,
    seed: int = 0,
    edits: Sequence[Edit] = (),
    dtype: str = "float32",
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], object] | None = None,
) -> Jacobian:
    """Differentiates what a network makes of its inputs, exactly, by the smaller of its two sides.

    Where the inputs are fewer, as for a generator, it goes forward (one Jacobian-vector product a latent); where the
    outputs are fewer, as for an encoder's posterior means (probabilities of a category) or a discriminator, in reverse.

    Args:
        model: a model, or a staged network alone.
        z: codes (n, dim) or (dim,), images for a network that reads those; None is ``n`` prior draws of ``seed``.
        network: name of the network.
        stage: differentiate this stage's state in place of the output.
        space: name of the codes' space, the model's first one where it is not given.
        dims: coordinates to differentiate by, by name or position; None for all. Only for codes.
        n: number of prior draws.
        seed: decides the draws, and the directions of the certificate.
        edits: edits of the network.
        dtype: "float32", or "float64" by way of a copy of the model.
        batch_size: products computed at a time.
        progress: called with (products done, products in all); it may raise to cancel.

    Raises:
        ValueError: on an unknown network, stage, space or dtype, on indices of a codebook, by which there is no
            derivative, or where it would hold more than 2**27 numbers.

    References:
        The geometry of deep generative image models and its applications (Wang and Ponce, 2021), for singular
        directions; there of a perceptual distance, here of plain pixels
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}.")
    if batch_size < 1 or n < 1:
        raise ValueError(f"batch_size and n must be at least 1; got {batch_size} and {n}.")
    subject = subject_of(model, network)
    edits = subject.check(edits)
    check_seed(seed)
    place = None
    if subject.reads is not None:
        place = space_of(model, space)
        points = draw_codes(model, n, seed, space) if z is None else as_codes(model, z, space=space)
    else:
        if space is not None or dims is not None:
            raise ValueError(f"Network {network!r} reads no codes; drop space= and dims=.")
        points = subject.inputs(z, seed)
    precise = in_double(model, network, stage, place, edits, points[:1])
    if dtype == "float64" and precise is None:
        raise ValueError("This model runs in float32 only; take dtype='float32'.")
    own = outcome(model, network, stage, place, edits)
    f = precise if dtype == "float64" and precise is not None else own
    points = points.to(DTYPES[dtype])
    with evaluating(model), torch.no_grad():
        outputs = f(points).detach()  # a learned constant, expanded, would still ask for gradients
        shape = outputs.shape[1:]
        count = points[0].numel()
        if place is not None:
            chosen = ordered_rows(place, dims)
            ways = directions_at(place, points, chosen)
            rows, count = tuple(place.names[i] for i in chosen), len(chosen)
        forward = place is not None or count <= outputs[0].numel()
        total = len(points) * count * outputs[0].numel()
        if total > MOST_NUMBERS:
            raise ValueError(
                f"This Jacobian holds {total:,} numbers; at most {MOST_NUMBERS:,} are possible. Take fewer inputs, "
                "or a stage with fewer units."
            )
        if place is None:
            ways = torch.eye(count, dtype=points.dtype, device=points.device).view(
                1, count, *points.shape[1:]
            )
            ways = ways.expand(len(points), *ways.shape[1:])
            rows = tuple(f"{'input' if forward else 'output'}{i}" for i in range(count))
        if forward:
            found = pushforward(f, points, ways, batch_size, progress)
        else:
            found = pullback(f, points, batch_size, progress)
            rows = _output_names(model, subject, stage, found.shape[1])
            shape = points.shape[1:]
        found = found.detach()
        checked = _finite_difference(precise, own, points, found, ways if forward else None, seed)
    matrix = found.double().flatten(2)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    rebuilt = u @ (s[:, :, None] * v)
    largest = float(matrix.abs().max())
    keep = np.float64 if dtype == "float64" else np.float32
    return Jacobian(
        jacobian=found.cpu().numpy().astype(keep),
        singular_values=s.cpu().numpy().astype(keep),
        directions=u.transpose(1, 2).cpu().numpy().astype(keep),
        patterns=v.unflatten(2, shape).cpu().numpy().astype(keep),
        inputs=to_numpy(points),
        outputs=outputs.cpu().numpy().astype(keep),
        rows=rows,
        side="input" if forward else "output",
        network=subject.name,
        stage=None if stage is None else subject.network.stage_name(stage),
        space=None if place is None else place.name,
        certificate={
            "finite_difference": checked,
            "checked_in": "float32" if precise is None else "float64",
            "svd_difference": float((rebuilt - matrix).abs().max()) / largest if largest > 0 else 0.0,
            "vanishing": float((matrix == 0).all(dim=2).double().mean()),
        },
        provenance=provenance(
            model,
            {"network": subject.name, "stage": stage, "inputs": points, "dims": dims, "edits": edits}
            | {"dtype": dtype, **named(space)},
            seed,
        ),
    )


def _finite_difference(
    precise: Callable[[Tensor], Tensor] | None,
    own: Callable[[Tensor], Tensor],
    points: Tensor,
    found: Tensor,
    ways: Tensor | None,
    seed: int,
) -> float:
    points, found = points[:_CHECKED].double(), found[:_CHECKED].double()
    if ways is not None:
        weights = random_direction(ways.shape[1:2], seed).to(points)
        along = torch.einsum("r,nr...->n...", weights, ways[:_CHECKED].double())
        claimed = torch.einsum("r,nr...->n...", weights, found).flatten(1)
    else:
        along = random_direction(points.shape, seed).to(points)
        claimed = torch.einsum("nrp,np->nr", found.flatten(2), along.flatten(1))
    size = along.flatten(1).norm(dim=1).max().clamp_min(math.ulp(0.0))
    if precise is not None:
        measured = central_difference(precise, points, along / size, _STEP)
    else:
        measured = central_difference(own, points.float(), (along / size).float(), _COARSE_STEP).double()
    measured = measured.flatten(1) * size
    gap, length = (claimed - measured).norm(dim=1), measured.norm(dim=1)
    return float(torch.where(length > 0, gap / length.clamp_min(math.ulp(0.0)), gap).max())


def _output_names(model: Any, subject: Subject, stage: str | None, count: int) -> tuple[str, ...]:
    if stage is None and subject.whole and subject.name == "encoder":
        return tuple(model.latent_space.names)
    what = "output" if stage is None else subject.network.stage_name(stage)
    return tuple(f"{what}:{i}" for i in range(count))
