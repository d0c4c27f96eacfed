"""The promise of the README: real digits from scratch, good enough for a classifier that never saw them."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from latentlab.cli import main
from latentlab.data import open_dataset
from latentlab.runs import Run

pytestmark = pytest.mark.slow


def test_held_out_reconstructions_of_real_digits_are_labelled_correctly(tmp_path):
    # The fakes: reconstructions judged by eye, or by a classifier fitted on reconstructions.
    assert main(["train", "digits-vae", "--out", str(tmp_path / "digits"), "--device", "cpu", "--quiet"]) == 0
    run = Run.open(tmp_path / "digits", "cpu")
    train, test = (open_dataset("digits", split=split) for split in ("train", "test"))
    pixels, labels = {}, {}
    for name, data in (("train", train), ("test", test)):
        indices = np.arange(len(data))
        pixels[name], labels[name] = data.images(indices), data.factors(indices)[:, 0].numpy()
    with torch.inference_mode():
        reconstructed = run.model.decode(run.model.encode(pixels["test"]).mean)
    judge = LogisticRegression(C=0.05, max_iter=2000).fit(pixels["train"].flatten(1).numpy(), labels["train"])
    originals = judge.score(pixels["test"].flatten(1).numpy(), labels["test"])
    reached = judge.score(reconstructed.flatten(1).numpy(), labels["test"])
    print(f"real held-out digits {originals:.3f}, their reconstructions {reached:.3f}")
    assert originals > 0.93
    assert reached >= 0.90
    # Shuffled reconstructions are at chance: the judge looks at the image it is given.
    shuffled = np.random.default_rng(0).permutation(len(labels["test"]))
    assert judge.score(reconstructed.flatten(1).numpy()[shuffled], labels["test"]) < 0.3
