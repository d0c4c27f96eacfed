"""The sprite renderer against the data set's own frames, and what its variants promise."""

import numpy as np
import pytest
import torch

from latentlab.data import open_dataset
from latentlab.data.sprites import hue_colors


@pytest.fixture(scope="module")
def sprites():
    return open_dataset("sprites")


def _pick(sprites, n, seed=0):
    return sprites.sample(n, seed)


def test_images_are_the_real_frames(sprites, shared_data):
    # Would catch a 2 pi / 40 step, clockwise rotation, x and y exchanged, anti-aliasing.
    frames = np.load(shared_data / "dsprites" / "real_frames.npz", allow_pickle=False)
    images = sprites.images(sprites.index(frames["factors"]))[:, 0].numpy()
    wrong = (images != frames["imgs"]).sum((1, 2)) / frames["imgs"].sum((1, 2))
    print(f"differing pixels, of the shape's: mean {wrong.mean():.3%}, worst {wrong.max():.2%}", end=" ")
    assert wrong.mean() <= 0.002 and wrong.max() <= 0.015


def test_the_grid_is_that_of_dsprites(sprites):
    assert len(sprites) == 737_280 and sprites.image_shape == (1, 64, 64)
    assert sprites.factor_space.names == ("shape", "scale", "orientation", "x", "y")
    assert sprites.factor_space.sizes == (3, 6, 40, 32, 32)
    assert sprites.categories == {"shape": ("square", "ellipse", "heart")}
    indices = _pick(sprites, 1000)
    assert torch.equal(sprites.index(sprites.factors(indices)), indices)
    assert sprites.index([[2, 5, 39, 31, 31]]).item() == 737_279


def test_factors_move_what_they_name(sprites):
    base = torch.tensor([[0, 3, 0, 10, 20]])
    images = {}
    for name, change in {
        "base": (0,) * 5,
        "x": (0, 0, 0, 8, 0),
        "y": (0, 0, 0, 0, 8),
        "scale": (0, 2, 0, 0, 0),
    }.items():
        images[name] = sprites.images(sprites.index(base + torch.tensor([change])))[0, 0]
    pixels = torch.arange(64.0)

    def center(image):
        return (image.sum(0) @ pixels / image.sum()).item(), (image.sum(1) @ pixels / image.sum()).item()

    step = 8 * 32 / 31
    x, y = center(images["base"])
    assert center(images["x"]) == pytest.approx((x + step, y), abs=0.5)
    assert center(images["y"]) == pytest.approx((x, y + step), abs=0.5)
    # A square of half side 9.598 s.
    for name, s in (("base", 0.8), ("scale", 1.0)):
        assert images[name].sum().item() == pytest.approx((2 * 9.598 * s) ** 2, rel=0.08)


def test_orientation_39_is_orientation_0(sprites):
    factors = sprites.factors(_pick(sprites, 64))
    first, last = factors.clone(), factors.clone()
    first[:, 2], last[:, 2] = 0, 39
    assert torch.equal(sprites.images(sprites.index(first)), sprites.images(sprites.index(last)))


