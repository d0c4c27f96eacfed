"""Variational objectives: how the parts of the ELBO are weighed into what is minimised.

Every number is in nats per image: summed over pixels, channels and latent dimensions, averaged over the batch.
An objective says what it needs (how many batches, how many samples at least) and never steps an optimiser.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentlab.config import BetaVAE as BetaVAEConfig
from latentlab.config import ObjectiveConfig
from latentlab.models.contract import ElboTerms


@dataclass
class Loss:
    """What an objective gives for a batch.

    Attributes:
        total: the number to minimise, nats per image, a scalar with a gradient.
        terms: named scalars to log, nats per image unless their name says otherwise.
    """

    total: Tensor
    terms: dict[str, Tensor]


class Objective(nn.Module):
    """Base of all variational objectives.

    Attributes:
        batches: how many independent batches a step needs; those after the first arrive as ``terms.others``.
        least_batch: the smallest batch on which it is defined.
        needs_labels: whether ``terms.labels`` must be there.
    """

    batches: int = 1
    least_batch: int = 1
    needs_labels: bool = False

    def forward(self, terms: ElboTerms, step: int, generator: torch.Generator) -> Loss:
        """The loss of one batch.

        Args:
            terms: the parts of the ELBO of the batch, with a gradient.
            step: optimiser step, counted from 0.
            generator: the only source of chance, seeded by (seed, step), on the terms' device.
        """
        raise TypeError(f"{type(self).__name__} defines no loss; use one of its subclasses.")

    def auxiliary(self, terms: ElboTerms, step: int, generator: torch.Generator) -> Tensor | None:
        """The loss of the objective's own parameters (a discriminator's), or None where it has none.

        It is minimised by an optimiser of its own after the model's step. The graph of ``terms`` is spent by
        then: read their values detached.
        """
        return None


class BetaVAE(Objective):
    """Reconstruction + beta x KL.

    Args:
        beta: weight of the KL; 1 gives the negative evidence lower bound.

    References:
        beta-VAE: Learning basic visual concepts with a constrained variational framework (Higgins et al., 2017),
        https://openreview.net/forum?id=Sy2fzU9gl
    """

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, terms: ElboTerms, step: int, generator: torch.Generator) -> Loss:
        """-E log p(x | z) + beta KL(q(z | x) || p(z)), and both parts by name."""
        reconstruction = -terms.log_likelihood.mean()
        kl = terms.kl.sum(1).mean()
        return Loss(reconstruction + self.beta * kl, {"reconstruction": reconstruction, "kl": kl})


_OBJECTIVES: dict[type[ObjectiveConfig], Callable[..., Objective]] = {
    BetaVAEConfig: lambda config, dataset_size: BetaVAE(config.beta),
}


def build_objective(config: ObjectiveConfig, dataset_size: int) -> Objective:
    """From a configuration to an objective.

    Args:
        config: which objective, and its coefficients.
        dataset_size: number of training images, which some estimators need.

    Raises:
        TypeError: on a configuration without an objective.
    """
    if type(config) not in _OBJECTIVES:
        known = [c.__name__ for c in _OBJECTIVES]
        raise TypeError(f"No objective for {type(config).__name__}; known: {known}.")
    return _OBJECTIVES[type(config)](config, dataset_size)
