"""The conditional VAE and M2: the bound against exact evidence, enumeration by hand, the encoder's graph."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Categorical as Choice
from torch.distributions import Independent, MixtureSameFamily, MultivariateNormal
from torch.distributions import Normal as NormalDistribution

from latentlab.config import BlockConfig, ConditionalVAEConfig, Experiment
from latentlab.latents import Block, Categorical, LatentSpace, Posterior
from latentlab.models.build import build_model
from latentlab.models.conditional import ConditionalVAE, conditional_encoder
from latentlab.models.contract import GenerativeModel, TermsRequest, is_inference_model
from latentlab.models.edits import Edit
from latentlab.models.staged import StagedNetwork
from latentlab.objectives.total_correlation import decompose, measure

CLASSES, SCALE = 3, 0.4


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(**changes) -> ConditionalVAE:
    given = {"width": 8, "hidden": 32, "latents": 3, "classes": 4, "labelled": 0.5, **changes}
    model = build_model(ConditionalVAEConfig(**given), (1, 28, 28), seed=1)
    with torch.no_grad():  # classes that differ, images that differ, and a classifier that tells them apart
        model.generator.stages["fc1"][0].weight[:, : given["classes"]] *= 20.0
        model.encoder.stages["conditional"].linear.weight *= 3.0
        features, label = model.encoder.activations(images())["fc2"], model.encoder.stages["label"]
        label.weight.copy_(torch.randn(label.weight.shape, generator=noise(2)) / features.std(0).norm())
        label.bias.copy_(-label.weight @ features.mean(0))
    return model


def images(n: int = 5) -> torch.Tensor:
    return nn.functional.interpolate(torch.rand(n, 1, 4, 4, generator=noise(7)).round(), (28, 28))


class _Plain(nn.Module):
    def forward(self, outputs):
        return Independent(NormalDistribution(outputs.double(), SCALE), 3)


def mixture_of_planes(doubt: float = 0.0):
    """x = W z + b_y + noise on 2x2 images, with the exact q(z | x, y), and the exact q(y | x) tempered by ``doubt``."""
    g = noise(3)
    weight, _ = torch.linalg.qr(torch.randn(4, 2, generator=g, dtype=torch.float64))
    offsets = 0.6 * torch.randn(CLASSES, 4, generator=g, dtype=torch.float64)
    covariance = weight @ weight.T + SCALE**2 * torch.eye(4, dtype=torch.float64)
    precision = torch.linalg.inv(covariance)
    gain = weight.T / SCALE**2 / (1.0 + 1.0 / SCALE**2)

    classifier = StagedNetwork({"flat": nn.Flatten(), "posterior": nn.Linear(4, CLASSES)}, "encoder")
    encoder = conditional_encoder(classifier, 4, CLASSES, 4).double()
    generator = nn.Linear(CLASSES + 2, 4).double()
    encoder.stages["conditional"].relu = nn.Identity()  # the exact posterior is linear
    with torch.no_grad():
        generator.weight.copy_(torch.cat([offsets.T, weight], 1))
        generator.bias.zero_()
        label = encoder.stages["label"]
        label.weight.copy_((1.0 - doubt) * offsets @ precision)
        label.bias.copy_((1.0 - doubt) * -0.5 * ((offsets @ precision) * offsets).sum(1))
        away = encoder.stages["conditional"].linear
        away.weight.copy_(torch.cat([torch.eye(4, dtype=torch.float64), -offsets.T], 1))
        away.bias.zero_()
        numbers = encoder.stages["posterior"].linear
        numbers.weight.copy_(torch.cat([gain, torch.zeros_like(gain)]))
        numbers.bias.copy_(torch.tensor([0.0, 0.0, *[-math.log(1.0 + 1.0 / SCALE**2)] * 2]))
    model = ConditionalVAE(
        (1, 2, 2),
        LatentSpace([Block("kind", CLASSES, Categorical), Block("z", 2)]),
        encoder,
        StagedNetwork({"out": nn.Sequential(generator, nn.Unflatten(1, (1, 2, 2)))}, "generator"),
        _Plain(),
        labelled=0.5,
    )
    planes = MultivariateNormal(offsets, covariance)
    even = Choice(torch.ones(CLASSES, dtype=torch.float64))
    return model, planes, MixtureSameFamily(even, planes)


def points(n: int) -> torch.Tensor:
    return 0.3 * torch.randn(n, 1, 2, 2, generator=noise(11), dtype=torch.float64)


def bound(terms) -> torch.Tensor:
    return terms.log_likelihood - terms.kl.sum(1)


def test_with_exact_posteriors_the_bound_of_an_unlabelled_image_is_its_evidence():
    """The fakes: a bound without the entropy of q(y | x), without log p(y), or averaged over classes evenly."""
    model, _, evidence = mixture_of_planes()
    x = points(1)
    terms = model.elbo_terms(x.expand(20_000, 1, 2, 2), noise())
    assert terms.posterior.mean[0, :CLASSES].max() < 0.9
    assert bound(terms).mean().item() == pytest.approx(evidence.log_prob(x.flatten()).item(), abs=0.02)


def test_a_doubting_classifier_costs_exactly_its_divergence_and_so_bounds_from_below():
    """The fakes: a bound that lies above the evidence, or that does not see what the classifier says."""
    model, planes, evidence = mixture_of_planes(doubt=0.8)
    x = points(1)
    terms = model.elbo_terms(x.expand(20_000, 1, 2, 2), noise())
    q, exact = terms.posterior.mean[0, :CLASSES], planes.log_prob(x.flatten()).softmax(0)
    gap = (q * (q / exact).log()).sum().item()
    assert gap > 0.1
    assert bound(terms).mean().item() == pytest.approx(evidence.log_prob(x.flatten()).item() - gap, abs=0.02)


def test_the_bound_of_a_labelled_image_is_the_joint_evidence_of_image_and_label():
    """The fakes: labels of other rows, p(y) left out, and the classifier's own guess in place of the label."""
    model, planes, _ = mixture_of_planes()
    x = points(1).expand(60_000, 1, 2, 2)
    labels = torch.arange(CLASSES).repeat(20_000)[:, None]
    terms = model.elbo_terms(x, noise(), labels=labels)
    for kind, joint in enumerate((planes.log_prob(x[0].flatten()) - math.log(CLASSES)).tolist()):
        assert bound(terms)[kind::CLASSES].mean().item() == pytest.approx(joint, abs=0.03)


