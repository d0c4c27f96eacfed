"""What hidden units have to do with pixels, in a network that makes images: what a unit draws, and what it draws alone.

* ``unit_draws``: what the image loses without a unit, G(h) - G(h with the unit at its baseline). Causal, and signed.
* ``unit_isolates``: what a unit draws alone, behind a stage that holds nothing else than the baseline.

The way back, from pixels to units, is ``pixel_reads``.

None of them is a deconvnet: a decoder leads from units to pixels by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.inference import BATCH_SIZE, check_seed, inference, input_spaces
from latentlab.analysis.ranking import chosen_units
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.resumption import edits_behind, look_from, resumed, units_off
from latentlab.analysis.subject import Subject, subject_of
from latentlab.models.edits import Edit

BASELINES = ("zero", "mean")
_REFERENCES = 64


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class UnitDrawings(Result):
    """What each unit draws of each image.

    Attributes:
        drawings: signed images (units, n, channels, height, width); of a network alone, its raw output's shape.
            "draws": the image less the image with the unit at its baseline. "isolates": the image of the baseline
            and that unit alone, less the baseline's image.
        pictures: the image of each edited run, of the same shape: without the unit, or of the unit alone.
        images: the images as they are, (n, …).
        ground: the images of the stage at its baseline altogether, (n, …).
        strength: mean absolute value of each drawing, (units, n).
        units: numbers of the units, (units,).
        operation: "draws" or "isolates".
        baseline: "zero", or "mean": each unit's mean map over inputs.
        stage: name of the stage.
        address: its address within the model.
        network: name of the network.

    The certificate holds ``loop_difference``, the largest difference between the drawings of three units and those
    of one run of the whole network at a time; and of several units ``interaction_gap``, how far their drawings are from
    adding up to what the units draw together, as a share of that (root mean squares): 0 where units do not interact,
    1 and above where what a unit draws says little without the others.
    """

    drawings: np.ndarray
    pictures: np.ndarray
    images: np.ndarray
    ground: np.ndarray
    strength: np.ndarray
    units: np.ndarray
    operation: str
    baseline: str
    stage: str
    address: str
    network: str


def unit_draws(
    model: Any,
    stage: str,
    units: Sequence[int] | int | None = None,
    inputs: Any = None,
    network: str = "generator",
    *,
    baseline: str = "zero",
    n: int = 1,
    seed: int = 0,
    edits: Sequence[Edit] = (),
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], object] | None = None,
) -> UnitDrawings:
    """What each unit adds to an image: G(h) - G(h with the unit at its baseline), signed and causal.

    Args:
        model: a model, or a staged network itself, whose raw output then stands for the image.
        stage: name or address of a stage of a network that reads codes.
        units: which units, one or several, each once; None for all.
        inputs: codes (n, dim); None is ``n`` prior draws.
        network: name of the model's network.
        baseline: "zero", or "mean" for each unit's mean map over the inputs (over 64 prior draws where there are
            fewer inputs and the network reads codes).
        n: number of prior draws.
        seed: decides the draws.
        edits: edits that are in force throughout.
        batch_size: rows run at a time.
        progress: called with (rows done, rows in all); it may raise to cancel.

    Raises:
        ValueError: on a network that makes no images, an unknown stage, unit or baseline.
    """
    return _drawings(
        model, "draws", stage, units, inputs, network, baseline, n, seed, edits, batch_size, progress
    )


def unit_isolates(
    model: Any,
    stage: str,
    units: Sequence[int] | int | None = None,
    inputs: Any = None,
    network: str = "generator",
    *,
    baseline: str = "zero",
    n: int = 1,
    seed: int = 0,
    edits: Sequence[Edit] = (),
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], object] | None = None,
) -> UnitDrawings:
    """What each unit draws alone: the image of the baseline and that unit's map, less that of the baseline.

    Arguments and errors as for ``unit_draws``. States of this kind are far from those that the network was trained
    on, more so with the baseline "zero"; ``interaction_gap`` says how much units depend on each other.
    """
    return _drawings(
        model, "isolates", stage, units, inputs, network, baseline, n, seed, edits, batch_size, progress
    )


def _drawings(
    model: Any,
    operation: str,
    stage: str,
    units: Sequence[int] | int | None,
    inputs: Any,
    network: str,
    baseline: str,
    n: int,
    seed: int,
    edits: Sequence[Edit],
    batch_size: int,
    progress: Callable[[int, int], object] | None,
) -> UnitDrawings:
    subject = subject_of(model, network)
    must_draw(subject)
    edits = subject.check(edits)
    if baseline not in BASELINES:
        raise ValueError(f"baseline must be one of {', '.join(BASELINES)}; got {baseline!r}.")
    if batch_size < 1 or n < 1:
        raise ValueError(f"batch_size and n must be at least 1; got {batch_size} and {n}.")
    h = subject.inputs(inputs, check_seed(seed), n)
    draws = operation == "draws"
    with inference(model):
        address = subject.address(stage)
        name = subject.network.stage_name(stage)
        state = subject.state(h, stage, edits)
        numbers = chosen_units(units, state, address)
        ground = _ground(subject, stage, state, h, baseline, seed, edits)
        part, behind = resumed(subject, name), edits_behind(subject.network, name, edits)

        def outputs(rows: Tensor, states: Tensor) -> Tensor:
            return look_from(part, rows, name, states, behind)[1]

        def edited(at: Tensor, which: Tensor) -> Tensor:
            if draws:
                return units_off(state, at, which, ground)
            alone = ground.expand_as(state)[at].clone()
            alone[torch.arange(len(at), device=at.device), which] = state[at, which]
            return alone

        images = subject.output(h, edits)
        empty = outputs(h, ground.expand_as(state))
        pairs = torch.cartesian_prod(torch.arange(len(numbers)), torch.arange(len(h)))
        pairs = pairs.view(-1, 2)
        pictures = torch.empty(len(numbers), *images.shape)
        for rows in torch.arange(len(pairs)).split(batch_size):
            which, at = pairs[rows].T
            found = outputs(
                h[at.to(h.device)], edited(at.to(h.device), torch.as_tensor(numbers[which], device=h.device))
            )
            pictures[which, at] = found.float().cpu()
            if progress is not None:
                progress(int(rows[-1]) + 1, len(pairs))
        images, empty = images.float().cpu(), empty.float().cpu()
        drawings = images - pictures if draws else pictures - empty
        # All of them at once, through the whole network, and three of them one by one.
        together = state.clone() if draws else ground.expand_as(state).clone()
        together[:, numbers] = (ground.expand_as(state) if draws else state)[:, numbers]
        all_of_them = look_from(subject, h, name, together, behind)[1].float().cpu()
        whole = images - all_of_them if draws else all_of_them - empty
        gap = 0.0
        for row in sorted({0, len(numbers) // 2, len(numbers) - 1}):
            for i in range(len(h)):
                one = edited(torch.tensor([i], device=h.device), torch.tensor([int(numbers[row])]))
                alone = look_from(subject, h[i : i + 1], name, one, behind)[1].float().cpu()
                gap = max(gap, float((alone[0] - pictures[row, i]).abs().max()))
    total = float(whole.square().mean().sqrt())
    left = float((drawings.sum(0) - whole).square().mean().sqrt())
    return UnitDrawings(
        drawings=drawings.numpy(),
        pictures=pictures.numpy(),
        images=images.numpy(),
        ground=empty.numpy(),
        strength=drawings.abs().flatten(2).mean(2).numpy(),
        units=numbers,
        operation=operation,
        baseline=baseline,
        stage=name,
        address=address,
        network=subject.name,
        certificate={"loop_difference": gap}
        | ({"interaction_gap": left / total if total > 1e-12 else left} if len(numbers) > 1 else {}),
        provenance=provenance(
            model,
            {
                "operation": operation,
                "network": subject.name,
                "stage": name,
                "units": units,
                "inputs": h,
                "baseline": baseline,
                "edits": edits,
            },
            seed,
        ),
    )


def must_draw(subject: Subject) -> None:
    """Refuses a network that reads images.

    Raises:
        ValueError: naming those that make them.
    """
    if subject.whole and subject.reads is None:
        makers = [name for name in subject.model.networks if name in input_spaces(subject.model)]
        raise ValueError(
            f"Network {subject.name!r} reads images and draws none, so its units have no drawing; take a network that "
            f"makes them ({', '.join(makers) or 'this model has none'}), or deconvnet for what its units see."
        )


def _ground(
    subject: Subject, stage: str, state: Tensor, h: Tensor, baseline: str, seed: int, edits: Sequence[Edit]
) -> Tensor:
    """The stage's state at its baseline, (units, …)."""
    if baseline == "zero":
        return torch.zeros_like(state[0])
    if len(h) < _REFERENCES and subject.reads is not None:
        return subject.state(subject.inputs(None, seed, _REFERENCES), stage, edits).mean(dim=0)
    return state.mean(dim=0)
