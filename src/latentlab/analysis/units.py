"""Edits of units: what the image loses or gains by them.

Symbols: a *unit* is a channel of a stage's map or an entry of its flat state, addressed
"generator.block2:17".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from latentlab.analysis.inference import BATCH_SIZE, in_chunks, inference, to_numpy
from latentlab.analysis.ranking import UnitRanking as UnitRanking
from latentlab.analysis.ranking import rank_units as rank_units
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.subject import subject_of
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
