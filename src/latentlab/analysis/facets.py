"""Facets of units: how each unit of a stage answers to every value of every factor, and which units answer alike.

Symbols: a *facet* is one value (or bin of values) of one factor, such as "digit 3" or "x, the lowest fifth"; the
*profile* of a unit is its mean response to each facet, less its mean over all inputs, in its standard deviations;
units are clustered by how their profiles correlate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from latentlab.analysis.inference import BATCH_SIZE, as_codes, check_seed, draw_codes, inference, to_numpy
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.subject import subject_of
from latentlab.latents import Categorical, Codebook
from latentlab.models.edits import Edit

_ORDERS = 999


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class UnitFacets(Result):
    """The profiles of a stage's units, in an order that puts alike units side by side, and their clusters.

    Attributes:
        profiles: (units, facets), mean response to each facet in standard deviations of the unit; zeros for a unit that
            never changes.
        order: positions of the units in the drawn order, (units,): leaves of the tree, units that never change last.
        clusters: number of each unit's cluster, counted from 0 along the order, (units,); -1 for a unit that never
            changes.
        silhouettes: mean silhouette for each number of clusters tried, (tries,).
        tries: those numbers of clusters, (tries,).
        null_silhouettes: the best silhouette of each draw, in which every unit sees its own shuffled labels,
            (n_draws,).
        explained: (units, factors), share of a unit's variance that the factor's facets explain.
        null_explained: 95 % quantile of the same with shuffled labels, (factors,).
        mean: mean response of each unit over all inputs, (units,).
        std: its standard deviation, (units,).
        facets: a name for each column of ``profiles``.
        factor_of: for each column the position of its factor, (facets,).
        factors: names of the factors.
        counts: inputs in each facet, (facets,).
        stage: name of the stage.
        address: its address within the model.
        network: name of the network.

    The certificate holds ``silhouette``, that of the clusters shown, and ``silhouette_null``, the 95 % quantile of the
    shuffled ones: below it the clusters are no more than chance; ``ordering_cost``, the sum of distances between
    neighbours in the order, and ``ordering_null``, the first percentile of 999 random orders; ``silent_units``, the
    share of units that never change; and ``loop_difference``, between responses of the batch and of its last input
    alone.

    References:
        Towards better analysis of deep convolutional neural networks (Liu et al., 2017),
        https://arxiv.org/abs/1604.07043, for clusters of neurons and ordered matrices of their responses; here the
        number of clusters is chosen by silhouette and compared with shuffled labels
    """

    profiles: np.ndarray
    order: np.ndarray
    clusters: np.ndarray
    silhouettes: np.ndarray
    tries: np.ndarray
    null_silhouettes: np.ndarray
    explained: np.ndarray
    null_explained: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    facets: tuple[str, ...]
    factor_of: np.ndarray
    factors: tuple[str, ...]
    counts: np.ndarray
    stage: str
    address: str
    network: str


def unit_facets(
    model: Any,
    stage: str,
    inputs: Any = None,
    factors: Mapping[str, Any] | None = None,
    *,
    network: str = "generator",
    bins: int = 5,
    n: int = 512,
    most_clusters: int = 12,
    clusters: int | None = None,
    n_draws: int = 20,
    edits: Sequence[Edit] = (),
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], object] | None = None,
) -> UnitFacets:
    """Describes each unit of a stage by what it answers to, and clusters units that answer alike.

    A unit's response to an input is the mean of its map.

    Args:
        model: a model, or a staged network itself.
        stage: name or address of the stage.
        inputs: codes, images, or inputs of a network alone (n, …); None is ``n`` prior draws for a network of codes.
        factors: {name: a value for each input (n,)}; whole numbers of at most ``bins`` or 12 values are facets each,
            others are cut into ``bins`` of equal count. None, for a network of codes, is the codes themselves.
        network: name of the model's network.
        bins: facets of a factor with many values, at least 2.
        n: number of prior draws.
        most_clusters: largest number of clusters tried, at least 2.
        clusters: a number of clusters in place of the one that the silhouette chooses.
        n_draws: shuffles of the null, at least 1.
        edits: edits in force throughout.
        seed: decides codes, shuffles and random orders.
        batch_size: inputs run at a time.
        progress: called with (inputs run, inputs in all); it may raise to cancel.

    Raises:
        ValueError: on factors that don't fit the inputs, fewer than 3 units that change, or numbers out of range.
    """
    from scipy.cluster.hierarchy import fcluster, leaves_list, optimal_leaf_ordering  # slow to import
    from scipy.spatial.distance import squareform

    subject = subject_of(model, network)
    edits = subject.check(edits)
    if bins < 2 or n < 2 or most_clusters < 2 or n_draws < 1 or batch_size < 1:
        raise ValueError(
            "Expected bins, n and most_clusters of at least 2, n_draws and batch_size of at least 1; got "
            f"{bins}, {n}, {most_clusters}, {n_draws} and {batch_size}."
        )
    own = _own_codes(subject, inputs, seed, n) if factors is None else None
    h = subject.inputs(inputs, check_seed(seed), n)
    name = subject.network.stage_name(stage)
    columns = {k: np.asarray(v) for k, v in (factors or own or {}).items()}
    if not columns or any(v.shape != (len(h),) for v in columns.values()):
        shapes = ", ".join(f"{k} {v.shape}" for k, v in columns.items()) or "none"
        raise ValueError(f"Expected factors with one value for each of the {len(h)} inputs; got {shapes}.")
    with inference(model):
        parts = []
        for part in h.split(batch_size):
            parts.append(_response(subject, part, name, edits))
            if progress is not None:
                progress(sum(map(len, parts)), len(h))
        responses, alone = np.concatenate(parts), _response(subject, h[-1:], name, edits)
    mean, std = responses.mean(axis=0), responses.std(axis=0)
    live = std > 1e-6 * max(float(np.abs(responses).max()), 1e-12)
    if live.sum() < 3:
        raise ValueError(
            f"Stage '{subject.name}.{name}' has {int(live.sum())} units that change; clusters need at least 3."
        )
    scaled = np.where(live, (responses - mean) / np.where(live, std, 1.0), 0.0)
    member, facets, factor_of = _facets(columns, bins)
    counts = member.sum(axis=0)
    profiles = (scaled.T @ member) / counts
    explained = _explained(profiles, counts, factor_of)
    chance = np.random.default_rng(seed)
    null_explained, null_silhouettes = [], []
    for _ in range(n_draws):
        shuffled = np.stack([chance.permutation(column) for column in scaled.T], axis=1)
        theirs = (shuffled.T @ member) / counts
        null_explained.append(_explained(theirs, counts, factor_of)[live])
        null_silhouettes.append(_tree(theirs[live], most_clusters, clusters)[1].max())
    tree, silhouettes, tries, distances = _tree(profiles[live], most_clusters, clusters)
    found = fcluster(tree, tries[silhouettes.argmax()], "maxclust")
    leaves = leaves_list(optimal_leaf_ordering(tree, squareform(distances, checks=False)))
    where = np.flatnonzero(live)
    numbering = {c: i for i, c in enumerate(dict.fromkeys(found[leaves].tolist()))}
    labels = np.full(len(live), -1)
    labels[where] = [numbering[c] for c in found.tolist()]
    random = [_cost(distances, chance.permutation(len(where))) for _ in range(_ORDERS)]
    return UnitFacets(
        profiles=profiles,
        order=np.concatenate([where[leaves], np.flatnonzero(~live)]),
        clusters=labels,
        silhouettes=silhouettes,
        tries=tries,
        null_silhouettes=np.array(null_silhouettes),
        explained=explained,
        null_explained=np.quantile(np.concatenate(null_explained), 0.95, axis=0),
        mean=mean,
        std=std,
        facets=facets,
        factor_of=factor_of,
        factors=tuple(columns),
        counts=counts.astype(int),
        stage=name,
        address=subject.address(name),
        network=subject.name,
        certificate={
            "silhouette": float(silhouettes.max()),
            "silhouette_null": float(np.quantile(null_silhouettes, 0.95)),
            "ordering_cost": _cost(distances, leaves),
            "ordering_null": float(np.quantile(random, 0.01)),
            "silent_units": float(1.0 - live.mean()),
            "loop_difference": float(np.abs(alone[0] - responses[-1]).max()),
        },
        provenance=provenance(
            model,
            {"network": subject.name, "stage": name, "inputs": h, "factors": columns, "bins": bins,
             "most_clusters": most_clusters, "clusters": clusters, "n_draws": n_draws, "edits": edits},
            seed,
        ),
    )  # fmt: skip


def _own_codes(subject: Any, inputs: Any, seed: int, n: int) -> dict[str, np.ndarray]:
    """The codes of a network that reads codes as factors: coordinates, and categories of categorical blocks."""
    if subject.reads is None:
        raise ValueError(
            f"Network {subject.name!r} reads no codes, so it needs factors=, such as a data set's."
        )
    space = subject.model.latent_space
    codes = (
        draw_codes(subject.model, n, check_seed(seed)) if inputs is None else as_codes(subject.model, inputs)
    )
    parts, found = space.split(codes), {}
    for block in space.blocks:
        if isinstance(block.prior, Codebook):
            raise ValueError(
                f"Block {block.name!r} holds indices of a codebook, which are no factors; pass factors=."
            )
        numbers = to_numpy(parts[block.name])
        if isinstance(block.prior, Categorical):
            found[block.name] = numbers.argmax(axis=1)
        else:
            found.update({name: numbers[:, i] for i, name in enumerate(block.names)})
    return found


def _response(subject: Any, h: Any, stage: str, edits: Sequence[Edit]) -> np.ndarray:
    state = subject.state(h, stage, edits)
    return to_numpy(state if state.ndim == 2 else state.mean(dim=(2, 3))).astype(float)


def _facets(columns: dict[str, np.ndarray], bins: int) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """Membership (n, facets), names, and each facet's factor."""
    member, names, factor_of = [], [], []
    for k, (name, values) in enumerate(columns.items()):
        kinds = np.unique(values)
        if len(kinds) < 2:
            raise ValueError(
                f"Factor {name!r} has one value throughout, so nothing can answer to it; leave it out."
            )
        whole = values.dtype.kind in "iub" or values.dtype.kind not in "f"
        if whole and len(kinds) <= max(bins, 12):
            groups = [(f"{name} {kind}", values == kind) for kind in kinds]
        else:
            edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]))
            place = np.searchsorted(edges, values, side="right")
            groups = []
            for i in np.unique(place):
                inside = values[place == i]
                groups.append((f"{name} {inside.min():.2g} to {inside.max():.2g}", place == i))
        member += [m for _, m in groups]
        names += [label for label, _ in groups]
        factor_of += [k] * len(groups)
    return np.stack(member, axis=1).astype(float), tuple(names), np.array(factor_of)


