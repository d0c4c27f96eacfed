"""What a browser needs to draw a session's pictures itself: its decoder as a program, and the edits made there.

A program is lowered once for a model and what its sliders stand for, named by the digest of its bytes, and kept while
there is room. Its bytes are the header's length (u32), the header (JSON: the program, and where each part lies), then
the parts: the engine's module and source, the program's steps and weights.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import struct
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import torch
from starlette.responses import PlainTextResponse, Response

from latentlab.export.lowering import lower

if TYPE_CHECKING:
    from starlette.requests import Request

    from latentlab.app.live_session import LiveSession
    from latentlab.app.pull import Pull
    from latentlab.models.edits import Edit

logger = logging.getLogger(__name__)

TOKEN = "x-latentlab-session"
LARGEST = 16 * 1024 * 1024  # bytes of a program
LARGEST_MEMORY = 256 * 1024 * 1024  # bytes that a browser would need to run it
QUICK = 300_000_000  # multiplications of a picture that a browser makes 30 times a second
KEPT = 8  # programs, so 128 MB at most
KNOWN = 64  # decoders whose program's name is remembered
HALF_LOSS = 1.0 / 255.0
CHECKED = 8  # codes on which half precision is tried

worker = ThreadPoolExecutor(1, thread_name_prefix="latentlab-program")
"""Where programs are made, one at a time, so that no picture waits for one."""


@dataclass(frozen=True)
class Lowered:
    """What became of a decoder.

    Attributes:
        digest: of its bytes, its name; "" where it can't run in a browser.
        size: number of bytes.
        multiplications: that a picture takes.
        units: units of each stage that can be edited there, by address.
        why: why it can't run in a browser, "" where it can.
    """

    digest: str = ""
    size: int = 0
    multiplications: int = 0
    units: Mapping[str, int] = field(default_factory=dict)
    why: str = ""


class Programs:
    """The programs of this process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lowered: OrderedDict[tuple[int, Pull | None], tuple[weakref.ref, Lowered]] = OrderedDict()
        self._data: OrderedDict[str, bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._data)

    def of(self, model: Any, pull: Pull | None) -> Lowered:
        """What became of this decoder; the first time this takes as long as reading its weights."""
        with self._lock:
            return self._of(model, pull)

    def data(self, model: Any, pull: Pull | None) -> bytes | None:
        """The bytes of its program, made anew where they were no longer kept; None where it has none."""
        with self._lock:
            digest = self._of(model, pull).digest
            if digest and digest not in self._data:
                _, data = _lowered(model, pull)
                self._keep(digest, data)
            if digest:
                self._data.move_to_end(digest)
            return self._data.get(digest)

    def _of(self, model: Any, pull: Pull | None) -> Lowered:
        key = (id(model), pull)
        reference, found = self._lowered.get(key, (None, None))
        if found is None or reference is None or reference() is not model:
            found, data = _lowered(model, pull)
            self._lowered[key] = (weakref.ref(model), found)
            self._keep(found.digest, data)
        self._lowered.move_to_end(key)
        for old in [k for k, (ref, _) in self._lowered.items() if ref() is None]:
            del self._lowered[old]
        while len(self._lowered) > KNOWN:
            self._lowered.popitem(last=False)
        return found

    def _keep(self, digest: str, data: bytes) -> None:
        if digest:
            self._data[digest] = data
        while len(self._data) > KEPT:
            self._data.popitem(last=False)


programs = Programs()


def offer(session: LiveSession) -> dict[str, Any]:
    """What a session's browser may draw itself: {"digest", "size", "edits"}, or {"why"} it may not."""
    if session.drawing == "server":
        return {"why": "Chosen in the sidebar"}
    found = programs.of(session.model, session.pull)
    if found.why:
        return {"why": found.why}
    if session.drawing == "auto" and found.multiplications > QUICK:
        return {
            "why": f"A picture takes {2e-6 * found.multiplications:,.0f} MFLOP, too many for a browser to follow a drag"
        }
    edits = session.source.edits
    if why := unknown_edit(edits, found, session.pull):
        return {"why": why}
    return {"digest": found.digest, "size": found.size, "edits": [edit.to_dict() for edit in edits]}


