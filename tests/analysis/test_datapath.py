import functools
import threading
import warnings

import numpy as np
import pytest
import torch
from planted import gated
from planted.model import PlantedModel
from torch import nn

from latentlab.analysis import datapath, load_result
from latentlab.analysis.flow import directional_derivative
from latentlab.analysis.gates import hard_concrete, open_probability, quadratic_gates
from latentlab.latents import Block, LatentSpace
from latentlab.models.adapt import adapt_model
from latentlab.models.staged import StagedNetwork

MAPS = "generator.maps"


@pytest.fixture(scope="module")
def planted():
    return gated.gated_model()


def damage_of(model, z, kept, stage="maps") -> float:
    """R of keeping these units of a chain's stage, by a manual masked forward."""
    with torch.no_grad():
        h = model.generator.run(z, stop=stage)
        mask = torch.zeros(h.shape[1])
        mask[list(kept)] = 1.0
        mask = mask.reshape(-1, *[1] * (h.ndim - 2))
        whole, part, none = (model.generator.run(s, start=stage) for s in (h, h * mask, h * 0))
        return float((part - whole).square().sum() / (none - whole).square().sum())


@pytest.mark.parametrize("selection", ["differences", "taylor", "gates"])
@pytest.mark.parametrize(
    ("tolerance", "twins"), [(0.01, 2), (0.05, 1), (0.12, 0)], ids=["both twins", "one twin", "no twin"]
)
def test_the_planted_set_is_recovered_and_the_decoys_are_out(planted, selection, tolerance, twins):
    """Fails rankings that keep the loud or the cancelling units.

    The glyphs do not overlap, so damages are shares of summed squares: a twin alone costs 2 to 3 % and both four times
    that, a plain unit more; so the tolerance decides how many twins stay.
    """
    z = planted.sample_codes(32, 0)
    found = datapath(planted, z, stages="maps", tolerance=tolerance, selection=selection)
    kept = set(found.kept[MAPS].tolist())
    assert set(gated.PLAIN) <= kept and len(kept & set(gated.TWINS)) == twins
    assert kept == set(gated.PLAIN) | (kept & set(gated.TWINS))
    each = [float(gated.drawing(z, u).square().sum()) for u in range(gated.UNITS)]
    truth = (4 if twins == 0 else 2 - twins) * each[8] / (sum(each[:5]) + 4 * each[8])
    assert found.joint == pytest.approx(truth, abs=1e-6)
    assert found.certificate["within_tolerance"] and found.certificate["minimal"]


def test_activation_ranking_keeps_the_loud_decoy_and_misses(planted):
    """Fails the ranking by activation that is sold as a datapath: the same check, passed by ours, fails for it."""
    z = planted.sample_codes(32, 0)
    found = datapath(planted, z, stages="maps", tolerance=0.05, selection="differences")
    size = len(found.kept[MAPS])
    with torch.no_grad():
        strength = planted.generator.run(z, stop="maps").abs().mean((0, 2, 3))
    loudest = strength.argsort(descending=True)[:size].tolist()
    assert gated.LOUD in loudest and gated.LOUD not in found.kept[MAPS]
    assert damage_of(planted, z, loudest) == pytest.approx(found.by_activation[0], rel=1e-5)
    assert damage_of(planted, z, loudest) > 0.05 >= damage_of(planted, z, found.kept[MAPS])
    assert found.sizes_by_activation[0] > size
    assert found.by_gradient[0] > 0.05 and found.random[MAPS].min() > 0.05


def relu_decoder(seed, units=10):
    g = torch.Generator().manual_seed(seed)
    layers = [nn.Linear(4, units), nn.Linear(units, 8), nn.Linear(8, 36)]
    with torch.no_grad():
        for layer in layers:
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=g) / layer.weight.shape[1] ** 0.5)
            layer.bias.copy_(0.3 * torch.randn(layer.bias.shape, generator=g))
    stages = {
        "units": nn.Sequential(layers[0], nn.ReLU()),
        "mix": nn.Sequential(layers[1], nn.ReLU()),
        "output": nn.Sequential(layers[2], nn.Sigmoid(), nn.Unflatten(1, (1, 6, 6))),
    }
    return PlantedModel((1, 6, 6), LatentSpace([Block("z", 4)]), generator=StagedNetwork(stages, "generator"))


