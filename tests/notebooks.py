"""Notebooks under test: what their cells print, whether they were stored whole, and a run from top to bottom."""

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "experiments" / "notebooks"


def stored(name: str) -> list[dict[str, Any]]:
    """The cells of a notebook as it is committed."""
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))["cells"]


def _joined(text: Any) -> str:
    return text if isinstance(text, str) else "".join(text)


def printed(cell: Any) -> str:
    """What a code cell printed."""
    return "".join(_joined(output.get("text", "")) for output in cell["outputs"])


def text(cell: Any) -> str:
    """What a code cell printed, and its result in words."""
    results = [_joined(output.get("data", {}).get("text/plain", "")) for output in cell["outputs"]]
    return "\n".join([printed(cell), *results])


def check_stored(name: str, *, figures: int, bytes_at_most: int) -> None:
    """Fails a notebook committed without outputs, out of order, with an error or warning in it, or grown heavy."""
    assert (FOLDER / name).stat().st_size < bytes_at_most
    code = [cell for cell in stored(name) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert all(output["output_type"] != "error" for output in outputs)
    assert all(output.get("name") != "stderr" for output in outputs)
    shown = [output for output in outputs if {"text/html", "image/png"} & set(output.get("data", {}))]
    assert len(shown) >= figures


def run(name: str, folder: Path) -> list[Any]:
    """Runs a notebook from top to bottom in a folder, fails at the first error, and gives its cells with outputs."""
    nbclient = pytest.importorskip("nbclient", reason="the notebook extra is not installed")
    nbformat = pytest.importorskip("nbformat", reason="the notebook extra is not installed")
    pytest.importorskip("ipykernel", reason="the notebook extra is not installed")
    notebook = nbformat.read(FOLDER / name, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    where = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    return notebook.cells
