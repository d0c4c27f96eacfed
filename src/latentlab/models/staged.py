"""StagedNetwork: a network as named stages, run by a pure loop.

No hooks and no state between calls, so one network serves many threads at once. A stage is addressed
"generator.block2", a unit of it "generator.block2:17".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentlab.models.edits import Edit

INPUT = "input"


@dataclass(frozen=True)
class StageInfo:
    """One stage as it is shown: its address, what it is, the shape of its state and its size.

    Attributes:
        name: name within the network ("block2").
        address: name within the model ("generator.block2").
        kind: the modules it is made of, such as "Conv2d + ReLU".
        shape: shape of its state without the batch, (units,) or (units, height, width).
        parameters: number of trainable and fixed parameters.
        inputs: the stages it reads, "input" for the network's own input.
    """

    name: str
    address: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    inputs: tuple[str, ...]


class Addressed(nn.Module):
    """What every network of named stages shares: how its stages are addressed. ``run`` is its subclass's."""

    name: str
    names: tuple[str, ...]

    @property
    def addresses(self) -> tuple[str, ...]:
        """The stages' names within the model, such as "generator.block2"."""
        return tuple(f"{self.name}.{stage}" for stage in self.names)

    def stage_name(self, address: str) -> str:
        """A stage's own name, from it or from its address.

        Raises:
            ValueError: if there is no such stage, the message lists the valid ones; or if one stage's name is
                another's address.
        """
        inside = address.removeprefix(self.name + ".")
        found = [stage for stage in dict.fromkeys((address, inside)) if stage in self.names]
        if not found:
            raise ValueError(
                f"No stage {address!r} in network {self.name!r}; it has {', '.join(self.addresses)}."
            )
        if len(found) > 1:
            raise ValueError(
                f"{address!r} is the name of one stage of network {self.name!r} and the address of another; "
                f"say '{self.name}.{address}' for the first, {inside!r} for the second."
            )
        return found[0]

    def edits_by_stage(self, edits: Iterable[Edit]) -> dict[str, list[Edit]]:
        """This network's edits by the name of their stage; an edit always gives an address.

        Raises:
            ValueError: if there is no such stage.
        """
        mine: dict[str, list[Edit]] = {}
        for edit in edits:
            if edit.network == self.name:
                inside = edit.stage.removeprefix(self.name + ".")
                stage = inside if inside in self.names else self.stage_name(edit.stage)
                mine.setdefault(stage, []).append(edit)
        return mine

    def forward(self, h):
        """Runs all stages on the input ``h``; equal to ``run(h)``."""
        return self.run(h)

    def run(self, h, edits: Iterable[Edit] = (), start: str | None = None, stop: str | None = None):
        """Runs the network; each kind of network has its own way."""
        raise TypeError(f"{type(self).__name__} defines no run.")


