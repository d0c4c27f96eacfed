"""The objectives of generative adversarial networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from latentlab.config.fields import check_choice, check_range
from latentlab.config.objectives import ObjectiveConfig


@dataclass(frozen=True)
class Adversarial(ObjectiveConfig):
    """A generator and a discriminator that train against each other.

    ``Experiment.learning_rate`` is that of both players; a step is one of the generator.

    Args:
        loss: "non-saturating" (Goodfellow et al. 2014), "wasserstein" (Arjovsky et al. 2017) or "hinge".
        penalty: "r1" (Mescheder et al. 2018), "gradient" (Gulrajani et al. 2017) or "none".
        penalty_weight: gamma of R1, lambda of the gradient penalty, for images in [-1, 1] as in the papers.
        penalty_every: steps of the discriminator from one that pays the penalty to the next, which pay as many times
            as much (lazy regularisation, Karras et al. 2020); it saves time.
        augment: for few images: "diffaugment" (Zhao et al. 2020) shows the discriminator all images moved, cut and
            changed in light and colour; "ada" (Karras et al. 2020) does so with as many as keep it from overfitting.
        ada_target: of "ada", the mean sign of the scores of real images that is kept to, 0 to 1.
        ada_images: of "ada", the number of real images in which the share of changes could rise from 0 to 1.
        discriminator_steps: steps of the discriminator before each step of the generator.
        ema: decay, per step, of the running mean of the generator's weights that the run keeps; 0 keeps the last.
        beta1: Adam's first decay, for both players.
        beta2: Adam's second decay, for both players.
    """

    objective: ClassVar[str] = "adversarial"
    year: ClassVar[int] = 2014
    paper: ClassVar[str] = "https://arxiv.org/abs/1406.2661"
    use: ClassVar[str] = "every GAN; loss and penalty are its parameters"
    kind: ClassVar[str] = "adversarial"
    loss: Literal["non-saturating", "wasserstein", "hinge"] = "non-saturating"
    penalty: Literal["r1", "gradient", "none"] = "r1"
    penalty_weight: float = 10.0
    penalty_every: int = 1
    augment: Literal["none", "diffaugment", "ada"] = "none"
    ada_target: float = 0.6
    ada_images: int = 500_000
    discriminator_steps: int = 1
    ema: float = 0.999
    beta1: float = 0.0
    beta2: float = 0.99

    def __post_init__(self) -> None:
        for name in ("loss", "penalty", "augment"):
            check_choice(self, name)
        check_range("objective", "penalty_weight", self.penalty_weight, 0.0, 1e6)
        for name, most in (("discriminator_steps", 100), ("penalty_every", 1000), ("ada_images", 10**9)):
            value = getattr(self, name)
            if not isinstance(value, int):
                raise ValueError(f"objective.{name} must be a whole number; got {value!r}.")
            check_range("objective", name, value, 1, most)
        check_range("objective", "ada_target", self.ada_target, 0.0, 1.0)
        if self.augment == "ada" and self.loss == "wasserstein":
            raise ValueError(
                "augment 'ada' reads the sign of the scores, which a wasserstein loss leaves open: take another loss, "
                "or augment 'diffaugment'."
            )
        for name in ("ema", "beta1", "beta2"):
            check_range("objective", name, getattr(self, name), 0.0, 0.99999)
