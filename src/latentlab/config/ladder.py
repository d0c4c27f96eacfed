"""The configuration of the variational ladder autoencoder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from latentlab.config.fields import check_range
from latentlab.config.models import BlockConfig, ModelConfig, check_likelihood


@dataclass(frozen=True)
class LadderVAEConfig(ModelConfig):
    """A variational ladder autoencoder: several blocks of latents, each at a depth of its own.

    Args:
        levels: number of normal latents of each level, from the one next to the image, "level1_", to the deepest. At
            28 pixels there is room for 3 levels, at 64 for 4, at 128 for 5.
        width: channels of the first convolution; they double with each halving, up to 4 times as many.
        hidden: units of the fully connected layers, which only the deepest level has.
        likelihood: as of a VAE.
        scale: of the likelihood, as of a VAE.
        learn_scale: learn that scale, starting from ``scale``.
    """

    family: ClassVar[str] = "ladder-vae"
    year: ClassVar[int] = 2017
    paper: ClassVar[str] = "https://arxiv.org/abs/1702.08396"
    structure: ClassVar[str] = "a block of normal latents for each level, level1_ next to the image"
    use: ClassVar[str] = (
        "fine and coarse features apart, each level in a block of its own; every variational objective fits it"
    )
    levels: list[int] = field(default_factory=lambda: [4, 4, 4])
    width: int = 32
    hidden: int = 256
    likelihood: Literal["bernoulli", "gaussian", "laplace", "logistic"] = "bernoulli"
    scale: float = 0.1
    learn_scale: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.levels, list) or not 1 <= len(self.levels) <= 5:
            raise ValueError(
                f"model.levels must be a list of 1 to 5 numbers of latents; got {self.levels!r}."
            )
        for dim in self.levels:
            if not isinstance(dim, int):
                raise ValueError(f"model.levels must hold whole numbers; got {dim!r}.")
            check_range("model", "levels", dim, 1, 1024)
        check_range("model", "width", self.width, 4, 512)
        check_range("model", "hidden", self.hidden, 4, 4096)
        check_likelihood(self)

    @property
    def latent_blocks(self) -> list[BlockConfig]:
        """The blocks of the latent space, spelled out; coordinate 2 of level 1 is "level1_2"."""
        return [BlockConfig(f"level{k}_", dim) for k, dim in enumerate(self.levels, start=1)]
