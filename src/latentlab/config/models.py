"""Which model: its family, its latent blocks and its networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from latentlab.config.adversarial import Adversarial
from latentlab.config.fields import check_choice, check_range
from latentlab.config.objectives import ObjectiveConfig
from latentlab.config.variational import DIPVAE

SMALLEST_IMAGE, LARGEST_IMAGE = 28, 128


@dataclass(frozen=True)
class BlockConfig:
    """One block of latents.

    Args:
        name: an identifier; the coordinates are called name0, name1, …
        dim: number of coordinates; of categories for a categorical block, which needs at least 2.
        prior: "normal"; "categorical" for one variable with ``dim`` values; or "uniform" for the generators
            that sample from it.
        temperature: of a categorical block's soft draws in training (Gumbel-Softmax); null for hard draws.
    """

    name: str
    dim: int
    prior: Literal["normal", "uniform", "categorical"] = "normal"
    temperature: float | None = None

    def __post_init__(self) -> None:
        check_choice(self, "prior")
        if self.temperature is not None:
            if self.prior != "categorical":
                raise ValueError(
                    f"block.temperature belongs to categorical blocks; block {self.name!r} is {self.prior}."
                )
            check_range("block", "temperature", self.temperature, 1e-3, 1e3)
        check_range("block", "dim", self.dim, 2 if self.prior == "categorical" else 1, 1024)


@dataclass(frozen=True)
class ModelConfig:
    """Base of all model configurations; choose one of its subclasses.

    Attributes:
        family: what it is called.
        kind: the kind of objective that can train it, "variational" or "adversarial".
        year: when it was published.
        paper: where to read about it.
        structure: its latents, in a few words.
        use: when to choose it, in a few words.
    """

    family: ClassVar[str] = ""
    kind: ClassVar[str] = "variational"
    year: ClassVar[int] = 0
    paper: ClassVar[str] = ""
    structure: ClassVar[str] = ""
    use: ClassVar[str] = ""

    def check_objective(self, objective: ObjectiveConfig) -> None:
        """Refuses an objective of the right kind that still can't train this very model.

        Raises:
            ValueError: with what would do.
        """


@dataclass(frozen=True)
class VAEConfig(ModelConfig):
    """A variational autoencoder.

    Args:
        latents: number of latent coordinates, all in one block "z"; not used where ``blocks`` is given.
        blocks: named blocks of latents, for a structured model.
        network: "burgess" (Burgess et al. 2018), "locatello" (Locatello et al. 2019), "pooled" (the encoder halves
            by maxima over 2x2 pixels, as the networks did that were first opened) or "residual".
        width: channels of the first convolution; the others follow from it.
        hidden: units of the fully connected layers.
        likelihood: "bernoulli" (pixels as probabilities), "gaussian", "laplace", or "logistic" (the 256 levels of
            an 8-bit image).
        scale: of the likelihood, pixels in [0, 1]: the Gaussian's standard deviation, the Laplace distribution's
            mean absolute deviation, the logistic distribution's scale; a Bernoulli likelihood has none.
        learn_scale: learn that scale, starting from ``scale``.
    """

    family: ClassVar[str] = "vae"
    year: ClassVar[int] = 2013
    paper: ClassVar[str] = "https://arxiv.org/abs/1312.6114"
    structure: ClassVar[str] = "one block of normal latents, or named blocks, normal and categorical"
    use: ClassVar[str] = (
        "the place to start: trains steadily, encodes images, and every variational objective fits it"
    )
    latents: int = 10
    blocks: list[BlockConfig] | None = None
    network: Literal["burgess", "locatello", "pooled", "residual"] = "burgess"
    width: int = 32
    hidden: int = 256
    likelihood: Literal["bernoulli", "gaussian", "laplace", "logistic"] = "bernoulli"
    scale: float = 0.1
    learn_scale: bool = False

    def __post_init__(self) -> None:
        check_range("model", "latents", self.latents, 1, 1024)
        check_range("model", "width", self.width, 4, 512)
        check_range("model", "hidden", self.hidden, 4, 4096)
        check_range("model", "scale", self.scale, 1e-4, 10.0)
        for name in ("network", "likelihood"):
            check_choice(self, name)
        check_blocks(self.blocks)

    def check_objective(self, objective: ObjectiveConfig) -> None:
        """Refuses covariances of categories."""
        kinds = [b.name for b in self.latent_blocks if b.prior == "categorical"]
        if isinstance(objective, DIPVAE) and kinds:
            raise ValueError(
                "DIP-VAE draws covariances to the identity, which means nothing for the categorical block "
                f"{kinds[0]!r}; use normal blocks or another objective."
            )

    @property
    def latent_blocks(self) -> list[BlockConfig]:
        """The blocks of the latent space, spelled out."""
        return list(self.blocks) if self.blocks else [BlockConfig("z", self.latents)]


@dataclass(frozen=True)
class ConditionalVAEConfig(VAEConfig):
    """A VAE one of whose blocks is a label of the data, such as the digit, so that the rest is how it is written.

    With all labels it is the conditional VAE; with few, the semi-supervised one (M2), which guesses the others and
    learns from them, too.

    Args:
        label: the data's factor that is the label, and the name of its block.
        classes: how many values that factor has.
        labelled: share of the data's images whose label may be read, the same for each class; at least one image of
            each is. The paper uses 0.2 to 6 %.
        alpha: weight of the classifier's cross-entropy, averaged over the labelled images, against the bound,
            averaged over all: the paper's alpha over the number of images, 0.1 there.
    """

    family: ClassVar[str] = "conditional-vae"
    year: ClassVar[int] = 2014
    paper: ClassVar[str] = "https://arxiv.org/abs/1406.5298"
    structure: ClassVar[str] = (
        "a categorical block that is a label of the data, and one or more normal blocks"
    )
    use: ClassVar[str] = "what is shown apart from how, where labels exist; a handful a class will do"
    label: str = "digit"
    classes: int = 10
    labelled: float = 1.0
    alpha: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        BlockConfig(self.label, self.classes, "categorical")
        check_range("model", "labelled", self.labelled, 1e-6, 1.0)
        check_range("model", "alpha", self.alpha, 0.0, 1e6)
        for block in self.blocks or ():
            if block.prior != "normal":
                raise ValueError(
                    f"The blocks beside the label of a conditional VAE are normal; got {block.name!r}, {block.prior}."
                )

    @property
    def latent_blocks(self) -> list[BlockConfig]:
        """The blocks of the latent space, spelled out; the label is the first."""
        return [BlockConfig(self.label, self.classes, "categorical"), *super().latent_blocks]


def check_blocks(blocks: Any) -> None:
    """Refuses what is neither a list of blocks nor nothing.

    Raises:
        ValueError: with what came.
    """
    if blocks is not None and (
        not isinstance(blocks, list) or not all(isinstance(b, BlockConfig) for b in blocks)
    ):
        raise ValueError(f"model.blocks must be a list of blocks, or null; got {blocks!r}.")


def check_likelihood(config: Any) -> None:
    """Refuses a likelihood that is none of the choices, or a scale out of range.

    Raises:
        ValueError: with the choices or the range.
    """
    check_choice(config, "likelihood")
    check_range("model", "scale", config.scale, 1e-4, 10.0)


@dataclass(frozen=True)
class GANConfig(ModelConfig):
    """A generative adversarial network: a generator and a discriminator, no encoder.

    Args:
        latents: number of latent coordinates, all in one normal block "z"; not used where ``blocks`` is given.
        blocks: named blocks of latents of any prior, for a structured model.
        network: "dcgan" (Radford et al. 2015).
        width: channels next to the image; they double with each halving, up to 8 times as many.
        spectral_norm: divide each weight of the discriminator by its largest singular value (Miyato et al. 2018).
    """

    family: ClassVar[str] = "gan"
    year: ClassVar[int] = 2015
    paper: ClassVar[str] = "https://arxiv.org/abs/1511.06434"
    structure: ClassVar[str] = "one block of normal latents, or named blocks of any prior; no encoder"
    use: ClassVar[str] = "sharp samples from unlabelled images, where nothing need be encoded"
    kind: ClassVar[str] = "adversarial"
    latents: int = 32
    blocks: list[BlockConfig] | None = None
    network: Literal["dcgan"] = "dcgan"
    width: int = 64
    spectral_norm: bool = False

    def __post_init__(self) -> None:
        check_range("model", "latents", self.latents, 1, 1024)
        check_range("model", "width", self.width, 4, 512)
        check_choice(self, "network")
        check_blocks(self.blocks)

    def check_objective(self, objective: ObjectiveConfig) -> None:
        """Refuses a wasserstein loss without anything that bounds the discriminator's slope."""
        if not isinstance(objective, Adversarial) or objective.loss != "wasserstein":
            return
        if not self.spectral_norm and objective.penalty != "gradient":
            raise ValueError(
                "A wasserstein loss needs a discriminator of bounded slope: set objective.penalty to 'gradient' "
                "or model.spectral_norm to true."
            )

    @property
    def latent_blocks(self) -> list[BlockConfig]:
        """The blocks of the latent space, spelled out."""
        return list(self.blocks) if self.blocks else [BlockConfig("z", self.latents)]
