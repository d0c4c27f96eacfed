"""The networks of a style-based GAN: a mapping from Z to W, a generator that styles read, a discriminator.

Symbols: w a style (batch, dim); W+ one style a layer, (batch, layers x dim), layer after layer.

Weights are drawn from N(0, 1) and scaled where they are used ("equalised" rates): one step size then suits layers of
every width, and the mapping network can learn a hundred times more slowly under the same Adam.

References:
    Analyzing and improving the image quality of StyleGAN (Karras et al., 2020), https://arxiv.org/abs/1912.04958
    Progressive growing of GANs (Karras et al., 2018), https://arxiv.org/abs/1710.10196, for the equalised rates
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from latentlab.models.networks import ImageShape, halvings
from latentlab.models.precision import full
from latentlab.models.staged import INPUT, StagedNetwork

_SLOPE = 0.2
_GAIN = math.sqrt(2.0)
_WIDEST = 4
_MAPPING_RATE = 0.01
_DECAY = 0.995


class Styles(NamedTuple):
    """What the generator reads in training: styles of W+ and noise of this very pass.

    Attributes:
        w: (batch, layers x dim).
        noise: for each convolution (batch, 1, height, width).
    """

    w: Tensor
    noise: tuple[Tensor, ...]


class EqualLinear(nn.Module):
    """A fully connected layer whose weights are scaled as it runs.

    Args:
        inputs: numbers that come in.
        outputs: numbers that go out.
        bias: where the biases start.
        gain: of the scale, 1 / sqrt(inputs) times it.
        rate: share of the step size at which it learns.
    """

    def __init__(
        self, inputs: int, outputs: int, bias: float = 0.0, gain: float = 1.0, rate: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(outputs, inputs), std=1.0 / rate))
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.scale, self.rate = gain * rate / math.sqrt(inputs), rate

    def forward(self, h: Tensor) -> Tensor:
        """(batch, inputs) to (batch, outputs)."""
        return functional.linear(h, self.weight * self.scale, self.bias * self.rate)


class EqualConv2d(nn.Module):
    """A convolution whose weights are scaled as it runs; an image keeps its size.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        kernel: edge of the kernel, odd.
        bias: whether there are biases.
        gain: of the scale, 1 / sqrt(inputs x kernel x kernel) times it.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, bias: bool = True, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(outputs, inputs, kernel, kernel)))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale, self.padding = gain / math.sqrt(inputs * kernel * kernel), kernel // 2

    def forward(self, h: Tensor) -> Tensor:
        """(batch, inputs, height, width) to (batch, outputs, height, width)."""
        return functional.conv2d(h, self.weight * self.scale, self.bias, padding=self.padding)


class ModulatedConv2d(nn.Module):
    """A convolution whose input channels are scaled sample by sample, and whose outputs are scaled back to size.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        kernel: edge of the kernel, odd.
        demodulate: give the modulated weights of each output channel and sample unit length.
        gain: of the scale of the weights, 1 / sqrt(inputs x kernel x kernel) times it.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, demodulate: bool = True, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(outputs, inputs, kernel, kernel)))
        self.scale, self.padding = gain / math.sqrt(inputs * kernel * kernel), kernel // 2
        self.demodulate = demodulate

    def demodulation(self, scales: Tensor) -> Tensor:
        """What the outputs are multiplied by, (batch, outputs), so that a sample's weights have unit length."""
        with torch.autocast(scales.device.type, enabled=False):
            squares = (self.weight * self.scale).square().sum(dim=(2, 3))
            return (full(scales).square() @ squares.T + 1e-8).rsqrt()

    def forward(self, h: Tensor, scales: Tensor) -> Tensor:
        """(batch, inputs, height, width) and scales (batch, inputs) to (batch, outputs, height, width).

        Scaling what goes in and what comes out equals one kernel a sample, for the price of a single kernel.
        """
        h = functional.conv2d(h * scales[:, :, None, None], self.weight * self.scale, padding=self.padding)
        return h * self.demodulation(scales)[:, :, None, None] if self.demodulate else h


class Noise(nn.Module):
    """Noise of a learned strength, one map for all channels: that of this pass, else always the same.

    Args:
        size: edge of the map.
    """

    fixed: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("fixed", nn.init.normal_(torch.empty(1, 1, size, size)))

    def forward(self, h: Tensor, noise: Tensor | None) -> Tensor:
        """(batch, channels, size, size) and noise (batch, 1, size, size), or None for the fixed map."""
        return h + self.strength * (self.fixed if noise is None else noise)


