"""What the operators of an ONNX graph compute, in torch: those that decoders and encoders of images are made of.

Each takes the node's attributes and its inputs in order (None where one is left out), and can be differentiated. What
an operator's options ask for and is not computed here raises ValueError with a sentence.

References:
    Open Neural Network Exchange, operator schemas, https://onnx.ai/onnx/operators/
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Attributes = dict[str, Any]
_TYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}


def conv(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolution of 1 to 3 spatial dimensions."""
    n = x.ndim - 2
    strides, dilations = a.get("strides", [1] * n), a.get("dilations", [1] * n)
    pads = list(a.get("pads", [0] * 2 * n))
    same = a.get("auto_pad", b"NOTSET")
    if same in (b"SAME_UPPER", b"SAME_LOWER"):
        for i, size in enumerate(x.shape[2:]):
            reach = (weight.shape[2 + i] - 1) * dilations[i] + 1
            total = max(0, (math.ceil(size / strides[i]) - 1) * strides[i] + reach - size)
            small = total // 2
            first = small if same == b"SAME_UPPER" else total - small
            pads[i], pads[n + i] = first, total - first
    x = F.pad(x, [p for i in reversed(range(n)) for p in (pads[i], pads[n + i])]) if any(pads) else x
    apply = (F.conv1d, F.conv2d, F.conv3d)[n - 1]
    return apply(x, weight, bias, strides, 0, dilations, a.get("group", 1))


