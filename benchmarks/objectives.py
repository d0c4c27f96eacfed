"""What a training step costs under each objective, as a ratio to beta-VAE's, all in one process.

    python benchmarks/objectives.py                                  # about a minute; the machine must be quiet
    python benchmarks/objectives.py --precision bf16 --batches 256
    python benchmarks/objectives.py --device cuda --steps 200
    OMP_NUM_THREADS=1 python benchmarks/objectives.py --clock cpu    # where others are at work on the machine

Every objective trains the same VAE (the networks of Burgess et al., 2018; 10 latents, Bernoulli) on the same 4,000
sprites of 64 pixels, held in memory. The objectives take turns step by step, with a step of beta-VAE before and
after each: a shared machine drifts by a third within a minute, and runs one after the other would measure that
drift. A step is a whole one: batches, encoder, generator, loss, gradients, optimisers and what is logged. Each
is compared with the mean of its two neighbours; the ratio is the median over all rounds, its spread the quartiles.

"beta-vae, again" is beta-VAE against itself: how far a ratio strays by chance. "beta-vae, ends a row" says what
is only logged costs (mutual information, total correlation, dimension-wise KL, of up to 2,048 further images): training
measures them at the last step of each row of metrics.csv, by default one in a hundred, so a hundredth of what that
row has beyond 1 is paid; the last line says it. All other rows are timed without, so that a step is like the next.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

IMAGES, SHAPE = 4000, (1, 64, 64)
BARS = {"fp32": 2.2, "bf16": 1.8}
"""The most that FactorVAE may cost, by arithmetic; every other objective: 1.3."""
ROW = "beta-vae, ends a row"


def held_in_memory():
    """Sprites drawn beforehand, as a data set."""
    import torch

    from latentlab.data import open_dataset
    from latentlab.data.factors import FactorDataset

    sprites = open_dataset("sprites")
    drawn = torch.cat([sprites.images(part) for part in sprites.sample(IMAGES, seed=0).split(1000)])

    class InMemory(FactorDataset):
        held = drawn.mul(255).round().byte()

        def _read(self, indices):
            return self.held[indices].to(torch.float32).div_(255)

        def _move(self, device):
            self.held = self.held.to(device)

    return InMemory("benchmark", "sprites drawn beforehand", SHAPE, IMAGES)


def trainings(batch: int, precision: str, device: str, only: list[str]) -> dict[str, object]:
    """A training of each objective, by the name of its row, and two more of beta-VAE."""
    import torch

    from latentlab import config
    from latentlab.models.build import build_model
    from latentlab.objectives.build import build_objective
    from latentlab.objectives.variational import DataDescription
    from latentlab.training.memory import keep_memory
    from latentlab.training.vae import VAETraining

    keep_memory()
    rows = {
        "beta-vae": config.BetaVAE(4.0),
        "beta-vae, again": config.BetaVAE(4.0),
        ROW: config.BetaVAE(4.0),
        "annealed-vae": config.AnnealedVAE(),
        "beta-tcvae, weighted": config.BetaTCVAE(),
        "beta-tcvae, stratified": config.BetaTCVAE(estimator="stratified"),
        "dip-vae i": config.DIPVAE("i"),
        "dip-vae ii": config.DIPVAE("ii"),
        "info-vae": config.InfoVAE(),
        "factor-vae": config.FactorVAE(),
    }
    data, found = held_in_memory(), {}
    for name, objective in rows.items():
        if only and name != "beta-vae" and not any(name.startswith(start) for start in only):
            continue
        experiment = config.Experiment(
            model=config.VAEConfig(), objective=objective, batch_size=batch, precision=precision
        )
        model = build_model(experiment.model, SHAPE)
        training = VAETraining(
            model, build_objective(objective, model, DataDescription.of(data)), data, experiment
        )
        training.to(torch.device(device))
        training.on_fit_start()
        optimisers = training.configure_optimizers()
        training.optimizers = lambda use_pl_optimizer=False, held=optimisers: held
        if name == ROW:
            plain = training._measured
            training._measured = lambda plain=plain, own=training: _at_a_rows_end(own, plain)
        else:
            training._measured = lambda: {}
        found[name] = training
    return found


def _at_a_rows_end(training, plain):
    step, training.step = training.step, training.experiment.log_every - 1
    try:
        return plain()
    finally:
        training.step = step


def take_turns(
    batch: int, precision: str, device: str, steps: int, warm: int, only: list[str], clock: str
) -> dict[str, list[float]]:
    """Milliseconds of the steps of beta-VAE, and of the others as ratios to their neighbours."""
    import torch

    now = time.process_time if clock == "cpu" else time.perf_counter
    own = trainings(batch, precision, device, only)
    first = own.pop("beta-vae")

    def timed(training) -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        begin = now()
        training.training_step(0, 0)
        if device == "cuda":
            torch.cuda.synchronize()
        return 1e3 * (now() - begin)

    found: dict[str, list[float]] = {"beta-vae": []}
    for turn in range(steps + warm):
        before = timed(first)
        for name, training in own.items():
            spent, after = timed(training), timed(first)
            if turn >= warm:
                found["beta-vae"].append(after)
                found.setdefault(name, []).append(spent / (0.5 * (before + after)))
            before = after
    return found


def describe_machine(device: str) -> str:
    """One line that a reader of the table needs."""
    import torch

    name = torch.cuda.get_device_name(0) if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return (
        f"{name}, torch {torch.__version__}; load before {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )


def main() -> None:
    """Measure, and print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--steps", type=int, default=12, help="rounds at batch 64; fewer at larger ones")
    parser.add_argument("--warm", type=int, default=2)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: time this process had")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="rows that begin with these")
    arguments = parser.parse_args()
    print(f"{describe_machine(arguments.device)}; {arguments.precision}, {arguments.clock} time\n")
    print("| objective |" + "".join(f" B {b}: ratio (quartiles) |" for b in arguments.batches))
    print("| --- |" + " --- |" * len(arguments.batches))
    columns = []
    for batch in arguments.batches:
        steps = (
            arguments.steps if arguments.device == "cuda" else max(5, arguments.steps * 96 // (32 + batch))
        )
        columns.append(
            take_turns(
                batch,
                arguments.precision,
                arguments.device,
                steps,
                arguments.warm,
                arguments.only,
                arguments.clock,
            )
        )
    for name in columns[0]:
        cells = []
        for column in columns:
            low, middle, high = statistics.quantiles(column[name], n=4)
            cells.append(
                f"{middle:.1f} ms" if name == "beta-vae" else f"{middle:.2f} ({low:.2f} to {high:.2f})"
            )
        print(f"| {name} | " + " | ".join(cells) + " |")
    if ROW in columns[0]:
        from latentlab.config import Experiment

        every = Experiment().log_every
        paid = (1.0 + (statistics.median(column[ROW]) - 1.0) / every for column in columns)
        print(f"\nWith a row every {every} steps, beta-vae: " + ", ".join(f"{ratio:.3f}" for ratio in paid))
    print(f"\nBars: factor-vae {BARS[arguments.precision]}, every other objective 1.3.")
    print(f"Load after {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()
