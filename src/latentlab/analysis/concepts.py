"""Concepts: named things that a picture shows, each with a mask that says where.

A concept has a level: "edge" (a boundary of some orientation), "colour", "part", "whole". Masks come from a data set
that knows them, from the image itself, or from the nearest image that a data set can draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from latentlab.analysis.inference import to_numpy
from latentlab.analysis.meters import light

LEVELS = ("edge", "colour", "part", "whole")
ORIENTATIONS = ("vertical", "rising", "horizontal", "falling")
HUES = ("red", "yellow", "green", "cyan", "blue", "magenta")
_STEP = 0.1
_NEAR = 2
_CHUNK = 64


@dataclass(frozen=True, eq=False)
class ConceptMasks:
    """Where each concept is in each of some images.

    Attributes:
        names: what the concepts are called.
        levels: the level of each, one of LEVELS.
        masks: bool (n, concepts, height, width).

    Raises:
        ValueError: on masks of another shape, names that repeat, or an unknown level.
    """

    names: tuple[str, ...]
    levels: tuple[str, ...]
    masks: np.ndarray

    def __post_init__(self) -> None:
        masks = np.asarray(self.masks)
        object.__setattr__(self, "names", tuple(str(n) for n in self.names))
        object.__setattr__(self, "levels", tuple(self.levels))
        if masks.ndim != 4 or masks.shape[1] != len(self.names) or not masks.size:
            raise ValueError(
                f"Masks must be (n, {len(self.names)} concepts, height, width); got shape {masks.shape}."
            )
        if masks.dtype != np.bool_:
            if not np.isin(masks, (0, 1)).all():
                raise ValueError(
                    "Masks must be true or false (or 0 and 1) at each position; got other values."
                )
            masks = masks.astype(bool)
        if len(set(self.names)) != len(self.names) or len(self.levels) != len(self.names):
            raise ValueError(f"Concepts need different names and a level each; got {', '.join(self.names)}.")
        if wrong := sorted(set(self.levels) - set(LEVELS)):
            raise ValueError(f"A concept's level is one of {', '.join(LEVELS)}; got {wrong[0]!r}.")
        object.__setattr__(self, "masks", masks)

    def __len__(self) -> int:
        return len(self.masks)

    @classmethod
    def of(cls, masks: Mapping[str, Any], level: str | Mapping[str, str] = "whole") -> ConceptMasks:
        """Concepts from masks (n, height, width) by name; ``level`` is theirs, or the level of each by name."""
        names = tuple(masks)
        if not names:
            raise ValueError("Expected at least one concept; got none.")
        levels = tuple(level if isinstance(level, str) else level[name] for name in names)
        return cls(names, levels, np.stack([_array(masks[name]) for name in names], axis=1))

    def position(self, name: str) -> int:
        """Number of a concept.

        Raises:
            ValueError: on an unknown name; the message lists the known ones.
        """
        if name not in self.names:
            raise ValueError(f"No concept {name!r}; there are {', '.join(self.names)}.")
        return self.names.index(name)

    def select(self, names: Sequence[str] | None = None, levels: Sequence[str] | None = None) -> ConceptMasks:
        """The concepts of these names, or of these levels."""
        keep = [self.position(n) for n in names] if names is not None else list(range(len(self.names)))
        keep = [i for i in keep if levels is None or self.levels[i] in levels]
        if not keep:
            raise ValueError(
                f"No concept of level {levels}; there are {', '.join(sorted(set(self.levels)))}."
            )
        return ConceptMasks(
            tuple(self.names[i] for i in keep), tuple(self.levels[i] for i in keep), self.masks[:, keep]
        )

    @property
    def present(self) -> np.ndarray:
        """Whether an image shows a concept at all, bool (n, concepts)."""
        return np.asarray(self.masks.any(axis=(2, 3)))

    @property
    def share(self) -> np.ndarray:
        """Share of all positions of all images that a concept covers, (concepts,)."""
        return np.asarray(self.masks.mean(axis=(0, 2, 3)))

    @classmethod
    def join(cls, parts: Sequence[ConceptMasks]) -> ConceptMasks:
        """The same concepts of several lots of images, as one.

        Raises:
            ValueError: if the lots don't have the same concepts.
        """
        first = parts[0]
        if any(p.names != first.names or p.levels != first.levels for p in parts):
            raise ValueError("The concepts must be the same for all images; these lots have different ones.")
        return cls(first.names, first.levels, np.concatenate([p.masks for p in parts]))


Segment = Callable[[Tensor], ConceptMasks]
"""What finds concepts in any images (n, channels, height, width) in [0, 1]."""


def dataset_concepts(data: Any, indices: Any, *, parts_of: Sequence[str] | None = None) -> ConceptMasks:
    r"""The concepts of images of a data set that knows its masks (scenes, sprites).

    * whole: each of ``data.mask_names``. Those that are values of a category (the shapes) are kinds of a region,
      the others are the regions.
    * part: the halves of a region ("object top", "bottom", "left", "right"), cut at its mask's centre of gravity;
      and of each pair of regions "floor by wall": their pixels that are within 2 pixels, diagonals too, of the other.
    * colour: where a factor is a region's hue, the region by the nearest of six hues 60 degrees apart ("red floor").
    * edge: both sides of the boundary of a mask, by its direction in steps of 45 degrees ("vertical edge",
      "horizontal edge", "rising edge" /, "falling edge" \): the Sobel gradient of the mask that has the strongest.

    Args:
        data: a data set with ``mask_names`` and ``masks(indices)``.
        indices: int (n,).
        parts_of: regions that are cut in halves; None is "object", or all regions where there is none.

    Raises:
        ValueError: if the data set knows no masks.
    """
    if not hasattr(data, "masks"):
        raise ValueError(
            f"Data set {data.name!r} knows no masks; use image_concepts, masks of your own, or a segment function."
        )
    lots = torch.as_tensor(np.asarray(_array(indices))).reshape(-1).split(_CHUNK)
    return ConceptMasks.join([_dataset_concepts(data, lot, parts_of) for lot in lots])


def _dataset_concepts(data: Any, indices: Tensor, parts_of: Sequence[str] | None) -> ConceptMasks:
    names = tuple(data.mask_names)
    masks = data.masks(indices).cpu()
    kinds = {value for values in data.categories.values() for value in values}
    regions = [name for name in names if name not in kinds]
    found: dict[str, tuple[str, Tensor]] = {n: ("whole", masks[:, i]) for i, n in enumerate(names)}
    cut = parts_of if parts_of is not None else (["object"] if "object" in regions else regions)
    for name in cut:
        if name not in names:
            raise ValueError(f"No mask {name!r} in {data.name!r}; it has {', '.join(names)}.")
        for side, half in _halves(found[name][1]).items():
            found[f"{name} {side}"] = ("part", half)
    for i, one in enumerate(regions):
        for other in regions[i + 1 :]:
            found[f"{one} by {other}"] = ("part", _border(found[one][1], found[other][1]))
    if data.factor_space is not None:
        values = data.factors(indices).cpu()
        for column, factor in enumerate(data.factor_space.names):
            region = "object" if factor == "color" else factor.removesuffix("_hue")
            period = data.circular.get(factor)
            if period is None or region not in names or region == factor:
                continue
            nearest = torch.round(values[:, column] * len(HUES) / period).long() % len(HUES)
            for number, hue in enumerate(HUES):
                found[f"{hue} {region}"] = (
                    "colour",
                    found[region][1] & (nearest == number)[:, None, None],
                )
    steep, direction = _steepest(masks.float())
    for number, orientation in enumerate(ORIENTATIONS):
        found[f"{orientation} edge"] = ("edge", (steep > 1e-6) & (direction == number))
    return ConceptMasks(
        tuple(found),
        tuple(level for level, _ in found.values()),
        torch.stack([mask for _, mask in found.values()], dim=1).numpy(),
    )


def image_concepts(images: Any) -> ConceptMasks:
    """Concepts that any image shows by itself, so that no data set of masks is needed.

    * whole: "bright" (luminance at least 1/2; of digits, the ink) and "dark" (the rest).
    * part: what is bright in each quarter of the image ("bright top left").
    * colour, of RGB images: the nearest of six hues where saturation is at least 1/4 and value at least 1/5.
    * edge: where the strongest channel changes by at least 0.1 a pixel (Sobel), by direction in steps of 45 degrees.

    Args:
        images: (n, 1 or 3 channels, height, width) in [0, 1].

    Raises:
        ValueError: on images of another shape.
    """
    pixels = torch.as_tensor(np.asarray(_array(images), dtype=np.float32))
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        raise ValueError(f"Expected images (n, 1 or 3, height, width); got shape {tuple(pixels.shape)}.")
    bright = light(pixels) >= 0.5
    found: dict[str, tuple[str, Tensor]] = {"bright": ("whole", bright), "dark": ("whole", ~bright)}
    height, width = pixels.shape[2:]
    low, right = torch.arange(height)[:, None] * 2 >= height, torch.arange(width)[None] * 2 >= width
    for vertical, rows in (("top", ~low), ("bottom", low)):
        for side, columns in (("left", ~right), ("right", right)):
            found[f"bright {vertical} {side}"] = ("part", bright & rows & columns)
    if pixels.shape[1] == 3:
        hue, vivid = _hue(pixels)
        for number, name in enumerate(HUES):
            found[name] = ("colour", vivid & (hue == number))
    steep, direction = _steepest(pixels)
    for number, orientation in enumerate(ORIENTATIONS):
        found[f"{orientation} edge"] = ("edge", (steep >= _STEP) & (direction == number))
    return ConceptMasks(
        tuple(found),
        tuple(level for level, _ in found.values()),
        torch.stack([mask for _, mask in found.values()], dim=1).numpy(),
    )


@dataclass(frozen=True)
class ConceptMap:
    """How strongly a concept is there at each pixel of an image: what causal effects are measured with, by place.

    Args:
        name: what it is called.
        unit: of its numbers, such as "share of the pixels".
        maps: images (n, channels, height, width) in [0, 1] to (n, height, width), at least 0.
        segment: the function of images that finds it, where that finds several concepts at once; ``maps`` is not
            called then.
    """

    name: str
    unit: str
    maps: Callable[[Tensor], Tensor]
    segment: Segment | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Its mean over the pixels, (n,)."""
        return self.maps(images).mean((1, 2))


