"""Latents of two models that are known to be each other's, in another order, turned round and bent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from latentlab import viz
from latentlab.analysis import LatentMatching, load_result, match_latents
from latentlab.models.adapt import adapt_model

SHAPE = (1, 4, 4)
ORDER, SIGNS = [3, 0, 4, 1, 2], [1.0, -1.0, 1.0, -1.0, 1.0]


class Reads(nn.Module):
    """An encoder whose latent i is a monotone function of pixel ``pixels[i]``: sign x gain x (pixel - 1/2) ^ power."""

    def __init__(self, pixels, signs, gains, power: int = 1, log_var=-4.0) -> None:
        super().__init__()
        self.pixels, self.power, self.flat = list(pixels), power, nn.Flatten()
        self.gain = nn.Parameter(torch.tensor(signs) * torch.tensor(gains))
        self.log_var = nn.Parameter(
            torch.as_tensor(log_var, dtype=torch.float32).expand(len(self.pixels)).clone()
        )

    def forward(self, x):
        means = (2 * self.flat(x)[:, self.pixels] - 1) ** self.power * self.gain
        return means, self.log_var.expand_as(means)


def reading(pixels, signs=None, gains=None, power: int = 1, log_var=-4.0):
    """A foreign model with that encoder, and a decoder that is not asked."""
    n = len(pixels)
    encoder = Reads(pixels, signs or [1.0] * n, gains or [1.7] * n, power, log_var)
    decoder = nn.Sequential(nn.Linear(n, 16), nn.Sigmoid(), nn.Unflatten(1, SHAPE))
    return adapt_model(decoder, latents=n, image_shape=SHAPE, encoder=encoder)


def images(n: int = 600, seed: int = 0) -> np.ndarray:
    """Images whose pixels are independent and uniform."""
    return np.random.default_rng(seed).random((n, *SHAPE), dtype=np.float32)


@pytest.mark.parametrize("measure", ["mutual_information", "correlation"])
def test_a_known_order_and_known_signs_are_found(measure: str) -> None:
    """Catches matching by number, signs left out, and agreement that depends on scale or bends."""
    a, b = reading(range(5)), reading(ORDER, SIGNS, [0.9, 2.0, 1.5, 1.2, 3.0], power=3)
    found = match_latents(a, b, images(), measure=measure)
    expected = [ORDER.index(i) for i in range(5)]
    assert found.permutation.tolist() == expected
    assert found.signs.tolist() == [SIGNS[j] for j in expected]
    assert found.sure.all() and found.certificate["sure"] == 5
    assert found.matched.min() > 5 * found.certificate["null_high"]
    if measure == "correlation":
        np.testing.assert_allclose(found.matched, 1.0, atol=1e-6)
        others = np.delete(found.strength[0], expected[0])
        assert others.max() < 0.15
    else:  # bins of equal counts on both sides: all that a bin says is known
        np.testing.assert_allclose(found.matched, np.log(16), rtol=0.01)
    by_number = found.strength[np.arange(5), np.arange(5)]  # the fake
    assert by_number.mean() < 0.3 * found.certificate["matched_mean"]


def test_each_latent_has_one_partner_even_where_two_want_the_same() -> None:
    """The fake takes each row's best: two latents of a that read one pixel would share a partner."""
    a, b = reading([0, 0, 1]), reading([0, 1, 2])
    found = match_latents(a, b, images(), measure="correlation")
    assert (found.strength.argmax(axis=1) == [0, 0, 1]).all(), "the fake's answer is no pairing"
    assert sorted(found.permutation.tolist()) == [0, 1, 2] and found.permutation[2] == 1
    assert found.sure.sum() == 2 and found.certificate["sure"] == 2


def test_latents_that_the_encoder_does_not_use_have_no_partner() -> None:
    """Their means may be a clean function of the image, a thousandth in size: the fake, which only looks at means,
    would be surest of these."""
    dead = {"gains": [1.7, 1e-3, 1e-3], "log_var": [-4.0, 0.0, 0.0]}
    a, b = reading([0, 1, 2], **dead), reading([2, 1, 0], gains=[1e-3, 1e-3, 1.7], log_var=[0.0, 0.0, -4.0])
    found = match_latents(a, b, images())
    assert found.permutation.tolist() == [2, -1, -1]
    assert found.active_a.tolist() == [True, False, False]
    assert np.isnan(found.matched[1:]).all() and found.signs.tolist() == [1.0, 0.0, 0.0]
    assert found.strength[1, 1] > 2, "their means agree all the same"


def test_models_that_know_different_things_have_no_sure_pair() -> None:
    """Catches a null that is too low: of latents of unrelated pixels, chance makes a pair sure once in twenty calls."""
    sure = [
        match_latents(reading([0, 1, 2]), reading([3, 4, 5]), images(seed=s), seed=s).certificate["sure"]
        for s in range(10)
    ]
    assert sum(sure) <= 3
    found = match_latents(reading([0, 1, 2]), reading([3, 4, 5]), images())
    assert found.certificate["margin"] < 0.1


