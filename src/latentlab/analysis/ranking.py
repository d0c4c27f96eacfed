"""Ranking: which units of a stage the image needs, by switching off each alone.

Symbols: a *unit* is a channel of a stage's map or an entry of its flat state, addressed "generator.block2:17".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.inference import BATCH_SIZE, check_seed, inference, to_numpy
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.resumption import edits_behind, look_from, resumed, units_off
from latentlab.analysis.subject import Subject, subject_of, tensors
from latentlab.models.edits import Edit

_RESAMPLES = 1000
_COVERAGE = 0.95


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class UnitRanking(Result):
    """What the image loses when each unit of a stage is switched off alone.

    Attributes:
        effect: mean absolute change of the image when the unit is ablated, (units,), over inputs and values.
        low: lower end of the 95 % interval of each effect over inputs (bootstrap), (units,); None for one input.
        high: its upper end.
        per_input: the effect for each input, (units, n).
        order: positions in ``units`` by effect, the strongest first, (units,).
        units: numbers of the units, (units,).
        null: the effect of switching off a random direction of the stage's unit space instead of a unit, (draws,).
            A unit is one direction among them, and a random one holds as much of the state's square as a unit does
            on average.
        code_effect: for an encoder, mean absolute change of each posterior mean in prior standard deviations,
            (units, dim); else None.
        stage: name of the stage.
        address: its address within the model.
        network: name of the network.

    The certificate holds ``loop_difference``, the largest difference between the batched effects of
    three units and those of one Edit at a time through the whole network; ``silent_share``, the share of
    (unit, input) pairs that are zero before the ablation and hence change nothing; ``half_of_units``, how few
    of the strongest units hold half of the summed effect; and ``above_null``, the share of units whose effect
    exceeds that of every random direction (missing where none was drawn).
    """

    effect: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    per_input: np.ndarray
    order: np.ndarray
    units: np.ndarray
    null: np.ndarray
    code_effect: np.ndarray | None
    stage: str
    address: str
    network: str


def rank_units(
    model: Any,
    stage: str,
    network: str = "generator",
    inputs: Any = None,
    *,
    n: int = 16,
    seed: int = 0,
    units: Sequence[int] | int | None = None,
    edits: Sequence[Edit] = (),
    n_draws: int = 8,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], object] | None = None,
) -> UnitRanking:
    """Switches off each unit of a stage alone and measures how much the images change.

    All pairs of unit and input run in large batches, each row with its own unit ablated; pairs whose
    unit is zero already are known to change nothing and are left out. Where everything behind the stage
    depends on the stage alone, only that part of the network runs.

    Args:
        model: a model, or a staged network itself, whose raw output then stands for the image.
        stage: name or address of the stage.
        network: name of the model's network; for "encoder" the image is the reconstruction.
        inputs: as for ``activations``; None is ``n`` prior draws for a generator.
        n: number of prior draws.
        seed: decides the draws, the random directions and the resampling.
        units: which units, one or several, each once; None for all.
        edits: edits that are in force throughout, before and after.
        n_draws: number of random directions; 0 for none.
        batch_size: rows run at a time.
        progress: called with (pairs done, pairs in all); it may raise to cancel.

    Raises:
        ValueError: on an unknown network, stage or unit, or a stage whose units can't be told.
    """
    subject = subject_of(model, network)
    edits = subject.check(edits)
    if batch_size < 1 or n < 1 or n_draws < 0:
        raise ValueError(
            f"batch_size and n must be at least 1 and n_draws at least 0; got {batch_size}, {n}, {n_draws}."
        )
    rng = np.random.default_rng(check_seed(seed))
    h = subject.inputs(inputs, seed, n)
    with inference(model):
        ((name, state),) = tensors(subject.network.activations(h, [stage], edits)).items()
        if state.ndim == 3:
            raise ValueError(
                f"Stage '{subject.name}.{name}' gives {tuple(state.shape[1:])} numbers a sample, such as tokens by "
                "features, so its units can't be told; rank a stage that is flat or a map."
            )
        numbers = chosen_units(units, state, f"{subject.name}.{name}")
        address = f"{subject.name}.{name}"
        alive = to_numpy((state != 0).flatten(2).any(dim=2) if state.ndim > 2 else state != 0).T[numbers]
        pairs = np.argwhere(alive)
        base_codes, base = subject.look(h, edits)
        part = resumed(subject, name)
        behind = edits_behind(subject.network, name, edits)
        per_input = np.zeros(alive.shape)
        dim = 0 if base_codes is None else base_codes.shape[1]
        code_change = np.zeros((len(numbers), dim))
        for start in range(0, len(pairs), batch_size):
            rows, columns = pairs[start : start + batch_size].T
            at = torch.as_tensor(columns, device=h.device)
            off = units_off(state, at, torch.as_tensor(numbers[rows], device=h.device))
            codes, images = look_from(part, h[at], name, off, behind)
            per_input[rows, columns] = _change(images, base[at])
            if codes is not None and base_codes is not None:
                moved = (codes - base_codes[at]).abs() / model.latent_space.std.to(codes)
                np.add.at(code_change, rows, to_numpy(moved))
            if progress is not None:
                progress(start + len(rows), len(pairs))
        null = _random_directions(part, h, name, state, behind, base, n_draws, batch_size, rng)
        effect = per_input.mean(axis=1)
        order = np.argsort(-effect, kind="stable")
        gap = 0.0
        for row in sorted({int(order[0]), int(order[len(order) // 2]), int(order[-1])}):
            alone = subject.output(h, (*edits, Edit(address, (int(numbers[row]),))))
            gap = max(gap, float(np.abs(_change(alone, base) - per_input[row]).max()))
    total = np.cumsum(effect[order])
    low, high = _interval(per_input, rng)
    certificate = {
        "loop_difference": gap,
        "silent_share": float(1.0 - alive.mean()),
        "half_of_units": int(np.searchsorted(total, total[-1] / 2) + 1) if total[-1] > 0 else 0,
    }
    if n_draws:
        certificate["above_null"] = float((effect > null.max()).mean())
    return UnitRanking(
        effect=effect,
        low=low,
        high=high,
        per_input=per_input,
        order=order,
        units=numbers,
        null=null,
        code_effect=code_change / len(h) if dim else None,
        stage=name,
        address=address,
        network=subject.name,
        certificate=certificate,
        provenance=provenance(
            model,
            {
                "network": subject.name,
                "stage": name,
                "inputs": h,
                "units": units,
                "edits": edits,
                "n_draws": n_draws,
            },
            seed,
        ),
    )


def chosen_units(units: Sequence[int] | int | None, state: Tensor, address: str) -> np.ndarray:
    """The numbers of the units asked for of a stage's state (n, units, …), all of them for None."""
    return check_units(units, state.shape[1], address)


