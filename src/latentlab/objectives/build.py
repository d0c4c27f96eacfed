"""From a configuration to an objective: the one table of types."""

from __future__ import annotations

from collections.abc import Callable

from latentlab import config as configs
from latentlab.config import ObjectiveConfig
from latentlab.models.build import SeededWeights
from latentlab.models.contract import VariationalModel
from latentlab.objectives.annealed_vae import AnnealedVAE
from latentlab.objectives.beta_tcvae import BetaTCVAE
from latentlab.objectives.dip_vae import DIPVAE
from latentlab.objectives.factor_vae import FactorVAE
from latentlab.objectives.info_vae import InfoVAE
from latentlab.objectives.joint_vae import JointVAE
from latentlab.objectives.pairs import PairVAE
from latentlab.objectives.variational import BetaVAE, DataDescription, Objective

_OBJECTIVES: dict[type[ObjectiveConfig], Callable[..., Objective]] = {
    configs.BetaVAE: lambda config, model, data, seed: BetaVAE(config.beta),
    configs.AnnealedVAE: lambda config, model, data, seed: AnnealedVAE(config.gamma, config.capacity),
    configs.JointVAE: lambda config, model, data, seed: JointVAE(
        model.latent_space, config.gamma, config.capacity_continuous, config.capacity_discrete
    ),
    configs.BetaTCVAE: lambda config, model, data, seed: BetaTCVAE(
        config.beta, config.alpha, config.gamma, config.estimator, data.size
    ),
    configs.FactorVAE: lambda config, model, data, seed: FactorVAE(
        model.latent_space, config.gamma, config.layers, config.units, config.learning_rate
    ),
    configs.DIPVAE: lambda config, model, data, seed: DIPVAE(
        model.latent_space, config.variant, config.lambda_od, config.lambda_d
    ),
    configs.InfoVAE: lambda config, model, data, seed: InfoVAE(
        config.alpha, config.lambda_mmd, config.kernel
    ),
    configs.PairVAE: lambda config, model, data, seed: PairVAE(
        model.latent_space,
        config.beta,
        config.average,
        config.shared,
        config.symmetric,
        config.changed,
        config.changing,
        config.mirrored,
    ),
}


def build_objective(
    config: ObjectiveConfig, model: VariationalModel, data: DataDescription, seed: int = 0
) -> Objective:
    """From a configuration to an objective.

    Args:
        config: which objective, and its coefficients.
        model: what it will train; its latent space says how wide a head must be.
        data: what it will be trained on.
        seed: of the objective's own initial weights, where it has any; no global generator is read or moved.

    Raises:
        TypeError: on a configuration without an objective.
    """
    if type(config) not in _OBJECTIVES:
        known = [c.__name__ for c in _OBJECTIVES]
        raise TypeError(f"No objective for {type(config).__name__}; known: {known}.")
    # Apart from the model's own stream, which begins with the seed itself.
    with SeededWeights(2**40 + seed):
        return _OBJECTIVES[type(config)](config, model, data, seed)
