"""What an experiment is made of, as plain values: no torch here, so forms and `--help` open at once.

``Experiment`` is what a training script freezes, what ``latentlab train`` overrides and what a run's
``config.json`` holds. Reading a configuration never imports a class by name: names are looked up in the
tables ``MODELS`` and ``OBJECTIVES``.
"""

from latentlab.config.adversarial import Adversarial
from latentlab.config.another import begin, fitting
from latentlab.config.experiment import (
    MODELS,
    OBJECTIVES,
    DataConfig,
    Experiment,
    experiment_names,
    experiments_folder,
    named_experiment,
    objectives_of,
    trains,
)
from latentlab.config.gans import ConditionalGANConfig, InfoGANConfig
from latentlab.config.ladder import LadderVAEConfig
from latentlab.config.models import (
    LARGEST_IMAGE,
    SMALLEST_IMAGE,
    BlockConfig,
    ConditionalVAEConfig,
    GANConfig,
    ModelConfig,
    VAEConfig,
)
from latentlab.config.objectives import Coefficient, ObjectiveConfig, Schedule
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

__all__ = [
    "DIPVAE",
    "LARGEST_IMAGE",
    "MODELS",
    "OBJECTIVES",
    "SMALLEST_IMAGE",
    "Adversarial",
    "AnnealedVAE",
    "BetaTCVAE",
    "BetaVAE",
    "BlockConfig",
    "Coefficient",
    "ConditionalGANConfig",
    "ConditionalVAEConfig",
    "DataConfig",
    "Experiment",
    "FactorVAE",
    "GANConfig",
    "InfoGANConfig",
    "InfoVAE",
    "JointVAE",
    "LadderVAEConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "PairVAE",
    "Schedule",
    "StyleGANConfig",
    "VAEConfig",
    "VQVAEConfig",
    "begin",
    "experiment_names",
    "experiments_folder",
    "fitting",
    "named_experiment",
    "objectives_of",
    "trains",
]
