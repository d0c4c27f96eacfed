"""The tour notebook: it runs from top to bottom, and what it says in passing is true."""

import re

from notebooks import check_stored, run, text


def test_the_committed_notebook_shows_its_figures_and_no_stray_output():
    """Fails a notebook committed without outputs, with an error or warning in it, or grown heavy."""
    check_stored("tour.ipynb", figures=10, bytes_at_most=1_500_000)


def test_the_tour_runs_from_top_to_bottom(tmp_path):
    """Fails a notebook that the code has left behind, and claims of it that no longer hold."""
    cells = run("tour.ipynb", tmp_path)
    everything = "\n".join(text(cell) for cell in cells if cell.cell_type == "code")
    assert "among the data: False" in everything
    assert re.search(r"on the map again at (\[.*?\]) for \1", everything)
    assert "True True" in everything
    first, last = map(float, re.search(r"loss (\d+) at first, (\d+) after", everything).groups())
    assert last < 0.8 * first
    readout = next(o for c in cells if "linear_readout" in c.source for o in c.outputs)
    assert "LinearReadout" in readout["data"]["text/plain"] and "text/html" in readout["data"]
    assert list(tmp_path.iterdir()) == []
