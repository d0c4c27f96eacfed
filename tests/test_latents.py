"""Latent spaces and distributions over them, against closed forms and torch.distributions."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal as NormalDistribution
from torch.distributions import OneHotCategorical, kl_divergence

from latentlab.latents import Block, Categorical, Codebook, LatentSpace, Normal, PointMass, Posterior, Uniform


@pytest.fixture
def space() -> LatentSpace:
    return LatentSpace(
        [Block("pose", 2), Block("kind", 3, Categorical), Block("style", 2, Uniform(-2.0, 1.0))]
    )


def test_names_follow_the_blocks_and_resolve_both_ways(space):
    assert space.names == ("pose0", "pose1", "kind0", "kind1", "kind2", "style0", "style1")
    assert [space.index(n) for n in space.names] == list(range(7))
    assert space.index(-1) == 6
    assert space.index(np.int64(2)) == 2
    assert space.index("3") == 3
    assert LatentSpace([Block("z", 10)]).names[3] == "z3"


@pytest.mark.parametrize("wrong", ["z3", 7, -8, 1.5, True, None])
def test_an_unknown_coordinate_is_answered_with_the_valid_ones(space, wrong):
    with pytest.raises(ValueError, match=r"Expected a coordinate .* Valid: pose0, pose1, kind0"):
        space.index(wrong)


def test_split_and_join_are_inverse_and_split_gives_views(space):
    z = space.sample(5, seed=1)
    parts = space.split(z)
    assert [p.shape[1] for p in parts.values()] == [2, 3, 2]
    assert torch.equal(space.join(dict(reversed(parts.items()))), z)
    with pytest.raises(ValueError, match="Expected codes \\(batch, 7\\)"):
        space.split(z[:, :6])
    with pytest.raises(ValueError, match="Expected parts for the blocks"):
        space.join({"pose": z})


def test_samples_follow_seed_prior_and_leave_the_global_generator_alone(space):
    state = torch.get_rng_state()
    z = space.sample(20_000, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(z, space.sample(20_000, seed=3))
    assert not torch.equal(z, space.sample(20_000, seed=4))
    assert torch.allclose(z.mean(0), space.mean, atol=0.03)
    assert torch.allclose(z.std(0), space.std, atol=0.03)
    assert torch.equal(z[:, 2:5].sum(1), torch.ones(20_000))
    assert z[:, 5:].min() >= -2.0 and z[:, 5:].max() <= 1.0


def test_quantiles_are_those_of_the_prior(space):
    expected = NormalDistribution(0.0, 1.0).icdf(torch.tensor(0.975)).item()
    assert space.quantile("pose0", 0.975) == pytest.approx(expected, abs=1e-6)
    assert space.quantile("style1", 0.5) == pytest.approx(-0.5)
    with pytest.raises(ValueError, match="no quantiles"):
        space.quantile("kind1", 0.5)
    with pytest.raises(ValueError, match="0 < p < 1"):
        space.quantile("pose0", 1.0)


def test_kl_equals_torch_and_monte_carlo():
    space = LatentSpace([Block("z", 3), Block("kind", 4, Categorical)])
    mean, std = torch.tensor([[0.3, -1.0, 0.0]]), torch.tensor([[0.5, 1.2, 1.0]])
    probs = torch.tensor([[0.7, 0.1, 0.1, 0.1]])
    q = Posterior(space, {"z": NormalDistribution(mean, std), "kind": OneHotCategorical(probs)})
    expected = kl_divergence(NormalDistribution(mean, std), NormalDistribution(0.0, 1.0))
    assert torch.allclose(q.kl()[:, :3], expected, atol=1e-6)
    assert q.kl()[0, 2].item() == 0.0
    entropy_form = math.log(4) - OneHotCategorical(probs).entropy()
    assert q.kl()[:, 3:].sum().item() == pytest.approx(entropy_form.item(), abs=1e-6)

    many = Posterior(
        space,
        {
            "z": NormalDistribution(mean.expand(40_000, 3), std),
            "kind": OneHotCategorical(probs.expand(40_000, 4)),
        },
    )
    z = many.sample(seed=0)
    estimate = (many.log_prob(z) - space.log_prob(z)).sum(1).mean().item()
    assert estimate == pytest.approx(q.kl().sum().item(), abs=0.03)


def test_the_code_of_an_image_is_a_point_of_its_space():
    """Would catch: class probabilities handed to a generator that was trained on one-hot rows."""
    space = LatentSpace([Block("z", 2), Block("kind", 3, Categorical), Block("u", 1, Uniform)])
    mean, probs = torch.tensor([[0.3, -1.0], [0.0, 2.0]]), torch.tensor([[0.2, 0.5, 0.3], [0.9, 0.05, 0.05]])
    q = Posterior(
        space,
        {
            "z": NormalDistribution(mean, 0.5),
            "kind": OneHotCategorical(probs),
            "u": torch.distributions.Uniform(torch.tensor([[-1.0], [0.0]]), torch.tensor([[0.0], [0.5]])),
        },
    )
    assert q.code().tolist() == [
        [pytest.approx(0.3), -1.0, 0.0, 1.0, 0.0, -0.5],
        [0.0, 2.0, 1.0, 0.0, 0.0, 0.25],
    ]
    assert torch.allclose(q.mean[:, 2:5], probs)  # the mean stays what it is: a statistic
    with pytest.raises(
        TypeError, match="A categorical block needs a OneHotCategorical posterior; got Normal"
    ):
        Categorical().code(NormalDistribution(mean, 0.5))


def test_the_log_variance_of_a_sure_category_is_finite_and_of_a_normal_block_exact():
    """Would catch: -inf that turns every table and chart of an encoding into nan."""
    space = LatentSpace([Block("kind", 3, Categorical), Block("z", 2)])
    numbers = torch.tensor([[300.0, 0.0, 0.0, 0.1, 0.2, -20.0, -3.0]])
    q = space.posterior(numbers)
    assert (q.variance[0, :3] == 0.0).all()
    assert torch.isfinite(q.log_var).all() and (q.log_var[0, :3] < -80.0).all()
    assert torch.equal(q.log_var[:, 3:], q.variance[:, 3:].log())
    assert torch.isfinite(q.kl()).all()
    assert q.kl()[0, :3].sum().item() == pytest.approx(math.log(3), abs=1e-6)


def test_draws_carry_gradients_and_follow_the_generator():
    space = LatentSpace([Block("z", 2)])
    mean = torch.zeros(4, 2, requires_grad=True)
    q = Posterior(space, {"z": NormalDistribution(mean, torch.ones(4, 2))})
    z = q.rsample(torch.Generator().manual_seed(0))
    z.sum().backward()
    assert torch.equal(mean.grad, torch.ones(4, 2))
    assert torch.equal(q.sample(5), q.sample(5))
    assert not q.sample(5).requires_grad


def test_spaces_survive_json_and_refuse_nonsense(space):
    assert LatentSpace.from_dict(space.to_dict()) == space
    with pytest.raises(ValueError, match="Unknown prior 'cauchy'"):
        LatentSpace.from_dict({"blocks": [{"name": "z", "dim": 2, "prior": "cauchy"}]})
    with pytest.raises(ValueError, match="distinct names"):
        LatentSpace([Block("z", 2), Block("z", 3)])
    with pytest.raises(ValueError, match="at least one block"):
        LatentSpace([])
    with pytest.raises(ValueError, match="identifier"):
        Block("my pose", 2)
    with pytest.raises(ValueError, match="at least 1 coordinate"):
        Block("z", 0)
    with pytest.raises(TypeError, match="prior must be one of"):
        Block("z", 2, "normal")
    with pytest.raises(ValueError, match="low < high"):
        Uniform(1.0, 1.0)


def test_prior_densities_integrate_to_one():
    grid = torch.linspace(-8, 8, 16_001)[:, None]
    for prior in (Normal(), Uniform(-1.0, 3.0)):
        assert (prior.log_prob(grid).exp().sum() * 0.001).item() == pytest.approx(1.0, abs=2e-3)


def test_pairwise_densities_are_those_of_every_code_under_every_posterior():
    """Would catch: codes and posteriors swapped, or a category's density spread over its coordinates."""
    space = LatentSpace([Block("kind", 3, Categorical), Block("z", 2), Block("u", 1, Uniform(-4.0, 4.0))])
    chance = torch.Generator().manual_seed(0)
    mean, std = (torch.randn(5, 2, generator=chance).exp() for _ in range(2))
    q = Posterior(
        space,
        {
            "kind": OneHotCategorical(probs=torch.rand(5, 3, generator=chance)),
            "z": NormalDistribution(mean, std),
            "u": torch.distributions.Uniform(torch.full((5, 1), -3.0), torch.full((5, 1), 3.0)),
        },
    )
    z = space.sample(4, seed=1).clamp(-2.5, 2.5)
    found = q.pairwise_log_prob(z)
    assert found.shape == (4, 5, 4)
    for i in range(4):
        rows = q.log_prob(z[i : i + 1].expand(5, -1))  # code i under each posterior
        assert torch.allclose(found[i, :, 0], rows[:, :3].sum(1), atol=1e-5)
        assert torch.allclose(found[i, :, 1:], rows[:, 3:], atol=1e-5)
    with pytest.raises(ValueError, match="Expected codes \\(batch, 6\\)"):
        q.pairwise_log_prob(z[:, :5])