def test_every_one_of_several_draws_weighs_the_evidence_under_exact_posteriors():
    """The fakes: draws whose likelihood is another draw's, or of other classes than their codes say."""
    model, _, evidence = mixture_of_planes()
    x = points(6)
    terms = model.elbo_terms(x, noise(), TermsRequest(samples=5))
    assert terms.z.shape == (5, 6, CLASSES + 2) and terms.log_likelihood.shape == (5, 6)
    prior = torch.stack([model.latent_space.log_prob(z).sum(1) for z in terms.z])
    q = torch.stack([terms.posterior.log_prob(z).sum(1) for z in terms.z])
    expected = evidence.log_prob(x.flatten(1)).expand(5, 6)
    assert torch.allclose(terms.log_likelihood + prior - q, expected, atol=1e-5)
    assert len(terms.z[:, :, CLASSES].unique()) == 30
    one = model.elbo_terms(x, noise())
    assert torch.equal(one.z, terms.z[0]) and torch.allclose(one.kl, terms.kl)


def test_enumeration_equals_one_pass_for_each_class():
    """The fakes: classes and images interleaved the wrong way round, weights of another row, other noise a class."""
    model, x = small(), images()
    terms = model.elbo_terms(x, noise())
    q = terms.posterior.mean[:, :4]
    assert q.max() > 0.45 and len(q.argmax(1).unique()) > 1
    by_hand, kl = torch.zeros(5), torch.zeros(5, 3)
    for kind in range(4):
        one = model.elbo_terms(x, noise(), labels=torch.full((5, 1), kind))
        by_hand += q[:, kind] * one.log_likelihood
        kl += q[:, kind, None] * one.kl[:, 4:]
    assert torch.allclose(terms.log_likelihood, by_hand, rtol=1e-5)
    assert torch.allclose(terms.kl[:, 4:], kl, atol=1e-5)
    entropy = -(q * q.log()).sum(1)
    assert torch.allclose(terms.kl[:, :4].sum(1), math.log(4) - entropy, atol=1e-5)


