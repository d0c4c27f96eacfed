"""One optimiser step of a variational model: terms -> objective -> optimiser -> sums to log.

The step is a function of (seed, step): batch and noise are drawn from generators seeded by both, so a run that
was cut off continues to the same bits, and the samples of any step can be named afterwards.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from latentlab.config import Experiment
from latentlab.data.factors import FactorDataset
from latentlab.data.pairs import Pairs
from latentlab.latents import ACTIVE_NATS, Posterior
from latentlab.models.contract import ElboTerms, TermsRequest, VariationalModel
from latentlab.models.precision import in_bf16
from latentlab.objectives.total_correlation import measure
from latentlab.objectives.variational import AdamSettings, Objective
from latentlab.training.chance import stream_seed
from latentlab.training.labels import Labels
from latentlab.training.sums import means_of

_KINDS = ("independent", "pair")
"""How a further batch can be drawn: on its own, or as partners of the first batch's images."""

_SAMPLED, _SAMPLED_CODES, _SHARE = 2048, 1024, 3
"""Images and codes by which a row's mutual information, total correlation and dimension-wise KL are measured.

At most a third as many images as the row's steps trained on: to encode one costs about a seventh of a step on it.
"""

_SHOWN = {"reconstruction": "reconstruction", "kl": "KL"}


