"""Ranges given as a table: strips and planes end where it says, an index runs over the indices of its range."""

from __future__ import annotations

import numpy as np
import pytest

from latentlab import analysis
from latentlab.analysis.traversal import _values, dim_ranges
from latentlab.config import BlockConfig, VAEConfig
from latentlab.latents import Block, Codebook, LatentSpace
from latentlab.models.build import build_model


@pytest.fixture(scope="module")
def model():
    blocks = [BlockConfig("kind", 3, "categorical"), BlockConfig("style", 2)]
    return build_model(VAEConfig(blocks=blocks, width=8, hidden=16), (1, 64, 64), 0).eval()


TABLE = [[9, 9], [9, 9], [9, 9], [-5.0, 0.5], [1.0, 7.0]]


def test_strips_and_planes_end_where_the_table_says(model) -> None:
    """Fails a table that is taken around the code, and one that stretches a category."""
    z = model.latent_space.sample(1, 0)[0].numpy()
    strips = analysis.traverse(model, z, ["kind", *model.latent_space.names[3:]], steps=4, span=TABLE)
    assert strips.span == "values" and strips.lengths.tolist() == [3, 4, 4]
    assert strips.values[1:, [0, -1]].tolist() == [[-5.0, 0.5], [1.0, 7.0]]
    plane = analysis.traverse_grid(model, z, model.latent_space.names[3:], steps=3, span=np.array(TABLE))
    assert plane.x_values.tolist() == [-5.0, -2.25, 0.5] and plane.y_values.tolist() == [1.0, 4.0, 7.0]
    assert dim_ranges(model, span=TABLE)[:3].tolist() == [[0, 1]] * 3


@pytest.mark.parametrize(
    "table, sentence",
    [
        (TABLE[:4], r"\(5, 2\), low and high; got shape \(4, 2\)"),
        ([*TABLE[:4], [1.0, 1.0]], "needs low < high; got 1 to 1"),
        ([*TABLE[:4], [0.0, np.nan]], "needs low < high; got 0 to nan"),
        ([*TABLE[:4], [0.0, "a"]], r"is \(5, 2\) numbers"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(model, table, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        dim_ranges(model, span=table)


def test_an_index_runs_over_the_indices_of_its_range() -> None:
    space = LatentSpace([Block("code", 1, Codebook(16))])
    strip = ("code", 0, None)
    assert _values(space, strip, np.linspace(3, 6, 9), False).tolist() == [3, 4, 5, 6]
    whole = _values(space, strip, np.linspace(0, 15, 5), False)
    assert whole.tolist() == Codebook(16).indices(5)
