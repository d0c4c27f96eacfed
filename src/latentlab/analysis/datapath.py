"""Datapath: the fewest units of one or several stages that keep a network's output, judged by true masked runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.certifying import Damage
from latentlab.analysis.flow import flow
from latentlab.analysis.inference import check_seed, evaluating, inference, to_numpy
from latentlab.analysis.joint import JointDamage, masks_of
from latentlab.analysis.path_goals import addresses_of, enough, ground, kept_maps, outcome_of
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.resumption import resumed
from latentlab.analysis.stage_path import Chosen, Ticks, chosen_units, controls
from latentlab.analysis.subject import Subject, subject_of
from latentlab.models.edits import Edit

SELECTIONS = ("differences", "taylor", "gates", "both")
_ROUNDS, _SHOWN = 4, 8


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Datapath(Result):
    """The units that keep the output, stage by stage.

    Distances are relative damage R: the mean squared distance of the masked outcome from the whole one, over that with
    every unit at the baseline; 0 with all units, 1 with none. With several stages the last one keeps the output, and
    each earlier one the kept maps of the stage behind it; ``joint`` is R of the output with all masks at once, and the
    sets are then pruned together, until no unit of any stage can go without ``joint`` passing the tolerance.

    Attributes:
        stages: addresses of the stages, in running order.
        kept: {address: units kept}, the most important one first.
        breaks: {address: R of the output, with all masks, once this unit is removed as well}, one for each kept unit;
            all above ``tolerance``.
        gates: {address: gate values in [0, 1] (units,)} of the selection that won; 0 for units that are barred, since
            they never leave the baseline on the examples.
        sets: {"address: selection": units kept} of every selection that was run, before stages are pruned together.
        chosen: the selection whose set is smallest, for each stage.
        distances: R of the kept units at each stage.
        predicted: R that the quadratic model predicts for them; NaN where only gates were trained.
        limit: R that each stage was searched with, at most the tolerance; what it kept is then pruned together with
            the other stages, so that ``distances`` of several stages may pass it.
        joint: R of the output with all masks at once.
        sizes: {address: sizes (k,)} of the curves.
        curve: {address: R (k,)} of the leading units by gate value, before pruning.
        curve_by_activation: {address: R (k,)} of the units of largest mean absolute activation.
        random: {address: R (sets,)} of random sets of active units as large as the kept one.
        by_activation: R of as many units of largest mean absolute activation, for each stage.
        by_gradient: R of as many units of largest mean |activation x gradient of the summed outcome|.
        sizes_by_activation: how many units of largest activation stay below the limit, or do no more damage than the
            kept ones where that is more, for each stage.
        silent: number of units of each stage that never leave the baseline.
        edges: {"lower > upper": (edges, 3)}: unit, unit, share of the upper one's inflow.
        carried: share of the kept units' inflow that the edges carry, for each pair of neighbouring stages.
        outputs: what the network gives for the first examples, (m, …).
        masked: what it gives with all masks at once, (m, …).
        target: what was to be kept, in words.
        baseline: what is put in place of a dropped unit: "zero", "mean" of the examples, or "given".
        tolerance: the R allowed.
        network: name of the network.

    The certificate holds ``masked_distance`` (``joint``), the ``tolerance`` and whether it is kept
    (``within_tolerance``); ``minimal``: whether removing any one kept unit of any stage leads beyond the tolerance, and
    the smallest R that this leads to (``smallest_break``); a stage's last unit stays, also where it could go;
    ``prediction_gap``, the largest difference between predicted and true R; and at the last stage the best of the
    random sets (``best_random_set``) and R of the sets by activation and by gradient (``activation_set``,
    ``gradient_set``).
    """

    stages: tuple[str, ...]
    kept: Mapping[str, np.ndarray]
    breaks: Mapping[str, np.ndarray]
    gates: Mapping[str, np.ndarray]
    sets: Mapping[str, np.ndarray]
    chosen: tuple[str, ...]
    distances: tuple[float, ...]
    predicted: tuple[float, ...]
    limit: float
    joint: float
    sizes: Mapping[str, np.ndarray]
    curve: Mapping[str, np.ndarray]
    curve_by_activation: Mapping[str, np.ndarray]
    random: Mapping[str, np.ndarray]
    by_activation: tuple[float, ...]
    by_gradient: tuple[float, ...]
    sizes_by_activation: tuple[int, ...]
    silent: tuple[int, ...]
    edges: Mapping[str, np.ndarray] | None
    carried: tuple[float, ...]
    outputs: np.ndarray
    masked: np.ndarray
    target: str
    baseline: str
    tolerance: float
    network: str


def datapath(
    model: Any,
    inputs: Any = None,
    network: str = "generator",
    stages: str | Sequence[str] | None = None,
    *,
    tolerance: float = 0.05,
    baseline: Any = "zero",
    selection: str = "both",
    n: int = 16,
    n_draws: int = 20,
    share: float = 0.02,
    seed: int = 0,
    steps: int = 120,
    batch_size: int = 128,
    progress: Callable[[int, int], object] | None = None,
) -> Datapath:
    """Finds the fewest units that keep a network's output on a set of examples.

    What is kept is the image for a network that reads codes; posterior means in prior standard deviations and log
    variances for an encoder; the raw output (such as a discriminator's logit) for all others. Units are chosen by a
    quadratic programme on what they contribute, or by trained gates; the set is then cut down by true masked runs until
    no unit can be removed.

    Args:
        model: a model, or a staged network itself.
        inputs: the examples: codes for a generator, images for an encoder or discriminator; None is ``n`` prior draws.
        network: name of the model's network.
        stages: one stage, or several, by name or address; None is the last stage with units before the output.
        tolerance: the relative damage allowed, above 0 and below 1.
        baseline: what a dropped unit becomes: "zero"; "mean", its mean over the examples at each position; or numbers
            (units,) or of the state's shape (units, height, width). Zero may lie far from what the unit ever is.
        selection: "differences", the quadratic programme with each unit's own exact difference; "taylor", the same
            with derivatives; "gates", trained hard-concrete gates; "both", "differences" and "gates", the smaller set
            of which is kept.
        n: number of prior draws.
        n_draws: number of random sets of equal size, at least 1.
        share: the smallest share of a unit's inflow that makes an edge, 0 to 1.
        seed: decides draws, gates' noise and random sets.
        steps: steps of training the gates.
        batch_size: rows run at a time; a row is one example under one mask.
        progress: called with (done, in all); it may raise to cancel.

    Raises:
        ValueError: on unknown networks or stages; a stage whose units can't be told or that changes nothing; numbers
            out of range; an outcome of too few numbers for the examples given, of which contributions cancel.

    References:
        Analyzing the Noise Robustness of Deep Neural Networks (Liu, Liu, Su, Cao and Zhu, 2018), and its extension
        (Cao, Liu, Su, Wu, Zhu and Liu, 2020), for the datapath of classifiers. We keep whole images, certify every set
        by masked runs, and recurse by relative squared distances. Learning Sparse Neural Networks through L0
        Regularization (Louizos, Welling and Kingma, 2018) for the gates.
    """
    seed = check_seed(seed)
    _check(tolerance, selection, n, n_draws, share, batch_size)
    subject = subject_of(model, network)
    h = subject.inputs(inputs, seed, n).clone()
    names = addresses_of(subject, stages, h)
    joint, limit, found, judges = 0.0, tolerance, [], []
    with evaluating(model), torch.no_grad():
        selections = ("differences", "gates") if selection == "both" else (selection,)
        ticks = Ticks(progress, len(names) * len(selections) * (len(h) + 4) * 2)
        target = outcome_of(subject)[1]
        grounds = {name: ground(subject, h, name, baseline) for name in names}
        output = outcome_of(resumed(subject, subject.network.stage_name(names[-1])))[0]
        together = JointDamage(subject, h, grounds, batch_size, ticks.beat)
        for _ in range(_ROUNDS):
            found, judges, goal = [], [], output
            for name in reversed(names):
                damage = Damage(model, goal, h, name, *grounds[name], batch_size, ticks.beat)
                enough(damage, name)
                judges.insert(0, damage)
                found.insert(0, chosen_units(damage, selections, limit, seed, steps, ticks))
                goal = kept_maps(subject, name, found[0].kept, *grounds[name])
            joint = float(together.of([_sets(names, found)])[0])
            if joint <= tolerance or len(names) == 1:
                break
            # Damage of several stages adds up; a tighter limit at each makes room.
            limit = max(limit * min(0.8 * tolerance / joint, 0.7), 1e-4)
        if len(names) > 1:
            sets, breaks = together.pruned(_sets(names, found), tolerance)
            joint = float(together.of([sets])[0])
            for i in reversed(range(len(names))):
                if i + 1 < len(names) and len(sets[names[i + 1]]) < len(found[i + 1].kept):
                    goal = kept_maps(subject, names[i + 1], sets[names[i + 1]], *grounds[names[i + 1]])
                    judges[i] = Damage(model, goal, h, names[i], *grounds[names[i]], batch_size, ticks.beat)
                    found[i] = replace(found[i], together=None)
            found = [replace(p, kept=sets[s], breaks=breaks[s]) for s, p in zip(names, found, strict=True)]
        held = [
            controls(judge, p, limit, seed, n_draws, grounds[s][0], ticks)
            for s, p, judge in zip(names, found, judges, strict=True)
        ]
        with inference(model):
            masks = masks_of(_sets(names, found), grounds, min(len(h), _SHOWN))
            shown = h[:_SHOWN]
            outputs, masked = (_shown(subject, shown, edits) for edits in ((), masks))
    edges, carried = {}, []
    with evaluating(model):
        for i in range(len(names) - 1):
            between, part = flow(
                subject, h[:_SHOWN], names[i], names[i + 1], found[i].kept, found[i + 1].kept,
                grounds[names[i]][1], share, batch_size,
            )  # fmt: skip
            edges[f"{names[i]} > {names[i + 1]}"] = between
            carried.append(float(part))
    ticks.finish()
    gaps = [abs(c.predicted - c.distance) for c in held if np.isfinite(c.predicted)]
    return Datapath(
        stages=tuple(names),
        kept={s: p.kept for s, p in zip(names, found, strict=True)},
        breaks={s: p.breaks for s, p in zip(names, found, strict=True)},
        gates={s: p.gates for s, p in zip(names, found, strict=True)},
        sets={f"{s}: {k}": v for s, p in zip(names, found, strict=True) for k, v in p.sets.items()},
        chosen=tuple(p.selection for p in found),
        distances=tuple(c.distance for c in held),
        predicted=tuple(c.predicted for c in held),
        limit=float(limit),
        joint=float(joint),
        sizes={s: c.sizes for s, c in zip(names, held, strict=True)},
        curve={s: c.curve for s, c in zip(names, held, strict=True)},
        curve_by_activation={s: c.curve_by_activation for s, c in zip(names, held, strict=True)},
        random={s: c.random for s, c in zip(names, held, strict=True)},
        by_activation=tuple(c.by_activation for c in held),
        by_gradient=tuple(c.by_gradient for c in held),
        sizes_by_activation=tuple(c.size_by_activation for c in held),
        silent=tuple(c.silent for c in held),
        edges=edges or None,
        carried=tuple(carried),
        outputs=outputs,
        masked=masked,
        target=target,
        baseline=baseline if isinstance(baseline, str) else "given",
        tolerance=float(tolerance),
        network=subject.name,
        certificate={
            "masked_distance": float(joint),
            "tolerance": float(tolerance),
            "within_tolerance": bool(joint <= tolerance),
            "minimal": all(bool((p.breaks > tolerance).all()) for p in found),
            "smallest_break": min(float(p.breaks.min()) for p in found),
            "prediction_gap": max(gaps, default=float("nan")),
            "best_random_set": float(held[-1].random.min()),
            "activation_set": held[-1].by_activation,
            "gradient_set": held[-1].by_gradient,
        },
        provenance=provenance(
            model,
            {
                "network": subject.name, "stages": names, "inputs": h, "tolerance": tolerance, "baseline": baseline,
                "selection": selection, "n_draws": n_draws, "share": share, "steps": steps,
            },
            seed,
        ),
    )  # fmt: skip


def _check(tolerance: float, selection: str, n: int, n_draws: int, share: float, batch_size: int) -> None:
    if not 0.0 < tolerance < 1.0:
        raise ValueError(
            f"tolerance is a relative damage above 0 (all units) and below 1 (none); got {tolerance}."
        )
    if selection not in SELECTIONS:
        raise ValueError(f"selection is one of {', '.join(SELECTIONS)}; got {selection!r}.")
    if min(n, n_draws, batch_size) < 1:
        raise ValueError(
            f"n, n_draws and batch_size must be at least 1; got {n}, {n_draws} and {batch_size}."
        )
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share is a share of a unit's inflow, 0 to 1; got {share}.")


def _sets(names: Sequence[str], found: Sequence[Chosen]) -> dict[str, np.ndarray]:
    return {name: chosen.kept for name, chosen in zip(names, found, strict=True)}


def _shown(subject: Subject, h: Tensor, edits: Sequence[Edit]) -> np.ndarray:
    return to_numpy(subject.look(h, edits)[1])