def test_a_labelled_image_by_hand():
    """The fakes: q(z | x) of the likeliest class in place of the label's, a KL that forgets ln K."""
    model, x = small(), images()
    labels = torch.tensor([[0], [1], [2], [3], [-1]])
    terms = model.elbo_terms(x, noise(), labels=labels)
    guesses = model.encode(x).mean[:4, :4].argmax(1)
    assert not torch.equal(guesses, labels[:4, 0])
    for row in range(4):
        kind = int(labels[row])
        # The same encoder, its label stage set by hand.
        others = tuple(k for k in range(4) if k != kind)
        edits = [Edit("encoder.label", (kind,), "set", 9.0), Edit("encoder.label", others, "set", 0.0)]
        q = model.encode(x[row : row + 1], edits).parts["z"]
        assert torch.allclose(terms.posterior.parts["z"].mean[row], q.mean[0], atol=1e-5)
        z = torch.cat([torch.eye(4)[kind], terms.z[row, 4:]])
        assert torch.allclose(terms.z[row], z)
        likelihood = model.likelihood(z[None]).log_prob(x[row : row + 1])
        assert torch.allclose(terms.log_likelihood[row], likelihood[0], rtol=1e-5)
        kl = 0.5 * (q.mean**2 + q.variance - 1.0 - q.variance.log())
        assert torch.allclose(terms.kl[row, 4:], kl[0], atol=1e-5)
        assert torch.allclose(terms.kl[row, :4], math.log(4) * torch.eye(4)[kind], atol=1e-6)
    unlabelled = model.elbo_terms(x, noise())
    assert torch.allclose(terms.log_likelihood[4], unlabelled.log_likelihood[4])
    assert terms.labels is labels


def test_with_all_labels_it_is_the_conditional_vae_whether_or_not_classes_are_enumerated(monkeypatch):
    """The fakes: a weight on classes that the label rules out, and ten decodings where one would do."""
    x, labels = images(), torch.tensor([[0], [1], [2], [3], [3]])
    model, whole = small(), small(labelled=1.0)
    enumerated = model.elbo_terms(x, noise(), labels=labels)
    seen = []
    decode = whole.generator.run
    monkeypatch.setattr(whole.generator, "run", lambda z, *a, **k: seen.append(len(z)) or decode(z, *a, **k))
    alone = whole.elbo_terms(x, noise(), labels=labels)
    assert seen == [5]
    assert torch.equal(alone.z, enumerated.z)
    assert torch.allclose(alone.log_likelihood, enumerated.log_likelihood, rtol=1e-5)
    assert torch.allclose(alone.kl, enumerated.kl, atol=1e-5)
    # Without labels, as for held-out images, it still bounds by enumeration.
    assert torch.allclose(whole.elbo_terms(x, noise()).kl, model.elbo_terms(x, noise()).kl)


def test_the_classification_is_the_cross_entropy_of_the_labelled_images_alone():
    """The fakes: unknown labels read as the last class, and a weight that fades as labels grow few."""
    x, labels = images(), torch.tensor([[2], [-1], [0], [-1], [-1]])
    model = small(labelled=0.25, alpha=3.0)
    found = model.elbo_terms(x, noise(), labels=labels).extra["classification"]
    logits = model.encoder.activations(x)["label"]
    by_hand = nn.functional.cross_entropy(logits[[0, 2]], labels[[0, 2], 0], reduction="none")
    assert torch.allclose(found[[0, 2]], 3.0 / 0.25 * by_hand) and not found[[1, 3, 4]].any()
    assert not model.elbo_terms(x, noise()).extra["classification"].any()


def test_draws_are_labels_by_the_classifier_and_the_rest_by_the_label_drawn():
    """The fakes: labels always the likeliest, and z drawn for another class than its code names."""
    model = small()
    x = images(1).expand(4000, 1, 28, 28)
    with torch.no_grad():
        terms = model.elbo_terms(x, noise(), TermsRequest(decode=False))
        q = model.encode(x[:1]).mean[0, :4]
        assert 0.02 < q.sort().values[-2]
        drawn = terms.z[:, :4].argmax(1)
        assert torch.allclose(torch.bincount(drawn, minlength=4) / 4000, q, atol=0.03)
        rest = terms.posterior.parts["z"]
        for kind in drawn.unique():
            one = model.elbo_terms(x[:1], noise(), labels=kind.view(1, 1)).posterior.parts["z"]
            rows = drawn == kind
            assert torch.allclose(rest.mean[rows], one.mean.expand(int(rows.sum()), 3), atol=1e-5)
        away = (terms.z[:, 4:] - rest.mean) / rest.stddev
    assert away.mean().abs() < 0.05 and abs(away.std() - 1.0) < 0.05


