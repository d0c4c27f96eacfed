"""How well straight lines read the ground-truth factors off the latents.

Symbols: mu the posterior means (n, dim), v a factor. A factor on a circle (a hue, an angle) is read as the two
numbers cos v and sin v.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from latentlab.analysis.encoding import Encoding
from latentlab.analysis.inference import check_seed
from latentlab.analysis.results import Result, provenance


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LinearReadout(Result):
    """Held-out linear fits from latents to factors.

    Attributes:
        r2: coefficient of determination on held-out data, (factors,); 1 is exact, 0 no better than the mean.
        null: the same after shuffling the factors over the training images, (factors,).
        factors: names of the factors.
        circular: which of them were read as cos and sin.
    """

    r2: np.ndarray
    null: np.ndarray
    factors: tuple[str, ...]
    circular: tuple[bool, ...]


def linear_readout(
    encoding: Encoding,
    periods: Mapping[str, float] | None = None,
    *,
    factors: tuple[str, ...] | None = None,
    held_out: float = 0.25,
    seed: int = 0,
) -> LinearReadout:
    """Fits least squares with an intercept from posterior means to each factor and scores it on held-out images.

    Args:
        encoding: means and factors of a data set, from ``encode_dataset``.
        periods: {factor: number of values in a full turn} for factors on a circle.
        factors: names of the factors to read; all by default.
        held_out: share of the images that the fit does not see.
        seed: of the split and of the shuffle of the null.

    Returns:
        R^2 on the held-out images, one a factor (for a circular factor over cos and sin together).

    Raises:
        ValueError: if the encoding has no factors, names are unknown, or there are too few images.
    """
    if encoding.factors is None:
        raise ValueError(f"Data set {encoding.dataset!r} has no ground-truth factors to read.")
    names = tuple(factors or encoding.factor_names)
    unknown = (set(names) | set(periods or ())) - set(encoding.factor_names)
    if unknown:
        raise ValueError(f"Unknown factor {sorted(unknown)[0]!r}; known: {', '.join(encoding.factor_names)}.")
    n, dim = encoding.mean.shape
    test = int(n * held_out)
    if test < 2 or n - test <= 2 * dim:
        raise ValueError(
            f"A readout of {dim} latents needs more than {n} images with {held_out:.0%} held out."
        )
    rng = np.random.default_rng(check_seed(seed))
    order, shuffle = rng.permutation(n), rng.permutation(n - test)
    inputs = np.column_stack([encoding.mean.astype(np.float64), np.ones(n)])
    train, held = order[test:], order[:test]
    r2, null = [], []
    for name in names:
        values = encoding.factors[:, encoding.factor_names.index(name)].astype(np.float64)
        period = (periods or {}).get(name)
        if period:
            angle = 2.0 * np.pi * values / period
            targets = np.column_stack([np.cos(angle), np.sin(angle)])
        else:
            targets = values[:, None]
        for scores, rows in ((r2, train), (null, train[shuffle])):
            weights = np.linalg.lstsq(inputs[train], targets[rows], rcond=None)[0]
            residual = ((targets[held] - inputs[held] @ weights) ** 2).sum()
            spread = ((targets[held] - targets[held].mean(0)) ** 2).sum()
            scores.append(1.0 - residual / spread if spread > 0 else np.nan)
    return LinearReadout(
        r2=np.array(r2),
        null=np.array(null),
        factors=names,
        circular=tuple(bool((periods or {}).get(name)) for name in names),
        provenance=provenance(
            encoding.provenance.weights_digest,
            {"held_out": held_out, "images": n, "factors": list(names), "periods": dict(periods or {})},
            seed,
        ),
        certificate={"highest_r2_of_shuffled_factors": float(np.nanmax(null))},
    )
