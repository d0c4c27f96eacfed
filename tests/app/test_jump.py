"""A click on an image puts the sliders onto its code; what they hold is kept; they stand in a chosen order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
import torch
from streamlit.testing.v1 import AppTest

from latentlab import Run, analysis
from latentlab.analysis.direction import Direction
from latentlab.app import cells, placing, server, sorting
from latentlab.app.components import Axis, Cell
from latentlab.app.components.picture import rows_of
from latentlab.app.jump import jumper
from latentlab.app.pull import Pull

RUN, STYLE = "zoo:sprites-beta-vae", "zoo:digits-stylegan"


@pytest.fixture(scope="module")
def style() -> Run:
    return Run.open(STYLE, device="cpu")


@pytest.fixture(autouse=True)
def workspace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv(server.RUNS_VARIABLE, str(tmp_path))
    st.session_state.clear()
    yield
    st.session_state.clear()


def direction(name: str, dim: int, space: str | None = "w", stage: str | None = None) -> Direction:
    vector = np.random.default_rng(len(name)).normal(size=dim)
    return Direction(name, tuple(vector), space=space, stage=stage, step=0.7)


@pytest.mark.parametrize("space, place", [("w", "w"), ("z", "w"), ("z", None)])
def test_a_click_gives_the_very_code_whatever_the_sliders_stood_for(
    style: Run, space: str, place: str
) -> None:
    """Fails sliders that add their steps or their truncation to the code once more."""
    dims = {name: found.dim for name, found in style.model.spaces.items()}
    pull = Pull(space, (direction("along", dims["w"]),), cutoff=0)
    before = torch.randn(1, pull.dim(style.model), generator=torch.Generator().manual_seed(0))[0].numpy()
    before[-1] = 0.5
    placing.held(style, pull, "start", before)
    choose = jumper(style, pull, place)
    assert choose is not None
    code = np.random.default_rng(1).normal(size=dims[place or "z"]).astype(np.float32)
    choose(code)
    held = placing.present(style)
    assert held is not None and held.pull is not None and held.pull.space == (place or "z")
    with torch.inference_mode():
        found, where = held.pull.code(style.model, torch.tensor(held.z[None]))
        drawn = held.pull.decode(style.model, torch.tensor(held.z[None]))[0].numpy()
    expected = analysis.decode_latents(style.model, code[None], space=place)[0]
    assert np.abs(drawn - expected).max() < 1e-5, where
    if where == (place or "z"):
        assert np.allclose(found[0].numpy(), code, atol=1e-6)


def test_a_direction_that_the_new_space_does_not_pass_has_no_slider_any_more(style: Run) -> None:
    dims = {name: found.dim for name, found in style.model.spaces.items()}
    pull = Pull("z", (direction("in z", dims["z"], "z"), direction("in w!", dims["w"])), cutoff=0)
    choose = jumper(style, pull, "w")
    assert choose is not None
    choose(np.zeros(dims["w"], np.float32))
    held = placing.present(style)
    assert held is not None and held.pull is not None
    assert [d.name for d in held.pull.directions] == ["in w!"]


def test_no_slider_moves_single_layers(style: Run) -> None:
    """Fails a click that looks possible and does nothing."""
    assert jumper(style, Pull("w", (), 0), "w+") is None
    assert jumper(style, None, "w") is None and jumper(style, None, None) is not None


def test_what_was_put_is_taken_once_and_kept_with_locks_and_slots(style: Run) -> None:
    """Fails a jump that loses the locks, and sliders that snap back at the next run of the page."""
    z = np.zeros(3, np.float32)
    first = placing.held(style, None, "start", z)
    assert first.revision == "start" and first.z is z
    left = placing.components.TraverseState(z + 1, (2,), "server", 5, (z, None))
    placing.keep(first, left)
    placing.put(style, None, z + 2)
    then = placing.held(style, None, "start", z)
    assert then.revision != first.revision and then.z.tolist() == [2, 2, 2]
    assert then.locks == (2,) and then.slots[0] is z and then.seed == 5
    assert placing.held(style, None, "start", z).revision == then.revision
    other = placing.held(style, None, "another start", z)
    assert other.z is z and other.locks == () and other.revision == "another start"


def test_a_start_that_is_still_looked_for_takes_nothing_away(style: Run) -> None:
    """Fails a linked code that is gone as soon as an inversion ends."""
    z = np.zeros(3, np.float32)
    placing.restore(placing.Held(style.digest, None, None, z + 4))
    assert placing.held(style, None, "inverting", z, final=False).z.tolist() == [4, 4, 4]
    assert placing.held(style, None, "inverted", z).z.tolist() == [4, 4, 4]
    assert placing.held(style, None, "next image", z).z is z


def test_each_image_says_what_it_is(style: Run) -> None:
    """Fails words that are shifted against the images, or of the row that is drawn there instead of the code's."""
    model = Run.open(RUN, device="cpu").model
    grid = analysis.traverse_grid(model, seed=0, dims=("z1", "z0"), steps=3)
    said = np.array(cells.words(grid)).reshape(3, 3)
    for i, j in np.ndindex(3, 3):
        x, y = grid.z[i, j, 1], grid.z[i, j, 0]
        assert said[i, j] == f"z1 {x:.2f}, z0 {y:.2f}".replace("-", "−")
    strips = analysis.traverse(model, seed=0, dims=["z3"], steps=3)
    assert cells.words(strips)[2] == f"z3 {strips.z[0, 2, 3]:.2f}"
    path = analysis.interpolate(model, grid.z[0, 0], grid.z[2, 2], 3)
    assert cells.words(path) == [
        "0% of the way from A to B",
        "50% of the way from A to B",
        "100% of the way from A to B",
    ]


