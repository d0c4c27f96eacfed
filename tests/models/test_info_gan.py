"""InfoGAN: a bound that meets exact information, an encoder on the discriminator's trunk, codes shared in pairs."""

import copy
import math

import pytest
import torch
from torch.distributions import Normal as NormalDistribution
from torch.distributions import OneHotCategorical

from latentlab.config import BlockConfig, InfoGANConfig
from latentlab.latents import Block, Categorical, LatentSpace, Normal, Posterior, Uniform
from latentlab.models.build import build_model
from latentlab.models.code_contrast import CodeContrast, draw_pairs
from latentlab.models.contract import is_inference_model, weights_digest
from latentlab.models.edits import Edit
from latentlab.models.gan import Forged
from latentlab.models.info_gan import InfoGAN, information
from latentlab.runs import load_weights, save_weights

SHAPE = (1, 28, 28)


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(**changes) -> InfoGAN:
    model = build_model(InfoGANConfig(**{"width": 4, "latents": 3, **changes}), SHAPE)
    assert isinstance(model, InfoGAN)
    return model


def test_the_bound_meets_the_exact_information_of_a_channel_with_its_exact_posterior():
    """Would catch: a lost entropy, a sum over categories, bits for nats; and a bound that is none."""
    joint = torch.tensor(
        [[8.0, 2.0, 0.0, 0.0], [1.0, 7.0, 1.0, 1.0], [0.0, 0.0, 5.0, 5.0]]
    )  # c by x, c uniform
    share = joint / joint.sum()
    exact = (share * (share / (share.sum(1, keepdim=True) * share.sum(0))).clamp_min(1e-30).log()).sum()
    pairs = [(c, x) for c in range(3) for x in range(4) for _ in range(int(joint[c, x]))]
    codes = torch.eye(3)[[c for c, _ in pairs]]
    space = LatentSpace([Block("c", 3, Categorical)])

    def bound(given_x):
        q = OneHotCategorical(probs=given_x[:, [x for _, x in pairs]].T, validate_args=False)
        return information(Posterior(space, {"c": q}), codes, space.blocks)["c"].item()

    truth = share / share.sum(0)
    assert bound(truth) == pytest.approx(exact.item(), abs=1e-5)
    assert exact < math.log(3)
    for seed in range(5):
        wrong = torch.rand((3, 4), generator=chance(seed)) + 0.05
        assert bound(wrong / wrong.sum(0)) < exact
    # Where the code can be read off, the bound is all the entropy there is, and not more.
    certain = torch.eye(3).repeat(4, 1)
    q = Posterior(space, {"c": OneHotCategorical(logits=100.0 * certain, validate_args=False)})
    assert information(q, certain, space.blocks)["c"].item() == pytest.approx(math.log(3), abs=1e-5)


def test_the_bound_of_continuous_codes_is_that_of_a_gaussian_channel():
    """Would catch: a variance for a standard deviation, a missing prior, coordinates averaged in place of summed."""
    n, noise = 40_000, 0.5
    space = LatentSpace([Block("c", 2, Normal), Block("u", 1, Uniform), Block("noise", 1, Normal)])
    codes = space.draw(n, chance())
    x = codes[:, :2] + noise * torch.randn((n, 2), generator=chance(1))
    variance = noise**2 / (1 + noise**2)
    unknown = NormalDistribution(torch.zeros(n, 1), torch.ones(n, 1))
    read = codes[:, 2:3] + 0.01 * torch.randn((n, 1), generator=chance(2))
    q = Posterior(
        space,
        {
            "c": NormalDistribution(x / (1 + noise**2), torch.full((n, 2), variance**0.5)),
            "u": NormalDistribution(read, torch.full((n, 1), 0.01)),
            "noise": unknown,
        },
    )
    found = information(q, codes, space.blocks[:2])
    assert set(found) == {"c", "u"}
    assert found["c"].item() == pytest.approx(2 * 0.5 * math.log(1 + 1 / noise**2), abs=0.02)
    # ln 2 for the range less the noise's entropy.
    assert found["u"].item() == pytest.approx(
        math.log(2) - 0.5 * math.log(2 * math.pi * math.e * 1e-4), abs=0.02
    )


