"""What every model is: the protocols that training, analysis, export and the app are written against."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard, runtime_checkable

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
    """Turns codes into images. Images are (batch, channels, height, width) in [0, 1].

    A model whose generator reads codes of another space than ``latent_space`` says so in ``input_spaces``, {network:
    name of the space}.
    """

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

    def decode(self, z: Tensor, edits: Iterable[Edit] = (), space: str | None = None) -> Tensor:
        """Images (batch, channels, height, width) in [0, 1] of codes (batch, dim) of the space of that name.

        Without a name they belong to ``latent_space``; a name need only be understood where there are more.
        """
        ...

    def sample_codes(self, n: int, seed: int) -> Tensor:
        """Codes (n, dim) drawn from the prior, which is the model's own where blocks depend on each other."""
        ...

    def sample(self, n: int, seed: int) -> Tensor:
        """Images of ``sample_codes(n, seed)``."""
        ...


class InferenceModel(GenerativeModel, Protocol):
    """A generative model that also says which codes an image may come from.

    ``is_inference_model`` tells whether a model is one: a model may have the methods and no encoder behind them,
    which ``isinstance`` could not see.
    """

    @property
    def encoder(self) -> Network:
        """The network from images to the parameters of the posterior."""
        ...

    def encode(self, x: Tensor, edits: Iterable[Edit] = ()) -> Posterior:
        """q(z | x) for images (batch, channels, height, width) in [0, 1]: a distribution, never a bare mean."""
        ...


def space_of(model: GenerativeModel, name: str | None = None) -> LatentSpace:
    """The space of that name in a model, its own ``latent_space`` for None.

    Raises:
        ValueError: if it has no such space; the message lists those it has.
    """
    if name is None:
        return model.latent_space
    if name not in model.spaces:
        raise ValueError(f"No space {name!r} in this model; it has {', '.join(model.spaces)}.")
    return model.spaces[name]


def is_inference_model(model: object) -> TypeGuard[InferenceModel]:
    """Whether the model can encode images: it has the methods, and an encoder behind them."""
    return callable(getattr(model, "encode", None)) and getattr(model, "encoder", None) is not None


@dataclass(frozen=True)
class TermsRequest:
    """What an objective asks of one batch of a step; a model's ``elbo_terms`` fulfils it.

    Args:
        kind: how the batch is drawn: "independent" of the step's other batches, or "pair": image i is the partner of
            image i of the first batch, with which it shares all factors but some.
        decode: whether the images are decoded. Without it there is no reconstruction and nothing is paid for one.
        samples: draws of z an image, at least 1.
        labels: the share of the data set's images, 0 to 1, whose ground-truth factors may be read.
        gradient: whether a gradient is wanted of its terms. Without it no graph is kept of the batch's forward.
        changed: of a pair, how many factors change, drawn at random; None draws the number too.
        changing: of a pair, the names of the factors that change, in place of a draw.
        mirrored: of a pair, whether the second half of the batch changes the factors that ``changing`` does not name.

    Raises:
        ValueError: on samples or labels out of range, or on changes in a batch that is no pair.
    """

    kind: str = "independent"
    decode: bool = True
    samples: int = 1
    labels: float = 0.0
    gradient: bool = True
    changed: int | None = None
    changing: tuple[str, ...] | None = None
    mirrored: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.samples, int) or self.samples < 1:
            raise ValueError(f"A batch needs at least 1 draw of z an image; got samples={self.samples!r}.")
        if not 0.0 <= self.labels <= 1.0:
            raise ValueError(f"labels is a share of the images, 0 to 1; got {self.labels!r}.")
        if self.kind != "pair" and (self.changed is not None or self.changing is not None):
            raise ValueError(
                f"Only the images of a pair change factors; this batch is of kind {self.kind!r}."
            )


ONE_DRAW = TermsRequest()
"""One decoded draw an image and no labels: what the evidence lower bound itself needs."""


