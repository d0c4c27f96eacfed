"""The configuration of the vector-quantised autoencoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from latentlab.config.fields import check_range
from latentlab.config.models import ModelConfig, check_likelihood
from latentlab.config.objectives import ObjectiveConfig
from latentlab.config.variational import BetaVAE


@dataclass(frozen=True)
class VQVAEConfig(ModelConfig):
    """A vector-quantised autoencoder: a grid of codebook indices, and a learned prior over them.

    Args:
        codes: vectors in the codebook.
        code_dim: numbers of each of them.
        halvings: how often the image is halved on its way to the grid; a 32-pixel image has 4 x 4 positions after 3.
        width: channels of the first convolution; they double once.
        commitment: weight of the squared distance that draws the encoder's outputs to their codes.
        prior_width: units of the prior's transformer, a multiple of 16.
        prior_layers: its layers.
        likelihood: as of a VAE.
        scale: of the likelihood, as of a VAE.
        learn_scale: learn that scale, starting from ``scale``.
    """

    family: ClassVar[str] = "vq-vae"
    year: ClassVar[int] = 2017
    paper: ClassVar[str] = "https://arxiv.org/abs/1711.00937"
    structure: ClassVar[str] = "one block of codebook indices, one a position, with a learned prior over them"
    use: ClassVar[str] = "sharp reconstructions from discrete codes, and samples from a prior that knows them"
    codes: int = 64
    code_dim: int = 16
    halvings: int = 3
    width: int = 32
    commitment: float = 0.25
    prior_width: int = 64
    prior_layers: int = 2
    likelihood: Literal["bernoulli", "gaussian", "laplace", "logistic"] = "bernoulli"
    scale: float = 0.1
    learn_scale: bool = False

    def __post_init__(self) -> None:
        check_range("model", "codes", self.codes, 2, 8192)
        check_range("model", "code_dim", self.code_dim, 2, 512)
        check_range("model", "halvings", self.halvings, 1, 5)
        check_range("model", "width", self.width, 4, 512)
        check_range("model", "commitment", self.commitment, 0.0, 100.0)
        check_range("model", "prior_width", self.prior_width, 16, 1024)
        check_range("model", "prior_layers", self.prior_layers, 1, 24)
        if self.prior_width % 16:
            raise ValueError(f"model.prior_width must be a multiple of 16; got {self.prior_width}.")
        check_likelihood(self)

    def check_objective(self, objective: ObjectiveConfig) -> None:
        """Refuses objectives that weigh a posterior's spread: here the posterior is a point."""
        if not isinstance(objective, BetaVAE):
            raise ValueError(
                "A vq-vae is trained by the objective beta-vae: its posterior is one code, and its KL trains nothing "
                f"but the prior, so {objective.objective!r} has nothing to weigh."
            )
