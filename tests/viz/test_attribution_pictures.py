"""Pictures of attribution, conductance, influence, facets and bundles: each drawn of a real result, with its proof."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import gated

from latentlab import viz
from latentlab.analysis.attribution import integrated_gradients
from latentlab.analysis.bundles import edge_bundles
from latentlab.analysis.conductance import conductance
from latentlab.analysis.facets import unit_facets
from latentlab.analysis.influence import influence_by_stage, latent_unit_pixel
from latentlab.analysis.results import load_result
from latentlab.viz.colours import PAPER
from latentlab.viz.raster import matrix_picture

MAKE = {
    "attribution": lambda m: integrated_gradients(m, seed=1),
    "some latents": lambda m: integrated_gradients(m, seed=1, dims=["z0"]),
    "conductance": lambda m: conductance(m, "gates", seed=1),
    "a meter's conductance": lambda m: conductance(m, "maps", seed=1, meter="brightness"),
    "latent to unit": lambda m: latent_unit_pixel(m, "gates", n=2),
    "by stage": lambda m: influence_by_stage(m, n=2),
    "facets": lambda m: unit_facets(m, "gates", n=64),
    "bundles": lambda m: edge_bundles(m, "gates", "maps", threshold=0.01),
}
PROOF = {
    "attribution": "sum of the images and change differ by",
    "some latents": "nodes",
    "conductance": "all routes pass here",
    "a meter's conductance": "the stage's state alone misses",
    "latent to unit": "rows add up to 1 within",
    "by stage": "3 of the stages are passed by all routes",
    "facets": "shuffled up to",
    "bundles": "missing edges 0, invented 0, doubled 0",
}


@pytest.fixture(scope="module")
def model():
    return gated.gated_model()


@pytest.mark.parametrize("what", MAKE)
def test_each_result_is_drawn_with_its_proof(what, model, tmp_path):
    """Fails a picture without certificate or provenance, and one that changes when its result is loaded again."""
    result = MAKE[what](model)
    picture = viz.show(result)
    assert PROOF[what] in picture.caption
    assert f"model {result.provenance.weights_digest[:8]}" in picture.caption
    assert len(np.unique(np.asarray(picture.image).reshape(-1, 3), axis=0)) > 3
    again = viz.show(load_result(result.save(tmp_path / "result")))
    assert again.caption == picture.caption and again.image.tobytes() == picture.image.tobytes()


def test_nothing_is_cut_off_at_the_edge(model):
    """The outermost pixels of a sheet are paper, so that no text or picture runs over."""
    for what in ("attribution", "latent to unit", "facets", "bundles"):
        pixels = np.asarray(viz.show(MAKE[what](model), caption=False).image)
        for edge in (pixels[:, 0], pixels[:, -1], pixels[0], pixels[-1]):
            assert (edge == PAPER).all(), what


def test_images_of_three_channels_keep_their_colours(model):
    """A change that adds red and takes blue would vanish in the mean over channels."""
    from latentlab.viz.attribution import signed_picture

    change = np.stack([np.full((4, 4), 0.5), np.zeros((4, 4)), np.full((4, 4), -0.5)])
    assert signed_picture(change, 0.5, 1).getpixel((0, 0)) == (255, 128, 0)


def test_latents_that_draw_next_to_nothing_are_left_out(monkeypatch):
    """Fails a picture in which a collapsed latent's shares stand on a par with others, or vanish without a word."""
    from latentlab.viz import influence

    model = gated.gated_model()
    with torch.no_grad():
        model.generator.stages["gates"][0].weight[:, 3] *= 0.01
    drawn = []

    def noting(values, rows, *rest, **options):
        drawn.append((np.asarray(values).shape[0], list(rows)))
        return matrix_picture(values, rows, *rest, **options)

    monkeypatch.setattr(influence, "matrix_picture", noting)
    for make in (MAKE["latent to unit"], MAKE["by stage"]):
        picture = viz.show(make(model))
        assert (
            "left out: 1 latent that changes the image by less than 5 % of the strongest" in picture.caption
        )
    assert len(drawn) == 3
    for count, rows in drawn:
        assert count == len(rows) and "z3" not in rows and {"z0", "z1", "z2", "z4"} <= set(rows)


def test_a_model_whose_latents_draw_nothing_is_drawn_as_such():
    model = gated.gated_model()
    with torch.no_grad():
        model.generator.stages["gates"][0].weight.zero_()
    for make in (MAKE["latent to unit"], MAKE["by stage"]):
        assert "no latent changes the image" in viz.show(make(model)).caption


@pytest.mark.parametrize("complete", [True, False])
def test_a_conductances_gap_is_held_against_what_is_allowed(model, complete):
    """Fails a drawing that shows a gap and not whether it is within what was asked for."""
    result = conductance(model, "gates", seed=1, tolerance=0.004)
    assert result.certificate["complete"] is True
    share = 0.0039 if complete else 0.0152
    result = replace(result, certificate={**result.certificate, "gap_share": share, "complete": complete})
    caption = viz.show(result).caption
    assert f"{share:.2g}".rstrip("0") in caption and "0.004 of the range allowed" in caption
    assert f"kept to: {'yes' if complete else 'no'}" in caption
