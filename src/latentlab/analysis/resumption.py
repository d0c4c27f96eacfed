"""Running only what lies behind a stage, where that gives the same as the whole network with the stage's state put in.

Internal to this package. The model's own way from the network's output to its image is kept: a shallow copy of the
model holds, in the network's place, the part of it behind the stage. The model itself is not touched.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from latentlab.analysis.subject import Subject, Substitute
from latentlab.models.edits import Edit
from latentlab.models.staged import Addressed, StagedNetwork


class Behind(Addressed):
    """A staged network that, given a state of one stage by a ``Substitute``, runs only what comes behind it."""

    def __init__(self, network: StagedNetwork, stage: str) -> None:
        super().__init__()
        self.network = network
        self.name, self.names = network.name, network.names
        self.stage = stage

    def run(self, h: Any, edits: Iterable[Edit] = (), start: str | None = None, stop: str | None = None):
        """As ``StagedNetwork.run``; ``h`` is not read where the stage's state is given."""
        edits = tuple(edits)
        mine = self.network.edits_by_stage(edits)
        first, at = next(iter(mine.get(self.stage, ())), None), mine.get(self.stage, [])[1:]
        whole = start is not None or stop is not None
        whole = whole or any(e.operation == "replace" for es in mine.values() for e in es)
        if whole or not isinstance(first, Substitute):
            return self.network.run(h, edits, start, stop)
        state = first.state
        for edit in at:
            state = edit.apply(state)
        at_stage = self.names.index(self.stage)
        for i in range(at_stage, len(self.names)):
            later = [e for name, es in mine.items() if self.names.index(name) > i for e in es]
            if state.ndim == 4 or i + 1 == len(self.names) or not is_gate(self.network, self.names[i + 1]):
                break
            state = self.network.run(state, later, start=self.names[i], stop=self.names[i + 1])
        if state.ndim == 4 and state.device.type == "cpu":
            # Convolutions of a few channels run twice as fast on a CPU when a place's channels lie together.
            state = state.contiguous(memory_format=torch.channels_last)
        return self.network.run(state, later, start=self.names[i])

    def activations(self, h: Any, names: Iterable[str] | None = None, edits: Iterable[Edit] = ()):
        """Those of the whole network."""
        return self.network.activations(h, names, edits)


def is_gate(network: Any, stage: str) -> bool:
    """Whether all that comes behind a stage of a network depends on the stage's state alone."""
    if not isinstance(network, StagedNetwork) or type(network).run is not StagedNetwork.run:
        return False
    at = network.names.index(stage)
    behind = set(network.names[at + 1 :])
    return all(set(network.inputs[name]) <= behind | {stage} for name in behind)


def resumed(subject: Subject, stage: str) -> Subject:
    """The subject whose ``output_from`` at this stage runs nothing before it; itself where that can't be done.

    Args:
        subject: a model's network, or a network alone.
        stage: name of the stage.
    """
    network = subject.network
    if not is_gate(network, stage):
        return subject
    part = Behind(network, stage).eval()
    if not subject.whole:
        return Subject(part, part, subject.name)
    return Subject(_with(subject.model, network, part), part, subject.name)


def edits_behind(network: Any, stage: str, edits: Sequence[Edit]) -> tuple[Edit, ...]:
    """The edits that a run from a stage's edited state still meets: those behind it, and those of other networks."""
    order = network.names.index
    mine = network.edits_by_stage(edits)
    met = {id(e) for name, es in mine.items() if order(name) <= order(stage) for e in es}
    return tuple(edit for edit in edits if id(edit) not in met)


def look_from(
    subject: Subject, h: Tensor, stage: str, state: Tensor, edits: Sequence[Edit] = ()
) -> tuple[Tensor | None, Tensor]:
    """As ``Subject.look`` for inputs (n, …), with a stage's state put in place of its own."""
    return subject.look(h, (Substitute(stage=subject.address(stage), state=state), *edits))


def units_off(state: Tensor, rows: Tensor, units: Tensor, to: Tensor | None = None) -> Tensor:
    """States ``state[rows]`` with one unit each at 0, or at what ``to`` (units, …) holds for it."""
    picked = state[rows].clone()
    picked[torch.arange(len(picked), device=picked.device), units] = 0.0 if to is None else to[units]
    return picked


def _with(module: nn.Module, network: nn.Module, part: nn.Module) -> nn.Module:
    """A shallow copy of a model, sharing all weights, with a part of a network in the network's place."""
    twin = copy.copy(module)
    children = {}
    for name, child in module._modules.items():
        if child is network:
            children[name] = part
        elif isinstance(child, nn.ModuleDict) and any(c is network for c in child.values()):
            children[name] = _with(child, network, part)
        else:
            children[name] = child
    twin.__dict__["_modules"] = children
    return twin
