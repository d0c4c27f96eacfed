"""The KL to the prior taken apart: mutual information + total correlation + dimension-wise KL.

Symbols: q(z | x) the posterior, q(z) its mean over the N images of the data set (the aggregate posterior), q(z_k)
a marginal of that, p(z) the prior; B the batch. For a code z_i drawn from q(z | x_i)

    log q(z_i | x_i) - log q(z_i)              mutual information of code and image
    log q(z_i) - sum_k log q(z_ik)             total correlation of the code
    sum_k (log q(z_ik) - log p(z_ik))          dimension-wise KL

and the three sum to log q(z_i | x_i) - log p(z_i) whatever stands for log q(z). That, a mean over N images, is
estimated from the batch; the estimators differ in how the batch's images are weighed:

- "weighted" (minibatch weighted sampling, MWS): every image 1 / (N B). What the published strengths of beta-TCVAE
  were tuned with, but no estimate of q(z) that could be read: where the images' codes are alike it is N times too
  small, so the mutual information is log N nats too large and the total correlation (D - 1) log N.
- "stratified" (minibatch stratified sampling, MSS): the image itself 1 / N, one other (N - M) / (N M), each
  further one 1 / M, with M = B - 1. Each row sums to 1; without bias as an estimate of q(z).
- "stratified-faulty": the weights that the method's first program and most of its copies use. The 1 / N lies in
  the first column instead of the diagonal, so the image itself weighs N / M times too much. Only for
  reproducing results that were made so.

References:
    Isolating Sources of Disentanglement in Variational Autoencoders (Chen et al., 2018),
    https://arxiv.org/abs/1802.04942, section 3 and appendix C
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from latentlab.latents import Posterior

ESTIMATORS = ("weighted", "stratified", "stratified-faulty")


@dataclass
class Decomposition:
    """The three parts of the KL at each code of a batch, nats (batch,); see the module.

    Attributes:
        mutual_information: log q(z | x) - log q(z).
        total_correlation: log q(z) - sum over variables of log q(z_k).
        dimension_wise_kl: sum over variables of log q(z_k) - log p(z_k).
    """

    mutual_information: Tensor
    total_correlation: Tensor
    dimension_wise_kl: Tensor


def weights(batch: int, data_size: int, estimator: str, device: torch.device | str = "cpu") -> Tensor:
    """How much the posterior of image j counts in q(z_i): (batch, batch), or (1, 1) where all count the same.

    Args:
        batch: number of images, at least 2.
        data_size: number of images of the data set; a batch larger than that counts as the data set.
        estimator: one of ``ESTIMATORS``.
        device: where the weights are to be.

    Raises:
        ValueError: on an unknown estimator, or a batch of less than two images.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"The estimator of q(z) must be one of {', '.join(ESTIMATORS)}; got {estimator!r}.")
    if batch < 2:
        raise ValueError(f"q(z) is estimated from at least 2 images; got a batch of {batch}.")
    n, m = max(data_size, batch), batch - 1
    if estimator == "weighted":
        return torch.full((1, 1), 1.0 / (n * batch), device=device)
    found = torch.full((batch, batch), 1.0 / m, device=device)
    other = (n - m) / (n * m)
    if estimator == "stratified":
        found.diagonal().fill_(1.0 / n)
        found.diagonal(1).fill_(other)
        found[-1, :1].fill_(other)
    else:
        found[:, 0].fill_(1.0 / n)
        found[:, 1].fill_(other)
        found[m - 1, :1].fill_(other)
    return found


def decompose(posterior: Posterior, z: Tensor, data_size: int, estimator: str) -> Decomposition:
    """Mutual information, total correlation and dimension-wise KL, estimated from a batch.

    Args:
        posterior: q(z | x) of the batch, at least 2 images.
        z: one draw of it, codes (batch, dim).
        data_size: number of images of the data set.
        estimator: one of ``ESTIMATORS``.

    Returns:
        Nats (batch,) each, with gradients to codes and posterior.

    Raises:
        ValueError: as ``weights``.
    """
    space = posterior.space
    log_weights = weights(len(z), data_size, estimator, z.device).log()
    pairs = posterior.pairwise_log_prob(z)  # (codes, posteriors, variables)
    own = pairs.diagonal().sum(0)
    log_q = (pairs.sum(2) + log_weights).logsumexp(1)
    log_marginals = (pairs + log_weights[:, :, None]).logsumexp(1).sum(1)
    return Decomposition(own - log_q, log_q - log_marginals, log_marginals - space.log_prob(z).sum(1))