@functools.cache
def every_subset(seed, units):
    """Sizes and true R of all sets of units of a small decoder, by masked runs of its own layers."""
    model = relu_decoder(seed, units)
    z = model.sample_codes(12, 1)
    with torch.no_grad():
        h = model.generator.run(z, stop="units")
        masks = (torch.arange(2**units)[:, None] >> torch.arange(units) & 1).float()
        whole, none = (model.generator.run(s, start="units").flatten() for s in (h, 0 * h))
        parts = [
            model.generator.run((h * part[:, None]).flatten(0, 1), start="units").reshape(len(part), -1)
            for part in masks.split(1024)
        ]
        damage = (torch.cat(parts) - whole).square().sum(1) / (none - whole).square().sum()
    return masks.sum(1).numpy(), damage.numpy()


CASES = [
    *((seed, 10 + seed % 2, tolerance, "differences") for seed in range(3) for tolerance in (0.02, 0.1, 0.3)),
    *(
        (seed, units, tolerance, selection)
        for seed, units, tolerance in ((0, 14, 0.3), (2, 12, 0.3), (1, 12, 0.05), (5, 14, 0.3))
        for selection in ("differences", "taylor", "gates", "both")
    ),
]


@pytest.mark.parametrize(("seed", "units", "tolerance", "selection"), CASES)
def test_the_size_is_within_one_of_the_best_of_all_subsets(seed, units, tolerance, selection):
    """Fails sets that are merely 1-minimal from a bad start, and an estimate reported as the true distance.

    In the cases of 12 and 14 units the gates' own order, pruned one unit at a time, keeps 2 to 4 units too many.
    """
    sizes, damage = every_subset(seed, units)
    model = relu_decoder(seed, units)
    z = model.sample_codes(12, 1)
    found = datapath(model, z, stages="units", tolerance=tolerance, selection=selection, n_draws=2)
    kept = found.kept["generator.units"]
    assert len(kept) <= sizes[damage <= tolerance].min() + 1
    truth = {unit: damage[sum(1 << u for u in kept if u != unit)] for unit in (*kept, None)}
    assert truth.pop(None) == pytest.approx(found.joint, rel=1e-4, abs=1e-7)
    for unit, broken in zip(kept, found.breaks["generator.units"], strict=True):
        assert truth[unit] == pytest.approx(broken, rel=1e-4) and truth[unit] > tolerance


def damage_of_both(model, z, lower, upper):
    """R of the output with the masks of two stages, by a manual masked forward."""
    with torch.no_grad():
        first = model.generator.run(z, stop="units")
        off = np.setdiff1d(np.arange(first.shape[1]), lower)
        second = model.generator.stages["mix"](first.index_fill(1, torch.as_tensor(off), 0.0))
        off = np.setdiff1d(np.arange(second.shape[1]), upper)
        part = model.generator.stages["output"](second.index_fill(1, torch.as_tensor(off), 0.0))
        whole, none = model.generator.run(z), model.generator.stages["output"](0 * second)
    return float((part - whole).square().sum() / (none - whole).square().sum())


@pytest.mark.parametrize("seed", range(4))
def test_no_unit_of_any_of_several_stages_can_go(seed):
    """Fails sets that are minimal against a tightened limit of each stage: all masks together leave room."""
    model = relu_decoder(seed, 14)
    z = model.sample_codes(24, 0)
    found = datapath(model, z, stages=["units", "mix"], tolerance=0.1, selection="differences", n_draws=2)

    def without(sets):
        return {
            (stage, unit): damage_of_both(
                model,
                z,
                *(np.array([u for u in s if (i, u) != (stage, unit)], int) for i, s in enumerate(sets)),
            )
            for stage, units in enumerate(sets)
            for unit in units.tolist()
        }

    kept = list(found.kept.values())
    damage = without(kept)
    assert damage_of_both(model, z, *kept) == pytest.approx(found.joint, rel=1e-4) and found.joint <= 0.1
    assert list(damage.values()) == pytest.approx(np.concatenate(list(found.breaks.values())), rel=1e-3)
    assert min(damage.values()) > 0.1 and found.certificate["minimal"]
    assert found.certificate["smallest_break"] == pytest.approx(min(damage.values()), rel=1e-3)
    # The fake: what each stage kept for itself, certified against the limit it was searched with.
    fake = [found.sets[f"{stage}: differences"] for stage in found.stages]
    assert min(without(fake).values()) <= 0.1


class _Saturating(nn.Module):
    """Of three equal units any one is enough: the derivative at all three says that none is needed."""

    def forward(self, h):
        return h.sum(1).clamp(max=1.0)[:, None, None, None].expand(-1, 1, 2, 2)


