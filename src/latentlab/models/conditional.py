"""The conditional VAE, and with few labels the semi-supervised one (M2): what an image shows, apart from how.

Symbols: x an image, y its label, one of K classes, z the rest of its code; q(y | x) the classifier, q(z | x, y) the
posterior of the rest, p(x | y, z) the likelihood; p(y) = 1/K.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, OneHotCategorical
from torch.distributions import Normal as NormalDistribution
from torch.nn import functional

from latentlab.latents import Categorical, LatentSpace, Normal, Posterior
from latentlab.latents.posterior import pairwise_normal
from latentlab.models.contract import ONE_DRAW, ElboTerms, TermsRequest
from latentlab.models.likelihoods import Likelihood
from latentlab.models.precision import full
from latentlab.models.staged import StagedNetwork
from latentlab.models.vae import VAE

_LABEL, _CONDITIONAL, _POSTERIOR = "label", "conditional", "posterior"
"""The last stages of the encoder."""

_IMPOSSIBLE = -60.0
"""The logit of a class that a known label rules out: a chance of 1e-26, whose logarithm is still a number."""


class ConditionalPosterior(Posterior):
    """q(y, z | x) = q(y | x) q(z | x, y), where z depends on the label: label and rest are not independent given x.

    Its parts are q(y | x) and q(z | x, y) at one class an image, the one drawn; that is what codes are drawn from.
    The densities of other codes need every class: the aggregate posterior is

        q(y, z) = mean over images x_j of q(y | x_j) q(z | x_j, y)

    at the label y of the code and not at the one that x_j happened to draw, and a marginal of z is
    q(z_k) = mean over x_j of the sum over y of q(y | x_j) q(z_k | x_j, y). So a code that depends on its label alone
    tells nothing of the image, however many classes there are, and has the total correlation of z and y. Where all
    labels are known, the sum has one term, and the aggregate is that over the data's pairs (x_j, y_j).

    Args:
        space: the latent space.
        parts: as of every posterior.
        means: of q(z | x, y), (batch, classes, dim of the rest).
        stddevs: of q(z | x, y), the same shape.
    """

    def __init__(
        self, space: LatentSpace, parts: Mapping[str, Distribution], means: Tensor, stddevs: Tensor
    ) -> None:
        super().__init__(space, parts)
        self.means, self.stddevs = means, stddevs

    def pairwise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Log density of every code under every posterior: of each variable on its own, and of the whole code.

        Args:
            z: codes (n, dim), the label one-hot.

        Returns:
            At [i, j, k] log q(z_ik | x_j), the label summed out, nats (n, batch, variables), and at [i, j]
            log q(y_i, z_i | x_j), nats (n, batch).
        """
        self.space.check(z)
        label = self.parts[self.space.block_names[0]]
        assert isinstance(label, OneHotCategorical)
        log_labels = label.logits.log_softmax(-1)  # (batch, classes)
        count = log_labels.shape[1]
        y, rest = z[:, :count], z[:, count:]
        of_label = y @ log_labels.T
        alone, whole = None, of_label
        for c in range(count):
            each = pairwise_normal(rest, self.means[:, c], self.stddevs[:, c])
            joint = each + log_labels[:, c, None]
            alone = joint if alone is None else torch.logaddexp(alone, joint)
            whole = whole + y[:, c, None] * each.sum(2)
        assert alone is not None
        return torch.cat([of_label[:, :, None], alone], dim=2), whole

    def pairwise_log_prob(self, z: Tensor) -> Tensor:
        """Log density of every variable on its own, nats (n, batch, variables); see ``pairwise``."""
        return self.pairwise(z)[0]


