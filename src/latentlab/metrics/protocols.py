"""Protocols: which metrics, on how many points, under which conventions.

The same model scores several times higher or lower under another protocol, so a number means nothing without its
protocol's name, and numbers of two protocols are never compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from latentlab.metrics.beta_vae import beta_vae_score
from latentlab.metrics.continuous_mig import continuous_mig
from latentlab.metrics.dci import dci
from latentlab.metrics.explicitness import explicitness
from latentlab.metrics.factor_vae import factor_vae_score
from latentlab.metrics.irs import irs
from latentlab.metrics.mig import dcimig, jemmig, mig, mig_sup
from latentlab.metrics.modularity import modularity
from latentlab.metrics.sap import sap
from latentlab.metrics.score import Score
from latentlab.metrics.table import StateTable
from latentlab.metrics.unsupervised import (
    gaussian_total_correlation,
    gaussian_wasserstein_correlation,
    mutual_info_between_codes,
)

Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class Draw:
    """What one seed offers to the metrics of a protocol.

    Attributes:
        table: codes (posterior means) of every state, and the factors asked about.
        log_var: logs of the posterior variances of every state, (states, d), or None where there are none.
        categorical: columns whose values have no order, such as shape.
        seed: decides the points drawn.
        train_points: points drawn to learn from.
        test_points: points drawn to score on.
        tick: called with (done, total) by long metrics.
    """

    table: StateTable
    log_var: np.ndarray | None
    categorical: tuple[int, ...]
    seed: int
    train_points: int
    test_points: int
    tick: Tick | None = None

    @cached_property
    def train(self) -> tuple[np.ndarray, np.ndarray]:
        """Codes and factors of the training points."""
        return self.table.sample(self.train_points, np.random.default_rng([self.seed, 0]))

    @cached_property
    def test(self) -> tuple[np.ndarray, np.ndarray]:
        """Codes and factors of the test points, drawn independently."""
        return self.table.sample(self.test_points, np.random.default_rng([self.seed, 1]))


@dataclass(frozen=True)
class Measure:
    """One metric of a protocol and the rows it fills in a report.

    Attributes:
        name: key of the measure.
        rows: {label of the row: key of the detail it shows, or "" for the value}.
        run: from a draw to a score.
        higher_is_better: direction of every row.
        exact: it looks at all states, so another seed gives the same number.
    """

    name: str
    rows: Mapping[str, str]
    run: Callable[[Draw], Score]
    higher_is_better: bool = True
    exact: bool = False


@dataclass(frozen=True)
class Protocol:
    """A published way to score, by name.

    Attributes:
        name: "dlib", "chen2018", "infogan-cr" or "continuous".
        summary: conventions in a sentence.
        measures: what is computed.
        train_points: points to learn from, for a data set of so many states.
        test_points: points to score on.
        left_out: names of factors that the protocol does not ask about.
    """

    name: str
    summary: str
    measures: tuple[Measure, ...]
    train_points: Callable[[int], int]
    test_points: Callable[[int], int]
    left_out: frozenset[str] = field(default_factory=frozenset)

    def measure(self, name: str) -> Measure:
        """The measure of a name.

        Raises:
            ValueError: naming the possible ones.
        """
        for measure in self.measures:
            if measure.name == name:
                return measure
        names = ", ".join(m.name for m in self.measures)
        raise ValueError(f"Protocol {self.name} has no measure {name!r}; it has {names}.")


def _mixed_sap(draw: Draw) -> Score:
    """SAP with squared correlation for ordered factors and the classifier for categorical ones."""
    ordered = [j for j in range(len(draw.table.sizes)) if j not in draw.categorical]
    (z, v), (test_z, test_v) = draw.train, draw.test
    per_factor = np.empty(len(draw.table.sizes))
    for columns, continuous in ((ordered, True), (list(draw.categorical), False)):
        if columns:
            found = sap(z, v[:, columns], test_z, test_v[:, columns], continuous=continuous)
            per_factor[columns] = found.details["per_factor"]
    return Score(
        "sap",
        per_factor.mean(),
        {"per_factor": per_factor},
        {"predictor": "squared correlation; LinearSVC for categorical factors", "train_points": len(z)},
    )


def _posterior_mig(draw: Draw) -> Score:
    if draw.log_var is None:
        raise ValueError("continuous MIG needs the variances of the posterior; these codes have none.")
    return continuous_mig(draw.table.codes, draw.log_var, draw.table.factors, progress=draw.tick)


_MIG = Measure("mig", {"MIG": ""}, lambda d: mig(*d.train))
_MODULARITY = Measure("modularity", {"Modularity": ""}, lambda d: modularity(*d.train))
_EXPLICITNESS = Measure("explicitness", {"Explicitness": ""}, lambda d: explicitness(*d.train, *d.test))
_BETA_VAE = Measure("beta_vae", {"BetaVAE score": ""}, lambda d: beta_vae_score(d.table, d.seed))
_DEPENDENCE = (
    Measure(
        "total_correlation",
        {"Gaussian total correlation (nats)": ""},
        lambda d: gaussian_total_correlation(d.train[0]),
        higher_is_better=False,
    ),
    Measure(
        "wasserstein",
        {"Gaussian Wasserstein correlation, normalised": "normalized"},
        lambda d: gaussian_wasserstein_correlation(d.train[0]),
        higher_is_better=False,
    ),
    Measure(
        "mutual_info_between_codes",
        {"Information between codes (nats)": ""},
        lambda d: mutual_info_between_codes(d.train[0]),
        higher_is_better=False,
    ),
)


def _dci(predictor: str, title: str) -> Measure:
    rows = {
        f"{title} disentanglement": "disentanglement",
        f"{title} completeness": "completeness",
        f"{title} informativeness": "informativeness_test",
    }
    return Measure(
        f"dci-{predictor}",
        rows,
        lambda d: dci(*d.train, *d.test, predictor=predictor, seed=d.seed, progress=d.tick),
    )


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "dlib",
            "Locatello et al. 2019: posterior means, 20 bins, 10,000 and 5,000 states drawn uniformly, DCI by "
            "gradient-boosted trees, SAP by a linear classifier, held-out votes",
            (
                _MIG,
                _dci("gbt", "DCI"),
                Measure("sap", {"SAP": ""}, lambda d: sap(*d.train, *d.test)),
                _BETA_VAE,
                Measure("factor_vae", {"FactorVAE score": ""}, lambda d: factor_vae_score(d.table, d.seed)),
                _MODULARITY,
                _EXPLICITNESS,
                Measure("irs", {"IRS": ""}, lambda d: irs(*d.train)),
                *_DEPENDENCE,
            ),
            lambda states: 10_000,
            lambda states: 5_000,
        ),
        Protocol(
            "chen2018",
            "Chen et al. 2018: MIG of samples of the posterior with the exact aggregate posterior over all states, "
            "shape not asked about",
            (Measure("continuous_mig", {"MIG, continuous": ""}, _posterior_mig, exact=True),),
            lambda states: 10_000,
            lambda states: 5_000,
            frozenset({"shape"}),
        ),
        Protocol(
            "infogan-cr",
            "Lin et al. 2020: posterior means of a tenth of the states, 20 bins, FactorVAE score by 500 training "
            "votes of 100 states, SAP by squared correlation, DCI by lasso and random forest",
            (
                _MIG,
                _dci("lasso", "DCI lasso"),
                _dci("random_forest", "DCI random forest"),
                Measure("sap", {"SAP": ""}, _mixed_sap),
                _BETA_VAE,
                Measure(
                    "factor_vae",
                    {"FactorVAE score": ""},
                    lambda d: factor_vae_score(
                        d.table, d.seed, batch_size=100, train_points=500, held_out=False, threshold=0.0
                    ),
                ),
                _MODULARITY,
                _EXPLICITNESS,
            ),
            lambda states: max(10_000, states // 10),
            lambda states: 5_000,
        ),
        Protocol(
            "continuous",
            "no bins where it can be had: MIG of posterior samples over all states and factors, SAP by squared "
            "correlation, beside the other gaps at 20 bins over 10,000 states",
            (
                Measure("continuous_mig", {"MIG, continuous": ""}, _posterior_mig, exact=True),
                Measure("sap", {"SAP": ""}, lambda d: sap(*d.train, *d.test, continuous=True)),
                Measure("mig_sup", {"MIG-sup": ""}, lambda d: mig_sup(*d.train)),
                Measure("dcimig", {"DCIMIG": ""}, lambda d: dcimig(*d.train)),
                Measure("jemmig", {"JEMMIG": ""}, lambda d: jemmig(*d.train)),
                *_DEPENDENCE,
            ),
            lambda states: 10_000,
            lambda states: 5_000,
        ),
    )
}


def protocol_of(name: str) -> Protocol:
    """The protocol of a name.

    Raises:
        ValueError: naming the possible ones.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}; got {name!r}.")
    return PROTOCOLS[name]
