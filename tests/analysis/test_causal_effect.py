import numpy as np
import pytest
import torch
from planted import gated
from planted.boxes import Boxes
from torch import nn

from latentlab.analysis import (
    ConceptMap,
    ConceptMasks,
    causal_effect,
    concept_map,
    dissect,
    effects_of_units,
    light_map,
    load_result,
)
from latentlab.models.adapt import adapt, adapt_model
from latentlab.models.edits import Edit
from latentlab.models.staged import StagedNetwork

DEAD, N = 5, 24
OWN = [float(gated.GLYPHS[u].mean()) for u in range(10)]
"""Mean of each glyph over its 2 x 2 pixels: what a unit of activation 1 adds there, divided by SCALE."""


def _place(unit, side=8):
    grid = np.zeros((side, side), dtype=np.float32)
    row, column = gated.PLACES[unit]
    grid[row, column] = 1.0
    return grid


def _glyph(unit):
    return ConceptMap(f"glyph {unit}", "mean light", lambda x: x[:, 0] * gated.support(unit).to(x))


def _is_exact(ace, unit, k=1.0):
    """The check: inserting k and ablating differ by SCALE k times the glyph, at the unit's own place."""
    return abs(ace - gated.SCALE * k * OWN[unit]) < 1e-6


@pytest.mark.parametrize("unit", range(10))
def test_effects_are_those_of_the_glyphs_at_the_place_edited(unit, left_as_found):
    """Fails insertion that is measured at the other place, written below, by the same check."""
    model = gated.gated_model()
    left_as_found(model)
    found = causal_effect(model, "maps", unit, light_map(), region=_place(unit), value=1.0, n=N)
    assert _is_exact(found.ace, unit) and found.interval == pytest.approx(found.ace, abs=1e-6)
    assert found.certificate["loop_difference"] < 1e-6 and found.certificate["no_dose_effect"] == 0.0
    assert found.certificate["change_in_place"] == pytest.approx(1.0)
    if unit < 5:
        elsewhere = (unit + 1) % 5
        assert not _is_exact(_measured_at_the_other_place(model, unit, elsewhere), unit)
        assert _is_exact(_measured_at_the_other_place(model, unit, unit), unit)


def _measured_at_the_other_place(model, unit, other):
    """Ablation measured where it is done; insertion done there too, and measured at ``other``."""
    z = model.sample_codes(N, 0)
    here = [tuple(row) for row in _place(unit).tolist()]
    with torch.no_grad():
        off = model.decode(z, [Edit("generator.maps", (unit,), region=tuple(here))])
        on = model.decode(z, [Edit("generator.maps", (unit,), "set", 1.0, region=tuple(here))])
    seen = [torch.from_numpy(np.kron(_place(u), np.ones((2, 2), np.float32))) for u in (unit, other)]
    return float((on * seen[1]).sum() / seen[1].sum() / N - (off * seen[0]).sum() / seen[0].sum() / N)


def test_an_effect_is_on_its_own_glyph_alone():
    """Fails units inserted all over the map, which would draw on every glyph's place; a dead unit has effect 0."""
    model = gated.gated_model()
    glyphs = [_glyph(u) for u in range(5)]
    found = effects_of_units(model, "maps", glyphs, n=N)
    diagonal = found.ace[np.arange(5), np.arange(5)]
    mask = np.ones((10, 5), dtype=bool)
    mask[np.arange(5), np.arange(5)] = False
    assert (diagonal > 1e-3).all() and np.abs(found.ace[mask]).max() < 1e-9
    assert (found.ace[DEAD] == 0).all() and (found.interval[DEAD] == 0).all()
    assert [found.order[0, c] for c in range(5)] == [0, 1, 2, 3, 4]
    assert found.certificate["loop_difference"] < 1e-6 and found.certificate["draws"] == 10
    single = causal_effect(model, "maps", 4, glyphs[4], n=N)
    assert single.ace == pytest.approx(found.ace[4, 4], abs=1e-8)


def _with_decoy():
    """F1 whose loud unit is active just where and when glyph 4 is drawn, and whose unit 4 is active beside it, too."""
    model = gated.gated_model()
    gates, spread = model.generator.stages["gates"][0], model.generator.stages["maps"][0]
    with torch.no_grad():
        gates.weight[DEAD] = gated.LOUDNESS * gates.weight[4]
        spread.weight[:, DEAD] = 0.0
        spread.weight[DEAD * 64 + 3 * 8 + 3, DEAD] = 1.0
        spread.weight[4 * 64 + 3 * 8 + 4, 4] = 0.99  # draws a column further right, too
    return model


