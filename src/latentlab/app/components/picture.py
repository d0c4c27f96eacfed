"""Picture: a drawn result whose images can be chosen, with the pointer or with the keyboard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from latentlab.app.components.mount import nothing, register

_component = register("picture")


@dataclass(frozen=True)
class Cell:
    """One image on a picture.

    Args:
        number: what choosing it gives.
        box: left, top, right and bottom in pixels of the picture.
        words: what it is, such as "z3 0.52".
    """

    number: int
    box: tuple[int, int, int, int]
    words: str


def picture(
    address: str,
    alt: str,
    size: tuple[int, int],
    cells: Sequence[Cell],
    *,
    key: str,
    name: str,
    on_choose: Callable[[int], None],
) -> None:
    """Shows a picture with cells.

    Args:
        address: of the picture.
        alt: the picture in words.
        size: its width and height.
        cells: its images; rows are found by where they lie.
        key: Streamlit's key, unique on the page.
        name: of this very picture: a click that was meant for the one before it is refused.
        on_choose: told the number of the cell that was chosen, before the script runs.
    """
    numbers = {cell.number for cell in cells}

    def chosen() -> None:
        value = _trigger(key)
        if not isinstance(value, Mapping):
            return
        if value.get("picture") != name:
            st.toast("The picture had changed meanwhile; click again.")
            return
        number = value.get("cell")  # whatever a browser sends
        if isinstance(number, int) and not isinstance(number, bool) and number in numbers:
            on_choose(number)

    _component(
        key=key,
        data={
            "address": address,
            "alt": alt,
            "size": list(size),
            "rows": [[[cell.number, *cell.box, cell.words] for cell in row] for row in rows_of(cells)],
            "name": name,
        },
        on_chosen_change=chosen,
        on_state_change=nothing,
    )


def rows_of(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells as rows from top to bottom, each from left to right."""
    rows: dict[int, list[Cell]] = {}
    for cell in cells:
        rows.setdefault(cell.box[1], []).append(cell)
    return [sorted(rows[top], key=lambda cell: cell.box[0]) for top in sorted(rows)]


def _trigger(key: str) -> Any:
    found = st.session_state.get(key)
    return found.get("chosen") if isinstance(found, Mapping) else None
