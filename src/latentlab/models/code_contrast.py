"""The contrastive term of InfoGAN-CR: of two images that share one code, which code is it?

Symbols: c_k the k-th continuous code, H the network that guesses k from two images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from latentlab.latents import LatentSpace, Normal, Uniform
from latentlab.models.gan import GAN, AdversarialTerm, Forged
from latentlab.models.gan_networks import code_head, feature_count, start_small, trunk
from latentlab.models.precision import full


class CodeContrast(AdversarialTerm):
    """weight times the cross-entropy of guessing which one code two images share.

    The generator, too, works for a good guess, so each code comes to change something of its own. Two images of a
    pair share exactly one continuous code; their other ones lie at least ``gap`` apart, which makes the guess easy at
    first, and less as training goes on. Noise and categories are drawn for each image on its own.

    Args:
        image_shape: (channels, height, width).
        space: the latent space.
        settings: which codes, weight and gap.

    Attributes:
        network: pairs of images, one on top of the other in the channels, to a logit for each code.

    Raises:
        ValueError: on fewer than two continuous codes, between which to guess.

    References:
        InfoGAN-CR and ModelCentrality: self-supervised model training and selection for disentangling GANs (Lin et
        al., 2020), https://arxiv.org/abs/1906.06034. There the gap falls in two steps, here along a line; and here
        it goes round the range of a code, so that codes of pairs are distributed as all others are.
    """

    @dataclass(frozen=True)
    class Settings:
        """What the term needs to know.

        Attributes:
            blocks: names of the blocks of continuous codes, uniform or normal.
            weight: of the term, per nat.
            gap: least distance of the codes that are not shared, as a share of the prior's range, 0 to 0.5.
            gap_steps: steps of the generator in which the gap falls to 0 along a line; 0 keeps it.
            width: channels of the network's first stage.
        """

        blocks: tuple[str, ...]
        weight: float = 1.0
        gap: float = 0.0
        gap_steps: int = 0
        width: int = 16

    def __init__(self, image_shape: tuple[int, int, int], space: LatentSpace, settings: Settings) -> None:
        super().__init__()
        self.space = space
        self.settings = settings
        self.columns = [i for name in settings.blocks for i in range(*space.slice(name).indices(space.dim))]
        if len(self.columns) < 2:
            raise ValueError(
                f"A contrast of codes needs at least 2 continuous ones; got {len(self.columns)}."
            )
        channels, height, width = image_shape
        shape = (2 * channels, height, width)
        head = code_head(feature_count(shape, settings.width), 8 * settings.width, len(self.columns))
        self.network = nn.Sequential(*trunk(shape, settings.width).values(), *head.values())
        start_small(self.network)

    def forward(self, model: GAN, forged: Forged) -> tuple[Tensor, dict[str, Tensor]]:
        """The term, a scalar; the cross-entropy in nats as "contrast", the share of right guesses."""
        first, second, shared = draw_pairs(
            self.space, self.columns, len(forged.codes), self.gap(forged.step), forged.chance
        )
        # Both in one batch: the norms of the generator then see what they see in every other batch.
        images = forged.forge(torch.cat([first, second]))
        logits = full(self.network(torch.cat(images.chunk(2), dim=1)))
        loss = cross_entropy(logits, shared)
        right = (logits.argmax(1) == shared).float().mean()
        return self.settings.weight * loss, {"contrast": loss, "contrast_accuracy": right}

    def gap(self, step: int) -> float:
        """The least distance at a step of the generator, as a share of the prior's range."""
        if not self.settings.gap_steps:
            return self.settings.gap
        return self.settings.gap * max(0.0, 1.0 - step / self.settings.gap_steps)


def draw_pairs(
    space: LatentSpace, columns: list[int], n: int, gap: float, chance: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes of ``n`` pairs that share exactly one of some coordinates, and which.

    Args:
        space: their space.
        columns: coordinates of uniform or normal blocks, among which one is shared.
        n: number of pairs.
        gap: least distance of the other columns, as a share of the prior, 0 to 0.5, in its quantiles. It goes round:
            the two ends of the prior count as one place.
        chance: the only source of chance.

    Returns:
        (first codes (n, dim), second codes (n, dim), positions (n,) in ``columns``); each code alone is distributed
        as the prior has it.

    Raises:
        TypeError: on a coordinate of a block without quantiles.
    """
    first, second = space.draw(n, chance), space.draw(n, chance)
    device = first.device
    shared = torch.randint(len(columns), (n,), generator=chance, device=device)
    if gap > 0.0:
        away = gap + (1.0 - 2.0 * gap) * torch.rand((n, len(columns)), generator=chance, device=device)
        for k, column in enumerate(columns):
            prior = space.block_of(column).prior
            second[:, column] = _at_share(prior, (_share_below(prior, first[:, column]) + away[:, k]) % 1.0)
    rows, which = torch.arange(n, device=device), torch.tensor(columns, device=device)[shared]
    second[rows, which] = first[rows, which]
    return first, second, shared


def _share_below(prior: object, values: Tensor) -> Tensor:
    """The share of a prior that lies below values."""
    if isinstance(prior, Uniform):
        return (values - prior.low) / (prior.high - prior.low)
    if isinstance(prior, Normal):
        return 0.5 * torch.erfc(-values / math.sqrt(2.0))
    raise TypeError(f"Codes to be shared are uniform or normal; got {type(prior).__name__}.")


def _at_share(prior: object, shares: Tensor) -> Tensor:
    """The values below which shares of a prior lie; the inverse of ``_share_below``."""
    if isinstance(prior, Uniform):
        return prior.low + (prior.high - prior.low) * shares
    return math.sqrt(2.0) * torch.erfinv((2.0 * shares - 1.0).clamp(-1.0 + 1e-6, 1.0 - 1e-6))
