"""Blends and tempered codes against what is known in closed form."""

import math

import pytest
import torch

from latentlab.latents import (
    Block,
    Categorical,
    Codebook,
    LatentSpace,
    Mapped,
    Uniform,
    bilinear_weights,
    blend,
    temper,
)

MIDDLE = bilinear_weights(0.5, 0.5)
EACH = LatentSpace(
    [
        Block("n", 3),
        Block("u", 2, Uniform(-1.0, 3.0)),
        Block("c", 4, Categorical),
        Block("k", 2, Codebook(8)),
    ]
)


def test_a_seed_itself_is_its_own_draw():
    """Would catch a blend that is off by its normalisation where nothing is mixed."""
    codes = EACH.sample(4, seed=0)
    for k, (x, y) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
        torch.testing.assert_close(
            blend(EACH, codes, bilinear_weights(x, y)), codes[k : k + 1], atol=1e-5, rtol=0
        )


def test_between_four_seeds_a_normal_code_is_as_spread_as_a_draw():
    """Would catch the plain average, whose variance in the middle of four seeds is a quarter."""
    space = LatentSpace([Block("z", 4000)])
    codes = space.sample(4, seed=1)
    for x, y in [(0.5, 0.5), (0.5, 0.0), (0.2, 0.9)]:
        z = blend(space, codes, bilinear_weights(x, y))
        assert float(z.std()) == pytest.approx(1.0, abs=0.04)
        assert float(z.mean()) == pytest.approx(0.0, abs=0.05)
    w = torch.tensor([0.25] * 4)
    torch.testing.assert_close(
        blend(space, codes, MIDDLE), (w @ codes)[None] / w.norm(), atol=1e-5, rtol=1e-5
    )


def test_a_uniform_code_stays_uniform_and_inside():
    """Would catch a linear blend, which piles up in the middle of the range."""
    space = LatentSpace([Block("u", 4000, Uniform(-1.0, 3.0))])
    z = blend(space, space.sample(4, seed=2), MIDDLE)[0]
    assert -1.0 <= float(z.min()) and float(z.max()) <= 3.0
    quarters = torch.histc(z, 4, -1.0, 3.0) / 4000
    assert quarters.tolist() == pytest.approx([0.25] * 4, abs=0.04)


def test_what_has_nothing_in_between_is_that_of_the_nearest_seed():
    codes = EACH.sample(4, seed=3)
    z = blend(EACH, codes, bilinear_weights(0.9, 0.2))
    torch.testing.assert_close(z[:, 5:], codes[1:2, 5:])


def test_styles_are_averaged():
    space = LatentSpace([Block("w", 3, Mapped())], name="w")
    codes = torch.arange(12.0).reshape(4, 3)
    torch.testing.assert_close(blend(space, codes, bilinear_weights(0.25, 0.5)), (
        torch.tensor([[0.375, 0.125, 0.375, 0.125]]) @ codes
    ))  # fmt: skip


def test_temperature_scales_what_deviates_from_the_mean():
    """Would catch a temperature that acts on categories, or one that leaves a uniform's range."""
    codes = EACH.sample(50, seed=4)
    cold, hot = temper(EACH, codes, 0.5), temper(EACH, codes, 1.4)
    torch.testing.assert_close(cold[:, :3], 0.5 * codes[:, :3])
    torch.testing.assert_close(cold[:, 3:5], 1.0 + 0.5 * (codes[:, 3:5] - 1.0))
    assert -1.0 <= float(hot[:, 3:5].min()) and float(hot[:, 3:5].max()) <= 3.0
    torch.testing.assert_close(hot[:, 5:], codes[:, 5:])
    torch.testing.assert_close(temper(EACH, codes, 1.0), codes)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (torch.ones(1, 3) / 3, r"weights \(n, 4\)"),
        (torch.ones(1, 4), "their sum is 1"),
        (torch.tensor([[1.5, -0.5, 0, 0]]), "at least 0"),
    ],
)
def test_weights_that_are_none_are_refused(weights, words):
    with pytest.raises(ValueError, match=words):
        blend(EACH, EACH.sample(4, seed=0), weights)


def test_what_lies_outside_is_refused():
    with pytest.raises(ValueError, match=r"from 0 to 1; got 1\.5"):
        bilinear_weights(1.5, 0.0)
    for wrong in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match="at least 0; got"):
            temper(EACH, EACH.sample(2, seed=0), wrong)
