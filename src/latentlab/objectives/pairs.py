"""Pairs: two images that share most of their factors share part of their posterior too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.distributions import Distribution, OneHotCategorical
from torch.distributions import Normal as NormalDistribution

from latentlab.config import Coefficient
from latentlab.latents import Block, Categorical, LatentSpace, Normal, Posterior
from latentlab.models.contract import ONE_DRAW, ElboTerms, TermsRequest
from latentlab.objectives.schedules import at
from latentlab.objectives.variational import Loss, Objective


def average(block: Block, first: Distribution, second: Distribution, how: str) -> Distribution:
    """What two posteriors of one block become where they are shared.

    Args:
        block: the block, normal or categorical.
        first: batch shape (batch, dim) for a normal block, (batch,) over dim categories for a categorical one.
        second: of the same kind and shape.
        how: "mean" averages means and variances, or the categories' probabilities; "product" is the normalised
            product of the two densities, whose precisions add up; "geometric" is the normalised root of that
            product, whose precision is the average.

    References:
        The mean is that of Group-based Learning of Disentangled Representations with Generalizability for Novel
        Contents (Hosoya, 2019), https://arxiv.org/abs/1809.02383, as Locatello et al. (2020) state it; the product
        that of Multi-Level Variational Autoencoder (Bouchacourt et al., 2018), https://arxiv.org/abs/1705.08841.
        The program of Locatello et al. (2020) computes the geometric one under the latter's name.
    """
    if isinstance(first, OneHotCategorical) and isinstance(second, OneHotCategorical):
        logs = torch.stack([first.logits.log_softmax(-1), second.logits.log_softmax(-1)])
        logits = logs.logsumexp(0) if how == "mean" else logs.sum(0) if how == "product" else logs.mean(0)
        return block.prior.posterior(logits)
    a, b = first.variance, second.variance
    if how == "mean":
        mean, variance = (first.mean + second.mean) / 2, (a + b) / 2
    else:
        mean, variance = (first.mean * b + second.mean * a) / (a + b), a * b / (a + b)
        variance = variance if how == "product" else 2 * variance
    return NormalDistribution(mean, variance.sqrt(), validate_args=False)


def divergence(first: Distribution, second: Distribution, symmetric: bool = False) -> Tensor:
    """KL(first || second) of each variable, nats: (batch, dim) for a normal block, (batch, 1) for a categorical one.

    Args:
        first: a block's posterior.
        second: the same block's posterior of the other image.
        symmetric: take the mean of that and of KL(second || first) instead.
    """
    if symmetric:
        return (divergence(first, second) + divergence(second, first)) / 2
    if isinstance(first, OneHotCategorical) and isinstance(second, OneHotCategorical):
        away = first.logits.log_softmax(-1) - second.logits.log_softmax(-1)
        return (first.probs * away).sum(-1, keepdim=True)
    ratio = first.variance / second.variance
    return (ratio + (first.mean - second.mean).square() / second.variance - 1 - ratio.log()) / 2


def shared_variables(divergences: Tensor) -> Tensor:
    """Which variables a pair is taken to share: those below the middle between its least and its largest divergence.

    Args:
        divergences: nats (batch, variables), one row a pair.

    Returns:
        Bool (batch, variables).
    """
    low, high = divergences.aminmax(dim=1, keepdim=True)
    return divergences < (low + high) / 2


class PairVAE(Objective):
    """The mean over both images of a pair of reconstruction + beta x KL, after what they share was averaged.

    Adaptive (no ``shared``): a variable is shared where the two posteriors differ less than halfway between their
    least and their largest KL from each other. The shared KL is then counted for each image, as in Locatello et al.
    Declared (``shared``): the coordinates of the named blocks are always shared, and their KL is counted once a pair,
    as in the bound of Bouchacourt et al. and Hosoya. A content that is known to both images is then half as dear in
    a shared block as in the others, which is what draws it there.
    Mirrored: the pairs in the second half of a batch share the other blocks, and change what the first half's pairs
    keep. A block then holds what its pairs share and nothing else, whatever its price: an image whose pose comes from
    a partner of another colour can't take its colour from there.

    Args:
        space: of the codes; its blocks must be normal or categorical.
        beta: weight of the KL. A number or a schedule.
        how: see ``average``.
        shared: names of the shared blocks; None for the adaptive rule.
        symmetric: measure the adaptive rule's difference in both directions; by default KL(first || second) alone.
        changed: how many factors change within a pair, see ``latentlab.data.pairs.Pairs``.
        changing: names of the factors that change, in place of a draw.
        mirrored: whether the second half of every batch shares the other blocks and changes the other factors.

    Raises:
        ValueError: on a block without a posterior to average, and on shared blocks that are none, all or unknown.

    References:
        Weakly-Supervised Disentanglement Without Compromises (Locatello et al., 2020),
        https://arxiv.org/abs/2002.02886
        Multi-Level Variational Autoencoder (Bouchacourt et al., 2018), https://arxiv.org/abs/1705.08841
        Group-based Learning of Disentangled Representations with Generalizability for Novel Contents (Hosoya, 2019),
        https://arxiv.org/abs/1809.02383
    """

    def __init__(
        self,
        space: LatentSpace,
        beta: Coefficient = 1.0,
        how: str = "mean",
        shared: Sequence[str] | None = None,
        symmetric: bool = False,
        changed: int | None = None,
        changing: Sequence[str] | None = None,
        mirrored: bool = False,
    ) -> None:
        super().__init__()
        for block in space.blocks:
            if not isinstance(block.prior, (Normal, Categorical)):
                raise ValueError(
                    f"Posteriors of normal and categorical blocks can be averaged; block {block.name!r} has a "
                    f"{block.prior.kind} prior."
                )
        if shared is not None and not set() < set(shared) < set(space.block_names):
            raise ValueError(
                f"A pair shares some of the blocks {list(space.block_names)}, not none or all; got {list(shared)}."
            )
        self.space = space
        self.beta = beta
        self.how = how
        self.shared = None if shared is None else tuple(shared)
        self.symmetric = symmetric
        named = None if changing is None else tuple(changing)
        self.mirrored = mirrored
        self.least_batch = 2 if mirrored else 1
        self.requests = (
            ONE_DRAW,
            TermsRequest(kind="pair", changed=changed, changing=named, mirrored=mirrored),
        )

    def adjust_posteriors(
        self,
        posteriors: tuple[Posterior, ...],
        labels: tuple[Tensor | None, ...],
        step: int,
        generator: torch.Generator,
    ) -> tuple[Posterior, ...]:
        """Gives both images the average posterior where they share a variable, and leaves the rest to each."""
        first, second = (q.parts for q in posteriors)
        masks = self._masks(first, second)
        found: tuple[dict[str, Distribution], ...] = ({}, {})
        for block in self.space.blocks:
            name, mask = block.name, masks[block.name]
            both = average(block, first[name], second[name], self.how)
            for parts, own in zip(found, (first[name], second[name]), strict=True):
                parts[name] = _choose(block, mask, both, own)
        return Posterior(self.space, found[0]), Posterior(self.space, found[1])

    def _masks(self, first: dict[str, Distribution], second: dict[str, Distribution]) -> dict[str, Tensor]:
        """Which variables are shared, a bool (batch, variables) for each block."""
        names = self.space.block_names
        with torch.no_grad():
            away = [divergence(first[name], second[name], self.symmetric) for name in names]
            if self.shared is None:
                widths = [part.shape[1] for part in away]
                masks = shared_variables(torch.cat(away, dim=1)).split(widths, dim=1)
            else:
                masks = [
                    self._declared(name, len(part), part.device)[:, None].expand_as(part)
                    for name, part in zip(names, away, strict=True)
                ]
        return dict(zip(names, masks, strict=True))

    def _declared(self, name: str, batch: int, device: torch.device) -> Tensor:
        """Which pairs of a batch share a block, bool (batch,)."""
        shared = torch.full((batch,), name in (self.shared or ()), device=device)
        if self.mirrored:
            shared[batch // 2 :] = name not in (self.shared or ())
        return shared

    def forward(self, terms: ElboTerms, step: int, generator: torch.Generator) -> Loss:
        """The loss; by name reconstruction and KL, the mean of both images'.

        Where what is shared counts once a pair, "kl" is nevertheless the whole KL of an image, and "kl_counted" what
        the loss has of it.
        """
        (other,) = terms.others
        reconstruction = (terms.reconstruction.mean() + other.reconstruction.mean()) / 2
        columns = (terms.kl + other.kl) / 2
        found = {"reconstruction": reconstruction, "kl": columns.sum(1).mean()}
        if self.shared is not None:  # once a pair, which is half for each image
            widths = [block.dim for block in self.space.blocks]
            parts = zip(self.space.block_names, columns.split(widths, dim=1), strict=True)
            columns = torch.cat(
                [
                    torch.where(self._declared(name, len(part), part.device)[:, None], part / 2, part)
                    for name, part in parts
                ],
                dim=1,
            )
            found["kl_counted"] = columns.sum(1).mean()
        else:
            same = terms.posterior.mean.detach() == other.posterior.mean.detach()
            found["shared_coordinates"] = same.sum(1).float().mean()
        counted = found.get("kl_counted", found["kl"])
        return Loss(reconstruction + at(self.beta, step) * counted, found)

    def loss(self, terms: ElboTerms, step: int, generator: torch.Generator) -> Loss:
        """As every objective's, where an extra term of the model is the mean of both images'."""
        (other,) = terms.others
        extra = {name: (values + other.extra[name]) / 2 for name, values in terms.extra.items()}
        return super().loss(replace(terms, extra=extra), step, generator)


def _choose(block: Block, mask: Tensor, both: Distribution, own: Distribution) -> Distribution:
    """``both`` where the mask (batch, variables) is set, else ``own``."""
    if isinstance(both, OneHotCategorical) and isinstance(own, OneHotCategorical):
        return block.prior.posterior(torch.where(mask, both.logits, own.logits.log_softmax(-1)))
    mean = torch.where(mask, both.mean, own.mean)
    return NormalDistribution(mean, torch.where(mask, both.stddev, own.stddev), validate_args=False)
