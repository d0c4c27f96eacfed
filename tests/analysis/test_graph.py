import pytest
import torch
from torch import nn

from latentlab.analysis import load_result, network_graph
from latentlab.models.adapt import adapt
from latentlab.models.ladder import ladder
from latentlab.models.staged import StagedNetwork


class _Sum(nn.Module):
    def forward(self, a, b):
        return a + b


def skipping() -> StagedNetwork:
    torch.manual_seed(0)
    stages = {
        "a": nn.Linear(3, 4),
        "b": nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True)),
        "c": _Sum(),
        "d": nn.Linear(4, 2),
    }
    return StagedNetwork(stages, "net", {"c": ("b", "a")})


def test_edges_are_the_flow_of_numbers_and_a_chain_drawn_by_hand_is_caught(left_as_found):
    """The named fake: a hand-drawn chain that misses the skip; and one that invents an edge."""
    network = skipping()
    left_as_found(network)
    h = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    graph = network_graph(network, inputs=h)
    true = {("input", "a"), ("a", "b"), ("a", "c"), ("b", "c"), ("c", "d")}
    assert set(graph.edges) == true and graph.skips == (("a", "c"),) and graph.outputs == ("d",)
    assert graph.depths == (1, 2, 3, 4)
    assert graph.certificate["edges_missed"] == graph.certificate["edges_invented"] == 0
    assert graph.certificate["held_difference"] == 0.0
    chain = [("input", "a"), ("a", "b"), ("b", "c"), ("c", "d")]
    assert network_graph(network, inputs=h, claimed=chain).certificate["edges_missed"] == 1
    wrong = [*true, ("a", "d")]
    assert network_graph(network, inputs=h, claimed=wrong).certificate["edges_invented"] == 1


def test_counts_add_up_to_the_networks_own():
    network = skipping()
    graph = network_graph(network, inputs=torch.zeros(4, 3))
    assert sum(graph.parameters) == sum(p.numel() for p in network.parameters())
    assert graph.certificate["parameters_left"] == 0 and graph.parameters == (16, 20, 0, 10)


def test_a_ladder_has_its_rungs():
    """Fails a graph that takes every network for a chain."""
    for network, inputs in zip(
        ladder((1, 16, 16), (2, 3), width=4, hidden=8),
        (torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.zeros(4, 5)),
        strict=True,
    ):
        graph = network_graph(network, inputs=inputs, n=4)
        assert graph.certificate["edges_missed"] == graph.certificate["edges_invented"] == 0
        assert len(graph.edges) > len(graph.names)


class _Foreign(nn.Module):
    """A concatenating skip, an in-place layer called twice, and an output of two stages."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.relu = nn.Linear(3, 4), nn.Linear(4, 4), nn.ReLU(inplace=True)
        self.head = nn.Sequential(nn.Linear(8, 2), nn.Tanh())
        self.unused = nn.Linear(5, 5)

    def forward(self, x):
        a = self.relu(self.a(x))
        b = self.relu(self.b(a))
        return self.head(torch.cat([a, b], 1)) + b[:, :2]


def test_a_foreign_modules_edges_are_traced_without_being_told(left_as_found):
    torch.manual_seed(0)
    network = adapt(_Foreign(), torch.zeros(2, 3))
    left_as_found(network)
    h = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    graph = network_graph(network, inputs=h)
    assert set(graph.edges) == {
        ("input", "a"),
        ("a", "relu@1"),
        ("relu@1", "b"),
        ("b", "relu@2"),
        ("relu@1", "head.0"),
        ("relu@2", "head.0"),
        ("head.0", "head.1"),
        ("head.1", "head"),
    }
    assert graph.outputs == ("relu@2", "head") and graph.claimed == ()
    # What the forward never reaches is named, not hidden; a Sequential does not count its layers twice.
    assert graph.certificate["parameters_left"] == 30 and sum(graph.parameters) == 16 + 20 + 18
    again = network_graph(network, inputs=h)
    assert again.edges == graph.edges


def test_a_graph_survives_saving_and_refuses_strange_edges(tmp_path, gated_model):
    graph = network_graph(gated_model)
    again = load_result(graph.save(tmp_path / "graph"))
    assert again.edges == graph.edges and again.shapes == graph.shapes
    assert network_graph(gated_model, "encoder").certificate["edges_missed"] == 0
    with pytest.raises(
        ValueError, match="A claimed edge names 'block9'; network 'generator' has input, gates"
    ):
        network_graph(gated_model, claimed=[("gates", "block9")])
    with pytest.raises(ValueError, match="No network 'discriminator'"):
        network_graph(gated_model, "discriminator")
