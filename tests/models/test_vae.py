"""The VAE and its networks: every size and pair, the ELBO against closed forms, weights' identity."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from latentlab.config import BlockConfig, ModelConfig, VAEConfig
from latentlab.latents import Block, Categorical, LatentSpace
from latentlab.models.build import build_model
from latentlab.models.contract import GenerativeModel, TermsRequest, is_inference_model, weights_digest
from latentlab.models.edits import Edit
from latentlab.models.likelihoods import Bernoulli, Gaussian
from latentlab.models.staged import StagedNetwork
from latentlab.models.vae import VAE


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("network", ["burgess", "locatello", "pooled", "residual"])
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (1, 45), (3, 64), (1, 128)])
def test_every_network_takes_every_size_and_gives_every_parameter_a_gradient(network, channels, size):
    model = build_model(VAEConfig(network=network, width=8, hidden=32), (channels, size, size))
    assert is_inference_model(model) and isinstance(model, GenerativeModel)
    x = torch.rand(2, channels, size, size, generator=noise())
    terms = model.elbo_terms(x, noise())
    assert terms.z.shape == (2, 10) and terms.kl.shape == (2, 10) and terms.log_likelihood.shape == (2,)
    (terms.kl.sum() - terms.log_likelihood.sum()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    images = model.decode(terms.z)
    assert images.shape == x.shape and images.min() >= 0.0 and images.max() <= 1.0
    for network_name, h in (("generator", terms.z), ("encoder", x)):
        staged = model.networks[network_name]
        assert staged.name == network_name
        assert all(torch.isfinite(a).all() for a in staged.activations(h).values())
    edited = model.decode(terms.z, [Edit(model.generator.addresses[0])])
    assert not torch.allclose(edited, images)
    assert not torch.allclose(model.encode(x, [Edit("encoder.fc1")]).mean, model.encode(x).mean)


def test_the_reference_network_has_the_papers_layers():
    model = build_model(VAEConfig(), (1, 64, 64))
    convolutions = [m for m in model.encoder.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size, c.stride) for c in convolutions] == [(32, (4, 4), (2, 2))] * 4
    widths = [m.out_features for m in model.encoder.modules() if isinstance(m, nn.Linear)]
    assert widths == [256, 256, 20]
    study = build_model(VAEConfig(network="locatello"), (1, 64, 64))
    convolutions = [m for m in study.encoder.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size[0]) for c in convolutions] == [(32, 4), (32, 4), (64, 2), (64, 2)]
    back = [m.out_channels for m in study.generator.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert back == [64, 32, 32, 1]


def linear_gaussian_vae(dim: int = 2, scale: float = 0.3):
    """x = W z + b + noise on 2x2 images, with the exact posterior as its encoder."""
    g = noise(3)
    weight = torch.randn(4, dim, generator=g, dtype=torch.float64)
    bias = torch.randn(4, generator=g, dtype=torch.float64)
    precision = torch.eye(dim, dtype=torch.float64) + weight.T @ weight / scale**2
    # A diagonal posterior is exact only for orthogonal columns.
    weight, _ = torch.linalg.qr(weight)
    precision = torch.eye(dim, dtype=torch.float64) * (1.0 + 1.0 / scale**2)
    gain = torch.linalg.inv(precision) @ weight.T / scale**2

    generator, encoder = nn.Linear(dim, 4).double(), nn.Linear(4, 2 * dim).double()
    with torch.no_grad():
        generator.weight.copy_(weight)
        generator.bias.copy_(bias)
        encoder.weight.copy_(torch.cat([gain, torch.zeros_like(gain)]))
        encoder.bias.copy_(torch.cat([-gain @ bias, torch.full((dim,), -math.log(1.0 + 1.0 / scale**2))]))

    class Plain(nn.Module):
        def forward(self, outputs):
            flat = torch.distributions.Normal(outputs.double(), scale)
            return torch.distributions.Independent(flat, 3)

    model = VAE(
        (1, 2, 2),
        LatentSpace([Block("z", dim)]),
        StagedNetwork({"mu": nn.Sequential(nn.Flatten(), encoder)}, "encoder"),
        StagedNetwork({"out": nn.Sequential(generator, nn.Unflatten(1, (1, 2, 2)))}, "generator"),
        Plain(),
    )
    evidence = MultivariateNormal(bias, weight @ weight.T + scale**2 * torch.eye(4, dtype=torch.float64))
    return model, evidence


def test_with_the_exact_posterior_the_elbo_is_the_evidence():
    # The fakes: a KL averaged over dimensions, a likelihood averaged over pixels, a missing constant.
    model, evidence = linear_gaussian_vae()
    x = evidence.sample((1,)).view(1, 1, 2, 2)
    terms = model.elbo_terms(x.expand(200_000, 1, 2, 2), noise())
    elbo = (terms.log_likelihood - terms.kl.sum(1)).mean().item()
    assert elbo == pytest.approx(evidence.log_prob(x.flatten()).item(), abs=0.02)


def test_every_one_of_several_draws_weighs_the_evidence_under_the_exact_posterior():
    """Would catch: draws that are copies, images paired with another image's draws, a likelihood in wrong rows."""
    model, evidence = linear_gaussian_vae()
    x = evidence.sample((3,)).view(3, 1, 2, 2)
    terms = model.elbo_terms(x, noise(), TermsRequest(samples=5))
    assert terms.z.shape == (5, 3, 2) and terms.log_likelihood.shape == (5, 3) and terms.kl.shape == (3, 2)
    assert len(terms.z.unique()) == 30
    prior = torch.stack([model.latent_space.log_prob(z).sum(1) for z in terms.z])
    q = torch.stack([terms.posterior.log_prob(z).sum(1) for z in terms.z])
    weights = terms.log_likelihood + prior - q
    assert torch.allclose(weights, evidence.log_prob(x.flatten(1)).expand(5, 3), atol=1e-5)
    assert torch.equal(model.elbo_terms(x, noise()).z, terms.z[0])


