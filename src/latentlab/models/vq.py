"""The vector-quantised autoencoder: codes are indices of a codebook, and a prior over them is learned beside it.

Symbols: e(x) the encoder's vectors, one a position; k the index of the code nearest to each; c_k that code; p(k) the
learned prior. q(k | x) is a point, so KL(q || p) = -log p(k) exactly, and the evidence lower bound is
log p(x | k) + log p(k).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from latentlab.latents import Block, Codebook, LatentSpace, PointMass, Posterior
from latentlab.models.code_prior import CodePrior
from latentlab.models.contract import ONE_DRAW, ElboTerms, TermsRequest
from latentlab.models.edits import Edit
from latentlab.models.likelihoods import Likelihood
from latentlab.models.networks import ImageShape, Pair, Residual, halvings, upsampling
from latentlab.models.precision import full
from latentlab.models.staged import StagedNetwork
from latentlab.models.vae import VAE

CODES = "codes"
"""Name of the block, and of the generator's stage that looks the codes up."""

_POSITIONS = 1024


class Lookup(nn.Module):
    """The codebook: from indices to a map of code vectors, and from vectors to the indices of the nearest codes.

    Args:
        size: number of codes, K.
        dim: numbers of each.
        grid: (rows, columns) of the map; index i stands in row i // columns.
    """

    def __init__(self, size: int, dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.weight = nn.Parameter(torch.empty(size, dim))
        nn.init.uniform_(
            self.weight, -1.0 / size, 1.0 / size
        )  # small, so that all codes are near the first vectors

    def forward(self, z: Tensor) -> Tensor:
        """Codes (batch, positions), rounded and cut off to indices, to a map (batch, dim, rows, columns)."""
        indices = z.round().clamp(0, len(self.weight) - 1).long()
        return functional.embedding(indices, self.weight).transpose(1, 2).unflatten(2, self.grid)

    def nearest(self, vectors: Tensor) -> Tensor:
        """Indices (batch, positions) of the codes nearest to a map (batch, dim, rows, columns), by Euclid."""
        rows = vectors.detach().float().flatten(2).transpose(1, 2)
        weight = self.weight.detach().float()
        # Half precision would choose other codes: |e|^2 is left out, since it is the same for all of them.
        with torch.autocast(vectors.device.type, enabled=False):
            away = weight.square().sum(1) - 2.0 * rows @ weight.T
        return away.argmin(2)


class Quantised(PointMass):
    """The indices that images are quantised to, with the encoder's vectors, which training pulls at.

    Args:
        indices: (batch, positions).
        size: number of codes.
        surprise: -log p of each index given those before it, nats (batch, positions).
        vectors: the encoder's map (batch, dim, rows, columns), with its gradient.
    """

    def __init__(self, indices: Tensor, size: int, surprise: Tensor, vectors: Tensor) -> None:
        super().__init__(indices, size, surprise)
        self.vectors = vectors


class VQVAE(VAE):
    """A VQ-VAE with the prior trained beside it.

    A code is a row of indices, one a position, written as numbers; what is no index is rounded and cut off. The
    bound's own KL trains the prior and nothing else; the encoder learns by the reconstruction, whose gradient passes
    the quantisation as if it were not there (straight-through), and by the two squared distances below.

    The terms' ``extra`` are no nats but squared distances, summed over positions and vector entries of an image:
    "codebook", |sg(e) - c|^2, draws the codes to the encoder's vectors, and "commitment", weight x |e - sg(c)|^2,
    the vectors to their codes, where sg passes no gradient.

    Args:
        image_shape: (channels, height, width).
        encoder: images to a map (batch, dim, rows, columns) of vectors.
        generator: codes (batch, rows x columns) to the parameters of the likelihood; its first stage, "codes", is a
            ``Lookup``.
        likelihood: those parameters to a distribution over images, and by ``image`` to its mean.
        prior: p(k), of as many positions and codes.
        commitment: weight of that term.

    References:
        Neural discrete representation learning (van den Oord et al., 2017), https://arxiv.org/abs/1711.00937; there
        the prior, a PixelCNN, is trained afterwards
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        encoder: StagedNetwork,
        generator: StagedNetwork,
        likelihood: Likelihood,
        prior: CodePrior,
        commitment: float = 0.25,
    ) -> None:
        space = LatentSpace([Block(CODES, prior.positions, Codebook(prior.size))])
        super().__init__(image_shape, space, encoder, generator, likelihood)
        self.prior = prior
        self.commitment = commitment

    @property
    def lookup(self) -> Lookup:
        """The codebook, which is the generator's first stage."""
        found = self.generator.stages[CODES]
        assert isinstance(found, Lookup)
        return found

    def encode(self, x: Tensor, edits: Iterable[Edit] = ()) -> Posterior:
        """The indices of images (batch, channels, height, width) in [0, 1], as a posterior that is sure of them.

        Raises:
            ValueError: on images of another shape than the model's.
        """
        self.check_images(x)
        vectors = full(self.encoder.run(x, edits))
        indices = self.lookup.nearest(vectors)
        surprise = -self.prior.log_prob(indices)
        return Posterior(self.latent_space, {CODES: Quantised(indices, self.prior.size, surprise, vectors)})

    def sample_codes(self, n: int, seed: int) -> Tensor:
        """Codes (n, positions) drawn from the learned prior; equal seeds give equal codes."""
        return self.prior.sample(n, torch.Generator().manual_seed(seed)).float()

    def elbo_terms(
        self,
        x: Tensor,
        generator: torch.Generator,
        request: TermsRequest = ONE_DRAW,
        *,
        labels: Tensor | None = None,
        posterior: Posterior | None = None,
    ) -> ElboTerms:
        """Encodes, quantises, decodes: the parts of the ELBO of a batch.

        Args:
            x: images (batch, channels, height, width) in [0, 1].
            generator: not used; nothing is left to chance where the posterior is a point.
            request: whether to decode, and how many draws an image: they are all the same.
            labels: factors of the images (batch, factors), handed on in the terms.
            posterior: what ``encode`` gave of these images, instead of encoding them again.

        Raises:
            TypeError: on a posterior that holds no vectors of the encoder.
        """
        posterior = self.encode(x) if posterior is None else posterior
        q = posterior.parts[CODES]
        if not isinstance(q, Quantised):
            raise TypeError(f"A VQVAE learns from a posterior of its own encode; got a {type(q).__name__}.")
        z, log_likelihood = q.mean, None
        codes, vectors = self.lookup(z), q.vectors
        if request.decode:
            through = vectors + (codes - vectors).detach()
            outputs = self.generator.run(through, start=CODES)
            log_likelihood = self.observation(full(outputs)).log_prob(x)
        if request.samples > 1:
            z = z.expand(request.samples, *z.shape)
            if log_likelihood is not None:
                log_likelihood = log_likelihood.expand(request.samples, *log_likelihood.shape)
        extra = {
            "codebook": (vectors.detach() - codes).square().sum((1, 2, 3)),
            "commitment": self.commitment * (vectors - codes.detach()).square().sum((1, 2, 3)),
        }
        return ElboTerms(x, posterior, z, log_likelihood, posterior.kl(), labels, extra)


def vq_networks(image_shape: ImageShape, size: int, dim: int, times: int = 3, width: int = 32) -> Pair:
    """Strided convolutions and a residual block down to a grid of vectors, and their mirror up from the codes.

    Args:
        image_shape: (channels, size, size).
        size: number of codes.
        dim: numbers of each code.
        times: halvings of the image on its way to the grid.
        width: channels after the first halving; twice as many after the others.

    Raises:
        ValueError: if the image has not so many halvings, or the grid would have more than 1024 positions.
    """
    channels, edge, _ = image_shape
    sizes = halvings(edge)
    if times >= len(sizes):
        raise ValueError(
            f"An image of {edge} pixels is halved {len(sizes) - 1} times at most; got model.halvings {times}."
        )
    grid = sizes[times]
    if grid**2 > _POSITIONS:
        raise ValueError(
            f"{times} halvings of {edge} pixels leave {grid} x {grid} positions; at most {_POSITIONS} can be modelled, "
            "so set model.halvings higher."
        )
    widths = [channels, width, *[2 * width] * (times - 1)]
    encoder: dict[str, nn.Module] = {}
    for i in range(1, times + 1):
        down = nn.Conv2d(widths[i - 1], widths[i], 4, stride=2, padding=1)
        encoder[f"conv{i}"] = nn.Sequential(down, nn.ReLU(inplace=True))
    encoder["block"] = Residual(widths[-1])
    encoder["vectors"] = nn.Conv2d(widths[-1], dim, 1)

    generator: dict[str, nn.Module] = {CODES: Lookup(size, dim, (grid, grid))}
    generator["conv1"] = nn.Sequential(nn.Conv2d(dim, widths[-1], 3, padding=1), nn.ReLU(inplace=True))
    generator["block"] = Residual(widths[-1])
    for k, i in enumerate(range(times, 1, -1), start=1):
        up = upsampling(widths[i], widths[i - 1], sizes[i], sizes[i - 1])
        generator[f"deconv{k}"] = nn.Sequential(up, nn.ReLU(inplace=True))
    generator["output"] = upsampling(widths[1], channels, sizes[1], sizes[0])
    return StagedNetwork(encoder, "encoder"), StagedNetwork(generator, "generator")
