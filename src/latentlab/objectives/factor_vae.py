"""FactorVAE: a discriminator of codes tells how far they are from a product of their marginals."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentlab.config import Coefficient
from latentlab.latents import LatentSpace
from latentlab.models.contract import ONE_DRAW, ElboTerms, TermsRequest
from latentlab.objectives.schedules import at
from latentlab.objectives.variational import AdamSettings, Loss, Objective

DRAWN, PERMUTED = 0, 1
"""The discriminator's two classes: codes as the encoder draws them, and codes with independent variables."""


def permute_variables(z: Tensor, space: LatentSpace, generator: torch.Generator) -> Tensor:
    """Shuffles each variable across the batch, each in an order of its own, so that they become independent.

    Args:
        z: codes (batch, dim). Every variable keeps its values; a categorical block moves as a whole.
        space: the space of the codes.
        generator: source of the orders, on z's device.
    """
    count = space.variables[-1] + 1
    orders = torch.rand((len(z), count), generator=generator, device=z.device).argsort(0)
    if count < z.shape[1]:  # the coordinates of a category share an order
        orders = orders[:, torch.tensor(space.variables, device=z.device)]
    return z.gather(0, orders)


class FactorVAE(Objective):
    """Reconstruction + KL + gamma x TC, the total correlation (TC) as a discriminator sees it.

    The discriminator learns to tell codes from permuted ones; the mean over codes of its logit for "drawn" minus
    its logit for "permuted" then estimates the TC. The permuted codes are those of a second batch.

    Args:
        space: of the codes.
        gamma: weight of the TC.
        layers: hidden layers of the discriminator.
        units: units of each, leaky ReLU of slope 0.2.
        learning_rate: Adam's step size for the discriminator, its betas being (0.5, 0.9).

    References:
        Disentangling by Factorising (Kim and Mnih, 2018), https://arxiv.org/abs/1802.05983
    """

    requests = (ONE_DRAW, TermsRequest(decode=False, gradient=False))
    least_batch = 2

    def __init__(
        self,
        space: LatentSpace,
        gamma: Coefficient,
        layers: int = 6,
        units: int = 1000,
        learning_rate: float = 1e-4,
    ) -> None:
        super().__init__()
        self.space = space
        self.gamma = gamma
        self.auxiliary_adam = AdamSettings(learning_rate, (0.5, 0.9))
        widths = [space.dim, *([units] * layers)]
        hidden = (
            layer
            for wide, wider in itertools.pairwise(widths)
            for layer in (nn.Linear(wide, wider), nn.LeakyReLU(0.2))
        )
        self.discriminator = nn.Sequential(*hidden, nn.Linear(units, 2))

    def logits(self, z: Tensor) -> Tensor:
        """The discriminator's logits (batch, 2) of codes (batch, dim), in 32 bits: drawn, permuted."""
        with self.arithmetic():
            logits = self.discriminator(z)
        return logits.float()

    def forward(self, terms: ElboTerms, step: int, generator: torch.Generator) -> Loss:
        """The loss; reconstruction, KL and the discriminator's TC by name."""
        reconstruction = terms.reconstruction.mean()
        kl = terms.kl.sum(1).mean()
        logits = self.logits(terms.z)
        total_correlation = (logits[:, DRAWN] - logits[:, PERMUTED]).mean()
        return Loss(
            reconstruction + kl + at(self.gamma, step) * total_correlation,
            {
                "reconstruction": reconstruction,
                "kl": kl,
                "total_correlation_discriminator": total_correlation,
            },
        )

    def auxiliary_parameters(self) -> Iterable[nn.Parameter]:
        """The discriminator's weights."""
        return self.discriminator.parameters()

    def auxiliary(self, terms: ElboTerms, step: int, generator: torch.Generator) -> Tensor:
        """The discriminator's cross-entropy, nats a code: ln 2 where it can't tell the two apart."""
        (other,) = terms.others
        drawn = terms.z.detach()
        permuted = permute_variables(other.z.detach(), self.space, generator)
        logits = self.logits(torch.cat([drawn, permuted]))
        classes = torch.full((len(logits),), DRAWN, device=logits.device)
        classes[len(drawn) :] = PERMUTED
        return F.cross_entropy(logits, classes)
