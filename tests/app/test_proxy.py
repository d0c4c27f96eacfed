"""The explorer as it is served to others: a process of its own, behind a real nginx, under a base path, and watched."""

from __future__ import annotations

import os
import re
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from live import Client, Page, free_port
from visiting import chromium, running, watch
from websockets.exceptions import InvalidStatus

from latentlab import analysis
from latentlab.app import server
from latentlab.runs import Run

BASE = "/tools/lab"
HOST = "lab.test"  # of no machine: clients connect to loopback and only call it so
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
CONFIG = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location {base}/ {{
            proxy_pass http://127.0.0.1:{behind};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_read_timeout 1h;
        }}
    }}
}}
"""


@dataclass
class Place:
    """Where the explorer is served, and what the server did that it should not."""

    port: int
    log: Path

    @property
    def offences(self) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if "__pycache__" not in line]


@pytest.fixture(scope="module")
def place(planted: dict[str, Run], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The explorer under a base path, in a process of its own."""
    folder = tmp_path_factory.mktemp("explorer")
    found = Place(free_port(), folder / "offences.txt")
    runs = planted["alpha"].path.parent
    temporary = runs / ".tmp"  # what libraries leave in the system's folder for such files is no offence
    temporary.mkdir(exist_ok=True)
    watched = Path(__file__).parents[1] / "watching.py"
    command = [sys.executable, str(watched), str(found.port), str(runs), str(found.log), BASE]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)}
    environment.pop(
        "TORCHINDUCTOR_CACHE_DIR", None
    )  # set by torch itself in whatever process has differentiated
    health = f"http://127.0.0.1:{found.port}{BASE}/_stcore/health"
    with running(command, health, folder / "log.txt", cwd=folder, env=environment):
        yield found


@pytest.fixture(scope="module")
def proxy(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an nginx before it."""
    if NGINX is None:
        pytest.skip("no nginx found (apt-get install nginx-light)")
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    written = folder / "nginx.conf"
    written.write_text(CONFIG.format(folder=folder, port=port, behind=place.port, base=BASE))
    command = [NGINX, "-p", str(folder), "-c", str(written), "-e", str(folder / "error.log")]
    with running(command, f"http://127.0.0.1:{port}{BASE}/_stcore/health", folder / "log.txt"):
        yield port


def test_a_page_behind_nginx_draws_live_pictures(planted, proxy):
    """Catches routes that only answer at the root, and an Origin check that compares with the server's own name."""
    page = Page(proxy, "traverse", "run=alpha&seed=3", host=HOST, base=BASE)
    z = np.linspace(-1, 1, 6)
    expected = analysis.decode_latents(planted["alpha"].model, z[None])[0, 0]
    client = Client(proxy, page.token(), host=HOST, base=BASE)
    assert np.abs(client.image(z)[..., 0] - 255 * expected).max() <= 1
    client.close()
    page.close()


def refuse_foreign_pages(port: int) -> None:
    for origin in ("http://evil.example", f"http://{HOST}.evil.example:{port}"):
        with pytest.raises(InvalidStatus) as refused:
            Client(port, "x" * 32, host=HOST, base=BASE, origin=origin)
        assert refused.value.response.status_code == 403
        with pytest.raises(InvalidStatus):
            Page(port, "traverse", host=HOST, base=BASE, origin=origin)


def test_a_page_of_another_origin_is_refused_and_nobody_outside_is_asked(place):
    """Catches Streamlit's own check, which asks a host on the net for our address when a foreign page knocks."""
    refuse_foreign_pages(place.port)
    assert not place.offences


def test_a_page_of_another_origin_is_refused_behind_nginx(place, proxy):
    """Catches an Origin check that a proxy takes away."""
    refuse_foreign_pages(proxy)
    assert not place.offences


def test_what_is_beside_the_base_path_is_not_ours(proxy):
    for base in ("", BASE):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{proxy}{base}/ll/points/x")
        assert refused.value.code == 404
        assert (b"no longer kept" in refused.value.read()) == bool(base)
        refused.value.close()


def test_every_page_is_served_without_a_request_or_a_file_outside(place):
    """Catches telemetry, a look for updates, and results beside the workspace, in the process that serves."""
    for name in ("gallery", "traverse", "layers", "map", "scores"):
        page = Page(place.port, name, "run=alpha", base=BASE)
        page.finished()
        page.close()
    assert not place.offences


def test_files_that_nobody_asked_for_are_not_taken(place):
    """Catches Streamlit's upload route, which keeps 200 MB a file and any number of files for whoever has a page."""
    page = Page(place.port, "traverse", "run=alpha", base=BASE)
    session = page.session()
    part = b'--x\r\nContent-Disposition: form-data; name="f"; filename="f.pkl"\r\n\r\n'
    with urllib.request.urlopen(f"http://127.0.0.1:{place.port}{BASE}/_stcore/health") as answer:
        found = re.search(r"(_streamlit_xsrf)=([^;]+)", answer.headers["Set-Cookie"])
    for size in (10, 2_000_000):
        request = urllib.request.Request(
            f"http://127.0.0.1:{place.port}{BASE}/_stcore/upload_file/{session}/mine",
            data=part + bytes(size) + b"\r\n--x--\r\n",
            method="PUT",
            headers={
                "Content-Type": "multipart/form-data; boundary=x",
                "Cookie": f"{found[1]}={found[2]}",
                "X-Xsrftoken": found[2],
            },
        )
        for _ in range(10):
            with pytest.raises(urllib.error.URLError) as refused:
                urllib.request.urlopen(request)
            if isinstance(refused.value, urllib.error.HTTPError):
                break
            # The server answered and hung up while the file was still being sent: the answer is lost, ask again.
            assert isinstance(refused.value.reason, ConnectionError)
        assert isinstance(refused.value, urllib.error.HTTPError) and refused.value.code == 413
        refused.value.close()
    page.close()
    assert not place.offences


def test_a_base_path_is_plain():
    for path in ("../x", "a//b", "a b", "a?b", "/a/./b"):
        with pytest.raises(ValueError, match="A base path is plain names between slashes"):
            server.serve(8999, base_path=path)


@pytest.mark.browser
def test_a_browser_behind_nginx_drags(place, proxy, chromium_path):
    """Catches an address that the page's script builds from the root, and a request that leaves the base path."""
    troubles = []
    with chromium(chromium_path, f"--host-resolver-rules=MAP {HOST} 127.0.0.1") as browser:
        page = browser.new_page()
        home = f"http://{HOST}:{proxy}{BASE}/"
        watch(page, home, troubles)
        page.goto(f"{home}traverse?run=alpha&start=Seed")
        page.wait_for_function(
            "() => (window.__latentlab?.traverse?.frames ?? 0) > 0 && window.__latentlab.traverse.engine === 'server'",
            timeout=120_000,
        )
        page.locator(".ll-badge", has_text="live · browser").wait_for(timeout=120_000)
    assert not troubles and not place.offences
