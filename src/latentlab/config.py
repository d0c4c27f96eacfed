"""What an experiment is made of, as plain values: no torch here, so forms and `--help` open at once.

``Experiment`` is what a training script freezes, what ``latentlab train`` overrides and what a run's
``config.json`` holds. Reading a configuration never imports a class by name: names are looked up in the
tables below.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

SMALLEST_IMAGE, LARGEST_IMAGE = 28, 128


def _check_range(owner: str, name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{owner}.{name} must lie in [{low}, {high}]; got {value!r}.")


@dataclass(frozen=True)
class DataConfig:
    """Which images.

    Args:
        name: a data set that ``latentlab datasets`` lists, or "folder:PATH".
        options: further arguments of ``latentlab.open_dataset``, such as {"split": "train"}.
    """

    name: str = "sprites"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.options, dict) or not all(isinstance(key, str) for key in self.options):
            raise ValueError(f"data.options must be a table of names and values; got {self.options!r}.")


@dataclass(frozen=True)
class BlockConfig:
    """One block of latents.

    Args:
        name: an identifier; the coordinates are called name0, name1, …
        dim: number of coordinates; of categories for a categorical block, which needs at least 2.
        prior: "normal"; "categorical" for one variable with ``dim`` values; or "uniform" for the generators
            that sample from it.
    """

    name: str
    dim: int
    prior: Literal["normal", "uniform", "categorical"] = "normal"

    def __post_init__(self) -> None:
        _check_choice(self, "prior")
        _check_range("block", "dim", self.dim, 2 if self.prior == "categorical" else 1, 1024)


@dataclass(frozen=True)
class ModelConfig:
    """Base of all model configurations; choose one of its subclasses.

    Attributes:
        family: what it is called.
        kind: the kind of objective that can train it, "variational" or "adversarial".
    """

    family: ClassVar[str] = ""
    kind: ClassVar[str] = "variational"


@dataclass(frozen=True)
class VAEConfig(ModelConfig):
    """A variational autoencoder.

    Args:
        latents: number of latent coordinates, all in one block "z"; not used where ``blocks`` is given.
        blocks: named blocks of latents, for a structured model.
        network: "burgess" (Burgess et al. 2018), "locatello" (Locatello et al. 2019) or "residual".
        width: channels of the first convolution; the others follow from it.
        hidden: units of the fully connected layers.
        likelihood: "bernoulli" (pixels as probabilities) or "gaussian".
        scale: standard deviation of the Gaussian likelihood, pixels in [0, 1].
        learn_scale: learn that standard deviation, starting from ``scale``.
    """

    family: ClassVar[str] = "vae"
    latents: int = 10
    blocks: list[BlockConfig] | None = None
    network: Literal["burgess", "locatello", "residual"] = "burgess"
    width: int = 32
    hidden: int = 256
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    scale: float = 0.1
    learn_scale: bool = False

    def __post_init__(self) -> None:
        _check_range("model", "latents", self.latents, 1, 1024)
        _check_range("model", "width", self.width, 4, 512)
        _check_range("model", "hidden", self.hidden, 4, 4096)
        _check_range("model", "scale", self.scale, 1e-4, 10.0)
        for name in ("network", "likelihood"):
            _check_choice(self, name)
        _check_blocks(self.blocks)

    @property
    def latent_blocks(self) -> list[BlockConfig]:
        """The blocks of the latent space, spelled out."""
        return list(self.blocks) if self.blocks else [BlockConfig("z", self.latents)]


def _check_blocks(blocks: Any) -> None:
    if blocks is not None and (
        not isinstance(blocks, list) or not all(isinstance(b, BlockConfig) for b in blocks)
    ):
        raise ValueError(f"model.blocks must be a list of blocks, or null; got {blocks!r}.")


@dataclass(frozen=True)
class GANConfig(ModelConfig):
    """A generative adversarial network: a generator and a discriminator, no encoder.

    Args:
        latents: number of latent coordinates, all in one normal block "z"; not used where ``blocks`` is given.
        blocks: named blocks of latents of any prior, for a structured model.
        network: "dcgan" (Radford et al. 2015).
        width: channels next to the image; they double with each halving, up to 8 times as many.
        spectral_norm: divide each weight of the discriminator by its largest singular value (Miyato et al. 2018).
    """

    family: ClassVar[str] = "gan"
    kind: ClassVar[str] = "adversarial"
    latents: int = 32
    blocks: list[BlockConfig] | None = None
    network: Literal["dcgan"] = "dcgan"
    width: int = 64
    spectral_norm: bool = False

    def __post_init__(self) -> None:
        _check_range("model", "latents", self.latents, 1, 1024)
        _check_range("model", "width", self.width, 4, 512)
        _check_choice(self, "network")
        _check_blocks(self.blocks)

    @property
    def latent_blocks(self) -> list[BlockConfig]:
        """The blocks of the latent space, spelled out."""
        return list(self.blocks) if self.blocks else [BlockConfig("z", self.latents)]


@dataclass(frozen=True)
class ObjectiveConfig:
    """Base of all objective configurations; choose one of its subclasses.

    Attributes:
        objective: what it is called.
        kind: the kind of model that it can train, "variational" or "adversarial".
    """

    objective: ClassVar[str] = ""
    kind: ClassVar[str] = "variational"


@dataclass(frozen=True)
class Schedule:
    """A coefficient that changes while training goes on, counted in optimiser steps from 0.

    Args:
        shape: "linear"; "cosine" for a half wave that begins and ends flat; "cyclic" for a linear rise during the
            first half of every period, then held at ``end`` for the other half.
        start: value at the first step.
        end: value after ``steps``, and from then on (cyclic: the top of every period).
        steps: length of the change, of the whole period for "cyclic".
        delay: steps at ``start`` before the change begins.

    References:
        Cyclical Annealing Schedule: A Simple Approach to Mitigating KL Vanishing (Fu et al., 2019),
        https://arxiv.org/abs/1903.10145, whose periods are the cyclic ones
    """

    shape: Literal["linear", "cosine", "cyclic"] = "linear"
    start: float = 0.0
    end: float = 1.0
    steps: int = 10_000
    delay: int = 0

    def __post_init__(self) -> None:
        _check_choice(self, "shape")
        _check_range("schedule", "start", self.start, -1e6, 1e6)
        _check_range("schedule", "end", self.end, -1e6, 1e6)
        for name, low in (("steps", 1), ("delay", 0)):
            if not isinstance(getattr(self, name), int):
                raise ValueError(f"schedule.{name} must be a whole number; got {getattr(self, name)!r}.")
            _check_range("schedule", name, getattr(self, name), low, 10**9)


Coefficient = float | Schedule
"""A number, or how it changes with the step."""


def _check_coefficient(config: ObjectiveConfig, name: str, low: float = 0.0, high: float = 1e6) -> None:
    value = getattr(config, name)
    ends = (value.start, value.end) if isinstance(value, Schedule) else (value,)
    for end in ends:
        _check_range("objective", name, end, low, high)


@dataclass(frozen=True)
class BetaVAE(ObjectiveConfig):
    """beta-VAE (Higgins et al., 2017): reconstruction + beta x KL; beta = 1 is the evidence lower bound itself.

    Args:
        beta: weight of the KL. Both terms are nats per image, so beta needs no rescaling by image size.
    """

    objective: ClassVar[str] = "beta-vae"
    beta: Coefficient = 1.0

    def __post_init__(self) -> None:
        _check_coefficient(self, "beta")


@dataclass(frozen=True)
class AnnealedVAE(ObjectiveConfig):
    """AnnealedVAE (Burgess et al., 2018): reconstruction + gamma x |KL - capacity|, the KL of the whole batch.

    Args:
        gamma: weight of the distance to the capacity.
        capacity: nats per image that the code may hold, usually a schedule that rises.
    """

    objective: ClassVar[str] = "annealed-vae"
    gamma: Coefficient = 1000.0
    capacity: Coefficient = field(default_factory=lambda: Schedule("linear", 0.0, 25.0, 100_000))

    def __post_init__(self) -> None:
        _check_coefficient(self, "gamma")
        _check_coefficient(self, "capacity")


@dataclass(frozen=True)
class BetaTCVAE(ObjectiveConfig):
    """beta-TCVAE (Chen et al., 2018): reconstruction + alpha x MI + beta x TC + gamma x dimension-wise KL.

    Args:
        beta: weight of the total correlation (TC).
        alpha: weight of the mutual information (MI) of code and image.
        gamma: weight of the dimension-wise KL.
        estimator: of the aggregate posterior from a batch. "weighted" is what the published strengths were tuned
            with; "stratified" has no bias, and the same beta means less there; "stratified-faulty" has the wrong
            weights of the method's first program and most of its copies, for reproducing their results.
    """

    objective: ClassVar[str] = "beta-tcvae"
    beta: Coefficient = 6.0
    alpha: Coefficient = 1.0
    gamma: Coefficient = 1.0
    estimator: Literal["weighted", "stratified", "stratified-faulty"] = "weighted"

    def __post_init__(self) -> None:
        for name in ("beta", "alpha", "gamma"):
            _check_coefficient(self, name)
        _check_choice(self, "estimator")


@dataclass(frozen=True)
class FactorVAE(ObjectiveConfig):
    """FactorVAE (Kim and Mnih, 2018): reconstruction + KL + gamma x TC, which a discriminator of codes estimates.

    Args:
        gamma: weight of the total correlation (TC).
        layers: hidden layers of the discriminator.
        units: units of each of them.
        learning_rate: Adam's step size for the discriminator.
    """

    objective: ClassVar[str] = "factor-vae"
    gamma: Coefficient = 35.0
    layers: int = 6
    units: int = 1000
    learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        _check_coefficient(self, "gamma")
        _check_range("objective", "layers", self.layers, 1, 32)
        _check_range("objective", "units", self.units, 1, 16384)
        _check_range("objective", "learning_rate", self.learning_rate, 1e-8, 1.0)


@dataclass(frozen=True)
class DIPVAE(ObjectiveConfig):
    """DIP-VAE (Kumar et al., 2018): reconstruction + KL + penalties that draw the codes' covariance to the identity.

    Args:
        variant: "i" takes the covariance of the posterior means, "ii" that of the aggregate posterior.
        lambda_od: weight of the squared entries off the diagonal.
        lambda_d: weight of the squared distances of the diagonal from 1; by default 10 x lambda_od for "i" and
            lambda_od for "ii".
    """

    objective: ClassVar[str] = "dip-vae"
    variant: Literal["i", "ii"] = "ii"
    lambda_od: Coefficient = 10.0
    lambda_d: Coefficient | None = None

    def __post_init__(self) -> None:
        _check_choice(self, "variant")
        _check_coefficient(self, "lambda_od")
        if self.lambda_d is not None:
            _check_coefficient(self, "lambda_d")


@dataclass(frozen=True)
class InfoVAE(ObjectiveConfig):
    """InfoVAE (Zhao et al., 2019): reconstruction + (1 - alpha) x KL + (alpha + lambda_mmd - 1) x MMD to the prior.

    Args:
        alpha: how much of the mutual information of code and image is spared the KL; at 1 no KL is left, and with
            it nothing that keeps the posterior's variances from 0.
        lambda_mmd: weight of the maximum mean discrepancy (MMD) of aggregate posterior and prior, a number between
            0 and 2, beside alpha - 1.
        kernel: "rbf" (Gaussian) or "imq" (inverse multiquadric).
    """

    objective: ClassVar[str] = "info-vae"
    alpha: Coefficient = 0.0
    lambda_mmd: Coefficient = 1000.0
    kernel: Literal["rbf", "imq"] = "rbf"

    def __post_init__(self) -> None:
        _check_coefficient(self, "alpha", -1e6, 1.0)
        _check_coefficient(self, "lambda_mmd")
        _check_choice(self, "kernel")


@dataclass(frozen=True)
class Adversarial(ObjectiveConfig):
    """A generator and a discriminator that train against each other.

    ``Experiment.learning_rate`` is that of both players; a step is one of the generator.

    Args:
        loss: "non-saturating" (Goodfellow et al. 2014), "wasserstein" (Arjovsky et al. 2017) or "hinge".
        penalty: "r1" (Mescheder et al. 2018), "gradient" (Gulrajani et al. 2017) or "none".
        penalty_weight: gamma of R1, lambda of the gradient penalty, for images in [-1, 1] as in the papers.
        discriminator_steps: steps of the discriminator before each step of the generator.
        ema: decay, per step, of the running mean of the generator's weights that the run keeps; 0 keeps the last.
        beta1: Adam's first decay, for both players.
        beta2: Adam's second decay, for both players.
    """

    objective: ClassVar[str] = "adversarial"
    kind: ClassVar[str] = "adversarial"
    loss: Literal["non-saturating", "wasserstein", "hinge"] = "non-saturating"
    penalty: Literal["r1", "gradient", "none"] = "r1"
    penalty_weight: float = 10.0
    discriminator_steps: int = 1
    ema: float = 0.999
    beta1: float = 0.0
    beta2: float = 0.99

    def __post_init__(self) -> None:
        for name in ("loss", "penalty"):
            _check_choice(self, name)
        _check_range("objective", "penalty_weight", self.penalty_weight, 0.0, 1e6)
        if not isinstance(self.discriminator_steps, int):
            raise ValueError(
                f"objective.discriminator_steps must be a whole number; got {self.discriminator_steps!r}."
            )
        _check_range("objective", "discriminator_steps", self.discriminator_steps, 1, 100)
        for name in ("ema", "beta1", "beta2"):
            _check_range("objective", name, getattr(self, name), 0.0, 0.99999)


MODELS: dict[str, type[ModelConfig]] = {c.family: c for c in (VAEConfig, GANConfig)}
OBJECTIVES: dict[str, type[ObjectiveConfig]] = {
    c.objective: c for c in (BetaVAE, AnnealedVAE, BetaTCVAE, FactorVAE, DIPVAE, InfoVAE, Adversarial)
}


@dataclass(frozen=True)
class Experiment:
    """Everything that decides a training run, so that equal experiments give equal runs.

    Args:
        name: what the run is called.
        data: which images.
        model: the network and its latent space.
        objective: what is minimised.
        max_steps: number of optimiser steps in all.
        batch_size: images a step.
        learning_rate: Adam's step size.
        seed: of weights, batches and noise; step t's batch is a function of (seed, t).
        precision: "auto" takes bf16 for the networks where the device gains by it, losses stay in 32 bits.
        log_every: steps between two rows of metrics.csv, each row a mean over them.
        preview_every: steps between two preview images; 0 for none.
        checkpoint_every: steps between two saves to resume from.
        keep_memory: let the process keep freed memory (glibc), which spares page faults on the CPU.
    """

    name: str = "run"
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=VAEConfig)
    objective: ObjectiveConfig = field(default_factory=BetaVAE)
    max_steps: int = 10_000
    batch_size: int = 64
    learning_rate: float = 5e-4
    seed: int = 0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    log_every: int = 100
    preview_every: int = 1000
    checkpoint_every: int = 500
    keep_memory: bool = True

    def __post_init__(self) -> None:
        if not self.name or any(c in self.name for c in "/\\\0") or self.name.startswith("."):
            raise ValueError(f"An experiment's name can't be empty, hidden or a path; got {self.name!r}.")
        _check_range("experiment", "max_steps", self.max_steps, 1, 10**9)
        _check_range("experiment", "batch_size", self.batch_size, 1, 65536)
        _check_range("experiment", "seed", self.seed, 0, 2**31 - 1)
        _check_range("experiment", "log_every", self.log_every, 1, 10**9)
        _check_range("experiment", "preview_every", self.preview_every, 0, 10**9)
        _check_range("experiment", "checkpoint_every", self.checkpoint_every, 1, 10**9)
        if not (0.0 < self.learning_rate < 10.0) or not math.isfinite(self.learning_rate):
            raise ValueError(f"experiment.learning_rate must lie in (0, 10); got {self.learning_rate!r}.")
        _check_choice(self, "precision")
        _check_together(self.model, self.objective)

    def to_dict(self) -> dict:
        """Plain values for JSON; model and objective carry the name that finds their class again."""
        spec = dataclasses.asdict(self)
        spec["model"] = {"family": self.model.family, **spec["model"]}
        spec["objective"] = {"objective": self.objective.objective, **spec["objective"]}
        return spec

    @classmethod
    def from_dict(cls, spec: Mapping) -> Experiment:
        """The inverse of ``to_dict``, for text nobody vouches for.

        Raises:
            ValueError: on unknown names, keys, types or ranges; the message says which.
        """
        spec = dict(_mapping("experiment", spec))
        model = dict(_mapping("model", spec.pop("model", {})))
        objective = dict(_mapping("objective", spec.pop("objective", {})))
        family = _known("model family", model.pop("family", "vae"), MODELS)
        goal = _known("objective", objective.pop("objective", "beta-vae"), OBJECTIVES)
        if isinstance(model.get("blocks"), list):
            model["blocks"] = [_build(BlockConfig, _mapping("block", b)) for b in model["blocks"]]
        data = _build(DataConfig, _mapping("data", spec.pop("data", {})))
        return _build(
            cls, {**spec, "data": data, "model": _build(family, model), "objective": _build(goal, objective)}
        )


def _check_together(model: ModelConfig, objective: ObjectiveConfig) -> None:
    """Refuses an objective that can't train the model."""
    if model.kind != objective.kind:
        fitting = [name for name, c in OBJECTIVES.items() if c.kind == model.kind]
        raise ValueError(
            f"A model of family {model.family!r} is trained by one of the objectives {', '.join(fitting)}; "
            f"got {objective.objective!r}."
        )
    if isinstance(model, GANConfig) and isinstance(objective, Adversarial):
        bounded = model.spectral_norm or objective.penalty == "gradient"
        if objective.loss == "wasserstein" and not bounded:
            raise ValueError(
                "A wasserstein loss needs a discriminator of bounded slope: set objective.penalty to 'gradient' "
                "or model.spectral_norm to true."
            )


