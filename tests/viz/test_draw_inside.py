import numpy as np
import pytest
import torch
from planted import gated
from torch import nn

from latentlab import viz
from latentlab.analysis import (
    network_graph,
    pixel_reads,
    predictive_maps,
    top_inputs,
    unit_draws,
    unit_isolates,
    unit_spread,
)
from latentlab.models.adapt import adapt_model
from latentlab.models.staged import StagedNetwork
from latentlab.models.style_networks import StyledGenerator
from latentlab.viz.graph import INPUT, _bands, _rows


@pytest.fixture(scope="module")
def model():
    return gated.gated_model()


@pytest.fixture(scope="module")
def foreign():
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 16), nn.Sigmoid(), nn.Unflatten(1, (1, 4, 4)))
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    return adapt_model(decoder, latents=2, image_shape=(1, 4, 4), encoder=encoder)


def test_every_result_is_drawn_with_its_proof(model, foreign):
    """Fails a result without a picture, and a caption that leaves out the certificate."""
    x = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0))
    drawn = {
        "drawings miss what the units draw together by": [
            unit_draws(model, "maps", n=2),
            unit_isolates(model, "maps", baseline="mean"),
            unit_draws(model.generator, "gates", inputs=np.zeros((1, 5))),
        ],
        "gradient and finite difference agree to": [
            pixel_reads(model, (0.1, 0.1, 0.5, 0.5), stage="maps"),
            pixel_reads(model, (0.1, 0.1, 0.5, 0.5), n=2),
        ],
        "outside the patch": [top_inputs(model, "maps", "generator", n=16)],
        "declared edges that nothing flows along 0": [network_graph(model)],
        "error falls with draws to the power": [
            predictive_maps(foreign, x, n_draws=32),
            predictive_maps(foreign, n_draws=32),
            unit_spread(foreign, "0", x, n_draws=32),
        ],
        "Monte-Carlo error": [predictive_maps(foreign, z=np.zeros(2), n_draws=32)],
    }
    for words, results in drawn.items():
        for result in results:
            picture = viz.show(result)
            assert words in picture.caption, (result.kind, picture.caption)
            assert min(picture.image.size) > 60 and len(np.unique(np.asarray(picture.image))) > 3


def test_a_units_drawing_is_shown_in_its_own_colours(model):
    """Fails a picture of another unit's drawing, or of the wrong sign: red where the unit adds light."""
    found = unit_draws(model, "maps", [4, 7], inputs=np.zeros((1, 5)))
    pixels = np.asarray(viz.show(found, scale=4).image).reshape(-1, 3).astype(int)
    strong = [tuple(c) for c in ((124, 16, 36),)]
    assert any((pixels == c).all(axis=1).any() for c in strong)
    only = unit_draws(model, "maps", [7], inputs=np.zeros((1, 5)))
    blue = np.asarray(viz.show(only, scale=4).image).reshape(-1, 3).astype(int)
    assert (blue == (16, 52, 120)).all(axis=1).any()


def test_no_two_boxes_of_a_graph_lie_on_each_other():
    """Fails a drawing that hides a stage: a style network with its image branch, and a chain."""
    torch.manual_seed(0)
    styled = StyledGenerator((1, 16, 16), 8, 8)
    style = network_graph(styled, inputs=torch.randn(4, styled.layers * styled.styles))
    chain = network_graph(
        StagedNetwork({f"s{i}": nn.Linear(2, 2) for i in range(14)}), inputs=torch.zeros(2, 2)
    )
    for graph in (style, chain):
        depth = {INPUT: 0, **dict(zip(graph.names, graph.depths, strict=True))}
        rows = _rows(graph, depth)
        places = [(depth[k], rows[k]) for k in (INPUT, *graph.names)]
        assert len(set(places)) == len(places)
        picture = viz.show(graph)
        assert picture.image.width < 1900 and str(sum(graph.parameters)) in picture.caption.replace(",", "")


def test_skips_that_overlap_run_at_different_heights():
    depth = {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}
    bands = _bands([("a", "c"), ("b", "d"), ("a", "e")], depth)
    assert len(set(bands.values())) == 3
