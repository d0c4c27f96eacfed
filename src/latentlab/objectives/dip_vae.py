"""DIP-VAE: the covariance of the aggregate posterior is drawn to the identity."""

from __future__ import annotations

import torch
from torch import Tensor

from latentlab.config import Coefficient
from latentlab.latents import LatentSpace, Normal, Posterior
from latentlab.models.contract import ElboTerms
from latentlab.objectives.schedules import at
from latentlab.objectives.variational import Loss, Objective


def code_covariance(posterior: Posterior, variant: str) -> Tensor:
    """The covariance that DIP-VAE looks at, (dim, dim), from a batch.

    Args:
        posterior: q(z | x) of the batch, at least 2 images; sums are divided by the batch size.
        variant: "i" for that of the posterior means; "ii" adds the mean posterior variance to its diagonal, which
            makes it the covariance of the aggregate posterior.
    """
    mean = posterior.mean
    away = mean - mean.mean(0)
    covariance = away.T @ away / len(mean)
    return covariance + posterior.variance.mean(0).diag_embed() if variant == "ii" else covariance


class DIPVAE(Objective):
    """Reconstruction + KL + lambda_od x sum of squared covariances + lambda_d x sum of (variance - 1)².

    Args:
        space: of the codes; all its blocks must be normal.
        variant: "i" or "ii", see ``code_covariance``.
        lambda_od: weight of the entries off the diagonal.
        lambda_d: weight of those on it; by default 10 x lambda_od for "i" and lambda_od for "ii".

    Raises:
        ValueError: on a block that is not normal.

    References:
        Variational Inference of Disentangled Latent Concepts from Unlabeled Observations (Kumar et al., 2018),
        https://arxiv.org/abs/1711.00848; the default of lambda_d is that of Challenging Common Assumptions in the
        Unsupervised Learning of Disentangled Representations (Locatello et al., 2019),
        https://arxiv.org/abs/1811.12359
    """

    least_batch = 2

    def __init__(
        self, space: LatentSpace, variant: str, lambda_od: Coefficient, lambda_d: Coefficient | None = None
    ) -> None:
        super().__init__()
        for block in space.blocks:
            if not isinstance(block.prior, Normal):
                raise ValueError(
                    f"DIP-VAE draws covariances to the identity, which means nothing for block {block.name!r} with "
                    f"its {block.prior.kind} prior; use normal blocks or another objective."
                )
        self.variant = variant
        self.lambda_od, self.lambda_d = lambda_od, lambda_d

    def forward(self, terms: ElboTerms, step: int, generator: torch.Generator) -> Loss:
        """The loss; reconstruction, KL and the two unweighed penalties by name."""
        reconstruction = terms.reconstruction.mean()
        kl = terms.kl.sum(1).mean()
        covariance = code_covariance(terms.posterior, self.variant)
        variances = covariance.diagonal()
        diagonal = (variances - 1.0).square().sum()
        off_diagonal = covariance.square().sum() - variances.square().sum()
        lambda_od = at(self.lambda_od, step)
        usual = (10.0 if self.variant == "i" else 1.0) * lambda_od
        lambda_d = usual if self.lambda_d is None else at(self.lambda_d, step)
        return Loss(
            reconstruction + kl + lambda_od * off_diagonal + lambda_d * diagonal,
            {
                "reconstruction": reconstruction,
                "kl": kl,
                "covariance_off_diagonal": off_diagonal,
                "covariance_diagonal": diagonal,
            },
        )
