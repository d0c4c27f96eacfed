"""A model of your own in the explorer: Python that builds it, weights that are never run, an ONNX decoder, a folder."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from live import Client, served
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.torch import save_file
from streamlit.testing.v1 import AppTest
from watching import UNPICKLING, watching

import latentlab
from latentlab import analysis, cli
from latentlab.app import engine, server, state
from latentlab.app.calls import Call, opened
from latentlab.brought import read_weights
from latentlab.models.contract import is_inference_model

OWN = """
import latentlab
from torch import nn
from parts import decoder, encoder

def build(weights):
    own = nn.ModuleDict({"decoder": decoder(), "encoder": encoder()})
    own.load_state_dict(weights)
    return latentlab.adapt_model(
        own["decoder"], encoder=own["encoder"], latents=3, image_shape=(1, 8, 8), outputs="logits"
    )

def alone():
    return latentlab.adapt_model(decoder(), latents=3, image_shape=(1, 8, 8), outputs="logits")

def plain():
    return decoder()

def failing():
    raise RuntimeError("no such layer\\nand more")

def two(a, b):
    pass

ANSWER = 42
"""
PARTS = """
from torch import nn

def decoder():
    return nn.Sequential(
        nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 64), nn.ReLU(), nn.Unflatten(1, (4, 4, 4)),
        nn.ConvTranspose2d(4, 1, 4, 2, 1)
    )

def encoder():
    return nn.Sequential(nn.Conv2d(1, 4, 4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 6))
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch) -> Path:
    """A folder with a module, its checkpoints and its images."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "own"
    (folder / "photos").mkdir(parents=True)
    (folder / "own_model.py").write_text(OWN)
    (folder / "parts.py").write_text(PARTS)
    monkeypatch.delitem(sys.modules, "parts", raising=False)
    chance = torch.Generator().manual_seed(0)
    names = {
        "decoder.0.weight": (16, 3), "decoder.0.bias": (16,), "decoder.2.weight": (64, 16), "decoder.2.bias": (64,),
        "decoder.5.weight": (4, 1, 4, 4), "decoder.5.bias": (1,), "encoder.0.weight": (4, 1, 4, 4),
        "encoder.0.bias": (4,), "encoder.3.weight": (6, 64), "encoder.3.bias": (6,),
    }  # fmt: skip
    weights = {name: torch.randn(shape, generator=chance) * 0.5 for name, shape in names.items()}
    save_file(weights, folder / "vae.safetensors")
    torch.save({"state_dict": weights, "epoch": 3}, folder / "vae.pt")
    rng = np.random.default_rng(0)
    for i in range(12):
        pixels = rng.integers(0, 255, (10, 12, 3), dtype=np.uint8)
        (folder / "photos" / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / "photos" / "ab"[i % 2] / f"{i}.png")
    return folder


@pytest.fixture
def show(own: Path, monkeypatch):
    """Draws a page of the explorer about a run that was brought along."""
    monkeypatch.setenv(server.RUNS_VARIABLE, str(own / "runs"))
    monkeypatch.setattr(server, "BROUGHT", {})

    def draw(run, name: str, **query: str) -> AppTest:
        server.BROUGHT[run.name] = run
        page = AppTest.from_file(str(server.MAIN), default_timeout=180)
        for key, value in {"run": run.name, **query}.items():
            page.query_params[key] = value
        page.run()
        assert "Brought along" in [heading.value for heading in page.subheader]
        page.switch_page(f"views/{name}.py").run()
        assert not page.exception and page.selectbox(key="run").value == run.name
        return page

    return draw


def texts(page: AppTest) -> str:
    return "\n".join(e.value for kind in (page.caption, page.info, page.error, page.markdown) for e in kind)


def bring(own: Path, function: str = "build", **more):
    keywords = {"weights": own / "vae.safetensors"} if function == "build" else {}
    return latentlab.bring(
        f"{own}/own_model.py:{function}", runs=own / "runs", device="cpu", **keywords | more
    )


# ---- Python and weights ------------------------------------------------------------------------------------------


def test_a_module_with_its_weights_becomes_a_run(own):
    """Catches weights that are not the file's, and a digest that does not tell two checkpoints apart."""
    run = bring(own, data=f"folder:{own}/photos")
    saved = read_weights(own / "vae.pt")
    z = torch.tensor([[0.5, -1.0, 0.2]])
    h = torch.relu(z @ saved["decoder.0.weight"].T + saved["decoder.0.bias"])
    h = torch.relu(h @ saved["decoder.2.weight"].T + saved["decoder.2.bias"]).view(1, 4, 4, 4)
    made = torch.nn.functional.conv_transpose2d(h, saved["decoder.5.weight"], saved["decoder.5.bias"], 2, 1)
    assert torch.allclose(run.model.decode(z), torch.sigmoid(made), atol=1e-6)
    assert run.digest == bring(own, weights=own / "vae.pt").digest != bring(own, "alone").digest
    assert is_inference_model(run.model) and not run.model.training
    data = run.dataset()
    assert data.image_shape == (1, 8, 8) and len(data) == 12 and data.categories["folder"] == ("a", "b")
    assert (
        opened(run)
        == f"latentlab.bring('{own}/own_model.py:build', weights='{own}/vae.safetensors', data='folder:{own}/photos')"
    )
    assert not (own / "runs").exists()  # nothing is written by being opened


