"""What excites a unit most: images or codes found by ascent, beside the best of many samples.

Symbols: a unit's *activation* is one number an input: the mean over its map, its largest value, or that at the centre.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from latentlab.analysis.ascent import Ascent
from latentlab.analysis.inference import BATCH_SIZE, check_seed, evaluating, in_chunks, inference, to_numpy
from latentlab.analysis.ranking import check_units
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.subject import Subject, subject_of

SUMMARIES = ("mean", "max", "centre")
_RATE = 0.05
_GROUPS = 200


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class MaximisedActivation(Result):
    """The inputs that excite units most.

    Attributes:
        images: what was found, (units, n_seeds, channels, height, width) in [0, 1], the best seed first; for units of a
            network that reads codes, the images that these decode to.
        codes: the codes found, (units, n_seeds, dim) of the model's first space; None over pixels.
        reached: the activations, (units, n_seeds), evaluated anew on what is stored here.
        reference: the activations of the samples, (units, n_reference).
        sample_max: the largest of them, (units,).
        sample_images: the sample that reaches it, (units, channels, height, width).
        percentile: share of the samples below what was reached at best, in per cent, (units,).
        selectivity: (units, units): what each unit (row) answers to the best input of each unit (column), as a share of
            what it answers to its own, both from its mean over the samples; 0 for a unit that nothing excites.
        agreement: mean correlation of the stage's answers to what the seeds found, each unit of the stage
            standardised over the samples, (units,); NaN with one seed, fewer than three units in the stage, or a unit
            that nothing excites.
        units: the units, (units,).
        summary: "mean", "max" or "centre".
        over: "pixels", "prior" or "latents".
        stage: name of the stage.
        address: its address within the model.
        network: name of the network.

    The certificate holds ``reached`` and ``sample_max`` unit by unit; ``percentile``, the least of the units';
    ``found_nothing``, the number of units whose best sample was not surpassed; ``re_evaluated``, the largest
    difference, relative, between the activation at the end of the ascent and that of the stored input run alone;
    ``diagonal_share``, the share of units that none of the other units' inputs excites as much as their own;
    ``agreement``, the least, and ``agreement_by_chance``, its 95th percentile among as many samples. Over pixels also
    ``shifted``, the least share of the activation that is kept on average under small shifts; over codes
    ``radius_percentile``, the range of their norms' percentiles in the prior (normal coordinates).
    """

    images: np.ndarray
    codes: np.ndarray | None
    reached: np.ndarray
    reference: np.ndarray
    sample_max: np.ndarray
    sample_images: np.ndarray
    percentile: np.ndarray
    selectivity: np.ndarray
    agreement: np.ndarray
    units: np.ndarray
    summary: str
    over: str
    stage: str
    address: str
    network: str


def maximise_activation(
    model: Any,
    network: str,
    stage: str,
    units: Sequence[int] | int,
    *,
    over: str | None = None,
    summary: str = "mean",
    steps: int = 256,
    n_seeds: int = 4,
    n_reference: int = 10_000,
    reference: Any = None,
    smoothness: float = 0.0,
    rate: float = _RATE,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], object] | None = None,
) -> MaximisedActivation:
    """Finds the inputs that excite units most, by ascent, and tells how they compare with samples.

    Over "pixels" an encoder's or discriminator's image is free, written as a spectrum and shifted a little at every
    step; over the "prior" it is one that the model draws, max a(E(G(z))); over "latents" a unit of the generator itself
    is excited, max a(G(z)). Codes stay where the prior has its mass: in the shell that holds 99.99 % of the normal
    coordinates, within uniform ones' bounds, and at categories, all of which are tried up to 32 combinations. Indices
    of a codebook have no gradient: single changes are proposed at random and the best is kept.

    Each seed has its own share of the samples and leaves from the best of it; over pixels every second one leaves from
    grey noise, unless the noise does not reach the unit.

    Args:
        model: a model, or a staged network itself, which reads images and needs ``reference``.
        network: name of the network.
        stage: name or address of the stage.
        units: which units; several give the matrix of their selectivity.
        over: "pixels", "prior" or "latents"; None for pixels where the network reads images, else latents.
        summary: the activation of a unit with a map: "mean", "max" or "centre".
        steps: steps of ascent.
        n_seeds: independent ascents.
        n_reference: samples to compare with, drawn from the prior.
        reference: images (n, channels, height, width) in [0, 1] to compare with instead; over pixels only.
        smoothness: over pixels, how many standard deviations of the samples' activations a unit of roughness costs (the
            mean absolute step between neighbouring pixels, down and across). 0 for the largest activation, whose image
            is black and white grain; about 10 to 100 for one to look at.
        rate: step size, in standard deviations of the prior for codes.
        seed: decides samples and starts.
        batch_size: inputs run at a time.
        progress: called with (steps done, all); it may raise to cancel.

    Raises:
        ValueError: on an unknown network, stage or unit, or a way of searching that the network does not have.

    References:
        Feature visualization (Olah et al., 2017), https://distill.pub/2017/feature-visualization
        Synthesizing the preferred inputs for neurons in neural networks via deep generator networks (Nguyen et al.,
        2016), https://arxiv.org/abs/1605.09304. Here the generator is the model's own and the prior bounds the codes.
    """
    if summary not in SUMMARIES:
        raise ValueError(f"summary must be one of {', '.join(SUMMARIES)}; got {summary!r}.")
    if min(steps, n_seeds, batch_size) < 1 or n_reference < n_seeds or not rate > 0 or smoothness < 0:
        raise ValueError(
            "steps, n_seeds and batch_size must be at least 1, n_reference at least n_seeds, rate above 0 and "
            f"smoothness at least 0; got {steps}, {n_seeds}, {batch_size}, {n_reference}, {rate} and {smoothness}."
        )
    subject = subject_of(model, network)
    name, way = subject.network.stage_name(stage), _way(subject, over, reference)
    chance = torch.Generator().manual_seed(check_seed(seed))
    if reference is None:
        samples = model.sample_codes(n_reference, seed)
    else:
        samples = subject.inputs(reference, 0)
        if len(samples) < n_seeds:
            raise ValueError(f"reference must be at least n_seeds = {n_seeds} images; got {len(samples)}.")
    ascent = Ascent(subject, model, name, way, summary, samples, reference is None)
    with inference(model):
        answers = in_chunks(lambda part: ascent.answers(ascent.of_samples(part)), samples, batch_size)
    chosen = check_units(units, answers.shape[1], subject.address(name))
    groups = np.array_split(torch.randperm(len(samples), generator=chance).numpy(), n_seeds)
    starts = np.stack([group[answers[group][:, chosen].argmax(axis=0)] for group in groups], axis=1)
    rows, sampled = np.repeat(chosen, n_seeds), np.tile(np.arange(n_seeds) % 2 == 0, len(chosen))
    mean, std = answers.mean(axis=0), answers.std(axis=0)
    roughness = smoothness * std[rows]
    with evaluating(model):
        found, ended = ascent.run(
            starts.ravel(), rows, sampled, roughness, steps, rate, batch_size, chance, progress
        )
    with inference(model):
        vectors = np.concatenate([to_numpy(ascent.answers(row[None])) for row in found])
        images = in_chunks(ascent.pictures, found, batch_size)
        moved = ascent.shifted(found, chance)
    reached = vectors[np.arange(len(rows)), rows]
    order = np.argsort(-reached.reshape(-1, n_seeds), axis=1, kind="stable")
    pick = (order + np.arange(len(chosen))[:, None] * n_seeds).ravel()
    shaped = (len(chosen), n_seeds)
    by_unit, images = reached[pick].reshape(shaped), images[pick].reshape(*shaped, *images.shape[1:])
    scale = np.where(std > 0, std, 1.0)
    standard = (vectors[pick] - mean) / scale
    above = vectors[pick].reshape(*shaped, -1)[:, 0][:, chosen].T - mean[chosen, None]
    own = np.diag(above)[:, None]
    selectivity = np.where(own > 0, above / np.where(own > 0, own, 1.0), 0.0)
    others = np.where(np.eye(len(chosen), dtype=bool), -np.inf, selectivity).max(axis=1)
    values = answers[:, chosen].T
    percentile = 100.0 * (values < by_unit[:, :1]).mean(axis=1)
    agreement, by_chance = _agreement(standard.reshape(*shaped, -1), (answers - mean) / scale, seed)
    top = samples[torch.as_tensor(values.argmax(axis=1), device=samples.device)]
    with inference(model):
        sample_images = in_chunks(lambda part: ascent.pictures(ascent.of_samples(part)), top, batch_size)
    proof: dict[str, Any] = {
        "reached": tuple(float(v) for v in by_unit[:, 0]),
        "sample_max": tuple(float(v) for v in values.max(axis=1)),
        "percentile": float(percentile.min()),
        "found_nothing": int((by_unit[:, 0] <= values.max(axis=1)).sum()),
        "re_evaluated": float((np.abs(reached - ended) / np.maximum(np.abs(ended), 1e-6)).max()),
        "diagonal_share": float((np.diag(selectivity) > others).mean()),
    }
    agreement = np.where(own[:, 0] > 0, agreement, np.nan)
    if np.isfinite(agreement).any():
        proof |= {"agreement": float(np.nanmin(agreement)), "agreement_by_chance": by_chance}
    if moved is not None:
        kept = to_numpy(moved)[np.arange(len(rows)), rows] / np.where(reached != 0, reached, 1.0)
        proof["shifted"] = float(kept[pick].reshape(shaped)[:, 0].min())
    radii = None if ascent.region is None else ascent.region.radius_percentiles(found)
    if radii is not None:
        proof["radius_percentile"] = (float(radii.min()), float(radii.max()))
    return MaximisedActivation(
        images=images,
        codes=None if ascent.region is None else to_numpy(found)[pick].reshape(*shaped, -1),
        reached=by_unit,
        reference=values,
        sample_max=values.max(axis=1),
        sample_images=sample_images,
        percentile=percentile,
        selectivity=selectivity,
        agreement=agreement,
        units=chosen,
        summary=summary,
        over=way,
        stage=name,
        address=subject.address(name),
        network=subject.name,
        certificate=proof,
        provenance=provenance(
            model,
            {
                "network": subject.name,
                "stage": name,
                "units": chosen,
                "over": way,
                "summary": summary,
                "steps": steps,
                "n_seeds": n_seeds,
                "n_reference": len(samples),
                "reference": reference,
                "smoothness": smoothness,
                "rate": rate,
            },
            seed,
        ),
    )


def _way(subject: Subject, over: str | None, reference: Any) -> str:
    """What is searched over."""
    possible = (
        ("latents",) if subject.reads is not None else ("pixels", "prior") if subject.whole else ("pixels",)
    )
    way = possible[0] if over is None else over
    if way not in possible:
        raise ValueError(
            f"Units of network {subject.name!r} can be maximised over {' or '.join(possible)}; got {over!r}."
        )
    if reference is not None and way != "pixels":
        raise ValueError(
            f"Over {way} the samples are drawn from the prior; drop reference=, or search over pixels."
        )
    if not subject.whole and reference is None:
        raise ValueError(
            f"Network {subject.name!r} alone has no prior to draw samples from; pass reference=, images to compare "
            "with."
        )
    return way


def _agreement(found: np.ndarray, samples: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """Mean correlation among the seeds (units,), and its 95th percentile among as many samples at random."""
    units, seeds, width = found.shape
    if seeds < 2 or width < 3:
        return np.full(units, np.nan), 0.0

    def normed(rows: np.ndarray) -> np.ndarray:
        rows = rows - rows.mean(axis=-1, keepdims=True)
        return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)

    def together(rows: np.ndarray) -> np.ndarray:
        each = normed(rows)
        return (each @ each.swapaxes(-1, -2))[..., ~np.eye(seeds, dtype=bool)].mean(axis=-1)

    drawn = np.random.default_rng(seed).integers(0, len(samples), (_GROUPS, seeds))
    return together(found), float(np.quantile(together(samples[drawn]), 0.95))