def test_pairwise_densities_stay_exact_for_narrow_posteriors_far_apart():
    """Would catch: a square of differences worked out as a product of matrices, which rounds them away."""
    mean = torch.tensor([[1000.0], [1000.01]], dtype=torch.float64)
    q = Posterior(LatentSpace([Block("z", 1)]), {"z": NormalDistribution(mean, torch.full_like(mean, 0.01))})
    single = Posterior(
        LatentSpace([Block("z", 1)]), {"z": NormalDistribution(mean.float(), torch.full((2, 1), 0.01))}
    )
    exact = q.pairwise_log_prob(mean)[:, :, 0]
    assert exact[0, 1].item() == pytest.approx(exact[0, 0].item() - 0.5, abs=1e-6)
    assert torch.allclose(single.pairwise_log_prob(mean.float())[:, :, 0].double(), exact, atol=0.02)


def test_a_categorical_block_is_one_variable_and_every_other_coordinate_is_its_own(space):
    """Would catch: the coordinates of a one-hot row taken for independent variables."""
    assert space.variables == (0, 1, 2, 2, 2, 3, 4)
    assert LatentSpace([Block("z", 3)]).variables == (0, 1, 2)
    assert LatentSpace([Block("a", 2, Categorical), Block("b", 2, Categorical)]).variables == (0, 0, 1, 1)


