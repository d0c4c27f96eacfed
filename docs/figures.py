"""Draws the README's figures from the shipped runs: a screenshot of each page, and traversals and swaps.

    python docs/figures.py [--out docs/figures] [--chromium PATH]

Starts the explorer on an empty workspace, drives it in a headless Chromium and writes PNGs below 300 kB each.
Takes about a minute. `make docs-figures` runs it.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

LARGEST = 300_000
SIZE = {"width": 1440, "height": 900}
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
ARGUMENTS += ["--disable-background-networking", "--disable-component-update"]
SERVE = "import sys; from latentlab.app import server; server.serve(int(sys.argv[1]), sys.argv[2])"


@contextmanager
def explorer(workspace: str) -> Iterator[str]:
    """The explorer on a free port; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(port), workspace], stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{address}/_stcore/health", timeout=2):
                    break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait()


def settle(page) -> None:
    """Waits until the page's script and its background jobs have ended."""
    page.wait_for_function(
        "() => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'"
        " && !document.querySelector('[data-testid=stProgress]')",
        timeout=300_000,
    )
    page.wait_for_timeout(1500)


def drawn(page, kind: str) -> None:
    """Waits for a live component's picture."""
    page.wait_for_function(f"() => (window.__latentlab?.{kind}?.frames ?? 0) > 0", timeout=300_000)
    settle(page)


def save(page, path: Path) -> None:
    """Writes a screenshot, with fewer colours where it would be too large."""
    page.locator("[data-testid=stMain]").evaluate("element => element.scrollTo(0, 0)")
    page.mouse.move(700, 5)
    page.wait_for_timeout(300)
    page.screenshot(path=path)
    shrink(path)


def shrink(path: Path) -> None:
    """Keeps a PNG below the limit: packs it better, then reduces it to 256 colours, then to 64."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    picture.save(path, optimize=True)
    for colours in (256, 64):
        if path.stat().st_size < LARGEST:
            return
        picture.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
            path, optimize=True
        )
    if path.stat().st_size >= LARGEST:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; expected fewer than {LARGEST:,}.")


def gallery(page, address: str, path: Path) -> None:
    """All shipped runs."""
    page.goto(f"{address}/")
    page.locator("[data-testid=stImage] img").nth(2).wait_for()
    settle(page)
    save(page, path)


def traverse(page, address: str, path: Path) -> None:
    """A scene encoded, its strongest latent pulled."""
    page.goto(f"{address}/traverse?run=zoo%3Ascenes-beta-vae&image=151515")
    drawn(page, "traverse")
    page.get_by_text("latents are active").wait_for()
    box = page.locator("input.ll-slider").first.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.5 * box["width"], y)
    page.mouse.down()
    for step in range(20):
        page.mouse.move(box["x"] + (0.5 + 0.016 * step) * box["width"], y)
        page.wait_for_timeout(20)
    page.mouse.up()
    settle(page)
    save(page, path)


def layers(page, address: str, path: Path) -> None:
    """The strongest unit of a VAE's decoder on its card, and what the picture is without it."""
    page.set_viewport_size({"width": 1440, "height": 1480})
    page.goto(f"{address}/layers?run=zoo%3Ascenes-vae&image=1515&stage=generator.deconv3")
    drawn(page, "layers")
    map_of(page, row=0, column=6, columns=9)
    page.get_by_role("button", name="Switch off").click()
    settle(page)
    save(page, path)


def layers_of_a_gan(page, address: str, path: Path) -> None:
    """A style GAN's graph, one of its units, and a direction found in its styles."""
    page.set_viewport_size({"width": 1440, "height": 1900})
    page.goto(
        f"{address}/layers?run=zoo%3Adigits-stylegan&start=Seed&seed=3&stage=generator.conv4&layer-tabs=Directions"
    )
    drawn(page, "layers")
    map_of(page, row=1, column=5, columns=9)
    settle(page)
    save(page, path)


def map_of(page, row: int, column: int, columns: int) -> None:
    """Clicks a unit's map on the sheet, whose maps are square."""
    box = page.locator("canvas.ll-sheet").bounding_box()
    side = box["width"] / columns
    page.mouse.click(box["x"] + (column + 0.5) * side, box["y"] + (row + 0.5) * side)
    page.locator("[class*=st-key-unit-card]").wait_for()
    settle(page)


def latent_map(page, address: str, path: Path) -> None:
    """Real digits laid out by UMAP, one of them picked."""
    page.goto(f"{address}/map?run=zoo%3Adigits-vae&layout=UMAP")
    drawn(page, "map")
    page.wait_for_function(
        "() => !document.body.innerText.includes('Meanwhile') && !document.body.innerText.includes('Variance shown')",
        timeout=300_000,
    )
    settle(page)
    box = page.locator("canvas.ll-points").bounding_box()
    for step in range(60):  # outwards from the middle until a point is met
        page.mouse.click(box["x"] + box["width"] / 2 - 5 * step, box["y"] + box["height"] / 2 + 3 * step)
        picked = page.evaluate("window.__latentlab.map.picked")
        if picked and picked["point"] is not None:
            break
    page.get_by_text("Pull it in Traverse").wait_for()
    settle(page)
    save(page, path)


def scores(page, address: str, path: Path) -> None:
    """The kept report of the shipped sprites run."""
    page.goto(f"{address}/scores?run=zoo%3Asprites-beta-tcvae")
    page.locator("[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg").nth(2).wait_for()
    settle(page)
    save(page, path)


def compare(page, address: str, path: Path) -> None:
    """Two VAEs of the sprites on the same image, their latents matched."""
    page.set_viewport_size({"width": 1440, "height": 1200})
    page.goto(f"{address}/compare?run=zoo%3Asprites-beta-vae&with=zoo%3Asprites-beta-tcvae")
    drawn(page, "traverse")
    settle(page)
    save(page, path)


def train(page, address: str, path: Path) -> None:
    """The form of a training."""
    page.goto(f"{address}/train")
    settle(page)
    save(page, path)


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


def main() -> None:
    """Draws all figures."""
    from playwright.sync_api import sync_playwright

    from latentlab.doctor import find_chromium

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("figures"))
    parser.add_argument("--chromium", default=find_chromium())
    parser.add_argument("--only", default="", help="only screenshots whose name begins so")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not arguments.only:
        sprites_traversal(arguments.out / "sprites-traversal.png")
        scenes_swaps(arguments.out / "scenes-swaps.png")
        digits_traversal("digits-m2", ["digit", "style5", "style0"], arguments.out / "digits-m2.png")
        digits_traversal("digits-infogan", ["class", "code0", "code1"], arguments.out / "digits-infogan.png")
    with tempfile.TemporaryDirectory() as workspace, explorer(workspace) as address, sync_playwright() as p:
        browser = p.chromium.launch(executable_path=arguments.chromium, args=ARGUMENTS)
        for name, shoot in (
            ("gallery", gallery),
            ("traverse", traverse),
            ("layers", layers),
            ("layers-gan", layers_of_a_gan),
            ("map", latent_map),
            ("scores", scores),
            ("compare", compare),
            ("train", train),
        ):
            if not name.startswith(arguments.only):
                continue
            page = browser.new_page(viewport=SIZE, color_scheme="light")
            page.set_default_timeout(300_000)
            shoot(page, address, arguments.out / f"{name}.png")
            page.close()
            print(f"{arguments.out / name}.png")
        browser.close()


if __name__ == "__main__":
    main()
