"""What a model with an encoder keeps of its images: coordinates in use, coordinates collapsed, pixels lost."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from latentlab.metrics.representation import as_array, as_codes
from latentlab.metrics.score import Score

_CHUNK = 512
_ROUNDING = 1e-3
"""Nats by which a KL in float32 may come out below 0."""


def active_units(mean: Any, threshold: float = 0.01, variables: Any = None) -> Score:
    """How many latents are in use: those whose posterior means vary over the images.

    Args:
        mean: posterior means (n, d).
        threshold: variance above which a latent counts as active.
        variables: the latent that each coordinate belongs to, whole numbers (d,), as ``LatentSpace.variables``;
            a category is one latent of several coordinates, whose variances add up. None: each its own.

    Returns:
        ``value``, the number of active latents, 0 … k. ``details``: ``fraction`` of the k in [0, 1],
        ``variance`` (k,) of the means over the images, and ``active`` (k,).

    Raises:
        ValueError: if means are no finite numbers (n, d), are of fewer than 2 images, the threshold is
            negative, or ``variables`` does not name one latent a coordinate.

    References:
        Importance weighted autoencoders (Burda, Grosse and Salakhutdinov, 2015),
        https://arxiv.org/abs/1509.00519
    """
    means = as_codes(mean, "mean")
    if len(means) < 2:
        raise ValueError("The means of one image don't vary; active units need at least 2 images.")
    if not (math.isfinite(threshold) and threshold >= 0):
        raise ValueError(f"threshold must be a variance of at least 0; got {threshold!r}.")
    variance = means.var(axis=0)
    if variables is not None:
        belongs = np.asarray(variables)
        if belongs.shape != variance.shape:
            raise ValueError(
                f"variables must name one latent for each of {len(variance)} coordinates; got {belongs.shape}."
            )
        variance = np.array([variance[belongs == v].sum() for v in np.unique(belongs)])
    active = variance > threshold
    return Score(
        "active_units",
        int(active.sum()),
        {"fraction": float(active.mean()), "variance": variance, "active": active},
        {"points": len(means), "dimensions": len(variance), "threshold": threshold},
    )


def posterior_collapse(kl: Any, epsilon: float = 0.01, delta: float = 0.01) -> Score:
    """The fraction of coordinates whose posterior is the prior: P(KL < ε) ≥ 1 − δ over the images.

    Args:
        kl: KL(q(z | x) || p(z)), nats (n, d), one column a coordinate. The KL of a categorical block is the
            sum of its columns: give that one column for the block.
        epsilon: nats below which a posterior counts as equal to the prior.
        delta: share of the images that may exceed it.

    Returns:
        ``value``, the fraction of collapsed coordinates in [0, 1], lower is better. ``details``:
        ``collapsed`` (d,), ``share_below`` (d,), the share of images with KL < ε, and ``kl`` (d,), the mean.

    Raises:
        ValueError: if the KL is no finite numbers (n, d), is negative, or ε or δ is out of range.

    References:
        Don't blame the ELBO! A linear VAE perspective on posterior collapse (Lucas et al., 2019),
        https://arxiv.org/abs/1911.02469
    """
    nats = as_codes(kl, "kl")
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise ValueError(f"epsilon must be a positive number of nats; got {epsilon!r}.")
    if not 0 <= delta < 1:
        raise ValueError(f"delta must lie in [0, 1); got {delta!r}.")
    if nats.min() < -_ROUNDING:
        column = int(np.argmin(nats.min(axis=0)))
        raise ValueError(
            f"A KL can't be negative, but column {column} holds {nats[:, column].min():.3g} nats; "
            "sum the columns of a categorical block first."
        )
    below = nats < epsilon
    # Counted, not divided: 1 - delta is not exact.
    collapsed = (~below).sum(axis=0) <= delta * len(nats) + 1e-9
    return Score(
        "posterior_collapse",
        float(collapsed.mean()),
        {"collapsed": collapsed, "share_below": below.mean(axis=0), "kl": nats.mean(axis=0)},
        {"points": len(nats), "dimensions": nats.shape[1], "epsilon": epsilon, "delta": delta},
    )


def reconstruction_error(x: Any, x_hat: Any) -> Score:
    """Mean squared error of reconstructions, per pixel and channel.

    Args:
        x: images (n, channels, height, width) in [0, 1].
        x_hat: their reconstructions, same shape, in [0, 1].

    Returns:
        ``value`` in [0, 1], lower is better. ``details``: ``psnr``, the peak signal-to-noise ratio of the mean
        error, decibels, higher is better, None where there is no error at all; ``per_image`` errors (n,); and
        ``standard_error`` of the value over the images.

    Raises:
        ValueError: if shapes differ, or images are not finite or not in [0, 1].
    """
    images, copies = as_array(x), as_array(x_hat)
    if images.ndim != 4 or not images.size or images.shape != copies.shape:
        raise ValueError(
            "x and x_hat must be images (n, channels, height, width) of one shape; "
            f"got {images.shape} and {copies.shape}."
        )
    errors = []
    for start in range(0, len(images), _CHUNK):
        parts = []
        for name, values in (("x", images), ("x_hat", copies)):
            part = values[start : start + _CHUNK].astype(np.float64)
            if not ((part >= 0) & (part <= 1)).all():
                raise ValueError(f"{name} must be images in [0, 1]; it holds NaN or values outside.")
            parts.append(part)
        errors.append(np.square(parts[0] - parts[1]).mean(axis=(1, 2, 3)))
    per_image = np.concatenate(errors)
    error = float(per_image.mean())
    spread = float(per_image.std(ddof=1) / math.sqrt(len(per_image))) if len(per_image) > 1 else 0.0
    return Score(
        "reconstruction_error",
        error,
        {
            "psnr": -10.0 * math.log10(error) if error > 0 else None,
            "per_image": per_image,
            "standard_error": spread,
        },
        {"points": len(images), "image_shape": images.shape[1:]},
    )
