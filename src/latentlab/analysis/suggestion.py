"""Where to start with one's own images: likelihood, scale, beta and capacity, each with its reason.

Everything here is in nats per image, summed over pixels, so that no strength has to be rescaled by image size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from latentlab.config import AnnealedVAE, BetaVAE, Schedule, VAEConfig
from latentlab.data.factors import FactorDataset

_NEAR = 0.02
_BINARY = 0.95
_FIRST_BETA = 4.0


@dataclass(frozen=True)
class Suggestion:
    """What to start with, and why.

    Attributes:
        model: latents, likelihood and its scale.
        faithful: the objective that keeps the most detail.
        separating: the objective to begin with where every latent should mean something.
        annealed: the same by a capacity in place of a weight.
        highest_beta: above this beta even the last of the wanted latents no longer pays in a linear model.
        reasons: one sentence or two for each of likelihood, scale, beta and capacity.
    """

    model: VAEConfig
    faithful: BetaVAE
    separating: BetaVAE
    annealed: AnnealedVAE
    highest_beta: float
    reasons: dict[str, str]

    def __str__(self) -> str:
        """The reasons, and the command-line options that take the advice."""
        told = [f"{name}: {text}" for name, text in self.reasons.items()]
        model = [f"--model.latents {self.model.latents}", f"--model.likelihood {self.model.likelihood}"]
        if self.model.likelihood == "gaussian":
            model += [
                f"--model.scale {self.model.scale:g}",
                f"--model.learn_scale {str(self.model.learn_scale).lower()}",
            ]
        capacity = self.annealed.capacity
        assert isinstance(capacity, Schedule)
        ways = {
            "for detail": f"--objective BetaVAE --objective.beta {self.faithful.beta:g}",
            "for latents that mean something": f"--objective BetaVAE --objective.beta {self.separating.beta:g}",
            "or by a capacity": f"--objective AnnealedVAE --objective.gamma {self.annealed.gamma:g} "
            f"--objective.capacity.end {capacity.end:g} --objective.capacity.steps {capacity.steps}",
        }
        return "\n\n".join([*told, "options: " + " ".join(model), *(f"{k}: {v}" for k, v in ways.items())])


def suggest(
    dataset: FactorDataset, latents: int = 10, steps: int = 100_000, n: int = 2000, seed: int = 0
) -> Suggestion:
    """Looks at some images and proposes likelihood, scale, beta and capacity.

    The scale is the maximum-likelihood noise of probabilistic PCA with as many latents, in closed form: the error
    that the best linear decoder leaves a pixel. A network leaves less, hence the scale is learned from there.

    Args:
        dataset: the images, of any kind.
        latents: how many latents the model is to have.
        steps: length of the training, over half of which a capacity rises.
        n: images looked at, at least ``latents`` + 2.
        seed: of their choice.

    Raises:
        ValueError: on too few images for so many latents, or images that are all alike.

    References:
        Probabilistic principal component analysis (Tipping and Bishop, 1999), which gives the scale and which
            directions are worth a latent: those of more variance than the noise
        Don't blame the ELBO! A linear VAE perspective on posterior collapse (Lucas et al., 2019),
            https://arxiv.org/abs/1911.02469: with beta the noise counts as beta x scale^2
        Simple and effective VAE training with calibrated decoders (Rybkin et al., 2021),
            https://arxiv.org/abs/2006.13202, on learning the scale
    """
    n = min(n, len(dataset))
    if latents < 1 or n < latents + 2:
        raise ValueError(
            f"A suggestion for {latents} latents needs at least 1 latent and {latents + 2} images; {dataset.name} "
            f"gave {n}."
        )
    chosen = torch.from_numpy(np.random.default_rng(seed).choice(len(dataset), n, replace=False))
    x = dataset.images(chosen, "cpu").flatten(1).double().numpy()
    pixels = x.shape[1]
    centred = x - x.mean(0)
    # Of the n x n matrix of products: the images have more pixels than there are images.
    variances = np.linalg.eigvalsh(centred @ centred.T)[::-1].clip(0.0) / n
    if variances[0] < 1e-9:
        raise ValueError(f"All {n} images of {dataset.name} are alike; there is nothing for a latent to say.")
    noise = max(variances[latents:].sum() / max(pixels - latents, 1), 1e-8)
    binary = float(((x < _NEAR) | (x > 1.0 - _NEAR)).mean())
    is_binary = binary >= _BINARY
    scale = float(f"{min(max(math.sqrt(noise), 1e-3), 1.0):.2g}")
    # A direction is worth a latent while its variance exceeds beta x noise: between the last wanted and the next.
    last = variances[min(latents, len(variances) - 1) - 1]
    highest = float(last / noise)
    beta = float(f"{min(_FIRST_BETA, max(1.0, highest)):.2g}")
    factors = dataset.factor_space
    known = sum(math.log(size) for size in factors.sizes) if factors is not None else None
    told = math.log(len(dataset))
    capacity = float(f"{min(told, known) if known is not None and dataset.is_grid else told:.3g}")
    reasons = {
        "likelihood": (
            f"Bernoulli, since {binary:.0%} of the pixel values are within {_NEAR} of 0 or 1."
            if is_binary
            else f"Gaussian, since only {binary:.0%} of the pixel values are within {_NEAR} of 0 or 1; a Bernoulli "
            "likelihood of grey values is no density, and its best value depends on the images."
        ),
        "scale": (
            "none to choose: a Bernoulli likelihood has no scale."
            if is_binary
            else f"learned, starting from {scale:g}: the best linear decoder with {latents} latents leaves an error of "
            f"that size in a pixel. Held fixed, details of less contrast than the scale count as noise; half the "
            "scale is the same as a quarter of beta."
        ),
        "beta": (
            f"1 is the evidence lower bound and keeps the most detail. For latents that mean something try {beta:g}, "
            "then double or halve it by how many latents stay active (KL above 0.1 nats). "
            f"Above {highest:,.0f} even the {_ordinal(latents)} strongest linear direction of these images "
            "is worth less than the latent it needs. "
            f"No rescaling by image size: the reconstruction is summed over all {pixels:,} values and the KL over all "
            "latents. A weight w beside a squared error averaged over pixels and values is a beta of "
            f"w x {pixels:,} / (2 scale^2) here, such as {beta_of_mean_error(0.00025, pixels, scale):,.3g} for "
            "w = 0.00025."
        ),
        "capacity": (
            f"{capacity:g} nats, "
            + (
                f"the sum of ln(size) over the factors {', '.join(factors.names)}: that names an image."
                if factors is not None and known is not None and dataset.is_grid
                else f"ln({len(dataset):,}): that names each image of the data, and more information than that about "
                "which image it is does not exist. Images that differ in little but noise need less."
            )
            + " It rises over half of the training; gamma only has to exceed what one more nat saves in the "
            "reconstruction, which 100 does by far."
        ),
    }
    return Suggestion(
        VAEConfig(
            latents=latents,
            likelihood="bernoulli" if is_binary else "gaussian",
            scale=VAEConfig.scale if is_binary else scale,
            learn_scale=not is_binary,
        ),
        BetaVAE(1.0),
        BetaVAE(beta),
        AnnealedVAE(100.0, Schedule("linear", 0.0, capacity, max(1, steps // 2))),
        highest,
        reasons,
    )


def beta_of_mean_error(weight: float, values: int, scale: float) -> float:
    """The beta that equals a weight of the KL beside a mean squared error.

    Args:
        weight: of the KL, where the loss is the squared error averaged over all values of an image + weight x KL.
        values: pixels x channels of an image.
        scale: of the Gaussian likelihood, whose reconstruction is the summed squared error / (2 scale^2).
    """
    return weight * values / (2.0 * scale**2)


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
