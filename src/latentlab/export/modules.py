"""Modules: which layers the browser engine knows, and the steps of each. A layer is known by its exact class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn

from latentlab.export.layers import Layers
from latentlab.export.program import Value
from latentlab.models.ladder import Join, Mix, Part
from latentlab.models.networks import Residual
from latentlab.models.style_networks import (
    _GAIN,
    EqualConv2d,
    EqualLinear,
    ModulatedConv2d,
    PixelNorm,
    StyledConvolution,
    ToImage,
    _Constant,
)
from latentlab.models.vq import Lookup


def lower_module(layers: Layers, module: nn.Module, *given: Value) -> Value:
    """Adds the steps of one module; returns what it gives.

    Raises:
        ValueError: if the engine does not know the module, or not with these settings.
    """
    found = MODULES.get(type(module))  # a subclass may run otherwise
    if found is None:
        known = ", ".join(sorted({kind.__name__.lstrip("_") for kind in MODULES}))
        raise ValueError(f"the engine knows no {type(module).__name__}; it knows {known}.")
    return found(layers, module, *given)


def _array(tensor: Tensor, factor: float = 1.0) -> np.ndarray:
    return (tensor.detach() * factor).cpu().float().numpy()


def _numbers(tensor: Tensor | None) -> np.ndarray | None:
    return None if tensor is None else _array(tensor)


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _sequential(layers: Layers, module: nn.Sequential, h: Value) -> Value:
    for child in module:
        h = lower_module(layers, child, h)
    return h


def _linear(layers: Layers, module: nn.Linear, h: Value) -> Value:
    return layers.linear(h, _array(module.weight), _numbers(module.bias))


def _zeros_only(module: nn.Conv2d | nn.ConvTranspose2d) -> None:
    if module.padding_mode != "zeros":
        raise ValueError(f"padding mode {module.padding_mode!r} is not 'zeros'.")


def _conv(layers: Layers, module: nn.Conv2d, h: Value) -> Value:
    _zeros_only(module)
    if isinstance(module.padding, str):
        same = module.padding == "same"
        tall, broad = (
            d * (k - 1) if same else 0 for d, k in zip(module.dilation, module.kernel_size, strict=True)
        )
        padding = (tall // 2, broad // 2, tall - tall // 2, broad - broad // 2)
    else:
        y, x = _pair(module.padding)
        padding = (y, x, y, x)
    weight = _ungrouped(_array(module.weight), module.groups)
    return layers.conv(
        h, weight, _numbers(module.bias), _pair(module.stride), padding, _pair(module.dilation)
    )


def _ungrouped(weight: np.ndarray, groups: int) -> np.ndarray:
    """Weights (out, in / groups, …) as (out, in, …), zero between the groups."""
    if groups == 1:
        return weight
    each, inputs = weight.shape[0] // groups, weight.shape[1]
    full = np.zeros((weight.shape[0], inputs * groups, *weight.shape[2:]), np.float32)
    for g in range(groups):
        full[g * each : (g + 1) * each, g * inputs : (g + 1) * inputs] = weight[g * each : (g + 1) * each]
    return full


def _conv_transpose(layers: Layers, module: nn.ConvTranspose2d, h: Value) -> Value:
    _zeros_only(module)
    if module.groups != 1:
        raise ValueError(f"a transposed convolution of {module.groups} groups is not known.")
    return layers.conv_transpose(
        h,
        _array(module.weight).transpose(1, 0, 2, 3),
        _numbers(module.bias),
        _pair(module.stride),
        _pair(module.padding),
        _pair(module.output_padding),
        _pair(module.dilation),
    )


def _batch_norm(layers: Layers, module: nn.BatchNorm1d | nn.BatchNorm2d, h: Value) -> Value:
    if module.running_mean is None or module.running_var is None:
        raise ValueError("a batch norm without running statistics depends on the batch.")
    mean, var = _array(module.running_mean).astype(np.float64), _array(module.running_var).astype(np.float64)
    scale = 1.0 / np.sqrt(var + module.eps)
    if module.affine:
        scale = scale * _array(module.weight)
    shift = -mean * scale + (_array(module.bias) if module.affine else 0.0)
    return layers.affine(h, scale, shift)


def _group_norm(layers: Layers, module: nn.GroupNorm, h: Value) -> Value:
    h = layers.group_norm(h, module.num_groups, module.eps)
    return layers.affine(h, _array(module.weight), _array(module.bias)) if module.affine else h


def _activation(name: str) -> Callable[[Layers, nn.Module, Value], Value]:
    return lambda layers, module, h: layers.activation(h, name)


def _leaky_relu(layers: Layers, module: nn.LeakyReLU, h: Value) -> Value:
    return layers.activation(h, "leaky_relu", module.negative_slope)


def _same(layers: Layers, module: nn.Module, h: Value) -> Value:
    return h


def _flatten(layers: Layers, module: nn.Flatten, h: Value) -> Value:
    if module.start_dim != 1 or module.end_dim not in (-1, len(h.shape)):
        raise ValueError("a Flatten must flatten all of a sample.")
    return layers.flatten(h)


def _unflatten(layers: Layers, module: nn.Unflatten, h: Value) -> Value:
    shape = tuple(int(n) for n in module.unflattened_size)
    if module.dim != 1 or len(shape) != 3 or len(h.shape) != 1:
        raise ValueError("an Unflatten must make a map (channels, height, width) of a flat state.")
    return layers.unflatten(h, shape)


def _upsample(layers: Layers, module: nn.Upsample, h: Value) -> Value:
    if module.mode not in ("nearest", "bilinear") or module.align_corners:
        raise ValueError("an Upsample must be nearest, or bilinear without aligned corners.")
    if module.size is not None:
        return layers.resize(h, _pair(module.size), module.mode)
    factors = module.scale_factor
    assert factors is not None
    pair = factors if isinstance(factors, tuple) else (factors, factors)
    if any(f != int(f) for f in pair):
        raise ValueError(f"an Upsample's factor must be whole; got {factors}.")
    return layers.resize(h, (h.shape[1] * int(pair[0]), h.shape[2] * int(pair[1])), module.mode)


def _residual(layers: Layers, module: Residual, h: Value) -> Value:
    h = h.shared
    inner = lower_module(layers, module.relu1, lower_module(layers, module.conv1, h))
    return lower_module(layers, module.relu2, layers.add(h, lower_module(layers, module.conv2, inner)))


def _part(layers: Layers, module: Part, z: Value) -> Value:
    return Value(z.at + module.start, (module.stop - module.start,))


def _join(layers: Layers, module: Join, *states: Value) -> Value:
    return layers.join(*states)


def _mix(layers: Layers, module: Mix, above: Value, level: Value) -> Value:
    return lower_module(layers, module.relu, lower_module(layers, module.conv, layers.join(above, level)))


def _lookup(layers: Layers, module: Lookup, z: Value) -> Value:
    return layers.lookup(z, _array(module.weight), module.grid)


# -- style-based generators ------------------------------------------------------------------------------------------


def _equal_linear(layers: Layers, module: EqualLinear, h: Value) -> Value:
    return layers.linear(h, _array(module.weight, module.scale), _array(module.bias, module.rate))


def _equal_conv(layers: Layers, module: EqualConv2d, h: Value) -> Value:
    p = module.padding
    return layers.conv(
        h, _array(module.weight, module.scale), _numbers(module.bias), (1, 1), (p, p, p, p), (1, 1)
    )


def _pixel_norm(layers: Layers, module: PixelNorm, z: Value) -> Value:
    return layers.pixel_norm(z, 1e-8)


def _constant(layers: Layers, module: _Constant, given: Value) -> Value:
    value = _array(module.value)[0]
    at = layers.program.constant(value.transpose(1, 2, 0))
    return Value(at, value.shape)


def _modulated(layers: Layers, module: ModulatedConv2d, h: Value, scales: Value) -> Value:
    weight, p = _array(module.weight, module.scale), module.padding
    h = layers.conv(layers.scale_by(h, scales), weight, None, (1, 1), (p, p, p, p), (1, 1))
    if not module.demodulate:
        return h
    squares = np.square(weight.astype(np.float64)).sum(axis=(2, 3))
    lengths = layers.linear(
        layers.activation(scales, "square"), squares, np.full(len(squares), 1e-8), kernel=False
    )
    return layers.scale_by(h, layers.activation(lengths, "rsqrt"))


def _style(layers: Layers, module: StyledConvolution | ToImage, given: Value) -> Value:
    where = module.where
    own = Value(given.at + where.start, (where.stop - where.start,))
    return lower_module(layers, module.style, own).shared


def _styled_convolution(layers: Layers, module: StyledConvolution, h: Value, given: Value) -> Value:
    scales = _style(layers, module, given)
    h = _modulated(layers, module.convolution, lower_module(layers, module.enlarge, h), scales)
    h = layers.add_map(h, _array(module.noise.fixed * module.noise.strength)[0, 0])
    h = lower_module(layers, module.activation, layers.affine(h, None, _array(module.bias)))
    return layers.activation(h, "scale", _GAIN)


def _to_image(layers: Layers, module: ToImage, h: Value, given: Value, smaller: Value | None = None) -> Value:
    image = _modulated(layers, module.convolution, h, _style(layers, module, given))
    image = layers.affine(image, None, _array(module.bias))
    return image if smaller is None else layers.add(image, lower_module(layers, module.enlarge, smaller))


MODULES: dict[type[nn.Module], Callable[..., Value]] = {
    nn.Sequential: _sequential,
    nn.Linear: _linear,
    nn.Conv2d: _conv,
    nn.ConvTranspose2d: _conv_transpose,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.GroupNorm: _group_norm,
    nn.ReLU: _activation("relu"),
    nn.LeakyReLU: _leaky_relu,
    nn.SiLU: _activation("silu"),
    nn.Sigmoid: _activation("sigmoid"),
    nn.Tanh: _activation("tanh"),
    nn.Identity: _same,
    nn.Dropout: _same,
    nn.Dropout2d: _same,
    nn.Flatten: _flatten,
    nn.Unflatten: _unflatten,
    nn.Upsample: _upsample,
    Residual: _residual,
    Part: _part,
    Join: _join,
    Mix: _mix,
    Lookup: _lookup,
    EqualLinear: _equal_linear,
    EqualConv2d: _equal_conv,
    PixelNorm: _pixel_norm,
    _Constant: _constant,
    StyledConvolution: _styled_convolution,
    ToImage: _to_image,
}
"""What the engine knows: {module class: its steps}."""
