"""How fast latentlab trains, beside a bare tuned loop and beside pythae, all in one run.

    python benchmarks/training.py                     # three rounds, about five minutes; the machine must be quiet
    python benchmarks/training.py --rounds 1 --steps 8 --skip-pythae

Every runner trains the same beta-VAE (the networks of Burgess et al., 2018; 10 latents, beta 4, Bernoulli, Adam)
on the same 20,000 sprites, batches of 64 and 256. On the CPU the bare loop and latentlab take turns step by step
in one process: a shared machine drifts by a third within a minute, and two processes one after the other measured
that drift, not the programs. A step is everything from the end of the other's step to its own end, with data,
logs, bar and checkpoints; each is compared with its neighbours, and the ratio is the median over all steps.
pythae, and everything on a GPU, runs in a process of its own: the interval between two optimiser steps after some
to warm up, its median (on a GPU the mean, since there the steps are only queued), processes in turn.

- bare loop: the networks as plain nn.Sequential, uint8 images on the device, channels_last, bf16 where the
  hardware has it, fused Adam, glibc told to keep its memory; nothing is logged.
- latentlab: `latentlab.fit` through Lightning with its bar, logs and checkpoints, same images from memory.
- latentlab, drawn: the same, but every batch is drawn from the whole grid as in a real run.
- pythae 0.1.2: its own trainer and its own BetaVAE, our networks through its API. It is installed into
  .bench-venv, which borrows torch from the environment that runs this script.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PYTHAE_VENV = REPOSITORY / ".bench-venv"
PYTHAE = "pythae==0.1.2"
RUNNERS = ("bare loop", "latentlab", "latentlab, drawn", "pythae 0.1.2")
IMAGES, LATENTS, BETA, RATE, SHAPE = 20_000, 10, 4.0, 5e-4, (1, 64, 64)


class Stopwatch:
    """Notes when each optimiser step ended; torch calls it from any trainer."""

    def __init__(self, device: str, warm: int) -> None:
        from torch.optim.optimizer import register_optimizer_step_post_hook

        self.device, self.warm, self.ends = device, warm, []
        register_optimizer_step_post_hook(self._note)

    def _note(self, *_: object) -> None:
        if self.device == "cuda" and len(self.ends) == self.warm:
            self._wait()
        self.ends.append(time.perf_counter())

    def _wait(self) -> None:
        import torch

        torch.cuda.synchronize()

    def milliseconds(self) -> float:
        """Time of one step after the warm ones."""
        timed = self.ends[self.warm :]
        if self.device == "cuda":
            self._wait()
            return 1e3 * (time.perf_counter() - timed[0]) / (len(timed) - 1)
        return 1e3 * statistics.median(b - a for a, b in itertools.pairwise(timed))


def bare_steps(images, batch: int, device: str):
    """The tuned loop with nothing around it, one step at each `next`; it sets the bar."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    from latentlab.models.networks import burgess
    from latentlab.models.precision import in_bf16
    from latentlab.training.memory import keep_memory

    keep_memory()
    torch.manual_seed(0)
    encoder, generator = (nn.Sequential(*net.stages.values()) for net in burgess(SHAPE, LATENTS, 2 * LATENTS))
    nets = nn.ModuleList([encoder, generator]).to(device=device, memory_format=torch.channels_last)
    adam = torch.optim.Adam(nets.parameters(), lr=RATE, fused=True)
    images = images.to(device)
    half = in_bf16("auto", torch.device(device))
    while True:
        index = torch.randint(len(images), (batch,), device=device)
        x = images[index].to(torch.float32).div_(255)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=half):
            mean, log_var = encoder(x).float().chunk(2, dim=1)
            z = torch.addcmul(mean, torch.randn_like(mean), (0.5 * log_var).exp())
            logits = generator(z).float()
        reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum()
        adam.zero_grad()
        ((reconstruction + BETA * kl) / batch).backward()
        adam.step()
        yield


def train_bare(images, batch: int, steps: int, device: str) -> None:
    """The tuned loop in a process of its own."""
    for _ in itertools.islice(bare_steps(images, batch, device), steps):
        pass


