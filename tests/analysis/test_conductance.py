"""Conductance: units' images add up to the change at a cut, agree with captum, and what goes around is measured."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from captum.attr import LayerConductance
from planted import gated, linear
from planted.model import PlantedModel
from torch import nn

from latentlab.analysis.conductance import conductance
from latentlab.analysis.meters import region_meter
from latentlab.analysis.results import load_result
from latentlab.latents import Block, LatentSpace
from latentlab.models.adapt import adapt_model
from latentlab.models.edits import Edit
from latentlab.models.staged import StagedNetwork

Z0, Z = torch.tensor([[-0.5, 0.2, 0.0, 1.0, -1.0]]), torch.tensor([[1.0, -0.6, 0.8, 0.3, 0.5]])


class Add(nn.Module):
    def forward(self, a, b):
        return a + b


def skipping() -> PlantedModel:
    """z goes through "hidden", and around it by "skip"."""
    torch.manual_seed(4)
    stages = {
        "hidden": nn.Sequential(nn.Linear(3, 6), nn.Tanh()),
        "up": nn.Linear(6, 9),
        "skip": nn.Linear(3, 9),
        "sum": Add(),
        "output": nn.Unflatten(1, (1, 3, 3)),
    }
    inputs = {"skip": ("input",), "sum": ("up", "skip")}
    return PlantedModel(
        (1, 3, 3), LatentSpace([Block("z", 3)]), generator=StagedNetwork(stages, "generator", inputs)
    )


@pytest.mark.parametrize("stage", ["gates", "maps"])
def test_each_unit_gets_what_it_draws(stage, left_as_found):
    """F1: conductance of a unit is the change of its own drawing; the loud decoy draws nothing, the pair cancels."""
    model = gated.gated_model()
    left_as_found(model)
    result = conductance(model, stage, Z, Z0)
    for unit in range(gated.UNITS):
        change = gated.drawing(Z, unit) - gated.drawing(Z0, unit)
        assert np.allclose(result.contributions[unit], change[0], atol=1e-6), unit
    assert result.strength[gated.LOUD] == 0.0 and result.strength[6] > 1e-3
    assert np.allclose(result.contributions[6], -result.contributions[7], atol=1e-7)
    assert result.cut and result.certificate["bypass"] == 0.0 and result.certificate["stage_gap"] < 1e-6


def test_a_sum_that_starts_from_ones_fails_the_same_check():
    """The fault of some class activation maps: the weighted sum of the units' maps begins with ones, not with zeros."""
    model = gated.gated_model()
    result = conductance(model, "maps", Z, Z0)
    change = (model.decode(Z) - model.decode(Z0))[0].detach().numpy()

    def complete(start: float) -> bool:
        total = np.full_like(change, start)
        for contribution in result.contributions:
            total = total + contribution
        return bool(np.allclose(total, change, atol=1e-5))

    assert complete(0.0) and not complete(1.0)
    assert not result.contributions[gated.LOUD].any()  # a unit that draws nothing has exactly nothing


def test_ranking_by_activation_is_the_fake_that_fails():
    """The largest change of activation is the loud unit's, which adds nothing to any pixel."""
    model = gated.gated_model()
    states = [model.generator.activations(z, ["gates"])["gates"][0].detach() for z in (Z0, Z)]
    fake = int((states[1] - states[0]).abs().argmax())
    result = conductance(model, "gates", Z, Z0)
    assert fake == gated.LOUD and int(result.order[0]) != fake and result.share[fake] == 0.0


def test_linear_stages_in_closed_form():
    """F2: unit u paints its column of the second matrix times its own change."""
    model, _, _ = linear.linear_model(seed=1)
    z = model.sample_codes(1, 0)
    result = conductance(model, "hidden", z)
    one, two = model.generator.stages["hidden"], model.generator.stages["output"][0]
    moved = (z @ one.weight.T)[0]
    expected = (two.weight * moved).T.reshape(6, 1, 5, 5).detach().numpy()
    assert np.allclose(result.contributions, expected, atol=1e-6)
    assert result.share.sum() == pytest.approx(1.0, abs=1e-5)


