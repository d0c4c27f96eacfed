"""GANs with a structured latent space: told what to draw, or left to find out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from latentlab.config.fields import check_range
from latentlab.config.models import BlockConfig, GANConfig


@dataclass(frozen=True)
class ConditionalGANConfig(GANConfig):
    """A GAN that is told a label of the data, such as the digit, with a projection discriminator.

    Args:
        label: the data's factor that is the label, and the name of its block.
        classes: how many values that factor has.
    """

    family: ClassVar[str] = "conditional-gan"
    year: ClassVar[int] = 2018
    paper: ClassVar[str] = "https://arxiv.org/abs/1802.05637"
    structure: ClassVar[str] = (
        "a categorical block that is a label of the data, and normal or other blocks; no encoder"
    )
    use: ClassVar[str] = "sharp samples of a wanted class, where all images have labels"
    label: str = "digit"
    classes: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        BlockConfig(self.label, self.classes, "categorical")

    @property
    def latent_blocks(self) -> list[BlockConfig]:
        """The blocks of the latent space, spelled out; the label is the first."""
        return [BlockConfig(self.label, self.classes, "categorical"), *super().latent_blocks]


def _codes() -> list[BlockConfig]:
    return [BlockConfig("class", 10, "categorical"), BlockConfig("code", 2, "uniform")]


@dataclass(frozen=True)
class InfoGANConfig(GANConfig):
    """A GAN that can tell a part of its code from the image, so that this part comes to mean something.

    Args:
        latents: number of coordinates of the noise, which nobody tells: the last block, normal, called "noise".
        blocks: the blocks to be told: categorical, uniform or normal; null for a category of 10 values, "class", and
            two uniform codes, "code".
        info_weight: weight of the bound on the mutual information of told codes and image, per nat.
        least_std: how sure a continuous code may be told: the least standard deviation of Q, as a share of the
            prior's. A smaller one lets continuous codes say more, which they do before the categories do.
        cr_weight: weight of the contrastive term, which lets each continuous code change something of its own
            (InfoGAN-CR, Lin et al. 2020, https://arxiv.org/abs/1906.06034); 0 for none.
        cr_gap: of that term, how far the codes that a pair of images does not share lie apart at least, as a share
            of the prior's range, 0 to 0.5.
        cr_gap_steps: steps in which that gap falls to 0; 0 keeps it.
    """

    family: ClassVar[str] = "info-gan"
    year: ClassVar[int] = 2016
    paper: ClassVar[str] = "https://arxiv.org/abs/1606.03657"
    structure: ClassVar[str] = (
        "named blocks, categorical and continuous, that an encoder tells; normal noise besides"
    )
    use: ClassVar[str] = (
        "sharp samples with classes and directions found without labels, and images encoded by them"
    )
    blocks: list[BlockConfig] | None = field(default_factory=_codes)
    info_weight: float = 1.0
    least_std: float = 0.4
    cr_weight: float = 0.0
    cr_gap: float = 0.0
    cr_gap_steps: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blocks is None:
            object.__setattr__(self, "blocks", _codes())
        if not self.blocks:
            raise ValueError("An info-gan needs model.blocks, the codes that are to be told; got none.")
        check_range("model", "info_weight", self.info_weight, 0.0, 1e6)
        check_range("model", "least_std", self.least_std, 1e-3, 1.0)
        check_range("model", "cr_weight", self.cr_weight, 0.0, 1e6)
        check_range("model", "cr_gap", self.cr_gap, 0.0, 0.5)
        check_range("model", "cr_gap_steps", self.cr_gap_steps, 0, 10**9)
        continuous = sum(block.dim for block in self.continuous)
        if self.cr_weight and continuous < 2:
            raise ValueError(
                f"model.cr_weight needs at least 2 continuous codes, between which to guess; got {continuous}."
            )

    @property
    def continuous(self) -> list[BlockConfig]:
        """The told blocks that are no categories."""
        return [block for block in self.blocks or () if block.prior != "categorical"]

    @property
    def latent_blocks(self) -> list[BlockConfig]:
        """The blocks of the latent space, spelled out; the noise is the last."""
        return [*(self.blocks or ()), BlockConfig("noise", self.latents)]
