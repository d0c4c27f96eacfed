"""The explorer in a process of its own and pages of it in a headless Chromium, which share the machine's cores."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
ARGUMENTS += ["--disable-background-networking", "--disable-component-update"]
PATIENCE = 120_000  # milliseconds
SERVE = "import sys; from latentlab.app import server; server.serve(int(sys.argv[1]), sys.argv[2])"
READY = (
    "() => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'"
    " && !document.querySelector('[data-testid=stProgress]')"
)


@dataclass(frozen=True)
class Explorer:
    """A running explorer.

    Args:
        browser: Playwright's browser.
        address: of the server, such as "http://127.0.0.1:8501".
        workspace: the folder of its runs.
        smoke: measure once and briefly, to see that everything works.
    """

    browser: Any
    address: str
    workspace: Path
    smoke: bool = False

    @contextmanager
    def page(self, path: str, ready: Callable[[Any], object] | None = None, **more: Any) -> Iterator[Any]:
        """A page in a window of its own, settled; ``ready`` drives it before it is opened."""
        context = self.browser.new_context(viewport={"width": 1440, "height": 1000}, **more)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        try:
            if ready is not None:
                ready(page)
            page.goto(self.address + path if path.startswith("/") else path)
            yield page
        finally:
            context.close()


@contextmanager
def explorer(smoke: bool = False) -> Iterator[Explorer]:
    """The explorer on an empty workspace, and a browser."""
    from playwright.sync_api import sync_playwright

    from latentlab.doctor import find_chromium

    with (
        tempfile.TemporaryDirectory(prefix="latentlab-explorer-") as folder,
        tempfile.TemporaryFile("w+") as log,
        sync_playwright() as playwright,
    ):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        child = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(port), folder],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(address, child)
            browser = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
            yield Explorer(browser, address, Path(folder), smoke)
            browser.close()
        finally:
            child.kill()
            child.wait()
            log.seek(0)
            if "Traceback" in (text := log.read()):
                print(f"The explorer's log holds a traceback:\n{text[-3000:]}", file=sys.stderr)


def wait_for(address: str, child: subprocess.Popen) -> None:
    """Waits until the server answers."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and child.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/_stcore/health", timeout=2).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("The explorer did not start.")


def settled(page: Any) -> None:
    """Waits until the page's script has run and no background job is watched."""
    page.wait_for_function(READY)
    page.wait_for_timeout(500)
    page.wait_for_function(READY)


def until(page: Any, condition: str) -> None:
    """Waits for a condition without eval, which an exported page forbids."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not page.evaluate(f"Boolean({condition})"):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{page.url} did not come to {condition}.")
        time.sleep(0.02)
