"""The explorer's server: Streamlit's App over ``main.py`` plus our own routes, which we protect ourselves.

Streamlit checks Origin on its own socket only, so all routes here check Host and Origin, want a session's token,
and bound size, rate and number of what a client may send. A refused message costs its sender one sentence, never the
server.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from latentlab.app.allowance import FETCHES

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection
    from starlette.requests import Request as HttpRequest
    from streamlit.starlette import App

    from latentlab.app.engine import LiveSession, Request, View
    from latentlab.brought import BroughtRun

logger = logging.getLogger(__name__)

MAIN = Path(__file__).with_name("main.py")
RUNS_VARIABLE = "LATENTLAB_RUNS"
PROTOCOL = "latentlab"
MAX_TEXT = 512 * 1024  # an edit that replaces by another image carries that image as text
MAX_BINARY = 64 * 1024
RATE = 200.0  # messages a second; a drag at 60 frames a second sends 60
BURST = 400.0
MAX_REFUSED = 2000  # refused messages before the connection is ended
SWITCH_INTERVAL = 0.0005  # seconds; Python's own is 0.005
UNKNOWN_TOKEN, POLICY, TOO_BIG = 4404, 1008, 1009
BROUGHT: dict[str, BroughtRun] = {}
"""Models that the command line brought along, by address: code of the user's own, never of an upload."""


def runs_dir() -> Path:
    """The workspace folder that the explorer shows: what ``serve`` was given, else ./runs."""
    return Path(os.environ.get(RUNS_VARIABLE) or "runs").absolute()


def build_app() -> App:
    """The Streamlit App over ``latentlab/app/main.py`` with our routes and our look; one a process."""
    import streamlit as st
    from streamlit import config, net_util

    from latentlab.app.theme import CONFIG

    # Asked by a page of a foreign origin, Streamlit would ask a host on the net for this machine's public address,
    # and hold up everybody meanwhile. Whoever needs that address in a page sets server.corsAllowedOrigins.
    net_util.get_external_ip = lambda: None
    # ``streamlit run app.py`` gets the same look; a user's own options win.
    for name, value in CONFIG.items():
        if not config.is_manually_set(name):
            config.set_option(name, value)
    return st.App(MAIN, routes=routes(), lifespan=lifespan)


def serve(
    port: int = 8501,
    runs_dir: str | Path = "runs",
    *,
    address: str = "127.0.0.1",
    headless: bool = True,
    theme: str | None = None,
    base_path: str = "",
    brought: Sequence[BroughtRun] = (),
) -> None:
    """Serves the explorer until it is interrupted.

    Args:
        port: TCP port.
        runs_dir: the workspace folder.
        address: interface to listen on; "0.0.0.0" for all.
        headless: do not open a browser window.
        theme: "light" or "dark"; by default the browser decides.
        base_path: path that the explorer lives under behind a reverse proxy, such as "tools/lab". The proxy passes
            the Host header on and lets WebSockets through.
        brought: models of the user's own, which ``latentlab.bring`` opened, shown beside the runs.

    Raises:
        OSError: if the port is taken.
        ValueError: on an unknown theme, a port out of range or a base path that is no plain path.
    """
    if not 1 <= port <= 65535:
        raise ValueError(f"A port lies in 1 to 65535; got {port}.")
    if theme not in (None, "light", "dark"):
        raise ValueError(f"A theme is 'light' or 'dark'; got {theme!r}.")
    base = base_path.strip("/")
    if base and not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", base, re.ASCII):
        raise ValueError(f"A base path is plain names between slashes, such as tools/lab; got {base_path!r}.")
    check_port(port, address)
    os.environ[RUNS_VARIABLE] = str(Path(runs_dir).absolute())
    # Differentiating loads torch's compiler, which makes itself a folder at once, used or not.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(runs_dir).absolute() / ".cache" / "torch"))
    BROUGHT.clear()
    BROUGHT.update({run.name: run for run in brought})
    from latentlab.app.theme import CONFIG

    config: dict[str, Any] = {
        **CONFIG,
        "server.port": port,
        "server.address": address,
        "server.headless": headless,
        "server.fileWatcherType": "none",
        "server.showEmailPrompt": False,
        "browser.gatherUsageStats": False,
    }
    if theme:
        config["theme.base"] = theme
    if base:
        config["server.baseUrlPath"] = base
    # Streamlit warns that changed server options need a restart; these are set before its server has started.
    logging.getLogger("streamlit.config").addFilter(
        lambda record: "[server] config" not in record.getMessage()
    )
    build_app().run(config=config)


