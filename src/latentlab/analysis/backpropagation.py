"""Back-propagation through a network with one changed rule, and the pixels that a unit can depend on.

A forward pass runs on a tensor that notices every operation applied to what depends on the images. Rectifiers and
max-pooling then get a backward pass of their own, linear operations keep theirs (so that biases and shifts drop out),
and whatever is neither is refused by name. No hooks and no change of the module: it holds for every graph, for
modules used twice and for functional rectifiers, and in many threads at once.

Symbols: a *switch* is the place of the largest value in a window of max-pooling.

Internal to this package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from latentlab.analysis.subject import Subject

RULES = ("deconvnet", "guided", "gradient")

_READS = {"dim", "size", "numel", "stride", "is_floating_point", "is_contiguous", "__len__", "ndimension"}
_ATTRIBUTES = {
    "shape",
    "ndim",
    "dtype",
    "device",
    "layout",
    "is_cuda",
    "requires_grad",
    "is_leaf",
    "itemsize",
}
_CONSTANTS = {
    "zeros_like",
    "ones_like",
    "full_like",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
    "new_tensor",
}
_SHAPES = {
    "flatten", "unflatten", "view", "reshape", "permute", "transpose", "movedim", "squeeze", "unsqueeze", "expand",
    "contiguous", "clone", "__getitem__", "chunk", "split", "narrow", "select", "index_select", "repeat", "flip",
    "roll", "float", "double", "to", "pad", "unfold", "fold", "pixel_shuffle", "pixel_unshuffle", "T", "mT",
}  # fmt: skip
_AVERAGES = {"avg_pool2d", "adaptive_avg_pool2d", "mean", "sum", "interpolate", "upsample"}
_WEIGHTED = {
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear", "matmul",
    "__matmul__", "__rmatmul__", "mm", "einsum", "mul", "multiply", "__mul__", "__rmul__", "div", "divide",
    "true_divide", "__truediv__",
}  # fmt: skip
_SUMS = {"add", "__add__", "__radd__", "add_", "__iadd__", "cat", "concat", "concatenate", "stack"}
_DIFFERENCES = {"sub", "subtract", "__sub__", "__rsub__", "rsub", "neg", "__neg__"}


@dataclass
class Walk:
    """One pass through a network: the rule of its rectifiers, and what was met on the way.

    Args:
        rule: one of RULES, or "field", under which everything passes that could depend on a pixel.
        given: switches (n, channels, height, width) to unpool with instead of the pass's own, pool by pool.

    Attributes:
        pools: each pool's input, output, switches and arguments, in running order.
        slopes: slopes of the rectifiers below 0, in running order.
        passed: None, or a list that takes what passes back from now on: each time about what (a rectifier's input and
            slope, or a pool's input and arguments), the signal that arrived, and the one that left.
    """

    rule: str
    given: list[Tensor] | None = None
    pools: list[tuple[Tensor, Tensor, Tensor, dict[str, Any]]] = field(default_factory=list)
    slopes: list[float] = field(default_factory=list)
    passed: list[tuple[tuple[Tensor, Any], Tensor, Tensor]] | None = None


class UntraceableError(ValueError):
    """A network does what is neither linear nor a rectifier nor max-pooling."""


class Traced(Tensor):
    """A tensor that depends on the images; operations on it follow its walk's rule."""

    walk: Walk

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given, name = dict(kwargs or {}), _name(func)
        traced = [t for t in _leaves((args, given)) if isinstance(t, Traced)]
        with torch._C.DisableTorchFunctionSubclass():
            if name in _READS or name in _ATTRIBUTES:
                return func(*args, **given)
            walk, first = traced[0].walk, bool(args) and args[0] is traced[0]
            if walk.rule == "field" and name in _WEIGHTED:
                args, given = _evened(args, name), _evened(given, name)
            args, given = _plain(args), _plain(given)
            if name in _CONSTANTS:
                return func(*args, **given)
            return _wrapped(_apply(walk, func, name, args, given, len(traced), first), walk)


def _name(func: Any) -> str:
    name = getattr(func, "__name__", type(func).__name__)
    return getattr(func.__self__, "__name__", name) if name == "__get__" else name


def _apply(walk: Walk, func: Any, name: str, args: Any, kwargs: dict, traced: int, first: bool) -> Any:
    """What an operation gives, with the backward pass that the rule wants."""
    if name in ("relu", "leaky_relu"):
        kwargs.pop("inplace", None)
        slope = 0.0 if name == "relu" else float((*args[1:2], kwargs.get("negative_slope", 0.01))[0])
        walk.slopes.append(slope)
        h = args[0] if args else kwargs["input"]
        if walk.rule == "field":
            return h.clone()
        return _noted(walk, h, (h.detach(), slope), lambda x: _rectify(x, slope, walk.rule))
    if name == "max_pool2d":
        return _pooled(walk, *args, **kwargs)
    if name in ("dropout", "dropout2d", "alpha_dropout", "feature_alpha_dropout"):
        if not kwargs.get("training", True):
            return args[0].clone() if args else kwargs["input"].clone()
    elif name == "batch_norm":
        if not (args[5] if len(args) > 5 else kwargs.get("training", False)):
            return args[0].clone() if walk.rule == "field" else func(*args, **kwargs)
    elif name in _SHAPES or name in _AVERAGES:
        if traced == 1:
            return func(*args, **kwargs)
    elif name in _WEIGHTED:
        if traced == 1 and (first or "div" not in name):
            return func(*args, **kwargs)
    elif name in _SUMS:
        return (torch.add if name in ("add_", "__iadd__") else func)(*args, **kwargs)
    elif name in _DIFFERENCES:
        if walk.rule != "field":
            return func(*args, **kwargs)
        return args[0].clone() if "neg" in name else torch.add(args[0], args[1])
    what = name.strip("_")
    raise UntraceableError(
        f"what depends on the images goes through {what!r}"
        + (" of two such tensors" if name in _WEIGHTED | _SHAPES and traced > 1 else "")
        + (" in training mode" if name in ("batch_norm", "dropout", "dropout2d") else "")
    )


def _noted(walk: Walk, h: Tensor, about: tuple[Tensor, Any], operation: Callable[[Tensor], Any]) -> Any:
    """What the operation gives, with the signals before and behind it noted when the walk is asked to."""
    if not h.requires_grad:
        return operation(h)
    # A view of its own: the signal that leaves the operation is not that of other uses of h.
    entered = h.view_as(h)
    out, arrived = operation(entered), []

    def before(signal: Tensor) -> None:
        arrived[:] = [signal]

    def behind(signal: Tensor) -> None:
        if walk.passed is not None:
            walk.passed.append((about, arrived[0], signal))
        arrived.clear()

    out.register_hook(before)
    entered.register_hook(behind)
    return out


def _rectify(h: Tensor, slope: float, rule: str) -> Tensor:
    out = _Rectify.apply(h, slope, rule)
    assert isinstance(out, Tensor)
    return out


class _Rectify(torch.autograd.Function):
    """x above 0 and ``slope`` x below; backward by the forward sign, by that of the signal, or by both."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float, rule: str) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope, ctx.rule = slope, rule
        return torch.where(x > 0, x, slope * x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (x,), (p,) = ctx.saved_tensors, grad_outputs
        if ctx.rule != "deconvnet":
            p = torch.where(x > 0, p, ctx.slope * p)
        if ctx.rule != "gradient":
            p = torch.where(p > 0, p, ctx.slope * p)
        return p, None, None


class _Unpool(torch.autograd.Function):
    """Pooled values forward; backward each signal to its switch, added up where windows overlap."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pooled: Tensor, switches: Tensor) -> Tensor:
        ctx.save_for_backward(switches)
        ctx.shape = x.shape
        return pooled.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (switches,), (p,) = ctx.saved_tensors, grad_outputs
        flat = torch.zeros(*ctx.shape[:2], ctx.shape[2] * ctx.shape[3], dtype=p.dtype, device=p.device)
        return flat.scatter_add(2, switches.flatten(2), p.flatten(2)).view(ctx.shape), None, None


def _pooled(
    walk: Walk,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    asked = {
        "kernel_size": kernel_size,
        "stride": kernel_size if stride is None or stride == [] else stride,
        "padding": padding,
        "dilation": dilation,
        "ceil_mode": ceil_mode,
    }
    if walk.rule == "field":
        if dilation not in (1, (1, 1), [1, 1]):
            raise UntraceableError("what depends on the images goes through 'max_pool2d' with dilation")
        asked.pop("dilation")
        return functional.avg_pool2d(input, **asked)
    if return_indices:
        raise UntraceableError(
            "what depends on the images goes through 'max_pool2d' that hands out its indices"
        )
    pooled, own = functional.max_pool2d(input.detach(), return_indices=True, **asked)
    switches = own if walk.given is None else walk.given[len(walk.pools)]
    walk.pools.append((input.detach(), pooled, own, asked))
    about = (input.detach(), asked)
    return _noted(walk, input, about, lambda x: _Unpool.apply(x, pooled, switches))


def _evened(part: Any, name: str) -> Any:
    """Weights replaced by equal positive ones, so that no path to a pixel is lost or cancelled."""
    factor = ("mul" in name and "mat" not in name) or "div" in name
    if isinstance(part, Tensor) and not isinstance(part, Traced):
        return torch.full_like(part, 1.0 if factor or part.ndim < 2 else 1.0 / max(part[0].numel(), 1))
    if isinstance(part, (tuple, list)):
        return type(part)(_evened(p, name) for p in part)
    if isinstance(part, dict):
        return {k: _evened(v, name) for k, v in part.items()}
    return 1.0 if factor and isinstance(part, (int, float)) else part


def _leaves(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _leaves(part)
    elif isinstance(value, dict):
        yield from _leaves(list(value.values()))


def _plain(value: Any) -> Any:
    if isinstance(value, Traced):
        return value.as_subclass(Tensor)
    if isinstance(value, (tuple, list)):
        parts = [_plain(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else value


def _wrapped(value: Any, walk: Walk) -> Any:
    if isinstance(value, Tensor):
        traced = value.as_subclass(Traced)
        traced.walk = walk
        return traced
    return type(value)(_wrapped(part, walk) for part in value) if isinstance(value, (tuple, list)) else value


def walked(subject: Subject, images: Tensor, stage: str, rule: str, given: list[Tensor] | None = None) -> Any:
    """The state of a stage for images that require a gradient, ready to be pulled back by the rule, and its walk.

    Raises:
        UntraceableError: naming an operation that no rule is known for.
    """
    walk = Walk(rule, given)
    with torch.enable_grad():
        state = subject.state(_wrapped(images, walk), stage)
    if not isinstance(state, Traced):
        raise UntraceableError(
            f"stage {stage!r} does not depend on the images by operations that can be followed"
        )
    with torch._C.DisableTorchFunctionSubclass(), torch.enable_grad():
        return state.as_subclass(Tensor), walk


def followed(subject: Subject, images: Tensor, stage: str, rule: str) -> tuple[Tensor, Walk | None]:
    """The state and its walk; None where only autograd's own gradient is left."""
    try:
        return walked(subject, images, stage, rule)
    except UntraceableError as error:
        if rule != "gradient":
            raise ValueError(
                f"Rule {rule!r} changes how rectifiers pass a signal back, and before the end of stage "
                f"{subject.address(stage)!r} {error}, for which it has none; ReLU, leaky ReLU, max-pooling and linear "
                "operations are possible, or rule='gradient'."
            ) from None
    with torch.enable_grad():
        return subject.state(images, stage), None


def pulled_back(state: Tensor, kept: Tensor, images: Tensor) -> Tensor:
    """The signal ``kept``, of the state's shape, brought back to the images; 0 where nothing arrives."""
    (found,) = torch.autograd.grad(state, images, kept, allow_unused=True, retain_graph=True)
    return torch.zeros_like(images) if found is None else found


def receptive_fields(subject: Subject, shape: tuple[int, ...], stage: str, kept: Tensor) -> Tensor:
    """The pixels (n, height, width), bool, that the kept entries of a stage can depend on, whatever the weights.

    Args:
        subject: the network.
        shape: of an image, (channels, height, width).
        stage: name of the stage.
        kept: (n, units, …), not 0 at the entries that are asked about.
    """
    images = torch.zeros(len(kept), *shape, device=kept.device, requires_grad=True)
    state, _ = walked(subject, images, stage, "field")
    return (pulled_back(state, (kept != 0).to(state), images) != 0).any(dim=1)