def test_a_taylor_estimate_is_no_certificate():
    """Fails the fake that reports the quadratic model's damage (0 for dropping all) in place of the masked run's."""
    units = nn.Linear(1, 3)
    with torch.no_grad():
        units.weight.zero_()
        units.bias.fill_(1.0)
    net = StagedNetwork({"units": units, "output": _Saturating()}, "generator")
    model = PlantedModel((1, 2, 2), LatentSpace([Block("z", 1)]), generator=net)
    found = datapath(model, stages="units", selection="taylor", n=4)
    assert len(found.kept["generator.units"]) == 1 and found.joint == 0.0
    # What the fake would certify: with no unit at all the model predicts no damage, and the truth is all of it.
    assert quadratic_gates(np.zeros((3, 3)), 0.05)[0].sum() == 0
    assert damage_of(model, model.sample_codes(4, 0), [], "units") == 1.0


def test_a_scalar_target_drops_everything_and_is_refused():
    """Fails the programme on one number: contributions +5, -5, +4, -4 cancel, real units included."""
    scalar = np.array([5.0, -5.0, 4.0, -4.0])
    gates, predicted = quadratic_gates(np.outer(scalar, scalar), 0.05 * 82)
    assert gates.sum() == pytest.approx(0) and predicted == pytest.approx(0)
    images = quadratic_gates(np.diag(scalar**2), 0.05 * 82)[0]
    assert images.min() > 0.5

    score = StagedNetwork(
        {"units": nn.Sequential(nn.Flatten(), nn.Linear(16, 6)), "score": nn.Linear(6, 1)}, "discriminator"
    )
    model = PlantedModel(
        (1, 4, 4),
        LatentSpace([Block("z", 2)]),
        generator=StagedNetwork({"o": nn.Identity()}),
        discriminator=score,
    )
    x = np.random.default_rng(0).random((40, 1, 4, 4))
    with pytest.raises(
        ValueError, match=r"1 numbers for each of 2 examples can't tell 6 active units.*at least 6"
    ):
        datapath(model, x[:2], "discriminator")
    found = datapath(model, x, "discriminator", selection="differences", baseline="mean")
    assert found.target == "the raw output" and found.certificate["within_tolerance"]


def test_the_programme_keeps_its_budget_and_beats_no_gate_at_random():
    rng = np.random.default_rng(1)
    factor = rng.standard_normal((12, 30))
    q = factor @ factor.T
    budget = 0.1 * q.sum()
    gates, predicted = quadratic_gates(q, budget)
    assert predicted == pytest.approx((1 - gates) @ q @ (1 - gates))
    assert 0.97 * budget < predicted <= budget * (1 + 1e-9)
    for _ in range(200):
        delta = rng.random(12)
        delta *= min(1.0, np.sqrt(budget / (delta @ q @ delta)))
        assert delta.sum() <= (1 - gates).sum() + 1e-4


def test_hard_concrete_gates_are_those_of_captum():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        from captum.module import BinaryConcreteStochasticGates

    log_alpha = torch.linspace(-4, 4, 9)
    with torch.random.fork_rng(devices=[]):
        oracle = BinaryConcreteStochasticGates._from_pretrained(log_alpha)
    assert torch.allclose(hard_concrete(log_alpha), oracle.get_gate_values())
    assert torch.allclose(open_probability(log_alpha), oracle.get_gate_active_probs())


def test_several_stages_are_judged_together_and_edges_add_up(planted):
    """Fails a recursion whose stages are each within the tolerance and the whole is not."""
    found = datapath(planted, stages=["maps", "gates"], tolerance=0.05, selection="differences", n=16)
    assert found.stages == ("generator.gates", MAPS) and found.joint <= 0.05
    assert set(found.kept["generator.gates"].tolist()) == set(found.kept[MAPS].tolist())
    edges = found.edges[f"generator.gates > {MAPS}"]
    assert (edges[:, 0] == edges[:, 1]).all() and edges[:, 2] == pytest.approx(1.0)
    assert found.carried == pytest.approx((1.0,))

    model = relu_decoder(3)
    deep = datapath(model, stages=["units", "mix"], tolerance=0.1, selection="differences", n=24)
    truth = damage_of_both(model, model.sample_codes(24, 0), *deep.kept.values())
    assert deep.joint == pytest.approx(truth, rel=1e-4) and deep.joint <= 0.1