def check_port(port: int, address: str = "127.0.0.1") -> None:
    """Checks that a server may listen there.

    Raises:
        OSError: one sentence, if the port is taken or the address is not ours.
    """
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise OSError(
                f"Port {port} on {address} can't be used ({error.strerror}); choose another port, such as {port + 1}."
            ) from None


def routes() -> list[Route | WebSocketRoute]:
    """Our routes, at the root and under the server's base path (known only once the options have been read)."""
    return [
        WebSocketRoute("/ll/decode", decode_socket),
        WebSocketRoute("/{base:path}/ll/decode", decode_socket),
        Route("/ll/points/{token}", points, methods=["GET"]),
        Route("/{base:path}/ll/points/{token}", points, methods=["GET"]),
        Route("/ll/pictures/{token}", pictures, methods=["GET"]),
        Route("/{base:path}/ll/pictures/{token}", pictures, methods=["GET"]),
        Route("/ll/program/{digest}", program, methods=["GET"]),
        Route("/{base:path}/ll/program/{digest}", program, methods=["GET"]),
    ]


def _under_base(connection: HTTPConnection) -> bool:
    base = connection.path_params.get("base")
    return base is None or base == _option("server.baseUrlPath").strip("/")


@asynccontextmanager
async def lifespan(app: Any):
    """Says that our routes are served, keeps torch to one thread, and sweeps forgotten sessions."""
    import torch

    # Decoders this small run faster, and far steadier under load, on one thread; it holds in later threads too.
    torch.set_num_threads(1)
    # A picture passes between threads several times, and each pass may wait a whole interval for a busy page script.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL)
    engine = _engine()
    engine.registry.serving = True

    async def sweep() -> None:
        while True:
            await asyncio.sleep(10.0)
            _engine().registry.sweep()

    task = asyncio.create_task(sweep())
    try:
        yield {}
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        sys.setswitchinterval(interval)
        _engine().registry.serving = False


def origin_allowed(origin: str | None, host: str | None) -> bool:
    """Whether a page of this origin may talk to us: its host is ours, or the server's options name it.

    A missing Origin is refused here: every browser sends one with a WebSocket.
    """
    from streamlit.web.server.starlette.starlette_websocket import is_host_allowed

    if not host or not origin or not is_host_allowed(host):
        return False
    if not _option("server.enableCORS"):
        return True
    try:
        parsed = urlsplit(origin)
    except ValueError:
        return False
    if parsed.scheme not in ("http", "https"):
        return False
    allowed = {o.strip().rstrip("/") for o in _option("server.corsAllowedOrigins") or ()}
    return parsed.netloc.lower() == host.lower() or origin in allowed


def foreign(request: HttpRequest) -> bool:
    """Whether a GET comes from a page that is not ours, for a host or under a path that is not."""
    from streamlit.web.server.starlette.starlette_websocket import is_host_allowed

    headers = request.headers
    origin, host = headers.get("origin"), headers.get("host")
    # A same-origin GET carries no Origin, but browsers then say where it comes from.
    if origin:
        elsewhere = not origin_allowed(origin, host)
    else:
        elsewhere = headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
    return elsewhere or not is_host_allowed(host) or not _under_base(request)


async def pictures(request: HttpRequest) -> Response:
    """GET /ll/pictures/<token>?rows=3,17: small pictures of a map's points, for our own page alone."""
    if foreign(request):
        return PlainTextResponse("This page may not see these pictures.", 403)
    kept = importlib.import_module("latentlab.app.mapping.pictures")
    source = kept.sources.find(request.path_params["token"])  # before any thread is taken
    if source is None:
        return PlainTextResponse("These pictures are no longer kept; the page asks for them again.", 404)
    if refusal := source.enter():
        return PlainTextResponse(refusal, 429)
    try:
        return await run_in_threadpool(kept.answer, request, source)
    finally:
        source.leave()


async def program(request: HttpRequest) -> Response:
    """GET /ll/program/<digest>: a session's decoder for the browser engine, for our own page alone."""
    if foreign(request):
        return PlainTextResponse("This page may not read this program.", 403)
    programs = _browser_engine()
    # Before the one thread that makes programs is taken.
    session = _engine().registry.session(request.headers.get(programs.TOKEN, ""))
    if session is None or session.closed:
        return PlainTextResponse("This session has ended; the page opens a new one.", 404)
    if not session.fetches.take():
        return PlainTextResponse(f"A page fetches at most {session.fetches.most} programs a minute.", 429)
    return await asyncio.get_running_loop().run_in_executor(
        programs.worker, programs.answer, request, session
    )


