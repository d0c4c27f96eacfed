"""The configuration of a style-based GAN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from latentlab.config.adversarial import Adversarial
from latentlab.config.fields import check_range
from latentlab.config.models import BlockConfig, ModelConfig
from latentlab.config.objectives import ObjectiveConfig


@dataclass(frozen=True)
class StyleGANConfig(ModelConfig):
    """A style-based generative adversarial network: three spaces of codes, Z, W and W+, no encoder.

    Args:
        latents: number of latent coordinates of Z, all in one normal block "z".
        styles: coordinates of W, and of each layer's style in W+.
        mapping_layers: fully connected layers from Z to W.
        width: channels next to the image, of generator and discriminator; they double with each halving, up to 4
            times as many. At 64 pixels both together take 2 MB of weights for 16, 8 MB for 32.
        mixing: share of the images in training that read the styles of two codes.
    """

    family: ClassVar[str] = "style-gan"
    year: ClassVar[int] = 2020
    paper: ClassVar[str] = "https://arxiv.org/abs/1912.04958"
    structure: ClassVar[str] = "normal Z, learned W, and W+ with a style for each layer; no encoder"
    use: ClassVar[str] = "styles of coarse and fine layers to mix and edit; W+ comes nearest to given images"
    kind: ClassVar[str] = "adversarial"
    latents: int = 64
    styles: int = 64
    mapping_layers: int = 4
    width: int = 16
    mixing: float = 0.9

    def __post_init__(self) -> None:
        for name, low, high in (("latents", 1, 1024), ("styles", 2, 1024), ("mapping_layers", 1, 16)):
            check_range("model", name, getattr(self, name), low, high)
        check_range("model", "width", self.width, 4, 512)
        check_range("model", "mixing", self.mixing, 0.0, 1.0)

    def check_objective(self, objective: ObjectiveConfig) -> None:
        """Refuses a wasserstein loss without anything that bounds the discriminator's slope."""
        if not isinstance(objective, Adversarial) or objective.loss != "wasserstein":
            return
        if objective.penalty != "gradient":
            raise ValueError(
                "A wasserstein loss needs a discriminator of bounded slope: set objective.penalty to 'gradient'."
            )

    @property
    def latent_blocks(self) -> list[BlockConfig]:
        """The blocks of the latent space Z, spelled out."""
        return [BlockConfig("z", self.latents)]