def test_rows_are_found_by_where_the_images_lie() -> None:
    found = rows_of([Cell(i, box, "") for i, box in enumerate([(9, 9, 12, 12), (0, 9, 3, 12), (0, 0, 3, 3)])])
    assert [[cell.number for cell in row] for row in found] == [[2], [1, 0]]


# ---- the order of sliders ----
AXES = [Axis(i, f"z{i}", -1, 1, kl=kl) for i, kl in ((2, 3.0), (0, 2.0), (3, 1.0), (1, 0.5))]
LABELS = {"z0": ("scale", 0.4), "z1": ("x", 0.9), "z3": ("scale", 1.4), "z9": ("y", 1.0)}


def test_sliders_by_factor_are_grouped_in_the_datas_order() -> None:
    """Fails the order of the alphabet, weak latents before strong ones, and unlabelled ones in between."""
    found = sorting.by_factor(AXES, LABELS, ["x", "y", "scale"])
    assert [(a.name, a.group) for a in found] == [
        ("z1", "x"),
        ("z3", "scale"),
        ("z0", "scale"),
        ("z2", sorting.REST),
    ]
    assert [a.name for a in sorting.by_factor(AXES, LABELS, [])][:2] == ["z3", "z0"]  # by name


def opened(run: str, **parameters: str) -> AppTest:
    app = AppTest.from_file(str(server.MAIN), default_timeout=180).run()
    app.query_params.update({"run": run, "start": "Seed", **parameters})
    app = app.switch_page("views/traverse.py").run()
    assert not app.exception
    return app


def axes(app: AppTest) -> list[dict]:
    shown = [e for e in app.get("bidi_component") if e.proto.component_name.endswith(".traverse")]
    return json.loads(shown[0].proto.json)["axes"]


def sort(app: AppTest):
    return next(g for g in app.get("button_group") if g.proto.label == "Sort")


def test_the_order_is_chosen_in_the_address() -> None:
    by_name = opened(RUN, sort="Name")
    assert [a["index"] for a in axes(by_name)] == list(range(10))
    by_factor = axes(opened(RUN, sort="Factor"))
    known = [a for a in by_factor if a["known"]]
    assert known and by_factor[: len(known)] == known
    assert all(a["known"] == a["group"] and a["known"] in a["help"] for a in known)
    order = ["shape", "scale", "orientation", "x", "y"]
    places = [order.index(a["group"]) for a in known]
    assert places == sorted(places) and {a["group"] for a in by_factor[len(known) :]} == {sorting.REST}


def test_a_pulled_space_has_orders_of_its_own(style: Run) -> None:
    """Fails an order by KL of coordinates that have none, and other sliders that are sorted in among them."""
    ranges = analysis.dim_ranges(style.model, span="prior", coverage=0.98, space="w")
    own = [a["index"] for a in axes(opened(STYLE, space="W")) if a["group"] == "W"]
    assert own == np.argsort(ranges[:, 0] - ranges[:, 1], kind="stable").tolist()
    named = axes(opened(STYLE, space="W", sort="Name"))
    front = [a for a in named if a["group"] != "W"]
    assert named[: len(front)] == front  # truncation first
    assert [a["index"] for a in named[len(front) :]] == list(range(len(own)))
