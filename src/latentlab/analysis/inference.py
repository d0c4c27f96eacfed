"""Running a model without leaving a trace: eval mode, no gradients, everything put back as it was.

The app shares one model among threads. A model that is in eval mode already is not touched at all, so
that concurrent calls can't disturb one another; only a model found in training mode is switched, and
switched back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from latentlab.models.contract import is_inference_model, space_of
from latentlab.models.edits import Edit

BATCH_SIZE = 256


@contextmanager
def inference(*modules: object) -> Iterator[None]:
    """Runs its body in eval mode under ``inference_mode``; puts every training flag back, come what may."""
    training = [
        m for module in modules if isinstance(module, nn.Module) for m in module.modules() if m.training
    ]
    try:
        for module in training:
            module.training = False
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def evaluating(*modules: object) -> Iterator[None]:
    """Eval mode inside, every training flag put back behind it; unlike ``inference`` it lets gradients through.

    Gradients are taken with ``torch.autograd.grad`` or ``torch.func`` for the inputs asked for, never with
    ``backward``, which would fill the weights' ``grad``.
    """
    training = [
        m for module in modules if isinstance(module, nn.Module) for m in module.modules() if m.training
    ]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


def device_of(module: object) -> torch.device:
    """The device that a model lives on (that of its first parameter or buffer; else the CPU)."""
    if isinstance(module, nn.Module):
        for tensor in module.parameters():
            return tensor.device
        for tensor in module.buffers():
            return tensor.device
    return torch.device("cpu")


def to_numpy(tensor: Tensor) -> np.ndarray:
    """A tensor as a float32 (or integer) array on the CPU."""
    tensor = tensor.detach()
    return (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()


def to_tensor(values: object, device: torch.device) -> Tensor:
    """Numbers of any kind as a float32 tensor on a device, always a copy: results must not change with them."""
    if isinstance(values, Tensor):
        return values.detach().to(device, torch.float32, copy=True)
    return torch.as_tensor(np.array(values, dtype=np.float32), device=device)


def in_chunks(run: Callable[[Tensor], Tensor], rows: Tensor, batch_size: int = BATCH_SIZE) -> np.ndarray:
    """Applies ``run`` to all rows, ``batch_size`` at a time, and joins the outcomes on the CPU.

    Raises:
        ValueError: on a batch size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}.")
    return np.concatenate([to_numpy(run(part)) for part in rows.split(batch_size)])


def as_codes(model: Any, z: Any, *, name: str = "z", space: str | None = None) -> Tensor:
    """Checks codes given by a user: (dim,) or (n, dim) finite numbers of one of the model's spaces.

    Args:
        model: a generative model.
        z: numbers, or a result that holds codes and knows their space, such as an Inversion.
        name: what the codes are called in errors.
        space: name of the space, the model's first one where it is not given.

    Returns:
        A tensor (n, dim), float32, on the model's device.

    Raises:
        ValueError: on a wrong shape, on numbers that are not finite, or on codes of another space.
    """
    needs_generator(model)
    place = space_of(model, space)
    theirs = getattr(z, "space", None)
    if isinstance(theirs, str):
        if theirs != place.name:
            raise ValueError(
                f"{name} has codes of space {theirs!r}, and this call works in space {place.name!r}; "
                f"pass space={theirs!r}, or carry the codes over with model.map."
            )
        z = z.z
    codes = to_tensor(z, device_of(model))
    codes = codes[None] if codes.ndim == 1 else codes
    dim = place.dim
    if codes.ndim != 2 or codes.shape[1] != dim or not len(codes):
        raise ValueError(f"{name} must be codes ({dim},) or (n, {dim}); got shape {tuple(np.shape(z))}.")
    if not bool(torch.isfinite(codes).all()):
        raise ValueError(f"{name} must hold finite numbers; it holds NaN or infinity.")
    return codes


def check_seed(seed: Any) -> int:
    """The seed, if it is one.

    Raises:
        ValueError: unless it is a whole number of at least 0 that fits in 63 bits.
    """
    whole = isinstance(seed, (int, np.integer)) and not isinstance(seed, bool)
    if not whole or not 0 <= seed < 2**63:
        raise ValueError(f"seed must be a whole number from 0 to 2**63 - 1; got {seed!r}.")
    return int(seed)


def draw_codes(model: Any, n: int, seed: int, space: str | None = None) -> Tensor:
    """Codes (n, dim) from the model's own prior, carried to another space where one is named.

    Raises:
        ValueError: on a seed that is none, or a space that the model does not have.
    """
    needs_generator(model)
    codes = model.sample_codes(n, check_seed(seed))
    return carry(model, codes, space_of(model, space).name)


def carry(model: Any, codes: Tensor, target: str) -> Tensor:
    """Codes (n, dim) of the model's first space as codes of another; the same where it is the same."""
    source = model.latent_space.name
    if source == target:
        return codes
    with inference(model):
        carried = model.map(codes, source, target)
    return carried.clone()  # an ordinary tensor, which gradients may lead past


