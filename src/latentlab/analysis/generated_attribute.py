"""An attribute of what a generator draws, with the features that may explain it: latents, or units of a stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.inference import inference, to_numpy
from latentlab.analysis.meters import meter_of
from latentlab.analysis.subject import Subject, subject_of
from latentlab.latents.priors import Normal, Uniform
from latentlab.models.edits import Edit


@dataclass(frozen=True)
class _ShiftEach(Edit):
    """Shifts all units of a stage, by other amounts in each row."""

    by: Tensor | None = None

    def apply(self, h: Tensor, other: Tensor | None = None) -> Tensor:
        assert self.by is not None
        return h + self.by.reshape(*self.by.shape, *[1] * (h.ndim - 2)).to(h)


class Attribute:
    """What is measured of codes, the features that may explain it, and how these are moved.

    Args:
        model: a generative model.
        meter: what is measured, as for ``meter_of``, or a unit such as "generator.block2:17".
        features: "latents", or a stage's address for the means of its units.
        batch_size: codes run at a time.
    """

    def __init__(self, model: Any, meter: Any, features: str, batch_size: int) -> None:
        self.model, self.batch_size, self.meter = model, batch_size, None
        self.drawing = subject_of(model, "generator")
        self.read: tuple[Subject, str, int] | None = None
        if isinstance(meter, str) and ":" in meter:
            address, _, unit = meter.rpartition(":")
            subject, stage = self._stage(address)
            if not unit.isdigit():
                raise ValueError(f"A unit is given as 'generator.block2:17'; got {meter!r}.")
            with inference(model):
                width = subject.state(subject.inputs(None, 0), stage).shape[1]
            if int(unit) >= width:
                raise ValueError(f"Stage {stage!r} has units 0 to {width - 1}; got unit {unit}.")
            self.read, self.name, self.unit = (subject, stage, int(unit)), meter, "mean activation"
        else:
            self.meter = meter_of(meter)
            self.name, self.unit = self.meter.name, self.meter.unit
        self.stage: tuple[Subject, str] | None = None
        space = model.latent_space
        if features == "latents":
            self.names: Sequence[str] = space.names
            self.groups: list[list[int]] = []
            for block in space.blocks:
                where = list(range(space.dim))[space.slice(block.name)]
                free = isinstance(block.prior, (Normal, Uniform))
                # A category is one choice: moving one of its coordinates alone would leave the space.
                self.groups += [[i] for i in where] if free else [where]
        else:
            subject, stage = self.stage = self._stage(features)
            with inference(model):
                width = subject.state(subject.inputs(None, 0), stage).shape[1]
            self.names = [f"{stage}:{i}" for i in range(width)]
            self.groups = [[i] for i in range(width)]

    def _stage(self, address: str) -> tuple[Subject, str]:
        network, dot, _ = address.partition(".")
        if not dot:
            raise ValueError(
                f"features is 'latents' or a stage's address such as 'generator.block2'; got {address!r}."
            )
        subject = subject_of(self.model, network)
        if subject.reads is None:
            raise ValueError(f"Network {network!r} reads no codes; take a stage of one that does.")
        return subject, subject.address(address)

    def features(self, z: Tensor) -> np.ndarray:
        """(n, features)."""
        if self.stage is None:
            return to_numpy(z).astype(np.float64)
        subject, stage = self.stage
        states = (subject.state(subject.inputs(part, 0), stage) for part in z.split(self.batch_size))
        return np.concatenate([_means(state) for state in states]).astype(np.float64)

    def measure(self, z: Tensor, by: np.ndarray | None = None) -> np.ndarray:
        """The attribute (n,), with the stage's units shifted by (n, features) where that is given."""
        found = []
        shifts = [None] * len(z) if by is None else torch.as_tensor(by, dtype=torch.float32)
        for start in range(0, len(z), self.batch_size):
            part, edits = z[start : start + self.batch_size], ()
            if by is not None and self.stage is not None:
                rows = shifts[start : start + self.batch_size]
                assert isinstance(rows, Tensor)
                edits = (_ShiftEach(stage=self.stage[1], by=rows.to(z.device)),)
            if self.read is not None:
                subject, stage, unit = self.read
                found.append(_means(subject.state(subject.inputs(part, 0), stage, edits))[:, unit])
            else:
                assert self.meter is not None
                images = self.drawing.output(self.drawing.inputs(part, 0), edits)
                found.append(np.asarray(to_numpy(self.meter(images))).reshape(len(part)))
        return np.concatenate(found).astype(np.float64)


def _means(state: Tensor) -> np.ndarray:
    return to_numpy(state.flatten(2).mean(2) if state.ndim > 2 else state)
