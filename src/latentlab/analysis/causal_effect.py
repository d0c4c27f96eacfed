"""Average causal effect: what sets of units do to a concept in the picture, by inserting and ablating them.

Symbols: U a set of units, P a place, k the inserted value, s_c how much of concept c a picture shows.
x_i = f(k on U at P), x_a = f(0 on U at P); ACE = E[s_c(x_i)] - E[s_c(x_a)], both measured at P.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from latentlab.analysis.inference import inference, to_numpy
from latentlab.analysis.insertion import bootstrap, insertion_for, spearman
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.specimens import specimens
from latentlab.analysis.subject import subject_of
from latentlab.models.edits import Edit

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
_SHOWN = 4


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class CausalEffect(Result):
    """What a set of units does to a concept.

    Attributes:
        ace: average causal effect, in the concept's unit: mean score with the units inserted minus without them.
        interval: its 95 % bootstrap interval over the inputs, (2,).
        per_input: the effect for each input, (n,).
        doses: shares alpha of the mix h' = (1 - alpha) h + alpha target, (doses,).
        inserted: mean score where the target is k, for each dose, (doses,).
        ablated: mean score where the target is 0, for each dose, (doses,).
        control_ace: the effect of random sets of as many other units, each with its own k, (draws,).
        control_units: their units, (draws, size).
        p_value: (1 + draws whose absolute effect is at least as large) / (1 + draws).
        percentile: share of the draws with a smaller effect, 0 to 1.
        value: k, (size,), or (size, height, width) where it is a map.
        place: weights of P over the stage's map in [0, 1], (height, width) or (n, height, width), None for everywhere.
        originals: (m, channels, height, width) without edits; None where the network gives no images.
        with_units: the same with the units inserted.
        without_units: the same with them ablated.
        units: the set, in ascending order.
        concept: name of the concept.
        unit: of its score.
        stage: name of the stage.
        address: its address within the model.
        network: name of the network.

    The certificate holds ``loop_difference``, the largest distance of a score from that of one input whose state was
    edited by hand and put back; ``no_dose_effect``, the effect at alpha 0 (0); ``dose_rank``, the rank correlation of
    alpha and effect; ``control_95``, the 95 % quantile of the absolute effects of the random sets; ``draws``;
    ``inputs``; and with a place ``change_in_place``, the share of the pictures' absolute change that lies in it.
    """

    ace: float
    interval: np.ndarray
    per_input: np.ndarray
    doses: np.ndarray
    inserted: np.ndarray
    ablated: np.ndarray
    control_ace: np.ndarray
    control_units: np.ndarray
    p_value: float
    percentile: float
    value: np.ndarray
    place: np.ndarray | None
    originals: np.ndarray | None
    with_units: np.ndarray | None
    without_units: np.ndarray | None
    units: tuple[int, ...]
    concept: str
    unit: str
    stage: str
    address: str
    network: str


def causal_effect(
    model: Any,
    stage: str,
    units: Sequence[int] | int,
    concept: Any,
    network: str = "generator",
    data: Any = None,
    *,
    inputs: Any = None,
    region: Any = None,
    value: Any = None,
    n: int = 32,
    n_draws: int = 20,
    alphas: Sequence[float] = ALPHAS,
    n_boot: int = 1000,
    edits: Sequence[Edit] = (),
    seed: int = 0,
    batch_size: int = 128,
    progress: Callable[[int, int], object] | None = None,
) -> CausalEffect:
    """Inserts and ablates a set of units and measures what becomes of a concept, against random sets.

    Args:
        model: a model, or a staged network itself. For "encoder" the picture is the reconstruction.
        stage: name or address of the stage.
        units: the set U.
        concept: a ConceptMap (``concept_map(name, segment)``, ``light_map()``), which is measured at the place P; or a
            meter, its name, or a function of images (of the raw output of a network that gives none) to numbers,
            which measures the whole picture.
        network: name of the model's network.
        data: a data set, of which ``n`` images are read, or decoded from their posterior means.
        inputs: the network's inputs instead; None is ``n`` prior draws of a generator.
        region: P: rows of weights in [0, 1], a grid of any resolution over the picture, or one such grid an input;
            None is everywhere.
        value: k, a number or one a unit. None is the units' mean where the concept is. With a region, as in the
            reference: weighted by presence over inputs and the positions of P (over all positions where the concept
            is never in P). Without one: weighted by presence over inputs alone, as a map, so that units are not
            inserted at places where they never are.
        n: number of images or draws.
        n_draws: random sets of the same size from the stage's other units, at least 20.
        alphas: doses, in [0, 1].
        n_boot: resamples of the inputs for the interval.
        edits: edits that are in force throughout.
        seed: of inputs, random sets and resamples.
        batch_size: rows run at a time.
        progress: called with (rows done, rows in all); it may raise to cancel.

    Raises:
        ValueError: on unknown units or stages, a region on a flat stage, fewer than 20 draws, fewer other units than
            a random set needs, or a concept that no input shows where k is to be its mean.

    References:
        GAN Dissection (Bau et al., 2019): their insertion is measured at the place edited, which their published code
        does not do. Presence of a meter is its value, shifted and scaled to [0, 1] over the inputs.
    """
    subject = subject_of(model, network)
    edits = subject.check(edits)
    if n_draws < 20 or n_boot < 1:
        raise ValueError(f"n_draws must be at least 20 and n_boot at least 1; got {n_draws} and {n_boot}.")
    doses = np.unique(np.asarray([0.0, 1.0, *alphas], dtype=float))
    if doses[0] < 0 or doses[-1] > 1:
        raise ValueError(f"alphas lie in [0, 1]; got {tuple(alphas)}.")
    with inference(model):
        taken = specimens(subject, data, inputs, None, n, seed, batch_size, edits, cut=False)
        work = insertion_for(subject, taken.inputs, stage, [concept], region, edits, batch_size, progress)
        chosen = work.check_units(units)
        rng = np.random.default_rng(seed)
        others = np.setdiff1d(np.arange(work.units), chosen)
        if len(others) < len(chosen):
            raise ValueError(
                f"Random sets of {len(chosen)} units need as many others; {work.address!r} has {len(others)} others."
            )
        control_units = np.stack(
            [np.sort(rng.choice(others, len(chosen), replace=False)) for _ in range(n_draws)]
        )
        work.total = (2 * len(doses) - 1 + 2 * n_draws) * len(taken.inputs)
        k = work.value(chosen, 0, value)
        rows = [work.scores(chosen[None], k[None], "insert", a)[0, :, 0] for a in doses]
        off = [rows[0], *(work.scores(chosen[None], k[None], "ablate", a)[0, :, 0] for a in doses[1:])]
        own_k = torch.stack([work.value(c, 0, value) for c in control_units])
        control = (
            work.scores(control_units, own_k, "insert", 1.0)
            - work.scores(control_units, own_k, "ablate", 1.0)
        )[:, :, 0].mean(axis=1)
        pictures = work.pictures(chosen, k, _SHOWN)
        gap, inside = work.by_hand(chosen, k, rows[-1], off[-1]), work.inside(chosen, k)
    inserted, ablated = np.stack(rows), np.stack(off)
    per_input = inserted[-1] - ablated[-1]
    ace, dose = float(per_input.mean()), (inserted - ablated).mean(axis=1)
    certificate: dict[str, Any] = {
        "loop_difference": gap,
        "no_dose_effect": float(np.abs(inserted[0] - work.plain()).max()),
        "dose_rank": spearman(doses, dose),
        "control_95": float(np.quantile(np.abs(control), 0.95)),
        "draws": n_draws,
        "inputs": len(per_input),
    }
    if inside is not None:
        certificate["change_in_place"] = inside
    return CausalEffect(
        ace=ace,
        interval=bootstrap(per_input[None], n_boot, rng)[0],
        per_input=per_input,
        doses=doses,
        inserted=inserted.mean(axis=1),
        ablated=ablated.mean(axis=1),
        control_ace=control,
        control_units=control_units,
        p_value=float((1 + (np.abs(control) >= abs(ace) - 1e-12).sum()) / (1 + n_draws)),
        percentile=float((control < ace).mean()),
        value=to_numpy(k),
        place=work.place_shown(),
        originals=pictures[0],
        with_units=pictures[1],
        without_units=pictures[2],
        units=tuple(int(u) for u in chosen),
        concept=work.scorers[0].name,
        unit=work.scorers[0].unit,
        stage=work.stage,
        address=work.address,
        network=subject.name,
        certificate=certificate,
        provenance=provenance(
            model,
            {
                "network": subject.name,
                "stage": stage,
                "units": chosen,
                "concept": work.scorers[0].name,
                "data": getattr(data, "name", None),
                "inputs": taken.inputs,
                "region": region,
                "value": value,
                "alphas": doses,
                "n_draws": n_draws,
                "edits": edits,
            },
            seed,
        ),
    )
