"""How geometry and shares are drawn."""

import numpy as np
import pytest
from planted import gated, linear, renderer

from latentlab import viz
from latentlab.analysis import geodesic, jacobian, load_result, magnification_map, pullback_metric, sobol


def made():
    model = renderer.renderer_model()
    a, b = 0.5 * model.sample_codes(2, 0)
    data = model.sample_codes(50, 1)
    yield "jacobian", jacobian(model)
    yield "jacobian of a stage", jacobian(model, stage="factors")
    yield "metric", pullback_metric(model)
    yield "map", magnification_map(model, (3, 4), steps=4)
    yield "geodesic", geodesic(model, a, b, steps=4, most=5, data_codes=data, support_weight=1.0)
    yield "plain geodesic", geodesic(linear.linear_model()[0], [0, 0, 0, 0], [1, 0, 0, 0], steps=3)
    yield "shares", sobol(model, n=16)
    yield "shares of a meter", sobol(model, "x", n=16)
    yield "shares of units", sobol(gated.gated_model(), stage="gates", n=16)


@pytest.mark.parametrize(("name", "result"), [pytest.param(*pair, id=pair[0]) for pair in made()])
def test_each_is_drawn_with_its_certificate(name, result, tmp_path):
    """Fails a result without a picture, a caption without proof, and a picture that changes when loaded again."""
    picture = viz.show(result)
    assert picture.image.mode == "RGB" and min(picture.image.size) > 100 and picture.image.width < 1500
    assert len(np.unique(np.asarray(picture.image).reshape(-1, 3), axis=0)) > 3
    assert f"model {result.provenance.weights_digest[:8]}" in picture.caption
    again = viz.show(load_result(result.save(tmp_path / "r")))
    assert again.caption == picture.caption and again.image.tobytes() == picture.image.tobytes()