@pytest.fixture(scope="module")
def curved():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stages = {
            "fc": nn.Sequential(nn.Linear(4, 12), nn.ReLU()),
            "maps": nn.Sequential(nn.Linear(12, 5 * 9), nn.Unflatten(1, (5, 3, 3)), nn.Tanh()),
            "output": nn.Sequential(nn.ConvTranspose2d(5, 1, 2, stride=2), nn.Sigmoid()),
        }
        return PlantedModel((1, 6, 6), LatentSpace([Block("z", 4)]), generator=StagedNetwork(stages))


@pytest.mark.parametrize("stage", ["fc", "maps"])
def test_captum_agrees_on_one_number(curved, stage):
    """captum takes differences of the layer between steps where we take derivatives: 1 % apart at 400 steps."""
    z = curved.sample_codes(1, 3)
    meter = region_meter((0.0, 0.0, 0.5, 1.0))
    ours = conductance(curved, stage, z, meter=meter, tolerance=1e-4, most_steps=1024)
    oracle = LayerConductance(lambda c: meter(curved.decode(c)), curved.generator.stages[stage])
    theirs = oracle.attribute(z, torch.zeros(1, 4), n_steps=400).detach()[0]
    theirs = (theirs if theirs.ndim == 1 else theirs.sum((1, 2))).numpy()
    assert ours.contributions.shape == theirs.shape and ours.meter == meter.name
    assert np.abs(ours.contributions - theirs).max() < 0.01 * np.abs(theirs).max()
    assert ours.contributions.sum() == pytest.approx(float(ours.end_output - ours.start_output), abs=1e-5)


def test_a_meters_gradient_is_the_mean_of_the_images(curved):
    """Forward products a unit and one gradient for all units are two routes to the same numbers."""
    z = curved.sample_codes(1, 5)
    fixed = {"steps": 64, "most_steps": 64}
    images = conductance(curved, "maps", z, **fixed).contributions
    numbers = conductance(curved, "maps", z, meter="brightness", **fixed).contributions
    assert np.allclose(images.mean(axis=(1, 2, 3)), numbers, atol=1e-7)


def test_a_stage_with_a_way_around_is_marked_and_the_rest_measured():
    """Fails a claim of completeness at a stage that is no cut."""
    model = skipping()
    result = conductance(model, "hidden", [1.0, -1.0, 0.5])
    skip = model.generator.stages["skip"].weight.detach() @ torch.tensor([1.0, -1.0, 0.5])
    assert not result.cut and result.certificate["bypass"] > 0.1 and result.certificate["stage_gap"] > 0.1
    assert np.allclose(result.around.ravel(), skip, atol=1e-6)
    assert result.certificate["gap_share"] < 5e-3
    assert conductance(model, "sum", [1.0, -1.0, 0.5]).cut
    assert not conductance(model, "up", [1.0, -1.0, 0.5]).cut


@pytest.mark.parametrize("stage", ["fc", "maps"])
def test_a_gap_beyond_what_was_asked_for_is_said(curved, stage):
    """Fails a certificate that only holds the gap: with few nodes it passes its own tolerance, and nothing tells."""
    z = curved.sample_codes(1, 3)
    coarse = conductance(curved, stage, z, steps=2, most_steps=2)
    change = coarse.end_output - coarse.start_output
    span = max(o.max() for o in (coarse.start_output, coarse.end_output))
    span -= min(o.min() for o in (coarse.start_output, coarse.end_output))
    truth = np.abs(coarse.contributions.sum(axis=0) - change).max() / span
    assert coarse.certificate["gap_share"] == pytest.approx(truth, rel=1e-3) and truth > 1e-3
    assert coarse.certificate["gap_allowed"] == 1e-3 and coarse.certificate["complete"] is False
    loose = conductance(curved, stage, z, steps=2, most_steps=2, tolerance=1.1 * truth)
    assert loose.certificate["complete"] is True and loose.certificate["gap_allowed"] == 1.1 * truth
    fine = conductance(curved, stage, z)
    assert fine.certificate["complete"] is True and fine.certificate["gap_share"] <= 1e-3


