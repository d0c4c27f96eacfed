"""One step of a GAN: steps of the discriminator, one of the generator, the running mean of its weights, sums to log.

The step is a function of (seed, step): images, codes and chance are drawn from generators seeded by both, so a run
that was cut off continues to the same bits.
"""

from __future__ import annotations

import copy
import logging
from contextlib import AbstractContextManager, nullcontext

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from latentlab.config import Adversarial as AdversarialConfig
from latentlab.config import Experiment
from latentlab.data.factors import FactorDataset
from latentlab.models.gan import GAN, image
from latentlab.models.precision import in_bf16
from latentlab.models.spectral import update_norms
from latentlab.objectives.adversarial import Adversarial
from latentlab.training.chance import stream_seed
from latentlab.training.sums import Sums, add_row, means_of

COLLAPSED = 0.25
"""Samples that differ by less than this share of what the data differ by have collapsed."""
GRACE = 500
"""Steps of the generator before collapse is spoken of: as long as it has learned nothing, its samples are all grey."""
_COMPARED = 64

_log = logging.getLogger(__name__)


class GANTraining(pl.LightningModule):
    """Lightning module of every GAN.

    Its ``model`` holds the discriminator and, as its generator, the running mean of the trained generator's weights:
    that is what a run keeps and shows. The trained generator itself is ``raw``, which the checkpoint holds.

    Args:
        model: the model to train.
        objective: losses and penalty.
        dataset: images, kept or rendered on the training device.
        experiment: batch size, learning rate, seed, precision, and the adversarial settings in its objective.

    Raises:
        TypeError: on an experiment without adversarial settings.
        ValueError: on fewer than 2 images a batch or in the data, which have no spread to compare with.
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
        self.automatic_optimization = False
        self.model = model
        self.raw = copy.deepcopy(model.generator)
        self.objective = objective
        self.settings = experiment.objective
        self.experiment = experiment
        self.images = dataset
        self.step = 0
        self.sums: Sums = {}
        self._bf16 = False
        self._spread: Tensor | None = None
        self._alarmed = False

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for the generator, and one for the discriminator."""
        rate, betas = self.experiment.learning_rate, (self.settings.beta1, self.settings.beta2)
        return [
            torch.optim.Adam(network.parameters(), lr=rate, betas=betas, fused=True)
            for network in (self.raw, self.model.discriminator)
        ]

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
        indices = self.images.batch(self.experiment.batch_size, self.experiment.seed, index)
        return self.images.images(indices, self.device).contiguous(memory_format=torch.channels_last)

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
            add_row(self.sums, {"diversity": self.diversity()})

    def _judge(self, optimiser: torch.optim.Optimizer, index: int) -> None:
        """One step of the discriminator."""
        network, loss, penalty = self.model.discriminator, self.objective.loss, self.objective.penalty
        update_norms(network)
        real = self.real(index)
        with torch.no_grad(), self._autocast():
            fake = image(self.raw.run(self.codes("discriminator", index)))
        with self._autocast():
            scores = self.model.discriminate(torch.cat([real, fake]))
        of_real, of_fake = scores.chunk(2)
        total = loss.discriminator(of_real, of_fake)
        logged = {
            "discriminator_loss": total,
            "d_real": loss.verdict(of_real).mean(),
            "d_fake": loss.verdict(of_fake).mean(),
        }
        if penalty is not None:
            chance = torch.Generator(self.device)
            chance.manual_seed(stream_seed(self.experiment.seed, "penalty", index))
            logged["penalty"] = penalty(self.model.discriminate, real, fake, chance)
            total = total + logged["penalty"]
        logged["discriminator_gradient"] = _descend(optimiser, total, network)
        add_row(self.sums, logged)

    def _forge(self, optimiser: torch.optim.Optimizer) -> None:
        """One step of the generator."""
        with self._autocast():
            fake = image(self.raw.run(self.codes("generator", self.step)))
            scores = self.model.discriminate(fake)
        total = self.objective.loss.generator(scores)
        gradient = _descend(optimiser, total, self.raw)
        add_row(self.sums, {"generator_loss": total, "generator_gradient": gradient})

    @torch.no_grad()
    def _average(self) -> None:
        """Moves the running mean of the generator's weights and statistics.

        The decay rises to its value, (1 + step) / (10 + step) at first, so that the mean soon forgets the weights
        that training began with.
        """
        decay = min(self.settings.ema, (1.0 + self.step) / (10.0 + self.step)) if self.settings.ema else 0.0
        kept, new = self.model.generator.state_dict(), self.raw.state_dict()
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
        self.raw.eval()  # running statistics, which are read and not moved
        try:
            codes = self.model.latent_space.sample(count, seed, self.device)
            samples = image(self.raw.run(codes)).float()
        finally:
            self.raw.train()
        return torch.pdist(samples.flatten(1)).mean() / self._spread

    def take_means(self) -> dict[str, float]:
        """Means of everything logged since the last call, and whether the generator has collapsed (1 or 0).

        Losses are in nats for the non-saturating loss, else in units of the score; gradients are the lengths of all
        of a network's gradients together.
        """
        means = means_of(self.sums)
        self.sums = {}
        collapsed = self.step >= GRACE and means.get("diversity", 1.0) < COLLAPSED
        if collapsed and not self._alarmed:
            _log.warning(
                "The samples look alike at step %d: they differ by %.0f %% of what the data differ by. The generator "
                "has collapsed, or still has to begin; a larger penalty_weight, spectral_norm or another learning_rate "
                "may help.",
                self.step,
                100.0 * means["diversity"],
            )
        self._alarmed = collapsed
        return {**means, "collapsed": float(collapsed)}

    def status(self, means: dict[str, float]) -> str:
        """The means as the progress bar shows them."""
        labels = {"d_real": "D(real)", "d_fake": "D(fake)", "diversity": "diversity"}
        shown = [f"{label} {means[name]:.2f}" for name, label in labels.items() if name in means]
        return ", ".join([*shown, *(["COLLAPSED"] if means.get("collapsed") else [])])


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor, network: nn.Module) -> Tensor:
    """One step of a network down its loss; the length of its gradient, a scalar."""
    parameters = list(network.parameters())
    optimiser.zero_grad(set_to_none=True)
    loss.backward(inputs=parameters)
    length = get_total_norm([p.grad for p in parameters if p.grad is not None])
    optimiser.step()
    return length