@dataclass
class ElboTerms:
    """The parts of the evidence lower bound of one batch, from which every variational objective is made.

    Attributes:
        x: images (batch, channels, height, width) in [0, 1].
        posterior: q(z | x).
        z: draws of it: (batch, dim), or (samples, batch, dim) where several were asked for.
        log_likelihood: log p(x | z), nats per image, summed over pixels and channels: (batch,), or
            (samples, batch); None where the batch was not to be decoded.
        kl: KL(q(z | x) || p(z)), nats (batch, dim), one column a coordinate.
        labels: integer factors (batch, factors), a row of -1 for an image without labels; None where none
            were asked for.
        extra: further terms of the model by name, nats per image (batch,), such as a codebook's commitment.
            They belong to the bound: every objective adds those of the first batch that it does not take over.
        others: the terms of further batches, for objectives that ask for more than one.
    """

    x: Tensor
    posterior: Posterior
    z: Tensor
    log_likelihood: Tensor | None
    kl: Tensor
    labels: Tensor | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    others: tuple[ElboTerms, ...] = ()

    @property
    def reconstruction(self) -> Tensor:
        """-log p(x | z), nats per image, of the shape of ``log_likelihood``.

        Raises:
            ValueError: if the batch was not decoded.
        """
        if self.log_likelihood is None:
            raise ValueError("This batch was not decoded; ask for it with TermsRequest(decode=True).")
        return -self.log_likelihood


class VariationalModel(InferenceModel, Protocol):
    """An inference model with a likelihood, which can be trained on the evidence lower bound.

    Attributes:
        label_factors: names of the data's factors that ``elbo_terms`` is given as labels, in that order; () for a
            model that reads none.
        labelled: share of the data's images whose labels the model may read, 0 to 1.
    """

    label_factors: tuple[str, ...]
    labelled: float

    def likelihood(self, z: Tensor, edits: Iterable[Edit] = ()) -> Distribution:
        """p(x | z) for codes (batch, dim): a distribution over images."""
        ...

    def elbo_terms(
        self,
        x: Tensor,
        generator: torch.Generator,
        request: TermsRequest = ONE_DRAW,
        *,
        labels: Tensor | None = None,
        posterior: Posterior | None = None,
    ) -> ElboTerms:
        """The parts of the bound for images (batch, channels, height, width) in [0, 1], as asked for.

        Args:
            x: the images.
            generator: the only source of chance, on x's device.
            request: what to compute.
            labels: the model's ``label_factors`` of the images, int (batch, label_factors), rows of -1 where
                unknown; None for a model that reads none.
            posterior: q(z | x) to draw from instead of ``encode(x)``.
        """
        ...


def identity_text(model: GenerativeModel, **more: str) -> str:
    """What a model is apart from its weights, as one line: class, spaces, stages and what else is given."""
    networks = {
        name: [f"{stage}: {kind}" for stage, kind in network.kinds().items()]
        for name, network in model.networks.items()
    }
    spaces = [space.to_dict() for space in model.spaces.values()]
    return json.dumps([type(model).__name__, list(model.image_shape), spaces, networks, more], sort_keys=True)


def weights_digest(module: nn.Module | GenerativeModel) -> str:
    """SHA-256 (hex) over a model's ``identity``, and names, shapes and bytes of all weights and buffers.

    Two models with equal weights but other blocks, activations or likelihood have other digests, so it can
    key every cache. Every call reads every byte, about half a millisecond a megabyte: optimisers and ``.data``
    write to weights unseen, so nothing cheaper than their content tells that they are still the same.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"Only a torch module has weights to digest; got {type(module).__name__}.")
    digest = hashlib.sha256(str(getattr(module, "identity", type(module).__name__)).encode())
    for name, tensor in module.state_dict().items():
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name}|{values.dtype}|{tuple(values.shape)}|".encode())
        digest.update(values.view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
