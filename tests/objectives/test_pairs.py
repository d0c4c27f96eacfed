"""Pairs: averages of posteriors, the adaptive rule, and a bound that is tight where it can be."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, OneHotCategorical
from torch.distributions import Normal as NormalDistribution
from torch.distributions.kl import kl_divergence

from latentlab.config import PairVAE as PairVAEConfig
from latentlab.config import VAEConfig
from latentlab.latents import Block, Categorical, GumbelSoftmax, LatentSpace, Posterior, Uniform
from latentlab.models.build import build_model
from latentlab.models.contract import ElboTerms
from latentlab.objectives.build import build_objective
from latentlab.objectives.pairs import PairVAE, average, divergence, shared_variables
from latentlab.objectives.variational import DataDescription

CHANCE = torch.Generator()
SPACE = LatentSpace([Block("pose", 1), Block("content", 2)])
Z3 = LatentSpace([Block("z", 3)])


def normal(means, variances, dtype=torch.float64) -> NormalDistribution:
    return NormalDistribution(torch.tensor(means, dtype=dtype), torch.tensor(variances, dtype=dtype).sqrt())


def test_product_and_geometric_mean_are_those_of_the_densities():
    """Would catch: precisions averaged under the product's name, and means that are not weighed by precision."""
    first, second = normal([[0.5, -2.0]], [[0.3, 4.0]]), normal([[1.5, 1.0]], [[1.2, 0.25]])
    z = torch.linspace(-15, 15, 6001, dtype=torch.float64)[:, None]
    logs = first.log_prob(z) + second.log_prob(z)
    for how, power in (("product", 1.0), ("geometric", 0.5)):
        weights = (power * logs).softmax(0)
        mean = (weights * z).sum(0)
        found = average(Block("z", 2), first, second, how)
        torch.testing.assert_close(found.mean[0], mean)
        torch.testing.assert_close(found.variance[0], (weights * (z - mean).square()).sum(0))
    same = average(Block("z", 2), first, first, "geometric")
    torch.testing.assert_close(same.variance, first.variance)
    torch.testing.assert_close(average(Block("z", 2), first, first, "product").variance, first.variance / 2)


def test_the_mean_averages_means_and_variances():
    """Would catch: standard deviations averaged (variance 4) or their logarithms (variance 3) in place of variances."""
    found = average(Block("z", 1), normal([[1.0]], [[1.0]]), normal([[4.0]], [[9.0]]), "mean")
    assert found.mean.item() == 2.5 and found.variance.item() == pytest.approx(5.0)


@pytest.mark.parametrize("temperature", [None, 0.5])
def test_categories_are_averaged_as_probabilities_or_multiplied(temperature):
    """Would catch: logits averaged where probabilities should be, a product that is not normalised, a lost
    temperature."""
    p = torch.tensor([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]])
    q = torch.tensor([[0.1, 0.6, 0.3], [0.25, 0.5, 0.25]])
    block = Block("kind", 3, Categorical(temperature))
    first, second = (block.prior.posterior(values.log() + 3.0) for values in (p, q))
    root = (p * q).sqrt()
    expected = {
        "mean": (p + q) / 2,
        "product": p * q / (p * q).sum(1, keepdim=True),
        "geometric": root / root.sum(1, keepdim=True),
    }
    for how, probabilities in expected.items():
        found = average(block, first, second, how)
        torch.testing.assert_close(found.probs, probabilities)
        assert isinstance(found, OneHotCategorical)
        assert getattr(found, "temperature", None) == temperature
        assert isinstance(found, GumbelSoftmax) == (temperature is not None)


def test_divergences_are_torchs_and_one_number_a_category():
    """Would catch: twice the KL, the other direction, and a category counted as so many coordinates."""
    first, second = normal([[0.0, 1.0]], [[1.0, 0.2]]), normal([[2.0, 1.0]], [[3.0, 0.5]])
    torch.testing.assert_close(divergence(first, second), kl_divergence(first, second))
    both = (kl_divergence(first, second) + kl_divergence(second, first)) / 2
    torch.testing.assert_close(divergence(first, second, symmetric=True), both)
    p = OneHotCategorical(logits=torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.0, 5.0]]))
    q = OneHotCategorical(logits=torch.tensor([[0.0, 0.5, 0.0], [0.0, 0.0, 5.0]]))
    torch.testing.assert_close(divergence(p, q), kl_divergence(p, q)[:, None])


