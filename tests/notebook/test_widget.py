"""The notebook widget without a notebook: what it is opened with, what its values refuse, what the kernel answers."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

import latentlab
from latentlab.export import lower
from latentlab.models.edits import Edit
from latentlab.runs import Run

anywidget = pytest.importorskip("anywidget", reason="the widget extra is not installed")


@pytest.fixture(scope="module")
def run() -> Run:
    return Run.open("zoo:digits-m2", device="cpu")


@pytest.fixture
def w(run):
    return latentlab.widget(run, images=64)


def decoded(model, z, edits=(), **space) -> np.ndarray:
    with torch.inference_mode():
        return model.decode(torch.tensor(np.array([z], np.float32)), edits=edits, **space)[0].numpy()


def test_the_package_and_the_name_load_no_widget_library():
    """Would catch an import of anywidget, or of torch, by whoever only says ``import latentlab``."""
    code = "import sys, latentlab; assert not {'torch', 'anywidget'} & set(sys.modules); latentlab.widget; "
    code += "assert not {'anywidget', 'ipywidgets', 'streamlit'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_without_the_extra_it_says_what_to_install(run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'latentlab\[widget\]'"):
        latentlab.widget(run)


def test_it_starts_at_an_image_of_the_data_with_the_browsers_weights(run, w):
    image = run.dataset().images(
        np.array([latentlab.encode_dataset(run.model, run.dataset(), 64).indices[0]])
    )
    assert np.abs(w.image - image[0].numpy()).mean() < 0.15
    assert w.z.dtype == np.float32 and w.z[:10].tolist().count(1.0) == 1  # a digit, not a mixture of them
    program, steps, weights = lower(run.model).packed("f16")
    assert (w._weights, w._steps) == (weights, steps) and w._content["program"] == program
    assert w._wasm.startswith(b"\0asm")
    assert [axis["name"] for axis in w._content["axes"]][:1] == ["digit"]
    assert len(repr(w)) < 120 and "drawn by the browser" in repr(w)


def test_the_script_is_the_explorers_own_and_nothing_of_streamlit(w):
    for part in ("LL.views.traverse = class", "class LatentEngine", "LL.Decoder = class", "LL.Units = class"):
        assert part in w._esm
    assert w._esm.count("export default") == 1 and "setStateValue" not in w._esm


@pytest.mark.parametrize(
    ("name", "value", "wording"),
    [
        ("z", np.zeros(3), r"z must be a code \(16,\) of space 'z'; got shape \(3,\)"),
        ("z", np.zeros((1, 16)), r"got shape \(1, 16\)"),
        ("z", [np.nan] * 16, "finite numbers; it holds NaN"),
        ("z", [1e39] * 16, "finite numbers"),
        ("z", "middle", "z must be 16 numbers; got str"),
        ("z", None, "z must be"),
        ("locks", (16,), "coordinates from 0 to 15"),
        ("locks", ("a",), "coordinates, such as"),
        ("locks", 3, "coordinates, such as"),
        ("slots", (None,), "slots are two codes"),
        ("slots", (np.zeros(2), None), r"a slot must be a code \(16,\)"),
        ("edits", [Edit("generator.nowhere")], "No stage 'generator.nowhere'"),
        ("edits", [Edit("generator.deconv1", units=(4000,))], "the edit names unit 4000"),
        ("edits", [Edit("encoder.conv1")], "no effect on network 'generator'"),
        ("edits", ["generator.deconv1"], "a str in it"),
        ("edits", 3, "a list of latentlab.Edit; got int"),
        ("edits", [Edit("generator.deconv1", region=((1.0, 0.0),))], "engine='kernel'"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_in_one_sentence_and_changes_nothing(w, name, value, wording):
    before, heard = w.get_state(["z", "locks", "slots", "edits"]), []
    w.observe(heard.append)
    with pytest.raises(ValueError, match=wording) as refusal:
        setattr(w, name, value)
    assert "\n" not in str(refusal.value)
    assert w.get_state(["z", "locks", "slots", "edits"]) == before and not heard


def test_a_code_set_from_python_is_heard_once_and_travels_exactly(w):
    heard = []
    w.observe(lambda change: heard.append(change["new"]), "z")
    z = np.linspace(-1, 1, 16)
    w.z = z
    w.z = torch.tensor(z)  # the same again
    assert len(heard) == 1 and np.array_equal(heard[0], z.astype(np.float32))
    assert np.array_equal(np.array(w.get_state(["z"])["z"], np.float32), w.z)
    with pytest.raises(ValueError, match="read-only"):
        w.z[0] = 3.0
    z[:] = 0  # what was given stays the giver's
    assert w.z[0] == -1.0


def test_what_the_browser_sends_arrives_as_values(w):
    heard, z = [], np.linspace(-2, 2, 16).astype(np.float32)
    w.observe(lambda change: heard.append(change["name"]), ["z", "edits", "locks", "slots"])
    codes = [float(v) for v in z]
    w.set_state({"z": codes, "locks": [3, 1], "slots": [codes, None]})
    w.set_state({"edits": [{"stage": "generator.deconv1", "units": [5, 2]}]})
    assert np.array_equal(w.z, z) and w.locks == (1, 3)
    assert np.array_equal(w.slots[0], z) and w.slots[1] is None
    assert w.edits == (Edit("generator.deconv1", units=(2, 5)),)
    assert sorted(heard) == ["edits", "locks", "slots", "z"]


def test_the_image_and_the_code_are_what_torch_decodes(run, w):
    w.z = np.linspace(-1, 1, 16)
    w.edits = [Edit("generator.deconv1", units=(0, 2)), Edit("generator.fc1", operation="scale", value=0.5)]
    assert np.array_equal(w.image, decoded(run.model, w.z, w.edits))
    assert np.abs(w.image - decoded(run.model, w.z)).max() > 0.01
    names: dict = {}
    exec(w.code(), names)
    assert np.array_equal(names["image"], w.image)


def test_a_model_alone_has_sliders_over_its_prior(run):
    w = latentlab.widget(run.model, seed=3)
    assert np.array_equal(w.z, latentlab.widget(run.model, seed=3).z)
    assert not np.array_equal(w.z, latentlab.widget(run.model, seed=4).z)
    assert w.run is None and "Run.open" not in w.code()
    names = {"model": run.model}
    exec(w.code(), names)
    assert np.array_equal(names["image"], w.image)


def test_another_space_is_moved_along_its_own_axes():
    run = Run.open("zoo:digits-stylegan", device="cpu")
    w = latentlab.widget(run, space="w", images=0)
    assert w.z.shape == (run.model.spaces["w"].dim,) and len(w._content["axes"]) == len(w.z)
    assert np.array_equal(w.image, decoded(run.model, w.z, space="w")) and "space='w'" in w.code()
    spread = [axis["high"] - axis["low"] for axis in w._content["axes"]]
    assert spread[0] == max(spread)


@pytest.fixture(scope="module")
def foreign():
    """A model that the browser engine does not know."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(3, 12), torch.nn.Softplus(), torch.nn.Linear(12, 64), torch.nn.Sigmoid()
    )
    decoder = torch.nn.Sequential(net, torch.nn.Unflatten(1, (1, 8, 8)))
    return latentlab.adapt_model(decoder, latents=3, image_shape=(1, 8, 8))


