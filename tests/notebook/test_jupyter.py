"""The widget in Jupyter: what a notebook keeps of it, and a person at JupyterLab who drags while Python listens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live import free_port
from notebook_servers import SECONDS, decoded, drag, pixels, serving, until

from latentlab.models.edits import Edit
from latentlab.runs import Run

pytest.importorskip("anywidget", reason="the widget extra is not installed")
nbformat = pytest.importorskip("nbformat", reason="the notebook extra is not installed")
nbclient = pytest.importorskip("nbclient", reason="the notebook extra is not installed")

RUN = "zoo:digits-m2"
SHOWN = f"""
import json, latentlab
from IPython.display import display
w = latentlab.widget({RUN!r}, images=0)
v = latentlab.widget({RUN!r}, images=0, engine="kernel", seed=1)
display(w, v)
"""
TOLD = "seen = w.z; print(json.dumps([w.z.tolist(), [e.to_dict() for e in w.edits], v.z.tolist()]))"
SET = "w.z = [0.25] * 16"
BAD = 'w.z = [float("nan")] * 16'
BUSY = """
import pathlib, time
while not pathlib.Path("enough").exists():
    time.sleep(0.05)
"""
BACK = "w.z = seen"


def notebook(*cells: str) -> Any:
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in cells], metadata={"kernelspec": kernel}
    )


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> Any:
    """A notebook that nbclient has run, with the widgets' state in it."""
    book, folder = notebook(SHOWN, SET, TOLD), tmp_path_factory.mktemp("executed")
    nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return book


