"""Bundles: which units of one stage drive which of another, and those edges drawn as few bundles without a loss.

Symbols: weight w(a, b) = mean over inputs of (dh_b / dh_a) h_a, summed over a's map and averaged over b's: what unit a,
being as active as it is, adds to unit b, to first order; an *edge* is a weight of at least a share of the largest; a
*bundle* is a biclique of edges of one sign.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.bicliques import MOST_NODES, cover, ink
from latentlab.analysis.inference import check_seed, evaluating, to_numpy
from latentlab.analysis.paths import Linearised
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.subject import Subject, Substitute, subject_of
from latentlab.models.edits import Edit


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class EdgeBundles(Result):
    """The strong edges between two stages, split into bundles of one sign.

    Attributes:
        weights: (from, to), signed, between nodes: units, or groups of units.
        edges: (from, to), 1, -1, or 0 where the weight is below the threshold.
        bundle_of: (from, to), number of the bundle that each edge is in, -1 where there is no edge.
        signs: (bundles,), 1 or -1.
        sizes: (bundles, 2), nodes at both ends.
        strength: (bundles,), sum of the absolute weights of each bundle.
        nodes_from: units of each node of the first stage, as texts.
        nodes_to: of the second.
        threshold: smallest absolute weight of an edge.
        stage_from: name of the first stage.
        stage_to: name of the second.
        addresses: addresses of the two.
        network: name of the network.

    The certificate holds ``missing_edges``, ``invented_edges``, ``doubled_edges`` and ``mixed_signs``, counted by
    drawing the bundles again as bicliques over the thresholded weights (all 0: without loss); ``ink_ratio``, lines of
    the bundled drawing over edges; ``proved``, whether each bundle is the largest biclique of what was left;
    ``weight_kept``, the share of absolute weight that is above the threshold; and ``loop_difference``, between weights
    of the batch and of its inputs one at a time, for the strongest node.

    References:
        Towards better analysis of deep convolutional neural networks (Liu et al., 2017),
        https://arxiv.org/abs/1604.07043, for bundles by biclusters; here bicliques of one sign that share no edge
    """

    weights: np.ndarray
    edges: np.ndarray
    bundle_of: np.ndarray
    signs: np.ndarray
    sizes: np.ndarray
    strength: np.ndarray
    nodes_from: tuple[str, ...]
    nodes_to: tuple[str, ...]
    threshold: float
    stage_from: str
    stage_to: str
    addresses: tuple[str, str]
    network: str


def edge_bundles(
    model: Any,
    stage_from: str,
    stage_to: str,
    inputs: Any = None,
    *,
    network: str = "generator",
    threshold: float = 0.2,
    groups_from: Any = None,
    groups_to: Any = None,
    n: int = 16,
    edits: Sequence[Edit] = (),
    seed: int = 0,
    batch_size: int = 16,
    progress: Callable[[int, int], object] | None = None,
) -> EdgeBundles:
    """Measures what the units of one stage add to those of a later one, and bundles the strong edges.

    Args:
        model: a model, or a staged network itself.
        stage_from: name or address of the first stage.
        stage_to: one that the first leads to.
        inputs: codes, images, or inputs of a network alone (n, …); None is ``n`` prior draws for a network of codes.
        network: name of the model's network.
        threshold: smallest absolute weight of an edge, as a share of the largest, above 0, at most 1.
        groups_from: number of each unit's group (units,), such as the clusters of ``unit_facets``, -1 for none; a
            group is one node then, whose weight is the sum over its units. None: every unit is a node.
        groups_to: the same for the second stage, whose groups take the mean over their units.
        n: number of prior draws.
        edits: edits in force throughout.
        seed: decides the codes.
        batch_size: inputs run at a time.
        progress: called with (nodes done, nodes in all); it may raise to cancel.

    Raises:
        ValueError: on unknown stages, a second that the first does not lead to, groups that don't fit, more than 60
            nodes at one end, or numbers out of range.
    """
    subject = subject_of(model, network)
    edits = subject.check(edits)
    if not 0.0 < threshold <= 1.0 or n < 1 or batch_size < 1:
        raise ValueError(
            "Expected a threshold above 0, at most 1, and n and batch_size of at least 1; got "
            f"{threshold}, {n} and {batch_size}."
        )
    start, end = (subject.network.stage_name(stage) for stage in (stage_from, stage_to))
    if subject.network.names.index(start) >= subject.network.names.index(end):
        raise ValueError(f"Stage {start!r} does not come before {end!r}; expected the earlier one first.")
    h = subject.inputs(inputs, check_seed(seed), n).clone()
    with evaluating(model):
        with torch.no_grad():
            widths = [subject.state(h[:1], stage, edits).shape[1] for stage in (start, end)]
        groups = [
            _groups(given, width, subject.address(stage), side)
            for given, width, stage, side in zip(
                (groups_from, groups_to), widths, (start, end), ("groups_from", "groups_to"), strict=True
            )
        ]
        weights = _weights(subject, start, end, h, edits, groups[0], batch_size, progress)
        if not np.abs(weights).max() > 0:
            raise ValueError(
                f"Stage {start!r} adds nothing to {end!r} at these inputs, so there are no edges."
            )
        strongest = int(np.abs(weights).sum(axis=1).argmax())
        alone = _weights(subject, start, end, h, edits, groups[0][strongest : strongest + 1], 1, None)[0]
    gap = float(np.abs(alone - weights[strongest]).max())
    weights = np.stack([weights[:, units].mean(axis=1) for units in groups[1]], axis=1)
    limit = threshold * float(np.abs(weights).max())
    edges = np.where(np.abs(weights) >= limit, np.sign(weights), 0).astype(int)
    bundles, signs, proved = [], [], True
    for sign in (1, -1):
        found, exact = cover(edges == sign)
        bundles += found
        signs += [sign] * len(found)
        proved &= exact
    strength = np.array([np.abs(weights[np.ix_(a, b)]).sum() for a, b in bundles])
    ranked = np.argsort(-strength, kind="stable")
    bundles, signs, strength = [bundles[i] for i in ranked], [signs[i] for i in ranked], strength[ranked]
    bundle_of = np.full(edges.shape, -1)
    for k, (a, b) in enumerate(bundles):
        bundle_of[np.ix_(a, b)] = k
    return EdgeBundles(
        weights=weights,
        edges=edges,
        bundle_of=bundle_of,
        signs=np.array(signs),
        sizes=np.array([(len(a), len(b)) for a, b in bundles]),
        strength=strength,
        nodes_from=_names(groups[0], groups_from),
        nodes_to=_names(groups[1], groups_to),
        threshold=limit,
        stage_from=start,
        stage_to=end,
        addresses=(subject.address(start), subject.address(end)),
        network=subject.name,
        certificate={
            **losses(weights, limit, bundles, signs),
            "ink_ratio": ink(bundles) / int(np.abs(edges).sum()),
            "proved": proved,
            "weight_kept": float(np.abs(weights[edges != 0]).sum() / np.abs(weights).sum()),
            "loop_difference": gap,
        },
        provenance=provenance(
            model,
            {"network": subject.name, "stage_from": start, "stage_to": end, "inputs": h, "threshold": threshold,
             "groups_from": groups_from, "groups_to": groups_to, "edits": edits},
            seed if inputs is None else None,
        ),
    )  # fmt: skip


def losses(
    weights: np.ndarray,
    limit: float,
    bundles: Sequence[tuple[Sequence[int], Sequence[int]]],
    signs: Sequence[int],
) -> dict[str, int]:
    """What a drawing of bundles gets wrong: every bundle drawn in full, counted edge by edge over the weights.

    Args:
        weights: (from, to), signed.
        limit: smallest absolute weight of an edge.
        bundles: left and right nodes of each.
        signs: of each bundle.
    """
    drawn, mixed = np.zeros(weights.shape, dtype=int), 0
    for (a, b), sign in zip(bundles, signs, strict=True):
        drawn[np.ix_(a, b)] += 1
        mixed += bool((np.sign(weights[np.ix_(a, b)]) != sign).any())
    edges = np.abs(weights) >= limit
    return {
        "missing_edges": int((edges & (drawn == 0)).sum()),
        "invented_edges": int((~edges & (drawn > 0)).sum()),
        "doubled_edges": int((drawn > 1).sum()),
        "mixed_signs": mixed,
    }


def _groups(given: Any, width: int, address: str, name: str) -> list[np.ndarray]:
    """The units of each node."""
    labels = np.arange(width) if given is None else np.asarray(given)
    if labels.shape != (width,) or labels.dtype.kind not in "iu" or not (labels >= 0).any():
        raise ValueError(
            f"{name} must give each of the {width} units of '{address}' the number of a group, or -1; "
            f"got shape {labels.shape}."
        )
    nodes = [np.flatnonzero(labels == k) for k in np.unique(labels) if k >= 0]
    if len(nodes) > MOST_NODES:
        raise ValueError(
            f"'{address}' has {len(nodes)} nodes, and bundles are exact for at most {MOST_NODES}; pass {name}=, "
            "such as unit_facets(...).clusters."
        )
    return nodes


def _names(groups: list[np.ndarray], given: Any) -> tuple[str, ...]:
    if given is None:
        return tuple(str(int(units[0])) for units in groups)
    return tuple(f"{k} ({len(units)} units)" for k, units in enumerate(groups))


def _weights(
    subject: Subject,
    start: str,
    end: str,
    h: Tensor,
    edits: Sequence[Edit],
    groups: list[np.ndarray],
    batch_size: int,
    progress: Callable[[int, int], object] | None,
) -> np.ndarray:
    """Mean over inputs of what each group of the first stage adds to each unit of the second, (groups, units)."""
    total, done, last = None, 0, len(groups) * -(-len(h) // batch_size)
    for part in h.split(batch_size):
        with torch.no_grad():
            state = subject.state(part, start, edits)

        def later(given: Tensor, part: Tensor = part) -> Tensor:
            place = Substitute(stage=subject.address(start), state=given)
            found = subject.state(part, end, (*edits, place))
            return found if found.ndim == 2 else found.mean(dim=(2, 3))

        derivative = Linearised(later, state)
        rows = []
        for units in groups:
            alone = torch.zeros_like(state)
            alone[:, units] = state[:, units]
            rows.append(derivative.forward(alone).double().sum(dim=0))
            done += 1
            if progress is not None:
                progress(done, last)
        total = torch.stack(rows) if total is None else total + torch.stack(rows)
    assert total is not None
    return to_numpy(total).astype(float) / len(h)