def concept_map(name: str, segment: Segment = image_concepts) -> ConceptMap:
    """Where a concept's mask is, by a function that finds concepts in any images, such as ``nearest_masks(data)``."""

    def maps(images: Tensor) -> Tensor:
        found = segment(images.detach())
        return torch.from_numpy(found.masks[:, found.position(name)]).to(images)

    return ConceptMap(name, "share of the pixels", maps, segment)


def light_map() -> ConceptMap:
    """The luminance of each pixel."""
    return ConceptMap("light", "mean luminance, 0 to 1", light)


def _array(values: Any) -> np.ndarray:
    return to_numpy(values) if isinstance(values, Tensor) else np.asarray(values)


def _halves(mask: Tensor) -> dict[str, Tensor]:
    rows, columns = (torch.arange(size, dtype=torch.float64) for size in mask.shape[1:])
    area = mask.sum((1, 2)).clamp_min(1)
    middle_row = (mask * rows[:, None]).sum((1, 2)) / area
    middle_column = (mask * columns).sum((1, 2)) / area
    above = rows[None, :, None] < middle_row[:, None, None]
    left = columns[None, None, :] < middle_column[:, None, None]
    return {"top": mask & above, "bottom": mask & ~above, "left": mask & left, "right": mask & ~left}


def _border(one: Tensor, other: Tensor) -> Tensor:
    def wide(mask: Tensor) -> Tensor:
        return F.max_pool2d(mask[:, None].float(), 2 * _NEAR + 1, 1, _NEAR)[:, 0] > 0

    return (one & wide(other)) | (other & wide(one))


