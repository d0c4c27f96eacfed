"""Sobol shares: how much of a model's variance each latent is answerable for, alone and with all its interactions.

Symbols: f a number of an image; for independent latents the *first-order* share S_i = Var(E[f | z_i]) / Var f, the
*total* share T_i = E[Var(f | all but z_i)] / Var f. Where there are many numbers (pixels, a map's positions), shares
are pooled: sums of variances over sums of variances.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.derivatives import outcome
from latentlab.analysis.inference import BATCH_SIZE, as_codes, check_seed, inference, named, needs_generator
from latentlab.analysis.meters import Meter, meter_of
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.subject import subject_of
from latentlab.analysis.swaps import ConditionalSwaps, IndependentSwaps, Swaps, variables_of
from latentlab.models.contract import space_of
from latentlab.models.edits import Edit

PIXELS = "pixels"
_INTERVAL = (2.5, 97.5)
_STILL = 1e-9  # share of the largest variance below which a place does not vary


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Sobol(Result):
    """Shares of the variance of images, a meter or hidden units, by latent.

    Attributes:
        first: first-order shares (variables,), pooled; estimates, so slightly negative ones occur.
        total: total shares (variables,), pooled.
        first_interval: (variables, 2), the central 95 % of the bootstrap over draws.
        total_interval: the same of ``total``.
        first_map: shares for each number of the target, (variables, channels, height, width) for pixels; NaN where
            nothing varies; None for a meter and a stage.
        total_map: the same of the total shares.
        unit_first: (variables, units) for a stage, each unit's map pooled; else None.
        unit_total: the same of the total shares.
        variance: Var f: () of a meter, (channels, height, width) of pixels, (units,) of a stage, pooled.
        variables: names: a coordinate's, or that of a categorical block, which is one variable.
        null_first: first-order share of a latent that drives nothing: the same codes run once more in its place.
        null_total: its total share.
        target: "pixels", the meter's name, or the stage's address.
        unit: the meter's unit, "" for others.
        method: "independent" or "conditional", see ``sobol``.
        n: pairs of draws, or codes.
        space: name of the codes' space.

    The certificate holds ``sum_first``, the sum of the first-order shares (at most 1 for independent latents);
    ``additivity_gap``, 1 minus it: interactions, and latents that were not asked for; ``negative_shares``, the sum of
    negative first-order shares; ``first_error`` and ``total_error``, the largest standard errors;
    ``undriven_share``, the larger of the two null shares; and ``codes_run``, how many codes were run.
    """

    first: np.ndarray
    total: np.ndarray
    first_interval: np.ndarray
    total_interval: np.ndarray
    first_map: np.ndarray | None
    total_map: np.ndarray | None
    unit_first: np.ndarray | None
    unit_total: np.ndarray | None
    variance: np.ndarray
    variables: tuple[str, ...]
    null_first: float
    null_total: float
    target: str
    unit: str
    method: str
    n: int
    space: str


def sobol(
    model: Any,
    target: str | Meter | Callable[[Tensor], Tensor] = PIXELS,
    *,
    stage: str | None = None,
    network: str = "generator",
    dims: Sequence[int | str] | None = None,
    n: int = 256,
    n_draws: int = 200,
    seed: int = 0,
    data_codes: Any = None,
    space: str | None = None,
    edits: Sequence[Edit] = (),
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], object] | None = None,
) -> Sobol:
    """Estimates first-order and total Sobol shares of every latent.

    Under the prior, with its blocks independent ("independent"): pairs of codes A, B of a scrambled Sobol sequence, and
    for each variable A with its part of B; Saltelli's estimator of the first-order share, Jansen's of the total one.
    With ``data_codes``, or in a space without a prior such as W, whose coordinates depend on each other
    ("conditional"): first-order shares by ranks, from the codes that come next in z_i; total shares by drawing z_i anew
    given all others, as a linear prediction plus the residual of another code. Then neither kind need sum to 1, and a
    share is that of what z_i tells and not of what it drives.

    Args:
        model: a generative model.
        target: "pixels", or a meter (a name such as "x", a Meter, a function of images).
        stage: this stage's units in place of the image; only with the target "pixels".
        network: the network of the stage, which must read codes.
        dims: which latents, coordinates by name or position; a category's stands for its block. None for all.
        n: pairs of draws, a power of two (raised to one) of at least 8; of a space without a prior the codes drawn.
        n_draws: bootstrap draws, at least 20.
        seed: decides codes and bootstrap.
        data_codes: codes (n, dim) of a data set, at least 16.
        space: name of the codes' space, the model's first one where it is not given.
        edits: edits of the network.
        batch_size: codes run at a time.
        progress: called with (codes done, codes in all); it may raise to cancel.

    Raises:
        ValueError: on an unknown meter, stage or coordinate, too few codes, categories among dependent codes, or a
            target that gives another number of values or does not vary.

    References:
        Variance based sensitivity analysis of model output. Design and estimator for the total sensitivity index
        (Saltelli et al., 2010)
        Analysis of variance designs for model output (Jansen, 1999)
        Global sensitivity analysis: a new generation of mighty estimators based on rank statistics (Gamboa et al.,
        2022), for first-order shares of dependent codes
        The bootstrap takes draws as independent; those of a Sobol sequence are evener, so intervals are on the wide
        side.
    """
    needs_generator(model)
    check_seed(seed)
    for name, value, low in (("n", n, 8), ("n_draws", n_draws, 20), ("batch_size", batch_size, 1)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
            raise ValueError(f"{name} must be a whole number of at least {low}; got {value!r}.")
    place = space_of(model, space)
    subject = subject_of(model, network)
    if subject.reads is None:
        raise ValueError(f"Network {network!r} reads no codes, so no latent drives it.")
    edits = subject.check(edits)
    meter = None if isinstance(target, str) and target == PIXELS else meter_of(target)
    if stage is not None and meter is not None:
        raise ValueError("A meter reads images; drop stage=, or the meter.")
    n = 1 << (int(n) - 1).bit_length()
    chosen = variables_of(place, dims)
    swaps: Swaps
    if data_codes is not None:
        swaps = ConditionalSwaps(
            place, as_codes(model, data_codes, name="data_codes", space=space), chosen, seed
        )
    elif place.name != model.latent_space.name:
        with inference(model):
            drawn = model.map(model.sample_codes(n, seed), model.latent_space.name, place.name)
        swaps = ConditionalSwaps(place, drawn, chosen, seed)
    else:
        swaps = IndependentSwaps(place, n, chosen, seed)
    f = outcome(model, network, stage, place, edits)

    def values(codes: Tensor) -> Tensor:
        found = f(codes) if meter is None else meter(f(codes))
        if meter is not None and found.shape != (len(codes),):
            raise ValueError(
                f"A meter gives one number an image ({len(codes)},); {meter.name!r} gave {tuple(found.shape)}."
            )
        return found.double()

    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with inference(model):
        sums = swaps.accumulate(values, device, batch_size, progress)
    if not np.isfinite(sums.variance).all():
        raise ValueError("The target is not finite for all codes.")
    if sums.variance.max(initial=0.0) <= 0.0:
        raise ValueError("The target does not vary, so there is no variance to share out.")
    first, total = sums.pooled()
    draws = np.stack([np.stack(sums.pooled(rows)) for rows in _bootstrap(sums.count, n_draws, seed)])
    null_first, null_total = float(first[-1]), float(total[-1])
    first, total, draws = first[:-1], total[:-1], draws[:, :, :-1]
    spread = np.percentile(draws, _INTERVAL, axis=0).transpose(1, 2, 0)
    maps, units = sums.each(_STILL) if meter is None and stage is None else None, None
    if stage is not None:
        units = sums.each_unit(_STILL)
    variance = sums.variance if stage is None else sums.unit_variance()
    address = PIXELS if stage is None else subject.address(stage)
    return Sobol(
        first=first,
        total=total,
        first_interval=spread[0],
        total_interval=spread[1],
        first_map=None if maps is None else maps[0].astype(np.float32),
        total_map=None if maps is None else maps[1].astype(np.float32),
        unit_first=None if units is None else units[0],
        unit_total=None if units is None else units[1],
        variance=np.asarray(variance),
        variables=tuple(name for name, _ in chosen),
        null_first=null_first,
        null_total=null_total,
        target=address if meter is None else meter.name,
        unit="" if meter is None else meter.unit,
        method=swaps.method,
        n=sums.count,
        space=place.name,
        certificate={
            "sum_first": float(first.sum()),
            "additivity_gap": float(1.0 - first.sum()),
            "negative_shares": float(np.minimum(first, 0.0).sum()),
            "first_error": float(draws[:, 0].std(axis=0).max()),
            "total_error": float(draws[:, 1].std(axis=0).max()),
            "undriven_share": max(abs(null_first), abs(null_total)),
            "codes_run": swaps.calls,
        },
        provenance=provenance(
            model,
            {
                "target": address if meter is None else meter.name,
                "stage": stage,
                "network": network,
                "dims": dims,
            }
            | {"n": n, "n_draws": n_draws, "data_codes": data_codes, "edits": edits, **named(space)},
            seed,
        ),
    )


def _bootstrap(count: int, n_draws: int, seed: int):
    rng = np.random.default_rng([seed, 1])
    for _ in range(n_draws):
        yield rng.integers(count, size=count)
