"""How long the looks inside a model take: a table of named measurements, each on shipped runs.

    OMP_NUM_THREADS=2 python benchmarks/inside.py             # all of them
    OMP_NUM_THREADS=2 python benchmarks/inside.py "rank units"   # those whose name begins so

Each call is made once before it is timed. Wall-clock seconds depend on what else runs; processor seconds, summed over
threads, depend on it less. The target is what the design asks of two cores.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import latentlab
from latentlab import analysis
from latentlab.config import VAEConfig
from latentlab.models.build import build_model

SCENES = "zoo:scenes-vae"
WIDE = "a VAE of width 64 for scenes, untrained"


@dataclass(frozen=True)
class Measurement:
    """A named call on a run's model, and the seconds it may take on two cores."""

    name: str
    run: str
    call: Callable[[Any], Any]
    target: float | None = None
    proof: str = ""


def ranking(stage: str) -> Measurement:
    """All units of a stage over 64 latents."""
    return Measurement(
        f"rank units, {stage}, 64 latents",
        SCENES,
        lambda model: analysis.rank_units(model, stage, n=64),
        5.0,
        "loop_difference",
    )


def card(name: str, call: Callable[[Any], Any], proof: str) -> Measurement:
    """What the page of layers shows of one unit and one code."""
    return Measurement(f"unit card, {name}", SCENES, call, 0.1, proof)


def wide() -> Any:
    """A decoder whose stages have 64 units, as no shipped one of 64 pixels has."""
    return build_model(VAEConfig(latents=10, width=64), (3, 64, 64), 0)


REGION = (0.25, 0.25, 0.5, 0.5)
MEASUREMENTS: tuple[Measurement, ...] = (
    *(ranking(stage) for stage in ("fc1", "fc2", "fc3", "deconv1", "deconv2", "deconv3")),
    card("draws", lambda m: analysis.unit_draws(m, "deconv2", [3]), "loop_difference"),
    card("isolates", lambda m: analysis.unit_isolates(m, "deconv2", [3]), "loop_difference"),
    card("reads", lambda m: analysis.pixel_reads(m, REGION, stage="deconv2"), "finite_difference"),
    card("graph", lambda m: analysis.network_graph(m), "edges_missed"),
    card("spread, 64 draws", lambda m: analysis.unit_spread(m, "deconv2", n_draws=64), "error_slope"),
    Measurement(
        "Jacobian, 10 latents x 64 x 64 x 3",
        SCENES,
        lambda m: analysis.jacobian(m, dims=range(10)),
        0.3,
        "finite_difference",
    ),
    *(
        Measurement(
            f"datapath, {stage} of {units} units, 32 latents",
            run,
            lambda m, stage=stage: analysis.datapath(m, stages=stage, n=32),
            20.0,
            "masked_distance",
        )
        for run, stage, units in ((WIDE, "deconv2", 64), (WIDE, "deconv3", 64), (SCENES, "deconv3", 32))
    ),
    Measurement(
        "top inputs, 32 units of deconv2, 1024 codes",
        SCENES,
        lambda m: analysis.top_inputs(m, "deconv2", "generator", n=1024),
        proof="outside",
    ),
    Measurement(
        "predictive maps, 256 draws",
        SCENES,
        lambda m: analysis.predictive_maps(m, m.sample(1, 3)),
        proof="error_slope",
    ),
)
"""What is measured; a new look inside adds a line here."""


def main() -> None:
    """Prints the table of the chosen measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", default="", help="only measurements whose name begins so")
    chosen = [m for m in MEASUREMENTS if m.name.startswith(parser.parse_args().name)]
    models: dict[str, Any] = {}
    print("| measurement | seconds | processor seconds | target | certificate |")
    print("| --- | ---: | ---: | ---: | --- |")
    for m in chosen:
        if m.run not in models:
            models[m.run] = wide() if m.run == WIDE else latentlab.Run.open(m.run).model
        model = models[m.run]
        m.call(model)
        wall, cpu = time.perf_counter(), time.process_time()
        result = m.call(model)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        target = "" if m.target is None else f"{m.target:g}"
        proof = f"{m.proof} {result.certificate[m.proof]:.2g}" if m.proof else ""
        print(f"| {m.name} | {wall:.3f} | {cpu:.3f} | {target} | {proof} |", flush=True)


if __name__ == "__main__":
    main()