class _Constant(nn.Module):
    """The learned map that every image begins with."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.value = nn.Parameter(nn.init.normal_(torch.empty(1, channels, size, size)))

    def forward(self, h: Tensor | Styles) -> Tensor:
        return self.value.expand(_styles(h).shape[0], -1, -1, -1)


class StyledConvolution(nn.Module):
    """A convolution that one style of W+ modulates, with noise, a bias and a leaky ReLU behind it.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        styles: coordinates of a style.
        layer: which style of W+ it reads; also which noise.
        noise: which noise of the pass it reads.
        size: edge of the map that goes out.
        enlarge: whether a smaller map comes in, which is first stretched bilinearly.
    """

    def __init__(
        self, inputs: int, outputs: int, styles: int, layer: int, noise: int, size: int, enlarge: bool
    ) -> None:
        super().__init__()
        self.enlarge = (
            nn.Upsample(size=(size, size), mode="bilinear", align_corners=False) if enlarge else nn.Identity()
        )
        self.style = EqualLinear(styles, inputs, bias=1.0)
        self.convolution = ModulatedConv2d(inputs, outputs, 3)
        self.noise = Noise(size)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.activation = nn.LeakyReLU(_SLOPE)
        self.where = slice(layer * styles, (layer + 1) * styles)
        self.order = noise

    def forward(self, h: Tensor, given: Tensor | Styles) -> Tensor:
        """(batch, inputs, …) and the network's input to (batch, outputs, size, size)."""
        h = self.convolution(self.enlarge(h), self.style(_styles(given)[:, self.where]))
        h = self.noise(h, given.noise[self.order] if isinstance(given, Styles) else None)
        return _GAIN * self.activation(h + self.bias[:, None, None])


