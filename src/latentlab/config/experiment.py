"""Experiment: everything that decides a training run, and the experiments that ship with the package."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from latentlab.config.adversarial import Adversarial
from latentlab.config.fields import check_choice, check_range, known, read, table
from latentlab.config.gans import ConditionalGANConfig, InfoGANConfig
from latentlab.config.ladder import LadderVAEConfig
from latentlab.config.models import (
    ConditionalVAEConfig,
    GANConfig,
    ModelConfig,
    VAEConfig,
)
from latentlab.config.objectives import ObjectiveConfig
from latentlab.config.style_gan import StyleGANConfig
from latentlab.config.variational import (
    DIPVAE,
    AnnealedVAE,
    BetaTCVAE,
    BetaVAE,
    FactorVAE,
    InfoVAE,
    JointVAE,
    PairVAE,
)
from latentlab.config.vq import VQVAEConfig


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


MODELS: dict[str, type[ModelConfig]] = {
    c.family: c
    for c in (
        VAEConfig,
        LadderVAEConfig,
        VQVAEConfig,
        ConditionalVAEConfig,
        GANConfig,
        ConditionalGANConfig,
        InfoGANConfig,
        StyleGANConfig,
    )
}
OBJECTIVES: dict[str, type[ObjectiveConfig]] = {
    c.objective: c
    for c in (BetaVAE, AnnealedVAE, JointVAE, BetaTCVAE, FactorVAE, DIPVAE, InfoVAE, PairVAE, Adversarial)
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
        check_range("experiment", "max_steps", self.max_steps, 1, 10**9)
        check_range("experiment", "batch_size", self.batch_size, 1, 65536)
        check_range("experiment", "seed", self.seed, 0, 2**31 - 1)
        check_range("experiment", "log_every", self.log_every, 1, 10**9)
        check_range("experiment", "preview_every", self.preview_every, 0, 10**9)
        check_range("experiment", "checkpoint_every", self.checkpoint_every, 1, 10**9)
        if not (0.0 < self.learning_rate < 10.0) or not math.isfinite(self.learning_rate):
            raise ValueError(f"experiment.learning_rate must lie in (0, 10); got {self.learning_rate!r}.")
        check_choice(self, "precision")
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
        spec = dict(table("experiment", spec))
        model = dict(table("model", spec.pop("model", {})))
        objective = dict(table("objective", spec.pop("objective", {})))
        family = known("model family", model.pop("family", "vae"), MODELS)
        goal = known("objective", objective.pop("objective", "beta-vae"), OBJECTIVES)
        data = read(DataConfig, table("data", spec.pop("data", {})))
        return read(
            cls, {**spec, "data": data, "model": read(family, model), "objective": read(goal, objective)}
        )


def trains(objective: ObjectiveConfig, model: ModelConfig) -> bool:
    """Whether an objective can train a model."""
    try:
        model.check_objective(objective)
    except ValueError:
        return False
    return model.kind == objective.kind


def objectives_of(model: ModelConfig) -> list[str]:
    """Names of the objectives, each with its defaults, that can train a model."""
    return [name for name, kind in OBJECTIVES.items() if trains(kind(), model)]


def _check_together(model: ModelConfig, objective: ObjectiveConfig) -> None:
    """Refuses an objective that can't train the model."""
    if model.kind != objective.kind:
        raise ValueError(
            f"A model of family {model.family!r} is trained by one of the objectives "
            f"{', '.join(objectives_of(model))}; got {objective.objective!r}."
        )
    model.check_objective(objective)


def experiments_folder() -> Path:
    """Where the named experiments lie: inside an installed package, else at the top of the checkout."""
    inside = Path(__file__).parents[1] / "experiments"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "experiments"


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
