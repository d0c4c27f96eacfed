"""A training that succeeded ends well: its card leaves out what can't be computed, and says why."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentlab.card import preview, write_card
from latentlab.cli import main
from latentlab.runs import Run

TINY = [
    "--model.width", "4", "--model.hidden", "8", "--batch_size", "4", "--max_steps", "4", "--log_every", "2",
    "--preview_every", "2", "--checkpoint_every", "4", "--device", "cpu", "--quiet",
]  # fmt: skip


def train(folder: Path, *arguments: str) -> Run:
    """A run of four steps, by the command line, in a folder of its own."""
    assert main(["train", *TINY, *arguments, "--out", str(folder)]) == 0
    return Run.open(folder, "cpu")


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Three images in two folders."""
    pixels = np.random.default_rng(0)
    for name in ("a/0.png", "a/1.png", "b/0.png"):
        (tmp_path / "few" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / "few" / name)
    return tmp_path / "few"


def of_folder(folder: Path) -> list[str]:
    return ["--data.name", f"folder:{folder}", "--data.options", '{"image_size": 32}']


def test_a_training_on_fewer_images_than_a_readout_needs_ends_well(tmp_path: Path) -> None:
    """Would catch a training whose last word is an error about a figure of its card."""
    classes = np.array([(0, *row) for row in itertools.product(*map(range, (2, 2, 2, 1, 3)))])
    images = np.random.default_rng(0).integers(0, 2, (len(classes), 64, 64), np.uint8)
    np.savez_compressed(tmp_path / "few.npz", imgs=images, latents_classes=classes)
    run = train(tmp_path / "run", "--data.name", f"dsprites:{tmp_path / 'few.npz'}", "--model.latents", "10")
    assert (
        "- left out: linear fits of the factors. A readout of 10 latents needs more than 24 images with 25% held out."
        in run.card
    )
    assert "R² on" not in run.card and "- KL by latent, nats: z" in run.card
    assert (run.path / "traversal.png").exists()


def test_three_images_are_enough_for_a_training_and_its_card(few: Path, tmp_path: Path) -> None:
    run = train(tmp_path / "run", *of_folder(few))
    assert "- 3 images of the data: KL" in run.card and "left out" not in run.card
    for picture in ("samples.png", "traversal.png"):
        assert (run.path / picture).exists()


def test_data_that_are_gone_when_the_training_ends_cost_their_figures_only(few: Path, tmp_path: Path) -> None:
    run = train(tmp_path / "run", *of_folder(few))
    (run.path / "traversal.png").unlink()
    shutil.rmtree(few)
    card = write_card(run)
    assert f"- left out: the figures on images of the data. there is no folder {few}; give" in card
    assert "one standard deviation, by latent: z" in card and "reconstruction" in card
    assert "images of the data: KL" not in card and (run.path / "traversal.png").exists()


def test_a_preview_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a page that reads a picture while it is written: it would show none."""
    model = Run.open("zoo:digits-vae", "cpu").model
    preview(model, tmp_path / "step-1.png")
    before = (tmp_path / "step-1.png").read_bytes()

    def half(image: Image.Image, target, *arguments, **options) -> None:
        write = target.write if hasattr(target, "write") else Path(target).write_bytes
        write(before[: len(before) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", half)
    for step in (1, 2):
        with pytest.raises(OSError, match="No space left"):
            preview(model, tmp_path / f"step-{step}.png")
    assert [path.name for path in tmp_path.iterdir()] == ["step-1.png"]
    assert (tmp_path / "step-1.png").read_bytes() == before
