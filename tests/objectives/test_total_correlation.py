"""The decomposition of the KL, against closed forms, and against the faulty forms that circulate."""

import math

import pytest
import torch
from torch.distributions import Normal as NormalDistribution
from torch.distributions import OneHotCategorical

from latentlab.config import BetaTCVAE as BetaTCVAEConfig
from latentlab.config import Schedule
from latentlab.latents import Block, Categorical, LatentSpace, Posterior
from latentlab.models.contract import ElboTerms
from latentlab.objectives.beta_tcvae import BetaTCVAE
from latentlab.objectives.total_correlation import ESTIMATORS, decompose, measure, own_weight, weights

CHANCE = torch.Generator()


def normal_posterior(mean, std) -> Posterior:
    mean = torch.as_tensor(mean)
    std = torch.as_tensor(std, dtype=mean.dtype).expand_as(mean)
    return Posterior(LatentSpace([Block("z", mean.shape[1])]), {"z": NormalDistribution(mean, std)})


def mixed_posterior(batch=12, seed=0) -> Posterior:
    """Two normal coordinates and a category, each with a batch of posteriors."""
    chance = torch.Generator().manual_seed(seed)
    space = LatentSpace([Block("z", 2), Block("kind", 3, Categorical)])
    numbers = torch.randn(batch, 7, generator=chance, dtype=torch.float64)
    return space.posterior(numbers)


def encoded(batch=16, dim=4, seed=0) -> tuple[Posterior, torch.Tensor]:
    chance = torch.Generator().manual_seed(seed)
    q = normal_posterior(torch.randn(batch, dim, generator=chance, dtype=torch.float64), 0.4)
    return q, q.sample(seed)


def loss_terms(q: Posterior, z: torch.Tensor) -> ElboTerms:
    return ElboTerms(torch.zeros(len(z), 1, 1, 1), q, z, -100.0 * torch.ones(len(z)), q.kl())


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("make", [lambda: encoded()[0], mixed_posterior])
def test_the_three_parts_telescope_to_the_kl_at_every_code(estimator, make):
    """Would catch: a part estimated otherwise than its neighbour, or a category counted coordinate by coordinate."""
    q = make()
    z = q.sample(3)
    parts = decompose(q, z, 500, estimator)
    total = parts.mutual_information + parts.total_correlation + parts.dimension_wise_kl
    exact = (q.log_prob(z) - q.space.log_prob(z)).sum(1)
    assert torch.allclose(total, exact, atol=1e-9)


def test_the_rows_of_stratified_weights_sum_to_one_and_those_of_the_faulty_form_do_not():
    """Would catch: D3, the own image's weight in column 0 instead of on the diagonal."""
    n, batch = 100, 5
    found = weights(batch, n, "stratified")
    m = batch - 1
    assert torch.allclose(found.sum(1), torch.ones(batch))
    assert torch.equal(found.diagonal(), torch.full((batch,), 1 / n))
    other = (n - m) / (n * m)
    assert all(sorted(row.tolist()) == pytest.approx(sorted([1 / n, other, *[1 / m] * 3])) for row in found)
    faulty = weights(batch, n, "stratified-faulty")
    assert torch.equal(faulty[[0, 1, 2, 4], 0], torch.full((4,), 1 / n))
    assert faulty.sum(1).max().item() == pytest.approx(
        1.23
    )  # the figure on record for five images of a hundred
    assert not torch.allclose(faulty.diagonal(), found.diagonal())
    assert torch.allclose(weights(batch, n, "weighted"), torch.full((1, 1), 1 / (n * batch)))


def test_stratified_sampling_has_no_bias_where_the_other_forms_do():
    """Would catch: D3 again by what it does, and weighted sampling sold as an estimate of q(z)."""
    n, batch, repeats, std = 200, 16, 20_000, 0.25
    centres = torch.linspace(-2.152, 2.152, n, dtype=torch.float64)
    # By hand: E q(z | x_j) for z from q(z | x_i) is the density of N(0, 2 std²) at the distance of their centres.
    likeness = NormalDistribution(0.0, std * math.sqrt(2.0)).log_prob(centres[:, None] - centres).exp()
    own, anyone = likeness.diagonal().mean().item(), likeness.mean().item()
    another = (n * anyone - own) / (n - 1)
    assert anyone == pytest.approx(0.2162, abs=2e-4)
    chance = torch.Generator().manual_seed(0)
    chosen = torch.rand(repeats, n, generator=chance).argsort(1)[:, :batch]  # a batch holds no image twice
    mean = centres[chosen]
    z = mean + std * torch.randn(mean.shape, generator=chance, dtype=torch.float64)
    density = NormalDistribution(mean[:, None, :], std).log_prob(z[:, :, None]).exp()
    average = {e: (density * weights(batch, n, e)).sum(2).mean().item() for e in ESTIMATORS}
    error = 3e-3
    assert average["stratified"] == pytest.approx(anyone, abs=error)
    faulty = weights(batch, n, "stratified-faulty")
    trace, rest = faulty.trace().item(), (faulty.sum() - faulty.trace()).item()
    assert average["stratified-faulty"] == pytest.approx((trace * own + rest * another) / batch, abs=error)
    assert average["stratified-faulty"] > anyone + 0.05  # .279 where .216 is right
    assert average["weighted"] == pytest.approx(0.0014, abs=1e-4)
    assert average["weighted"] * n == pytest.approx((own + 15 * another) / batch, abs=10 * error)


