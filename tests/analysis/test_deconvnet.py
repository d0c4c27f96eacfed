"""Deconvnet against a version of it written out by transposed convolutions, and against known edges."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from planted import oriented
from torch import nn
from torch.nn import functional

from latentlab.analysis import backpropagation, deconvnet, load_result
from latentlab.models.adapt import adapt
from latentlab.models.gan_networks import dcgan
from latentlab.models.networks import pooled
from latentlab.models.staged import StagedNetwork
from latentlab.models.style_networks import residual_discriminator

RECTIFIERS = {
    "gradient": lambda p, x, a: p * torch.where(x > 0, 1.0, a),
    "deconvnet": lambda p, x, a: torch.where(p > 0, p, a * p),
    "guided": lambda p, x, a: (lambda q: torch.where(q > 0, q, a * q))(p * torch.where(x > 0, 1.0, a)),
}


def images(n=6, side=32, channels=1, seed=0):
    return np.random.default_rng(seed).random((n, channels, side, side), dtype=np.float32)


def written_out(network, stage, image, unit, rule, add_bias=False, rectify=True):
    """Zeiler and Fergus by hand: unpool to the switches, rectify, transpose the convolution. ``image`` (1, …)."""
    record, h = [], image
    for name in network.names[: network.names.index(stage) + 1]:
        module = network.stages[name]
        for layer in module if isinstance(module, nn.Sequential) else [module]:
            if isinstance(layer, nn.MaxPool2d):
                out, switches = functional.max_pool2d(
                    h, layer.kernel_size, layer.stride, layer.padding, return_indices=True
                )
            else:
                out, switches = layer(h.clone()), None
            record.append((layer, h, switches))
            h = out
    kept = torch.zeros_like(h)
    flat = h[0, unit].flatten()
    place = int(flat.argmax())
    kept[0, unit].view(-1)[place] = flat[place]
    p = kept
    for layer, x, switches in reversed(record):
        if isinstance(layer, nn.Conv2d):
            extra = tuple(
                x.shape[i]
                - ((p.shape[i] - 1) * layer.stride[0] - 2 * layer.padding[0] + layer.kernel_size[0])
                for i in (2, 3)
            )
            p = functional.conv_transpose2d(
                p, layer.weight, None, layer.stride, layer.padding, output_padding=extra
            )
            if add_bias:
                p = p + (layer.bias[: p.shape[1]].mean() if layer.bias is not None else 0.0)
        elif isinstance(layer, nn.MaxPool2d):
            spread = torch.zeros(1, x.shape[1], x.shape[2] * x.shape[3])
            for channel in range(x.shape[1]):
                for value, at in zip(p[0, channel].flatten(), switches[0, channel].flatten(), strict=True):
                    spread[0, channel, at] += value
            p = spread.view(x.shape)
        elif isinstance(layer, nn.BatchNorm2d):
            p = p * (layer.weight / (layer.running_var + layer.eps).sqrt())[:, None, None]
        elif isinstance(layer, nn.ReLU | nn.LeakyReLU):
            slope = getattr(layer, "negative_slope", 0.0)
            p = RECTIFIERS[rule](p, x, slope) if rectify else p
        elif isinstance(layer, nn.Linear):
            p = p @ layer.weight
        else:
            p = p.reshape(x.shape)
    return p


NETWORKS = {
    "max": lambda: oriented.oriented_encoder("max"),
    "overlapping": lambda: oriented.oriented_encoder("overlapping"),
    "strided": lambda: oriented.oriented_encoder("strided"),
    "leaky": lambda: oriented.oriented_encoder("overlapping", slope=0.2),
    "norm": lambda: oriented.oriented_encoder("strided", slope=0.1, norm=True),
}


@pytest.mark.parametrize("rule", backpropagation.RULES)
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("side", [32, 29])
def test_it_equals_deconvolution_written_out(kind, rule, side):
    """Fails plain gradients under another name, biases or shifts added, unpooling that overwrites, wrong sizes."""
    network = NETWORKS[kind]()
    x = images(2, side)
    with torch.no_grad():
        found = deconvnet(network, "encoder", "lines", x, units=[1, 4], rule=rule, count=2)
        for i, k in np.ndindex(2, 2):
            image = torch.tensor(x[found.indices[i, k]])[None]
            expected = written_out(network, "lines", image, int(found.units[i]), rule)[0].numpy()
            assert expected.any()
            assert np.abs(found.projections[i, k] - expected).max() < 1e-5 * np.abs(expected).max()


def test_the_rules_differ_and_say_what_slopes_they_leak_by():
    """Fails one rule sold under three names."""
    x = images(2)
    network = dcgan((1, 32, 32), 4, width=8)[1].eval()
    maps = {
        r: deconvnet(network, "discriminator", "conv3", x, rule=r, count=1) for r in backpropagation.RULES
    }
    apart = [np.abs(maps[a].projections - maps[b].projections).max() for a, b in
             (("deconvnet", "guided"), ("deconvnet", "gradient"), ("guided", "gradient"))]  # fmt: skip
    assert min(apart) > 0.1 * np.abs(maps["gradient"].projections).max()
    assert maps["guided"].slopes == (0.2, 0.2, 0.2)
    assert "largely image recovery" in maps["guided"].caveat and "Nie" in maps["deconvnet"].caveat


@pytest.mark.parametrize("kind", NETWORKS)
def test_planted_edges_come_back_with_their_angle(kind):
    """Fails an up-sampled heat map of the activation, and unsigned maps: each unit's own edge must come back."""
    shown = torch.stack([oriented.edge_image(a, shift=s) for a in oriented.ANGLES for s in (-2.0, 0.0, 2.0)])
    for stage in ("edges", "lines"):
        found = deconvnet(NETWORKS[kind](), "encoder", stage, shown, units=range(6), count=1)
        for i, angle in enumerate(oriented.ANGLES):
            seen = oriented.direction(torch.tensor(found.projections[i, 0, 0]))
            assert abs((seen - angle + 90) % 180 - 90) < 6.0, (stage, angle, seen)
            assert found.projections[i].min() < 0 < found.projections[i].max()
            assert found.indices[i, 0] // 3 == i  # and the patch it came from shows that edge
            heat = np.zeros((32, 32), dtype=np.float32)
            top, left, bottom, right = found.boxes[i, 0]
            heat[top:bottom, left:right] = found.activations[i, 0]
            flat = oriented.direction(torch.tensor(heat))
            if 20 < angle % 90 < 70:
                assert abs((flat - angle + 90) % 180 - 90) > 6.0  # the fake, a box of heat