async def points(request: HttpRequest) -> Response:
    """GET /ll/points/<token>: a map's packed points, for our own page alone."""
    if foreign(request):
        return PlainTextResponse("This page may not read these points.", 403)
    data = _engine().registry.blob(request.path_params["token"])
    if data is None:
        return PlainTextResponse("These points are no longer kept; the page asks for them again.", 404)
    if not _engine().registry.may_fetch(request.path_params["token"]):
        return PlainTextResponse(f"A page fetches the same points at most {FETCHES} times a minute.", 429)
    return Response(
        data,
        media_type="application/octet-stream",
        headers={
            "Cache-Control": "no-store",
            "Content-Encoding": "identity",  # float noise: gzip costs a third of a second a million points
            "Cross-Origin-Resource-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
        },
    )


async def decode_socket(websocket: WebSocket) -> None:
    """WebSocket /ll/decode: the protocol "latentlab", the session's token as second subprotocol."""
    headers = websocket.headers
    if not origin_allowed(headers.get("origin"), headers.get("host")) or not _under_base(websocket):
        await websocket.close(POLICY)  # before accepting: the client sees 403
        return
    protocols = [p.strip() for p in headers.get("sec-websocket-protocol", "").split(",")]
    if len(protocols) != 2 or protocols[0] != PROTOCOL:
        await websocket.close(POLICY)
        return
    await websocket.accept(subprotocol=PROTOCOL)
    registry = _engine().registry
    session = registry.attach(protocols[1])
    if session is None:
        await _say(websocket, "error", "This session has ended; the page opens a new one.")
        await _close(websocket, UNKNOWN_TOKEN)
        return
    connection = _Connection(websocket, session)
    try:
        await connection.run()
    finally:
        registry.detach(session)