def _explained(profiles: np.ndarray, counts: np.ndarray, factor_of: np.ndarray) -> np.ndarray:
    """Between-facet variance of each unit, whose own is 1, for each factor: (units, factors)."""
    share = np.square(profiles) * counts
    columns = [
        share[:, factor_of == k].sum(1) / counts[factor_of == k].sum() for k in range(factor_of[-1] + 1)
    ]
    return np.stack(columns, axis=1)


def _tree(
    profiles: np.ndarray, most: int, number: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Average linkage of 1 - correlation, the silhouette for each number of clusters tried, and the distances."""
    import sklearn  # noqa: F401  (whole before its parts)
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform
    from sklearn.metrics import silhouette_score

    unit = profiles - profiles.mean(axis=1, keepdims=True)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    distances = np.clip(1.0 - unit @ unit.T, 0.0, 2.0)
    np.fill_diagonal(distances, 0.0)
    distances = (distances + distances.T) / 2
    tree = linkage(squareform(distances, checks=False), "average")
    last = len(profiles) - 1
    if number is not None and not 2 <= number <= last:
        raise ValueError(
            f"clusters must lie from 2 to {last}, one less than the units that change; got {number}."
        )
    tries = np.array([number] if number is not None else range(2, min(most, last) + 1))
    scores = []
    for k in tries:
        labels = fcluster(tree, int(k), "maxclust")
        several = 1 < len(np.unique(labels)) < len(labels)
        scores.append(silhouette_score(distances, labels, metric="precomputed") if several else -1.0)
    return tree, np.array(scores), tries, distances


def _cost(distances: np.ndarray, order: np.ndarray) -> float:
    """Sum of distances between neighbours."""
    return float(distances[order[:-1], order[1:]].sum())
