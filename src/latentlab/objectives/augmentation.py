"""Augmentation for GANs that have few images: the discriminator sees real and generated images changed alike.

The changes have a gradient, so that the generator learns through them. As long as they are undone in distribution, as
these are, the generator still learns the images and not their changes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

GREY = 0.5
"""What stands where an image was moved away or cut out: the papers' 0, for images in [-1, 1]."""
_MOVE = 1 / 8
_CUT = 1 / 2
_INTERVAL = 4


class Augmentation(nn.Module):
    """Changes of light, colour, place and a cut, each made to a share of the images, with amounts of their own.

    Args:
        share: chance of each change for each image, 0 to 1.
        adaptive: move the share while training goes on, so that the discriminator's scores of real images stay
            positive for a certain part of them only: an overfitted discriminator is certain of all.
        target: that part less the part with negative scores, r_t of the paper, -1 to 1.
        images: number of real images after which the share could have moved by 1.

    Attributes:
        share: the share now, a buffer, so that it is part of a checkpoint.

    References:
        Differentiable augmentation for data-efficient GAN training (Zhao et al., 2020),
        https://arxiv.org/abs/2006.10738, whose changes these are; there the share is 1
        Training generative adversarial networks with limited data (Karras et al., 2020),
        https://arxiv.org/abs/2006.06676, for the adaptive share; there with flips, turns and scalings, too
    """

    share: Tensor
    signs: Tensor

    def __init__(
        self, share: float = 1.0, adaptive: bool = False, target: float = 0.6, images: int = 500_000
    ) -> None:
        super().__init__()
        self.adaptive = adaptive
        self.target = target
        self.images = images
        self.register_buffer("share", torch.tensor(float(share)))
        self.register_buffer("signs", torch.tensor(0.0))

    def forward(self, x: Tensor, chance: torch.Generator) -> Tensor:
        """Changed images of the shape of ``x``, with a gradient to it.

        Args:
            x: images (batch, channels, height, width) in [0, 1].
            chance: the only source of chance, on the images' device.
        """
        for change in (brightness, saturation, contrast, translation, cutout):
            changed = change(x, chance)
            chosen = torch.rand((len(x), 1, 1, 1), generator=chance, device=x.device) < self.share
            x = torch.where(chosen, changed, x)
        return x

    @torch.no_grad()
    def follow(self, scores: Tensor, index: int) -> None:
        """Moves an adaptive share, every fourth step: up where the discriminator is too certain, else down.

        Args:
            scores: the discriminator's scores (batch,) of real images.
            index: the discriminator's step, counted from 0.
        """
        if not self.adaptive:
            return
        self.signs += scores.sign().mean()
        if (index + 1) % _INTERVAL == 0:
            moved = (self.signs / _INTERVAL - self.target).sign() * (len(scores) * _INTERVAL / self.images)
            self.share.add_(moved).clamp_(0.0, 1.0)
            self.signs.zero_()


def _amounts(x: Tensor, chance: torch.Generator) -> Tensor:
    return torch.rand((len(x), 1, 1, 1), generator=chance, device=x.device)


def brightness(x: Tensor, chance: torch.Generator) -> Tensor:
    """Images made lighter or darker by up to a quarter of the whole range; they may leave [0, 1].

    Args:
        x: images (batch, channels, height, width) in [0, 1].
        chance: the only source of chance.
    """
    return x + 0.5 * (_amounts(x, chance) - 0.5)


def saturation(x: Tensor, chance: torch.Generator) -> Tensor:
    """Images with each pixel's distance from its grey value between none and double; grey images stay.

    Args:
        x: images (batch, channels, height, width) in [0, 1].
        chance: the only source of chance.
    """
    grey = x.mean(1, keepdim=True)
    return grey + 2.0 * _amounts(x, chance) * (x - grey)


def contrast(x: Tensor, chance: torch.Generator) -> Tensor:
    """Images with all distances from their mean between half and one and a half of what they were.

    Args:
        x: images (batch, channels, height, width) in [0, 1].
        chance: the only source of chance.
    """
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (0.5 + _amounts(x, chance)) * (x - mean)


def translation(x: Tensor, chance: torch.Generator) -> Tensor:
    """Images moved by whole pixels, up to an eighth of their edges; grey comes in from outside.

    Args:
        x: images (batch, channels, height, width) in [0, 1].
        chance: the only source of chance.
    """
    places = []
    for edge in x.shape[2:]:
        most = round(_MOVE * edge)
        steps = torch.randint(-most, most + 1, (len(x), 1), generator=chance, device=x.device)
        places.append(torch.arange(edge, device=x.device) - steps)
    (rows, inside_rows), (columns, inside_columns) = (
        (place.clamp(0, edge - 1), (place >= 0) & (place < edge))
        for place, edge in zip(places, x.shape[2:], strict=True)
    )
    of = torch.arange(len(x), device=x.device)[:, None, None]
    moved = x.permute(0, 2, 3, 1)[of, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    inside = (inside_rows[:, :, None] & inside_columns[:, None, :])[:, None]
    return torch.where(inside, moved, GREY)


def cutout(x: Tensor, chance: torch.Generator) -> Tensor:
    """Images with a grey square of half their edges in a random place, which may reach over the border.

    Args:
        x: images (batch, channels, height, width) in [0, 1].
        chance: the only source of chance.
    """
    cuts = []
    for edge in x.shape[2:]:
        size = round(_CUT * edge)
        centre = torch.randint(edge + 1 - size % 2, (len(x), 1), generator=chance, device=x.device)
        places = torch.arange(edge, device=x.device)
        begin = centre - size // 2
        cuts.append((places >= begin) & (places < begin + size))
    rows, columns = cuts
    return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], GREY, x)