def test_the_average_of_stratified_estimates_is_the_aggregate_posterior_through_the_posterior_itself():
    """Would catch: the right weights put on the wrong pairs, codes and posteriors swapped."""
    n, batch = 40, 8
    chance = torch.Generator().manual_seed(1)
    mean = torch.randn(n, 1, generator=chance, dtype=torch.float64)
    std = 0.2 + torch.rand(n, 1, generator=chance, dtype=torch.float64)
    z = mean + std * torch.randn(n, 1, generator=chance, dtype=torch.float64)
    exact = normal_posterior(mean, std).pairwise_log_prob(z)[:, :, 0].exp().mean(1)
    total, swapped, count = torch.zeros(3, n, dtype=torch.float64)
    w = weights(batch, n, "stratified").double()
    for _ in range(3000):
        chosen = torch.randperm(n, generator=chance)[:batch]
        q = normal_posterior(mean[chosen], std[chosen])
        log_q = q.log_prob(z[chosen]).sum(1) - decompose(q, z[chosen], n, "stratified").mutual_information
        total[chosen] += log_q.exp()
        swapped[chosen] += (q.pairwise_log_prob(z[chosen])[:, :, 0].exp().T * w).sum(1)
        count[chosen] += 1
    assert (total / count - exact).abs().max() < 0.03
    assert (swapped / count - exact).abs().max() > 0.1


def test_the_mutual_information_never_exceeds_the_log_of_the_data_size_and_the_faulty_form_does():
    """Would catch: D4, log-weights added before the sum over dimensions, which gave 42.7 nats at a ceiling of 13.5."""
    q, z = encoded(64, 10)
    q = normal_posterior(100.0 * q.mean, 0.01)  # every image a code of its own: as much information as can be
    z, n, m = q.sample(0), 500, 63
    parts = decompose(q, z, n, "stratified")
    assert parts.mutual_information.max() <= math.log(n) + 1e-6
    assert parts.mutual_information.min() > math.log(n) - 1e-6
    pairs = q.pairwise_log_prob(z)
    d4 = (pairs + weights(64, n, "stratified").log()[:, :, None]).sum(2).logsumexp(1)
    assert (pairs.diagonal().sum(0) - d4).mean() > 10 * math.log(n) - 1.0
    assert decompose(q, z, n, "stratified-faulty").mutual_information.mean() < math.log(m) + 0.5


def test_a_collapsed_code_carries_nothing_by_stratified_sampling_and_a_lot_by_weighted():
    """Would catch: logs that show 13.5 nats of information in a code that is the same for every image."""
    q = normal_posterior(torch.zeros(64, 10, dtype=torch.float64), 1.0)
    n = 737_280
    parts = decompose(q, q.sample(0), n, "stratified")
    for part in vars(parts).values():
        assert part.abs().max() < 1e-4
    weighted = decompose(q, q.sample(0), n, "weighted")
    assert weighted.mutual_information.mean().item() == pytest.approx(math.log(n), abs=1e-5)
    assert weighted.total_correlation.mean().item() == pytest.approx(9 * math.log(n), abs=1e-4)


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_the_total_correlation_of_a_correlated_gaussian_is_its_closed_form(rho):
    """Would catch: a joint or a marginal that is not normalised, a factor in the wrong place."""
    n, std = 3000, 0.3
    chance = torch.Generator().manual_seed(2)
    noise = torch.randn(n, 2, generator=chance, dtype=torch.float64)
    mean = torch.stack([noise[:, 0], rho * noise[:, 0] + math.sqrt(1 - rho**2) * noise[:, 1]], 1)
    q = normal_posterior(mean, std)
    # q(z) = N(0, cov(mean) + std²): its correlation is rho / (1 + std²).
    exact = -0.5 * math.log(1 - (rho / (1 + std**2)) ** 2)
    found = decompose(q, q.sample(0), n, "stratified").total_correlation.mean().item()
    assert found == pytest.approx(exact, abs=0.03)


