"""Specimens: what a dissection cuts: a network's inputs, the pictures they stand for, and where each concept is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.concepts import ConceptMasks, dataset_concepts, image_concepts
from latentlab.analysis.inference import as_images, check_seed, in_chunks, to_numpy
from latentlab.analysis.subject import Subject
from latentlab.models.contract import is_inference_model
from latentlab.models.edits import Edit


@dataclass(frozen=True)
class Specimens:
    """Inputs of a network with pictures and concepts.

    Attributes:
        inputs: (n, …) of the network.
        images: (n, channels, height, width): what an encoder or discriminator reads, what a generator draws; None for
            a foreign network that neither reads nor gives images.
        concepts: their masks; None where none were asked for.
        reconstruction_error: root mean square pixel difference between the pictures and the data images whose codes and
            masks were taken; None where the masks are those of the pictures themselves.
    """

    inputs: Tensor
    images: np.ndarray | None
    concepts: ConceptMasks | None
    reconstruction_error: float | None

    def known(self) -> ConceptMasks:
        """The concepts, which are there."""
        assert self.concepts is not None
        return self.concepts


def specimens(
    subject: Subject,
    data: Any,
    inputs: Any,
    concepts: Any,
    n: int,
    seed: int,
    batch_size: int,
    edits: Sequence[Edit] = (),
    cut: bool = True,
) -> Specimens:
    """Puts together what is to be looked at; call it under ``inference``.

    Args:
        subject: the network.
        data: a data set, of which ``n`` images are drawn; a generator gets the posterior means of them.
        inputs: inputs of the network instead; None with no data is ``n`` prior draws of a generator.
        concepts: ConceptMasks of the inputs, or a function images -> ConceptMasks; None takes the data set's masks
            where it has some, else the concepts that images show by themselves.
        n: how many.
        seed: of the draws.
        batch_size: inputs run at a time.
        edits: in force where images are drawn.
        cut: whether concepts are wanted.

    Raises:
        ValueError: if both data and inputs are given, or none where one is needed; on data for a generator without
            an encoder, or masks of another number.
    """
    if n < 2 or batch_size < 1:
        raise ValueError(
            f"Expected at least 2 images and a batch size of at least 1; got {n} and {batch_size}."
        )
    if data is not None and inputs is not None:
        raise ValueError("Expected data or inputs, not both; the inputs' masks are given by concepts=.")
    indices, error = None, None
    if data is not None:
        indices = data.sample(n, check_seed(seed)).cpu()
        read = torch.cat([data.images(part).cpu() for part in indices.split(batch_size)])
        if subject.reads is None:
            h = subject.inputs(read, seed)
        elif is_inference_model(subject.model):
            given = as_images(subject.model, read, name="data")
            h = subject.inputs(
                in_chunks(lambda part: subject.model.encode(part).code(), given, batch_size), seed
            )
        else:
            raise ValueError(
                f"{type(subject.model).__name__} has no encoder, so no code is known for an image of {data.name!r}; "
                "leave data out, and give concepts=, a function of the generated images, such as nearest_masks(data)."
            )
    else:
        h, read = subject.inputs(inputs, seed, n), None
    images = _images(subject, h, batch_size, edits)
    if not cut:
        return Specimens(h, images, None, None)
    if concepts is None and data is not None and hasattr(data, "masks"):
        found = dataset_concepts(data, indices)
        if subject.reads is not None and read is not None and images is not None:
            error = float(np.sqrt(np.mean((images - to_numpy(read)) ** 2)))
    elif isinstance(concepts, ConceptMasks):
        found = concepts
    else:
        if images is None:
            raise ValueError(
                f"Network {subject.name!r} neither reads nor gives images; give concepts=, ConceptMasks of its inputs."
            )
        segment = image_concepts if concepts is None else concepts
        if not callable(segment):
            raise TypeError(
                f"concepts is ConceptMasks or a function of images that gives some; got {type(concepts).__name__}."
            )
        found = ConceptMasks.join(
            [_checked(segment(part)) for part in torch.from_numpy(images).split(batch_size)]
        )
    if len(found) != len(h):
        raise ValueError(f"Expected masks of {len(h)} images, one for each input; got those of {len(found)}.")
    return Specimens(h, images, found, error)


def _checked(found: Any) -> ConceptMasks:
    if not isinstance(found, ConceptMasks):
        raise TypeError(f"A segment function gives ConceptMasks; got {type(found).__name__}.")
    return found


def _images(subject: Subject, h: Tensor, batch_size: int, edits: Sequence[Edit]) -> np.ndarray | None:
    if subject.reads is not None:
        return in_chunks(lambda part: subject.output(part, edits), h, batch_size)
    if h.ndim == 4 and h.shape[1] in (1, 3):
        return to_numpy(h)
    if subject.whole:
        return None
    output = subject.output(h[:1], ())
    if output.ndim != 4 or output.shape[1] not in (1, 3):
        return None
    return in_chunks(lambda part: subject.output(part, edits), h, batch_size)
