"""Disentanglement metrics: pure functions of codes and factors, each returning a ``Score``.

Importable without torch, and cheap: scikit-learn and numba are imported by the metrics that use them when they are
called. The functions are imported here and not on demand, because a metric is named like its
file and a module must never stand where a function is meant.
"""

from latentlab.metrics.beta_vae import beta_vae_score
from latentlab.metrics.continuous_mig import continuous_mig
from latentlab.metrics.dci import dci
from latentlab.metrics.explicitness import explicitness
from latentlab.metrics.factor_vae import factor_vae_score
from latentlab.metrics.irs import interventional_view, irs
from latentlab.metrics.mig import dcimig, jemmig, mig, mig_sup
from latentlab.metrics.modularity import modularity
from latentlab.metrics.mutual_information import mutual_information_matrix
from latentlab.metrics.sap import sap
from latentlab.metrics.score import Score
from latentlab.metrics.table import StateTable
from latentlab.metrics.udr import udr
from latentlab.metrics.unsupervised import (
    gaussian_total_correlation,
    gaussian_wasserstein_correlation,
    mutual_info_between_codes,
)

__all__ = [
    "Score",
    "StateTable",
    "beta_vae_score",
    "continuous_mig",
    "dci",
    "dcimig",
    "explicitness",
    "factor_vae_score",
    "gaussian_total_correlation",
    "gaussian_wasserstein_correlation",
    "interventional_view",
    "irs",
    "jemmig",
    "mig",
    "mig_sup",
    "modularity",
    "mutual_info_between_codes",
    "mutual_information_matrix",
    "sap",
    "udr",
]