def test_a_linear_network_gives_the_adjoint():
    """<deconv(e), v> = <e, conv(v)>: fails biases in the backward pass and wrong output padding."""
    chance = torch.Generator().manual_seed(0)
    layers = [
        nn.Conv2d(2, 5, 4, stride=3, padding=1),
        nn.BatchNorm2d(5),
        nn.Conv2d(5, 4, 3, stride=2),
        nn.AvgPool2d(2),
    ]
    for p in (*layers[0].parameters(), *layers[2].parameters()):
        p.data = torch.randn(p.shape, generator=chance)
    layers[1].running_mean = torch.rand(5, generator=chance)
    layers[1].running_var = torch.rand(5, generator=chance) + 0.5
    network = StagedNetwork({f"s{i}": layer for i, layer in enumerate(layers)}, "encoder").eval()
    x, v = images(1, 31, 2), torch.tensor(images(1, 31, 2, seed=1))
    found = deconvnet(network, "encoder", "s3", x, units=range(4), count=1)
    with torch.no_grad():
        forward = network(v) - network(torch.zeros_like(v))
    for i in range(4):
        row, column = found.positions[i, 0]
        expected = float(found.activations[i, 0]) * float(forward[0, i, row, column])
        assert float((torch.tensor(found.projections[i, 0]) * v[0]).sum()) == pytest.approx(
            expected, rel=1e-4
        )


