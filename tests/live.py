"""Our routes on a loopback port, clients that speak their protocol, and a page without a browser."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np
import torch
import uvicorn
from starlette.applications import Starlette
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

from latentlab.app import engine, server, wire

_WORKER = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0) % 16
_ports = itertools.count(os.getpid())


def free_port() -> int:
    """A port that nobody has, for a server that is about to start.

    Nobody gets it meanwhile: it lies below the ports that systems give to those who connect, each worker of a test run
    has a range of its own, and none comes again soon.
    """
    while True:
        port = 18_000 + 800 * _WORKER + next(_ports) % 800
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def served() -> Iterator[int]:
    """A server with our routes and a registry of its own, without Streamlit around it; its port."""
    listening = socket.create_server(("127.0.0.1", 0))
    port, threads = listening.getsockname()[1], torch.get_num_threads()
    own, engine.registry = engine.registry, engine.Registry()
    app = Starlette(routes=server.routes(), lifespan=server.lifespan)
    running = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="websockets-sansio"))
    thread = threading.Thread(target=lambda: asyncio.run(running.serve(sockets=[listening])))
    thread.start()
    try:
        _until(lambda: running.started)
        yield port
    finally:
        running.should_exit = True
        thread.join(60)
        listening.close()
        torch.set_num_threads(threads)
        engine.registry = own
    assert not thread.is_alive()
    _until(lambda: not any(t.name.startswith("latentlab-decode") for t in threading.enumerate()))


def _until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


class Client:
    """One connection to a session.

    Args:
        port: of the server, or of what stands before it.
        token: of the session.
        host: how the server is called.
        base: path it lives under, such as "/tools/lab".
        origin: of the page that connects, by default the server's own.
    """

    def __init__(
        self, port: int, token: str, *, host: str = "127.0.0.1", base: str = "", origin: str | None = None
    ) -> None:
        self._stack = ExitStack()
        opening = connect(
            f"ws://{host}:{port}{base}/ll/decode",
            sock=socket.create_connection(("127.0.0.1", port)),
            origin=origin or f"http://{host}:{port}",
            subprotocols=["latentlab", token],
            compression=None,
            max_size=None,
        )
        self.socket = self._stack.enter_context(opening)
        self.serial = 0

    def request(self, z: Any = (), flags: int = wire.WANT_IMAGE) -> bytes:
        """The message that asks for a picture."""
        self.serial += 1
        z = np.asarray(z, "<f4")
        return wire.HEADER.pack(self.serial, flags, len(z)) + z.tobytes()

    def say(self, message: str | bytes) -> dict[str, Any]:
        """The answer to a message."""
        self.socket.send(message)
        return self.receive()

    def ask(self, z: Any = (), flags: int = wire.WANT_IMAGE) -> dict[str, Any]:
        """A picture's answer."""
        return self.say(self.request(z, flags))

    def image(self, z: Any = ()) -> np.ndarray:
        """A picture (height, width, channels), uint8."""
        part = self.ask(z)["image"]
        return np.frombuffer(part["data"], np.uint8).reshape(part["h"], part["w"], part["c"])

    def control(self, **message: Any) -> dict[str, Any]:
        """The answer to a control message."""
        return self.say(json.dumps(message))

    def receive(self, timeout: float = 60.0) -> dict[str, Any]:
        """The next message, read as strictly as a browser reads it."""
        message = self.socket.recv(timeout=timeout)
        if isinstance(message, str):
            return json.loads(message, parse_constant=_refuse)
        size = struct.unpack_from("<I", message)[0]
        header = json.loads(message[4 : 4 + size], parse_constant=_refuse)
        for part in header["parts"]:
            start = 4 + size + part["offset"]
            part["data"] = message[start : start + part["length"]]
        return header | {"type": "answer", **{part["kind"]: part for part in header["parts"]}}

    def close(self) -> None:
        """Says goodbye."""
        self._stack.close()


class Page:
    """A page of the explorer as Streamlit's own socket sends it, without a browser.

    Args:
        port: of the server, or of what stands before it.
        name: of the page, such as "traverse".
        query: choices in its address, such as "run=alpha&seed=3".
        host: how the server is called.
        base: path it lives under.
        origin: of the page, by default the server's own.
    """

    def __init__(
        self,
        port: int,
        name: str,
        query: str = "",
        *,
        host: str = "127.0.0.1",
        base: str = "",
        origin: str = "",
    ) -> None:
        self._stack = ExitStack()
        opening = connect(
            f"ws://{host}:{port}{base}/_stcore/stream",
            sock=socket.create_connection(("127.0.0.1", port)),
            origin=origin or f"http://{host}:{port}",
            subprotocols=["streamlit"],
            compression=None,
            max_size=None,
        )
        self.socket = self._stack.enter_context(opening)
        self.show(name, query)

    def show(self, name: str, query: str = "") -> None:
        """Asks for a page."""
        message = BackMsg()
        message.rerun_script.query_string, message.rerun_script.page_name = query, name
        self.socket.send(message.SerializeToString())

    def token(self, seconds: float = 180.0) -> str:
        """The token of the live session, or of the points, that the page opens."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            message = self.socket.recv(timeout=seconds)
            assert isinstance(message, bytes)
            if found := re.search(rb'"token": ?"([\w-]{20,})"', message):
                return found[1].decode()
        raise AssertionError("The page opened no live session.")

    def session(self, seconds: float = 180.0) -> str:
        """Streamlit's name of the session."""
        while True:
            message = ForwardMsg.FromString(self.socket.recv(timeout=seconds))
            if message.WhichOneof("type") == "new_session":
                return message.new_session.initialize.session_id

    def finished(self, seconds: float = 180.0) -> None:
        """Waits until the page's script has run."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            message = self.socket.recv(timeout=seconds)
            if ForwardMsg.FromString(message).WhichOneof("type") == "script_finished":
                return
        raise AssertionError("The page's script did not end.")

    def close(self) -> None:
        """Leaves."""
        self._stack.close()


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} is no JSON: a browser's parser throws on it")