def test_a_ranking_by_effect_beats_one_by_iou():
    """Fails a ranking by IoU: a unit that looks like the concept and draws nothing stands first in it."""
    model = _with_decoy()
    rng = np.random.default_rng(0)
    on = rng.permutation(100) < 32
    z = np.full((100, 5), -1.8, dtype=np.float32)
    z[:, 4] = np.where(on, 6.0, -1.8)
    masks = on[:, None, None] & gated.support(4).numpy()
    looks = dissect(model, "maps", inputs=z, concepts=ConceptMasks.of({"glyph 4": masks}), quantile=32 / 6400)
    assert looks.iou[DEAD, 0] == 1.0 and looks.iou[4, 0] < 1.0 and looks.iou[:, 0].argmax() == DEAD
    does = effects_of_units(model, "maps", [_glyph(4)], inputs=z[:N], dissection=looks, units=range(10))
    truth = np.zeros(10)
    truth[4] = 1.0
    assert does.order[0, 0] == 4 == truth.argmax() and does.ace[DEAD, 0] == 0 and does.ace[4, 0] > 0
    assert np.array_equal(does.iou[:, 0], looks.iou[:, 0]) and does.p_value[DEAD, 0] == 1.0


@pytest.mark.parametrize("unit", [0, 3, 4, 8])
def test_more_of_a_unit_is_more_of_its_glyph(unit):
    """Fails a dose that is switched and not mixed: the response is a straight line."""
    found = causal_effect(gated.gated_model(), "maps", unit, light_map(), region=_place(unit), n=N)
    effect = found.inserted - found.ablated
    assert (np.diff(effect) > 0).all() and effect == pytest.approx(found.doses * effect[-1], abs=1e-6)
    assert found.certificate["dose_rank"] == pytest.approx(1.0)
    assert found.ace == pytest.approx(gated.SCALE * OWN[unit] * float(found.value[0]), abs=1e-6)


def test_cancelling_units_do_nothing_together_and_much_alone():
    model, where = gated.gated_model(), _place(6)
    alone = [causal_effect(model, "maps", u, light_map(), region=where, n=N, value=1.0).ace for u in (6, 7)]
    both = causal_effect(model, "maps", (6, 7), light_map(), region=where, n=N, value=1.0)
    assert alone == pytest.approx([0.15, -0.15], abs=1e-6) and both.ace == pytest.approx(0, abs=1e-6)


def test_k_is_the_mean_where_the_concept_is():
    """Fails a maximum, and a mean over inputs that don't show the concept."""
    model = gated.gated_model()
    z = np.zeros((4, 5), dtype=np.float32)
    z[:, 4] = [-2.0, -2.0, 2.0, 6.0]  # activations 0, 0, 2, 4 and so light 0, 0, .6, 1.2 at its place
    found = causal_effect(model, "maps", 4, light_map(), inputs=z, region=_place(4))
    assert found.value == pytest.approx((2 * 0.6 + 4 * 1.2) / 1.8, abs=1e-5)
    everywhere = causal_effect(model, "maps", 4, _glyph(4), inputs=z)
    assert everywhere.value.shape == (1, 8, 8) and everywhere.value[0, 3, 3] == pytest.approx(
        10 / 3, abs=1e-5
    )
    assert np.count_nonzero(everywhere.value) == 1


def test_random_sets_are_of_equal_size_and_of_other_units():
    """Fails controls that hold the units themselves, or single units against a set of two."""
    found = causal_effect(gated.gated_model(), "maps", (0, 4), light_map(), n=4, n_draws=25)
    assert found.control_units.shape == (25, 2) and not np.isin(found.control_units, (0, 4)).any()
    assert all(a < b for a, b in found.control_units) and found.control_ace.shape == (25,)
    assert found.p_value == pytest.approx((1 + (np.abs(found.control_ace) >= found.ace).sum()) / 26)
    best = causal_effect(gated.gated_model(), "maps", 4, _glyph(4), n=4)
    assert best.p_value == pytest.approx(1 / 21) and best.percentile == 1.0 and (best.control_ace == 0).all()


def test_the_interval_covers_the_mean_over_inputs():
    model = gated.gated_model()
    found = causal_effect(model, "gates", 4, lambda x: x.mean((1, 2, 3)) ** 2, n=64)
    low, high = found.interval
    assert low < found.ace < high and found.ace == pytest.approx(found.per_input.mean())
    spread = found.per_input.std() / 8
    assert high - low == pytest.approx(2 * 1.96 * spread, rel=0.25) or spread < 1e-9


def test_encoders_and_foreign_networks_have_effects_too():
    g = torch.Generator().manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(768, 6))
    decoder = nn.Sequential(
        nn.Linear(3, 256), nn.Unflatten(1, (4, 8, 8)), nn.ReLU(), nn.ConvTranspose2d(4, 3, 2, 2)
    )
    with torch.no_grad():
        for p in (*encoder.parameters(), *decoder.parameters()):
            p.copy_(0.1 * torch.randn(p.shape, generator=g))
    model = adapt_model(
        nn.Sequential(decoder, nn.Sigmoid()), latents=3, image_shape=(3, 16, 16), encoder=encoder
    )
    stages = {"encoder": "1", "generator": "0.2"}
    for network, stage in stages.items():
        found = causal_effect(model, stage, 1, "red", network, Boxes(), n=6)
        assert found.certificate["loop_difference"] < 1e-6 and found.originals.shape == (4, 3, 16, 16)
    x = torch.rand(5, 1, 8, 8, generator=g)
    scorer = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 1))
    alone = adapt(scorer, x[:1])
    found = causal_effect(alone, "0", 2, lambda output: output[:, 0], inputs=x)
    assert found.originals is None and found.certificate["loop_difference"] < 1e-5
    with pytest.raises(
        ValueError, match=r"'brightness' is measured in pictures; network .* gives \(1,\) numbers"
    ):
        causal_effect(alone, "0", 2, "brightness", inputs=x)


