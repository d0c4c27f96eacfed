"""The pooled pair: its stages, its arithmetic against torch's functions, and the reading of its maxima."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from latentlab.models.networks import halvings, pooled


@pytest.mark.parametrize("size", [28, 32, 45, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_halving_is_a_convolution_and_a_stage_of_maxima(size, channels):
    """The fakes: pooling hidden in a convolution's stage, a stride in its place, odd edges that do not fit."""
    encoder, generator = pooled((channels, size, size), 5, 7, width=4, hidden=8)
    count = len(halvings(size)) - 1
    pairs = [name for i in range(1, count + 1) for name in (f"conv{i}", f"pool{i}")]
    assert encoder.names == (*pairs, "fc1", "posterior")
    x = torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    states = encoder.activations(x)
    for i, edge in enumerate(halvings(size)[1:], start=1):
        assert states[f"conv{i}"].shape[2:] == (halvings(size)[i - 1],) * 2
        assert states[f"pool{i}"].shape == (2, 4, edge, edge)
        largest, switches = functional.max_pool2d(states[f"conv{i}"], 2, return_indices=True)
        assert torch.equal(states[f"pool{i}"], largest)
        assert torch.equal(states[f"conv{i}"].flatten(2).gather(2, switches.flatten(2)), largest.flatten(2))
        assert isinstance(encoder.stages[f"pool{i}"], nn.MaxPool2d)
        kernels = [m.kernel_size for m in encoder.stages[f"conv{i}"].modules() if isinstance(m, nn.Conv2d)]
        assert kernels == [(3, 3)]
    assert states["posterior"].shape == (2, 7)
    assert generator.run(torch.zeros(2, 5)).shape == (2, channels, size, size)


def test_only_layers_that_a_deconvolutional_network_can_run_backwards():
    """Would catch: an activation or a normalisation that has no rule for the way back."""
    encoder, _ = pooled((3, 32, 32), 5, 7, width=4, hidden=8)
    kinds = {type(m) for m in encoder.modules() if not list(m.children())}
    assert kinds == {nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.Flatten, nn.Linear}
