"""The KL to the prior taken apart: mutual information + total correlation + dimension-wise KL.

Symbols: q(z | x) the posterior, q(z) its mean over the N images of the data set (the aggregate posterior), q(z_k)
a marginal of that, p(z) the prior; B the batch. For a code z_i drawn from q(z | x_i)

    log q(z_i | x_i) - log q(z_i)              mutual information of code and image
    log q(z_i) - sum_k log q(z_ik)             total correlation of the code
    sum_k (log q(z_ik) - log p(z_ik))          dimension-wise KL

and the three sum to log q(z_i | x_i) - log p(z_i) whatever stands for log q(z). That, a mean over N images, is
estimated from a sample of the images, which for what is minimised is the batch; the estimators differ in how the
sample's images are weighed:

- "weighted" (minibatch weighted sampling, MWS): every image 1 / (N B). What the published strengths of beta-TCVAE
  were tuned with, but no estimate of q(z) that could be read: where the images' codes are alike it is N times too
  small, so the mutual information is log N nats too large and the total correlation (D - 1) log N.
- "stratified" (minibatch stratified sampling, MSS): the image itself 1 / N, one other (N - M) / (N M), each
  further one 1 / M, with M = B - 1. Each row sums to 1; without bias as an estimate of q(z). Its logarithm has
  one: a batch hardly ever holds a second image that could have given the code, so where the code carries more than
  log B nats the mutual information comes out near log N, above the KL itself, and the total correlation below 0.
- "stratified-faulty": the weights that the method's first program and most of its copies use. The 1 / N lies in
  the first column instead of the diagonal, so the image itself weighs N / M times too much. Only for
  reproducing results that were made so.
- "half-own", of ``measure``: for reading and not for minimising. With S of the N images the image itself weighs
  w = 1 / N + (1 / (S - 1) - 1 / (N - 1)) / 2, every other (1 - w) / (S - 1).

Why by half: if the image weighed 1 / N, the estimate of q(z_i) would have no bias but spread, and by the logarithm's
curvature its mean logarithm is too small by half the relative variance, c / (2 (S - 1)) with c that of q(z | x) over
the images x, averaged over codes z of q(z). A further weight v on the image itself raises it by v c, since the mean
of q(z | x) / q(z) over images and codes of theirs is that of (q(z | x) / q(z))^2 over images and codes independent of
them, which is 1 + c. At v = 1 / (2 (S - 1)) the two cancel, for the joint and every marginal; what is left is of the
order (c / S)^2. With the whole data set as the sample (S = N) the weights are 1 / N each, and only the draw of z is
left to chance.

How to read it: counted in full (v = 1 / S) the image would give the parts of a data set of S images, a lower bound of
the mutual information; not counted (v = 0) an upper bound. Mutual information never exceeds log(1 / w), which is
below log N and about log(2 S), 8.3 nats of 2,048 images: where it comes near that, the sample was too small, and it is
too low and the total correlation too high by the same amount. No lower bound of S images can exceed log S, so that an
estimate can't do better: there the two bounds lie far apart, and say so. The dimension-wise KL, of one variable at a
time, is right long before.

References:
    Isolating Sources of Disentanglement in Variational Autoencoders (Chen et al., 2018),
    https://arxiv.org/abs/1802.04942, section 3 and appendix C
    On Variational Bounds of Mutual Information (Poole et al., 2019), https://arxiv.org/abs/1905.06922,
    section 2.3: the two bounds; the half between them is derived above
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latentlab.latents import Posterior

ESTIMATORS = ("weighted", "stratified", "stratified-faulty")

_NUMBERS = 2**22
"""How many pairwise log densities are held at once: 16 MB."""


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


@dataclass
class Measured(Decomposition):
    """A decomposition that can be read, and between which means the mutual information lies; nats (n,) each.

    Attributes:
        least: log q(z | x) - log q(z) with the own image counted in full (1 / S): a lower bound in the mean.
        most: the same with q(z) without bias (1 / N): an upper bound in the mean, as the logarithm is concave.
    """

    least: Tensor
    most: Tensor


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
    pairs, whole = posterior.pairwise(z)  # (codes, posteriors, variables) and (codes, posteriors)
    own = whole.diagonal()
    log_q = (whole + log_weights).logsumexp(1)
    log_marginals = (pairs + log_weights[:, :, None]).logsumexp(1).sum(1)
    return Decomposition(own - log_q, log_q - log_marginals, log_marginals - space.log_prob(z).sum(1))


def own_weight(sampled: int, data_size: int) -> float:
    """How much the image of a code counts in q(z) by the "half-own" estimator; see the module.

    Args:
        sampled: number of images of the sample, at least 2.
        data_size: number of images of the data set; a sample larger than that counts as the data set.

    Raises:
        ValueError: on a sample of less than two images.
    """
    if sampled < 2:
        raise ValueError(f"q(z) is estimated from at least 2 images; got a sample of {sampled}.")
    n = max(sampled, data_size)
    return 1.0 / n + 0.5 * (1.0 / (sampled - 1) - 1.0 / (n - 1))


@torch.no_grad()
def measure(posteriors: Sequence[Posterior], z: Tensor, data_size: int) -> Measured:
    """Mutual information, total correlation and dimension-wise KL as they can be read, by the "half-own" estimator.

    Args:
        posteriors: q(z | x) of a sample of different images, at least 2, batch by batch; the more the better.
        z: draws of the first of them, codes (n, dim), n up to the number of images.
        data_size: number of images of the data set.

    Returns:
        Nats (n,) each, without gradients.

    Raises:
        ValueError: as ``own_weight``, and on more codes than posteriors.
    """
    sampled, space = sum(len(q.mean) for q in posteriors), posteriors[0].space
    if len(z) > sampled:
        raise ValueError(f"Each code belongs to a posterior; got {len(z)} codes and {sampled} posteriors.")
    weight = own_weight(sampled, data_size)

    def log_mean(own: Tensor, others: Tensor, of_own: float) -> Tensor:
        return torch.logaddexp(own + math.log(of_own), others + math.log1p(-of_own))

    found = []
    rows = max(1, _NUMBERS // (sampled * (space.variables[-1] + 1)))
    for start, codes in zip(range(0, len(z), rows), z.split(rows), strict=True):
        every = [q.pairwise(codes) for q in posteriors]
        pairs, whole = (torch.cat(part, dim=1) for part in zip(*every, strict=True))
        row = torch.arange(len(codes), device=z.device)
        own, of_each = whole[row, row + start], pairs[row, row + start]
        whole[row, row + start] = -math.inf
        pairs[row, row + start] = -math.inf
        others = whole.logsumexp(1) - math.log(sampled - 1)
        log_q = log_mean(own, others, weight)
        marginals = log_mean(of_each, pairs.logsumexp(1) - math.log(sampled - 1), weight).sum(1)
        prior = space.log_prob(codes).sum(1)
        bounds = [own - log_mean(own, others, 1.0 / n) for n in (sampled, max(sampled, data_size))]
        found.append(torch.stack([own - log_q, log_q - marginals, marginals - prior, *bounds]))
    return Measured(*torch.cat(found, dim=1))
