"""JointVAE: one capacity for the continuous latents, another for the categories."""

from __future__ import annotations

import math

import torch

from latentlab.config import Coefficient
from latentlab.latents import Categorical, LatentSpace
from latentlab.models.contract import ElboTerms
from latentlab.objectives.schedules import at
from latentlab.objectives.variational import Loss, Objective


class JointVAE(Objective):
    """Reconstruction + gamma |continuous KL - capacity| + gamma |discrete KL - capacity|, each KL of the whole batch.

    A capacity of its own keeps the categories in use: under one weight for all, the continuous latents carry
    everything. The discrete capacity never exceeds what the categories can hold, the sum of their ln K. Without
    categorical blocks it is AnnealedVAE.

    Args:
        latent_space: whose categorical blocks are the discrete ones.
        gamma: weight of both distances.
        capacity_continuous: nats per image, a number or a schedule.
        capacity_discrete: nats per image, a number or a schedule.

    References:
        Learning disentangled joint continuous and discrete representations (Dupont, 2018),
        https://arxiv.org/abs/1804.00104
    """

    def __init__(
        self,
        latent_space: LatentSpace,
        gamma: Coefficient,
        capacity_continuous: Coefficient,
        capacity_discrete: Coefficient,
    ) -> None:
        super().__init__()
        self.gamma = gamma
        self.capacity_continuous = capacity_continuous
        self.capacity_discrete = capacity_discrete
        discrete = [b for b in latent_space.blocks if isinstance(b.prior, Categorical)]
        columns = [i for b in discrete for i in range(*latent_space.slice(b.name).indices(latent_space.dim))]
        self._discrete = columns
        self._continuous = [i for i in range(latent_space.dim) if i not in set(columns)]
        self._most = sum(math.log(b.dim) for b in discrete)

    def forward(self, terms: ElboTerms, step: int, generator: torch.Generator) -> Loss:
        """The loss; reconstruction, KL and its two parts by name."""
        reconstruction, gamma = terms.reconstruction.mean(), at(self.gamma, step)
        continuous = terms.kl[:, self._continuous].sum(1).mean()
        discrete = terms.kl[:, self._discrete].sum(1).mean()
        total = reconstruction + gamma * (continuous - at(self.capacity_continuous, step)).abs()
        if self._discrete:
            total = total + gamma * (discrete - min(at(self.capacity_discrete, step), self._most)).abs()
        return Loss(
            total,
            {
                "reconstruction": reconstruction,
                "kl": continuous + discrete,
                "kl_continuous": continuous,
                "kl_discrete": discrete,
            },
        )
