"""Mutual information gap and its relatives: does one code, and one only, know a factor?"""

from __future__ import annotations

from typing import Any

import numpy as np

from latentlab.metrics.mutual_information import (
    BINS,
    discretize,
    entropies,
    label_information,
    mutual_information_matrix,
    relabel,
)
from latentlab.metrics.representation import as_pair, needs_variety
from latentlab.metrics.score import Score


def gap(information: np.ndarray) -> np.ndarray:
    """The best code's information less the second best's, for each factor: (d, k) -> (k,), same unit.

    With a single code the second best is 0.
    """
    ordered = np.sort(information, axis=0)[::-1]
    return ordered[0] - (ordered[1] if len(ordered) > 1 else 0.0)


def mig(codes: Any, factors: Any, bins: int = BINS) -> Score:
    """Mutual information gap: 0 (no code singles out a factor) to 1.

    The mean over factors of (I of the best code - I of the second best) / H(factor). With 20 bins the ceiling of
    factors with more values than bins is below 1: perfect codes of dSprites get 0.87 to 0.90. A constant code
    changes nothing. A duplicated code brings the gap of its factor to 0. A one-valued factor is refused.

    Args:
        codes: (n, d), numpy or torch.
        factors: whole numbers (n, k).
        bins: number of equal-width bins over each code's range.

    Returns:
        Score with details ``per_factor`` (k,), ``information`` nats (d, k) and ``entropies`` nats (k,).

    Raises:
        ValueError: on too few points, no factor, or a factor of one value.

    References:
        Isolating sources of disentanglement in variational autoencoders (Chen et al., 2018),
        https://arxiv.org/abs/1802.04942. Binned posterior means as in Challenging common assumptions in the
        unsupervised learning of disentangled representations (Locatello et al., 2019); ``continuous_mig`` is
        the first paper's own estimate.
    """
    z, v = as_pair(codes, factors)
    needs_variety(v, "mig")
    information, entropy = mutual_information_matrix(z, v, bins), entropies(v)
    per_factor = gap(information) / entropy
    return Score(
        "mig",
        per_factor.mean(),
        {"per_factor": per_factor, "information": information, "entropies": entropy},
        {"bins": bins, "points": len(z)},
    )


def mig_sup(codes: Any, factors: Any, bins: int = BINS) -> Score:
    """MIG from the code's side: does a code know one factor, and one only? 0 to 1.

    The mean over codes of the gap between a code's best and second best factor, each as a share of that factor's
    entropy. Codes that know nothing (a constant one among them) count as 0, as in the paper; a duplicated code
    counts twice. A one-valued factor is refused, and so is a single factor.

    Args:
        codes: (n, d).
        factors: whole numbers (n, k), k at least 2.
        bins: number of equal-width bins.

    References:
        Progressive learning and disentanglement of hierarchical representations (Li et al., 2020),
        https://arxiv.org/abs/2002.10549.
    """
    z, v = as_pair(codes, factors)
    needs_variety(v, "mig_sup")
    if v.shape[1] < 2:
        raise ValueError("mig_sup compares the factors of a code; it needs at least two, got one.")
    shares = mutual_information_matrix(z, v, bins) / entropies(v)
    per_code = gap(shares.T)
    return Score("mig_sup", per_code.mean(), {"per_code": per_code}, {"bins": bins, "points": len(z)})


def dcimig(codes: Any, factors: Any, bins: int = BINS) -> Score:
    """Each code votes for one factor with its gap; the sum of the best votes over the entropy. 0 to 1.

    A constant code votes 0, a duplicated code's vote counts once, a one-valued factor is refused.

    Args:
        codes: (n, d).
        factors: whole numbers (n, k).
        bins: number of equal-width bins.

    References:
        How to not measure disentanglement (Sepliarskaia, Kiseleva and de Rijke, 2019),
        https://arxiv.org/abs/1910.05587, "3CharM".
    """
    z, v = as_pair(codes, factors)
    needs_variety(v, "dcimig")
    information, entropy = mutual_information_matrix(z, v, bins), entropies(v)
    best = information.argmax(axis=1)
    votes = np.zeros_like(information)
    votes[np.arange(len(information)), best] = gap(information.T)
    won = votes.max(axis=0)
    return Score(
        "dcimig", won.sum() / entropy.sum(), {"per_factor": won / entropy}, {"bins": bins, "points": len(z)}
    )


def jemmig(codes: Any, factors: Any, bins: int = BINS) -> Score:
    """MIG that also minds what else the best code holds: 0 to 1.

    For each factor 1 - (H(best code, factor) - I(best) + I(second)) / (H(factor) + ln bins), averaged: a code that
    stores more than its factor has a joint entropy beyond it and scores less. A constant code changes nothing, a
    duplicated code costs its factor as in MIG, a one-valued factor is refused.

    Args:
        codes: (n, d).
        factors: whole numbers (n, k).
        bins: number of equal-width bins.

    References:
        Theory and evaluation metrics for learning disentangled representations (Do and Tran, 2020),
        https://arxiv.org/abs/1908.09961, their normalised form.
    """
    z, v = as_pair(codes, factors)
    needs_variety(v, "jemmig")
    labels, _ = relabel(v)
    binned = discretize(z, bins)
    information, entropy = label_information(binned, labels), entropies(v)
    best = information.argmax(axis=0)
    joint = entropies(binned)[best] + entropy - information.max(axis=0)
    per_factor = 1.0 - (joint - gap(information)) / (entropy + np.log(bins))
    return Score("jemmig", per_factor.mean(), {"per_factor": per_factor}, {"bins": bins, "points": len(z)})
