from planted import gated

from latentlab.analysis import maximise_activation
from latentlab.viz import show


def test_what_was_found_is_drawn_beside_the_best_sample_and_the_matrix():
    model = gated.gated_model()
    result = maximise_activation(model, "generator", "gates", [0, 1, 2], steps=32, n_reference=100, n_seeds=3)
    picture = show(result, scale=3)
    assert "codes within the prior" in picture.caption and "best samples" in picture.caption
    assert "nothing excites more than the samples 0" in picture.caption
    one = maximise_activation(model, "generator", "gates", [0], steps=8, n_reference=100, n_seeds=1)
    assert show(one, scale=3).image.width < picture.image.width  # one unit has no matrix
    assert len(show(one).png()) > 500
