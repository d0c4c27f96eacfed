"""Activation maximisation against optima that are known in closed form."""

import copy

import numpy as np
import pytest
import torch
from planted import gated, oriented
from scipy.stats import chi
from torch import nn

from latentlab.analysis import load_result, maximise_activation
from latentlab.analysis.prior_region import PriorRegion
from latentlab.latents import Block, Categorical, Codebook, LatentSpace, Uniform
from latentlab.models.adapt import adapt_model
from latentlab.models.staged import StagedNetwork


def noise(n=400, side=28, channels=1, seed=0):
    return np.random.default_rng(seed).random((n, channels, side, side), dtype=np.float32)


def surpassed(reached, result):
    """The row's truth test: above every one of the samples, and the first percentile to prove it."""
    return bool((reached > result.sample_max).all()) and bool((result.percentile == 100).all())


def test_edges_are_found_in_grey_images_of_28_pixels_on_the_cpu():
    """Fails what takes 3 channels, 224 pixels, a photograph's normalisation or another device for granted."""
    network = oriented.oriented_encoder("max")
    found = maximise_activation(
        network, "encoder", "edges", range(6), summary="centre", reference=noise(), steps=160, n_seeds=3
    )
    assert found.images.shape == (6, 3, 1, 28, 28) and 0 <= found.images.min() and found.images.max() <= 1
    weight, bias = (p.detach() for p in network.stages["edges"][0].parameters())
    best = (
        weight.clamp_min(0).sum(dim=(1, 2, 3)) + bias
    ).numpy()  # white where the filter is positive, else black
    assert (found.reached[:, 0] <= best * 1.00001).all() and (found.reached[:, 0] > 0.85 * best).all()
    assert surpassed(found.reached[:, 0], found) and found.certificate["found_nothing"] == 0
    patches = torch.tensor(found.images[:, 0, 0, 11:18, 11:18] - 0.5).flatten(1)
    alike = torch.corrcoef(torch.cat([patches, weight.flatten(1)]))[:6, 6:]
    assert alike.argmax(dim=1).tolist() == list(range(6)) and alike.diagonal().min() > 0.6
    assert found.certificate["re_evaluated"] < 1e-4 and found.certificate["shifted"] > 0.1


def test_the_best_of_each_unit_excites_it_and_not_the_others():
    """Row 25: the matrix of unit by image is dominated by its diagonal, and seeds agree. Random images fail both."""
    network = oriented.oriented_encoder("strided")
    found = maximise_activation(network, "encoder", "lines", range(6), reference=noise(), steps=96, n_seeds=3)
    assert found.certificate["diagonal_share"] == 1.0
    assert (found.selectivity.argmax(axis=1) == np.arange(6)).all() and np.diag(
        found.selectivity
    ) == pytest.approx(1)
    assert found.certificate["agreement"] > max(0.8, found.certificate["agreement_by_chance"])
    assert (np.diff(found.reached, axis=1) <= 0).all()
    with torch.no_grad():
        means = [
            network.run(torch.tensor(x), stop="lines").mean(dim=(2, 3))
            for x in (found.images[:, 0], noise(6, seed=9))
        ]
    assert means[0].diagonal().numpy() == pytest.approx(found.reached[:, 0], rel=1e-4)
    fake = means[1].diagonal().numpy()  # six random images sold as optima
    assert not surpassed(fake, found)
    assert (means[1].T.numpy().argmax(axis=1) == np.arange(6)).mean() < 1.0


def test_smoothness_gives_a_smoother_image_that_still_surpasses_the_samples():
    network = oriented.oriented_encoder("max")
    common = {"reference": noise(), "steps": 64, "n_seeds": 2}
    plain, smooth = (
        maximise_activation(network, "encoder", "lines", [1], smoothness=s, **common) for s in (0.0, 30.0)
    )
    rough = [np.abs(np.diff(r.images[0, 0], axis=2)).mean() for r in (plain, smooth)]
    assert rough[1] < 0.8 * rough[0]
    assert surpassed(smooth.reached[:, 0], smooth)


def test_the_top_sample_sold_as_an_optimum_fails():
    """The other fake: the best of the samples is at the 100th percentile but for itself, and surpasses nothing."""
    network, x = oriented.oriented_encoder("max"), noise()
    found = maximise_activation(network, "encoder", "lines", [2], reference=x, steps=48, n_seeds=2)
    with torch.no_grad():
        each = network.run(torch.tensor(x), stop="lines")[:, 2].mean(dim=(1, 2)).numpy()
    assert found.reference[0] == pytest.approx(each, abs=1e-5)
    assert np.array_equal(found.sample_images[0], x[each.argmax()])
    assert surpassed(found.reached[:, 0], found) and not surpassed(np.array([each.max()]), found)
    assert found.percentile[0] == 100.0 * (each < found.reached[0, 0]).mean()


