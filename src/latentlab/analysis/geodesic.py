"""Geodesics: the shortest way between two codes, measured by how much the image changes along it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.derivatives import directions_at, ordered_rows, outcome, pushforward
from latentlab.analysis.geometry import generator_edits
from latentlab.analysis.inference import (
    BATCH_SIZE,
    as_code,
    evaluating,
    in_chunks,
    named,
    needs_generator,
    to_numpy,
)
from latentlab.analysis.neighbourhood import Neighbourhood
from latentlab.analysis.results import Result, provenance
from latentlab.latents import Uniform
from latentlab.models.contract import space_of
from latentlab.models.edits import Edit

_FINE = 8  # points of the dense curve for each point of the grid that is optimised


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Geodesic(Result):
    """The shortest path between two codes, at even distances of the image.

    Attributes:
        z: codes on the path, (steps, dim); the first and last are the ends themselves.
        images: their images, (steps, channels, height, width).
        straight_z: codes on the straight line, evenly spaced, (steps, dim).
        straight_images: their images.
        speeds: change of the image from each code of the path to the next, Euclidean, (steps - 1,).
        straight_speeds: the same of the straight line.
        length: length of the path through the images, the sum over a dense curve; root of summed squares.
        straight_length: that of the straight line.
        cost: length in the metric that was minimised: the length itself, unless support counted.
        straight_cost: that of the straight line.
        neighbours: how many of the data's codes lie within ``radius`` of each code of the path, (steps,); None where no
            data was given.
        straight_neighbours: the same of the straight line.
        radius: the data's own scale: median distance of a code to its tenth nearest; None without data.
        support_weight: how strongly places without data were avoided; 0 is the pure geometry of the decoder, whose
            geodesics may cross places where no data is.
        space: name of the codes' space.

    The certificate holds ``length_ratio``, cost over the straight line's (at most 1); ``end_difference`` (0);
    ``speed_variation``, standard deviation over mean of ``speeds``; where support does not count ``acceleration``, how
    much of the path's second derivative lies within the manifold of images, in lengths of the path (0 for a geodesic
    of constant speed), beside ``straight_acceleration``, the straight line's; ``slope_left``, the share of the energy's
    first slope that is left; ``iterations``; and ``converged``, whether the search came to rest by itself.
    """

    z: np.ndarray
    images: np.ndarray
    straight_z: np.ndarray
    straight_images: np.ndarray
    speeds: np.ndarray
    straight_speeds: np.ndarray
    length: float
    straight_length: float
    cost: float
    straight_cost: float
    neighbours: np.ndarray | None = None
    straight_neighbours: np.ndarray | None = None
    radius: float | None = None
    support_weight: float
    space: str


def geodesic(
    model: Any,
    za: Any,
    zb: Any,
    *,
    steps: int = 9,
    knots: int = 6,
    grid: int = 24,
    most: int = 80,
    tolerance: float = 1e-4,
    data_codes: Any = None,
    support_weight: float = 0.0,
    space: str | None = None,
    edits: Sequence[Edit] = (),
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], object] | None = None,
) -> Geodesic:
    """Finds the path between two codes along which the image changes least.

    It minimises the energy sum ||G(c_{k+1}) - G(c_k)||^2 of a cubic spline whose ends are fixed, from the straight
    line on (so that of several shortest ways it finds one near that), by L-BFGS, and then walks it at constant speed.
    Categories are mixed linearly, as ``interpolate`` does; coordinates of a uniform prior stay within its bounds.

    Args:
        model: a generative model.
        za: code (dim,) of the start.
        zb: code (dim,) of the end.
        steps: codes on the path that are returned, both ends included, at least 2.
        knots: inner knots of the spline.
        grid: steps of the curve that is optimised, at least 4.
        most: most iterations.
        tolerance: relative change of the energy at which the search rests.
        data_codes: codes (n, dim) of a data set, for the support meter and ``support_weight``.
        support_weight: w of a factor 1 + w e^2 on the squared length of each step, where e is how far beyond the data's
            own radius the step is from the data, in radii; 0 leaves it out.
        space: name of the space of all codes, the model's first one where it is not given.
        edits: edits of the generator.
        batch_size: codes decoded at a time when nothing is differentiated.
        progress: called with (iterations done, most); it may raise to cancel.

    Raises:
        ValueError: on codes that don't fit, numbers out of range, a space of codebook indices, or a weight without
            data.

    References:
        The Riemannian geometry of deep generative models (Shao et al., 2018)
        Latent space oddity: on the curvature of deep generative models (Arvanitidis et al., 2018), whose decoder's
        variance grows off the data; here a distance to data codes takes that part, and only where it is asked for
    """
    needs_generator(model)
    from scipy.optimize import minimize

    place = space_of(model, space)
    for name, value, low in (("steps", steps, 2), ("knots", knots, 1), ("grid", grid, 4), ("most", most, 1)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
            raise ValueError(f"{name} must be a whole number of at least {low}; got {value!r}.")
    if not 0.0 <= support_weight < float("inf"):
        raise ValueError(f"support_weight must be a finite number of at least 0; got {support_weight!r}.")
    if support_weight > 0.0 and data_codes is None:
        raise ValueError("support_weight needs data_codes=, codes of a data set.")
    edits = generator_edits(model, edits, place)
    free = ordered_rows(place, None, categories=False)
    if len(free) < place.dim:
        ordered_rows(place, range(place.dim))  # refuses indices of a codebook
    a, b = (as_code(model, end, 0, name=n, space=space) for n, end in (("za", za), ("zb", zb)))
    around = None if data_codes is None else Neighbourhood(model, data_codes, space)
    f = outcome(model, "generator", None, place, edits)
    curve = _Curve(a, b, place, free, knots)
    weights, found = np.zeros(knots * len(free)), None

    def energy(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = (
            torch.as_tensor(flat, dtype=torch.float32, device=a.device)
            .view(knots, len(free))
            .requires_grad_()
        )
        with torch.enable_grad():
            codes = curve.at(np.linspace(0.0, 1.0, grid + 1), w)
            hops = f(codes).diff(dim=0).flatten(1).square().sum(1)
            if around is not None and support_weight > 0.0:
                hops = hops * (1.0 + support_weight * around.excess((codes[1:] + codes[:-1]) / 2).square())
            value = grid * hops.sum()
            slope = torch.autograd.grad(value, w)[0]
        return float(value.detach()), slope.double().flatten().cpu().numpy()

    done = 0

    def tell(_: Any) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, most)

    with evaluating(model):
        first, slope = energy(weights)
        moves = first > 0.0 and not torch.equal(a, b)
        if moves:
            found = minimize(
                lambda w: tuple(part / first for part in energy(w)),
                weights,
                jac=True,
                method="L-BFGS-B",
                callback=tell,
                options={"maxiter": int(most), "ftol": tolerance, "gtol": 1e-9},
            )
            if float(found.fun) < 1.0:
                weights = found.x
        last = energy(weights)[1]
        w = torch.as_tensor(weights, dtype=torch.float32, device=a.device).view(knots, len(free))
        with torch.no_grad():
            dense = np.linspace(0.0, 1.0, _FINE * grid + 1)

            def walk(w: Tensor) -> tuple[np.ndarray, np.ndarray]:
                """Lengths of the pieces of the dense curve: of the images, and in the metric that was minimised."""
                codes = curve.at(dense, w)
                images = torch.as_tensor(in_chunks(f, codes, batch_size))
                hops = to_numpy(images.diff(dim=0).flatten(1).double().norm(dim=1)).astype(float)
                if around is None or support_weight == 0.0:
                    return hops, hops
                excess = to_numpy(around.excess((codes[1:] + codes[:-1]) / 2))
                return hops, hops * np.sqrt(1.0 + support_weight * excess**2)

            straight = torch.zeros_like(w)
            (hops, cost), (straight_hops, straight_cost) = walk(w), walk(straight)
            if cost.sum() > straight_cost.sum():  # no better way was found
                w, hops, cost = straight, straight_hops, straight_cost
            t = even(hops, steps)
            z, line = curve.at(t, w), curve.at(np.linspace(0.0, 1.0, steps), straight)
            z[0], z[-1], line[0], line[-1] = a, b, a, b
            images, straight_images = in_chunks(f, z, batch_size), in_chunks(f, line, batch_size)
            accelerations = {}
            if support_weight == 0.0 and moves:
                for name, ws, lengths in (
                    ("acceleration", w, hops),
                    ("straight_acceleration", straight, straight_hops),
                ):
                    codes = curve.at(
                        even(lengths, grid + 1) if name == "acceleration" else dense[::_FINE], ws
                    )
                    accelerations[name] = _acceleration(f, codes, place, free, lengths.sum(), batch_size)
    speeds, straight_speeds = (
        np.sqrt(np.square(np.diff(x.astype(float), axis=0)).sum(axis=(1, 2, 3)))
        for x in (images, straight_images)
    )
    ends = torch.stack([z[0] - a, z[-1] - b]).abs().max()
    started = float(np.linalg.norm(slope))
    return Geodesic(
        z=to_numpy(z),
        images=images,
        straight_z=to_numpy(line),
        straight_images=straight_images,
        speeds=speeds,
        straight_speeds=straight_speeds,
        length=float(hops.sum()),
        straight_length=float(straight_hops.sum()),
        cost=float(cost.sum()),
        straight_cost=float(straight_cost.sum()),
        neighbours=None if around is None else around.near(to_numpy(z)),
        straight_neighbours=None if around is None else around.near(to_numpy(line)),
        radius=None if around is None else around.radius,
        support_weight=float(support_weight),
        space=place.name,
        certificate={
            "length_ratio": float(cost.sum() / straight_cost.sum()) if straight_cost.sum() > 0 else 1.0,
            "end_difference": float(ends),
            "speed_variation": float(speeds.std() / speeds.mean()) if speeds.sum() > 0 else 0.0,
            **accelerations,
            "slope_left": float(np.linalg.norm(last)) / started if started > 0 else 0.0,
            "iterations": int(found.nit) if found is not None else 0,
            "converged": bool(found is None or found.status == 0),
        },
        provenance=provenance(
            model,
            {
                "za": a,
                "zb": b,
                "steps": steps,
                "knots": knots,
                "grid": grid,
                "most": most,
                "tolerance": tolerance,
            }
            | {"data_codes": data_codes, "support_weight": support_weight, "edits": edits, **named(space)},
        ),
    )


class _Curve:
    """A straight line plus a cubic spline that is 0 at both ends, in the coordinates that are free."""

    def __init__(self, a: Tensor, b: Tensor, place: Any, free: Sequence[int], knots: int) -> None:
        from scipy.interpolate import CubicSpline

        self.a, self.b, self.place, self.free = a, b, place, list(free)
        rows = np.eye(knots + 2)[:, 1:-1]
        self.spline = CubicSpline(np.linspace(0.0, 1.0, knots + 2), rows, bc_type="natural")

    def at(self, t: np.ndarray, w: Tensor) -> Tensor:
        """Codes (len(t), dim) at positions from 0 to 1, for weights (knots, free coordinates)."""
        position = torch.as_tensor(t, dtype=self.a.dtype, device=self.a.device)[:, None]
        basis = torch.as_tensor(self.spline(t), dtype=self.a.dtype, device=self.a.device)
        bend = torch.zeros(len(t), len(self.a), dtype=self.a.dtype, device=self.a.device)
        bend = bend.index_add(1, torch.as_tensor(self.free, device=self.a.device), basis @ w)
        codes = self.a + position * (self.b - self.a) + bend
        for block in self.place.blocks:
            if isinstance(block.prior, Uniform):
                where = self.place.slice(block.name)
                # The ends may lie outside, and stay.
                low = torch.minimum(self.a, self.b)[where].clamp(max=block.prior.low)
                high = torch.maximum(self.a, self.b)[where].clamp(min=block.prior.high)
                inside = torch.minimum(torch.maximum(codes[:, where], low), high)
                codes = torch.cat([codes[:, : where.start], inside, codes[:, where.stop :]], dim=1)
        return codes


def even(hops: np.ndarray, steps: int) -> np.ndarray:
    """Positions (steps,) from 0 to 1 at even distances along a curve whose pieces have these lengths."""
    passed = np.concatenate([[0.0], np.cumsum(hops)])
    if passed[-1] == 0.0:
        return np.linspace(0.0, 1.0, steps)
    at = np.linspace(0.0, 1.0, len(passed))
    rising = passed + np.arange(len(passed)) * passed[-1] * 1e-12
    return np.interp(np.linspace(0.0, rising[-1], steps), rising, at)


def _acceleration(
    f: Callable[[Tensor], Tensor],
    codes: Tensor,
    place: Any,
    free: Sequence[int],
    length: float,
    batch_size: int,
) -> float:
    """Mean norm of the second derivative's part within the manifold, of a walk in unit time, over its length."""
    if length == 0.0:
        return 0.0
    images = f(codes).double().flatten(1)
    second = (images[2:] - 2 * images[1:-1] + images[:-2]) * (len(codes) - 1) ** 2
    j = pushforward(f, codes[1:-1], directions_at(place, codes[1:-1], free), batch_size).double().flatten(2)
    _, s, v = torch.linalg.svd(j, full_matrices=False)
    within = torch.einsum("nkp,np->nk", v, second)
    within = torch.where(s > 1e-3 * s[:, :1].clamp_min(1e-300), within, torch.zeros_like(within))
    return float(within.norm(dim=1).mean() / length)
