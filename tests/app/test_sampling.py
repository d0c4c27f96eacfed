"""Seed plane, temperature, truncation and arithmetic as the page runs them: what is shown is what the code says."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

import latentlab
from latentlab import analysis
from latentlab.analysis import AttributeVector, Direction
from latentlab.app import kept_codes, seed_plane, server
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
        layers = 2 if "range(2)" in next(c.value for c in app.code if "seeds = " in c.value) else None
        wanted = model.decode(
            model.truncate(plus, 0.5, None if layers is None else range(2), "w+"), space="w+"
        )
    np.testing.assert_allclose(told["image"], wanted[0].numpy(), atol=1e-4)


def test_a_place_from_a_browser_may_be_anything(folder):
    app = opened(run=VAE, start="Seed", below="Seed plane")
    for wrong in ({"x": "nan", "y": 1}, {"x": 99, "y": 0, "revision": "?"}, {"y": []}, {}):
        app.session_state["seed-plane"] = {"state": wrong}
        assert settled(app.run()).button(key="plane-put")


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
