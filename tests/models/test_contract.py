"""The contract: what counts as which model, the terms a model owes an objective, and the weights' digest."""

import pytest
import torch
from torch import nn

from latentlab.config import VAEConfig
from latentlab.latents import Block, LatentSpace
from latentlab.models.build import build_model
from latentlab.models.contract import (
    ONE_DRAW,
    ElboTerms,
    GenerativeModel,
    TermsRequest,
    is_inference_model,
    weights_digest,
)


def small():
    return build_model(VAEConfig(width=4, hidden=8), (1, 28, 28))


def test_optimisers_and_writes_that_torch_does_not_count_change_the_digest():
    """Would catch: a digest kept by address and version, which fused Adam and ``.data`` both leave as they were."""
    model = small()
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    seen = [weights_digest(model)]
    for step in range(3):
        adam.zero_grad()
        terms = model.elbo_terms(torch.rand(4, 1, 28, 28), torch.Generator().manual_seed(step))
        (terms.kl.sum() + terms.reconstruction.sum()).backward()
        adam.step()
        seen.append(weights_digest(model))
    assert len(set(seen)) == 4


def test_one_number_written_into_a_frozen_model_changes_the_digest_and_back():
    """Would catch: a model held for unchangeable because it is frozen, or judged by a sample of its weights."""
    model = small().eval().requires_grad_(False)
    before = weights_digest(model)
    assert weights_digest(model) == before
    weight = model.generator.state_dict()[next(iter(model.generator.state_dict()))]
    kept = weight.view(-1)[17].item()
    weight.data.view(-1)[17] = kept + 1.0
    assert weights_digest(model) != before
    weight.data.view(-1)[17] = kept
    assert weights_digest(model) == before
    rows = weight.data.clone()
    weight.data.copy_(rows.flip(0))  # equal sums and equal sets of numbers in another order
    assert weights_digest(model) != before
    with pytest.raises(TypeError, match="Only a torch module has weights to digest; got object"):
        weights_digest(object())


class Painter(nn.Module):
    """A generator alone, as a GAN has it: no likelihood, no encoder."""

    def __init__(self):
        super().__init__()
        self.latent_space, self.image_shape = LatentSpace([Block("z", 2)]), (1, 4, 4)
        self.generator = nn.Linear(2, 16)

    @property
    def spaces(self):
        return {"z": self.latent_space}

    @property
    def networks(self):
        return {"generator": self.generator}

    def map(self, z, source, target):
        return z

    def decode(self, z, edits=()):
        return self.generator(z).sigmoid().view(-1, 1, 4, 4)

    def sample_codes(self, n, seed):
        return self.latent_space.sample(n, seed)

    def sample(self, n, seed):
        return self.decode(self.sample_codes(n, seed))


class Encoderless(Painter):
    """Has the method of an encoder and no encoder behind it, like a decoder adapted alone."""

    encoder = None

    def encode(self, x, edits=()):
        raise ValueError("no encoder")


def test_a_generator_needs_no_likelihood_and_a_method_alone_is_no_encoder():
    """Would catch: a GAN refused for want of a density, and an analysis that starts without an encoder."""
    for model in (Painter(), Encoderless()):
        assert isinstance(model, GenerativeModel) and not is_inference_model(model)
    assert is_inference_model(small())


def test_a_request_out_of_range_is_refused():
    assert TermsRequest() == ONE_DRAW
    with pytest.raises(ValueError, match="at least 1 draw of z an image; got samples=0"):
        TermsRequest(samples=0)
    with pytest.raises(ValueError, match=r"labels is a share of the images, 0 to 1; got 1.5"):
        TermsRequest(labels=1.5)
    with pytest.raises(ValueError, match="Only the images of a pair change factors; this batch is of kind"):
        TermsRequest(changing=("x",))


def test_terms_that_were_not_decoded_have_no_reconstruction_and_say_so():
    """Would catch: a reconstruction of zero or nan that is quietly minimised."""
    posterior = LatentSpace([Block("z", 1)]).posterior(torch.zeros(2, 2))
    terms = ElboTerms(torch.zeros(2, 1, 4, 4), posterior, torch.zeros(2, 1), None, torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"was not decoded; ask for it with TermsRequest\(decode=True\)"):
        _ = terms.reconstruction