def test_the_encoder_tells_the_codes_and_knows_only_the_prior_of_the_noise():
    """Would catch: blocks in another order than the head's numbers, means out of range, a noise block made up."""
    blocks = [BlockConfig("u", 2, "uniform"), BlockConfig("class", 3, "categorical"), BlockConfig("n", 1)]
    model = small(blocks=blocks).eval()
    assert model.latent_space.block_names == ("u", "class", "n", "noise") and is_inference_model(model)
    with torch.no_grad():  # far from zero, so that bounds are met
        model.head["posterior"].weight.mul_(1e4)
    x = torch.rand((5, *SHAPE), generator=chance())
    q = model.encode(x)
    numbers = model.encoder.run(x)
    assert numbers.shape == (5, 4 + 3 + 2)
    assert torch.allclose(q.parts["u"].mean, numbers[:, :2].tanh())
    assert torch.allclose(q.parts["class"].probs, numbers[:, 4:7].softmax(1))
    assert torch.allclose(q.parts["n"].mean, numbers[:, 7:8])
    assert (q.parts["noise"].mean == 0).all() and (q.parts["noise"].stddev == 1).all()
    assert (q.parts["u"].stddev <= 1 / math.sqrt(3) + 1e-6).all() and (
        q.parts["u"].stddev >= 0.4 / math.sqrt(3) - 1e-6
    ).all()
    codes = q.code()
    assert codes.shape == (5, 9) and codes[:, :2].abs().max() <= 1.0
    assert torch.equal(codes[:, 2:5].sum(1), torch.ones(5))
    assert model.decode(codes).shape == x.shape and torch.isfinite(q.kl()).all()


def test_the_trunk_is_shared_and_its_weights_are_kept_once(tmp_path):
    """Would catch: an encoder with a trunk of its own, or one that a copy or a load leaves behind."""
    model = small()
    names = [name for name in model.state_dict() if ".conv1." in name]
    assert all(name.startswith("discriminator.") for name in names) and names
    save_weights(model, tmp_path / "weights.safetensors")
    with torch.device("meta"):
        loaded = build_model(InfoGANConfig(width=4, latents=3), SHAPE, seed=3)
    load_weights(loaded, tmp_path / "weights.safetensors")
    x = torch.rand((2, *SHAPE), generator=chance())
    for other in (loaded, copy.deepcopy(model)):
        assert weights_digest(other) == weights_digest(model)
        assert other.encoder.stages["conv1"] is other.discriminator.stages["conv1"]
        assert torch.equal(other.encode(x).mean, model.encode(x).mean)
    with torch.no_grad():
        loaded.discriminator.stages["conv1"][1].weight.mul_(2.0)
    assert not torch.equal(loaded.encode(x).mean, model.encode(x).mean)
    edited = model.encode(x, [Edit("encoder.conv2")])
    assert not torch.equal(edited.mean, model.encode(x).mean)
    trained = {id(p) for p in model.judging.parameters()}
    assert trained == {id(p) for n in ("encoder", "discriminator") for p in model.networks[n].parameters()}


def test_both_terms_reach_generator_and_head_and_log_their_bounds():
    """Would catch: a term that only one player sees, or information that is paid for instead of rewarded."""
    model = small(info_weight=2.0, cr_weight=0.5)
    codes = model.sample_codes(8, 0)

    def forge(z):
        return model.forge(model.generating, z, chance())

    forged = Forged(codes, forge(codes), forge, 0, chance(1))
    terms = model.further_terms()
    assert list(terms) == ["information", "contrast"] and list(small().further_terms()) == ["information"]
    total, logged = terms["information"](model, forged)
    assert set(logged) == {"information_class", "information_code"}
    assert total.item() == pytest.approx(-2.0 * sum(v.item() for v in logged.values()), rel=1e-5)
    assert logged["information_class"] <= math.log(10)
    total.backward(retain_graph=True)
    assert all(p.grad is not None and p.grad.any() for p in model.head.parameters())
    assert all(p.grad is not None for p in model.generator.parameters())
    model.zero_grad()
    contrast, logged = terms["contrast"](model, forged)
    assert contrast.item() == pytest.approx(0.5 * logged["contrast"].item(), rel=1e-6)
    contrast.backward()
    for part in (model.generator, terms["contrast"]):
        assert all(p.grad is not None for p in part.parameters())
    assert all(p.grad is None for p in model.judging.parameters())