def test_kinks_are_met_to_a_thousandth_by_default():
    """Fails the gap of 5e-3 that suits a page as the default: five layers of ReLUs then miss 4e-3 of the range."""
    layers = [nn.Linear(4, 128), nn.ReLU()]
    for _ in range(4):
        layers += [nn.Linear(128, 128), nn.ReLU()]
    stages = {
        "deep": nn.Sequential(*layers),
        "output": nn.Sequential(nn.Linear(128, 9), nn.Unflatten(1, (1, 3, 3))),
    }
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in (m for stage in stages.values() for m in stage if isinstance(m, nn.Linear)):
            size = layer.weight.shape
            layer.weight.copy_(torch.randn(size, generator=chance) * (2 / size[1]) ** 0.5)
            layer.bias.copy_(0.3 * torch.randn(size[0], generator=chance))
    model = PlantedModel((1, 3, 3), LatentSpace([Block("z", 4)]), generator=StagedNetwork(stages))
    z = 6 * model.sample_codes(1, 0)
    page = conductance(model, "deep", z, tolerance=5e-3, most_steps=256).certificate
    assert 1e-3 < page["gap_share"] <= 5e-3 and page["complete"]
    found = conductance(model, "deep", z).certificate
    assert found["gap_share"] <= found["gap_allowed"] == 1e-3 and found["complete"]


def test_chosen_units_and_the_rest(curved):
    z = curved.sample_codes(1, 1)
    whole, part = conductance(curved, "maps", z), conductance(curved, "maps", z, units=[4, 1])
    assert np.allclose(part.contributions, whole.contributions[[4, 1]], atol=1e-6)
    assert np.allclose(part.rest, whole.contributions[[0, 2, 3]].sum(axis=0), atol=1e-5)
    assert part.certificate["gap_share"] < 5e-3


def test_an_encoders_units_add_up_to_its_codes(gated_model):
    x = gated_model.decode(torch.tensor([[0.4, -0.3]])).detach()
    result = conductance(gated_model, "features", x, network="encoder")
    assert result.contributions.shape == (2, 2) and result.baseline == "black"
    assert np.allclose(result.contributions, np.diag(result.end_output - result.start_output), atol=1e-5)
    with pytest.raises(ValueError, match="A meter reads images"):
        conductance(gated_model, "features", x, network="encoder", meter="x")


def test_foreign_modules_and_edits_in_force(left_as_found):
    """No graph is known: the cut is measured. Fails an edit that is applied again to the state put in place."""
    torch.manual_seed(1)
    decoder = nn.Sequential(
        nn.Linear(3, 8), nn.ReLU(inplace=True), nn.Linear(8, 16), nn.Unflatten(1, (1, 4, 4))
    )
    model = adapt_model(decoder, latents=3, image_shape=(1, 4, 4), outputs="logits").train()
    left_as_found(model)
    assert conductance(model, "0", seed=2).cut  # the in-place layer behind it must not write into its state
    result = conductance(model, "1", seed=2)
    assert result.cut and result.contributions.shape == (8, 1, 4, 4)
    assert result.certificate["stage_gap"] < 5e-3
    edited = conductance(model, "1", seed=2, edits=[Edit("generator.1", operation="scale", value=0.5)])
    assert edited.certificate["gap_share"] < 5e-3
    assert np.array_equal(edited.end_output, conductance(model, "2", seed=2, edits=[
        Edit("generator.1", operation="scale", value=0.5)]).end_output)  # fmt: skip


def test_threads_do_not_meet_and_batches_do_not_matter(curved):
    """Fails forward-mode derivatives, which have one level a process, and nodes that meet in a batch."""
    alone = conductance(curved, "maps", seed=1)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: conductance(curved, "maps", seed=1), range(8)))
    assert all(np.array_equal(f.contributions, alone.contributions) for f in found)
    single = conductance(curved, "maps", seed=1, batch_size=1)
    assert np.allclose(single.contributions, alone.contributions, atol=1e-6)


def test_saved_loaded_and_cancelled(curved, tmp_path):
    first, second = (conductance(curved, "fc", seed=1) for _ in range(2))
    assert np.array_equal(first.contributions, second.contributions)
    again = load_result(first.save(tmp_path / "conductance"))
    assert np.array_equal(again.contributions, first.contributions) and again.cut is True
    with pytest.raises(ZeroDivisionError):
        conductance(curved, "fc", progress=lambda *_: 1 / 0)


def test_errors_say_what_is_possible(curved):
    with pytest.raises(ValueError, match=r"No stage 'block9' .* it has generator\.fc, generator\.maps"):
        conductance(curved, "block9")
    with pytest.raises(ValueError, match=r"Stage 'generator\.maps' has units 0 to 4; got \[5\]"):
        conductance(curved, "maps", units=[5])
    with pytest.raises(ValueError, match=r"units must name each unit .* once; got \[1, 1\]"):
        conductance(curved, "maps", units=[1, 1])