def test_the_threshold_is_halfway_for_each_pair_and_a_variable_on_it_is_not_shared():
    """Would catch: one threshold for the batch, the mean or the median as threshold, and ``<=``."""
    found = shared_variables(torch.tensor([[0.0, 4.0, 5.0, 10.0], [0.0, 0.04, 0.05, 0.1]]))
    assert found.tolist() == [[True, True, False, False]] * 2
    assert shared_variables(torch.tensor([[0.0, 6.0, 7.0, 10.0]])).tolist() == [[True, False, False, False]]
    assert shared_variables(torch.tensor([[2.0, 2.0]])).tolist() == [[False, False]]


def adjusted(objective: PairVAE, *given: Posterior) -> tuple[Posterior, ...]:
    return objective.adjust_posteriors(given, (None, None), 0, CHANCE)


def test_a_planted_change_is_left_alone_and_the_rest_is_averaged():
    """Would catch: an average of what changed instead of what stayed, and one mask for all pairs."""
    first = Posterior(Z3, {"z": normal([[0.0, 0.0, 1.0], [0.0, 2.0, 0.0]], [[1.0, 1.0, 0.5]] * 2)})
    second = Posterior(Z3, {"z": normal([[3.0, 0.2, 1.2], [0.2, -2.0, 0.0]], [[1.0, 2.0, 0.5]] * 2)})
    a, b = adjusted(PairVAE(Z3), first, second)
    changed = torch.tensor([[True, False, False], [False, True, False]])
    torch.testing.assert_close(a.mean, torch.where(changed, first.mean, (first.mean + second.mean) / 2))
    torch.testing.assert_close(b.mean, torch.where(changed, second.mean, (first.mean + second.mean) / 2))
    halves = (first.variance + second.variance) / 2
    torch.testing.assert_close(a.variance, torch.where(changed, first.variance, halves))
    torch.testing.assert_close(b.variance, torch.where(changed, second.variance, halves))


def test_the_difference_is_taken_from_the_first_to_the_second_unless_both_ways_are_asked_for():
    """Would catch: the published rule computed in the other direction."""
    first = Posterior(Z3, {"z": normal([[0.0, 2.0, 0.0]], [[0.01, 1.0, 1.0]])})
    second = Posterior(Z3, {"z": normal([[0.0, 0.0, 0.0]], [[1.0, 1.0, 1.0]])})
    # KL from first to second: 1.81, 2, 0; from second to first: 47, 2, 0.
    assert adjusted(PairVAE(Z3), first, second)[0].mean.tolist() == [[0.0, 2.0, 0.0]]
    assert adjusted(PairVAE(Z3), second, first)[0].mean.tolist() == [[0.0, 1.0, 0.0]]
    assert adjusted(PairVAE(Z3, symmetric=True), first, second)[0].mean.tolist() == [[0.0, 1.0, 0.0]]


def test_declared_blocks_are_shared_however_far_apart_they_are():
    first = Posterior(
        SPACE, {"pose": normal([[1.0]], [[1.0]]), "content": normal([[9.0, 1.0]], [[1.0, 1.0]])}
    )
    second = Posterior(
        SPACE, {"pose": normal([[1.5]], [[1.0]]), "content": normal([[0.0, 1.0]], [[1.0, 3.0]])}
    )
    a, b = adjusted(PairVAE(SPACE, shared=["content"], how="product"), first, second)
    torch.testing.assert_close(a.mean, torch.tensor([[1.0, 4.5, 1.0]], dtype=torch.float64))
    torch.testing.assert_close(b.mean, torch.tensor([[1.5, 4.5, 1.0]], dtype=torch.float64))
    torch.testing.assert_close(a.variance, torch.tensor([[1.0, 0.5, 0.75]], dtype=torch.float64))


