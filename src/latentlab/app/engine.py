"""Live sessions: what a browser may decode while a person drags, and how an answer is packed.

A *session* belongs to one person's page: it holds a shared model, an input (a code or an image) and edits, under an
unguessable token. The WebSocket route (``server.py``) looks sessions up by token and calls ``LiveSession.answer`` in
the session's one worker thread. Models are shared by all sessions and never changed: edits travel with each call.

Wire format, little-endian. Request: id (u32), flags (u16), dim (u16), then dim float32 (none: the session's own
input). Answer: header length (u32), header (JSON), then the parts' bytes one after the other, as the header's
``parts`` lay out: images as raw uint8 (height, width, channels) up to 128 pixels a side and JPEG above, feature
sheets as uint8 (units, height, width), unit statistics as float32 (units, 3).
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import math
import secrets
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from latentlab.models.edits import Edit

logger = logging.getLogger(__name__)

HEADER = struct.Struct("<IHH")
WANT_IMAGE, WANT_ORIGINAL, WANT_SHEET = 1, 2, 4
MAX_EDITS = 256
MAX_UNITS_SHOWN = 4096
MAX_SHEET_BYTES = 512 * 1024
RAW_SIDE = 128
JPEG_QUALITY = 85
SESSION_TTL = 120.0  # seconds without a connection; Streamlit keeps a vanished page as long
MAX_SESSIONS = 256
MAX_CONNECTIONS = 4  # of one session: a page that is being redrawn holds two for a moment
MAX_BLOB_BYTES = 512 * 1024 * 1024


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
        if flags == 0 or flags & ~(WANT_IMAGE | WANT_ORIGINAL | WANT_SHEET):
            raise ValueError(f"A request's flags are a sum of 1, 2 and 4; got {flags}.")
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


@dataclass
class View:
    """What one connection looks at: the stage whose maps it shows, and its own edits and code if it set any."""

    edits: tuple[Edit, ...] | None = None
    stage: str | None = None
    z: np.ndarray | None = None


@dataclass(eq=False)
class LiveSession:
    """A model with an input and edits that one page may decode. Made by ``open_session``."""

    token: str
    owner: str
    slot: str
    model: Any
    z: torch.Tensor | None = None
    image: torch.Tensor | None = None
    edits: tuple[Edit, ...] = ()
    touched: float = field(default_factory=time.monotonic)
    connections: int = 0
    closed: bool = False
    listeners: set[Callable[[bool], None]] = field(default_factory=set)
    _worker: ThreadPoolExecutor | None = None
    _shapes: dict[str, tuple[int, ...]] | None = None

    @property
    def dim(self) -> int:
        """Number of coordinates of the model's code."""
        return self.model.latent_space.dim

    @property
    def worker(self) -> ThreadPoolExecutor:
        """The session's one decoding thread, started when it is first needed."""
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="latentlab-decode")
        return self._worker

    def free(self) -> None:
        """Stops the thread; work that has not begun is dropped."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.shutdown(wait=False, cancel_futures=True)

    def check_stage(self, address: Any) -> str:
        """Returns ``address`` if the model has that stage.

        Raises:
            ValueError: otherwise, naming the stages there are.
        """
        stages = [a for network in self.model.networks.values() for a in network.addresses]
        if not isinstance(address, str) or address not in stages:
            raise ValueError(f"No stage {str(address)[:80]!r} in this model; it has {', '.join(stages)}.")
        return address

    def check_edits(self, specs: Any) -> tuple[Edit, ...]:
        """Reads a list of edit dictionaries and checks stages, units and sources against the model.

        Raises:
            ValueError: one sentence on the first thing that is wrong.
        """
        if not isinstance(specs, list) or len(specs) > MAX_EDITS:
            raise ValueError(f"Edits are a list of at most {MAX_EDITS} dictionaries.")
        edits = tuple(Edit.from_dict(spec) for spec in specs)
        for edit in edits:
            self.check_stage(edit.stage)
            shape = self.shapes().get(edit.stage, ())
            if edit.units and shape and edit.units[-1] >= shape[0]:
                raise ValueError(
                    f"Stage {edit.stage!r} has units 0 to {shape[0] - 1}; the edit names unit {edit.units[-1]}."
                )
            if edit.region is not None and len(shape) != 3:
                raise ValueError(
                    f"Stage {edit.stage!r} has no spatial map, so an edit of it can't have a region."
                )
            if edit.source is not None and not all(map(math.isfinite, edit.source)):
                raise ValueError("An edit's source must hold finite numbers.")
        return edits

    def check_z(self, values: Any) -> np.ndarray:
        """Reads a code from a JSON list.

        Raises:
            ValueError: on a wrong length or numbers that are not finite.
        """
        numbers = isinstance(values, list) and all(isinstance(v, int | float) for v in values)
        if not numbers or len(values) != self.dim:
            raise ValueError(f"This model's code is a list of {self.dim} numbers.")
        try:
            z = np.asarray(values, dtype=np.float32)
        except OverflowError:
            z = np.full(self.dim, np.inf)
        if not np.isfinite(z).all():
            raise ValueError("A code must hold finite numbers; this one has NaN or infinity.")
        return z

    @torch.inference_mode()
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every stage's state, without the batch, by address."""
        if self._shapes is None:
            z = torch.zeros(1, self.dim, device=self._device())
            inputs = {
                "generator": z,
                "encoder": torch.zeros(1, *self.model.image_shape, device=self._device()),
            }
            self._shapes = {
                info.address: info.shape
                for name, network in self.model.networks.items()
                if name in inputs
                for info in network.describe(inputs[name])
            }
        return self._shapes

    @torch.inference_mode()
    def answer(self, request: Request, view: View) -> bytes:
        """Decodes what the request asks for. Runs in the worker thread.

        Returns:
            The packed answer (module docstring).

        Raises:
            ValueError: if the session has no input, or no stage is chosen for a sheet.
        """
        began = time.perf_counter()
        edits = self.edits if view.edits is None else view.edits
        parts = []
        image = None
        if request.z is not None:
            z = torch.from_numpy(request.z)[None]
        elif view.z is not None:
            z = torch.from_numpy(view.z)[None]
        elif self.image is not None:
            image = self.image.to(self._device())
            z = self.model.encode(image, edits=edits).mean
        elif self.z is not None:
            z = self.z
        else:
            raise ValueError("This session has no input yet; send a code.")
        z = z.to(self._device())
        if request.flags & WANT_ORIGINAL:
            plain = z if image is None else self.model.encode(image).mean
            parts.append(
                {"kind": "original", **pack_image(self.model.decode(plain)[0].float().cpu().numpy())}
            )
        if request.flags & WANT_IMAGE:
            decoded = self.model.decode(z, edits=edits)
            parts.append({"kind": "image", **pack_image(decoded[0].float().cpu().numpy())})
        if request.flags & WANT_SHEET:
            if view.stage is None:
                raise ValueError("Choose a stage before asking for its maps.")
            name, h = view.stage.split(".", 1)[0], z
            if name == "encoder":
                if image is None:
                    image = self.model.decode(z) if self.image is None else self.image.to(self._device())
                h = image
            network = self.model.networks[name]
            state = network.activations(h, [view.stage], edits=edits)[network.stage_name(view.stage)]
            parts.extend(pack_sheet(first_tensor(state)[0].float().cpu().numpy(), view.stage))
        return pack_answer(request.id, (time.perf_counter() - began) * 1e3, parts)

    def _device(self) -> torch.device:
        parameter = next(iter(self.model.parameters()), None) if hasattr(self.model, "parameters") else None
        return torch.device("cpu") if parameter is None else parameter.device


