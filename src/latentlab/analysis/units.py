"""Units: what the image loses or gains when units of a stage are edited, and which of them matter.

Symbols: a *unit* is a channel of a stage's map or an entry of its flat state, addressed
"generator.block2:17".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.inference import BATCH_SIZE, in_chunks, inference, to_numpy
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.subject import subject_of, tensors
from latentlab.models.edits import Edit


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class EditComparison(Result):
    """Images (or, of a foreign network, outputs) without and with edits.

    Attributes:
        original: (n, channels, height, width) in [0, 1] without the edits.
        edited: the same with them.
        difference: edited minus original.
        change: mean absolute difference of each image, (n,).
        largest: largest absolute difference of each image, (n,).
        changed: share of values that move by more than 1/255, (n,).
        codes_original: posterior means without the edits, (n, dim), for an encoder's edits; else None.
        codes_edited: posterior means with them.
        edits: the edits as plain dictionaries, in order.
        network: name of the network whose inputs were given.

    The certificate holds ``change``, the mean over the images; and ``empty_edit_change``, what the same
    call changes with every edit's amount at 0 (0).
    """

    original: np.ndarray
    edited: np.ndarray
    difference: np.ndarray
    change: np.ndarray
    largest: np.ndarray
    changed: np.ndarray
    codes_original: np.ndarray | None
    codes_edited: np.ndarray | None
    edits: tuple[dict, ...]
    network: str


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class UnitRanking(Result):
    """What the image loses when each unit of a stage is switched off alone.

    Attributes:
        effect: mean absolute change of the image when the unit is ablated, (units,), over inputs and values.
        per_input: the same for each input, (units, n).
        order: positions in ``units`` by effect, the strongest first, (units,).
        units: numbers of the units, (units,).
        code_effect: for an encoder, mean absolute change of each posterior mean in prior standard deviations,
            (units, dim); else None.
        stage: name of the stage.
        address: its address within the model.
        network: name of the network.

    The certificate holds ``loop_difference``, the largest difference between the batched effects of
    three units and those of one Edit at a time; ``silent_share``, the share of (unit, input) pairs that
    are zero before the ablation and hence change nothing; and ``half_of_units``, how few of the
    strongest units hold half of the summed effect.
    """

    effect: np.ndarray
    per_input: np.ndarray
    order: np.ndarray
    units: np.ndarray
    code_effect: np.ndarray | None
    stage: str
    address: str
    network: str


def compare_edits(
    model: Any,
    inputs: Any,
    edits: Sequence[Edit],
    network: str = "generator",
    *,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
) -> EditComparison:
    """Runs a model without and with edits.

    Args:
        model: a model, or a staged network itself, whose raw outputs are then compared.
        inputs: codes (n, dim) for "generator"; images (n, channels, height, width) for "encoder", whose
            pictures are reconstructions: encoded, the mean decoded, under edits of both networks. None
            is a prior draw.
        edits: the edits, applied in order.
        network: the network that the inputs belong to.
        seed: decides the code where ``inputs`` is None.
        batch_size: inputs run at a time.

    Raises:
        ValueError: on edits that could have no effect, on unknown stages or units.
    """
    subject = subject_of(model, network)
    edits = subject.check(edits)
    h = subject.inputs(inputs, seed)
    idle = [Edit(**{**vars(edit), "amount": 0.0}) for edit in edits]
    with inference(model):
        original, edited = (
            in_chunks(lambda p, e=e: subject.output(p, e), h, batch_size) for e in ((), edits)
        )
        empty = to_numpy((subject.output(h[:1], idle) - subject.output(h[:1], ())).abs().max())
        codes: list[np.ndarray | None] = [None, None]
        if subject.codes(h[:1], ()) is not None:
            codes = [in_chunks(lambda p, e=e: subject.codes(p, e), h, batch_size) for e in ((), edits)]  # type: ignore
    difference = edited - original
    rest = tuple(range(1, difference.ndim))
    change = np.abs(difference).mean(axis=rest)
    return EditComparison(
        original=original,
        edited=edited,
        difference=difference,
        change=change,
        largest=np.abs(difference).max(axis=rest),
        changed=(np.abs(difference) > 1 / 255).mean(axis=rest),
        codes_original=codes[0],
        codes_edited=codes[1],
        edits=tuple(edit.to_dict() for edit in edits),
        network=subject.name,
        certificate={"change": float(change.mean()), "empty_edit_change": float(empty)},
        provenance=provenance(
            model,
            {"network": subject.name, "inputs": h, "edits": edits},
            seed if inputs is None else None,
        ),
    )


def rank_units(
    model: Any,
    stage: str,
    network: str = "generator",
    inputs: Any = None,
    *,
    n: int = 16,
    seed: int = 0,
    units: Sequence[int] | None = None,
    edits: Sequence[Edit] = (),
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], object] | None = None,
) -> UnitRanking:
    """Switches off each unit of a stage alone and measures how much the images change.

    All pairs of unit and input run in large batches, each row with its own unit ablated; pairs whose
    unit is zero already are known to change nothing and are left out.

    Args:
        model: a model, or a staged network itself, whose raw output then stands for the image.
        stage: name or address of the stage.
        network: name of the model's network; for "encoder" the image is the reconstruction.
        inputs: as for ``activations``; None is ``n`` prior draws for a generator.
        n: number of prior draws.
        seed: decides the draws.
        units: which units; None for all.
        edits: edits that are in force throughout, before and after.
        batch_size: rows run at a time.
        progress: called with (pairs done, pairs in all); it may raise to cancel.

    Raises:
        ValueError: on an unknown network, stage or unit, or a stage whose units can't be told.
    """
    subject = subject_of(model, network)
    edits = subject.check(edits)
    if batch_size < 1 or n < 1:
        raise ValueError(f"batch_size and n must be at least 1; got {batch_size} and {n}.")
    h = subject.inputs(inputs, seed, n)
    with inference(model):
        ((name, state),) = tensors(subject.network.activations(h, [stage], edits)).items()
        if state.ndim == 3:
            raise ValueError(
                f"Stage '{subject.name}.{name}' gives {tuple(state.shape[1:])} numbers a sample, such as tokens by "
                "features, so its units can't be told; rank a stage that is flat or a map."
            )
        width = state.shape[1]
        numbers = np.arange(width) if units is None else np.asarray(list(units), dtype=np.int64)
        if not len(numbers) or numbers.min() < 0 or numbers.max() >= width:
            raise ValueError(
                f"Stage '{subject.name}.{name}' has units 0 to {width - 1}; got {numbers.tolist()}."
            )
        address = f"{subject.name}.{name}"
        alive = to_numpy((state != 0).flatten(2).any(dim=2) if state.ndim > 2 else state != 0).T[numbers]
        pairs = np.argwhere(alive)
        base_codes, base = subject.look(h, edits)
        per_input = np.zeros(alive.shape)
        dim = 0 if base_codes is None else base_codes.shape[1]
        code_change = np.zeros((len(numbers), dim))
        for start in range(0, len(pairs), batch_size):
            rows, columns = pairs[start : start + batch_size].T
            each = _AblateEach(stage=address, rows=torch.as_tensor(numbers[rows], device=h.device))
            part = h[torch.as_tensor(columns, device=h.device)]
            codes, images = subject.look(part, (*edits, each))
            change = (images - base[columns]).abs().flatten(1).mean(dim=1)
            per_input[rows, columns] = to_numpy(change)
            if codes is not None and base_codes is not None:
                moved = (codes - base_codes[columns]).abs() / model.latent_space.std.to(codes)
                np.add.at(code_change, rows, to_numpy(moved))
            if progress is not None:
                progress(start + len(rows), len(pairs))
        effect = per_input.mean(axis=1)
        order = np.argsort(-effect, kind="stable")
        gap = 0.0
        for row in sorted({int(order[0]), int(order[len(order) // 2]), int(order[-1])}):
            alone = subject.output(h, (*edits, Edit(address, (int(numbers[row]),))))
            gap = max(
                gap, float(np.abs(to_numpy((alone - base).abs().flatten(1).mean(1)) - per_input[row]).max())
            )
    total = np.cumsum(effect[order])
    return UnitRanking(
        effect=effect,
        per_input=per_input,
        order=order,
        units=numbers,
        code_effect=code_change / len(h) if dim else None,
        stage=name,
        address=address,
        network=subject.name,
        certificate={
            "loop_difference": gap,
            "silent_share": float(1.0 - alive.mean()),
            "half_of_units": int(np.searchsorted(total, total[-1] / 2) + 1) if total[-1] > 0 else 0,
        },
        provenance=provenance(
            model,
            {"network": subject.name, "stage": name, "inputs": h, "units": units, "edits": edits},
            seed if inputs is None else None,
        ),
    )


@dataclass(frozen=True)
class _AblateEach(Edit):
    """Switches off one unit a row of the batch, another one in each row: many single ablations in one run."""

    rows: Tensor | None = field(default=None, compare=False)

    def apply(self, h: Tensor, other: Tensor | None = None) -> Tensor:
        edited = h.clone()
        edited[torch.arange(len(h), device=h.device), self.rows] = 0.0
        return edited
