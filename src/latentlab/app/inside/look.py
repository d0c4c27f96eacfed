"""Look: what a person looks at on the Layers page, and the arguments that calls about it take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from latentlab.analysis.inference import input_spaces
from latentlab.app import calls, state
from latentlab.app.calls import Made
from latentlab.models.edits import Edit

if TYPE_CHECKING:
    from latentlab.app.start import Start
    from latentlab.runs import Run


@dataclass(frozen=True)
class Look:
    """What is looked at.

    Attributes:
        run: the opened run.
        start: the input that was chosen.
        stage: address of the open stage.
        edits: what was done to units.
        shape: of the stage's state, without the batch; () where its units can't be told.
        unit: the unit that was clicked, or None.
    """

    run: Run
    start: Start
    stage: str
    edits: tuple[Edit, ...]
    shape: tuple[int, ...]
    unit: int | None = None

    @property
    def network(self) -> str:
        """Name of the stage's network."""
        return self.stage.split(".", 1)[0]

    @property
    def reads_codes(self) -> bool:
        """Whether the stage's network reads codes; the others read images."""
        return self.network in input_spaces(self.run.model)

    @property
    def seed(self) -> int:
        """The seed in the sidebar."""
        import streamlit as st

        return int(st.session_state.get("seed", 0))

    def one(self, network: str | None = None) -> Any:
        """The present input of a network, (1, …), as an argument."""
        if (self.network if network is None else network) in input_spaces(self.run.model):
            return self.code()
        return self.image()

    def code(self) -> np.ndarray:
        """The present code (1, dim), as an argument."""
        return np.asarray(self.start.z, np.float32)[None]

    def image(self) -> Made:
        """The present image (1, channels, height, width), as an argument: the data's, else what the model draws."""
        if self.start.index is not None:
            return calls.images_of(self.run, [self.start.index])
        z = self.code()

        def draw() -> np.ndarray:
            from latentlab import analysis

            return analysis.decode_latents(self.run.model, z)

        return Made("analysis.decode_latents(run.model, z)", draw, (f"z = {calls.written(z)}",))

    def several(self, n: int, seed: int | None = None) -> Any:
        """``n`` inputs of the stage's network, as an argument: None, which is prior draws, where it reads codes."""
        seed = self.seed if seed is None else seed
        if self.reads_codes:
            return None
        if state.dataset_or_reason(self.run)[0] is not None:
            return calls.some_images(self.run, n, seed)

        def draw() -> np.ndarray:
            return state.samples(self.run, n, seed)

        return Made(f"run.model.sample({n}, {seed}).float().clamp(0, 1).numpy()", draw)

    @property
    def has_data(self) -> bool:
        """Whether the run's images are at hand."""
        return state.dataset_or_reason(self.run)[0] is not None

    @property
    def source(self) -> str:
        """The network that the chosen input belongs to."""
        return "encoder" if self.start.image is not None else code_network(self.run)

    def edits_of(self, *networks: str) -> tuple[Edit, ...]:
        """The edits of these networks."""
        return tuple(edit for edit in self.edits if edit.network in networks)


def code_network(run: Run) -> str:
    """The network that reads the codes of the model's first space: the generator, or the mapping before it."""
    spaces = input_spaces(run.model)
    return next((name for name, space in spaces.items() if space == run.model.latent_space.name), "generator")


def drawing_networks(run: Run) -> tuple[str, ...]:
    """The networks that a picture comes from: all but the discriminator, in the order that an image passes them."""
    spaces = input_spaces(run.model)
    first = [name for name in ("encoder",) if name in run.model.networks]
    return (*first, *(name for name in spaces if name != "generator"), "generator")
