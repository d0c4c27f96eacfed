"""The explorer's server: Streamlit's App over ``main.py`` plus our own routes (``routes.py``), ready to be served."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import sys
from collections.abc import Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentlab.app.connection import sessions
from latentlab.app.routes import routes

if TYPE_CHECKING:
    from streamlit.starlette import App

    from latentlab.brought import BroughtRun

logger = logging.getLogger(__name__)

MAIN = Path(__file__).with_name("main.py")
RUNS_VARIABLE = "LATENTLAB_RUNS"
SWITCH_INTERVAL = 0.0005  # seconds; Python's own is 0.005
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


@asynccontextmanager
async def lifespan(app: Any):
    """Says that our routes are served, keeps torch to one thread, and sweeps forgotten sessions."""
    import torch

    # Decoders this small run faster, and far steadier under load, on one thread; it holds in later threads too.
    torch.set_num_threads(1)
    # A picture passes between threads several times, and each pass may wait a whole interval for a busy page script.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL)
    engine = sessions()
    engine.registry.serving = True

    async def sweep() -> None:
        while True:
            await asyncio.sleep(10.0)
            sessions().registry.sweep()

    task = asyncio.create_task(sweep())
    try:
        yield {}
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        sys.setswitchinterval(interval)
        sessions().registry.serving = False
