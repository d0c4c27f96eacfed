"""Integrated gradients of images: complete in every pixel, exact on linear generators, agreeing with captum."""

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from planted import gated, linear, renderer
from planted.model import PlantedModel
from torch import nn

from latentlab.analysis.attribution import integrated_gradients
from latentlab.analysis.results import load_result
from latentlab.analysis.ways import way_of
from latentlab.latents import Block, Categorical, Codebook, LatentSpace
from latentlab.models.adapt import adapt, adapt_model
from latentlab.models.edits import Edit
from latentlab.models.staged import StagedNetwork
from latentlab.runs import Run


def pixel_gap(images: np.ndarray, result) -> float:
    """What the truth test of the row looks at: the images' sum against the change, in the worst pixel."""
    return float(np.abs(images.sum(axis=0) - (result.end_output - result.start_output)).max())


def gradients(model, z0, z, t) -> np.ndarray:
    """dx/dz (nodes, dim, …) at places t of the path, by autograd's own Jacobian."""
    return np.stack(
        [
            torch.autograd.functional.jacobian(lambda c: model.decode(c[None])[0], z0 + s * (z - z0))
            .movedim(-1, 0)
            .numpy()
            for s in t
        ]
    )


def kinked(seed=0, dim=6) -> PlantedModel:
    """A random generator of ReLUs and a sigmoid: kinks and curves along every path."""
    torch.manual_seed(seed)
    generator = StagedNetwork(
        {
            "fc1": nn.Sequential(nn.Linear(dim, 24), nn.ReLU()),
            "maps": nn.Sequential(nn.Linear(24, 4 * 16), nn.Unflatten(1, (4, 4, 4)), nn.ReLU()),
            "output": nn.Sequential(nn.ConvTranspose2d(4, 1, 2, stride=2), nn.Sigmoid()),
        }
    )
    with torch.no_grad():
        for p in generator.parameters():
            p.mul_(2.0)
    return PlantedModel((1, 8, 8), LatentSpace([Block("z", dim)]), generator=generator)


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        return kinked()


def test_on_a_linear_generator_each_image_is_a_column_of_w_times_the_step(left_as_found):
    """Fails a missing (z - z0) factor, and a sum over nodes that is no mean."""
    planted, weight, _ = linear.linear_model(seed=2)
    left_as_found(planted)
    z, z0 = planted.sample_codes(2, 1)
    result = integrated_gradients(planted, z, z0)
    expected = (weight * (z - z0)).T.reshape(4, 1, 5, 5)
    assert np.allclose(result.images, expected, atol=1e-6)
    assert result.certificate["completeness_gap"] < 1e-6
    assert np.allclose(result.share.sum(), 1.0, atol=1e-5)


def test_every_pixel_is_complete_across_kinks_and_curves(model):
    """The row's truth: below 1e-3 of the range in the worst pixel; the halving of panels must have been needed."""
    result = integrated_gradients(model, seed=3, steps=4)
    assert pixel_gap(result.images, result) < 1e-3
    assert pixel_gap(result.images, result) == pytest.approx(result.certificate["completeness_gap"], abs=1e-6)
    assert result.certificate["nodes"] > 4
    coarse = integrated_gradients(model, seed=3, steps=4, most_steps=4)
    assert coarse.certificate["nodes"] == 4 and coarse.certificate["gap_share"] > 1e-3
    smooth = integrated_gradients(renderer.renderer_model(), seed=0)
    assert pixel_gap(smooth.images, smooth) < 1e-3


def test_images_are_those_of_a_fine_riemann_sum(model):
    """Fails images whose errors cancel in the sum: each must be right, not their total alone."""
    z0, z = torch.zeros(6), model.sample_codes(1, 3)[0]
    t = (np.arange(120) + 0.5) / 120
    fine = gradients(model, z0, z, t).mean(axis=0) * (z - z0).numpy()[:, None, None, None]
    assert np.abs(integrated_gradients(model, z, z0, tolerance=2e-4).images - fine).max() < 5e-3