class VAETraining(pl.LightningModule):
    """Lightning module of every variational model.

    Args:
        model: the model to train.
        objective: what is minimised.
        dataset: images, kept or rendered on the training device.
        experiment: batch size, learning rate, seed, precision.
    """

    def __init__(
        self, model: VariationalModel, objective: Objective, dataset: FactorDataset, experiment: Experiment
    ) -> None:
        super().__init__()
        name = type(objective).__name__
        if experiment.batch_size < objective.least_batch:
            raise ValueError(
                f"{name} needs at least {objective.least_batch} images a batch; "
                f"got batch_size={experiment.batch_size}."
            )
        if not objective.requests:
            raise ValueError(f"{name} asks for no batch; a step needs at least one.")
        first = objective.requests[0]
        if first.kind != "independent" or not first.gradient:
            raise ValueError(
                f"{name}'s first batch must be independent and have a gradient, since a step trains on it and pairs "
                f"have their partners there; got kind {first.kind!r} and gradient={first.gradient}."
            )
        for request in objective.requests:
            if request.kind not in _KINDS:
                raise ValueError(
                    f"{name} asks for a batch of kind {request.kind!r}; training can draw: {', '.join(_KINDS)}."
                )
            if request.labels and dataset.factor_space is None:
                raise ValueError(
                    f"{name} needs labels, and data set {dataset.name!r} has no ground-truth factors."
                )
        for factor in model.label_factors:
            space = dataset.factor_space
            if space is None or factor not in space.names:
                known = ", ".join(dataset.labels) or "none"
                raise ValueError(
                    f"{type(model).__name__} reads labels of the factor {factor!r}, and the factors of data set "
                    f"{dataset.name!r} are: {known}."
                )
            values = space.sizes[space.position(factor)]
            classes = {b.name: b.dim for b in model.latent_space.blocks}.get(factor, values)
            if classes != values:
                raise ValueError(
                    f"{type(model).__name__} has {classes} classes of the factor {factor!r}, which has {values} "
                    f"values in data set {dataset.name!r}; set model.classes to that."
                )
        models = {id(p) for p in model.parameters()}
        own, self._auxiliary = objective.followers()
        self._own = [p for p in own if id(p) not in models]
        self.automatic_optimization = False
        self.model = model
        self.objective = objective
        self.experiment = experiment
        self.images = dataset
        self.step = 0
        self.sums: dict[str, tuple[Tensor, int]] = {}
        self._bf16 = False
        self._complete = False  # whether every own parameter was seen to take part
        self._labels = Labels(dataset, experiment.seed)
        self._pairs = {
            k: Pairs(dataset, request.changed, request.changing, request.mirrored)
            for k, request in enumerate(objective.requests)
            if request.kind == "pair"
        }
        self._labelled = model.labelled if model.label_factors else 0.0

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for the model and what follows its loss, and a second one for what follows `auxiliary`."""
        rate = self.experiment.learning_rate
        optimisers: list[torch.optim.Optimizer] = [
            torch.optim.Adam([*self.model.parameters(), *self._own], lr=rate, fused=True)
        ]
        if self._auxiliary:
            adam = self.objective.auxiliary_adam or AdamSettings(rate)
            optimisers.append(
                torch.optim.Adam(self._auxiliary, lr=adam.learning_rate, betas=adam.betas, fused=True)
            )
        return optimisers

    def on_fit_start(self) -> None:
        """Settles data, layout and precision for the device at hand."""
        self.images.to(self.device)
        self.sums = {key: (total.to(self.device), count) for key, (total, count) in self.sums.items()}
        assert isinstance(self.model, nn.Module)
        self.model.to(memory_format=torch.channels_last)
        self._bf16 = in_bf16(self.experiment.precision, self.device)
        self.objective.arithmetic = self._autocast

    def _autocast(self) -> AbstractContextManager:
        # The networks alone gain by it: their outputs are cast back, so the losses stay in 32 bits.
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self._bf16 else nullcontext()

    def terms(self, step: int) -> ElboTerms:
        """The ELBO's parts of step ``step``'s batch (and of the further batches the objective asks for).

        Where the objective replaces the posteriors, draws and KL are those of the replaced ones.
        """
        first = self.images.batch(self.experiment.batch_size, self.experiment.seed, step)
        return self._terms(first, step, self.experiment.seed, self.objective.requests)

    def _terms(self, first: Tensor, step: int, seed: int, requests: Sequence[TermsRequest]) -> ElboTerms:
        """The ELBO's parts of the images ``first``, and of what the further requests draw beside them."""
        objective, images, labels, given, noise = self.objective, [], [], [], []
        for k, request in enumerate(requests):
            own = seed if k == 0 else stream_seed(seed, "batch", k)
            indices = self._draw(k, first, own, step)
            x = self.images.images(indices, self.device)
            images.append(x.contiguous(memory_format=torch.channels_last))
            labels.append(self._labels.of(indices, request.labels))
            given.append(self._labels.of(indices, self._labelled, self.model.label_factors))
            noise.append(torch.Generator(self.device).manual_seed(stream_seed(own, "noise", step)))
        posteriors: tuple = (None,) * len(images)
        if objective.adjusts_posteriors:
            chance = torch.Generator(self.device)
            chance.manual_seed(stream_seed(seed, "posteriors", step))
            posteriors = self._encode(images, requests)
            posteriors = objective.adjust_posteriors(posteriors, tuple(labels), step, chance)
            if len(posteriors) != len(images):
                raise ValueError(
                    f"{type(objective).__name__}.adjust_posteriors must give {len(images)} posteriors, one a "
                    f"batch; got {len(posteriors)}."
                )
        found: list[ElboTerms] = []
        batches = zip(images, noise, requests, given, posteriors, strict=True)
        with self._autocast():
            for x, generator, request, y, posterior in batches:
                with nullcontext() if request.gradient else torch.no_grad():
                    found.append(self.model.elbo_terms(x, generator, request, labels=y, posterior=posterior))
        for terms, known in zip(found, labels, strict=True):
            terms.labels = known
        found[0].others = tuple(found[1:])
        return found[0]

    def _draw(self, k: int, first: Tensor, seed: int, step: int) -> Tensor:
        """Indices of the images of a step's batch number ``k``, given those of its first."""
        if k == 0:
            return first
        if k in self._pairs:
            return self._pairs[k].of(first, seed, step)
        return self.images.batch(len(first), seed, step)

    def _encode(self, images: list[Tensor], requests: Sequence[TermsRequest]) -> tuple[Posterior, ...]:
        """q(z | x) of every batch, as the objective is to adjust them."""
        found = []
        with self._autocast():
            for x, request in zip(images, requests, strict=True):
                with nullcontext() if request.gradient else torch.no_grad():
                    found.append(self.model.encode(x))
        return tuple(found)

    def training_step(self, batch: int, batch_idx: int) -> None:
        """One step; the batch itself is a number that is not used, the step counts."""
        optimisers = self.optimizers(use_pl_optimizer=False)
        first, *rest = optimisers if isinstance(optimisers, list) else [optimisers]
        chance = torch.Generator(self.device)
        chance.manual_seed(stream_seed(self.experiment.seed, "objective", self.step))
        terms = self.terms(self.step)
        loss = self.objective.loss(terms, self.step, chance)
        first.zero_grad(set_to_none=True)
        followers = [p for p in self.model.parameters() if p.requires_grad]
        loss.total.backward(inputs=[*followers, *self._own])
        self._refuse_idle(self._own, "the loss")
        first.step()
        logged = {"loss": loss.total, **loss.terms}
        if rest:
            auxiliary = self.objective.auxiliary(terms, self.step, chance)
            if auxiliary is not None:
                rest[0].zero_grad(set_to_none=True)
                auxiliary.backward(inputs=self._auxiliary)
                logged["auxiliary"] = auxiliary
            self._refuse_idle(self._auxiliary, "the auxiliary loss")
            if auxiliary is not None:
                rest[0].step()
        self._complete = True
        # What the objective logs under one of these names is its own and stays.
        logged = {**logged, **self._measured(), **logged}
        self.step += 1
        partners = [other.kl for k, other in enumerate(terms.others, 1) if k in self._pairs]
        self._add(logged, torch.cat([terms.kl, *partners]))

    def _measured(self) -> dict[str, Tensor]:
        """The parts of the KL of the model as the row's last step leaves it, nats per image; {} at other steps.

        Whatever estimator an objective minimises by, this one is logged for all, since its values can be read: of
        ``measured_images`` images the posteriors, of the first of them a code each, by the estimator "half-own" of
        ``latentlab.objectives.total_correlation``, and two bounds of the information: where they lie far apart, its
        code says more than that many images can show. A row's three parts sum to the KL of its codes. Where the
        objective replaces posteriors, they are those of the replaced ones, as is every KL that is logged.
        """
        after = self.step + 1
        if after % self.experiment.log_every and after < self.experiment.max_steps:
            return {}
        batch, data_size = self.experiment.batch_size, len(self.images)
        steps = after % self.experiment.log_every or self.experiment.log_every
        count = min(_SAMPLED, max(steps * batch // _SHARE, batch, 2), data_size)
        if count < 2:
            return {}
        seed = stream_seed(self.experiment.seed, "measured", self.step)
        indices = self._different(count, seed)
        # A step's own requests, but for the decoding: a pair's partners are drawn, further batches for nothing.
        requests = [replace(r, decode=False, gradient=False, samples=1) for r in self.objective.requests]
        requests = requests if self.objective.adjusts_posteriors else requests[:1]
        assert isinstance(self.model, nn.Module)
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                found = [
                    self._terms(part, i, seed, requests)
                    for i, part in enumerate(indices.tensor_split(math.ceil(count / batch)))
                ]
                # The largest coordinate of a soft draw is a draw of the category itself (the Gumbel-max trick).
                z = self.model.latent_space.nearest(torch.cat([terms.z for terms in found])[:_SAMPLED_CODES])
                parts = measure([terms.posterior for terms in found], z, data_size)
        finally:
            self.model.train(training)
        means = {name: values.mean() for name, values in vars(parts).items()}
        least, most = means.pop("least"), means.pop("most")
        # The total correlation is not negative, so the information is at most what it and that sum to.
        most = torch.minimum(most, means["mutual_information"] + means["total_correlation"])
        return {
            **{f"{name}_half_own": value for name, value in means.items()},
            "mutual_information_least": least,
            "mutual_information_most": most,
            "measured_images": z.new_tensor(float(count)),
        }

    def _different(self, count: int, seed: int) -> Tensor:
        """Indices of different images, as far as the data set's own draws allow (a correlated one's repeat)."""
        if self.images.correlation is not None:
            return self.images.sample(count, seed % 2**32)
        return torch.tensor(
            random.Random(seed).sample(range(len(self.images)), count), device=self.images.device
        )

    def _refuse_idle(self, parameters: list[nn.Parameter], part_of: str) -> None:
        """Refuses parameters that the first step leaves without a gradient: nothing would ever train them."""
        if self._complete:
            return
        idle = {id(p) for p in parameters if p.grad is None}
        names = [name for name, p in self.objective.named_parameters() if id(p) in idle]
        if names:
            raise ValueError(
                f"{type(self.objective).__name__}'s parameter {names[0]!r} has no part in {part_of}, so nothing "
                "would train it; give it a part from the first step on, or set requires_grad to False."
            )

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
        means = means_of(self.sums)
        self.sums = {}
        space = self.model.latent_space
        known = [0.0] * (space.variables[-1] + 1)  # a category is one latent, whatever its coordinates are
        for name, variable in zip(space.names, space.variables, strict=True):
            known[variable] += means.get(f"kl_{name}", 0.0)
        active = sum(nats > ACTIVE_NATS for nats in known)
        return {**means, "active_dimensions": active}

    def status(self, means: dict[str, float]) -> str:
        """The means as the progress bar shows them."""
        shown = [f"{label} {means[name]:.1f}" for name, label in _SHOWN.items() if name in means]
        return ", ".join([*shown, f"{means['active_dimensions']} active"])
