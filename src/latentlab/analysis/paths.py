"""Straight paths: the derivatives along them, and the nodes at which these add up to the change between the ends.

Symbols: a(t) = a + t (b - a), t from 0 to 1, a path of codes or images. Internal to this package.

Derivatives are taken in reverse mode throughout, twice for a forward product (Jv is the derivative of u -> J'u at v):
forward mode has one global level a process, and the app's threads would meet there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

_NARROWEST = 1e-7
_ORDER = 2  # more nodes a panel see no more of a kink


class Linearised:
    """A function of rows at given rows: its values, and its derivative applied to changes or to weights of outcomes.

    Rows must not meet in the function, as they don't in eval mode: each row then has its own derivative.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], rows: Tensor) -> None:
        with torch.enable_grad():
            self._rows = rows.detach().clone().requires_grad_(True)
            # A copy, since a foreign module's in-place layer may write into what it is given.
            self._value = function(self._rows.clone())
        self.value = self._value.detach()

    def backward(self, weights: Tensor) -> Tensor:
        """J'w: the gradient (n, …) by the rows of the values, weighted by ``weights`` (n, …) and summed."""
        if not self._value.requires_grad:
            return torch.zeros_like(self._rows).detach()
        found = torch.autograd.grad(self._value, self._rows, weights, retain_graph=True, allow_unused=True)[0]
        return torch.zeros_like(self._rows).detach() if found is None else found

    @cached_property
    def _pulled(self) -> tuple[Tensor, Tensor] | None:
        """J'u, with the graph by which it depends on u."""
        if not self._value.requires_grad:
            return None
        with torch.enable_grad():
            weights = torch.zeros_like(self._value).requires_grad_(True)
            found = torch.autograd.grad(
                self._value, self._rows, weights, create_graph=True, allow_unused=True
            )[0]
        return None if found is None or not found.requires_grad else (found, weights)

    def forward(self, change: Tensor) -> Tensor:
        """Jv: the change (n, …) of the values for a change (n, …) of the rows."""
        found = None
        if self._pulled is not None:
            pulled, weights = self._pulled
            found = torch.autograd.grad(pulled, weights, change, retain_graph=True, allow_unused=True)[0]
        return torch.zeros_like(self.value) if found is None else found.detach()


@dataclass(frozen=True)
class Nodes:
    """Where on a path derivatives are taken, and how well they add up there.

    Attributes:
        t: places in (0, 1), (m,).
        weights: of each place, (m,); they sum to 1.
        gap: largest difference, over all values, between the summed derivative along the path and the change.
        span: range of the values that the two outcomes have together.
        start: the outcome at the start, without the batch.
        end: the outcome at the end.
    """

    t: np.ndarray
    weights: np.ndarray
    gap: float
    span: float
    start: Tensor
    end: Tensor


def gauss_legendre(panels: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights (panels, order) of the rule in every panel, given by its ends (panels, 2)."""
    x, w = np.polynomial.legendre.leggauss(order)
    half, middle = (panels[:, 1:] - panels[:, :1]) / 2, panels.mean(axis=1, keepdims=True)
    return middle + half * x, half * w


def nodes_of(
    function: Callable[[Tensor], Tensor],
    a: Tensor,
    b: Tensor,
    *,
    steps: int,
    most_steps: int,
    tolerance: float,
    batch_size: int,
    progress: Callable[[int, int], object] | None = None,
) -> Nodes:
    """Gauss-Legendre nodes at which the derivative along the path adds up to the change, finer where it must be.

    The path is cut into panels of two nodes. What a panel misses is known, since the change over it is, and
    the panels that miss most are halved until all together miss no more than the tolerance in any value: a network
    of ReLUs has kinks that no smooth rule sees.

    Args:
        function: rows to outcomes.
        a: start (1, …).
        b: end (1, …).
        steps: nodes to begin with.
        most_steps: nodes at which to stop halving.
        tolerance: gap at which to stop, in ranges of the values.
        batch_size: rows run at a time.
        progress: called with (nodes tried, most_steps).

    Raises:
        ValueError: on steps, a tolerance or a batch size out of range.
    """
    if not (1 <= steps <= most_steps and tolerance > 0 and batch_size >= 1):
        raise ValueError(
            "Expected 1 <= steps <= most_steps, a tolerance above 0 and a batch_size of at least 1; got "
            f"steps={steps}, most_steps={most_steps}, tolerance={tolerance}, batch_size={batch_size}."
        )
    order = min(_ORDER, steps)
    edges = np.linspace(0.0, 1.0, steps // order + 1)
    values: dict[float, Tensor] = {}
    missed: dict[tuple[float, float], Tensor] = {}

    def at(t: np.ndarray) -> Iterator[tuple[Tensor, np.ndarray]]:
        for k in range(0, len(t), batch_size):
            yield along(a, b, t[k : k + batch_size]), t[k : k + batch_size]

    while True:
        new = np.array([t for t in edges if t not in values])
        for rows, places in at(new):
            with torch.no_grad():
                values.update(zip(places.tolist(), function(rows).double(), strict=True))
        panels = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
        fresh = [panel for panel in panels if panel not in missed]
        t, w = (m.ravel() for m in gauss_legendre(np.array(fresh), order))
        slopes = []
        for rows, _ in at(t):
            if progress is not None:
                progress(min(order * len(missed) + len(slopes), most_steps), most_steps)
            slopes += Linearised(function, rows).forward((b - a).expand_as(rows)).double()
        for k, (low, high) in enumerate(fresh):
            inside = range(k * order, (k + 1) * order)
            missed[low, high] = values[low] - values[high] + sum(float(w[i]) * slopes[i] for i in inside)
        residuals = torch.stack([missed[panel] for panel in panels])
        total = residuals.sum(dim=0).abs()
        gap, both = float(total.max()), torch.stack([values[0.0], values[1.0]])
        span = float(both.max() - both.min())
        allowed, room = tolerance * max(span, 1e-6), most_steps // order - len(panels)
        if gap <= allowed or room < 1:
            break
        # What counts is what a panel misses where the sum still misses too much.
        gaps = residuals[:, total > allowed].abs().amax(dim=1).cpu().numpy()
        ranked = np.argsort(-gaps)
        bad = ranked[: max(1, min(room, len(panels) // 2))]
        bad = [i for i in bad if gaps[i] >= gaps[ranked[0]] / 8]
        worst = [i for i in bad if panels[i][1] - panels[i][0] > _NARROWEST]
        if not worst:  # what is missed is a jump
            break
        edges = np.sort(np.concatenate([edges, [(panels[i][0] + panels[i][1]) / 2 for i in worst]]))
    t, w = gauss_legendre(np.stack([edges[:-1], edges[1:]], axis=1), order)
    return Nodes(t.ravel(), w.ravel(), gap, span, values[0.0], values[1.0])


def along(a: Tensor, b: Tensor, t: np.ndarray) -> Tensor:
    """The rows (m, …) at places (m,) of the path from a to b, each (1, …)."""
    share = torch.as_tensor(t, dtype=a.dtype, device=a.device).view(-1, *[1] * (a.ndim - 1))
    return a + share * (b - a)
