"""What in an image a hidden unit answered: its activation projected back to the pixels, and the patch it came from.

Symbols: a *switch* is the place of the largest value in a window of max-pooling; a unit's *receptive field* at a place
of its map are the pixels that its activation there can depend on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.backpropagation import RULES, followed, pulled_back, receptive_fields
from latentlab.analysis.deconvnet_certificate import certify
from latentlab.analysis.inference import check_seed, evaluating, inference, to_numpy
from latentlab.analysis.ranking import check_units
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.subject import Subject, subject_of

CAVEATS = {
    "deconvnet": "Deconvnet and guided maps are largely image recovery, hardly sensitive to the weights above, and "
    "no evidence of importance (Nie et al., 2018; Adebayo et al., 2018).",
    "gradient": "The gradient tells what a slight change of the pixels would do to the unit, and no more.",
}
CAVEATS["guided"] = CAVEATS["deconvnet"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Deconvolution(Result):
    """Activations of units projected back to the pixels, each with the image and the patch that it came from.

    Attributes:
        projections: (units, count, channels, height, width), signed, in units of activation x weight.
        images: the images that excite each unit most, (units, count, channels, height, width) in [0, 1].
        patches: their receptive fields cut out, (units, count, channels, patch height, patch width); NaN beyond the
            image's edge.
        boxes: each receptive field, (units, count, 4): first row, first column, and those behind the last.
        activations: the kept activation, (units, count); with keep "all" the largest of those kept.
        positions: its row and column on the unit's map, (units, count, 2); 0, 0 for a flat stage.
        indices: which of the inputs, (units, count).
        units: the units, (units,).
        rule: "deconvnet", "guided" or "gradient".
        keep: what was kept of a map: "max", "all" or "row, column".
        slopes: slope below 0 of each rectifier on the way, in running order; 0 is a ReLU.
        caveat: what must be said beside the picture.
        stage: name of the stage.
        address: its address within the model.
        network: name of the network.

    The certificate holds, measured on the first batch unless it says otherwise: ``gradient_difference``, how far the
    same walk with the gradient's rule is from autograd's own gradient, and ``state_difference``, the states likewise,
    both relative; ``outside_field``, the largest value of any projection outside its receptive field (0);
    ``homogeneity``, by how much, relative, the projection of 2.5 times the activation differs from 2.5 times the
    projection (0); ``other_unit``, the median cosine between a projection and that of another unit from the same place
    and image, drawn at random of those that are active there: near 1 the map tells of the image more than of the unit;
    ``silent``, the share of kept activations that are 0. Where there are rectifiers ``rule_difference``, the largest
    difference, relative to the signals that arrived there, between those that left them and the rule's definition (0),
    and ``rule_share``, the change that this is to what the gradient's rule would let pass, as a share of the signals
    that arrived. Where there is max-pooling ``switches``, the largest relative difference between a signal unpooled
    here and by autograd's own way back (0), and ``switch_share``, the share of the projections that changes with
    another image's switches. A gradient through operations that can't be followed has ``homogeneity``, ``other_unit``
    and ``silent`` alone.
    """

    projections: np.ndarray
    images: np.ndarray
    patches: np.ndarray
    boxes: np.ndarray
    activations: np.ndarray
    positions: np.ndarray
    indices: np.ndarray
    units: np.ndarray
    rule: str
    keep: str
    slopes: tuple[float, ...]
    caveat: str
    stage: str
    address: str
    network: str


def deconvnet(
    model: Any,
    network: str,
    stage: str,
    inputs: Any,
    units: Sequence[int] | int | None = None,
    *,
    rule: str = "deconvnet",
    keep: str | tuple[int, int] = "max",
    count: int = 9,
    n_units: int = 8,
    seed: int = 0,
    batch_size: int = 64,
    progress: Callable[[int, int], object] | None = None,
) -> Deconvolution:
    """Projects a unit's activation back to the pixels, for the images that excite the unit most.

    One unit's activation is kept, all others of its stage are set to 0, and the rest is back-propagation with one
    changed rule: a signal p at a rectifier with input x passes as p [x > 0] ("gradient"), p [p > 0] ("deconvnet") or
    p [p > 0] [x > 0] ("guided"); where the rectifier has a slope a below 0, factor a takes the place of factor 0.
    Max-pooling sends a signal back to its switch and adds up where windows overlap; convolutions are transposed without
    their bias; batch norm multiplies and does not shift. The projection starts from the activation itself, so it scales
    with it.

    Args:
        model: a model, or a staged network itself (an adapted foreign one, too).
        network: name of a network that reads images: "encoder" or "discriminator".
        stage: name or address of the stage.
        inputs: images (n, channels, height, width) in [0, 1] to choose from.
        units: which units, one or several, each once; None for the ``n_units`` with the largest activations.
        rule: "deconvnet", "guided" or "gradient".
        keep: of a unit's map the largest value alone ("max"), all of them ("all"), or the one at (row, column).
        count: images a unit, those with the largest activation (at the place that is kept).
        n_units: how many units where none are named.
        seed: decides the other units and images that the certificate compares with.
        batch_size: images run at a time.
        progress: called with (projections done, all); it may raise to cancel.

    Raises:
        ValueError: on a generator, an unknown stage, unit, rule or place, or, for rules other than "gradient", where
            the stage depends on the images by operations that no rule is known for, such as SiLU or attention.

    References:
        Visualizing and understanding convolutional networks (Zeiler and Fergus, 2014),
        https://arxiv.org/abs/1311.2901
        Striving for simplicity: the all convolutional net (Springenberg et al., 2015),
        https://arxiv.org/abs/1412.6806, for the guided rule
        A theoretical explanation for perplexing behaviors of backpropagation-based visualizations (Nie et al., 2018),
        https://arxiv.org/abs/1805.07039
        Sanity checks for saliency maps (Adebayo et al., 2018), https://arxiv.org/abs/1810.03292
        Differs from the first: strided convolutions without pooling have no switches, and leaky rectifiers leak.
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}; got {rule!r}.")
    if count < 1 or n_units < 1 or batch_size < 1:
        raise ValueError(
            f"count, n_units and batch_size must be at least 1; got {count}, {n_units}, {batch_size}."
        )
    subject = image_subject(model, network, "Deconvnet", inputs)
    x, rng = subject.inputs(inputs, 0), np.random.default_rng(check_seed(seed))
    name = subject.network.stage_name(stage)
    with inference(model):
        shape = tuple(subject.state(x[:1], name).shape[2:]) or (1, 1)
        place = _place(keep, shape, subject.address(name))
        parts = [_peaks(subject.state(part, name), place) for part in x.split(batch_size)]
    peaks, places = (np.concatenate(column) for column in zip(*parts, strict=True))
    chosen = check_units(units, peaks.shape[1], subject.address(name))
    if units is None:
        chosen = np.argsort(-peaks.max(axis=0), kind="stable")[:n_units]
    indices = np.argsort(-peaks[:, chosen].T, axis=1, kind="stable")[:, :count]
    rows, columns = np.repeat(chosen, indices.shape[1]), indices.ravel()
    where = np.full(len(rows), -1) if keep == "all" else places[columns, rows]
    projections, fields, outside, proof, walk = [], [], 0.0, {}, None
    with evaluating(model):
        for start in range(0, len(rows), batch_size):
            part = slice(start, start + batch_size)
            images = x[torch.as_tensor(columns[part], device=x.device)].requires_grad_()
            state, walk = followed(subject, images, name, rule)
            marks = _marks(state, rows[part], where[part])
            projection = pulled_back(state, marks * state.detach(), images)
            field = torch.ones_like(images[:, 0], dtype=torch.bool)
            if walk is not None:
                field = receptive_fields(subject, tuple(x.shape[1:]), name, marks)
                outside = max(outside, float((projection * ~field[:, None]).abs().max()))
            if not start:
                proof = certify(subject, name, rule, images, marks, (state, walk, projection), x, rng)
            projections.append(to_numpy(projection))
            fields.append(field.cpu().numpy())
            if progress is not None:
                progress(min(start + batch_size, len(rows)), len(rows))
    shaped = (*indices.shape, *x.shape[1:])
    pictures = to_numpy(x)[columns].reshape(shaped)
    boxes = np.stack([_box(field) for field in np.concatenate(fields)]).reshape(*indices.shape, 4)
    kept = peaks[columns, rows].reshape(indices.shape)
    return Deconvolution(
        projections=np.concatenate(projections).reshape(shaped),
        images=pictures,
        patches=cut_out(pictures, boxes),
        boxes=boxes,
        activations=kept,
        positions=np.stack(np.divmod(places[columns, rows], shape[1]), axis=-1).reshape(*indices.shape, 2),
        indices=indices,
        units=chosen,
        rule=rule,
        keep=keep if isinstance(keep, str) else f"{keep[0]}, {keep[1]}",
        slopes=tuple(walk.slopes) if walk is not None else (),
        caveat=CAVEATS[rule],
        stage=name,
        address=subject.address(name),
        network=subject.name,
        certificate=proof
        | ({"outside_field": outside} if walk is not None else {})
        | {"silent": float((kept == 0).mean())},
        provenance=provenance(
            model,
            {
                "network": subject.name,
                "stage": name,
                "inputs": x,
                "units": units,
                "rule": rule,
                "keep": keep,
                "count": count,
                "n_units": n_units,
            },
            seed,
        ),
    )


