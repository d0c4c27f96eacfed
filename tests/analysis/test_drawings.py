import numpy as np
import pytest
import torch
from planted import gated
from torch import nn

from latentlab.analysis import load_result, pixel_reads, unit_draws, unit_isolates
from latentlab.models.adapt import adapt_model
from latentlab.models.edits import Edit


@pytest.fixture(scope="module")
def model():
    return gated.gated_model()


def drawn_as_planted(drawings, z) -> bool:
    """The check: every unit's drawing is its glyph at its place, times its activation."""
    return all(np.allclose(drawings[u], gated.drawing(z, u).numpy(), atol=1e-6) for u in range(gated.UNITS))


@pytest.mark.parametrize("operation", [unit_draws, unit_isolates])
@pytest.mark.parametrize("stage", ["gates", "maps"])
def test_a_unit_draws_its_glyph_and_nothing_else(model, stage, operation, left_as_found):
    """Fails an activation map called a drawing: the loudest unit of all draws nothing."""
    left_as_found(model)
    z = model.latent_space.sample(4, 0)
    found = operation(model, stage, inputs=z, batch_size=7)
    assert drawn_as_planted(found.drawings, z)
    assert np.abs(found.drawings[gated.LOUD]).max() == 0.0
    one, other = gated.CANCELLING
    assert np.allclose(found.drawings[one], -found.drawings[other], atol=1e-7)
    assert np.abs(found.drawings[one]).max() > 0.1
    assert found.certificate["loop_difference"] < 1e-6 and found.certificate["interaction_gap"] < 1e-6


def test_an_upsampled_map_is_not_what_a_unit_draws(model):
    """The named fake: the unit's map, stretched over the image."""
    z = model.latent_space.sample(4, 0)
    maps = model.generator.activations(z, ["maps"])["maps"].transpose(0, 1)[:, :, None].detach()
    fake = nn.functional.interpolate(maps.flatten(0, 1), scale_factor=2).unflatten(0, maps.shape[:2])
    assert not drawn_as_planted(gated.SCALE * fake.numpy(), z)
    assert float(fake[gated.LOUD].abs().max()) > float(fake[0].abs().max())


def test_drawings_are_the_difference_that_an_edit_makes(model):
    """Fails a wrong sign, and units or inputs that are mixed up."""
    z = model.latent_space.sample(3, 1)
    edits = [Edit("generator.gates", (1,), "shift", 0.5)]
    found = unit_draws(model, "gates", [4, 1], z, edits=edits)
    for k, unit in enumerate((4, 1)):
        before, after = model.decode(z, edits), model.decode(z, [*edits, Edit("generator.gates", (unit,))])
        assert np.allclose(found.drawings[k], (before - after).detach(), atol=1e-6)
        assert np.allclose(found.pictures[k], after.detach(), atol=1e-6)
    assert found.units.tolist() == [4, 1] and found.strength.shape == (2, 3)


def test_the_mean_baseline_leaves_what_sets_this_image_apart(model):
    z = model.latent_space.sample(80, 2)
    found = unit_draws(model, "gates", [0, 5], z, baseline="mean")
    full = gated.drawing(z, 0).numpy()
    assert np.allclose(found.drawings[0], full - full.mean(axis=0), atol=1e-5)
    assert np.abs(found.drawings[0].mean(axis=0)).max() < 1e-5
    again = unit_draws(model, "gates", [0], seed=3, baseline="mean")
    assert np.array_equal(again.drawings, unit_draws(model, "gates", [0], seed=3, baseline="mean").drawings)
    assert not np.array_equal(again.images, unit_draws(model, "gates", [0], seed=4).images)


class _Saturating(nn.Module):
    def __init__(self):
        super().__init__()
        self.units = nn.Sequential(nn.Linear(2, 6), nn.ReLU())
        self.paint = nn.Sequential(nn.Linear(6, 16), nn.Sigmoid(), nn.Unflatten(1, (1, 4, 4)))
        with torch.no_grad():
            self.units[0].bias.fill_(2.0)
            self.paint[0].weight.copy_(torch.linspace(0.5, 3.0, 96).view(16, 6))

    def forward(self, z):
        return self.paint(self.units(z))


def test_a_foreign_decoder_and_its_interactions(left_as_found):
    """Fails a gap that is a constant: behind a saturated sigmoid what units draw alone does not add up."""
    torch.manual_seed(0)
    model = adapt_model(_Saturating(), latents=2, image_shape=(1, 4, 4))
    left_as_found(model)
    found = unit_draws(model, "units", seed=1)
    assert found.drawings.shape == (6, 1, 1, 4, 4) and found.certificate["loop_difference"] < 1e-6
    gap = np.sqrt(
        np.square(found.drawings.sum(0) - (found.images - found.ground)).mean()
        / np.square(found.images - found.ground).mean()
    )
    assert found.certificate["interaction_gap"] == pytest.approx(gap, rel=1e-4) and gap > 0.3
    reading = pixel_reads(model, (0, 0, 0.5, 0.5), stage="units", seed=1)
    assert reading.certificate["finite_difference"] < 0.05


def test_a_region_reads_the_units_that_paint_it(model, left_as_found):
    """Fails readings of another region, or by activation, which the loud unit would lead."""
    left_as_found(model)
    z = 0.3 * model.latent_space.sample(3, 0)
    for unit in gated.PLAIN:
        mask = gated.support(unit).float()
        found = pixel_reads(model, mask, z, "maps")
        assert found.order[0] == unit and np.abs(np.delete(found.attribution, unit, axis=1)).max() < 1e-9
        # The generator is linear behind the maps, so attribution is the drawing's mean over the region.
        planted = (gated.drawing(z, unit)[:, 0] * mask / mask.sum()).sum((1, 2))
        assert np.allclose(found.attribution[:, unit], planted, atol=1e-6)
        latents = pixel_reads(model, mask, z)
        assert latents.order[0] == gated.DRIVERS[unit] and latents.names[0] == "z0"
        assert latents.certificate["finite_difference"] < 1e-3
        assert 0 < latents.certificate["random_share"] < 0.9
    box = pixel_reads(model, (2 / 16, 2 / 16, 4 / 16, 4 / 16), z, "gates")
    assert box.region.sum() == pytest.approx(1) and np.count_nonzero(box.region) == 4


def test_drawings_refuse_what_they_cannot_say(gated_model, model):
    x = np.zeros((1, 1, 8, 8), np.float32)
    with pytest.raises(ValueError, match=r"Network 'encoder' reads images and draws none.*generator"):
        unit_draws(gated_model, "features", inputs=x, network="encoder")
    with pytest.raises(ValueError, match="baseline must be one of zero, mean; got 'median'"):
        unit_draws(model, "gates", baseline="median")
    with pytest.raises(ValueError, match=r"has units 0 to 9; got \[12\]"):
        unit_draws(model, "gates", [12])
    with pytest.raises(ValueError, match=r"A region is a box of 4 shares or a mask \(16, 16\)"):
        pixel_reads(model, np.ones((3, 3)))
    with pytest.raises(ValueError, match="not all of them 0"):
        pixel_reads(model, np.zeros((16, 16)))


def test_drawings_survive_saving(model, tmp_path):
    found = unit_draws(model, "gates", [0])
    again = load_result(found.save(tmp_path / "drawings"))
    assert np.array_equal(again.drawings, found.drawings) and again.certificate == found.certificate
