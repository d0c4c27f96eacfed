"""InfoGAN: a GAN that can tell some of its code from the image, so that these codes come to mean something.

Symbols: c the codes to be told, z the noise beside them, Q(c | x) what the code head says of an image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.distributions import Normal as NormalDistribution
from torch.nn.functional import softplus

from latentlab.latents import Block, Categorical, LatentSpace, Posterior, Uniform
from latentlab.models.code_contrast import CodeContrast
from latentlab.models.edits import Edit
from latentlab.models.gan import GAN, AdversarialTerm, Forged
from latentlab.models.precision import full
from latentlab.models.staged import StagedNetwork


class InfoGAN(GAN):
    """A GAN with an encoder for a part of its code: the discriminator's trunk with a head of its own.

    ``encode`` gives Q(c | x) on the told blocks and the prior on the noise. On a uniform block Q is normal, with its
    mean inside the prior's range.

    Args:
        image_shape: (channels, height, width).
        latent_space: blocks, told ones and noise.
        generator: codes (batch, dim) to numbers of an image's shape, before the tanh.
        discriminator: images (batch, channels, height, width) in [0, 1] to scores (batch, 1).
        head: the stages behind the discriminator's trunk, the last of ``told_size`` outputs.
        told: names of the blocks that the head tells.
        info_weight: weight of the bound on the mutual information, per nat.
        least_std: least standard deviation of Q, as a share of the prior's, above 0, up to 1.
        contrast: makes the contrastive term (InfoGAN-CR); None for InfoGAN.

    References:
        InfoGAN: interpretable representation learning by information maximizing generative adversarial nets (Chen
        et al., 2016), https://arxiv.org/abs/1606.03657
        InfoGAN-CR and ModelCentrality (Lin et al., 2020), https://arxiv.org/abs/1906.06034, for the contrastive term
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_space: LatentSpace,
        generator: StagedNetwork,
        discriminator: StagedNetwork,
        head: dict[str, nn.Module],
        told: Sequence[str],
        info_weight: float = 1.0,
        least_std: float = 0.4,
        contrast: CodeContrast.Settings | None = None,
    ) -> None:
        super().__init__(image_shape, latent_space, generator, discriminator)
        self.told = tuple(b for b in latent_space.blocks if b.name in set(told))
        if len(self.told) != len(tuple(told)):
            raise ValueError(f"Expected blocks among {list(latent_space.block_names)}; got {list(told)}.")
        self.info_weight = info_weight
        self.least_std = least_std
        self.contrast = contrast
        self.head = nn.ModuleDict(head)
        shared = {name: discriminator.stages[name] for name in discriminator.names[:-1]}
        # Not a submodule: its stages are those of the discriminator and the head, whose weights are kept once.
        self._encoder = (StagedNetwork({**shared, **head}, "encoder"),)

    @property
    def encoder(self) -> StagedNetwork:
        """Images (batch, channels, height, width) in [0, 1] to the numbers of Q, by the discriminator's trunk."""
        return self._encoder[0]

    @property
    def networks(self) -> dict[str, StagedNetwork]:
        """The networks that can be opened."""
        return {**super().networks, "encoder": self.encoder}

    @property
    def judging(self) -> nn.Module:
        """What judges images and tells codes, trained together: the discriminator and the head."""
        return nn.ModuleDict({"discriminator": self.discriminator, "head": self.head})

    def encode(self, x: Tensor, edits: Iterable[Edit] = ()) -> Posterior:
        """Q of images (batch, channels, height, width) in [0, 1], over the whole space; the prior on the noise.

        Raises:
            ValueError: on images of another shape than the model's.
        """
        self.check_images(x)
        numbers = full(self.encoder.run(x, edits))
        told = {
            b.name: part for b, part in zip(self.told, numbers.split(_sizes(self.told), dim=1), strict=True)
        }
        parts = {
            b.name: _q(b, told[b.name], self.least_std) if b.name in told else _prior(b, x)
            for b in self.latent_space.blocks
        }
        return Posterior(self.latent_space, parts)

    def further_terms(self) -> dict[str, AdversarialTerm]:
        """The bound on the mutual information, and the contrastive term if there is one."""
        terms: dict[str, AdversarialTerm] = {"information": Information(self.info_weight)}
        if self.contrast is not None:
            terms["contrast"] = CodeContrast(self.image_shape, self.latent_space, self.contrast)
        return terms


class Information(AdversarialTerm):
    """-weight times the bound H(c) + E log Q(c | G(z, c)) on the mutual information of codes and images.

    Args:
        weight: per nat.

    References:
        InfoGAN (Chen et al., 2016), https://arxiv.org/abs/1606.03657, equation 5
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, model: GAN, forged: Forged) -> tuple[Tensor, dict[str, Tensor]]:
        """The term, a scalar, and the bound of each told block by name, nats."""
        assert isinstance(model, InfoGAN)
        bounds = information(model.encode(forged.images), forged.codes, model.told)
        logged = {f"information_{name}": bound for name, bound in bounds.items()}
        return -self.weight * torch.stack([*bounds.values()]).sum(), logged


def information(q: Posterior, codes: Tensor, blocks: Sequence[Block]) -> dict[str, Tensor]:
    """Lower bounds on the mutual information of blocks of codes and images, H(c) + mean of log q(c | x), nats.

    Args:
        q: of the images.
        codes: (batch, dim) that the images were made from.
        blocks: which blocks.

    Returns:
        {block name: a scalar}. That of a categorical block never exceeds ln(categories), its entropy.

    References:
        The IM algorithm: a variational approach to information maximization (Barber and Agakov, 2003),
        https://papers.nips.cc/paper/2410
    """
    space = q.space
    gained = q.log_prob(codes) - space.log_prob(codes)
    # -log p(c) is the same for each value of a uniform or categorical block. Of a normal block its mean over codes is
    # the entropy, and log q - log p is the better estimate: both rise and fall with the same codes.
    return {b.name: gained[:, space.slice(b.name)].sum(1).mean() for b in blocks}


def told_size(blocks: Sequence[Block]) -> int:
    """How many numbers a head gives for blocks: a logit a category, else a mean and a log-variance a coordinate."""
    return sum(_sizes(blocks))


def _sizes(blocks: Sequence[Block]) -> list[int]:
    return [b.dim if isinstance(b.prior, Categorical) else 2 * b.dim for b in blocks]


def _q(block: Block, numbers: Tensor, least_std: float) -> Distribution:
    if isinstance(block.prior, Categorical):
        return block.prior.posterior(numbers)
    mean, surer = numbers.chunk(2, dim=1)
    if isinstance(block.prior, Uniform):
        low, high = block.prior.low, block.prior.high
        mean = 0.5 * (low + high) + 0.5 * (high - low) * mean.tanh()
    # Never less sure than the prior is; and a Q that may be ever surer would soon be all there is to learn.
    log_std = math.log(block.prior.moments(block.dim)[1]) + (-0.5 * softplus(surer)).clamp_min(
        math.log(least_std)
    )
    return NormalDistribution(mean, log_std.exp(), validate_args=False)


def _prior(block: Block, x: Tensor) -> Distribution:
    """The prior of a normal block, for each image of a batch."""
    mean, std = block.prior.moments(block.dim)
    shape = (x.shape[0], block.dim)
    return NormalDistribution(x.new_full(shape, mean), x.new_full(shape, std), validate_args=False)
