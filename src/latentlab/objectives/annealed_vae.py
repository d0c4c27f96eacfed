"""AnnealedVAE: the code may hold so many nats, and no other number."""

from __future__ import annotations

import torch

from latentlab.config import Coefficient
from latentlab.models.contract import ElboTerms
from latentlab.objectives.schedules import at
from latentlab.objectives.variational import Loss, Objective


class AnnealedVAE(Objective):
    """Reconstruction + gamma |KL - capacity|, the KL averaged over the batch before the distance is taken.

    Args:
        gamma: weight of the distance.
        capacity: nats per image, a number or a schedule.

    References:
        Understanding disentangling in beta-VAE (Burgess et al., 2018), https://arxiv.org/abs/1804.03599
    """

    def __init__(self, gamma: Coefficient, capacity: Coefficient) -> None:
        super().__init__()
        self.gamma = gamma
        self.capacity = capacity

    def forward(self, terms: ElboTerms, step: int, generator: torch.Generator) -> Loss:
        """The loss, and reconstruction and KL by name; a capacity that changes is logged too."""
        reconstruction = terms.reconstruction.mean()
        kl = terms.kl.sum(1).mean()
        distance = (kl - at(self.capacity, step)).abs()
        return Loss(
            reconstruction + at(self.gamma, step) * distance, {"reconstruction": reconstruction, "kl": kl}
        )
