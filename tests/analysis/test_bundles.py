"""Bundles of edges: the largest bicliques, no edge lost, invented, drawn twice or in a bundle of the other sign."""

import itertools

import numpy as np
import pytest
import torch
from planted import gated
from torch import nn

from latentlab.analysis.bicliques import cover, ink, largest_biclique
from latentlab.analysis.bundles import edge_bundles, losses
from latentlab.analysis.results import load_result
from latentlab.models.adapt import adapt
from latentlab.models.staged import StagedNetwork


def network(matrix: np.ndarray) -> StagedNetwork:
    """Two linear stages: the first hands its inputs on, the second is the matrix (from, to)."""
    rows, columns = matrix.shape
    one, two = nn.Linear(rows, rows, bias=False), nn.Linear(rows, columns)
    with torch.no_grad():
        one.weight.copy_(torch.eye(rows))
        two.weight.copy_(torch.tensor(matrix.T))
    return StagedNetwork({"first": one, "second": two}, "net")


def planted() -> np.ndarray:
    """Blocks of one sign each, one of them crossing two others' rows and columns."""
    matrix = np.zeros((9, 10), dtype=np.float32)
    matrix[0:4, 0:3], matrix[3:7, 4:8] = 1.0, -1.0
    matrix[6:9, 8:10], matrix[0, 9] = 0.8, -0.6
    return matrix


def test_planted_blocks_are_the_bundles(left_as_found):
    """The row's truth: union of the bundles equals the edges, signs never mixed; each block is one bundle."""
    net = network(planted())
    left_as_found(net)
    result = edge_bundles(net, "first", "second", np.ones((3, 9), dtype=np.float32))
    assert np.allclose(result.weights, planted(), atol=1e-6)
    assert np.array_equal(result.edges, np.sign(planted()).astype(int))
    assert sorted(map(tuple, result.sizes.tolist())) == [(1, 1), (3, 2), (4, 3), (4, 4)]
    assert [
        result.certificate[k] for k in ("missing_edges", "invented_edges", "doubled_edges", "mixed_signs")
    ] == [0] * 4
    assert result.certificate["proved"] is True
    assert result.certificate["ink_ratio"] == pytest.approx((7 + 8 + 5 + 1) / (12 + 16 + 6 + 1))
    assert (result.bundle_of >= 0).tolist() == (result.edges != 0).tolist()


def test_bundles_that_invent_edges_are_the_fake_that_fails():
    """Joining clusters of nodes completely draws edges that are none, and edges of the other sign."""
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((12, 12)) * (rng.random((12, 12)) < 0.4)
    clusters = [list(range(k, k + 4)) for k in (0, 4, 8)]
    fake = [(a, b) for a, b in itertools.product(clusters, clusters)]
    wrong = losses(weights, 0.3, fake, [1] * len(fake))
    assert wrong["invented_edges"] > 20 and wrong["mixed_signs"] > 0 and wrong["missing_edges"] == 0
    twice = losses(planted(), 0.1, [([0, 1], [0, 1]), ([1, 2], [1, 2])], [1, 1])
    assert twice["doubled_edges"] == 1 and twice["missing_edges"] > 0
    ours = edge_bundles(
        network(weights.astype(np.float32)), "first", "second", np.ones((1, 12)), threshold=0.3
    )
    assert all(ours.certificate[k] == 0 for k in wrong)


@pytest.mark.parametrize("seed", range(6))
def test_the_largest_biclique_is_that_of_all_subsets(seed):
    """Brute force over all sets of left nodes: fails a greedy or cluster-wise search."""
    rng = np.random.default_rng(seed)
    graph = rng.random((9, 11)) < 0.45
    best = 0
    for size in range(1, 10):
        for rows in itertools.combinations(range(9), size):
            best = max(best, size * int(graph[list(rows)].all(axis=0).sum()))
    a, b, proved = largest_biclique(graph)
    assert proved and len(a) * len(b) == best and graph[np.ix_(a, b)].all()
    pieces, exact = cover(graph)
    drawn = np.zeros(graph.shape, dtype=int)
    for a, b in pieces:
        drawn[np.ix_(a, b)] += 1
    assert exact and np.array_equal(drawn, graph.astype(int)) and ink(pieces) <= graph.sum()


