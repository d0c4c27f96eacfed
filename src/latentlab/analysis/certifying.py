"""Sets of units judged by true masked runs: the damage a mask does, and the smallest set that stays below a limit.

Relative damage of gates m: ``R(m) = E d(f(m), f(1)) / E d(f(0), f(1))``, d the squared distance between outcomes and
f(m) the network's outcome with the gates in place; 0 with all units, 1 with none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.flow import directional_derivative
from latentlab.analysis.gates import Gated
from latentlab.analysis.inference import inference, to_numpy
from latentlab.analysis.subject import Substitute
from latentlab.models.edits import Edit

Outcome = Callable[[Tensor, Sequence[Edit]], Tensor]
"""From a network's inputs (n, …) and edits to what is to be kept, (n, numbers)."""
PAIRS_UP_TO = 16
"""Sets of more units are not searched for pairs that can go together."""
SWAPS_UP_TO = 256
"""Where there are more ways to take two units out and one in, none is tried."""


class Damage:
    """The true relative damage of gates at one stage, over a set of examples.

    Args:
        model: what is put in eval mode while it runs.
        outcome: what is to be kept.
        inputs: the examples (n, …).
        stage: the stage's address.
        state: its state for the examples (n, units, …).
        baseline: what a shut gate puts in place (1, units, …).
        batch_size: rows run at a time.
        beat: called between batches; it may raise to cancel.

    Raises:
        ValueError: if shutting all gates changes nothing, so that there is nothing to keep.
    """

    def __init__(
        self,
        model: Any,
        outcome: Outcome,
        inputs: Tensor,
        stage: str,
        state: Tensor,
        baseline: Tensor,
        batch_size: int,
        beat: Callable[[], object] = lambda: None,
    ) -> None:
        self.beat = beat
        self.model, self.outcome, self.inputs, self.stage = model, outcome, inputs, stage
        self.state, self.baseline, self.batch_size = state, baseline, batch_size
        self.units = state.shape[1]
        apart = (
            (state - baseline).abs().flatten(2) if state.ndim > 2 else (state - baseline).abs()[:, :, None]
        )
        largest = to_numpy(apart.amax((0, 2)))
        self.active = np.nonzero(largest > 1e-6 * max(float(largest.max()), 1e-30))[0]
        with inference(model):
            # Batch by batch: the sum over rows is all that the numbers below need of f(0).
            self.whole = torch.cat([outcome(part, ()) for part in inputs.split(batch_size)])
        # Not an inference tensor, since training the gates computes with it.
        self.whole = self.whole.clone()
        self.scale = 1.0
        self.scale = float(self._distances(torch.zeros(1, self.units)).mean())
        if not self.scale > 0:
            raise ValueError(
                f"Setting all units of {stage!r} to the baseline changes nothing of what is to be kept, so there is "
                "nothing to find a path for; take a stage that the output depends on, or another baseline."
            )

    def _gated(self, gates: Tensor, rows: Any) -> tuple[Edit, ...]:
        """Gates (m, units) on the states of these examples, which are known: nothing before the stage need run."""
        state = self.state[rows]
        return (
            Substitute(stage=self.stage, state=state.expand(len(gates), *state.shape[1:])),
            Gated(self.stage, gates=gates, baseline=self.baseline),
        )

    def _distances(self, masks: Tensor) -> np.ndarray:
        """Squared distances (masks, n), relative to those of no units."""
        n, masks = len(self.inputs), masks.to(self.inputs.device, torch.float32)
        found = np.zeros(len(masks) * n)
        with inference(self.model):
            for start in range(0, len(found), self.batch_size):
                rows = torch.arange(start, min(start + self.batch_size, len(found)), device=masks.device)
                gated = self._gated(masks[rows // n], rows % n)
                off = self.outcome(self.inputs[rows % n], gated) - self.whole[rows % n]
                found[start : start + len(rows)] = to_numpy(off.square().sum(1))
                self.beat()
        return found.reshape(len(masks), n) / self.scale

    def of_gates(self, masks: np.ndarray) -> np.ndarray:
        """Relative damage (masks,) of gates (masks, units) in [0, 1]."""
        return self._distances(torch.as_tensor(np.atleast_2d(masks))).mean(axis=1)

    def of_sets(self, sets: Sequence[Any]) -> np.ndarray:
        """Relative damage (sets,) of keeping only these units, each set a row of unit numbers."""
        masks = np.zeros((len(sets), self.units), dtype=np.float32)
        for mask, units in zip(masks, sets, strict=True):
            mask[list(units)] = 1.0
        return self.of_gates(masks)

    def of_rows(self, gates: Tensor, chosen: Tensor) -> Tensor:
        """Mean relative damage of row i of the gates (rows, active units) on example ``chosen[i]``, differentiable."""
        full = torch.zeros(len(gates), self.units, device=gates.device)
        full = full.index_copy(1, torch.as_tensor(self.active, device=gates.device), gates)
        off = self.outcome(self.inputs[chosen], self._gated(full, chosen)) - self.whole[chosen]
        return off.square().sum(1).mean() / self.scale

    def together(self, kind: str, each: Callable[[], object] | None = None) -> np.ndarray:
        """Q (active, active), relative: E<u_c, u_d> of what single units contribute to the outcome.

        Args:
            kind: "differences" for u_c = f(1) - f(1 - e_c), exact for one unit; "taylor" for the derivative of f along
                e_c at 1.
            each: called behind each example.
        """
        units = len(self.active)
        q = np.zeros((units, units))
        one_off = torch.ones(units, self.units, device=self.inputs.device)
        one_off[torch.arange(units), torch.as_tensor(self.active)] = 0.0
        for i in range(len(self.inputs)):
            x, parts = self.inputs[i : i + 1], []
            for gates in one_off.split(self.batch_size):
                many = x.expand(len(gates), *x.shape[1:])

                def outcome(m: Tensor, many: Tensor = many, i: int = i) -> Tensor:
                    return self.outcome(many, self._gated(m, slice(i, i + 1)))

                if kind == "taylor":
                    parts.append(directional_derivative(outcome, torch.ones_like(gates), 1.0 - gates))
                else:
                    with inference(self.model):
                        parts.append(self.whole[i] - outcome(gates))
            u = torch.cat(parts)
            q += to_numpy(u @ u.T)
            if each is not None:
                each()
        return q / (len(self.inputs) * self.scale)

    def gradient_strength(self) -> np.ndarray:
        """E|(h - b) dsum(f)/dh| of each unit (units,): the usual saliency of a unit, summed over its positions."""
        total = np.zeros(self.units)
        for start in range(0, len(self.inputs), self.batch_size):
            rows = slice(start, start + self.batch_size)
            part = self.inputs[rows]
            with torch.enable_grad():
                m = torch.ones(len(part), self.units, device=part.device, requires_grad=True)
                value = self.outcome(part, self._gated(m, rows)).sum()
                if not value.requires_grad:  # an outcome that stops gradients, such as a quantised code
                    continue
                (slope,) = torch.autograd.grad(value, [m], allow_unused=True, materialize_grads=True)
            total += to_numpy(slope.abs().sum(0))
        return total / len(self.inputs)


def smallest_prefix(damage: Damage, order: np.ndarray, limit: float) -> int:
    """The smallest number of leading units of an order whose true damage is at most the limit, by bisection."""
    low, high = 0, len(order)
    while high - low > 1:
        middle = (low + high) // 2
        if damage.of_sets([order[:middle]])[0] <= limit:
            high = middle
        else:
            low = middle
    return high


def minimal_set(
    damage: Damage, order: np.ndarray, limit: float, step: Callable[[], object] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The leading units of an order that stay below the limit, pruned until none can be removed.

    Of few units no two can be removed together either: units that cancel one another only go in pairs. Nor can two of
    few be replaced by one that was left out, or one by another with less damage: an order can mislead.

    Args:
        damage: judges every set by true masked runs.
        order: units, the most important one first; all of them together must stay below the limit.
        limit: the relative damage allowed.
        step: called between runs; it may raise to cancel.

    Returns:
        The units kept, in their order, and the damage (kept,) that removing each of them alone would lead to, all of it
        above the limit: the set is 1-minimal.
    """
    kept = list(order[: smallest_prefix(damage, order, limit)])
    candidates = list(kept)
    while True:
        if step is not None:
            step()
        without = damage.of_sets([[u for u in kept if u != c] for c in candidates])
        removable = [candidates[i] for i in np.argsort(without, kind="stable") if without[i] <= limit]
        if not removable:
            if len(candidates) == len(kept):
                if (pair := _removable_pair(damage, kept, limit)) is not None:
                    candidates = kept = [u for u in kept if u not in pair]
                    continue
                if (better := _swapped(damage, kept, order, limit)) is not None:
                    candidates = kept = better
                    continue
                breaks = dict(zip(candidates, without, strict=True))
                return np.asarray(kept), np.array([breaks[u] for u in kept])
            candidates = list(kept)
            continue
        # One at a time finds smaller sets; of many units several go at once, or it would take too long.
        several = 1 if len(kept) <= 24 else len(removable)
        while several > 1 and damage.of_sets([[u for u in kept if u not in removable[:several]]])[0] > limit:
            several //= 2
        kept = [u for u in kept if u not in removable[:several]]
        candidates = removable[several:] or list(kept)


def _removable_pair(damage: Damage, kept: Sequence[int], limit: float) -> tuple[int, int] | None:
    if not 3 <= len(kept) <= PAIRS_UP_TO:
        return None
    pairs = list(combinations(kept, 2))
    without = damage.of_sets([[u for u in kept if u not in pair] for pair in pairs])
    return pairs[int(np.argmin(without))] if without.min() <= limit else None


def _swapped(damage: Damage, kept: Sequence[int], order: np.ndarray, limit: float) -> list[int] | None:
    """The set with two units replaced by one, below the limit; else with one by another at clearly less damage."""
    outside = [u for u in order.tolist() if u not in set(kept)]
    pairs = list(combinations(kept, 2))
    if not 0 < len(pairs) * len(outside) <= SWAPS_UP_TO:
        return None

    def tried(out: Sequence[Sequence[int]]) -> tuple[list[int], float]:
        sets = [{*kept, u} - {*gone} for gone in out for u in outside]
        found = damage.of_sets(sets)
        best = int(np.argmin(found))
        return [u for u in order.tolist() if u in sets[best]], float(found[best])

    fewer, off = tried(pairs)
    if off <= limit:
        return fewer
    as_many, off = tried([(u,) for u in kept])
    return as_many if off < 0.999 * float(damage.of_sets([kept])[0]) else None
