"""Losses on sprites beside the formula written out again, and beside published training logs.

    python benchmarks/loss_levels.py --steps 2000 --out levels       # about 20 minutes on 2 CPU cores
    python benchmarks/loss_levels.py --steps 345600 --out levels     # the logs' 30 epochs: hours on a GPU
    python benchmarks/loss_levels.py --steps 2000 --out levels --only beta-vae
    python benchmarks/loss_levels.py --steps 2000 --out levels --published   # beside it the logs' program

For each objective latentlab trains the network of Burgess et al. (2018) at batch 64; beside it the objective's
formula, written here in a dozen lines from its paper, trains a copy of the same first weights on the same batches with
the same noise. Both are in 32 bits. What is printed are means over the last 100 steps: reconstruction and KL, nats per
image, and latents with more than 0.05 nats, as in the published logs (those of YannDubs/disentangling-vae on dSprites,
whose beta-TCVAE has the faulty stratified weights, which is why that estimator is used here). Same formula, same steps:
the two must agree closely; the published figures are of the full length.

The published program's loss differs from its papers' in two more points, which neither column has unless asked for:
it adds the log-weights of beta-TCVAE before the sum over latents, so that its joint carries them ten times (its logs
show a total correlation of -31.1 nats), and it raises the weight of everything but the reconstruction from 0 to 1 over
the first 10,000 steps (annealed-vae's capacity instead, over 100,000). With --published the formula has both, as that
program writes them: the KL of beta-TCVAE by draws, too. It is then another loss than latentlab's, on purpose.

Everything is kept in OUT: the same command with more steps begins anew, the same command again after an interruption
continues.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentlab import config as c
from latentlab.data import open_dataset
from latentlab.models.build import build_model
from latentlab.objectives.build import build_objective
from latentlab.objectives.variational import DataDescription
from latentlab.runs import resolve_device
from latentlab.training.chance import stream_seed
from latentlab.training.fit import fit, resume

FULL = 345_600
"""Steps of 30 epochs of 737,280 images at batch 64."""
ACTIVE = 0.05
ANNEALED = 10_000
"""Steps over which the published program raises the weight of what it adds to the reconstruction."""
LAST = 100

OBJECTIVES: dict[str, tuple[c.ObjectiveConfig, float]] = {
    "vae": (c.BetaVAE(1.0), 5e-4),
    "beta-vae": (c.BetaVAE(4.0), 5e-4),
    "annealed-vae": (c.AnnealedVAE(100.0, c.Schedule("linear", 0.0, 25.0, 100_000)), 1e-3),
    "factor-vae": (c.FactorVAE(6.4), 1e-4),
    "beta-tcvae": (c.BetaTCVAE(6.4, estimator="stratified-faulty"), 5e-4),
}
PUBLISHED = {
    "vae": (17.99, 25.40, 10),
    "beta-vae": (35.61, 15.35, 10),
    "annealed-vae": (81.06, 25.00, 4),
    "factor-vae": (36.63, 21.74, 9),
    "beta-tcvae": (42.21, 13.60, 5),
}
"""Reconstruction, KL and active latents after 30 epochs (FactorVAE: 60)."""


def experiment(name: str, steps: int) -> c.Experiment:
    """What latentlab trains."""
    objective, rate = OBJECTIVES[name]
    return c.Experiment(
        name=f"levels-{name}",
        data=c.DataConfig("sprites"),
        model=c.VAEConfig(latents=10, network="burgess", likelihood="bernoulli"),
        objective=objective,
        max_steps=steps,
        batch_size=64,
        learning_rate=rate,
        precision="fp32",
        log_every=LAST,
        preview_every=0,
        checkpoint_every=1000,
    )


def ours(made: c.Experiment, out: Path, device: str) -> dict[str, float]:
    """Latentlab's own training, or what is left of it."""
    started = (out / "config.json").exists()
    row = (resume(out, device=device) if started else fit(made, out, device=device)).metrics()
    last = {name: float(values[-1]) for name, values in row.items()}
    active = sum(last[f"kl_z{i}"] > ACTIVE for i in range(10))
    return {"reconstruction": last["reconstruction"], "kl": last["kl"], "active": active}


def stratified_as_published(batch: int, n: int) -> Tensor:
    """Weights (batch, batch) with 1 / n in the first column in place of the diagonal: the faulty form, on purpose."""
    m = batch - 1
    found = torch.full((batch, batch), 1.0 / m)
    found.view(-1)[:: m + 1] = 1.0 / n
    found.view(-1)[1 :: m + 1] = (n - m) / (n * m)
    found[m - 1, 0] = (n - m) / (n * m)
    return found.log()


def regulariser(
    name: str, step: int, mean: Tensor, log_var: Tensor, z: Tensor, n: int, published: bool
) -> Tensor:
    """What an objective adds to the reconstruction, without a discriminator's part; ``published``: see above."""
    kl = 0.5 * (mean.square() + log_var.exp() - 1.0 - log_var).mean(0).sum()
    if name == "annealed-vae":
        return 100.0 * (kl - min(25.0, 25.0 * step / 100_000)).abs()
    if name != "beta-tcvae":
        return (4.0 if name == "beta-vae" else 1.0) * kl
    pairs = -0.5 * ((z[:, None] - mean).square() / log_var.exp() + log_var + math.log(2 * math.pi))
    weights = stratified_as_published(len(z), n).to(z.device)
    each = pairs + weights[:, :, None]
    joint = (each.sum(2) if published else pairs.sum(2) + weights).logsumexp(1)
    correlation = (joint - each.logsumexp(1).sum(1)).mean()
    if published:
        prior = -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)
        kl = (pairs.diagonal().sum(0) - prior).mean()
    return kl + 5.4 * correlation


