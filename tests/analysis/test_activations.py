import numpy as np
import pytest
import torch
from torch import nn

from latentlab.analysis import activations, compare_edits, feature_maps, rank_units, stages_of
from latentlab.models.edits import Edit
from latentlab.models.staged import StagedNetwork

Z = np.array([[0.5, -0.25]], dtype=np.float32)


def test_activations_are_the_states_of_a_manual_forward(gated_model, left_as_found):
    """Fails states recorded before an edit, of another stage, or in training mode."""
    left_as_found(gated_model)
    found = activations(gated_model, inputs=Z)
    h = torch.tensor(Z)
    with torch.no_grad():
        for name in gated_model.generator.names:
            h = gated_model.generator.stages[name](h)
            assert np.array_equal(found.states[name], h.numpy()), name
    assert found.addresses == ("generator.gates", "generator.maps", "generator.output")
    assert found.states["gates"][0] == pytest.approx([1.5, 0.75, 50, 1.5, 1.5, 0])


def test_activations_are_seen_after_the_edits(gated_model):
    edit = Edit("generator.gates", (0,), "set", 9.0)
    states = activations(gated_model, inputs=Z, stages=["gates", "generator.maps"], edits=[edit]).states
    assert list(states) == ["gates", "maps"] and states["gates"][0, 0] == 9.0
    assert (states["maps"][0, 0] == 9.0).all()


def test_feature_maps_hold_one_map_a_unit_and_the_image(gated_model):
    maps = feature_maps(gated_model, inputs=Z, stage="maps")
    assert maps.maps.shape == (6, 2, 2) and maps.address == "generator.maps"
    assert maps.high == pytest.approx([1.5, 0.75, 50, 1.5, 1.5, 0]) and maps.std == pytest.approx(0)
    assert maps.positive.tolist() == [1, 1, 1, 1, 1, 0] and maps.certificate["silent"] == pytest.approx(1 / 6)
    assert maps.image.shape == (1, 8, 8) and maps.image[0, 0, 0] == pytest.approx(0.35)
    flat = feature_maps(gated_model, inputs=Z, stage="gates")
    assert flat.maps.shape == (6, 1, 1)
    assert feature_maps(gated_model, inputs=Z).stage == "maps"  # the first with a spatial map
    off = feature_maps(gated_model, inputs=Z, stage="maps", edits=[Edit("generator.maps", (0,))])
    assert off.image[0, 0, 0] == pytest.approx(0.2) and off.high[0] == 0


def test_encoder_maps_show_the_image_that_was_read(gated_model):
    x = gated_model.decode(torch.tensor(Z)).detach()
    maps = feature_maps(gated_model, "encoder", x, "features")
    assert np.array_equal(maps.image, x[0].numpy()) and maps.maps.shape == (2, 1, 1)


def test_an_edit_changes_what_it_says_and_nothing_else(gated_model, left_as_found):
    left_as_found(gated_model)
    compared = compare_edits(gated_model, Z, [Edit("generator.maps", (0,))])
    rows = np.abs(compared.difference[0, 0]).max(axis=1)
    assert np.nonzero(rows)[0].tolist() == [0, 4]  # unit 0 paints the first row of both copies of its tile
    assert compared.difference.min() == pytest.approx(-0.15) and compared.difference.max() == 0
    assert compared.change[0] == pytest.approx(0.15 * 2 / 8) and compared.largest[0] == pytest.approx(0.15)
    assert compared.changed[0] == pytest.approx(2 / 8) and compared.codes_original is None
    assert compared.certificate["empty_edit_change"] == 0.0
    assert Edit.from_dict(dict(compared.edits[0])) == Edit("generator.maps", (0,))


def test_an_encoders_edit_changes_codes_and_reconstruction(gated_model):
    x = gated_model.decode(torch.tensor(Z)).detach()
    compared = compare_edits(gated_model, x, [Edit("encoder.features", (0,), "shift", 0.5)], "encoder")
    assert compared.codes_edited - compared.codes_original == pytest.approx(np.array([[0.5, 0.0]]))
    assert compared.difference.max() == pytest.approx(0.05, abs=1e-6)
    with pytest.raises(ValueError, match="no effect on network 'generator'; it needs stages of generator"):
        compare_edits(gated_model, Z, [Edit("encoder.features", (0,))])


