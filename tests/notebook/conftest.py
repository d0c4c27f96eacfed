"""A browser that looks at notebooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from notebook_servers import SECONDS

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture
def visit(chromium_path: str) -> Iterator[Callable]:
    """Opens pages of a server; afterwards fails on console errors, page errors and requests to anybody else."""
    playwright = pytest.importorskip("playwright.sync_api")
    troubles: list[str] = []
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium_path, args=ARGUMENTS)

        def open_page(url: str, port: int, width: int = 1440):
            page = browser.new_page(viewport={"width": width, "height": 1100})
            page.set_default_timeout(1000 * SECONDS)
            own = (f"http://127.0.0.1:{port}/", f"ws://127.0.0.1:{port}/", "blob:", "data:")
            page.on("console", lambda m: troubles.append(m.text) if m.type == "error" else None)
            page.on("pageerror", lambda error: troubles.append(str(error)))
            page.on("request", lambda r: None if r.url.startswith(own) else troubles.append(r.url))
            page.on("websocket", lambda s: None if s.url.startswith(own) else troubles.append(s.url))
            page.goto(url)
            return page

        yield open_page
        browser.close()
    assert not troubles
