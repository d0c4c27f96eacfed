"""The explorer's own routes: the decoders' WebSocket, the map's points and pictures, programs of the browser engine.

Streamlit checks Origin on its own socket only, so all routes here check Host and Origin and want a session's token.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from latentlab.app.allowance import FETCHES
from latentlab.app.connection import POLICY, UNKNOWN_TOKEN, Connection, close, drawing, say, sessions

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection
    from starlette.requests import Request as HttpRequest

PROTOCOL = "latentlab"


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
    programs = drawing()
    # Before the one thread that makes programs is taken.
    session = sessions().registry.session(request.headers.get(programs.TOKEN, ""))
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
    data = sessions().registry.blob(request.path_params["token"])
    if data is None:
        return PlainTextResponse("These points are no longer kept; the page asks for them again.", 404)
    if not sessions().registry.may_fetch(request.path_params["token"]):
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
    registry = sessions().registry
    session = registry.attach(protocols[1])
    if session is None:
        await say(websocket, "error", "This session has ended; the page opens a new one.")
        await close(websocket, UNKNOWN_TOKEN)
        return
    connection = Connection(websocket, session)
    try:
        await connection.run()
    finally:
        registry.detach(session)


def _option(name: str) -> Any:
    from streamlit import config

    return config.get_option(name)
