"""Flow between units of two stages: how much of a unit's state comes from each unit of a stage below.

The contribution of unit c to unit d is the directional derivative ``(dh_d / dh_c) (h_c - b_c)``; over all c these add
up to the derivative along the whole state, so what the kept edges carry can be accounted for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.gates import Gated
from latentlab.analysis.inference import to_numpy
from latentlab.analysis.subject import Subject


def directional_derivative(f: Callable[[Tensor], Tensor], at: Tensor, along: Tensor) -> Tensor:
    """J(at) along, for f from (rows, k) to (rows, …).

    By differentiating the backward pass once more and not by forward mode, whose levels are counted for the whole
    process, so that two threads that use it end one another's.
    """
    with torch.enable_grad():
        point = at.detach().requires_grad_()
        value = f(point)
        if not value.requires_grad:
            return torch.zeros_like(value)
        weights = torch.zeros_like(value, requires_grad=True)
        (backward,) = torch.autograd.grad(
            value, [point], weights, create_graph=True, allow_unused=True, materialize_grads=True
        )
        if not backward.requires_grad:
            return torch.zeros_like(value)
        (forward,) = torch.autograd.grad(
            backward, [weights], along.to(backward), allow_unused=True, materialize_grads=True
        )
    return forward.detach()


def flow(
    subject: Subject,
    inputs: Tensor,
    lower: str,
    upper: str,
    kept_lower: Sequence[int],
    kept_upper: Sequence[int],
    baseline: Tensor,
    share: float,
    batch_size: int,
) -> tuple[np.ndarray, float]:
    """The edges from kept units of a stage to kept units of a later one.

    Args:
        subject: the network.
        inputs: its inputs (n, …).
        lower: address of the earlier stage.
        upper: address of the later one.
        kept_lower: units of the earlier stage.
        kept_upper: units of the later one.
        baseline: the earlier stage's baseline (1, units, …).
        share: the smallest share of a unit's inflow that makes an edge, 0 to 1.
        batch_size: rows run at a time.

    Returns:
        Edges (edges, 3): unit of the earlier stage, unit of the later one, share of the inflow (root mean square over
        inputs and positions, out of all kept units); and which share of the kept units' inflow, all units of the
        earlier stage counted, the edges carry: 1 - squared error, 1 for all of it.
    """
    c, d = np.asarray(kept_lower), np.asarray(kept_upper)
    products = np.zeros((len(d), len(c) + 1, len(c) + 1))
    for row in range(len(inputs)):
        x = inputs[row : row + 1]
        units = subject.state(x, lower).shape[1]
        directions = torch.zeros(len(c) + 1, units, device=x.device)
        directions[torch.arange(len(c)), torch.as_tensor(c, device=x.device)] = 1.0
        directions[-1] = 1.0
        parts = []
        for along in directions.split(batch_size):
            many = x.expand(len(along), *x.shape[1:])

            def state(m: Tensor, many: Tensor = many) -> Tensor:
                return subject.state(many, upper, (Gated(lower, gates=m, baseline=baseline),))[:, d]

            part = directional_derivative(state, torch.ones_like(along), along)
            parts.append(part.reshape(len(along), len(d), -1))
        moved = torch.cat(parts).transpose(0, 1)
        products += to_numpy(moved @ moved.transpose(1, 2))
    strength = np.sqrt(np.maximum(np.diagonal(products, axis1=1, axis2=2)[:, :-1].T, 0.0) / len(inputs))
    shares = strength / np.maximum(strength.sum(axis=0, keepdims=True), 1e-30)
    chosen = shares >= share
    left = np.concatenate([-chosen.T.astype(float), np.ones((len(d), 1))], axis=1)
    lost = float(np.einsum("di,dij,dj->", left, products, left))
    total = float(products[:, -1, -1].sum())
    rows, columns = np.nonzero(chosen)
    order = np.argsort(-shares[rows, columns], kind="stable")
    edges = np.stack([c[rows], d[columns], shares[rows, columns]], axis=1)[order]
    return edges.reshape(-1, 3), 1.0 - lost / total if total > 0 else 1.0
