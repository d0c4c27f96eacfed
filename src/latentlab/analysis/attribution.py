"""Integrated gradients of images: which part of a change between two images each latent accounts for, pixel by pixel.

Symbols: z0, z the two ends of a straight path; x_p a value (a pixel in one channel) of what the network gives;
IG_i(p) = (z_i - z0_i) times the mean of dx_p/dz_i along the path. Over all i they add up to x_p(z) - x_p(z0).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.inference import evaluating, named, to_numpy
from latentlab.analysis.paths import Linearised, Nodes, along, nodes_of
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.ways import Way, ends_of, variables, way_of
from latentlab.models.edits import Edit

_MOST_OUTPUTS = 256


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Attribution(Result):
    """One signed image for each latent.

    Of a generator, image i says what moving latent i from its start to its end adds to every pixel. Of an encoder or
    discriminator, image i says what every pixel adds to output i, in prior standard deviations of a latent.

    Attributes:
        images: (dims, channels, height, width), signed, in the units of the output.
        rest: (channels, height, width), what the latents that were not asked for add, together; zeros where all
            were, and of an encoder.
        total: sum of each image, (dims,).
        amount: mean absolute value of each image, (dims,).
        share: share of the change that each image explains, <image, change> / |change|^2, (dims,): with the rest's
            they add up to 1. Of an encoder, None.
        start: where the path starts: a code (dim,) or an image (channels, height, width).
        end: where it ends.
        start_output: what the network gives there: an image (channels, height, width), or outputs (dims,).
        end_output: what it gives at the end.
        nodes: places on the path at which derivatives were taken, (m,), in (0, 1).
        dims: name of each image's latent or categorical block, or of the output.
        baseline: what the start is: "mean", "black", "grey", "zeros" or "given".
        network: name of the network.
        space: name of the space that the path is straight in; "" where images move.

    The certificate holds ``completeness_gap``, the largest difference, over all pixels (or outputs), between the
    images' sum and the change; ``gap_share``, the same in ranges of the two outputs; ``image_sum_gap``, that of the
    sum over all pixels, which may be small where the pixels' are not; ``nodes``, how many nodes it took; and
    ``gap_allowed``, the gap in ranges that was asked for.
    """

    images: np.ndarray
    rest: np.ndarray
    total: np.ndarray
    amount: np.ndarray
    share: np.ndarray | None
    start: np.ndarray
    end: np.ndarray
    start_output: np.ndarray
    end_output: np.ndarray
    nodes: np.ndarray
    dims: tuple[str, ...]
    baseline: str
    network: str
    space: str


def integrated_gradients(
    model: Any,
    inputs: Any = None,
    baseline: Any = None,
    *,
    network: str = "generator",
    space: str | None = None,
    dims: Sequence[int | str] | int | str | None = None,
    steps: int = 32,
    most_steps: int = 2048,
    tolerance: float = 1e-3,
    edits: Sequence[Edit] = (),
    seed: int = 0,
    batch_size: int = 32,
    progress: Callable[[int, int], object] | None = None,
) -> Attribution:
    """Attributes the change between two images to the latents, complete in every pixel.

    Nodes are Gauss-Legendre's, two a panel of the path; the panels that miss most are halved until the gap is below the
    tolerance, or ``most_steps`` is reached, and the certificate says which.

    Args:
        model: a model, or a staged network itself.
        inputs: the end of the path: one code (dim,), or for an encoder or discriminator one image in [0, 1]; None is
            a prior draw of ``seed``.
        baseline: its start, another one; None or "mean" is the prior mean of codes; images start "black" (None) or
            "grey"; a network alone starts from zeros.
        network: name of the model's network. Of an encoder, each image belongs to one posterior mean (a category's
            probability), in prior standard deviations.
        space: name of the codes' space, the model's first one where it is not given; the path is straight there.
        dims: latents by name or position, or names of blocks, each of which is then one image; None for all. The
            coordinates of a categorical block are one variable. Of an encoder, whose output.
        steps: nodes to begin with.
        most_steps: nodes at most, near.
        tolerance: gap to reach, in ranges of the two outputs.
        edits: edits in force along the path.
        seed: decides the code where ``inputs`` is None.
        batch_size: rows run at a time.
        progress: called with (nodes done, nodes in all) while the nodes are chosen, and again while images are made;
            it may raise to cancel.

    Raises:
        ValueError: on unknown names, codes that are indices of a codebook, a network alone with inputs and outputs
            both images, or two ends that are the same.

    References:
        Axiomatic attribution for deep networks (Sundararajan, Taly and Yan, 2017), https://arxiv.org/abs/1703.01365;
        there the output is one number, here every pixel is one, and the path's nodes adapt to its kinks.
    """
    way = way_of(model, network, space, edits)
    a, b, name = ends_of(way, inputs, baseline, seed)
    forward = a.ndim == 2
    with evaluating(model):
        limits = {"steps": steps, "most_steps": most_steps, "tolerance": tolerance, "batch_size": batch_size}
        nodes = nodes_of(way.outcome, a, b, **limits, progress=progress)
        change = nodes.end - nodes.start
        if forward:
            groups = _groups(way, a.shape[1], dims)
            images, rest = _by_latent(way, a, b, nodes, groups, batch_size, progress)
            labels = tuple(label for label, _ in groups)
            gap, share = images.sum(dim=0) + rest - change, _share(images, change)
        else:
            outputs = _outputs(way, change, dims)
            images, rest = _by_output(way, a, b, nodes, outputs, batch_size, progress), torch.zeros_like(a[0])
            labels, chosen = tuple(label for label, _ in outputs), [i for _, i in outputs]
            gap, share = images.flatten(1).sum(dim=1) - change.flatten()[chosen], None
    numbers = (to_numpy(t) for t in (images, rest, images.flatten(1).sum(1), images.flatten(1).abs().mean(1)))
    picture, remainder, total, amount = numbers
    place = "" if way.space is None else way.space.name
    return Attribution(
        images=picture,
        rest=remainder,
        total=total,
        amount=amount,
        share=share,
        start=to_numpy(a)[0],
        end=to_numpy(b)[0],
        start_output=to_numpy(nodes.start),
        end_output=to_numpy(nodes.end),
        nodes=nodes.t,
        dims=labels,
        baseline=name,
        network=way.subject.name,
        space=place,
        certificate={
            "completeness_gap": float(gap.abs().max()),
            "gap_share": float(gap.abs().max()) / max(nodes.span, 1e-6),
            "image_sum_gap": abs(float(gap.sum())),
            "nodes": len(nodes.t),
            "gap_allowed": tolerance,
        },
        provenance=provenance(
            model,
            {"network": way.subject.name, "inputs": b, "baseline": a, "dims": labels, "edits": way.edits,
             **limits, **named(space)},
            seed if inputs is None else None,
        ),
    )  # fmt: skip


def _groups(way: Way, dim: int, dims: Any) -> list[tuple[str, list[int]]]:
    if way.space is not None:
        return variables(way.space, dims)
    chosen = range(dim) if dims is None else [dims] if isinstance(dims, int) else dims
    wrong = [i for i in chosen if not isinstance(i, (int, np.integer)) or not 0 <= i < dim]
    if wrong:
        raise ValueError(f"Network {way.subject.name!r} reads inputs 0 to {dim - 1}; got {wrong[0]!r}.")
    return [(f"input{i}", [int(i)]) for i in chosen]


def _outputs(way: Way, change: Tensor, dims: Any) -> list[tuple[str, int]]:
    """The outputs that get an image each, with their positions."""
    count = change.numel()
    if way.subject.name == "encoder" and way.subject.whole:
        names = list(way.model.latent_space.names)
    else:
        names = [way.subject.network.names[-1]] if count == 1 else [f"output{i}" for i in range(count)]
    if count > _MOST_OUTPUTS:
        raise ValueError(
            f"Network {way.subject.name!r} leads from images to {count} outputs; expected at most {_MOST_OUTPUTS}, "
            "such as an encoder's codes or a score."
        )
    wanted = names if dims is None else [dims] if isinstance(dims, (str, int)) else list(dims)
    found = []
    for dim in wanted:
        name = names[dim] if isinstance(dim, int) and -count <= dim < count else str(dim)
        if name not in names:
            raise ValueError(f"Expected an output of {', '.join(names[:12])}; got {dim!r}.")
        found.append((name, names.index(name)))
    return found


def _by_latent(way, a, b, nodes: Nodes, groups, batch_size, progress) -> tuple[Tensor, Tensor]:
    """Each group's image, and that of all coordinates in none of them: Jv along the path, v the group's own step."""
    inside = torch.zeros(len(groups) + 1, a.shape[1], device=a.device, dtype=a.dtype)
    for row, (_, where) in enumerate(groups):
        inside[row, where] = 1.0
    inside[-1] = 1.0 - inside[:-1].amax(dim=0)
    images = torch.zeros(len(inside), *nodes.end.shape, dtype=torch.float64, device=a.device)
    for k in range(0, len(nodes.t), batch_size):
        rows = along(a, b, nodes.t[k : k + batch_size])
        weights = torch.as_tensor(nodes.weights[k : k + batch_size], device=a.device)
        derivative = Linearised(way.outcome, rows)
        for row, mask in enumerate(inside):
            if bool((mask * (b - a)).any()):
                slopes = derivative.forward((mask * (b - a)).expand_as(rows)).double()
                images[row] += torch.tensordot(weights, slopes, dims=1)
        if progress is not None:
            progress(k + len(rows), len(nodes.t))
    return images[:-1], images[-1]


def _by_output(way, a, b, nodes: Nodes, outputs, batch_size, progress) -> Tensor:
    """For each output the image of what the pixels add to it: its gradient along the path, times the pixels' step."""
    images = torch.zeros(len(outputs), *a.shape[1:], dtype=torch.float64, device=a.device)
    for k in range(0, len(nodes.t), batch_size):
        rows = along(a, b, nodes.t[k : k + batch_size])
        weights = torch.as_tensor(nodes.weights[k : k + batch_size], device=a.device)
        derivative = Linearised(way.outcome, rows)
        for row, (_, i) in enumerate(outputs):
            one = torch.zeros_like(derivative.value)
            one.flatten(1)[:, i] = 1.0
            images[row] += torch.tensordot(weights, derivative.backward(one).double(), dims=1)
        if progress is not None:
            progress(k + len(rows), len(nodes.t))
    return images * (b - a)[0]


def _share(images: Tensor, change: Tensor) -> np.ndarray:
    whole = float(change.square().sum())
    return to_numpy((images.flatten(1) @ change.flatten()) / max(whole, 1e-24))
