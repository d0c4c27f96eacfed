"""ONNX files as torch modules: equal to a runtime's answers, operator by operator and whole, open inside, and safe."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from latentlab.models.adapt import adapt_model
from latentlab.models.edits import Edit
from latentlab.models.onnx_graph import read_onnx
from latentlab.models.onnx_operators import OPERATORS

DIM = 4


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed + sum(shape)).standard_normal(shape).astype(np.float32) * 0.4


def saved(
    path: Path, nodes: list, arrays: dict[str, np.ndarray], shape: tuple = ("n", DIM), opset: int = 18
) -> Path:
    """A graph from "z" to "y"."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(path))
    return path


def node(operator: str, *inputs: str, to: str = "y", **attributes) -> onnx.NodeProto:
    return helper.make_node(operator, list(inputs), [to], **attributes)


MAP = ("n", 4, 6, 6)
K = {"w": weights(3, 4, 3, 3), "b": weights(3)}
T = {"w": weights(4, 3, 4, 4), "b": weights(3)}
N = {"s": weights(4, seed=1), "b": weights(4, seed=2), "m": weights(4, seed=3), "v": weights(4, seed=4) ** 2}
WHOLE = np.int64
CASES = {
    "conv": ([node("Conv", "z", "w", "b", pads=[1, 0, 2, 1], strides=[2, 1])], K, MAP),
    "conv-same": ([node("Conv", "z", "w", "b", auto_pad="SAME_UPPER", strides=[2, 2])], K, MAP),
    "conv-groups": ([node("Conv", "z", "w", group=2, dilations=[2, 2])], {"w": weights(4, 2, 2, 2)}, MAP),
    "transposed": ([node("ConvTranspose", "z", "w", "b", pads=[1, 1, 1, 1], strides=[2, 2])], T, MAP),
    "transposed-odd": (
        [node("ConvTranspose", "z", "w", "b", pads=[1, 0, 2, 1], strides=[2, 3], output_padding=[1, 0])],
        T,
        MAP,
    ),
    "gemm": (
        [node("Gemm", "z", "w", "b", transB=1, alpha=0.5, beta=2.0)],
        {"w": weights(3, 4), "b": weights(3)},
        ("n", 4),
    ),
    "batch-norm": ([node("BatchNormalization", "z", "s", "b", "m", "v", epsilon=0.01)], N, MAP),
    "instance-norm": ([node("InstanceNormalization", "z", "s", "b")], N, MAP),
    "layer-norm": (
        [node("LayerNormalization", "z", "s", "b")],
        {"s": weights(6), "b": weights(6, seed=1)},
        MAP,
    ),
    "prelu": ([node("PRelu", "z", "p")], {"p": weights(4, 1, 1)}, MAP),
    "nearest": (
        [node("Resize", "z", "", "f", mode="nearest")],
        {"f": np.array([1, 1, 2, 3], np.float32)},
        MAP,
    ),
    "bilinear": (
        [node("Resize", "z", "", "f", mode="linear")],
        {"f": np.array([1, 1, 2, 2], np.float32)},
        MAP,
    ),
    "corners": (
        [node("Resize", "z", "", "", "f", mode="linear", coordinate_transformation_mode="align_corners")],
        {"f": np.array([2, 4, 9, 11], WHOLE)},
        (2, 4, 6, 6),
    ),
    "pad": (
        [node("Pad", "z", "p", "c")],
        {"p": np.array([0, 1, 2, 0, 0, 0, 1, 3], WHOLE), "c": np.float32(0.5)},
        MAP,
    ),
    "reflect": (
        [node("Pad", "z", "p", mode="reflect")],
        {"p": np.array([0, 0, 2, 1, 0, 0, 1, 3], WHOLE)},
        MAP,
    ),
    "depth-dcr": ([node("DepthToSpace", "z", blocksize=2)], {}, ("n", 8, 3, 3)),
    "depth-crd": ([node("DepthToSpace", "z", blocksize=2, mode="CRD")], {}, ("n", 8, 3, 3)),
    "mean-pool": ([node("AveragePool", "z", kernel_shape=[2, 2], strides=[2, 2])], {}, MAP),
    "max-pool": ([node("MaxPool", "z", kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])], {}, MAP),
    "global-pool": ([node("GlobalAveragePool", "z")], {}, MAP),
    "reduce": ([node("ReduceMean", "z", "a", keepdims=0)], {"a": np.array([2, 3], WHOLE)}, MAP),
    "reshape": ([node("Reshape", "z", "s")], {"s": np.array([0, 2, -1], WHOLE)}, MAP),
    "transpose": ([node("Transpose", "z", perm=[0, 2, 3, 1])], {}, MAP),
    "slice": (
        [node("Slice", "z", "a", "e", "x", "t")],
        {
            "a": np.array([1, 0], WHOLE),
            "e": np.array([99, -1], WHOLE),
            "x": np.array([1, -1], WHOLE),
            "t": np.array([2, 1], WHOLE),
        },
        MAP,
    ),
    "gather": ([node("Gather", "z", "i", axis=1)], {"i": np.array([[0, -1], [2, 2]], WHOLE)}, MAP),
    "split": (
        [helper.make_node("Split", ["z", "s"], ["p", "q"], axis=1), node("Concat", "q", "p", axis=1)],
        {"s": np.array([1, 3], WHOLE)},
        MAP,
    ),
    "shape": (
        [
            node("Shape", "z", to="s", start=0, end=2),
            node("Concat", "s", "r", to="t", axis=0),
            node("Reshape", "z", "t", to="u"),
            node("Unsqueeze", "u", "o", to="v"),
            node("Squeeze", "v", "o"),
        ],
        {"r": np.array([36], WHOLE), "o": np.array([1], WHOLE)},
        MAP,
    ),
    "expand": ([node("Expand", "z", "s")], {"s": np.array([3, 1, 4], WHOLE)}, ("n", 4)),
    "tile": ([node("Tile", "z", "s")], {"s": np.array([1, 3], WHOLE)}, ("n", 4)),
    "clip": ([node("Clip", "z", "l", "h")], {"l": np.float32(-0.2), "h": np.float32(0.3)}, ("n", 4)),
    "softmax": ([node("Softmax", "z", axis=1)], {}, MAP),
    "gelu": ([node("Gelu", "z", approximate="tanh")], {}, ("n", 4), 20),
    "group-norm": (
        [node("GroupNormalization", "z", "s", "b", num_groups=2)],
        {k: N[k] for k in "sb"},
        MAP,
        21,
    ),
    **{
        name: ([node(name, "z")], {}, ("n", 4))
        for name in (
            "Relu",
            "LeakyRelu",
            "Elu",
            "Selu",
            "Sigmoid",
            "HardSigmoid",
            "HardSwish",
            "Softplus",
            "Tanh",
        )
    },
    **{
        name: ([node(name, "z")], {}, ("n", 4)) for name in ("Erf", "Exp", "Neg", "Abs", "Sin", "Cos", "Mish")
    },
    **{
        name: ([node(name, "z", "c")], {"c": weights(4) ** 2 + 1}, ("n", 4))
        for name in ("Add", "Sub", "Mul", "Div")
    },
}


