"""Layers whose weight is divided by its largest singular value, so that each stretches nothing by more than one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

_FIRST_ITERATIONS = 15


class Spectral(nn.Module):
    """What both layers share: an estimate of the weight's largest singular value.

    The weight is read as a matrix of one row an output. A forward pass is a pure function of weight and buffers,
    in training as in evaluation; ``update`` alone moves the estimate, by one power iteration an optimiser step.

    Attributes:
        u: left singular vector (outputs,), a buffer.
        v: right singular vector (inputs x kernel,), a buffer.

    References:
        Spectral normalization for generative adversarial networks (Miyato et al., 2018),
        https://arxiv.org/abs/1802.05957. There the iteration is made at every forward pass in training; here
        once before each step of the discriminator, so that all passes of a step see one and the same function.
    """

    weight: Tensor
    u: Tensor
    v: Tensor

    def _start(self) -> None:
        matrix = self.weight.detach().flatten(1)
        self.register_buffer("u", normalize(torch.empty_like(matrix[:, 0]).normal_(), dim=0))
        self.register_buffer("v", torch.zeros_like(matrix[0]))
        self.update(_FIRST_ITERATIONS)

    @torch.no_grad()
    def update(self, iterations: int = 1) -> None:
        """Moves the singular vectors towards those of the weight as it is now, by power iteration."""
        matrix = self.weight.flatten(1)
        u, v = self.u, self.v
        for _ in range(iterations):
            v = normalize(matrix.T @ u, dim=0)
            u = normalize(matrix @ v, dim=0)
        self.u.copy_(u)
        self.v.copy_(v)

    def sigma(self) -> Tensor:
        """The largest singular value as estimated, a scalar with a gradient to the weight."""
        with torch.autocast(self.weight.device.type, enabled=False):
            return torch.dot(self.u, self.weight.flatten(1) @ self.v)

    def normalised(self) -> Tensor:
        """The weight that the layer works with: its own over ``sigma``."""
        return self.weight / self.sigma()


class SpectralConv2d(nn.Conv2d, Spectral):
    """A convolution with the weight, as a matrix (outputs, inputs x kernel), over its largest singular value."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, padding=padding)
        self._start()

    def forward(self, input: Tensor) -> Tensor:
        """(batch, inputs, height, width) to (batch, outputs, height', width')."""
        return self._conv_forward(input, self.normalised(), self.bias)


class SpectralLinear(nn.Linear, Spectral):
    """A fully connected layer with the weight over its largest singular value."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self._start()

    def forward(self, input: Tensor) -> Tensor:
        """(batch, inputs) to (batch, outputs)."""
        return linear(input, self.normalised(), self.bias)


def update_norms(module: nn.Module) -> None:
    """Moves the estimates of every spectral layer in a module by one power iteration."""
    for layer in module.modules():
        if isinstance(layer, Spectral):
            layer.update()