def test_a_search_cut_short_says_so_and_loses_nothing():
    graph = np.random.default_rng(0).random((20, 20)) < 0.6
    a, b, proved = largest_biclique(graph, most_branches=3)
    assert not proved and graph[np.ix_(a, b)].all() and a and b


def test_weights_are_what_units_add():
    """F1: gate u adds its own activation to map u, averaged over the map, and nothing to another."""
    model = gated.gated_model()
    z = model.sample_codes(8, 0)
    result = edge_bundles(model, "gates", "maps", z, threshold=1e-6)
    expected = np.diag([float(gated.activation(z, u).mean()) / 64 for u in range(gated.UNITS)])
    assert np.allclose(result.weights, expected, atol=1e-5)
    assert result.certificate["loop_difference"] < 1e-6 and len(result.signs) == gated.UNITS


def test_signs_follow_the_activation_and_the_weight():
    """An input of -1 turns every sign: what a unit adds is weight times activation."""
    plus = edge_bundles(network(planted()), "first", "second", np.ones((1, 9)))
    minus = edge_bundles(network(planted()), "first", "second", -np.ones((1, 9)))
    assert np.array_equal(plus.edges, -minus.edges)


def test_groups_are_nodes():
    groups = np.array([0, 0, 0, 0, 1, 1, 1, -1, -1])
    ends = np.array([0, 0, 0, -1, 1, 1, 1, 1, 2, 2])
    result = edge_bundles(
        network(planted()), "first", "second", np.ones((1, 9)), groups_from=groups, groups_to=ends
    )
    expected = np.array([[4.0, -1.0, -0.3], [0.0, -3.0, 0.8]])
    assert np.allclose(result.weights, expected, atol=1e-6)
    assert result.nodes_from == ("0 (4 units)", "1 (3 units)") and len(result.nodes_to) == 3


def test_foreign_networks_seeds_and_files(tmp_path, left_as_found):
    torch.manual_seed(0)
    foreign = adapt(nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 6)), torch.zeros(1, 4))
    model = gated.gated_model()
    left_as_found(foreign)
    x = np.random.default_rng(0).standard_normal((5, 4))
    result = edge_bundles(foreign, "0", "2", x)
    assert result.certificate["missing_edges"] == result.certificate["invented_edges"] == 0
    again = load_result(result.save(tmp_path / "bundles"))
    assert np.array_equal(again.bundle_of, result.bundle_of) and again.addresses == ("network.0", "network.2")
    first, second, other = (edge_bundles(model, "gates", "maps", seed=s).weights for s in (1, 1, 2))
    assert np.array_equal(first, second) and not np.array_equal(first, other)
    with pytest.raises(ZeroDivisionError):
        edge_bundles(model, "gates", "maps", progress=lambda *_: 1 / 0)


def test_errors_say_what_is_possible():
    net, x = network(np.eye(70, dtype=np.float32)), np.ones((1, 70))
    with pytest.raises(ValueError, match=r"'net.first' has 70 nodes, .* at most 60; pass groups_from="):
        edge_bundles(net, "first", "second", x)
    with pytest.raises(ValueError, match="Stage 'second' does not come before 'first'"):
        edge_bundles(net, "second", "first", x)
    with pytest.raises(ValueError, match="threshold above 0"):
        edge_bundles(net, "first", "second", x, threshold=0.0)
    with pytest.raises(
        ValueError, match=r"each of the 70 units of 'net.second' the number of a group.*got shape \(3,\)"
    ):
        edge_bundles(net, "first", "second", x, groups_from=np.zeros(70, int), groups_to=[0, 1, 2])
    with pytest.raises(ValueError, match="adds nothing to 'second' at these inputs"):
        edge_bundles(network(np.zeros((3, 3), dtype=np.float32)), "first", "second", np.ones((1, 3)))
    with pytest.raises(ValueError, match="at most 60 x 60 nodes"):
        cover(np.ones((61, 2), dtype=bool))