def test_a_batch_that_is_not_to_be_decoded_costs_no_decoding(monkeypatch):
    """Would catch: a second batch of which only the codes are wanted, decoded once for every class."""
    model, x = small(), images()
    whole = model.elbo_terms(x, noise())
    monkeypatch.setattr(model.generator, "run", lambda *_, **__: pytest.fail("decoded"))
    for samples in (1, 3):
        terms = model.elbo_terms(x, noise(), TermsRequest(decode=False, samples=samples))
        assert terms.log_likelihood is None and torch.equal(terms.kl, whole.kl)
        assert torch.equal(terms.z if samples == 1 else terms.z[0], whole.z)


def test_the_images_are_encoded_once_whatever_the_number_of_classes(monkeypatch):
    """Would catch: a trunk of convolutions run for every class."""
    model, x, seen = small(), images(), []
    first = model.encoder.stages["conv1"]
    monkeypatch.setattr(first[0], "forward", lambda h, f=first[0].forward: seen.append(len(h)) or f(h))
    model.elbo_terms(x, noise(), labels=torch.tensor([[2], [-1], [0], [-1], [-1]]))
    assert seen == [5]


def test_a_given_posterior_is_drawn_from_and_a_known_label_still_stands():
    """Would catch: posteriors that an objective has replaced, passed over, and labels lost with them."""
    model, x = small(), images(2)
    numbers = torch.tensor([[0.0, 4.0, 0.0, 0.0, 2.0, 0.0, -1.0, -20.0, -20.0, -20.0]]).expand(2, 10)
    given = model.latent_space.posterior(numbers)
    terms = model.elbo_terms(x, noise(), labels=torch.tensor([[3], [-1]]), posterior=given)
    assert torch.allclose(terms.z[:, 4:], given.mean[:, 4:], atol=1e-3)
    assert torch.allclose(terms.z[0, :4], torch.eye(4)[3])
    assert torch.allclose(terms.kl[0, :4], math.log(4) * torch.eye(4)[3], atol=1e-6)
    assert torch.allclose(terms.kl[1, :4], given.kl()[1, :4])
    assert terms.extra["classification"][0] == pytest.approx(
        0.1 / 0.5 * (math.log(math.exp(4) + 3)), rel=1e-4
    )


@pytest.mark.parametrize("network", ["burgess", "locatello", "pooled", "residual"])
@pytest.mark.parametrize("labelled", [0.5, 1.0])
def test_the_loss_reaches_every_parameter(network, labelled):
    """Would catch: a classifier or a layer of the encoder's head that nothing trains."""
    config = ConditionalVAEConfig(network=network, width=8, hidden=32, labelled=labelled)
    model = build_model(config, (1, 28, 28))
    assert is_inference_model(model) and isinstance(model, GenerativeModel)
    terms = model.elbo_terms(images(4), noise(), labels=torch.tensor([[0], [1], [2], [3]]))
    (terms.extra["classification"].mean() - bound(terms).mean()).backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().sum() > 0.0, name


def test_the_bound_of_unlabelled_images_teaches_the_classifier_which_class_explains_them():
    """Would catch: enumeration cut off from q(y | x), by which unlabelled images would teach it nothing."""
    model, x = small(), images()
    logits = model.encoder.stages["label"]
    bound(model.elbo_terms(x[:1], noise())).sum().backward()
    q = model.encode(x[:1]).mean[0, :4]
    joint = torch.stack(
        [bound(model.elbo_terms(x[:1], noise(), labels=torch.tensor([[k]])))[0] for k in range(4)]
    )
    # d/dlogit_k of sum_k q_k (L_k - log q_k)
    by_hand = q * (joint - q.log() - (q * (joint - q.log())).sum())
    assert by_hand.abs().max() > 0.01
    assert torch.allclose(logits.bias.grad, by_hand, rtol=1e-3, atol=1e-4)