def test_the_fakes_fail_the_same_check(model):
    """No (z - z0) factor; N + 1 points divided by N; pixels shuffled, which only the whole image's sum survives."""
    result = integrated_gradients(model, seed=3)
    z0, z = torch.tensor(result.start), torch.tensor(result.end)
    bare = gradients(model, z0, z, result.nodes)
    step = (z - z0).numpy()[:, None, None, None]
    without_factor = bare.mean(axis=0)
    ends = gradients(model, z0, z, np.linspace(0, 1, 33))
    one_too_many = ends.sum(axis=0) / 32 * step
    shuffled = result.images[..., ::-1]
    assert shuffled.sum() == pytest.approx((result.end_output - result.start_output).sum(), abs=1e-2)
    for fake in (without_factor, one_too_many, shuffled):
        assert pixel_gap(fake, result) > 5e-3
    assert pixel_gap(result.images, result) < 1e-3


def test_captum_agrees_on_one_number(model):
    """captum needs a scalar: the mean of a pixel, and of a region, of our images must be its attribution."""
    z = model.sample_codes(1, 4)
    result = integrated_gradients(model, z, tolerance=1e-4)
    oracle = IntegratedGradients(lambda c: model.decode(c)[:, 0, 2:6, 2:6].mean((1, 2)))
    theirs = oracle.attribute(z, torch.zeros(1, 6), n_steps=500).numpy()[0]
    assert np.allclose(result.images[:, 0, 2:6, 2:6].mean(axis=(1, 2)), theirs, atol=3e-4)


def test_undriven_latents_have_no_image_and_the_rest_is_kept():
    """F1: latent k changes the places of the units it drives, and only these."""
    planted = gated.gated_model()
    result = integrated_gradients(planted, [0.5, -0.5, 1.0, 0.3, -1.0], dims=["z0", 3])
    assert result.dims == ("z0", "z3")
    assert (np.abs(result.images[0, 0]) > 1e-6).tolist() == gated.support(0).tolist()
    assert (np.abs(result.images[1, 0]) > 1e-6).tolist() == gated.support(3).tolist()
    whole = result.images.sum(axis=0) + result.rest
    assert np.allclose(whole, result.end_output - result.start_output, atol=1e-6)
    assert np.abs(result.rest).max() > 0.01 and result.certificate["completeness_gap"] < 1e-6


def test_a_categorical_block_is_one_variable(categorical_model):
    result = integrated_gradients(categorical_model, [0.0, 1.0, 0.0, 0.5])
    assert result.dims == ("class", "z0")
    assert np.allclose(result.images[0], 0.0, atol=1e-6)  # from (0.1 + 0.2 + 0.3) / 3 to 0.2
    assert np.allclose(result.images[1], 0.05 * 0.5, atol=1e-6)


def test_an_encoders_images_add_up_to_its_codes(gated_model, left_as_found):
    """Each image belongs to one posterior mean, in prior standard deviations, and sums to its change."""
    left_as_found(gated_model)
    x = gated_model.decode(torch.tensor([[0.4, -0.3]])).detach()
    result = integrated_gradients(gated_model, x, "grey", network="encoder")
    assert result.images.shape == (2, 1, 8, 8) and result.baseline == "grey"
    assert np.allclose(result.total, result.end_output - result.start_output, atol=1e-5)
    rows = [np.flatnonzero(np.abs(image[0]).max(axis=1)).tolist() for image in result.images]
    assert rows == [[0], [1]]  # what the encoder's weights read
    alone = integrated_gradients(gated_model, x, "grey", network="encoder", dims="z1")
    assert np.array_equal(alone.images[0], result.images[1])


def test_foreign_modules_networks_alone_and_edits(left_as_found):
    torch.manual_seed(1)
    decoder = nn.Sequential(
        nn.Linear(3, 8), nn.ReLU(inplace=True), nn.Linear(8, 16), nn.Unflatten(1, (1, 4, 4))
    )
    foreign = adapt_model(decoder, latents=3, image_shape=(1, 4, 4), outputs="logits").train()
    left_as_found(foreign)
    assert integrated_gradients(foreign, seed=2).certificate["gap_share"] < 1e-3
    bare = adapt(decoder, torch.zeros(1, 3))
    result = integrated_gradients(bare, [[1.0, -1.0, 0.5]])
    assert result.dims == ("input0", "input1", "input2") and result.baseline == "zeros"
    assert result.certificate["gap_share"] < 1e-3
    off = integrated_gradients(
        foreign, seed=2, edits=[Edit("generator.0", operation="set", value=1.0)], dims=[0]
    )
    assert np.abs(off.images).max() == 0.0 and off.certificate["completeness_gap"] == 0.0


