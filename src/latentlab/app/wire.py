"""The wire format of live decoding: what a browser asks and how an answer is packed.

Little-endian. Request: id (u32), flags (u16), dim (u16), then dim float32 (none: the session's own input). Answer:
header length (u32), header (JSON), then the parts' bytes one after the other, as the header's ``parts`` lay out:
images as raw uint8 (height, width, channels) up to 128 pixels a side and JPEG above, unless they are wanted raw;
feature sheets as uint8 (units, height, width), unit statistics as float32 (units, 3).
"""

from __future__ import annotations

import base64
import io
import json
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

HEADER = struct.Struct("<IHH")
WANT_IMAGE, WANT_ORIGINAL, WANT_SHEET = 1, 2, 4
WANT_RAW = 8  # beside the former: images as they are, whatever their size
MAX_UNITS_SHOWN = 4096
MAX_SHEET_BYTES = 512 * 1024
RAW_SIDE = 128
JPEG_QUALITY = 85
LARGEST = 1e12


@dataclass(frozen=True)
class Request:
    """One decode request: ``z`` (dim,) float32, or None for the session's own input."""

    id: int
    flags: int
    z: np.ndarray | None

    @classmethod
    def parse(cls, message: bytes, dim: int) -> Request:
        """Reads a binary message.

        Raises:
            ValueError: if it is not a request for a code of ``dim`` finite numbers; one sentence.
        """
        if len(message) < HEADER.size:
            raise ValueError(f"A request has at least {HEADER.size} bytes; got {len(message)}.")
        request, flags, count = HEADER.unpack_from(message)
        wanted = flags & ~WANT_RAW
        if wanted == 0 or wanted & ~(WANT_IMAGE | WANT_ORIGINAL | WANT_SHEET):
            raise ValueError(f"A request's flags are a sum of 1, 2 and 4, and 8 for raw images; got {flags}.")
        if count not in (0, dim):
            raise ValueError(f"This model's code has {dim} numbers; the request has {count}.")
        if len(message) != HEADER.size + 4 * count:
            raise ValueError(
                f"A request for {count} numbers has {HEADER.size + 4 * count} bytes; got {len(message)}."
            )
        if count == 0:
            return cls(request, flags, None)
        z = np.frombuffer(message, "<f4", offset=HEADER.size).astype(np.float32)
        if not np.isfinite(z).all():
            raise ValueError("A code must hold finite numbers; this one has NaN or infinity.")
        return cls(request, flags, z)


def first_tensor(state: Any) -> torch.Tensor:
    """The tensor of a stage's state; of several (a style and a map), the one with the most dimensions."""
    if isinstance(state, torch.Tensor):
        return state
    return max((t for t in state if isinstance(t, torch.Tensor)), key=lambda t: t.ndim)


def pack_image(image: np.ndarray, raw: bool = False) -> dict[str, Any]:
    """One image (channels, height, width) in [0, 1] as a part.

    Args:
        image: its channels beyond three, or beyond one of two, are left out.
        raw: as uint8 whatever its size; else only up to 128 pixels a side, and as JPEG above.
    """
    pixels = np.nan_to_num(np.moveaxis(np.asarray(image, np.float32), 0, -1), nan=0.0)
    if pixels.shape[-1] not in (1, 3):
        pixels = pixels[..., :3] if pixels.shape[-1] > 3 else pixels[..., :1]
    pixels = np.ascontiguousarray((pixels.clip(0.0, 1.0) * 255.0 + 0.5).astype(np.uint8))
    height, width, channels = pixels.shape
    part: dict[str, Any] = {"w": width, "h": height, "c": channels, "format": "raw"}
    if raw or max(height, width) <= RAW_SIDE:
        return {**part, "data": pixels.tobytes()}
    out = io.BytesIO()
    Image.fromarray(pixels if channels == 3 else pixels[..., 0]).save(out, "JPEG", quality=JPEG_QUALITY)
    return {**part, "format": "jpeg", "data": out.getvalue()}


def pack_sheet(maps: np.ndarray, stage: str) -> list[dict[str, Any]]:
    """A stage's maps (units, height, width) or (units,) as two parts: the sheet, and each unit's statistics.

    The scale is one for the whole stage: a state with negative values is shown about zero ("signed": byte 128 is 0,
    ``high`` is byte 255), any other from 0 to ``high``. Maps too big to travel are averaged down. Statistics are
    each unit's mean, spread (standard deviation over the map) and largest magnitude, of the full-size map.
    """
    # Far beyond any activation, and small enough for sums and squares: a header's numbers must be finite.
    maps = np.nan_to_num(np.asarray(maps, np.float32)).clip(-LARGEST, LARGEST)
    maps = (
        maps.reshape(maps.shape[0], 1, 1) if maps.ndim == 1 else maps.reshape(maps.shape[0], *maps.shape[-2:])
    )
    units = maps.shape[0]
    maps = maps[:MAX_UNITS_SHOWN]
    stats = np.stack([maps.mean((1, 2)), maps.std((1, 2)), np.abs(maps).max((1, 2))], 1).astype("<f4")
    step = math.ceil(math.sqrt(maps.size / MAX_SHEET_BYTES))
    if step > 1 and min(maps.shape[1:]) >= step:
        height, width = maps.shape[1] // step * step, maps.shape[2] // step * step
        cut = maps[:, :height, :width].reshape(len(maps), height // step, step, width // step, step)
        maps = cut.mean((2, 4))
    signed = bool(maps.min() < 0)
    # The 99.5 % point, so that one hot pixel does not black out the sheet.
    high = float(np.quantile(np.abs(maps), 0.995)) or float(np.abs(maps).max()) or 1.0
    scaled = 128.0 + 127.0 * maps / high if signed else 255.0 * maps / high
    sheet = {
        "kind": "sheet",
        "stage": stage,
        "units": units,
        "shown": len(maps),
        "h": maps.shape[1],
        "w": maps.shape[2],
        "signed": signed,
        "high": high,
        "format": "raw",
        "data": scaled.round().clip(0, 255).astype(np.uint8).tobytes(),
    }
    return [sheet, {"kind": "stats", "format": "f32", "data": stats.tobytes()}]


def pack_answer(request: int, milliseconds: float, parts: Iterable[dict[str, Any]]) -> bytes:
    """Header and parts as one message."""
    layout, payload, offset = [], [], 0
    for part in parts:
        data = part["data"]
        layout.append(
            {**{k: v for k, v in part.items() if k != "data"}, "offset": offset, "length": len(data)}
        )
        payload.append(data)
        offset += len(data)
    header = json.dumps(
        {"id": request, "ms": round(milliseconds, 2), "parts": layout}, allow_nan=False
    ).encode()
    return b"".join([struct.pack("<I", len(header)), header, *payload])


def to_text(data: bytes) -> str:
    """Bytes as base64, the way they travel through Streamlit when there is no route of ours."""
    return base64.b64encode(data).decode("ascii")
