import numpy as np
import pytest
import torch
from planted import gated
from planted.boxes import Boxes
from torch import nn
from torch.nn import functional as F

from latentlab.analysis import ConceptMasks, activations, dissect, image_concepts, load_result
from latentlab.models.adapt import adapt, adapt_model
from latentlab.models.staged import StagedNetwork

HIGH, LOW, ON, N = 6.0, -1.8, 32, 100  # 32 of 100 images have a unit at 1 + 6/2 = 4, the others at 0.1
QUANTILE = ON / N / 64  # of the 64 positions of a map one is ever active: 0.005


def _codes(seed=0):
    """Codes in which each latent is high in 32 of 100 images, others in each latent; and where that is, (n, 5)."""
    rng = np.random.default_rng(seed)
    on = np.zeros((N, 5), dtype=bool)
    for latent in range(5):
        on[rng.permutation(N)[:ON], latent] = True
    return np.where(on, HIGH, LOW).astype(np.float32), on


def _glyphs(on):
    """Exact masks of the five glyphs, present where their latent is high."""
    return ConceptMasks.of({f"glyph {u}": on[:, u, None, None] & gated.support(u).numpy() for u in range(5)})


def _stretched(model, z):
    states = torch.from_numpy(np.array(activations(model, inputs=z, stages=["maps"]).states["maps"]))
    return states, F.interpolate(states, size=(16, 16), mode="bilinear", align_corners=False).numpy()


def _exact(iou):
    """The check: a unit covers 2 x 2 pixels, its glyph some of them; no other glyph shares a pixel."""
    expected = np.zeros((10, 5))
    for unit in range(5):
        expected[unit, unit] = float(gated.support(unit).sum()) / 4
    return np.abs(iou[:5] - expected[:5]).max() < 1e-9


def test_a_planted_unit_has_iou_one_with_its_glyph(left_as_found):
    """Fails a threshold per image and a mean of per-image IoUs, both written below, on the same check."""
    model = gated.gated_model()
    z, on = _codes()
    concepts = _glyphs(on)
    left_as_found(model)
    found = dissect(model, "maps", inputs=z, concepts=concepts)
    assert found.certificate["share_wanted"] == 0.005 == QUANTILE
    assert _exact(found.iou) and found.iou[4, 4] == 1.0
    assert found.concepts[found.best[4]] == "glyph 4" and found.detectors[:5].all()
    assert found.thresholds[4, 0] == pytest.approx((4.0 + 0.1) / 2) and found.p_value[4] == pytest.approx(
        1 / 21
    )

    states, maps = _stretched(model, z)
    masks = concepts.masks
    per_image = np.quantile(states.numpy(), 0.995, axis=(2, 3))[:, :, None, None]
    assert not _exact(_ratio_of_sums(maps > per_image, masks))
    assert not _exact(_mean_of_ratios(maps > found.thresholds[None, :, :1, None], masks))
    assert _exact(_ratio_of_sums(maps > found.thresholds[None, :, :1, None], masks))


def _ratio_of_sums(on, masks):
    both = np.einsum("nuhw,nchw->uc", on.astype(float), masks.astype(float))
    return both / np.maximum(on.sum((0, 2, 3))[:, None] + masks.sum((0, 2, 3)) - both, 1)


def _mean_of_ratios(on, masks):
    both = np.einsum("nuhw,nchw->nuc", on.astype(float), masks.astype(float))
    union = on.sum((2, 3))[:, :, None] + masks.sum((2, 3))[:, None] - both
    return (both / np.maximum(union, 1)).mean(axis=0)


def test_iou_is_a_ratio_of_sums():
    """Fails the mean of 4/4 and 4/12, which is 2/3; the sums give 8/16. Images without the concept are not skipped."""
    maps = np.zeros((2, 1, 4, 4), dtype=np.float32)
    maps[:, 0, 0] = 1.0
    masks = np.zeros((2, 4, 4), dtype=bool)
    masks[0, 0] = masks[1, :3] = True
    net = StagedNetwork({"map": nn.Identity(), "out": nn.Identity()}, "net")
    found = dissect(net, "map", inputs=maps, concepts=ConceptMasks.of({"rows": masks}), quantile=0.25)
    assert found.iou.tolist() == [[0.5]]
    assert _mean_of_ratios(maps > 0.5, masks[:, None]) == pytest.approx(2 / 3)
    assert found.ceiling == pytest.approx(0.5) and found.certificate["share_above"] == (0.25, 0.25)