def test_its_encoder_opens_as_any_other_and_the_class_can_be_edited():
    """The fakes: an encoder whose last stages hide in the model, out of reach of edits."""
    model, x = small(), images()
    assert model.encoder.names[-3:] == ("label", "conditional", "posterior")
    states = model.encoder.activations(x)
    assert states["label"].shape == (5, 4) and states["conditional"].shape == (5, 32)
    posterior = model.encode(x)
    assert torch.equal(states["posterior"][:, :4], states["label"])
    assert torch.allclose(posterior.mean[:, :4], states["label"].softmax(1))
    other = model.encode(x, [Edit("encoder.label", (2,), "set", 1e3)])
    assert (other.code()[:, 2] == 1.0).all()
    assert not torch.allclose(other.mean[:, 4:], posterior.mean[:, 4:])
    assert not torch.allclose(model.encode(x, [Edit("encoder.conditional")]).mean, posterior.mean)
    codes = model.sample_codes(50, 0)
    assert torch.equal(codes[:, :4].sum(1), torch.ones(50)) and model.sample(2, 0).shape == (2, 1, 28, 28)


def test_what_does_not_fit_is_refused_in_one_sentence():
    model, x = small(), images(2)
    with pytest.raises(ValueError, match=r"Expected labels \(2, 1\), one of each image; got \(2,\)"):
        model.elbo_terms(x, noise(), labels=torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="Labels of 'digit' are 0 to 3, or -1 where unknown; got 0 to 4"):
        model.elbo_terms(x, noise(), labels=torch.tensor([[0], [4]]))
    with pytest.raises(
        ValueError, match="a categorical block, its label, and then normal ones; got z normal"
    ):
        ConditionalVAE((1, 28, 28), LatentSpace([Block("z", 2)]), model.encoder, model.generator, _Plain())
    with pytest.raises(
        ValueError, match="beside the label of a conditional VAE are normal; got 'kind', categ"
    ):
        ConditionalVAEConfig(blocks=[BlockConfig("kind", 3, "categorical")])
    with pytest.raises(ValueError, match=r"model.labelled must lie in \[1e-06, 1.0\]; got 0"):
        ConditionalVAEConfig(labelled=0)
    with pytest.raises(ValueError, match=r"block.dim must lie in \[2, 1024\]; got 1"):
        ConditionalVAEConfig(classes=1)


def test_its_configuration_is_written_and_read_again():
    blocks = [BlockConfig("stroke", 2), BlockConfig("style", 3)]
    model = ConditionalVAEConfig(label="garment", classes=5, labelled=0.1, blocks=blocks, network="pooled")
    chosen = Experiment(model=model)
    assert Experiment.from_dict(chosen.to_dict()) == chosen
    built = build_model(chosen.model, (3, 32, 32))
    assert built.latent_space.block_names == ("garment", "stroke", "style")
    assert built.label_factors == ("garment",) and built.labelled == 0.1


def planted(shift: float = 1.0, sure: float = 0.0):
    """An encoder that reads of an image only its label, by ``sure``; z depends on the label alone: two normal numbers.

    With ``sure`` 0 every class is as likely for every image, so a code tells nothing of its image.
    """
    model = mixture_of_planes()[0]
    centres = shift * torch.tensor([[-3.0, -3.0], [0.0, 0.0], [3.0, 3.0]], dtype=torch.float64)
    with torch.no_grad():
        label = model.encoder.stages["label"]
        label.weight.copy_(sure * torch.eye(CLASSES, 4, dtype=torch.float64))
        label.bias.zero_()
        away = model.encoder.stages["conditional"].linear
        away.weight.copy_(torch.cat([torch.zeros(4, 4), torch.eye(4, CLASSES)], 1).double())
        numbers = model.encoder.stages["posterior"].linear
        numbers.weight.zero_()
        numbers.weight[:2, :CLASSES] = centres.T
        numbers.bias.copy_(torch.tensor([0.0, 0.0, *[2 * math.log(0.5)] * 2]))
    return model, centres, 0.5


