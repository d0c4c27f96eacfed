"""Scoring what a run generates and how well it reconstructs, for any images, with or without factors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from latentlab.latents import UNORDERED
from latentlab.metrics.collapse import active_units, posterior_collapse, reconstruction_error
from latentlab.metrics.fidelity import density_coverage, frechet_distance, kernel_distance, precision_recall
from latentlab.metrics.report import Report, row_of_seeds, versions
from latentlab.runs import Run, Workspace

if TYPE_CHECKING:
    from latentlab.data.factors import FactorDataset
    from latentlab.metrics.features import FeatureSpace

PROTOCOL = "images"
SUMMARY = (
    "reconstruction, collapse of the posteriors (a unit is active where its means have a variance above 0.01), and "
    "generated images against data in the features named below"
)
IMAGES = 2000
_FEATURES = "features"
_NEIGHBOURS = {"precision and recall": 3, "density and coverage": 5}
_KID_SUBSET = 500
Progress = Callable[[float, str], object]


def evaluate_images(
    run: Run,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    images: int = IMAGES,
    references: bool = True,
    inception: str | Path | None = None,
    workspace: Workspace | None = None,
    progress: Progress | None = None,
) -> Report:
    """Scores a run's reconstructions, posteriors and generated images.

    Fidelity is measured in the features of a small network trained on the run's own data set, which is made at
    the first call (one to two minutes) and kept with the run; Inception's features mean nothing for sprites or
    digits, and its weights must come from the user.

    Args:
        run: any run; without an encoder only what it generates is scored.
        seeds: one draw of images and codes for each; their spread is the interval.
        images: images and samples of a draw; half the data set at most.
        references: also score noise images and the data against other data.
        inception: file of Inception weights, to measure in its features instead.
        workspace: keeps the feature network of a shipped run.
        progress: called with (share done in [0, 1], what is being done); it may raise to cancel.

    Raises:
        ValueError: on too few images, or Inception weights that can't be used.
        OSError: if the data are not on this machine.
    """
    from latentlab.metrics import features

    seeds = tuple(int(s) for s in seeds)
    if not seeds:
        raise ValueError("seeds must hold at least one seed.")
    model, dataset = run.model, run.dataset()
    count = min(images, len(dataset) // 2)
    if count < 100:
        raise ValueError(
            f"{count} images are too few to compare distributions; give at least 100 and twice as many in the data."
        )

    def tell(share: float, doing: str) -> None:
        if progress is not None:
            progress(share, doing)

    space: FeatureSpace
    if inception is not None:
        space = features.inception_network(inception, features_device(model))
    else:
        space = feature_network(run, dataset, workspace, lambda share, doing: tell(0.4 * share, doing))
    rows: dict[str, list[float]] = {}
    marks: dict[str, dict[str, float]] = {}
    rising: dict[str, bool] = {}

    def add(label: str, value: float, higher: bool, mark: str | None = None) -> None:
        rising[label] = higher
        if mark is None:
            rows.setdefault(label, []).append(value)
        else:
            marks.setdefault(label, {})[mark] = value

    for number, seed in enumerate(seeds):
        share = 0.4 + 0.6 * number / len(seeds)
        tell(share, f"reconstructions, seed {seed}")
        _posteriors(model, dataset, count, seed, references and number == 0, add)
        tell(share + 0.2 / len(seeds), f"samples, seed {seed}")
        both = features.dataset_features(space, dataset, 2 * count, seed)
        real, other = both[:count], both[count:]
        generated = features.generated_features(space, model, len(real), seed)
        _compare(real, generated, space.name, seed, add, None)
        ordered = any(not isinstance(block.prior, UNORDERED) for block in model.latent_space.blocks)
        if inception is None and ordered:  # between categories or indices there is no path to measure
            path = features.perceptual_path_length(model, space, n=min(count, 1000), seed=seed)
            add("Perceptual path length", path.value, False)
        if references and number == 0:
            _compare(real, other, space.name, seed, add, "perfect")
            rng = np.random.default_rng([seed, 7])
            noise = rng.random((len(real), *dataset.image_shape), dtype=np.float32)
            _compare(real, features.extract(space, noise), space.name, seed, add, "noise")
    tell(1.0, "done")
    done = [
        row_of_seeds(label, PROTOCOL, values, marks.get(label, {}), rising[label])
        for label, values in rows.items()
    ]
    names = tuple(model.latent_space.names)
    empty = np.zeros((len(names), 0))
    return Report(
        protocol=PROTOCOL,
        summary=SUMMARY,
        rows=tuple(done),
        dim_names=names,
        factor_names=(),
        factor_sizes=(),
        information=empty,
        entropies=np.zeros(0),
        information_floor=np.zeros(0),
        importance=None,
        seeds=seeds,
        states=len(dataset),
        points={"train": count, "test": count},
        notes=(f"features: {space.name}",),
        dataset=dataset.name,
        subject=run.name,
        weights_digest=run.digest,
        versions={**versions(), "torch": torch.__version__},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def features_device(model: Any) -> torch.device:
    """Where a model's parameters lie."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def feature_network(
    run: Run, dataset: FactorDataset, workspace: Workspace | None = None, progress: Progress | None = None
) -> FeatureSpace:
    """The run's feature network: read from the run, or trained on its data set and kept there.

    That of a shipped run is kept in the workspace; without one it is trained anew at each call.
    """
    from latentlab.metrics import features

    folder: Path | None = run.path / _FEATURES
    if run.name.startswith("zoo:"):
        folder = None if workspace is None else workspace.cache(run.digest, _FEATURES, "")
    device = features_device(run.model)
    if folder is not None and folder.is_dir():
        try:
            return features.load_feature_network(folder, device)
        except (OSError, ValueError):
            pass  # a damaged one is made again
    network = features.train_feature_network(
        dataset,
        device=device,
        progress=None
        if progress is None
        else lambda done, whole: progress(done / whole, "training the feature network"),
    )
    if folder is not None:
        try:
            features.save_feature_network(network, folder)
        except OSError:
            pass  # a read-only folder costs only the wait next time
    return network


