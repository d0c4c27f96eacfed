"""Staged networks: equal to the plain loop, resumable, editable, pure and safe among threads."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from latentlab.models.edits import Edit
from latentlab.models.staged import StagedNetwork


class _Add(nn.Module):
    def forward(self, a, b):
        return a + b


@pytest.fixture
def chain() -> StagedNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stages = {
            "fc": nn.Sequential(nn.Linear(3, 8), nn.ReLU(inplace=True), nn.Unflatten(1, (2, 2, 2))),
            "conv": nn.Sequential(nn.ConvTranspose2d(2, 4, 4, 2, 1), nn.ReLU(inplace=True)),
            "output": nn.Conv2d(4, 1, 3, padding=1),
        }
        return StagedNetwork(stages).eval().requires_grad_(False)


@pytest.fixture
def z() -> torch.Tensor:
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(1))


def by_hand(chain, z):
    states, h = {}, z
    for name in chain.names:
        h = chain.stages[name](h.clone())
        states[name] = h
    return states


def test_activations_and_output_equal_a_manual_forward_exactly(chain, z):
    expected = by_hand(chain, z)
    found = chain.activations(z)
    assert list(found) == ["fc", "conv", "output"]
    assert all(torch.equal(found[n], expected[n]) for n in chain.names)
    assert torch.equal(chain(z), expected["output"])
    assert torch.equal(chain.run(z, stop="generator.conv"), expected["conv"])
    assert torch.equal(chain.run(expected["fc"], start="fc"), expected["output"])


def test_an_edit_reaches_the_output_through_the_later_stages_only(chain, z):
    edit = Edit("generator.conv", (1, 2))
    expected = by_hand(chain, z)
    h = expected["conv"].clone()
    h[:, [1, 2]] = 0.0
    assert torch.allclose(chain.run(z, [edit]), chain.stages["output"](h))
    shown = chain.activations(z, edits=[edit])
    assert torch.equal(shown["fc"], expected["fc"])
    assert not shown["conv"][:, 1:3].any()
    # Whatever was edited before, the network itself is as it was.
    assert torch.equal(chain(z), expected["output"])


def test_edits_apply_in_order_and_only_to_their_network(chain, z):
    first, then = Edit("generator.fc", None, "set", 1.0), Edit("generator.fc", None, "scale", 3.0)
    assert (chain.activations(z, ["fc"], [first, then])["fc"] == 3.0).all()
    assert (chain.activations(z, ["fc"], [then, first])["fc"] == 1.0).all()
    assert torch.equal(chain.run(z, [Edit("encoder.conv1")]), chain(z))


def test_replacing_by_another_sample_equals_that_sample_downstream(chain, z):
    edit = Edit("generator.conv", operation="replace", source=tuple(z[3].tolist()))
    assert torch.allclose(chain.run(z, [edit]), chain(z)[3:4].expand(5, 1, 4, 4), atol=1e-6)


def test_a_graph_runs_in_topological_order_and_guards_its_skips():
    net = StagedNetwork(
        {"a": nn.Identity(), "b": nn.Hardtanh(-1, 1), "c": _Add()}, "g", inputs={"c": ("b", "input")}
    )
    h = torch.tensor([[3.0, -0.5]])
    assert torch.equal(net(h), torch.tensor([[4.0, -1.0]]))
    assert torch.equal(net.run(h, [Edit("g.b")]), h)
    with pytest.raises(ValueError, match="stage 'c' also reads 'input'"):
        net.run(h, start="b")
    with pytest.raises(ValueError, match="must all come before it"):
        StagedNetwork({"a": nn.Identity()}, inputs={"a": ("b",)})


def test_wrong_names_and_sources_are_answered_with_the_valid_ones(chain, z):
    with pytest.raises(ValueError, match=r"it has generator\.fc, generator\.conv, generator\.output"):
        chain.run(z, [Edit("generator.deconv9")])
    with pytest.raises(ValueError, match="No stage 'x'"):
        chain.activations(z, ["x"])
    with pytest.raises(ValueError, match="units 0 to 3; the edit names unit 4"):
        chain.run(z, [Edit("generator.conv", (4,))])
    with pytest.raises(ValueError, match="needs 3 numbers; got 2"):
        chain.run(z, [Edit("generator.conv", operation="replace", source=(0.0, 1.0))])
    with pytest.raises(ValueError, match="needs the whole network"):
        chain.run(z, [Edit("generator.conv", operation="replace", source=(0.0,) * 3)], start="fc")
    with pytest.raises(ValueError, match="at least one stage"):
        StagedNetwork({})


def test_threads_with_different_edits_do_not_see_each_other(chain, z):
    # The fake: ablation by a hook or in place on the one model that all sessions share.
    edits = [()] + [(Edit("generator.conv", (u,)),) for u in range(4)]
    expected = [chain.run(z, e) for e in edits]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            found = list(pool.map(lambda e: chain.run(z, e), edits * 4))
            assert all(torch.equal(f, expected[i % 5]) for i, f in enumerate(found))


def test_running_leaves_the_network_as_it_was(chain, z):
    before = {k: v.clone() for k, v in chain.state_dict().items()}
    chain.run(z, [Edit("generator.fc")])
    chain.describe(z)
    assert all(torch.equal(v, before[k]) for k, v in chain.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in chain.modules())


def test_stages_describe_themselves(chain, z):
    info = chain.describe(z)
    assert [i.address for i in info] == ["generator.fc", "generator.conv", "generator.output"]
    assert [i.shape for i in info] == [(2, 2, 2), (4, 4, 4), (1, 4, 4)]
    assert sum(i.parameters for i in info) == sum(p.numel() for p in chain.parameters())
    assert info[1].kind == "ConvTranspose2d + ReLU" and info[1].inputs == ("fc",)


def test_a_stage_name_is_one_word():
    with pytest.raises(ValueError, match=r"can't hold a dot or be empty; got 'a\.b'"):
        StagedNetwork({"a.b": nn.Identity()})


def test_a_skip_is_kept_until_its_last_reader_and_then_let_go():
    import gc
    import weakref

    seen: list[weakref.ref] = []

    class Watch(nn.Module):
        def forward(self, *states):
            gc.collect()
            seen.append(weakref.ref(states[0]))
            alive.append(sum(ref() is not None for ref in seen))
            return sum(s + 1.0 for s in states)

    alive: list[int] = []
    stages = {name: Watch() for name in "abcde"}
    net = StagedNetwork(stages, "g", inputs={"d": ("c", "a")})
    assert net(torch.zeros(1, 2))[0, 0].item() == 7.0
    # While e runs, its own input is alive; a, b and c are not, and the input is held by nobody here.
    assert alive[-1] <= 2


def in_place_chain() -> StagedNetwork:
    return StagedNetwork(
        {
            "flat": nn.Flatten(),
            "relu": nn.ReLU(inplace=True),
            "view": nn.Sequential(nn.Identity(), nn.Sequential(nn.Dropout(), nn.ReLU6(inplace=True))),
            "output": nn.Sequential(nn.Linear(3, 2), nn.ReLU(inplace=True)),
        }
    ).eval()


@torch.no_grad()
def test_an_in_place_stage_changes_no_state_but_its_own():
    """Fails handing a stage the state itself: what was shown for the stage before would be its successor's."""
    net, h = in_place_chain(), torch.tensor([[-1.0, 2.0, 9.0]])
    kept = h.clone()
    states = net.activations(h)
    assert torch.equal(h, kept) and torch.equal(states["flat"], kept)
    assert states["relu"].tolist() == [[0.0, 2.0, 9.0]] and states["view"].tolist() == [[0.0, 2.0, 6.0]]
    for start in ("flat", "relu"):
        net.run(h, start=start)
        assert torch.equal(h, kept)


