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


@dataclass(frozen=True)
class BlockConfig:
    """One block of latents.

    Args:
        name: an identifier; the coordinates are called name0, name1, …
        dim: number of coordinates.
        prior: "normal", or "uniform" for the generators that sample from it.
    """

    name: str
    dim: int
    prior: Literal["normal", "uniform"] = "normal"

    def __post_init__(self) -> None:
        _check_range("block", "dim", self.dim, 1, 1024)
        _check_choice(self, "prior")


@dataclass(frozen=True)
class ModelConfig:
    """Base of all model configurations; choose one of its subclasses."""

    family: ClassVar[str] = ""


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
        if self.blocks is not None and (
            not isinstance(self.blocks, list) or not all(isinstance(b, BlockConfig) for b in self.blocks)
        ):
            raise ValueError(f"model.blocks must be a list of blocks, or null; got {self.blocks!r}.")

    @property
    def latent_blocks(self) -> list[BlockConfig]:
        """The blocks of the latent space, spelled out."""
        return list(self.blocks) if self.blocks else [BlockConfig("z", self.latents)]


@dataclass(frozen=True)
class ObjectiveConfig:
    """Base of all objective configurations; choose one of its subclasses."""

    objective: ClassVar[str] = ""


@dataclass(frozen=True)
class BetaVAE(ObjectiveConfig):
    """Reconstruction + beta x KL; beta = 1 is the evidence lower bound itself.

    Args:
        beta: weight of the KL. Both terms are nats per image, so beta needs no rescaling by image size.
    """

    objective: ClassVar[str] = "beta-vae"
    beta: float = 1.0

    def __post_init__(self) -> None:
        _check_range("objective", "beta", self.beta, 0.0, 1e6)


MODELS: dict[str, type[ModelConfig]] = {c.family: c for c in (VAEConfig,)}
OBJECTIVES: dict[str, type[ObjectiveConfig]] = {c.objective: c for c in (BetaVAE,)}


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
    for key, value in spec.items():
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