def kept(book: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a notebook keeps of the two widgets shown."""
    shown = [output["data"] for output in book.cells[0].outputs if output["output_type"] == "display_data"]
    assert all("TraverseWidget('zoo:digits-m2'" in data["text/plain"] for data in shown)
    first, other = [data["application/vnd.jupyter.widget-view+json"]["model_id"] for data in shown]
    states = book.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    return states[first], states[other]


def test_a_notebook_keeps_the_widget_and_its_value(executed):
    first, other = kept(executed)
    assert first["state"]["z"] == [0.25] * 16 == json.loads(executed.cells[2].outputs[0]["text"])[0]
    assert "export default" in first["state"]["_esm"]
    weights = {buffer["path"][0]: len(buffer["data"]) for buffer in first["buffers"]}
    assert weights["_weights"] > 1e5 and weights["_wasm"] > 1e4
    assert (
        sum(len(buffer["data"]) for buffer in other["buffers"]) == 0
    )  # the kernel's widget holds no weights


Told = tuple[list[float], list[Edit], list[float]]


class Lab:
    """A person at a notebook in JupyterLab."""

    def __init__(self, page: Any) -> None:
        self.page = page
        page.wait_for_selector(".jp-Notebook .jp-CodeCell")

    def start(self, cell: int) -> None:
        """Starts a cell, once the kernel is there to take it."""
        self.prompt = self.page.locator(".jp-Notebook .jp-CodeCell .jp-InputPrompt").nth(cell)
        self.page.locator(".jp-Notebook .jp-CodeCell .jp-InputArea-editor").nth(cell).click()
        before = self.prompt.inner_text()
        until(lambda: self._pressed(before))

    def _pressed(self, before: str) -> bool:
        self.page.keyboard.press("Control+Enter")  # a kernel that still starts lets it pass
        deadline = time.monotonic() + 1
        while self.prompt.inner_text() == before and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.prompt.inner_text() != before

    @property
    def busy(self) -> bool:
        """Whether the cell started last still runs."""
        return "*" in self.prompt.inner_text()

    def run(self, cell: int) -> str:
        """Runs a cell to its end and gives what it printed last."""
        self.start(cell)
        until(lambda: not self.busy)
        printed = self.page.locator(".jp-Notebook .jp-CodeCell").nth(cell).locator(".jp-OutputArea-output")
        return printed.last.inner_text() if printed.count() else ""

    def told(self, unlike: Told | None = None) -> Told:
        """What Python knows: z, the edits, and z of the other widget; waits until it is unlike `unlike`, and rests."""
        deadline, before = time.monotonic() + SECONDS, None
        while True:
            time.sleep(0.3)  # a gesture is sent a tenth of a second after its end
            z, edits, other = json.loads(self.run(1))
            told = z, [Edit.from_dict(edit) for edit in edits], other
            if told == before and told != unlike:  # else it may be somewhere on the way of a drag
                return told
            before = told
            assert time.monotonic() < deadline


@contextmanager
def jupyterlab(folder: Path, book: Any, visit: Any) -> Iterator[Lab]:
    """JupyterLab on a trusted notebook, at home in a folder, and a person who has it open."""
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")
    port, token, config = free_port(), "notebook", folder / "config"
    nbformat.write(book, folder / "lab.ipynb")
    (config / "labconfig").mkdir(parents=True)
    quiet = {
        "disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}
    }  # it asks the web for news
    (config / "labconfig" / "page_config.json").write_text(json.dumps(quiet))
    settings = {
        "JUPYTER_CONFIG_DIR": str(config),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "IPYTHONDIR": str(folder / "ipython"),
    }
    trusted = ["-m", "jupyter", "trust", str(folder / "lab.ipynb")]
    subprocess.run([sys.executable, *trusted], env=os.environ | settings, check=True, capture_output=True)
    arguments = ["jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ServerApp.port_retries=0"]
    arguments += [f"--IdentityProvider.token={token}", "--LabApp.extension_manager=readonly"]
    here = f"http://127.0.0.1:{port}"
    with serving(arguments, f"{here}/api?token={token}", folder, settings):
        page = visit(f"{here}/lab/tree/lab.ipynb?token={token}", port)
        yield Lab(page)
        page.close()


@pytest.mark.browser
@pytest.mark.slow
def test_a_saved_notebook_draws_before_any_cell_has_run(tmp_path: Path, visit, executed):
    """Would catch a widget that needs Python to draw: nothing here ever makes one."""
    model = Run.open(RUN, device="cpu").model
    with jupyterlab(tmp_path, executed, visit) as lab:
        until(lambda: lab.page.locator("canvas.ll-main[data-drawn='1']").count() == 2)
        for which, part in enumerate(kept(executed)):
            assert np.abs(pixels(lab.page, which) - decoded(model, part["state"]["z"])).max() <= 1.0
        before = pixels(lab.page)
        drag(lab.page, 0, 0.9)
        until(lambda: np.abs(pixels(lab.page) - before).max() > 5)


@pytest.mark.browser
def test_a_person_drags_in_jupyterlab_and_python_knows(tmp_path: Path, visit):
    """Pictures are torch's within 1 of 255; values travel both ways; two widgets mind their own.

    Would also catch a widget that needs the kernel to draw: one that is dragged while a cell runs draws all the same.
    """
    model = Run.open(RUN, device="cpu").model
    with jupyterlab(tmp_path, notebook(SHOWN, TOLD, SET, BAD, BUSY, BACK), visit) as lab:
        page = lab.page
        lab.run(0)
        until(lambda: page.locator("canvas.ll-main[data-drawn='1']").count() == 2)
        first = lab.told()
        for which, z in ((0, first[0]), (1, first[2])):
            until(lambda which=which, z=z: np.abs(pixels(page, which) - decoded(model, z)).max() <= 1.0)
        assert page.locator(".latentlab-widget").count() == 2
        assert page.evaluate("window.__latentlab.decoded_in") == "worker"
        sliders = page.locator(".latentlab-widget").first.locator("input.ll-slider").count()

        drag(page, 0, 0.9)
        moved = lab.told(first)
        assert moved[0] != first[0] and moved[2] == first[2]
        assert np.abs(pixels(page) - decoded(model, moved[0])).max() <= 1.0

        drag(page, sliders, 0.1)  # the other widget, whose pictures the kernel draws
        both = lab.told(moved)
        assert both[0] == moved[0] and both[2] != first[2]
        until(lambda: np.abs(pixels(page, 1) - decoded(model, both[2])).max() <= 1.0)
        assert np.abs(pixels(page) - decoded(model, moved[0])).max() <= 1.0

        page.get_by_role("tab", name="Hidden units").first.click()
        until(lambda: page.locator("canvas.ll-sheet").first.get_attribute("data-drawn"))
        page.locator("canvas.ll-sheet").first.click(position={"x": 12, "y": 12})
        switched = lab.told(both)
        z, edits, _ = switched
        assert edits == [Edit("generator.deconv2", units=(0,))] and z == moved[0]
        until(lambda: np.abs(pixels(page) - decoded(model, z, edits)).max() <= 1.0)
        assert np.abs(pixels(page) - decoded(model, z)).max() > 5

        lab.run(2)
        until(lambda: np.abs(pixels(page) - decoded(model, [0.25] * 16, edits)).max() <= 1.0)
        assert page.locator("input.ll-value").first.input_value() == "0.25"
        assert "ValueError: z must hold finite numbers" in lab.run(3)
        placed = lab.told(switched)
        assert placed[0] == [0.25] * 16

        page.get_by_role("tab", name="Sliders").first.click()
        before = pixels(page)
        lab.start(4)
        drag(page, 0, 0.9)
        until(lambda: np.abs(pixels(page) - before).max() > 5)
        assert lab.busy
        (tmp_path / "enough").touch()
        until(lambda: not lab.busy)
        z, edits, _ = lab.told(placed)
        assert z != [0.25] * 16 and np.abs(pixels(page) - decoded(model, z, edits)).max() <= 1.0
        there, back = ([0.25] * 16, 2), (z, 5)  # Python goes elsewhere, and back to where the person was
        for code, cell in (there, back):
            lab.run(cell)
            until(lambda code=code: np.abs(pixels(page) - decoded(model, code, edits)).max() <= 1.0)