def test_the_receptive_field_is_that_of_the_geometry_and_nothing_leaves_it():
    """Fails blurred or stretched maps. Field of the nth layer: jump and size by the usual recurrence."""
    encoder = pooled((1, 32, 32), 4, 8, width=8, hidden=16)[0].eval()
    x = images(4)
    jump, size, first = 1, 1, 0
    for stage in encoder.names[:6]:
        kernel, stride, padding = (3, 1, 1) if "conv" in stage else (2, 2, 0)
        size, first, jump = size + (kernel - 1) * jump, first - padding * jump, jump * stride
        found = deconvnet(encoder, "encoder", stage, x, units=[0, 3], count=3)
        starts = found.positions * jump + first
        box = np.concatenate([starts.clip(0), (starts + size).clip(max=32)], axis=-1)
        assert np.array_equal(found.boxes, box), stage
        assert found.certificate["outside_field"] == 0
        for i, k in np.ndindex(2, 3):
            t, left, b, r = found.boxes[i, k]
            outside = found.projections[i, k].copy()
            outside[:, t:b, left:r] = 0
            assert not outside.any()
            assert np.isin(x[found.indices[i, k]][:, t:b, left:r], found.patches[i, k]).all()
    stretched = np.ones((32, 32))  # a heat map of the whole picture does leave it
    t, left, b, r = found.boxes[0, 0]
    assert np.delete(stretched, np.s_[t:b], axis=0).any()


def test_the_projection_scales_with_the_activation_and_the_fake_of_biases_does_not():
    """csgwon/pytorch-deconvnet: no rectification, forward biases added, stretched from min to max. It must fail."""
    network = oriented.oriented_encoder("overlapping")
    x = images(3)
    found = deconvnet(network, "encoder", "lines", x, units=[2], count=1)
    assert found.certificate["homogeneity"] < 1e-5
    image = torch.tensor(x[found.indices[0, 0]])[None]
    with torch.no_grad():
        right = written_out(network, "lines", image, 2, "deconvnet")
        fake = written_out(network, "lines", image, 2, "deconvnet", add_bias=True, rectify=False)
    top, left, bottom, right_edge = found.boxes[0, 0]
    leaked = fake[0].clone()
    leaked[:, top:bottom, left:right_edge] = 0
    assert leaked.abs().max() > 1e-3  # biases are everywhere, whatever the receptive field
    assert (fake - right).abs().max() > 0.05 * right.abs().max()
    stretched = (fake - fake.min()) / (fake.max() - fake.min())
    assert stretched.min() == 0  # and the sign is gone
    assert found.projections.min() < 0


def test_overlapping_pools_add_up_and_unpooling_that_overwrites_fails():
    """The fake is MaxUnpool2d's way: the last of two signals to one switch wins."""
    chance = torch.Generator().manual_seed(1)
    first, last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
    for p in (*first.parameters(), *last.parameters()):
        p.data = torch.randn(p.shape, generator=chance)
    stages = {"first": nn.Sequential(first, nn.ReLU()), "pool": nn.MaxPool2d(3, 2), "last": last}
    network, x = StagedNetwork(stages, "encoder").eval(), torch.tensor(images(1))
    found = deconvnet(network, "encoder", "last", x, units=[0], keep="all", count=1)
    with torch.no_grad():
        maps = network.run(x, stop="first")
        pool, switches = functional.max_pool2d(maps, 3, 2, return_indices=True)
        kept = torch.zeros_like(last(pool))
        kept[:, 0] = last(pool)[:, 0]
        signal = functional.conv_transpose2d(kept, last.weight, padding=1)
        pictures = []
        for add in (torch.Tensor.scatter_add, torch.Tensor.scatter):
            spread = add(torch.zeros(1, 4, 1024), 2, switches.flatten(2), signal.flatten(2)).view_as(maps)
            pictures.append(
                functional.conv_transpose2d(spread.clamp_min(0), first.weight, padding=1)[0].numpy()
            )
    right, fake = pictures
    assert np.abs(found.projections[0, 0] - right).max() < 1e-5 * np.abs(right).max()
    assert np.abs(fake - right).max() > 0.2 * np.abs(right).max()
    assert found.certificate["switches"] == 0


