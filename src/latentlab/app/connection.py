"""One client of a live session over its WebSocket: what it may send, and the newest of what it wants, decoded.

Size, rate and number of messages are bounded. A refused message costs its sender one sentence, never the server.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import time
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

if TYPE_CHECKING:
    from latentlab.app.live_session import LiveSession, View
    from latentlab.app.wire import Request

logger = logging.getLogger(__name__)

MAX_TEXT = 512 * 1024  # an edit that replaces by another image carries that image as text
MAX_BINARY = 64 * 1024
RATE = 200.0  # messages a second; a drag at 60 frames a second sends 60
BURST = 400.0
MAX_REFUSED = 2000  # refused messages before the connection is ended
UNKNOWN_TOKEN, POLICY, TOO_BIG = 4404, 1008, 1009


class Connection:
    """One client: reads messages, keeps at most one decode waiting (the newest), and one running."""

    def __init__(self, websocket: WebSocket, session: LiveSession) -> None:
        from latentlab.app.live_session import View

        self.websocket = websocket
        self.session = session
        self.view: View = View()
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
                asyncio.run_coroutine_threadsafe(say(self.websocket, "changed", lock=self.sending), loop)

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
        from latentlab.app.wire import Request

        while True:
            message = await self.websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if self.session.closed:
                await self._error("This session has ended; the page opens a new one.")
                return await close(self.websocket, UNKNOWN_TOKEN)
            binary, text = message.get("bytes"), message.get("text")
            size = len(binary) if binary is not None else len(text or "")
            if size > (MAX_BINARY if binary is not None else MAX_TEXT):
                await self._error(
                    f"A message has at most {MAX_BINARY} bytes or {MAX_TEXT} characters; got {size}."
                )
                return await close(self.websocket, TOO_BIG)
            if not self._allowed():
                self.refused += 1
                if time.monotonic() - self.scolded > 1.0:
                    self.scolded = time.monotonic()
                    await self._error(f"Too many messages; at most {RATE:.0f} a second are answered.")
                if self.refused > MAX_REFUSED:
                    return await close(self.websocket, POLICY)
                continue
            try:
                if binary is not None:
                    await self._queue(Request.parse(binary, self.session.dim))
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
            await say(self.websocket, "dropped", id=dropped.id, lock=self.sending)

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
        await say(self.websocket, "ok", of=kind, lock=self.sending)

    async def _offer(self) -> None:
        """Says what the browser may draw itself; once more if that was asked meanwhile."""
        loop = asyncio.get_running_loop()
        while self.asked_again:
            self.asked_again = False
            try:
                found = await loop.run_in_executor(drawing().worker, drawing().offer, self.session)
            except Exception:
                logger.exception("a program could not be made")
                found = {"why": "Its program could not be made; see the server's log"}
            await say(self.websocket, "program", lock=self.sending, **found)

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
        await say(self.websocket, "error", sentence, lock=self.sending, **fields)


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


async def say(websocket: WebSocket, kind: str, message: str | None = None, lock=None, **fields: Any) -> None:
    """Sends one control message, unless the socket is closed."""
    text = json.dumps({"type": kind, **({"message": message} if message else {}), **fields})
    if websocket.application_state is WebSocketState.CONNECTED:
        async with lock or asyncio.Lock():
            await websocket.send_text(text)


async def close(websocket: WebSocket, code: int) -> None:
    """Ends the connection, if it has not ended."""
    with suppress(RuntimeError, WebSocketDisconnect):
        await websocket.close(code)


def sessions() -> ModuleType:
    """The engine, which keeps the sessions."""
    # Looked up by name each time: a reload of the sources makes a new registry, which the pages then use.
    return importlib.import_module("latentlab.app.engine")


def drawing() -> ModuleType:
    """The browser engine, which makes programs."""
    return importlib.import_module("latentlab.app.browser_engine")