@pytest.mark.parametrize("make", [lambda: encoded()[0], mixed_posterior])
def test_what_is_measured_telescopes_too_whatever_the_batches_and_the_codes(make):
    """Would catch: a code's own posterior looked for in its batch's place and not in the sample's, or left out."""
    q = make()
    z = q.sample(3)
    exact = (q.log_prob(z) - q.space.log_prob(z)).sum(1)
    whole = torch.stack(list(vars(measure([q], z, 500)).values()))
    assert torch.allclose(whole[:3].sum(0), exact, atol=1e-9)
    estimate, least, most = whole[[0, 3, 4]].mean(1)
    assert least < estimate < most  # the less of the own image, the more information
    parts = [
        Posterior(q.space, {n: type(d)(*_rows(d, rows)) for n, d in q.parts.items()})
        for rows in (slice(0, 5), slice(5, 7), slice(7, None))
    ]
    split = torch.stack(list(vars(measure(parts, z[:9], 500)).values()))
    assert torch.allclose(split, whole[:, :9], atol=1e-9)


def _rows(q, rows):
    return (q.mean[rows], q.stddev[rows]) if isinstance(q, NormalDistribution) else (q.probs[rows],)


def test_the_own_image_counts_by_half_of_a_small_sample_and_as_every_other_of_the_whole_data_set():
    """Would catch: 1 / N beside a small sample (spread, hence bias), 1 / S in it, and a half where all are there."""
    assert own_weight(100, 100) == pytest.approx(1 / 100)
    assert own_weight(101, 10**9) == pytest.approx(0.5 / 100, rel=1e-6)
    assert own_weight(100, 50) == own_weight(100, 100)
    with pytest.raises(ValueError, match="at least 2 images; got a sample of 1"):
        own_weight(1, 10)
    q, z = encoded(4)
    with pytest.raises(ValueError, match="got 5 codes and 4 posteriors"):
        measure([q], torch.cat([z, z[:1]]), 100)


def test_half_of_the_own_image_takes_the_bias_that_all_of_it_and_none_of_it_have():
    """Would catch: an estimator sold as right whose bias falls with 1 / S like those of both bounds."""
    n, std, sampled, repeats = 10**6, 0.2, 128, 100
    chance = torch.Generator().manual_seed(5)
    # Two coordinates that go together, q(z) = N(0, C): closed forms, nats.
    rho, v = 0.6, 1.0 + std**2
    joint = v**2 - rho**2
    exact = (0.5 * math.log(joint) - 2 * math.log(std), 0.5 * math.log(v**2 / joint))
    total = torch.zeros(3, 2, dtype=torch.float64)
    for _ in range(repeats):
        noise = torch.randn(sampled, 2, generator=chance, dtype=torch.float64)
        mean = torch.stack([noise[:, 0], rho * noise[:, 0] + math.sqrt(1 - rho**2) * noise[:, 1]], 1)
        z = mean + std * torch.randn(sampled, 2, generator=chance, dtype=torch.float64)
        q = normal_posterior(mean, std)
        found = measure([q], z, n)
        total[0] += torch.stack([found.mutual_information.mean(), found.total_correlation.mean()]) / repeats
        whole = measure([q], z, sampled)  # taken for the data set, which counts its own image in full
        total[1] += torch.stack([whole.mutual_information.mean(), whole.total_correlation.mean()]) / repeats
        old = decompose(q, z, n, "stratified")
        total[2] += torch.stack([old.mutual_information.mean(), old.total_correlation.mean()]) / repeats
    half, full, batch = (total - torch.tensor(exact)).tolist()
    assert max(map(abs, half)) < 0.07  # -.054 and .047
    assert full[0] < 3.0 * half[0] and full[1] > 2.0 * half[1] > 0.0  # -.185, a lower bound, and .120
    assert batch[0] > 4.0 * abs(half[0]) and batch[1] < -3.0 * half[1]  # .292 and -.187


def test_measured_information_never_exceeds_the_log_of_twice_the_sample():
    """Would catch: D4, whose 42.7 nats stood above every ceiling."""
    q, _ = encoded(64, 10)
    q = normal_posterior(100.0 * q.mean, 0.01)  # every image a code of its own
    information = measure([q], q.sample(0), 10**9).mutual_information
    assert information.max() <= math.log(2 * 63) + 1e-6 and information.min() > math.log(2 * 63) - 1e-6
    assert measure([q], q.sample(0), 64).mutual_information.max() <= math.log(64) + 1e-6


def test_the_constants_of_weighted_sampling_are_there():
    """Would catch: log (N B) left out, which shifts the total correlation by (D - 1) log (N B)."""
    q, z = encoded(16, 4)
    pairs = q.pairwise_log_prob(z)
    bare = pairs.sum(2).logsumexp(1) - pairs.logsumexp(1).sum(1)
    found = decompose(q, z, 1000, "weighted").total_correlation
    assert torch.allclose(found, bare + 3 * math.log(1000 * 16))


