"""An encoder for a given generator, from pairs of codes and their images, of which there are as many as one likes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from latentlab.models.build import SeededWeights
from latentlab.models.contract import GenerativeModel
from latentlab.models.inverse import EncoderSpec, WithEncoder
from latentlab.training.chance import stream_seed


@dataclass(frozen=True)
class EncoderFit:
    """An encoder that was trained for a generator.

    Attributes:
        model: the generator with its encoder, in eval mode, no parameter asking for a gradient.
        losses: -log q(z | G(z)) at each step, nats per image, (steps,).
    """

    model: WithEncoder
    losses: np.ndarray


def fit_encoder(
    model: GenerativeModel,
    *,
    network: str = "burgess",
    width: int = 32,
    hidden: int = 256,
    steps: int = 2000,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    seed: int = 0,
    progress: Callable[[int, float], object] | None = None,
) -> EncoderFit:
    """Trains an encoder on codes of the prior and their images, by maximum likelihood of the codes.

    The generator stays as it is. Only images that it makes are seen: how well the encoder does on others tells how
    near they lie to what the generator can make. A code that the image does not tell of gets a wide posterior.
    ``run.keep_encoder(fit.model)`` puts it into the run's folder, with which it is opened from then on.

    Args:
        model: a generative model without an encoder, whose blocks have a posterior (normal, categorical).
        network: whose encoder is taken, "burgess", "locatello" and so on.
        width: channels of its first convolution.
        hidden: units of its fully connected layers.
        steps: of Adam, whose step size falls to 0 along half a cosine wave.
        batch_size: pairs a step, drawn anew each time.
        learning_rate: Adam's first step size.
        seed: of the encoder's weights and of the codes; a step's codes are a function of (seed, step).
        progress: called with the step and its loss, nats per image.

    Raises:
        ValueError: for a model that has an encoder, an unknown network, or numbers out of range.

    References:
        Adversarial feature learning (Donahue et al., 2017), https://arxiv.org/abs/1605.09782, where this encoder is
        the "latent regressor" that others are measured against
    """
    spec = EncoderSpec(network, width, hidden)
    for name, number in (("steps", steps), ("batch_size", batch_size)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} must be a whole number of at least 1; got {number!r}.")
    with SeededWeights(seed):
        encoder = spec.build(model)
    joined = WithEncoder(model, encoder.to(next(model.parameters()).device), spec)
    adam = torch.optim.Adam(encoder.parameters(), lr=learning_rate)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    losses = np.empty(steps, dtype=np.float32)
    encoder.train()
    with _frozen(model):
        for step in range(steps):
            codes = model.sample_codes(batch_size, stream_seed(seed, "codes of the encoder", step))
            loss = code_loss(joined, codes)
            adam.zero_grad(set_to_none=True)
            loss.backward(inputs=list(encoder.parameters()))
            adam.step()
            falling.step()
            losses[step] = loss.item()
            if progress is not None:
                progress(step, float(losses[step]))
    encoder.eval().requires_grad_(False)
    return EncoderFit(joined, losses)


def code_loss(model: WithEncoder, codes: Tensor) -> Tensor:
    """-log q(z | G(z)) of codes (batch, dim), nats per image: summed over coordinates, averaged over the batch."""
    with torch.no_grad():
        images = model.decode(codes)
    return -model.encode(images).log_prob(codes).sum(dim=1).mean()


@contextmanager
def _frozen(model: GenerativeModel) -> Iterator[None]:
    """The model in eval mode, and back as it was."""
    training = [m for m in model.modules() if m.training] if isinstance(model, nn.Module) else []
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True