def test_derivatives_are_exact_and_hold_in_threads():
    """Fails torch.func.jvp here: its levels are counted for the process, so threads end one another's."""
    net = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).eval()
    x, v = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), torch.ones(4, 5)
    with torch.no_grad():
        inner = v @ net[0].weight.T * (1 - net[0](x).tanh().square())
        truth = inner @ net[2].weight.T
    off = []

    def work():
        off.extend(float((directional_derivative(net, x, v) - truth).abs().max()) for _ in range(30))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(off) == 90 and max(off) < 1e-5
    assert directional_derivative(lambda m: torch.ones(4, 2) + 0 * m[:, :2].detach(), x, v).abs().max() == 0


def test_a_unit_that_never_leaves_the_baseline_is_barred(gated_model):
    """Fails gates that revive dead units: unit 5 is silent, 2 constant, which its mean replaces for nothing."""
    z = gated_model.sample_codes(24, 0)
    found = datapath(gated_model, z, stages="maps", tolerance=0.02, n=8)
    assert found.silent == (1,) and found.gates[MAPS][5] == 0 and set(found.kept[MAPS]) == {0, 1}
    assert set(found.sets) == {f"{MAPS}: differences", f"{MAPS}: gates"}
    mean = datapath(gated_model, z, stages="maps", tolerance=0.02, baseline="mean", selection="differences")
    assert mean.silent == (2,) and mean.baseline == "mean"
    same = datapath(gated_model, z, stages="maps", tolerance=0.02, baseline=np.zeros(6))
    assert np.array_equal(same.kept[MAPS], found.kept[MAPS]) and same.baseline == "given"


def test_an_encoder_keeps_its_posterior(gated_model):
    x = gated_model.decode(gated_model.sample_codes(24, 0)).detach().clamp(0, 1)
    found = datapath(gated_model, x, "encoder", stages="features", tolerance=0.01)
    assert sorted(found.kept["encoder.features"].tolist()) == [0, 1]
    assert found.target.startswith("posterior means") and found.outputs.shape == (8, 1, 8, 8)


def test_a_foreign_module_a_batch_of_one_and_nothing_left_behind(left_as_found):
    torch_seed = torch.Generator().manual_seed(0)
    decoder = nn.Sequential(
        nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 16), nn.Sigmoid(), nn.Unflatten(1, (1, 4, 4))
    )
    with torch.no_grad():
        for p in decoder.parameters():
            p.copy_(torch.randn(p.shape, generator=torch_seed))
    model = adapt_model(decoder, latents=2, image_shape=(1, 4, 4))
    model.train()
    left_as_found(model)
    found = datapath(model, n=8, seed=3)
    again = datapath(model, n=8, seed=3)
    assert found.stages == ("generator.1",) and found.certificate["minimal"]
    assert all(np.array_equal(a, again.arrays()[k]) for k, a in found.arrays().items())
    one = datapath(model, np.array([0.5, -1.0]), selection="taylor")
    assert one.joint <= 0.05 and one.outputs.shape == (1, 1, 4, 4)


def test_it_survives_the_disk_and_reports_progress(planted, tmp_path):
    calls = []
    found = datapath(planted, stages=["gates", "maps"], n=8, progress=lambda *a: calls.append(a))
    done = [c[0] for c in calls]
    assert done == sorted(done) and calls[-1][0] == calls[-1][1]
    back = load_result(found.save(tmp_path / "path"))
    assert back.certificate == found.certificate and set(back.arrays()) == set(found.arrays())
    with pytest.raises(ZeroDivisionError):
        datapath(planted, stages="maps", progress=lambda *_: 1 / 0)


def test_what_can_not_be_done_gets_a_sentence(planted):
    for words, options in {
        "tolerance is a relative damage above 0": {"tolerance": 1.0},
        "selection is one of differences, taylor, gates, both; got 'top'": {"selection": "top"},
        "baseline is 'zero', 'mean' or numbers; got 'blur'": {"baseline": "blur"},
        r"must be finite numbers \(10,\) or \(10, 8, 8\); got shape \(3,\)": {"baseline": np.zeros(3)},
        "No stage 'block9'": {"stages": "block9"},
        "stages must name at least one stage": {"stages": []},
        "share is a share": {"share": 2.0},
    }.items():
        with pytest.raises(ValueError, match=words):
            datapath(planted, **{"stages": "maps", **options})
    dead = PlantedModel(
        (1, 1, 1),
        LatentSpace([Block("z", 2)]),
        generator=StagedNetwork({"units": nn.Linear(2, 3), "output": _Nothing()}, "generator"),
    )
    with pytest.raises(ValueError, match=r"all units of 'generator\.units' to the baseline changes nothing"):
        datapath(dead, stages="units")


class _Nothing(nn.Module):
    def forward(self, h):
        return torch.zeros(len(h), 1, 1, 1)
