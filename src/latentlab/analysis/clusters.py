"""Clusters of codes: found on a sample, then every code goes to one; with the numbers that say how real they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from latentlab.analysis.inference import check_seed
from latentlab.analysis.results import Result, provenance

METHODS = ("kmeans", "hdbscan")
FITTED = 10_000
_JUDGED = 2_000


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Clusters(Result):
    """Clusters of codes.

    Attributes:
        centres: (k, dim) means of the clusters' codes.
        fitted: cluster of each code the clusters were found on, (m,); -1 for noise, which only HDBSCAN knows.
        codes: those codes, (m, dim).
        method: "kmeans" or "hdbscan".

    The certificate holds ``silhouette``, the mean silhouette of a sample, -1 to 1, and ``silhouette_by_chance``, the
    same for as many clusters found by k-means in normal noise of the codes' covariance, both None with fewer than two
    clusters; and ``left_over``, the share of codes in no cluster.
    """

    centres: np.ndarray
    fitted: np.ndarray
    codes: np.ndarray
    method: str

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the clusters, by falling size."""
        return tuple(f"cluster {i + 1}" for i in range(len(self.centres)))

    def assign(self, codes: np.ndarray) -> np.ndarray:
        """Each code's cluster (n,): the nearest centre's; by HDBSCAN that of the nearest code it was found on."""
        if not len(self.centres):
            return np.full(len(codes), -1, np.int16)
        if self.method == "kmeans":
            out = np.empty(len(codes), np.int16)
            half = 0.5 * np.square(self.centres).sum(axis=1)
            for begin in range(0, len(codes), 50_000):
                out[begin : begin + 50_000] = (codes[begin : begin + 50_000] @ self.centres.T - half).argmax(
                    1
                )
            return out
        from scipy.spatial import KDTree

        known = len(self.codes)
        if len(codes) >= known and np.array_equal(codes[:known], self.codes):
            new = KDTree(self.codes).query(codes[known:], eps=0.5)[1] if len(codes) > known else []
            return np.concatenate([self.fitted, self.fitted[np.asarray(new, int)]]).astype(np.int16)
        return self.fitted[KDTree(self.codes).query(codes, eps=0.5)[1]].astype(np.int16)


def find_clusters(codes: np.ndarray, method: str = "kmeans", k: int = 8, *, seed: int = 0) -> Clusters:
    """Finds clusters among codes.

    Args:
        codes: (n, dim); the first 10,000 are used.
        method: "kmeans" with ``k`` clusters, or "hdbscan", which finds their number itself and leaves the rest over.
        k: number of clusters for k-means; smallest cluster of HDBSCAN is 1 % of the codes.
        seed: of the starts and samples.

    Raises:
        ValueError: on an unknown method, or fewer codes than clusters.

    References:
        Silhouettes: a graphical aid to the interpretation and validation of cluster analysis (Rousseeuw, 1987).
        Density-based clustering based on hierarchical density estimates (Campello et al., 2013).
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}.")
    codes = np.array(codes[:FITTED], dtype=np.float32)
    check_seed(seed)
    if not 2 <= k < len(codes):
        raise ValueError(f"k must lie between 2 and the number of codes less 1, {len(codes) - 1}; got {k}.")
    fitted = _fit(codes, method, k, seed)
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(np.cov(codes.T.astype(float)) + 1e-9 * np.eye(codes.shape[1]))
    noise = (rng.standard_normal((min(len(codes), _JUDGED), codes.shape[1])) @ root.T).astype(np.float32)
    count = int(fitted.max()) + 1
    chance = None
    if 2 <= count < len(noise):
        chance = _silhouette(noise, _fit(noise, "kmeans", count, seed), seed)
    return Clusters(
        centres=np.stack([codes[fitted == i].mean(axis=0) for i in range(count)]) if count else codes[:0],
        fitted=fitted,
        codes=codes,
        method=method,
        certificate={
            "silhouette": _silhouette(codes, fitted, seed),
            "silhouette_by_chance": chance,
            "left_over": float(np.mean(fitted < 0)),
        },
        provenance=provenance(None, {"codes": codes, "method": method, "k": k}, seed),
    )


def _fit(codes: np.ndarray, method: str, k: int, seed: int) -> np.ndarray:
    if method == "kmeans":
        import sklearn
        from sklearn.cluster import KMeans

        starts: Any = 4  # scikit-learn's own annotations know only its defaults
        found = KMeans(k, n_init=starts, random_state=seed).fit_predict(codes)
    else:
        import sklearn  # noqa: F401  (whole before its parts)
        from sklearn.cluster import HDBSCAN

        least = max(5, len(codes) // 100)
        copied: Any = {"copy": True}
        found = HDBSCAN(min_cluster_size=least, min_samples=5, **copied).fit_predict(codes)
    # Numbered by falling size, so that colours mean the same at each look.
    sizes = np.bincount(found[found >= 0], minlength=int(found.max()) + 1)
    rank = np.empty(len(sizes), np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return np.where(found >= 0, rank[np.maximum(found, 0)] if len(sizes) else -1, -1).astype(np.int16)


def _silhouette(codes: np.ndarray, found: np.ndarray, seed: int) -> float | None:
    import sklearn  # noqa: F401  (whole before its parts)
    from sklearn.metrics import silhouette_score

    rows = np.flatnonzero(found >= 0)
    if len(rows) > _JUDGED:
        rows = np.random.default_rng(seed).choice(rows, _JUDGED, replace=False)
    if len(np.unique(found[rows])) < 2 or len(np.unique(found[rows])) >= len(rows):
        return None
    return float(silhouette_score(codes[rows], found[rows]))
