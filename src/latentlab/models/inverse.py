"""A generator with an encoder made for it: a model without inference becomes one that can be asked for codes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from latentlab.latents import LatentSpace, Posterior
from latentlab.models.contract import GenerativeModel, Network, identity_text
from latentlab.models.edits import Edit
from latentlab.models.networks import NETWORKS
from latentlab.models.precision import full
from latentlab.models.staged import StagedNetwork


@dataclass(frozen=True)
class EncoderSpec:
    """Which network an encoder is, so that it can be built again for its generator.

    Args:
        network: whose encoder is taken, a name in NETWORKS.
        width: channels of its first convolution.
        hidden: units of its fully connected layers.

    Raises:
        ValueError: on an unknown network or sizes below 1.
    """

    network: str = "burgess"
    width: int = 32
    hidden: int = 256

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise ValueError(f"Unknown network {self.network!r}; known: {', '.join(NETWORKS)}.")
        for name, number in (("width", self.width), ("hidden", self.hidden)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ValueError(f"{name} must be a whole number of at least 1; got {number!r}.")

    def build(self, model: GenerativeModel) -> StagedNetwork:
        """The encoder for a model's images and codes; its weights come from torch's global generator."""
        space = model.latent_space
        return NETWORKS[self.network](
            model.image_shape, space.dim, space.posterior_size, width=self.width, hidden=self.hidden
        )[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, spec: Any) -> EncoderSpec:
        """The inverse of ``to_dict``.

        Raises:
            ValueError: on what is no such description.
        """
        if not isinstance(spec, Mapping) or not set(spec) <= set(cls.__dataclass_fields__):
            raise ValueError(
                f"An encoder is described by {', '.join(cls.__dataclass_fields__)}; got {spec!r}."
            )
        return cls(**spec)


class WithEncoder(nn.Module):
    """A generative model and an encoder of its images; everything but ``encode`` is the model's own.

    ``latentlab.fit_encoder`` makes one.

    Args:
        model: the generative model, a torch module.
        encoder: images (batch, channels, height, width) to (batch, latent_space.posterior_size) numbers.
        spec: what the encoder was built from, needed to keep it in a run's folder.

    Raises:
        ValueError: for a model that has an encoder already, or whose codes no posterior is known for.
    """

    def __init__(
        self, model: GenerativeModel, encoder: StagedNetwork, spec: EncoderSpec | None = None
    ) -> None:
        super().__init__()
        if "encoder" in model.networks:
            raise ValueError(f"{type(model).__name__} has an encoder of its own.")
        _ = model.latent_space.posterior_size  # says why where there is none
        self.model = model
        self.encoder = encoder
        self.spec = spec
        self.image_shape, self.latent_space = model.image_shape, model.latent_space

    @property
    def generator(self) -> Network:
        """The model's generator."""
        return self.model.generator

    @property
    def spaces(self) -> dict[str, LatentSpace]:
        """The model's spaces."""
        return self.model.spaces

    @property
    def input_spaces(self) -> dict[str, str]:
        """Which space's codes each network reads that reads codes."""
        return getattr(self.model, "input_spaces", {"generator": self.latent_space.name})

    @property
    def networks(self) -> dict[str, Network]:
        """The networks that can be opened: the model's, and the encoder."""
        return {**self.model.networks, "encoder": self.encoder}

    @property
    def identity(self) -> str:
        """What the model is apart from its weights; part of the weights' digest."""
        return identity_text(self, of=getattr(self.model, "identity", type(self.model).__name__))

    def encode(self, x: Tensor, edits: Iterable[Edit] = ()) -> Posterior:
        """q(z | x) of images (batch, channels, height, width) in [0, 1].

        Raises:
            ValueError: on images of another shape than the model's.
        """
        if x.ndim != 4 or tuple(x.shape[1:]) != self.image_shape:
            raise ValueError(
                f"Expected images (batch, {', '.join(map(str, self.image_shape))}); got {tuple(x.shape)}."
            )
        return self.latent_space.posterior(full(self.encoder.run(x, edits)))

    def map(self, z: Tensor, source: str, target: str) -> Tensor:
        """Carries codes from one of the model's spaces to another."""
        return self.model.map(z, source, target)

    def decode(self, z: Tensor, edits: Iterable[Edit] = (), space: str | None = None) -> Tensor:
        """The model's images (batch, channels, height, width) in [0, 1] of codes (batch, dim) of a space."""
        return self.model.decode(z, edits) if space is None else self.model.decode(z, edits, space=space)

    def sample_codes(self, n: int, seed: int) -> Tensor:
        """Codes (n, dim) from the model's prior; equal seeds give equal codes."""
        return self.model.sample_codes(n, seed)

    def sample(self, n: int, seed: int) -> Tensor:
        """The model's images of those codes."""
        return self.model.sample(n, seed)
