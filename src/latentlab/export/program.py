"""Program: a decoder as a list of steps over one stretch of memory, as engine.c runs it.

Numbers are float32. A map lies in memory pixel by pixel, (height, width, channels), a flat state as a map of one pixel.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

WORDS = 24
ADDRESSES = 5
KINDS = ("conv", "pad", "linear", "act", "affine", "add", "add_map", "resize", "transpose", "copy", "group_norm",
         "pixel_norm", "lookup")  # fmt: skip
ACTIVATIONS = ("identity", "relu", "leaky_relu", "silu", "sigmoid", "tanh", "half_tanh", "logistic", "square",
               "rsqrt", "scale")  # fmt: skip
PRECISIONS = ("f32", "f16", "int8")
"""How the weights of layers travel; whatever else there is, biases and such, always travels as float32."""

_GROUP = 32
"""Weights of an output channel that share a scale in 8 bits."""


@dataclass(frozen=True)
class Value:
    """A state while the program runs: where it lies and what it is.

    Attributes:
        at: offset of its first number in the memory, in floats.
        shape: (units,) or (channels, height, width).
        fresh: whether the step that made it is the only one that knows it, so that the next may write into it.
    """

    at: int
    shape: tuple[int, ...]
    fresh: bool = False

    @property
    def units(self) -> int:
        """Features of a flat state, channels of a map."""
        return self.shape[0]

    @property
    def pixels(self) -> int:
        """Positions of a map, 1 for a flat state."""
        return self.shape[1] * self.shape[2] if len(self.shape) == 3 else 1

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return self.units * self.pixels

    @property
    def shared(self) -> Value:
        """The same state, which nobody may write into."""
        return Value(self.at, self.shape)


@dataclass(frozen=True)
class Constant:
    """Numbers that belong to the model.

    Attributes:
        at: offset in the memory, in floats.
        values: float32, the last axis a block of output channels where ``kernel``.
        kernel: whether they are a layer's weights (blocks, …, channels of a block), which may travel in fewer bits.
    """

    at: int
    values: np.ndarray
    kernel: bool


@dataclass(frozen=True)
class StageState:
    """Where a stage's state can be read and edited.

    Attributes:
        address: "generator.deconv1".
        kind: what it is made of, "ConvTranspose2d + ReLU".
        state: its state.
        end: number of steps after which it is there.
    """

    address: str
    kind: str
    state: Value
    end: int


@dataclass
class Program:
    """A decoder, written down for the browser engine.

    Attributes:
        steps: the steps, each ``WORDS`` whole numbers.
        constants: the model's own numbers.
        stages: the named states, in running order.
        size: floats of memory.
        input: the code.
        output: the image, in [0, 1].
        multiplications: of layers' weights, an image.
    """

    steps: list[tuple[int, ...]] = field(default_factory=list)
    constants: list[Constant] = field(default_factory=list)
    stages: list[StageState] = field(default_factory=list)
    size: int = 0
    input: Value = Value(0, (0,))
    output: Value = Value(0, (0,))
    multiplications: int = 0

    # -- making one ------------------------------------------------------------------------------------------------

    def place(self, *shape: int) -> Value:
        """Room for a new state."""
        value = Value(self.size, shape, fresh=True)
        self.size += -(-value.size // 4) * 4
        return value

    def constant(self, values: Any, kernel: bool = False) -> int:
        """Keeps numbers with the model; returns where they lie."""
        array = np.ascontiguousarray(values, dtype=np.float32)
        at = self.place(array.size).at
        self.constants.append(Constant(at, array, kernel))
        return at

    def step(self, kind: str, addresses: Sequence[int | None], numbers: Sequence[int | float]) -> None:
        """Adds a step: what it does, up to five addresses (None for none), then its numbers."""
        words = [KINDS.index(kind), *(-1 if a is None else a for a in addresses)]
        words += [-1] * (1 + ADDRESSES - len(words))
        words += [n if isinstance(n, int) else struct.unpack("<i", struct.pack("<f", n))[0] for n in numbers]
        assert len(words) <= WORDS
        self.steps.append((*words, *[0] * (WORDS - len(words))))

    # -- sending one -----------------------------------------------------------------------------------------------

    def pack(self, precision: str = "f16") -> dict[str, Any]:
        """The program as plain JSON values, with numbers in base64, for engine.js; ``packed`` says the rest."""
        program, steps, weights = self.packed(precision)
        return {
            **program,
            "steps": base64.b64encode(steps).decode(),
            "weights": base64.b64encode(weights).decode(),
        }

    def packed(self, precision: str = "f16") -> tuple[dict[str, Any], bytes, bytes]:
        """The program as plain JSON values, its steps and its weights.

        Args:
            precision: of layers' weights: "f32", "f16", or "int8" with a scale for every 32 weights of an output
                channel.

        Raises:
            ValueError: on another precision, or weights that it can't hold.
        """
        if precision not in PRECISIONS:
            raise ValueError(f"precision is one of {', '.join(PRECISIONS)}; got {precision!r}.")
        blob, table = bytearray(), []
        for constant in self.constants:
            kind = precision if constant.kernel else "f32"
            entry = {"at": constant.at, "count": constant.values.size, "kind": kind, "byte": len(blob)}
            if kind == "int8":
                codes, scales = _eight_bits(constant.values)
                entry |= {
                    "blocks": constant.values.shape[0],
                    "channels": constant.values.shape[-1],
                    "group": _GROUP,
                }
                blob += scales.astype("<f4").tobytes() + codes.tobytes()
            else:
                with np.errstate(over="ignore"):  # what is too large is refused in words
                    numbers = constant.values.astype("<f2" if kind == "f16" else "<f4")
                if not np.isfinite(numbers).all():
                    raise ValueError(f"The model has weights that are no finite numbers in {kind}.")
                blob += numbers.tobytes()
            blob += bytes(-len(blob) % 4)
            table.append(entry)
        program = {
            "precision": precision,
            "size": self.size,
            "constants": table,
            "input": {"at": self.input.at, "shape": self.input.shape},
            "output": {"at": self.output.at, "shape": self.output.shape},
            "stages": [
                {"address": s.address, "kind": s.kind, "at": s.state.at, "shape": s.state.shape, "end": s.end}
                for s in self.stages
            ],
            "multiplications": self.multiplications,
        }
        return program, np.array(self.steps, dtype="<i4").tobytes(), bytes(blob)


def _eight_bits(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers -127 to 127 of weights (blocks, …, channels), and their scales (blocks, groups, channels)."""
    blocks, channels = values.shape[0], values.shape[-1]
    flat = values.reshape(blocks, -1, channels)
    if not np.isfinite(flat).all():
        raise ValueError("The model has weights that are no finite numbers.")
    begins = np.arange(0, flat.shape[1], _GROUP)
    scales = np.maximum.reduceat(np.abs(flat), begins, axis=1) / np.float32(127.0)
    each = np.repeat(np.where(scales == 0.0, 1.0, scales), _GROUP, axis=1)[:, : flat.shape[1]]
    return np.rint(flat / each).astype(np.int8), scales