class ConditionalVAE(VAE):
    """A VAE whose first block is a label that the data have: p(y) p(z) p(x | y, z).

    Where the label of an image is known, the bound is log p(x | y, z) + log p(y) - KL(q(z | x, y) || p(z)). Where it
    is not, it is the expectation of that under q(y | x) plus the entropy of q(y | x), taken over all classes and not
    by a draw. The classifier learns by its cross-entropy on the known labels, and by the bound of the other images.

    ``encode`` gives q(y | x) beside q(z | x, y) of the likeliest class.

    Args:
        image_shape: (channels, height, width).
        latent_space: first the label, a categorical block named as the data's factor; then normal blocks.
        encoder: made by ``conditional_encoder``.
        generator: codes (batch, dim) to the parameters of the likelihood, of an image's shape.
        likelihood: those parameters to a distribution over images, and by ``image`` to its mean.
        labelled: share of the data's images whose label may be read, above 0, up to 1.
        alpha: weight of the classifier's cross-entropy, averaged over the labelled images, against the bound,
            averaged over all.

    Raises:
        ValueError: on blocks of other kinds.

    References:
        Semi-supervised learning with deep generative models (Kingma et al., 2014), https://arxiv.org/abs/1406.5298;
        their alpha is ours times the number of images
        Learning structured output representation using deep conditional generative models (Sohn et al., 2015),
        https://papers.nips.cc/paper/5775
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_space: LatentSpace,
        encoder: StagedNetwork,
        generator: StagedNetwork,
        likelihood: Likelihood,
        labelled: float = 1.0,
        alpha: float = 0.1,
    ) -> None:
        super().__init__(image_shape, latent_space, encoder, generator, likelihood)
        label, *rest = latent_space.blocks
        fits = (
            isinstance(label.prior, Categorical) and rest and all(isinstance(b.prior, Normal) for b in rest)
        )
        if not fits:
            kinds = ", ".join(f"{b.name} {b.prior.kind}" for b in latent_space.blocks)
            raise ValueError(
                f"A conditional VAE has a categorical block, its label, and then normal ones; got {kinds}."
            )
        self.label_factors = (label.name,)
        self.labelled = labelled
        self.alpha = alpha
        self._label = LatentSpace([label])
        self._rest = LatentSpace(rest)

    def elbo_terms(
        self,
        x: Tensor,
        generator: torch.Generator,
        request: TermsRequest = ONE_DRAW,
        *,
        labels: Tensor | None = None,
        posterior: Posterior | None = None,
    ) -> ElboTerms:
        """The parts of the bound, and ``classification`` among the extra terms.

        With one draw an image, ``log_likelihood`` and ``kl`` are expectations over the classes: by q(y | x), or of
        the label alone where it is known; ``z`` is a draw of label and rest, and ``posterior`` that of the rest under
        the label drawn, which knows the densities under the others. With several draws an image, which share one
        label, ``log_likelihood`` belongs to each of them as it is.

        Args:
            x: images (batch, channels, height, width) in [0, 1].
            generator: the only source of chance, on x's device.
            request: whether to decode, and how many draws an image.
            labels: classes (batch, 1), -1 where unknown; None if all are.
            posterior: q(y | x) and q(z | x) to draw from instead; a known label still stands in for q(y | x).

        Raises:
            ValueError: on labels of another shape or range.
            TypeError: on a posterior whose label is no OneHotCategorical.
        """
        known = self._known(labels, len(x))
        if posterior is not None:
            guess = posterior.parts[self._label.block_names[0]]
            if not isinstance(guess, OneHotCategorical):
                raise TypeError(
                    f"The label of a conditional VAE needs a OneHotCategorical posterior; got {type(guess).__name__}."
                )
            logits = guess.logits
            parts = {**posterior.parts, **self._label_posterior(logits, known).parts}
            terms = super().elbo_terms(
                x, generator, request, labels=labels, posterior=Posterior(self.latent_space, parts)
            )
        else:
            logits, terms = self._enumerate(x, generator, request, labels, known)
        terms.extra = {"classification": self._classification(logits, known)}
        return terms

    def _known(self, labels: Tensor | None, batch: int) -> Tensor | None:
        """One-hot rows (batch, K) of the labels, rows of zeros where unknown."""
        if labels is None:
            return None
        classes = self._label.dim
        if tuple(labels.shape) != (batch, 1):
            raise ValueError(f"Expected labels ({batch}, 1), one of each image; got {tuple(labels.shape)}.")
        if labels.device.type == "cpu" and not bool(((labels >= -1) & (labels < classes)).all()):
            raise ValueError(
                f"Labels of {self.label_factors[0]!r} are 0 to {classes - 1}, or -1 where unknown; got "
                f"{int(labels.min())} to {int(labels.max())}."
            )
        return (labels == torch.arange(classes, device=labels.device)).float()

    def _label_posterior(self, logits: Tensor, known: Tensor | None) -> Posterior:
        """q(y | x), and where the label is known, that label alone."""
        if known is not None:
            certain = _IMPOSSIBLE * (1.0 - known)
            logits = torch.where(known.any(1, keepdim=True), certain.to(logits), logits)
        return self._label.posterior(logits)

    def _classification(self, logits: Tensor, known: Tensor | None) -> Tensor:
        """The cross-entropy of q(y | x), (batch,), weighted so that its mean over the batch has the weight alpha."""
        if known is None:
            return logits.new_zeros(len(logits))
        return (self.alpha / self.labelled) * -(known * logits.log_softmax(1)).sum(1)

    def _rests(self, features: Tensor, classes: Tensor) -> Posterior:
        """q(z | x, y) of images' features (n, hidden) and one-hot classes (n, K)."""
        hidden = self.encoder.stages[_CONDITIONAL](features, classes)
        numbers = self.encoder.stages[_POSTERIOR](classes, hidden)
        return self._rest.posterior(full(numbers)[:, self._label.dim :])

    def _enumerate(
        self,
        x: Tensor,
        generator: torch.Generator,
        request: TermsRequest,
        labels: Tensor | None,
        known: Tensor | None,
    ) -> tuple[Tensor, ElboTerms]:
        """The classifier's logits (batch, K), and the terms as expectations over the classes."""
        trunk = self.encoder.inputs[_LABEL][0]
        states = self.encoder.activations(x, [trunk, _LABEL])
        features, logits = states[trunk], full(states[_LABEL])
        q = self._label_posterior(logits, known)
        label = q.rsample(generator)
        drawn = label.argmax(1)
        batch, count = label.shape
        if known is not None and self.labelled == 1.0:
            # Every label is known, and draws are the labels. (One that is not after all has its draw instead.)
            classes, weights, at = label[:, None], label.new_ones(batch, 1), torch.zeros_like(drawn)
        else:
            classes = torch.eye(count, device=x.device, dtype=label.dtype).expand(batch, count, count)
            weights, at = q.mean, drawn
        each = classes.shape[1]  # classes an image
        rests = self._rests(features.repeat_interleave(each, 0), classes.flatten(0, 1))
        shape = (batch, each, self._rest.dim)
        kl_rest = (weights[..., None] * rests.kl().view(shape)).sum(1)
        chosen = torch.arange(batch, device=x.device) * each + at
        parts = {name: _rows(part, chosen) for name, part in rests.parts.items()}
        mean, std = rests.mean.view(shape), rests.stddev.view(shape)
        if each == 1:  # the label is settled before z is: nothing to sum over
            posterior = Posterior(self.latent_space, {**q.parts, **parts})
        else:
            posterior = ConditionalPosterior(self.latent_space, {**q.parts, **parts}, mean, std)
        # One noise for all classes of an image: what sets their likelihoods apart is then the class alone.
        z = [
            mean
            + std * torch.randn(shape[::2], generator=generator, device=x.device, dtype=mean.dtype)[:, None]
            for _ in range(request.samples)
        ]
        codes = torch.stack([torch.cat([label, draw.flatten(0, 1)[chosen]], 1) for draw in z])
        log_likelihood = None
        if request.decode and request.samples == 1:
            every = torch.cat([classes, z[0]], 2).flatten(0, 1)
            found = self.likelihood(every).log_prob(x.repeat_interleave(each, 0)).view(batch, each)
            log_likelihood = (weights * found).sum(1)
        elif request.decode:
            repeated = x.repeat(request.samples, 1, 1, 1)
            log_likelihood = self.likelihood(codes.flatten(0, 1)).log_prob(repeated).view(codes.shape[:2])
        kl = torch.cat([q.kl(), kl_rest], 1)
        drawn_codes = codes[0] if request.samples == 1 else codes
        return logits, ElboTerms(x, posterior, drawn_codes, log_likelihood, kl, labels)