def test_a_category_is_shared_or_kept_as_a_whole():
    """Would catch: a mask a category, which leaves probabilities that no longer sum to 1."""
    space = LatentSpace([Block("kind", 3, Categorical), Block("z", 1)])

    def posterior(logits, mean):
        kind = OneHotCategorical(logits=torch.tensor([logits]))
        return Posterior(space, {"kind": kind, "z": normal([[mean]], [[1.0]], torch.float32)})

    first, second = posterior([3.0, 0.0, 0.0], 0.0), posterior([2.0, 0.0, 0.5], 4.0)
    a, b = adjusted(PairVAE(space), first, second)
    both = (first.mean + second.mean)[:, :3] / 2
    for found, own in ((a, 0.0), (b, 4.0)):
        torch.testing.assert_close(found.mean, torch.cat([both, torch.tensor([[own]])], 1))
    first, second = posterior([9.0, 0.0, 0.0], 0.0), posterior([0.0, 9.0, 0.0], 1.0)
    a, b = adjusted(PairVAE(space), first, second)
    torch.testing.assert_close(a.mean, torch.cat([first.mean[:, :3], torch.tensor([[0.5]])], 1))
    torch.testing.assert_close(b.mean, torch.cat([second.mean[:, :3], torch.tensor([[0.5]])], 1))


def terms_of(objective: PairVAE, first: Posterior, second: Posterior, likelihood) -> ElboTerms:
    """Terms of a pair whose expected log-likelihood, nats (batch,), is known: ``likelihood(posterior, 0 or 1)``."""
    pair = adjusted(objective, first, second)
    terms, other = (
        ElboTerms(torch.zeros(len(q.mean), 1, 1, 1), q, q.mean, likelihood(q, i), q.kl())
        for i, q in enumerate(pair)
    )
    terms.others = (other,)
    return terms


def test_with_the_exact_posterior_the_bound_of_a_pair_is_the_log_evidence():
    """Would catch: a shared KL that is counted for each image, the second image left out, and an average that is no
    product: x = (c + noise, s + noise), so the posterior of c given both images is the product of two halves."""
    space = LatentSpace([Block("pose", 1), Block("content", 1)])
    sigma = 0.7
    x = torch.tensor([[[0.4, -1.0]], [[-1.3, 0.8]]], dtype=torch.float64)  # (image, 1 pair, (pose, content))
    precision = 1 + 2 / sigma**2  # of c given the pair
    objective = PairVAE(space, shared=["content"], how="product", changing=["pose"])

    def posterior(image):
        own = normal([[0.0]], [[1 / (1 + sigma**-2)]])
        own = NormalDistribution(image[:, :1] / (1 + sigma**2), own.stddev)
        half = normal([[0.0]], [[2 / precision]])
        half = NormalDistribution(image[:, 1:] * (2 / sigma**2) / precision, half.stddev)
        return Posterior(space, {"pose": own, "content": half})

    def likelihood(q, i):
        expected = NormalDistribution(q.mean, sigma).log_prob(x[i]) - q.variance / (2 * sigma**2)
        return expected.sum(1)

    loss = objective(terms_of(objective, posterior(x[0]), posterior(x[1]), likelihood), 0, CHANCE)
    noise = sigma**2 * torch.eye(2, dtype=torch.float64)
    evidence = MultivariateNormal(torch.zeros(2, dtype=torch.float64), noise + 1.0).log_prob(x[:, 0, 1])
    evidence = evidence + NormalDistribution(0.0, math.sqrt(1 + sigma**2)).log_prob(x[:, 0, 0]).sum()
    assert loss.total.item() == pytest.approx(-evidence.item() / 2, rel=1e-6)


def numbers(seed: int) -> torch.Tensor:
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(seed), requires_grad=True)


