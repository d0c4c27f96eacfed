"""Attributes: the vector of a factor or between two groups of images, with its proof and what to think of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from latentlab.app import controls, state
from latentlab.app.between import codes_of
from latentlab.app.calls import Call, Made
from latentlab.app.figures import Number, figure
from latentlab.app.mapping import groups as kept_groups

if TYPE_CHECKING:
    from latentlab.analysis.attribute_vector import AttributeVector
    from latentlab.analysis.encoding import Encoding
    from latentlab.runs import Run

HALVES, REST = "upper half, not the lower", "all others"
MOST_OF_GROUP = 500
SURE = 0.05
WEAK = 0.75


@dataclass(frozen=True)
class Sum:
    """What is put together: codes of B and C as arguments, and A where it is not the present code."""

    less: Any
    more: Any
    start: Any = None
    vector: AttributeVector | None = None


def factors_of(encoding: Encoding) -> list[str]:
    """The factors of the data that vary among the encoded images."""
    if encoding.factors is None:
        return []
    return [
        n for n, column in zip(encoding.factor_names, encoding.factors.T, strict=True) if np.ptp(column) > 0
    ]


def of_factor(run: Run, encoding: Encoding, factors: list[str]) -> Sum | None:
    """The vector of a factor: one value against others, or the upper half against the lower."""
    assert encoding.factors is not None
    with st.container(horizontal=True, vertical_alignment="bottom"):
        factor = controls.menu("Factor", factors, 0, "sum-factor", "Which factor of the data.")
        column = encoding.factor_names.index(factor)
        values = [int(v) for v in np.unique(encoding.factors[:, column])]
        names = encoding.categories.get(factor, ())
        words = {names[v] if v < len(names) else str(v): v for v in values}
        halves = [] if names or len(values) < 3 else [HALVES]
        plus = controls.menu("Value added", [*halves, *words], 0 if halves else len(words) - 1, "sum-plus",
                             "Images with this value are what is added.")  # fmt: skip
        minus = REST
        if plus != HALVES:
            others = [word for word in words if word != plus]
            minus = controls.menu("taken away", [REST, *others] if len(others) > 1 else others, 0, "sum-minus",
                                  "Images with this value are what is taken away.")  # fmt: skip
    where = f"encoding.factors[:, {column}]"
    if plus == HALVES:
        expression, name = f"analysis.half_labels({where})", f"{factor}: upper half"
    else:
        against = "" if minus == REST else f", {words[minus]}"
        expression = f"analysis.value_labels({where}, {words[plus]}{against})"
        name = f"{factor} {plus}" + ("" if minus == REST else f", not {minus}")
    codes = codes_of(encoding)
    assert codes is not None
    made = _labels(encoding, column, words.get(plus), words.get(minus))
    labels = Made(expression, lambda: made, codes.before)
    found = _judged(run, codes, labels, name)
    sides = [
        Made(f"encoding.mean[{expression} == {side}]", lambda s=side: encoding.mean[made == s], codes.before)
        for side in (0, 1)
    ]
    return Sum(*sides, vector=found)


def _labels(encoding: Encoding, column: int, plus: int | None, minus: int | None) -> np.ndarray:
    from latentlab import analysis

    assert encoding.factors is not None
    values = encoding.factors[:, column]
    return analysis.half_labels(values) if plus is None else analysis.value_labels(values, plus, minus)


def of_groups(run: Run) -> Sum | None:
    """The vector from one group of images to another."""
    groups = groups_of(run)
    if len(groups) < 2:
        st.info(
            "Keep two groups of images on the Map first: draw around points there, and name what is inside."
        )
        return None
    names = [group.name for group in groups]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        minus = controls.menu("Taken away", names, 0, "sum-group-b", "Its mean code is taken away.")
        plus = controls.menu("added", names, 1, "sum-group-c", "Its mean code is added.")
    if minus == plus:
        st.info("Choose two different groups.")
        return None
    chosen = [next(group for group in groups if group.name == name) for name in (minus, plus)]
    less, more = (group_codes(run, group) for group in chosen)
    counts = [min(len(group.images), MOST_OF_GROUP) for group in chosen]
    codes = Made(
        f"np.concatenate([{less.code}, {more.code}])",
        lambda: np.concatenate([less.make(), more.make()]),
        less.before,
    )
    labels = Made(
        f"np.repeat([0, 1], [{counts[0]}, {counts[1]}])",
        lambda: np.repeat([0, 1], [len(less.make()), len(more.make())]),
    )
    with controls.one_sentence():
        return Sum(
            less, more, vector=_judged(run, codes, labels, f"{minus} to {plus}"[: kept_groups.LONGEST_NAME])
        )
    return Sum(less, more)


def groups_of(run: Run) -> tuple[kept_groups.ImageGroup, ...]:
    """The groups of images that were kept on the Map for this data set, by name."""
    return kept_groups.load_groups(kept_groups.groups_file(state.workspace(), state.data_key(run)))


def group_codes(run: Run, group: kept_groups.ImageGroup) -> Made:
    """The codes of a group's images as an argument; of a large one those of some, drawn by a seed."""
    images = kept_groups.some_of(group, MOST_OF_GROUP)

    def make() -> np.ndarray:
        from latentlab.analysis import encode_dataset

        return state.computed(
            run,
            "group codes",
            (images.tobytes(), state.data_key(run)),
            lambda: encode_dataset(run.model, state.dataset(run), images).mean,
        )

    numbers = ", ".join(str(int(i)) for i in images)
    return Made(
        f"latentlab.encode_dataset(run.model, data, np.array([{numbers}])).mean",
        make,
        ("data = run.dataset()",),
    )


def _judged(run: Run, codes: Made, labels: Made, name: str) -> AttributeVector | None:
    """The vector's picture and what to think of it."""
    found = figure(
        Call(run, "attribute_vector", (codes, labels), {"name": name}, progress=True),
        f"Attribute vector {name}: where held-out codes lie, and its accuracy beside that of shuffled labels",
        {
            "Held-out accuracy": Number(("accuracy",), "{:.2f}"),
            "best of shuffled labels": Number(("certificate", "shuffled_accuracy", 1), "{:.2f}"),
            "d′": Number(("d_prime",), "{:.2f}"),
            "with it": Number(("certificate", "with_it"), "{:.0f}"),
            "without": Number(("certificate", "without_it"), "{:.0f}"),
        },
    )
    if found is not None:
        (st.caption if found.certificate["p_value"] <= SURE else st.warning)(verdict(found))
    return found


def verdict(found: AttributeVector) -> str:
    """What to think of a vector, in one sentence."""
    p, accuracy = float(found.certificate["p_value"]), found.accuracy
    if p > SURE:
        return (
            f"**No better than chance**: shuffled labels do as well (p = {p:.2f}). What this vector changes is not "
            f"{controls.plainly(found.name)}."
        )
    if accuracy < WEAK:
        return (
            f"**Weak**: better than shuffled labels (p = {p:.2f}), but it puts only {100 * accuracy:.0f} % of codes on "
            "their side, so other things change along with it."
        )
    return f"It puts {100 * accuracy:.0f} % of codes that it was not made of on their side (chance 50 %, p = {p:.2f})."