def test_concepts_that_a_segment_function_finds_share_its_runs():
    calls = []

    def segment(images):
        calls.append(len(images))
        ink = images[:, 0] > 0.2
        return ConceptMasks.of({"ink": ink, "left": ink & (torch.arange(16) < 8)})

    found = effects_of_units(
        gated.gated_model(),
        "maps",
        [concept_map("ink", segment), concept_map("left", segment)],
        units=[0, 4],
        n=4,
    )
    # Once without edits; ablated, and inserted for each concept, for 2 + 8 units; six by hand.
    assert sum(calls) == 4 + 3 * 10 * 4 + 6
    assert found.band.shape == (2, 2) and len(found.control_ace) == 8


def test_the_seed_decides_and_results_survive_saving(tmp_path):
    model = gated.gated_model()
    one, two, other = (causal_effect(model, "maps", (0, 1), light_map(), n=4, seed=s) for s in (3, 3, 4))
    assert one.ace == two.ace and np.array_equal(one.control_units, two.control_units)
    assert not np.array_equal(one.control_units, other.control_units)
    back = load_result(one.save(tmp_path / "e"))
    assert back.ace == one.ace and back.units == (0, 1) and back.place is None
    table = effects_of_units(model, "maps", [light_map()], n=3)
    assert np.array_equal(load_result(table.save(tmp_path / "u")).ace, table.ace)


def test_wrong_calls_are_refused_in_one_sentence():
    model = gated.gated_model()
    with pytest.raises(ValueError, match=r"Stage 'generator.maps' has units 0 to 9; got \[10\]"):
        causal_effect(model, "maps", 10, light_map())
    with pytest.raises(ValueError, match="n_draws must be at least 20"):
        causal_effect(model, "maps", 0, light_map(), n_draws=5)
    with pytest.raises(ValueError, match=r"Random sets of 6 units need as many others; .* has 4 others"):
        causal_effect(model, "maps", range(6), light_map())
    with pytest.raises(
        ValueError, match=r"A region needs a stage with a map and pictures; 'generator.gates' lacks"
    ):
        causal_effect(model, "gates", 0, light_map(), region=_place(0))
    with pytest.raises(ValueError, match="A region is rows of weights"):
        causal_effect(model, "maps", 0, light_map(), region=np.zeros((8, 8)))
    nowhere = ConceptMap("grass", "", lambda x: torch.zeros_like(x[:, 0]))
    with pytest.raises(ValueError, match="None of the 4 inputs shows 'grass'"):
        causal_effect(model, "maps", 0, nowhere, n=4)
    with pytest.raises(ValueError, match="Expected a list of concepts"):
        effects_of_units(model, "maps", light_map())
    with pytest.raises(ValueError, match=r"The dissection is of generator.maps; got stage generator.gates"):
        effects_of_units(model, "gates", [light_map()], dissection=dissect(model, "maps", n_images=8))

    def stop(done, total):
        raise InterruptedError(f"{done} of {total}")

    with pytest.raises(InterruptedError, match="4 of 196"):
        causal_effect(model, "maps", 0, light_map(), n=4, progress=stop)


def test_edits_in_force_are_part_of_both_sides():
    """Fails edits that apply to one of the two sides, or twice in the check by hand."""
    net = StagedNetwork({"map": nn.Identity(), "out": nn.ReLU()}, "generator")
    x = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    doubled = [Edit("generator.map", (0,), "scale", 2.0)]
    wide = torch.cat([x, x, x], dim=1)
    found = causal_effect(net, "map", 0, "red", inputs=wide, edits=doubled)
    assert (
        found.originals[:, 0] == pytest.approx(2 * x[:, 0].numpy())
        and found.certificate["loop_difference"] < 1e-6
    )


def test_the_loop_difference_tells_when_rows_of_a_batch_are_not_apart():
    """Fails a certificate that is a constant."""

    class Mixing(nn.Module):
        def forward(self, h):
            return h + h.mean(dim=0) / 10

    g = torch.Generator().manual_seed(0)
    x = torch.rand(3, 3, 4, 4, generator=g) * torch.tensor([0.2, 0.5, 1.0])[:, None, None, None]
    mixed = StagedNetwork({"map": nn.Identity(), "out": Mixing()}, "net")
    assert causal_effect(mixed, "map", 0, "brightness", inputs=x).certificate["loop_difference"] > 0.01
