"""The path through one stage: its smallest set of units by each selection, with the controls beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from latentlab.analysis.certifying import Damage, minimal_set, smallest_prefix
from latentlab.analysis.gates import quadratic_gates, trained_gates
from latentlab.analysis.inference import to_numpy

_CURVE = 13


@dataclass
class Chosen:
    """The units chosen at one stage; fields as in ``Datapath``.

    Attributes:
        order: active units, the most important one first.
        kind: how the quadratic programme took contributions; "" where only gates were trained.
    """

    kept: np.ndarray
    breaks: np.ndarray
    gates: np.ndarray
    sets: dict[str, np.ndarray]
    selection: str
    order: np.ndarray
    kind: str
    together: np.ndarray | None


@dataclass
class Controls:
    """What a stage's set is held against; fields as in ``Datapath``."""

    distance: float
    predicted: float
    sizes: np.ndarray
    curve: np.ndarray
    curve_by_activation: np.ndarray
    random: np.ndarray
    by_activation: float
    by_gradient: float
    size_by_activation: int
    silent: int


def chosen_units(
    damage: Damage, selections: Sequence[str], limit: float, seed: int, steps: int, ticks: Ticks
) -> Chosen:
    """The smallest set of one stage that stays below the limit."""
    active, found = damage.active, {}
    together, kind = None, ""
    for name in selections:
        if name == "gates":
            middle, rank = trained_gates(
                lambda m, rows: damage.of_rows(m, rows), len(active), len(damage.inputs), limit,
                seed=seed, device=damage.inputs.device, steps=steps, step_done=ticks.beat,
            )  # fmt: skip
            order = active[np.argsort(-rank, kind="stable")]
        else:
            together, kind = damage.together(name, ticks.step), name
            middle, _ = quadratic_gates(together, limit, ticks.beat)
            # Among gates that are equal, the unit that would cost most, were it dropped as well.
            cost = 2 * together @ (1.0 - middle) + np.diagonal(together)
            order = active[np.lexsort((-cost, -middle.round(6)))]
        kept, breaks = minimal_set(damage, order, limit, ticks.beat)
        gates = np.zeros(damage.units)
        gates[active] = middle
        found[name] = kept, breaks, gates, float(damage.of_sets([kept])[0]), order
        for _ in range(4):
            ticks.step()
    best = min(found, key=lambda k: (len(found[k][0]), found[k][3]))
    kept, breaks, gates, _, order = found[best]
    sets = {name: each[0] for name, each in found.items()}
    return Chosen(kept, breaks, gates, sets, best, order, kind, together)


def controls(
    damage: Damage, chosen: Chosen, limit: float, seed: int, n_draws: int, state: Tensor, ticks: Ticks
) -> Controls:
    """The distance of the units chosen, its prediction, and other sets of the same size."""
    active, kept, order = damage.active, chosen.kept, chosen.order
    together = chosen.together
    if chosen.kind and together is None:
        together = damage.together(chosen.kind, ticks.beat)
    dropped = np.isin(active, kept, invert=True).astype(float)
    strength = to_numpy(state.abs().flatten(2).mean((0, 2)) if state.ndim > 2 else state.abs().mean(0))
    loudest = active[np.argsort(-strength[active], kind="stable")]
    steepest = active[np.argsort(-damage.gradient_strength()[active], kind="stable")]
    chance = np.random.default_rng(seed)
    random = damage.of_sets([chance.choice(active, len(kept), replace=False) for _ in range(n_draws)])
    sizes = np.unique(np.linspace(0, len(active), min(_CURVE, len(active) + 1)).round().astype(int))
    distance = float(damage.of_sets([kept])[0])
    return Controls(
        distance=distance,
        predicted=float("nan") if together is None else float(dropped @ together @ dropped),
        sizes=sizes,
        curve=damage.of_sets([order[:k] for k in sizes]),
        curve_by_activation=damage.of_sets([loudest[:k] for k in sizes]),
        random=random,
        by_activation=float(damage.of_sets([loudest[: len(kept)]])[0]),
        by_gradient=float(damage.of_sets([steepest[: len(kept)]])[0]),
        size_by_activation=smallest_prefix(damage, loudest, max(limit, distance)),
        silent=damage.units - len(active),
    )


class Ticks:
    """Progress of a search whose length is only known at its end: it never runs past the total."""

    def __init__(self, progress: Callable[[int, int], object] | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def step(self) -> None:
        """One piece of work is done."""
        self.done = min(self.done + 1, self.total - 1)
        self.beat()

    def beat(self) -> None:
        """Work goes on; the place to cancel."""
        if self.progress is not None:
            self.progress(self.done, self.total)

    def finish(self) -> None:
        """All is done, however much it was."""
        self.done = self.total
        self.beat()