def test_densities_too_small_for_a_number_stay_finite():
    """Would catch: D5, exp().sum().log() in place of logsumexp."""
    q, _ = encoded(16, 10)
    q = normal_posterior(q.mean.float() * 50.0, 1e-3)
    z = q.sample(0) + 0.1
    pairs = q.pairwise_log_prob(z)
    assert not torch.isfinite(pairs.sum(2).exp().sum(1).log()).all()
    for estimator in ESTIMATORS:
        assert all(torch.isfinite(v).all() for v in vars(decompose(q, z, 1000, estimator)).values())


def test_the_total_correlation_of_a_category_and_a_coordinate_is_that_of_their_table():
    """Would catch: a category taken for several independent coordinates, whose total correlation is never 0."""
    space = LatentSpace([Block("kind", 2, Categorical), Block("other", 2, Categorical)])
    joint = torch.tensor([[0.45, 0.05], [0.05, 0.45]], dtype=torch.float64)
    rows = torch.tensor(
        [[a, b] for a in (0, 1) for b in (0, 1) for _ in range(round(20 * joint[a, b].item()))]
    )
    eye = torch.eye(2, dtype=torch.float64)
    sure = 0.999999 * eye + 0.0000005
    q = Posterior(
        space,
        {name: OneHotCategorical(probs=sure[rows[:, i]]) for i, name in enumerate(("kind", "other"))},
    )
    z = torch.cat([eye[rows[:, 0]], eye[rows[:, 1]]], 1)
    exact = (joint * (joint / 0.25).log()).sum().item()
    found = decompose(q, z, 20, "stratified").total_correlation.mean().item()
    # With the whole data set as the batch, stratified weights are almost those of the mean over it.
    assert found == pytest.approx(exact, abs=0.03)
    assert q.pairwise_log_prob(z).shape == (20, 20, 2)


def test_one_image_and_an_unknown_estimator_are_refused():
    """Would catch: a q(z) of one image, which is that image's posterior, so that nothing is ever penalised."""
    q, z = encoded(1)
    with pytest.raises(ValueError, match="estimated from at least 2 images; got a batch of 1"):
        decompose(q, z, 100, "stratified")
    with pytest.raises(ValueError, match="must be one of weighted, stratified, stratified-faulty; got 'mss'"):
        weights(4, 100, "mss")
    assert weights(8, 4, "stratified").sum(1).tolist() == pytest.approx([1.0] * 8)  # a batch beyond the data


def test_beta_weighs_the_total_correlation_alone():
    """Would catch: D6, beta on the whole KL and once more on the total correlation."""
    q, z = encoded()
    terms = loss_terms(q, z)
    parts = decompose(q, z, 1000, "weighted")
    kl, tc = q.kl().sum(1).mean(), parts.total_correlation.mean()
    loss = BetaTCVAE(6.0, 1.0, 1.0, "weighted", 1000)(terms, 0, CHANCE)
    assert loss.total.item() == pytest.approx((100.0 + kl + 5.0 * tc).item(), rel=1e-9)
    assert abs(loss.total.item() - (100.0 + 6.0 * kl + 5.0 * tc).item()) > 1.0
    plain = BetaTCVAE(1.0, 1.0, 1.0, "weighted", 1000)(terms, 0, CHANCE)
    assert plain.total.item() == pytest.approx((100.0 + kl).item(), rel=1e-12)
    assert set(loss.terms) == {
        "reconstruction", "kl", "mutual_information_mws", "total_correlation_mws", "dimension_wise_kl_mws",
    }  # fmt: skip
    each = BetaTCVAE(2.0, 3.0, 4.0, "stratified", 1000)(terms, 0, CHANCE)
    mss = decompose(q, z, 1000, "stratified")
    expected = 100.0 + kl + 2.0 * mss.mutual_information.mean() + mss.total_correlation.mean()
    assert each.total.item() == pytest.approx(
        (expected + 3.0 * mss.dimension_wise_kl.mean()).item(), rel=1e-9
    )


def test_a_schedule_of_beta_moves_the_total_correlation_and_nothing_else():
    """Would catch: D7, a warm-up that anneals the dimension-wise KL and leaves the total correlation as it is."""
    q, z = encoded()
    terms = loss_terms(q, z)
    objective = BetaTCVAE(Schedule("linear", 1.0, 6.0, 100), 1.0, 1.0, "stratified", 1000)
    first, last = objective.loss(terms, 0, CHANCE), objective.loss(terms, 100, CHANCE)
    tc = decompose(q, z, 1000, "stratified").total_correlation.mean()
    assert (last.total - first.total).item() == pytest.approx(5.0 * tc.item(), rel=1e-9)
    assert (first.terms["beta"].item(), last.terms["beta"].item()) == (1.0, 6.0)
    assert BetaTCVAEConfig(beta=Schedule("linear", 1.0, 6.0, 100)).beta.end == 6.0
