"""InfoVAE: the aggregate posterior is drawn to the prior by their maximum mean discrepancy."""

from __future__ import annotations

import torch
from torch import Tensor

from latentlab.config import Coefficient
from latentlab.models.contract import ElboTerms
from latentlab.objectives.schedules import at
from latentlab.objectives.variational import Loss, Objective


def _kernel(a: Tensor, b: Tensor, kernel: str) -> Tensor:
    """k(a_i, b_j) of codes (n, dim) and (m, dim): (n, m), 1 where they are equal."""
    # By a product of matrices; what rounding leaves of a distance of 0 may be below 0.
    squared = (a.square().sum(1)[:, None] + b.square().sum(1) - 2.0 * a @ b.T).clamp_min(0.0)
    width = 2.0 * a.shape[1]  # the mean squared distance of two codes of a standard normal prior
    return (-squared / width).exp() if kernel == "rbf" else width / (width + squared)


def mmd(a: Tensor, b: Tensor, kernel: str = "rbf") -> Tensor:
    """The squared maximum mean discrepancy of the distributions behind two samples, without bias.

    Args:
        a: codes (n, dim), n at least 2.
        b: codes (m, dim), m at least 2.
        kernel: "rbf" for exp(-d² / 2 dim), "imq" for 2 dim / (2 dim + d²), d the distance of two codes.

    Returns:
        A scalar between about 0 and 2, a little below 0 by chance where the distributions are equal.

    Raises:
        ValueError: on a sample of less than two codes.

    References:
        A Kernel Two-Sample Test (Gretton et al., 2012), https://jmlr.org/papers/v13/gretton12a.html, lemma 6
    """
    n, m = len(a), len(b)
    if min(n, m) < 2:
        raise ValueError(f"A discrepancy is estimated from at least 2 codes on each side; got {n} and {m}.")
    # A code's likeness to itself is 1 whatever the kernel, and tells nothing.
    within_a = (_kernel(a, a, kernel).sum() - n) / (n * (n - 1))
    within_b = (_kernel(b, b, kernel).sum() - m) / (m * (m - 1))
    return within_a + within_b - 2.0 * _kernel(a, b, kernel).mean()


class InfoVAE(Objective):
    """Reconstruction + (1 - alpha) KL + (alpha + lambda_mmd - 1) MMD(q(z), p(z)).

    Args:
        alpha: how much mutual information of code and image is spared the KL; 0 keeps the KL whole.
        lambda_mmd: weight of the discrepancy of aggregate posterior and prior, beside alpha - 1.
        kernel: "rbf" or "imq", see ``mmd``.

    References:
        InfoVAE: Balancing Learning and Inference in Variational Autoencoders (Zhao et al., 2019),
        https://arxiv.org/abs/1706.02262; the inverse multiquadric kernel is that of Wasserstein Auto-Encoders
        (Tolstikhin et al., 2018), https://arxiv.org/abs/1711.01558
    """

    least_batch = 2

    def __init__(self, alpha: Coefficient, lambda_mmd: Coefficient, kernel: str = "rbf") -> None:
        super().__init__()
        self.alpha, self.lambda_mmd, self.kernel = alpha, lambda_mmd, kernel

    def forward(self, terms: ElboTerms, step: int, generator: torch.Generator) -> Loss:
        """The loss; reconstruction, KL and the discrepancy by name."""
        reconstruction = terms.reconstruction.mean()
        kl = terms.kl.sum(1).mean()
        prior = terms.posterior.space.draw(len(terms.z), generator)
        discrepancy = mmd(terms.z, prior, self.kernel)
        alpha = at(self.alpha, step)
        weight = alpha + at(self.lambda_mmd, step) - 1.0
        return Loss(
            reconstruction + (1.0 - alpha) * kl + weight * discrepancy,
            {"reconstruction": reconstruction, "kl": kl, "mmd": discrepancy},
        )