def test_what_the_browser_does_not_know_is_drawn_by_the_kernel(run, foreign):
    w = latentlab.widget(foreign)
    assert "drawn by the kernel" in repr(w) and not w._weights and w._content["program"] is None
    assert np.array_equal(np.frombuffer(_bytes(w._picture), np.uint8), np.rint(255 * w.image).ravel())
    w.z = np.ones(3)
    assert np.array_equal(np.frombuffer(_bytes(w._picture), np.uint8), np.rint(255 * w.image).ravel())
    with pytest.raises(ValueError, match="browser engine decodes latentlab's own"):
        latentlab.widget(foreign, engine="browser")
    region = [Edit("generator.deconv1", region=((1.0, 0.0),))]
    assert "drawn by the kernel" in repr(latentlab.widget(run, images=0, edits=region))
    with pytest.raises(ValueError, match="engine='kernel'"):
        latentlab.widget(run, images=0, edits=region, engine="browser")


def _bytes(picture: dict) -> bytes:
    import base64

    return base64.b64decode(picture["data"])


@pytest.mark.parametrize("exact", [False, True])
def test_the_kernels_answer_is_what_the_browser_engine_would_say(run, monkeypatch, exact):
    w = latentlab.widget(run, images=0, engine="kernel")
    sent: list = []
    monkeypatch.setattr(w, "send", lambda message, buffers: sent.append((message, buffers)))
    edits = [{"stage": "generator.fc2", "units": [0, 1, 2]}]
    codes = np.linspace(-1, 1, 32).reshape(2, 16).astype(np.float32)
    request = {
        "id": "a-1",
        "codes": codes.tolist(),
        "edits": edits,
        "stage": "generator.deconv1",
        "original": True,
    }
    w._handle_custom_msg(request | {"exact": exact}, [])
    message, buffers = sent[0]
    assert message["id"] == "a-1" and message["parts"] == ["image", "image", "state", "original"]

    def picture(part: bytes) -> np.ndarray:
        values = np.frombuffer(part, "<f4" if exact else np.uint8).astype(np.float64) / (1 if exact else 255)
        return values.reshape(message["h"], message["w"], message["c"]).transpose(2, 0, 1)

    off, near = [Edit.from_dict(edit) for edit in edits], 1e-6 if exact else 0.502 / 255
    for part, z in zip(buffers[:2], codes, strict=True):
        assert np.abs(picture(part) - decoded(run.model, z, off)).max() <= near
    assert np.abs(picture(buffers[3]) - decoded(run.model, codes[1])).max() <= near
    with torch.inference_mode():
        state = run.model.generator.activations(torch.tensor(codes[1:]), ["deconv1"], off)["deconv1"][
            0
        ].numpy()
    assert message["state"]["shape"] == list(state.shape)
    assert np.allclose(np.frombuffer(buffers[2], "<f4"), state.ravel(), atol=1e-5)


