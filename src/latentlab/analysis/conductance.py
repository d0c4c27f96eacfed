"""Conductance: what each hidden unit of a stage hands on of a change between two images, pixel by pixel.

Symbols: h_u(t) a unit's state on a straight path from z0 to z; x_p a value of what the network gives; conductance of u
to p = integral of (dx_p / dh_u) (dh_u / dt) dt, summed over the unit's map. Over all units of a stage that every route
passes through ("a cut") they add up to x_p(z) - x_p(z0).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.inference import evaluating, named, to_numpy
from latentlab.analysis.meters import meter_of
from latentlab.analysis.paths import Linearised, Nodes, along, nodes_of
from latentlab.analysis.ranking import check_units
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.ways import Way, ends_of, way_of
from latentlab.models.edits import Edit


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Conductance(Result):
    """What each unit of a stage adds to a change between two outputs.

    Attributes:
        contributions: (units, …), signed, in the units of the output: an image (channels, height, width) a unit, the
            numbers of an encoder's codes in prior standard deviations, or one number a unit where a meter was given.
        rest: (…), what the units that were not asked for add together.
        around: (…), what reaches the output on routes around the stage; zeros for a cut.
        strength: mean absolute contribution of each unit, (units,).
        share: share of the change that each unit explains, <contribution, change> / |change|^2, (units,).
        order: positions in ``units`` by strength, the strongest first, (units,).
        units: numbers of the units, (units,).
        start_output: what the network (or the meter) gives at the start, (…).
        end_output: what it gives at the end.
        nodes: places on the path at which derivatives were taken, (m,).
        stage: name of the stage.
        address: its address within the model.
        cut: whether every route passes through the stage, by its graph, else by measurement.
        meter: name of the meter, "" where the whole output is looked at.
        baseline: what the start is: "mean", "black", "grey", "zeros" or "given".
        network: name of the network.

    The certificate holds ``completeness_gap``, the largest difference, over all values, between contributions, rest
    and what goes around taken together and the change; ``gap_share``, the same in ranges of the two outputs, the
    share that was asked for (``gap_allowed``) and whether it is kept to (``complete``);
    ``stage_gap``, the same without what goes around, large where the stage is no cut; ``bypass``, what the output
    at the end misses when only this stage's state is taken from there, 0 for a cut; and ``nodes``.
    """

    contributions: np.ndarray
    rest: np.ndarray
    around: np.ndarray
    strength: np.ndarray
    share: np.ndarray
    order: np.ndarray
    units: np.ndarray
    start_output: np.ndarray
    end_output: np.ndarray
    nodes: np.ndarray
    stage: str
    address: str
    cut: bool
    meter: str
    baseline: str
    network: str


def conductance(
    model: Any,
    stage: str,
    inputs: Any = None,
    baseline: Any = None,
    *,
    network: str = "generator",
    space: str | None = None,
    units: Sequence[int] | int | None = None,
    meter: Any = None,
    steps: int = 32,
    most_steps: int = 1024,
    tolerance: float = 1e-3,
    edits: Sequence[Edit] = (),
    seed: int = 0,
    batch_size: int = 32,
    progress: Callable[[int, int], object] | None = None,
) -> Conductance:
    """Splits the change between two outputs among the units of a stage.

    Panels between nodes are halved where most is missed until the gap keeps to the tolerance or ``most_steps`` is
    reached; the certificate says which.

    Args:
        model: a model, or a staged network itself.
        stage: name or address of the stage.
        inputs: the end of the path, as for ``integrated_gradients``.
        baseline: its start, as there.
        network: name of the model's network.
        space: name of the codes' space that the path is straight in, the model's first one where it is not given.
        units: which units get a contribution of their own; None for all.
        meter: look at one number of the image, a meter or its name, in place of all pixels; one gradient a node then
            serves all units.
        steps: nodes to begin with.
        most_steps: nodes at most, near.
        tolerance: gap to reach, in ranges of the two outputs.
        edits: edits in force along the path.
        seed: decides the code where ``inputs`` is None.
        batch_size: rows run at a time.
        progress: called with (nodes done, nodes in all) while the nodes are chosen, and again while contributions are
            made; it may raise to cancel.

    Raises:
        ValueError: on unknown names or units, a stage without units, or two ends that are the same.

    References:
        How important is a neuron? (Dhamdhere, Sundararajan and Yan, 2018), https://arxiv.org/abs/1805.12233; here
        every pixel is a target, dh/dt is a derivative and no difference between steps, and what goes around the
        stage is measured.
    """
    way = way_of(model, network, space, edits)
    name = way.subject.network.stage_name(stage)
    a, b, start = ends_of(way, inputs, baseline, seed)
    reading = None if meter is None else meter_of(meter)
    if reading is not None and way.from_images:
        raise ValueError(
            f"A meter reads images, and network {way.subject.name!r} gives none; leave meter= out."
        )
    read = (lambda x: x) if reading is None else reading.measure
    with evaluating(model):
        width = way.state(a, name).shape[1]
        numbers = check_units(units, width, f"{way.subject.name}.{name}")
        limits = {"steps": steps, "most_steps": most_steps, "tolerance": tolerance, "batch_size": batch_size}
        # A little less, since the same numbers added up unit by unit round in another way.
        inner = {**limits, "tolerance": 0.99 * tolerance}
        nodes = nodes_of(lambda z: read(way.outcome(z)), a, b, **inner, progress=progress)
        parts = _split(way, name, read, a, b, nodes, numbers, batch_size, progress)
        by_graph, bypass = way.is_cut(name), way.bypass(a, b, name)
    own, rest, around = parts
    change = nodes.end - nodes.start
    gap, through = (own.sum(dim=0) + rest + extra - change for extra in (around, torch.zeros_like(around)))
    flat = own.reshape(len(own), -1)
    strength = to_numpy(flat.abs().mean(dim=1))
    gap_share = float(gap.abs().max()) / max(nodes.span, 1e-6)
    return Conductance(
        contributions=to_numpy(own),
        rest=to_numpy(rest),
        around=to_numpy(around),
        strength=strength,
        share=to_numpy(flat @ change.reshape(-1) / max(float(change.square().sum()), 1e-24)),
        order=np.argsort(-strength, kind="stable"),
        units=numbers,
        start_output=to_numpy(nodes.start),
        end_output=to_numpy(nodes.end),
        nodes=nodes.t,
        stage=name,
        address=way.subject.address(name),
        cut=bypass <= 1e-5 * max(nodes.span, 1e-6) if by_graph is None else by_graph,
        meter="" if reading is None else reading.name,
        baseline=start,
        network=way.subject.name,
        certificate={
            "completeness_gap": float(gap.abs().max()),
            "gap_share": gap_share,
            "gap_allowed": float(tolerance),
            "complete": bool(gap_share <= tolerance),
            "stage_gap": float(through.abs().max()),
            "bypass": bypass,
            "nodes": len(nodes.t),
        },
        provenance=provenance(
            model,
            {"network": way.subject.name, "stage": name, "inputs": b, "baseline": a, "units": units,
             "meter": "" if reading is None else reading.name, "edits": way.edits, **limits, **named(space)},
            seed if inputs is None else None,
        ),
    )  # fmt: skip


def _split(
    way: Way,
    stage: str,
    read: Callable[[Tensor], Tensor],
    a: Tensor,
    b: Tensor,
    nodes: Nodes,
    units: np.ndarray,
    batch_size: int,
    progress: Callable[[int, int], object] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The units' contributions (units, …), that of all other units, and what goes around the stage."""
    shape, device = nodes.end.shape, a.device
    own = torch.zeros(len(units), *shape, dtype=torch.float64, device=device)
    rest, around = torch.zeros_like(own[0]), torch.zeros_like(own[0])
    chosen = torch.as_tensor(units, device=device)
    for k in range(0, len(nodes.t), batch_size):
        rows = along(a, b, nodes.t[k : k + batch_size])
        weights = torch.as_tensor(nodes.weights[k : k + batch_size], device=device)
        state = Linearised(lambda z: way.state(z, stage), rows)
        moved = state.forward((b - a).expand_as(rows))
        onward = Linearised(lambda h, z=rows: read(way.outcome_from(z, stage, h)), state.value)
        others = moved.clone()
        others[:, chosen] = 0.0
        if nodes.end.numel() < len(units):
            flows = _backwards(onward, moved, weights)
            own += flows[chosen].reshape(own.shape)
            rest += (flows.sum(dim=0) - flows[chosen].sum(dim=0)).reshape(shape)
        else:
            for row, unit in enumerate(units.tolist()):
                if bool(moved[:, unit].any()):
                    alone = torch.zeros_like(moved)
                    alone[:, unit] = moved[:, unit]
                    own[row] += torch.tensordot(weights, onward.forward(alone).double(), dims=1)
            if bool(others.any()):
                rest += torch.tensordot(weights, onward.forward(others).double(), dims=1)
        beside = Linearised(lambda z, h=state.value: read(way.outcome_from(z, stage, h)), rows)
        around += torch.tensordot(weights, beside.forward((b - a).expand_as(rows)).double(), dims=1)
        if progress is not None:
            progress(k + len(rows), len(nodes.t))
    return own, rest, around


def _backwards(onward: Linearised, moved: Tensor, weights: Tensor) -> Tensor:
    """Contributions (units, outputs) of all units by one gradient an output: less work where outputs are few."""
    outputs = onward.value.reshape(len(onward.value), -1).shape[1]
    columns = []
    for i in range(outputs):
        one = torch.zeros_like(onward.value)
        one.view(len(one), -1)[:, i] = 1.0
        flow = (onward.backward(one) * moved).double().reshape(*moved.shape[:2], -1).sum(dim=2)
        columns.append(torch.tensordot(weights, flow, dims=1))
    return torch.stack(columns, dim=1)
