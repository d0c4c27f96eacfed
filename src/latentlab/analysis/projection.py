"""Maps: codes laid out in two dimensions, new codes placed on the map, and positions taken back to codes.

Symbols: *codes* are points (n, dim) of the latent space, *positions* points of the map. UMAP and t-SNE
are fitted on a subsample; every other code is put at the inverse-distance mean of the positions of its 5
nearest fitted codes, which is also how new codes are placed. PCA places by its own linear map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from latentlab.analysis.encoding import Encoding
from latentlab.analysis.inference import check_seed
from latentlab.analysis.neighbour_layouts import tsne, umap, umap_is_warm, warm_up
from latentlab.analysis.results import Result, provenance

__all__ = ["METHODS", "Projection", "Support", "project", "umap_is_warm", "warm_up"]

METHODS = ("pca", "umap", "tsne")
_PLACED_BY = 5
_QUERIES = 1_000
_REFERENCES = 20_000


@dataclass(frozen=True)
class Support:
    """How well data support positions of a map.

    Attributes:
        distance: distance to the nearest data on the map, (m,).
        relative: the same divided by the data's own median distance to their nearest neighbour, (m,).
        density: data per unit of area (or volume) around the position, relative to the median over the
            data, (m,).
        inside: whether the position lies among the data: not farther from the 5th nearest than 99 % of
            the data are from theirs, (m,).
    """

    distance: np.ndarray
    relative: np.ndarray
    density: np.ndarray
    inside: np.ndarray


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Projection(Result):
    """A map of codes.

    Attributes:
        points: positions of all codes, (n, dims).
        codes: the codes, (n, dim).
        fitted: row numbers of the codes that the map was fitted on, (m,).
        indices: which images of the data set the codes belong to, (n,), or None.
        factors: ground-truth factors of those images, (n, factors), or None.
        factor_names: names of the factors.
        categories: {factor: names of its values}, where known.
        center: mean of the fitted codes, (dim,), for PCA.
        components: orthonormal directions of the map's axes, (dims, dim), for PCA.
        explained: share of the variance along each axis, (dims,), for PCA.
        method: "pca", "umap" or "tsne".

    The certificate holds ``neighbours_kept``, the share of a code's 15 nearest neighbours that are among
    its 15 nearest on the map, with ``neighbours_kept_by_chance`` beside it;
    ``distance_rank_correlation``, Spearman's correlation of pair distances before and after; and for PCA
    ``explained_variance``.
    """

    points: np.ndarray
    codes: np.ndarray
    fitted: np.ndarray
    indices: np.ndarray | None
    factors: np.ndarray | None
    factor_names: tuple[str, ...]
    categories: Mapping[str, tuple[str, ...]]
    center: np.ndarray | None
    components: np.ndarray | None
    explained: np.ndarray | None
    method: str

    def place(self, codes: Any) -> np.ndarray:
        """Positions (k, dims) of new codes (k, dim).

        Raises:
            ValueError: on codes of another dimension.
        """
        codes = _rows(codes, self.codes.shape[1], "codes")
        if self.components is not None and self.center is not None:
            return (codes - self.center) @ self.components.T
        return _place(self._code_tree, self.points[self.fitted], codes)

    def lift(self, positions: Any, k: int = 5) -> np.ndarray:
        """Codes (m, dim) for positions (m, dims) of the map, empty ones too.

        For PCA the point of the plane through the mean that lies at the position, exactly; else the
        inverse-distance mean of the codes of the ``k`` nearest data on the map. See ``support`` for how
        far to trust it.

        Raises:
            ValueError: on positions of another dimension, or k below 1.
        """
        positions = _rows(positions, self.points.shape[1], "positions")
        if self.components is not None and self.center is not None:
            return positions @ self.components + self.center
        if k < 1:
            raise ValueError(f"k must be at least 1; got {k}.")
        return _place(self._point_tree, self.codes, positions, k)

    def nearest(self, positions: Any, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers and distances, both (m, k), of the data nearest to positions (m, dims) on the map."""
        positions = _rows(positions, self.points.shape[1], "positions")
        k = min(max(int(k), 1), len(self.points))
        distances, rows = self._point_tree.query(positions, k=[*range(1, k + 1)])
        return rows, distances

    def grown(self, codes: Any, points: Any = None) -> Projection:
        """The same map with more codes on it: those that it has, then others, each where ``place`` puts it.

        Args:
            codes: (m, dim), beginning with the map's own codes.
            points: their positions (m, dims), where they are known already; the map's own come first.

        Returns:
            A Projection whose certificate is measured on all m codes. It knows nothing of the new codes' images.

        Raises:
            ValueError: if the codes do not begin with the map's own, or codes and positions do not fit.
        """
        codes = _rows(codes, self.codes.shape[1], "codes").astype(np.float32)
        if len(codes) < len(self.codes) or not np.array_equal(codes[: len(self.codes)], self.codes):
            raise ValueError(
                f"A map grows from its own {len(self.codes)} codes on; these codes begin otherwise."
            )
        if points is None:
            points = np.concatenate([self.points, self.place(codes[len(self.codes) :])])
        points = _rows(points, self.points.shape[1], "points").astype(np.float32)
        if len(points) != len(codes):
            raise ValueError(
                f"Each code has one position; got {len(codes)} codes and {len(points)} positions."
            )
        certificate = {**self.certificate, **_certificate(codes, points, self.provenance.seed or 0)}
        return replace(
            self,
            points=points,
            codes=codes,
            indices=None,
            factors=None,
            factor_names=(),
            categories={},
            certificate=certificate,
        )

    def support(self, positions: Any) -> Support:
        """How near to data, and in how dense a place, positions (m, dims) of the map lie."""
        positions = _rows(positions, self.points.shape[1], "positions")
        nearest_of_data, kth_of_data = self._spacing
        k = min(_PLACED_BY, len(self.points))
        distances, _ = self._point_tree.query(positions, k=[1, k])
        typical = max(float(np.median(nearest_of_data)), 1e-12)
        dims = self.points.shape[1]
        reach = np.maximum(distances[:, 1], 1e-12)
        return Support(
            distance=distances[:, 0],
            relative=distances[:, 0] / typical,
            density=(max(float(np.median(kth_of_data)), 1e-12) / reach) ** dims,
            inside=distances[:, 1] <= np.quantile(kth_of_data, 0.99),
        )

    @cached_property
    def _code_tree(self) -> Any:
        return _tree(self.codes[self.fitted])

    @cached_property
    def _point_tree(self) -> Any:
        return _tree(self.points)

    @cached_property
    def _spacing(self) -> tuple[np.ndarray, np.ndarray]:
        """Distances of (up to 5,000) data to their nearest and 5th nearest neighbours on the map."""
        some = self.points[:: max(1, len(self.points) // 5000)]
        last = min(_PLACED_BY + 1, len(self.points))
        distances, _ = self._point_tree.query(some, k=[min(2, last), last])
        return distances[:, 0], distances[:, 1]


def project(
    source: Any,
    method: str = "pca",
    *,
    seed: int = 0,
    fit_on: int = 10_000,
    dims: int = 2,
    neighbours: int = 15,
    start: Any = None,
    progress: Callable[[int, int], object] | None = None,
) -> Projection:
    """Lays codes out in two (or three) dimensions.

    Args:
        source: an Encoding, of which the posterior means are laid out, or codes (n, dim).
        method: "pca", at once; "umap", seconds; "tsne", half a minute for 10,000 codes.
        seed: decides the subsample, the layout, and the pairs of the certificate; equal seeds give equal
            maps.
        fit_on: codes that UMAP and t-SNE are fitted on, drawn from all; the others are placed. PCA takes all.
        dims: dimensions of the map.
        neighbours: size of a neighbourhood for UMAP; t-SNE's perplexity is twice that.
        start: positions (n, dims) of the same codes' images on an earlier map, from which UMAP and t-SNE start
            instead of from the principal components; PCA has no start. ``procrustes`` then turns the map.
        progress: called with (rounds done, rounds in all) by UMAP and t-SNE; it may raise to cancel.

    Raises:
        ValueError: on an unknown method, too few codes, or numbers that are not finite.

    References:
        UMAP: Uniform manifold approximation and projection (McInnes, Healy and Melville, 2018),
        https://arxiv.org/abs/1802.03426, here started from PCA and run for 100 epochs.
        Visualizing data using t-SNE (van der Maaten and Hinton, 2008).
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}.")
    encoding = source if isinstance(source, Encoding) else None
    raw: Any = encoding.mean if encoding is not None else source
    codes = np.array(raw.detach().cpu() if hasattr(raw, "detach") else raw, dtype=np.float32)
    check_seed(seed)
    if codes.ndim != 2 or not np.isfinite(codes).all():
        raise ValueError(f"Expected an Encoding or finite codes (n, dim); got shape {codes.shape}.")
    n, dim = codes.shape
    if not 1 <= dims <= dim:
        raise ValueError(f"dims must lie between 1 and the codes' dimension {dim}; got {dims}.")
    least = max(dims + 1, 2) if method == "pca" else 10
    if n < least:
        raise ValueError(f"method {method!r} needs at least {least} codes; got {n}.")
    if method != "pca" and not np.ptp(codes, axis=0).any():
        raise ValueError(f"All {n} codes are equal, so {method!r} has nothing to lay out.")
    if fit_on < least:
        raise ValueError(f"fit_on must be at least {least}; got {fit_on}.")
    if start is not None:
        start = np.asarray(start, dtype=np.float32)
        if start.shape != (n, dims) or not np.isfinite(start).all():
            raise ValueError(f"start must be finite positions ({n}, {dims}); got shape {start.shape}.")
    center = components = explained = None
    if method == "pca":
        fitted = np.arange(n)
        center, components, explained = _principal_axes(codes, dims)
        points = (codes - center) @ components.T
    else:
        fitted = np.arange(n)
        if n > fit_on:
            fitted = np.sort(np.random.default_rng(seed).choice(n, fit_on, replace=False))
        layout = umap if method == "umap" else tsne
        begin = None if start is None else start[fitted]
        laid_out = np.asarray(
            layout(codes[fitted], dims, seed, neighbours, begin, progress), dtype=np.float32
        )
        points = np.empty((n, dims), dtype=np.float32)
        points[fitted] = laid_out
        others = np.setdiff1d(np.arange(n), fitted)
        if len(others):
            points[others] = _place(_tree(codes[fitted]), laid_out, codes[others])
    certificate = _certificate(codes, points, seed)
    if explained is not None:
        certificate["explained_variance"] = float(explained.sum())
    origin = encoding.provenance.weights_digest if encoding is not None else None
    return Projection(
        points=np.asarray(points, dtype=np.float32),
        codes=codes,
        fitted=fitted,
        indices=encoding.indices if encoding is not None else None,
        factors=encoding.factors if encoding is not None else None,
        factor_names=encoding.factor_names if encoding is not None else (),
        categories=encoding.categories if encoding is not None else {},
        center=center,
        components=components,
        explained=explained,
        method=method,
        certificate=certificate,
        provenance=provenance(
            origin,
            {"method": method, "codes": codes, "fit_on": fit_on, "dims": dims, "neighbours": neighbours,
             "dataset": encoding.dataset if encoding is not None else None,
             **({} if start is None else {"start": start})},
            seed,
        ),
    )  # fmt: skip


def _principal_axes(codes: np.ndarray, dims: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    center = codes.mean(axis=0, dtype=float)
    centred = codes - center
    variances, axes = np.linalg.eigh(centred.T @ centred / len(codes))
    components = axes[:, ::-1][:, :dims].T
    # Eigenvectors have no sign of their own; the largest entry points up, so that maps come out alike.
    strongest = np.abs(components).argmax(axis=1)
    components = components * np.sign(components[np.arange(dims), strongest])[:, None]
    total = max(float(variances.sum()), 1e-30)
    return center, components, variances[::-1][:dims] / total


def _tree(points: np.ndarray) -> Any:
    from scipy.spatial import KDTree

    return KDTree(np.asarray(points, dtype=float))


def _place(tree: Any, targets: np.ndarray, queries: np.ndarray, k: int = _PLACED_BY) -> np.ndarray:
    """Inverse-distance mean of the k nearest points' targets; a query that hits a point gets its target."""
    k = min(k, len(targets))
    distances, rows = tree.query(np.asarray(queries, dtype=float), k=[*range(1, k + 1)], workers=-1)
    hit = distances[:, :1] <= 1e-9
    weights = np.where(hit, distances <= 1e-9, 1.0 / np.maximum(distances, 1e-9))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("nk,nkd->nd", weights, targets[rows].astype(float)).astype(np.float32)


def _rows(values: Any, width: int, what: str) -> np.ndarray:
    rows = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=float)
    rows = rows[None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or rows.shape[1] != width or not np.isfinite(rows).all():
        raise ValueError(f"{what} must be finite numbers (k, {width}); got shape {np.shape(values)}.")
    return rows


def _certificate(codes: np.ndarray, points: np.ndarray, seed: int, neighbours: int = 15) -> dict[str, float]:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(seed)
    n = len(codes)
    references = np.sort(rng.choice(n, min(n, _REFERENCES), replace=False))
    queries = rng.choice(len(references), min(len(references), _QUERIES), replace=False)
    k = min(neighbours, len(references) - 1)
    before, after = (_neighbours(space[references], queries, k) for space in (codes, points))
    kept = np.mean([len(np.intersect1d(a, b)) for a, b in zip(before, after, strict=True)]) / k
    pairs = rng.integers(n, size=(2, 20_000))
    pairs = pairs[:, pairs[0] != pairs[1]]
    distances = [np.linalg.norm(space[pairs[0]] - space[pairs[1]], axis=1) for space in (codes, points)]
    flat = any(np.ptp(d) == 0 for d in distances)
    return {
        "neighbours_kept": float(kept),
        "neighbours_kept_by_chance": k / (len(references) - 1),
        "distance_rank_correlation": 0.0 if flat else float(np.asarray(spearmanr(*distances))[0]),
    }


def _neighbours(points: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    _, rows = _tree(points).query(points[queries], k=[*range(1, k + 2)])
    # A code among its own neighbours is dropped; among many duplicates it may not be found: then the last is.
    own = rows == queries[:, None]
    own[~own.any(axis=1), -1] = True
    return rows[~own].reshape(len(queries), k)