def test_maps_permuted_over_images_are_at_the_base_rate():
    """Fails a null of permuted pixels (far below) and one that leaves some images in place (far above)."""
    z, on = _codes()
    model = gated.gated_model()
    found = dissect(model, "maps", inputs=z, concepts=_glyphs(on), n_draws=60)
    # Maps and masks of 32 in 100 images meet in 10.24 by chance: 4 pixels each, 128 in each sum.
    base = 4 * 10.24 / (2 * 128 - 4 * 10.24)
    assert found.chance[4, 4] == pytest.approx(base)
    assert found.certificate["permuted_gap"] < 0.03
    assert base < found.best_chance[4] < 2 * base
    away = _glyphs(on[np.random.default_rng(1).permutation(N)])
    moved = dissect(model, "maps", inputs=z, concepts=away)
    assert moved.iou[4, 4] == pytest.approx(base, abs=0.1) and moved.p_value[4] > 0.02


def test_decoys_match_nothing_and_random_directions_match_less():
    z, on = _codes()
    found = dissect(gated.gated_model(), "maps", inputs=z, concepts=_glyphs(on))
    assert (found.iou[5:] == 0).all() and not found.detectors[5:].any()
    assert len(found.controls) == 10 and found.controls.max() < found.best_iou.max()
    assert found.certificate["detectors"] == 5 and found.certificate["detectors_by_chance"] == pytest.approx(
        5
    )


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_thresholds_are_exact_quantiles_over_all_positions(batch_size):
    """Fails quantiles averaged over batches."""
    maps = np.random.default_rng(0).standard_normal((30, 3, 5, 5)).astype(np.float32)
    maps *= np.linspace(0.1, 3, 30, dtype=np.float32)[:, None, None, None]
    masks = ConceptMasks.of({"left": np.broadcast_to(np.arange(5) < 2, (30, 5, 5))})
    net = StagedNetwork({"map": nn.Identity()}, "net")
    found = dissect(net, "map", inputs=maps, concepts=masks, quantile=0.02, batch_size=batch_size)
    values = -np.sort(-maps.transpose(1, 0, 2, 3).reshape(3, -1))
    assert found.thresholds[:, 0] == pytest.approx((values[:, 14] + values[:, 15]) / 2, abs=1e-6)
    assert found.certificate["share_above"] == (0.02, 0.02)
    direct = _ratio_of_sums(maps > found.thresholds[None, :, :1, None], masks.masks)
    assert found.iou == pytest.approx(direct)


def test_other_thresholds_let_a_large_concept_be_matched():
    """Half of the image can't be matched by half a percent of the positions, and is matched exactly by these two."""
    rng = np.random.default_rng(0)
    side = rng.random(40) < 0.5
    mask = np.where(side[:, None, None], np.arange(8) < 4, np.arange(8) >= 4) & np.ones((8, 1), dtype=bool)
    maps = np.stack([mask + 0.1 * rng.random((40, 8, 8)), rng.random((40, 8, 8))], axis=1).astype(np.float32)
    net = StagedNetwork({"map": nn.Identity()}, "net")
    calls = {
        t: dissect(net, "map", inputs=maps, concepts=ConceptMasks.of({"half": mask}), threshold=t)
        for t in ("quantile", "matched", "iqr")
    }
    assert (
        calls["quantile"].iou[0, 0] == pytest.approx(0.01, abs=1e-3) and calls["quantile"].ceiling[0] == 0.01
    )
    for kind in ("matched", "iqr"):
        assert calls[kind].iou[0, 0] == 1.0 and calls[kind].best_chance[1] < 0.5, kind
    assert calls["iqr"].iou[1, 0] < 0.5 and calls["matched"].iou[1, 0] == pytest.approx(1 / 3, abs=0.05)
    assert calls["matched"].certificate["share_gap"] == 0.0


def test_by_excess_a_unit_is_not_named_after_what_is_always_there():
    rng = np.random.default_rng(0)
    shown = rng.random(40) < 0.3
    ground = np.broadcast_to(np.arange(8)[:, None] >= 4, (40, 8, 8))
    thing = shown[:, None, None] & (np.arange(8)[:, None] >= 4) & (np.arange(8) < 4)
    maps = (0.6 * ground + 1.0 * thing)[:, None].astype(np.float32)
    concepts = ConceptMasks.of({"ground": ground, "thing": thing})
    net = StagedNetwork({"map": nn.Identity()}, "net")
    by = {
        r: dissect(net, "map", inputs=maps, concepts=concepts, threshold="matched", rank=r)
        for r in ("iou", "excess")
    }
    assert by["excess"].concepts[by["excess"].best[0]] == "thing" and by["iou"].chance[0, 0] == pytest.approx(
        1.0
    )