@pytest.mark.parametrize("rule", ["deconvnet", "guided"])
@pytest.mark.parametrize("build", [
    lambda: dcgan((1, 32, 32), 4, width=8)[1],
    lambda: pooled((1, 32, 32), 4, 8, width=8, hidden=16)[0],
    lambda: residual_discriminator((1, 32, 32), 4),
], ids=["leaky", "pooled", "residual"])  # fmt: skip
def test_the_plain_gradient_in_place_of_the_rule_moves_the_certificate(build, rule, monkeypatch):
    """Fails a certificate that the rule has no part in: the fake rectifies by the forward sign alone."""
    network, x = build().eval(), images(4)
    stage = network.names[-3]

    def found_by(rule):
        return deconvnet(network, "discriminator", stage, x, rule=rule, n_units=3, count=2)

    honest = found_by(rule)
    assert honest.certificate["rule_difference"] < 1e-6 and honest.certificate["rule_share"] > 0.02
    gradient = found_by("gradient").certificate
    assert gradient["rule_difference"] == 0 and gradient["rule_share"] == 0
    backward = backpropagation._Rectify.backward

    def fake(ctx, signal):
        ctx.rule = "gradient"
        return backward(ctx, signal)

    monkeypatch.setattr(backpropagation._Rectify, "backward", staticmethod(fake))
    faked = found_by(rule)
    assert np.abs(faked.projections - honest.projections).max() > 0.01 * np.abs(honest.projections).max()
    assert faked.certificate["rule_difference"] > 0.05 and faked.certificate["rule_share"] == 0


@pytest.mark.parametrize("fake", ["overwritten", "shifted"])
def test_a_broken_unpooling_moves_the_certificate(fake, monkeypatch):
    """Fails a check of the switches that goes past the unpooling itself."""
    network, x = oriented.oriented_encoder("overlapping"), images(4)

    def unpool(ctx, signal):
        (switches,) = ctx.saved_tensors
        flat, size = torch.zeros(*ctx.shape[:2], ctx.shape[2] * ctx.shape[3]), ctx.shape[2] * ctx.shape[3]
        if fake == "overwritten":
            return flat.scatter(2, switches.flatten(2), signal.flatten(2)).view(ctx.shape), None, None
        moved = (switches.flatten(2) + 1) % size
        return flat.scatter_add(2, moved, signal.flatten(2)).view(ctx.shape), None, None

    assert deconvnet(network, "encoder", "lines", x, rule="gradient").certificate["switches"] < 1e-6
    assert deconvnet(network, "encoder", "lines", x, rule="guided").certificate["switches"] < 1e-6
    monkeypatch.setattr(backpropagation._Unpool, "backward", staticmethod(unpool))
    assert deconvnet(network, "encoder", "lines", x, rule="gradient").certificate["switches"] > 0.05
    with pytest.raises(ValueError, match="can't be followed"):
        deconvnet(network, "encoder", "lines", x)


def test_another_images_switches_change_the_projection_only_where_there_are_pools():
    """Fails switches that are not the image's own; a strided network has none and says nothing of them."""
    x = images(6)
    assert (
        deconvnet(oriented.oriented_encoder("max"), "encoder", "lines", x).certificate["switch_share"] > 0.1
    )
    strided = deconvnet(oriented.oriented_encoder("strided"), "encoder", "lines", x).certificate
    assert "switches" not in strided and "switch_share" not in strided
    same = np.repeat(x[:1], 3, axis=0)
    assert (
        deconvnet(oriented.oriented_encoder("max"), "encoder", "lines", same).certificate["switch_share"] == 0
    )


def test_images_are_those_with_the_largest_activation_in_order():
    network = oriented.oriented_encoder("max")
    x = images(12)
    found = deconvnet(network, "encoder", "encoder.lines", x, units=[3], count=4, batch_size=5)
    with torch.no_grad():
        peaks = network.run(torch.tensor(x), stop="lines")[:, 3].flatten(1).max(dim=1).values.numpy()
    assert found.indices[0].tolist() == np.argsort(-peaks, kind="stable")[:4].tolist()
    assert found.activations[0] == pytest.approx(np.sort(peaks)[::-1][:4])
    default = deconvnet(network, "encoder", "lines", x, n_units=2)
    with torch.no_grad():
        highest = network.run(torch.tensor(x), stop="lines").amax(dim=(0, 2, 3))
    assert default.units.tolist() == highest.argsort(descending=True)[:2].tolist()
    at = deconvnet(network, "encoder", "lines", x, units=[3], keep=(2, 5), count=1)
    assert at.positions[0, 0].tolist() == [2, 5] and at.keep == "2, 5"