@pytest.mark.parametrize("stage", ["gates", "maps"])
def test_the_ranking_equals_one_edit_at_a_time(gated_model, stage, left_as_found):
    """Fails a ranking by activation (the loud unit without outgoing weight would lead) and mixed-up rows."""
    left_as_found(gated_model)
    z = gated_model.latent_space.sample(9, 2)
    ranking = rank_units(gated_model, stage, inputs=z, batch_size=7)
    for unit in range(6):
        alone = compare_edits(gated_model, z, [Edit(f"generator.{stage}", (unit,))])
        assert np.allclose(ranking.per_input[unit], alone.change, atol=1e-7), unit
    assert ranking.effect[2] == ranking.effect[5] == 0.0
    assert ranking.effect[3] == pytest.approx(ranking.effect[4]) and set(ranking.order[:2]) == {3, 4}
    assert ranking.certificate["loop_difference"] <= 1e-7


def test_the_ranking_keeps_edits_in_force_and_takes_chosen_units(gated_model):
    z = gated_model.latent_space.sample(4, 0)
    edits = [Edit("generator.gates", (3,))]
    ranking = rank_units(gated_model, "maps", inputs=z, units=[4, 3, 0], edits=edits)
    assert ranking.units.tolist() == [4, 3, 0] and ranking.effect[1] == 0.0  # already off
    assert ranking.order[0] == 0


def test_an_encoders_ranking_says_which_codes_move(gated_model):
    x = gated_model.decode(gated_model.latent_space.sample(5, 1) * 0.3).detach()
    ranking = rank_units(gated_model, "features", "encoder", x)
    codes = gated_model.encode(x).mean.detach().numpy()
    assert np.allclose(ranking.code_effect, np.diag(np.abs(codes).mean(axis=0)), atol=1e-5)


def test_progress_counts_live_pairs_and_may_cancel(gated_model):
    seen = []
    rank_units(gated_model, "gates", inputs=Z, batch_size=2, progress=lambda *done: seen.append(done))
    assert seen == [(2, 5), (4, 5), (5, 5)]
    with pytest.raises(ZeroDivisionError):
        rank_units(gated_model, "gates", inputs=Z, progress=lambda *_: 1 / 0)


def test_a_network_alone_is_enough(gated_model):
    network = gated_model.generator
    assert np.array_equal(
        activations(network, inputs=Z).states["output"], activations(gated_model, inputs=Z).states["output"]
    )
    assert feature_maps(network, inputs=Z, stage="maps").image is None
    edit = Edit("generator.maps", (0,))
    assert np.array_equal(
        compare_edits(network, Z, [edit]).difference, compare_edits(gated_model, Z, [edit]).difference
    )
    assert np.allclose(
        rank_units(network, "maps", inputs=Z).effect, rank_units(gated_model, "maps", inputs=Z).effect
    )
    with pytest.raises(ValueError, match="needs inputs="):
        activations(network)
    with pytest.raises(TypeError, match="Expected a model or a staged network; got str"):
        activations("model")


def test_stages_are_described(gated_model):
    stages = stages_of(gated_model)
    assert [s.address for s in stages] == ["generator.gates", "generator.maps", "generator.output"]
    assert [s.shape for s in stages] == [(6,), (6, 2, 2), (1, 8, 8)]
    assert [s.name for s in stages_of(gated_model, "encoder")] == ["features", "posterior"]


def test_unknown_networks_stages_and_units_get_a_sentence(gated_model, two_block_model):
    with pytest.raises(
        ValueError, match="No network 'discriminator' in this model; it has generator, encoder"
    ):
        activations(gated_model, "discriminator")
    with pytest.raises(ValueError, match=r"No stage 'block9' .* it has generator\.gates, generator\.maps"):
        feature_maps(gated_model, stage="block9")
    with pytest.raises(ValueError, match="has units 0 to 5; the edit names unit 6"):
        compare_edits(gated_model, Z, [Edit("generator.maps", (6,))])
    with pytest.raises(ValueError, match=r"Stage 'generator\.maps' has units 0 to 5; got \[7\]"):
        rank_units(gated_model, "maps", units=[7])
    with pytest.raises(ValueError, match="No network 'encoder' in this model; it has generator"):
        feature_maps(two_block_model(), "encoder")


