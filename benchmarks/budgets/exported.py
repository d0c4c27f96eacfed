"""Runs as single files: size, first frame, and how many pictures a second the browser engine draws."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from budgets.chromium import Explorer, until
from budgets.drags import at_work, drag, expect, rate_of
from budgets.finding import Finding

LARGEST_FILE = 3.0  # MB (10**6 bytes)
FIRST_FRAME = 1000.0  # milliseconds from the start of the navigation
ROUNDS = 3
DRAGGED = "zoo:scenes-vae"


def files(explorer: Explorer) -> Iterator[Finding]:
    """Every shipped run exported and opened from disk, without a network."""
    from latentlab import Run
    from latentlab.export import export_html
    from latentlab.runs import zoo_runs

    names = ["zoo:scenes-beta-vae"] if explorer.smoke else [summary.name for summary in zoo_runs()]
    sizes, firsts, dragged = {}, {}, None
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            path = export_html(Run.open(name, device="cpu"), Path(folder, "page.html"))
            sizes[name] = path.stat().st_size / 1e6
            times = []
            for _ in range(1 if explorer.smoke else ROUNDS):
                with explorer.page(path.as_uri(), offline=True) as page:
                    until(page, "window.__latentlab?.largest_difference !== undefined")
                    times.append(page.evaluate("window.__latentlab.first_frame_ms"))
                    if name == DRAGGED and dragged is None:
                        dragged = drag(page.locator("input.ll-slider:visible").first, 4.0)
            firsts[name] = float(np.median(times))
    large, slow = max(sizes, key=sizes.__getitem__), max(firsts, key=firsts.__getitem__)
    told = f"the largest of {len(names)}, {large}"
    yield Finding("HTML page, size", sizes[large], "MB", LARGEST_FILE, more=told)
    told = f"the slowest of {len(names)}, {slow}; the quickest {min(firsts.values()):.0f}"
    yield Finding("HTML page, first frame", firsts[slow], "ms", FIRST_FRAME, more=told)
    if dragged is not None:
        yield rate_of(f"drag, exported page, {DRAGGED}", dragged)


def largest_decoder(explorer: Explorer) -> Iterator[Finding]:
    """The browser engine on the largest decoder that it has a budget for, on Traverse and in an exported page."""
    from latentlab.export import export_html

    seconds = 1.0 if explorer.smoke else 4.0
    run, work = heavy_run(explorer.workspace)
    what = f"drag, browser engine, decoder of {work:.0f} MFLOP"
    try:
        with explorer.page(f"/traverse?run={run.name}&start=Seed&engine=browser") as page:
            found = drag(at_work(page, "browser"), seconds)
        expect(found, "browser")
        yield rate_of(f"{what}, Traverse", found)
        path = export_html(run, explorer.workspace / "page.html")
        with explorer.page(path.as_uri(), offline=True) as page:
            until(page, "window.__latentlab?.largest_difference !== undefined")
            found = drag(page.locator("input.ll-slider").first, seconds)
        expect(found, "browser")
        yield rate_of(f"{what}, exported page", found)
    finally:
        shutil.rmtree(run.path)


def heavy_run(folder: Path):
    """An untrained run whose decoder takes nearly 600 MFLOP a picture of 64 pixels, and that number."""
    from latentlab.config import BetaVAE, DataConfig, Experiment, VAEConfig
    from latentlab.export.lowering import lower
    from latentlab.models.build import build_model
    from latentlab.runs import WEIGHTS, Run, save_weights

    config = VAEConfig(latents=10, network="residual", width=26)
    # Without data nothing is encoded, which isn't what is measured here.
    data = DataConfig(f"folder:{folder / 'nowhere'}")
    experiment = Experiment(name="heavy", data=data, model=config, objective=BetaVAE(4.0))
    run = Run.create(folder / "heavy", experiment, (3, 64, 64))
    model = build_model(config, (3, 64, 64), 0)
    save_weights(model, run.path / WEIGHTS)
    return Run.open(run.path, device="cpu"), 2 * lower(model).multiplications / 1e6
