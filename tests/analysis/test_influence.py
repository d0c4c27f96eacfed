"""Latent to unit to pixel: the drivers of F1 exactly, rows that add up to 1, and a matrix that decoys can't fool."""

import numpy as np
import pytest
import torch
from planted import gated, linear
from planted.model import PlantedModel
from torch import nn

from latentlab.analysis.influence import influence_by_stage, latent_unit_pixel
from latentlab.analysis.results import load_result
from latentlab.analysis.sobol import sobol
from latentlab.latents import Block, LatentSpace
from latentlab.models.adapt import adapt_model
from latentlab.models.staged import StagedNetwork


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


def expected_shares() -> np.ndarray:
    """F1 in closed form: units that draw, by the energy that their drawing has in the whole change of their latent."""
    shares = np.zeros((gated.LATENTS, gated.UNITS))
    for latent in range(gated.LATENTS):
        pictures = [
            (gated.drawing(torch.ones(1, 5), u) - gated.drawing(torch.zeros(1, 5), u))
            * (gated.DRIVERS[u] == latent)
            for u in range(gated.UNITS)
        ]
        whole = sum(pictures)
        for u, picture in enumerate(pictures):
            shares[latent, u] = float((picture * whole).sum() / whole.square().sum())
    return shares


@pytest.fixture(scope="module")
def planted():
    return gated.gated_model()


@pytest.mark.parametrize("stage", ["gates", "maps"])
def test_the_drivers_of_f1_are_found_exactly(planted, stage, left_as_found):
    """Decoy and cancelling pair have no share; the twins share; holding a unit loses what its share says."""
    left_as_found(planted)
    result = latent_unit_pixel(planted, stage, n=4)
    assert np.allclose(result.matrix, expected_shares(), atol=1e-5)
    assert np.allclose(result.held, expected_shares(), atol=1e-5)
    assert np.abs(result.matrix[:, [gated.LOUD, *gated.CANCELLING]]).max() < 1e-6
    assert result.matrix[1, 8] == pytest.approx(result.matrix[1, 9]) and result.matrix[1, 8] > 0.1
    assert result.cut and result.certificate["row_gap"] < 1e-5
    assert result.certificate["held_correlation"] == pytest.approx(1.0, abs=1e-6)


def test_activation_change_is_the_fake_that_names_the_decoy(planted):
    """A matrix of how much units move (or correlate) puts the loud unit first for latent 2, and the pair for 0."""
    low, high = torch.zeros(2, 5), torch.zeros(2, 5)
    low[0, 2], high[0, 2], low[1, 0], high[1, 0] = -1.28, 1.28, -1.28, 1.28
    with torch.no_grad():
        states = [planted.generator.activations(z, ["gates"])["gates"] for z in (low, high)]
    fake = (states[1] - states[0]).abs().numpy()
    truth = expected_shares()[[2, 0]]
    assert int(fake[0].argmax()) == gated.LOUD != int(truth[0].argmax())
    assert fake[1, 6] == pytest.approx(fake[1, 0]) and truth[1, 6] == 0.0
    ours = latent_unit_pixel(planted, "gates", dims=["z2", "z0"], n=2).matrix
    assert np.allclose(ours, truth, atol=1e-5) and not np.allclose(
        fake / fake.sum(1, keepdims=True), truth, atol=0.2
    )


def test_painted_pictures_add_up_to_the_change(planted):
    """Fails pictures of other units, of another code, or without sign."""
    result = latent_unit_pixel(planted, "gates", n=3, top=10)
    assert result.painted.shape == (5, 10, 1, 16, 16)
    assert np.allclose(result.painted.sum(axis=1), result.changes, atol=1e-6)
    assert np.allclose(result.images[:, 1] - result.images[:, 0], result.changes)
    one = result.painted[1, result.painted_units[1].tolist().index(8), 0]
    assert (np.abs(one) > 1e-6).tolist() == gated.support(8).tolist()


