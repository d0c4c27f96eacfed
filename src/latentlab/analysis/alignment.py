"""Alignment: a map turned, mirrored, shifted and scaled until it lies on another map of the same images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from latentlab.analysis.inference import check_seed
from latentlab.analysis.projection import Projection


def procrustes(
    moving: Projection, reference: Projection, *, scale: bool | None = None, seed: int = 0
) -> Projection:
    """Lays one map on another, so that what did not change between two checkpoints stays where it was.

    Distances within the map stay what they were, up to one factor: only the map as a whole moves. Images are paired by
    ``indices`` where both maps have them, else row by row.

    Args:
        moving: the map to move.
        reference: the map to lay it on, of the same number of dimensions.
        scale: whether the map may also change size; by default only layouts other than PCA, whose distances carry no
            unit.
        seed: decides the mixed pairing of the certificate's null.

    Returns:
        The moved map. Its certificate also holds ``disparity``, the mean squared distance between paired positions as a
        share of the reference's variance; ``disparity_before`` that of the map as it came; ``disparity_by_chance`` that
        after the same fit to a mixed pairing; and ``paired``, the number of pairs.

    Raises:
        ValueError: on maps of different dimensions, without images in common, or of positions that all coincide.

    References:
        A generalized solution of the orthogonal Procrustes problem (Schönemann, 1966).
    """
    check_seed(seed)
    dims = reference.points.shape[1]
    if moving.points.shape[1] != dims:
        raise ValueError(f"Both maps need the same dimensions; got {moving.points.shape[1]} and {dims}.")
    own, other = _pairs(moving, reference)
    if len(own) < dims + 1:
        raise ValueError(f"Alignment needs at least {dims + 1} images that both maps show; got {len(own)}.")
    a, b = moving.points[own].astype(float), reference.points[other].astype(float)
    linear = moving.components is not None and moving.center is not None
    if linear and scale:
        raise ValueError("A map by PCA keeps its distances; its scale can't change.")
    free = (moving.method != "pca") if scale is None else scale
    before = _disparity(a, b)
    turn, size, shift = _fit(a, b, free)
    mixed = np.random.default_rng(seed).permutation(len(b))
    chance_turn, chance_size, chance_shift = _fit(a, b[mixed], free)
    points = (size * moving.points.astype(float) @ turn + shift).astype(np.float32)
    center, components, explained = moving.center, moving.components, moving.explained
    if linear:
        components = turn.T @ moving.components
        # (codes - center) @ components.T must give the shifted positions.
        center = moving.center - shift @ components
        # Along turned axes the variances mix; their sum stays.
        if moving.explained is not None:
            explained = (turn.T**2) @ moving.explained
    return replace(
        moving,
        points=points,
        center=center,
        components=components,
        explained=explained,
        certificate={
            **moving.certificate,
            "disparity": _disparity(size * a @ turn + shift, b),
            "disparity_before": before,
            "disparity_by_chance": _disparity(chance_size * a @ chance_turn + chance_shift, b[mixed]),
            "paired": float(len(a)),
        },
    )


def _pairs(moving: Projection, reference: Projection) -> tuple[np.ndarray, np.ndarray]:
    if moving.indices is not None and reference.indices is not None:
        _, own, other = np.intersect1d(moving.indices, reference.indices, return_indices=True)
        return own, other
    rows = np.arange(min(len(moving.points), len(reference.points)))
    return rows, rows


def _fit(a: np.ndarray, b: np.ndarray, free: bool) -> tuple[np.ndarray, float, np.ndarray]:
    """Turn (dims, dims), size and shift (dims,), least squares: size a @ turn + shift comes nearest to b."""
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    centred_a, centred_b = a - mean_a, b - mean_b
    total = float(np.square(centred_a).sum())
    if total == 0.0 or not np.ptp(centred_b, axis=0).any():
        raise ValueError("All positions of a map coincide, so there is nothing to align.")
    left, values, right = np.linalg.svd(centred_a.T @ centred_b)
    turn = left @ right
    size = float(values.sum()) / total if free else 1.0
    return turn, size, mean_b - size * mean_a @ turn


def _disparity(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.square(a - b).sum() / np.square(b - b.mean(axis=0)).sum())
