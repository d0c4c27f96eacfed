"""Ways through a model: what moves, through which network, to what is looked at, and which stages it must pass.

A *way* leads from codes or images through a network to images, an encoder's codes or a score; a stage is a *cut* of
it where every route passes through the stage. Internal to this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from latentlab.analysis.inference import (
    as_codes,
    as_images,
    carry,
    check_seed,
    device_of,
    draw_codes,
    to_tensor,
)
from latentlab.analysis.subject import Subject, Substitute, subject_of
from latentlab.latents import Categorical, Codebook, LatentSpace, Mapped
from latentlab.models.contract import space_of
from latentlab.models.edits import Edit
from latentlab.models.staged import INPUT

_MAPPED_DRAWS = 4096


@dataclass(frozen=True)
class Way:
    """A network of a model, what moves (codes of a space, images, a foreign network's inputs) and what is looked at."""

    model: Any
    subject: Subject
    edits: tuple[Edit, ...]
    space: LatentSpace | None

    @property
    def from_images(self) -> bool:
        """Whether images move: the inputs are many and the outcomes few."""
        return self.subject.whole and self.space is None

    def enter(self, z: Tensor) -> Tensor:
        """The network's inputs for codes of the space; the same where it reads that space."""
        reads = self.subject.reads
        if self.space is None or reads is None or self.space.name == reads:
            return z
        return self.model.map(z, self.space.name, reads)

    def outcome(self, z: Tensor, *last: Edit) -> Tensor:
        """What is looked at, (n, …): images; posterior means in prior standard deviations; else raw outputs."""
        h, edits = self.enter(z), (*self.edits, *last)
        if self.subject.whole and self.subject.name == "encoder":
            # Means, not codes: the code of a category is its largest, which jumps.
            return self.model.encode(h, edits=edits).mean / self.model.latent_space.std.to(h)
        return self.subject.output(h, edits)

    def outcome_from(self, z: Tensor, stage: str, state: Tensor) -> Tensor:
        """The same with a stage's state, as it is after the edits, put in place."""
        return self.outcome(z, Substitute(stage=self.subject.address(stage), state=state.clone()))

    def state(self, z: Tensor, stage: str) -> Tensor:
        """The state (n, units, …) of a stage, after the edits."""
        return self.subject.state(self.enter(z), stage, self.edits)

    def is_cut(self, stage: str) -> bool | None:
        """Whether every route from the input passes through the stage; None where the graph is not known."""
        reads = getattr(self.subject.network, "inputs", None)
        if not isinstance(reads, dict):
            return None
        network, name = self.subject.network, self.subject.network.stage_name(stage)
        reached = {INPUT}
        for other in network.names:
            if other != name and reached & set(reads[other]):
                reached.add(other)
        return network.names[-1] not in reached

    def bypass(self, a: Tensor, b: Tensor, stage: str) -> float:
        """How much of the outcome at ``b`` is missed when only the stage's state is what it is at ``b``; 0 for a cut.

        Args:
            a: (n, …) inputs that all else is taken from.
            b: (n, …) inputs of the state.
            stage: name of the stage.
        """
        with torch.no_grad():
            gap = self.outcome_from(a, stage, self.state(b, stage)) - self.outcome(b)
            return float(gap.abs().max())


def way_of(model: Any, network: str, space: str | None, edits: Sequence[Edit]) -> Way:
    """The way through a model's network, or through a network alone.

    Raises:
        ValueError: on an unknown network or space, a space for a network of images, or codes that are indices.
    """
    subject = subject_of(model, network)
    place, codes = None, subject.model.latent_space if subject.whole and subject.name == "encoder" else None
    if subject.reads is not None:
        place = codes = space_of(model, space)
    elif space is not None:
        raise ValueError(f"Network {subject.name!r} reads no codes, so space= says nothing; leave it out.")
    indices = [block.name for block in codes.blocks if isinstance(block.prior, Codebook)] if codes else []
    if indices:
        raise ValueError(
            f"Block {indices[0]!r} holds indices of a codebook, and between two indices there is no path; this "
            "analysis needs codes that can be moved."
        )
    return Way(model, subject, subject.check(edits), place)


def ends_of(way: Way, inputs: Any, baseline: Any, seed: int) -> tuple[Tensor, Tensor, str]:
    """Start and end (1, …) of a path, and what the start is called.

    Args:
        way: what moves.
        inputs: the end: one code, image or input; None is a prior draw of ``seed``.
        baseline: the start: another one; None is the prior mean, a black image, or zeros; "mean", "black", "grey".
        seed: decides the end where it is None.

    Raises:
        ValueError: on several inputs, a name that is not known, or two ends that are the same.
    """
    space = way.space
    if space is not None:
        draw = lambda: draw_codes(way.model, 1, check_seed(seed), space.name)  # noqa: E731
        b = draw() if inputs is None else as_codes(way.model, inputs, name="inputs", space=space.name)
        names = {"mean": lambda: mean_code(way.model, space)[None]}
        given = lambda x: as_codes(way.model, x, name="baseline", space=space.name)  # noqa: E731
    else:
        if inputs is None:
            raise ValueError(f"Network {way.subject.name!r} needs inputs=, such as an image of a data set.")
        if way.from_images:
            b = as_images(way.model, inputs, name="inputs")
            names = {"black": lambda: torch.zeros_like(b), "grey": lambda: torch.full_like(b, 0.5)}
            given = lambda x: as_images(way.model, x, name="baseline")  # noqa: E731
        else:
            b = way.subject.inputs(inputs, seed)
            names = {"zeros": lambda: torch.zeros_like(b)}
            given = lambda x: to_tensor(x, b.device)  # noqa: E731
    name = next(iter(names)) if baseline is None else baseline if isinstance(baseline, str) else "given"
    if isinstance(baseline, str) and baseline not in names:
        raise ValueError(f"baseline must be {' or '.join(map(repr, names))}, or numbers; got {baseline!r}.")
    a = given(baseline) if name == "given" else names[name]()
    if len(a) != 1 or len(b) != 1:
        raise ValueError(f"A path needs one start and one end; got {len(a)} and {len(b)}.")
    if a.shape != b.shape:
        raise ValueError(
            f"The start of the path has shape {tuple(a.shape[1:])}, its end {tuple(b.shape[1:])}."
        )
    if torch.equal(a, b):
        raise ValueError(
            f"Start and end of the path are the same ({name}), so there is nothing to attribute."
        )
    return a.clone(), b.clone(), name


def mean_code(model: Any, space: LatentSpace) -> Tensor:
    """The prior's mean (dim,); of a space that codes are mapped to, the mean of 4096 mapped draws."""
    if any(isinstance(block.prior, Mapped) for block in space.blocks):
        return carry(model, model.sample_codes(_MAPPED_DRAWS, 0), space.name).mean(dim=0)
    return space.mean.to(device_of(model))


def variables(space: LatentSpace, dims: Any) -> list[tuple[str, list[int]]]:
    """The chosen variables with their coordinates: one a coordinate, a categorical block as a whole.

    Args:
        space: the space of the codes.
        dims: names or positions of coordinates, names of blocks, which are taken as a whole; None for all variables.

    Raises:
        ValueError: on what is no coordinate and no block.
    """
    wanted = list(space.names) if dims is None else [dims] if isinstance(dims, (str, int)) else list(dims)
    found: dict[str, list[int]] = {}
    for dim in wanted:
        if dim in space.block_names and dim not in space.names:
            where = space.slice(dim)
            found[dim] = list(range(where.start, where.stop))
            continue
        i, block = space.index(dim), space.block_of(dim)
        where = space.slice(block.name)
        if isinstance(block.prior, Categorical):
            found[block.name] = list(range(where.start, where.stop))
        else:
            found[space.names[i]] = [i]
    return list(found.items())


@dataclass(frozen=True)
class Nudge(Edit):
    """Adds given changes to a stage's state, row by row; gradients reach them."""

    change: Tensor = field(default_factory=lambda: torch.empty(0), compare=False)

    def apply(self, h: Tensor, other: Tensor | None = None) -> Tensor:
        """The state and its change."""
        return h + self.change
