"""Surrogates: simple models that imitate what a generator does to one measured attribute, and how far to trust them.

Symbols: z a code, G(z) its image, y = meter(G(z)) the attribute. What is imitated is the model's own behaviour on codes
that are drawn here, never labels of a data set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.generated_attribute import Attribute
from latentlab.analysis.inference import as_code, as_codes, check_seed, draw_codes, inference, needs_generator
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.surrogate_checks import agreement, auc, counterfactual, r2, top_terms
from latentlab.analysis.surrogate_models import KINDS, Simple, fit_ceiling, fit_simple
from latentlab.latents.priors import Normal, Uniform


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Surrogate(Result):
    """A simple model of one attribute of what a generator draws.

    Fidelity is the held-out R2, or the area under the ROC curve for "logistic".

    Attributes:
        form: "ridge", "logistic", "tree" or "ebm".
        attribute: what is predicted.
        unit: in what unit; for "logistic" the probability that it exceeds ``threshold``.
        threshold: of "logistic"; None else.
        source: what the codes were drawn from, in words.
        features: names of the features (features,).
        terms: names of the terms.
        weights: weight of each term (terms,); see ``latentlab.analysis.surrogate_models.Simple``.
        stability: share of refits on resampled data in which each term is among the top three (terms,).
        fidelity: held-out fidelity.
        interval: its 95 % interval by resampling the held-out codes.
        ceiling: held-out fidelity of boosted trees.
        null: fidelity of refits to shuffled numbers (refits,).
        measured: y of the held-out codes (m,).
        predicted: the surrogate's predictions of them (m,).
        moved_predicted: change that the surrogate predicts where it says how to move a code (k,).
        moved_measured: change that was measured after generating again (k,).
        rules: a tree as lines of text.
        tree: a tree as nested plain values: value, share of the codes, feature, threshold, below, above.
        shapes: {feature: (2, grid)} values and contributions of an additive model.
        pairs: {"a & b": (3, grid, grid)} values of both and contributions.
        splits: (feature, value, jump) of the largest step for each feature, the largest first.

    The certificate holds ``fidelity`` with its interval (``fidelity_low``, ``fidelity_high``), the ``ceiling`` and the
    ``gap_to_ceiling``; ``shuffled``, the best refit to shuffled numbers; ``counterfactual_slope`` and
    ``counterfactual_r2`` of measured against predicted changes; and ``stability``, the mean over the terms of at least
    a twentieth of the largest weight, at most three.
    """

    form: str
    attribute: str
    unit: str
    threshold: float | None
    source: str
    features: tuple[str, ...]
    terms: tuple[str, ...]
    weights: np.ndarray
    stability: np.ndarray
    fidelity: float
    interval: tuple[float, float]
    ceiling: float
    null: np.ndarray
    measured: np.ndarray
    predicted: np.ndarray
    moved_predicted: np.ndarray
    moved_measured: np.ndarray
    rules: tuple[str, ...]
    tree: Mapping[str, Any] | None
    shapes: Mapping[str, np.ndarray] | None
    pairs: Mapping[str, np.ndarray] | None
    splits: tuple[tuple[str, float, float], ...]


def surrogate(
    model: Any,
    meter: Any,
    *,
    features: str = "latents",
    kind: str = "ridge",
    n: int = 4000,
    source: str = "prior",
    codes: Any = None,
    local: tuple[Any, float] | None = None,
    squares: bool = False,
    threshold: float | None = None,
    test: float = 0.25,
    refits: int = 5,
    n_draws: int = 200,
    seed: int = 0,
    batch_size: int = 256,
    progress: Callable[[int, int], object] | None = None,
) -> Surrogate:
    """Fits a simple model to what a generator does to one attribute, and measures how faithful it is.

    Codes are drawn, decoded and measured; the surrogate is fitted to a part of them and judged on the rest. Then it is
    asked how to move held-out codes for a change of the attribute, the moved codes are decoded, and the change it
    predicted is compared with the one measured.

    Args:
        model: a generative model.
        meter: what is measured in an image, as for ``meter_of``: a name, a Meter or a function of images (n, channels,
            height, width) to numbers (n,); or a unit, such as "generator.block2:17", for its mean activation.
        features: "latents" for the coordinates of z; or a stage's address, for its units' mean activations.
        kind: "ridge", "logistic" (of y above a threshold), "tree" (at most 16 leaves) or "ebm" (an additive model with
            at most 10 interactions; needs latentlab[surrogates]).
        n: number of codes, at least 100.
        source: "prior", or "posterior": the aggregate posterior that ``codes`` are drawn from.
        codes: for "posterior": an Encoding, from each of whose posteriors one draw is taken, or codes (m, dim).
        local: (z, radius): codes from a normal distribution around z with this many prior standard deviations in each
            normal or uniform coordinate, all others kept; in place of the source.
        squares: for "ridge" and "logistic": also terms for the squares.
        threshold: for "logistic"; None for the median.
        test: share of the codes held out, between 0.05 and 0.95.
        refits: number of refits for the stability, and of refits to shuffled numbers; for "ebm" with fewer rounds.
        n_draws: resamples of the held-out codes for the interval, at least 20.
        seed: decides draws, split and fits.
        batch_size: codes decoded at a time.
        progress: called with (done, in all); it may raise to cancel.

    Raises:
        ValueError: on unknown kinds, sources or features, numbers out of range, a meter that gives the same or no
            finite number everywhere, or too few codes.
        ImportError: for "ebm" without interpret-core.

    References:
        "Why Should I Trust You?": Explaining the Predictions of Any Classifier (Ribeiro, Singh and Guestrin, 2016), for
        the local variant, whose radius is shown here; Accurate Intelligible Models with Pairwise Interactions (Lou,
        Caruana, Gehrke and Hooker, 2013), for the additive model.
    """
    needs_generator(model)
    seed = check_seed(seed)
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}; got {kind!r}.")
    if not 0.05 <= test <= 0.95 or refits < 1 or n_draws < 20 or batch_size < 1:
        raise ValueError(
            "test lies between 0.05 and 0.95, refits and batch_size are at least 1, and n_draws at least 20; got "
            f"{test}, {refits}, {batch_size} and {n_draws}."
        )
    chance = np.random.default_rng(seed)
    z, words = _codes(model, source, codes, local, n, seed)
    view = Attribute(model, meter, features, batch_size)
    total = 3 + 2 * refits + 1
    ticks = iter(range(1, total + 1))

    def done() -> None:
        if progress is not None:
            progress(next(ticks), total)

    with inference(model):
        x, y = view.features(z), view.measure(z)
    if not np.isfinite(y).all() or np.ptp(y) <= 1e-9 * max(float(np.abs(y).max()), 1e-9):
        raise ValueError(
            f"{view.name!r} gives {'no finite numbers' if not np.isfinite(y).all() else f'{y[0]:.4g} for every code'}, "
            "so there is nothing to predict; take another meter, or a wider source of codes."
        )
    done()
    order = chance.permutation(len(z))
    held, train = np.split(order, [round(test * len(z))])
    cut = None
    if kind == "logistic":
        cut = float(np.median(y[train])) if threshold is None else float(threshold)
        if not 0 < (y[train] > cut).mean() < 1 or not 0 < (y[held] > cut).mean() < 1:
            raise ValueError(f"{view.name!r} lies on one side of the threshold {cut:.4g} throughout.")
    goal = y if cut is None else (y > cut).astype(float)
    score = r2 if cut is None else auc
    seeds = iter(chance.integers(0, 2**32 - 1, size=2 * refits + 2).tolist())

    def fit(rows: np.ndarray, numbers: np.ndarray, light: bool = True) -> Simple:
        found = fit_simple(kind, x[rows], numbers, view.names, next(seeds), squares, light)
        done()
        return found

    simple = fit(train, goal[train], light=False)
    ceiling = fit_ceiling(x[train], goal[train], next(seeds), cut is not None)
    done()
    predicted = simple.predict(x[held])
    fidelity = score(goal[held], predicted)
    draws = [
        score(goal[held][rows], predicted[rows])
        for rows in (chance.integers(0, len(held), len(held)) for _ in range(n_draws))
    ]
    low, high = np.nanquantile(draws, [0.025, 0.975])
    stability = np.zeros(len(simple.terms))
    for _ in range(refits):
        rows = chance.choice(train, len(train))
        again = fit(rows, goal[rows])
        stability += np.isin(simple.terms, top_terms(again)) / refits
    null = np.array(
        [
            score(goal[held], fit(train, chance.permutation(goal[train])).predict(x[held]))
            for _ in range(refits)
        ]
    )
    top = top_terms(simple, floor=0.05)
    with inference(model):
        expected, measured = counterfactual(view, simple, z, x, goal, cut, held, top, chance)
    done()
    slope, agreed = agreement(expected, measured, binary=cut is not None)
    reached = score(goal[held], ceiling(x[held]))
    return Surrogate(
        form=kind,
        attribute=view.name,
        unit=view.unit,
        threshold=cut,
        source=words,
        features=tuple(view.names),
        terms=simple.terms,
        weights=simple.weights,
        stability=stability,
        fidelity=fidelity,
        interval=(float(low), float(high)),
        ceiling=reached,
        null=null,
        measured=goal[held],
        predicted=predicted,
        moved_predicted=expected,
        moved_measured=measured,
        rules=simple.rules,
        tree=simple.tree,
        shapes=dict(simple.shapes) or None,
        pairs=dict(simple.pairs) or None,
        splits=simple.splits,
        certificate={
            "fidelity": fidelity,
            "fidelity_low": float(low),
            "fidelity_high": float(high),
            "ceiling": reached,
            "gap_to_ceiling": reached - fidelity,
            "shuffled": float(null.max()),
            "counterfactual_slope": slope,
            "counterfactual_r2": agreed,
            "stability": float(stability[[simple.terms.index(t) for t in top]].mean()),
        },
        provenance=provenance(
            model,
            {
                "meter": meter if isinstance(meter, str) else view.name, "features": features, "kind": kind,
                "n": len(z), "source": words, "squares": squares, "threshold": cut, "test": test, "refits": refits,
                "n_draws": n_draws,
            },
            seed,
        ),
    )  # fmt: skip


def _codes(
    model: Any, source: str, codes: Any, local: tuple[Any, float] | None, n: int, seed: int
) -> tuple[Tensor, str]:
    """Codes (n, dim) of the model's first space, and in words where they come from."""
    if source not in ("prior", "posterior"):
        raise ValueError(f"source is 'prior' or 'posterior'; got {source!r}.")
    if (source == "posterior") != (codes is not None):
        raise ValueError(
            "codes= belongs to source='posterior', which needs it: an Encoding, or codes (m, dim)."
        )
    if n < 100:
        raise ValueError(f"A surrogate needs at least 100 codes; got n={n}.")
    space, chance = model.latent_space, np.random.default_rng([seed, 1])
    if local is not None:
        middle, radius = as_code(model, local[0], seed, name="local"), float(local[1])
        if not radius > 0:
            raise ValueError(f"local is (z, radius) with a radius above 0; got {radius}.")
        noise = torch.as_tensor(chance.standard_normal((n, space.dim)), dtype=torch.float32)
        z = middle + radius * space.std.to(middle) * noise.to(middle)
        for block in space.blocks:
            where = space.slice(block.name)
            if isinstance(block.prior, Uniform):
                z[:, where] = z[:, where].clamp(block.prior.low, block.prior.high)
            elif not isinstance(block.prior, Normal):
                z[:, where] = middle[where]
        return z, f"a ball of {radius:g} prior s.d. around one code"
    if source == "prior":
        return draw_codes(model, n, seed), "the prior"
    mean, log_var = getattr(codes, "mean", None), getattr(codes, "log_var", None)
    if isinstance(mean, np.ndarray) and isinstance(log_var, np.ndarray):
        codes = mean + np.exp(log_var / 2) * chance.standard_normal(mean.shape)
    z = as_codes(model, codes, name="codes")
    if len(z) < 100:
        raise ValueError(f"A surrogate needs at least 100 codes; got {len(z)}.")
    return z[torch.as_tensor(chance.permutation(len(z))[:n])], "the aggregate posterior"
