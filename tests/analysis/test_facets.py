"""Facets of units: planted clusters found exactly, an order far cheaper than chance, and a null that has none."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from torch import nn

from latentlab.analysis.facets import unit_facets
from latentlab.analysis.results import load_result
from latentlab.models.adapt import adapt
from latentlab.models.staged import StagedNetwork

KINDS, EACH = 4, 5
PLANTED = np.arange(KINDS * EACH + 1) % KINDS  # neighbours belong to different clusters
SILENT = KINDS * EACH


def planted() -> StagedNetwork:
    """Units that answer to one class out of four, each with a scale, an offset and a small answer of its own."""
    g = torch.Generator().manual_seed(0)
    layer = nn.Linear(KINDS + 1, len(PLANTED))
    scale = 10 ** (2 * torch.rand(len(PLANTED), generator=g) - 1)
    with torch.no_grad():
        layer.weight.copy_(0.05 * torch.randn(layer.weight.shape, generator=g) * scale[:, None])
        for unit, kind in enumerate(PLANTED):
            layer.weight[unit, kind] += scale[unit]
        layer.bias.copy_(10 * torch.randn(len(PLANTED), generator=g))
        layer.weight[SILENT] = 0.0
    return StagedNetwork({"units": layer, "maps": nn.Unflatten(1, (len(PLANTED), 1, 1))}, "net").eval()


def inputs(n=400, seed=0):
    rng = np.random.default_rng(seed)
    kind = rng.integers(KINDS, size=n)
    x = np.concatenate([np.eye(KINDS)[kind], rng.standard_normal((n, 1))], axis=1)
    return x.astype(np.float32), kind


@pytest.fixture(scope="module")
def result():
    x, kind = inputs()
    noise = np.random.default_rng(9).standard_normal(len(kind))
    return unit_facets(planted(), "maps", x, {"kind": kind, "noise": noise})


def test_planted_clusters_are_found_exactly(result):
    """The row's truth: ARI 1, the number of clusters chosen by itself, the silent unit in none."""
    assert adjusted_rand_score(PLANTED[:SILENT], result.clusters[:SILENT]) == 1.0
    assert result.clusters.max() + 1 == KINDS and result.clusters[SILENT] == -1
    assert result.tries[result.silhouettes.argmax()] == KINDS
    assert result.certificate["silhouette"] > 0.8 > result.certificate["silhouette_null"]
    assert result.certificate["silent_units"] == pytest.approx(1 / len(PLANTED))


def test_k_means_on_weights_with_any_number_is_the_fake_that_fails(result):
    """Weights are as large as their unit is loud, so k-means groups scales; and a number out of the air is wrong."""
    weights = planted().stages["units"].weight.detach().numpy()[:SILENT]
    for number in (KINDS, 6):
        fake = KMeans(number, n_init=5, random_state=0).fit_predict(weights)
        assert adjusted_rand_score(PLANTED[:SILENT], fake) < 0.6
    x, kind = inputs()
    forced = unit_facets(planted(), "units", x, {"kind": kind}, clusters=3)
    assert adjusted_rand_score(PLANTED[:SILENT], forced.clusters[:SILENT]) < 1.0


def test_the_order_puts_alike_units_side_by_side(result):
    """Cost at most the first percentile of random orders; clusters are runs of the order, numbered along it."""
    assert result.certificate["ordering_cost"] <= result.certificate["ordering_null"]
    assert sorted(result.order) == list(range(len(PLANTED))) and result.order[-1] == SILENT
    run = result.clusters[result.order][:-1]
    assert run.tolist() == sorted(run.tolist())


def test_profiles_are_mean_responses_in_standard_deviations(result):
    x, kind = inputs()
    responses = x @ planted().stages["units"].weight.detach().numpy().T
    scaled = (responses - responses.mean(0)) / np.maximum(responses.std(0), 1e-12)
    for k in range(KINDS):
        column = result.facets.index(f"kind {k}")
        assert np.allclose(result.profiles[:SILENT, column], scaled[kind == k].mean(0)[:SILENT], atol=1e-3)
        assert result.counts[column] == (kind == k).sum()
    assert (result.profiles[SILENT] == 0).all()
    assert (result.explained[:SILENT, 0] > 0.9).all() and (result.explained[:, 1] < 0.1).all()
    assert result.null_explained.max() < 0.1 and result.factors == ("kind", "noise")


def test_units_that_share_nothing_are_no_clusters():
    """Fails a silhouette that is shown without its null: random units do reach one."""
    g = torch.Generator().manual_seed(3)
    layer = nn.Linear(60, 24, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(24, 60, generator=g))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 60)).astype(np.float32)
    found = unit_facets(StagedNetwork({"units": layer}, "net"), "units", x, {"a": rng.integers(8, size=300)})
    assert found.certificate["silhouette"] < found.certificate["silhouette_null"] * 1.5
    assert found.explained.max() < 0.15


def test_a_generators_own_codes_are_its_factors(gated_model, left_as_found):
    left_as_found(gated_model)
    found = unit_facets(gated_model, "maps", n=200)
    assert found.factors == ("z0", "z1") and len(found.facets) == 10
    assert found.clusters[5] == -1 and found.clusters[2] == -1  # always silent; loud, and always the same
    assert found.clusters[0] == found.clusters[3] == found.clusters[4] != found.clusters[1]
    assert found.explained[0, 0] > 0.7 and found.explained[1, 1] > 0.7


def test_a_category_is_a_facet_each(categorical_model):
    class Three(nn.Module):
        def forward(self, z):
            return torch.stack([z[:, 0], z[:, 1], z[:, 0] + 0.1 * z[:, 3]], dim=1)

    network = StagedNetwork({"units": Three(), "output": nn.Linear(3, 2)}, "generator")
    categorical_model.generator = network
    found = unit_facets(categorical_model, "units", n=100)
    assert found.facets[:3] == ("class 0", "class 1", "class 2") and found.factors == ("class", "z0")
    assert found.clusters.tolist() == [0, 1, 0] or found.clusters.tolist() == [1, 0, 1]


def test_foreign_networks_seeds_and_files(tmp_path, left_as_found):
    torch.manual_seed(0)
    network = adapt(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2)), torch.zeros(1, 5))
    left_as_found(network)
    x, kind = inputs()
    first, second = (unit_facets(network, "0", x, {"kind": kind}, seed=2) for _ in range(2))
    assert np.array_equal(first.null_silhouettes, second.null_silhouettes)
    again = load_result(first.save(tmp_path / "facets"))
    assert np.array_equal(again.order, first.order) and again.facets == first.facets
    with pytest.raises(ZeroDivisionError):
        unit_facets(network, "0", x, {"kind": kind}, progress=lambda *_: 1 / 0)


def test_errors_say_what_is_possible(gated_model):
    x, kind = inputs(20)
    network = planted()
    with pytest.raises(ValueError, match=r"one value for each of the 20 inputs; got kind \(3,\)"):
        unit_facets(network, "units", x, {"kind": kind[:3]})
    with pytest.raises(ValueError, match="reads no codes, so it needs factors="):
        unit_facets(network, "units", x)
    with pytest.raises(ValueError, match="Factor 'kind' has one value throughout"):
        unit_facets(network, "units", x, {"kind": np.zeros(20)})
    with pytest.raises(ValueError, match="has 0 units that change; clusters need at least 3"):
        unit_facets(network, "units", x[:1].repeat(5, 0), {"kind": np.arange(5)})
    with pytest.raises(ValueError, match="clusters must lie from 2 to 19"):
        unit_facets(network, "units", x, {"kind": kind}, clusters=40)
