"""Figures: the answer of a call as a picture, with its numbers, its certificate and the code that makes it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import streamlit as st

from latentlab.app import calls, controls, theme
from latentlab.app.calls import Call, Path

if TYPE_CHECKING:
    from PIL import Image

    from latentlab.app import state
    from latentlab.app.jump import Choose


@dataclass(frozen=True)
class Number:
    """A number that a figure shows.

    Attributes:
        path: where it stands in the result.
        form: how it is written.
        sometimes: it is a number of the certificate that can't be measured in every call.
    """

    path: Path
    form: str = "{:.3g}"
    sometimes: bool = False


def figure(
    call: Call,
    alt: str,
    numbers: Mapping[str, Number],
    *,
    meaning: str = "",
    key: str = "",
    background: bool = True,
    compose: Callable[[Any], Image.Image] | None = None,
    choose: Choose | None = None,
) -> Any:
    """Shows what a call answers: in the background with progress, or at once where it is quick.

    Args:
        call: the call.
        alt: the picture in words.
        numbers: the numbers shown beside it, by what they are called; the code prints them.
        meaning: one line on what they mean.
        key: of its widgets, by default the call's name.
        background: whether it may take more than a moment.
        compose: draws the result for this place; by default it is drawn as everywhere.
        choose: told the code whose image was clicked; None where there is nothing to do with it.

    Returns:
        The result, or None while it is being computed.
    """
    key = key or call.name
    if background:
        found = controls.await_job(call.run, call.name, call.key, call.job())
    else:
        found = call.drawn()
    if found is None:
        return None
    result = found.result
    numbers = measured(result, numbers)
    if numbers:
        controls.figures({name: n.form.format(calls.at(result, n.path)) for name, n in numbers.items()})
    if meaning:
        st.caption(meaning)
    paths = {name: number.path for name, number in numbers.items()}
    with theme.paper():
        composed = None if compose is None else compose(result)
    controls.show_drawn(
        found,
        alt,
        key,
        controls.file_name(call.run.name, call.name),
        call.code(paths, result),
        composed,
        choose,
    )
    return result


def measured(result: Any, numbers: Mapping[str, Number]) -> dict[str, Number]:
    """Those of the numbers that could be measured in this call."""
    return {
        name: number
        for name, number in numbers.items()
        if not number.sometimes or result.certificate.get(number.path[1]) is not None
    }


def numbers_with_code(call: Call, result: Any, numbers: Mapping[str, Number], key: str) -> None:
    """Numbers of a result in one line, with the code that gives them, where there is no picture of its own."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        controls.figures({name: n.form.format(calls.at(result, n.path)) for name, n in numbers.items()})
        with st.popover("Code", help=controls.CODE_HELP, key=f"{key}-code"):
            paths = {name: number.path for name, number in numbers.items()}
            st.code(call.code(paths, result), language="python", wrap_lines=True)


def table_code(
    call: Call, found: Any, lines: Sequence[str], key: str, numbers: Mapping[str, Path] | None = None
) -> None:
    """The code of a table or a sentence, behind a button: ``lines`` print what stands there.

    Args:
        call: the call whose answer it is.
        found: the answer.
        lines: Python that prints rows of ``result``.
        key: of the button.
        numbers: numbers that are told beside the table.
    """
    with st.popover("Code", help=controls.CODE_HELP, key=f"{key}-code"):
        *program, picture = call.code(numbers, found).splitlines()
        st.code("\n".join([*program, *lines, picture]), language="python", wrap_lines=True)


def proof(found: state.Drawn) -> None:
    """The certificate of an answer in words, where its picture is not shown."""
    st.caption(controls.plainly(found.picture.caption))


def bars(values: Mapping[str, float], null: Mapping[str, float] | None, meaning: str) -> None:
    """Named values as bars of the page's own colours, each over a pale one of chance where that is given."""
    import html

    top = max([*values.values(), *(null or {}).values(), 1e-12])
    rows = []
    for name, value in values.items():
        chance = 0.0 if null is None else null[name]
        rows.append(
            f"<dt>{html.escape(str(name))}</dt><dd><i style='width:{100 * value / top:.1f}%'></i>"
            f"<u style='width:{100 * chance / top:.1f}%'></u></dd><dd>{value:.3g}</dd>"
        )
    st.html(f'<dl class="ll-bars">{"".join(rows)}</dl>')
    st.caption(meaning)
