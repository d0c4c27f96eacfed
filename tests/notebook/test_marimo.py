"""The widget in marimo: cells that depend on it run again when a person lets go of a slider."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from live import free_port
from notebook_servers import decoded, drag, pixels, serving, until

from latentlab.models.edits import Edit
from latentlab.runs import Run

pytest.importorskip("anywidget", reason="the widget extra is not installed")

RUN = "zoo:digits-m2"
APP = f"""
import marimo

app = marimo.App()


@app.cell
def _():
    import json
    import latentlab
    import marimo as mo
    w = mo.ui.anywidget(latentlab.widget({RUN!r}, images=0, live=True))
    w
    return json, mo, w


@app.cell
def _(json, mo, w):
    w.value
    mo.Html("<p id='told'>" + json.dumps([w.z.tolist(), [e.to_dict() for e in w.edits]]) + "</p>")
    return


@app.cell
def _(mo):
    half = mo.ui.run_button(label="half")
    half
    return (half,)


@app.cell
def _(half, w):
    if half.value:
        w.widget.z = [0.25] * 16
    return


if __name__ == "__main__":
    app.run()
"""


@pytest.mark.browser
def test_a_person_drags_in_marimo_and_cells_follow(tmp_path: Path, visit):
    """Pictures are torch's within 1 of 255; values travel both ways, live while a slider is held; its dark is ours."""
    pytest.importorskip("marimo", reason="marimo is not installed")
    model, port = Run.open(RUN, device="cpu").model, free_port()
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "config" / "marimo").mkdir(parents=True)
    (tmp_path / "config" / "marimo" / "marimo.toml").write_text('[display]\ntheme = "dark"\n')
    settings = {
        f"XDG_{kind}_HOME": str(tmp_path / kind.lower()) for kind in ("CONFIG", "STATE", "CACHE", "DATA")
    }
    arguments = [
        "marimo",
        "-y",
        "run",
        "app.py",
        "--headless",
        "--no-token",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    here = f"http://127.0.0.1:{port}"
    with serving(arguments, f"{here}/health", tmp_path, settings | {"MARIMO_SKIP_UPDATE_CHECK": "1"}):
        page = visit(here, port)
        page.wait_for_selector("canvas.ll-main[data-drawn='1']")

        def told() -> tuple[list[float], list[Edit]]:
            z, edits = json.loads(page.locator("#told").inner_text())
            return z, [Edit.from_dict(edit) for edit in edits]

        until(lambda: page.locator("#told").count() == 1)
        first = told()[0]
        assert np.abs(pixels(page) - decoded(model, first)).max() <= 1.0
        assert page.evaluate("window.__latentlab.decoded_in") == "worker"
        paper = page.locator(".latentlab-widget .ll").evaluate("e => getComputedStyle(e).backgroundColor")
        assert max(map(float, paper.strip("rgba()").split(",")[:3])) < 80

        drag(page, 0, 0.9, release=False)
        until(lambda: told()[0] != first)
        page.mouse.up()
        until(lambda: np.abs(pixels(page) - decoded(model, told()[0])).max() <= 1.0)

        page.get_by_role("button", name="half").click()
        until(lambda: page.locator("input.ll-value").first.input_value() == "0.25")
        page.get_by_role("tab", name="Hidden units").click()
        until(lambda: page.locator("canvas.ll-sheet").get_attribute("data-drawn"))
        page.locator("canvas.ll-sheet").click(position={"x": 12, "y": 12})
        until(lambda: told() == ([0.25] * 16, [Edit("generator.deconv2", units=(0,))]))
        until(lambda: np.abs(pixels(page) - decoded(model, *told())).max() <= 1.0)
        page.screenshot(path=tmp_path / "marimo.png")
        page.close()