def _steepest(channels: Tensor) -> tuple[Tensor, Tensor]:
    """Steepness (n, height, width), change a pixel, of the channel that has most, and its edge's ORIENTATIONS."""
    sobel = torch.tensor([[1.0, 2, 1]]).T @ torch.tensor([[-1.0, 0, 1]]) / 8
    padded = F.pad(channels, (1, 1, 1, 1), mode="replicate").flatten(0, 1)[:, None]
    across, down = (F.conv2d(padded, k[None, None]).view(channels.shape) for k in (sobel, sobel.T))
    steep, which = torch.hypot(across, down).max(dim=1)
    across, down = (g.gather(1, which[:, None])[:, 0] for g in (across, down))
    # Rounded first, or an angle on the border of two directions would be decided by float noise.
    turn = torch.round(torch.atan2(down, across) / (math.pi / 4) * 1e4) / 1e4
    return steep, torch.round(turn).long() % 4


def _hue(images: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest of HUES (n, height, width), and where there is enough colour to tell."""
    value, which = images.max(dim=1)
    spread = value - images.min(dim=1).values
    red, green, blue = images.unbind(1)
    safe = spread.clamp_min(1e-6)
    sixth = torch.where(
        which == 0,
        (green - blue) / safe,
        torch.where(which == 1, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    vivid = (value >= 0.2) & (spread >= 0.25 * value) & (spread > 0)
    return torch.round(sixth).long() % 6, vivid
