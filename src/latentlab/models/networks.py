"""The stock networks: pairs of an encoder and a generator for square images of any size from 28 to 128.

Each function returns (encoder, generator). The encoder maps images (batch, channels, size, size) in [0, 1] to
``outputs`` numbers a sample, the parameters of the posterior; the generator maps codes (batch, dim) to
(batch, channels, size, size) numbers, the parameters of the likelihood. Only nn.ReLU is used between layers.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from latentlab.models.staged import StagedNetwork

ImageShape = tuple[int, int, int]
Pair = tuple[StagedNetwork, StagedNetwork]


def halvings(size: int) -> list[int]:
    """Edge lengths from the image down to the smallest map, of 4 or fewer pixels: 64, 32, 16, 8, 4."""
    sizes = [size]
    while sizes[-1] > 4:
        sizes.append(sizes[-1] // 2)
    return sizes


def _linear(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(inplace=True))


def upsampling(inputs: int, outputs: int, size: int, target: int) -> nn.ConvTranspose2d:
    """A 4x4 stride-2 transposed convolution from maps of edge ``size`` to edge ``target``, 2 size or one more."""
    return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, output_padding=target - 2 * size)


def burgess(image_shape: ImageShape, dim: int, outputs: int, width: int = 32, hidden: int = 256) -> Pair:
    """Four 4x4 stride-2 convolutions of equal width and two fully connected layers, mirrored in the generator.

    At 64x64 this is the network of the paper; other sizes have as many halvings as reach 4x4 (or 3x3).

    References:
        Understanding disentangling in beta-VAE (Burgess et al., 2018), https://arxiv.org/abs/1804.03599
    """
    channels, size, _ = image_shape
    sizes = halvings(size)
    encoder: dict[str, nn.Module] = {}
    for i in range(1, len(sizes)):
        convolution = nn.Conv2d(channels if i == 1 else width, width, 4, stride=2, padding=1)
        encoder[f"conv{i}"] = nn.Sequential(convolution, nn.ReLU(inplace=True))
    flat = width * sizes[-1] ** 2
    encoder["fc1"] = nn.Sequential(nn.Flatten(), *_linear(flat, hidden))
    encoder["fc2"] = _linear(hidden, hidden)
    encoder["posterior"] = nn.Linear(hidden, outputs)

    return StagedNetwork(encoder, "encoder"), _deconvolutions(image_shape, dim, width, hidden)


def _deconvolutions(image_shape: ImageShape, dim: int, width: int, hidden: int) -> StagedNetwork:
    """Three fully connected layers, then 4x4 stride-2 transposed convolutions of equal width up to the image."""
    channels, size, _ = image_shape
    sizes = halvings(size)
    flat = width * sizes[-1] ** 2
    generator: dict[str, nn.Module] = {"fc1": _linear(dim, hidden), "fc2": _linear(hidden, hidden)}
    generator["fc3"] = nn.Sequential(*_linear(hidden, flat), nn.Unflatten(1, (width, sizes[-1], sizes[-1])))
    for i in range(len(sizes) - 1, 1, -1):
        up = upsampling(width, width, sizes[i], sizes[i - 1])
        generator[f"deconv{len(sizes) - i}"] = nn.Sequential(up, nn.ReLU(inplace=True))
    generator["output"] = upsampling(width, channels, sizes[1], sizes[0])
    return StagedNetwork(generator, "generator")


def locatello(image_shape: ImageShape, dim: int, outputs: int, width: int = 32, hidden: int = 256) -> Pair:
    """The network of the large disentanglement study: 4x4, 4x4, 2x2, 2x2 convolutions, one fully connected layer.

    References:
        Challenging common assumptions in the unsupervised learning of disentangled representations
        (Locatello et al., 2019), https://arxiv.org/abs/1811.12359
    """
    channels, size, _ = image_shape
    sizes = halvings(size)
    depth = len(sizes) - 1
    widths = [channels] + [width if i <= depth // 2 else 2 * width for i in range(1, depth + 1)]
    encoder: dict[str, nn.Module] = {}
    for i in range(1, depth + 1):
        kernel, padding = (4, 1) if i <= depth // 2 else (2, 0)
        convolution = nn.Conv2d(widths[i - 1], widths[i], kernel, stride=2, padding=padding)
        encoder[f"conv{i}"] = nn.Sequential(convolution, nn.ReLU(inplace=True))
    flat = widths[-1] * sizes[-1] ** 2
    encoder["fc1"] = nn.Sequential(nn.Flatten(), *_linear(flat, hidden))
    encoder["posterior"] = nn.Linear(hidden, outputs)

    generator: dict[str, nn.Module] = {"fc1": _linear(dim, hidden)}
    generator["fc2"] = nn.Sequential(
        *_linear(hidden, flat), nn.Unflatten(1, (widths[-1], sizes[-1], sizes[-1]))
    )
    ups = widths[:0:-1]
    for i in range(depth, 1, -1):
        k = depth - i
        up = upsampling(ups[k], ups[k + 1], sizes[i], sizes[i - 1])
        generator[f"deconv{k + 1}"] = nn.Sequential(up, nn.ReLU(inplace=True))
    generator["output"] = upsampling(ups[-1], channels, sizes[1], sizes[0])
    return StagedNetwork(encoder, "encoder"), StagedNetwork(generator, "generator")


def pooled(image_shape: ImageShape, dim: int, outputs: int, width: int = 32, hidden: int = 256) -> Pair:
    """3x3 convolutions of equal width, each followed by the maximum over 2x2 pixels, and one fully connected layer.

    Convolution and pooling are stages of their own: which of the four pixels was the largest is a reading of its
    own, by which a deconvolutional network finds its way back to the image. An odd edge loses its last pixels. The
    generator is that of ``burgess``.

    References:
        Visualizing and understanding convolutional networks (Zeiler and Fergus, 2014),
        https://arxiv.org/abs/1311.2901
        Very deep convolutional networks for large-scale image recognition (Simonyan and Zisserman, 2014),
        https://arxiv.org/abs/1409.1556, for the 3x3 convolutions
    """
    channels, size, _ = image_shape
    sizes = halvings(size)
    encoder: dict[str, nn.Module] = {}
    for i in range(1, len(sizes)):
        convolution = nn.Conv2d(channels if i == 1 else width, width, 3, padding=1)
        encoder[f"conv{i}"] = nn.Sequential(convolution, nn.ReLU(inplace=True))
        encoder[f"pool{i}"] = nn.MaxPool2d(2)
    encoder["fc1"] = nn.Sequential(nn.Flatten(), *_linear(width * sizes[-1] ** 2, hidden))
    encoder["posterior"] = nn.Linear(hidden, outputs)
    return StagedNetwork(encoder, "encoder"), _deconvolutions(image_shape, dim, width, hidden)


class Residual(nn.Module):
    """relu(h + conv(relu(conv(h)))), shape kept.

    Args:
        width: channels in and out.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, h: Tensor) -> Tensor:
        """Maps (batch, width, height, width) to the same shape."""
        return self.relu2(h + self.conv2(self.relu1(self.conv1(h))))