def check_units(units: Sequence[int] | int | None, width: int, address: str) -> np.ndarray:
    """The units asked for as numbers, all of the stage's for None.

    Raises:
        ValueError: if there are none, one is named twice, or the stage does not have one of them.
    """
    if units is None:
        return np.arange(width)
    numbers = np.atleast_1d(np.asarray(list(units) if isinstance(units, Iterable) else units))
    if (
        numbers.ndim != 1
        or not len(numbers)
        or numbers.dtype.kind not in "iu"
        or numbers.min() < 0
        or numbers.max() >= width
    ):
        raise ValueError(f"Stage {address!r} has units 0 to {width - 1}; got {numbers.tolist()}.")
    if len(np.unique(numbers)) < len(numbers):
        raise ValueError(f"units must name each unit of stage {address!r} once; got {numbers.tolist()}.")
    return numbers.astype(np.int64)


def _change(images: Tensor, base: Tensor) -> np.ndarray:
    return to_numpy((images - base).abs().flatten(1).mean(dim=1))


def _random_directions(
    part: Subject,
    h: Tensor,
    stage: str,
    state: Tensor,
    edits: Sequence[Edit],
    base: Tensor,
    draws: int,
    batch_size: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """The mean change of the image when the state loses its part along a random direction of unit space, (draws,)."""
    found = np.zeros(draws)
    for draw in range(draws):
        direction = rng.standard_normal(state.shape[1])
        d = torch.as_tensor(direction / np.linalg.norm(direction), dtype=state.dtype, device=state.device)
        off = state - torch.einsum("nc...,c,k->nk...", state, d, d)
        for rows, held, was in zip(
            h.split(batch_size), off.split(batch_size), base.split(batch_size), strict=True
        ):
            found[draw] += _change(look_from(part, rows, stage, held, edits)[1], was).sum()
    return found / len(h)


def _interval(per_input: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The percentile interval of each unit's mean over resampled inputs."""
    n = per_input.shape[1]
    if n < 2:
        return None, None
    means = rng.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES) @ per_input.T / n
    low, high = np.quantile(means, ((1 - _COVERAGE) / 2, (1 + _COVERAGE) / 2), axis=0)
    return low, high
