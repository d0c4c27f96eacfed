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


def dcgan(
    image_shape: ImageShape, dim: int, width: int = 64, spectral_norm: bool = False, features: bool = False
) -> Pair:
    """Strided 4x4 convolutions down to a map of 4x4 or fewer pixels, and transposed ones back.

    Widths double with each halving, from ``width`` to at most 8 x ``width``. Batch norm stands in the generator
    alone: in the discriminator it would make an image's score depend on the rest of its batch, which a gradient
    penalty rules out.

    Args:
        image_shape: (channels, size, size).
        dim: coordinates of a code.
        width: channels next to the image.
        spectral_norm: divide every weight of the discriminator by its largest singular value.
        features: give the discriminator a stage "features" of its own in front of "score", the last map as a row of
            numbers; without it the two are one stage.

    Returns:
        (generator, discriminator).

    References:
        Unsupervised representation learning with deep convolutional generative adversarial networks (Radford et
        al., 2015), https://arxiv.org/abs/1511.06434. There the discriminator has batch norm, too.
    """
    sizes, widths = _plan(image_shape, width)
    depth, flat = len(sizes) - 1, feature_count(image_shape, width)

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

    judge = trunk(image_shape, width, spectral_norm)
    last = SpectralLinear(flat, 1) if spectral_norm else nn.Linear(flat, 1)
    if features:
        judge |= {"features": nn.Flatten(), "score": last}
    else:
        judge["score"] = nn.Sequential(nn.Flatten(), last)

    pair = StagedNetwork(generator, "generator"), StagedNetwork(judge, "discriminator")
    for network in pair:
        start_small(network)
    return pair


def _plan(image_shape: ImageShape, width: int) -> tuple[list[int], list[int]]:
    """Edges and channels from the image down to the smallest map."""
    sizes = halvings(image_shape[1])
    return sizes, [image_shape[0], *(width * min(2**i, _WIDEST) for i in range(len(sizes) - 1))]


def feature_count(image_shape: ImageShape, width: int) -> int:
    """How many numbers the last map of ``trunk`` has."""
    sizes, widths = _plan(image_shape, width)
    return widths[-1] * sizes[-1] ** 2


def trunk(image_shape: ImageShape, width: int, spectral_norm: bool = False) -> dict[str, nn.Module]:
    """The stages conv1, conv2, … of a network that judges images: 4x4 convolutions that halve, leaky ReLU.

    Args:
        image_shape: (channels, size, size).
        width: channels of the first stage; they double up to 8 times as many.
        spectral_norm: divide every weight by its largest singular value.
    """
    _, widths = _plan(image_shape, width)
    convolution = SpectralConv2d if spectral_norm else nn.Conv2d
    stages: dict[str, nn.Module] = {}
    for i in range(1, len(widths)):
        layers = (convolution(widths[i - 1], widths[i], 4, 2, 1), nn.LeakyReLU(_SLOPE, inplace=True))
        stages[f"conv{i}"] = nn.Sequential(*((_Centre(),) if i == 1 else ()), *layers)
    return stages


def code_head(features: int, hidden: int, outputs: int) -> dict[str, nn.Module]:
    """The stages "hidden" and "posterior" that tell codes by the last map of ``trunk``.

    Args:
        features: numbers of that map, ``feature_count``.
        hidden: units between.
        outputs: numbers an image.
    """
    stages: dict[str, nn.Module] = {
        "hidden": nn.Sequential(
            nn.Flatten(), nn.Linear(features, hidden), nn.LeakyReLU(_SLOPE, inplace=True)
        ),
        "posterior": nn.Linear(hidden, outputs),
    }
    return stages


def start_small(module: nn.Module) -> None:
    """Draws a network's first weights as the paper of ``dcgan`` does, normal with standard deviation 0.02.

    Weights that are divided by their singular value keep their own, since their size makes no difference.
    """
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, _FIRST_STD)
        elif isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) and not isinstance(
            layer, Spectral
        ):
            nn.init.normal_(layer.weight, 0.0, _FIRST_STD)


GAN_NETWORKS: dict[str, Callable[..., Pair]] = {"dcgan": dcgan}