@torch.no_grad()
def test_an_in_place_stage_leaves_what_a_skip_reads():
    """Fails copying only what is asked for: a later stage would read what the in-place one wrote."""
    stages = {"a": nn.Identity(), "b": nn.Hardtanh(-1, 1, inplace=True), "c": _Add()}
    net = StagedNetwork(stages, "g", inputs={"c": ("b", "a")})
    assert net(torch.tensor([[3.0, -0.5]])).tolist() == [[4.0, -1.0]]


@pytest.mark.parametrize("network", ["burgess", "locatello", "residual"])
def test_the_stock_networks_copy_nothing(network):
    """Fails a copy before every in-place layer: the stock stages have theirs behind a layer with weights."""
    from latentlab.models.networks import NETWORKS
    from latentlab.models.staged import writes_input

    for net in NETWORKS[network]((1, 64, 64), 4, 8, width=4, hidden=8):
        assert not any(writes_input(stage) for stage in net.stages.values())
    assert writes_input(nn.Sequential(nn.Flatten(), nn.ReLU(inplace=True)))


def test_an_edit_that_a_run_would_not_meet_is_refused(chain, z):
    """Fails dropping it: the images would be unedited and said to be edited."""
    state = chain.run(z, stop="fc")
    for stage in ("fc", "generator.fc"):
        with pytest.raises(
            ValueError, match=r"'generator\.fc' has no effect on a run that starts behind 'fc'"
        ):
            chain.run(state, [Edit("generator.fc")], start=stage)
    assert not chain.run(state, [Edit("generator.output")], start="fc").any()
    assert chain.run(state, [Edit("encoder.conv1")], start="fc").any()