def annealing(name: str, step: int, published: bool) -> float:
    """The weight of everything but the reconstruction at a step."""
    return min(1.0, (step + 1) / ANNEALED) if published and name != "annealed-vae" else 1.0


class Formula:
    """One objective as its paper writes it, or as the published program does, on the same first weights."""

    def __init__(self, name: str, made: c.Experiment, device: torch.device, published: bool = False) -> None:
        self.name, self.made, self.device, self.published = name, made, device, published
        self.data = open_dataset("sprites").to(device)
        model = build_model(made.model, self.data.image_shape, made.seed)
        assert isinstance(model, nn.Module)
        objective = build_objective(made.objective, model, DataDescription.of(self.data), made.seed)
        self.model = model.to(device)
        self.adam = torch.optim.Adam(self.model.parameters(), lr=made.learning_rate)
        self.discriminator = objective.to(device).discriminator if name == "factor-vae" else None
        if self.discriminator is not None:
            self.other_adam = torch.optim.Adam(self.discriminator.parameters(), lr=1e-4, betas=(0.5, 0.9))
        self.step = 0
        self.rows: list[list[float]] = []

    def encode(self, step: int, second: bool = False) -> tuple[Tensor, ...]:
        """Images, means, log-variances and draws of a step's batch."""
        seed = stream_seed(self.made.seed, "batch", 1) if second else self.made.seed
        x = self.data.images(self.data.batch(64, seed, step), self.device)
        mean, log_var = self.model.encoder.run(x).chunk(2, 1)
        chance = torch.Generator(self.device).manual_seed(stream_seed(seed, "noise", step))
        noise = torch.randn(mean.shape, generator=chance, device=self.device)
        return x, mean, log_var, mean + (0.5 * log_var).exp() * noise

    def train_step(self) -> None:
        """One step down the formula."""
        x, mean, log_var, z = self.encode(self.step)
        reconstruction = (
            F.binary_cross_entropy_with_logits(self.model.generator.run(z), x, reduction="sum") / 64
        )
        kls = 0.5 * (mean.square() + log_var.exp() - 1.0 - log_var).mean(0)
        kl = kls.sum()
        added = regulariser(self.name, self.step, mean, log_var, z, len(self.data), self.published)
        if self.discriminator is not None:
            logits = self.discriminator(z)
            added = added + 6.4 * (logits[:, 0] - logits[:, 1]).mean()
        loss = reconstruction + annealing(self.name, self.step, self.published) * added
        self.adam.zero_grad()
        loss.backward(inputs=list(self.model.parameters()))
        self.adam.step()
        if self.discriminator is not None:
            with torch.no_grad():
                other = self.encode(self.step, second=True)[3]
            chance = torch.Generator(self.device).manual_seed(
                stream_seed(self.made.seed, "objective", self.step)
            )
            orders = torch.rand(other.shape, generator=chance, device=self.device).argsort(0)
            drawn, permuted = self.discriminator(z.detach()), self.discriminator(other.gather(0, orders))
            classes = torch.zeros(64, dtype=torch.long, device=self.device)
            cost = 0.5 * (F.cross_entropy(drawn, classes) + F.cross_entropy(permuted, classes + 1))
            self.other_adam.zero_grad()
            cost.backward()
            self.other_adam.step()
        self.step += 1
        if self.step > self.made.max_steps - LAST:
            self.rows.append([reconstruction.item(), kl.item(), *kls.tolist()])

    def train(self, path: Path) -> dict[str, float]:
        """Trains to the end, or what is left of it; keeps its state on the way."""
        if path.is_file():
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.step, self.rows = state["step"], state["rows"]
            for part, kept in zip(self._parts(), state["parts"], strict=True):
                part.load_state_dict(kept)
        while self.step < self.made.max_steps:
            self.train_step()
            if self.step % 1000 == 0 or self.step == self.made.max_steps:
                parts = [part.state_dict() for part in self._parts()]
                torch.save({"step": self.step, "rows": self.rows, "parts": parts}, path)
        means = torch.tensor(self.rows).mean(0)
        return {
            "reconstruction": means[0].item(),
            "kl": means[1].item(),
            "active": int((means[2:] > ACTIVE).sum()),
        }

    def _parts(self) -> list:
        return [self.model, self.adam] + (
            [] if self.discriminator is None else [self.discriminator, self.other_adam]
        )


def main() -> None:
    """Trains both of each objective and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=OBJECTIVES, default=list(OBJECTIVES))
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--published", action="store_true", help="the formula as the published program has it"
    )
    options = parser.parse_args()
    print(f"{options.steps:,} steps of {FULL:,} ({options.steps / FULL:.1%})\n")
    print(
        "| objective | latentlab: reconstruction, KL, active | "
        f"{'the published program' if options.published else 'formula'} beside it | published, full length |"
    )
    print("| --- | --- | --- | --- |")
    for name in options.only:
        made = experiment(name, options.steps)
        folder = options.out / f"{name}-{options.steps}"
        folder.mkdir(parents=True, exist_ok=True)
        found = ours(made, folder / "run", options.device)
        kind = "published" if options.published else "formula"
        device = resolve_device(options.device)
        beside = Formula(name, made, device, options.published).train(folder / f"{kind}.pt")
        levels = folder / ("levels-published.json" if options.published else "levels.json")
        levels.write_text(json.dumps({"latentlab": found, kind: beside}, indent=1))
        published = dict(zip(("reconstruction", "kl", "active"), PUBLISHED[name], strict=True))
        cells = (
            f"{r['reconstruction']:.2f}, {r['kl']:.2f}, {r['active']}" for r in (found, beside, published)
        )
        print("| " + " | ".join([name, *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
