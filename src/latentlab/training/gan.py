"""One step of a GAN: steps of the discriminator, one of the generator, the running mean of its weights, sums to log.

The step is a function of (seed, step): images, codes and chance are drawn from generators seeded by both, so a run
that was cut off continues to the same bits.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from latentlab.config import Adversarial as AdversarialConfig
from latentlab.config import Experiment
from latentlab.data.factors import FactorDataset
from latentlab.models.build import SeededWeights
from latentlab.models.gan import GAN, Forged
from latentlab.models.precision import in_bf16
from latentlab.models.spectral import update_norms
from latentlab.objectives.adversarial import Adversarial
from latentlab.training.chance import stream_seed
from latentlab.training.labels import Labels
from latentlab.training.sums import Sums, add_row, means_of

COLLAPSED = 0.25
"""Samples that differ by less than this share of what the data differ by have collapsed."""
GRACE = 500
"""Steps of the generator before collapse is spoken of: as long as it has learned nothing, its samples are all grey."""
_COMPARED = 64
_LABELS, _OF_A_LABEL, _SEARCHED = 10, 16, 1024
"""For the diversity within labels: how many labels, how many images of each, among how many images they are sought."""

_DIVERSITIES = {"diversity": "", "diversity_within": " of one label"}
"""The figures by which collapse is seen, and of what they are."""

_Terms = tuple[Tensor | None, dict[str, Tensor]]

_log = logging.getLogger(__name__)


class GANTraining(pl.LightningModule):
    """Lightning module of every GAN.

    Its ``model`` holds the discriminator and, as its generator, the running mean of the trained generator's weights:
    that is what a run keeps and shows. The trained generator itself is ``raw``, which the checkpoint holds, as it
    holds the model's further terms and the state of the augmentation, where there are any.

    Args:
        model: the model to train.
        objective: losses, penalty and augmentation.
        dataset: images, kept or rendered on the training device.
        experiment: batch size, learning rate, seed, precision, and the adversarial settings in its objective.

    Raises:
        TypeError: on an experiment without adversarial settings.
        ValueError: on fewer than 2 images a batch or in the data, which have no spread to compare with, or on data
            without the factors that the model reads, or with more values of them than it knows.
    """

    def __init__(
        self, model: GAN, objective: Adversarial, dataset: FactorDataset, experiment: Experiment
    ) -> None:
        super().__init__()
        if not isinstance(experiment.objective, AdversarialConfig):
            raise TypeError(
                f"A GAN is trained with an Adversarial objective; got {type(experiment.objective).__name__}."
            )
        if experiment.batch_size < 2 or len(dataset) < 2:
            raise ValueError(
                "A GAN needs at least 2 images a batch and in the data; "
                f"got batch_size={experiment.batch_size} and {len(dataset)} images."
            )
        _check_labels(model, dataset)
        self.automatic_optimization = False
        self.model = model
        self.raw = copy.deepcopy(model.generating)
        with SeededWeights(stream_seed(experiment.seed, "further terms", 0)):
            terms = model.further_terms()
        # A part that holds nothing is left out, so that it is no part of the checkpoint either.
        self.terms = nn.ModuleDict(terms) if terms else None
        self.augmentation = objective.augmentation
        self.objective = objective
        self.settings = experiment.objective
        self.experiment = experiment
        self.images = dataset
        self._labels = Labels(dataset, experiment.seed)
        self.step = 0
        self.sums: Sums = {}
        self._bf16 = False
        self._spread: Tensor | None = None
        self._within: tuple[Tensor, Tensor] | None = None
        self._alarmed = False

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for the generator, and one for the discriminator and the further terms."""
        rate, betas = self.experiment.learning_rate, (self.settings.beta1, self.settings.beta2)
        return [
            torch.optim.Adam(parameters, lr=rate, betas=betas, fused=True)
            for parameters in (self.raw.parameters(), self._judging())
        ]

    def _judging(self) -> list[nn.Parameter]:
        own = self.terms.parameters() if self.terms is not None else ()
        return [*self.model.judging.parameters(), *own]

    def on_fit_start(self) -> None:
        """Settles data, layout and precision for the device at hand."""
        self.images.to(self.device)
        self.sums = {key: (total.to(self.device), count) for key, (total, count) in self.sums.items()}
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._bf16 = in_bf16(self.experiment.precision, self.device)

    def _autocast(self) -> AbstractContextManager:
        # The networks alone gain by it: their outputs are cast back, so the losses stay in 32 bits.
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self._bf16 else nullcontext()

    def real(self, index: int) -> Tensor:
        """Images of the discriminator's step ``index``, counted over the whole training."""
        return self.images.images(self._indices(index), self.device).contiguous(
            memory_format=torch.channels_last
        )

    def real_labels(self, index: int) -> Tensor | None:
        """The model's ``label_factors`` of those images, int (batch, label_factors); None if it reads none."""
        if not self.model.label_factors:
            return None
        labels = self._labels.of(self._indices(index), 1.0, self.model.label_factors)
        return labels.to(self.device) if labels is not None else None

    def _indices(self, index: int) -> Tensor:
        return self.images.batch(self.experiment.batch_size, self.experiment.seed, index)

    def codes(self, player: str, index: int) -> Tensor:
        """Codes (batch, dim) for a player's step ``index``, from the prior."""
        seed = stream_seed(self.experiment.seed, f"codes of the {player}", index)
        return self.model.latent_space.sample(self.experiment.batch_size, seed, self.device)

    def training_step(self, batch: int, batch_idx: int) -> None:
        """One step of the generator; the batch itself is a number that is not used, the step counts."""
        generator, discriminator = self.optimizers(use_pl_optimizer=False)  # pyright: ignore
        each = self.settings.discriminator_steps
        for k in range(each):
            self._judge(discriminator, self.step * each + k)
        self._forge(generator)
        self.step += 1
        self._average()
        if self.step % self.experiment.log_every == 0 or self.step == self.experiment.max_steps:
            add_row(self.sums, {"diversity": self.diversity(), **self.diversity_within()})

    def _chance(self, stream: str, index: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(stream_seed(self.experiment.seed, stream, index))

    def _forger(self, player: str, index: int) -> Callable[[Tensor], Tensor]:
        """From codes to images as they are made in training, for one step of a player."""
        chance = self._chance(f"images of the {player}", index)

        def forge(codes: Tensor) -> Tensor:
            # The discriminator's step leaves the generator as it is.
            with torch.set_grad_enabled(player == "generator"), self._autocast():
                return self.model.forge(self.raw, codes, chance)

        return forge

    def _judgement(self, labels: Tensor | None, purpose: str, index: int) -> Callable[[Tensor], Tensor]:
        """From images with these labels to scores; the images are augmented before they are judged."""
        augmentation = self.augmentation
        chance = self._chance(f"augmentation of {purpose}", index) if augmentation is not None else None

        def judge(x: Tensor) -> Tensor:
            if augmentation is not None and chance is not None:
                x = augmentation(x, chance)
            return self.model.discriminate(x, labels=labels)

        return judge

    def _further(self, player: str, index: int, forged: tuple[Tensor, Tensor], forge: Callable) -> _Terms:
        """The model's further terms of one step: their sum, if there are any, and what they log."""
        total: Tensor | None = None
        logged: dict[str, Tensor] = {}
        for name, term in self.terms.items() if self.terms is not None else ():
            chance = self._chance(f"{name} of the {player}", index)
            with self._autocast():
                added, found = term(self.model, Forged(*forged, forge, self.step, chance))
            total = added if total is None else total + added
            logged |= found
        return total, logged

    def _judge(self, optimiser: torch.optim.Optimizer, index: int) -> None:
        """One step of the discriminator."""
        loss, penalty = self.objective.loss, self.objective.penalty
        update_norms(self.model.judging)
        real, labels = self.real(index), self.real_labels(index)
        codes, forge = self.codes("discriminator", index), self._forger("discriminator", index)
        fake = forge(codes)
        claimed = self.model.labels(codes)
        both = None if labels is None or claimed is None else torch.cat([labels, claimed])
        with self._autocast():
            scores = self._judgement(both, "the discriminator", index)(torch.cat([real, fake]))
        of_real, of_fake = scores.chunk(2)
        total = loss.discriminator(of_real, of_fake)
        logged = {
            "discriminator_loss": total,
            "d_real": loss.verdict(of_real).mean(),
            "d_fake": loss.verdict(of_fake).mean(),
        }
        every = self.objective.penalty_every
        if penalty is not None and index % every == 0:
            judge = self._judgement(labels, "the penalty", index)
            logged["penalty"] = penalty(judge, real, fake, self._chance("penalty", index))
            # Paid at every k-th step alone, k times as much: on average as if it were paid at each.
            total = total + every * logged["penalty"]
        if self.augmentation is not None:
            self.augmentation.follow(of_real.detach(), index)
            if self.augmentation.adaptive:
                logged["augmented"] = self.augmentation.share
        added, _ = self._further("discriminator", index, (codes, fake), forge)
        total = total if added is None else total + added
        logged["discriminator_gradient"] = _descend(optimiser, total, self._judging())
        add_row(self.sums, logged)

    def _forge(self, optimiser: torch.optim.Optimizer) -> None:
        """One step of the generator."""
        codes, forge = self.codes("generator", self.step), self._forger("generator", self.step)
        fake = forge(codes)
        with self._autocast():
            scores = self._judgement(self.model.labels(codes), "the generator", self.step)(fake)
        loss = total = self.objective.loss.generator(scores)
        added, logged = self._further("generator", self.step, (codes, fake), forge)
        total = total if added is None else total + added
        gradient = _descend(optimiser, total, list(self.raw.parameters()))
        add_row(self.sums, {"generator_loss": loss, "generator_gradient": gradient, **logged})

    @torch.no_grad()
    def _average(self) -> None:
        """Moves the running mean of the generator's weights and statistics.

        The decay rises to its value, (1 + step) / (10 + step) at first, so that the mean soon forgets the weights
        that training began with.
        """
        decay = min(self.settings.ema, (1.0 + self.step) / (10.0 + self.step)) if self.settings.ema else 0.0
        kept, new = self.model.generating.state_dict(), self.raw.state_dict()
        names = [name for name, tensor in kept.items() if tensor.is_floating_point()]
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
            [kept[n] for n in names], [new[n] for n in names], 1.0 - decay
        )
        for name in kept.keys() - set(names):  # counts
            kept[name].copy_(new[name])

    @torch.no_grad()
    def diversity(self) -> Tensor:
        """Mean distance between two samples of fixed codes, over that between two images of the data; a scalar.

        Distances are Euclidean between whole images. It tells when all samples look alike; a generator that only
        lost some kinds of image keeps most of its diversity, which the recall of the fidelity scores would tell.
        """
        count = min(_COMPARED, len(self.images))
        seed = stream_seed(self.experiment.seed, "diversity", 0)
        if self._spread is None:
            images = self.images.images(self.images.batch(count, seed, 0), self.device)
            self._spread = torch.pdist(images.flatten(1)).mean().clamp_min(1e-6)
        codes = self.model.latent_space.sample(count, seed, self.device)
        return torch.pdist(self._made(codes, "images of diversity")).mean() / self._spread

    @torch.no_grad()
    def diversity_within(self) -> dict[str, Tensor]:
        """The same among samples of one label: {"diversity_within": scalar}, or {} for a model without labels.

        Mean distance between two samples of one label and other noise, over that between two of the data's images of
        this label; the mean over up to 10 labels, with up to 16 images each. A generator that makes one image a label
        has none of it, however far the labels lie apart. Labels with less than 2 images among 1,024 are left out.
        """
        if not self.model.label_factors or self.model.latent_space.dim == self._label_dims():
            return {}
        labels, spreads = self._labels_compared()
        if not len(labels):
            return {}
        seed, space = stream_seed(self.experiment.seed, "diversity within", 0), self.model.latent_space
        codes = space.sample(len(labels) * _OF_A_LABEL, seed, self.device)
        rows = labels.repeat_interleave(_OF_A_LABEL, 0)
        for column, factor in enumerate(self.model.label_factors):
            where = space.slice(factor)
            codes[:, where] = nn.functional.one_hot(rows[:, column], where.stop - where.start).to(codes)
        samples = self._made(codes, "images of diversity within").view(len(labels), _OF_A_LABEL, -1)
        found = torch.stack([torch.pdist(part).mean() for part in samples])
        return {"diversity_within": (found / spreads).mean()}

    def _label_dims(self) -> int:
        """How many coordinates of a code are its labels'."""
        where = [self.model.latent_space.slice(name) for name in self.model.label_factors]
        return sum(part.stop - part.start for part in where)

    def _labels_compared(self) -> tuple[Tensor, Tensor]:
        """Labels (labels, label_factors) that have several images, and how far those lie apart, (labels,)."""
        if self._within is None:
            seed = stream_seed(self.experiment.seed, "diversity within", 0)
            indices = self.images.batch(min(_SEARCHED, len(self.images)), seed, 0)
            known = self._labels.of(indices, 1.0, self.model.label_factors)
            assert known is not None
            kinds, kind = known.unique(dim=0, return_inverse=True)
            labels, spreads = [], []
            for k, row in enumerate(kinds):
                chosen = indices[kind.to(indices.device) == k][:_OF_A_LABEL]
                if len(chosen) > 1 and len(labels) < _LABELS:
                    spread = torch.pdist(self.images.images(chosen, self.device).flatten(1)).mean()
                    if spread > 1e-6:  # where the data's own images are all the same, so may the samples be
                        labels.append(row.to(self.device))
                        spreads.append(spread)
            self._within = (
                (torch.stack(labels), torch.stack(spreads)) if labels else (kinds[:0], torch.zeros(0))
            )
        return self._within

    def _made(self, codes: Tensor, stream: str) -> Tensor:
        """Images of codes by the trained generator as it stands, each one row of numbers."""
        self.raw.eval()  # running statistics, which are read and not moved
        try:
            return self.model.forge(self.raw, codes, self._chance(stream, 0)).float().flatten(1)
        finally:
            self.raw.train()

    def take_means(self) -> dict[str, float]:
        """Means of everything logged since the last call, and whether the generator has collapsed (1 or 0).

        It has where all samples look alike, or those of each label that it is told.
        Losses are in nats for the non-saturating loss, else in units of the score; gradients are the lengths of all
        of a network's gradients together.
        """
        means = means_of(self.sums)
        self.sums = {}
        alike = next((name for name in _DIVERSITIES if means.get(name, 1.0) < COLLAPSED), "")
        collapsed = self.step >= GRACE and bool(alike)
        if collapsed and not self._alarmed:
            _log.warning(
                "The samples%s look alike at step %d: they differ by %.0f %% of what the data%s differ by. The "
                "generator has collapsed, or still has to begin; a larger penalty_weight, spectral_norm or another "
                "learning_rate may help.",
                _DIVERSITIES[alike],
                self.step,
                100.0 * means[alike],
                _DIVERSITIES[alike],
            )
        self._alarmed = collapsed
        return {**means, "collapsed": float(collapsed)}

    def status(self, means: dict[str, float]) -> str:
        """The means as the progress bar shows them."""
        labels = {"d_real": "D(real)", "d_fake": "D(fake)", "diversity": "diversity"}
        shown = [f"{label} {means[name]:.2f}" for name, label in labels.items() if name in means]
        return ", ".join([*shown, *(["COLLAPSED"] if means.get("collapsed") else [])])


def _check_labels(model: GAN, dataset: FactorDataset) -> None:
    """Refuses data without the factors that a model reads as labels, or with more values than it knows."""
    for factor in model.label_factors:
        if dataset.factor_space is None or factor not in dataset.labels:
            known = ", ".join(dataset.labels) or "none"
            raise ValueError(
                f"{type(model).__name__} reads labels of the factor {factor!r}, and the factors of data set "
                f"{dataset.name!r} are: {known}."
            )
        block = model.latent_space.slice(factor)
        values = int(dataset.factor_space.sizes[dataset.labels.index(factor)])
        if values > block.stop - block.start:
            raise ValueError(
                f"The factor {factor!r} of data set {dataset.name!r} has {values} values, and the model has room for "
                f"{block.stop - block.start}; set model.classes."
            )


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    """One step of parameters down a loss; the length of its gradient, a scalar."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward(inputs=parameters)
    length = get_total_norm([p.grad for p in parameters if p.grad is not None])
    optimiser.step()
    return length
