"""TraverseWidget: a person's code, locks and switched units, kept alike in the browser and in Python."""

from __future__ import annotations

import base64
import json
import operator
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets

from latentlab.analysis import decode_latents
from latentlab.analysis.inference import to_numpy, to_tensor
from latentlab.models.contract import space_of
from latentlab.models.edits import Edit
from latentlab.notebook.answering import answer
from latentlab.notebook.opening import check_drawable
from latentlab.runs import ZOO, Run


def _module() -> str:
    """The widget's JavaScript: the explorer's own view, the browser engine, and their seat in a notebook."""
    own, export = files("latentlab.notebook"), files("latentlab.export")
    shared = files("latentlab").joinpath("app", "components")
    styles = [shared.joinpath("core.css"), export.joinpath("page.css"), own.joinpath("widget.css")]
    scripts = [
        *(shared.joinpath(f"{name}.js") for name in ("core", "ranges", "traverse")),
        *(export.joinpath(f"{name}.js") for name in ("engine", "decoder", "strips", "units")),
        *(own.joinpath(f"{name}.js") for name in ("kernel", "widget")),
    ]
    css = "\n".join(style.read_text("utf-8") for style in styles)
    return "\n".join([f"const CSS = {json.dumps(css)};", *(script.read_text("utf-8") for script in scripts)])


def _plain(value: Any, _: Any = None) -> Any:
    """Arrays, and tuples with arrays in them, as lists: for the browser, and to be compared."""
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def _dicts(edits: Sequence[Edit], _: Any = None) -> list[dict[str, Any]]:
    return [edit.to_dict() for edit in edits]


class _Checked(traitlets.TraitType):
    """A value that the widget's method of the trait's name checks before it is taken; what is equal changes nothing."""

    def validate(self, obj: Any, value: Any) -> Any:
        return getattr(obj, f"_checked_{self.name}")(value)

    def set(self, obj: Any, value: Any) -> None:
        new, old = self._validate(obj, value), obj._trait_values.get(self.name)
        if old is None or _plain(old) != _plain(new):
            super().set(obj, new)


