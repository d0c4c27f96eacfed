"""The causal effects of single units of a stage on several concepts, each against the stage's other units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from latentlab.analysis.concepts import ConceptMap
from latentlab.analysis.dissection import Dissection
from latentlab.analysis.inference import inference
from latentlab.analysis.insertion import bootstrap, insertion_for
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.specimens import specimens
from latentlab.analysis.subject import subject_of
from latentlab.models.edits import Edit


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class UnitEffects(Result):
    """The average causal effect of each unit on each concept.

    Attributes:
        ace: average causal effect, (units, concepts), in the concept's unit.
        interval: 95 % bootstrap intervals over the inputs, (units, concepts, 2).
        per_input: the effects for each input, (units, concepts, n).
        order: positions in ``units`` by absolute effect for each concept, the strongest first, (units, concepts).
        control_ace: the effects of random other units, (draws, concepts); all units where all are asked for.
        band: from the 2.5 to the 97.5 % quantile of these, (concepts, 2).
        p_value: (1 + controls whose absolute effect is at least as large) / (1 + controls), (units, concepts).
        units: numbers of the units, (units,).
        iou: each unit's IoU with each concept, (units, concepts), of the dissection that was given; else None.
        best: the concept that the dissection gave each unit, (units,); else None.
        images: the image where each unit's map peaks, (units, channels, height, width); else None.
        masks: where that concept is in it, bool (units, height, width).
        regions: where the unit's map is above its threshold in it, bool (units, height, width).
        concepts: names of the concepts.
        concept_units: the unit of each score.
        stage: name of the stage.
        address: its address within the model.
        network: name of the network.

    The certificate holds ``loop_difference``, the largest distance of a score of three units from that of one input
    whose state was edited by hand and put back; ``band_width``, the width of the widest control band; ``draws``, the
    number of controls; and ``inputs``.
    """

    ace: np.ndarray
    interval: np.ndarray
    per_input: np.ndarray
    order: np.ndarray
    control_ace: np.ndarray
    band: np.ndarray
    p_value: np.ndarray
    units: np.ndarray
    iou: np.ndarray | None
    best: np.ndarray | None
    images: np.ndarray | None
    masks: np.ndarray | None
    regions: np.ndarray | None
    concepts: tuple[str, ...]
    concept_units: tuple[str, ...]
    stage: str
    address: str
    network: str


def effects_of_units(
    model: Any,
    stage: str,
    concepts: Sequence[Any],
    network: str = "generator",
    data: Any = None,
    *,
    units: Sequence[int] | int | None = None,
    dissection: Dissection | None = None,
    inputs: Any = None,
    region: Any = None,
    value: float | None = None,
    n: int = 16,
    n_draws: int = 20,
    n_boot: int = 1000,
    edits: Sequence[Edit] = (),
    seed: int = 0,
    batch_size: int = 128,
    progress: Callable[[int, int], object] | None = None,
) -> UnitEffects:
    """Inserts and ablates each unit of a stage alone and measures what becomes of each concept.

    Each row of a batch has its own unit edited, so that all units and inputs run together.

    Args:
        model: a model, or a staged network itself.
        stage: name or address of the stage.
        concepts: as ``concept`` of ``causal_effect``, several; concept maps of one segment function share its runs.
        network: name of the model's network.
        data: as for ``causal_effect``.
        units: which units, one or several, each once; None for all, or those that the dissection shows.
        dissection: of the same stage, whose IoU and pictures are to stand beside the effects; concepts are matched by
            name.
        inputs: as for ``causal_effect``.
        region: as for ``causal_effect``.
        value: as for ``causal_effect``, one number.
        n: number of images or draws.
        n_draws: random other units for the control band, at least 20, or as many as there are; without ``units`` and
            ``dissection`` all units are the band.
        n_boot: resamples of the inputs for the intervals.
        edits: edits that are in force throughout.
        seed: of inputs, controls and resamples.
        batch_size: rows run at a time.
        progress: called with (rows done, rows in all); it may raise to cancel.

    Raises:
        ValueError: as ``causal_effect``; or on a dissection of another stage.

    References:
        GAN Dissection (Bau et al., 2019).
    """
    subject = subject_of(model, network)
    edits = subject.check(edits)
    if n_draws < 20 or n_boot < 1:
        raise ValueError(f"n_draws must be at least 20 and n_boot at least 1; got {n_draws} and {n_boot}.")
    if isinstance(concepts, (str, ConceptMap)) or callable(concepts) or not len(concepts):
        raise ValueError("Expected a list of concepts, at least one; got one alone or none.")
    if dissection is not None and dissection.address != subject.address(stage):
        raise ValueError(f"The dissection is of {dissection.address}; got stage {subject.address(stage)}.")
    with inference(model):
        taken = specimens(subject, data, inputs, None, n, seed, batch_size, edits, cut=False)
        work = insertion_for(subject, taken.inputs, stage, concepts, region, edits, batch_size, progress)
        rng = np.random.default_rng(seed)
        if units is not None:
            numbers = work.check_units(units)
        else:
            numbers = np.arange(work.units) if dissection is None else np.asarray(dissection.shown)
        others = np.setdiff1d(np.arange(work.units), numbers)
        drawn = rng.permutation(others)[:n_draws]
        every = np.concatenate([numbers, drawn])
        work.total = (1 + len(concepts)) * len(every) * len(taken.inputs)
        sets, first = every[:, None], np.zeros((len(every), 1), dtype=np.float32)
        off = work.scores(sets, torch.from_numpy(first), "ablate", 1.0)
        on = np.empty_like(off)
        gap = 0.0
        for c in range(len(concepts)):
            k = work.value(every, c, value)[:, None]
            on[:, :, c] = work.scores(sets, k, "insert", 1.0)[:, :, c]
            if c == 0:
                for row in sorted({0, len(every) // 2, len(every) - 1}):
                    gap = max(gap, work.by_hand(sets[row], k[row], on[row, :, 0], off[row, :, 0]))
    per_input = (on - off).transpose(0, 2, 1)
    ace = per_input.mean(axis=2)
    count = len(numbers)
    control = ace[count:] if len(drawn) else ace
    beaten = (np.abs(control)[None] >= np.abs(ace[:count, None]) - 1e-12).sum(axis=1)
    names = tuple(scorer.name for scorer in work.scorers)
    band = np.quantile(control, [0.025, 0.975], axis=0).T
    interval = np.stack([bootstrap(per_input[:count, c], n_boot, rng) for c in range(len(names))], axis=1)
    return UnitEffects(
        ace=ace[:count],
        interval=interval,
        per_input=per_input[:count],
        order=np.argsort(-np.abs(ace[:count]), axis=0, kind="stable"),
        control_ace=control,
        band=band,
        p_value=(1 + beaten) / (1 + len(control)),
        units=numbers,
        **_beside(dissection, numbers, names),
        concepts=names,
        concept_units=tuple(scorer.unit for scorer in work.scorers),
        stage=work.stage,
        address=work.address,
        network=subject.name,
        certificate={
            "loop_difference": gap,
            "band_width": float((band[:, 1] - band[:, 0]).max()),
            "draws": len(control),
            "inputs": per_input.shape[2],
        },
        provenance=provenance(
            model,
            {
                "network": subject.name,
                "stage": stage,
                "units": numbers,
                "concepts": names,
                "data": getattr(data, "name", None),
                "inputs": taken.inputs,
                "region": region,
                "value": value,
                "n_draws": n_draws,
                "edits": edits,
            },
            seed,
        ),
    )


def _beside(dissection: Dissection | None, numbers: np.ndarray, names: tuple[str, ...]) -> dict[str, Any]:
    """What a dissection knows about these units: IoU by concept, best concept, and a picture of those it shows."""
    if dissection is None:
        return dict.fromkeys(("iou", "best", "images", "masks", "regions"))
    iou = np.full((len(numbers), len(names)), np.nan)
    for c, name in enumerate(names):
        if name in dissection.concepts:
            iou[:, c] = dissection.iou[numbers, dissection.concepts.index(name)]
    shown = dissection.shown.tolist()
    known = {
        dissection.concepts.index(name): c for c, name in enumerate(names) if name in dissection.concepts
    }
    best = np.array([known.get(int(b), -1) for b in dissection.best[numbers]])
    found: dict[str, Any] = {"iou": iou, "best": best, "images": None, "masks": None, "regions": None}
    if all(u in shown for u in numbers) and dissection.images is not None:
        rows = [shown.index(u) for u in numbers]
        found |= {
            "images": dissection.images[rows, 0],
            "masks": dissection.masks[rows, 0],
            "regions": dissection.regions[rows, 0],
        }
    return found
