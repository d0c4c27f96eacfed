"""MIG from the whole posterior: mutual information of a sampled code with a factor, without bins."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from latentlab.metrics.mig import gap
from latentlab.metrics.mutual_information import entropies, relabel
from latentlab.metrics.representation import as_codes, as_pair, needs_variety
from latentlab.metrics.score import Score

_STATES = 1024
_TAIL = 6.0


def continuous_mig(
    mean: Any,
    log_var: Any,
    factors: Any,
    *,
    grid: int = 400,
    most: int = 2000,
    progress: Callable[[int, int], object] | None = None,
) -> Score:
    """Mutual information gap of the codes as the model samples them: 0 to 1.

    Each code is a sample of q(z | x), so its density given a factor's value is the mixture of the posteriors of
    the states with that value. Both entropies are integrated on a grid over all states given: no bins, no
    sampling noise, and noise that the posterior adds counts against the code. A constant posterior gives a code
    0 nats; a duplicated code brings its factor's gap to 0; a one-valued factor is refused.

    Args:
        mean: posterior means (n, d), of every state of the data set.
        log_var: logs of the posterior variances (n, d).
        factors: whole numbers (n, k).
        grid: least number of grid points for a code; more where a narrow posterior asks for them.
        most: greatest number of grid points.
        progress: called with (codes done, codes in all).

    Returns:
        Score with details ``per_factor`` (k,), ``information`` nats (d, k), ``entropies`` nats (k,) and
        ``mass_error``: how far the densities are from integrating to 1, the certificate of the quadrature.

    Raises:
        ValueError: on arrays that do not fit together, or posteriors too narrow for ``most`` grid points.

    References:
        Isolating sources of disentanglement in variational autoencoders (Chen et al., 2018),
        https://arxiv.org/abs/1802.04942, who draw samples; here the integrals are taken by quadrature.
    """
    centers, v = as_pair(mean, factors)
    needs_variety(v, "continuous_mig")
    spread = np.exp(0.5 * as_codes(log_var, "log_var"))
    if spread.shape != centers.shape:
        raise ValueError(f"mean and log_var must have one shape; got {centers.shape} and {spread.shape}.")
    labels, sizes = relabel(v)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    members = labels + offsets[:-1]
    counts = np.bincount(members.ravel(), minlength=offsets[-1]).astype(float)
    d = centers.shape[1]

    def inform(code: int) -> tuple[np.ndarray, float]:
        points, step = _grid(centers[:, code], spread[:, code], grid, most)
        groups = _group_densities(centers[:, code], spread[:, code], members, points, int(offsets[-1]))
        inside = groups / counts[:, None]
        overall = groups[: offsets[1]].sum(axis=0) / len(centers)
        all_over = float(_entropy(overall[None], step)[0])
        found = np.empty(len(sizes))
        for j in range(len(sizes)):
            rows = slice(offsets[j], offsets[j + 1])
            found[j] = all_over - _entropy(inside[rows], step) @ (counts[rows] / len(centers))
        return found.clip(min=0.0), float(np.abs(inside.sum(axis=1) * step - 1).max())

    information = np.zeros((d, len(sizes)))
    worst = 0.0
    # numpy lets go of the interpreter in its loops, so threads share the codes among the cores.
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for code, (found, error) in enumerate(pool.map(inform, range(d))):
            information[code], worst = found, max(worst, error)
            if progress is not None:
                progress(code + 1, d)
    if worst > 0.01:
        raise ValueError(
            f"Some posteriors are too narrow for {most} grid points (their densities integrate to 1 within "
            f"{worst:.2g} only); raise most, or score the means with mig."
        )
    entropy = entropies(v)
    per_factor = gap(information) / entropy
    return Score(
        "continuous_mig",
        per_factor.mean(),
        {"per_factor": per_factor, "information": information, "entropies": entropy, "mass_error": worst},
        {"points": len(centers), "estimator": "aggregate posterior, quadrature"},
    )


def _grid(center: np.ndarray, spread: np.ndarray, least: int, most: int) -> tuple[np.ndarray, float]:
    low, high = (center - _TAIL * spread).min(), (center + _TAIL * spread).max()
    # At half a standard deviation the rectangle rule is exact for a Gaussian to twelve digits and more.
    wanted = int(np.ceil((high - low) / (0.5 * spread.min()))) + 1
    points = np.linspace(low, high, min(max(wanted, least), most))
    return points, float(points[1] - points[0])


def _group_densities(
    center: np.ndarray, spread: np.ndarray, members: np.ndarray, points: np.ndarray, groups: int
) -> np.ndarray:
    """Sums of the posteriors' densities over the states of each factor value, (groups, grid points)."""
    found = np.zeros((groups, len(points)))
    grid = points.astype(np.float32)
    root = np.float32(np.sqrt(2 * np.pi))
    for begin in range(0, len(center), _STATES):
        part = slice(begin, begin + _STATES)
        narrow = (1 / spread[part, None]).astype(np.float32)
        density = (grid - center[part, None].astype(np.float32)) * narrow
        np.square(density, out=density)
        density *= np.float32(-0.5)
        np.exp(density, out=density)
        density *= narrow / root
        member = np.zeros((groups, len(density)), dtype=np.float32)
        columns = np.arange(len(density))
        for mine in members[part].T:
            member[mine, columns] = 1.0
        found += member @ density
    return found


def _entropy(density: np.ndarray, step: float) -> np.ndarray:
    """Differential entropy of each row, nats."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = density * np.log(density)
    return -np.where(density > 0, terms, 0.0).sum(axis=-1) * step
