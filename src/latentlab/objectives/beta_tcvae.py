"""beta-TCVAE: the total correlation of the code weighed on its own."""

from __future__ import annotations

import torch

from latentlab.config import Coefficient
from latentlab.models.contract import ElboTerms
from latentlab.objectives.schedules import at
from latentlab.objectives.total_correlation import decompose
from latentlab.objectives.variational import Loss, Objective

SHORT_NAMES = {"weighted": "mws", "stratified": "mss", "stratified-faulty": "mss_faulty"}
"""The estimators as the names of logged terms end."""


class BetaTCVAE(Objective):
    """Reconstruction + KL + (alpha - 1) MI + (beta - 1) TC + (gamma - 1) dimension-wise KL.

    The KL is exact and only what goes beyond it is estimated, so at alpha = beta = gamma = 1 this is the negative
    evidence lower bound itself; in the mean it is reconstruction + alpha MI + beta TC + gamma dimension-wise KL.

    Args:
        beta: weight of the total correlation.
        alpha: weight of the mutual information of code and image.
        gamma: weight of the dimension-wise KL.
        estimator: of q(z), one of ``total_correlation.ESTIMATORS``.
        data_size: number of images of the data set, which the estimators need.

    References:
        Isolating Sources of Disentanglement in Variational Autoencoders (Chen et al., 2018),
        https://arxiv.org/abs/1802.04942
    """

    least_batch = 2

    def __init__(
        self, beta: Coefficient, alpha: Coefficient, gamma: Coefficient, estimator: str, data_size: int
    ) -> None:
        super().__init__()
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.estimator = estimator
        self.data_size = data_size

    def forward(self, terms: ElboTerms, step: int, generator: torch.Generator) -> Loss:
        """The loss, reconstruction and KL by name, and what was estimated with the estimator in its name."""
        reconstruction = terms.reconstruction.mean()
        kl = terms.kl.sum(1).mean()
        parts = decompose(terms.posterior, terms.z, self.data_size, self.estimator)
        named = {
            "mutual_information": (at(self.alpha, step), parts.mutual_information.mean()),
            "total_correlation": (at(self.beta, step), parts.total_correlation.mean()),
            "dimension_wise_kl": (at(self.gamma, step), parts.dimension_wise_kl.mean()),
        }
        total = reconstruction + kl
        for weight, part in named.values():
            if weight != 1.0:
                total = total + (weight - 1.0) * part
        estimated = {f"{name}_{SHORT_NAMES[self.estimator]}": part for name, (_, part) in named.items()}
        return Loss(total, {"reconstruction": reconstruction, "kl": kl, **estimated})
