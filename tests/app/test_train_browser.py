"""A training as a person meets it: started in a real browser, still there after the server was started anew."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from live import free_port
from visiting import tracebacks

from latentlab.app import training_jobs
from latentlab.app.configuration import to_yaml
from latentlab.config import DataConfig, Experiment, VAEConfig

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SERVE = """
import sys
from latentlab.app import server, training_jobs
training_jobs.NICENESS = 1  # beside busy neighbours 10 may take minutes to import torch
server.serve(int(sys.argv[1]), sys.argv[2])
"""
LONG = Experiment(
    name="long",
    data=DataConfig("digits"),
    model=VAEConfig(latents=2, width=4, hidden=8),
    max_steps=1_000_000,
    batch_size=8,
    log_every=20,
    preview_every=50,
    checkpoint_every=50,
)


class Server:
    """Our own server over a workspace, which can be ended and started anew on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs = folder, folder / "runs"
        self.runs.mkdir()
        (folder / "locks").mkdir()
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        with (self.folder / "log.txt").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVE, str(self.port), str(self.runs)],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(self.folder / "locks")},
            )
        end = time.monotonic() + 180
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.address}/_stcore/health", timeout=2):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self.folder / "log.txt").read_text())

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@pytest.fixture
def served(tmp_path: Path):
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()
    for job in training_jobs.list_jobs(server.runs):
        if job.alive:
            os.kill(job.pid, 9)
    assert not tracebacks((tmp_path / "log.txt").read_text())


def settled(page) -> None:
    page.wait_for_function(
        "() => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'"
    )


def shoot(page, name: str, tmp_path: Path) -> None:
    """Keeps a screenshot for people to look at, in $LATENTLAB_SCREENSHOTS if that is set."""
    folder = Path(os.environ.get("LATENTLAB_SCREENSHOTS", tmp_path))
    page.screenshot(path=folder / f"{name}.png")


def test_a_training_outlives_the_page_and_the_server(
    served: Server, chromium_path: str, tmp_path: Path
) -> None:
    """Catches a training that ends with the server, a page that forgets it, a Stop that only works where it began."""
    playwright = pytest.importorskip("playwright.sync_api")
    troubles: list[str] = []
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium_path, args=["--no-sandbox", "--disable-gpu"])

        def visit(path: str):
            page = browser.new_page(viewport={"width": 1440, "height": 1000})
            page.set_default_timeout(120_000)
            page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
            page.on(
                "request",
                lambda r: (
                    None
                    if r.url.startswith((served.address, "data:", "blob:"))
                    else troubles.append(f"outside: {r.url}")
                ),
            )
            page.goto(served.address + path)
            return page

        page = visit("/train")
        box = page.get_by_role("textbox", name="The same as YAML")
        box.wait_for()
        settled(page)
        box.fill(to_yaml(LONG.to_dict()))
        box.press("Control+Enter")
        page.wait_for_function("() => [...document.querySelectorAll('input')].some(e => e.value === 'long')")
        settled(page)
        page.get_by_role("button", name="Start training").click()
        page.get_by_text("running", exact=True).first.wait_for()
        page.locator(
            "[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg"
        ).first.wait_for()
        page.locator("img[alt^='Samples of long at step']").first.wait_for()
        shown = page.get_by_text("of 1,000,000 steps").first.inner_text()
        page.wait_for_function(
            "before => !document.body.innerText.includes(before)", arg=shown.split(" of ")[0] + " of "
        )
        shoot(page, "train-running", tmp_path)
        page.reload()
        page.locator("[data-testid=stVegaLiteChart]").first.wait_for()
        assert "job=" in page.url or len(training_jobs.list_jobs(served.runs)) == 1
        (job,) = training_jobs.list_jobs(served.runs)
        assert job.alive
        page.close()

        served.kill()
        assert job.alive, "the server's end is not the training's"
        served.start()
        reached = job.step
        page = visit("/train")
        page.get_by_role("button", name="Stop").wait_for()
        settled(page)
        page.get_by_role("button", name="Stop").click()
        page.get_by_role("button", name="Resume").wait_for()
        assert not job.alive and job.state == "stopped" and job.step >= reached
        shoot(page, "train-stopped", tmp_path)
        page.locator("[data-testid=stPageLink] a", has_text="Traverse").click()
        page.wait_for_selector("canvas.ll-main")
        page.wait_for_function(
            "() => location.pathname === '/traverse' && location.search.includes('run=long')"
        )
        browser.close()
    assert not troubles