class ToImage(nn.Module):
    """What a resolution adds to the image: a modulated 1x1 convolution, on top of the smaller image stretched.

    Args:
        inputs: channels that come in.
        channels: of the image.
        styles: coordinates of a style.
        layer: which style of W+ it reads.
        size: edge of the image.
        gain: of its weights.
    """

    def __init__(
        self, inputs: int, channels: int, styles: int, layer: int, size: int, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.style = EqualLinear(styles, inputs, bias=1.0)
        self.convolution = ModulatedConv2d(inputs, channels, 1, demodulate=False, gain=gain)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.enlarge = nn.Upsample(size=(size, size), mode="bilinear", align_corners=False)
        self.where = slice(layer * styles, (layer + 1) * styles)

    def forward(self, h: Tensor, given: Tensor | Styles, smaller: Tensor | None = None) -> Tensor:
        """(batch, inputs, size, size), the network's input and the smaller image, to (batch, channels, size, size)."""
        image = self.convolution(h, self.style(_styles(given)[:, self.where])) + self.bias[:, None, None]
        return image if smaller is None else image + self.enlarge(smaller)


def _styles(given: Tensor | Styles) -> Tensor:
    return given.w if isinstance(given, Styles) else given


class PixelNorm(nn.Module):
    """Codes scaled to a root mean square of 1: only their direction counts."""

    def forward(self, z: Tensor) -> Tensor:
        """(batch, dim) to (batch, dim)."""
        return z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class Mapping(StagedNetwork):
    """The mapping network from codes of Z to styles of W, and the running mean of the styles it gave in training.

    Args:
        dim: coordinates of a code.
        styles: coordinates of a style.
        layers: fully connected layers.
    """

    mean: Tensor

    def __init__(self, dim: int, styles: int, layers: int) -> None:
        stages: dict[str, nn.Module] = {"normalise": PixelNorm()}
        for k in range(layers):
            linear = EqualLinear(dim if k == 0 else styles, styles, gain=_GAIN, rate=_MAPPING_RATE)
            stages[f"fc{k + 1}"] = nn.Sequential(linear, nn.LeakyReLU(_SLOPE))
        super().__init__(stages, "mapping")
        self.register_buffer("mean", torch.zeros(styles))

    @torch.no_grad()
    def follow(self, w: Tensor) -> None:
        """Moves the running mean a little towards that of styles (batch, styles)."""
        self.mean.lerp_(w.mean(dim=0).to(self.mean), 1.0 - _DECAY)


class StyledGenerator(StagedNetwork):
    """The generator: a learned constant, two styled convolutions a resolution, and images that add up.

    Its input are styles of W+, (batch, layers x styles), or ``Styles`` with noise of their own. Stages "conv1",
    "conv2", …; "image1", … the image so far at each resolution, and "output" the last of them.

    Args:
        image_shape: (channels, size, size).
        styles: coordinates of a style.
        width: channels at the image's own size; they double with each halving, up to 4 times as many.

    Attributes:
        layers: number of styles that an image reads: one a convolution, and one more for the last image.
        sizes: edge of each convolution's map.
    """

    def __init__(self, image_shape: ImageShape, styles: int, width: int) -> None:
        channels, size, _ = image_shape
        edges = halvings(size)
        widths = [width * min(2**i, _WIDEST) for i in range(len(edges))]
        stages: dict[str, nn.Module] = {"constant": _Constant(widths[-1], edges[-1])}
        reads: dict[str, tuple[str, ...]] = {"constant": (INPUT,)}
        sizes: list[int] = []
        last, picture = "constant", None
        for i in range(len(edges) - 1, -1, -1):
            first = i == len(edges) - 1
            for inputs, enlarge in ((widths[i], False),) if first else (
                (widths[i + 1], True), (widths[i], False)
            ):  # fmt: skip
                layer = len(sizes)
                name = f"conv{layer + 1}"
                stages[name] = StyledConvolution(inputs, widths[i], styles, layer, layer, edges[i], enlarge)
                reads[name] = (last, INPUT)
                sizes.append(edges[i])
                last = name
            name = "output" if i == 0 else f"image{len(edges) - i}"
            # Images add up; together they shall begin well inside what the tanh lets through.
            stages[name] = ToImage(widths[i], channels, styles, len(sizes), edges[i], 1.0 / len(edges))
            reads[name] = (last, INPUT) if picture is None else (last, INPUT, picture)
            picture = name
        super().__init__(stages, "generator", reads)
        self.layers, self.sizes, self.styles = len(sizes) + 1, tuple(sizes), styles

    def draw_noise(self, n: int, chance: torch.Generator) -> tuple[Tensor, ...]:
        """Noise of one pass for ``n`` images: for each convolution (n, 1, height, width), standard normal."""
        return tuple(
            torch.randn((n, 1, size, size), generator=chance, device=chance.device) for size in self.sizes
        )


class _Halving(nn.Module):
    """Two convolutions and a halving, beside a path with neither activation; both halves together of unit size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = EqualConv2d(inputs, inputs, 3, gain=_GAIN)
        self.conv2 = EqualConv2d(inputs, outputs, 3, gain=_GAIN)
        self.activation = nn.LeakyReLU(_SLOPE)
        self.skip = EqualConv2d(inputs, outputs, 1, bias=False)
        self.halve = nn.AvgPool2d(2)

    def forward(self, h: Tensor) -> Tensor:
        deep = self.activation(self.conv2(self.halve(self.activation(self.conv1(h)))))
        return (deep + self.skip(self.halve(h))) / _GAIN


class _Centre(nn.Module):
    """Images from [0, 1] to [-1, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return 2.0 * x - 1.0


def residual_discriminator(image_shape: ImageShape, width: int) -> StagedNetwork:
    """Images (batch, channels, size, size) in [0, 1] to scores (batch, 1), by residual blocks that halve.

    There is no minibatch statistic, unlike in the paper: an image's score is its own, whatever it is judged with.

    Args:
        image_shape: (channels, size, size).
        width: channels at the image's own size; they double with each halving, up to 4 times as many.
    """
    channels, size, _ = image_shape
    edges = halvings(size)
    widths = [width * min(2**i, _WIDEST) for i in range(len(edges))]
    stages: dict[str, nn.Module] = {
        "stem": nn.Sequential(
            _Centre(), EqualConv2d(channels, widths[0], 1, gain=_GAIN), nn.LeakyReLU(_SLOPE)
        )
    }
    for i in range(1, len(edges)):
        stages[f"block{i}"] = _Halving(widths[i - 1], widths[i])
    stages["mix"] = nn.Sequential(EqualConv2d(widths[-1], widths[-1], 3, gain=_GAIN), nn.LeakyReLU(_SLOPE))
    flat = widths[-1] * edges[-1] ** 2
    stages["fc"] = nn.Sequential(
        nn.Flatten(), EqualLinear(flat, widths[-1], gain=_GAIN), nn.LeakyReLU(_SLOPE)
    )
    stages["score"] = EqualLinear(widths[-1], 1)
    return StagedNetwork(stages, "discriminator")