def test_the_adaptive_loss_is_the_mean_of_both_images_own():
    """Would catch: the loss of the first image alone, a sum, and beta on the reconstruction."""
    objective = PairVAE(Z3, beta=3.0)
    terms = terms_of(
        objective,
        Z3.posterior(numbers(0)),
        Z3.posterior(numbers(1)),
        lambda q, i: -(1.0 + 2 * i) * q.mean.sum(1),
    )
    (other,) = terms.others
    own = [t.reconstruction.mean() + 3.0 * t.kl.sum(1).mean() for t in (terms, other)]
    loss = objective(terms, 0, CHANCE)
    assert loss.total.item() == pytest.approx(((own[0] + own[1]) / 2).item(), rel=1e-5)
    kl = (terms.kl.sum(1) + other.kl.sum(1)).mean() / 2
    assert loss.terms["kl"].item() == pytest.approx(kl.item(), rel=1e-5)
    masks = shared_variables(
        divergence(Z3.posterior(numbers(0)).parts["z"], Z3.posterior(numbers(1)).parts["z"])
    )
    assert loss.terms["shared_coordinates"].item() == pytest.approx(masks.sum(1).float().mean().item())


def test_the_kl_is_logged_whole_where_the_loss_counts_what_is_shared_once_a_pair():
    """Would catch: half of the shared blocks' KL logged as nats per image."""
    objective = PairVAE(SPACE, beta=3.0, shared=["content"])
    given = (SPACE.posterior(numbers(0)), SPACE.posterior(numbers(1)))
    terms = terms_of(objective, *given, lambda q, i: -(1.0 + 2 * i) * q.mean.sum(1))
    (other,) = terms.others
    loss = objective(terms, 0, CHANCE)
    both = (terms.kl + other.kl).mean(0) / 2
    content = SPACE.slice("content")
    assert loss.terms["kl"].item() == pytest.approx(both.sum().item(), rel=1e-5)
    counted = both.sum() - both[content].sum() / 2
    assert loss.terms["kl_counted"].item() == pytest.approx(counted.item(), rel=1e-5)
    assert loss.total.item() == pytest.approx((loss.terms["reconstruction"] + 3.0 * counted).item(), rel=1e-5)
    adaptive = PairVAE(SPACE)(terms, 0, CHANCE)
    assert "kl_counted" not in adaptive.terms and adaptive.terms["kl"] == loss.terms["kl"]


def test_the_gradient_reaches_the_encoder_from_both_images_and_crosses_only_where_they_share():
    """Would catch: a partner whose posterior is detached, or an average that one image alone is trained by."""
    objective = PairVAE(SPACE, shared=["content"])
    first, second = numbers(0), numbers(1)
    given = (SPACE.posterior(first), SPACE.posterior(second))
    terms = terms_of(objective, *given, lambda q, i: q.mean.square().sum(1) * (i == 1))
    terms.others[0].reconstruction.sum().backward()  # the second image's error, in all its coordinates
    # Numbers are pose's mean and log-variance, then content's two means and two log-variances.
    assert (second.grad[:, [0, 2, 3]] != 0).all() and (first.grad[:, [2, 3]] != 0).all()
    assert (first.grad[:, 0] == 0).all()
    first, second = numbers(0), numbers(1)
    given = (SPACE.posterior(first), SPACE.posterior(second))
    terms = terms_of(objective, *given, lambda q, i: 0.0 * q.mean.sum(1))
    objective.loss(terms, 0, CHANCE).total.backward()
    assert (first.grad != 0).all() and (second.grad != 0).all()  # each image's own KL has a part in the loss


def test_extra_terms_are_those_of_both_images():
    """Would catch: a commitment of the first image alone."""
    objective = PairVAE(Z3)
    given = (Z3.posterior(numbers(0)), Z3.posterior(numbers(1)))
    terms = terms_of(objective, *given, lambda q, i: 0.0 * q.mean.sum(1))
    plain = objective.loss(terms, 0, CHANCE).total.item()
    terms.extra, terms.others[0].extra = (
        {"commitment": torch.full((5,), 1.0)},
        {"commitment": torch.full((5,), 4.0)},
    )
    loss = objective.loss(terms, 0, CHANCE)
    assert loss.total.item() == pytest.approx(plain + 2.5) and loss.terms["commitment"].item() == 2.5