def test_flat_stages_are_on_or_off_in_the_whole_image():
    z, on = _codes()
    found = dissect(gated.gated_model(), "gates", inputs=z, concepts=_glyphs(on), quantile=ON / N)
    assert found.iou[4, 4] == pytest.approx(4 / 256) and found.regions.shape == (10, 3, 16, 16)


def test_a_generator_without_an_encoder_segments_what_it_draws():
    found = dissect(gated.gated_model(), "maps", n_images=24)
    assert found.concepts[:2] == ("bright", "dark") and found.images.shape == (10, 3, 1, 16, 16)
    again = dissect(gated.gated_model(), "maps", n_images=24, concepts=image_concepts)
    assert np.array_equal(found.iou, again.iou)
    with pytest.raises(
        ValueError, match="PlantedModel has no encoder, so no code is known for an image of 'boxes'"
    ):
        dissect(gated.gated_model(), "maps", data=Boxes())


def test_an_adapted_foreign_model_is_dissected_through_its_codes():
    """Masks of the data are those of the images whose codes are decoded, and how far the pictures are is said."""
    g = torch.Generator().manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(768, 6))
    decoder = nn.Sequential(
        nn.Linear(3, 4 * 64),
        nn.Unflatten(1, (4, 8, 8)),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 3, 2, 2),
        nn.Sigmoid(),
    )
    with torch.no_grad():
        for p in (*encoder.parameters(), *decoder.parameters()):
            p.copy_(0.1 * torch.randn(p.shape, generator=g))
    model = adapt_model(decoder, latents=3, image_shape=(3, 16, 16), encoder=encoder)
    for network, stage in (("generator", "2"), ("encoder", "1")):
        found = dissect(model, stage, network, Boxes(), n_images=20, n_draws=3, n_controls=0)
        assert "object" in found.concepts and found.images.shape[2:] == (3, 16, 16)
        assert ("reconstruction_error" in found.certificate) == (network == "generator")
    assert found.network == "encoder" and found.iou.shape[0] == 6


def test_a_foreign_module_alone_takes_images_and_masks():
    x = np.random.default_rng(0).random((6, 1, 8, 8), dtype=np.float32)
    network = adapt(
        nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 1)),
        torch.from_numpy(x[:1]),
    )
    masks = ConceptMasks.of({"a": x[:, 0] > 0.5})
    assert dissect(network, "0", inputs=x, concepts=masks).iou.shape == (2, 1)
    assert "bright" in dissect(network, "0", inputs=x).concepts


def test_the_seed_decides_and_results_survive_saving(tmp_path):
    model = gated.gated_model()
    one, two, other = (dissect(model, "maps", n_images=12, n_draws=3, seed=s) for s in (1, 1, 2))
    assert np.array_equal(one.iou, two.iou) and np.array_equal(one.controls, two.controls)
    assert not np.array_equal(one.controls, other.controls)
    back = load_result(one.save(tmp_path / "d"))
    assert (
        np.array_equal(back.iou, one.iou)
        and back.certificate == one.certificate
        and back.levels == one.levels
    )


def test_wrong_calls_are_refused_in_one_sentence():
    model, (z, on) = gated.gated_model(), _codes()
    with pytest.raises(ValueError, match="A threshold is one of quantile, matched, iqr; got 'mean'"):
        dissect(model, "maps", threshold="mean")
    with pytest.raises(ValueError, match="No stage 'block' in network 'generator'"):
        dissect(model, "block")
    with pytest.raises(ValueError, match="Expected masks of 99 images, one for each input; got those of 100"):
        dissect(model, "maps", inputs=z[1:], concepts=_glyphs(on))
    with pytest.raises(ValueError, match="quantile is a share"):
        dissect(model, "maps", quantile=0)
    with pytest.raises(TypeError, match="concepts is ConceptMasks or a function"):
        dissect(model, "maps", concepts=["glyph"])

    def stop(done, total):
        raise InterruptedError(f"{done} of {total}")

    with pytest.raises(InterruptedError, match="1 of 4"):
        dissect(model, "maps", n_images=8, progress=stop)
