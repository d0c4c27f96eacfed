import numpy as np
import pytest
import torch
from planted import gated
from planted.model import PlantedModel
from torch import nn

from latentlab.analysis import load_result, surrogate
from latentlab.analysis.meters import region_meter
from latentlab.latents import Block, Categorical, LatentSpace
from latentlab.models.adapt import adapt_model
from latentlab.models.staged import StagedNetwork


class _Grey(nn.Module):
    """A grey image of the brightness that a formula gives."""

    def __init__(self, formula):
        super().__init__()
        self.formula = formula

    def forward(self, z):
        return self.formula(z)[:, None, None, None].expand(-1, 1, 4, 4)


def grey(formula, space=None) -> PlantedModel:
    network = StagedNetwork({"output": _Grey(formula)}, "generator")
    return PlantedModel((1, 4, 4), space or LatentSpace([Block("z", 5)]), generator=network)


def step(z):
    return 0.4 + 0.3 * (z[:, 3] > 0.7).float() + 0.05 * z[:, 0]


def product(z):
    return 0.4 + 0.1 * z[:, 1] * z[:, 2]


QUICK = {"n": 1000, "refits": 2, "n_draws": 50}


@pytest.mark.parametrize("kind", ["tree", "ebm"])
def test_a_planted_step_is_found_where_it_is(kind):
    """Fails a linear surrogate that is shown without its gap: the step at z3 = 0.7 is out of its reach."""
    model = grey(step)
    found = surrogate(model, "brightness", kind=kind, **QUICK)
    name, at, jump = found.splits[0]
    assert name == "z3" and at == pytest.approx(0.7, abs=0.05) and jump == pytest.approx(0.3, abs=0.1)
    assert found.fidelity > 0.9 and found.certificate["gap_to_ceiling"] < 0.05
    assert found.certificate["counterfactual_slope"] == pytest.approx(1.0, abs=0.1)
    assert found.certificate["counterfactual_r2"] > 0.9
    assert found.certificate["stability"] == 1.0
    linear = surrogate(model, "brightness", kind="ridge", **QUICK)
    assert linear.splits == () and linear.certificate["gap_to_ceiling"] > 0.2


def test_an_interaction_is_reported():
    """Fails additive models without pairs, and a ridge whose failure shows only in a missing ceiling."""
    model = grey(product)
    found = surrogate(model, "brightness", kind="ebm", n=1000, refits=1)
    assert found.terms[int(np.argmax(found.weights))] == "z1 & z2" and found.fidelity > 0.85
    a, b, height = found.pairs["z1 & z2"]
    assert np.corrcoef((a * b).ravel(), height.ravel())[0, 1] > 0.9
    linear = surrogate(model, "brightness", **QUICK)
    assert linear.fidelity < 0.1 and linear.certificate["gap_to_ceiling"] > 0.7


def test_weights_and_squares_are_the_formulas():
    model = grey(lambda z: 0.5 + 0.1 * z[:, 0] - 0.05 * z[:, 2] + 0.02 * (z[:, 1] ** 2 - 1))
    found = surrogate(model, "brightness", squares=True, **QUICK)
    weights = dict(zip(found.terms, found.weights, strict=True))
    assert [weights[t] for t in ("z0", "z2", "z1^2")] == pytest.approx([0.1, -0.05, 0.02], abs=0.005)
    assert found.fidelity > 0.999 and found.certificate["counterfactual_r2"] > 0.999


def test_a_random_attribute_can_not_be_predicted():
    """Fails R2 on training data, which a deep tree brings to 1 on an attribute that is pure noise."""
    noise = np.random.default_rng(3)

    def meter(images):
        return torch.as_tensor(noise.standard_normal(len(images)))

    model = grey(step)
    for kind in ("ridge", "tree"):
        found = surrogate(model, meter, kind=kind, **QUICK)
        assert found.fidelity < 0.05 and found.certificate["fidelity_low"] < 0.02
        assert found.certificate["counterfactual_r2"] < 0.1
    from sklearn.tree import DecisionTreeRegressor

    z = model.sample_codes(500, 0).numpy()
    y = noise.standard_normal(500)
    assert DecisionTreeRegressor(random_state=0).fit(z, y).score(z, y) == 1.0


def test_labels_of_a_data_set_are_not_what_the_model_does():
    """Fails a surrogate of labels: of a model that draws the opposite of the label, the moves go the wrong way."""
    model = grey(lambda z: 0.5 - 0.1 * z[:, 0])
    found = surrogate(model, "brightness", **QUICK)
    assert found.weights[0] == pytest.approx(-0.1, abs=0.005)
    assert found.certificate["counterfactual_slope"] == pytest.approx(1.0, abs=0.02)
    # The fake: fitted to labels 0.5 + 0.1 z0 of the codes, it predicts changes of the other sign.
    slope = np.polyfit(-found.moved_predicted, found.moved_measured, 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.02)


def test_shuffled_numbers_are_the_null():
    found = surrogate(grey(step), "brightness", kind="tree", **QUICK)
    assert len(found.null) == 2 and found.certificate["shuffled"] < 0.1 < found.fidelity
    assert found.interval[0] < found.fidelity < found.interval[1]