@pytest.mark.parametrize("name", CASES)
def test_each_operator_computes_what_the_standard_says(name, tmp_path):
    """Catches an option that is passed over: pads on one side, the order of channels, the edges of a resize."""
    nodes, arrays, shape, *opset = CASES[name]
    path = saved(tmp_path / "g.onnx", nodes, arrays, shape, *opset)
    z = weights(2, *shape[1:], seed=9)
    (expected,) = ReferenceEvaluator(str(path)).run(None, {"z": z})
    with torch.no_grad():
        made = read_onnx(path)(torch.from_numpy(z)).numpy()
    assert made.shape == expected.shape
    assert np.abs(made - expected).max() < 2e-5


def test_the_cases_see_a_wrong_order_of_channels(tmp_path, monkeypatch):
    """The fake: one mode of DepthToSpace for both."""
    monkeypatch.setitem(OPERATORS, "DepthToSpace", lambda a, x: torch.pixel_shuffle(x, 2))
    test_each_operator_computes_what_the_standard_says("depth-crd", tmp_path)
    with pytest.raises(AssertionError):
        test_each_operator_computes_what_the_standard_says("depth-dcr", tmp_path)


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    """A small decoder with 8 units in "relu1", exported for a batch of one."""
    nodes = [
        node("Gemm", "z", "w", "b", to="h", transB=1),
        node("Reshape", "h", "s", to="m"),
        node("Relu", "m", to="r"),
        node("ConvTranspose", "r", "k", to="c", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Sigmoid", "c"),
    ]
    arrays = {
        "w": weights(8 * 16, DIM),
        "b": weights(8 * 16),
        "s": np.array([1, 8, 4, 4], WHOLE),
        "k": weights(8, 1, 4, 4),
    }
    return saved(tmp_path / "decoder.onnx", nodes, arrays, (1, DIM))


def test_a_graph_has_stages_that_can_be_edited_and_differentiated(decoder):
    """Catches a runtime behind the decoder: it draws, but has no inside and no slopes."""
    graph = read_onnx(decoder)
    model = adapt_model(graph, latents=DIM, image_shape=(1, 8, 8))
    assert model.generator.names == ("gemm1", "relu1", "convtranspose1", "sigmoid1")
    assert model.generator.kinds()["convtranspose1"] == "ConvTranspose"
    z = torch.from_numpy(weights(3, DIM))
    plain = model.decode(z)
    (expected,) = ReferenceEvaluator(str(decoder)).run(None, {"z": z[1:2].numpy()})
    assert np.abs(plain[1:2].numpy() - expected).max() < 1e-6  # a batch, though it was exported for one
    without = model.decode(z, edits=[Edit("generator.relu1", tuple(range(8)))])
    assert torch.allclose(without, torch.full_like(without, 0.5))
    z.requires_grad_(True)
    slope = torch.autograd.grad(model.decode(z).sum(), z)[0]
    assert torch.isfinite(slope).all() and slope.abs().max() > 0
    assert len(model.state_dict()) == 4  # all numbers of the file are in the digest


def test_what_can_not_be_read_is_refused_in_a_sentence(decoder, tmp_path):
    with pytest.raises(OSError, match=r"^No file .*nothing\.onnx\.$"):
        read_onnx(tmp_path / "nothing.onnx")
    for content in (b"", b"not onnx at all", pickle.dumps({"a": 1}), decoder.read_bytes()[:200]):
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(ValueError, match=r"is damaged or no ONNX file|inputs|operator"):
            read_onnx(tmp_path / "bad.onnx")
    path = saved(tmp_path / "loop.onnx", [node("Det", "z")], {})
    with pytest.raises(
        ValueError, match=r"uses the operator Det, which latentlab does not read; bring the model as Python"
    ):
        read_onnx(path)
    graph = helper.make_graph(
        [node("Add", "z", "u")],
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4]) for n in "zu"],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    onnx.save(helper.make_model(graph, ir_version=9), str(tmp_path / "two.onnx"))
    with pytest.raises(ValueError, match="has the inputs z, u and 1 outputs; a graph with one input"):
        read_onnx(tmp_path / "two.onnx")


def test_weights_beside_the_file_do_not_lead_out_of_its_folder(tmp_path):
    """Catches a graph whose weights are any file of the machine."""
    (tmp_path / "secret").write_bytes(weights(DIM, DIM).tobytes())
    inside = tmp_path / "inside"
    inside.mkdir()
    path = saved(inside / "g.onnx", [node("MatMul", "z", "w")], {"w": weights(DIM, DIM)})
    model = onnx.load(str(path))
    (array,) = model.graph.initializer
    array.ClearField("raw_data")
    array.data_location = TensorProto.EXTERNAL
    array.external_data.add(key="location", value="../secret")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="damaged or no ONNX file"):
        read_onnx(path)