@pytest.mark.parametrize("gap", [0.0, 0.2, 0.45])
def test_pairs_share_exactly_one_code_and_the_others_keep_their_distance(gap):
    """Would catch: the named code not shared, others shared too, a gap that presses codes out of their prior."""
    blocks = [
        Block("k", 3, Categorical),
        Block("u", 2, Uniform),
        Block("n", 1, Normal),
        Block("z", 2, Normal),
    ]
    space, n = LatentSpace(blocks), 8000
    first, second, shared = draw_pairs(space, [3, 4, 5], n, gap, chance())
    equal = (first == second)[:, 3:6]
    assert torch.equal(equal, torch.nn.functional.one_hot(shared, 3).bool())
    assert torch.bincount(shared).min() > n / 3 - 200
    assert not (first == second)[:, 6:].any() and not torch.equal(first[:, :3], second[:, :3])
    shares = [torch.cat([(c[:, 3:5] + 1) / 2, torch.special.ndtr(c[:, 5:6])], 1) for c in (first, second)]
    away = (shares[0] - shares[1]).abs()
    around = torch.minimum(away, 1 - away)
    assert around[~equal].min() >= gap - 1e-4 and around[equal].max() < 1e-6
    if gap:
        assert around[~equal].min() < gap + 0.01
    for codes in (first, second):  # each alone is a draw from the prior
        assert codes[:, 3:5].abs().max() <= 1.0
        assert torch.allclose(codes.mean(0), space.mean, atol=0.05)
        assert torch.allclose(codes.std(0), space.std, atol=0.05)
    again = draw_pairs(space, [3, 4, 5], n, gap, chance())
    assert torch.equal(again[1], second)


def test_codes_without_an_order_are_not_shared():
    space = LatentSpace([Block("k", 3, Categorical)])
    with pytest.raises(TypeError, match="Codes to be shared are uniform or normal; got Categorical"):
        draw_pairs(space, [0, 1], 4, 0.1, chance())
    with pytest.raises(ValueError, match="at least 2 continuous ones; got 1"):
        blocks = [Block("u", 1, Uniform), Block("z", 1, Normal)]
        CodeContrast(SHAPE, LatentSpace(blocks), CodeContrast.Settings(("u",)))


@pytest.mark.parametrize(("visible", "low", "high"), [(True, 0.7, 1.0), (False, 0.2, 0.5)])
def test_the_shared_code_is_guessed_where_images_show_it_and_not_where_they_do_not(visible, low, high):
    """Would catch: pairs put together wrongly, and a guess that reads the codes or a batch's order."""
    space = LatentSpace([Block("u", 3, Uniform), Block("z", 1, Normal)])
    term = CodeContrast(SHAPE, space, CodeContrast.Settings(("u",), width=4))
    generator = chance(5)
    with torch.no_grad():
        for p in term.parameters():
            p.copy_(0.15 * torch.randn(p.shape, generator=generator) if p.ndim > 1 else torch.zeros_like(p))

    def forge(codes):
        bands = torch.full((len(codes), *SHAPE), 0.5)
        for k in range(3 if visible else 0):
            bands[:, :, 9 * k : 9 * k + 9] = (0.5 + 0.5 * codes[:, k])[:, None, None, None]
        return bands

    optimiser = torch.optim.Adam(term.parameters(), lr=1e-2)
    seen = []
    for step in range(50):
        codes = space.draw(32, generator)
        loss, logged = term(None, Forged(codes, forge(codes), forge, step, generator))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen.append(logged["contrast_accuracy"].item())
    assert low <= sum(seen[-10:]) / 10 <= high


def test_the_gap_falls_to_nothing_along_a_line():
    space = LatentSpace([Block("u", 2, Uniform)])
    term = CodeContrast(SHAPE, space, CodeContrast.Settings(("u",), gap=0.4, gap_steps=100, width=4))
    assert [term.gap(step) for step in (0, 50, 100, 500)] == pytest.approx([0.4, 0.2, 0.0, 0.0])
    held = CodeContrast(SHAPE, space, CodeContrast.Settings(("u",), gap=0.4, width=4))
    assert held.gap(10_000) == 0.4


def test_what_has_no_codes_to_tell_is_refused():
    with pytest.raises(
        ValueError, match=r"An info-gan needs model\.blocks, the codes that are to be told; got none"
    ):
        InfoGANConfig(blocks=[])
    with pytest.raises(ValueError, match="at least 2 continuous codes, between which to guess; got 1"):
        InfoGANConfig(blocks=[BlockConfig("u", 1, "uniform")], cr_weight=1.0)
    with pytest.raises(ValueError, match=r"model.cr_gap must lie in \[0.0, 0.5\]; got 0.6"):
        InfoGANConfig(cr_gap=0.6)
    model = small()
    with pytest.raises(
        ValueError, match=r"Expected blocks among \['class', 'code', 'noise'\]; got \['pose'\]"
    ):
        InfoGAN(SHAPE, model.latent_space, model.generator, model.discriminator, {}, ["pose"])
    with pytest.raises(ValueError, match=r"Expected images \(batch, 1, 28, 28\)"):
        model.encode(torch.zeros(1, 3, 28, 28))
