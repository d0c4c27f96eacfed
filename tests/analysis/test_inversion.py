"""Inversion: closed-form least squares, images that the generator made itself, and a model left as it was."""

import copy

import numpy as np
import pytest
import torch

from latentlab.analysis import decode_latents, interpolate, invert, load_result, traverse
from latentlab.config import GANConfig, StyleGANConfig, VAEConfig
from latentlab.models.build import build_model


@pytest.fixture(scope="module")
def style_gan():
    config = StyleGANConfig(width=4, latents=6, styles=6, mapping_layers=2)
    model = build_model(config, (1, 28, 28)).eval().requires_grad_(False)
    for name, p in model.generator.named_parameters():
        p.mul_(2.0 if "style.weight" in name else 4.0 if "image" in name and "convolution" in name else 1.0)
    return model


def images_of(model, n=3, seed=5):
    with torch.no_grad():
        return model.sample(n, seed).numpy()


def test_a_linear_generator_gives_the_least_squares_code(linear_model, left_as_found):
    """Would catch: a descent that stops half-way, and one that does not minimise the squared error."""
    weight = linear_model.weight[:, :3].numpy()  # the fourth column is zero: its coordinate has no slope
    random = np.random.default_rng(0)
    x = decode_latents(linear_model, random.standard_normal((4, 4)))
    x += 0.02 * random.standard_normal(x.shape).astype(np.float32)
    left_as_found(linear_model)
    found = invert(linear_model, x, start=[0.0, 0.0, 0.0, 0.7], steps=600, learning_rate=0.1, tolerance=0.0)
    expected = np.linalg.lstsq(weight, (x.reshape(4, -1) - 0.5).T, rcond=None)[0].T
    assert np.allclose(found.z[:, :3], expected, atol=1e-3) and np.allclose(found.z[:, 3], 0.7)
    residual = np.square(x.reshape(4, -1) - 0.5 - expected @ weight.T).mean(axis=1)
    assert np.allclose(found.error, residual, atol=1e-6) and (found.error > 1e-4).all()
    assert np.allclose(np.square(decode_latents(linear_model, found.z) - x).mean(axis=(1, 2, 3)), found.error)


def test_closeness_is_ridge_regression(linear_model):
    """Would catch: a distance that is not in the loss, or one of another size than documented."""
    weight = linear_model.weight.numpy().astype(float)
    x = decode_latents(linear_model, [1.0, -1.0, 0.5, 0.0])
    found = invert(linear_model, x, start="mean", steps=400, tolerance=0.0, closeness=1e-4)
    # min |Wz - y|^2 / 48 + 1e-4 |z|^2 / 4
    ridge = weight.T @ weight / 48 + 1e-4 / 4 * np.eye(4)
    expected = np.linalg.solve(ridge, weight.T @ (x.reshape(-1) - 0.5) / 48)
    assert np.allclose(found.z[0], expected, atol=1e-3)
    assert np.abs(expected - [1.0, -1.0, 0.5, 0.0]).max() > 0.02  # else the ridge would prove nothing


@pytest.mark.parametrize("space", ["z", "w", "w+"])
def test_an_image_of_the_generator_is_found_again_in_every_space(style_gan, space, left_as_found):
    """Would catch: codes of one space decoded in another, and a descent that does not arrive."""
    x = images_of(style_gan, 2)
    left_as_found(style_gan)
    found = invert(style_gan, x, space, steps=80, seed=1, tolerance=0.0)
    assert found.space == space and found.z.shape == (2, style_gan.spaces[space].dim)
    assert found.error.max() < 1e-3 and found.error.mean() < found.error_start.mean() / 10
    assert np.allclose(decode_latents(style_gan, found.z, space=space), found.images, atol=1e-5)


def test_a_gan_and_a_vae_are_inverted_and_a_vae_starts_at_its_encoder(left_as_found):
    """Would catch: a start that forgets the encoder, weights that ask for gradients and are given some."""
    vae = build_model(VAEConfig(latents=3, width=4, hidden=16), (1, 28, 28))
    gan = build_model(GANConfig(latents=3, width=4), (1, 28, 28))
    for model in (vae, gan):
        model.train()  # found in training mode, with weights that ask for gradients
        with torch.no_grad():
            for p in model.generator.parameters():
                p.mul_(3.0)
            x = model.eval().sample(2, 3).numpy()
        model.train()
        left_as_found(model)
        found = invert(model, x, steps=150, learning_rate=0.1, tolerance=0.0)
        assert found.error.max() < 1e-3 and (found.error <= found.error_start).all()
        assert found.start == ("encoder" if model is vae else "best")
    model = copy.deepcopy(vae).eval()
    means = model.encode(torch.tensor(x)).code().detach()
    assert np.allclose(invert(model, x, steps=1).start_z, means, atol=1e-6)


