"""A generative model around staged networks that a test has set by hand."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from latentlab.latents import LatentSpace


class PlantedModel(nn.Module):
    """Images are the generator's outputs as they are; no likelihood in between.

    Args:
        image_shape: (channels, height, width).
        latent_space: the codes.
        networks: "generator" and, where wanted, "discriminator" (an encoder needs a posterior: see the tests of
            encoders for their own).
    """

    def __init__(self, image_shape, latent_space: LatentSpace, **networks: Any) -> None:
        super().__init__()
        self.image_shape, self.latent_space = tuple(image_shape), latent_space
        self._networks = nn.ModuleDict(networks)
        self.eval()

    @property
    def networks(self) -> dict[str, Any]:
        return dict(self._networks.items())

    @property
    def generator(self) -> Any:
        return self._networks["generator"]

    @property
    def spaces(self):
        return {self.latent_space.name: self.latent_space}

    def map(self, z: Tensor, source: str, target: str) -> Tensor:
        return z

    def decode(self, z: Tensor, edits=(), space=None) -> Tensor:
        return self.generator.run(z, edits)

    def sample_codes(self, n: int, seed: int) -> Tensor:
        return self.latent_space.sample(n, seed)

    def sample(self, n: int, seed: int) -> Tensor:
        return self.decode(self.sample_codes(n, seed))
