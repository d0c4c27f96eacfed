"""SeFa, GANSpace, images along what they find, and what that changes."""

import numpy as np
import pytest
import torch
from planted import gated, linear, renderer
from planted.model import PlantedModel
from torch import nn

from latentlab.analysis import Direction, direction_effects, ganspace, load_result, sefa, traverse_direction
from latentlab.analysis.inference import draw_codes
from latentlab.latents import Block, LatentSpace
from latentlab.models.adapt import adapt_model
from latentlab.models.staged import StagedNetwork
from latentlab.models.style_gan import StyleGAN
from latentlab.models.style_networks import Mapping, StyledGenerator, residual_discriminator


@pytest.fixture(scope="module")
def style_gan():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape = (1, 16, 16)
        model = StyleGAN(
            shape,
            LatentSpace([Block("z", 6)]),
            Mapping(6, 6, 2),
            StyledGenerator(shape, 6, 4),
            residual_discriminator(shape, 4),
        )
    return model.eval()


def angles(found, truth):
    """Principal angle of each pair of rows, radians."""
    cosines = np.abs((np.asarray(found, dtype=float) * truth).sum(axis=1))
    return np.arccos(np.clip(cosines, 0, 1))


def aligned(found, truth, tolerance=1e-3):
    return bool((angles(found, truth) < tolerance).all())


def test_sefa_finds_the_right_singular_vectors_the_largest_first(left_as_found):
    """Fails eigenvectors in the order of a general solver, as the reference code leaves them."""
    disordered, planted = 0, [linear.linear_model(seed=seed) for seed in range(6)]
    for model, weight, _ in planted:
        left_as_found(model)
        _, values, truth = np.linalg.svd(weight.double().numpy(), full_matrices=False)
        result = sefa(model)
        assert aligned(result.vectors, truth)
        assert result.scores == pytest.approx(values, rel=1e-4)
        assert result.certificate["affine_gap"] < 1e-5 and result.certificate["gain_gap"] < 1e-9
        first = model.generator.stages["hidden"].weight.detach().double().numpy()
        fake = np.linalg.eig(first.T @ first)[1].T
        disordered += not aligned(fake, truth, 0.1)
    assert disordered


