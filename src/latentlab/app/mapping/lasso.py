"""Which points lie inside a lasso: exact, by the even-odd rule, in time that a million points allow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MOST_CORNERS = 2_000


class Lasso:
    """Points prepared for lassos: ordered by height, so that an edge only meets the points beside it.

    Args:
        points: (n, 2).
    """

    def __init__(self, points: np.ndarray) -> None:
        self._order = np.argsort(points[:, 1], kind="stable")
        ordered = points[self._order].astype(np.float64)
        self._x, self._y = np.ascontiguousarray(ordered[:, 0]), np.ascontiguousarray(ordered[:, 1])

    def inside(self, polygon: Sequence[Sequence[float]]) -> np.ndarray:
        """Rows of the points inside a closed polygon, ascending.

        Args:
            polygon: corners (k, 2), at least three; it may cross itself.

        Raises:
            ValueError: on fewer than 3 corners, more than 2,000, or numbers that are not finite.
        """
        corners = np.asarray(polygon, dtype=np.float64)
        if corners.ndim != 2 or corners.shape[1] != 2 or not 3 <= len(corners) <= MOST_CORNERS:
            raise ValueError(f"A lasso has 3 to {MOST_CORNERS:,} corners (x, y); got shape {corners.shape}.")
        if not np.isfinite(corners).all():
            raise ValueError("A lasso's corners are finite numbers.")
        # Only the points at the polygon's height can lie inside.
        first = int(np.searchsorted(self._y, corners[:, 1].min(), "left"))
        last = int(np.searchsorted(self._y, corners[:, 1].max(), "right"))
        odd = np.zeros(last - first, dtype=bool)
        for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            if y0 == y1:
                continue
            if y0 > y1:
                x0, y0, x1, y1 = x1, y1, x0, y0
            a, b = (int(v) for v in np.searchsorted(self._y, [y0, y1], "left"))
            crossing = x0 + (self._y[a:b] - y0) * ((x1 - x0) / (y1 - y0))
            odd[a - first : b - first] ^= self._x[a:b] < crossing
        return np.sort(self._order[first:last][odd])