@pytest.mark.parametrize(
    "request_",
    [None, {}, {"codes": [[0.0]]}, {"codes": [[0.0] * 16] * 65}, {"codes": [[0.0] * 16], "edits": [3]}],
)
def test_a_request_that_makes_no_sense_is_answered_in_words(run, request_):
    from latentlab.notebook.answering import answer

    message, buffers = answer(run.model, "z", request_)
    assert isinstance(message["error"], str) and message["error"] and not buffers


@pytest.mark.parametrize(
    ("arguments", "error", "wording"),
    [
        ({"run": 3}, TypeError, "Expected a run, its name or path, or a model; got int"),
        ({"run": "zoo:nothing"}, OSError, "zoo:digits-m2"),
        ({"engine": "server"}, ValueError, "engine is one of auto, browser, kernel; got 'server'"),
        ({"precision": "f8"}, ValueError, "precision is one of"),
        ({"images": -1}, ValueError, "0 or more; got -1"),
        ({"z": np.zeros(3)}, ValueError, "z must be codes"),
        ({"space": "w"}, ValueError, "No space 'w'"),
        ({"seed": -1}, ValueError, "seed must be"),
        ({"edits": [Edit("generator.nowhere")]}, ValueError, "No stage"),
    ],
)
def test_an_opening_that_does_not_fit_is_refused(run, arguments, error, wording):
    with pytest.raises(error, match=wording):
        latentlab.widget(**{"run": run, "images": 0} | arguments)