def first_tensor(state: Any) -> torch.Tensor:
    """The tensor of a stage's state; of several (a style and a map), the one with the most dimensions."""
    if isinstance(state, torch.Tensor):
        return state
    return max((t for t in state if isinstance(t, torch.Tensor)), key=lambda t: t.ndim)


def pack_image(image: np.ndarray) -> dict[str, Any]:
    """One image (channels, height, width) in [0, 1] as a part: raw uint8 up to 128 pixels a side, else JPEG."""
    pixels = np.nan_to_num(np.moveaxis(np.asarray(image, np.float32), 0, -1), nan=0.0)
    if pixels.shape[-1] not in (1, 3):
        pixels = pixels[..., :3] if pixels.shape[-1] > 3 else pixels[..., :1]
    pixels = np.ascontiguousarray((pixels.clip(0.0, 1.0) * 255.0 + 0.5).astype(np.uint8))
    height, width, channels = pixels.shape
    part: dict[str, Any] = {"w": width, "h": height, "c": channels, "format": "raw"}
    if max(height, width) <= RAW_SIDE:
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
    maps = np.nan_to_num(np.asarray(maps, np.float32))
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
    header = json.dumps({"id": request, "ms": round(milliseconds, 2), "parts": layout}).encode()
    return b"".join([struct.pack("<I", len(header)), header, *payload])


