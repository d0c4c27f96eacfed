"""An ONNX file as a torch module, so that a decoder from elsewhere can be opened, edited and differentiated.

A runtime would draw its pictures too, but has no inside: here each layer of the graph is a submodule, named by its
operator and its number ("conv2", "relu3"), and ``latentlab.adapt_model`` makes stages of them.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latentlab.models.onnx_operators import OPERATORS

# They move numbers about or make shapes: no stages of their own.
_PLUMBING = (
    *(
        "Constant",
        "ConstantOfShape",
        "Shape",
        "Gather",
        "Cast",
        "Slice",
        "Concat",
        "Split",
        "Identity",
        "Dropout",
    ),
    *("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Equal", "Where", "Floor"),
    *("Mod", "Less", "Greater", "And", "Or", "Not", "Tile", "Range"),
)
_LARGEST = 4_000_000_000  # bytes of a file


class OnnxNode(nn.Module):
    """One operator of a graph."""

    def __init__(self, operator: str, attributes: dict[str, Any]) -> None:
        super().__init__()
        self.operator, self.attributes = operator, attributes

    def forward(self, *inputs: Tensor | None) -> Any:
        """The operator's output."""
        return OPERATORS[self.operator](self.attributes, *inputs)


class OnnxGraph(nn.Module):
    """A graph with one input (batch, …) and one output. Read one with ``read_onnx``.

    Attributes:
        input_shape: of the input without the batch; -1 where the file leaves a size open.
        last: the operator that makes the output, such as "Sigmoid".
    """

    def __init__(self, graph: Any, arrays: dict[str, Tensor]) -> None:
        super().__init__()
        constants = {n.output[0]: _attributes(n)["value"] for n in graph.node if n.op_type == "Constant"}
        self._weights = {}
        for i, (name, array) in enumerate({**arrays, **constants}.items()):
            self._weights[name] = f"weight{i}"
            if array.is_floating_point():
                self.register_parameter(f"weight{i}", nn.Parameter(array, requires_grad=False))
            else:
                self.register_buffer(f"weight{i}", array)
        (given,) = [i for i in graph.input if i.name not in arrays]
        self._input, self._output = given.name, graph.output[0].name
        sizes = given.type.tensor_type.shape.dim
        self.input_shape = tuple(size.dim_value or -1 for size in sizes[1:])
        self._steps: list[tuple[str, list[str], list[str]]] = []
        counts: Counter[str] = Counter()
        for node in graph.node:
            if node.op_type == "Constant":
                continue
            counts[node.op_type] += 1
            name = f"{node.op_type.lower()}{counts[node.op_type]}"
            attributes = {**_attributes(node), "outputs": len(node.output)}
            step = type(node.op_type, (OnnxNode,), {})(node.op_type, attributes)  # its kind is shown
            if node.op_type in _PLUMBING:
                object.__setattr__(self, f"_{name}", step)  # no submodule, so no stage
                name = f"_{name}"
            else:
                self.add_module(name, step)
            self._steps.append((name, list(node.input), list(node.output)))
        self.last = next(
            (getattr(self, n).operator for n, _, made in reversed(self._steps) if not n.startswith("_")), ""
        )

    def forward(self, z: Tensor) -> Tensor:
        """The output for inputs (batch, …), which are brought into the shape that the graph expects."""
        if -1 not in self.input_shape:
            z = z.reshape(len(z), *self.input_shape)
        values: dict[str, Any] = {"": None, self._input: z}
        values |= {name: getattr(self, key) for name, key in self._weights.items()}
        for name, inputs, outputs in self._steps:
            made = getattr(self, name)(*(values[i] for i in inputs))
            made = made if isinstance(made, tuple) else (made,)
            values.update(zip(outputs, made, strict=False))
        return values[self._output]


def read_onnx(path: str | Path) -> OnnxGraph:
    """Reads an ONNX file as a torch module. Nothing in the file is executed but the operators that are known here.

    Args:
        path: the file; weights that lie in a file of their own are looked for beside it.

    Raises:
        OSError: if there is no such file, or the package ``onnx`` is missing.
        ValueError: if it is no ONNX file, has several inputs, or needs an operator that is not read.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise OSError("ONNX files need the package onnx: pip install 'latentlab[onnx]'.") from None
    file = Path(path).expanduser()
    if not file.is_file():
        raise OSError(f"No file {file}.")
    if file.stat().st_size > _LARGEST:
        raise ValueError(f"{file} has {file.stat().st_size:,} bytes; at most {_LARGEST:,} are read.")
    try:
        graph = onnx.load(str(file)).graph
    except Exception as error:  # the parser's own kinds, and whatever the file beside it does
        why = " ".join(str(error).split())[:200]
        raise ValueError(f"{file} is damaged or no ONNX file ({type(error).__name__}: {why}).") from None
    arrays = {a.name: _tensor(numpy_helper.to_array(a)) for a in graph.initializer}
    inputs = [i.name for i in graph.input if i.name not in arrays]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise ValueError(
            f"{file} has the inputs {', '.join(inputs) or 'none'} and {len(graph.output)} outputs; "
            "a graph with one input, the code, and one output, the image, can be opened."
        )
    unknown = sorted(
        {n.op_type for n in graph.node if n.op_type not in OPERATORS or n.domain not in ("", "ai.onnx")}
    )
    if unknown:
        raise ValueError(
            f"{file} uses the operator{'s' if len(unknown) > 1 else ''} {', '.join(unknown)}, which "
            "latentlab does not read; bring the model as Python instead (--adapt FILE.py:FUNCTION)."
        )
    return OnnxGraph(graph, arrays).eval()


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import TensorProto, helper, numpy_helper

    found = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        found[attribute.name] = (
            _tensor(numpy_helper.to_array(value)) if isinstance(value, TensorProto) else value
        )
    if node.op_type == "Constant" and "value" not in found:
        name, value = next(iter(found.items()))
        found["value"] = torch.tensor(list(value) if name.endswith("s") else value)
    return found


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(array.copy())
