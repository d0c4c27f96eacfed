"""A training run small enough to repeat: sprites of 32 pixels, a narrow network."""

import dataclasses

import pytest

from latentlab.config import BetaVAE, DataConfig, Experiment, VAEConfig

TINY = Experiment(
    name="tiny",
    data=DataConfig("sprites", {"image_size": 32}),
    model=VAEConfig(latents=4, width=4, hidden=8),
    objective=BetaVAE(beta=2.0),
    max_steps=12,
    batch_size=8,
    log_every=4,
    preview_every=0,
    checkpoint_every=6,
    keep_memory=False,
)


@pytest.fixture
def tiny():
    """Makes the small experiment, with changes."""
    return lambda **changes: dataclasses.replace(TINY, **changes)
