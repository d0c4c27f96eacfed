"""Draws the pictures of the README and of the tour: every page by day and by night, exported pages, strips, a film.

    python docs/figures.py [--out docs/figures] [--only traverse] [--chromium PATH]

Starts the explorer on a workspace that holds one small training, drives it in a headless Chromium and writes each page
as NAME.png and, in the dark theme, NAME-dark.png, below 300 kB each; exported pages from disk, without a network, the
same; the film as tour.gif. No page may ask for anything but its own server, or its own file. Takes about five minutes
on two cores. `make docs-figures` runs it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Error, sync_playwright
from screens import ARGUMENTS, EXPORTED, PAGES, explorer, export, opened
from tour import palette_of, tour

LARGEST = 300_000
THEMES = {"light": "", "dark": "-dark"}


def save(page: Any, path: Path) -> None:
    """Writes a screenshot, with fewer colours where it would be too large."""
    page.evaluate(
        "(document.querySelector('[data-testid=stMain]') ?? document.documentElement).scrollTo(0, 0)"
    )
    page.mouse.move(700, 2)
    page.wait_for_timeout(300)
    page.screenshot(path=path)
    shrink(path)
    print(path)


def shrink(path: Path) -> None:
    """Keeps a PNG below the limit: packs it better, then reduces its colours to 256, 128, 64."""
    with Image.open(path) as shot:
        picture = shot.convert("RGB")
    picture.save(path, optimize=True)
    for colours in (256, 128, 64):
        if path.stat().st_size < LARGEST:
            return
        few = picture.quantize(palette=palette_of([picture], colours), dither=Image.Dither.NONE)
        few.save(path, optimize=True)
    if path.stat().st_size >= LARGEST:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; expected fewer than {LARGEST:,}.")


def sprites_traversal(path: Path) -> None:
    """Strips of the active latents around one sprite."""
    import latentlab

    run = latentlab.Run.open("zoo:sprites-beta-tcvae")
    data = run.dataset()
    encoding = latentlab.encode_dataset(run.model, data, 2000)
    z = encoding.mean[1]
    names = [encoding.dim_names[i] for i in encoding.order if encoding.active[i]]
    strips = latentlab.traverse(run.model, z, names, span="posterior", encoding=encoding)
    latentlab.viz.show(strips, caption=False).image.save(path)
    shrink(path)


def digits_traversal(name: str, dims: list[str], path: Path) -> None:
    """Strips of some latents of a digits run around a digit that it encodes."""
    import latentlab
    from latentlab.analysis import encode_images

    run = latentlab.Run.open(f"zoo:{name}")
    data = run.dataset()
    z = encode_images(run.model, data.images([1223]))[0]
    encoding = latentlab.encode_dataset(run.model, data)
    strips = latentlab.traverse(run.model, z, dims, steps=10, span="posterior", encoding=encoding)
    latentlab.viz.show(strips, caption=False).image.save(path)
    shrink(path)


def scenes_swaps(path: Path) -> None:
    """Pose from the column, all else from the row."""
    import latentlab
    from latentlab.analysis import encode_images

    run = latentlab.Run.open("zoo:scenes-pairs")
    data = run.dataset()
    codes = encode_images(run.model, data.images(data.sample(6, seed=5)))
    latentlab.viz.show(latentlab.swap_grid(run.model, codes, "pose"), caption=False).image.save(path)
    shrink(path)


STRIPS = {
    "sprites-traversal": sprites_traversal,
    "scenes-swaps": scenes_swaps,
    "digits-m2": lambda path: digits_traversal("digits-m2", ["digit", "style5", "style0"], path),
    "digits-infogan": lambda path: digits_traversal("digits-infogan", ["class", "code0", "code1"], path),
}


def train(workspace: Path) -> None:
    """A short training in the workspace, started as the Train page starts one; returns when it has ended."""
    from latentlab.app import training_jobs
    from latentlab.config import BetaVAE, DataConfig, Experiment, VAEConfig

    experiment = Experiment(
        name="my-digits",
        data=DataConfig("digits"),
        model=VAEConfig(latents=8),
        objective=BetaVAE(2.0),
        max_steps=600,
        log_every=10,
        preview_every=100,
    )
    job = training_jobs.start(experiment, workspace, "cpu")
    while job.alive:
        time.sleep(0.5)
    if job.state != "finished":
        raise RuntimeError(f"The training ended as {job.state}: {job.sentence}")


def shoot(browser: Any, address: str, show: Callable[[Any, str], None], path: Path) -> list[str]:
    """One page in both themes; what went wrong, in words, for the others are drawn all the same."""
    failed = []
    for theme, ending in THEMES.items():
        there = path.with_stem(path.stem + ending)
        try:
            with opened(browser, theme, address) as page:
                show(page, address)
                save(page, there)
        except (Error, RuntimeError, TimeoutError, ValueError) as error:
            failed.append(f"{there.name}: {str(error).splitlines()[0]}")
            print(failed[-1], file=sys.stderr)
    return failed


def screens(chosen: list[str], out: Path, chromium: str) -> list[str]:
    """The screenshots and the film; what went wrong, in words."""
    failed = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        workspace, scratch = Path(folder, "runs"), Path(folder, "scratch")
        workspace.mkdir()
        scratch.mkdir()
        # Processes that train are noted there: what else trains on this machine is no part of the figures.
        os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)
        if "training" in chosen:
            train(workspace)
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        for name in (name for name in chosen if name in EXPORTED):
            run, show = EXPORTED[name]
            failed += shoot(browser, export(run, Path(folder)), show, out / f"{name}.png")
        with explorer(str(workspace)) as address:
            for name in (name for name in chosen if name in PAGES):
                failed += shoot(browser, address, PAGES[name], out / f"{name}.png")
            if "tour" in chosen:
                tour(browser, address, out / "tour.gif")
        browser.close()
    return failed


def main() -> None:
    """Draws all figures, or those asked for."""
    from latentlab.doctor import find_chromium

    names = [*STRIPS, *PAGES, *EXPORTED, "tour"]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("figures"))
    parser.add_argument("--chromium", default=find_chromium())
    parser.add_argument("--only", nargs="+", default=[""], help="only figures whose name begins so")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    arguments.out.mkdir(parents=True, exist_ok=True)
    chosen = [name for name in names if name.startswith(tuple(arguments.only))]
    if not chosen:
        parser.error(f"No figure begins with {' or '.join(arguments.only)}; there are {', '.join(names)}.")
    for name in (name for name in chosen if name in STRIPS):
        STRIPS[name](arguments.out / f"{name}.png")
    failed = screens(chosen, arguments.out, arguments.chromium) if set(chosen) - set(STRIPS) else []
    sys.exit("\n".join(failed) or 0)


if __name__ == "__main__":
    main()
