"""A browser that looks at notebooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from notebook_servers import SECONDS
from visiting import chromium, watch


@pytest.fixture
def visit(chromium_path: str) -> Iterator[Callable]:
    """Opens pages of a server; afterwards fails on console errors, page errors and requests to anybody else."""
    troubles: list[str] = []
    with chromium(chromium_path) as browser:

        def open_page(url: str, port: int, width: int = 1440):
            page = browser.new_page(viewport={"width": width, "height": 1100})
            page.set_default_timeout(1000 * SECONDS)
            watch(page, f"http://127.0.0.1:{port}/", troubles)
            page.goto(url)
            return page

        yield open_page
    assert not troubles
