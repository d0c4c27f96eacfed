"""How near generated images are to real ones: distances and shares between two clouds of features.

Symbols: real and generated features (n, d), one row an image, of one *feature space*: the outputs of a network
that was not trained with the model. Every number here depends on that space and on the sample sizes, so both
are part of the score's protocol; numbers of different spaces can't be compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from latentlab.metrics.representation import LEAST_POINTS, as_codes
from latentlab.metrics.score import Score

_CHUNK = 8_000_000
"""Pairwise distances held at a time (64 MB)."""
_TIE = 1e-9
"""Relative rounding up to which two squared distances count as equal."""


def frechet_distance(real: Any, generated: Any, *, features: str = "unnamed features") -> Score:
    """Fréchet distance between Gaussians fitted to the features of real and of generated images (FID).

    Args:
        real: features of real images (n, d).
        generated: features of generated images (m, d).
        features: what the feature space is called; part of the protocol.

    Returns:
        ``value`` in [0, ∞), squared feature units, 0 for equal moments, lower is better. ``details``:
        ``mean_term`` and ``covariance_term``, which sum to it, and ``real_variance``, the trace of the real
        covariance, which says how large such a distance is: one point for all images lies about that far.

    Raises:
        ValueError: if features are no finite numbers, widths differ, or a set has no more points than
            dimensions, so that its covariance can't be estimated.

    The estimate is biased upwards, the more the fewer the points; compare at equal sample sizes, and with the
    distance between two halves of the real images, which is what a perfect model would get.

    References:
        GANs trained by a two time-scale update rule converge to a local Nash equilibrium (Heusel et al., 2017),
        https://arxiv.org/abs/1706.08500; the trace of the root is computed here as a sum of singular values,
        which needs no complex root of a product of covariances.
    """
    x, y = _two_clouds(real, generated)
    for name, points in (("real", x), ("generated", y)):
        if len(points) <= points.shape[1]:
            raise ValueError(
                f"A Fréchet distance in {points.shape[1]} dimensions needs more than {points.shape[1]} points "
                f"of each kind; got {len(points)} {name} ones; give more, or use the kernel distance."
            )
    shift = x.mean(axis=0) - y.mean(axis=0)
    root_x, root_y = _root(x), _root(y)
    mean_term = float(shift @ shift)
    variance_x, variance_y = float(np.square(root_x).sum()), float(np.square(root_y).sum())
    # With A'A and B'B the covariances, the eigenvalues of their product are the squared singular values of
    # AB', so the trace of its root is their sum; near-zero ones keep full precision that a square root of an
    # eigenvalue would lose.
    overlap = float(np.linalg.svd(root_x @ root_y.T, compute_uv=False).sum())
    covariance_term = max(0.0, variance_x + variance_y - 2.0 * overlap)
    return Score(
        "frechet_distance",
        mean_term + covariance_term,
        {"mean_term": mean_term, "covariance_term": covariance_term, "real_variance": variance_x},
        _protocol(x, y, features),
    )


def kernel_distance(
    real: Any,
    generated: Any,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
    *,
    features: str = "unnamed features",
) -> Score:
    """Squared maximum mean discrepancy with the kernel (x·y / d + 1)³, unbiased (KID).

    Args:
        real: features of real images (n, d).
        generated: features of generated images (m, d).
        subsets: how many pairs of subsets the mean is taken over.
        subset_size: points of each kind in a subset, drawn without replacement.
        seed: decides the subsets.
        features: what the feature space is called; part of the protocol.

    Returns:
        ``value``, the mean over subsets: 0 on average for equal distributions at any sample size, so it can
        come out below 0; lower is better. ``details``: ``spread``, its standard deviation over the subsets,
        which overlap, so that it is the noise of one subset and not the error of the mean; and ``subsets``,
        the values (subsets,).

    Raises:
        ValueError: if features are no finite numbers, widths differ, or a subset is larger than a set.

    References:
        Demystifying MMD GANs (Bińkowski, Sutherland, Arbel and Gretton, 2018), https://arxiv.org/abs/1801.01401
    """
    x, y = _two_clouds(real, generated)
    subsets = _whole("subsets", subsets, 1)
    size = _whole("subset_size", subset_size, 2)
    fewest = min(len(x), len(y))
    if size > fewest:
        raise ValueError(
            f"subset_size must be at most the number of points of either kind, {fewest}; got {size}."
        )
    rng = np.random.default_rng(_whole("seed", seed, 0))
    values = np.array(
        [
            _squared_mmd(
                x[rng.choice(len(x), size, replace=False)], y[rng.choice(len(y), size, replace=False)]
            )
            for _ in range(subsets)
        ]
    )
    return Score(
        "kernel_distance",
        float(values.mean()),
        {"spread": float(values.std(ddof=1)) if subsets > 1 else 0.0, "subsets": values},
        {**_protocol(x, y, features), "subsets": subsets, "subset_size": size, "degree": 3, "seed": seed},
    )


def precision_recall(real: Any, generated: Any, k: int = 3, *, features: str = "unnamed features") -> Score:
    """Precision: the share of generated images among the real ones; recall: of real ones among the generated.

    The region of a set is the union of balls around its points, each reaching to the k-th nearest other point
    of the set; a point on the rim counts as inside.

    Args:
        real: features of real images (n, d).
        generated: features of generated images (m, d).
        k: which neighbour a ball reaches to.
        features: what the feature space is called; part of the protocol.

    Returns:
        ``value``, the precision, in [0, 1], higher is better. ``details``: ``recall`` in [0, 1] and ``f1``,
        their harmonic mean; ``standard_error`` and ``recall_standard_error``, each for a given region.

    Raises:
        ValueError: if features are no finite numbers, widths differ, or there are too few points.

    Both depend on the sample sizes and on k, and one outlier spreads its region far: see ``density_coverage``.

    References:
        Improved precision and recall metric for assessing generative models (Kynkäänniemi et al., 2019),
        https://arxiv.org/abs/1904.06991
    """
    x, y = _two_clouds(real, generated)
    k = _neighbours(k, x, y)
    radius_x, radius_y = _squared_radii(x, k), _squared_radii(y, k)
    hit_x, hit_y = np.zeros(len(x), dtype=bool), np.zeros(len(y), dtype=bool)
    for rows, distances in _squared_distances(x, y):
        hit_y |= _within(distances, radius_x[rows, None]).any(axis=0)
        hit_x[rows] = _within(distances, radius_y).any(axis=1)
    precision, recall = float(hit_y.mean()), float(hit_x.mean())
    both = precision + recall
    return Score(
        "precision_recall",
        precision,
        {
            "recall": recall,
            "f1": 2.0 * precision * recall / both if both else 0.0,
            "standard_error": _error_of_mean(hit_y),
            "recall_standard_error": _error_of_mean(hit_x),
        },
        {**_protocol(x, y, features), "k": k},
    )


def density_coverage(real: Any, generated: Any, k: int = 5, *, features: str = "unnamed features") -> Score:
    """Density: how many real balls hold a generated image; coverage: the share of real balls that hold one.

    A ball lies around each real point and reaches to its k-th nearest other real point, so that, unlike with
    precision and recall, outliers among the generated images enlarge nothing.

    Args:
        real: features of real images (n, d).
        generated: features of generated images (m, d).
        k: which neighbour a ball reaches to.
        features: what the feature space is called; part of the protocol.

    Returns:
        ``value``, the density: the mean number of balls around a generated image, over k; in [0, n / k], 1 on
        average for equal distributions, above 1 where the generated images crowd into the middle of the real
        ones. ``details``: ``coverage`` in [0, 1], higher is better; ``coverage_expected``, its mean for equal
        distributions at these sample sizes; ``standard_error`` of the density for given balls.

    Raises:
        ValueError: if features are no finite numbers, widths differ, or there are too few points.

    References:
        Reliable fidelity and diversity metrics for generative models (Naeem et al., 2020),
        https://arxiv.org/abs/2002.09797; a point on the rim counts as inside here, so that copies of real
        images do even where real images repeat.
    """
    x, y = _two_clouds(real, generated)
    k = _neighbours(k, x, y)
    radius = _squared_radii(x, k)
    holds, covered = np.zeros(len(y), dtype=np.int64), np.zeros(len(x), dtype=bool)
    for rows, distances in _squared_distances(x, y):
        inside = _within(distances, radius[rows, None])
        holds += inside.sum(axis=0)
        covered[rows] = inside.any(axis=1)
    # A ball stays empty if the k nearest of all other points are real.
    ahead = np.arange(k)
    empty = np.prod((len(x) - 1.0 - ahead) / (len(x) + len(y) - 1.0 - ahead))
    return Score(
        "density_coverage",
        float(holds.mean() / k),
        {
            "coverage": float(covered.mean()),
            "coverage_expected": float(1.0 - empty),
            "standard_error": _error_of_mean(holds / k),
        },
        {**_protocol(x, y, features), "k": k},
    )


def path_length(
    features_a: Any,
    features_b: Any,
    epsilon: float,
    *,
    trim: float = 0.01,
    features: str = "unnamed features",
) -> Score:
    """How fast the features change along latent paths: the mean of ‖a − b‖² / ε² over pairs (PPL).

    Args:
        features_a: features (n, d) of the images at n places on paths between codes.
        features_b: features (n, d) of the images a step ``epsilon`` further along the same paths.
        epsilon: the step, as a share of a path.
        trim: the share of pairs left out at either end, as the paper's own measurements do.
        features: what the feature space is called; part of the protocol.

    Returns:
        ``value`` in [0, ∞), squared feature units a path, lower is smoother; a generator that ignores its
        code gets 0, so it says nothing without a distance to real images. ``details``: ``standard_error`` of
        the trimmed mean, ``median``, ``untrimmed`` mean and the number of pairs ``kept``.

    Raises:
        ValueError: if features are no finite numbers, shapes differ, pairs are too few, or ``epsilon`` or
            ``trim`` is out of range.

    References:
        A style-based generator architecture for generative adversarial networks (Karras, Laine and Aila, 2019),
        https://arxiv.org/abs/1812.04948. There the distance is LPIPS; here it is Euclidean in the feature
        space that the protocol names, so the numbers are not the paper's.
    """
    a, b = as_codes(features_a, "features_a"), as_codes(features_b, "features_b")
    if a.shape != b.shape:
        raise ValueError(f"Both ends of a step need features of one shape; got {a.shape} and {b.shape}.")
    if len(a) < LEAST_POINTS:
        raise ValueError(f"A path length needs at least {LEAST_POINTS} pairs; got {len(a)}.")
    if not (np.isfinite(epsilon) and epsilon > 0):
        raise ValueError(f"epsilon must be a positive number; got {epsilon!r}.")
    if not 0 <= trim < 0.5:
        raise ValueError(f"trim must lie in [0, 0.5); got {trim!r}.")
    lengths = np.square((a - b) / epsilon).sum(axis=1)
    low = np.quantile(lengths, trim, method="lower")
    high = np.quantile(lengths, 1.0 - trim, method="higher")
    kept = lengths[(lengths >= low) & (lengths <= high)]
    return Score(
        "path_length",
        float(kept.mean()),
        {
            "standard_error": _error_of_mean(kept),
            "median": float(np.median(lengths)),
            "untrimmed": float(lengths.mean()),
            "kept": len(kept),
        },
        {"features": features, "dimensions": a.shape[1], "pairs": len(a), "epsilon": epsilon, "trim": trim},
    )


def _two_clouds(real: Any, generated: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = as_codes(real, "real features"), as_codes(generated, "generated features")
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            "Real and generated images need features of the same space; "
            f"got {x.shape[1]} and {y.shape[1]} dimensions."
        )
    return x, y


def _protocol(x: np.ndarray, y: np.ndarray, features: str) -> dict[str, Any]:
    return {"features": features, "dimensions": x.shape[1], "real": len(x), "generated": len(y)}


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}; got {value!r}.")
    return int(value)


def _neighbours(k: Any, *clouds: np.ndarray) -> int:
    k = _whole("k", k, 1)
    fewest = min(len(points) for points in clouds)
    if fewest <= k:
        raise ValueError(f"Balls that reach to neighbour {k} need more than {k} points; got {fewest}.")
    return k


def _root(points: np.ndarray) -> np.ndarray:
    """R (d, d) with R'R the covariance of the points."""
    centred = points - points.mean(axis=0)
    return np.linalg.qr(centred, mode="r") / np.sqrt(len(points) - 1.0)


