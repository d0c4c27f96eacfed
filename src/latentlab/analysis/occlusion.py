"""Which part of an image a unit or a code depends on: a grey patch is moved over the image.

It asks the network itself, so unlike a projection back to the pixels it holds for any network and any non-linearity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.backpropagation import UntraceableError, receptive_fields
from latentlab.analysis.deconvnet import image_subject
from latentlab.analysis.inference import BATCH_SIZE, evaluating, inference, needs_encoder, to_numpy
from latentlab.analysis.ranking import check_units
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.subject import Subject


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Occlusion(Result):
    """What changes when a patch of an image is covered.

    Attributes:
        change: covered minus clean, (targets, rows, columns), one entry a place of the patch. In activations for a
            unit; for codes, in the prior's standard deviations.
        heat: the mean absolute change over all patches that cover a pixel, (targets, height, width).
        clean: the targets for the image itself, (targets,), activations or posterior means.
        corners: first row and first column of each place, (rows, columns, 2).
        image: (channels, height, width) in [0, 1].
        targets: what was watched, such as "encoder.conv2:7" or "z3".
        position: row and column of a unit's map whose activation was watched; (0, 0) otherwise.
        size: edge of the patch, pixels.
        stride: pixels from one place to the next.
        fill: what it is filled with, 0 to 1.
        network: name of the network.

    The certificate holds ``empty_patch``, the largest change by patches that show the image itself (0);
    ``loop_difference``, the largest difference between a batch and single runs; and for a unit ``outside_field``, the
    largest change by patches outside its receptive field (0; absent where the field can't be told).
    """

    change: np.ndarray
    heat: np.ndarray
    clean: np.ndarray
    corners: np.ndarray
    image: np.ndarray
    targets: tuple[str, ...]
    position: tuple[int, ...]
    size: int
    stride: int
    fill: float
    network: str


def occlusion(
    model: Any,
    network: str,
    image: Any,
    stage: str | None = None,
    unit: int = 0,
    *,
    size: int | None = None,
    stride: int | None = None,
    fill: float = 0.5,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], object] | None = None,
) -> Occlusion:
    """Moves a patch over an image and measures how a unit, or every code, changes.

    A unit is watched at the place of its map that answers most to the clean image.

    Args:
        model: a model, or a staged network itself.
        network: name of a network that reads images.
        image: (channels, height, width) in [0, 1].
        stage: the unit's stage; None to watch the posterior means of an encoder instead.
        unit: the unit.
        size: edge of the patch in pixels; None for a quarter of the image's shorter edge.
        stride: pixels from place to place; None for half of ``size``. The last place ends at the image's edge.
        fill: what the patch is filled with, 0 to 1.
        batch_size: covered images run at a time.
        progress: called with (places done, all); it may raise to cancel.

    Raises:
        ValueError: on a generator, an unknown stage or unit, several images, or a patch that does not fit.

    References:
        Visualizing and understanding convolutional networks (Zeiler and Fergus, 2014),
        https://arxiv.org/abs/1311.2901. There the whole map is summed; here one place of it is watched, so that the
        receptive field can be checked.
    """
    subject = image_subject(model, network, "Occlusion", image)
    x = subject.inputs(image, 0)
    x = x[None] if x.ndim == 3 else x
    if len(x) != 1 or x.ndim != 4:
        raise ValueError(f"image must be one image (channels, height, width); got {tuple(np.shape(image))}.")
    edges = tuple(x.shape[2:])
    size = max(1, min(edges) // 4) if size is None else size
    stride = max(1, size // 2) if stride is None else stride
    if not 1 <= size <= min(edges) or stride < 1 or not 0.0 <= fill <= 1.0:
        raise ValueError(
            f"size must be 1 to {min(edges)}, stride at least 1 and fill 0 to 1; got {size}, {stride}, {fill}."
        )
    rows, columns = (sorted({*range(0, edge - size, stride), edge - size}) for edge in edges)
    corners = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
    watch = _Watched(subject, model, x, stage, unit)
    flat = [(int(r), int(c)) for r, c in corners.reshape(-1, 2)]
    found = []
    with inference(model):
        clean = watch.values(x)
        for start in range(0, len(flat), batch_size):
            covered = torch.cat(
                [_cover(x, corner, size, fill) for corner in flat[start : start + batch_size]]
            )
            found.append(watch.values(covered) - clean)
            if progress is not None:
                progress(min(start + batch_size, len(flat)), len(flat))
        change = torch.cat(found)
        alone = torch.cat([watch.values(_cover(x, flat[i], size, fill)) for i in (0, len(flat) // 2)]) - clean
        same = torch.cat([_cover(x, corner, size, None) for corner in flat[:batch_size]])
        empty = float((watch.values(same) - clean).abs().max())
    proof = {
        "empty_patch": empty,
        "loop_difference": float((alone - change[[0, len(flat) // 2]]).abs().max()),
    }
    field = watch.field()
    if field is not None:
        outside = [not bool(field[r : r + size, c : c + size].any()) for r, c in flat]
        proof["outside_field"] = float(change[torch.tensor(outside)].abs().max()) if any(outside) else 0.0
    changes = to_numpy(change)
    total, times = np.zeros((changes.shape[1], *edges)), np.zeros(edges)
    for (r, c), values in zip(flat, changes, strict=True):
        total[:, r : r + size, c : c + size] += np.abs(values)[:, None, None]
        times[r : r + size, c : c + size] += 1
    return Occlusion(
        change=changes.T.reshape(-1, *corners.shape[:2]),
        heat=(total / np.maximum(times, 1)).astype(np.float32),
        clean=to_numpy(clean)[0] * watch.scale,
        corners=corners,
        image=to_numpy(x)[0],
        targets=watch.names,
        position=watch.position,
        size=size,
        stride=stride,
        fill=float(fill),
        network=subject.name,
        certificate=proof,
        provenance=provenance(
            model,
            {
                "network": subject.name,
                "image": x,
                "stage": stage,
                "unit": unit,
                "size": size,
                "stride": stride,
                "fill": fill,
            },
        ),
    )


class _Watched:
    """What is watched: one entry of a stage, or the posterior means in the prior's standard deviations."""

    def __init__(self, subject: Subject, model: Any, x: Tensor, stage: str | None, unit: int) -> None:
        self.subject, self.model, self.shape = subject, model, tuple(x.shape[1:])
        self.stage, self.unit, self.position = stage, unit, (0, 0)
        self.scale: Any = 1.0
        if stage is None:
            needs_encoder(model)
            if subject.name != "encoder":
                raise ValueError(
                    f"Network {subject.name!r} gives no posterior; name a stage and a unit of it."
                )
            self.names: tuple[str, ...] = model.latent_space.names
            self.std = model.latent_space.std.to(x)
            self.scale = to_numpy(self.std)
            return
        name = subject.network.stage_name(stage)
        with inference(model):
            state = subject.state(x, name)[0]
        check_units([unit], len(state), subject.address(name))
        if state.ndim == 3:
            row, column = divmod(int(state[unit].argmax()), state.shape[2])
            self.position = (row, column)
        self.stage, self.names = name, (f"{subject.address(name)}:{unit}",)
        self._empty = torch.zeros(1, *state.shape, device=x.device)

    def values(self, x: Tensor) -> Tensor:
        """(n, targets) for images (n, channels, height, width)."""
        if self.stage is None:
            codes = self.subject.codes(x, ())
            assert codes is not None
            return codes / self.std
        state = self.subject.state(x, self.stage)[:, self.unit]
        return state[:, None] if state.ndim == 1 else state[:, self.position[0], self.position[1]][:, None]

    def field(self) -> Tensor | None:
        """The pixels (height, width) that a unit can depend on, where that can be told."""
        if self.stage is None:
            return None
        marks = self._empty.clone()
        if marks.ndim == 2:
            marks[0, self.unit] = 1.0
        else:
            marks[0, self.unit, self.position[0], self.position[1]] = 1.0
        try:
            with evaluating(self.model):
                return receptive_fields(self.subject, self.shape, self.stage, marks)[0]
        except UntraceableError:
            return None


def _cover(x: Tensor, corner: tuple[int, int], size: int, fill: float | None) -> Tensor:
    """The image with a patch covered; with None by what is there."""
    covered, (row, column) = x.clone(), corner
    patch = (slice(None), slice(None), slice(row, row + size), slice(column, column + size))
    covered[patch] = x[patch] if fill is None else fill
    return covered
