"""A film of the explorer in use: a latent is dragged, then a hidden unit is switched off and on again.

Every frame is a screenshot of the real pages, driven by a real pointer; only the arrow that shows where the pointer is
is drawn into the page, since screenshots leave it out.
"""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from screens import drawn, opened, place_of_unit, settle

RUN = "zoo:scenes-beta-vae"
IMAGE = 151515
STAGE = "generator.deconv3"
SCREEN = (1160, 780)
WIDTH = 900
LARGEST = 1_500_000
COLOURS = 255  # and one that says "as before"
STILL = 800  # milliseconds that a state worth looking at stays
POINTER = """
addEventListener('DOMContentLoaded', () => {
  const arrow = document.createElement('div');
  arrow.style.cssText = 'position:fixed;z-index:2147483647;pointer-events:none;width:26px;height:30px;left:-60px;top:0';
  arrow.innerHTML = `<svg viewBox="0 0 26 30"><circle cx="5" cy="5" r="0" fill="#0b6e8a" opacity=".35"/>
    <path d="M4 3v20l5.2-4.6 3.6 8 3.4-1.5-3.6-7.8 7-.6z" fill="#111" stroke="#fff" stroke-width="1.6"/></svg>`;
  const ring = arrow.querySelector('circle');
  const follow = (e) => { arrow.style.left = e.clientX - 4 + 'px'; arrow.style.top = e.clientY - 3 + 'px'; };
  addEventListener('pointermove', follow, true);
  addEventListener('pointerdown', (e) => { follow(e); ring.setAttribute('r', 13); }, true);
  addEventListener('pointerup', () => ring.setAttribute('r', 0), true);
  arrow.querySelector('svg').style.overflow = 'visible';
  document.documentElement.append(arrow);
});
"""


