"""Small runs with planted weights, which the page tests and the browser tests open."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from latentlab.config import BetaVAE, BlockConfig, DataConfig, Experiment, VAEConfig
from latentlab.models.build import build_model
from latentlab.runs import METRICS, WEIGHTS, Run, save_weights

LATENTS = 6
ACTIVE = (4, 1)  # coordinates that carry something, by falling KL; all others are planted dead


@pytest.fixture(autouse=True)
def jobs_end_with_their_test() -> Iterator[None]:
    """No computation of an earlier test takes a core, or a heavy job's turn, from a later one."""
    yield
    if jobs := sys.modules.get("latentlab.app.jobs"):
        jobs.end_all(60.0)


def planted_run(
    folder: Path,
    name: str,
    seed: int,
    data: DataConfig | None = None,
    blocks: list[BlockConfig] | None = None,
    width: int = 8,
    hidden: int = 32,
) -> Run:
    """A run with random weights whose encoder speaks through the latents ACTIVE only."""
    config = VAEConfig(latents=LATENTS, blocks=blocks, width=width, hidden=hidden)
    experiment = Experiment(
        name=name, data=data or DataConfig("sprites"), model=config, objective=BetaVAE(4.0)
    )
    run = Run.create(folder / name, experiment, (1, 64, 64))
    model = build_model(config, (1, 64, 64), seed)
    with torch.no_grad():
        head = next(m for m in reversed(list(model.encoder.modules())) if isinstance(m, torch.nn.Linear))
        dim = model.latent_space.dim
        images = (
            run.dataset().images(run.dataset().sample(64, 0)) if data is None else torch.rand(64, 1, 64, 64)
        )
        features = model.encoder.run(images)
        mean = features[:, :dim]
        gain = torch.zeros(dim)
        for rank, i in enumerate(ACTIVE):
            gain[i] = (1.5 - 0.5 * rank) / mean[:, i].std()
        shift = -mean.mean(0) * gain
        head.weight[:dim] *= gain[:, None]
        head.bias[:dim] = head.bias[:dim] * gain + shift
        head.weight[dim:] = 0.0
        head.bias[dim:] = 0.0
        for i in ACTIVE:
            head.bias[dim + i] = -3.0
        for module in model.generator.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.ConvTranspose2d):
                module.weight *= 3.2
                module.bias *= 0.0
    return keep(run, model)


def keep(run: Run, model: torch.nn.Module) -> Run:
    """The run with these weights, a row of figures and a card."""
    name = run.name
    save_weights(model, run.path / WEIGHTS)
    (run.path / METRICS).write_text("step,reconstruction,kl\n100,250.5,12.25\n", encoding="utf-8")
    (run.path / "README.md").write_text(
        f"---\ntags: [vae]\n---\n# Card of {name}\n\n![away](https://example.org/x.png)\n", encoding="utf-8"
    )
    return Run.open(run.path)


def kinds_run(folder: Path) -> Run:
    """A run whose generator draws another image for each of three kinds, and reads kind and style off any image."""
    blocks = [BlockConfig("kind", 3, "categorical"), BlockConfig("style", 2)]
    config = VAEConfig(blocks=blocks, width=8, hidden=32)
    run = Run.create(folder / "kinds", Experiment(name="kinds", model=config), (1, 64, 64))
    model = build_model(config, (1, 64, 64), 7)
    with torch.no_grad():
        for network, gain in ((model.generator, 3.2), (model.encoder, 2.0)):
            for module in network.modules():
                if isinstance(module, torch.nn.Linear | torch.nn.ConvTranspose2d | torch.nn.Conv2d):
                    module.weight *= gain
                    module.bias *= 0.0
    return keep(run, model)


def planted_workspace(folder: Path) -> dict[str, Run]:
    """Small runs of different weights, one of full size, one with blocks; one each without its data, its weights,
    a readable configuration, and one with damaged weights."""
    runs = {
        "alpha": planted_run(folder, "alpha", 1),
        "beta": planted_run(folder, "beta", 2),
        "blocks": planted_run(folder, "blocks", 3, blocks=[BlockConfig("pose", 2), BlockConfig("kind", 4)]),
        "kinds": kinds_run(folder),
        "full": planted_run(folder, "full", 6, width=32, hidden=256),  # as large as the shipped ones
        "homeless": planted_run(folder, "homeless", 4, data=DataConfig(f"folder:{folder / 'nowhere'}")),
    }
    damaged = planted_run(folder, "damaged", 5)
    (damaged.path / WEIGHTS).write_bytes(b"not weights at all")
    garbled = folder / "garbled"
    garbled.mkdir()
    (garbled / "config.json").write_text(json.dumps({"format": 99}), encoding="utf-8")
    Run.create(folder / "unborn", Experiment(name="unborn", model=VAEConfig(latents=2)), (1, 64, 64))
    return runs


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The planted runs, by name; their folder is ``planted["alpha"].path.parent``."""
    return planted_workspace(tmp_path_factory.mktemp("runs"))
