"""Categories of two models that are known to be each other's: renumbered, split, merged, left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal as NormalDistribution
from torch.distributions import OneHotCategorical

from latentlab.analysis import load_result, match_latents
from latentlab.analysis.category_matching import contingency, partner_categories, shared_share
from latentlab.latents import Block, Categorical, LatentSpace, Normal
from latentlab.latents.posterior import Posterior
from latentlab.runs import Run

SHAPE = (1, 4, 4)


class Sorts(nn.Module):
    """Sorts images by their first pixel into groups, which it numbers as it likes, and reads the second one too.

    Args:
        numbers: the number that each of the evenly cut groups of the first pixel gets.
        size: how many categories there are.
        ordered_first: read the first pixel as a continuous latent instead of sorting by it.
    """

    image_shape = SHAPE

    def __init__(self, numbers, size: int, ordered_first: bool = False) -> None:
        super().__init__()
        self.numbers, self.ordered_first = torch.tensor(numbers), ordered_first
        blocks = [Block("first", 1, Normal())] if ordered_first else [Block("kind", size, Categorical())]
        self.latent_space = LatentSpace([*blocks, Block("style", 1, Normal())])
        self.encoder = nn.Linear(1, 1)
        self.size = size

    def encode(self, x):
        flat = x.flatten(1)
        style = NormalDistribution(3 * flat[:, 1:2] - 1.5, torch.full((len(x), 1), 0.1))
        if self.ordered_first:
            first = NormalDistribution(3 * flat[:, :1] - 1.5, torch.full((len(x), 1), 0.1))
            return Posterior(self.latent_space, {"first": first, "style": style})
        group = (flat[:, 0] * len(self.numbers)).long().clamp(max=len(self.numbers) - 1)
        one_hot = nn.functional.one_hot(self.numbers[group], self.size).float()
        probabilities = one_hot * (1 - 1e-4 * self.size) + 1e-4
        return Posterior(self.latent_space, {"kind": OneHotCategorical(probabilities), "style": style})


def images(n: int = 600, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, *SHAPE), dtype=np.float32)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_renumbered_categories_find_each_other(seed: int) -> None:
    """Catches a match by number, by the order of the counts, and one that is turned round."""
    order = np.random.default_rng(seed).permutation(7)
    found = match_latents(Sorts(range(7), 7), Sorts(order, 7), images())
    assert found.categories["kind"].tolist() == order.tolist() and found.sure[0]
    assert found.agreement("kind") == 1.0 and found.categories_null["kind"].max() < 0.4
    assert found.contingency["kind"].sum() == 600
    assert found.signs.tolist() == [0.0, 1.0], "a category has no sign"


def test_more_categories_on_one_side() -> None:
    """Six groups against three: three find their partner, the others go where their images lie; and back."""
    six, three = Sorts(range(6), 6), Sorts([2, 0, 1], 3)
    found = match_latents(six, three, images())
    assert found.categories["kind"].tolist() == [2, 2, 0, 0, 1, 1]
    assert found.agreement("kind") == pytest.approx(0.5, abs=0.1)
    back = match_latents(three, six, images()).categories["kind"].tolist()
    assert back[2] in (0, 1) and back[0] in (2, 3) and back[1] in (4, 5)


def test_a_category_without_images_leads_nowhere() -> None:
    found = match_latents(Sorts([0, 1, 3], 5), Sorts([1, 0, 2], 3), images())
    assert found.categories["kind"].tolist() == [1, 0, -1, 2, -1]


def test_one_to_one_goes_before_each_row_s_best() -> None:
    """The fake takes each row's best, where two categories would share a partner though another is free."""
    table = np.array([[50, 10, 0], [40, 38, 0], [0, 0, 60]])
    assert table.argmax(axis=1).tolist() == [0, 0, 2]
    assert partner_categories(table).tolist() == [0, 1, 2]
    assert shared_share(table) == pytest.approx(148 / 198)
    assert contingency(np.array([0, 0, 1]), np.array([1, 1, 0]), 2, 2).tolist() == [[0, 2], [1, 0]]


def test_a_category_is_not_paired_with_a_continuous_latent() -> None:
    """They know the same pixel, and the fake pairs them, though neither's moves could be followed."""
    found = match_latents(Sorts(range(5), 5), Sorts([0], 1, ordered_first=True), images())
    assert found.strength[0, 0] > 1.0, "they do know the same"
    assert found.permutation.tolist() == [-1, 1] and not found.categories and not found.sure[0]


def test_unrelated_categories_are_not_sure(tmp_path) -> None:
    class Elsewhere(Sorts):
        def encode(self, x):
            return super().encode(x.flip(3).flip(2))

    found = match_latents(Sorts(range(4), 4), Elsewhere(range(4), 4), images())
    assert not found.sure[0]
    assert found.agreement("kind") < 0.36
    kept = load_result(found.save(tmp_path / "match"))
    np.testing.assert_array_equal(kept.categories["kind"], found.categories["kind"])
    assert kept.agreement("kind") == found.agreement("kind")


def test_two_shipped_runs_with_categories_agree_on_digits() -> None:
    """An InfoGAN that never saw a label and a half-labelled VAE: what its class draws, the other reads as its digit."""
    from latentlab.analysis import decode_latents, encode_images

    a, b = Run.open("zoo:digits-infogan", "cpu"), Run.open("zoo:digits-m2", "cpu")
    data = a.dataset()
    found = match_latents(a.model, b.model, data.images(data.sample(1000, 0)).cpu().numpy())
    partners = found.categories["class"]
    assert found.sure[0] and sorted(partners.tolist()) == list(range(10))
    assert found.agreement("class") > 0.5 > 3 * found.categories_null["class"].max()
    codes = np.zeros((10, a.model.latent_space.dim), np.float32)
    codes[np.arange(10), np.arange(10)] = 1
    read = encode_images(b.model, decode_latents(a.model, codes))[:, :10].argmax(axis=1)
    assert (read == partners).sum() >= 7, "by what it draws: eight of ten; a match by number gives one"
    assert (read == np.arange(10)).sum() <= 3
