import numpy as np
import pytest
import torch
from planted import gated
from torch import nn

from latentlab.analysis import load_result, rank_units
from latentlab.analysis.resumption import Behind, edits_behind, is_gate, look_from, resumed
from latentlab.analysis.subject import subject_of
from latentlab.models.edits import Edit
from latentlab.models.staged import StagedNetwork


def test_running_behind_a_stage_gives_what_the_whole_network_gives(left_as_found):
    """Fails a resumption that meets an edit twice, or not at all, or that forgets the model's way to the image."""
    model = gated.gated_model()
    left_as_found(model)
    subject, z = subject_of(model, "generator"), model.latent_space.sample(5, 0)
    edits = (
        Edit("generator.gates", (1,), "shift", 0.7),
        Edit("generator.maps", (2,), "scale", 2.0),
        Edit("generator.output", None, "shift", 0.1),
    )
    with torch.no_grad():
        for stage in ("gates", "maps", "output"):
            part, later = resumed(subject, stage), edits_behind(subject.network, stage, edits)
            assert isinstance(part.network, Behind) and part.model is not model
            state = subject.state(z, stage, edits)
            found = look_from(part, z, stage, state, later)[1]
            assert torch.allclose(found, model.decode(z, edits), atol=1e-6), stage


def test_what_stands_before_the_stage_is_not_run():
    """Fails a resumption in name only."""

    class Counting(nn.Linear):
        calls = 0

        def forward(self, input):
            Counting.calls += 1
            return super().forward(input)

    network = StagedNetwork({"a": Counting(3, 4), "b": nn.Linear(4, 2)}, "net")
    ranking = rank_units(network, "a", inputs=torch.ones(2, 3), n_draws=50, batch_size=1)
    # Once for the states, once for the base, once for each of three checks through the whole network.
    assert Counting.calls == 5 and ranking.certificate["loop_difference"] < 1e-6


def test_a_skip_around_the_stage_is_not_cut():
    class Sum(nn.Module):
        def forward(self, a, b):
            return a + b

    network = StagedNetwork(
        {"a": nn.Linear(3, 3), "b": nn.Linear(3, 3), "c": Sum()}, "net", {"c": ("a", "b")}
    )
    assert not is_gate(network, "b") and is_gate(network, "a") and is_gate(network, "c")
    ranking = rank_units(network, "b", inputs=torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))
    assert ranking.certificate["loop_difference"] < 1e-6


def test_the_null_is_the_effect_of_random_directions():
    """Fails a null of constants: units that paint stand above it, the loud decoy does not."""
    model = gated.gated_model()
    z = model.latent_space.sample(16, 0)
    ranking = rank_units(model, "gates", inputs=z, n_draws=12)
    state = model.generator.activations(z, ["gates"])["gates"].detach()
    rng = np.random.default_rng(0)
    for draw in range(3):
        d = rng.standard_normal(10)
        d = torch.tensor(d / np.linalg.norm(d), dtype=torch.float32)
        off = state - (state @ d)[:, None] * d
        images = model.generator.run(off, start="gates")
        expected = (images - model.decode(z)).abs().mean().detach()
        assert ranking.null[draw] == pytest.approx(float(expected), rel=1e-4)
    assert ranking.effect[gated.LOUD] < ranking.null.min()
    assert len(rank_units(model, "gates", inputs=z, n_draws=0).null) == 0


def test_intervals_hold_the_mean_and_shrink_with_inputs(tmp_path):
    model = gated.gated_model()
    few, many = (rank_units(model, "gates", inputs=model.latent_space.sample(n, 1)) for n in (8, 128))
    for ranking in (few, many):
        assert (ranking.low <= ranking.effect + 1e-12).all() and (
            ranking.effect <= ranking.high + 1e-12
        ).all()
    painting = list(gated.PLAIN)
    width = [(r.high - r.low)[painting].mean() for r in (few, many)]
    assert 2.5 < width[0] / width[1] < 6.5  # the root of 16 is 4
    # Over repetitions the interval misses the mean of very many inputs in about 5 % of cases.
    truth = rank_units(model, "gates", inputs=model.latent_space.sample(4000, 99)).effect[painting]
    held = [
        (r.low[painting] <= truth) & (truth <= r.high[painting])
        for r in (rank_units(model, "gates", n=64, seed=s, n_draws=0) for s in range(30))
    ]
    assert 0.86 < np.mean(held) < 0.995
    one = rank_units(model, "gates", n=1)
    assert one.low is None and one.high is None
    again = load_result(few.save(tmp_path / "ranking"))
    assert np.array_equal(again.null, few.null) and again.certificate == few.certificate
    same = rank_units(model, "gates", inputs=model.latent_space.sample(8, 1))
    assert np.array_equal(same.null, few.null) and np.array_equal(same.low, few.low)
