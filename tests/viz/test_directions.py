"""Directions, effects, analogies and tests of concepts are drawn from real results."""

import numpy as np
import pytest

from latentlab import viz
from latentlab.analysis import (
    Direction,
    analogy,
    boundary,
    direction_effects,
    ganspace,
    load_result,
    sefa,
    tcav,
    traverse_direction,
)


@pytest.fixture
def found(painter):
    painter.sample_codes = painter.latent_space.sample
    painter.spaces = {"z": painter.latent_space}
    decode = painter.decode
    painter.decode = lambda z, edits=(), space=None: decode(z, edits)
    z = painter.sample_codes(40, 3)
    tone = Direction("tone", (1.0, 0, 0, 0), space="z")
    return [
        sefa(painter),
        ganspace(painter, "maps", n=2, draws=40),
        boundary(painter, None, "red", n=200, share=0.1),
        direction_effects(
            painter, [tone, tone.named("again, with a name that is far too long to fit")], n=6, n_draws=3
        ),
        analogy(painter, z[:3], z[3:6], z[6]),
        tcav(painter, "maps", {"red": z[:12], "other": z[12:24]}, "red", n_partners=2, random_examples=z),
        traverse_direction(painter, tone, z[0], [-1, 0, 1]),
    ]


def test_each_is_drawn_with_its_proof_and_the_same_from_a_file(found, tmp_path):
    """Fails a kind without a picture, and numbers of the certificate that nobody put in words."""
    for result in found:
        picture = viz.show(result)
        assert picture.image.mode == "RGB" and min(picture.image.size) > 60
        assert len(np.unique(np.asarray(picture.image).reshape(-1, 3), axis=0)) > 3
        assert f"model {result.provenance.weights_digest[:8]}" in picture.caption
        again = viz.show(load_result(result.save(tmp_path / result.kind)))
        assert again.caption == picture.caption and again.image.tobytes() == picture.image.tobytes()
    assert "the first map is affine to" in viz.show(found[0]).caption
    assert "random concepts called significant" in viz.show(found[5]).caption


def test_effects_show_the_images_themselves(found):
    """Fails strips of other images than the result's."""
    effects = found[3]
    shown = {tuple(c) for c in np.asarray(viz.show(effects, scale=4).image).reshape(-1, 3).tolist()}
    for image in effects.images[0]:
        assert tuple(np.round(np.clip(image[:, 0, 0], 0, 1) * 255).astype(int).tolist()) in shown
    assert len(viz.show(effects).frames) == 2 * (7 - 1)
