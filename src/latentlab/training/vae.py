"""One optimiser step of a variational model: terms -> objective -> optimiser -> sums to log.

The step is a function of (seed, step): batch and noise are drawn from generators seeded by both, so a run that
was cut off continues to the same bits, and the samples of any step can be named afterwards.
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext

import pytorch_lightning as pl
import torch
from torch import Tensor

from latentlab.config import Experiment
from latentlab.data.factors import FactorDataset
from latentlab.latents import ACTIVE_NATS
from latentlab.models.contract import ElboTerms
from latentlab.models.vae import VAE
from latentlab.objectives.variational import Objective
from latentlab.runs import supports_bf16

_SHOWN = {"reconstruction": "reconstruction", "kl": "KL"}


def stream_seed(seed: int, stream: str, step: int) -> int:
    """A 63-bit seed for one purpose at one step, unrelated between purposes and steps."""
    digest = hashlib.blake2b(f"{seed}/{stream}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class VAETraining(pl.LightningModule):
    """Lightning module of every variational model.

    Args:
        model: the model to train.
        objective: what is minimised.
        dataset: images, kept or rendered on the training device.
        experiment: batch size, learning rate, seed, precision.
    """

    def __init__(
        self, model: VAE, objective: Objective, dataset: FactorDataset, experiment: Experiment
    ) -> None:
        super().__init__()
        if experiment.batch_size < objective.least_batch:
            raise ValueError(
                f"{type(objective).__name__} needs at least {objective.least_batch} images a batch; "
                f"got batch_size={experiment.batch_size}."
            )
        self.automatic_optimization = False
        self.model = model
        self.objective = objective
        self.experiment = experiment
        self.images = dataset
        self.step = 0
        self.sums: dict[str, tuple[Tensor, int]] = {}
        self._bf16 = False

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for the model, and a second one where the objective has parameters of its own."""
        rate = self.experiment.learning_rate
        optimisers: list[torch.optim.Optimizer] = [
            torch.optim.Adam(self.model.parameters(), lr=rate, fused=True)
        ]
        own = list(self.objective.parameters())
        if own:
            optimisers.append(torch.optim.Adam(own, lr=rate, fused=True))
        return optimisers

    def on_fit_start(self) -> None:
        """Settles data, layout and precision for the device at hand."""
        self.images.to(self.device)
        self.sums = {key: (total.to(self.device), count) for key, (total, count) in self.sums.items()}
        self.model.to(memory_format=torch.channels_last)
        self._bf16 = use_bf16(self.experiment.precision, self.device)

    def _autocast(self) -> AbstractContextManager:
        # The networks alone gain by it: their outputs are cast back, so the losses stay in 32 bits.
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self._bf16 else nullcontext()

    def terms(self, step: int) -> ElboTerms:
        """The ELBO's parts of step ``step``'s batch (and of the further batches the objective asks for)."""
        found = []
        for k in range(self.objective.batches):
            seed = self.experiment.seed if k == 0 else stream_seed(self.experiment.seed, "batch", k)
            indices = self.images.batch(self.experiment.batch_size, seed, step)
            x = self.images.images(indices, self.device).contiguous(memory_format=torch.channels_last)
            noise = torch.Generator(self.device).manual_seed(stream_seed(seed, "noise", step))
            with self._autocast():
                terms = self.model.elbo_terms(x, noise)
            if self.objective.needs_labels:
                terms.labels = self.images.factors(indices)
            found.append(terms)
        found[0].others = tuple(found[1:])
        return found[0]

    def training_step(self, batch: int, batch_idx: int) -> None:
        """One step; the batch itself is a number that is not used, the step counts."""
        optimisers = self.optimizers(use_pl_optimizer=False)
        first, *rest = optimisers if isinstance(optimisers, list) else [optimisers]
        chance = torch.Generator(self.device)
        chance.manual_seed(stream_seed(self.experiment.seed, "objective", self.step))
        terms = self.terms(self.step)
        loss = self.objective(terms, self.step, chance)
        first.zero_grad(set_to_none=True)
        loss.total.backward(inputs=[p for p in self.model.parameters() if p.requires_grad])
        first.step()
        logged = {"loss": loss.total, **loss.terms}
        if rest and (auxiliary := self.objective.auxiliary(terms, self.step, chance)) is not None:
            rest[0].zero_grad(set_to_none=True)
            auxiliary.backward()
            rest[0].step()
            logged["auxiliary"] = auxiliary
        self.step += 1
        self._add(logged, terms.kl)

    def _add(self, logged: dict[str, Tensor], kl: Tensor) -> None:
        # Summed on the device: reading a number there and then would make it wait at every step. One vector
        # for each set of names, since a schedule may bring terms that other steps do not have.
        row = torch.cat(
            [torch.stack([v.detach().float().reshape(()) for v in logged.values()]), kl.detach().mean(0)]
        )
        key = ",".join((*logged, *(f"kl_{name}" for name in self.model.latent_space.names)))
        total, count = self.sums.get(key, (0.0, 0))
        self.sums[key] = (total + row, count + 1)

    def take_means(self) -> dict[str, float]:
        """Means of everything logged since the last call, nats per image, plus the number of active dimensions.

        A term that some steps did not have is averaged over those that had it. Waits for the device once a
        set of names.
        """
        totals: dict[str, list[float]] = {}
        for key, (total, count) in self.sums.items():
            for name, value in zip(key.split(","), total.tolist(), strict=True):
                sums = totals.setdefault(name, [0.0, 0.0])
                sums[0] += value
                sums[1] += count
        self.sums = {}
        means = {name: value / count for name, (value, count) in totals.items()}
        active = (
            sum(means[f"kl_{name}"] > ACTIVE_NATS for name in self.model.latent_space.names) if means else 0
        )
        return {**means, "active_dimensions": active}

    def status(self, means: dict[str, float]) -> str:
        """The means as the progress bar shows them."""
        shown = [f"{label} {means[name]:.1f}" for name, label in _SHOWN.items() if name in means]
        return ", ".join([*shown, f"{means['active_dimensions']} active"])


def use_bf16(precision: str, device: torch.device) -> bool:
    """Whether the networks run in bfloat16.

    Raises:
        ValueError: if it was asked for where the hardware lacks it.
    """
    able = supports_bf16(device)
    if precision == "bf16" and not able:
        raise ValueError(
            f"precision bf16 was asked for, but this {device.type} has no bfloat16; use auto or fp32."
        )
    return able and precision != "fp32"
