"""Adversarial losses against closed forms; penalties against gradients by hand."""

import math

import pytest
import torch
from torch import nn

from latentlab.config import Adversarial as AdversarialConfig
from latentlab.config import BetaVAE, GANConfig
from latentlab.models.build import build_model
from latentlab.objectives.adversarial import (
    R1,
    GradientPenalty,
    Hinge,
    NonSaturating,
    Wasserstein,
    build_adversarial,
)

REAL, FAKE = torch.tensor([2.0, 0.3, -1.5]), torch.tensor([-3.0, -0.2, 0.7])


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_logistic_loss_is_the_cross_entropy_with_flipped_labels_for_the_generator():
    """Would catch: the saturating form log(1 - D(G(z))), and a sum or half where the mean belongs."""
    loss = NonSaturating()
    sigmoid = lambda t: 1.0 / (1.0 + math.exp(-t))  # noqa: E731
    real = sum(-math.log(sigmoid(s)) for s in REAL.tolist()) / 3
    fake = sum(-math.log(1.0 - sigmoid(s)) for s in FAKE.tolist()) / 3
    assert loss.discriminator(REAL, FAKE).item() == pytest.approx(real + fake, rel=1e-6)
    flipped = sum(-math.log(sigmoid(s)) for s in FAKE.tolist()) / 3
    assert loss.generator(FAKE).item() == pytest.approx(flipped, rel=1e-6)
    bce = nn.functional.binary_cross_entropy_with_logits
    pair = bce(REAL, torch.ones(3)) + bce(FAKE, torch.zeros(3))
    assert loss.discriminator(REAL, FAKE).item() == pytest.approx(pair.item(), rel=1e-6)
    assert loss.verdict(torch.zeros(1)).item() == 0.5
    assert loss.discriminator(torch.zeros(4), torch.zeros(4)).item() == pytest.approx(2 * math.log(2))


def test_the_logistic_generator_learns_most_where_the_discriminator_is_surest():
    """Would catch: a gradient that vanishes for fakes that are found out, and an overflow at large scores."""
    scores = torch.tensor([-500.0, -8.0, 0.0, 8.0], requires_grad=True)
    NonSaturating().generator(scores).backward()
    by_hand = torch.tensor([-1.0, -1 / (1 + math.exp(-8.0)), -0.5, -1 / (1 + math.exp(8.0))]) / 4
    assert torch.allclose(scores.grad, by_hand, atol=1e-7)
    assert math.isfinite(NonSaturating().discriminator(torch.tensor([-900.0]), torch.tensor([900.0])).item())


def test_hinge_and_wasserstein_are_their_closed_forms():
    """Would catch: a margin on the wrong side, a hinged generator, real and fake exchanged."""
    hinge = (0.0 + 0.7 + 2.5) / 3 + (0.0 + 0.8 + 1.7) / 3
    assert Hinge().discriminator(REAL, FAKE).item() == pytest.approx(hinge, rel=1e-6)
    assert Hinge().generator(FAKE).item() == pytest.approx(2.5 / 3, rel=1e-6)
    assert Wasserstein().discriminator(REAL, FAKE).item() == pytest.approx(-2.5 / 3 - 0.8 / 3, rel=1e-6)
    assert Wasserstein().generator(FAKE).item() == pytest.approx(2.5 / 3, rel=1e-6)
    assert Hinge().verdict(REAL) is REAL and Wasserstein().verdict(REAL) is REAL
    scores = torch.tensor([3.0, 0.5], requires_grad=True)
    Hinge().discriminator(scores, torch.tensor([-3.0, -3.0])).backward()
    assert scores.grad.tolist() == [0.0, -0.5]  # beyond the margin nothing is gained


@pytest.mark.parametrize("loss", [NonSaturating(), Wasserstein(), Hinge()])
def test_the_two_players_pull_the_fakes_score_in_opposite_directions(loss):
    """Would catch: a sign by which generator and discriminator help each other."""
    for_generator = torch.tensor([0.1, -0.2], requires_grad=True)
    for_discriminator = torch.tensor([0.1, -0.2], requires_grad=True)
    real = torch.tensor([0.1, 0.2], requires_grad=True)
    loss.generator(for_generator).backward()
    loss.discriminator(real, for_discriminator).backward()
    assert (for_generator.grad < 0).all() and (for_discriminator.grad > 0).all() and (real.grad < 0).all()


class Quadratic(nn.Module):
    """D(x) = w . y + y . A y / 2 for pixels y = 2x - 1 in [-1, 1]; its gradient there is w + (A + A') y / 2."""

    def __init__(self, pixels: int):
        super().__init__()
        self.w = nn.Parameter(torch.randn(pixels, generator=noise(1), dtype=torch.float64))
        self.a = nn.Parameter(torch.randn(pixels, pixels, generator=noise(2), dtype=torch.float64) * 0.3)

    def forward(self, x):
        y = (2 * x - 1).flatten(1)
        return y @ self.w + 0.5 * torch.einsum("bi,ij,bj->b", y, self.a, y)

    def slopes(self, x):
        y = (2 * x - 1).flatten(1)
        return self.w + 0.5 * y @ (self.a + self.a.T)