def to_text(data: bytes) -> str:
    """Bytes as base64, the way they travel through Streamlit when there is no route of ours."""
    return base64.b64encode(data).decode("ascii")


@dataclass
class _Blob:
    data: bytes
    name: tuple[str, str]
    digest: bytes
    touched: float


class Registry:
    """All live sessions and published point buffers of this process, by token. Thread-safe."""

    def __init__(self) -> None:
        self.serving = False
        self._lock = threading.RLock()
        self._sessions: dict[str, LiveSession] = {}
        self._slots: dict[tuple[str, str], str] = {}
        self._blobs: dict[str, _Blob] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def open(
        self, owner: str, slot: str, model: Any, z=None, image=None, edits: Sequence[Edit] = ()
    ) -> LiveSession:
        """The session of (owner, slot) for ``model``, made if need be, with this input and these edits."""
        if image is not None and not hasattr(model, "encode"):
            raise ValueError(
                "This model has no encoder, so a session of it can't start from an image; pass z."
            )
        with self._lock:
            self.sweep()
            session = self._sessions.get(self._slots.get((owner, slot), ""))
            if session is None or session.model is not model:
                if session is not None:
                    self.close(session.token)
                session = LiveSession(secrets.token_urlsafe(24), owner, slot, model)
                self._sessions[session.token] = session
                self._slots[owner, slot] = session.token
            code = None if z is None else _code(z, model.latent_space.dim)
            pixels = None if image is None else _image(image, model.image_shape)
            moved = not (_equal(code, session.z) and _equal(pixels, session.image))
            edited = tuple(edits) != session.edits
            session.z, session.image, session.edits = code, pixels, tuple(edits)
            session.touched = time.monotonic()
            listeners = tuple(session.listeners) if moved or edited else ()
        for tell in listeners:
            tell(moved)
        return session

    def attach(self, token: str) -> LiveSession | None:
        """Counts one more connection to the session; None if there is no such session or it has too many."""
        with self._lock:
            session = self._sessions.get(token)
            if session is None or session.connections >= MAX_CONNECTIONS:
                return None
            session.connections += 1
            session.touched = time.monotonic()
            return session

    def detach(self, session: LiveSession) -> None:
        """Takes one connection back; the last one frees the session's thread and starts its countdown."""
        with self._lock:
            session.connections = max(0, session.connections - 1)
            session.touched = time.monotonic()
            if session.connections == 0:
                session.free()

    def close(self, token: str) -> None:
        """Forgets the session; its connections end."""
        with self._lock:
            session = self._sessions.pop(token, None)
            if session is not None:
                session.closed = True
                if self._slots.get((session.owner, session.slot)) == token:
                    del self._slots[session.owner, session.slot]
                session.free()

    def sweep(self) -> None:
        """Forgets sessions that nobody is connected to for too long, and the oldest above the limit."""
        with self._lock:
            now = time.monotonic()
            idle = sorted((s for s in self._sessions.values() if s.connections == 0), key=lambda s: s.touched)
            excess = len(self._sessions) - MAX_SESSIONS
            for i, session in enumerate(idle):
                if i < excess or now - session.touched > SESSION_TTL:
                    self.close(session.token)
            busy = sorted(self._sessions.values(), key=lambda s: s.touched)
            for session in busy[: max(0, len(busy) - MAX_SESSIONS)]:
                self.close(session.token)
            for token, blob in list(self._blobs.items()):
                if now - blob.touched > 5 * SESSION_TTL:
                    del self._blobs[token]

    def publish(self, owner: str, slot: str, data: bytes) -> str:
        """Keeps a buffer for ``/ll/points/<token>``; the same bytes in the same slot keep their token."""
        digest = hashlib.blake2b(data, digest_size=16).digest()
        with self._lock:
            for token, blob in list(self._blobs.items()):
                if blob.name == (owner, slot):
                    if blob.digest == digest:
                        blob.touched = time.monotonic()
                        return token
                    del self._blobs[token]
            token = secrets.token_urlsafe(24)
            self._blobs[token] = _Blob(data, (owner, slot), digest, time.monotonic())
            total = sum(len(blob.data) for blob in self._blobs.values())
            for old, blob in sorted(self._blobs.items(), key=lambda item: item[1].touched):
                if total <= MAX_BLOB_BYTES or old == token:
                    break
                total -= len(blob.data)
                del self._blobs[old]
            return token

    def blob(self, token: str) -> bytes | None:
        """The published buffer, or None."""
        with self._lock:
            blob = self._blobs.get(token)
            if blob is None:
                return None
            blob.touched = time.monotonic()
            return blob.data


