"""From a configuration to a model: the one table of names and classes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.overrides import TorchFunctionMode

from latentlab.config import (
    LARGEST_IMAGE,
    SMALLEST_IMAGE,
    BlockConfig,
    ConditionalGANConfig,
    ConditionalVAEConfig,
    GANConfig,
    InfoGANConfig,
    LadderVAEConfig,
    ModelConfig,
    StyleGANConfig,
    VAEConfig,
    VQVAEConfig,
)
from latentlab.latents import PRIORS, Block, LatentSpace, Prior
from latentlab.models.code_contrast import CodeContrast
from latentlab.models.code_prior import CodePrior
from latentlab.models.conditional import ConditionalVAE, conditional_encoder
from latentlab.models.conditional_gan import ConditionalGAN, label_vectors
from latentlab.models.gan import GAN
from latentlab.models.gan_networks import GAN_NETWORKS, code_head, feature_count, start_small
from latentlab.models.info_gan import InfoGAN, told_size
from latentlab.models.ladder import ladder
from latentlab.models.likelihoods import Bernoulli, Gaussian, Laplace, Likelihood, Logistic
from latentlab.models.networks import NETWORKS, halvings
from latentlab.models.style_gan import StyleGAN
from latentlab.models.style_networks import Mapping, StyledGenerator, residual_discriminator
from latentlab.models.vae import VAE
from latentlab.models.vq import VQVAE, vq_networks


def _space(blocks: list[BlockConfig]) -> LatentSpace:
    return LatentSpace([Block(b.name, b.dim, _prior(b)) for b in blocks])


def _prior(block: BlockConfig) -> Prior:
    given = {} if block.temperature is None else {"temperature": block.temperature}
    return PRIORS[block.prior](**given)


def _likelihood(config: VAEConfig | LadderVAEConfig | VQVAEConfig) -> Likelihood:
    if config.likelihood == "bernoulli":
        return Bernoulli()
    kind = {"gaussian": Gaussian, "laplace": Laplace, "logistic": Logistic}[config.likelihood]
    return kind(config.scale, config.learn_scale)


def _vae(config: VAEConfig, image_shape: tuple[int, int, int]) -> VAE:
    space = _space(config.latent_blocks)
    encoder, generator = NETWORKS[config.network](
        image_shape, space.dim, space.posterior_size, width=config.width, hidden=config.hidden
    )
    return VAE(image_shape, space, encoder, generator, _likelihood(config))


def _ladder(config: LadderVAEConfig, image_shape: tuple[int, int, int]) -> VAE:
    encoder, generator = ladder(image_shape, config.levels, width=config.width, hidden=config.hidden)
    return VAE(image_shape, _space(config.latent_blocks), encoder, generator, _likelihood(config))


def _conditional_vae(config: ConditionalVAEConfig, image_shape: tuple[int, int, int]) -> ConditionalVAE:
    space, classes = _space(config.latent_blocks), config.classes
    classifier, generator = NETWORKS[config.network](
        image_shape, space.dim, classes, width=config.width, hidden=config.hidden
    )
    encoder = conditional_encoder(classifier, config.hidden, classes, space.posterior_size - classes)
    likelihood = _likelihood(config)
    return ConditionalVAE(image_shape, space, encoder, generator, likelihood, config.labelled, config.alpha)


def _vq(config: VQVAEConfig, image_shape: tuple[int, int, int]) -> VQVAE:
    encoder, generator = vq_networks(
        image_shape, config.codes, config.code_dim, times=config.halvings, width=config.width
    )
    positions = halvings(image_shape[1])[config.halvings] ** 2
    prior = CodePrior(config.codes, positions, config.prior_width, config.prior_layers)
    return VQVAE(image_shape, encoder, generator, _likelihood(config), prior, config.commitment)


def _gan(config: GANConfig, image_shape: tuple[int, int, int]) -> GAN:
    space = _space(config.latent_blocks)
    generator, discriminator = GAN_NETWORKS[config.network](
        image_shape, space.dim, width=config.width, spectral_norm=config.spectral_norm
    )
    return GAN(image_shape, space, generator, discriminator)


def _conditional_gan(config: ConditionalGANConfig, image_shape: tuple[int, int, int]) -> ConditionalGAN:
    space = _space(config.latent_blocks)
    generator, discriminator = GAN_NETWORKS[config.network](
        image_shape, space.dim, width=config.width, spectral_norm=config.spectral_norm, features=True
    )
    features = feature_count(image_shape, config.width)
    vectors = label_vectors(config.classes, features, config.spectral_norm)
    return ConditionalGAN(image_shape, space, generator, discriminator, vectors, config.label)


def _info_gan(config: InfoGANConfig, image_shape: tuple[int, int, int]) -> InfoGAN:
    space = _space(config.latent_blocks)
    generator, discriminator = GAN_NETWORKS[config.network](
        image_shape, space.dim, width=config.width, spectral_norm=config.spectral_norm
    )
    told = space.blocks[:-1]
    features = feature_count(image_shape, config.width)
    head = code_head(features, 8 * config.width, told_size(told))
    for stage in head.values():
        start_small(stage)
    contrast = None
    if config.cr_weight:
        names = tuple(block.name for block in config.continuous)
        contrast = CodeContrast.Settings(
            names, config.cr_weight, config.cr_gap, config.cr_gap_steps, config.width
        )
    names = [block.name for block in told]
    return InfoGAN(
        image_shape,
        space,
        generator,
        discriminator,
        head,
        names,
        config.info_weight,
        config.least_std,
        contrast,
    )


def _style_gan(config: StyleGANConfig, image_shape: tuple[int, int, int]) -> StyleGAN:
    space = _space(config.latent_blocks)
    return StyleGAN(
        image_shape,
        space,
        Mapping(space.dim, config.styles, config.mapping_layers),
        StyledGenerator(image_shape, config.styles, config.width),
        residual_discriminator(image_shape, config.width),
        mixing=config.mixing,
    )


_BUILDERS: dict[type[ModelConfig], Callable[..., VAE | GAN]] = {
    VAEConfig: _vae,
    ConditionalVAEConfig: _conditional_vae,
    LadderVAEConfig: _ladder,
    VQVAEConfig: _vq,
    GANConfig: _gan,
    ConditionalGANConfig: _conditional_gan,
    InfoGANConfig: _info_gan,
    StyleGANConfig: _style_gan,
}


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
