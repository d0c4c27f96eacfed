"""The kernel's answers to a widget whose model the browser engine can't run."""

from __future__ import annotations

from typing import Any

import numpy as np

from latentlab.analysis import activations, decode_latents
from latentlab.models.edits import Edit

_MOST_CODES = 64


def answer(model: Any, space: str, request: Any) -> tuple[dict[str, Any], list[bytes]]:
    """What engine.js answers to the same request, decoded by torch.

    Args:
        model: a generative model.
        space: of the codes.
        request: {id, codes (n, dim), edits, stage, original, exact} as the browser sends it.

    Returns:
        A message, and the bytes that belong to it in the order of its ``parts``: images (height, width, channels) as
        bytes or, if ``exact``, float32; the stage's state (units, …) float32; the last code's image without edits. Of a
        request that can't be answered, a message that says why.
    """
    number = request.get("id") if isinstance(request, dict) else None
    try:
        return _answered(model, space, request)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        return {
            "id": number,
            "error": str(error).splitlines()[0] if str(error) else "The kernel can't draw this.",
        }, []


def _answered(model: Any, space: str, request: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    codes = np.asarray(request["codes"], np.float32)
    if len(codes) > _MOST_CODES:
        raise ValueError(f"At most {_MOST_CODES} pictures are drawn at once; got {len(codes)}.")
    edits = tuple(Edit.from_dict(edit) for edit in request.get("edits", ()))

    def kept(images: np.ndarray) -> list[bytes]:
        images = images.transpose(0, 2, 3, 1)
        values = images.astype("<f4") if request.get("exact") else np.rint(255 * images).astype(np.uint8)
        return [image.tobytes() for image in values]

    buffers = kept(decode_latents(model, codes, edits=edits, space=space))
    parts, state = ["image"] * len(buffers), None
    if request.get("stage"):
        stage = str(request["stage"])
        found = activations(model, "generator", codes[-1:], stage, edits=edits)
        values = np.asarray(next(iter(found.states.values())), "<f4")[0]
        state = {"address": stage, "shape": list(values.shape)}
        parts.append("state")
        buffers.append(values.tobytes())
    if request.get("original"):
        parts.append("original")
        buffers += kept(decode_latents(model, codes[-1:], space=space))
    channels, height, width = model.image_shape
    message = {
        "id": request.get("id"),
        "c": channels,
        "h": height,
        "w": width,
        "parts": parts,
        "state": state,
    }
    return message, buffers
