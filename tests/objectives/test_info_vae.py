"""InfoVAE: the maximum mean discrepancy, against what is known of it."""

import math

import pytest
import torch
from torch.distributions import Normal as NormalDistribution

from latentlab.latents import Block, Categorical, LatentSpace, Posterior
from latentlab.models.contract import ElboTerms
from latentlab.objectives.info_vae import InfoVAE, mmd


def draw(n: int, dim: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    chance = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(n, dim, generator=chance, dtype=torch.float64)


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_it_is_zero_in_the_mean_where_the_distributions_are_equal(kernel):
    """Would catch: a code compared with itself, which adds 2 / B whatever the codes are."""
    values = torch.stack([mmd(draw(16, 4, 2 * i), draw(16, 4, 2 * i + 1), kernel) for i in range(2000)])
    error = values.std() / math.sqrt(len(values))
    assert values.mean().abs() < 4 * error and error < 1e-3
    with_themselves = values.mean() + 2 / 16 * (1 - 0.5)
    assert with_themselves > 20 * error


def test_it_is_its_closed_form_for_two_gaussians():
    """Would catch: a kernel of another width, or a cross term counted once."""
    dim, shift, scale, width = 3, 0.8, 0.5, 6.0

    def expected(variance: float, away: float) -> float:
        # E exp(-d² / width) of a difference N(away, variance) in each dimension.
        narrow = 1 + 2 * variance / width
        return (narrow**-0.5 * math.exp(-(away**2) / (width * narrow))) ** dim

    exact = expected(2 * scale**2, 0) + expected(2.0, 0) - 2 * expected(1 + scale**2, shift)
    pairs = ((draw(1000, dim, 2 * i, shift, scale), draw(1000, dim, 2 * i + 1)) for i in range(40))
    found = torch.stack([mmd(a, b) for a, b in pairs])
    assert found.mean().item() == pytest.approx(exact, abs=4 * found.std().item() / math.sqrt(40))
    assert exact > 0.2 and found.std() < 0.03


def test_the_kernel_of_both_names_at_one_distance():
    """Would catch: the two kernels swapped."""
    a = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    b = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    assert mmd(a, b, "rbf").item() == pytest.approx(2 - 2 * math.exp(-1))
    assert mmd(a, b, "imq").item() == pytest.approx(2 - 2 * 0.5)
    with pytest.raises(ValueError, match="at least 2 codes on each side; got 1 and 2"):
        mmd(a[:1], b)


@pytest.mark.parametrize("categorical", [False, True])
def test_the_loss_weighs_kl_and_discrepancy_by_alpha_and_lambda(categorical):
    """Would catch: alpha left out of the discrepancy's weight, or a prior sample that a category has no part in."""
    blocks = [Block("z", 2), *([Block("kind", 3, Categorical)] if categorical else [])]
    space = LatentSpace(blocks)
    q = space.posterior(torch.randn(32, space.posterior_size, generator=torch.Generator().manual_seed(0)))
    z = q.sample(1)
    terms = ElboTerms(torch.zeros(32, 1, 1, 1), q, z, torch.full((32,), -7.0), q.kl())
    found = InfoVAE(0.25, 100.0, "imq")(terms, 0, torch.Generator().manual_seed(5))
    prior = space.sample(32, seed=5)
    discrepancy = mmd(z, prior, "imq")
    expected = 7.0 + 0.75 * q.kl().sum(1).mean() + 99.25 * discrepancy
    assert found.total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert found.terms["mmd"].item() == pytest.approx(discrepancy.item(), rel=1e-5)


def test_it_draws_scattered_codes_to_the_prior():
    """Would catch: a discrepancy with the sign turned round, or without a gradient to the codes."""
    space = LatentSpace([Block("z", 2)])
    mean = (2.0 + 0.3 * torch.randn(64, 2, generator=torch.Generator().manual_seed(0))).requires_grad_()
    before = mmd(mean.detach(), space.sample(2000, seed=0))
    objective, adam = InfoVAE(1.0, 1000.0), torch.optim.Adam([mean], lr=0.05)
    for step in range(400):
        q = Posterior(space, {"z": NormalDistribution(mean, torch.full_like(mean, 0.1))})
        z = q.rsample(torch.Generator().manual_seed(step))
        terms = ElboTerms(torch.zeros(64, 1, 1, 1), q, z, torch.zeros(64), q.kl())
        adam.zero_grad()
        objective(terms, step, torch.Generator().manual_seed(1000 + step)).total.backward()
        adam.step()
    middle = mean.detach().median(0).values
    assert middle.abs().max() < 0.4 and (mean.detach() - middle).abs().median() == pytest.approx(
        0.67, abs=0.25
    )
    assert mmd(mean.detach(), space.sample(2000, seed=0)) < 0.05 * before