def test_an_image_does_not_depend_on_its_batch(sprites):
    indices = _pick(sprites, 300)
    together = sprites.images(indices)
    assert together.dtype == torch.float32 and set(together.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(together[::37], torch.cat([sprites.images([i]) for i in indices[::37].tolist()]))


def test_windows_cut_nothing_off(sprites):
    # The window around a sprite against the same tests on the whole image, at the largest scale.
    from latentlab.data import sprites as module

    grid = torch.arange(64.0)
    factors = torch.tensor(
        [[s, 5, o, x, y] for s in range(3) for o in range(0, 40, 3) for x, y in ((0, 31), (13, 6))]
    )
    drawn = sprites.images(sprites.index(factors))[:, 0]
    for (shape, _, orientation, x, y), image in zip(factors.tolist(), drawn, strict=True):
        angle = torch.tensor(orientation * 2 * np.pi / 39, dtype=torch.float64)
        dx, dy = grid - (15.5 + 32 * x / 31), (grid - (15.5 + 32 * y / 31))[:, None]
        inside = module._TESTS[shape](
            angle.cos() * dx - angle.sin() * dy, angle.sin() * dx + angle.cos() * dy
        )
        assert (inside.float() != image).sum() <= 1  # float64 here may move a pixel on the very edge


def test_the_accelerators_form_draws_the_same(sprites):
    # On an accelerator all shapes are drawn for every row and selected; the same code runs here on the CPU.
    factors = sprites.factors(_pick(sprites, 500))
    canvas = sprites._canvas
    assert torch.equal(canvas.draw(factors, by_shape=False), canvas.draw(factors, by_shape=True))
    assert canvas.draw(factors[:0], by_shape=False).shape == (0, 1, 64, 64)


def test_other_sizes_show_the_same_shapes():
    small, large = open_dataset("sprites", image_size=32), open_dataset("sprites", image_size=128)
    indices = small.sample(200, 0)
    a, b = small.images(indices), large.images(indices)
    assert a.shape == (200, 1, 32, 32) and b.shape == (200, 1, 128, 128)
    shrunk = torch.nn.functional.avg_pool2d(b, 4)
    assert (a - shrunk).abs().mean() < 0.02 and ((shrunk == 1) & (a == 0)).sum() == 0


def test_color_is_a_factor_of_its_own(sprites):
    colored = open_dataset("sprites", color=True)
    assert colored.image_shape == (3, 64, 64) and len(colored) == 10 * 737_280
    assert colored.factor_space.names == ("color", *sprites.factor_space.names)
    indices = _pick(colored, 200)
    images, white = colored.images(indices), sprites.images(indices % 737_280)
    hues = hue_colors(10)[colored.factors(indices)[:, 0]]
    assert torch.equal(images, white * hues[:, :, None, None])
    assert colored.factors(indices)[:, 1:].tolist() == sprites.factors(indices % 737_280).tolist()


def test_hues_are_the_color_wheel():
    import colorsys

    for saturation, value in ((1.0, 1.0), (0.5, 0.8)):
        expected = [colorsys.hsv_to_rgb(i / 10, saturation, value) for i in range(10)]
        np.testing.assert_allclose(hue_colors(10, saturation, value), expected, atol=1e-6)


@pytest.mark.parametrize("color", [False, True])
def test_noise_lies_behind_the_sprite_and_stays(sprites, color):
    noisy, clean = (
        open_dataset("sprites", color=color, background="noise"),
        open_dataset("sprites", color=color),
    )
    indices = _pick(noisy, 300)
    images, expected = noisy.images(indices), clean.images(indices)
    shape = sprites.images(indices % 737_280).expand_as(images) > 0
    assert torch.equal(images[shape], expected[shape])
    background = images[~shape]
    assert 0 <= background.min() and background.max() < 1
    # Uniform: mean 1/2, variance 1/12, flat histogram; independent of the neighbours and of the next image.
    assert background.mean().item() == pytest.approx(0.5, abs=0.002)
    assert background.var().item() == pytest.approx(1 / 12, abs=0.001)
    assert torch.histc(background, 20, 0, 1).div(len(background)).sub(0.05).abs().max() < 0.001
    corner = images[:, :, :3, :].flatten(1)  # no sprite reaches the first rows
    for other in (corner.roll(1, 0), corner.roll(1, 1)):
        assert abs(np.corrcoef(corner.flatten(), other.flatten())[0, 1]) < 0.02
    assert torch.equal(noisy.images(indices[[7]]), images[[7]])


def test_correlated_training_leaves_the_grid_alone(sprites):
    tied = open_dataset("sprites", correlation=("x", "y", 0.1))
    assert torch.equal(tied.images([5, 500_000]), sprites.images([5, 500_000])) and len(tied) == len(sprites)
    for indices in (tied.sample(5000, 0), tied.batch(5000, 0, 3)):
        factors = tied.factors(indices).double()
        assert torch.corrcoef(factors.T)[3, 4] > 0.8
        assert torch.corrcoef(factors.T)[1, 3].abs() < 0.06
    assert torch.equal(tied.batch(64, 0, 3), tied.batch(64, 0, 3))
    assert not torch.equal(tied.batch(64, 0, 3), tied.batch(64, 0, 4))


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match='must be "black" or "noise", got \'stripes\''):
        open_dataset("sprites", background="stripes")
    with pytest.raises(ValueError, match=r"image size must be a whole number in 8\.\.512, got 4"):
        open_dataset("sprites", image_size=4)
    with pytest.raises(ValueError, match="unknown factor 'posX'"):
        open_dataset("sprites", correlation={"posX": "y"})


@pytest.mark.gpu
def test_cuda_draws_the_cpus_images(sprites):
    for options in ({}, {"color": True, "background": "noise"}):
        here, there = open_dataset("sprites", **options), open_dataset("sprites", **options).to("cuda")
        indices = here.sample(2000, 0)
        images = there.images(indices)
        assert images.device.type == "cuda"
        # A fused multiply-add may move a pixel on the very edge.
        assert (images.cpu() != here.images(indices)).float().mean() < 1e-5


@pytest.mark.parametrize("options", [{}, {"color": True}, {"image_size": 32}])
def test_masks_are_the_pixels_that_are_drawn(options):
    # Would catch masks of another image, of the white grid's index for coloured ones, and shapes exchanged.
    data = open_dataset("sprites", **options)
    indices = data.sample(60, 3)
    masks, images = data.masks(indices), data.images(indices)
    assert data.mask_names == ("object", "square", "ellipse", "heart")
    assert masks.dtype == torch.bool and masks.shape == (60, 4, *data.image_shape[1:])
    assert torch.equal(masks[:, 0], images.amax(1) > 0)
    shape = data.factors(indices)[:, data.factor_space.names.index("shape")]
    for n in range(60):
        assert (
            torch.equal(masks[n, 1 + shape[n]], masks[n, 0]) and masks[n, 1:].sum() == masks[n, 0].sum() > 0
        )


def test_masks_do_not_see_a_noisy_background():
    plain, noisy = open_dataset("sprites"), open_dataset("sprites", background="noise")
    indices = plain.sample(20, 4)
    assert torch.equal(plain.masks(indices), noisy.masks(indices))
    assert torch.equal(plain.masks(indices.tolist()), plain.masks(indices))
    with pytest.raises(ValueError, match=r"must be in 0\.\.737279"):
        plain.masks([737_280])
