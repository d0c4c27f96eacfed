"""Gates on the units of a stage, and the two ways to choose them: a quadratic programme and training.

A gate m in [0, 1] mixes a unit's activation h with a baseline b, ``b + m (h - b)``: 1 leaves the unit as it is, 0
puts the baseline in its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from latentlab.models.edits import Edit

TEMPERATURE, STRETCH = 2 / 3, (-0.1, 1.1)
"""Of the hard-concrete distribution, as in its paper."""


@dataclass(frozen=True)
class Gated(Edit):
    """Puts gates on all units of a stage, others in each row: many masks in one run; gradients reach them."""

    gates: Tensor = field(default_factory=lambda: torch.empty(0), compare=False)
    baseline: Tensor = field(default_factory=lambda: torch.zeros(1), compare=False)

    def apply(self, h: Tensor, other: Tensor | None = None) -> Tensor:
        """``b + m (h - b)`` for states (rows, units, …), gates (rows, units), a baseline (1, units, …)."""
        m = self.gates.reshape(*self.gates.shape, *[1] * (h.ndim - 2)).to(h)
        return torch.lerp(self.baseline.to(h).expand_as(h), h, m.expand_as(h))


def quadratic_gates(
    damage: np.ndarray, budget: float, step_done: Callable[[], object] | None = None
) -> tuple[np.ndarray, float]:
    """The gates that drop most within a budget of predicted damage.

    With delta = 1 - m it minimises ``delta' Q delta - lambda sum(delta)`` over the box [0, 1], and bisects lambda until
    the predicted damage ``delta' Q delta`` is the budget.

    Args:
        damage: Q (units, units), positive semidefinite: the damage that dropping two units does together.
        budget: the damage allowed, in the units of Q.
        step_done: called behind each weight that was tried; it may raise to cancel.

    Returns:
        Gates m (units,), and the predicted damage.
    """
    q = np.asarray(damage, dtype=np.float64)
    units = len(q)
    scale = max(float(np.abs(q).max(initial=0.0)), 1e-300)

    def solve(weight: float, start: np.ndarray) -> np.ndarray:
        found = minimize(
            lambda d: (d @ q @ d / weight - d.sum(), 2 * (q @ d) / weight - 1.0),
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=[(0.0, 1.0)] * units,
            options={"maxiter": 2000, "maxfun": 4000, "ftol": 1e-13, "gtol": 1e-9},
        )
        return found.x

    everything = np.ones(units)
    if everything @ q @ everything <= budget:
        return np.zeros(units), float(everything @ q @ everything)
    low, high = math.log(scale) - 25.0, math.log(2 * float(np.abs(q).sum(axis=1).max()) + scale)
    delta = best = np.zeros(units)
    for _ in range(30):
        middle = (low + high) / 2
        delta = solve(math.exp(middle), delta)
        if delta @ q @ delta <= budget:
            low, best = middle, delta
        else:
            high = middle
        if step_done is not None:
            step_done()
    return 1.0 - best, float(best @ q @ best)


def hard_concrete(log_alpha: Tensor, uniform: Tensor | None = None) -> Tensor:
    """Gates in [0, 1] of a hard-concrete distribution: a draw, or its middle where no noise is given.

    Args:
        log_alpha: location (units,).
        uniform: noise in (0, 1), (rows, units).

    References:
        Learning Sparse Neural Networks through L0 Regularization (Louizos, Welling and Kingma, 2018).
    """
    if uniform is None:
        soft = torch.sigmoid(log_alpha)
    else:
        soft = torch.sigmoid((torch.logit(uniform) + log_alpha) / TEMPERATURE)
    low, high = STRETCH
    return (soft * (high - low) + low).clamp(0.0, 1.0)


def open_probability(log_alpha: Tensor) -> Tensor:
    """How likely each gate is not shut; their sum is the expected number of units kept."""
    low, high = STRETCH
    return torch.sigmoid(log_alpha - TEMPERATURE * math.log(-low / high))


def trained_gates(
    damage: Callable[[Tensor, Tensor], Tensor],
    units: int,
    examples: int,
    budget: float,
    *,
    seed: int,
    device: torch.device,
    steps: int = 120,
    rows: int = 8,
    rate: float = 0.15,
    penalty: float = 1.0,
    step_done: Callable[[], object] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Trains hard-concrete gates on ``damage / budget + penalty x expected share of open gates``.

    The noise is drawn from a generator of its own: the reason why no ready-made layer is used, which would draw from
    the global one, shared by all threads.

    Args:
        damage: gates (rows, units) and the numbers of the examples (rows,) to the mean relative damage.
        units: number of gates.
        examples: number of examples.
        budget: the damage allowed.
        seed: decides examples and noise.
        device: where the gates live.
        steps: steps of Adam.
        rows: examples a step, each with its own draw.
        rate: step size.
        penalty: weight of the expected share of open gates.
        step_done: called behind each step.

    Returns:
        The gates' middles in [0, 1] (units,), and their locations ``log_alpha`` (units,), which tell apart also those
        that are fully open or shut.
    """
    chance = torch.Generator().manual_seed(seed)
    log_alpha = torch.full((units,), 2.0, device=device, requires_grad=True)
    mean, square = torch.zeros(2, units, device=device)
    for step in range(1, steps + 1):
        chosen = torch.randperm(examples, generator=chance)[:rows]
        noise = torch.rand(len(chosen), units, generator=chance).clamp(1e-6, 1 - 1e-6).to(device)
        with torch.enable_grad():
            gates = hard_concrete(log_alpha, noise)
            loss = damage(gates, chosen.to(device)) / budget + penalty * open_probability(log_alpha).mean()
            (slope,) = torch.autograd.grad(loss, [log_alpha])
        # Adam, written out: torch.optim loads the compiler at its first step, which takes seconds.
        with torch.no_grad():
            mean.lerp_(slope, 0.1)
            square.lerp_(slope.square(), 0.001)
            scale = (square / (1 - 0.999**step)).sqrt() + 1e-8
            log_alpha -= rate * (mean / (1 - 0.9**step)) / scale
        if step_done is not None:
            step_done()
    found = log_alpha.detach()
    return hard_concrete(found).cpu().numpy(), found.cpu().numpy()