def test_drawing_with_a_generator_is_what_sampling_with_its_seed_gives(space):
    """Would catch: a second sampler beside the first, with another order of blocks."""
    assert torch.equal(space.draw(6, torch.Generator().manual_seed(2)), space.sample(6, seed=2))


def test_a_codebooks_indices_are_uniform_whole_numbers_and_variables_of_their_own():
    """Would catch: K indices from 1 to K, a row of indices taken for one variable, moments of another range."""
    space = LatentSpace([Block("codes", 3, Codebook(5)), Block("z", 1)])
    z = space.sample(20_000, seed=0)
    assert z[:, :3].unique().tolist() == [0.0, 1.0, 2.0, 3.0, 4.0] and z.dtype == torch.float32
    assert torch.allclose(z.mean(0), space.mean, atol=0.04) and torch.allclose(z.std(0), space.std, atol=0.03)
    assert space.variables == (0, 1, 2, 3)
    assert LatentSpace.from_dict(space.to_dict()) == space
    values = torch.arange(-1.0, 6.0)[:, None]
    assert Codebook(5).log_prob(values).exp().flatten().tolist() == pytest.approx([0, *[0.2] * 5, 0])
    assert Codebook(5).log_prob(torch.tensor([[1.5]])).item() == -math.inf
    assert [Codebook(5).quantile(p) for p in (0.01, 0.2, 0.21, 0.5, 0.99)] == [0.0, 0.0, 1.0, 2.0, 4.0]
    assert Codebook(5).indices(9) == [0, 1, 2, 3, 4] and Codebook(64).indices(4) == [0, 21, 42, 63]
    for wrong in (1, 2.5):
        with pytest.raises(ValueError, match="a whole number of at least 2 codes; got"):
            Codebook(wrong)
    with pytest.raises(ValueError, match="no posterior of its own; a model with a codebook quantises"):
        space.posterior(torch.zeros(2, 4))


def test_a_point_mass_has_its_own_surprise_for_a_kl_and_no_spread():
    """Would catch: the KL to a uniform prior where the model knows better, and draws that differ from the index."""
    space = LatentSpace([Block("codes", 2, Codebook(4))])
    indices, surprise = torch.tensor([[3, 0], [1, 1]]), torch.tensor([[0.1, 2.0], [0.7, 0.0]])
    q = Posterior(space, {"codes": PointMass(indices, 4, surprise)})
    assert torch.equal(q.kl(), surprise)
    plain = Posterior(space, {"codes": PointMass(indices, 4)})
    assert plain.kl().flatten().tolist() == pytest.approx([math.log(4)] * 4)
    assert q.code().tolist() == q.sample(1).tolist() == [[3.0, 0.0], [1.0, 1.0]]
    assert torch.equal(q.rsample(torch.Generator().manual_seed(0)), q.mean)
    assert not q.stddev.any() and torch.isfinite(q.log_var).all()
    found = q.pairwise_log_prob(q.mean)
    assert found[0, 0].tolist() == [0.0, 0.0] and found[0, 1].tolist() == [-math.inf, -math.inf]
    with pytest.raises(TypeError, match="A codebook block needs a PointMass posterior; got Normal"):
        Codebook(4).kl(NormalDistribution(torch.zeros(2, 2), 1.0))