def aggregate(probabilities, centres, std, z):
    """log q(y, z), and the sum of log q(y), log q(z_1), log q(z_2), by enumeration: q(y) = mean q(y | x_j)."""
    label = z[:, :CLASSES].argmax(1)
    each = NormalDistribution(centres, std).log_prob(z[:, None, CLASSES:])  # (n, classes, 2)
    weight = probabilities.mean(0).log()
    joint = weight[label] + each[torch.arange(len(z)), label].sum(1)
    alone = weight[label] + (weight[:, None] + each).logsumexp(1).sum(1)
    return joint, alone


@pytest.mark.parametrize("sure", [0.0, 3.0])
def test_the_parts_of_the_kl_compare_a_code_with_what_every_image_gives_its_own_label(sure):
    """Would catch: q(z | x_j, y_j) in place of q(z | x_j, y_i): log 3 nats of information in a code that has none."""
    model, centres, std = planted(sure=sure)
    x = points(600) * 8.0
    with torch.no_grad():
        terms = model.elbo_terms(x, noise())
    q, z = terms.posterior, terms.z
    probabilities = q.mean[:, :CLASSES]
    joint, alone = aggregate(probabilities, centres, std, z)
    label = z[:, :CLASSES].argmax(1)
    own = probabilities[torch.arange(600), label].log()
    own = own + NormalDistribution(centres[label], std).log_prob(z[:, CLASSES:]).sum(1)
    found = measure([q], z, 600)
    assert torch.allclose(found.mutual_information, own - joint, atol=1e-6)
    assert torch.allclose(found.total_correlation, joint - alone, atol=1e-6)
    prior = model.latent_space.log_prob(z).sum(1)
    assert torch.allclose(found.dimension_wise_kl, alone - prior, atol=1e-6)
    total = (found.mutual_information + found.total_correlation + found.dimension_wise_kl).mean()
    assert total.item() == pytest.approx(terms.kl.sum(1).mean().item(), abs=0.6)
    if not sure:
        assert found.mutual_information.abs().max() < 1e-6
        assert found.total_correlation.mean().item() == pytest.approx(2 * math.log(3), abs=0.1)
        drawn = measure([Posterior(q.space, q.parts)], z, 600)  # at the label that each image drew
        assert drawn.mutual_information.mean().item() == pytest.approx(math.log(3), abs=0.05)
        assert drawn.total_correlation.mean().item() < 1.2
    weighted = decompose(q, z, 600, "weighted")  # what beta-TCVAE minimises: the same but for its constants
    moved = weighted.total_correlation - found.total_correlation
    assert moved.std() < 1e-6 and moved.mean().item() == pytest.approx(2 * math.log(600), abs=1e-6)


def test_the_penalty_on_dependence_of_code_and_label_pulls_the_classes_codes_together():
    """Would catch: a total correlation that does not see that z is the label again, or has no gradient."""
    model, _, _ = planted(shift=0.3)
    terms = model.elbo_terms(points(64), noise())
    tc = decompose(terms.posterior, terms.z, 64, "weighted").total_correlation.mean()
    weight = model.encoder.stages["posterior"].linear.weight
    (gradient,) = torch.autograd.grad(tc, weight)
    assert (gradient[:2, 0] < 0).all() and (gradient[:2, 2] > 0).all()


def test_with_every_label_known_the_aggregate_is_that_over_the_datas_pairs():
    """Would catch: classes summed over that the data have not, where q(y | x) is the label alone."""
    model, centres, std = planted()
    model.labelled = 1.0
    labels = torch.arange(CLASSES).repeat(100)[:, None]
    with torch.no_grad():
        terms = model.elbo_terms(points(300), noise(), labels=labels)
    found = measure([terms.posterior], terms.z, 300)
    known = nn.functional.one_hot(labels[:, 0], CLASSES).double()
    joint, alone = aggregate(known, centres, std, terms.z)
    assert torch.equal(terms.z[:, :CLASSES], known)
    own = NormalDistribution(centres[labels[:, 0]], std).log_prob(terms.z[:, CLASSES:]).sum(1)
    assert torch.allclose(found.mutual_information, own - joint, atol=1e-6)  # the label itself: log 3
    assert found.mutual_information.mean().item() == pytest.approx(math.log(3), abs=1e-6)
    assert torch.allclose(found.total_correlation, joint - alone, atol=1e-6)