def test_a_decoders_unit_is_excited_at_the_shells_pole(left_as_found):
    """relu(1 + z_k / 2) is largest where all of the shell's radius lies along z_k. Fails codes that leave the prior."""
    model = gated.gated_model()
    left_as_found(model)
    found = maximise_activation(model, "generator", "gates", gated.PLAIN, steps=300, n_reference=10_000)
    radius = chi.ppf(0.99995, gated.LATENTS)
    assert found.over == "latents" and found.reached == pytest.approx(
        np.full((5, 4), 1 + radius / 2), rel=2e-3
    )
    for k in gated.PLAIN:
        assert found.codes[k, 0, k] == pytest.approx(radius, rel=2e-3)
        assert found.images[k, 0] == pytest.approx(gated_picture(found.codes[k, 0]), abs=1e-5)
    assert np.linalg.norm(found.codes, axis=2).max() <= radius * 1.0001
    assert surpassed(found.reached[:, 0], found) and found.certificate["diagonal_share"] == 1.0
    assert found.certificate["radius_percentile"][1] == pytest.approx(99.995, abs=0.001)
    everywhere = np.full(
        5, 1 + 10.0 / 2
    )  # a code ten deviations out excites more, and is no code of this model
    assert (everywhere > found.reached[:, 0]).all()


def gated_picture(z):
    z = torch.tensor(z)[None]
    return sum(gated.drawing(z, unit) for unit in range(gated.UNITS))[0].numpy()


def test_an_encoders_unit_is_excited_by_what_the_model_draws(linear_model, left_as_found):
    """a_u(E(G(z))) = z_u for this pair. Fails ascent over pixels under the name of the prior."""
    left_as_found(linear_model)
    found = maximise_activation(
        linear_model, "encoder", "posterior", [0, 1], over="prior", steps=200, n_reference=2000
    )
    radius = chi.ppf(0.99995, 4)
    assert found.reached[:, 0] == pytest.approx(radius, rel=5e-3) and surpassed(found.reached[:, 0], found)
    drawn = linear_model.decode(torch.tensor(found.codes[0])).detach().numpy()
    assert found.images[0] == pytest.approx(drawn, abs=1e-6)
    free = maximise_activation(linear_model, "encoder", "posterior", [0], steps=100, n_reference=500)
    assert free.over == "pixels" and free.codes is None and free.images.shape == (1, 4, 3, 4, 4)


def test_uniform_codes_end_in_the_corner_and_categories_are_chosen(uniform_model, categorical_model):
    """Fails clamps at other bounds, and blends of categories."""
    uniform_model = copy.deepcopy(uniform_model)
    layer = uniform_model.generator.stages["fc"][0]
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0, 0.1, -0.2]] * 4))
    found = maximise_activation(uniform_model, "generator", "fc", [0], steps=200, n_reference=500)
    assert found.codes[0, 0, 2:].tolist() == [1.0, -1.0] and found.reached[0, 0] == pytest.approx(0.8)
    found = maximise_activation(categorical_model, "generator", "output", [0], steps=100, n_reference=300)
    assert (found.codes[0, :, :3] == [0, 0, 1]).all()
    assert found.codes[0, 0, 3] == pytest.approx(chi.ppf(0.99995, 1), rel=1e-3)


class _Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("values", torch.tensor([[0.1, 0.9, 0.3, 0.2], [0.5, 0.0, 0.2, 0.7]]))

    def forward(self, z):
        return torch.stack([self.values[k][z[:, k].long()] for k in range(2)], dim=1).sum(dim=1, keepdim=True)


def test_indices_of_a_codebook_are_searched_and_stay_indices():
    """Fails a gradient taken through indices, which has none."""
    space = LatentSpace([Block("codes", 2, Codebook(4))])
    module = nn.Sequential(_Table(), nn.Unflatten(1, (1, 1, 1)))
    module.register_parameter("unused", nn.Parameter(torch.zeros(1)))
    model = adapt_model(module, latents=space, image_shape=(1, 1, 1))
    found = maximise_activation(model, "generator", "0", [0], steps=20, n_reference=4, n_seeds=2, seed=3)
    assert (found.codes == [1, 3]).all() and found.reached == pytest.approx(1.6)


