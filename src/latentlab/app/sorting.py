"""Sorting: in which order the sliders stand: by what they carry, by the factor they know, or by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from latentlab.app import controls, state

if TYPE_CHECKING:
    from latentlab.app.components import Axis
    from latentlab.app.pull import Pull
    from latentlab.runs import Run

KL, RANGE, FACTOR, NAME = "KL", "Range", "Factor", "Name"
SORT_HELP = {
    KL: "**KL**: latents that tell most about an image first.",
    RANGE: "**Range**: coordinates that vary most first.",
    FACTOR: "**Factor**: grouped by the factor of the data that a latent was measured to know most of, in the data's "
    "order of factors; then those that know none.",
    NAME: "**Name**: the model's own order.",
}
REST = "No factor known"


def chosen(run: Run, pull: Pull | None) -> str:
    """The order that a person chose of those that differ here; bound to the address."""
    first = pull is None or pull.space == run.model.latent_space.name
    orders = [NAME]
    if not first:
        orders.insert(0, RANGE)
    else:
        if state.labels(run):
            orders.insert(0, FACTOR)
        if state.encodes(run) and state.dataset_or_reason(run)[0] is not None:
            orders.insert(0, KL)
    if len(orders) < 2:
        return orders[0]
    meaning = " ".join(SORT_HELP[order] for order in orders)
    return controls.choice("Sort", orders, "sort", meaning)


def arranged(run: Run, pull: Pull | None, axes: Sequence[Axis], order: str) -> list[Axis]:
    """The sliders in an order. Those that are no coordinate of the space, such as directions, stay in front."""
    space = run.model.latent_space if pull is None else run.model.spaces[pull.space]
    front = [axis for axis in axes if axis.index >= space.dim]
    own = [axis for axis in axes if axis.index < space.dim]
    if order == NAME:
        own = sorted(own, key=lambda axis: axis.index)
    elif order == FACTOR:
        own = by_factor(own, state.labels(run), factor_names(run))
    return [*front, *own]


def by_factor(
    axes: Sequence[Axis], labels: dict[str, tuple[str, float]], factors: Sequence[str]
) -> list[Axis]:
    """The sliders grouped by the factor they know most of, in the factors' order; the one that knows most first.

    Args:
        axes: in the order that those without a factor keep.
        labels: {latent or block: (factor, nats)}.
        factors: names in the data set's order; others follow by name.
    """
    places = {
        name: i for i, name in enumerate([*factors, *sorted({f for f, _ in labels.values()} - set(factors))])
    }
    known = [axis for axis in axes if axis.name in labels]
    known.sort(key=lambda axis: (places[labels[axis.name][0]], -labels[axis.name][1]))
    rest = [replace(axis, group=REST) for axis in axes if axis.name not in labels]
    return [*(replace(axis, group=labels[axis.name][0]) for axis in known), *rest]


def factor_names(run: Run) -> list[str]:
    """The factors of the run's data set, in its order; none where it is not at hand."""
    data = state.dataset_or_reason(run)[0]
    return [] if data is None or data.factor_space is None else list(data.factor_space.names)