def test_same_seed_same_images_saved_and_loaded(model, tmp_path):
    first, second = (integrated_gradients(model, seed=5) for _ in range(2))
    other = integrated_gradients(model, seed=6)
    assert np.array_equal(first.images, second.images) and not np.array_equal(first.end, other.end)
    again = load_result(first.save(tmp_path / "ig"))
    assert np.array_equal(again.images, first.images) and again.certificate == first.certificate


def test_progress_may_cancel(model):
    with pytest.raises(ZeroDivisionError):
        integrated_gradients(model, progress=lambda *_: 1 / 0)


def test_errors_say_what_is_possible(model, gated_model):
    with pytest.raises(ValueError, match="Start and end of the path are the same"):
        integrated_gradients(model, np.zeros(6))
    with pytest.raises(ValueError, match=r"Valid: z0, z1, z2, z3, z4, z5"):
        integrated_gradients(model, dims="z9")
    with pytest.raises(ValueError, match="baseline must be 'mean', or numbers; got 'black'"):
        integrated_gradients(model, baseline="black")
    with pytest.raises(ValueError, match="one start and one end; got 1 and 2"):
        integrated_gradients(model, model.sample_codes(2, 0))
    with pytest.raises(ValueError, match="needs inputs=, such as an image"):
        integrated_gradients(gated_model, network="encoder")
    with pytest.raises(ValueError, match="reads no codes, so space= says nothing"):
        integrated_gradients(gated_model, np.zeros((1, 8, 8)), network="encoder", space="z")
    with pytest.raises(ValueError, match="1 <= steps <= most_steps"):
        integrated_gradients(model, steps=0)
    codebook = PlantedModel(
        (1, 1, 2),
        LatentSpace([Block("index", 2, Codebook(4))]),
        generator=StagedNetwork({"out": nn.Linear(2, 2)}),
    )
    with pytest.raises(ValueError, match="between two indices there is no path"):
        way_of(codebook, "generator", None, ())


def test_a_mean_of_categories_is_even():
    space = LatentSpace([Block("kind", 4, Categorical)])
    paint = nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (1, 2, 2)))
    planted = PlantedModel((1, 2, 2), space, generator=StagedNetwork({"out": paint}))
    assert np.allclose(integrated_gradients(planted, [0, 0, 1, 0]).start, 0.25)


class Jump(nn.Module):
    def forward(self, z):
        return ((z[:, :1] > 0.3).float() + z[:, 1:2])[:, :, None, None]


def test_a_jump_is_shown_as_a_gap_and_not_searched_for_ever():
    """No derivative sees a step; fails a certificate that is a constant, and endless halving."""
    planted = PlantedModel(
        (1, 1, 1), LatentSpace([Block("z", 2)]), generator=StagedNetwork({"out": Jump()}, "generator")
    )
    result = integrated_gradients(planted, [1.0, 0.5])
    assert result.certificate["completeness_gap"] == pytest.approx(1.0, abs=1e-6)
    assert np.allclose(result.images.ravel(), [0.0, 0.5], atol=1e-6) and result.certificate["nodes"] < 200


def test_styles_are_moved_in_their_own_space():
    """A style GAN's path is straight in the space that is named, and starts at that space's mean."""
    model = Run.open("zoo:digits-stylegan").model
    found = integrated_gradients(
        model, seed=0, space="w+", dims=["layer0_", "layer3_"], steps=64, most_steps=64
    )
    assert found.space == "w+" and found.dims == ("layer0_", "layer3_") and found.start.shape == (8 * 32,)
    assert np.allclose(found.start.reshape(8, 32), found.start[:32])
    whole = found.images.sum(axis=0) + found.rest - (found.end_output - found.start_output)
    assert np.abs(whole).max() == pytest.approx(found.certificate["completeness_gap"], rel=1e-3)
    assert 0 < found.certificate["gap_share"] < 0.1