class _Connection:
    """One client: reads messages, keeps at most one decode waiting (the newest), and one running."""

    def __init__(self, websocket: WebSocket, session: LiveSession) -> None:
        self.websocket = websocket
        self.session = session
        self.view: View = _engine().View()
        self.waiting: Request | None = None
        self.wake = asyncio.Event()
        self.sending = asyncio.Lock()
        self.decoding, self.resting = False, False
        self.offering: asyncio.Task | None = None
        self.asked_again = False
        self.tokens, self.refilled = BURST, time.monotonic()
        self.refused, self.scolded = 0, 0.0

    async def run(self) -> None:
        """Serves the client until it leaves, misbehaves or its session ends."""
        loop = asyncio.get_running_loop()
        worker = asyncio.create_task(self._work())

        def changed(moved: bool) -> None:  # called by a page's script when it gives the session another input
            if not moved and self.view.edits is not None:
                return  # only the session's edits differ, and this client has its own
            with suppress(RuntimeError):
                asyncio.run_coroutine_threadsafe(_say(self.websocket, "changed", lock=self.sending), loop)

        self.session.listeners.add(changed)
        # Measured once, before the first edit needs them for its checks.
        loop.run_in_executor(self.session.worker, self.session.shapes).add_done_callback(_quietly)
        try:
            await self._read()
        except WebSocketDisconnect:
            pass
        finally:
            self.session.listeners.discard(changed)
            for task in (worker, self.offering):
                if task is not None:
                    task.cancel()
                    with suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                        await task

    async def _read(self) -> None:
        while True:
            message = await self.websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if self.session.closed:
                await self._error("This session has ended; the page opens a new one.")
                return await _close(self.websocket, UNKNOWN_TOKEN)
            binary, text = message.get("bytes"), message.get("text")
            size = len(binary) if binary is not None else len(text or "")
            if size > (MAX_BINARY if binary is not None else MAX_TEXT):
                await self._error(
                    f"A message has at most {MAX_BINARY} bytes or {MAX_TEXT} characters; got {size}."
                )
                return await _close(self.websocket, TOO_BIG)
            if not self._allowed():
                self.refused += 1
                if time.monotonic() - self.scolded > 1.0:
                    self.scolded = time.monotonic()
                    await self._error(f"Too many messages; at most {RATE:.0f} a second are answered.")
                if self.refused > MAX_REFUSED:
                    return await _close(self.websocket, POLICY)
                continue
            try:
                if binary is not None:
                    await self._queue(_engine().Request.parse(binary, self.session.dim))
                else:
                    await self._control(text or "")
            except WebSocketDisconnect:
                raise
            except Exception as error:  # whatever a client writes, it gets a sentence and the server goes on
                await self._error(_sentence(error))

    async def _queue(self, request: Request) -> None:
        dropped, self.waiting = self.waiting, request
        self.resting = False
        self.wake.set()
        if dropped is not None:
            await _say(self.websocket, "dropped", id=dropped.id, lock=self.sending)

    async def _control(self, text: str) -> None:
        message = json.loads(text, parse_constant=_refuse_constant)
        if not isinstance(message, dict):
            raise ValueError("A control message is a JSON dictionary with a 'type'.")
        kind, session = message.get("type"), self.session
        if kind == "edits":
            loop = asyncio.get_running_loop()
            self.view.edits = await loop.run_in_executor(
                session.worker, session.check_edits, message.get("edits")
            )
        elif kind == "stage":
            self.view.stage = session.check_stage(message.get("stage"))
        elif kind == "source":
            self.view.z = None if message.get("z") is None else session.check_z(message["z"])
        elif kind == "program":
            self.asked_again = True
            if self.offering is None or self.offering.done():
                self.offering = asyncio.create_task(self._offer())
            return
        elif kind == "rest":  # the browser draws now
            self.resting = True
            self._rest()
        elif kind != "ping":
            raise ValueError(
                "A control message's type is edits, stage, source, program, rest or ping; "
                f"got {str(kind)[:40]!r}."
            )
        await _say(self.websocket, "ok", of=kind, lock=self.sending)

    async def _offer(self) -> None:
        """Says what the browser may draw itself; once more if that was asked meanwhile."""
        loop = asyncio.get_running_loop()
        while self.asked_again:
            self.asked_again = False
            try:
                found = await loop.run_in_executor(
                    _browser_engine().worker, _browser_engine().offer, self.session
                )
            except Exception:
                logger.exception("a program could not be made")
                found = {"why": "Its program could not be made; see the server's log"}
            await _say(self.websocket, "program", lock=self.sending, **found)

    def _rest(self) -> None:
        """Frees the session's thread while nobody asks it for pictures."""
        if self.resting and not self.decoding and self.waiting is None and self.session.connections == 1:
            self.session.free()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self.wake.wait()
            self.wake.clear()
            request, self.waiting = self.waiting, None
            if request is None:
                continue
            self.decoding = True
            try:
                answer = await loop.run_in_executor(
                    self.session.worker, self.session.answer, request, self.view
                )
            except (
                Exception
            ) as error:  # a model may raise anything; the client gets a sentence, the log the rest
                if not isinstance(error, ValueError | TypeError):
                    logger.exception("decode failed")
                await self._error(_sentence(error), id=request.id)
                continue
            finally:
                self.decoding = False
            async with self.sending:
                await self.websocket.send_bytes(answer)
            self._rest()

    def _allowed(self) -> bool:
        now = time.monotonic()
        self.tokens = min(BURST, self.tokens + RATE * (now - self.refilled))
        self.refilled = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True

    async def _error(self, sentence: str, **fields: Any) -> None:
        await _say(self.websocket, "error", sentence, lock=self.sending, **fields)


def _sentence(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return "A control message is JSON; this text is not."
    if isinstance(error, RecursionError):
        return "A control message may not be nested this deeply."
    if isinstance(error, OverflowError):
        return "A control message holds numbers that fit a float."
    if isinstance(error, ValueError | TypeError) and str(error):
        return str(error).splitlines()[0][:500]
    return f"The model could not decode this ({type(error).__name__}); see the server's log."


def _refuse_constant(name: str) -> None:
    raise ValueError(f"A control message holds finite numbers; got {name}.")


def _quietly(future: asyncio.Future) -> None:
    if not future.cancelled() and future.exception() is not None:
        logger.warning("stages could not be measured: %s", future.exception())


async def _say(websocket: WebSocket, kind: str, message: str | None = None, lock=None, **fields: Any) -> None:
    text = json.dumps({"type": kind, **({"message": message} if message else {}), **fields})
    if websocket.application_state is WebSocketState.CONNECTED:
        async with lock or asyncio.Lock():
            await websocket.send_text(text)


async def _close(websocket: WebSocket, code: int) -> None:
    with suppress(RuntimeError, WebSocketDisconnect):
        await websocket.close(code)


def _engine() -> ModuleType:
    # Looked up by name each time: a reload of the sources makes a new registry, which the pages then use.
    return importlib.import_module("latentlab.app.engine")


def _browser_engine() -> ModuleType:
    return importlib.import_module("latentlab.app.browser_engine")


def _option(name: str) -> Any:
    from streamlit import config

    return config.get_option(name)
