"""The tour notebook: it runs from top to bottom, and what it says in passing is true."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "experiments" / "notebooks" / "tour.ipynb"


def _text(cell) -> str:
    parts = []
    for output in cell["outputs"]:
        data = output.get("data", {})
        for text in (output.get("text", ""), data.get("text/plain", "")):
            parts.append(text if isinstance(text, str) else "".join(text))
    return "\n".join(parts)


def test_the_committed_notebook_shows_its_figures_and_no_stray_output():
    """Fails a notebook committed without outputs, with an error or warning in it, or grown heavy."""
    assert NOTEBOOK.stat().st_size < 1_500_000
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for cell in code:
        assert all(output["output_type"] != "error" for output in cell["outputs"])
        assert all(output.get("name") != "stderr" for output in cell["outputs"])
    figures = [
        o for cell in code for o in cell["outputs"] if {"text/html", "image/png"} & set(o.get("data", {}))
    ]
    assert len(figures) >= 10


def test_the_tour_runs_from_top_to_bottom(tmp_path):
    """Fails a notebook that the code has left behind, and claims of it that no longer hold."""
    nbclient = pytest.importorskip("nbclient", reason="the notebook extra is not installed")
    nbformat = pytest.importorskip("nbformat", reason="the notebook extra is not installed")
    pytest.importorskip("ipykernel", reason="the notebook extra is not installed")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    said = {cell.id: _text(cell) for cell in notebook.cells if cell.cell_type == "code"}
    everything = "\n".join(said.values())
    assert "among the data: False" in everything
    assert re.search(r"on the map again at (\[.*?\]) for \1", everything)
    assert "True True" in everything
    first, last = map(float, re.search(r"loss (\d+) at first, (\d+) after", everything).groups())
    assert last < 0.8 * first
    readout = next(o for c in notebook.cells if "linear_readout" in c.source for o in c.outputs)
    assert "LinearReadout" in readout["data"]["text/plain"] and "text/html" in readout["data"]
    assert list(tmp_path.iterdir()) == []
