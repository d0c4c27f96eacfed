"""Feature spaces in which images are compared: small networks trained on the data set at hand, and Inception.

Features of a network trained on photographs say little about small synthetic images, so the stock space is a
network trained on the same data set as the model: to tell its factors where it has them, else to tell by how
much an image was turned. Each space has a name that says how it was made and goes into every score.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional

from latentlab.files import atomic_write
from latentlab.latents import UNORDERED, LatentSpace, Normal
from latentlab.metrics.fidelity import path_length
from latentlab.metrics.score import Score

if TYPE_CHECKING:
    from latentlab.data.factors import FactorDataset

BATCH_SIZE = 256
SPEC, WEIGHTS = "features.json", "weights.safetensors"
FORMAT = 1
KINDS = ("factors", "rotations", "random")
INCEPTION_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
_LARGEST_SPEC = 1_000_000
_LEAST_IMAGES = 50
_HELD_OUT = 2048
_TRAINING_BATCH = 64
_LEARNING_RATE = 6e-3
_WARM_UP = 50
ImageShape = tuple[int, int, int]
Progress = Callable[[int, int], object]


class FeatureSpace(Protocol):
    """What ``extract`` needs: a name for the protocol, and features (batch, dim) of images."""

    dim: int

    @property
    def name(self) -> str:
        """One line that says how the features come about."""
        ...

    @property
    def device(self) -> torch.device:
        """Where images must be."""
        ...

    def check(self, image_shape: ImageShape) -> None:
        """Refuses images of a shape it can't read."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Features (batch, dim) of images (batch, channels, height, width) in [0, 1]."""
        ...