def train_latentlab(images, batch: int, steps: int, device: str, callbacks=()) -> None:
    """`latentlab.fit` as a user calls it; `images` None lets the data set draw them."""
    from latentlab.config import BetaVAE, DataConfig, Experiment, VAEConfig
    from latentlab.training import fit

    if images is not None:
        fit.open_dataset = lambda *_, **__: _in_memory(images)
    experiment = Experiment(
        name="benchmark",
        data=DataConfig("sprites"),
        model=VAEConfig(latents=LATENTS, network="burgess", likelihood="bernoulli"),
        objective=BetaVAE(beta=BETA),
        max_steps=steps,
        batch_size=batch,
        learning_rate=RATE,
        preview_every=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        fit.fit(experiment, Path(folder) / "run", device=device, callbacks=callbacks)


def take_turns(images, held, batch: int, steps: int, warm: int) -> dict[str, float]:
    """Both, latentlab and the bare loop, step by step in one process on the CPU.

    Returns:
        Milliseconds of a step of each, and the median over steps of bare over latentlab, each latentlab step
        compared with the mean of the bare steps before and after it.
    """
    import pytorch_lightning as pl

    bare = bare_steps(held, batch, "cpu")
    turns: list[tuple[float, float]] = []

    class Turns(pl.Callback):
        def on_train_batch_start(self, *_: object) -> None:
            begin = time.perf_counter()
            next(bare)
            turns.append((begin, time.perf_counter()))

    train_latentlab(images, batch, steps, "cpu", [Turns()])
    alone = [end - begin for begin, end in turns][warm:]
    ours = [later[0] - sooner[1] for sooner, later in itertools.pairwise(turns)][warm:]
    ratios = [(a + b) / 2 / own for (a, b), own in zip(itertools.pairwise(alone), ours, strict=True)]
    bare_ms, ours_ms = (1e3 * statistics.median(times) for times in (alone, ours))
    return {"bare loop": bare_ms, "ours": ours_ms, "ratio": statistics.median(ratios)}


def _in_memory(images):
    """A data set of uint8 images (n, channels, height, width) that stay on the training device."""
    import torch

    from latentlab.data.factors import FactorDataset

    class InMemory(FactorDataset):
        held = images

        def _read(self, indices):
            return self.held[indices].to(torch.float32).div_(255)

        def _move(self, device):
            self.held = self.held.to(device)

    return InMemory("benchmark", "sprites drawn beforehand", SHAPE, len(images))


def train_pythae(images, batch: int, steps: int, device: str) -> None:
    """The trainer and BetaVAE of pythae with our networks, as its documentation shows it."""
    import torch
    from pythae.data.datasets import BaseDataset
    from pythae.models import BetaVAE, BetaVAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from torch import nn

    sys.path.insert(0, str(REPOSITORY / "src"))
    from latentlab.models.networks import burgess

    encoder, generator = (nn.Sequential(*net.stages.values()) for net in burgess(SHAPE, LATENTS, 2 * LATENTS))

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.net = encoder

        def forward(self, x):
            mean, log_var = self.net(x).chunk(2, dim=1)
            return ModelOutput(embedding=mean, log_covariance=log_var)

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.net = generator

        def forward(self, z):
            return ModelOutput(reconstruction=self.net(z).sigmoid())

    config = BetaVAEConfig(input_dim=SHAPE, latent_dim=LATENTS, reconstruction_loss="bce", beta=BETA)
    data = (images[torch.arange(steps * batch) % len(images)] / 255.0).float()
    with tempfile.TemporaryDirectory() as folder:
        settings = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=1,
            per_device_train_batch_size=batch,
            learning_rate=RATE,
            keep_best_on_train=True,
            no_cuda=device == "cpu",
        )
        trainer = BaseTrainer(
            model=BetaVAE(config, Encoder(), Decoder()),
            train_dataset=BaseDataset(data, torch.zeros(len(data))),
            training_config=settings,
        )
        trainer.train()


def work(runner: str, batch: int, steps: int, warm: int, device: str, images: Path) -> None:
    """One process: train, then print the times of a step as the last line."""
    import numpy as np
    import torch

    held = torch.from_numpy(np.load(images))
    shown = None if runner == "latentlab, drawn" else held
    with contextlib.redirect_stdout(sys.stderr):
        if device == "cpu" and runner.startswith("latentlab"):
            found = take_turns(shown, held, batch, steps + warm + 2, warm)
            found[runner] = found.pop("ours")
        else:
            watch = Stopwatch(device, warm)
            train = {"bare loop": train_bare, "pythae 0.1.2": train_pythae}.get(runner, train_latentlab)
            train(shown, batch, steps + warm + 1, device)
            found = {runner: watch.milliseconds()}
    print(json.dumps(found))


def draw_images(path: Path) -> None:
    """Write the sprites that every runner sees: uint8 (n, 1, 64, 64)."""
    import numpy as np

    from latentlab.data import open_dataset

    sprites = open_dataset("sprites")
    parts = [sprites.images(part) for part in sprites.sample(IMAGES, seed=0).split(2000)]
    np.save(path, np.concatenate([part.mul(255).round().byte().numpy() for part in parts]))