class TraverseWidget(anywidget.AnyWidget):
    """Sliders over a code and the picture it decodes to. Make one with ``latentlab.widget``.

    Every value can be read, set, and observed with ``observe``; one that does not fit raises a ValueError and changes
    nothing.

    Attributes:
        z: the code (dim,) float32, as the person left it; it arrives when a slider is let go. Read-only in place:
            assign another array.
        edits: the changes of hidden units that the picture is drawn with, a tuple of ``Edit``.
        locks: coordinates that dice and reset leave alone.
        slots: the codes (dim,) kept as A and B, None where none was.
        space: name of the space of ``z``.
        model: the model.
        run: the run, None where a model was given.
    """

    _esm = _module()
    z = _Checked().tag(sync=True, to_json=_plain)
    edits = _Checked(()).tag(sync=True, to_json=_dicts)
    locks = _Checked(()).tag(sync=True)
    slots = _Checked((None, None)).tag(sync=True, to_json=_plain)
    _content = traitlets.Dict().tag(sync=True)
    _picture = traitlets.Dict().tag(sync=True)
    _wasm = traitlets.Bytes().tag(sync=True)
    _steps = traitlets.Bytes().tag(sync=True)
    _weights = traitlets.Bytes().tag(sync=True)

    def __init__(
        self,
        model: Any,
        run: Run | None,
        space: str,
        content: dict[str, Any],
        steps: bytes,
        weights: bytes,
        *,
        z: np.ndarray,
        edits: Sequence[Edit] = (),
    ) -> None:
        self.model, self.run, self.space = model, run, space
        self._drawn_by = "browser" if content["program"] else "kernel"
        self._place = space_of(model, space)
        wasm = files("latentlab.export").joinpath("engine.wasm").read_bytes() if content["program"] else b""
        super().__init__(z=z, edits=edits, _content=content, _wasm=wasm, _steps=steps, _weights=weights)
        if self._drawn_by == "kernel":
            self._draw()
            self.observe(lambda _: self._draw(), ["z", "edits"])
            self.on_msg(self._asked)

    def __repr__(self) -> str:
        of = type(self.model).__name__ if self.run is None else self.run.name
        return f"TraverseWidget({of!r}, z of {self._place.dim} numbers, drawn by the {self._drawn_by})"

    @property
    def image(self) -> np.ndarray:
        """What torch decodes at ``z`` under ``edits``: (channels, height, width) in [0, 1]."""
        return decode_latents(self.model, self.z, edits=self.edits, space=self.space)[0]

    def code(self) -> str:
        """Python that makes ``image`` again; without a run it expects the model under the name ``model``."""
        first = self.space == self.model.latent_space.name
        numbers = ", ".join(str(v) for v in self.z)
        options = ([f"edits=[{', '.join(map(_written, self.edits))}]"] if self.edits else []) + (
            [] if first else [f"space={self.space!r}"]
        )
        opened = [] if self.run is None else [f"model = {_opening(self.run)}.model"]
        return "\n".join(
            [
                "import numpy as np",
                "import latentlab",
                "from latentlab.analysis import decode_latents",
                "",
                *opened,
                f"z = np.array([{numbers}], np.float32)",
                f"image = decode_latents({', '.join(['model', 'z', *options])})[0]",
            ]
        )

    # ---- what is taken ----
    def _checked_z(self, value: Any) -> np.ndarray:
        return self._code(value, "z")

    def _checked_slots(self, value: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
        if not isinstance(value, Sequence) or len(value) != 2:
            raise ValueError(f"slots are two codes, None where none is kept; got {value!r}.")
        a, b = (None if code is None else self._code(code, "a slot") for code in value)
        return a, b

    def _code(self, value: Any, name: str) -> np.ndarray:
        """A code (dim,) float32 that can't be written into, so that no change goes unseen."""
        dim = self._place.dim
        try:
            with np.errstate(over="ignore"):  # what is too large is refused below
                code = to_numpy(to_tensor(value, torch.device("cpu")))
        except (TypeError, ValueError):
            raise ValueError(f"{name} must be {dim} numbers; got {type(value).__name__}.") from None
        if code.shape != (dim,):
            raise ValueError(
                f"{name} must be a code ({dim},) of space {self.space!r}; got shape {code.shape}."
            )
        if not np.isfinite(code).all():
            raise ValueError(f"{name} must hold finite numbers; it holds NaN or infinity.")
        code.flags.writeable = False
        return code

    def _checked_locks(self, value: Any) -> tuple[int, ...]:
        dim = self._place.dim
        try:
            locks = tuple(sorted({operator.index(i) for i in value}))
        except TypeError:
            raise ValueError(f"locks are coordinates, such as (0, 3); got {value!r}.") from None
        if any(not 0 <= i < dim for i in locks):
            raise ValueError(f"locks are coordinates from 0 to {dim - 1}; got {locks}.")
        return locks

    def _checked_edits(self, value: Any) -> tuple[Edit, ...]:
        try:
            edits = tuple(Edit.from_dict(e) if isinstance(e, dict) else e for e in value)
        except TypeError:
            raise ValueError(f"edits are a list of latentlab.Edit; got {type(value).__name__}.") from None
        for edit in edits:
            if not isinstance(edit, Edit):
                raise ValueError(f"edits are a list of latentlab.Edit; got a {type(edit).__name__} in it.")
        if self._drawn_by == "browser":
            check_drawable(edits)
        if edits:  # refuses stages and units that the model does not have
            decode_latents(self.model, np.zeros(self._place.dim, np.float32), edits=edits, space=self.space)
        return edits

    # ---- a kernel that draws ----
    def _draw(self) -> None:
        """The picture at ``z``, so that a page without this kernel shows one."""
        image = np.rint(255 * self.image).astype(np.uint8).transpose(1, 2, 0)
        height, width, channels = image.shape
        data = base64.b64encode(image.tobytes()).decode()
        self._picture = {"w": width, "h": height, "c": channels, "data": data}

    def _asked(self, _: Any, request: Any, __: Any = None) -> None:
        reply, buffers = answer(self.model, self.space, request)
        self.send(reply, buffers)


def _opening(run: Run) -> str:
    """The Python that opens a run."""
    name = run.name if run.path.parent == ZOO else str(run.path)
    at = "" if run.step is None else f".at({run.step})"
    return getattr(run, "code", "") or f"latentlab.Run.open({name!r}){at}"


def _written(edit: Edit) -> str:
    """An edit as Python."""
    spec = edit.to_dict()
    stage = spec.pop("stage")
    return f"latentlab.Edit({', '.join([repr(stage), *(f'{k}={v!r}' for k, v in spec.items())])})"
