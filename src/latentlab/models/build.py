"""From a configuration to a model: the one table of names and classes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.overrides import TorchFunctionMode

from latentlab.config import LARGEST_IMAGE, SMALLEST_IMAGE, BlockConfig, GANConfig, ModelConfig, VAEConfig
from latentlab.latents import PRIORS, Block, LatentSpace, Prior
from latentlab.models.gan import GAN
from latentlab.models.gan_networks import GAN_NETWORKS
from latentlab.models.likelihoods import Bernoulli, Gaussian
from latentlab.models.networks import NETWORKS
from latentlab.models.vae import VAE


def _space(blocks: list[BlockConfig]) -> LatentSpace:
    return LatentSpace([Block(b.name, b.dim, _prior(b)) for b in blocks])


def _prior(block: BlockConfig) -> Prior:
    given = {} if block.temperature is None else {"temperature": block.temperature}
    return PRIORS[block.prior](**given)


def _vae(config: VAEConfig, image_shape: tuple[int, int, int]) -> VAE:
    space = _space(config.latent_blocks)
    encoder, generator = NETWORKS[config.network](
        image_shape, space.dim, space.posterior_size, width=config.width, hidden=config.hidden
    )
    likelihood = (
        Bernoulli() if config.likelihood == "bernoulli" else Gaussian(config.scale, config.learn_scale)
    )
    return VAE(image_shape, space, encoder, generator, likelihood)


def _gan(config: GANConfig, image_shape: tuple[int, int, int]) -> GAN:
    space = _space(config.latent_blocks)
    generator, discriminator = GAN_NETWORKS[config.network](
        image_shape, space.dim, width=config.width, spectral_norm=config.spectral_norm
    )
    return GAN(image_shape, space, generator, discriminator)


_BUILDERS: dict[type[ModelConfig], Callable[..., VAE | GAN]] = {VAEConfig: _vae, GANConfig: _gan}


# The functions that torch's layers draw their first weights with; all take a generator.
_DRAWS = frozenset(
    f"{how}_" for how in ("uniform", "normal", "trunc_normal", "kaiming_uniform", "kaiming_normal",
                          "xavier_uniform", "xavier_normal", "orthogonal")
)  # fmt: skip


class SeededWeights(TorchFunctionMode):
    """While it is entered, this thread's layers draw their first weights from a generator of their own.

    Args:
        seed: of that generator; the process's own is never read or moved.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if getattr(func, "__name__", "") in _DRAWS:
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.device.type == "meta":  # nothing to fill
                return tensor
            kwargs["generator"] = self.generator
        return func(*args, **kwargs)


def build_model(config: ModelConfig, image_shape: tuple[int, int, int], seed: int = 0) -> VAE | GAN:
    """Builds a model with fresh weights; equal seeds give equal weights, no global generator is read or moved.

    Under ``torch.device("meta")`` the model has shapes and no memory.

    Args:
        config: which family, and its parameters.
        image_shape: (channels, size, size), 1 or 3 channels, size 28 to 128.
        seed: of the initial weights.

    Raises:
        ValueError: on an image shape that the stock networks don't take.
        TypeError: on a configuration without a builder.
    """
    channels, height, width = image_shape
    if channels not in (1, 3) or height != width or not SMALLEST_IMAGE <= height <= LARGEST_IMAGE:
        raise ValueError(
            f"Expected square images of {SMALLEST_IMAGE} to {LARGEST_IMAGE} pixels with 1 or 3 channels; "
            f"got {channels} x {height} x {width}."
        )
    if type(config) not in _BUILDERS:
        raise TypeError(f"No model for {type(config).__name__}; known: {[c.__name__ for c in _BUILDERS]}.")
    with SeededWeights(seed):
        return _BUILDERS[type(config)](config, tuple(image_shape))
