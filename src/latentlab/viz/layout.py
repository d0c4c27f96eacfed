"""Where the images of a sheet lie: one plan, by which the sheet is drawn and by which others find its cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latentlab.viz import lettering

MARGIN = 10


@dataclass(frozen=True)
class Layout:
    """The places of a sheet's cells, in pixels of its picture.

    Attributes:
        left: of the first column.
        top: of the first row.
        wide: width of a cell.
        high: height of a cell.
        gap: between two cells.
        margin: around what is drawn.
        head: top of the column labels.
        size: width and height of the whole sheet.
    """

    left: int
    top: int
    wide: int
    high: int
    gap: int
    margin: int
    head: int
    size: tuple[int, int]

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """Left and top of a cell."""
        return self.left + column * (self.wide + self.gap), self.top + row * (self.high + self.gap)


def layout(
    rows: int,
    columns: int,
    cell: tuple[int, int],
    *,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    gap: int = 3,
    title: str = "",
) -> Layout:
    """Plans a sheet of rows and columns of cells (width, height), with labels to the left and above."""
    wide, high = cell
    margin = gap if row_labels is None and column_labels is None and not title else MARGIN
    left = margin + (max(lettering.width(t) for t in row_labels) + MARGIN if row_labels else 0)
    head = margin + (lettering.height(title, lettering.LARGE) + 4 if title else 0)
    top = head + (
        max(lettering.height(t, lettering.SMALL) for t in column_labels) + 2 if column_labels else 0
    )
    body = columns * (wide + gap) - gap
    full = max(left + body + margin, margin * 2 + lettering.width(title, lettering.LARGE) if title else 0)
    return Layout(left, top, wide, high, gap, margin, head, (full, top + rows * (high + gap) - gap + margin))


def boxes(plan: Layout, rows: int, columns: int) -> np.ndarray:
    """Left, top, right and bottom of each cell, (rows, columns, 4); right and bottom are just outside."""
    found = np.zeros((rows, columns, 4), int)
    for i in range(rows):
        for j in range(columns):
            x, y = plan.corner(i, j)
            found[i, j] = x, y, x + plan.wide, y + plan.high
    return found