def unknown_edit(edits: Sequence[Edit], found: Lowered, pull: Pull | None) -> str:
    """Why a browser can't make these edits, in words; "" where it can."""
    for edit in edits:
        if edit.operation not in ("ablate", "set", "scale", "shift") or edit.region is not None:
            return f"An edit of {edit.stage} has a region or takes another sample's units, which only the server can do"
        if edit.stage not in found.units or (pull is not None and edit.network != "generator"):
            return f"An edit of {edit.stage} is one that only the server can make"
        if edit.units and edit.units[-1] >= found.units[edit.stage]:
            return f"An edit names a unit that {edit.stage} does not have"
    return ""


def answer(request: Request, session: LiveSession) -> Response:
    """GET /ll/program/<digest>: the program of that session's decoder; runs in ``worker``."""
    digest = request.path_params["digest"]
    if programs.of(session.model, session.pull).digest != digest:
        return PlainTextResponse("This session has no such program.", 404)
    headers = {
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Encoding": "identity",
        "Cross-Origin-Resource-Policy": "same-origin",
        "ETag": f'"{digest}"',
        "X-Content-Type-Options": "nosniff",
    }
    if f'"{digest}"' in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    data = programs.data(session.model, session.pull)
    return Response(data, media_type="application/octet-stream", headers=headers)


def _lowered(model: Any, pull: Pull | None) -> tuple[Lowered, bytes]:
    """The decoder's program and its bytes, or why there is none."""
    generator = getattr(model, "generator", None)
    weights = sum(p.numel() for p in generator.parameters()) if isinstance(generator, torch.nn.Module) else 0
    if 2 * weights > LARGEST:
        return Lowered(why=_too_large(2 * weights)), b""
    try:
        program = (
            lower(model)
            if pull is None
            else lower(model, pull.directions, space=pull.space, cutoff=pull.cutoff)
        )
        if 4 * program.size > LARGEST_MEMORY:
            return Lowered(why=_too_large(4 * program.size)), b""
        described, steps, blob = program.packed(_precision(model))
    except ValueError as error:
        return Lowered(why=str(error).split(". ")[0].rstrip(".")), b""
    except Exception:  # a network may be anything; the server draws it then
        logger.exception("a decoder could not be lowered")
        return Lowered(why="Its layers could not be read for a browser; see the server's log"), b""
    data = _packed(described, steps, blob)
    if len(data) > LARGEST:
        return Lowered(why=_too_large(len(data))), b""
    digest = hashlib.blake2b(data, digest_size=20).hexdigest()
    units = {stage.address: stage.state.units for stage in program.stages}
    return Lowered(digest, len(data), program.multiplications, units), data


def _too_large(size: int) -> str:
    return f"The decoder is too large for a browser ({size / 2**20:,.0f} MB)"


def _packed(program: dict[str, Any], steps: bytes, weights: bytes) -> bytes:
    folder = files("latentlab.export")
    parts = {
        "steps": steps,
        "weights": weights,
        "wasm": folder.joinpath("engine.wasm").read_bytes(),
        "source": folder.joinpath("engine.js").read_bytes(),
    }
    places, at = {}, 0
    for name, data in parts.items():
        places[name] = [at, len(data)]
        at += len(data)
    header = json.dumps({"program": program, "parts": places}, separators=(",", ":")).encode()
    return b"".join([struct.pack("<I", len(header)), header, *parts.values()])


@torch.inference_mode()
def _precision(model: Any) -> str:
    """Half precision, unless that of the layers' weights changes a pixel of eight drawn codes by a level of 255."""
    rounded = copy.deepcopy(model)
    for network in (rounded.generator, getattr(rounded, "mapping", None)):
        for parameter in network.parameters() if network is not None else ():
            if parameter.ndim > 1:
                parameter.copy_(parameter.half().float())
    device = next(model.generator.parameters()).device
    z = model.sample_codes(CHECKED, 0).to(device)
    away = float((model.decode(z) - rounded.decode(z)).abs().max())
    return "f16" if away <= HALF_LOSS else "f32"  # NaN, from what half precision can't hold, is no f16