@pytest.mark.parametrize("build", [
    lambda: dcgan((3, 28, 28), 4, width=8, spectral_norm=True, features=True)[1],
    lambda: residual_discriminator((1, 30, 30), 4),
], ids=["spectral", "residual"])  # fmt: skip
def test_discriminators_are_projected_whatever_their_graph(build):
    """Fails a walk over leaves that loses the path beside a block, or the division by a singular value."""
    network = build().eval()
    shape = (3, 28) if network.names[0] == "conv1" else (1, 30)
    for stage in (network.names[1], network.names[-1]):
        found = deconvnet(network, "discriminator", stage, images(3, shape[1], shape[0]), count=2)
        assert found.certificate["gradient_difference"] < 1e-5
        assert found.certificate["outside_field"] == 0 and np.abs(found.projections).max() > 0
        assert set(found.slopes) == {0.2}


def test_the_gradient_is_autograds():
    network = residual_discriminator((1, 32, 32), 4).eval()
    x = torch.tensor(images(1)).requires_grad_()
    found = deconvnet(network, "discriminator", "score", x.detach(), rule="gradient", count=1)
    score = network(x)
    (slope,) = torch.autograd.grad(score.sum(), x)
    expected = (float(score.detach()) * slope)[0].numpy()
    assert np.abs(found.projections[0, 0] - expected).max() < 1e-5 * np.abs(expected).max()


class _Functional(nn.Module):
    """A foreign module: functional rectifiers, one layer used twice, values added past it."""

    def __init__(self, last=functional.relu):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.last = last

    def forward(self, x):
        h = torch.relu(self.a(x))
        h = h + self.b(functional.relu(self.b(h)))
        return self.last(self.pool(h.relu()).mean(dim=(2, 3)))


def test_foreign_modules_with_functional_rectifiers_follow_the_rule():
    """Fails overriding nn.ReLU alone, by which functional ones stay plain gradients, and layers used twice."""
    torch_state = torch.get_rng_state()
    torch.manual_seed(0)
    module = _Functional().eval()
    torch.set_rng_state(torch_state)
    x = torch.tensor(images(3))
    network = adapt(module, x[:1], "encoder")
    found = deconvnet(network, "encoder", "pool", x, units=[1], count=1)
    image = x[found.indices[0, 0]][None]
    with torch.no_grad():
        h1 = module.a(image)
        r1 = h1.relu()
        h2 = module.b(r1)
        h3 = r1 + module.b(h2.relu())
        pool, switches = functional.max_pool2d(h3.relu(), 2, return_indices=True)
        kept = torch.zeros_like(pool)
        kept[0, 1].view(-1)[pool[0, 1].argmax()] = pool[0, 1].max()
        p = torch.zeros(1, 4, 1024).scatter_add(2, switches.flatten(2), kept.flatten(2)).view(1, 4, 32, 32)
        p = p.clamp_min(0)
        back = functional.conv_transpose2d(p, module.b.weight, padding=1).clamp_min(0)
        p = (p + functional.conv_transpose2d(back, module.b.weight, padding=1)).clamp_min(0)
        expected = functional.conv_transpose2d(p, module.a.weight, padding=1)[0].numpy()
    assert np.abs(found.projections[0, 0] - expected).max() < 1e-5 * np.abs(expected).max()
    assert found.certificate["gradient_difference"] < 1e-5


@pytest.mark.parametrize(
    ("last", "what"),
    [
        (functional.silu, "silu"),
        (functional.gelu, "gelu"),
        (lambda h: h.clamp(min=0), "clamp"),
        (lambda h: h * h, "mul"),
        (lambda h: h * (h.detach() > 0), "detach"),
    ],
)
def test_what_has_no_rule_is_refused_by_name_and_its_gradient_given(last, what):
    """Fails a projection that silently takes the gradient of what it does not know."""
    network = StagedNetwork({"conv": nn.Conv2d(1, 3, 3), "last": _Apply(last)}, "encoder").eval()
    x = images(2)
    with pytest.raises(
        ValueError, match=rf"before the end of stage 'encoder.last'.*'{what}'.*rule='gradient'"
    ):
        deconvnet(network, "encoder", "last", x)
    found = deconvnet(network, "encoder", "last", x, rule="gradient", count=1)
    assert "outside_field" not in found.certificate and found.certificate["homogeneity"] < 1e-5
    assert np.abs(found.projections).max() > 0
    assert deconvnet(network, "encoder", "conv", x).certificate["gradient_difference"] < 1e-5