def _squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    n, d = x.shape

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        inner = a @ b.T / d + 1.0
        return inner * inner * inner

    within = sum(float(own.sum() - np.trace(own)) for own in (kernel(x, x), kernel(y, y)))
    return within / (n * (n - 1.0)) - 2.0 * float(kernel(x, y).mean())


def _squared_distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Squared distances from all of y to some rows of x at a time: (rows, (rows, m))."""
    centre = x.mean(axis=0)  # the products below lose fewer digits near the origin
    x, y = x - centre, y - centre
    norm_x, norm_y = np.square(x).sum(axis=1), np.square(y).sum(axis=1)
    step = max(1, _CHUNK // len(y))
    for start in range(0, len(x), step):
        rows = slice(start, min(start + step, len(x)))
        scale = norm_x[rows, None] + norm_y
        distances = scale - 2.0 * (x[rows] @ y.T)
        # What rounding leaves between equal points is no distance.
        distances[distances < 1e-13 * x.shape[1] * scale] = 0.0
        yield rows, distances


def _squared_radii(points: np.ndarray, k: int) -> np.ndarray:
    """Squared distance of each point to its k-th nearest other point, (n,)."""
    radii = np.empty(len(points))
    for rows, distances in _squared_distances(points, points):
        here = np.arange(rows.stop - rows.start)
        distances[here, here + rows.start] = np.inf
        radii[rows] = np.partition(distances, k - 1, axis=1)[:, k - 1]
    return radii


def _within(distances: np.ndarray, radii: np.ndarray) -> np.ndarray:
    return distances <= radii * (1.0 + _TIE)


def _error_of_mean(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
