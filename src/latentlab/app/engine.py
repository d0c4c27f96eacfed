"""Live sessions: what a browser may decode while a person drags. The wire format is ``wire.py``'s.

A *session* belongs to one person's page: it holds a shared model, an input (a code or an image) and edits, under an
unguessable token. The WebSocket route (``server.py``) looks sessions up by token and calls ``LiveSession.answer`` in
the session's one worker thread. Models are shared by all sessions and never changed: edits travel with each call.
"""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from latentlab.analysis.inference import carry, input_spaces
from latentlab.app.allowance import Allowance
from latentlab.app.pull import Pull
from latentlab.app.wire import (
    WANT_IMAGE,
    WANT_ORIGINAL,
    WANT_RAW,
    WANT_SHEET,
    Request,
    first_tensor,
    pack_answer,
    pack_image,
    pack_sheet,
)
from latentlab.models.edits import Edit

logger = logging.getLogger(__name__)

MAX_EDITS = 256
MAX_REPLACEMENTS = 16  # each runs the other sample through the network up to its stage
SESSION_TTL = 120.0  # seconds without a connection; Streamlit keeps a vanished page as long
MAX_SESSIONS = 256
MAX_CONNECTIONS = 4  # of one session: a page that is being redrawn holds two for a moment
MAX_BLOB_BYTES = 512 * 1024 * 1024
DRAWING = ("auto", "browser", "server")
"""Who may draw a session's pictures: the browser where it can quickly, or wherever it can, or the server alone."""

_answered = 0.0


def last_answer() -> float:
    """When a live picture was last asked for in this process, in seconds of ``time.monotonic``."""
    return _answered


def check_amount(edits: Sequence[Edit]) -> None:
    """Refuses more edits than can be made while a person drags.

    Raises:
        ValueError: if there are too many, or too many that replace.
    """
    if len(edits) > MAX_EDITS:
        raise ValueError(f"At most {MAX_EDITS} edits can be made at once; got {len(edits)}.")
    replacing = sum(edit.operation == "replace" for edit in edits)
    if replacing > MAX_REPLACEMENTS:
        raise ValueError(
            f"At most {MAX_REPLACEMENTS} edits may replace by another sample, since each runs the network once "
            f"more; got {replacing}."
        )


@dataclass
class View:
    """What one connection looks at: the stage whose maps it shows, and its own edits and code if it set any."""

    edits: tuple[Edit, ...] | None = None
    stage: str | None = None
    z: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Source:
    """What a page gave its session; replaced as a whole, so that no answer sees half of a change."""

    z: torch.Tensor | None = None
    image: torch.Tensor | None = None
    edits: tuple[Edit, ...] = ()


