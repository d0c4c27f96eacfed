"""Variational objectives: how the parts of the ELBO are weighed into what is minimised.

Every number is in nats per image: summed over pixels, channels and latent dimensions, averaged over the batch.
An objective declares what it needs (batches, draws, labels, parameters of its own) and never steps an optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from latentlab.config import Coefficient
from latentlab.data.factors import FactorDataset, FactorSpace
from latentlab.latents import Posterior
from latentlab.models.contract import ONE_DRAW, ElboTerms, TermsRequest
from latentlab.objectives.schedules import at, scheduled


@dataclass
class Loss:
    """What an objective gives for a batch.

    Attributes:
        total: the number to minimise, nats per image, a scalar with a gradient.
        terms: named scalars to log, nats per image unless their name says otherwise.
    """

    total: Tensor
    terms: dict[str, Tensor]


@dataclass(frozen=True)
class AdamSettings:
    """How Adam is to step parameters.

    Attributes:
        learning_rate: its step size.
        betas: decay of its means of gradients and of their squares.
    """

    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)


class Objective(nn.Module):
    """Base of all variational objectives.

    Parameters of its own follow its loss, as the model's do, unless ``auxiliary_parameters`` names them. Each must
    take part from the first step on, with weight zero if need be: one that nothing would train is refused.

    Attributes:
        requests: what it needs of each batch of a step; the terms of the first hold those of the rest as
            ``terms.others``.
        least_batch: the smallest batch on which it is defined.
        takes_over: names of the model's extra terms that its own loss weighs; the others are added as they are.
        auxiliary_adam: how the ``auxiliary_parameters`` are stepped; None for the same way as the model.
        arithmetic: entered around networks of its own, whose outputs it takes back to 32 bits; training sets it
            to the arithmetic of the model's networks.
    """

    requests: tuple[TermsRequest, ...] = (ONE_DRAW,)
    least_batch: int = 1
    takes_over: tuple[str, ...] = ()
    auxiliary_adam: AdamSettings | None = None

    def __init__(self) -> None:
        super().__init__()
        self.arithmetic: Callable[[], AbstractContextManager] = nullcontext

    def forward(self, terms: ElboTerms, step: int, generator: torch.Generator) -> Loss:
        """The loss of one batch, without the model's extra terms that it does not take over.

        Args:
            terms: the parts of the ELBO of the batch, with a gradient.
            step: optimiser step, counted from 0.
            generator: the only source of chance, seeded by (seed, step), on the terms' device.
        """
        raise TypeError(f"{type(self).__name__} defines no loss; use one of its subclasses.")

    def loss(self, terms: ElboTerms, step: int, generator: torch.Generator) -> Loss:
        """What a step minimises: the loss of ``forward`` plus the extra terms that it does not take over.

        Coefficients that follow a schedule are logged by their own names.

        Raises:
            ValueError: if an extra term has the name of a term of the loss.
        """
        loss = self(terms, step, generator)
        now = {name: loss.total.new_full((), value) for name, value in scheduled(self, step).items()}
        loss = replace(loss, terms={**loss.terms, **now})
        for name, values in terms.extra.items():
            if name in self.takes_over:
                continue
            if name in loss.terms:
                raise ValueError(
                    f"{type(self).__name__} and the model both have a term {name!r}; the objective takes it over "
                    "or calls its own otherwise."
                )
            added = values.mean()
            loss = replace(loss, total=loss.total + added, terms={**loss.terms, name: added})
        return loss

    def adjust_posteriors(
        self,
        posteriors: tuple[Posterior, ...],
        labels: tuple[Tensor | None, ...],
        step: int,
        generator: torch.Generator,
    ) -> tuple[Posterior, ...]:
        """Replaces the posteriors before anything is drawn from them, such as those of a pair by their average.

        Called only where a subclass defines it.

        Args:
            posteriors: q(z | x) of every batch, in the order of ``requests``.
            labels: of every batch, as in its terms.
            step: optimiser step, counted from 0.
            generator: the only source of chance.

        Returns:
            As many posteriors: what is drawn from, and whose KL is taken.
        """
        return posteriors

    @property
    def adjusts_posteriors(self) -> bool:
        """Whether the posteriors are to be replaced before they are drawn from."""
        return type(self).adjust_posteriors is not Objective.adjust_posteriors

    def auxiliary_parameters(self) -> Iterable[nn.Parameter]:
        """Those of its parameters that follow ``auxiliary`` (a discriminator's); the others follow the loss."""
        return ()

    def auxiliary(self, terms: ElboTerms, step: int, generator: torch.Generator) -> Tensor | None:
        """The loss of the ``auxiliary_parameters``, or None where there are none.

        It is minimised by an optimiser of its own after the model's step. The graph of ``terms`` is spent by
        then: read their values detached.
        """
        return None

    def followers(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Its own parameters that follow the loss, and those that follow ``auxiliary``.

        Raises:
            TypeError: if one is declared without the other, or a parameter is not its own.
        """
        name = type(self).__name__
        own = {id(p): p for p in self.parameters()}
        auxiliary = list(self.auxiliary_parameters())
        if any(id(p) not in own for p in auxiliary):
            raise TypeError(f"{name}.auxiliary_parameters gives a parameter that is not the objective's own.")
        defined = type(self).auxiliary is not Objective.auxiliary
        if auxiliary and not defined:
            raise TypeError(f"{name} has auxiliary_parameters, but no auxiliary loss that would train them.")
        if defined and not auxiliary:
            raise TypeError(f"{name} has an auxiliary loss, but no auxiliary_parameters that it would train.")
        apart = {id(p) for p in auxiliary}
        return [p for i, p in own.items() if i not in apart and p.requires_grad], auxiliary


class BetaVAE(Objective):
    """Reconstruction + beta x KL.

    Args:
        beta: weight of the KL; 1 gives the negative evidence lower bound. A number or a schedule.

    References:
        beta-VAE: Learning basic visual concepts with a constrained variational framework (Higgins et al., 2017),
        https://openreview.net/forum?id=Sy2fzU9gl
    """

    def __init__(self, beta: Coefficient = 1.0) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, terms: ElboTerms, step: int, generator: torch.Generator) -> Loss:
        """-E log p(x | z) + beta KL(q(z | x) || p(z)), and both parts by name."""
        reconstruction = terms.reconstruction.mean()
        kl = terms.kl.sum(1).mean()
        return Loss(reconstruction + at(self.beta, step) * kl, {"reconstruction": reconstruction, "kl": kl})


@dataclass(frozen=True)
class DataDescription:
    """What an objective may know of the data before training.

    Attributes:
        size: number of images, which some estimators need.
        image_shape: (channels, height, width).
        factor_space: names and sizes of the ground-truth factors, None for a plain image set.
    """

    size: int
    image_shape: tuple[int, int, int]
    factor_space: FactorSpace | None = None

    @classmethod
    def of(cls, dataset: FactorDataset) -> DataDescription:
        """The description of a data set."""
        return cls(len(dataset), dataset.image_shape, dataset.factor_space)
