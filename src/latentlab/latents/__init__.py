"""The latent space: ordered, named blocks of coordinates, and distributions over them.

Symbols: ``z`` is a code, one flat tensor (batch, dim); a *block* is a run of coordinates with one prior; ``q``
is a posterior over ``z`` given an image. Everything that speaks of latents speaks of these.
"""

from latentlab.latents.blending import bilinear_weights, blend, temper
from latentlab.latents.codebook import Codebook, PointMass
from latentlab.latents.posterior import Posterior
from latentlab.latents.priors import (
    PRIORS,
    UNORDERED,
    Categorical,
    GumbelSoftmax,
    Mapped,
    Normal,
    Prior,
    Uniform,
)
from latentlab.latents.space import Block, LatentSpace

ACTIVE_NATS = 0.1
"""A coordinate whose mean KL to the prior exceeds this, nats, counts as active everywhere."""

__all__ = [
    "ACTIVE_NATS",
    "PRIORS",
    "UNORDERED",
    "Block",
    "Categorical",
    "Codebook",
    "GumbelSoftmax",
    "LatentSpace",
    "Mapped",
    "Normal",
    "PointMass",
    "Posterior",
    "Prior",
    "Uniform",
    "bilinear_weights",
    "blend",
    "temper",
]
