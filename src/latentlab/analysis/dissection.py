"""Network dissection: which concept the map of each unit is like, by intersection over union.

Symbols: T_u the threshold of unit u, M_u = [map of u, stretched to the image, > T_u], L_c the mask of concept c.
IoU_uc = sum |M_u and L_c| / sum |M_u or L_c|, both sums over all images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from latentlab.analysis.inference import check_seed, inference, to_numpy
from latentlab.analysis.overlap import THRESHOLDS, UPSAMPLING, Stretch, match, stretched
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.specimens import Specimens, specimens
from latentlab.analysis.subject import Subject, subject_of
from latentlab.models.edits import Edit

_SHOWN = 12
_EXAMPLES = 3


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Dissection(Result):
    """How well the map of each unit matches each concept.

    Attributes:
        iou: intersection over union, (units, concepts), summed over all images.
        chance: the same when maps meet the masks of other images, exact mean over all permutations of the
            images (ratio of the mean intersection), (units, concepts).
        best: the best concept of each unit, (units,), by ``rank``.
        best_iou: its IoU, (units,).
        best_chance: 95 % quantile, over the permutations, of the IoU of the concept that is best then, (units,).
        p_value: (1 + permutations in which the unit's best is at least as good) / (1 + permutations), (units,).
        detectors: whether ``best_iou`` exceeds ``min_iou``, (units,).
        thresholds: T_u, (units, 1), or (units, concepts) where each concept has its own.
        controls: best IoU of random directions of the stage instead of units, descending, (controls,).
        concept_best: largest IoU over the units, (concepts,).
        concept_chance: mean over the permutations of the same, (concepts,).
        ceiling: largest IoU that the threshold allows, were a map to lie within the mask or hold it, (concepts,).
        shares: share of all positions that a concept covers, (concepts,).
        concepts: names of the concepts.
        levels: level of each ("edge", "colour", "part", "whole").
        shown: the best units, (k,).
        images: the images with the highest peak of their maps, (k, 3, channels, height, width), None where the
            network has no images.
        regions: where their map is above its threshold, bool (k, 3, height, width).
        masks: where their concept is, bool (k, 3, height, width).
        min_iou: what makes a detector.
        stage: name of the stage.
        address: its address within the model.
        network: name of the network.

    The certificate holds ``share_above``, the smallest and largest share of a unit's positions above T_u (of units
    that vary; to be compared with ``share_wanted``, or for own thresholds a concept ``share_gap``, the median
    distance from what was wanted); ``images`` and ``permutations``, how many took part; ``permuted_gap``, the
    largest distance between the mean IoU over the drawn permutations and ``chance``; ``chance_iou_95``, the 95 %
    quantile of the units' best IoU under permutations; ``detectors`` and ``detectors_by_chance``, their number and
    the mean number under permutations; ``detectors_random_directions``, the number to expect of random directions;
    and for codes of data images ``reconstruction_error``, the root mean square pixel distance between the pictures
    and the images whose masks were used.
    """

    iou: np.ndarray
    chance: np.ndarray
    best: np.ndarray
    best_iou: np.ndarray
    best_chance: np.ndarray
    p_value: np.ndarray
    detectors: np.ndarray
    thresholds: np.ndarray
    controls: np.ndarray
    concept_best: np.ndarray
    concept_chance: np.ndarray
    ceiling: np.ndarray
    shares: np.ndarray
    concepts: tuple[str, ...]
    levels: tuple[str, ...]
    shown: np.ndarray
    images: np.ndarray | None
    regions: np.ndarray
    masks: np.ndarray
    min_iou: float
    stage: str
    address: str
    network: str


def dissect(
    model: Any,
    stage: str,
    network: str = "generator",
    data: Any = None,
    *,
    inputs: Any = None,
    concepts: Any = None,
    n_images: int = 256,
    threshold: str = "quantile",
    quantile: float = 0.005,
    min_iou: float = 0.04,
    rank: str = "iou",
    upsample: str = "bilinear",
    n_draws: int = 20,
    n_controls: int = 32,
    edits: Sequence[Edit] = (),
    seed: int = 0,
    batch_size: int = 32,
    progress: Callable[[int, int], object] | None = None,
) -> Dissection:
    """Compares the thresholded map of each unit of a stage with the masks of concepts.

    Args:
        model: a model, or a staged network itself.
        stage: name or address of the stage; a unit of a flat one is on or off in the whole image.
        network: name of the model's network.
        data: a data set, of which ``n_images`` are drawn. An encoder or discriminator reads them; a generator with an
            encoder draws the posterior means of them, and the data's masks are compared with what it draws.
        inputs: the network's inputs instead; with neither, ``n_images`` prior draws of a generator.
        concepts: ConceptMasks, one for each of ``inputs``; or a function images -> ConceptMasks, such as
            ``nearest_masks(data)``, that finds concepts in what is read or drawn; None takes the data's masks where
            it has some, else ``image_concepts``.
        n_images: how many images.
        threshold: "quantile": T_u by the share ``quantile`` of all positions of all images; "matched": for each
            concept by the share that it covers, so that large concepts can be matched, too; "iqr": for each concept
            the one of ten shares from 0.25 to 50 % with the largest information quality ratio I(M; L) / H(M, L).
        quantile: share of positions above T_u.
        min_iou: a detector's IoU is larger.
        rank: a unit's best concept is that of the largest "iou", or of the largest "excess" of it over chance: what
            is at the same place in most images, such as a floor, has a large IoU by chance.
        upsample: "bilinear" or "nearest".
        n_draws: permutations of the images, at least 1.
        n_controls: random directions of the stage (as many as it has units at most).
        edits: edits of the network.
        seed: of the draws, the permutations and the directions.
        batch_size: images at a time.
        progress: called with (batches done, batches in all); it may raise to cancel.

    Raises:
        ValueError: on an unknown stage or option, or inputs and concepts that don't fit.

    References:
        Network Dissection (Bau et al., 2017), GAN Dissection (Bau et al., 2019) for "iqr". Every image counts for
        every concept here, since ours are labelled for all; thresholds are exact and not sketched; the permutations
        may choose their best concept, and for "iqr" their threshold, as the units may. "matched" is our own.
    """
    _check_options(threshold, quantile, rank, upsample, n_draws, n_controls)
    subject = subject_of(model, network)
    edits = subject.check(edits)
    address = subject.address(stage)
    with inference(model):
        taken = specimens(subject, data, inputs, concepts, n_images, seed, batch_size, edits)
        masks = taken.known().masks
        names, levels = taken.known().names, taken.known().levels
        shares = taken.known().share
        n = len(masks)
        rng = np.random.default_rng(check_seed(seed))
        orders = np.stack([np.arange(n), *(rng.permutation(n) for _ in range(n_draws))])
        passes = 2 if n_controls == 0 else 4
        done, total = [0], passes * -(-n // batch_size)

        def tick() -> None:
            done[0] += 1
            if progress is not None:
                progress(done[0], total)

        states = Stretch(lambda a, b: subject.state(taken.inputs[a:b], stage, edits), n, batch_size, tick)
        met = match(states, masks, orders, threshold, quantile, upsample)
        iou, chance, chosen, share = met.iou, met.chance, met.cuts, met.share
        controls = np.zeros(0)
        if n_controls:
            turned = _turned(states, iou.shape[1], n_controls, seed)
            controls = match(turned, masks, orders[:1], threshold, quantile, upsample).iou[0].max(axis=1)
            controls = -np.sort(-controls)
        actual, permuted = iou[0], iou[1:]
        merit = iou - chance if rank == "excess" else iou
        choice = merit.argmax(axis=2)
        best, best_iou = choice[0], np.take_along_axis(actual, choice[0][:, None], axis=1)[:, 0]
        best_permuted = np.take_along_axis(permuted, choice[1:, :, None], axis=2)[:, :, 0]
        beaten = (merit[1:].max(axis=2) >= merit[0].max(axis=1) - 1e-12).sum(axis=0)
        shown = np.argsort(-merit[0].max(axis=1), kind="stable")[:_SHOWN]
        images, regions, there = _examples(
            subject, taken, stage, edits, shown, best, met.peaks, chosen, upsample
        )
    alive = met.varies
    certificate: dict[str, Any] = {"images": n, "permutations": n_draws}
    if threshold == "quantile":
        living = share[alive, 0] if alive.any() else share[:, 0]
        certificate |= {"share_wanted": quantile, "share_above": (float(living.min()), float(living.max()))}
    elif threshold == "matched":
        gaps = np.abs(share - shares)[alive]
        certificate["share_gap"] = float(np.median(gaps)) if gaps.size else 0.0
    certificate |= {
        "permuted_gap": float(np.abs(permuted.mean(axis=0) - chance).max()) if threshold != "iqr" else None,
        "chance_iou_95": float(np.quantile(best_permuted, 0.95)),
        "detectors": int((best_iou > min_iou).sum()),
        "detectors_by_chance": float((best_permuted > min_iou).sum(axis=1).mean()),
        "detectors_random_directions": float((controls > min_iou).mean() * len(best)) if n_controls else None,
        "reconstruction_error": taken.reconstruction_error,
    }
    mean_share = quantile if threshold == "quantile" else shares
    return Dissection(
        iou=actual,
        chance=chance,
        best=best,
        best_iou=best_iou,
        best_chance=np.quantile(best_permuted, 0.95, axis=0),
        p_value=(1 + beaten) / (1 + n_draws),
        detectors=best_iou > min_iou,
        thresholds=chosen,
        controls=controls,
        concept_best=actual.max(axis=0),
        concept_chance=permuted.max(axis=1).mean(axis=0),
        ceiling=np.minimum(shares, mean_share) / np.maximum(np.maximum(shares, mean_share), 1e-12),
        shares=shares,
        concepts=names,
        levels=levels,
        shown=shown,
        images=images,
        regions=regions,
        masks=there,
        min_iou=float(min_iou),
        stage=address.removeprefix(subject.name + "."),
        address=address,
        network=subject.name,
        certificate={k: v for k, v in certificate.items() if v is not None},
        provenance=provenance(
            model,
            {
                "network": subject.name,
                "stage": stage,
                "data": getattr(data, "name", None),
                "inputs": taken.inputs,
                "concepts": list(names),
                "masks": masks,
                "threshold": threshold,
                "quantile": quantile,
                "min_iou": min_iou,
                "rank": rank,
                "upsample": upsample,
                "n_draws": n_draws,
                "n_controls": n_controls,
                "edits": edits,
            },
            seed,
        ),
    )


def _check_options(
    threshold: str, quantile: float, rank: str, upsample: str, n_draws: int, n_controls: int
) -> None:
    if threshold not in THRESHOLDS:
        raise ValueError(f"A threshold is one of {', '.join(THRESHOLDS)}; got {threshold!r}.")
    if rank not in ("iou", "excess"):
        raise ValueError(f"Concepts are ranked by iou or excess; got {rank!r}.")
    if upsample not in UPSAMPLING:
        raise ValueError(f"Maps are stretched by {' or '.join(UPSAMPLING)}; got {upsample!r}.")
    if not 0.0 < quantile < 1.0:
        raise ValueError(f"quantile is a share of the positions between 0 and 1; got {quantile}.")
    if n_draws < 1 or n_controls < 0:
        raise ValueError(
            f"n_draws must be at least 1 and n_controls at least 0; got {n_draws} and {n_controls}."
        )


def _turned(states: Stretch, units: int, directions: int, seed: int) -> Stretch:
    """The same states along random orthonormal directions."""
    draw = torch.randn(units, min(units, directions), generator=torch.Generator().manual_seed(seed))
    basis = torch.linalg.qr(draw)[0]

    def read(start: int, stop: int) -> torch.Tensor:
        state = states.read(start, stop).float()
        return torch.einsum("bu...,uk->bk...", state, basis.to(state))

    return Stretch(read, states.n, states.batch_size, states.tick)


def _examples(
    subject: Subject,
    taken: Specimens,
    stage: str,
    edits: Sequence[Edit],
    shown: np.ndarray,
    best: np.ndarray,
    peaks: np.ndarray,
    chosen: np.ndarray,
    upsample: str,
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """Images, thresholded maps and masks of the best units, where their maps peak highest."""
    masks = taken.known().masks
    images, regions, there = [], [], []
    for unit in shown:
        rows = np.argsort(-peaks[:, unit], kind="stable")[:_EXAMPLES]
        rows = np.resize(rows, _EXAMPLES)
        state = subject.state(taken.inputs[torch.as_tensor(rows, device=taken.inputs.device)], stage, edits)
        maps = to_numpy(stretched(state[:, unit : unit + 1], masks.shape[2:], upsample))[:, 0]
        level = chosen[unit, best[unit] if chosen.shape[1] > 1 else 0]
        regions.append(np.broadcast_to(maps > level, (_EXAMPLES, *masks.shape[2:])))
        there.append(masks[rows, best[unit]])
        images.append(None if taken.images is None else taken.images[rows])
    pictures = None if taken.images is None else np.stack(images)
    return pictures, np.stack(regions), np.stack(there)
