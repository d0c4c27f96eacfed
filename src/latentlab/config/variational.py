"""The objectives of variational models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from latentlab.config.fields import check_choice, check_range
from latentlab.config.objectives import Coefficient, ObjectiveConfig, Schedule, check_coefficient


@dataclass(frozen=True)
class BetaVAE(ObjectiveConfig):
    """beta-VAE (Higgins et al., 2017): reconstruction + beta x KL; beta = 1 is the evidence lower bound itself.

    Args:
        beta: weight of the KL. Both terms are nats per image, so beta needs no rescaling by image size.
    """

    objective: ClassVar[str] = "beta-vae"
    year: ClassVar[int] = 2017
    paper: ClassVar[str] = "https://openreview.net/forum?id=Sy2fzU9gl"
    use: ClassVar[str] = "the evidence lower bound at beta 1; above it, fewer, more independent latents"
    beta: Coefficient = 1.0

    def __post_init__(self) -> None:
        check_coefficient(self, "beta")


@dataclass(frozen=True)
class AnnealedVAE(ObjectiveConfig):
    """AnnealedVAE (Burgess et al., 2018): reconstruction + gamma x |KL - capacity|, the KL of the whole batch.

    Args:
        gamma: weight of the distance to the capacity.
        capacity: nats per image that the code may hold, usually a schedule that rises.
    """

    objective: ClassVar[str] = "annealed-vae"
    year: ClassVar[int] = 2018
    paper: ClassVar[str] = "https://arxiv.org/abs/1804.03599"
    use: ClassVar[str] = "sets how many nats a code holds, so that detail returns step by step"
    gamma: Coefficient = 1000.0
    capacity: Coefficient = field(default_factory=lambda: Schedule("linear", 0.0, 25.0, 100_000))

    def __post_init__(self) -> None:
        check_coefficient(self, "gamma")
        check_coefficient(self, "capacity")


@dataclass(frozen=True)
class JointVAE(ObjectiveConfig):
    """JointVAE (Dupont, 2018): a capacity for the continuous latents and one for the categorical blocks.

    Args:
        gamma: weight of each KL's distance from its capacity.
        capacity_continuous: nats per image that the continuous latents may hold, usually a schedule that rises.
        capacity_discrete: nats per image that the categories may hold; never more than the sum of their ln K.
    """

    objective: ClassVar[str] = "joint-vae"
    year: ClassVar[int] = 2018
    paper: ClassVar[str] = "https://arxiv.org/abs/1804.00104"
    use: ClassVar[str] = (
        "kinds and styles together: continuous latents beside categorical blocks, without labels"
    )
    gamma: Coefficient = 30.0
    capacity_continuous: Coefficient = field(default_factory=lambda: Schedule("linear", 0.0, 5.0, 25_000))
    capacity_discrete: Coefficient = field(default_factory=lambda: Schedule("linear", 0.0, 5.0, 25_000))

    def __post_init__(self) -> None:
        for name in ("gamma", "capacity_continuous", "capacity_discrete"):
            check_coefficient(self, name)


@dataclass(frozen=True)
class BetaTCVAE(ObjectiveConfig):
    """beta-TCVAE (Chen et al., 2018): reconstruction + alpha x MI + beta x TC + gamma x dimension-wise KL.

    Args:
        beta: weight of the total correlation (TC).
        alpha: weight of the mutual information (MI) of code and image.
        gamma: weight of the dimension-wise KL.
        estimator: of the aggregate posterior from a batch. "weighted" is what the published strengths were tuned
            with; "stratified" has no bias, and the same beta means less there; "stratified-faulty" has the wrong
            weights of the method's first program and most of its copies, for reproducing their results.
    """

    objective: ClassVar[str] = "beta-tcvae"
    year: ClassVar[int] = 2018
    paper: ClassVar[str] = "https://arxiv.org/abs/1802.04942"
    use: ClassVar[str] = "independent latents without paying for information; no second network"
    beta: Coefficient = 6.0
    alpha: Coefficient = 1.0
    gamma: Coefficient = 1.0
    estimator: Literal["weighted", "stratified", "stratified-faulty"] = "weighted"

    def __post_init__(self) -> None:
        for name in ("beta", "alpha", "gamma"):
            check_coefficient(self, name)
        check_choice(self, "estimator")


@dataclass(frozen=True)
class FactorVAE(ObjectiveConfig):
    """FactorVAE (Kim and Mnih, 2018): reconstruction + KL + gamma x TC, which a discriminator of codes estimates.

    Args:
        gamma: weight of the total correlation (TC).
        layers: hidden layers of the discriminator.
        units: units of each of them.
        learning_rate: Adam's step size for the discriminator.
    """

    objective: ClassVar[str] = "factor-vae"
    year: ClassVar[int] = 2018
    paper: ClassVar[str] = "https://arxiv.org/abs/1802.05983"
    use: ClassVar[str] = (
        "the strongest at separating factors on sprites; a discriminator of codes trains beside it"
    )
    gamma: Coefficient = 35.0
    layers: int = 6
    units: int = 1000
    learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        check_coefficient(self, "gamma")
        check_range("objective", "layers", self.layers, 1, 32)
        check_range("objective", "units", self.units, 1, 16384)
        check_range("objective", "learning_rate", self.learning_rate, 1e-8, 1.0)


@dataclass(frozen=True)
class DIPVAE(ObjectiveConfig):
    """DIP-VAE (Kumar et al., 2018): reconstruction + KL + penalties that draw the codes' covariance to the identity.

    Args:
        variant: "i" takes the covariance of the posterior means, "ii" that of the aggregate posterior.
        lambda_od: weight of the squared entries off the diagonal.
        lambda_d: weight of the squared distances of the diagonal from 1; by default 10 x lambda_od for "i" and
            lambda_od for "ii".
    """

    objective: ClassVar[str] = "dip-vae"
    year: ClassVar[int] = 2018
    paper: ClassVar[str] = "https://arxiv.org/abs/1711.00848"
    use: ClassVar[str] = "uncorrelated latents at little cost"
    variant: Literal["i", "ii"] = "ii"
    lambda_od: Coefficient = 10.0
    lambda_d: Coefficient | None = None

    def __post_init__(self) -> None:
        check_choice(self, "variant")
        check_coefficient(self, "lambda_od")
        if self.lambda_d is not None:
            check_coefficient(self, "lambda_d")


@dataclass(frozen=True)
class InfoVAE(ObjectiveConfig):
    """InfoVAE (Zhao et al., 2019): reconstruction + (1 - alpha) x KL + (alpha + lambda_mmd - 1) x MMD to the prior.

    Args:
        alpha: how much of the mutual information of code and image is spared the KL; at 1 no KL is left, and with
            it nothing that keeps the posterior's variances from 0.
        lambda_mmd: weight of the maximum mean discrepancy (MMD) of aggregate posterior and prior, a number between
            0 and 2, beside alpha - 1.
        kernel: "rbf" (Gaussian) or "imq" (inverse multiquadric).
    """

    objective: ClassVar[str] = "info-vae"
    year: ClassVar[int] = 2019
    paper: ClassVar[str] = "https://arxiv.org/abs/1706.02262"
    use: ClassVar[str] = (
        "codes that keep what they know of an image, while all codes together follow the prior"
    )
    alpha: Coefficient = 0.0
    lambda_mmd: Coefficient = 1000.0
    kernel: Literal["rbf", "imq"] = "rbf"

    def __post_init__(self) -> None:
        check_coefficient(self, "alpha", -1e6, 1.0)
        check_coefficient(self, "lambda_mmd")
        check_choice(self, "kernel")


@dataclass(frozen=True)
class PairVAE(ObjectiveConfig):
    """PairVAE (Locatello et al., 2020): Ada-GVAE and Ada-ML-VAE on pairs of images; with shared blocks GVAE and ML-VAE.

    Args:
        beta: weight of the KL.
        average: what two posteriors become where they are shared: "mean" (GVAE), "product" of the densities (ML-VAE),
            or "geometric", their geometric mean, which the published program of Ada-ML-VAE computes.
        shared: blocks of the model that a pair shares; null lets each pair decide, coordinate by coordinate, which is
            what "Ada" means.
        symmetric: of the adaptive rule: compare two posteriors in both directions, not from the first to the second.
        changed: how many factors of the data change within a pair, drawn at random; null draws the number too.
        changing: names of the factors that change, in place of a draw.
        mirrored: whether the second half of every batch goes the other way: its pairs keep the factors of ``changing``
            and change the others, and share the blocks that ``shared`` does not name.
    """

    objective: ClassVar[str] = "pair-vae"
    year: ClassVar[int] = 2020
    paper: ClassVar[str] = "https://arxiv.org/abs/2002.02886"
    use: ClassVar[str] = (
        "images that come in pairs with few differences: no labels, and yet factors that keep to their latents"
    )
    beta: Coefficient = 1.0
    average: Literal["mean", "product", "geometric"] = "mean"
    shared: list[str] | None = None
    symmetric: bool = False
    changed: int | None = None
    changing: list[str] | None = None
    mirrored: bool = False

    def __post_init__(self) -> None:
        check_coefficient(self, "beta")
        check_choice(self, "average")
        if self.mirrored and (self.shared is None or not self.changing):
            raise ValueError(
                "objective.mirrored turns round what a pair shares and changes; name both in objective.shared and "
                "objective.changing."
            )
        for name in ("shared", "changing"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
                raise ValueError(f"objective.{name} must be a list of names, or null; got {value!r}.")
        if self.changed is not None:
            if not isinstance(self.changed, int):
                raise ValueError(f"objective.changed must be a whole number; got {self.changed!r}.")
            check_range("objective", "changed", self.changed, 1, 1000)
            if self.changing is not None:
                raise ValueError(
                    f"objective.changed draws factors and objective.changing names them; give one, got "
                    f"{self.changed} and {self.changing}."
                )
        if self.shared is not None and self.changing is None:
            raise ValueError(
                f"objective.shared names the blocks {self.shared} that every pair shares, so the same factors must "
                "change in every pair; name them in objective.changing."
            )