def test_more_latents_on_one_side_and_values_carried_to_the_partner() -> None:
    a, b = reading([0, 1]), reading([1, 2, 0, 3], [-1.0, 1.0, 1.0, 1.0], [0.5, 1.7, 2.0, 1.7])
    found = match_latents(a, b, images())
    assert found.permutation.tolist() == [2, 0] and found.strength.shape == (2, 4)
    z = np.array([-1.0, 0.0, 1.2])
    np.testing.assert_allclose(found.carried(z, 0), z / 1.7 * 2.0, atol=0.05)
    np.testing.assert_allclose(found.carried(z, 1), -z / 1.7 * 0.5, atol=0.05)
    back = match_latents(b, a, images())
    assert back.permutation.tolist() == [1, -1, 0, -1]
    with pytest.raises(ValueError, match="Latent 'z1' has no partner whose values have an order"):
        back.carried(z, 1)
    assert found.pairs() == sorted(found.pairs(), key=lambda pair: -pair[2])
    assert {pair[:2] for pair in found.pairs()} == {("z0", "z2"), ("z1", "z0")}


def test_categories_are_one_latent_each_and_have_no_sign() -> None:
    from latentlab.config import BlockConfig, VAEConfig
    from latentlab.models.build import build_model

    blocks = [BlockConfig("kind", 3, "categorical"), BlockConfig("style", 2)]
    a = build_model(VAEConfig(blocks=blocks, width=8, hidden=32), (1, 32, 32), 0)
    with torch.no_grad():
        for module in a.encoder.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.weight *= 3.0
    x = np.random.default_rng(0).random((200, 1, 32, 32), dtype=np.float32)
    x *= np.linspace(0, 1, 200, dtype=np.float32)[:, None, None, None]
    found = match_latents(a, a, x)
    assert found.names_a == ("kind", "style0", "style1") and found.coordinates_a.tolist() == [0, 3, 4]
    used = np.flatnonzero(found.active_a)
    assert len(used) and (found.permutation[used] == used).all()
    assert found.signs[0] == 0.0 and (found.signs[used[used > 0]] == 1.0).all()


def test_a_seed_decides_the_null_and_nothing_is_left_behind(tmp_path) -> None:
    a, b = reading(range(3)), reading([2, 1, 0])
    before = {k: v.clone() for k, v in a.state_dict().items()}
    told: list[tuple[int, int]] = []
    state = torch.random.get_rng_state()
    first = match_latents(a, b, images(200), seed=3, progress=lambda *now: told.append(now))
    again = match_latents(a, b, images(200), seed=3, batch_size=7)
    np.testing.assert_array_equal(first.null, again.null)
    np.testing.assert_allclose(first.strength, again.strength)
    assert not np.array_equal(first.null, match_latents(a, b, images(200), seed=4).null)
    assert told[-1] == (420, 420) and told == sorted(told)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(before[k], v) for k, v in a.state_dict().items())
    kept = load_result(first.save(tmp_path / "match"))
    assert isinstance(kept, LatentMatching) and kept.names_b == first.names_b
    np.testing.assert_array_equal(kept.permutation, first.permutation)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"measure": "cosine"}, "measure must be one of mutual_information, correlation; got 'cosine'."),
        ({"images": images(10)}, "Matching latents takes at least 50 images; got 10."),
        ({"n_draws": 0}, "n_draws must be at least 1; got 0."),
        ({"model_b": "blind"}, "has no encoder"),
        ({"model_b": "other"}, r"these read \(1, 4, 4\) and \(1, 2, 2\)"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, sentence: str) -> None:
    decoder = nn.Sequential(nn.Linear(2, 16), nn.Unflatten(1, SHAPE))
    small = nn.Sequential(nn.Linear(2, 4), nn.Unflatten(1, (1, 2, 2)))
    reader = nn.Sequential(nn.Flatten(), nn.Linear(4, 4))
    others = {
        "blind": adapt_model(decoder, latents=2, image_shape=SHAPE),
        "other": adapt_model(small, latents=2, image_shape=(1, 2, 2), encoder=reader),
    }
    given = {"images": images(60), "model_b": reading([0, 1]), **change}
    given["model_b"] = (
        others.get(given["model_b"], given["model_b"])
        if isinstance(given["model_b"], str)
        else given["model_b"]
    )
    with pytest.raises(ValueError, match=sentence):
        match_latents(reading([0, 1]), given.pop("model_b"), given.pop("images"), **given)


def test_the_matching_draws_itself_with_the_pairs_along_the_diagonal() -> None:
    found = match_latents(reading(range(5)), reading(ORDER, SIGNS), images())
    picture = viz.show(found)
    assert "5 pairs along the diagonal" in picture.caption and "shuffled images by at most" in picture.caption
    assert picture.image.width > 200
