"""Hidden layers: what the stages of a network hold.

Symbols: a *stage* is a named step of a network ("generator.block2"), its *units* are the channels of its
map, or the entries of a flat state. Everything runs without hooks of ours and on copies, so a shared
model stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from latentlab.analysis.inference import inference, to_numpy
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.subject import subject_of, tensors
from latentlab.models.edits import Edit


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Activations(Result):
    """States of a network's stages.

    Attributes:
        states: {stage: (n, units) or (n, units, height, width)}, in running order, after the edits.
        inputs: what the network was given, (n, …).
        addresses: addresses of the stages, such as "generator.block2".
        network: name of the network.

    The certificate holds ``loop_difference``, the largest difference between the states of the batch and
    those of its last input run alone; and ``finite``, the share of values that are neither NaN nor infinite.
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
    subject = subject_of(model, network)
    edits = subject.check(edits)
    h = subject.inputs(inputs, seed)
    wanted = [stages] if isinstance(stages, str) else stages
    with inference(model):
        states, alone = (tensors(subject.network.activations(x, wanted, edits)) for x in (h, h[-1:]))
    arrays = {name: to_numpy(state) for name, state in states.items()}
    with np.errstate(invalid="ignore"):  # infinities are counted below
        gaps = [np.abs(to_numpy(alone[n])[0] - state[-1]).max(initial=0.0) for n, state in arrays.items()]
    finite = sum(int(np.isfinite(state).sum()) for state in arrays.values())
    return Activations(
        states=arrays,
        inputs=to_numpy(h),
        addresses=tuple(f"{subject.name}.{name}" for name in states),
        network=subject.name,
        certificate={
            "loop_difference": float(max(gaps)),
            "finite": finite / max(1, sum(state.size for state in arrays.values())),
        },
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
    subject = subject_of(model, network)
    edits = subject.check(edits)
    h = subject.inputs(inputs, seed)[:1]
    with inference(model):
        states = tensors(subject.network.activations(h, None if stage is None else [stage], edits))
        if subject.reads is not None:
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
            model,
            {"network": subject.name, "inputs": h, "stage": name, "edits": edits},
            seed if inputs is None else None,
        ),
    )


def stages_of(model: Any, network: str = "generator", inputs: Any = None, *, seed: int = 0) -> list[Any]:
    """What each stage of a network is: a list of StageInfo, measured on one input.

    Args:
        model: a model, or a staged network itself.
        network: name of the model's network.
        inputs: as for ``activations``; None is a prior draw for a generator, a grey image for an encoder.
        seed: decides the code where ``inputs`` is None.
    """
    subject = subject_of(model, network)
    if inputs is None and subject.whole and subject.reads is None:
        inputs = torch.full((1, *model.image_shape), 0.5)
    h = subject.inputs(inputs, seed)[:1]
    with inference(model if isinstance(model, nn.Module) else subject.network):
        return subject.network.describe(h)
