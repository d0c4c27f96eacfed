import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from latentlab import analysis, viz
from latentlab.analysis import load_result
from latentlab.viz import drawing


@pytest.mark.parametrize(
    "kind",
    [
        "Traversal",
        "TraversalGrid",
        "SwapGrid",
        "Interpolation",
        "Inversion",
        "Encoding",
        "Projection",
        "Activations",
        "FeatureMaps",
        "EditComparison",
        "UnitRanking",
        "LinearReadout",
    ],
)
def test_every_result_is_drawn_with_certificate_and_provenance(results, kind, tmp_path):
    """Fails a result without a picture, a caption without proof, and a picture that changes when loaded again."""
    result = results[kind]
    picture = viz.show(result)
    assert picture.image.mode == "RGB" and min(picture.image.size) > 30
    assert len(np.unique(np.asarray(picture.image).reshape(-1, 3), axis=0)) > 3
    assert f"model {result.provenance.weights_digest[:8]}" in picture.caption
    assert "latentlab" in picture.caption
    assert Image.open(io.BytesIO(picture.png())).info["Description"] == picture.caption
    assert result._repr_html_().startswith('<img src="data:image/png;base64,')
    again = viz.show(load_result(result.save(tmp_path / kind)))
    assert again.caption == picture.caption and again.image.tobytes() == picture.image.tobytes()
    assert viz.show(result, caption=False).image.height < picture.image.height


def test_no_kind_of_result_is_left_without_a_picture(results):
    exported = {getattr(analysis, name) for name in analysis.__all__}
    kinds = {c.__name__ for c in exported if isinstance(c, type) and issubclass(c, analysis.Result)}
    assert kinds - {"Result"} <= {kind.__name__ for kind in drawing._DRAW}
    assert set(results) <= kinds


def test_a_traversal_shows_the_images_themselves(results):
    """Fails a figure of other images than the result's: every decoded pixel colour must be in it."""
    result = results["Traversal"]
    shown = {tuple(c) for c in np.asarray(viz.show(result, scale=4).image).reshape(-1, 3).tolist()}
    for row, length in enumerate(result.lengths):
        for image in result.images[row, :length]:
            corner = tuple(np.round(image[:, 0, 0] * 255).astype(int).tolist())
            assert corner in shown
    assert len(viz.show(result).frames) == 2 * (5 - 1)
    assert len(viz.show(result, animate=False).frames) == 1


def test_animations_have_frames_of_one_size_that_differ(results, tmp_path):
    for kind in ("Traversal", "TraversalGrid", "SwapGrid", "Interpolation", "EditComparison"):
        picture = viz.show(results[kind])
        assert len({f.size for f in picture.frames}) == 1, kind
        assert len({f.tobytes() for f in picture.frames}) > 1, kind
        path = picture.save(tmp_path / f"{kind}.gif")
        with Image.open(path) as gif:
            assert gif.n_frames > 1
    picture.save(tmp_path / "still.png")
    with Image.open(tmp_path / "still.png") as still:
        assert still.size == picture.image.size
    picture.save(tmp_path / "still.jpg")


def test_a_grid_is_drawn_with_the_larger_y_on_top(results):
    from latentlab.viz import images

    grid = results["TraversalGrid"]
    drawn = np.asarray(viz.show(grid, caption=False, scale=8).image)
    top = np.asarray(images.to_pil(grid.images[grid.y_values.argmax(), 0], 8))
    found = [
        (y, x)
        for y in range(0, 60)
        for x in range(0, 120)
        if np.array_equal(drawn[y : y + 64, x : x + 64], top)
    ]
    assert len(found) == 1 and found[0][0] < 40


def test_unknown_options_and_objects_get_a_sentence(results):
    with pytest.raises(
        TypeError, match=r"A Traversal is not drawn with 'color'; its options: animate, scale"
    ):
        viz.show(results["Traversal"], color="x")
    with pytest.raises(TypeError, match=r"Nothing is known about drawing a str; expected .*Traversal"):
        viz.show("result")


def test_raw_outputs_are_compared_as_bars(painter):
    from latentlab.analysis import compare_edits
    from latentlab.models.edits import Edit
    from latentlab.models.staged import StagedNetwork

    network = StagedNetwork({"mix": painter.generator.stages["mix"]})
    result = compare_edits(network, np.ones((2, 4)), [Edit("generator.mix", (0,))])
    assert viz.show(result).image.width > 100


def test_importing_viz_is_cheap_and_needs_no_chart_library():
    code = "import sys, latentlab.viz; assert not {'altair', 'av', 'umap', 'sklearn', 'streamlit'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
