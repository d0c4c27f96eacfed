"""From a configuration to a model: the one table of names and classes."""

from __future__ import annotations

from collections.abc import Callable

import torch

from latentlab.config import LARGEST_IMAGE, SMALLEST_IMAGE, ModelConfig, VAEConfig
from latentlab.latents import PRIORS, Block, LatentSpace
from latentlab.models.likelihoods import Bernoulli, Gaussian
from latentlab.models.networks import NETWORKS
from latentlab.models.vae import VAE


def _vae(config: VAEConfig, image_shape: tuple[int, int, int]) -> VAE:
    space = LatentSpace([Block(b.name, b.dim, PRIORS[b.prior]()) for b in config.latent_blocks])
    encoder, generator = NETWORKS[config.network](
        image_shape, space.dim, space.posterior_size, width=config.width, hidden=config.hidden
    )
    likelihood = (
        Bernoulli() if config.likelihood == "bernoulli" else Gaussian(config.scale, config.learn_scale)
    )
    return VAE(image_shape, space, encoder, generator, likelihood)


_BUILDERS: dict[type[ModelConfig], Callable[..., VAE]] = {VAEConfig: _vae}


def build_model(config: ModelConfig, image_shape: tuple[int, int, int], seed: int = 0) -> VAE:
    """Builds a model with fresh weights; equal seeds give equal weights, the global generator stays as it was.

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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _BUILDERS[type(config)](config, tuple(image_shape))