def test_logistic_tells_above_from_below():
    found = surrogate(grey(step), "brightness", kind="logistic", threshold=0.55, n=2000, refits=2)
    assert found.threshold == 0.55 and found.fidelity > 0.95 and set(found.measured.tolist()) == {0.0, 1.0}
    assert found.terms[int(np.argmax(np.abs(found.weights)))] == "z3"
    with pytest.raises(ValueError, match="lies on one side of the threshold 9 throughout"):
        surrogate(grey(step), "brightness", kind="logistic", threshold=9.0, **QUICK)


def test_sources_are_told_apart():
    """Fails a local surrogate whose radius decides and is not shown: around z1 = 2 the product is a line in z2."""
    model = grey(product)
    local = surrogate(model, "brightness", local=([0, 2, 0, 0, 0], 0.3), **QUICK)
    assert local.fidelity > 0.9 and "0.3 prior s.d." in local.source
    assert local.weights[2] == pytest.approx(0.1 * 2 * 0.3, abs=0.01)
    codes = np.random.default_rng(0).standard_normal((400, 5)) * 0.1 + [0, -2, 0, 0, 0]
    posterior = surrogate(model, "brightness", source="posterior", codes=codes, **QUICK)
    assert posterior.source == "the aggregate posterior" and posterior.weights[2] < 0
    assert len(posterior.measured) == 100


def test_units_explain_and_are_explained():
    """Fails moving features that are not moved in the network: the shift of a unit is generated again."""
    model = gated.gated_model()
    whole = surrogate(model, "brightness", features="generator.gates", n=600, refits=1)
    assert whole.features[0] == "generator.gates:0" and whole.fidelity > 0.999
    assert whole.terms[int(np.argmax(whole.weights))] == "generator.gates:4"
    # Loud draws nothing, yet follows latent 2 as unit 2 does: the fit can't tell them apart, moving them does.
    place = region_meter((10 / 16, 2 / 16, 12 / 16, 4 / 16))
    found = surrogate(model, place, features="generator.gates", n=600, refits=1)
    assert found.fidelity > 0.999 and found.weights[gated.LOUD] > 0.3 * found.weights[2]
    assert found.certificate["counterfactual_r2"] < 0.8
    unit = surrogate(model, "generator.gates:3", n=600, refits=1)
    assert unit.attribute == "generator.gates:3" and int(np.argmax(unit.weights)) == 3


def test_a_category_moves_as_a_whole():
    seen = []

    def look(z):
        seen.append(z[:, :3])
        return 0.2 + z[:, :3] @ torch.tensor([0.0, 0.2, 0.4]) + 0.02 * z[:, 3]

    space = LatentSpace([Block("kind", 3, Categorical), Block("z", 2)])
    found = surrogate(grey(look, space), "brightness", kind="tree", **QUICK)
    assert torch.equal(torch.cat(seen).sum(1), torch.ones(len(torch.cat(seen))))
    assert found.fidelity > 0.95 and found.terms[int(np.argmax(found.weights))].startswith("kind")


def test_a_foreign_module_and_nothing_left_behind(left_as_found, tmp_path):
    decoder = nn.Sequential(nn.Linear(2, 16), nn.Sigmoid(), nn.Unflatten(1, (1, 4, 4)))
    model = adapt_model(decoder, latents=2, image_shape=(1, 4, 4))
    model.train()
    left_as_found(model)
    calls = []
    found = surrogate(
        model, "x", kind="tree", n=300, refits=1, batch_size=64, progress=lambda *a: calls.append(a)
    )
    again = surrogate(model, "x", kind="tree", n=300, refits=1, batch_size=64)
    assert calls == [(i, calls[0][1]) for i in range(1, calls[0][1] + 1)]
    assert found.certificate == again.certificate and found.rules == again.rules
    back = load_result(found.save(tmp_path / "surrogate"))
    assert back.tree == found.tree and back.splits == found.splits and back.certificate == found.certificate
    assert set(found.predicted.tolist()) <= set(leaves(found.tree)) and len(found.rules) > 2


def leaves(node) -> list[float]:
    inner = "feature" in node
    return [*leaves(node["below"]), *leaves(node["above"])] if inner else [node["value"]]


def test_what_can_not_be_done_gets_a_sentence(monkeypatch):
    model = grey(step)
    for words, options in {
        "kind is one of ridge, logistic, tree, ebm; got 'forest'": {"kind": "forest"},
        "source is 'prior' or 'posterior'": {"source": "data"},
        "codes= belongs to source='posterior'": {"source": "posterior"},
        "at least 100 codes; got n=5": {"n": 5},
        "test lies between": {"test": 0.0},
        "radius above 0": {"local": ([0] * 5, 0.0)},
        "features is 'latents' or a stage's address": {"features": "pixels"},
        "No stage": {"features": "generator.block9"},
    }.items():
        with pytest.raises(ValueError, match=words):
            surrogate(model, "brightness", **{"n": 200, **options})
    with pytest.raises(ValueError, match=r"gives 0\.5 for every code, so there is nothing to predict"):
        surrogate(grey(lambda z: 0.5 + 0 * z[:, 0]), "brightness", n=200)
    with pytest.raises(ValueError, match="No meter 'hue'"):
        surrogate(model, "hue", n=200)
    monkeypatch.setitem(__import__("sys").modules, "interpret.glassbox", None)
    with pytest.raises(ImportError, match=r"pip install latentlab\[surrogates\]"):
        surrogate(model, "brightness", kind="ebm", n=200)
