"""Cells: a drawing says where the image of each code lies on it, so that a click finds the code."""

from typing import Any

import numpy as np
import pytest

from latentlab import viz
from latentlab.analysis import load_result


@pytest.mark.parametrize("caption", [False, True])
@pytest.mark.parametrize("kind", ["Traversal", "TraversalGrid", "SwapGrid", "Interpolation"])
def test_each_cell_holds_the_image_of_its_code(results, kind, caption, tmp_path):
    """Fails boxes that are guessed: shifted by a label, a title or an axis name, or rows counted upside down."""
    result: Any = load_result(results[kind].save(tmp_path / kind))
    picture = viz.show(result, caption=caption)
    assert picture.cells is not None and picture.cells.shape == (*result.z.shape[:-1], 4)
    drawn, seen = np.asarray(picture.image), 0
    for index in np.ndindex(result.z.shape[:-1]):
        left, top, right, bottom = picture.cells[index]
        image = result.images[index]
        if np.isnan(image).all():
            assert not picture.cells[index].any()
            continue
        pixels = (np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0) * 255).round()
        scale = (right - left) // image.shape[2]
        assert scale >= 1 and (right - left, bottom - top) == (scale * image.shape[2], scale * image.shape[1])
        box = drawn[top:bottom, left:right][scale // 2 :: scale, scale // 2 :: scale]
        assert np.array_equal(box, pixels.astype(np.uint8)), index
        seen += 1
    assert seen >= 4


def test_a_strip_of_fewer_steps_has_no_cells_behind_its_end(results):
    """Fails a click behind the last category, which would lead to a code that is no code."""
    result = results["Traversal"]
    cells = viz.show(result).cells
    assert cells is not None
    for row, length in enumerate(result.lengths):
        assert cells[row, :length].any(-1).all() and not cells[row, length:].any()
    assert result.lengths.min() < result.lengths.max()


def test_a_drawing_without_codes_tells_no_cells(results):
    assert viz.show(results["Encoding"]).cells is None