class StagedNetwork(Addressed):
    """Named stages in topological order: a chain, or a small directed acyclic graph.

    Args:
        stages: {name: module} in running order. A module receives the states of its inputs as arguments; where
            it begins with an in-place layer, copies of them.
        name: name of the network within its model ("generator", "encoder", "discriminator").
        inputs: {stage: names of the stages it reads}, "input" for the network's input; a stage that is not
            named reads the one before it.

    Raises:
        ValueError: on names with dots or an input that does not come earlier.
    """

    def __init__(
        self,
        stages: Mapping[str, nn.Module],
        name: str = "generator",
        inputs: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        if not stages:
            raise ValueError(f"Network {name!r} needs at least one stage; got none.")
        if dotted := [stage for stage in stages if "." in stage or not stage]:
            raise ValueError(f"A stage's name can't hold a dot or be empty; got {dotted[0]!r}.")
        self.name = name
        self.stages = nn.ModuleDict(stages)
        self.names: tuple[str, ...] = tuple(stages)
        self.inputs: dict[str, tuple[str, ...]] = {}
        previous, seen = INPUT, {INPUT}
        for stage in self.names:
            reads = tuple((inputs or {}).get(stage, (previous,)))
            if stage == INPUT or not set(reads) <= seen:
                raise ValueError(
                    f"Stage {stage!r} reads {reads}, which must all come before it: {sorted(seen)}."
                )
            self.inputs[stage] = reads
            seen.add(stage)
            previous = stage
        # These would write into the state before them, which may be wanted, read again or somebody else's.
        self._in_place = frozenset(name for name in self.names if writes_input(self.stages[name]))

    def run(self, h, edits: Iterable[Edit] = (), start: str | None = None, stop: str | None = None):
        """Runs the network, or a part of it, with edits.

        Args:
            h: the network's input (batch, …); with ``start``, the state *after* that stage.
            edits: edits of any network; those of other networks are passed over, the order is kept.
            start: resume behind this stage. Everything behind it must depend on it alone.
            stop: return the state after this stage instead of the output.

        Returns:
            The state of the last stage that ran.

        Raises:
            ValueError: on unknown stages or units, a ``start`` that a skip connection goes around, or edits
                that a run from ``start`` would not meet.
        """
        last = self.names[-1] if stop is None else self.stage_name(stop)
        return self._states(h, edits, {last}, None if start is None else self.stage_name(start))[last]

    def activations(
        self, h, names: Iterable[str] | None = None, edits: Iterable[Edit] = ()
    ) -> dict[str, Tensor]:
        """The states of the named stages (all by default), after the edits.

        Args:
            h: the network's input (batch, …).
            names: stages by name or address.
            edits: as in ``run``.

        Returns:
            {stage name: state (batch, units) or (batch, units, height, width)}, in running order.
        """
        wanted = set(self.names if names is None else (self.stage_name(n) for n in names))
        states = self._states(h, edits, wanted)
        return {name: states[name] for name in self.names if name in wanted}

    def _states(self, h, edits: Iterable[Edit], wanted: set[str], start: str | None = None) -> dict:
        mine = self.edits_by_stage(edits)
        if start is not None and any(e.operation == "replace" for es in mine.values() for e in es):
            raise ValueError("An edit that replaces by another sample needs the whole network; drop start=.")
        states = {INPUT: h} if start is None else {start: h}
        for stage, its_edits in mine.items():
            if start is not None and self.names.index(stage) <= self.names.index(start):
                raise ValueError(
                    f"The edit of {its_edits[0].stage!r} has no effect on a run that starts behind {start!r}; "
                    "drop the edit, or start=."
                )
        end = max(self.names.index(name) for name in wanted)
        begin = 0 if start is None else self.names.index(start) + 1
        if begin > end + 1:
            raise ValueError(f"Nothing to run: stage {start!r} comes after {self.names[end]!r}.")
        for name in self.names[begin : end + 1]:
            missing = [r for r in self.inputs[name] if r not in states]
            if missing:
                raise ValueError(f"Can't resume behind {start!r}: stage {name!r} also reads {missing[0]!r}.")
            given = (_copy(states[r]) if name in self._in_place else states[r] for r in self.inputs[name])
            state = self.stages[name](*given)
            for edit in mine.get(name, ()):
                other = self._source_state(edit, h, name) if edit.operation == "replace" else None
                state = edit.apply(state, other)
            states[name] = state
            # What nobody reads any more is let go: at 128 pixels a stage can be half a gigabyte.
            later = self.names[self.names.index(name) + 1 : end + 1]
            for read in self.inputs[name]:
                if read not in wanted and not any(read in self.inputs[n] for n in later):
                    states.pop(read, None)
        return states

    def kinds(self) -> dict[str, str]:
        """What each stage is made of, {stage: "Conv2d + ReLU"}."""
        return {name: _kind(self.stages[name]) for name in self.names}

    def _source_state(self, edit: Edit, h: Tensor, stage: str) -> Tensor:
        """The state that an edit's other sample has at a stage, batch of 1."""
        source, size = edit.source or (), h[0].numel()
        if len(source) != size:
            raise ValueError(
                f"The source of an edit in {self.name!r} needs {size} numbers; got {len(source)}."
            )
        sample = torch.tensor(source, dtype=h.dtype, device=h.device).view(1, *h.shape[1:])
        return self._states(sample, (), {stage})[stage]

    def describe(self, h) -> list[StageInfo]:
        """What each stage is and does, measured by running the input ``h`` (batch, …) through."""
        with torch.no_grad():
            states = self._states(h, (), set(self.names))
        return [
            StageInfo(
                name=name,
                address=f"{self.name}.{name}",
                kind=_kind(self.stages[name]),
                shape=tuple(states[name].shape[1:]) if isinstance(states[name], Tensor) else (),
                parameters=sum(p.numel() for p in self.stages[name].parameters()),
                inputs=self.inputs[name],
            )
            for name in self.names
        ]


def _copy(state):
    if isinstance(state, tuple):
        parts = [_copy(part) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    return state.clone() if isinstance(state, Tensor) else state


def writes_input(module: nn.Module) -> bool:
    """Whether a module may write into what it is given: an in-place layer comes before any that has weights."""
    children = list(module.children())
    if not children:
        return bool(getattr(module, "inplace", False))
    if not isinstance(module, nn.Sequential):  # its order is its own
        return any(getattr(leaf, "inplace", False) for leaf in module.modules())
    for child in children:
        if writes_input(child):
            return True
        if any(True for _ in child.parameters()):  # what has weights gives a new tensor; a view does not
            return False
    return False


def _kind(module: nn.Module) -> str:
    leaves = [m for m in module.modules() if not list(m.children())]
    names: list[str] = []
    for leaf in leaves:
        name = type(leaf).__name__
        if not names or names[-1] != name:
            names.append(name)
    return " + ".join(names[:6]) + (" + …" if len(names) > 6 else "")