def test_a_foreign_network_is_opened_as_our_own(left_as_found):
    """Fails analyses that reach into our own networks' insides (resuming half-way, module names)."""
    from torch import nn

    from latentlab.models.adapt import adapt, adapt_model

    decoder = nn.Sequential(
        nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 16), nn.Sigmoid(), nn.Unflatten(1, (1, 4, 4))
    )
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 4))
    model = adapt_model(decoder, latents=2, image_shape=(1, 4, 4), encoder=encoder)

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(2, 2)

        def forward(self, h):
            return self.body(h), h

    pair = Pair()
    model.train()
    left_as_found(model)
    z = model.latent_space.sample(3, 0)
    ranking = rank_units(model, "1", inputs=z)
    for unit in range(6):
        alone = compare_edits(model, z, [Edit("generator.1", (unit,))])
        assert np.allclose(ranking.per_input[unit], alone.change, atol=1e-6)
    x = model.decode(z).detach()
    assert rank_units(model, "2", "encoder", x).code_effect.shape == (5, 2)
    assert feature_maps(model, "encoder", x, "1").maps.shape == (5, 1, 1)
    assert [s.name for s in stages_of(model)] == ["0", "1", "2", "3", "4"]

    network = adapt(pair, z)
    assert activations(network, inputs=z).states["body"].shape == (3, 2)
    with pytest.raises(TypeError, match="Network 'network' gives a tuple; expected one tensor to compare"):
        compare_edits(network, z, [Edit("network.body", (0,))])


def test_a_model_adapted_without_an_encoder_says_so():
    from torch import nn

    from latentlab.analysis import encode_images
    from latentlab.models.adapt import adapt_model

    decoder = nn.Sequential(nn.Linear(2, 16), nn.Sigmoid(), nn.Unflatten(1, (1, 4, 4)))
    with pytest.raises(ValueError, match="has no encoder"):
        encode_images(adapt_model(decoder, latents=2, image_shape=(1, 4, 4)), np.zeros((1, 4, 4)))


class _Tokens(nn.Module):
    """Five tokens of seven features."""

    def forward(self, z):
        return z[:, :1, None].expand(-1, 5, 7) + 1.0


def test_units_of_a_token_state_are_refused_not_guessed():
    """Fails listing tokens as units: the second axis holds features in one network, tokens in another."""
    net = StagedNetwork({"tokens": _Tokens(), "output": nn.Flatten()}, "net")
    for call in (
        lambda: rank_units(net, "tokens", inputs=np.ones((2, 3))),
        lambda: compare_edits(net, np.ones((2, 3)), [Edit("net.tokens", (4,))]),
    ):
        with pytest.raises(ValueError, match=r"gives \(5, 7\) numbers a sample.*its units can't be told"):
            call()
    assert (compare_edits(net, np.ones((2, 3)), [Edit("net.tokens")]).edited == 0).all()


def test_activations_prove_that_inputs_do_not_meet(linear_model):
    """Fails an empty certificate, and a network whose states depend on who else is in the batch."""
    z = np.random.default_rng(0).standard_normal((6, 4))
    proof = activations(linear_model, inputs=z).certificate
    assert proof["loop_difference"] < 1e-6 and proof["finite"] == 1.0

    class Mixing(nn.Module):
        def forward(self, h):
            return h - h.mean(dim=0)

    mixed = StagedNetwork({"mixing": Mixing(), "log": _Log()}, "net")
    proof = activations(mixed, inputs=np.float32([[0.0], [2.0]])).certificate
    assert proof["loop_difference"] == 1.0 and proof["finite"] == 0.75


class _Log(nn.Module):
    def forward(self, h):
        return torch.where(h < 0, torch.inf, torch.zeros_like(h))
