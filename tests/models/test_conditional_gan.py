"""The conditional GAN: what a label adds to the score, and what it refuses."""

import pytest
import torch

from latentlab.config import BlockConfig, ConditionalGANConfig
from latentlab.latents import Block, Categorical, LatentSpace, Normal
from latentlab.models.build import build_model
from latentlab.models.conditional_gan import ConditionalGAN, SpectralEmbedding
from latentlab.models.contract import is_inference_model, weights_digest
from latentlab.models.edits import Edit
from latentlab.models.spectral import update_norms
from latentlab.runs import load_weights, save_weights

SHAPE = (1, 28, 28)


def small(**changes) -> ConditionalGAN:
    model = build_model(ConditionalGANConfig(**{"width": 4, "latents": 3, "classes": 4, **changes}), SHAPE)
    assert isinstance(model, ConditionalGAN)
    return model.eval()


def labels(*values: int) -> torch.Tensor:
    return torch.tensor(values)[:, None]


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_the_score_is_that_of_the_image_plus_the_labels_projection(spectral_norm):
    """Would catch: a label that is ignored, added to all images alike, or looked up in another row."""
    model = small(spectral_norm=spectral_norm)
    x = torch.rand((3, *SHAPE), generator=torch.Generator().manual_seed(0))
    phi = model.discriminator.run(x, stop="features")
    psi = model.discriminator.run(x).squeeze(1)
    vectors = model.embedding(torch.arange(4))
    for a, b in ((0, 1), (2, 3), (1, 1)):
        first, second = (model.discriminate(x, labels=labels(k, k, k)) for k in (a, b))
        assert torch.allclose(first - second, phi @ (vectors[a] - vectors[b]), atol=1e-5)
        assert torch.allclose(first, psi + phi @ vectors[a], atol=1e-5)
    mixed = model.discriminate(x, labels=labels(3, 0, 2))
    assert torch.allclose(mixed, psi + (phi * vectors[[3, 0, 2]]).sum(1), atol=1e-5)
    # Without a label's vector the score is the image's alone: an unconditional fake has no such differences.
    assert not torch.allclose(mixed, psi, atol=1e-7)


def test_other_labels_give_the_discriminator_another_gradient():
    """Would catch: labels that are handed on and never read."""
    model = small()
    x = torch.rand((2, *SHAPE), generator=torch.Generator().manual_seed(0))

    def gradient(*values):
        model.zero_grad()
        model.discriminate(x, labels=labels(*values)).sum().backward()
        return model.embedding.weight.grad.clone(), model.discriminator.stages["conv1"][1].weight.grad.clone()

    (table, first), (_, other) = gradient(0, 1), gradient(1, 0)
    assert (table[:2] != 0).any(1).all() and not table[2:].any()
    assert not torch.equal(first, other)


def test_the_generator_is_told_by_its_own_block():
    """Would catch: labels read from another block, and codes whose label is the position in z."""
    model = small(blocks=[BlockConfig("other", 5, "categorical"), BlockConfig("z", 2)])
    assert model.label_factors == ("digit",) and model.latent_space.block_names == ("digit", "other", "z")
    z = model.sample_codes(6, 0)
    assert torch.equal(model.labels(z)[:, 0], z[:, :4].argmax(1))
    moved = z.clone()
    moved[:, :4] = torch.nn.functional.one_hot((z[:, :4].argmax(1) + 1) % 4, 4).float()
    assert not torch.allclose(model.decode(z), model.decode(moved))
    assert not is_inference_model(model)


def test_the_table_of_a_normed_discriminator_has_the_largest_singular_value_one():
    table = SpectralEmbedding(4, 7)
    for _ in range(50):
        update_norms(table)
    assert torch.linalg.matrix_norm(table(torch.arange(4)), 2).item() == pytest.approx(1.0, abs=1e-4)


def test_the_discriminator_opens_like_any_other_network():
    """Would catch: features or a score that can't be looked at, and edits that the labels' part goes round."""
    model = small()
    x = torch.rand((2, *SHAPE), generator=torch.Generator().manual_seed(0))
    names = model.discriminator.names
    assert names[-2:] == ("features", "score")
    assert [s.shape for s in model.discriminator.describe(x)][-1] == (1,)
    edited = model.discriminate(x, [Edit("discriminator.features")], labels(1, 2))
    bias = model.discriminator.stages["score"].bias
    assert torch.allclose(edited, bias.expand(2), atol=1e-6)


def test_the_vectors_of_labels_are_part_of_judging_and_of_the_weights(tmp_path):
    model, other = small(), build_model(ConditionalGANConfig(width=4, latents=3, classes=4), SHAPE, seed=9)
    assert id(model.embedding.weight) in {id(p) for p in model.judging.parameters()}
    save_weights(model, tmp_path / "weights.safetensors")
    load_weights(other, tmp_path / "weights.safetensors")
    assert weights_digest(other) == weights_digest(model)


def test_what_a_conditional_gan_can_not_judge_is_refused():
    model = small()
    x = torch.zeros(2, *SHAPE)
    with pytest.raises(ValueError, match=r"images with their labels 'digit', int \(2, 1\); got none"):
        model.discriminate(x)
    with pytest.raises(ValueError, match=r"int \(2, 1\); got \(1, 1\)"):
        model.discriminate(x, labels=labels(0))
    with pytest.raises(ValueError, match=r"Expected images \(batch, 1, 28, 28\); got \(2, 3, 28, 28\)"):
        model.discriminate(torch.zeros(2, 3, 28, 28), labels=labels(0, 0))
    space = LatentSpace([Block("class", 4, Categorical), Block("z", 3, Normal)])
    with pytest.raises(ValueError, match="a categorical block; 'z' is none of space"):
        ConditionalGAN(SHAPE, space, model.generator, model.discriminator, model.embedding, "z")
    with pytest.raises(ValueError, match=r"block.dim must lie in \[2, 1024\]; got 1"):
        ConditionalGANConfig(classes=1)