def as_code(model: Any, z: Any, seed: int, *, name: str = "z", space: str | None = None) -> Tensor:
    """One code (dim,) given by a user, or a draw from the prior where ``z`` is None."""
    if z is None:
        return draw_codes(model, 1, seed, space)[0]
    codes = as_codes(model, z, name=name, space=space)
    if len(codes) != 1:
        raise ValueError(f"{name} must be one code ({space_of(model, space).dim},); got {len(codes)} codes.")
    return codes[0]


def as_images(model: Any, x: Any, *, name: str = "x") -> Tensor:
    """Checks images given by a user: (c, h, w) or (n, c, h, w) in [0, 1] of the model's shape.

    Raises:
        ValueError: on a wrong shape or on numbers outside [0, 1].
    """
    images = to_tensor(x, device_of(model))
    images = images[None] if images.ndim == 3 else images
    expected = tuple(model.image_shape)
    if images.ndim != 4 or tuple(images.shape[1:]) != expected or not len(images):
        raise ValueError(
            f"{name} must be images (n, {', '.join(map(str, expected))}); got {tuple(np.shape(x))}."
        )
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError(f"{name} must be images in [0, 1]; got values outside.")
    return images


def check_edits(edits: Sequence[Edit], network: str, *others: str) -> tuple[Edit, ...]:
    """Refuses edits that a run of these networks would never meet, since they would silently change nothing.

    Raises:
        ValueError: naming the edit and the networks.
    """
    edits, met = tuple(edits), {network, *others}
    for edit in edits:
        if edit.network not in met:
            raise ValueError(
                f"The edit of {edit.stage!r} has no effect on network {network!r}; "
                f"it needs stages of {' or '.join(sorted(met))}."
            )
    return edits


def named(space: str | None) -> dict[str, str]:
    """The space as a parameter of a call, where one was named."""
    return {} if space is None else {"space": space}


def input_spaces(model: Any) -> dict[str, str]:
    """Which space's codes each network of a model reads that reads codes at all; the generator always does."""
    return getattr(model, "input_spaces", None) or {"generator": model.latent_space.name}


def decode_latents(
    model: Any,
    z: Any,
    *,
    edits: Sequence = (),
    space: str | None = None,
    batch_size: int = BATCH_SIZE,
) -> np.ndarray:
    """Decodes codes into images.

    Args:
        model: a generative model.
        z: codes (n, dim) or (dim,).
        edits: edits of the generator, or of a network on the codes' way to it.
        space: name of the codes' space, the model's first one where it is not given.
        batch_size: codes decoded at a time.

    Returns:
        Images (n, channels, height, width) in [0, 1].

    Raises:
        ValueError: on codes that don't fit the model, or edits that have no effect on the generator.
    """
    codes = as_codes(model, z, space=space)
    place = space_of(model, space).name
    edits = check_edits(
        edits, "generator", *(name for name, reads in input_spaces(model).items() if reads == place)
    )
    with inference(model):
        return in_chunks(lambda part: decoded(model, part, edits, place), codes, batch_size)


def decoded(model: Any, codes: Tensor, edits: Sequence = (), space: str | None = None) -> Tensor:
    """Images of codes of a space; a model with one space need not know its name."""
    if space is None or space == model.latent_space.name:
        return model.decode(codes, edits=edits)
    return model.decode(codes, edits=edits, space=space)


def encode_images(
    model: Any, x: Any, *, seed: int | None = None, edits: Sequence = (), batch_size: int = BATCH_SIZE
) -> np.ndarray:
    """Encodes images into codes.

    Args:
        model: a model with an encoder.
        x: images (n, channels, height, width) or one of them, in [0, 1].
        seed: None for posterior means; a seed for one draw from each posterior.
        edits: edits of the encoder; those of the generator wait for the decoding.
        batch_size: images encoded at a time.

    Returns:
        Codes (n, dim).

    Raises:
        ValueError: if the model has no encoder, the images don't fit it, or edits could have no effect.
    """
    needs_encoder(model)
    images, edits = as_images(model, x), check_edits(edits, "encoder", "generator")
    with inference(model):
        if seed is None:
            return in_chunks(lambda part: model.encode(part, edits=edits).code(), images, batch_size)
        # One pass, so that the draw does not depend on how the images were split up.
        return to_numpy(model.encode(images, edits=edits).sample(check_seed(seed)))


def needs_generator(model: Any) -> None:
    """Refuses what has no latent space, such as a network alone.

    Raises:
        ValueError: if it is no generative model.
    """
    if getattr(model, "latent_space", None) is None:
        raise ValueError(
            f"{type(model).__name__} has no latent space; this analysis needs a generative model: pass the model that "
            "the network belongs to, or make one of a decoder of your own with latentlab.adapt_model(...)."
        )


def needs_encoder(model: Any) -> None:
    """Refuses a model that can't encode.

    Raises:
        ValueError: if it has no encoder.
    """
    if not is_inference_model(model):
        raise ValueError(
            f"{type(model).__name__} has no encoder; this analysis needs a model that encodes images."
        )
