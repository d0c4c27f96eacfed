"""The VQ-VAE: quantisation against brute force, gradients by side, and the learned prior by enumeration."""

import itertools
import math

import pytest
import torch
from scipy.stats import chi2

from latentlab.analysis import encode_dataset, interpolate, traverse, traverse_grid
from latentlab.config import AnnealedVAE, Experiment, VQVAEConfig
from latentlab.data import open_dataset
from latentlab.latents import Block, Codebook, LatentSpace, Posterior
from latentlab.metrics.features import between
from latentlab.models.build import build_model
from latentlab.models.code_prior import CodePrior
from latentlab.models.contract import TermsRequest, is_inference_model, weights_digest
from latentlab.models.edits import Edit
from latentlab.models.vq import VQVAE, Quantised
from latentlab.objectives.variational import BetaVAE


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(channels: int = 1, size: int = 28, **changes) -> VQVAE:
    given = {"codes": 5, "code_dim": 4, "width": 4, "prior_width": 16, "prior_layers": 1, **changes}
    model = build_model(VQVAEConfig(**given), (channels, size, size))
    with torch.no_grad():  # spread, so that images have different codes
        model.lookup.weight.normal_(generator=noise(9)).mul_(0.1)
        model.prior.output.weight.mul_(8.0)
    return model


def pictures(n: int = 3, channels: int = 1, size: int = 28) -> torch.Tensor:
    return torch.rand(n, channels, size, size, generator=noise(4))


def every_code(size: int, positions: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product(range(size), repeat=positions)))


@pytest.mark.parametrize(
    ("channels", "size", "halvings", "grid"),
    [(1, 28, 3, 3), (3, 32, 2, 8), (1, 45, 4, 2), (3, 64, 3, 8), (1, 128, 5, 4)],
)
def test_every_size_trains_all_its_parameters(channels, size, halvings, grid):
    """Would catch: a prior, a codebook or an encoder that the loss does not reach."""
    model = small(channels, size, halvings=halvings)
    assert is_inference_model(model)
    x = pictures(1, channels, size)
    terms = model.elbo_terms(x, noise())
    assert terms.z.shape == terms.kl.shape == (1, grid**2)
    BetaVAE().loss(terms, 0, noise()).total.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.decode(terms.z).shape == x.shape