def _posteriors(
    model: Any, dataset: FactorDataset, count: int, seed: int, mark: bool, add: Callable[..., None]
) -> None:
    from latentlab.analysis import encode_dataset
    from latentlab.models.contract import is_inference_model

    if not is_inference_model(model):
        return
    encoding = encode_dataset(model, dataset, count, seed=seed, reconstruction=True)
    assert encoding.reconstruction_error is not None
    add("Reconstruction error (mean square per pixel)", float(encoding.reconstruction_error.mean()), False)
    add("KL (nats per image)", float(encoding.kl_per_dim.sum()), True)
    # A category is one variable: only the sum of its columns is a KL.
    variables = np.array(model.latent_space.variables)
    add("Active units", active_units(encoding.mean, variables=variables).value, True)
    kl = np.stack([encoding.kl[:, variables == v].sum(1) for v in np.unique(variables)], 1)
    add("Collapsed share of the latents", posterior_collapse(kl).value, False)
    if mark:
        x = dataset.images(torch.tensor(encoding.indices))
        mean = x.mean(dim=0, keepdim=True).expand_as(x)
        blind = reconstruction_error(x.cpu().numpy(), mean.cpu().numpy()).value
        add("Reconstruction error (mean square per pixel)", blind, False, "noise")
        add("Reconstruction error (mean square per pixel)", 0.0, False, "perfect")


def _compare(
    real: np.ndarray, other: np.ndarray, name: str, seed: int, add: Callable[..., None], mark: str | None
) -> None:
    n = min(len(real), len(other))
    frechet = frechet_distance(real, other, features=name)
    kernel = kernel_distance(
        real, other, subsets=50, subset_size=min(_KID_SUBSET, n), seed=seed, features=name
    )
    near = precision_recall(real, other, k=_NEIGHBOURS["precision and recall"], features=name)
    dense = density_coverage(real, other, k=_NEIGHBOURS["density and coverage"], features=name)
    add("Fréchet distance", frechet.value, False, mark)
    add("Kernel distance", kernel.value, False, mark)
    add("Precision", near.value, True, mark)
    add("Recall", float(near.details["recall"]), True, mark)
    add("Density", dense.value, True, mark)
    add("Coverage", float(dense.details["coverage"]), True, mark)