def _rows(part: Distribution, rows: Tensor) -> Distribution:
    return NormalDistribution(part.mean[rows], part.stddev[rows], validate_args=False)


class _Conditional(nn.Module):
    """Features and the likeliest class, joined and carried through one layer."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.linear = nn.Linear(features + classes, features)
        self.relu = nn.ReLU()

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        likeliest = functional.one_hot(logits.argmax(1), self.classes)
        return self.relu(self.linear(torch.cat([features, likeliest.to(features)], 1)))


class _Numbers(nn.Module):
    """The logits of the label, and behind them the numbers of the rest."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, outputs)

    def forward(self, logits: Tensor, hidden: Tensor) -> Tensor:
        numbers = self.linear(hidden)
        return torch.cat([logits.to(numbers), numbers], 1)


def conditional_encoder(
    classifier: StagedNetwork, features: int, classes: int, outputs: int
) -> StagedNetwork:
    """An encoder of label and rest, from one whose last stage gives the label's logits.

    Its stages are those of the classifier, the last one called "label"; "conditional", which reads the state before
    it and the likeliest class; and "posterior", (batch, classes + outputs) numbers.

    Args:
        classifier: images (batch, channels, height, width) to logits (batch, classes); its stages are taken over.
        features: units of its last stage but one.
        classes: number of classes.
        outputs: how many numbers the posterior of the rest needs.
    """
    *before, last = classifier.names
    inputs = {name: classifier.inputs[name] for name in before}
    inputs |= {
        _LABEL: classifier.inputs[last],
        _CONDITIONAL: (*classifier.inputs[last], _LABEL),
        _POSTERIOR: (_LABEL, _CONDITIONAL),
    }
    stages = {name: classifier.stages[name] for name in before}
    stages[_LABEL] = classifier.stages[last]
    stages[_CONDITIONAL] = _Conditional(features, classes)
    stages[_POSTERIOR] = _Numbers(features, outputs)
    return StagedNetwork(stages, classifier.name, inputs)
