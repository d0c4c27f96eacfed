"""Live sessions: what a browser may decode while a person drags, kept by token. ``live_session.py`` answers.

A *session* belongs to one person's page: it holds a shared model, an input (a code or an image) and edits, under an
unguessable token. The WebSocket route (``routes.py``) looks sessions up by token and calls ``LiveSession.answer`` in
the session's one worker thread. Models are shared by all sessions and never changed: edits travel with each call.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from latentlab.app.allowance import Allowance
from latentlab.app.live_session import LiveSession, Source
from latentlab.app.pull import Pull
from latentlab.models.edits import Edit

SESSION_TTL = 120.0  # seconds without a connection; Streamlit keeps a vanished page as long
MAX_SESSIONS = 256
MAX_CONNECTIONS = 4  # of one session: a page that is being redrawn holds two for a moment
MAX_BLOB_BYTES = 512 * 1024 * 1024
DRAWING = ("auto", "browser", "server")
"""Who may draw a session's pictures: the browser where it can quickly, or wherever it can, or the server alone."""


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