def conv_transpose(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Transposed convolution of 1 to 3 spatial dimensions."""
    n = x.ndim - 2
    if "output_shape" in a or a.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise ValueError("A ConvTranspose that is given its output's shape is not read; export it with pads.")
    pads = a.get("pads", [0] * 2 * n)
    apply = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[n - 1]
    strides, extra = a.get("strides", [1] * n), a.get("output_padding", [0] * n)
    made = apply(x, weight, bias, strides, 0, extra, a.get("group", 1), a.get("dilations", [1] * n))
    for i in range(n):
        made = made.narrow(2 + i, pads[i], made.shape[2 + i] - pads[i] - pads[n + i])
    return made


def gemm(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A fully connected layer."""
    left = x.T if a.get("transA", 0) else x
    right = weight.T if a.get("transB", 0) else weight
    made = a.get("alpha", 1.0) * (left @ right)
    return made if bias is None else made + a.get("beta", 1.0) * bias


def batch_norm(a: Attributes, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """Batch normalisation by the kept statistics."""
    return F.batch_norm(x, mean, var, scale, bias, eps=a.get("epsilon", 1e-5))


def group_norm(a: Attributes, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Group normalisation; older graphs scale groups, newer ones channels."""
    groups, channels = a["num_groups"], x.shape[1]
    if scale.numel() != channels:
        scale, bias = (t.repeat_interleave(channels // groups) for t in (scale, bias))
    return F.group_norm(x, groups, scale, bias, a.get("epsilon", 1e-5))


def layer_norm(a: Attributes, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """Layer normalisation over the last dimensions."""
    return F.layer_norm(x, x.shape[a.get("axis", -1) :], scale, bias, a.get("epsilon", 1e-5))


def resize(
    a: Attributes,
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """Enlarges or shrinks the map."""
    if sizes is not None and sizes.numel():
        size = [int(s) for s in sizes.tolist()[-(x.ndim - 2) :]]
    elif scales is not None and scales.numel():
        size = [math.floor(s * f) for s, f in zip(x.shape[2:], scales.tolist()[-(x.ndim - 2) :], strict=True)]
    else:
        raise ValueError("A Resize without scales and sizes is not read.")
    mode = a.get("mode", b"nearest").decode()
    place = a.get("coordinate_transformation_mode", b"half_pixel").decode()
    whole = all(s % old == 0 for s, old in zip(size, x.shape[2:], strict=True))
    if mode == "nearest" and (whole or (place == "asymmetric" and a.get("nearest_mode") == b"floor")):
        return F.interpolate(x, size=size, mode="nearest")
    plain = place in ("half_pixel", "pytorch_half_pixel", "align_corners") and not a.get("antialias", 0)
    cubic = mode == "cubic" and a.get("cubic_coeff_a", -0.75) == -0.75
    if plain and (mode == "linear" or cubic) and x.ndim == 4:
        return F.interpolate(
            x, size=size, mode="bicubic" if cubic else "bilinear", align_corners=place == "align_corners"
        )
    raise ValueError(f"A Resize of mode {mode!r} with {place!r} coordinates is not read.")


def pad(
    a: Attributes,
    x: Tensor,
    pads: Tensor | None = None,
    value: Tensor | None = None,
    axes: Tensor | None = None,
) -> Tensor:
    """Pads any dimensions."""
    amounts = list(a["pads"]) if pads is None else [int(p) for p in pads.tolist()]
    along = range(x.ndim) if axes is None else [int(i) % x.ndim for i in axes.tolist()]
    by_axis = {axis: (amounts[i], amounts[len(amounts) // 2 + i]) for i, axis in enumerate(along)}
    ordered = [p for axis in reversed(range(x.ndim)) for p in by_axis.get(axis, (0, 0))]
    mode = a.get("mode", b"constant").decode()
    if mode == "constant":
        return F.pad(x, ordered, value=a.get("value", 0.0) if value is None else float(value))
    if mode not in ("reflect", "edge") or any(ordered[2 * (x.ndim - 2) :]):
        raise ValueError(f"A Pad of mode {mode!r} over these dimensions is not read.")
    return F.pad(x, ordered[: 2 * (x.ndim - 2)], mode="replicate" if mode == "edge" else "reflect")


def depth_to_space(a: Attributes, x: Tensor) -> Tensor:
    """Channels to blocks of pixels."""
    side = a["blocksize"]
    if a.get("mode", b"DCR") == b"CRD":
        return F.pixel_shuffle(x, side)
    batch, channels, height, width = x.shape
    parts = x.reshape(batch, side, side, channels // side**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(batch, channels // side**2, height * side, width * side)


def pool(a: Attributes, x: Tensor, largest: bool) -> Tensor:
    """Mean or maximum over windows of a map."""
    n = x.ndim - 2
    size, strides, pads = a["kernel_shape"], a.get("strides", [1] * n), a.get("pads", [0] * 2 * n)
    plain = n == 2 and pads[:n] == pads[n:] and a.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
    if not plain or any(d != 1 for d in a.get("dilations", [])):
        raise ValueError("Only pooling of plain windows, padded alike on all sides, is read.")
    ceil = bool(a.get("ceil_mode", 0))
    if largest:
        return F.max_pool2d(x, size, strides, pads[:n], ceil_mode=ceil)
    return F.avg_pool2d(x, size, strides, pads[:n], ceil, bool(a.get("count_include_pad", 0)))


def reshape(a: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    """Another shape; 0 keeps a size, -1 is what is left."""
    sizes = [int(s) for s in shape.tolist()]
    if not a.get("allowzero", 0):
        sizes = [x.shape[i] if s == 0 else s for i, s in enumerate(sizes)]
    if -1 not in sizes and math.prod(sizes) != x.numel() and sizes and sizes[0] == 1:
        sizes[0] = -1  # exported for a batch of one
    return x.reshape(sizes)


def slices(
    a: Attributes,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    """A part of a tensor."""
    first = list(a["starts"]) if starts is None else starts.tolist()
    last = list(a["ends"]) if ends is None else ends.tolist()
    along = a.get("axes", range(len(first))) if axes is None else axes.tolist()
    stride = [1] * len(first) if steps is None else steps.tolist()
    if any(s < 1 for s in stride):
        raise ValueError("A Slice that goes backwards is not read.")
    index = [slice(None)] * x.ndim
    for begin, end, axis, step in zip(first, last, along, stride, strict=True):
        index[axis] = slice(begin, end, step)
    return x[tuple(index)]


def split(a: Attributes, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    """Parts of a tensor along a dimension."""
    axis = a.get("axis", 0)
    given = list(a["split"]) if "split" in a else None if sizes is None else sizes.tolist()
    if given is None:
        given = math.ceil(x.shape[axis] / a.get("num_outputs", a["outputs"]))
    return torch.split(x, given, axis)


def squeeze(a: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Drops dimensions of size one."""
    found = _axes(a, axes)
    return x.squeeze() if found is None else x.squeeze(tuple(found))


def unsqueeze(a: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Puts dimensions of size one in."""
    places = _axes(a, axes) or []
    rank = x.ndim + len(places)
    for axis in sorted(i % rank for i in places):
        x = x.unsqueeze(axis)
    return x


def reduce(apply: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A mean, sum or the like over dimensions."""

    def over(a: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
        found = _axes(a, axes)
        if found is None and a.get("noop_with_empty_axes", 0):
            return x
        return apply(x, dim=tuple(found or range(x.ndim)), keepdim=bool(a.get("keepdims", 1)))

    return over


def clip(a: Attributes, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Values between two ends."""
    low = a.get("min") if low is None else low
    high = a.get("max") if high is None else high
    return x if low is None and high is None else torch.clamp(x, low, high)


def gather(a: Attributes, x: Tensor, index: Tensor) -> Tensor:
    """Entries along a dimension."""
    axis = a.get("axis", 0) % x.ndim
    where = torch.where(index < 0, index + x.shape[axis], index).long()
    shape = [*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]]
    return x.index_select(axis, where.reshape(-1)).reshape(shape)


def softmax(a: Attributes, x: Tensor) -> Tensor:
    """Shares along a dimension."""
    return torch.softmax(x, a.get("axis", -1))


def cast(a: Attributes, x: Tensor) -> Tensor:
    """Another type of number."""
    if a["to"] not in _TYPES:
        raise ValueError(f"A Cast to ONNX's type {a['to']} is not read.")
    return x.to(_TYPES[a["to"]])


def expand(a: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    """Repeats along dimensions of size one."""
    return x.expand(torch.broadcast_shapes(x.shape, [int(s) for s in shape.tolist()]))


def constant_of_shape(a: Attributes, shape: Tensor) -> Tensor:
    """One value everywhere."""
    value = a.get("value", torch.zeros(1))
    return value.reshape(()).expand([int(s) for s in shape.tolist()])


def instance_norm(a: Attributes, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Each sample's channels, normalised by themselves."""
    return F.instance_norm(x, weight=scale, bias=bias, eps=a.get("epsilon", 1e-5))


def gelu(a: Attributes, x: Tensor) -> Tensor:
    """The Gaussian error linear unit."""
    return F.gelu(x, approximate=a.get("approximate", b"none").decode())


def prelu(a: Attributes, x: Tensor, slope: Tensor) -> Tensor:
    """A rectifier with learned slopes."""
    return torch.where(x < 0, slope * x, x)


def _axes(a: Attributes, axes: Tensor | None) -> Sequence[int] | None:
    return a.get("axes") if axes is None else [int(i) for i in axes.tolist()]


def _one(apply: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda a, x: apply(x)


def _two(apply: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda a, x, y: apply(x, y)


def _divide(x: Tensor, y: Tensor) -> Tensor:
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


OPERATORS: dict[str, Callable[..., Any]] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "MatMul": _two(torch.matmul),
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "GroupNormalization": group_norm,
    "LayerNormalization": layer_norm,
    "Relu": _one(torch.relu),
    "LeakyRelu": lambda a, x: F.leaky_relu(x, a.get("alpha", 0.01)),
    "PRelu": prelu,
    "Elu": lambda a, x: F.elu(x, a.get("alpha", 1.0)),
    "Selu": _one(F.selu),
    "Gelu": gelu,
    "Sigmoid": _one(torch.sigmoid),
    "HardSigmoid": lambda a, x: (a.get("alpha", 0.2) * x + a.get("beta", 0.5)).clamp(0.0, 1.0),
    "HardSwish": _one(F.hardswish),
    "Swish": lambda a, x: x * torch.sigmoid(a.get("alpha", 1.0) * x),
    "Mish": _one(F.mish),
    "Softplus": _one(F.softplus),
    "Softmax": softmax,
    "Tanh": _one(torch.tanh),
    "Erf": _one(torch.erf),
    "Exp": _one(torch.exp),
    "Log": _one(torch.log),
    "Sqrt": _one(torch.sqrt),
    "Reciprocal": _one(torch.reciprocal),
    "Neg": _one(torch.neg),
    "Abs": _one(torch.abs),
    "Sin": _one(torch.sin),
    "Cos": _one(torch.cos),
    "Floor": _one(torch.floor),
    "Add": _two(torch.add),
    "Sub": _two(torch.sub),
    "Mul": _two(torch.mul),
    "Div": _two(_divide),
    "Pow": _two(torch.pow),
    "Mod": lambda a, x, y: torch.fmod(x, y) if a.get("fmod", 0) else torch.remainder(x, y),
    "Max": lambda a, *parts: functools.reduce(torch.maximum, parts),
    "Min": lambda a, *parts: functools.reduce(torch.minimum, parts),
    "Equal": _two(torch.eq),
    "Less": _two(torch.lt),
    "Greater": _two(torch.gt),
    "And": _two(torch.logical_and),
    "Or": _two(torch.logical_or),
    "Not": _one(torch.logical_not),
    "Where": lambda a, condition, x, y: torch.where(condition, x, y),
    "Clip": clip,
    "Resize": resize,
    "Upsample": lambda a, x, scales=None: resize(
        {**a, "coordinate_transformation_mode": b"asymmetric", "nearest_mode": b"floor"}, x, None, scales
    ),
    "Pad": pad,
    "DepthToSpace": depth_to_space,
    "AveragePool": lambda a, x: pool(a, x, largest=False),
    "MaxPool": lambda a, x: pool(a, x, largest=True),
    "GlobalAveragePool": lambda a, x: x.mean(tuple(range(2, x.ndim)), keepdim=True),
    "ReduceMean": reduce(torch.mean),
    "ReduceSum": reduce(torch.sum),
    "ReduceL2": reduce(torch.linalg.vector_norm),
    "Reshape": reshape,
    "Flatten": lambda a, x: x.reshape(math.prod(x.shape[: a.get("axis", 1)]), -1),
    "Transpose": lambda a, x: x.permute(*a.get("perm", reversed(range(x.ndim)))),
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Concat": lambda a, *parts: torch.cat(parts, a["axis"]),
    "Split": split,
    "Slice": slices,
    "Gather": gather,
    "Expand": expand,
    "Tile": lambda a, x, times: x.repeat([int(n) for n in times.tolist()]),
    "Range": lambda a, start, end, step: torch.arange(start.item(), end.item(), step.item()).to(start.dtype),
    "Cast": cast,
    "Shape": lambda a, x: torch.tensor(x.shape[a.get("start", 0) : a.get("end")]),
    "Constant": lambda a: a["value"],
    "ConstantOfShape": constant_of_shape,
    "Identity": _one(lambda x: x),
    "Dropout": lambda a, x, *_: x,
}
"""What each operator that is read computes, by ONNX's name."""