def _mapping(what: str, spec: Any) -> Mapping:
    if not isinstance(spec, Mapping):
        raise ValueError(f"The configuration's {what} must be a table of keys and values; got {spec!r}.")
    return spec


def _known(what: str, name: Any, table: Mapping[str, type]) -> type:
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"Unknown {what} {name!r}; known: {', '.join(table)}.")
    return table[name]


def _check_choice(config: Any, name: str) -> None:
    choices = typing.get_args(typing.get_type_hints(type(config))[name])
    if not isinstance(getattr(config, name), str) or getattr(config, name) not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {getattr(config, name)!r}.")


def _build(kind: type, spec: Mapping) -> Any:
    hints = typing.get_type_hints(kind)
    fields = {f.name for f in dataclasses.fields(kind)}
    if unknown := sorted(set(spec) - fields):
        raise ValueError(
            f"Unknown key {unknown[0]!r} in {kind.__name__}; known: {', '.join(sorted(fields))}."
        )
    spec = dict(spec)
    for key, value in spec.items():
        if Schedule in typing.get_args(hints[key]):
            spec[key] = _build(Schedule, value) if isinstance(value, Mapping) else value
            continue
        plain = {int: int, float: (int, float), bool: bool, str: str}.get(hints[key])
        if plain and (not isinstance(value, plain) or (isinstance(value, bool) and hints[key] is not bool)):
            raise ValueError(f"{kind.__name__}.{key} must be of type {hints[key].__name__}; got {value!r}.")
    try:
        return kind(**spec)
    except TypeError as error:
        raise ValueError(f"{kind.__name__} could not be read: {error}.") from None


def experiments_folder() -> Path:
    """Where the named experiments lie: inside an installed package, else at the top of the checkout."""
    inside = Path(__file__).parent / "experiments"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "experiments"


def experiment_names() -> list[str]:
    """Names of the experiments that ship with the package, such as "sprites-beta-vae"."""
    return sorted(p.stem.replace("_", "-") for p in experiments_folder().glob("*.py") if p.stem != "__init__")


def named_experiment(name: str) -> tuple[Experiment, str]:
    """A shipped experiment and its docstring (claim, expected numbers, time).

    Raises:
        ValueError: on an unknown name; the message lists the known ones.
    """
    if name not in experiment_names():
        raise ValueError(
            f"Unknown experiment {name!r}; known: {', '.join(experiment_names())}, or a YAML file."
        )
    path = experiments_folder() / f"{name.replace('-', '_')}.py"
    spec = importlib.util.spec_from_file_location(f"latentlab_experiment_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file.")
    module: types.ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.EXPERIMENT, (module.__doc__ or "").strip()