def test_sefa_reads_transposed_convolutions_with_their_normalisation_folded_in():
    """Fails the weight alone where a batch normalisation follows, and rows flattened in a wrong order."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        up, norm = nn.ConvTranspose2d(4, 3, 2, bias=False), nn.BatchNorm2d(3)
        norm.running_var.copy_(torch.tensor([0.01, 1.0, 4.0]))
        nn.init.uniform_(norm.weight, 0.5, 3.0)
        last = nn.ConvTranspose2d(3, 1, 2, 2)
        nn.init.uniform_(last.weight, -0.1, 0.1)
        nn.init.constant_(
            last.bias, 0.5
        )  # in the middle of the range, so that images vary whatever the weights
    decoder = nn.Sequential(nn.Unflatten(1, (4, 1, 1)), up, norm, nn.ReLU(inplace=True), last)
    model = adapt_model(decoder, latents=4, image_shape=(1, 4, 4))
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().double()
    folded = up.weight.detach().double() * scale[None, :, None, None]
    truth = np.linalg.svd(folded.reshape(4, -1).T.numpy(), full_matrices=False)
    result = sefa(model, 3)
    assert aligned(result.vectors, truth[2][:3]) and result.scores == pytest.approx(truth[1][:3], rel=1e-5)
    assert aligned(ganspace(model, "1", n=2, draws=60).vectors, ganspace(model, "1", n=2, draws=60).vectors)
    assert direction_effects(model, result, n=4, n_draws=2).certificate["zero_step_change"] < 1e-6
    bare = np.linalg.svd(up.weight.detach().reshape(4, -1).T.numpy(), full_matrices=False)[2]
    assert not aligned(bare[:3], truth[2][:3])
    rows = folded.reshape(4, -1).T.numpy()
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert sefa(model, normalise=True).scores == pytest.approx(np.linalg.svd(unit)[1], rel=1e-5)


def test_sefa_in_w_takes_the_styles_of_the_chosen_layers(style_gan):
    generator = style_gan.generator

    def truth(layers):
        rows = [
            m.style.weight.detach().double() * m.style.scale
            for m in generator.stages.values()
            if hasattr(m, "style") and m.where.start // 6 in layers
        ]
        return np.linalg.svd(torch.cat(rows).numpy(), full_matrices=False)

    for layers in (None, (1, 2)):
        found, (_, values, vectors) = (
            sefa(style_gan, 3, layers=layers),
            truth(layers or range(generator.layers)),
        )
        assert found.space == "w" and found.layers == layers
        assert aligned(found.vectors, vectors[:3]) and found.scores == pytest.approx(values[:3], rel=1e-4)
    w = style_gan.map(style_gan.sample_codes(4096, 0), "z", "w").detach().numpy()
    assert found.steps == pytest.approx((w @ found.vectors.T).std(axis=0), rel=1e-4)
    with pytest.raises(ValueError, match="by a step that bends"):
        sefa(style_gan, space="z")
    with pytest.raises(ValueError, match=r"W\+ has layers 0 to"):
        sefa(style_gan, layers=[99])
    with pytest.raises(ValueError, match="restricts directions of 'w'"):
        sefa(style_gan, layers=[0], space="z")


def test_sefa_leaves_categories_alone_and_says_where_it_can_not(categorical_model):
    assert sefa(categorical_model).vectors.tolist() == [[0, 0, 0, 1]]
    with pytest.raises(ValueError, match="No affine map reads the codes of space 'z'"):
        sefa(renderer.renderer_model())
    with pytest.raises(ValueError, match="n must be a whole number from 1 to 4; got 9"):
        sefa(linear.linear_model()[0], 9)


def sample_principal_directions(model, weight, draws, seed):
    """Closed form: z regressed on the principal components of W z of these very draws."""
    z = draw_codes(model, draws, seed).double().numpy()
    weight = weight.double().numpy()
    x = (z - z.mean(0)) @ weight.T
    components = np.linalg.eigh(np.cov(x.T))[1][:, ::-1][:, : weight.shape[1]].T
    found = components @ np.linalg.pinv(weight).T
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_ganspace_is_the_principal_components_of_what_the_generator_does(left_as_found):
    """Fails PCA of z itself, whose components are chance: flat, and others with every seed."""
    model, weight, _ = linear.linear_model(seed=2)
    left_as_found(model)
    truth = np.linalg.svd(weight.double().numpy(), full_matrices=False)[2]
    seen = []
    for seed in (0, 1):
        result = ganspace(model, "output", n=4, seed=seed)
        assert aligned(result.vectors, sample_principal_directions(model, weight, 2000, seed))
        assert aligned(result.vectors, truth, 0.15)
        assert result.certificate["eigen_gap"] < 1e-4 and result.certificate["code_r2"][-1] > 0.999
        assert result.scores[0] > 4 * result.scores[-1] and result.certificate["least_stability"] > 0.95
        seen.append(result.vectors)
        z = draw_codes(model, 2000, seed).double().numpy()
        values, fake = np.linalg.eigh(np.cov(z.T))
        assert values[-1] < 1.3 * values[0]
        assert not aligned(fake.T[::-1], truth, 0.15)
    assert aligned(seen[0], seen[1], 0.2)
    with pytest.raises(ValueError, match=r"components are chance; name a stage, one of generator\.hidden"):
        ganspace(model)


def test_ganspace_in_w_and_of_a_stage_itself(style_gan):
    w = style_gan.map(draw_codes(style_gan, 500, 3), "z", "w").detach().double().numpy()
    truth = np.linalg.eigh(np.cov(w.T))[1][:, ::-1].T
    found = ganspace(style_gan, n=3, draws=500, seed=3, layers=range(2))
    assert found.space == "w" and found.directions[0].layers == (0, 1) and aligned(found.vectors, truth[:3])
    shift = ganspace(style_gan, "conv2", n=2, draws=300, move="stage")
    assert shift.stage == "generator.conv2" and shift.space is None
    assert shift.directions[0].edits(1.0)[0].operation == "shift"
    again = ganspace(style_gan, "conv2", n=2, draws=300, move="stage")
    assert np.array_equal(shift.vectors, again.vectors)


def test_ganspace_says_what_is_wrong(style_gan, gated_model):
    seen = []
    ganspace(style_gan, "conv2", n=2, draws=20, batch_size=8, progress=lambda *done: seen.append(done))
    assert seen == [(8, 20), (16, 20), (20, 20)]
    with pytest.raises(ZeroDivisionError):
        ganspace(style_gan, "conv2", n=2, draws=20, progress=lambda *_: 1 / 0)
    with pytest.raises(ValueError, match="needs a network that reads codes, one of generator, mapping"):
        ganspace(style_gan, "stem", network="discriminator")
    with pytest.raises(ValueError, match="move must be 'codes' or 'stage'"):
        ganspace(gated_model, "gates", move="up")
    with pytest.raises(ValueError, match="There are 2 directions to find there at most; got n=5"):
        ganspace(gated_model, "gates", n=5, draws=50)
    with pytest.raises(ValueError, match="No stage 'block9'"):
        ganspace(gated_model, "block9", n=1)


def test_a_traversal_goes_where_the_direction_says(left_as_found, style_gan, tmp_path):
    """Fails steps of unit length, and a stage's direction that moves the code."""
    model, weight, bias = linear.linear_model(seed=1)
    units = gated.gated_model()
    for each in (model, units, style_gan):
        left_as_found(each)
    z, found = model.sample_codes(1, 5), sefa(model, 2)
    strip = traverse_direction(model, found, z, [-1.0, 0.0, 2.0])
    assert strip.dims == ("sefa0", "sefa1") and strip.certificate["off_axis"] < 1e-6
    there = z + 2 * torch.tensor(found.directions[1].displacement)[None].float()
    assert strip.images[1, 2].ravel() == pytest.approx((there @ weight.T + bias)[0].numpy(), abs=1e-5)
    assert strip.images[0, 1] == pytest.approx(strip.start_image, abs=1e-6)

    glow = Direction("unit 3", tuple(np.eye(10)[3]), stage="generator.gates", step=2.0)
    strip = traverse_direction(units, glow, np.zeros(5), [0.0, 1.0])
    change = (strip.images[0, 1] - strip.images[0, 0])[0]
    row, column = (2 * p for p in gated.PLACES[3])
    expected = np.zeros((16, 16))
    expected[row : row + 2, column : column + 2] = 2.0 * gated.SCALE * gated.GLYPHS[3].numpy()
    assert change == pytest.approx(expected, abs=1e-6) and np.isnan(strip.z).all()
    with torch.no_grad():
        edited = units.decode(torch.zeros(1, 5), glow.edits(1.0))
    assert strip.images[0, 1] == pytest.approx(edited[0].numpy(), abs=1e-6)

    # From Z the codes are carried on to W, or to W+ where single layers move.
    code = style_gan.sample_codes(1, 0)
    w = style_gan.map(code, "z", "w")
    for layers in (None, (0, 3)):
        direction = Direction("d", tuple(np.eye(6)[2]), space="w", layers=layers)
        moved = style_gan.map(w, "w", "w+").detach().unflatten(1, (-1, 6)).clone()
        moved[:, list(layers or range(moved.shape[1])), 2] += 1.0
        with torch.no_grad():
            image = style_gan.decode(moved.flatten(1), space="w+")[0].numpy()
        assert traverse_direction(style_gan, direction, code, [1.0]).images[0, 0] == pytest.approx(
            image, abs=1e-5
        )
    assert load_result(strip.save(tmp_path / "strip")).dims == ("unit 3",)


