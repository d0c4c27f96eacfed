"""Emergence: at which stages of a network concepts of each level appear.

A table of stages by levels ("edge", "colour", "part", "whole"). Two scores: how well the best unit's map matches the
concept's mask, and how well a line reads from the stage whether the image shows the concept. Nothing is assumed of the
order: an encoder goes from pixels to codes, a generator the other way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from latentlab.analysis.inference import check_seed, inference, to_numpy
from latentlab.analysis.overlap import THRESHOLDS, Stretch, match
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.specimens import specimens
from latentlab.analysis.subject import Subject, subject_of
from latentlab.models.edits import Edit

_FEWEST, _HELD_OUT, _SHUFFLES = 4, 0.4, 20


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Emergence(Result):
    """How well each stage knows concepts of each level.

    Attributes:
        score: IoU of a concept's best unit minus the same when maps meet the masks of other images, mean over the
            concepts of a level, (stages, levels).
        iou: the first of the two, (stages, levels).
        chance: the second, mean over permutations, (stages, levels).
        probe: area under the curve of a linear probe on held-out images, 0.5 chance, 1 perfect, mean over the
            concepts of a level that some images show and some don't; NaN where there is none, (stages, levels).
        probe_chance: the same of probes fitted to shuffled labels, mean of 20 shuffles.
        concept_iou: IoU of the best unit, (stages, concepts).
        concept_chance: mean over permutations of the same, (stages, concepts).
        concept_unit: the best unit, (stages, concepts).
        concept_probe: area under the curve, (stages, concepts), NaN where the concept is nearly always or never there.
        stages: names of the stages, in running order.
        level_names: the levels.
        concepts: names of the concepts.
        concept_levels: level of each.
        network: name of the network.

    The certificate holds ``shuffled_score``, the largest score of a level and stage when the masks are those of one
    permutation of the images and chance is that of the others (about 0); ``shuffled_probe``, the mean area under the
    curve on shuffled labels (about 0.5); ``peaks``, the stage with the largest score of each level, or "nowhere" where
    none exceeds ``shuffled_score``; ``images``; ``permutations``; and for codes of data images
    ``reconstruction_error``, as in ``dissect``.
    """

    score: np.ndarray
    iou: np.ndarray
    chance: np.ndarray
    probe: np.ndarray
    probe_chance: np.ndarray
    concept_iou: np.ndarray
    concept_chance: np.ndarray
    concept_unit: np.ndarray
    concept_probe: np.ndarray
    stages: tuple[str, ...]
    level_names: tuple[str, ...]
    concepts: tuple[str, ...]
    concept_levels: tuple[str, ...]
    network: str


def emergence(
    model: Any,
    network: str = "encoder",
    data: Any = None,
    *,
    inputs: Any = None,
    concepts: Any = None,
    levels: Sequence[str] | None = None,
    stages: Sequence[str] | None = None,
    n_images: int = 128,
    threshold: str = "matched",
    n_draws: int = 10,
    edits: Sequence[Edit] = (),
    seed: int = 0,
    batch_size: int = 32,
    progress: Callable[[int, int], object] | None = None,
) -> Emergence:
    """Scores each stage of a network for concepts of each level.

    A flat stage has no map, so its units are on or off in the whole image: it is told by its probe, hardly by its IoU.

    Args:
        model: a model, or a staged network itself.
        network: name of the model's network.
        data: as for ``dissect``.
        inputs: as for ``dissect``.
        concepts: as for ``dissect``.
        levels: which levels; None for all that the concepts have.
        stages: names or addresses; None for all whose units can be told.
        n_images: how many images.
        threshold: as for ``dissect`` ("quantile" with 0.5 %); "matched" lets small and large concepts be matched alike.
        n_draws: permutations of the images, at least 2.
        edits: edits of the network.
        seed: of the draws, permutations and splits.
        batch_size: images at a time.
        progress: called with (stages done, stages in all); it may raise to cancel.

    Raises:
        ValueError: as ``dissect``; or on levels that no concept has.

    References:
        Visualizing and Understanding Convolutional Networks (Zeiler and Fergus, 2014) and Network Dissection (Bau et
        al., 2017) for what is shown by hand or counted there. The probe reads the mean and the largest activation of
        each unit by regularised least squares.
    """
    subject = subject_of(model, network)
    edits = subject.check(edits)
    if n_draws < 2:
        raise ValueError(f"n_draws must be at least 2; got {n_draws}.")
    if threshold not in THRESHOLDS:
        raise ValueError(f"A threshold is one of {', '.join(THRESHOLDS)}; got {threshold!r}.")
    with inference(model):
        taken = specimens(subject, data, inputs, concepts, n_images, seed, batch_size, edits)
    masks = taken.known().select(levels=levels)
    names = _stages(subject, taken.inputs[:1], stages, edits)
    rng, n = np.random.default_rng(check_seed(seed)), len(masks)
    orders = np.stack([np.arange(n), *(rng.permutation(n) for _ in range(n_draws))])
    present, iou, chance, unit, auc, auc_chance, floor = masks.present, [], [], [], [], [], []
    for done, stage in enumerate(names):
        with inference(model):
            states = Stretch(lambda a, b, s=stage: subject.state(taken.inputs[a:b], s, edits), n, batch_size)
            found = match(states, masks.masks, orders, threshold, 0.005, "bilinear").iou
            features = np.concatenate([to_numpy(_pooled(state)) for _, state in states])
        best = found.max(axis=1)
        iou.append(best[0])
        chance.append(best[1:].mean(axis=0))
        unit.append(found[0].argmax(axis=0))
        floor.append(best[1] - best[2:].mean(axis=0))
        for table, areas in zip((auc, auc_chance), _probe(features, present, seed), strict=True):
            table.append(areas)
        if progress is not None:
            progress(done + 1, len(names))
    kinds = tuple(dict.fromkeys(sorted(masks.levels, key=("edge", "colour", "part", "whole").index)))
    tables = [np.stack(t) for t in (iou, chance, auc, auc_chance, floor)]
    by_level = [
        np.stack([_mean(t[:, [k == m for m in masks.levels]]) for k in kinds], axis=1) for t in tables
    ]
    score = by_level[0] - by_level[1]
    chances = by_level[3][np.isfinite(by_level[3])]
    certificate: dict[str, Any] = {
        "shuffled_score": float(by_level[4].max()),
        "shuffled_probe": float(chances.mean()) if chances.size else None,
        "peaks": ", ".join(
            f"{k} {names[int(column.argmax())] if column.max() > by_level[4].max() else 'nowhere'}"
            for k, column in zip(kinds, score.T, strict=True)
        ),
        "images": len(masks),
        "permutations": n_draws,
        "reconstruction_error": taken.reconstruction_error,
    }
    return Emergence(
        score=score,
        iou=by_level[0],
        chance=by_level[1],
        probe=by_level[2],
        probe_chance=by_level[3],
        concept_iou=tables[0],
        concept_chance=tables[1],
        concept_unit=np.stack(unit),
        concept_probe=tables[2],
        stages=names,
        level_names=kinds,
        concepts=masks.names,
        concept_levels=masks.levels,
        network=subject.name,
        certificate={k: v for k, v in certificate.items() if v is not None},
        provenance=provenance(
            model,
            {
                "network": subject.name,
                "data": getattr(data, "name", None),
                "inputs": taken.inputs,
                "masks": masks.masks,
                "stages": names,
                "levels": kinds,
                "threshold": threshold,
                "n_draws": n_draws,
                "edits": edits,
            },
            seed,
        ),
    )


def _stages(
    subject: Subject, h: torch.Tensor, wanted: Sequence[str] | None, edits: Sequence[Edit]
) -> tuple[str, ...]:
    """Names of the stages asked for, or of all whose state is flat or a map."""
    with inference(subject.model):
        if wanted is not None:
            for stage in wanted:
                subject.state(h, stage, edits)  # refuses what has no units
            return tuple(subject.network.stage_name(stage) for stage in wanted)
        states = subject.network.activations(h, None, edits)
    found = tuple(n for n, s in states.items() if isinstance(s, torch.Tensor) and s.ndim in (2, 4))
    if not found:
        raise ValueError(f"No stage of network {subject.name!r} has units that can be told.")
    return found


def _pooled(state: torch.Tensor) -> torch.Tensor:
    """The mean and the largest activation of each unit, (n, 2 units); a flat state as it is."""
    if state.shape[2:] == (1, 1):
        return state[:, :, 0, 0]
    return torch.cat([state.mean((2, 3)), state.amax((2, 3))], dim=1)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is finite; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def _probe(features: np.ndarray, present: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Held-out area under the curve (concepts,) of lines from features (n, d) to presence, and on shuffled labels."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(features))
    held = max(int(len(order) * _HELD_OUT), 1)
    test, train = order[:held], order[held:]
    mean, std = features[train].mean(axis=0), features[train].std(axis=0)
    x = (features.astype(np.float64) - mean) / np.where(std > 1e-6 * np.abs(mean) + 1e-12, std, np.inf)
    found, shuffled = (np.full(present.shape[1], np.nan) for _ in range(2))
    rarer = [np.minimum(p.sum(axis=0), (~p).sum(axis=0)) for p in (present[train], present[test])]
    usable = np.minimum(*rarer) >= _FEWEST
    if not usable.any():
        return found, shuffled
    labels = present[:, usable].astype(np.float64)
    gram = x[train] @ x[train].T
    # In the dual, since there are often more units than images; the penalty is a tenth of the mean variance.
    penalty = 0.1 * max(float(np.trace(gram)) / len(train), 1e-9)
    solve = np.linalg.inv(gram + penalty * np.eye(len(train)))

    def area(fit: np.ndarray) -> np.ndarray:
        scores = x[test] @ (x[train].T @ (solve @ (fit - fit.mean(axis=0))))
        return _area(np.round(scores, 9), labels[test] > 0)

    found[usable] = area(labels[train])
    shuffled[usable] = np.mean([area(rng.permutation(labels[train])) for _ in range(_SHUFFLES)], axis=0)
    return found, shuffled


def _area(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Area under the receiver operating curve of each column; ties count half."""
    from scipy.stats import rankdata

    ranks = rankdata(scores, axis=0)
    positive = labels.sum(axis=0)
    negative = len(labels) - positive
    return ((ranks * labels).sum(axis=0) - positive * (positive + 1) / 2) / (positive * negative)
