"""The explorer in a process of its own, and a browser that fails on whatever goes wrong unseen."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from live import free_port

import latentlab

PATIENCE = 180.0  # seconds for what takes a few on an idle machine
SERVE = "import sys; from latentlab.app import server; server.serve(int(sys.argv[1]), sys.argv[2])"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Waits for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def answers(address: str) -> bool:
    """Whether a server answers there."""
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False


def tracebacks(log: str) -> list[str]:
    """The tracebacks in what a server wrote, but Streamlit's own of a page that left.

    Streamlit closes a socket that its page has closed a moment before, and logs what that raises. None of our code is
    in it, and nobody is there to miss an answer.
    """
    found = re.findall(r"^Traceback \(most recent call last\):\n(?:[ \t].*\n)*\S.*$", log, re.MULTILINE)
    assert len(found) == log.count("Traceback (most recent call last)"), log[-3000:]
    ours = f"{Path(latentlab.__file__).parent}{os.sep}"
    return [
        each
        for each in found
        if ours in each
        or "starlette_websocket.py" not in each
        or not each.splitlines()[-1].startswith("starlette.websockets.WebSocketDisconnected: ")
    ]


@contextmanager
def running(command: list[str], health: str, log: Path, **options: Any) -> Iterator[subprocess.Popen]:
    """A process, from when an address of its answers; afterwards fails on a traceback in what it wrote.

    Args:
        command: what is run.
        health: the address.
        log: where its words go.
        options: of ``subprocess.Popen``.
    """
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, **options)
    try:
        until(lambda: process.poll() is not None or answers(health))
        assert process.poll() is None, log.read_text()[-3000:]
        yield process
        assert not tracebacks(log.read_text()), log.read_text()[-3000:]
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def explorer(runs: Path, folder: Path) -> Iterator[str]:
    """Our own server over a workspace, as ``latentlab explore`` starts it; its address.

    Args:
        runs: the workspace.
        folder: where it stands and logs.
    """
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-c", SERVE, str(port), str(runs)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with running(command, f"{address}/_stcore/health", folder / "log.txt", cwd=folder, env=environment):
        yield address


@contextmanager
def chromium(path: str, *more: str) -> Iterator[Any]:
    """A real Chromium, driven by Playwright.

    Args:
        path: the program.
        more: arguments beside ``ARGUMENTS``.
    """
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=[*ARGUMENTS, *more])
        try:
            yield browser
        finally:
            browser.close()


def watch(page: Any, address: str, troubles: list[str], expected: str = "nothing is expected") -> None:
    """Takes down a page's console errors, page errors, and requests to anybody but its own server.

    Args:
        page: Playwright's page, before it goes anywhere.
        address: of the server.
        troubles: where they are taken down.
        expected: words of a console error that is none.
    """
    own = (address, address.replace("http", "ws", 1), "blob:", "data:")

    def console(message: Any) -> None:
        # Streamlit itself asks for its health under a page's address first, which is answered by a 404.
        where = message.location.get("url", "")
        if message.type == "error" and "/_stcore/" not in where and expected not in message.text + where:
            troubles.append(f"console: {message.text} {message.location}")

    def leaves(url: str) -> None:
        if not url.startswith(own):
            troubles.append(f"outside: {url}")

    page.on("console", console)
    page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
    page.on("request", lambda request: leaves(request.url))
    page.on("websocket", lambda socket: leaves(socket.url))


def exceptions(page: Any) -> list[str]:
    """The exceptions that a page shows."""
    return [f"exception: {text}" for text in page.locator("[data-testid=stException]").all_inner_texts()]