def test_the_null_is_a_direction_like_any_other():
    """On F2 a random direction's shares are known: those of a latent's have no claim to be larger there."""
    model, _, _ = linear.linear_model(seed=5)
    result = latent_unit_pixel(model, "hidden", n=2, n_draws=6)
    assert result.null.shape == (6, 6) and np.allclose(result.null.sum(axis=1), 1.0, atol=1e-4)
    assert result.certificate["units_for_half_null"] > 0
    assert not np.allclose(result.null[0], result.null[1])


def test_every_stage_at_once_equals_one_at_a_time(planted):
    """One gradient serves all stages; and what a skip carries is missing from the rows that it goes around."""
    result = influence_by_stage(planted, n=4)
    assert result.stages == ("gates", "maps", "output") and result.cut == (True, True, True)
    for stage in ("gates", "maps"):
        alone = latent_unit_pixel(planted, stage, n=4).matrix
        assert np.allclose(result.matrices[stage], alone, atol=1e-6)
    shares = expected_shares()
    assert result.effective[0, 0] == pytest.approx(1.0, abs=1e-4)
    assert result.effective[1, 0] == pytest.approx(1 / np.square(shares[1]).sum(), abs=1e-3)
    assert np.allclose(result.overlap[:, :, 0], np.eye(5), atol=1e-4)
    assert result.top[:, 0].tolist() == shares.argmax(axis=1).tolist()
    around = influence_by_stage(skipping(), n=4)
    assert dict(zip(around.stages, around.cut, strict=True)) == {
        "hidden": False, "up": False, "skip": False, "sum": True, "output": True}  # fmt: skip
    assert np.abs(around.carried[:, 0] - 1).max() > 0.05
    assert np.allclose(around.carried[:, 1] + around.carried[:, 2], 1.0, atol=1e-2)
    assert around.certificate["row_gap"] < 1e-2 and around.certificate["cuts"] == 2


def test_a_latent_without_effect_has_no_shares(linear_model):
    """The fourth column of this generator's matrix is zero."""
    result = latent_unit_pixel(linear_model, "output", n=2)
    assert result.effect[3] == 0.0 and (result.matrix[3] == 0).all() and (result.effect[:3] > 0.01).all()
    assert result.certificate["row_gap"] < 1e-4


DEAD = 2
"""Reaches one unit alone, faintly: its row is 1 there, while the row of latent 0, which moves it, is a third."""


def collapsed() -> PlantedModel:
    """Three units that latent 0 drives alike, one of latent 1, and a latent all but dead."""
    first, output = nn.Linear(3, 4), nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 0, 0.01], [1.0, 0, 0], [1.0, 0, 0], [0, 0.8, 0]]))
        first.bias.fill_(0.3)
        output.weight.copy_(torch.eye(4))
    stages = {
        "hidden": nn.Sequential(first, nn.Softplus()),
        "output": nn.Sequential(output, nn.Unflatten(1, (1, 2, 2))),
    }
    return PlantedModel((1, 2, 2), LatentSpace([Block("z", 3)]), generator=StagedNetwork(stages, "generator"))


def test_a_dead_latent_never_leads_a_unit():
    """The fake sorts the rows' shares, each of which adds up to 1: it names the latent that all but draws nothing."""
    model = collapsed()
    result = latent_unit_pixel(model, "hidden", n=4)
    drivers = [0, 0, 0, 1]
    assert (
        result.live.tolist() == [True, True, False] and 0 < result.effect[DEAD] < 0.05 * result.effect.max()
    )
    assert np.allclose(result.through, np.abs(result.matrix) * result.effect[:, None])
    assert result.through.argmax(axis=0).tolist() == drivers
    shares = sobol(model, stage="hidden", n=64, n_draws=20).unit_total
    assert shares is not None and shares.argmax(axis=0).tolist() == drivers and shares[DEAD].max() < 1e-3
    fake = np.abs(result.matrix).argmax(axis=0).tolist()
    assert fake[0] == DEAD != drivers[0]