def test_every_position_gets_the_nearest_code():
    """Would catch: a nearest code by dot product, or positions and vector entries taken for each other."""
    lookup = small(codes=7).lookup
    vectors = torch.randn(3, 4, 3, 3, generator=noise()) * 0.1
    found = lookup.nearest(vectors)
    for b, i in itertools.product(range(3), range(9)):
        away = (lookup.weight - vectors[b, :, i // 3, i % 3]).square().sum(1)
        assert found[b, i] == away.argmin()
    assert len(found.unique()) > 2
    assert torch.equal(lookup(found.float())[1, :, 2, 0], lookup.weight[found[1, 6]])
    assert torch.equal(lookup.nearest(lookup(found.float())), found)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(lookup.nearest(vectors), found)


def test_the_reconstruction_passes_the_quantisation_as_if_it_were_not_there():
    """Would catch: no straight-through, the codebook pulled by the reconstruction, the encoder's vectors decoded."""
    model = small()
    x = pictures()
    terms = model.elbo_terms(x, noise())
    q = terms.posterior.parts["codes"]
    codes = model.lookup(terms.z).detach().requires_grad_()
    direct = model.observation(model.generator.run(codes, start="codes")).log_prob(x)
    assert torch.allclose(terms.log_likelihood, direct, rtol=1e-5)
    (at_codes,) = torch.autograd.grad(direct.sum(), codes)
    (at_vectors,) = torch.autograd.grad(terms.log_likelihood.sum(), q.vectors, retain_graph=True)
    assert torch.allclose(at_vectors, at_codes, rtol=1e-4, atol=1e-5) and at_codes.abs().sum() > 0.0
    (at_codebook,) = torch.autograd.grad(
        terms.log_likelihood.sum(), model.lookup.weight, allow_unused=True, retain_graph=True
    )
    assert at_codebook is None or not at_codebook.any()


def test_the_two_distances_pull_at_one_side_each():
    """Would catch: both at the encoder, both at the codebook, sides swapped, a weight left out or at the wrong one."""
    model = small(commitment=0.25)
    terms = model.elbo_terms(pictures(), noise())
    vectors, weight = terms.posterior.parts["codes"].vectors, model.lookup.weight
    away = (vectors - model.lookup(terms.z)).detach()
    distance = away.square().sum((1, 2, 3))
    assert torch.allclose(terms.extra["codebook"], distance)
    assert torch.allclose(terms.extra["commitment"], 0.25 * distance)

    def sides(name):
        return torch.autograd.grad(
            terms.extra[name].sum(), (vectors, weight), allow_unused=True, retain_graph=True
        )

    at_vectors, at_weight = sides("codebook")
    assert at_vectors is None
    expected = torch.zeros_like(weight).index_add_(
        0, terms.z.long().flatten(), (-2.0 * away).flatten(2).transpose(1, 2).reshape(-1, 4)
    )
    assert torch.allclose(at_weight, expected, atol=1e-6)
    at_vectors, at_weight = sides("commitment")
    assert at_weight is None and torch.allclose(at_vectors, 0.5 * away, atol=1e-6)


def test_the_kl_is_minus_log_prior_and_trains_the_prior_alone():
    """Would catch: the KL to a uniform prior, or a prior whose gradient bends the codes to what is easy to guess."""
    model = small()
    terms = model.elbo_terms(pictures(), noise())
    log_prior = model.prior.log_prob(terms.z.long())
    assert torch.allclose(terms.kl, -log_prior)
    terms.kl.sum().backward()
    for name, parameter in model.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.any())
        assert reached == name.startswith("prior."), name


@pytest.mark.parametrize(("size", "positions"), [(2, 3), (3, 2), (3, 1)])
def test_the_priors_probabilities_sum_to_one_over_all_codes(size, positions):
    """Would catch: logits shifted by a position, so that an index is given itself or nothing at all."""
    prior = CodePrior(size, positions, width=16, layers=2).requires_grad_(False)
    for i, parameter in enumerate(prior.parameters()):
        parameter.normal_(generator=noise(i)).mul_(0.7)
    log_prob = prior.log_prob(every_code(size, positions)).sum(1)
    assert log_prob.exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    assert log_prob.std() > 0.05  # far from uniform, where any order would do


def test_an_index_is_guessed_from_those_before_it_alone_and_from_all_of_them():
    """Would catch: attention that sees what it is to guess, and a prior that looks no further than one back."""
    prior = CodePrior(4, 6, width=16, layers=2)
    rows = torch.randint(4, (1, 6), generator=noise(1))
    before = prior(rows)
    for i in range(6):
        changed = rows.clone()
        changed[0, i] = (rows[0, i] + 1) % 4
        same = [torch.allclose(before[0, j], prior(changed)[0, j], atol=1e-6) for j in range(6)]
        assert same == [j <= i for j in range(6)]
    assert torch.allclose(prior(rows[:, :2]), before[:, :3], atol=1e-6)  # a shorter row is its beginning


def test_samples_follow_the_priors_probabilities():
    """Would catch: positions drawn independently, from a neighbour's distribution, or with the uniform prior."""
    prior = CodePrior(3, 2, width=16, layers=1).requires_grad_(False)
    for i, parameter in enumerate(prior.parameters()):
        parameter.normal_(generator=noise(20 + i)).mul_(0.5)
    n = 8000
    expected = prior.log_prob(every_code(3, 2)).sum(1).exp() * n
    drawn = prior.sample(n, noise(7))
    counts = torch.bincount(3 * drawn[:, 0] + drawn[:, 1], minlength=9)
    seen = expected > 5
    assert seen.sum() >= 4
    statistic = ((counts - expected).square() / expected)[seen].sum().item()
    assert statistic < chi2.ppf(0.999, int(seen.sum()))
    first, second = (torch.bincount(drawn[:, i], minlength=3) / n for i in (0, 1))
    apart = ((n * torch.outer(first, second).flatten() - expected).square() / expected)[seen].sum().item()
    assert apart > 3 * chi2.ppf(0.999, 8)  # the test would notice positions drawn apart


def test_a_models_samples_are_the_learned_priors_and_follow_the_seed():
    """Would catch: sample_codes of the space's uniform prior, and draws from the process's generator."""
    model = small()
    with torch.no_grad():
        model.prior.output.bias.zero_()[3] = 50.0
    state = torch.get_rng_state()
    z = model.sample_codes(5, 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert z.dtype == torch.float32 and (z == 3.0).all()
    other = small()
    assert torch.equal(other.sample_codes(6, 1), other.sample_codes(6, 1))
    assert not torch.equal(other.sample_codes(6, 1), other.sample_codes(6, 2))
    assert torch.equal(other.sample(2, 0), other.decode(other.sample_codes(2, 0)))
    assert other.sample_codes(0, 1).shape == (0, 9)


def test_at_beta_one_the_loss_is_the_bound_and_the_bound_lies_below_the_evidence():
    """Would catch: terms that are averaged, counted twice or left out, or a bound above log p(x) by enumeration."""
    model = small(codes=2).requires_grad_(False)
    x = pictures(2)
    terms = model.elbo_terms(x, noise())
    bound = model.likelihood(terms.z).log_prob(x) + model.prior.log_prob(terms.z.long()).sum(1)
    extra = terms.extra["codebook"] + terms.extra["commitment"]
    loss = BetaVAE(1.0).loss(terms, 0, noise())
    assert loss.total.item() == pytest.approx((extra - bound).mean().item(), rel=1e-5)
    assert {"reconstruction", "kl", "codebook", "commitment"} <= set(loss.terms)
    codes = every_code(2, 9)
    joint = torch.stack(
        [model.likelihood(codes.float()).log_prob(picture.expand(512, 1, 28, 28)) for picture in x]
    ) + model.prior.log_prob(codes).sum(1)
    assert (bound <= joint.logsumexp(1) + 1e-3).all()


def test_codes_are_numbers_that_are_rounded_and_cut_off():
    model = small()
    z = torch.tensor([[-3.0, 0.4, 1.6, 99.0, 2.0, 3.0, 4.0, 4.4, 0.0]])
    clean = torch.tensor([[0.0, 0.0, 2.0, 4.0, 2.0, 3.0, 4.0, 4.0, 0.0]])
    assert torch.equal(model.decode(z), model.decode(clean))
    with pytest.raises(ValueError, match=r"Expected codes \(batch, 9\)"):
        model.decode(z[:, :8])


def test_the_posterior_is_sure_and_its_code_decodes_to_the_reconstruction():
    model = small()
    x = pictures()
    posterior = model.encode(x)
    assert isinstance(posterior.parts["codes"], Quantised)
    assert torch.equal(posterior.code(), posterior.mean) and torch.equal(posterior.sample(3), posterior.mean)
    assert not posterior.variance.any() and torch.isfinite(posterior.log_var).all()
    assert not posterior.log_prob(posterior.mean).any()
    assert posterior.pairwise_log_prob(posterior.mean).shape == (3, 3, 9)
    terms = model.elbo_terms(x, noise(), TermsRequest(samples=2), posterior=posterior)
    assert (
        terms.posterior is posterior and terms.z.shape == (2, 3, 9) and terms.log_likelihood.shape == (2, 3)
    )
    silent = model.elbo_terms(x, noise(), TermsRequest(decode=False))
    assert silent.log_likelihood is None and set(silent.extra) == {"codebook", "commitment"}
    other = Posterior(posterior.space, {"codes": torch.distributions.Normal(posterior.mean, 1.0)})
    with pytest.raises(TypeError, match="learns from a posterior of its own encode; got a Normal"):
        model.elbo_terms(x, noise(), posterior=other)
    with pytest.raises(ValueError, match=r"Expected images \(batch, 1, 28, 28\); got \(3, 3, 28, 28\)"):
        model.encode(pictures(channels=3))


def test_its_stages_can_be_opened_and_edited():
    model = small()
    x, z = pictures(), model.sample_codes(3, 0)
    assert model.encoder.activations(x)["vectors"].shape == (3, 4, 3, 3)
    assert model.generator.activations(z)["codes"].shape == (3, 4, 3, 3)
    edited = model.decode(z, [Edit("generator.codes", units=(1,))])
    assert not torch.equal(edited, model.decode(z))
    assert not torch.equal(model.encode(x, [Edit("encoder.vectors")]).mean, model.encode(x).mean)
    assert weights_digest(small()) == weights_digest(small()) != weights_digest(small(codes=6))


def test_a_traversal_runs_over_indices():
    """Would catch: a strip between quantiles, which decodes fractions, or the indices taken for an order."""
    model = small(codes=8)
    result = traverse(model, None, ["codes4"], steps=3)
    assert result.values.tolist() == [[0.0, 4.0, 7.0]] and result.categorical == (True,)
    assert result.certificate["off_axis"] == 0.0 and result.certificate["contains_start"] == 1.0
    every = traverse(model, None, ["codes4", "codes0"], steps=11)
    assert every.lengths.tolist() == [8, 8] and every.values[0].tolist() == list(range(8))
    given = traverse(model, None, "codes2", values=[5, 1])
    assert given.z[0, :, 2].tolist() == [5.0, 1.0]
    with pytest.raises(ValueError, match=r"codes2 is an index of a codebook, .* 0 to 7; got \[0.5\]"):
        traverse(model, None, "codes2", values=[0.5])
    with pytest.raises(ValueError, match="two different coordinates with an order"):
        traverse_grid(model, None, ("codes0", "codes1"))
    a, b = model.sample_codes(2, 0)
    with pytest.raises(
        ValueError, match="no path between the indices of a codebook, and space 'z' holds some"
    ):
        interpolate(model, a, b)


def test_paths_between_codes_leave_indices_alone():
    """Would catch: a path length of blended indices, which no model was trained to decode."""
    space = LatentSpace([Block("codes", 2, Codebook(9)), Block("z", 2)])
    a, b = space.sample(2, seed=0).split(1)
    middle = between(space, a, b, torch.tensor([[0.5]]))
    assert torch.equal(middle[:, :2], a[:, :2]) and not torch.equal(middle[:, 2:], a[:, 2:])
    with pytest.raises(ValueError, match="Categories have no path between them"):
        between(small().latent_space, torch.zeros(1, 9), torch.ones(1, 9), torch.tensor([[0.5]]))


def test_an_encoding_holds_its_indices_and_their_surprise():
    """Would catch: encodings whose KL is that of a uniform prior, or not finite where nothing varies."""
    model = small(size=64)
    data = open_dataset("sprites")
    encoding = encode_dataset(model, data, 20, reconstruction=True)
    x = data.images(torch.tensor(encoding.indices))
    posterior = model.encode(x)
    assert torch.equal(torch.tensor(encoding.mean), posterior.mean)
    assert torch.allclose(torch.tensor(encoding.kl), posterior.kl(), atol=1e-5)
    assert math.isfinite(encoding.log_var.sum()) and math.isfinite(encoding.certificate["prior_gap"])


def test_building_is_seeded_touches_no_global_generator_and_needs_no_memory_on_the_meta_device():
    """Would catch: a codebook or an embedding drawn from the process's generator."""
    config = VQVAEConfig(codes=5, code_dim=4, width=4, prior_width=16)
    state = torch.get_rng_state()
    digests = [weights_digest(build_model(config, (1, 28, 28), seed)) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert digests[0] == digests[1] != digests[2]
    with torch.device("meta"):
        giant = build_model(VQVAEConfig(codes=8192, code_dim=512, width=512), (3, 128, 128))
    assert all(t.device.type == "meta" for t in giant.state_dict().values())


def test_what_it_can_not_be_is_refused():
    with pytest.raises(
        ValueError, match=r"trained by the objective beta-vae: .* 'annealed-vae' has nothing to weigh"
    ):
        Experiment(model=VQVAEConfig(), objective=AnnealedVAE())
    with pytest.raises(ValueError, match=r"28 pixels is halved 3 times at most; got model\.halvings 4"):
        small(halvings=4)
    with pytest.raises(ValueError, match="leave 64 x 64 positions; at most 1024 can be modelled"):
        small(size=128, halvings=1)
    with pytest.raises(ValueError, match=r"model\.prior_width must be a multiple of 16; got 24"):
        VQVAEConfig(prior_width=24)
    with pytest.raises(ValueError, match=r"model.codes must lie in \[2, 8192\]; got 1"):
        VQVAEConfig(codes=1)
