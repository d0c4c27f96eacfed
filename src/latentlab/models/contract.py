"""What every model is: the protocols that training, analysis, export and the app are written against."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from latentlab.latents import LatentSpace, Posterior
from latentlab.models.edits import Edit
from latentlab.models.staged import StageInfo


class Network(Protocol):
    """Named stages that can be run, read and edited: a StagedNetwork, or a foreign module adapted to be one."""

    name: str
    names: tuple[str, ...]

    @property
    def addresses(self) -> tuple[str, ...]:
        """The stages' names within the model, such as "generator.block2"."""
        ...

    def stage_name(self, address: str) -> str:
        """A stage's own name, from it or from its address."""
        ...

    def run(
        self, h: Any, edits: Iterable[Edit] = (), start: str | None = None, stop: str | None = None
    ) -> Any:
        """Runs the network, or a part of it, with edits."""
        ...

    def activations(
        self, h: Any, names: Iterable[str] | None = None, edits: Iterable[Edit] = ()
    ) -> dict[str, Tensor]:
        """The states of the named stages after the edits."""
        ...

    def describe(self, h: Any) -> list[StageInfo]:
        """What each stage is, and the shape of its state for the input ``h``."""
        ...

    def kinds(self) -> dict[str, str]:
        """What each stage is made of."""
        ...


@runtime_checkable
class GenerativeModel(Protocol):
    """Turns codes into images. Images are (batch, channels, height, width) in [0, 1]."""

    latent_space: LatentSpace
    image_shape: tuple[int, int, int]

    @property
    def generator(self) -> Network:
        """The network from codes to the parameters of the likelihood."""
        ...

    @property
    def spaces(self) -> dict[str, LatentSpace]:
        """Every space that has codes (Z; for style-based generators also W, W+), by name."""
        ...

    @property
    def networks(self) -> Mapping[str, Network]:
        """Every network that can be opened, by name: "generator", "encoder", "discriminator"."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """All weights: a model is an ``nn.Module``."""
        ...

    def map(self, z: Tensor, source: str, target: str) -> Tensor:
        """Carries codes from one space to another."""
        ...

    def likelihood(self, z: Tensor, edits: Iterable[Edit] = ()) -> Distribution:
        """p(x | z) for codes (batch, dim): a distribution over images."""
        ...

    def decode(self, z: Tensor, edits: Iterable[Edit] = ()) -> Tensor:
        """Images (batch, channels, height, width) in [0, 1] of codes (batch, dim)."""
        ...

    def sample_codes(self, n: int, seed: int) -> Tensor:
        """Codes (n, dim) drawn from the prior, which is the model's own where blocks depend on each other."""
        ...

    def sample(self, n: int, seed: int) -> Tensor:
        """Images of ``sample_codes(n, seed)``."""
        ...


@runtime_checkable
class InferenceModel(GenerativeModel, Protocol):
    """A generative model that also says which codes an image may come from."""

    @property
    def encoder(self) -> Network:
        """The network from images to the parameters of the posterior."""
        ...

    def encode(self, x: Tensor, edits: Iterable[Edit] = ()) -> Posterior:
        """q(z | x) for images (batch, channels, height, width) in [0, 1]: a distribution, never a bare mean."""
        ...


def is_inference_model(model: object) -> bool:
    """Whether the model can encode images."""
    return callable(getattr(model, "encode", None)) and getattr(model, "encoder", None) is not None


@dataclass
class ElboTerms:
    """The parts of the evidence lower bound of one batch, from which every variational objective is made.

    Attributes:
        x: images (batch, channels, height, width) in [0, 1].
        posterior: q(z | x).
        z: one draw of it (batch, dim).
        log_likelihood: log p(x | z), nats per image (batch,), summed over pixels and channels.
        kl: KL(q(z | x) || p(z)), nats (batch, dim), one column a coordinate.
        labels: integer factors (batch, factors) where the batch has them.
        others: the terms of further batches, for objectives that ask for more than one.
    """

    x: Tensor
    posterior: Posterior
    z: Tensor
    log_likelihood: Tensor
    kl: Tensor
    labels: Tensor | None = None
    others: tuple[ElboTerms, ...] = ()


def identity_text(model: GenerativeModel, **more: str) -> str:
    """What a model is apart from its weights, as one line: class, spaces, stages and what else is given."""
    networks = {
        name: [f"{stage}: {kind}" for stage, kind in network.kinds().items()]
        for name, network in model.networks.items()
    }
    spaces = [space.to_dict() for space in model.spaces.values()]
    return json.dumps([type(model).__name__, list(model.image_shape), spaces, networks, more], sort_keys=True)


_digests: WeakKeyDictionary = WeakKeyDictionary()


def weights_digest(module: nn.Module | GenerativeModel) -> str:
    """SHA-256 (hex) over a model's ``identity``, and names, shapes and bytes of all weights and buffers.

    Two models with equal weights but other blocks, activations or likelihood have other digests, so it can
    key every cache. Cached per module until a tensor is written to.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"Only a torch module has weights to digest; got {type(module).__name__}.")
    tensors = list(module.state_dict(keep_vars=True).items())
    state = tuple((name, t.data_ptr(), t._version) for name, t in tensors if not t.is_inference())
    cached = _digests.get(module)
    if cached and cached[0] == state and len(state) == len(tensors):
        return cached[1]
    digest = hashlib.sha256(str(getattr(module, "identity", type(module).__name__)).encode())
    for name, tensor in tensors:
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name}|{values.dtype}|{tuple(values.shape)}|".encode())
        digest.update(values.view(-1).view(torch.uint8).numpy().tobytes())
    _digests[module] = (state, digest.hexdigest())
    return digest.hexdigest()