def test_certificates_count_live_latents_only():
    """The same with the dead latent and without; the fake counts all rows, and differs in what it can."""
    model = collapsed()
    everything, living = (
        latent_unit_pixel(model, "hidden", dims=d, n=4, steps=2) for d in (None, ["z0", "z1"])
    )
    assert everything.certificate == pytest.approx(living.certificate, rel=1e-5, abs=1e-7)
    assert everything.certificate["live_latents"] == 2 and len(everything.dims) == 3
    assert everything.certificate["units_for_half"] == 1.5  # two of three units, and the one of latent 1
    fake = np.mean([np.searchsorted(np.cumsum(-np.sort(-row)), 0.5) + 1 for row in np.abs(everything.matrix)])
    assert fake == pytest.approx(4 / 3)
    stages = [influence_by_stage(model, dims=d, n=4, steps=2) for d in (None, ["z0", "z1"])]
    assert stages[0].certificate == pytest.approx(stages[1].certificate, rel=1e-5, abs=1e-7)
    assert stages[0].live.tolist() == [True, True, False]


def test_nothing_is_claimed_where_nothing_moves(linear_model):
    """Its last latent draws nothing at all: no rows to count, and no warning of an empty mean."""
    result = latent_unit_pixel(linear_model, "output", dims=[3], n=2)
    assert not result.live.any() and result.certificate["units_for_half"] == 0.0
    assert result.certificate["row_gap"] == result.certificate["half_difference"] == 0.0


def test_a_categorical_block_is_one_slider(categorical_model):
    result = latent_unit_pixel(categorical_model, "output", n=3)
    assert result.dims == ("class", "z0") and np.allclose(result.matrix, 1.0, atol=1e-5)


def test_foreign_models_too(left_as_found):
    torch.manual_seed(1)
    decoder = nn.Sequential(
        nn.Linear(3, 8), nn.ReLU(inplace=True), nn.Linear(8, 16), nn.Unflatten(1, (1, 4, 4))
    )
    model = adapt_model(decoder, latents=3, image_shape=(1, 4, 4), outputs="logits").train()
    left_as_found(model)
    result = latent_unit_pixel(model, "1", n=2, steps=64)
    assert result.cut and result.certificate["row_gap"] < 0.02 and result.matrix.shape == (3, 8)
    assert influence_by_stage(model, n=2).stages == ("0", "1", "2", "3")


def test_same_seed_same_matrix_saved_and_cancelled(planted, tmp_path):
    first, second = (latent_unit_pixel(planted, "gates", n=2, seed=3) for _ in range(2))
    assert np.array_equal(first.null, second.null)
    assert not np.array_equal(first.null, latent_unit_pixel(planted, "gates", n=2, seed=4).null)
    assert np.array_equal(load_result(first.save(tmp_path / "units")).painted, first.painted)
    stages = influence_by_stage(planted, n=2)
    again = load_result(stages.save(tmp_path / "stages"))
    assert list(again.matrices) == list(stages.matrices) and again.cut == stages.cut
    seen = []
    latent_unit_pixel(planted, "gates", n=2, progress=lambda *done: seen.append(done))
    assert seen[-1][0] == seen[-1][1] == 2 * 9 * 8 + 5 * 2 * 10
    with pytest.raises(ZeroDivisionError):
        influence_by_stage(planted, progress=lambda *_: 1 / 0)


def test_errors_say_what_is_possible(planted, gated_model):
    with pytest.raises(ValueError, match="reads no codes, so there are no sliders"):
        latent_unit_pixel(gated_model, "features", network="encoder")
    with pytest.raises(ValueError, match="held from 1 to n; got top=4, held=9, n=4"):
        latent_unit_pixel(planted, "gates", n=4, held=9)
    with pytest.raises(ValueError, match="n of at least 2"):
        influence_by_stage(planted, n=1)
    with pytest.raises(ValueError, match="No stage 'block9'"):
        influence_by_stage(planted, ["block9"])
