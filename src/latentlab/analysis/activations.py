"""Hidden layers: what the stages of a network hold, and what the image loses when a unit is edited.

Symbols: a *stage* is a named step of a network ("generator.block2"), its *units* are the channels of its
map, or the entries of a flat state. Everything runs without hooks and on copies, so a shared model stays
as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from latentlab.analysis.inference import (
    BATCH_SIZE,
    as_codes,
    as_images,
    device_of,
    in_chunks,
    inference,
    needs_encoder,
    to_numpy,
    to_tensor,
)
from latentlab.analysis.results import Result, provenance
from latentlab.models.edits import Edit


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Activations(Result):
    """States of a network's stages.

    Attributes:
        states: {stage: (n, units) or (n, units, height, width)}, in running order, after the edits.
        inputs: what the network was given, (n, …).
        addresses: addresses of the stages, such as "generator.block2".
        network: name of the network.
    """

    states: Mapping[str, np.ndarray]
    inputs: np.ndarray
    addresses: tuple[str, ...]
    network: str


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FeatureMaps(Result):
    """The maps of all units of one stage for one input.

    Attributes:
        maps: (units, height, width); height and width are 1 for a flat stage.
        mean: mean of each map, (units,).
        std: standard deviation within each map, (units,).
        low: smallest value of each map, (units,).
        high: largest value of each map, (units,).
        positive: share of positive positions of each map, (units,); 0 throughout is a unit that a ReLU
            silenced.
        image: (channels, height, width) in [0, 1]: what a generator draws, under the edits, or what an
            encoder was given; None for a foreign network.
        stage: name of the stage.
        address: its address within the model.
        network: name of the network.

    The certificate holds ``silent``, the share of units that are zero everywhere.
    """

    maps: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray
    positive: np.ndarray
    image: np.ndarray | None
    stage: str
    address: str
    network: str


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


@dataclass(frozen=True)
class _Subject:
    """A model's network, or a network alone, with the way from its input to what a person looks at."""

    model: Any
    network: Any
    name: str

    @property
    def whole(self) -> bool:
        return self.model is not self.network

    def inputs(self, given: Any, seed: int, n: int = 1) -> Tensor:
        if self.whole and self.name == "generator":
            if given is None:
                return self.model.latent_space.sample(n, seed, device=device_of(self.model))
            return as_codes(self.model, given, name="inputs")
        if given is None:
            raise ValueError(f"Network {self.name!r} needs inputs=, such as images of a data set.")
        if self.whole:
            return as_images(self.model, given, name="inputs")
        return to_tensor(given, device_of(self.network))

    def codes(self, h: Tensor, edits: Sequence[Edit]) -> Tensor | None:
        if self.whole and self.name == "encoder":
            needs_encoder(self.model)
            return self.model.encode(h, edits=edits).mean
        return None

    def output(self, h: Tensor, edits: Sequence[Edit]) -> Tensor:
        """Images of a generator, reconstructions (of the posterior mean) of an encoder, else raw outputs."""
        if self.whole and self.name in ("generator", "encoder"):
            codes = self.codes(h, edits)
            return self.model.decode(h if codes is None else codes, edits=edits)
        return self.network.run(h, edits)

    def check(self, edits: Sequence[Edit]) -> tuple[Edit, ...]:
        """Refuses edits that this run would never meet, since they would silently change nothing."""
        edits = tuple(edits)
        met = {self.name} | ({"generator"} if self.whole and self.name == "encoder" else set())
        for edit in edits:
            if edit.network not in met:
                raise ValueError(
                    f"The edit of {edit.stage!r} has no effect on network {self.name!r}; "
                    f"it needs stages of {' or '.join(sorted(met))}."
                )
        return edits


def activations(
    model: Any,
    network: str = "generator",
    inputs: Any = None,
    stages: Sequence[str] | str | None = None,
    *,
    edits: Sequence[Edit] = (),
    seed: int = 0,
) -> Activations:
    """The states of a network's stages.

    Args:
        model: a model, or a staged network itself (an adapted foreign one, too).
        network: name of the model's network, such as "generator" or "encoder".
        inputs: codes (n, dim) for a generator, images (n, channels, height, width) for an encoder or
            discriminator; None is one prior draw of ``seed`` for a generator.
        stages: names or addresses; None for all.
        edits: edits of the network.
        seed: decides the code where ``inputs`` is None.

    Raises:
        ValueError: on an unknown network or stage; the message lists the valid ones.
    """
    subject = _subject(model, network)
    edits = subject.check(edits)
    h = subject.inputs(inputs, seed)
    wanted = [stages] if isinstance(stages, str) else stages
    with inference(model):
        states = _tensors(subject.network.activations(h, wanted, edits))
    return Activations(
        states={name: to_numpy(state) for name, state in states.items()},
        inputs=to_numpy(h),
        addresses=tuple(f"{subject.name}.{name}" for name in states),
        network=subject.name,
        certificate={},
        provenance=provenance(
            model,
            {"network": subject.name, "inputs": h, "stages": list(states), "edits": edits},
            seed if inputs is None else None,
        ),
    )


