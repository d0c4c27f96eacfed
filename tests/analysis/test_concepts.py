import numpy as np
import pytest
import torch
from planted.boxes import Boxes

from latentlab.analysis import (
    ConceptMasks,
    concept_map,
    dataset_concepts,
    image_concepts,
    light_map,
    nearest_masks,
)


@pytest.fixture(scope="module")
def boxes():
    return Boxes()


def test_concepts_of_a_data_set_are_its_masks_and_what_follows_from_them(boxes):
    """Fails masks of other images, halves that overlap or miss pixels, and hues of the wrong factor."""
    indices = boxes.sample(40, 0)
    found = dataset_concepts(boxes, indices)
    masks, factors = boxes.masks(indices).numpy(), boxes.factors(indices).numpy()
    by_name = dict(zip(found.names, found.masks.transpose(1, 0, 2, 3), strict=True))
    assert np.array_equal(by_name["object"], masks[:, 1]) and np.array_equal(by_name["floor"], masks[:, 0])
    for one, other in (("top", "bottom"), ("left", "right")):
        one, other = by_name[f"object {one}"], by_name[f"object {other}"]
        assert not (one & other).any() and np.array_equal(one | other, masks[:, 1])
        assert (one.sum((1, 2)) == 18).all()
    assert (
        by_name["object top"].argmax(axis=1).max(axis=1) < by_name["object bottom"].argmax(axis=1).max(axis=1)
    ).all()
    hues = ("red", "yellow", "green", "cyan", "blue", "magenta")
    for number, hue in enumerate(hues):
        shows = by_name[f"{hue} object"].any(axis=(1, 2))
        assert np.array_equal(shows, factors[:, 0] == number)
        assert np.array_equal(by_name[f"{hue} object"][shows], masks[shows, 1])
    assert dict(zip(found.names, found.levels, strict=True))["red object"] == "colour"
    assert found.present.shape == (40, len(found.names)) and found.share[found.position("object")] == 36 / 256


def test_borders_and_edges_lie_where_regions_meet(boxes):
    """Fails an orientation turned by 90 degrees, one-sided edges, and borders of another width."""
    index = boxes.index(torch.tensor([[0, 2, 2]]))  # the box covers rows and columns 4 to 9
    found = dataset_concepts(boxes, index)
    mask = {n: found.masks[0, i] for i, n in enumerate(found.names)}
    expected = np.zeros((16, 16), dtype=bool)
    expected[2:12, 2:12] = True
    expected[6:8, 6:8] = False
    assert np.array_equal(mask["floor by object"], expected)
    flat = mask["horizontal edge"]
    assert flat[[3, 4, 9, 10], 6].all() and not flat[[2, 5, 8, 11], 6].any()
    upright = mask["vertical edge"]
    assert upright[6, [3, 4, 9, 10]].all() and not upright[[3, 4, 9, 10], 6].any()
    # Outside the corners: light grows to the lower right at the upper left corner, its edge rises to the right.
    assert mask["rising edge"][3, 3] and mask["rising edge"][10, 10]
    assert mask["falling edge"][3, 10] and mask["falling edge"][10, 3]


def test_an_image_shows_its_own_concepts():
    """Fails luminance mixed with colour, hues shifted by a bin, quarters exchanged."""
    image = np.zeros((1, 3, 8, 8), dtype=np.float32)
    image[0, 1, :4, :4] = 1.0  # green, luminance 0.587
    image[0, 2, 4:, 4:] = 1.0  # blue, luminance 0.114
    found = image_concepts(image)
    mask = {n: found.masks[0, i] for i, n in enumerate(found.names)}
    corner = np.zeros((8, 8), dtype=bool)
    corner[:4, :4] = True
    assert np.array_equal(mask["bright"], corner) and np.array_equal(mask["dark"], ~corner)
    assert np.array_equal(mask["bright top left"], corner) and not mask["bright bottom right"].any()
    assert np.array_equal(mask["green"], corner) and np.array_equal(mask["blue"], corner[::-1, ::-1])
    assert not mask["red"].any()
    assert mask["vertical edge"][1, 3] and mask["horizontal edge"][3, 1] and not mask["vertical edge"][1, 1]
    assert "red" not in image_concepts(image[:, :1]).names and len(image_concepts(image[:, :1])) == 1
    with pytest.raises(
        ValueError, match=r"Expected images \(n, 1 or 3, height, width\); got shape \(3, 8, 8\)"
    ):
        image_concepts(image[0])


@pytest.mark.parametrize("direction", ["rising", "falling"])
def test_a_diagonal_runs_the_way_it_is_called(direction):
    rows, columns = np.mgrid[:9, :9]
    lit = rows + columns > 8 if direction == "rising" else rows > columns
    found = image_concepts(lit[None, None].astype(np.float32))
    assert found.masks[0, found.position(f"{direction} edge"), 4, 4]


def test_nearest_masks_find_what_the_data_can_draw(boxes):
    """Fails a search that stays at its samples: 50 of 150 images may be known at the start."""
    segment = nearest_masks(boxes, n=50)
    assert segment.agreement > 0.9
    indices = boxes.sample(12, 5)
    dim = 0.9 * boxes.images(indices)
    found = segment(dim)
    assert np.array_equal(found.masks, dataset_concepts(boxes, indices).masks)
    assert segment.distance == pytest.approx(
        float((dim - boxes.images(indices)).square().mean().sqrt()), abs=1e-5
    )
    with pytest.raises(ValueError, match="Expected a full grid of factors with masks"):
        nearest_masks(object())


def test_a_concept_map_is_the_mask_of_its_concept(boxes):
    images = boxes.images(boxes.sample(3, 0))
    red = concept_map("green", image_concepts)
    found = image_concepts(images)
    assert np.array_equal(red.maps(images).numpy(), found.masks[:, found.position("green")])
    assert red(images).numpy() == pytest.approx(found.masks[:, found.position("green")].mean((1, 2)))
    assert light_map()(torch.ones(2, 3, 4, 4)).tolist() == pytest.approx([1, 1])
    with pytest.raises(ValueError, match="No concept 'grass'; there are bright, dark"):
        concept_map("grass").maps(images)


def test_wrong_masks_are_refused():
    fine = np.zeros((2, 4, 4))
    assert ConceptMasks.of({"a": fine, "b": fine}, {"a": "edge", "b": "part"}).levels == ("edge", "part")
    with pytest.raises(ValueError, match="true or false"):
        ConceptMasks.of({"a": fine + 0.5})
    with pytest.raises(ValueError, match="level is one of edge, colour, part, whole; got 'texture'"):
        ConceptMasks.of({"a": fine}, "texture")
    with pytest.raises(ValueError, match="different names"):
        ConceptMasks(("a", "a"), ("edge", "edge"), np.zeros((2, 2, 4, 4), dtype=bool))
    with pytest.raises(
        ValueError, match=r"Masks must be \(n, 1 concepts, height, width\); got shape \(2, 4\)"
    ):
        ConceptMasks(("a",), ("edge",), np.zeros((2, 4), dtype=bool))
    with pytest.raises(ValueError, match="No concept of level"):
        ConceptMasks.of({"a": fine}).select(levels=["edge"])
