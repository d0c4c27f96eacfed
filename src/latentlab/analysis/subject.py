"""What an analysis of hidden layers looks at: a model's network, or a network alone, and its outcome.

Internal to this package; people give a model and the name of a network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from latentlab.analysis.inference import (
    as_codes,
    as_images,
    carry,
    check_edits,
    decoded,
    device_of,
    draw_codes,
    input_spaces,
    needs_encoder,
    to_tensor,
)
from latentlab.models.edits import Edit


@dataclass(frozen=True)
class Subject:
    """A model's network, or a network alone, with the way from its input to what a person looks at."""

    model: Any
    network: Any
    name: str

    @property
    def whole(self) -> bool:
        """Whether the network belongs to a model, which says what its inputs and outputs are."""
        return self.model is not self.network

    @property
    def reads(self) -> str | None:
        """The space whose codes the network reads, None for a network of images or one alone."""
        return input_spaces(self.model).get(self.name) if self.whole else None

    def inputs(self, given: Any, seed: int, n: int = 1) -> Tensor:
        """The network's inputs, checked; ``n`` prior draws of ``seed`` where a generator is given none.

        Codes are given in the model's first space, and carried to the one that the network reads.
        """
        if self.reads is not None:
            codes = (
                draw_codes(self.model, n, seed)
                if given is None
                else as_codes(self.model, given, name="inputs")
            )
            return carry(self.model, codes, self.reads)
        if given is None:
            raise ValueError(f"Network {self.name!r} needs inputs=, such as images of a data set.")
        if self.whole:
            return as_images(self.model, given, name="inputs")
        alone = to_tensor(given, device_of(self.network))
        if not bool(torch.isfinite(alone).all()):
            raise ValueError("inputs must hold finite numbers; they hold NaN or infinity.")
        return alone

    def codes(self, h: Tensor, edits: Sequence[Edit]) -> Tensor | None:
        """Posterior means of images, for an encoder; None for all others."""
        if self.whole and self.name == "encoder":
            needs_encoder(self.model)
            return self.model.encode(h, edits=edits).code()
        return None

    def output(self, h: Tensor, edits: Sequence[Edit]) -> Tensor:
        """Images of what reads codes, reconstructions (of the posterior mean) of an encoder, else raw outputs."""
        return self.look(h, edits)[1]

    def look(self, h: Tensor, edits: Sequence[Edit]) -> tuple[Tensor | None, Tensor]:
        """The codes of an encoder (else None) and the output, in one run."""
        if self.reads is not None:
            return None, decoded(self.model, h, edits, self.reads)
        if self.whole and self.name == "encoder":
            codes = self.codes(h, edits)
            return codes, self.model.decode(codes, edits=edits)
        output = self.network.run(h, edits)
        if not isinstance(output, Tensor):
            raise TypeError(
                f"Network {self.name!r} gives a {type(output).__name__}; expected one tensor to compare."
            )
        return None, output

    def address(self, stage: str) -> str:
        """The address of a stage of this network, from its name or address; refuses an unknown one."""
        return f"{self.name}.{self.network.stage_name(stage)}"

    def state(self, h: Tensor, stage: str, edits: Sequence[Edit] = ()) -> Tensor:
        """The state (n, units, …) of one stage for inputs (n, …), after the edits.

        Raises:
            ValueError: on an unknown stage, or one whose state is neither flat nor a map, so that it has no units.
        """
        ((name, state),) = tensors(self.network.activations(h, [stage], edits)).items()
        if state.ndim not in (2, 4):
            raise ValueError(
                f"Stage '{self.name}.{name}' gives {tuple(state.shape[1:])} numbers a sample, neither (units,) nor "
                "(units, height, width), so its units can't be told; take a stage that is flat or a map."
            )
        return state

    def output_from(self, h: Tensor, stage: str, state: Tensor, edits: Sequence[Edit] = ()) -> Tensor:
        """The output for inputs (n, …) with a stage's state put in place of what it would be, differentiable in it.

        It runs the whole network, so that it holds for every graph and for foreign modules. The edits before
        the stage are without effect, those at it and behind it apply.
        """
        return self.output(h, (Substitute(stage=self.address(stage), state=state), *edits))

    def check(self, edits: Sequence[Edit]) -> tuple[Edit, ...]:
        """Refuses edits that this run would never meet, since they would silently change nothing."""
        decodes = ("generator",) if self.whole and (self.name == "encoder" or self.reads) else ()
        return check_edits(edits, self.name, *decodes)


@dataclass(frozen=True)
class Substitute(Edit):
    """Puts given states in place of a stage's own, row by row; gradients reach them."""

    state: Tensor = field(default_factory=lambda: torch.empty(0), compare=False)

    def apply(self, h: Tensor, other: Tensor | None = None) -> Tensor:
        """The states that were given; ``h`` only tells their shape."""
        if h.shape != self.state.shape:
            raise ValueError(
                f"Stage {self.stage!r} has a state of shape {tuple(h.shape)}; got {tuple(self.state.shape)} for it."
            )
        return self.state


def subject_of(model: Any, network: str) -> Subject:
    """The network of that name in a model, or the staged network that was given itself.

    Raises:
        ValueError: if the model has no such network; the message lists those it has.
        TypeError: if it is neither a model nor a staged network.
    """
    networks = getattr(model, "networks", None)
    if networks is None:
        if not (callable(getattr(model, "run", None)) and callable(getattr(model, "activations", None))):
            raise TypeError(f"Expected a model or a staged network; got {type(model).__name__}.")
        return Subject(model, model, model.name)
    if network not in networks:
        raise ValueError(f"No network {network!r} in this model; it has {', '.join(networks)}.")
    return Subject(model, networks[network], network)


def tensors(states: Mapping[str, Any]) -> dict[str, Tensor]:
    """The states that are tensors; a stage that holds several is not a set of units."""
    found = {name: state for name, state in states.items() if isinstance(state, Tensor)}
    if not found:
        raise ValueError(
            f"The state of stage {next(iter(states))!r} is no single tensor, so it has no units."
        )
    return found
