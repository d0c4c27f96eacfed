"""Building a model: weights are a function of the seed alone, and nothing else in the process takes part."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from latentlab.config import VAEConfig
from latentlab.models.build import build_model
from latentlab.models.contract import weights_digest
from latentlab.models.networks import NETWORKS


def small(network: str) -> VAEConfig:
    return VAEConfig(network=network, width=4, hidden=8, likelihood="gaussian", learn_scale=True)


@pytest.mark.parametrize("network", NETWORKS)
def test_weights_are_those_of_torchs_own_initialisation_with_that_seed(network):
    """Fails another order or source of draws: runs of earlier versions would no longer be repeated."""
    built = build_model(small(network), (1, 28, 28), seed=3)
    again = build_model(small(network), (1, 28, 28), seed=99)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        for module in again.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    assert weights_digest(built) == weights_digest(again)


@pytest.mark.parametrize("network", NETWORKS)
def test_no_global_generator_is_read_or_moved(network, monkeypatch):
    """Fails seeding the process and putting it back: other threads, and a GPU's generator, would notice."""

    def refuse(seed):
        raise AssertionError("the process was seeded")

    for owner in (torch, torch.random, torch.cuda):
        monkeypatch.setattr(owner, "manual_seed", refuse)
    before = torch.get_rng_state()
    digest = weights_digest(build_model(small(network), (1, 28, 28), seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert weights_digest(build_model(small(network), (1, 28, 28), seed=1)) == digest
    torch.set_rng_state(before)


def test_threads_that_build_at_once_get_equal_weights():
    """Fails one generator for all threads: builds at the same time would draw from each other's stream."""
    config = VAEConfig(width=16, hidden=64)
    alone = weights_digest(build_model(config, (1, 64, 64), seed=7))
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: weights_digest(build_model(config, (1, 64, 64), seed=7)), range(18)))
    assert found == [alone] * 18


def test_on_the_meta_device_a_giant_has_shapes_and_no_memory():
    """Fails tensors that are made elsewhere than under the chosen device."""
    with torch.device("meta"):
        model = build_model(VAEConfig(width=512, hidden=4096, likelihood="gaussian"), (3, 128, 128))
    assert all(t.device.type == "meta" for t in model.state_dict().values())
    assert sum(t.numel() for t in model.state_dict().values()) > 10**8
