"""Stock networks of GANs: a generator and a discriminator for square images of any size from 28 to 128.

The generator maps codes (batch, dim) to (batch, channels, size, size) numbers before the tanh; the
discriminator maps images (batch, channels, size, size) in [0, 1] to one score an image, (batch, 1).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from latentlab.models.networks import ImageShape, Pair, halvings
from latentlab.models.spectral import Spectral, SpectralConv2d, SpectralLinear
from latentlab.models.staged import StagedNetwork

_WIDEST = 8
_SLOPE = 0.2
_FIRST_STD = 0.02


class _Centre(nn.Module):
    """Images from [0, 1] to [-1, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return 2.0 * x - 1.0


def dcgan(image_shape: ImageShape, dim: int, width: int = 64, spectral_norm: bool = False) -> Pair:
    """Strided 4x4 convolutions down to a map of 4x4 or fewer pixels, and transposed ones back.

    Widths double with each halving, from ``width`` to at most 8 x ``width``. Batch norm stands in the generator
    alone: in the discriminator it would make an image's score depend on the rest of its batch, which a gradient
    penalty rules out.

    Args:
        image_shape: (channels, size, size).
        dim: coordinates of a code.
        width: channels next to the image.
        spectral_norm: divide every weight of the discriminator by its largest singular value.

    Returns:
        (generator, discriminator).

    References:
        Unsupervised representation learning with deep convolutional generative adversarial networks (Radford et
        al., 2015), https://arxiv.org/abs/1511.06434. There the discriminator has batch norm, too.
    """
    channels, size, _ = image_shape
    sizes = halvings(size)
    depth = len(sizes) - 1
    widths = [channels, *(width * min(2**i, _WIDEST) for i in range(depth))]
    flat = widths[-1] * sizes[-1] ** 2

    # A norm takes away whatever a bias in front of it adds.
    generator: dict[str, nn.Module] = {
        "project": nn.Sequential(
            nn.Linear(dim, flat, bias=False),
            nn.Unflatten(1, (widths[-1], sizes[-1], sizes[-1])),
            nn.BatchNorm2d(widths[-1]),
            nn.ReLU(inplace=True),
        )
    }
    for k, i in enumerate(range(depth, 0, -1), start=1):
        up = nn.ConvTranspose2d(
            widths[i], widths[i - 1], 4, 2, 1, output_padding=sizes[i - 1] - 2 * sizes[i], bias=i == 1
        )
        if i == 1:
            generator["output"] = up
        else:
            generator[f"deconv{k}"] = nn.Sequential(up, nn.BatchNorm2d(widths[i - 1]), nn.ReLU(inplace=True))

    convolution = SpectralConv2d if spectral_norm else nn.Conv2d
    discriminator: dict[str, nn.Module] = {}
    for i in range(1, depth + 1):
        layers = (convolution(widths[i - 1], widths[i], 4, 2, 1), nn.LeakyReLU(_SLOPE, inplace=True))
        discriminator[f"conv{i}"] = nn.Sequential(*((_Centre(),) if i == 1 else ()), *layers)
    last = SpectralLinear(flat, 1) if spectral_norm else nn.Linear(flat, 1)
    discriminator["score"] = nn.Sequential(nn.Flatten(), last)

    pair = StagedNetwork(generator, "generator"), StagedNetwork(discriminator, "discriminator")
    for module in (m for network in pair for m in network.modules()):
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, _FIRST_STD)
        elif isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) and not isinstance(
            module, Spectral
        ):
            nn.init.normal_(module.weight, 0.0, _FIRST_STD)
    return pair


GAN_NETWORKS: dict[str, Callable[..., Pair]] = {"dcgan": dcgan}
