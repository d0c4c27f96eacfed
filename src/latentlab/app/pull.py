"""Pull: what a row of sliders stands for: the coordinates of a code of some space, steps along directions, truncation.

Symbols: psi the truncation: a style w is drawn towards the mean of all styles, mean + psi (w - mean).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latentlab.analysis.direction import Direction
from latentlab.models.contract import space_of
from latentlab.models.edits import Edit

if TYPE_CHECKING:
    from latentlab.models.contract import GenerativeModel

W, W_PLUS = "w", "w+"


@dataclass(frozen=True)
class Pull:
    """How the sliders' numbers (dim + directions, and psi where it is truncated) become a code and edits.

    Attributes:
        space: whose coordinates come first.
        directions: each has one more slider, in steps: of a space that the code passes on its way, or of a stage.
        cutoff: how many of the first layers are truncated, by one more number, psi; 0 for all of them, None where
            nothing is truncated and there is no such number. Steps along directions are taken behind the truncation.
    """

    space: str
    directions: tuple[Direction, ...] = ()
    cutoff: int | None = None

    def dim(self, model: GenerativeModel) -> int:
        """How many numbers there are."""
        return space_of(model, self.space).dim + len(self.directions) + (self.cutoff is not None)

    def code(self, model: Any, numbers: Tensor) -> tuple[Tensor, str]:
        """The codes (n, dim) of numbers (n, …), and their space: the last that a direction or a psi below 1 needs.

        A psi of 1 leaves a code where it is, unless another row has a psi below: all rows are of one space.
        """
        own = space_of(model, self.space).dim
        code, place = numbers[:, :own], self.space
        order = list(model.spaces)
        truncated = None
        if self.cutoff is not None and bool((numbers[:, -1] != 1.0).any()):
            truncated = W_PLUS if self.cutoff else W
        ways = [
            # Single layers are truncated in W+, so what moves W waits until the code is there.
            (i, d, W_PLUS if truncated == W_PLUS and d.space == W else moved_space(d))
            for i, d in enumerate(self.directions)
            if d.space is not None
        ]
        needed = {self.space, truncated, *(space for _, _, space in ways)}
        for name in order[order.index(self.space) :]:
            if name not in needed:
                continue
            if name != place:
                code, place = model.map(code, place, name), name
            if name == truncated:
                code = self._truncated(model, code, numbers[:, -1:], name)
            for i, direction, space in ways:
                if space == name:
                    step = torch.as_tensor(direction.spread(name, code.shape[1])).to(code)
                    code = code + numbers[:, own + i : own + i + 1] * step
        return code, place

    def _truncated(self, model: Any, code: Tensor, psi: Tensor, space: str) -> Tensor:
        """Codes drawn towards the mean of all styles, each by its own psi (n, 1)."""
        layers = range(self.cutoff) if self.cutoff else None
        return torch.lerp(model.truncate(code, 0.0, layers, space), code, psi)

    def edits(self, model: GenerativeModel, numbers: Tensor) -> tuple[Edit, ...]:
        """The steps along directions of stages, as edits of a batch of one."""
        own = space_of(model, self.space).dim
        return tuple(
            Push(stage=d.stage, vector=torch.as_tensor(d.displacement) * float(numbers[0, own + i]))
            for i, d in enumerate(self.directions)
            if d.stage is not None
        )

    def decode(self, model: Any, numbers: Tensor, edits: Iterable[Edit] = ()) -> Tensor:
        """The images of numbers (1, dim + directions, and psi where there is one)."""
        code, place = self.code(model, numbers)
        made = (*edits, *self.edits(model, numbers))
        if place == model.latent_space.name:
            return model.decode(code, edits=made)
        # Codes that are beyond the mapping don't meet what was done to it.
        return model.decode(code, edits=[e for e in made if e.network == "generator"], space=place)


def moved_space(direction: Direction) -> str:
    """The space whose codes a direction moves: one of W with layers moves W+."""
    return W_PLUS if direction.layers is not None else str(direction.space)


@dataclass(frozen=True)
class Push(Edit):
    """Adds a number to each unit of a stage, everywhere on its map."""

    vector: Tensor = field(default_factory=lambda: torch.zeros(0), compare=False)

    def apply(self, h: Tensor, other: Tensor | None = None) -> Tensor:
        """The state with the vector (units,) added."""
        return h + self.vector.to(h).reshape(1, -1, *([1] * (h.ndim - 2)))
