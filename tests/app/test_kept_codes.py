"""Codes put aside by name: nobody's are lost, their names mean one thing, and each of A, B and C may be any code."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from latentlab.app import kept_codes, server, state
from latentlab.app.kept_codes import KeptCode, codes_file, forget_code, keep_code, load_codes, save_codes
from latentlab.runs import Run, Workspace

VAE = "zoo:digits-vae"


def code(name: str, value: float = 0.0) -> KeptCode:
    return KeptCode(name, "z", np.full(3, value))


def test_codes_kept_at_once_are_all_kept(tmp_path: Path) -> None:
    """Would catch a list that is written over what others have put aside since it was read."""
    path = tmp_path / "codes.json"
    names = [f"code {i}" for i in range(24)]
    start = threading.Barrier(len(names))

    def keep(name: str) -> None:
        start.wait()
        keep_code(path, code(name))

    threads = [threading.Thread(target=keep, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(c.name for c in load_codes(path)) == sorted(names)
    forget_code(path, "code 3")
    keep_code(path, code("code 4", 1.0))
    found = {c.name: c.z[0] for c in load_codes(path)}
    assert len(found) == 23 and "code 3" not in found and found["code 4"] == 1.0


@pytest.mark.parametrize(
    "content, why",
    [
        ('{"format": 2, "codes": []}', "it is of format 2; this latentlab reads format 1"),
        ("{", "holds no kept codes that can be read"),
    ],
)
def test_a_file_that_is_not_understood_is_left_as_it_is(tmp_path: Path, content: str, why: str) -> None:
    path = tmp_path / "codes.json"
    path.write_text(content)
    for act in (lambda: keep_code(path, code("a")), lambda: forget_code(path, "a")):
        with pytest.raises(ValueError, match=f"Nothing was saved: .*{why}"):
            act()
    assert path.read_text() == content


@pytest.mark.parametrize("name", ["Sliders", "sliders", "Seed 5", "seed  12", "fours (group)"])
def test_a_name_that_means_something_else_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="means something else in the menus"):
        keep_code(tmp_path / "codes.json", code(name))
    assert not (tmp_path / "codes.json").exists()
    keep_code(tmp_path / "codes.json", code(f"my {name.split(' (')[0]}"))


# ---- on the page ----


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv(server.RUNS_VARIABLE, str(tmp_path))
    return tmp_path


def opened(**parameters: str) -> AppTest:
    app = AppTest.from_file(str(server.MAIN), default_timeout=180)
    app.query_params.update(
        {"run": VAE, "start": "Seed", "below": "Arithmetic", "sum": "A − B + C", **parameters}
    )
    return quiet(app.run().switch_page("views/traverse.py").run())


def quiet(app: AppTest) -> AppTest:
    assert not app.exception, app.exception
    return app


def path_of(folder: Path) -> Path:
    return codes_file(Workspace(folder), Run.open(VAE, device="cpu"))


def put_aside(app: AppTest, name: str) -> AppTest:
    next(t for t in app.text_input if t.label.startswith("Name of the present")).set_value(name)
    return quiet(next(b for b in app.button if b.label == "Put aside").click().run())


@pytest.mark.parametrize("place", "abc")
def test_the_present_code_may_be_a_b_or_c(folder: Path, place: str) -> None:
    """Would catch an analysis that is handed nothing in place of the code on the sliders."""
    run = Run.open(VAE, device="cpu")
    other, third = (run.model.sample_codes(2, 5).numpy())[:2]
    save_codes(path_of(folder), [KeptCode("one", "z", other), KeptCode("two", "z", third)])
    names = dict(zip("abc", ("one", "two", "one"), strict=True)) | {place: "Sliders"}
    app = opened()
    for letter, name in names.items():
        app.selectbox(key=f"sum-{letter}").set_value(name)
    app = quiet(app.run())
    assert not app.error, app.error[0].value
    z = np.array(app.session_state["held"].z)
    codes = {"Sliders": z, "one": other, "two": third}
    quiet(app.button(key="sum-put").click().run())
    a, b, c = (codes[names[letter]] for letter in "abc")
    np.testing.assert_allclose(app.session_state["held"].z, a - b + c, atol=1e-4)


def test_a_name_from_elsewhere_does_not_hide_the_sliders(folder: Path) -> None:
    run = Run.open(VAE, device="cpu")
    far = np.full(run.model.latent_space.dim, 3.0)
    save_codes(path_of(folder), [KeptCode("Sliders", "z", far), KeptCode("Seed 1", "z", far)])
    options = opened(seed="0").selectbox(key="sum-a").options
    assert options[:3] == ["Sliders", "Seed 1 (kept)", "Sliders (kept)"] and "Seed 1" in options[3:]


def test_what_can_not_be_saved_is_told_and_nothing_typed_is_lost(folder: Path) -> None:
    app = put_aside(opened(), "Sliders")
    assert any("means something else" in e.value for e in app.error)
    assert next(t for t in app.text_input if t.label.startswith("Name of the")).value == "Sliders"
    app = put_aside(app, "mine")
    assert next(t for t in app.text_input if t.label.startswith("Name of the")).value == ""
    path = path_of(folder)
    keep_code(path, KeptCode("of another person", "z", np.zeros(10)))  # since the page was drawn
    app = put_aside(app, "mine too")
    assert [c.name for c in load_codes(path)] == ["mine", "mine too", "of another person"]
    quiet(app.button(key="aside-drop-0").click().run())
    assert [c.name for c in load_codes(path)] == ["mine too", "of another person"]


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_disk_that_is_full_is_told_in_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = path_of(folder)
    save_codes(path, [KeptCode("a", "z", np.zeros(10))])
    app, before = opened(), json.loads(path.read_text())
    with monkeypatch.context() as patched:
        patched.setattr(kept_codes, "save_codes", full)
        app = quiet(app.button(key="aside-drop-0").click().run())
        assert [e.value for e in app.error] == ["Nothing was saved: No space left on device."]
        assert json.loads(path.read_text()) == before
    app = quiet(app.button(key="aside-drop-0").click().run())
    assert not app.error and not load_codes(path)


def test_a_direction_that_can_not_be_saved_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "save_direction", full)
    app = opened(sum="Factor", **{"sum-plus": "8", "sum-minus": "3"})
    end = time.monotonic() + 180
    while not any(b.key == "sum-direction" for b in app.button):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
        quiet(app.run())
    app = quiet(app.button(key="sum-direction").click().run())
    assert [e.value for e in app.error] == ["Nothing was saved: No space left on device."]