class _Apply(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, h):
        return self.function(h)


class _Hidden(nn.Module):
    """Writes in place into what it was given and hands back something older: no walk can know."""

    def forward(self, h):
        kept = h.clone()
        functional.relu(kept, inplace=True)
        return kept


def test_a_network_whose_walk_differs_is_refused():
    """Fails trust in a walk that is not the network: the gradient's rule must be autograd's gradient."""
    network = StagedNetwork({"conv": nn.Conv2d(1, 3, 3), "hidden": _Hidden()}, "encoder").eval()
    with pytest.raises(
        ValueError, match=r"can't be followed: a walk with the gradient's own rule is .* away"
    ):
        deconvnet(network, "encoder", "hidden", images(2))


def test_decoders_are_told_what_to_ask_instead(gated_model):
    with pytest.raises(ValueError, match=r"reads codes: .* unit_draws, unit_isolates and pixel_reads"):
        deconvnet(gated_model, "generator", "maps", np.zeros((1, 2)))
    with pytest.raises(ValueError, match="reads codes"):
        deconvnet(gated_model.generator, "generator", "maps", np.zeros((1, 2)))


def test_errors_name_what_is_possible():
    network, x = oriented.oriented_encoder(), images(2)
    for change, message in (
        ({"rule": "lrp"}, "rule must be one of deconvnet, guided, gradient; got 'lrp'"),
        ({"units": [6]}, "Stage 'encoder.lines' has units 0 to 5; got \\[6\\]"),
        (
            {"keep": (16, 0)},
            "keep must be 'max', 'all' or \\(row, column\\) on the map of 'encoder.lines', 16 x 16",
        ),
        ({"keep": "most"}, "keep must be 'max'"),
        ({"count": 0}, "at least 1"),
        ({"seed": -1}, "seed"),
    ):
        with pytest.raises(ValueError, match=message):
            deconvnet(network, "encoder", "lines", x, **change)


def test_threads_that_share_a_network_do_not_meet():
    """Fails a rule kept in the module, in a hook or in a global."""
    network, x = dcgan((1, 32, 32), 4, width=4)[1].eval(), images(4)

    def call(rule):
        return deconvnet(network, "discriminator", "conv3", x, rule=rule, n_units=2, count=2).projections

    rules = backpropagation.RULES * 4
    alone = {rule: call(rule) for rule in backpropagation.RULES}
    with ThreadPoolExecutor(3) as pool:
        for rule, found in zip(rules, pool.map(call, rules), strict=True):
            assert np.array_equal(found, alone[rule])


def test_it_is_repeatable_leaves_nothing_behind_and_can_be_kept(left_as_found, tmp_path):
    network = oriented.oriented_encoder("overlapping", norm=True).train()
    left_as_found(network)
    x, calls = images(5), []
    one = deconvnet(network, "encoder", "lines", x, batch_size=7, progress=lambda *a: calls.append(a))
    other = deconvnet(network, "encoder", "lines", x)
    assert one.projections == pytest.approx(other.projections, abs=1e-6)
    assert calls[-1] == (30, 30) and len(calls) == 5
    again = deconvnet(network, "encoder", "lines", x)
    assert again.certificate == other.certificate and np.array_equal(again.projections, other.projections)
    alone = deconvnet(network, "encoder", "lines", x[other.indices[0, 0]][None], units=[other.units[0]])
    assert alone.projections[0, 0] == pytest.approx(other.projections[0, 0], abs=1e-6)
    loaded = load_result(one.save(tmp_path / "deconvolution"))
    assert np.array_equal(loaded.patches, one.patches, equal_nan=True) and loaded.caveat == one.caveat

    def cancel(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deconvnet(network, "encoder", "lines", x, progress=cancel)