def pythae_python() -> str:
    """The interpreter of pythae's own environment, made at the first call."""
    python = PYTHAE_VENV / "bin" / "python"
    done = PYTHAE_VENV / ".installed"
    if not done.exists():
        print(f"Installing {PYTHAE} into {PYTHAE_VENV.name} (once).", file=sys.stderr)
        venv.create(PYTHAE_VENV, with_pip=True, clear=True)
        site = sysconfig.get_paths(vars={"base": str(PYTHAE_VENV), "platbase": str(PYTHAE_VENV)})["purelib"]
        # The same torch for all; what pythae brings in older versions lies before it on the path.
        (Path(site) / "torch.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", PYTHAE], check=True, stdout=sys.stderr)
        done.touch()
    return str(python)


def measure(runner: str, batch: int, arguments: argparse.Namespace, images: Path) -> dict[str, float]:
    """Milliseconds of one step of a runner, and of the bare loop beside it, from a fresh process."""
    python = pythae_python() if runner.startswith("pythae") else sys.executable
    command = [python, __file__, "--work", runner, "--batch", str(batch), "--images", str(images)]
    command += ["--steps", str(_steps(arguments, batch)), "--warm", str(arguments.warm)]
    command += ["--device", arguments.device]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{runner} failed at batch {batch}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _steps(arguments: argparse.Namespace, batch: int) -> int:
    return max(4, arguments.steps * 128 // (64 + batch)) if arguments.device == "cpu" else arguments.steps


def describe_machine(device: str) -> str:
    """One line that a reader of the table needs."""
    import torch

    from latentlab.models.precision import in_bf16

    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    if device == "cuda":
        name = torch.cuda.get_device_name(0)
    kind = "bf16" if in_bf16("auto", torch.device(device)) else "float32"
    load = os.getloadavg()[0]
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, {kind}; load before {load:.1f}"


def table(times: dict[tuple[str, int], list[float]], ratios: dict[tuple[str, int], list[float]]) -> str:
    """The markdown table of medians, and the ratios that matter."""
    batches = sorted({batch for _, batch in times})
    runners = [runner for runner in RUNNERS if (runner, batches[0]) in times]
    middle = {key: statistics.median(found) for key, found in times.items()}
    head = "".join(f" B {batch}: ms/step | img/s |" for batch in batches)
    lines = [f"| runner |{head}", "| --- |" + " ---: | ---: |" * len(batches)]
    for runner in runners:
        cells = ((middle[runner, batch], batch) for batch in batches)
        lines.append(f"| {runner} |" + "".join(f" {ms:.1f} | {1e3 * b / ms:,.0f} |" for ms, b in cells))
    lines.append("")
    for other in (runner for runner in runners if not runner.startswith("latentlab")):
        for ours in (runner for runner in runners if runner.startswith("latentlab")):
            said = []
            for batch in batches:
                in_turn = ratios.get((ours, batch)) if other == "bare loop" else None
                rounds = zip(times[other, batch], times[ours, batch], strict=False)
                spread = in_turn or [a / b for a, b in rounds]
                ratio = statistics.median(spread)
                said.append(f"{ratio:.2f} at B {batch} (rounds {min(spread):.2f} to {max(spread):.2f})")
            lines.append(f"- images a second, {ours} / {other}: {', '.join(said)}")
    return "\n".join(lines)


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--steps", type=int, default=60, help="timed steps at batch 64; fewer at larger batches"
    )
    parser.add_argument("--warm", type=int, default=6, help="steps before the clock counts")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--skip-pythae", action="store_true")
    for name, kind in (("--work", str), ("--batch", int), ("--images", Path)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(
            arguments.work,
            arguments.batch,
            arguments.steps,
            arguments.warm,
            arguments.device,
            arguments.images,
        )
        return

    runners = [runner for runner in RUNNERS if not (arguments.skip_pythae and runner.startswith("pythae"))]
    if arguments.device == "cpu":
        runners.remove("bare loop")  # it runs beside the others
    times: dict[tuple[str, int], list[float]] = {}
    ratios: dict[tuple[str, int], list[float]] = {}
    machine = describe_machine(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "sprites.npy"
        draw_images(images)
        for turn in range(arguments.rounds):
            for batch in arguments.batches:
                for runner in runners:
                    found = measure(runner, batch, arguments, images)
                    if "ratio" in found:
                        ratios.setdefault((runner, batch), []).append(found.pop("ratio"))
                    for name, milliseconds in found.items():
                        times.setdefault((name, batch), []).append(milliseconds)
                    said = ", ".join(f"{name} {milliseconds:.1f} ms" for name, milliseconds in found.items())
                    print(f"round {turn + 1}, B {batch}: {said}", file=sys.stderr, flush=True)
    print(f"{machine}; medians of {arguments.rounds} rounds in turn\n")
    print(table(times, ratios))


if __name__ == "__main__":
    main()