def test_the_code_shown_beside_a_result_gives_the_same_numbers(own, show):
    """Catches code that opens another model, or none: a brought run is in no folder."""
    run = bring(own, data=f"folder:{own}/photos")
    call = Call(run, "traverse", (np.zeros(3, np.float32),), {"steps": 3})
    spoken: dict = {}
    exec(call.code().split("picture =")[0], spoken)
    assert np.array_equal(spoken["result"].images, call().images)


def test_weights_are_never_run(own, tmp_path):
    """Catches torch.load without weights_only: the payload would write its file."""

    class Payload:
        def __reduce__(self):
            return (Path.write_text, (tmp_path / "owned", "x"))

    for name, content in {
        "evil.pt": lambda path: torch.save({"state_dict": Payload()}, path),
        "evil.bin": lambda path: path.write_bytes(pickle.dumps(Payload())),
        "evil.safetensors": lambda path: path.write_bytes(pickle.dumps(Payload())),
    }.items():
        content(own / name)
        with watching(own, (UNPICKLING,)) as offences, pytest.raises(ValueError, match=r"not loaded|damaged"):
            bring(own, weights=own / name)
        assert not (tmp_path / "owned").exists() and not [o for o in offences if "write_text" in o]


@pytest.mark.parametrize(
    "function, keywords, sentence",
    [
        ("nothing", {}, r"has no function 'nothing'; it has build, alone, plain, failing, two"),
        ("ANSWER", {}, r"has no function 'ANSWER'"),
        ("failing", {}, r"failed in failing\(\), line 20: RuntimeError: no such layer and more"),
        ("two", {}, r"two\(\) in .* takes nothing, or the weights; it has 2 arguments"),
        ("plain", {}, r"gives a Sequential, which is no generative model; wrap it: latentlab.adapt_model"),
        ("build", {"weights": None}, r"build\(\) in .* takes weights; give their file: --weights FILE"),
        ("alone", {"weights": "vae.pt"}, r"alone\(\) in .* takes no weights"),
        ("alone", {"outputs": "unit"}, r"--outputs goes with an ONNX file"),
        (
            "alone",
            {"data": "sprites"},
            r"The model draws images \(1, 8, 8\) .*; those of sprites are \(1, 64, 64\)",
        ),
        ("alone", {"data": "nonsense"}, "nonsense"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(own, function, keywords, sentence):
    with pytest.raises(ValueError, match=sentence) as refused:
        bring(own, function, **keywords)
    assert "\n" not in str(refused.value)


def test_what_is_no_source_is_refused(own):
    for source in ("own_model.py", "own_model:build", "x.pt", f"{own}/own_model.py:a-b", ""):
        with pytest.raises(
            ValueError, match=r"Expected FILE.py:FUNCTION, such as my_model.py:build, or FILE.onnx"
        ):
            latentlab.bring(source)
    for source in ("none.py:build", "none.onnx"):
        with pytest.raises(OSError, match="No file none"):
            latentlab.bring(source)
    torch.save([1, 2], own / "list.pt")
    with pytest.raises(ValueError, match="holds no state dict"):
        bring(own, weights=own / "list.pt")
    save_file({"a": torch.zeros(2)}, own / "other.safetensors")
    with pytest.raises(
        ValueError, match=r"failed in build\(\), line 8: RuntimeError: Error.s. in loading state_dict"
    ):
        bring(own, weights=own / "other.safetensors")


# ---- ONNX --------------------------------------------------------------------------------------------------------


def decoder_file(path: Path, last: str = "Tanh") -> Path:
    """Codes (n, 3) to images (n, 1, 8, 8)."""
    rng = np.random.default_rng(0)
    arrays = {
        "w": rng.standard_normal((64, 3)).astype(np.float32),
        "s": np.array([-1, 4, 4, 4]),
        "k": rng.standard_normal((4, 1, 4, 4)).astype(np.float32) * 0.3,
    }
    nodes = [
        helper.make_node("Gemm", ["z", "w"], ["h"], transB=1),
        helper.make_node("Reshape", ["h", "s"], ["m"]),
        helper.make_node("Relu", ["m"], ["r"]),
        helper.make_node("ConvTranspose", ["r", "k"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node(last, ["c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def test_an_onnx_decoder_is_a_run_whose_layers_open(own):
    """Catches a runtime behind the pages: no stages, no edits, no slopes, so that half of them would refuse."""
    run = latentlab.bring(decoder_file(own / "decoder.onnx"), data=f"folder:{own}/photos", runs=own / "runs")
    assert run.image_shape == (1, 8, 8) and not is_inference_model(run.model)
    z = np.array([[0.3, -1.0, 0.5]], np.float32)
    session = pytest.importorskip("onnxruntime").InferenceSession(str(own / "decoder.onnx"))
    (expected,) = session.run(None, {"z": z})
    assert np.abs(analysis.decode_latents(run.model, z) - (expected + 1) / 2).max() < 1e-5
    ranked = analysis.rank_units(run.model, "generator.relu1", n=8)
    assert len(ranked.order) == 4
    target = analysis.decode_latents(run.model, z)
    found = analysis.invert(run.model, target, steps=200)
    assert found.error[0] < 0.05 * found.error_start[0]  # slopes reach the code


def test_the_range_of_an_onnx_decoder_is_known_or_asked_for(own):
    path = decoder_file(own / "open.onnx", last="Identity")
    with pytest.raises(
        ValueError, match=r"ends with ConvTranspose, which does not tell the range .*--outputs unit, logits"
    ):
        latentlab.bring(path)
    run = latentlab.bring(path, outputs="logits", runs=own / "runs")
    z = torch.zeros(1, 3)
    assert torch.allclose(run.model.decode(z), torch.full((1, 1, 8, 8), 0.5))
    with pytest.raises(ValueError, match="An ONNX file holds its weights"):
        latentlab.bring(path, weights=own / "vae.pt")


# ---- pages -------------------------------------------------------------------------------------------------------


def test_a_brought_model_with_encoder_and_folder_is_on_every_page(own, show):
    run = bring(own, data=f"folder:{own}/photos")
    page = show(run, "traverse")
    assert "of 3 latents are active" in texts(page) or "until some data images are encoded" in texts(page)
    assert not show(run, "layers").error
    assert "no encoder" not in texts(show(run, "map"))
    assert run.name in state.runs() and state.open_run(run.name) is run


def test_a_brought_decoder_says_what_is_missing_and_offers_inversion(own, show):
    """Catches a page that fails for want of an encoder, or that hides why it is empty."""
    run = bring(own, "alone", data=f"folder:{own}/photos")
    assert "looked for by inversion" in texts(show(run, "map"))
    page = show(run, "traverse", start="Image", image="5")
    deadline = 40
    while "nearest that the model draws differs by" not in texts(page) and deadline:
        page.run()
        deadline -= 1
    assert "Image 5; the nearest that the model draws differs by 0." in texts(page)
    assert not page.error and not page.exception


def test_a_brought_decoder_without_images_says_so(own, show):
    run = bring(own, "alone")
    assert "This model was brought without images; give some" in texts(show(run, "traverse"))
    assert "This model was brought without images" in texts(show(run, "scores"))


def test_a_brought_model_is_dragged_live(own):
    """Catches a foreign module whose hooks meet between threads."""
    run = bring(own)
    with served() as port:
        clients = [
            Client(port, engine.registry.open(f"owner {i}", "traverse", run.model).token) for i in range(3)
        ]
        for i, client in enumerate(clients):
            client.control(type="edits", edits=[{"stage": "generator.0", "units": [i]}])
        for _ in range(5):
            for i, client in enumerate(clients):
                z = np.array([0.5, -0.2, 0.1 * i], np.float32)
                edits = [latentlab.Edit("generator.0", (i,))]
                expected = analysis.decode_latents(run.model, z[None], edits=edits)[0, 0]
                assert np.abs(client.image(z)[..., 0] - 255 * expected).max() <= 1
        for client in clients:
            client.close()


# ---- command line ------------------------------------------------------------------------------------------------


def test_the_command_line_brings_a_model(own, monkeypatch, capsys):
    served_with = {}
    monkeypatch.setattr(server, "serve", lambda **keywords: served_with.update(keywords))
    source = f"{own}/own_model.py:build"
    arguments = [
        "--weights",
        str(own / "vae.pt"),
        "--data",
        f"folder:{own}/photos",
        "--runs",
        str(own / "runs"),
    ]
    assert cli.main(["explore", "--adapt", source, *arguments]) == 0
    (run,) = served_with["brought"]
    assert run.name == "brought:own_model" and len(run.dataset()) == 12
    assert cli.main(["explore", "--data", "sprites"]) == 2
    assert "say more about the model of --adapt" in capsys.readouterr().err
    assert cli.main(["explore", "--adapt", f"{own}/own_model.py:failing"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_that_looks_like_a_brought_run_does_not_take_its_place(own, show, planted):
    """Catches a run in the workspace that is opened in place of the one on the command line."""
    run = bring(own)
    server.BROUGHT[run.name] = run
    (own / "runs").mkdir(exist_ok=True)
    (own / "runs" / run.name).symlink_to(planted["alpha"].path)
    assert state.open_run(run.name) is run
    assert f"./{run.name}" in state.runs()