def test_a_batch_that_is_not_to_be_decoded_costs_no_decoding(monkeypatch):
    """Would catch: a second batch of which only the codes are wanted, paid for with a full reconstruction."""
    model = build_model(VAEConfig(width=4, hidden=8), (1, 28, 28))
    x = torch.rand(2, 1, 28, 28, generator=noise())
    full = model.elbo_terms(x, noise(1))
    monkeypatch.setattr(model.generator, "run", lambda *_, **__: pytest.fail("decoded"))
    terms = model.elbo_terms(x, noise(1), TermsRequest(decode=False), labels=torch.tensor([[3], [1]]))
    assert terms.log_likelihood is None and torch.equal(terms.z, full.z) and torch.equal(terms.kl, full.kl)
    assert terms.labels.tolist() == [[3], [1]]


def test_a_given_posterior_is_drawn_from_and_its_kl_taken(monkeypatch):
    """Would catch: draws of the new posterior beside the KL of the old one, and images encoded twice."""
    model = build_model(VAEConfig(width=4, hidden=8, latents=3), (1, 28, 28))
    x = torch.rand(2, 1, 28, 28, generator=noise())
    given = model.latent_space.posterior(torch.tensor([[2.0, 0.0, -1.0, -20.0, -20.0, -20.0]]).expand(2, 6))
    monkeypatch.setattr(model.encoder, "run", lambda *_, **__: pytest.fail("encoded"))
    terms = model.elbo_terms(x, noise(1), posterior=given)
    assert terms.posterior is given and torch.equal(terms.kl, given.kl())
    assert torch.allclose(terms.z, given.mean, atol=1e-3)


def test_a_categorical_block_can_be_configured_and_trains_its_encoder():
    """Would catch: a category drawn in a way that lets no gradient reach the encoder's logits."""
    config = VAEConfig(width=4, hidden=8, blocks=[BlockConfig("kind", 3, "categorical"), BlockConfig("z", 2)])
    model = build_model(config, (1, 28, 28))
    terms = model.elbo_terms(torch.rand(4, 1, 28, 28, generator=noise()), noise(1))
    assert torch.allclose(terms.z[:, :3].sum(1), torch.ones(4), atol=1e-6)
    last = list(model.encoder.modules())[-1]
    terms.reconstruction.sum().backward()
    assert last.weight.grad[:3].abs().sum() > 0.0


def test_the_latent_space_takes_blocks_and_refuses_what_a_vae_can_not():
    config = VAEConfig(blocks=[BlockConfig("pose", 2), BlockConfig("content", 3)])
    model = build_model(config, (1, 32, 32))
    assert model.latent_space.names == ("pose0", "pose1", "content0", "content1", "content2")
    with pytest.raises(ValueError, match="no posterior is defined for it here"):
        build_model(VAEConfig(blocks=[BlockConfig("u", 2, "uniform")]), (1, 32, 32))
    with pytest.raises(ValueError, match=r"Expected images \(batch, 1, 32, 32\); got \(2, 3, 32, 32\)"):
        model.encode(torch.zeros(2, 3, 32, 32))
    with pytest.raises(ValueError, match="Expected codes"):
        model.decode(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="No space 'w'"):
        model.map(torch.zeros(1, 5), "z", "w")


