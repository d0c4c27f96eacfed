"""The ray-traced room: masks against a ray march, colours against masks, the view against a projection."""

import colorsys
import math

import numpy as np
import pytest
import torch

from latentlab.data import open_dataset
from latentlab.data import scenes as module


@pytest.fixture(scope="module")
def scenes():
    return open_dataset("scenes")


def _one(scenes, **factors):
    values = [factors.get(name, 0) for name in scenes.factor_space.names]
    return int(scenes.index([values])[0])


def _interior(mask):
    """Pixels whose whole 3 x 3 neighbourhood is in the mask."""
    return torch.nn.functional.avg_pool2d(mask.float()[None], 3, stride=1, padding=1)[0] > 0.999


def test_the_grid_is_that_of_3d_shapes(scenes):
    assert len(scenes) == 480_000 and scenes.image_shape == (3, 64, 64)
    assert scenes.factor_space.names == (
        "floor_hue",
        "wall_hue",
        "object_hue",
        "scale",
        "shape",
        "orientation",
    )
    assert scenes.factor_space.sizes == (10, 10, 10, 8, 4, 15)
    assert scenes.categories["shape"] == ("cube", "cylinder", "sphere", "capsule")
    indices = scenes.sample(1000, 0)
    assert torch.equal(scenes.index(scenes.factors(indices)), indices)


def test_masks_divide_the_image(scenes):
    indices = scenes.sample(60, 1)
    masks = scenes.masks(indices)
    assert masks.dtype == torch.bool and masks.shape == (60, 7, 64, 64)
    assert scenes.mask_names == ("floor", "wall", "object", "cube", "cylinder", "sphere", "capsule")
    assert (masks[:, :3].sum(1) == 1).all()
    shape = scenes.factors(indices)[:, 4]
    for n in range(60):
        assert torch.equal(masks[n, 3 + shape[n]], masks[n, 2])
        assert masks[n, 3:].sum() == masks[n, 2].sum() > 60


@pytest.mark.parametrize("shape", range(4))
def test_masks_are_what_marching_along_each_ray_finds(scenes, shape):
    # Would catch a missing lid, a capsule without its waist, a mirrored camera; uses no intersection formula.
    scale, orientation = 6, 11
    size, azimuth = 0.75 + 0.5 * scale / 7, math.radians(-30 + 60 * orientation / 14)
    place = np.array(
        [module._CAMERA_DISTANCE * math.sin(azimuth), -module._CAMERA_DISTANCE * math.cos(azimuth), 0]
    )
    place[2] = module._CAMERA_HEIGHT
    forward = np.array([0, 0, module._TARGET_HEIGHT]) - place
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    screen = ((np.arange(64) + 0.5) / 32 - 1) * module._HALF_VIEW
    rays = forward + screen[None, :, None] * right - screen[:, None, None] * up
    point = (
        place[:, None, None, None]
        + rays.transpose(2, 0, 1)[:, None] * np.arange(5, 18, 0.01)[None, :, None, None]
    )
    x, y, z = (axis / size for axis in point)
    inside = (
        lambda: (np.maximum(abs(x), abs(y)) <= module._CUBE) & (abs(z - module._CUBE) <= module._CUBE),
        lambda: (np.hypot(x, y) <= module._CYLINDER[0]) & (z >= 0) & (z <= module._CYLINDER[1]),
        lambda: x**2 + y**2 + (z - module._SPHERE) ** 2 <= module._SPHERE**2,
        lambda: (
            x**2 + y**2 + (z - z.clip(module._CAPSULE[0], module._CAPSULE[1] - module._CAPSULE[0])) ** 2
            <= module._CAPSULE[0] ** 2
        ),
    )[shape]()
    hit = inside.any(0)
    masks = scenes.masks([_one(scenes, scale=scale, shape=shape, orientation=orientation)])[0]
    # The march misses what is grazed for less than a step.
    assert (masks[2].numpy() != hit).sum() <= 0.01 * hit.sum()
    # Behind the object: the first plane passed, floor or wall.
    x, y, z = point
    floor = np.where(z < 0, 0, 1).argmin(0)
    wall = np.where(y + abs(x) > module._CORNER, 0, 1).argmin(0)
    floor, wall = (np.where(first > 0, first, 10**6) for first in (floor, wall))
    assert ((masks[0].numpy() != (floor < wall)) & ~hit).sum() <= 25  # ties of a step along the edge


def test_each_region_has_the_hue_of_its_factor(scenes):
    # Would catch exchanged hue factors, masks of another image, and colours mixed between regions.
    indices = scenes.sample(40, 2)
    images, masks, factors = scenes.images(indices), scenes.masks(indices), scenes.factors(indices)
    assert images.shape == (40, 3, 64, 64) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1
    for image, mask, values in zip(images, masks, factors.tolist(), strict=True):
        for region in range(3):
            pixels = image[:, _interior(mask[region])].T
            assert len(pixels) > 20
            for pixel in pixels[::7].tolist():
                hue = colorsys.rgb_to_hsv(*pixel)[0] * 10 - values[region]
                # White gloss that is cut at 1 may turn the hue of a few object pixels a little.
                assert abs((hue + 5) % 10 - 5) < (0.25 if region == 2 else 1e-3)