def test_a_direction_of_other_weights_is_refused():
    one, other = (linear.linear_model(seed=s)[0] for s in (0, 1))
    with pytest.raises(
        ValueError, match=r"was found in model .{8}, and this is model .{8}; dataclasses.replace"
    ):
        traverse_direction(other, sefa(one))
    with pytest.raises(ValueError, match="No space 'w' in this model"):
        traverse_direction(one, Direction("a", (1.0, 0, 0, 0), space="w"))
    with pytest.raises(ValueError, match="Two directions are called 'a'"):
        traverse_direction(one, [Direction("a", (1.0, 0, 0, 0), space="z")] * 2)
    with pytest.raises(ValueError, match="No direction 'smile'; there are sefa0"):
        sefa(one, 2).direction("smile")


def axes(model, step=0.3):
    space = model.latent_space
    return [
        Direction(n, tuple(np.eye(space.dim)[i]), space="z", step=step) for i, n in enumerate(space.names)
    ]


def test_effects_find_the_factor_behind_each_axis(left_as_found):
    """Fails a matrix whose rows are mixed up, and one without a null: a random direction moves every meter a bit."""
    model = renderer.renderer_model()
    left_as_found(model)
    found = direction_effects(model, axes(model), ["x", "y", "spread"], n=48, seed=1)
    x, y, scale = (found.direction_names.index(n) for n in ("z3", "z4", "z1"))
    z = model.sample_codes(48, 1)
    per_step = 0.3 * 9 / 2 / 32  # a step of z, in shares of the image's width
    assert found.effect[x, 0] == pytest.approx(per_step / found.spread[0], rel=0.03)
    assert found.effect[y, 1] == pytest.approx(per_step / found.spread[1], rel=0.03)
    assert found.significant[[x, y, scale], [0, 1, 2]].all() and not found.significant[2].any()
    assert np.abs(found.effect[x, 1:]).max() < 0.02 and np.abs(found.effect[y, [0, 2]]).max() < 0.02
    assert found.certificate["zero_step_change"] == 0.0 and found.certificate["loop_difference"] < 1e-5
    assert (found.low <= found.effect).all() and (found.effect <= found.high).all()
    again = direction_effects(model, axes(model), ["x", "y", "spread"], codes=z, seed=1)
    assert np.allclose(again.effect, found.effect, atol=1e-5) and np.array_equal(again.null, found.null)
    fake = np.abs(found.effect) > 0  # any change at all
    assert fake.sum() > found.significant.sum()


