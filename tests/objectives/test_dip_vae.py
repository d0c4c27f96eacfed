"""DIP-VAE: the covariance that is drawn to the identity."""

import pytest
import torch
from torch.distributions import Normal as NormalDistribution

from latentlab.config import DIPVAE as DIPVAEConfig
from latentlab.config import Schedule, VAEConfig
from latentlab.latents import Block, Categorical, LatentSpace, Posterior
from latentlab.models.build import build_model
from latentlab.models.contract import ElboTerms
from latentlab.objectives.build import build_objective
from latentlab.objectives.dip_vae import DIPVAE, code_covariance
from latentlab.objectives.variational import DataDescription

CHANCE = torch.Generator()


def posterior(batch: int, dim: int = 3, spread: float = 0.6, seed: int = 0) -> Posterior:
    chance = torch.Generator().manual_seed(seed)
    mean = spread * torch.randn(batch, dim, generator=chance)
    # Each dimension has a variance of its own, so that a mean over dimensions shows.
    variance = torch.linspace(0.1, 1.3, dim) * (0.5 + torch.rand(batch, dim, generator=chance))
    return Posterior(LatentSpace([Block("z", dim)]), {"z": NormalDistribution(mean, variance.sqrt())})


def terms_of(q: Posterior) -> ElboTerms:
    return ElboTerms(torch.zeros(len(q.mean), 1, 1, 1), q, q.mean, torch.zeros(len(q.mean)), q.kl())


def test_the_covariance_is_that_of_the_means_or_of_draws():
    """Would catch: D8, means centred over latents, not divided by the batch, or the variance squared."""
    q = posterior(50_000)
    first, second = code_covariance(q, "i"), code_covariance(q, "ii")
    assert torch.allclose(first, torch.cov(q.mean.T, correction=0), atol=1e-5)
    assert torch.allclose(second, torch.cov(q.sample(1).T), atol=0.03)
    mean, log_var = q.mean, q.log_var
    centred = mean - mean.mean(1, keepdim=True)
    d8 = centred.T @ centred + (2 * log_var).exp().mean()
    assert not torch.allclose(d8, second, atol=0.3)


def test_the_posterior_variance_is_added_to_the_diagonal_alone():
    """Would catch: D9, a scalar mean of some variances added to every entry."""
    q = posterior(64)
    added = code_covariance(q, "ii") - code_covariance(q, "i")
    assert torch.allclose(added, torch.diag(q.variance.mean(0)), atol=1e-6)
    d9 = torch.diag(q.variance).mean()
    assert not torch.allclose(added, d9.expand(3, 3), atol=0.1)


def test_the_penalty_of_codes_that_follow_the_prior_vanishes_as_the_batch_grows():
    """Would catch: a covariance whose diagonal has no posterior variance, never 1 for codes that follow the prior."""
    penalties = []
    for batch in (100, 10_000, 1_000_000):
        mean = 0.6 * torch.randn(batch, 4, generator=torch.Generator().manual_seed(0))
        q = Posterior(
            LatentSpace([Block("z", 4)]), {"z": NormalDistribution(mean, torch.full_like(mean, 0.8))}
        )
        loss = DIPVAE(q.space, "ii", 1.0)(terms_of(q), 0, CHANCE)
        penalties.append(sum(loss.terms[f"covariance_{k}"].item() for k in ("diagonal", "off_diagonal")))
    assert penalties[0] > 10 * penalties[1] > 100 * penalties[2] and penalties[2] < 1e-4
    first = DIPVAE(q.space, "i", 1.0)(terms_of(q), 0, CHANCE)
    assert first.terms["covariance_diagonal"].item() == pytest.approx(4 * (1 - 0.36) ** 2, rel=0.01)


@pytest.mark.parametrize(("variant", "usual"), [("i", 20.0), ("ii", 2.0)])
def test_the_loss_by_hand_and_the_usual_weight_of_the_diagonal(variant, usual):
    """Would catch: entries off the diagonal counted once instead of twice, or one default for both variants."""
    q = posterior(32)
    c = code_covariance(q, variant)
    off = sum(c[i, j] ** 2 for i in range(3) for j in range(3) if i != j)
    on = sum((c[i, i] - 1) ** 2 for i in range(3))
    kl = q.kl().sum(1).mean()
    loss = DIPVAE(q.space, variant, 2.0)(terms_of(q), 0, CHANCE)
    assert loss.total.item() == pytest.approx((kl + 2.0 * off + usual * on).item(), rel=1e-5)
    other = DIPVAE(q.space, variant, 2.0, 5.0)(terms_of(q), 0, CHANCE)
    assert other.total.item() == pytest.approx((kl + 2.0 * off + 5.0 * on).item(), rel=1e-5)


def test_the_weight_of_the_diagonal_follows_a_schedule_of_the_other():
    """Would catch: a default worked out once, at the schedule's start."""
    q = posterior(32)
    objective = DIPVAE(q.space, "i", Schedule("linear", 0.0, 2.0, 10))
    plain = DIPVAE(q.space, "i", 2.0)(terms_of(q), 0, CHANCE)
    assert objective(terms_of(q), 10, CHANCE).total.item() == plain.total.item()
    assert objective(terms_of(q), 0, CHANCE).total.item() == pytest.approx(q.kl().sum(1).mean().item())


def test_a_category_is_refused_in_a_sentence():
    """Would catch: one-hot coordinates drawn to variance 1, which they can't have."""
    model = build_model(VAEConfig(width=4, hidden=8), (1, 28, 28))
    model.latent_space = LatentSpace([Block("z", 2), Block("kind", 3, Categorical)])
    with pytest.raises(
        ValueError, match="means nothing for block 'kind' with its categorical prior; use normal"
    ):
        build_objective(DIPVAEConfig(), model, DataDescription(100, (1, 28, 28)))