class FeatureNetwork(nn.Module):
    """A small convolutional network whose last hidden layer is a feature space.

    4x4 convolutions of stride 2 down to a map of 4 or fewer pixels a side, then one linear layer to the features;
    a head on their positive part classifies. Where it was trained, each feature is shifted and scaled to mean 0
    and standard deviation 1 over images of the data set, so that distances of different networks are at least
    of one unit.

    Args:
        image_shape: (channels, height, width).
        heads: {what is classified: how many classes}; empty for a network that was not trained.
        kind: "factors", "rotations" or "random".
        dataset: name of the data set it was trained on.
        steps: training steps.
        seed: decides its weights.
        accuracy: {head: share of held-out images classified right}, in [0, 1].
        dim: number of features.
        width: channels of the first convolutions.

    Raises:
        ValueError: if a part of that is out of range.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        heads: Mapping[str, int] | None = None,
        *,
        kind: str = "random",
        dataset: str = "",
        steps: int = 0,
        seed: int = 0,
        accuracy: Mapping[str, float] | None = None,
        dim: int = 64,
        width: int = 16,
    ) -> None:
        super().__init__()
        self.image_shape = _checked_shape(image_shape)
        self.heads = dict(heads or {})
        self.kind, self.dataset, self.steps, self.seed = kind, dataset, steps, seed
        self.accuracy = dict(accuracy or {})
        self.dim, self.width = dim, width
        if kind not in KINDS or (kind == "random") != (not self.heads):
            raise ValueError(f"A feature network is trained on one of {KINDS[:2]}, or random; got {kind!r}.")
        if not (1 <= dim <= 4096 and 1 <= width <= 512 and sum(self.heads.values()) <= 100_000):
            raise ValueError(f"No feature network has {dim} features, {width} channels and such heads.")
        # Made without memory, then filled by a generator of its own: the global one is not moved.
        layers: list[nn.Module] = []
        channels, height, columns = self.image_shape
        while min(height, columns) > 4:
            outputs = min(width * 2 ** (len(layers) // 4), 4 * width)
            layers += [nn.Conv2d(channels, outputs, 4, stride=2, padding=1, device="meta"), nn.ReLU()]
            channels, height, columns = outputs, height // 2, columns // 2
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.features = nn.Linear(channels * height * columns, dim, device="meta")
        self.head = nn.Linear(dim, max(1, sum(self.heads.values())), device="meta")
        self.to_empty(device="cpu")
        generator = torch.Generator().manual_seed(seed)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.centre: Tensor
        self.scale: Tensor
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    @property
    def name(self) -> str:
        """One line that says how the features come about, for protocols and cards."""
        if self.kind == "random":
            return f"{self.dim} features of a random network (seed {self.seed})"
        task = (
            f"on the factors of {self.dataset}"
            if self.kind == "factors"
            else f"to tell rotations of {self.dataset}"
        )
        how = f"({self.steps} steps, seed {self.seed})"
        reached = sum(self.accuracy.values()) / max(1, len(self.accuracy))
        return f"{self.dim} features of a network trained {task} {how}, accuracy {reached:.2f}"

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.centre.device

    def check(self, image_shape: ImageShape) -> None:
        """Refuses images of another shape.

        Raises:
            ValueError: naming both shapes.
        """
        if tuple(image_shape) != self.image_shape:
            raise ValueError(
                f"These features are of images {self.image_shape}; got images {tuple(image_shape)}."
            )

    def forward(self, x: Tensor) -> Tensor:
        """Features (batch, dim) of images (batch, channels, height, width) in [0, 1]."""
        return (self._raw(x) - self.centre) / self.scale

    def logits(self, x: Tensor) -> dict[str, Tensor]:
        """What the heads say of images: {head: (batch, classes)}."""
        parts = self.head(self._raw(x).relu()).split(list(self.heads.values()), dim=1)
        return dict(zip(self.heads, parts, strict=True))

    def standardise(self, images: Iterator[Tensor]) -> None:
        """Shifts and scales the features to mean 0 and standard deviation 1 over batches of images."""
        with torch.inference_mode():
            raw = torch.cat([self._raw(x) for x in images]).double()
        spread = raw.std(dim=0, correction=0)
        self.centre = raw.mean(dim=0).float().clone()
        # A feature that never changes is left as it is.
        self.scale = torch.where(spread > 1e-6, spread, 1.0).float().clone()

    def _raw(self, x: Tensor) -> Tensor:
        return self.features(self.body(x))


def random_feature_network(image_shape: ImageShape, seed: int = 0, *, images: Any = None) -> FeatureNetwork:
    """A feature network that was not trained: it costs nothing, and random features tell gross faults apart.

    Args:
        image_shape: (channels, height, width).
        seed: decides its weights.
        images: images (n, channels, height, width) in [0, 1] over which its features are standardised.

    Raises:
        ValueError: if shape or images are out of range.
    """
    network = FeatureNetwork(image_shape, seed=_whole("seed", seed, 0)).eval().requires_grad_(False)
    if images is not None:
        network.standardise(iter(_checked_images(network, images).cpu().split(BATCH_SIZE)))
    return network


def train_feature_network(
    dataset: FactorDataset,
    steps: int = 3000,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> FeatureNetwork:
    """Trains a feature network on a data set: on its factors or labels, or on rotations where it has none.

    With factors, one head a factor of two or more values classifies it; without, the network tells by how many
    quarter turns (half turns, for images that are not square) an image was turned. A tenth of the images, 2,048
    at most, is held out for the accuracy. Images are drawn evenly, also where the data set's factors are
    correlated. The default takes one to two minutes for 64x64 images on one CPU core.

    Args:
        dataset: the images.
        steps: training steps of 64 images.
        seed: decides the weights, the batches and the held-out images; on the CPU the same network comes out.
        device: where to train; the network stays there.
        progress: called with (steps done, steps in all); it may raise to cancel.

    Returns:
        The network in eval mode, its parameters frozen.

    Raises:
        ValueError: if the data set has fewer than 50 images, or an argument is out of range.

    References:
        Unsupervised representation learning by predicting image rotations (Gidaris, Singh and Komodakis, 2018),
        https://arxiv.org/abs/1803.07728
    """
    steps, seed = _whole("steps", steps, 1), _whole("seed", seed, 0)
    if len(dataset) < _LEAST_IMAGES:
        raise ValueError(
            f"A feature network needs at least {_LEAST_IMAGES} images; {dataset.name} has {len(dataset)}."
        )
    try:
        where = torch.device(device)
    except RuntimeError:
        raise ValueError(f"Unknown device {device!r}; use cpu, cuda or cuda:0.") from None
    space = dataset.factor_space
    sizes = {} if space is None else dict(zip(space.names, space.sizes, strict=True))
    told = {name: size for name, size in sizes.items() if size > 1}
    columns = [list(sizes).index(name) for name in told]
    square = dataset.image_shape[1] == dataset.image_shape[2]
    turns = (0, 1, 2, 3) if square else (0, 2)
    network = FeatureNetwork(
        dataset.image_shape,
        told or {"rotation": len(turns)},
        kind="factors" if told else "rotations",
        dataset=dataset.name,
        steps=steps,
        seed=seed,
    ).to(where)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(dataset))
    held, shown = np.split(order, [min(_HELD_OUT, max(1, len(order) // 10))])

    def batch(indices: np.ndarray, chance: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Images and their classes, (batch, heads)."""
        rows = torch.from_numpy(indices)
        x = dataset.images(rows, device=where)
        if told:
            return x, dataset.factors(rows)[:, columns].to(where)
        chosen = torch.from_numpy(chance.integers(len(turns), size=len(indices)))
        turned = [torch.rot90(x[i], turns[int(turn)], (1, 2)) for i, turn in enumerate(chosen)]
        return torch.stack(turned), chosen[:, None].to(where)

    optimiser = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
    # Gradients also where the caller has switched them off.
    with torch.inference_mode(False), torch.enable_grad():
        for step in range(steps):
            rate = min(1.0, (step + 1) / _WARM_UP) * 0.5 * (1.0 + math.cos(math.pi * step / steps))
            optimiser.param_groups[0]["lr"] = _LEARNING_RATE * rate
            x, classes = batch(shown[rng.integers(len(shown), size=_TRAINING_BATCH)], rng)
            losses = [
                functional.cross_entropy(logits, classes[:, i])
                for i, logits in enumerate(network.logits(x).values())
            ]
            optimiser.zero_grad()
            torch.stack(losses).mean().backward()
            optimiser.step()
            if progress is not None:
                progress(step + 1, steps)
    network.eval().requires_grad_(False)
    right = torch.zeros(len(network.heads), dtype=torch.float64)
    with torch.inference_mode():
        for start in range(0, len(held), BATCH_SIZE):
            x, classes = batch(held[start : start + BATCH_SIZE], rng)
            for i, logits in enumerate(network.logits(x).values()):
                right[i] += float((logits.argmax(dim=1) == classes[:, i]).sum())
    shares = (right / len(held)).tolist()
    network.accuracy = dict(zip(network.heads, shares, strict=True))
    # Over images as they are, neither turned nor held out alone: few images make a poor scale.
    some = order[:_HELD_OUT]
    network.standardise(
        dataset.images(torch.from_numpy(some[start : start + BATCH_SIZE]), device=where)
        for start in range(0, len(some), BATCH_SIZE)
    )
    if not all(bool(torch.isfinite(tensor).all()) for tensor in network.state_dict().values()):
        raise ValueError(f"The feature network of {dataset.name} did not train: its weights are not finite.")
    return network


