"""The geometry that a generator gives its latent space: how far images move where codes move a little.

Symbols: ``M(z) = J'J`` is the pullback metric, J the derivatives of the image's mean by the latents; a small step v
changes the image by sqrt(v'Mv). The volume element sqrt(det M) is the magnification, its logarithm in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal

from latentlab.analysis.derivatives import (
    directions_at,
    in_double,
    ordered_rows,
    outcome,
    pushforward,
    random_direction,
)
from latentlab.analysis.inference import (
    BATCH_SIZE,
    as_codes,
    check_edits,
    check_seed,
    draw_codes,
    evaluating,
    input_spaces,
    named,
    needs_generator,
    to_numpy,
)
from latentlab.analysis.results import Result, provenance
from latentlab.latents import LatentSpace
from latentlab.models.contract import space_of
from latentlab.models.edits import Edit

METRICS = ("gaussian", "bernoulli")
_STEP = 1e-4
_LEAST = 1e-6  # of p(1 - p): where a pixel is all black or white its Fisher information has no bound


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PullbackMetric(Result):
    """The pullback metric at codes.

    Attributes:
        metric: M, (n, rows, rows), float64.
        eigenvalues: (n, rows), falling.
        eigenvectors: (n, rows, rows), unit directions in the order of the eigenvalues, one a row.
        log_volume: log sqrt(det M), nats (n,); -inf where a direction changes nothing.
        condition: largest over smallest stretch, sqrt of the ratio of the eigenvalues, (n,).
        effective_rank: participation ratio (sum l)^2 / sum l^2 of the eigenvalues, 1 to rows, (n,).
        z: the codes, (n, dim).
        images: their images, (n, channels, height, width).
        dims: names of the coordinates.
        likelihood: "gaussian" or "bernoulli".
        sigma_term: whether the likelihood has a scale that changes with the code, so that its part was added.
        space: name of the codes' space.

    The certificate holds ``length_gap``, the largest relative difference between sqrt(v'Mv) and what a small step
    along random v really does: to the image (for "gaussian"), or to the divergence between the two images' pixel
    distributions (for "bernoulli", sqrt(2 KL)), in the precision of ``checked_in``; and ``asymmetry``, the largest
    difference between M and its transpose over its largest entry.
    """

    metric: np.ndarray
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray
    log_volume: np.ndarray
    condition: np.ndarray
    effective_rank: np.ndarray
    z: np.ndarray
    images: np.ndarray
    dims: tuple[str, ...]
    likelihood: str
    sigma_term: bool
    space: str


def pullback_metric(
    model: Any,
    z: Any = None,
    *,
    likelihood: str = "gaussian",
    dims: Sequence[int | str] | None = None,
    space: str | None = None,
    n: int = 1,
    seed: int = 0,
    edits: Sequence[Edit] = (),
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], object] | None = None,
) -> PullbackMetric:
    """The metric that a generator pulls back from images to codes.

    Args:
        model: a generative model.
        z: codes (n, dim) or (dim,); None is ``n`` prior draws of ``seed``.
        likelihood: "gaussian", distances between mean images: J'J, plus the same of the standard deviation where the
            model's likelihood has one that changes with the code; or "bernoulli", the Fisher information
            J' diag(1/(p(1 - p))) J of pixels that are probabilities p.
        dims: coordinates by name or position; None for all but categories, along which M would be singular.
        space: name of the codes' space, the model's first one where it is not given.
        n: number of prior draws.
        seed: decides the draws, and the steps of the certificate.
        edits: edits of the generator.
        batch_size: products computed at a time.
        progress: called with (codes done, codes in all); it may raise to cancel.

    Raises:
        ValueError: on an unknown likelihood or coordinate, or where no coordinate has a derivative.

    References:
        Latent space oddity: on the curvature of deep generative models (Arvanitidis et al., 2018)
        Metrics for deep generative models (Chen et al., 2018)
        Pulling back information geometry (Arvanitidis et al., 2022), for the Fisher information
    """
    needs_generator(model)
    if likelihood not in METRICS:
        raise ValueError(f"likelihood must be one of {', '.join(METRICS)}; got {likelihood!r}.")
    if n < 1 or batch_size < 1:
        raise ValueError(f"n and batch_size must be at least 1; got {n} and {batch_size}.")
    check_seed(seed)
    place = space_of(model, space)
    edits = generator_edits(model, edits, place)
    codes = draw_codes(model, n, seed, space) if z is None else as_codes(model, z, space=space)
    rows = ordered_rows(place, dims, categories=dims is not None)
    f = outcome(model, "generator", None, place, edits)
    scale = _scale(model, codes[:1], place, edits) if likelihood == "gaussian" else None
    with evaluating(model), torch.no_grad():
        images, metric = [], []
        for done, part in groups(codes, len(rows), batch_size):
            images.append(f(part))
            metric.append(gram(f, part, place, rows, batch_size, likelihood, scale))
            if progress is not None:
                progress(done, len(codes))
        x, m = torch.cat(images), torch.cat(metric)
        gap, checked_in = _length_gap(model, f, place, edits, codes, rows, m, likelihood, scale, seed)
    values, vectors = spectrum(m)
    log_volume, condition, rank = volume_and_rank(values)
    return PullbackMetric(
        metric=m.cpu().numpy(),
        eigenvalues=values,
        eigenvectors=vectors,
        log_volume=log_volume,
        condition=condition,
        effective_rank=rank,
        z=to_numpy(codes),
        images=to_numpy(x),
        dims=tuple(place.names[i] for i in rows),
        likelihood=likelihood,
        sigma_term=scale is not None,
        space=place.name,
        certificate={
            "length_gap": gap,
            "checked_in": checked_in,
            "asymmetry": float((m - m.transpose(1, 2)).abs().max() / m.abs().max().clamp_min(1e-300)),
        },
        provenance=provenance(
            model,
            {"z": codes, "likelihood": likelihood, "dims": dims, "edits": edits, **named(space)},
            seed,
        ),
    )


def generator_edits(model: Any, edits: Sequence[Edit], place: LatentSpace) -> tuple[Edit, ...]:
    """Edits that a run from codes of that space meets: of the generator and of what reads those codes before it."""
    return check_edits(
        edits, "generator", *(name for name, reads in input_spaces(model).items() if reads == place.name)
    )


def groups(codes: Tensor, rows: int, batch_size: int):
    """Codes in groups of which a batch holds all directions, each with how many are done after it."""
    done = 0
    for part in codes.split(max(1, batch_size // rows)):
        done += len(part)
        yield done, part


def gram(
    f: Callable[[Tensor], Tensor],
    codes: Tensor,
    place: LatentSpace,
    rows: Sequence[int],
    batch_size: int,
    likelihood: str = "gaussian",
    scale: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The metric (n, rows, rows), float64, at codes (n, dim), by the coordinates ``rows``."""
    ways = directions_at(place, codes, rows)
    j = pushforward(f, codes, ways, batch_size).double().flatten(2)
    if likelihood == "bernoulli":
        p = f(codes).double().flatten(1)
        j = j / (p * (1.0 - p)).clamp_min(_LEAST).sqrt()[:, None]
    m = j @ j.transpose(1, 2)
    if scale is not None:
        s = pushforward(scale, codes, ways, batch_size).double().flatten(2)
        m = m + s @ s.transpose(1, 2)
    return m


def _scale(
    model: Any, code: Tensor, place: LatentSpace, edits: Sequence[Edit]
) -> Callable[[Tensor], Tensor] | None:
    """The standard deviation of a model's likelihood as a function of codes; None where it is one for all codes."""
    if place.name != model.latent_space.name or not callable(getattr(model, "likelihood", None)):
        return None

    def scale(codes: Tensor) -> Tensor:
        found = model.likelihood(codes, edits)
        found = getattr(found, "base_dist", found)
        return found.scale if isinstance(found, Normal) else codes.new_zeros(len(codes), 1)

    probe = code.detach().clone().requires_grad_()
    with evaluating(model), torch.enable_grad():
        value = scale(probe)
        if value.ndim < 2 or len(value) != len(code) or not value.requires_grad:
            return None
        slope = torch.autograd.grad(value.sum(), probe, allow_unused=True)[0]
    return None if slope is None else scale


def _length_gap(
    model: Any,
    f: Callable[[Tensor], Tensor],
    place: LatentSpace,
    edits: Sequence[Edit],
    codes: Tensor,
    rows: Sequence[int],
    metric: Tensor,
    likelihood: str,
    scale: Callable[[Tensor], Tensor] | None,
    seed: int,
) -> tuple[float, str]:
    codes, metric = codes[:4], metric[:4]
    weights = random_direction((len(rows),), seed)
    weights = (weights / weights.norm()).to(codes.device)
    along = torch.einsum("r,nrd->nd", weights, directions_at(place, codes, rows).double())
    claimed = torch.einsum("nij,i,j->n", metric, weights, weights)
    precise = in_double(model, "generator", None, place, edits, codes[:1])
    g, h = (f, 3e-3) if precise is None else (precise, _STEP)
    high, low = (
        (codes.double() + s * h * along).to(f(codes).dtype if precise is None else torch.float64)
        for s in (1, -1)
    )
    if likelihood == "bernoulli":
        p, a, b = (
            g(c).double().flatten(1).clamp(_LEAST, 1 - _LEAST) for c in (codes.to(high.dtype), high, low)
        )
        measured = (
            sum((p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(1) for q in (a, b)) / h**2
        )
    else:
        measured = ((g(high) - g(low)).double().flatten(1) / (2 * h)).square().sum(1)
        if scale is not None:
            ends = (
                scale(c.to(codes.dtype)).double().flatten(1)
                for c in (codes + 3e-3 * along, codes - 3e-3 * along)
            )
            first, second = ends
            measured = measured + ((first - second) / 6e-3).square().sum(1)
    claimed, measured = claimed.clamp_min(0).sqrt(), torch.as_tensor(measured).clamp_min(0).sqrt()
    gap = (claimed - measured).abs() / measured.clamp_min(1e-12)
    return float(
        torch.where(measured > 1e-12, gap, claimed).max()
    ), "float32" if precise is None else "float64"


def spectrum(metric: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (n, rows), falling, and eigenvectors, one a row."""
    values, vectors = torch.linalg.eigh((metric + metric.transpose(1, 2)) / 2)
    return (
        values.flip(1).clamp_min(0.0).cpu().numpy(),
        vectors.flip(2).transpose(1, 2).cpu().numpy(),
    )


def volume_and_rank(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log volume, condition of the Jacobian and participation ratio of eigenvalues (n, rows)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        log_volume = 0.5 * np.log(values).sum(axis=1)
        condition = np.sqrt(values[:, 0] / values[:, -1])
        rank = values.sum(axis=1) ** 2 / np.square(values).sum(axis=1)
    return log_volume, np.where(np.isnan(condition), np.inf, condition), np.nan_to_num(rank)