def image_subject(model: Any, network: str, method: str, inputs: Any) -> Subject:
    """The network, if it reads images.

    Raises:
        ValueError: for a network of codes, which draws its units already; or one alone, if it is not given images.
    """
    subject = subject_of(model, network)
    if subject.reads is not None or (
        not subject.whole and inputs is not None and np.ndim(inputs) not in (3, 4)
    ):
        raise ValueError(
            f"{method} leads back to pixels, and network {subject.name!r} reads codes: what its units do to the image "
            "is shown by unit_draws, unit_isolates and pixel_reads; take a network that reads images, such as an "
            "encoder or a discriminator."
        )
    return subject


def cut_out(pictures: np.ndarray, boxes: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    """The boxes (units, count, 4) out of pictures (units, count, channels, height, width), NaN where they are small.

    All are of one ``size``, height and width, by default that of the largest box.
    """
    high, wide = size or (int((boxes[..., i + 2] - boxes[..., i]).max()) for i in (0, 1))
    cut = np.full((*pictures.shape[:3], high, wide), np.nan, dtype=np.float32)
    for i, k in np.ndindex(*boxes.shape[:2]):
        top, left, bottom, right = boxes[i, k]
        # A field that the image's upper or left edge cuts off keeps its lower right corner.
        down = high - (bottom - top) if top == 0 and bottom < pictures.shape[-2] else 0
        across = wide - (right - left) if left == 0 and right < pictures.shape[-1] else 0
        cut[i, k, :, down : down + bottom - top, across : across + right - left] = pictures[
            i, k, :, top:bottom, left:right
        ]
    return cut


def _place(keep: str | tuple[int, int], shape: tuple[int, ...], address: str) -> int | None:
    if isinstance(keep, str) and keep in ("max", "all"):
        return None
    if (
        isinstance(keep, str)
        or len(keep) != 2
        or not all(0 <= at < edge for at, edge in zip(keep, shape, strict=True))
    ):
        raise ValueError(
            f"keep must be 'max', 'all' or (row, column) on the map of {address!r}, {shape[0]} x {shape[1]}; "
            f"got {keep!r}."
        )
    return int(keep[0]) * shape[1] + int(keep[1])


def _peaks(state: Tensor, place: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The activation (n, units) that an image is chosen by, and where on the map it is."""
    flat = state.reshape(*state.shape[:2], -1)
    if place is not None:
        return to_numpy(flat[:, :, place]), np.full(flat.shape[:2], place)
    values, places = flat.max(dim=2)
    return to_numpy(values), places.cpu().numpy()


def _marks(state: Tensor, units: np.ndarray, places: np.ndarray) -> Tensor:
    """1 at the entries that are kept, one unit a row, -1 for its whole map; else 0."""
    marks = torch.zeros_like(state, requires_grad=False)
    flat = marks.view(*state.shape[:2], -1)
    for row, (unit, place) in enumerate(zip(units.tolist(), places.tolist(), strict=True)):
        flat[row, unit, slice(None) if place < 0 else place] = 1.0
    return marks


def _box(field: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = (np.nonzero(field.any(axis=axis))[0] for axis in (1, 0))
    if not len(rows):
        return 0, 0, 1, 1
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