def residual(image_shape: ImageShape, dim: int, outputs: int, width: int = 32, hidden: int = 256) -> Pair:
    """A deeper pair: at each resolution a change of size and a residual block; widths double, up to 4 x ``width``.

    The generator upsamples by nearest neighbour and convolves, which leaves no checkerboard.
    """
    channels, size, _ = image_shape
    sizes = halvings(size)
    widths = [min(width * 2**i, 4 * width) for i in range(len(sizes))]
    encoder: dict[str, nn.Module] = {
        "stem": nn.Sequential(nn.Conv2d(channels, widths[0], 3, padding=1), nn.ReLU(inplace=True))
    }
    for i in range(1, len(sizes)):
        down = nn.Conv2d(widths[i - 1], widths[i], 4, stride=2, padding=1)
        encoder[f"block{i}"] = nn.Sequential(down, nn.ReLU(inplace=True), Residual(widths[i]))
    flat = widths[-1] * sizes[-1] ** 2
    encoder["fc1"] = nn.Sequential(nn.Flatten(), *_linear(flat, hidden))
    encoder["posterior"] = nn.Linear(hidden, outputs)

    generator: dict[str, nn.Module] = {"fc1": _linear(dim, hidden)}
    generator["fc2"] = nn.Sequential(
        *_linear(hidden, flat), nn.Unflatten(1, (widths[-1], sizes[-1], sizes[-1]))
    )
    for k, i in enumerate(range(len(sizes) - 1, 0, -1), start=1):
        convolution = nn.Conv2d(widths[i], widths[i - 1], 3, padding=1)
        up = nn.Upsample(size=(sizes[i - 1], sizes[i - 1]), mode="nearest")
        generator[f"block{k}"] = nn.Sequential(
            up, convolution, nn.ReLU(inplace=True), Residual(widths[i - 1])
        )
    generator["output"] = nn.Conv2d(widths[0], channels, 3, padding=1)
    return StagedNetwork(encoder, "encoder"), StagedNetwork(generator, "generator")


NETWORKS: dict[str, Callable[..., Pair]] = {
    "burgess": burgess,
    "locatello": locatello,
    "pooled": pooled,
    "residual": residual,
}