class Film:
    """Screenshots of a page, and how long each is shown in milliseconds."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.pictures: list[Image.Image] = []
        self.durations: list[int] = []

    def take(self, milliseconds: int) -> None:
        """One frame; one that equals the last makes the last longer."""
        with Image.open(io.BytesIO(self.page.screenshot())) as opened_picture:
            picture = opened_picture.convert("RGB")
        height = round(picture.height * WIDTH / picture.width)
        picture = picture.resize((WIDTH, height), Image.Resampling.LANCZOS)
        if self.pictures and self.pictures[-1].tobytes() == picture.tobytes():
            self.durations[-1] += milliseconds
        else:
            self.pictures.append(picture)
            self.durations.append(milliseconds)

    def move(self, x: float, y: float, begin: tuple[float, float], steps: int = 5) -> tuple[float, float]:
        """Moves the pointer there, filmed; where it is then."""
        for step in range(1, steps + 1):
            t = step / steps
            t = t * t * (3 - 2 * t)
            self.page.mouse.move(begin[0] + (x - begin[0]) * t, begin[1] + (y - begin[1]) * t)
            self.take(50)
        return x, y

    def write(self, path: Path) -> None:
        """The GIF: one palette for all frames, and only what changes in each."""
        palette = palette_of(self.pictures)
        frames = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in self.pictures]
        frames[0].save(
            path, save_all=True, append_images=frames[1:], duration=self.durations, loop=0, optimize=True,
            disposal=1,
        )  # fmt: skip
        if path.stat().st_size > LARGEST:
            raise ValueError(f"{path} has {path.stat().st_size:,} bytes; expected at most {LARGEST:,}.")


def palette_of(pictures: list[Image.Image], colours: int = COLOURS) -> Image.Image:
    """A palette for some pictures: a colour counts by the root of how often it is seen, lest white take all."""
    seen: Counter[tuple[int, ...]] = Counter()
    for picture in pictures:
        pixels = np.asarray(picture)[::2, ::2].reshape(-1, 3)
        found, counts = np.unique(pixels & 0xFC, axis=0, return_counts=True)
        seen.update({tuple(colour): int(count) for colour, count in zip(found.tolist(), counts, strict=True)})
    times = np.maximum(1, np.sqrt(np.array(list(seen.values())) / 8)).astype(int)
    pixels = np.repeat(np.array(list(seen), np.uint8) + 2, times, axis=0)
    return Image.fromarray(pixels[None]).quantize(colours, Image.Quantize.MEDIANCUT, kmeans=2)


def dragged(film: Film, slider: Any, way: list[float], at: tuple[float, float]) -> tuple[float, float]:
    """Drags a slider along shares of its track, filmed as the picture follows."""
    page, box = film.page, slider.bounding_box()
    y = box["y"] + box["height"] / 2
    thumb = page.evaluate(
        "s => (Number(s.value) - Number(s.min)) / (Number(s.max) - Number(s.min))", slider.element_handle()
    )
    inner = (box["x"] + 8, box["width"] - 16)
    at = film.move(inner[0] + thumb * inner[1], y, at)
    page.mouse.down()
    film.take(150)
    here = thumb
    for goal in way:
        steps = max(2, round(abs(goal - here) * 22))
        for step in range(1, steps + 1):
            before = page.evaluate("window.__latentlab.traverse.frames")
            share = here + (goal - here) * step / steps
            page.mouse.move(inner[0] + share * inner[1], y)
            page.wait_for_function(f"() => window.__latentlab.traverse.frames > {before}")
            page.wait_for_timeout(40)
            film.take(70)
        here = goal
    page.mouse.up()
    film.take(500)
    return inner[0] + here * inner[1], y


def tour(browser: Any, address: str, path: Path) -> None:
    """Films two drags on Traverse and a unit switched off and on again on Layers."""
    with opened(browser, "light", address, *SCREEN) as page:
        page.add_init_script(POINTER)
        page.goto(f"{address}/traverse?run={RUN.replace(':', '%3A')}&image={IMAGE}")
        drawn(page, "traverse")
        page.wait_for_timeout(1500)
        film, at = Film(page), (560.0, 620.0)
        page.mouse.move(*at)
        film.take(STILL)
        sliders = page.locator("input.ll-slider:visible")
        at = dragged(film, sliders.nth(1), [0.95, 0.1], at)
        at = dragged(film, sliders.nth(2), [0.9], at)
        settle(page)
        film.take(STILL)
        box = page.get_by_role("link", name="Layers", exact=True).bounding_box()
        at = film.move(box["x"] + 40, box["y"] + box["height"] / 2, at, 6)
        page.mouse.click(*at)
        drawn(page, "layers")
        stage = page.locator(f"[data-stage='{STAGE}']")
        if stage.get_attribute("aria-current") != "true":
            stage.click()
            settle(page)
        top = stage.bounding_box()["y"] - 14
        page.locator("[data-testid=stMain]").evaluate("(main, top) => main.scrollBy(0, top)", top)
        page.mouse.move(*at)
        page.wait_for_timeout(500)
        film.take(STILL)
        unit = strongest()
        at = film.move(*place_of_unit(page, unit), at, 8)
        for label in ("off", "on"):
            before = page.evaluate("window.__latentlab.layers.frames")
            switch(page, unit, at, label)
            page.wait_for_function(f"() => window.__latentlab.layers.frames > {before}")
            page.wait_for_timeout(300)
            page.mouse.move(at[0] + 3, at[1] + 3)  # what stands beside the pointer follows the pointer
            page.wait_for_timeout(200)
            film.take(1500)
        film.write(path)
        print(f"{path}: {len(film.pictures)} frames, {sum(film.durations) / 1000:.1f} s")


def switch(page: Any, unit: int, at: tuple[float, float], label: str) -> None:
    """A click on a unit that is looked at already switches it."""
    if label == "off":
        page.mouse.click(*at)
        page.wait_for_timeout(300)
    page.mouse.click(*at)


def strongest() -> int:
    """The unit of the filmed stage without which the filmed picture changes most."""
    import latentlab
    from latentlab.analysis import encode_images

    run = latentlab.Run.open(RUN)
    z = encode_images(run.model, run.dataset().images([IMAGE]))
    ranking = latentlab.analysis.rank_units(run.model, STAGE, inputs=z)
    return int(ranking.units[ranking.order[0]])
