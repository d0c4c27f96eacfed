"""Servers of notebooks that leave nothing outside their own folder, and a person at a widget in one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from visiting import PATIENCE, answers, until

SECONDS = PATIENCE


@contextmanager
def serving(arguments: list[str], health: str, folder: Path, settings: Mapping[str, str]) -> Iterator[None]:
    """Runs ``python -m arguments`` at home in a folder until its page answers, and ends it afterwards."""
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=os.environ | {"HOME": str(folder), "OMP_NUM_THREADS": "1", **settings},
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            until(lambda: server.poll() is not None or answers(health))
            assert server.poll() is None, (folder / "server.log").read_text()[-2000:]
            yield
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def pixels(page, which: int = 0) -> np.ndarray:
    """The picture of a widget (height, width, 3), 0 to 255."""
    data = (
        page.locator("canvas.ll-main")
        .nth(which)
        .evaluate(
            "c => [c.width, c.height, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
        )
    )
    return np.array(data[2:], dtype=float).reshape(data[1], data[0], 4)[..., :3]


def decoded(model, z, edits=()) -> np.ndarray:
    """What torch makes of a code, as a canvas shows it."""
    with torch.inference_mode():
        image = model.decode(torch.tensor(np.array([z], np.float32)), edits=edits)[0]
    return 255 * image.permute(1, 2, 0).expand(*image.shape[1:], 3).numpy()


def drag(page, slider: int, to: float, release: bool = True) -> None:
    """Drags a slider from the middle of its track to a share of it, and lets go."""
    handle = page.locator("input.ll-slider").nth(slider)
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * to, y, steps=12)
    if release:
        page.mouse.up()
