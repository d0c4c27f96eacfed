"""Augmentation: each change against what it says, its gradient, and a share that follows overfitting."""

import pytest
import torch

from latentlab.config import Adversarial
from latentlab.objectives.adversarial import build_adversarial
from latentlab.objectives.augmentation import (
    GREY,
    Augmentation,
    brightness,
    contrast,
    cutout,
    saturation,
    translation,
)


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int = 8, channels: int = 3, size: int = 12, seed: int = 1) -> torch.Tensor:
    return torch.rand((n, channels, size, size), generator=chance(seed))


def test_a_share_of_nothing_is_the_identity_and_a_share_of_all_changes_every_image():
    """Would catch: a change that is made whatever the share says, and amounts shared by the whole batch."""
    x = pictures()
    assert torch.equal(Augmentation(0.0)(x, chance()), x)
    changed = Augmentation(1.0)(x, chance())
    assert changed.shape == x.shape and (changed != x).flatten(1).any(1).all()
    same = Augmentation(1.0)(x[:1].expand(8, -1, -1, -1), chance())
    assert len({tuple(image.flatten().tolist()) for image in same}) == 8
    assert torch.equal(changed, Augmentation(1.0)(x, chance())) and not torch.equal(
        changed, Augmentation(1.0)(x, chance(1))
    )


def test_a_share_of_a_third_leaves_two_thirds_of_the_images_to_each_change():
    """Would catch: one draw for all five changes, by which an image is changed in all ways or in none."""
    x = pictures(6000, 1, 4)
    untouched = (Augmentation(1 / 3)(x, chance()) == x).flatten(1).all(1).float().mean()
    # A translation of 4 pixels moves by 0 or 1 or -1 and a grey image keeps its saturation; the share that nothing
    # touched lies between that of four and that of five changes without effect by chance.
    assert (2 / 3) ** 4 - 0.03 < untouched < (2 / 3) ** 3 + 0.03


def test_brightness_adds_one_number_of_at_most_a_quarter():
    x = pictures(500)
    added = brightness(x, chance()) - x
    each = added.flatten(1)
    assert (each.max(1).values - each.min(1).values).max() < 1e-6
    assert each.abs().max() <= 0.25 + 1e-6 and each[:, 0].max() > 0.2 and each[:, 0].min() < -0.2


def test_saturation_scales_the_distance_to_grey_and_leaves_grey_images():
    """Would catch: a mean over pixels where that over channels is meant."""
    x = pictures(500)
    changed = saturation(x, chance())
    assert torch.allclose(changed.mean(1), x.mean(1), atol=1e-6)
    ratio = (changed - x.mean(1, keepdim=True))[:, 0, 0, 0] / (x - x.mean(1, keepdim=True))[:, 0, 0, 0]
    assert ratio.min() > -1e-3 and ratio.max() < 2.0 + 1e-3 and ratio.max() > 1.8 and ratio.min() < 0.2
    grey = pictures(4, 1)
    assert torch.equal(saturation(grey, chance()), grey)


def test_contrast_keeps_the_mean_and_scales_what_differs_from_it():
    x = pictures(500)
    changed = contrast(x, chance())
    assert torch.allclose(changed.mean((1, 2, 3)), x.mean((1, 2, 3)), atol=1e-5)
    ratio = changed.flatten(1).std(1) / x.flatten(1).std(1)
    assert 0.5 - 1e-3 < ratio.min() < 0.55 and 1.45 < ratio.max() < 1.5 + 1e-3


def test_translation_moves_by_whole_pixels_and_lets_grey_in():
    """Would catch: rows exchanged with columns, and a border that comes round or is repeated."""
    x, seen = pictures(200, 3, 16), set()
    for image, moved in zip(x, translation(x, chance()), strict=True):
        shifts = []
        for down in range(-2, 3):
            for right in range(-2, 3):
                expected = torch.full_like(image, GREY)
                rows, columns = (slice(max(s, 0), 16 + min(s, 0)) for s in (down, right))
                from_rows, from_columns = (slice(max(-s, 0), 16 + min(-s, 0)) for s in (down, right))
                expected[:, rows, columns] = image[:, from_rows, from_columns]
                if torch.equal(moved, expected):
                    shifts.append((down, right))
        assert len(shifts) == 1
        seen.update(shifts)
    assert len(seen) == 25


def test_cutout_greys_one_square_and_nothing_else():
    """Would catch: a cut of another size, and one that always lies in the middle."""
    x = pictures(300, 2, 16)
    cut = cutout(x, chance()) != x
    assert torch.equal(cut[:, 0], cut[:, 1])
    assert torch.equal(cutout(x, chance())[cut], torch.full_like(x, GREY)[cut])
    sizes = cut[:, 0].flatten(1).sum(1)
    rows, columns = cut[:, 0].any(2).sum(1), cut[:, 0].any(1).sum(1)
    assert torch.equal(sizes, rows * columns)  # a rectangle: a square, cut off by the border
    assert sizes.max() == 64 and rows.min() >= 4 and rows.max() == 8
    assert (cut[:, 0].float().mean(0) > 0).all()


def test_gradients_pass_through_all_changes_at_once():
    """Would catch: a change made without a graph, by which the generator would learn nothing."""
    x = pictures(2, 3, 8).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda y: Augmentation(0.7)(y, chance(3)), (x,), fast_mode=True)
    Augmentation(1.0)(x, chance()).sum().backward()
    assert (x.grad != 0).flatten(1).any(1).all()


def test_the_share_rises_where_all_real_images_are_taken_for_real_and_falls_else():
    """Would catch: a share that moves by the fakes' scores, at another speed, or out of [0, 1]."""
    augmentation = Augmentation(0.0, adaptive=True, target=0.6, images=1000)
    sure, unsure = torch.ones(10), torch.tensor([1.0] * 6 + [-1.0] * 4)
    for index in range(8):
        augmentation.follow(sure, index)
        assert augmentation.share.item() == pytest.approx(0.04 * ((index + 1) // 4))
    for index in range(8, 12):
        augmentation.follow(unsure, index)
    assert augmentation.share.item() == pytest.approx(0.04)
    for index in range(12, 24):
        augmentation.follow(unsure, index)
    assert augmentation.share.item() == 0.0
    for index in range(24, 24 + 4 * 30):
        augmentation.follow(100.0 * sure, index)
    assert augmentation.share.item() == 1.0
    fixed = Augmentation(1.0)
    fixed.follow(-sure, 3)
    assert fixed.share.item() == 1.0


def test_the_configuration_chooses_the_augmentation_and_refuses_what_has_no_sign():
    """Would catch: a setting that nothing reads, and an adaptive share moved by scores without a zero."""
    assert build_adversarial(Adversarial()).augmentation is None
    always = build_adversarial(Adversarial(augment="diffaugment")).augmentation
    assert always.share.item() == 1.0 and not always.adaptive
    adaptive = build_adversarial(Adversarial(augment="ada", ada_target=0.5, ada_images=7)).augmentation
    assert (adaptive.share.item(), adaptive.adaptive, adaptive.target, adaptive.images) == (0.0, True, 0.5, 7)
    with pytest.raises(
        ValueError, match="'ada' reads the sign of the scores, which a wasserstein loss leaves open"
    ):
        Adversarial(augment="ada", loss="wasserstein")
    with pytest.raises(ValueError, match="augment must be one of none, diffaugment, ada; got 'flips'"):
        Adversarial(augment="flips")
    with pytest.raises(ValueError, match=r"objective.penalty_every must lie in \[1, 1000\]; got 0"):
        Adversarial(penalty_every=0)
