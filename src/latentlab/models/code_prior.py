"""A prior over rows of codebook indices: each index given all that stand before it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from latentlab.models.precision import full

_HEAD = 16
"""Units of an attention head."""

_ROWS = 256
"""Rows drawn at a time."""


class _Layer(nn.Module):
    """Causal self-attention and two linear layers, each added to what it read, after a layer norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // _HEAD
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width)
        self.gather = nn.Linear(width, width)
        self.inner = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))

    def forward(self, h: Tensor) -> Tensor:
        batch, length, width = h.shape
        parts = self.project(self.norm1(h)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        h = h + self.gather(seen.transpose(1, 2).reshape(batch, length, width))
        return h + self.inner(self.norm2(h))


class CodePrior(nn.Module):
    """p(k_1) p(k_2 | k_1) … p(k_P | k_1 … k_{P-1}) over P indices, by a small causal transformer.

    Args:
        size: number of codes.
        positions: indices in a row, P.
        width: units of a position, a multiple of 16.
        layers: layers of the transformer.

    References:
        Attention is all you need (Vaswani et al., 2017), https://arxiv.org/abs/1706.03762, with the layer norm before
        each part
    """

    def __init__(self, size: int, positions: int, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.size, self.positions = size, positions
        self.codes = nn.Embedding(size + 1, width)  # the last one stands before the first position
        self.places = nn.Embedding(positions, width)
        self.layers = nn.ModuleList(_Layer(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, size)

    def forward(self, indices: Tensor) -> Tensor:
        """Log probabilities of every code at each place, given the indices before it.

        Args:
            indices: (batch, length) whole numbers 0 to size - 1, of the first ``length`` positions, at most P.

        Returns:
            Nats (batch, min(length + 1, P), size): row i is log p(. | k_1 … k_i), so the first depends on nothing.
        """
        start = torch.full((len(indices), 1), self.size, dtype=torch.long, device=indices.device)
        read = torch.cat([start, indices], dim=1)[:, : self.positions]
        h = self.codes(read) + self.places.weight[: read.shape[1]]
        for layer in self.layers:
            h = layer(h)
        return full(self.output(self.norm(h))).log_softmax(-1)

    def log_prob(self, indices: Tensor) -> Tensor:
        """Log p(k_i | those before it) of rows of indices (batch, P), nats (batch, P); its sum is that of the row."""
        return self(indices).gather(2, indices[:, :, None]).squeeze(2)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draws rows of indices (n, P), one position after the other.

        Args:
            n: number of rows.
            generator: on the CPU, so that equal seeds draw alike on every device; the only source of chance.
        """
        device = self.output.weight.device
        chance = torch.rand((n, self.positions), generator=generator).to(device)
        drawn = []
        for part in chance.split(_ROWS):
            rows = torch.empty((len(part), 0), dtype=torch.long, device=device)
            for i in range(self.positions):
                below = self(rows)[:, i].exp().cumsum(-1)
                # Rounding may leave the last sum below 1; nothing lies above the last code.
                index = (below <= part[:, i : i + 1] * below[:, -1:]).sum(1).clamp_max(self.size - 1)
                rows = torch.cat([rows, index[:, None]], dim=1)
            drawn.append(rows)
        return (
            torch.cat(drawn) if drawn else torch.empty((0, self.positions), dtype=torch.long, device=device)
        )