def test_random_directions_are_rarely_beyond_random_ones():
    """Fails a null of too few or too short random directions."""
    model, _, _ = linear.linear_model(latents=6, hidden=8, seed=4)
    rng = np.random.default_rng(0)
    chance = [Direction(f"r{i}", tuple(rng.standard_normal(6)), space="z") for i in range(30)]
    found = direction_effects(model, chance, ["brightness", "contrast", "x"], n=16, n_draws=60, seed=2)
    assert found.significant.mean() < 0.12


def test_effects_count_their_work_and_say_what_is_wrong(style_gan):
    model, _, _ = linear.linear_model()
    seen = []
    found = direction_effects(
        model, sefa(model, 2), n=4, n_draws=3, steps=[-1, 1], progress=lambda *d: seen.append(d)
    )
    assert seen[-1] == (seen[-1][1], seen[-1][1]) and found.images.shape == (2, 2, 1, 5, 5)
    both = [
        *ganspace(style_gan, n=1, draws=50).directions,
        *ganspace(style_gan, "conv1", n=1, draws=50, move="stage").directions,
    ]
    both = [d.named(f"{i}") for i, d in enumerate(both)]
    assert direction_effects(style_gan, both, "brightness", n=4, n_draws=3).effect.shape == (2, 1)
    with pytest.raises(ValueError, match="at least 2 codes"):
        direction_effects(model, sefa(model, 1), codes=np.zeros(4))
    with pytest.raises(ValueError, match="Meter 'flat' is the same in all images"):
        direction_effects(model, sefa(model, 1), [lambda_flat()], n=4)
    with pytest.raises(ValueError, match="Expected at least one direction"):
        direction_effects(model, [])


def lambda_flat():
    def flat(images):
        return images.flatten(1).sum(1) * 0.0

    return flat


def test_directions_survive_a_file_and_a_planted_graph(tmp_path):
    model, _, _ = linear.linear_model()
    found = sefa(model, 2)
    assert load_result(found.save(tmp_path / "found")).directions == found.directions
    # A code that is read in two places, as in a ladder: both maps count.
    two = StagedNetwork(
        {"a": nn.Linear(3, 4), "b": nn.Linear(3, 4), "sum": _Sum()},
        inputs={"b": ("input",), "sum": ("a", "b")},
    )
    model = PlantedModel((1, 2, 2), LatentSpace([Block("z", 3)]), generator=two)
    rows = torch.cat([two.stages["a"].weight, two.stages["b"].weight]).detach().numpy()
    assert sefa(model).scores == pytest.approx(np.linalg.svd(rows)[1], rel=1e-4)


class _Sum(nn.Module):
    def forward(self, a, b):
        return (a + b).unflatten(1, (1, 2, 2))
