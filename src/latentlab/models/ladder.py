"""The networks of the variational ladder autoencoder: every level of latents has a depth of its own.

Level 1 stands next to the image, level L is the deepest. What takes many layers to work out can only be said by a
deep level, and what a few layers can draw is cheapest said by a shallow one; so fine and coarse features come apart
without any further term in the objective. The levels' priors are independent, so the model that holds these
networks is a VAE like any other, with one block of latents a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

from latentlab.models.networks import ImageShape, Pair, halvings, upsampling
from latentlab.models.staged import INPUT, StagedNetwork


class Part(nn.Module):
    """A run of the coordinates of a code: what one level reads of it.

    Args:
        start: the first coordinate.
        stop: the one behind the last.
    """

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.stop = start, stop

    def forward(self, z: Tensor) -> Tensor:
        """Codes (batch, dim) to (batch, stop - start)."""
        return z[:, self.start : self.stop]


class Join(nn.Module):
    """Several states side by side, along units or channels."""

    def forward(self, *states: Tensor) -> Tensor:
        """States (batch, …) to one (batch, all of their units, …)."""
        return torch.cat(states, dim=1)


class Mix(nn.Module):
    """relu(conv(both states side by side)): where a level enters the generator, so that it meets those above.

    Args:
        inputs: channels of both together.
        outputs: channels of the new state.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, above: Tensor, level: Tensor) -> Tensor:
        """Two states (batch, channels, height, width) to one of ``outputs`` channels."""
        return self.relu(self.conv(torch.cat((above, level), dim=1)))


def depths(levels: int, size: int) -> list[int]:
    """After how many halvings of the image each level is read off and enters again, level 1 first.

    Raises:
        ValueError: if the image is halved less often than there are levels.
    """
    deepest = len(halvings(size)) - 1
    if levels > deepest:
        raise ValueError(
            f"An image of {size} pixels is halved {deepest} times, so it has room for {deepest} levels at most; "
            f"got {levels}."
        )
    return [max(1, round(k * deepest / levels)) for k in range(1, levels + 1)]


def ladder(image_shape: ImageShape, levels: Sequence[int], width: int = 32, hidden: int = 256) -> Pair:
    """An encoder that is read off at several depths, and a generator that takes each level in at the same depth.

    A level above the deepest is read by one strided convolution and a linear layer, and enters by their mirror.

    Args:
        image_shape: (channels, size, size).
        levels: number of normal latents of each level, level 1 first; so their blocks stand in the code.
        width: channels after the first halving; they double with each, up to 4 times as many.
        hidden: units of the fully connected layer, which only the deepest level has.

    Returns:
        The encoder, images to means and log-variances of block after block, and the generator.

    Raises:
        ValueError: as ``depths`` says.

    References:
        Learning hierarchical features from generative models (Zhao, Song and Ermon, 2017),
        https://arxiv.org/abs/1702.08396; states are joined by concatenation and a convolution
    """
    channels, size, _ = image_shape
    sizes, at = halvings(size), depths(len(levels), size)
    deepest = len(sizes) - 1
    widths = [channels, *(width * min(2**i, 4) for i in range(deepest))]
    flat = widths[deepest] * sizes[deepest] ** 2
    names = [f"level{k}" for k in range(1, len(levels) + 1)]
    shallow = dict(zip(at[:-1], names[:-1], strict=True))

    encoder: dict[str, nn.Module] = {}
    reads: dict[str, tuple[str, ...]] = {"posterior": tuple(names)}
    for d in range(1, deepest + 1):
        down = nn.Conv2d(widths[d - 1], widths[d], 4, stride=2, padding=1)
        encoder[f"conv{d}"] = nn.Sequential(down, nn.ReLU(inplace=True))
        reads[f"conv{d}"] = (INPUT if d == 1 else f"conv{d - 1}",)
    encoder["fc1"] = nn.Sequential(nn.Flatten(), nn.Linear(flat, hidden), nn.ReLU(inplace=True))
    for d, name, dim in zip(at, names, levels, strict=True):
        if d == deepest:
            encoder[name], reads[name] = nn.Linear(hidden, 2 * dim), ("fc1",)
            continue
        strided = nn.Conv2d(widths[d], widths[d], 4, stride=2, padding=1)
        head = nn.Linear(widths[d] * sizes[d + 1] ** 2, 2 * dim)
        encoder[name] = nn.Sequential(strided, nn.ReLU(inplace=True), nn.Flatten(), head)
        reads[name] = (f"conv{d}",)
    encoder["posterior"] = Join()

    ends = [0, *accumulate(levels)]
    part = {name: Part(ends[k], ends[k + 1]) for k, name in enumerate(names)}
    dims = dict(zip(names, levels, strict=True))
    top = names[-1]
    generator: dict[str, nn.Module] = {
        top: nn.Sequential(part[top], nn.Linear(dims[top], hidden), nn.ReLU(inplace=True)),
        "fc1": nn.Sequential(
            nn.Linear(hidden, flat),
            nn.ReLU(inplace=True),
            nn.Unflatten(1, (widths[deepest], sizes[deepest], sizes[deepest])),
        ),
    }
    enters: dict[str, tuple[str, ...]] = {top: (INPUT,)}
    state = "fc1"
    for d in range(deepest - 1, 0, -1):
        up = upsampling(widths[d + 1], widths[d], sizes[d + 1], sizes[d])
        name = f"deconv{deepest - d}"
        generator[name], enters[name] = nn.Sequential(up, nn.ReLU(inplace=True)), (state,)
        state = name
        if d in shallow:
            name, small = shallow[d], sizes[d + 1]
            generator[name] = nn.Sequential(
                part[name],
                nn.Linear(dims[name], widths[d] * small**2),
                nn.ReLU(inplace=True),
                nn.Unflatten(1, (widths[d], small, small)),
                upsampling(widths[d], widths[d], small, sizes[d]),
                nn.ReLU(inplace=True),
            )
            mix = name.replace("level", "mix")
            generator[mix] = Mix(2 * widths[d], widths[d])
            enters[name], enters[mix] = (INPUT,), (state, name)
            state = mix
    generator["output"] = upsampling(widths[1], channels, sizes[1], sizes[0])
    enters["output"] = (state,)
    return StagedNetwork(encoder, "encoder", reads), StagedNetwork(generator, "generator", enters)