def test_the_region_of_a_prior_is_its_shell_its_box_and_its_choices():
    space = LatentSpace(
        [Block("n", 20), Block("u", 1, Uniform(0, 2)), Block("a", 2, Categorical), Block("b", 3, Categorical)]
    )
    region, z = PriorRegion(space), space.sample(50, 0)
    far = region.inside(z * 9)
    assert far[:, :20].norm(dim=1).numpy() == pytest.approx(region.shell[1]) and far[:, 20].max() == 2
    near = region.inside(z * 0.01)
    assert near[:, :20].norm(dim=1).numpy() == pytest.approx(
        region.shell[0]
    )  # the middle is no place of the prior
    options = region.choices(z)
    assert options.shape == (50, 6, 26) and len({tuple(o[21:].tolist()) for o in options[0]}) == 6
    many = PriorRegion(LatentSpace([Block("a", 40, Categorical)]))
    assert many.choices(torch.eye(40)).shape == (40, 1, 40)


def test_a_unit_that_noise_does_not_reach_starts_from_the_best_sample_and_a_dead_one_is_called_so():
    """Fails ascent that stays where a rectifier's slope is 0, and a dead unit passed off as excited."""
    reader = nn.Conv2d(1, 2, 5)
    with torch.no_grad():
        reader.weight.fill_(1.0)
        reader.bias.copy_(
            torch.tensor([-24.0, -30.0])
        )  # the first needs a nearly white patch, the second can't be
    network = StagedNetwork({"read": nn.Sequential(reader, nn.ReLU())}, "encoder")
    bright = np.clip(noise(50, 12) * 0.1 + 0.93, 0, 1)
    found = maximise_activation(network, "encoder", "read", [0, 1], summary="max", reference=bright, steps=64)
    assert found.reached[0, 0] > found.sample_max[0] > 0
    assert found.reached[1].max() == 0 and found.certificate["found_nothing"] == 1


def test_colour_images_foreign_modules_and_single_units():
    """A foreign pair, three channels, 18 x 12 pixels; one seed says nothing of agreement."""
    chance = torch.Generator().manual_seed(0)
    decoder = nn.Sequential(nn.Linear(3, 648), nn.Sigmoid(), nn.Unflatten(1, (3, 18, 12)))
    encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Flatten(), nn.Linear(640, 6))
    for p in (*decoder.parameters(), *encoder.parameters()):
        p.data = 0.3 * torch.randn(p.shape, generator=chance)
    model = adapt_model(decoder, latents=3, image_shape=(3, 18, 12), encoder=encoder)
    for network, over in (("encoder", "pixels"), ("encoder", "prior"), ("generator", "latents")):
        stage = "1" if network == "encoder" else "0"
        found = maximise_activation(
            model, network, stage, [1], over=over, steps=32, n_reference=200, n_seeds=1
        )
        assert found.images.shape == (1, 1, 3, 18, 12) and surpassed(found.reached[:, 0], found)
        assert np.isnan(found.agreement).all() and "agreement" not in found.certificate


def test_it_is_repeatable_can_be_cancelled_and_kept(left_as_found, tmp_path):
    model, calls = gated.gated_model().train(), []
    left_as_found(model)
    common = {"steps": 8, "n_reference": 60, "n_seeds": 3}
    one, other = (
        maximise_activation(
            model, "generator", "maps", [0, 3], seed=5, progress=lambda *a: calls.append(a), **common
        )
        for _ in range(2)
    )
    assert np.array_equal(one.images, other.images) and one.certificate == other.certificate
    assert calls[7] == (8, 8) and len(calls) == 16
    batched = maximise_activation(model, "generator", "maps", [0, 3], seed=5, batch_size=4, **common)
    assert batched.reached == pytest.approx(one.reached, rel=1e-4)
    assert not np.array_equal(
        one.codes, maximise_activation(model, "generator", "maps", [0, 3], seed=6, **common).codes
    )
    loaded = load_result(one.save(tmp_path / "maximised"))
    assert (
        np.array_equal(loaded.reached, one.reached)
        and loaded.certificate["reached"] == one.certificate["reached"]
    )

    def cancel(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        maximise_activation(model, "generator", "maps", [0], progress=cancel, **common)


def test_errors_name_what_is_possible(linear_model):
    network, x = oriented.oriented_encoder(), noise(8)
    common = {"stage": "lines", "units": [0], "reference": x}
    for model, name, change, message in (
        (linear_model, "generator", {"stage": "output", "over": "pixels"}, "over latents; got 'pixels'"),
        (linear_model, "encoder", {"stage": "posterior", "over": "z"}, "over pixels or prior; got 'z'"),
        (linear_model, "encoder", {"stage": "posterior", "over": "prior"}, "drop reference="),
        (network, "encoder", {"reference": None}, r"alone has no prior .* pass reference="),
        (network, "encoder", {"units": [6]}, r"has units 0 to 5; got \[6\]"),
        (network, "encoder", {"reference": x[:2]}, "at least n_seeds = 4 images; got 2"),
        (network, "encoder", {"summary": "sum"}, "mean, max, centre; got 'sum'"),
        (network, "encoder", {"steps": 0}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            maximise_activation(model, name, **common | change)
