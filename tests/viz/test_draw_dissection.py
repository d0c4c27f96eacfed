import numpy as np
import pytest
from planted import gated
from planted.composed import composed_network, pictures

from latentlab import viz
from latentlab.analysis import (
    causal_effect,
    dissect,
    effects_of_units,
    emergence,
    emergence_over_training,
    light_map,
    load_result,
)


@pytest.fixture(scope="module")
def drawable():
    model, (images, concepts) = gated.gated_model(), pictures(24)
    cut = dissect(model, "maps", n_images=16, n_draws=3)
    given = {"inputs": images, "concepts": concepts, "n_draws": 2}
    found = [
        cut,
        dissect(model, "gates", n_images=16, n_draws=3, threshold="matched", rank="excess"),
        causal_effect(model, "maps", (0, 4), light_map(), n=4),
        effects_of_units(model, "maps", [light_map()], n=4),
        effects_of_units(model, "maps", ["brightness"], n=4, dissection=cut),
        emergence(composed_network(), **given),
        emergence_over_training([(0, composed_network()), (10, composed_network())], **given),
    ]
    return found


@pytest.mark.parametrize("number", range(7))
def test_every_result_is_drawn_with_its_certificate(drawable, number, tmp_path):
    """Fails a result without a picture, and a picture that changes when the result is loaded again."""
    result = drawable[number]
    picture = viz.show(result)
    assert (
        min(picture.image.size) > 100 and len(np.unique(np.asarray(picture.image).reshape(-1, 3), axis=0)) > 3
    )
    assert f"model {result.provenance.weights_digest[:8]}" in picture.caption and "{}" not in picture.caption
    again = viz.show(load_result(result.save(tmp_path / "r")))
    assert np.array_equal(np.asarray(picture.image), np.asarray(again.image))


def test_options_choose_what_is_drawn(drawable):
    assert viz.show(drawable[0], count=2).image.height < viz.show(drawable[0]).image.height
    by_concept = viz.show(drawable[5], concepts=True).image
    assert by_concept.size != viz.show(drawable[5]).image.size
    assert viz.show(drawable[3], concept="light").image.width > 100
    with pytest.raises(ValueError, match="No concept 'grass'; there are light"):
        viz.show(drawable[3], concept="grass")


def test_a_mask_is_outlined_in_its_picture(drawable):
    """Fails outlines of another image: the colour of the outline is where the mask ends, and nowhere else."""
    from latentlab.viz.colours import WARNING
    from latentlab.viz.dissection import _outlined

    mask = np.zeros((16, 16), dtype=bool)
    mask[4:8, 4:10] = True
    cell = np.asarray(_outlined(np.full((1, 16, 16), 0.5), mask, np.zeros_like(mask)))
    red = (cell == WARNING).all(axis=2)
    rows, columns = np.nonzero(red)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (32, 63, 32, 79) and not red[40, 50]