@dataclass(eq=False)
class LiveSession:
    """A model with an input and edits that one page may decode. Made by ``open_session``.

    ``drawing`` is one of ``DRAWING``, what the person wants; ``fetches`` is how often its program may be asked for.
    """

    token: str
    owner: str
    slot: str
    model: Any
    pull: Pull | None = None
    source: Source = field(default_factory=Source)
    drawing: str = "server"
    fetches: Allowance = field(default_factory=Allowance)
    touched: float = field(default_factory=time.monotonic)
    connections: int = 0
    closed: bool = False
    listeners: set[Callable[[bool], None]] = field(default_factory=set)
    _worker: ThreadPoolExecutor | None = None
    _shapes: dict[str, tuple[int, ...]] | None = None

    @property
    def dim(self) -> int:
        """How many numbers a request has: the coordinates of the model's code, or what the sliders stand for."""
        return self.model.latent_space.dim if self.pull is None else self.pull.dim(self.model)

    @property
    def worker(self) -> ThreadPoolExecutor:
        """The session's one decoding thread, started when it is first needed.

        Raises:
            RuntimeError: if the session was closed; nobody would end the thread.
        """
        if self.closed:
            raise RuntimeError("This session was closed.")
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
            raise ValueError(f"Edits are a list of at most {MAX_EDITS} dictionaries.")  # before any is read
        edits = tuple(Edit.from_dict(spec) for spec in specs)
        check_amount(edits)
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
            space = input_spaces(self.model).get(edit.network)
            size = (
                math.prod(self.model.image_shape)
                if space is None
                else self.model.latent_space.dim
                if space == self.model.latent_space.name
                else self.model.spaces[space].dim
            )
            if edit.source is not None and len(edit.source) != size:
                raise ValueError(
                    f"The source of an edit of {edit.stage!r} has {size} numbers; got {len(edit.source)}."
                )
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
            z = torch.zeros(1, self.model.latent_space.dim, device=self._device())
            images = torch.zeros(1, *self.model.image_shape, device=self._device())
            inputs = {
                **dict.fromkeys(self.model.networks, images),
                **{name: carry(self.model, z, space) for name, space in input_spaces(self.model).items()},
            }
            self._shapes = {
                info.address: info.shape
                for name, network in self.model.networks.items()
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
        global _answered
        began, _answered = time.perf_counter(), time.monotonic()
        source = self.source
        edits = source.edits if view.edits is None else view.edits
        parts = []
        image = None
        raw = bool(request.flags & WANT_RAW)
        if request.z is not None:
            z = torch.from_numpy(request.z)[None]
        elif view.z is not None:
            z = torch.from_numpy(view.z)[None]
        elif source.image is not None:
            image = source.image.to(self._device())
            z = self.model.encode(image, edits=edits).code()
        elif source.z is not None:
            z = source.z
        else:
            raise ValueError("This session has no input yet; send a code.")
        z = z.to(self._device())
        if request.flags & WANT_ORIGINAL:
            plain = z if image is None else self.model.encode(image).code()
            parts.append(
                {"kind": "original", **pack_image(self.model.decode(plain)[0].float().cpu().numpy(), raw)}
            )
        if request.flags & WANT_IMAGE:
            decoded = (
                self.model.decode(z, edits=edits)
                if self.pull is None
                else self.pull.decode(self.model, z, edits)
            )
            parts.append({"kind": "image", **pack_image(decoded[0].float().cpu().numpy(), raw)})
        if request.flags & WANT_SHEET:
            if view.stage is None:
                raise ValueError("Choose a stage before asking for its maps.")
            name, h = view.stage.split(".", 1)[0], z
            if name in input_spaces(self.model):
                h = carry(self.model, z, input_spaces(self.model)[name])
            elif source.image is not None:
                h = source.image.to(self._device())
            else:  # networks of images are shown what the model draws
                h = self.model.decode(z, edits=edits if name == "discriminator" else ())
            if name == "discriminator":
                values = scores(self.model, h, z, edits)
                if all(map(math.isfinite, values)):
                    parts.append({"kind": "scores", "values": values, "data": b""})
            network = self.model.networks[name]
            state = network.activations(h, [view.stage], edits=edits)[network.stage_name(view.stage)]
            parts.extend(pack_sheet(first_tensor(state)[0].float().cpu().numpy(), view.stage))
        return pack_answer(request.id, (time.perf_counter() - began) * 1e3, parts)

    def _device(self) -> torch.device:
        parameter = next(iter(self.model.parameters()), None) if hasattr(self.model, "parameters") else None
        return torch.device("cpu") if parameter is None else parameter.device


def scores(model: Any, image: torch.Tensor, z: torch.Tensor, edits: Sequence[Edit]) -> tuple[float, float]:
    """What a discriminator says of an image (1, …) drawn from ``z``, without and with the edits; before any sigmoid."""
    labels = model.labels(z)  # None where images are judged without
    before, after = (float(model.discriminate(image, made, labels)) for made in ((), edits))
    return before, after


@dataclass
class _Blob:
    data: bytes
    name: tuple[str, str]
    digest: bytes
    touched: float
    fetches: Allowance = field(default_factory=Allowance)


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
        self,
        owner: str,
        slot: str,
        model: Any,
        z=None,
        image=None,
        edits: Sequence[Edit] = (),
        pull: Pull | None = None,
        drawing: str = "server",
    ) -> LiveSession:
        """The session of (owner, slot) for ``model``, made if need be, with this input and these edits."""
        if image is not None and not hasattr(model, "encode"):
            raise ValueError(
                "This model has no encoder, so a session of it can't start from an image; pass z."
            )
        with self._lock:
            self.sweep()
            session = self._sessions.get(self._slots.get((owner, slot), ""))
            if session is None or session.model is not model or session.pull != pull:
                if session is not None:
                    self.close(session.token)
                session = LiveSession(secrets.token_urlsafe(24), owner, slot, model, pull)
                self._sessions[session.token] = session
                self._slots[owner, slot] = session.token
            code = None if z is None else _code(z, session.dim)
            pixels = None if image is None else _image(image, model.image_shape)
            before, session.source = session.source, Source(code, pixels, tuple(edits))
            moved = not (_equal(code, before.z) and _equal(pixels, before.image))
            edited = tuple(edits) != before.edits or drawing != session.drawing
            session.drawing = drawing
            session.touched = time.monotonic()
            listeners = tuple(session.listeners) if moved or edited else ()
        for tell in listeners:
            tell(moved)
        return session

    def session(self, token: str) -> LiveSession | None:
        """The session of that token, or None."""
        with self._lock:
            return self._sessions.get(token)

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

    def may_fetch(self, token: str) -> bool:
        """Whether the published buffer may be sent once more now, and counts it."""
        with self._lock:
            blob = self._blobs.get(token)
            return blob is None or blob.fetches.take()


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
    slot: str,
    model: Any,
    *,
    z=None,
    image=None,
    edits: Sequence[Edit] = (),
    pull: Pull | None = None,
    owner: str | None = None,
):
    """Opens, or finds again, the live session of this page; to be called on every script run.

    Args:
        slot: which session of the page this is ("traverse", "layers"); one model each.
        model: a GenerativeModel; shared, never changed.
        z: the input as a code (dim,); optional for components that send codes themselves.
        image: the input as an image (channels, height, width) in [0, 1], which the session encodes under its edits.
        edits: edits that a connection starts with.
        pull: what codes stand for, where they are more than codes of the model's first space.
        owner: whose session; the Streamlit session's id by default.

    Returns:
        The token to hand to a component, or None when this process does not serve our routes.

    Raises:
        ValueError: if ``z`` or ``image`` does not fit the model.
    """
    owner = current_owner() if owner is None else owner
    if not serving() or owner is None:
        return None
    return registry.open(
        owner, slot, model, z=z, image=image, edits=edits, pull=pull, drawing=wanted_drawing()
    ).token


def wanted_drawing() -> str:
    """Who the person of this script run wants to draw; the server where no page asks."""
    import streamlit as st

    wanted = st.session_state.get("engine")
    return wanted if wanted in DRAWING else "server"


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


def present(owner: str) -> bool:
    """Whether a Streamlit session has a browser at its other end; true of any where no server runs."""
    from streamlit import runtime

    return not owner or not runtime.exists() or runtime.get_instance().is_active_session(owner)