@pytest.mark.parametrize("shape", [(1, 27, 27), (1, 129, 129), (2, 64, 64), (1, 64, 32)])
def test_an_image_shape_out_of_range_is_refused(shape):
    with pytest.raises(ValueError, match="square images of 28 to 128 pixels with 1 or 3 channels"):
        build_model(VAEConfig(), shape)


def test_an_unknown_family_is_refused():
    with pytest.raises(TypeError, match="No model for ModelConfig"):
        build_model(ModelConfig(), (1, 64, 64))


def test_building_is_seeded_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    small = VAEConfig(width=4, hidden=8)
    digests = [weights_digest(build_model(small, (1, 28, 28), seed)) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert digests[0] == digests[1] != digests[2]


def test_the_digest_follows_the_weights_and_not_their_layout():
    model = build_model(VAEConfig(width=4, hidden=8), (1, 28, 28))
    digest = weights_digest(model)
    model.to(memory_format=torch.channels_last)
    assert weights_digest(model) == digest
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-3
    changed = weights_digest(model)
    assert changed != digest
    other = build_model(VAEConfig(width=4, hidden=8), (1, 28, 28), seed=1)
    model.load_state_dict(other.state_dict())
    assert weights_digest(model) == weights_digest(other) != changed


def test_likelihoods_are_densities_with_means_in_the_unit_interval():
    logits = torch.randn(2, 1, 3, 3, generator=noise())
    x = (torch.rand(2, 1, 3, 3, generator=noise(1)) > 0.5).float()
    by_hand = (x * logits.sigmoid().log() + (1 - x) * (1 - logits.sigmoid()).log()).sum((1, 2, 3))
    assert torch.allclose(Bernoulli()(logits).log_prob(x), by_hand, atol=1e-5)
    gaussian = Gaussian(scale=0.2)
    by_hand = (-0.5 * ((x - logits.sigmoid()) / 0.2) ** 2 - math.log(0.2) - 0.5 * math.log(2 * math.pi)).sum(
        (1, 2, 3)
    )
    assert torch.allclose(gaussian(logits).log_prob(x), by_hand, atol=1e-4)
    assert torch.equal(gaussian(logits).mean, logits.sigmoid())
    assert not list(gaussian.parameters()) and len(list(Gaussian(learn=True).parameters())) == 1


def test_models_that_differ_in_more_than_weights_have_other_digests():
    # The fake: a digest of the weights alone, by which two block layouts would share every cache.
    def made(**changes):
        return build_model(VAEConfig(**{"width": 4, "hidden": 8, "latents": 6, **changes}), (1, 28, 28))

    plain = made()
    blocks = made(blocks=[BlockConfig("pose", 2), BlockConfig("content", 4)])
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), blocks.parameters(), strict=False))
    digests = [weights_digest(m) for m in (plain, blocks, made())]
    assert digests[0] == digests[2] != digests[1]


def test_decoding_is_the_mean_of_the_likelihood_by_a_plain_tensor_function():
    for likelihood in ("bernoulli", "gaussian"):
        model = build_model(VAEConfig(width=4, hidden=8, likelihood=likelihood), (1, 28, 28))
        z = model.sample_codes(3, 0)
        assert torch.equal(model.decode(z), model.likelihood(z).mean)
        assert torch.equal(model.sample(3, 0), model.decode(z))


def test_a_categorical_block_gets_a_categorical_posterior():
    space = LatentSpace([Block("kind", 3, Categorical), Block("z", 2)])
    assert space.posterior_size == 3 + 4
    numbers = torch.randn(5, 7, generator=noise())
    posterior = space.posterior(numbers)
    assert torch.allclose(posterior.mean[:, :3], numbers[:, :3].softmax(1))
    assert torch.equal(posterior.mean[:, 3:], numbers[:, 3:5])
    assert torch.allclose(posterior.log_var[:, 3:], numbers[:, 5:], atol=1e-5)
    draws = posterior.sample(0)[:, :3]
    assert torch.allclose(draws.sum(1), torch.ones(5), atol=1e-6)
    with pytest.raises(ValueError, match="Expected 7 numbers an image"):
        space.posterior(numbers[:, :6])