def test_the_regions_are_shaded(scenes):
    image = scenes.images([_one(scenes, scale=7, shape=2, floor_hue=3, wall_hue=6, orientation=7)])[0]
    mask = scenes.masks([_one(scenes, scale=7, shape=2, floor_hue=3, wall_hue=6, orientation=7)])[0]
    ball = image.max(0).values * _interior(mask[2])
    y, x = np.unravel_index(int(ball.argmax()), ball.shape)
    rows, columns = mask[2].nonzero().float().mean(0)
    assert x < columns and y < rows  # the lamp is above and to the left
    walls = image.max(0).values[:8]
    assert walls[:, 40:].mean() > 1.2 * walls[:, :24].mean()  # so the corner shows
    floor = image.max(0).values[_interior(mask[0])]
    assert floor.min() < 0.7 * floor.max()  # a shadow


def test_orientation_moves_the_corner(scenes):
    # The edge (0, CORNER, h) between the walls, through a pinhole camera that circles the object.
    drop = module._CAMERA_HEIGHT - module._TARGET_HEIGHT
    length = math.hypot(module._CAMERA_DISTANCE, drop)
    height = np.linspace(0, 8, 2001)
    found, expected = [], []
    for orientation in range(15):
        azimuth = math.radians(-30 + 60 * orientation / 14)
        ahead = module._CAMERA_DISTANCE + module._CORNER * math.cos(azimuth)
        below = module._CAMERA_HEIGHT - height
        depth = (ahead * module._CAMERA_DISTANCE + below * drop) / length * module._HALF_VIEW
        row = 32 * (1 - (ahead * drop - below * module._CAMERA_DISTANCE) / length / depth) - 0.5
        column = 32 * (1 + module._CORNER * math.sin(azimuth) / depth) - 0.5
        expected.append(column[abs(row - 5).argmin()])
        image = scenes.images([_one(scenes, orientation=orientation, shape=3)])[0].sum(0)
        found.append(int((image[5, 2:] - image[5, :-2]).abs().argmax()) + 1)  # the walls differ in brightness
    np.testing.assert_allclose(found, expected, atol=1)
    assert found[14] - found[0] > 30


def test_scale_and_hues_change_what_they_name(scenes):
    areas = [scenes.masks([_one(scenes, shape=2, scale=scale)])[0, 2].sum().item() for scale in range(8)]
    assert areas == sorted(areas)
    assert areas[7] / areas[0] == pytest.approx((1.25 / 0.75) ** 2, rel=0.12)
    base = dict(floor_hue=1, wall_hue=4, object_hue=7, scale=5, shape=1, orientation=3)
    before, mask = scenes.images([_one(scenes, **base)])[0], scenes.masks([_one(scenes, **base)])[0]
    for region, name in enumerate(("floor_hue", "wall_hue", "object_hue")):
        after = scenes.images([_one(scenes, **{**base, name: 9})])[0]
        changed = (before != after).any(0)
        assert changed[_interior(mask[region])].all()
        assert not changed[_interior(~mask[region])].any()


def test_nothing_lies_outside_the_traced_pixels():
    # Only pixels near the object and its shadow are traced; tracing all of them must give the same.
    for orientation in (0, 6, 14):
        view = module.View(orientation, 64)
        for shape in range(4):
            for scale in (0, 7):
                some, every = (
                    module.trace(scale, shape, view),
                    module.trace(scale, shape, view, torch.arange(4096)),
                )
                assert torch.equal(some[1], every[1])
                torch.testing.assert_close(some[0], every[0], rtol=0, atol=1e-5)


def test_an_image_depends_on_its_index_alone(scenes):
    indices = scenes.sample(20, 5)
    together = scenes.images(indices)
    fresh = open_dataset("scenes")
    assert torch.equal(fresh.images(indices[[3]]), together[[3]])
    assert torch.equal(fresh.masks(indices[[8]]), scenes.masks(indices)[[8]])
    assert fresh.images([]).shape == (0, 3, 64, 64)


def test_scenes_opened_in_inference_mode_work_outside():
    # An analysis may open a set that training uses later.
    with torch.inference_mode():
        data = open_dataset("scenes").to("cpu")
        first = data.images([1])
    assert torch.equal(data.images([1, 2])[:1], first) and not data.images([3]).is_inference()


def test_other_sizes_show_the_same_room(scenes):
    small = open_dataset("scenes", image_size=32)
    indices = small.sample(3, 0)
    shrunk = torch.nn.functional.avg_pool2d(scenes.images(indices), 2)
    assert (small.images(indices) - shrunk).abs().mean() < 0.01
    with pytest.raises(ValueError, match=r"image size must be a whole number in 8\.\.512, got 4"):
        open_dataset("scenes", image_size=4)


def test_correlated_scenes(scenes):
    tied = open_dataset("scenes", correlation=("floor_hue", "wall_hue", 0.1))
    factors = tied.factors(tied.sample(4000, 0)).double()
    assert torch.corrcoef(factors.T)[0, 1] > 0.8
    with pytest.raises(ValueError, match=r"must be in 0\.\.479999, got 480000"):
        tied.masks([480_000])


@pytest.mark.gpu
def test_cuda_draws_the_cpus_images(scenes):
    there = open_dataset("scenes").to("cuda")
    indices = scenes.sample(300, 0)
    images, masks = there.images(indices), there.masks(indices.cuda())
    assert images.device.type == masks.device.type == "cuda"
    assert (images.cpu() - scenes.images(indices)).abs().mean() < 1e-4
    assert (masks.cpu() != scenes.masks(indices)).float().mean() < 1e-4