def extract(network: FeatureSpace, images: Any, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
    """Features of images.

    Args:
        network: a feature network, or ``inception_network()``.
        images: (n, channels, height, width) in [0, 1], numpy or torch.
        batch_size: images read at a time.

    Returns:
        Float32 (n, dim).

    Raises:
        ValueError: if the images don't fit the network, or are not in [0, 1].
    """
    x = _checked_images(network, images)
    with _evaluation(network):
        parts = [network(part.to(network.device)) for part in x.split(_whole("batch_size", batch_size, 1))]
        return torch.cat(parts).float().cpu().numpy()


def dataset_features(
    network: FeatureSpace,
    dataset: FactorDataset,
    n: int,
    seed: int = 0,
    *,
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
) -> np.ndarray:
    """Features of n images of a data set, none twice (unless its factors are correlated); all, if it has fewer.

    Returns:
        Float32 (min(n, images), dim).

    Raises:
        ValueError: if the images don't fit the network, or n is below 1.
    """
    network.check(dataset.image_shape)
    indices = dataset.batch(min(_whole("n", n, 1), len(dataset)), seed, 0)
    parts = []
    for rows in indices.split(_whole("batch_size", batch_size, 1)):
        parts.append(extract(network, dataset.images(rows), batch_size=batch_size))
        if progress is not None:
            progress(sum(map(len, parts)), len(indices))
    return np.concatenate(parts)


def generated_features(
    network: FeatureSpace,
    model: Any,
    n: int,
    seed: int = 0,
    *,
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
) -> np.ndarray:
    """Features of n images that a model generates: decoded codes of its prior.

    Returns:
        Float32 (n, dim).

    Raises:
        ValueError: if the images don't fit the network, or n is below 1.
    """
    network.check(model.image_shape)
    codes = model.sample_codes(_whole("n", n, 1), _whole("seed", seed, 0))
    return _features_of_codes(network, model, codes, batch_size, progress)


def path_features(
    network: FeatureSpace,
    model: Any,
    n: int,
    epsilon: float = 1e-4,
    seed: int = 0,
    *,
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Features at n places on paths between codes of the prior, and a step ``epsilon`` further along them.

    A path joins two draws from the prior; the place on it is uniform. Coordinates of normal blocks move on the
    great circle (slerp), so that they keep a typical length on the way; other continuous ones on a straight
    line (lerp). Categorical blocks stay those of the first code, since between two categories there is none.

    Returns:
        Two float32 arrays (n, dim), for ``path_length``.

    Raises:
        ValueError: if the images don't fit the network, every block is categorical, or an argument is out of
            range.

    References:
        Slerp: Animating rotation with quaternion curves (Shoemake, 1985).
    """
    network.check(model.image_shape)
    if not 0 < epsilon <= 0.1:
        raise ValueError(f"epsilon must be a share of a path in (0, 0.1]; got {epsilon!r}.")
    n = _whole("n", n, 1)
    ends = model.sample_codes(2 * n, _whole("seed", seed, 0)).detach()
    a, b = ends.cpu().double().split(n)
    t = torch.from_numpy(np.random.default_rng(seed).random((n, 1)))
    sides = []
    for k, place in enumerate((t, t + epsilon)):
        codes = between(model.latent_space, a, b, place).to(ends)
        done = _offset(progress, k * n, 2 * n)
        sides.append(_features_of_codes(network, model, codes, batch_size, done))
    return sides[0], sides[1]


def perceptual_path_length(
    model: Any,
    network: FeatureSpace,
    n: int = 2000,
    epsilon: float = 1e-4,
    seed: int = 0,
    *,
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
) -> Score:
    """How fast the features of generated images change along latent paths; see ``path_length``.

    Args:
        model: a generative model.
        network: the feature space; not Inception, which reads rounded images, so that small steps vanish.
        n: number of paths.
        epsilon: the step, as a share of a path.
        seed: decides paths and places.
        batch_size: codes decoded at a time.
        progress: called with (images done, images in all); it may raise to cancel.

    Raises:
        ValueError: as ``path_features`` and ``path_length`` say, or if the space is Inception's.
    """
    if isinstance(network, InceptionNetwork):
        raise ValueError(
            "Inception reads images rounded to 8 bits, which hides small steps; "
            "measure path lengths in the space of a feature network."
        )
    a, b = path_features(network, model, n, epsilon, seed, batch_size=batch_size, progress=progress)
    score = path_length(a, b, epsilon, features=network.name)
    return dataclasses.replace(
        score, protocol={**score.protocol, "paths": "prior to prior, full", "seed": seed}
    )


def between(space: LatentSpace, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Codes on the paths of ``path_features``.

    Args:
        space: the latent space.
        a: codes (n, dim) where the paths start.
        b: codes (n, dim) where they end.
        t: places (n, 1), from 0 to 1.

    Returns:
        Codes (n, dim).

    Raises:
        ValueError: if every block is categorical.
    """
    z = (1.0 - t) * a + t * b
    kinds = [(space.slice(block.name), block.prior) for block in space.blocks]
    if all(isinstance(prior, UNORDERED) for _, prior in kinds):
        raise ValueError("Categories have no path between them; this space has categorical blocks only.")
    normal = torch.zeros(space.dim, dtype=torch.bool)
    for where, prior in kinds:
        normal[where] = isinstance(prior, Normal)
        if isinstance(prior, UNORDERED):
            z[:, where] = a[:, where]
    if int(normal.sum()) > 1:  # a single coordinate has no circle
        from_, to = a[:, normal], b[:, normal]
        cosine = functional.cosine_similarity(from_, to, dim=1)[:, None].clamp(-1.0, 1.0)
        angle = torch.arccos(cosine)
        round_ = (torch.sin((1.0 - t) * angle) * from_ + torch.sin(t * angle) * to) / torch.sin(angle)
        # Between equal or opposite directions the circle is not defined; there the line stands.
        z[:, normal] = torch.where((angle > 1e-6) & (angle < math.pi - 1e-6), round_, z[:, normal])
    return z


def save_feature_network(network: FeatureNetwork, path: str | Path) -> None:
    """Writes a feature network to a folder: ``features.json`` and ``weights.safetensors``.

    The description is written last and holds the digest of the weights, so that a folder written by halves is
    refused when it is loaded.

    Raises:
        OSError: if the folder can't be written.
    """
    folder = Path(path).expanduser()
    data = save({key: t.detach().cpu().contiguous() for key, t in network.state_dict().items()})
    spec = {
        "format": FORMAT,
        "image_shape": list(network.image_shape),
        "heads": network.heads,
        "kind": network.kind,
        "dataset": network.dataset,
        "steps": network.steps,
        "seed": network.seed,
        "accuracy": network.accuracy,
        "dim": network.dim,
        "width": network.width,
        "name": network.name,
        "weights_sha256": hashlib.sha256(data).hexdigest(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / WEIGHTS) as file:
            file.write(data)
        with atomic_write(folder / SPEC, "w") as file:
            json.dump(spec, file, indent=1)
    except OSError as error:
        raise OSError(
            f"The feature network can't be written to {folder}: {error.strerror or error}."
        ) from None


def load_feature_network(path: str | Path, device: str | torch.device = "cpu") -> FeatureNetwork:
    """Reads a feature network that ``save_feature_network`` wrote; nothing in it is executed.

    Raises:
        OSError: if there is none.
        ValueError: if its files are damaged, of another format, or don't belong together.
    """
    folder = Path(path).expanduser()
    if not (folder / SPEC).is_file() or not (folder / WEIGHTS).is_file():
        raise OSError(
            f"No feature network at {folder}: it is a folder with {SPEC} and {WEIGHTS} in it; train one first."
        )
    spec = _read_spec(folder / SPEC)
    try:
        network = FeatureNetwork(
            spec["image_shape"], spec["heads"], accuracy=spec["accuracy"], **_plain_parts(spec)
        )
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ValueError(f"{folder / SPEC} describes no feature network: {error}") from None
    data = (folder / WEIGHTS).read_bytes()
    if hashlib.sha256(data).hexdigest() != spec.get("weights_sha256"):
        raise ValueError(
            f"{folder / WEIGHTS} is damaged, or not the weights that {SPEC} describes; train the network anew."
        )
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise ValueError(f"{folder / WEIGHTS} is no safetensors file ({error}).") from None
    own = network.state_dict()
    for key in sorted(set(own) | set(tensors)):
        found = tensors.get(key)
        if key not in own or found is None:
            state = "missing" if key in own else "unexpected"
            raise ValueError(f"{folder / WEIGHTS} does not fit its description: tensor {key!r} is {state}.")
        if found.shape != own[key].shape or found.dtype != own[key].dtype:
            raise ValueError(
                f"{folder / WEIGHTS} does not fit its description: tensor {key!r} should be {own[key].dtype} "
                f"{tuple(own[key].shape)}; got {found.dtype} {tuple(found.shape)}."
            )
        if not bool(torch.isfinite(found).all()):
            raise ValueError(f"{folder / WEIGHTS} can't be used: {key!r} holds numbers that are not finite.")
    network.load_state_dict(tensors)
    return network.to(device).eval().requires_grad_(False)


class InceptionNetwork:
    """The Inception-v3 of the published FIDs as a feature space; made by ``inception_network``.

    It reads images rounded to 8 bits, grey ones repeated to three channels, and resizes them to 299x299 by
    itself, as the reference does.
    """

    dim = 2048

    def __init__(self, network: nn.Module, digest: str, device: torch.device) -> None:
        self._network = network.to(device)
        self.device = device
        self.name = f"2048 features of Inception-v3 trained on ImageNet (weights {digest[:8]})"

    def check(self, image_shape: ImageShape) -> None:
        """Refuses images that are neither grey nor RGB.

        Raises:
            ValueError: naming the channels.
        """
        if image_shape[0] not in (1, 3):
            raise ValueError(f"Inception reads grey or RGB images; got {image_shape[0]} channels.")

    def __call__(self, x: Tensor) -> Tensor:
        """Features (batch, 2048) of images (batch, 1 or 3, height, width) in [0, 1]."""
        (features,) = self._network((x * 255.0).round().to(torch.uint8).expand(-1, 3, -1, -1))
        return features


def inception_network(
    weights: str | Path | None = None, device: str | torch.device = "cpu"
) -> InceptionNetwork:
    """The feature space of the published FIDs, through torch-fidelity; nothing is downloaded.

    Args:
        weights: the weights' file; default where torch keeps downloads.
        device: where to compute.

    Raises:
        ImportError: if torch-fidelity is not installed.
        OSError: if the weights are not on this machine.
        ValueError: if the file is damaged, or would execute code.

    References:
        GANs trained by a two time-scale update rule converge to a local Nash equilibrium (Heusel et al., 2017),
        https://arxiv.org/abs/1706.08500
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import (  # pyright: ignore[reportMissingImports]
            FeatureExtractorInceptionV3,
        )
    except ImportError:
        raise ImportError(
            "Inception features need the package torch-fidelity, which is not installed: "
            "pip install torch-fidelity; or use a feature network trained on the data set."
        ) from None
    path = Path(weights or Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_WEIGHTS).expanduser()
    if not path.is_file():
        raise OSError(
            f"No Inception weights at {path}: put {INCEPTION_WEIGHTS} of github.com/toshas/torch-fidelity "
            "(release v0.2.0) there, or give the file as weights=PATH."
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        # torch-fidelity unpickles whatever it is given, so it gets a file written here from what was read safely.
        with tempfile.TemporaryDirectory() as folder:
            torch.save(state, Path(folder) / INCEPTION_WEIGHTS)
            network = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], str(Path(folder) / INCEPTION_WEIGHTS)
            )
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{path} holds no Inception weights of torch-fidelity ({reason}).") from None
    return InceptionNetwork(network, digest, torch.device(device))


def inception_features(
    images: Any,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    *,
    batch_size: int = 64,
) -> np.ndarray:
    """Features of ``inception_network`` of images (n, 1 or 3, height, width) in [0, 1], float32 (n, 2048).

    Raises:
        ImportError, OSError, ValueError: as ``inception_network`` and ``extract`` say.
    """
    return extract(inception_network(weights, device), images, batch_size=batch_size)


@contextmanager
def _evaluation(*modules: object) -> Iterator[None]:
    """Eval mode without gradients; modules found training are put back."""
    training = [m for top in modules if isinstance(top, nn.Module) for m in top.modules() if m.training]
    try:
        for module in training:
            module.training = False
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True


def _features_of_codes(
    network: FeatureSpace, model: Any, codes: Tensor, batch_size: int, progress: Progress | None
) -> np.ndarray:
    device = next((tensor.device for tensor in model.parameters()), codes.device)
    parts = []
    for z in codes.to(device).split(_whole("batch_size", batch_size, 1)):
        with _evaluation(model):
            images = model.decode(z)
        parts.append(extract(network, images, batch_size=batch_size))
        if progress is not None:
            progress(sum(map(len, parts)), len(codes))
    return np.concatenate(parts)


def _offset(progress: Progress | None, done: int, total: int) -> Progress | None:
    return None if progress is None else lambda i, _: progress(done + i, total)


def _checked_images(network: FeatureSpace, images: Any) -> Tensor:
    """Images as a float32 tensor, where they are if they are one."""
    if isinstance(images, Tensor):
        x, fits = images.detach(), images.is_floating_point()
    else:
        # A copy, since arrays of results are read-only and torch has no such thing.
        array = np.asarray(images)
        x, fits = torch.from_numpy(np.array(array, dtype=np.float32)), array.dtype.kind == "f"
    if x.ndim != 4 or not x.numel() or not fits:
        kind = images.dtype if hasattr(images, "dtype") else type(images).__name__
        raise ValueError(
            f"images must be floats (n, channels, height, width) in [0, 1]; got {kind} {tuple(x.shape)}."
        )
    network.check((x.shape[1], x.shape[2], x.shape[3]))
    if not bool(((x >= 0) & (x <= 1)).all()):
        raise ValueError("images must be in [0, 1]; got NaN or values outside.")
    return x.float()


def _checked_shape(shape: Any) -> ImageShape:
    parts = tuple(shape)
    fits = len(parts) == 3 and all(type(size) is int for size in parts)
    if not fits or not (1 <= parts[0] <= 64 and all(8 <= side <= 512 for side in parts[1:])):
        raise ValueError(
            f"image_shape must be (channels, height, width), the sides in 8..512; got {parts!r}."
        )
    return parts[0], parts[1], parts[2]


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}; got {value!r}.")
    return int(value)


def _read_spec(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _LARGEST_SPEC:
        raise ValueError(f"{path} should be a small description; it has {path.stat().st_size:,} bytes.")
    try:
        spec = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: it is no JSON ({error}).") from None
    found = spec.get("format") if isinstance(spec, dict) else type(spec).__name__
    if not isinstance(spec, dict) or type(found) is not int or found != FORMAT:
        raise ValueError(f"{path} must describe a feature network of format {FORMAT}; got {found!r}.")
    return spec


def _plain_parts(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a description that are plain values, each of its type."""
    kinds = {"kind": str, "dataset": str, "steps": int, "seed": int, "dim": int, "width": int}
    for key, kind in kinds.items():
        value = spec[key]
        if type(value) is not kind or (kind is str and len(value) > 200) or (kind is int and value < 0):
            raise ValueError(f"{key} is {value!r}.")
    for key, kind, low in (("heads", int, 1), ("accuracy", float, 0)):
        table = spec[key]
        if not isinstance(table, dict) or not all(
            type(v) in (kind, int) and low <= v < 100_000 for v in table.values()
        ):
            raise ValueError(f"{key} is {str(table)[:80]}.")
    return {key: spec[key] for key in kinds}