def _equal(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and torch.equal(a, b))


def _code(z: Any, dim: int) -> torch.Tensor:
    code = torch.as_tensor(np.asarray(z), dtype=torch.float32).reshape(-1)
    if code.numel() != dim or not torch.isfinite(code).all():
        raise ValueError(f"This model's code has {dim} finite numbers; got {code.numel()}.")
    return code[None].clone()


def _image(image: Any, shape: Sequence[int]) -> torch.Tensor:
    pixels = torch.as_tensor(np.asarray(image), dtype=torch.float32)
    if tuple(pixels.shape) != tuple(shape) or not torch.isfinite(pixels).all():
        raise ValueError(
            f"This model's images are {tuple(shape)} with finite values; got {tuple(pixels.shape)}."
        )
    return pixels[None].clone()


registry = Registry()


def serving() -> bool:
    """Whether this process serves our routes, so that components may use the server engine."""
    return registry.serving


def open_session(
    slot: str, model: Any, *, z=None, image=None, edits: Sequence[Edit] = (), owner: str | None = None
):
    """Opens, or finds again, the live session of this page; to be called on every script run.

    Args:
        slot: which session of the page this is ("traverse", "layers"); one model each.
        model: a GenerativeModel; shared, never changed.
        z: the input as a code (dim,); optional for components that send codes themselves.
        image: the input as an image (channels, height, width) in [0, 1], which the session encodes under its edits.
        edits: edits that a connection starts with.
        owner: whose session; the Streamlit session's id by default.

    Returns:
        The token to hand to a component, or None when this process does not serve our routes.

    Raises:
        ValueError: if ``z`` or ``image`` does not fit the model.
    """
    owner = current_owner() if owner is None else owner
    if not serving() or owner is None:
        return None
    return registry.open(owner, slot, model, z=z, image=image, edits=edits).token


def publish(slot: str, data: bytes, owner: str | None = None) -> str | None:
    """Publishes a buffer for the browser to fetch; returns its token, or None when our routes are not served."""
    owner = current_owner() if owner is None else owner
    if not serving() or owner is None:
        return None
    return registry.publish(owner, slot, data)


def current_owner() -> str | None:
    """The Streamlit session that runs this script, or None outside of one."""
    from streamlit.runtime.scriptrunner import get_script_run_ctx

    context = get_script_run_ctx(suppress_warning=True)
    return None if context is None else context.session_id