def test_a_configuration_that_does_not_fit_is_refused_in_a_sentence():
    refused = [
        ({"average": "median"}, "average must be one of mean, product, geometric; got 'median'"),
        ({"changed": 2, "changing": ["x"]}, r"changing names them; give one, got 2 and \['x'\]"),
        ({"changed": 0}, r"objective.changed must lie in \[1, 1000\]; got 0"),
        ({"changed": 1.5}, "objective.changed must be a whole number; got 1.5"),
        (
            {"shared": ["content"]},
            "the same factors must change in every pair; name them in objective.changing",
        ),
        ({"changing": "pose"}, "objective.changing must be a list of names, or null; got 'pose'"),
        ({"beta": -1.0}, "objective.beta must lie in"),
    ]
    for values, sentence in refused:
        with pytest.raises(ValueError, match=sentence):
            PairVAEConfig(**values)
    for shared in ([], ["pose", "content"], ["hue"]):
        with pytest.raises(
            ValueError, match=r"some of the blocks \['pose', 'content'\], not none or all; got"
        ):
            PairVAE(SPACE, shared=shared)
    with pytest.raises(ValueError, match="blocks can be averaged; block 'u' has a uniform prior"):
        PairVAE(LatentSpace([Block("u", 2, Uniform)]))


def test_a_configuration_becomes_the_objective_and_its_requests():
    """Would catch: an argument in another's place."""
    model = build_model(VAEConfig(width=4, hidden=8), (1, 28, 28))
    config = PairVAEConfig(beta=2.0, average="geometric", symmetric=True, changed=2)
    objective = build_objective(config, model, DataDescription(100, (1, 28, 28)))
    assert (objective.beta, objective.how, objective.shared, objective.symmetric) == (
        2.0,
        "geometric",
        None,
        True,
    )
    first, second = objective.requests
    assert (first.kind, second.kind, second.changed, second.changing) == ("independent", "pair", 2, None)
    assert PairVAE(SPACE, shared=["pose"], changing=["x", "y"]).requests[1].changing == ("x", "y")


def test_mirrored_pairs_share_the_other_blocks_in_the_second_half():
    """Would catch: colours that stand in the pose too, since nothing but its price keeps them out of it."""
    space = LatentSpace([Block("pose", 2), Block("content", 3)])
    objective = PairVAE(space, shared=["content"], changing=["turn"], mirrored=True)
    generator = torch.Generator().manual_seed(0)
    first, second = (space.posterior(torch.randn(4, 10, generator=generator)) for _ in range(2))
    one, two = objective.adjust_posteriors((first, second), (None, None), 0, generator)
    pose, content = space.slice("pose"), space.slice("content")
    assert torch.equal(one.mean[:2, content], two.mean[:2, content])
    assert torch.equal(one.mean[2:, pose], two.mean[2:, pose])
    assert torch.equal(one.mean[:2, pose], first.mean[:2, pose])
    assert torch.equal(two.mean[2:, content], second.mean[2:, content])
    assert objective.requests[1].mirrored and objective.least_batch == 2


def test_mirrored_pairs_count_what_is_shared_once():
    space = LatentSpace([Block("pose", 1), Block("content", 1)])
    objective = PairVAE(space, shared=["content"], changing=["turn"], mirrored=True)
    q = space.posterior(torch.zeros(2, 4))
    kl = torch.tensor([[1.0, 10.0], [100.0, 1000.0]])
    terms = ElboTerms(torch.zeros(2, 1, 1, 1), q, q.mean, torch.zeros(2), kl)
    terms.others = (ElboTerms(torch.zeros(2, 1, 1, 1), q, q.mean, torch.zeros(2), kl),)
    # First pair: pose whole, content half; second pair the other way round.
    assert objective(terms, 0, torch.Generator()).total.item() == pytest.approx((1 + 5 + 50 + 1000) / 2)