def test_losses_are_those_of_the_codes_and_the_best_code_is_kept(linear_model):
    """Would catch: a curve that is made up, and the last code given for the best."""
    x = np.random.default_rng(1).uniform(0.3, 0.7, (2, 3, 4, 4)).astype(np.float32)
    found = invert(linear_model, x, start="best", steps=40, tolerance=0.0, learning_rate=1.5)
    assert found.losses.shape == (41, 2) and np.isfinite(found.losses).all()
    assert np.allclose(found.losses[0], found.error_start) and np.allclose(
        found.losses.min(axis=0), found.error
    )
    start = decode_latents(linear_model, found.start_z)
    assert np.allclose(np.square(start - x).mean(axis=(1, 2, 3)), found.losses[0])
    assert (np.diff(found.losses, axis=0) > 0).any()  # so large a step overshoots: the last is not the best
    gentle = invert(linear_model, x, start="mean", steps=60, tolerance=0.0)
    assert (np.diff(gentle.losses[:10], axis=0) < 0).all()


def test_the_pyramid_adds_the_errors_of_smaller_images(style_gan):
    """Would catch: a pyramid of one level, or targets that are not halved along."""
    x = images_of(style_gan, 2)
    found = invert(style_gan, x[:1], start=invert(style_gan, x[1:], steps=1).start_z, steps=1, pyramid=0.5)
    a, b = x[:1], decode_latents(style_gan, found.start_z)
    expected, weight = 0.0, 1.0
    while True:
        expected += weight * np.square(a - b).mean()
        size, weight = a.shape[-1], 0.5
        if size < 8:
            break
        a, b = (
            i[..., : size // 2 * 2, : size // 2 * 2].reshape(1, 1, size // 2, 2, size // 2, 2).mean((3, 5))
            for i in (a, b)
        )
    assert found.losses[0, 0] == pytest.approx(expected, rel=1e-4)


def test_a_descent_at_rest_stops_and_leaves_the_others_going(linear_model):
    """Would catch: a rule that never fires, one that fires for all at once, and steps counted wrongly."""
    x = decode_latents(linear_model, [[1.5, -1.0, 0.5, 0.0], [-0.5, 1.5, 1.0, 0.0]])
    start = np.array([[1.5, -1.0, 0.5, 0.0], [2.0, -2.0, -2.0, 0.0]])
    found = invert(linear_model, x, start=start, steps=500, window=10, tolerance=0.05)
    assert found.stopped[0] and found.steps[0] == 10 and found.steps[1] > 40
    assert np.isnan(found.losses[11:, 0]).all() and np.isfinite(found.losses[: found.steps[1] + 1, 1]).all()
    assert found.certificate["stopped"] == pytest.approx(found.stopped.mean())
    endless = invert(linear_model, x[1:], start=start[1:], steps=20, window=10, tolerance=0.0)
    assert not endless.stopped.any() and endless.steps.tolist() == [20]


def test_an_image_has_the_same_descent_alone_and_in_company(style_gan):
    """Would catch: a loss averaged over the batch, or an image that stops and stops the others."""
    x = images_of(style_gan)
    together = invert(style_gan, x, "w", steps=15, seed=2)
    alone = invert(style_gan, x[1], "w", steps=15, seed=2)
    assert np.allclose(together.z[1], alone.z[0], atol=1e-4)
    assert np.allclose(together.losses[:, 1], alone.losses[:, 0], rtol=1e-3)


def test_categories_stay_as_they_were_or_are_all_tried(categorical_model):
    """Would catch: a slope through a one-hot row, and a descent stuck in the category it began with."""
    x = decode_latents(categorical_model, [0.0, 0.0, 1.0, 0.4])
    start = [1.0, 0.0, 0.0, 0.0]
    kept = invert(categorical_model, x, start=start, steps=60)
    assert kept.z[0, :3].tolist() == [1.0, 0.0, 0.0]
    tried = invert(categorical_model, x, start=start, steps=60, categories="all")
    assert tried.z[0, :3].tolist() == [0.0, 0.0, 1.0] and tried.error[0] < kept.error[0]
    assert tried.losses.shape[1] == 1
    middle = invert(categorical_model, x, start="mean", steps=1)
    assert middle.start_z[0].tolist() == [1.0, 0.0, 0.0, 0.0]


def test_bounded_coordinates_stay_in_bounds(uniform_model):
    """Would catch: codes outside the support of a uniform block, which no training ever drew."""
    x = np.full((1, 2, 2), 0.9, dtype=np.float32)  # would need codes of 4
    found = invert(uniform_model, x, start="mean", steps=200, learning_rate=0.2)
    assert np.abs(found.z[0, 2:]).max() <= 1.0 and found.z[0, 2:] == pytest.approx([1.0, 1.0])
    assert np.allclose(found.z[0, :2], 4.0, atol=0.1)


def test_equal_seeds_give_equal_bits_and_results_survive_the_disk(style_gan, tmp_path):
    """Would catch: candidates from the process's generator, and a result that can't be saved."""
    x = images_of(style_gan, 1)
    a, b, c = (invert(style_gan, x, "w", steps=3, seed=s, candidates=4) for s in (0, 0, 1))
    assert np.array_equal(a.z, b.z) and not np.array_equal(a.start_z, c.start_z)
    again = load_result(a.save(tmp_path / "found"))
    assert np.array_equal(again.z, a.z) and again.space == "w" and again.provenance.parameters["space"] == "w"


def test_found_codes_carry_their_space_into_other_analyses(style_gan):
    """Would catch: a code of W traversed or interpolated in Z, whose numbers fit by chance (both have 6)."""
    found = invert(style_gan, images_of(style_gan, 1), "w", steps=2)
    strips = traverse(style_gan, found, [0], space="w", steps=3)
    assert np.array_equal(strips.start, found.z[0]) and strips.space == "w"
    wording = "has codes of space 'w', and this call works in space 'z'; pass space='w', or carry"
    with pytest.raises(ValueError, match=f"z {wording}"):
        traverse(style_gan, found)
    with pytest.raises(ValueError, match=f"zb {wording}"):
        interpolate(style_gan, np.zeros(6), found)
    with pytest.raises(ValueError, match=f"start {wording}"):
        invert(style_gan, found.targets, start=found)
    path = interpolate(style_gan, found, np.zeros(6), space="w")
    assert path.space == "w" and path.provenance.parameters["space"] == "w"


@pytest.mark.parametrize(
    ("options", "wording"),
    [
        ({"start": "encoder"}, "StyleGAN has no encoder"),
        ({"start": "nowhere"}, "start must be one of encoder, mean, best, or codes; got 'nowhere'"),
        ({"start": np.zeros((2, 6))}, "start must be one code, or 3 codes; got 2"),
        ({"steps": 0}, "steps must be a whole number of at least 1; got 0"),
        ({"learning_rate": 0.0}, r"learning_rate must lie in \(0, 100\); got 0.0"),
        ({"closeness": -1.0}, "closeness must be a number of at least 0; got -1.0"),
        ({"categories": "some"}, "categories must be one of keep, all; got 'some'"),
        ({"space": "v"}, r"No space 'v' in this model; it has z, w, w\+"),
    ],
)
def test_what_can_not_be_found_gets_a_sentence(style_gan, options, wording):
    with pytest.raises(ValueError, match=wording):
        invert(style_gan, images_of(style_gan), **options)


def test_the_images_of_the_starts_are_kept(linear_model):
    """Would catch: a picture of the start that shows the outcome."""
    found = invert(linear_model, decode_latents(linear_model, [1.0, 1.0, 1.0, 0.0]), start="mean", steps=50)
    assert np.allclose(found.start_images, 0.5, atol=1e-6) and not np.allclose(found.images, 0.5, atol=1e-2)


def test_inference_mode_is_refused_in_a_sentence(linear_model):
    """Would catch: torch's own words from deep inside a network."""
    x = decode_latents(linear_model, np.zeros(4))
    with torch.inference_mode(), pytest.raises(ValueError, match="No slope leads through weights"):
        invert(linear_model, x)
    with torch.inference_mode():
        opened_inside = copy.deepcopy(linear_model)
    with pytest.raises(ValueError, match="open the model and invert images outside"):
        invert(opened_inside, x)