def images(seed: int, batch: int = 5) -> torch.Tensor:
    return torch.rand(batch, 1, 3, 3, generator=noise(seed), dtype=torch.float64)


def with_gradients(module, value):
    return torch.autograd.grad(value, list(module.parameters()))


def test_r1_is_half_the_squared_slope_at_real_images_by_hand():
    """Would catch: a mean over pixels, a missing half, slopes at the fakes, slopes per unit of [0, 1]."""
    module, real, fake = Quadratic(9), images(3), images(4)
    penalty = R1(6.0)(module, real, fake, noise())
    by_hand = 0.5 * 6.0 * module.slopes(real).square().sum(1).mean()
    assert penalty.item() == pytest.approx(by_hand.item(), rel=1e-12)
    for found, expected in zip(with_gradients(module, penalty), with_gradients(module, by_hand), strict=True):
        assert torch.allclose(found, expected, rtol=1e-10)
    assert not real.requires_grad and real.grad is None


def test_the_gradient_penalty_is_that_of_points_between_real_and_fake_by_hand():
    """Would catch: one share for the whole batch, a one-sided penalty, a square in place of the length."""
    module, real, fake = Quadratic(9), images(3), images(4)
    penalty = GradientPenalty(10.0)(module, real, fake, noise(7))
    share = torch.rand((5, 1, 1, 1), generator=noise(7))
    lengths = module.slopes(share * real + (1 - share) * fake).norm(dim=1)
    by_hand = 10.0 * (lengths - 1.0).square().mean()
    assert penalty.item() == pytest.approx(by_hand.item(), rel=1e-9)
    for found, expected in zip(with_gradients(module, penalty), with_gradients(module, by_hand), strict=True):
        assert torch.allclose(found, expected, rtol=1e-8)
    assert len(share.unique()) == 5
    assert not torch.equal(GradientPenalty(10.0)(module, real, fake, noise(8)), penalty)


def test_a_discriminator_of_slope_one_costs_no_gradient_penalty_and_a_flat_one_has_a_gradient():
    """Would catch: a slope of one per unit of [0, 1], and a nan where the slope vanishes."""

    class Linear(nn.Module):
        def __init__(self, length):
            super().__init__()
            self.w = nn.Parameter(torch.full((9,), length / 3.0, dtype=torch.float64))

        def forward(self, x):
            return (2 * x - 1).flatten(1) @ self.w

    assert GradientPenalty(10.0)(Linear(1.0), images(1), images(2), noise()).item() < 1e-12
    flat = Linear(0.0)
    penalty = GradientPenalty(10.0)(flat, images(1), images(2), noise())
    assert penalty.item() == pytest.approx(10.0, rel=1e-4)
    assert torch.isfinite(with_gradients(flat, penalty)[0]).all()


@pytest.mark.parametrize("penalty", [R1(10.0), GradientPenalty(10.0)])
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_penalties_of_the_stock_network_are_those_of_finite_differences(penalty, spectral_norm):
    """Would catch: in-place activations or spectral layers that break the second derivative."""
    model = build_model(GANConfig(width=4, latents=3, spectral_norm=spectral_norm), (1, 28, 28)).double()
    with torch.no_grad():
        for p in model.discriminator.parameters():
            p.add_(torch.randn(p.shape, generator=noise(5), dtype=p.dtype) * 0.05)
    real, fake = (torch.rand(3, 1, 28, 28, generator=noise(s), dtype=torch.float64) for s in (1, 2))
    weight = model.discriminator.stages["conv2"][0].weight

    def value():
        return penalty(model.discriminate, real, fake, noise(3))

    (gradient,) = torch.autograd.grad(value(), weight)
    direction = gradient / gradient.norm()
    values = []
    with torch.no_grad():
        for sign in (1.0, -1.0):
            weight.add_(direction, alpha=sign * 1e-6)
            with torch.enable_grad():
                values.append(value().item())
            weight.sub_(direction, alpha=sign * 1e-6)
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(gradient.norm().item(), rel=1e-3)


def test_an_objective_is_built_as_configured():
    """Would catch: a word in the configuration that chooses another loss or drops the weight."""
    built = build_adversarial(AdversarialConfig(loss="hinge", penalty="gradient", penalty_weight=4.0))
    assert built.loss == Hinge() and built.penalty == GradientPenalty(4.0)
    assert build_adversarial(AdversarialConfig(penalty_weight=3.0)).penalty == R1(3.0)
    wasserstein = build_adversarial(AdversarialConfig(loss="wasserstein", penalty="none"))
    assert wasserstein.loss == Wasserstein() and wasserstein.penalty is None
    with pytest.raises(TypeError, match="No adversarial objective for BetaVAE"):
        build_adversarial(BetaVAE())
