"""Layers: how each kind of layer becomes steps of a program, with its weights laid out as engine.c reads them."""

from __future__ import annotations

import numpy as np

from latentlab.export.program import ACTIVATIONS, Program, Value

Pair = tuple[int, int]


class Layers:
    """Writes layers into a program.

    Args:
        program: takes the steps.
    """

    def __init__(self, program: Program) -> None:
        self.program = program

    # -- dense ---------------------------------------------------------------------------------------------------

    def linear(self, h: Value, weight: np.ndarray, bias: np.ndarray | None, kernel: bool = True) -> Value:
        """A flat state times weights (outputs, inputs), plus bias; ``kernel`` where these may travel in fewer bits."""
        outputs, inputs = weight.shape
        if h.shape != (inputs,):
            raise ValueError(f"a fully connected layer of {inputs} inputs is given {h.shape}.")
        packed = _blocks(weight[:, :, None, None], 8)
        out = self.program.place(outputs)
        addresses = (h.at, self.program.constant(packed, kernel), self._bias(bias, outputs, 8), out.at)
        self.program.step("linear", addresses, (inputs, outputs))
        self.program.multiplications += weight.size
        return out

    def _bias(self, bias: np.ndarray | None, outputs: int, block: int) -> int:
        padded = np.zeros(-(-outputs // block) * block, np.float32)
        if bias is not None:
            padded[:outputs] = bias
        return self.program.constant(padded)

    # -- convolutions --------------------------------------------------------------------------------------------

    def conv(
        self,
        h: Value,
        weight: np.ndarray,
        bias: np.ndarray | None,
        stride: Pair,
        padding: tuple[int, int, int, int],
        dilation: Pair,
    ) -> Value:
        """A convolution with weights (out, in, height, width); padding above, left, below, right."""
        outputs, inputs, kh, kw = weight.shape
        height, width = self._map(h, inputs)
        top, left, below, right = padding
        tall, broad = height + top + below, width + left + right
        oh = (tall - dilation[0] * (kh - 1) - 1) // stride[0] + 1
        ow = (broad - dilation[1] * (kw - 1) - 1) // stride[1] + 1
        if oh < 1 or ow < 1:
            raise ValueError(f"a {kh} x {kw} convolution finds no room on a map of {height} x {width}.")
        padded = self._pad(h, top, left, tall, broad)
        out = self.program.place(outputs, oh, ow)
        self._correlate(padded, weight, bias, out, (0, 0), (0, 0), (1, 1), (oh, ow), stride, dilation)
        return out

    def conv_transpose(
        self,
        h: Value,
        weight: np.ndarray,
        bias: np.ndarray | None,
        stride: Pair,
        padding: Pair,
        output_padding: Pair,
        dilation: Pair,
    ) -> Value:
        """A transposed convolution with weights (out, in, height, width), as one plain convolution a phase.

        Output o takes input i through tap t where o + padding = i stride + t dilation. So the outputs of one phase,
        o = r + stride m, all take the same taps, and each tap the input m + (r + padding - t dilation) / stride.
        """
        outputs, inputs = weight.shape[:2]
        edges = self._map(h, inputs)
        sizes, phases = [], []
        for axis in (0, 1):
            s, p, d, k = stride[axis], padding[axis], dilation[axis], weight.shape[2 + axis]
            size = (edges[axis] - 1) * s - 2 * p + d * (k - 1) + output_padding[axis] + 1
            if size < 1:
                raise ValueError("a transposed convolution cuts off its whole map.")
            sizes.append(size)
            phases.append([_phase(r, s, p, d, k, size) for r in range(min(s, size))])
        before = [max(0, -min(ph.first for ph in phases[a])) for a in (0, 1)]
        ends = [max(edges[a], *(ph.last + 1 for ph in phases[a])) for a in (0, 1)]
        padded = self._pad(h, before[0], before[1], before[0] + ends[0], before[1] + ends[1])
        out = self.program.place(outputs, *sizes)
        for y in phases[0]:
            for x in phases[1]:
                taps = weight[:, :, y.taps][:, :, :, x.taps] if y.taps and x.taps else None
                if taps is None:  # no input reaches these outputs: they are the bias
                    taps = np.zeros((outputs, inputs, 1, 1), np.float32)
                self._correlate(
                    padded, taps, bias, out, (before[0] + y.first, before[1] + x.first), (y.start, x.start),
                    stride, (y.count, x.count), (1, 1), (y.apart, x.apart),
                )  # fmt: skip
        return out

    def _correlate(
        self,
        padded: Value,
        weight: np.ndarray,
        bias: np.ndarray | None,
        out: Value,
        begin: Pair,
        to: Pair,
        every: Pair,
        count: Pair,
        stride: Pair,
        dilation: Pair,
    ) -> None:
        """The step behind both: from ``begin`` in the padded map to every so many-th pixel of ``out``."""
        outputs, inputs, kh, kw = weight.shape
        block = 4 if outputs <= 4 else 8
        row, broad = padded.shape[2] * inputs, out.shape[2] * outputs
        source = padded.at + begin[0] * row + begin[1] * inputs
        target = out.at + to[0] * broad + to[1] * outputs
        weights = self.program.constant(_blocks(weight, block), kernel=True)
        self.program.step(
            "conv",
            (source, weights, self._bias(bias, outputs, block), target),
            (
                row,
                inputs,
                outputs,
                *count,
                every[0] * broad,
                every[1] * outputs,
                kh,
                kw,
                *stride,
                *dilation,
                block,
            ),
        )
        self.program.multiplications += weight.size * count[0] * count[1]

    def _map(self, h: Value, channels: int) -> Pair:
        if len(h.shape) != 3 or h.units != channels:
            raise ValueError(f"a convolution of {channels} channels is given {h.shape}.")
        return h.shape[1], h.shape[2]

    def _pad(self, h: Value, top: int, left: int, tall: int, broad: int) -> Value:
        channels, height, width = h.shape
        if (tall, broad) == (height, width):
            return h
        out = self.program.place(channels, tall, broad)
        self.program.step("pad", (h.at, out.at), (height, width, channels, top, left, tall, broad))
        return out

    # -- elementwise ---------------------------------------------------------------------------------------------

    def activation(self, h: Value, name: str, value: float = 0.0) -> Value:
        """One of ``ACTIVATIONS``, element by element."""
        out = h if h.fresh else self.program.place(*h.shape)
        self.program.step("act", (h.at, out.at), (-(-h.size // 4) * 4, ACTIVATIONS.index(name), float(value)))
        return out

    def affine(self, h: Value, scale: np.ndarray | None, shift: np.ndarray | None) -> Value:
        """A factor and a summand for each unit."""
        scales, shifts = (None if v is None else self.program.constant(v) for v in (scale, shift))
        return self._affine(h, scales, shifts)

    def scale_by(self, h: Value, scales: Value) -> Value:
        """A factor for each unit, which the program has computed."""
        if h.units != scales.units:
            raise ValueError(f"{scales.units} factors are given for {h.units} channels.")
        return self._affine(h, scales.at, None)

    def shift_by(self, h: Value, shifts: Value) -> Value:
        """A summand for each unit, which the program has computed."""
        return self._affine(h, None, shifts.at)

    def _affine(self, h: Value, scale: int | None, shift: int | None) -> Value:
        out = h if h.fresh else self.program.place(*h.shape)
        self.program.step("affine", (h.at, scale, shift, out.at), (h.pixels, h.units))
        return out

    def add(self, a: Value, b: Value) -> Value:
        """The sum of two states."""
        if a.shape != b.shape:
            raise ValueError(f"states of {a.shape} and {b.shape} can't be added.")
        out = self.program.place(*a.shape)
        self.program.step("add", (a.at, b.at, out.at), (a.size,))
        return out

    def add_map(self, h: Value, values: np.ndarray) -> Value:
        """The same map (height, width) added to every channel."""
        out = h if h.fresh else self.program.place(*h.shape)
        self.program.step("add_map", (h.at, self.program.constant(values), out.at), (h.pixels, h.units))
        return out

    def group_norm(self, h: Value, groups: int, eps: float) -> Value:
        """Each group of channels to mean 0 and variance 1."""
        out = h if h.fresh else self.program.place(*h.shape)
        self.program.step("group_norm", (h.at, out.at), (h.pixels, h.units, groups, float(eps)))
        return out

    def pixel_norm(self, h: Value, eps: float) -> Value:
        """A flat state to a root mean square of 1."""
        out = self.program.place(*h.shape)
        self.program.step("pixel_norm", (h.at, out.at), (h.size, float(eps)))
        return out

    # -- shapes --------------------------------------------------------------------------------------------------

    def flatten(self, h: Value) -> Value:
        """A map to a flat state in torch's order, channel after channel."""
        if len(h.shape) == 1:
            return h
        out = self.program.place(h.size)
        self.program.step("transpose", (h.at, out.at), (h.pixels, h.units))
        return out

    def unflatten(self, h: Value, shape: tuple[int, ...]) -> Value:
        """A flat state in torch's order to a map (channels, height, width)."""
        out = self.program.place(*shape)
        if out.size != h.size:
            raise ValueError(f"{h.size} numbers don't make a map of {shape}.")
        self.program.step("transpose", (h.at, out.at), (out.units, out.pixels))
        return out

    def resize(self, h: Value, size: Pair, mode: str) -> Value:
        """A map stretched, "nearest" or "bilinear"."""
        if len(h.shape) != 3:
            raise ValueError(f"only a map can be stretched; got {h.shape}.")
        if size == h.shape[1:]:
            return h
        out = self.program.place(h.units, *size)
        numbers = (h.shape[1], h.shape[2], h.units, *size, int(mode == "bilinear"))
        self.program.step("resize", (h.at, out.at), numbers)
        return out

    def join(self, *states: Value) -> Value:
        """States side by side, along units or channels."""
        if len({s.shape[1:] for s in states}) != 1:
            raise ValueError(f"states of {', '.join(str(s.shape) for s in states)} can't be joined.")
        out = self.program.place(sum(s.units for s in states), *states[0].shape[1:])
        begin = out.at
        for state in states:
            self.program.step("copy", (state.at, begin), (state.pixels, state.units, state.units, out.units))
            begin += state.units
        return out

    def lookup(self, h: Value, table: np.ndarray, grid: Pair) -> Value:
        """Indices to a map of the table's rows."""
        codes, dim = table.shape
        if h.size != grid[0] * grid[1]:
            raise ValueError(f"{h.size} indices don't make a grid of {grid}.")
        out = self.program.place(dim, *grid)
        at = self.program.constant(table)
        self.program.step("lookup", (h.at, at, out.at), (h.size, codes, dim))
        return out


class _Phase:
    """What outputs ``start``, ``start`` + stride, … of a transposed convolution take along one axis."""

    def __init__(self, start: int, count: int, reach: list[tuple[int, int]]) -> None:
        self.start, self.count = start, count
        self.taps = [tap for _, tap in reach]
        offsets = [offset for offset, _ in reach] or [0]
        self.first, self.last = offsets[0], count - 1 + offsets[-1]
        self.apart = offsets[1] - offsets[0] if len(offsets) > 1 else 1


def _phase(start: int, stride: int, padding: int, dilation: int, taps: int, size: int) -> _Phase:
    reach = [(start + padding - t * dilation, t) for t in range(taps)]
    reach = sorted((away // stride, t) for away, t in reach if away % stride == 0)
    return _Phase(start, -(-(size - start) // stride), reach)


def _blocks(weight: np.ndarray, block: int) -> np.ndarray:
    """Weights (out, in, height, width) as (out / block, height, width, in, block), with zeros behind the last."""
    outputs, inputs, kh, kw = weight.shape
    count = -(-outputs // block)
    padded = np.zeros((count * block, inputs, kh, kw), np.float32)
    padded[:outputs] = weight
    return padded.reshape(count, block, inputs, kh, kw).transpose(0, 3, 4, 2, 1)
