"""The encoding of a data set: the posterior of every image, and what it says of each coordinate.

Symbols: q(z | x) the posterior of image x, with mean and log-variance for each coordinate; the
*aggregate posterior* is the mixture of the posteriors of all images; a coordinate is *active* when its
posterior tells the images apart.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latentlab.analysis.inference import (
    BATCH_SIZE,
    check_seed,
    device_of,
    inference,
    needs_encoder,
    to_numpy,
)
from latentlab.analysis.results import Result, array_digest, load_result, provenance
from latentlab.latents import ACTIVE_NATS
from latentlab.models.precision import in_bf16

_PROBED_IMAGES = 8


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Encoding(Result):
    """Posteriors of the images of a data set.

    Attributes:
        mean: posterior means, (n, dim).
        log_var: logs of the posterior variances, (n, dim).
        kl: KL(q(z | x) || p(z)), nats, (n, dim).
        indices: which images of the data set, (n,).
        factors: their ground-truth factors (n, factors), or None for a plain image set.
        factor_names: names of the factors.
        categories: {factor: names of its values}, where the data set names them.
        dim_names: names of the coordinates.
        kl_per_dim: mean of ``kl`` over the images, nats, (dim,).
        active: whether a coordinate's mean KL exceeds the threshold, (dim,).
        active_variance: whether the variance of its posterior means exceeds the threshold, (dim,).
        aggregate_mean: mean of the aggregate posterior, (dim,).
        aggregate_std: its standard deviation, (dim,): the root of the mean posterior variance plus the
            variance of the means.
        reconstruction_error: mean squared error per pixel of each image's reconstruction, (n,), or None.
        dataset: name of the data set.

    The certificate holds ``kl_total``, nats per image; ``prior_gap``, the largest distance of the
    aggregate posterior's mean and standard deviation from the prior's, in prior standard deviations; and
    the two thresholds.

    References:
        Importance weighted autoencoders (Burda, Grosse and Salakhutdinov, 2015),
        https://arxiv.org/abs/1509.00519, for the variance criterion with threshold 0.01.
    """

    mean: np.ndarray
    log_var: np.ndarray
    kl: np.ndarray
    indices: np.ndarray
    factors: np.ndarray | None
    factor_names: tuple[str, ...]
    categories: Mapping[str, tuple[str, ...]]
    dim_names: tuple[str, ...]
    kl_per_dim: np.ndarray
    active: np.ndarray
    active_variance: np.ndarray
    aggregate_mean: np.ndarray
    aggregate_std: np.ndarray
    reconstruction_error: np.ndarray | None
    dataset: str

    @property
    def n(self) -> int:
        """Number of encoded images."""
        return len(self.mean)

    @property
    def order(self) -> np.ndarray:
        """Coordinates by mean KL, the most informative first, (dim,)."""
        return np.argsort(-self.kl_per_dim, kind="stable")


def encode_dataset(
    model: Any,
    dataset: Any,
    indices: Any = None,
    *,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    cache: str | Path | None = None,
    progress: Callable[[int, int], object] | None = None,
    reconstruction: bool = False,
    kl_threshold: float = ACTIVE_NATS,
    variance_threshold: float = 0.01,
    precision: str = "fp32",
) -> Encoding:
    """Encodes images of a data set.

    Args:
        model: a model with an encoder.
        dataset: a FactorDataset.
        indices: None for all images; a number n for n images drawn by ``seed`` from the training distribution
            (all of them when there are no more than n); or the indices themselves (n,).
        batch_size: images encoded at a time.
        seed: decides which images are drawn.
        cache: a folder that keeps encodings, found again by weights, data and indices; a damaged entry is
            computed anew.
        progress: called with (images done, images in all); it may raise to cancel.
        reconstruction: also decode the posterior means and measure the error.
        kl_threshold: mean KL in nats above which a coordinate counts as active.
        variance_threshold: variance of the posterior means above which it counts as active by variance.
        precision: "fp32"; "bf16", twice as fast where the hardware has bfloat16, with means that differ by about
            0.3 % of their spread; or "auto" for the faster that the device has. Training uses bfloat16 by
            default, too.

    Raises:
        ValueError: if the model has no encoder, the data set's images don't fit it, or the device lacks the
            precision.
    """
    needs_encoder(model)
    if tuple(dataset.image_shape) != tuple(model.image_shape):
        raise ValueError(
            f"The model reads images {tuple(model.image_shape)}; data set {dataset.name!r} has images "
            f"{tuple(dataset.image_shape)}."
        )
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}.")
    device = device_of(model)
    half = in_bf16(precision, device)
    chosen = _choose(dataset, indices, seed)
    origin = provenance(
        model,
        {
            **({"precision": "bf16"} if half else {}),
            "dataset": dataset.name,
            "indices": {"n": len(chosen), "sha256": array_digest(chosen)},
            "images": _probe(dataset, chosen),
            "reconstruction": reconstruction,
            "kl_threshold": kl_threshold,
            "variance_threshold": variance_threshold,
        },
        seed if isinstance(indices, (int, np.integer)) else None,
    )
    entry = None if cache is None else Path(cache) / f"encoding-{_key(origin)}"
    if entry is not None and (found := _cached(entry, origin)) is not None:
        if progress is not None:
            progress(found.n, found.n)
        return found

    columns: dict[str, list[np.ndarray]] = {"mean": [], "log_var": [], "kl": [], "error": []}
    layout = torch.channels_last if half else torch.contiguous_format
    if half and isinstance(model, torch.nn.Module):
        model = copy.deepcopy(model).to(memory_format=layout)  # the caller's stays as it is
    faster = torch.autocast(device.type, dtype=torch.bfloat16) if half else nullcontext()
    with inference(model):
        for start in range(0, len(chosen), batch_size):
            part = torch.from_numpy(chosen[start : start + batch_size])
            x = dataset.images(part, device=device)
            with faster:
                posterior = model.encode(x.contiguous(memory_format=layout))
            for name, value in (
                ("mean", posterior.mean),
                ("log_var", posterior.log_var),
                ("kl", posterior.kl()),
            ):
                columns[name].append(to_numpy(value))
            if reconstruction:
                error = (model.decode(posterior.code()) - x).square().mean(dim=(1, 2, 3))
                columns["error"].append(to_numpy(error))
            if progress is not None:
                progress(start + len(part), len(chosen))
    mean, log_var, kl = (np.concatenate(columns[name]) for name in ("mean", "log_var", "kl"))
    # Moments in float64: the variance of a collapsed coordinate's means is tiny.
    spread = mean.astype(float).var(axis=0)
    aggregate_mean = mean.astype(float).mean(axis=0)
    aggregate_std = np.sqrt(np.exp(log_var.astype(float)).mean(axis=0) + spread)
    kl_per_dim = kl.astype(float).mean(axis=0)
    space = model.latent_space
    prior_mean, prior_std = space.mean.double().numpy(), space.std.double().numpy()
    gap = np.maximum(np.abs(aggregate_mean - prior_mean), np.abs(aggregate_std - prior_std)) / prior_std
    has_factors = dataset.factor_space is not None
    names = tuple(dataset.factor_space.names) if has_factors else ()
    result = Encoding(
        mean=mean,
        log_var=log_var,
        kl=kl,
        indices=chosen,
        factors=dataset.factors(torch.from_numpy(chosen)).cpu().numpy() if has_factors else None,
        factor_names=names,
        categories={k: tuple(v) for k, v in (getattr(dataset, "categories", None) or {}).items()},
        dim_names=space.names,
        kl_per_dim=kl_per_dim,
        active=kl_per_dim > kl_threshold,
        active_variance=spread > variance_threshold,
        aggregate_mean=aggregate_mean,
        aggregate_std=aggregate_std,
        reconstruction_error=np.concatenate(columns["error"]) if reconstruction else None,
        dataset=dataset.name,
        certificate={
            "kl_total": float(kl_per_dim.sum()),
            "prior_gap": float(gap.max()),
            "kl_threshold": kl_threshold,
            "variance_threshold": variance_threshold,
        },
        provenance=origin,
    )
    if entry is not None:
        result.save(entry)
    return result


def _choose(dataset: Any, indices: Any, seed: int) -> np.ndarray:
    if indices is None:
        return np.arange(len(dataset), dtype=np.int64)
    if isinstance(indices, (int, np.integer)) and not isinstance(indices, bool):
        if indices < 1:
            raise ValueError(f"indices, as a number of images, must be at least 1; got {indices}.")
        if indices >= len(dataset) and getattr(dataset, "correlation", None) is None:
            return np.arange(len(dataset), dtype=np.int64)
        # The first training batch of that size: no image twice, unless the factors are correlated.
        return dataset.batch(int(indices), check_seed(seed), 0).cpu().numpy()
    if isinstance(indices, torch.Tensor):
        indices = indices.cpu().numpy()
    chosen = np.asarray(indices)
    if chosen.ndim != 1 or not len(chosen) or chosen.dtype.kind not in "iu":
        raise ValueError(f"indices must be None, a number, or whole numbers (n,); got shape {chosen.shape}.")
    return chosen.astype(np.int64)


def _probe(dataset: Any, chosen: np.ndarray) -> str:
    """A digest of a few of the images: data sets of one name may hold other images (a folder, a variant)."""
    some = np.unique(chosen[np.linspace(0, len(chosen) - 1, min(_PROBED_IMAGES, len(chosen))).astype(int)])
    return array_digest(to_numpy(dataset.images(torch.from_numpy(some))))


def _key(origin: Any) -> str:
    text = json.dumps([origin.weights_digest, origin.parameters], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _cached(entry: Path, origin: Any) -> Encoding | None:
    try:
        found = load_result(entry)
    except (OSError, ValueError):
        return None
    if not isinstance(found, Encoding):
        return None
    recorded = found.provenance
    same = (recorded.weights_digest, dict(recorded.parameters)) == (origin.weights_digest, origin.parameters)
    return found if same else None
