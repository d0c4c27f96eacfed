"""Emergence over a training: at which steps concepts of each level appear at which stages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from latentlab.analysis.emergence import Emergence, emergence
from latentlab.analysis.results import Result, provenance
from latentlab.models.contract import weights_digest


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TrainingEmergence(Result):
    """How well each stage knows concepts of each level, over the steps of a training.

    Attributes:
        steps: the steps, ascending, (steps,).
        score: as in ``Emergence``, (steps, stages, levels).
        chance: (steps, stages, levels).
        probe: (steps, stages, levels).
        probe_chance: (steps, stages, levels).
        concept_iou: (steps, stages, concepts).
        stages: names of the stages.
        level_names: the levels.
        concepts: names of the concepts.
        concept_levels: level of each.
        digests: of the weights of each step.
        network: name of the network.

    The certificate holds ``first_half``, for each level the first step at which its best stage has half of the
    last score; ``shuffled_score`` and ``shuffled_probe``, the largest over the steps; and ``images``.
    """

    steps: np.ndarray
    score: np.ndarray
    chance: np.ndarray
    probe: np.ndarray
    probe_chance: np.ndarray
    concept_iou: np.ndarray
    stages: tuple[str, ...]
    level_names: tuple[str, ...]
    concepts: tuple[str, ...]
    concept_levels: tuple[str, ...]
    digests: tuple[str, ...]
    network: str


def emergence_over_training(
    models: Iterable[tuple[int, Any]],
    network: str = "encoder",
    data: Any = None,
    *,
    progress: Callable[[int, int], object] | None = None,
    **options: Any,
) -> TrainingEmergence:
    """Scores the same images at several steps of a training.

    Args:
        models: pairs of step and model, one at a time; of a run ``((s, run.at(s).model) for s in run.steps)``.
        network: name of the models' network.
        data: as for ``emergence``.
        progress: called with (models done, models in all, 0 where that is not known); it may raise to cancel.
        options: those of ``emergence``.

    Raises:
        ValueError: if there is no model, such as a run without checkpoints; if steps repeat, or the models have
            different stages; or as ``emergence``.
    """
    found: list[tuple[int, Emergence, str]] = []
    total = len(models) if isinstance(models, Sequence) else 0
    for step, model in models:
        found.append((int(step), emergence(model, network, data, **options), weights_digest(model)))
        if progress is not None:
            progress(len(found), total)
    if not found:
        raise ValueError("Expected pairs of step and model; got none. The run may have kept no checkpoints.")
    found.sort(key=lambda item: item[0])
    first = found[0][1]
    if len({step for step, _, _ in found}) < len(found):
        raise ValueError(f"Expected different steps; got {', '.join(str(s) for s, _, _ in found)}.")
    if any(e.stages != first.stages or e.concepts != first.concepts for _, e, _ in found):
        raise ValueError(
            "The models must have the same stages and concepts; these are of different networks."
        )
    steps = np.array([step for step, _, _ in found])
    stacked = {
        name: np.stack([getattr(e, name) for _, e, _ in found])
        for name in ("score", "chance", "probe", "probe_chance", "concept_iou")
    }
    best = stacked["score"].max(axis=1)
    reached = [int(steps[np.argmax(best[:, k] >= best[-1, k] / 2)]) for k in range(best.shape[1])]
    probes = [e.certificate["shuffled_probe"] for _, e, _ in found if "shuffled_probe" in e.certificate]
    certificate: dict[str, Any] = {
        "first_half": ", ".join(f"{k} {s}" for k, s in zip(first.level_names, reached, strict=True)),
        "shuffled_score": max(float(e.certificate["shuffled_score"]) for _, e, _ in found),
        "images": first.certificate["images"],
    }
    if probes:
        certificate["shuffled_probe"] = float(max(probes, key=lambda p: abs(p - 0.5)))
    return TrainingEmergence(
        steps=steps,
        stages=first.stages,
        level_names=first.level_names,
        concepts=first.concepts,
        concept_levels=first.concept_levels,
        digests=tuple(digest for _, _, digest in found),
        network=first.network,
        certificate=certificate,
        provenance=provenance(
            found[-1][2],
            {**first.provenance.parameters, "steps": steps, "digests": [d for _, _, d in found]},
            first.provenance.seed,
        ),
        **stacked,
    )
