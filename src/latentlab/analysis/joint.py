"""The masks of several stages at once: the damage they do together, and pruning until no unit of any stage can go.

Internal to this package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.certifying import Outcome
from latentlab.analysis.gates import Gated
from latentlab.analysis.inference import inference, to_numpy
from latentlab.analysis.path_goals import outcome_of
from latentlab.analysis.resumption import resumed
from latentlab.analysis.subject import Subject, Substitute

Sets = Mapping[str, np.ndarray] | Mapping[str, list[int]]
"""{address: units kept}, one entry a stage."""


def masks_of(sets: Sets, grounds: Mapping[str, tuple[Tensor, Tensor]], rows: int) -> list[Gated]:
    """One mask a stage, the same for all rows.

    Args:
        sets: units kept.
        grounds: {address: states (n, units, …), baseline (1, units, …)}.
        rows: number of rows.
    """
    edits = []
    for name, kept in sets.items():
        state, baseline = grounds[name]
        gates = torch.zeros(rows, state.shape[1], device=state.device)
        gates[:, [int(unit) for unit in kept]] = 1.0
        edits.append(Gated(name, gates=gates, baseline=baseline))
    return edits


class JointDamage:
    """The true relative damage of the masks of all stages at once; none of the last stage's units is damage 1.

    Only what lies behind the first stage is run.

    Args:
        subject: the network.
        inputs: the examples (n, …).
        grounds: {address: states (n, units, …), baseline (1, units, …)}, in running order.
        batch_size: rows run at a time; a row is one example under one choice of masks.
        beat: called between batches; it may raise to cancel.
    """

    def __init__(
        self,
        subject: Subject,
        inputs: Tensor,
        grounds: Mapping[str, tuple[Tensor, Tensor]],
        batch_size: int,
        beat: Callable[[], object] = lambda: None,
    ) -> None:
        self.names = list(grounds)
        self.model, self.inputs, self.grounds = subject.model, inputs, dict(grounds)
        self.batch_size, self.beat = batch_size, beat
        self.outcome: Outcome = outcome_of(resumed(subject, subject.network.stage_name(self.names[0])))[0]
        with inference(self.model):
            whole = outcome_of(subject)[0]
            self.whole = torch.cat([whole(part, ()) for part in inputs.split(batch_size)])
        everything = {name: np.arange(state.shape[1]) for name, (state, _) in self.grounds.items()}
        self.scale = 1.0
        self.scale = float(self.of([{**everything, self.names[-1]: np.array([], dtype=np.int64)}])[0])

    def of(self, choices: Sequence[Sets]) -> np.ndarray:
        """R (choices,) of keeping these units alone."""
        n, device = len(self.inputs), self.inputs.device
        masks = {}
        for name, (state, _) in self.grounds.items():
            masks[name] = torch.zeros(len(choices), state.shape[1], device=device)
            for mask, choice in zip(masks[name], choices, strict=True):
                mask[[int(unit) for unit in choice[name]]] = 1.0
        found = np.zeros(len(choices) * n)
        first = self.names[0]
        with inference(self.model):
            for start in range(0, len(found), self.batch_size):
                rows = torch.arange(start, min(start + self.batch_size, len(found)), device=device)
                gates = [
                    Gated(name, gates=masks[name][rows // n], baseline=self.grounds[name][1])
                    for name in self.names
                ]
                edits = (Substitute(stage=first, state=self.grounds[first][0][rows % n]), *gates)
                off = self.outcome(self.inputs[rows % n], edits) - self.whole[rows % n]
                found[start : start + len(rows)] = to_numpy(off.square().sum(1))
                self.beat()
        return found.reshape(len(choices), n).mean(axis=1) / self.scale

    def pruned(self, sets: Sets, tolerance: float) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The sets without units that can go, and what removing each of the others would lead to.

        Units go one at a time, the one of least damage first, until removing any one of any stage leads beyond the
        tolerance. A stage's last unit stays, and so it may be that it alone could go.

        Args:
            sets: units kept at each stage.
            tolerance: the relative damage allowed.

        Returns:
            {address: units kept}, in their order, and {address: R (kept,) without each of them}.
        """
        kept = {name: [int(unit) for unit in sets[name]] for name in self.names}
        while True:
            units = [(name, unit) for name in self.names for unit in kept[name]]
            damage = self.of([_without(kept, *unit) for unit in units])
            went = False
            for i in np.argsort(damage, kind="stable"):
                if damage[i] > tolerance:
                    break
                name, _ = units[i]
                # What was measured before others went no longer holds.
                if len(kept[name]) > 1 and (not went or self.of([_without(kept, *units[i])])[0] <= tolerance):
                    kept, went = _without(kept, *units[i]), True
            if not went:
                breaks = dict(zip(units, damage, strict=True))
                return (
                    {name: np.asarray(kept[name]) for name in self.names},
                    {name: np.array([breaks[name, unit] for unit in kept[name]]) for name in self.names},
                )


def _without(kept: Mapping[str, list[int]], stage: str, unit: int) -> dict[str, list[int]]:
    return {name: [u for u in units if (name, u) != (stage, unit)] for name, units in kept.items()}
