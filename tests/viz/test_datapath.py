"""Drawings of datapaths and surrogates, each on a real result of a planted model."""

import numpy as np
import pytest
from planted import gated

from latentlab.analysis import datapath, surrogate
from latentlab.viz import show
from latentlab.viz.colours import ACCENT


@pytest.fixture(scope="module")
def model():
    return gated.gated_model()


def test_a_datapath_shows_units_edges_and_the_caveat(model):
    """Fails a picture without the units kept, and a caption without damage or caveat."""
    found = datapath(model, stages=["gates", "maps"], selection="differences", n=4)
    picture = show(found)
    assert (np.asarray(picture.image) == ACCENT).all(axis=-1).sum() > 500
    for words in (
        "need not hold the information that matters most",
        "allowed 0.05",
        "dropped units set to 0",
    ):
        assert words in picture.caption
    flat = show(datapath(model.generator, model.sample_codes(4, 0), stages="maps", selection="differences"))
    assert flat.image.height > 100


@pytest.mark.parametrize("kind", ["ridge", "logistic", "tree"])
def test_a_surrogate_shows_what_it_says_and_how_true_it_is(model, kind):
    picture = show(surrogate(model, "brightness", kind=kind, n=200, refits=1, n_draws=20))
    assert "held-out fidelity" in picture.caption and "R2 of predicted changes" in picture.caption
    assert (np.asarray(picture.image) == ACCENT).all(axis=-1).sum() > 500


def test_the_shapes_of_an_additive_model_are_drawn(model):
    found = surrogate(model, "brightness", kind="ebm", n=200, refits=1, n_draws=20)
    tree = surrogate(model, "brightness", kind="ridge", n=200, refits=1, n_draws=20)
    assert found.shapes and show(found).image.height > show(tree).image.height
