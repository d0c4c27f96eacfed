"""How long each page takes from its address to its first image."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from budgets.chromium import Explorer, settled
from budgets.finding import Finding

FIRST_IMAGE = 3.0  # seconds
ROUNDS = 3
PICTURE = "() => [...document.querySelectorAll('[data-testid=stImage] img')].some((i) => i.complete && i.naturalWidth)"
CHART = "() => Boolean(document.querySelector('[data-testid=stVegaLiteChart] :is(canvas, svg)'))"
FORM = "() => [...document.querySelectorAll('button')].some((b) => b.innerText.includes('Start training'))"


def painted(kind: str) -> str:
    """Whether a live component has drawn."""
    return f"() => (window.__latentlab?.{kind}?.frames ?? 0) > 0"


PAGES = {
    "Gallery": ("/", PICTURE),
    "Traverse": ("/traverse?run=zoo%3Ascenes-vae", painted("traverse")),
    "Layers": ("/layers?run=zoo%3Ascenes-vae", painted("layers")),
    "Map": ("/map?run=zoo%3Adigits-vae", painted("map")),
    "Scores": ("/scores?run=zoo%3Asprites-beta-tcvae", CHART),
    "Compare": ("/compare?run=zoo%3Asprites-beta-vae&with=zoo%3Asprites-beta-tcvae", painted("traverse")),
    "Train": ("/train?train-view=New+training", FORM),
}
"""Page -> its address, and what is seen when its first image is there; Train has a form in place of one."""


def first_images(explorer: Explorer) -> Iterator[Finding]:
    """Each page in a new window, the middle of three times, after one visit that loads the server's libraries."""
    for name, (path, seen) in PAGES.items():
        took = []
        for _ in range(1 if explorer.smoke else 1 + ROUNDS):
            began = time.perf_counter()
            with explorer.page(path) as page:
                page.wait_for_function(seen)
                took.append(time.perf_counter() - began)
                settled(page)
        first, later = took[0], took[1:] or took
        told = f"{first:.2f} at the first visit"
        yield Finding(f"{name}, first image, median", float(np.median(later)), "s", FIRST_IMAGE, more=told)