def feature_maps(
    model: Any,
    network: str = "generator",
    inputs: Any = None,
    stage: str | None = None,
    *,
    edits: Sequence[Edit] = (),
    seed: int = 0,
) -> FeatureMaps:
    """The maps of all units of a stage for one input (the first, when several are given).

    Args:
        model: a model, or a staged network itself.
        network: name of the model's network.
        inputs: as for ``activations``.
        stage: name or address of the stage; None is the first one with a spatial map.
        edits: edits of the network, seen in the maps and in the image.
        seed: decides the code where ``inputs`` is None.

    Raises:
        ValueError: on an unknown network or stage, or a stage whose state is neither flat nor a map.
    """
    subject = _subject(model, network)
    edits = subject.check(edits)
    h = subject.inputs(inputs, seed)[:1]
    with inference(model):
        states = _tensors(subject.network.activations(h, None if stage is None else [stage], edits))
        if subject.whole and subject.name == "generator":
            image = to_numpy(subject.output(h, edits))[0]
        else:
            image = to_numpy(h)[0] if subject.whole else None
    name = next((n for n, s in states.items() if s.ndim == 4 and s.shape[2] > 1), next(iter(states)))
    state = to_numpy(states[name])[0]
    if state.ndim not in (1, 3):
        raise ValueError(
            f"Stage {name!r} has a state of shape {state.shape}, neither (units,) nor (units, h, w)."
        )
    maps = state.reshape(len(state), *(state.shape[1:] or (1, 1)))
    axes = (1, 2)
    return FeatureMaps(
        maps=maps,
        mean=maps.mean(axis=axes),
        std=maps.std(axis=axes),
        low=maps.min(axis=axes),
        high=maps.max(axis=axes),
        positive=(maps > 0).mean(axis=axes),
        image=image,
        stage=name,
        address=f"{subject.name}.{name}",
        network=subject.name,
        certificate={"silent": float((maps == 0).all(axis=axes).mean())},
        provenance=provenance(
            model, {"network": subject.name, "inputs": h, "stage": name, "edits": edits}, seed
        ),
    )


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
    subject = _subject(model, network)
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
        ValueError: on an unknown network, stage or unit.
    """
    subject = _subject(model, network)
    edits = subject.check(edits)
    if batch_size < 1 or n < 1:
        raise ValueError(f"batch_size and n must be at least 1; got {batch_size} and {n}.")
    h = subject.inputs(inputs, seed, n)
    with inference(model):
        ((name, state),) = _tensors(subject.network.activations(h, [stage], edits)).items()
        width = state.shape[1]
        numbers = np.arange(width) if units is None else np.asarray(list(units), dtype=np.int64)
        if not len(numbers) or numbers.min() < 0 or numbers.max() >= width:
            raise ValueError(
                f"Stage '{subject.name}.{name}' has units 0 to {width - 1}; got {numbers.tolist()}."
            )
        address = f"{subject.name}.{name}"
        alive = to_numpy((state != 0).flatten(2).any(dim=2) if state.ndim > 2 else state != 0).T[numbers]
        pairs = np.argwhere(alive)
        base, base_codes = subject.output(h, edits), subject.codes(h, edits)
        per_input = np.zeros(alive.shape)
        code_change = None if base_codes is None else np.zeros((len(numbers), base_codes.shape[1]))
        if base_codes is not None:
            sigma = model.latent_space.std.to(base_codes)
        for start in range(0, len(pairs), batch_size):
            rows, columns = pairs[start : start + batch_size].T
            each = _AblateEach(stage=address, rows=torch.as_tensor(numbers[rows], device=h.device))
            part = h[torch.as_tensor(columns, device=h.device)]
            images = subject.output(part, (*edits, each))
            change = (images - base[columns]).abs().flatten(1).mean(dim=1)
            per_input[rows, columns] = to_numpy(change)
            if base_codes is not None:
                moved = (subject.codes(part, (*edits, each)) - base_codes[columns]).abs() / sigma
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
        code_effect=None if code_change is None else code_change / len(h),
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


def _subject(model: Any, network: str) -> _Subject:
    networks = getattr(model, "networks", None)
    if networks is None:
        if not (callable(getattr(model, "run", None)) and callable(getattr(model, "activations", None))):
            raise TypeError(f"Expected a model or a staged network; got {type(model).__name__}.")
        return _Subject(model, model, model.name)
    if network not in networks:
        raise ValueError(f"No network {network!r} in this model; it has {', '.join(networks)}.")
    return _Subject(model, networks[network], network)


def _tensors(states: Mapping[str, Any]) -> dict[str, Tensor]:
    """The states that are tensors; a stage that holds several is not a set of units."""
    found = {name: state for name, state in states.items() if isinstance(state, Tensor)}
    if not found:
        raise ValueError(
            f"The state of stage {next(iter(states))!r} is no single tensor, so it has no units."
        )
    return found


def stages_of(model: Any, network: str = "generator", inputs: Any = None, *, seed: int = 0) -> list[Any]:
    """What each stage of a network is: a list of StageInfo, measured on one input.

    Args:
        model: a model, or a staged network itself.
        network: name of the model's network.
        inputs: as for ``activations``; None is a prior draw for a generator, a grey image for an encoder.
        seed: decides the code where ``inputs`` is None.
    """
    subject = _subject(model, network)
    if inputs is None and subject.whole and network != "generator":
        inputs = torch.full((1, *model.image_shape), 0.5)
    h = subject.inputs(inputs, seed)[:1]
    with inference(model if isinstance(model, nn.Module) else subject.network):
        return subject.network.describe(h)
