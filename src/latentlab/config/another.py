"""Another family or objective in an experiment: what begins anew, and what stays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from latentlab.config.experiment import OBJECTIVES, trains
from latentlab.config.models import ModelConfig
from latentlab.config.objectives import ObjectiveConfig

OF_THE_DATA = ("likelihood", "scale", "learn_scale", "label", "classes")
"""Fields of models that speak of the data and not of the network: they mean the same in every family that has them."""


def begin(kind: type[ModelConfig] | type[ObjectiveConfig], before: Mapping[str, Any]) -> dict[str, Any]:
    """The values a class starts with where another one stood: its own defaults, and what speaks of the data.

    A coefficient's name says little of its strength: gamma weighs the total correlation in FactorVAE (35), a distance
    from a capacity in AnnealedVAE (1000) and the dimension-wise KL in beta-TCVAE (1). So none is taken over.

    Args:
        kind: the class that was chosen.
        before: the values of the class that it replaces.
    """
    own = dataclasses.asdict(kind())
    return {name: before[name] if name in OF_THE_DATA and name in before else own[name] for name in own}


def fitting(model: ModelConfig, objective: ObjectiveConfig) -> ObjectiveConfig:
    """The objective if it can train the model, else the first of the table, with its defaults, that can."""
    choices = (objective, *(kind() for kind in OBJECTIVES.values()))
    return next((choice for choice in choices if trains(choice, model)), objective)
