"""A model of your own as a run: a few lines of Python that build it, or an ONNX decoder, with your images as its data.

    run = latentlab.bring("my_model.py:build", weights="vae.safetensors", data="folder:photos")

The Python file is yours and is run; weights are data and never are: safetensors, or a checkpoint that torch reads with
``weights_only=True``. What the explorer computes about the model is kept in the workspace under its weights' digest.
"""

from __future__ import annotations

import importlib.util
import inspect
import pickle
import sys
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from latentlab.config import DataConfig, Experiment, ModelConfig, ObjectiveConfig
from latentlab.models.adapt import adapt_model
from latentlab.models.contract import GenerativeModel, weights_digest
from latentlab.runs import FORMAT, Run, resolve_device

if TYPE_CHECKING:
    from latentlab.data.factors import FactorDataset
    from latentlab.models.inverse import WithEncoder
    from latentlab.models.onnx_graph import OnnxGraph

NO_DATA = "no data"
_RANGES = {"Sigmoid": "unit", "Tanh": "signed", "Clip": "unit"}
_OUTPUTS = ("unit", "logits", "signed")


@dataclass(frozen=True)
class BroughtModel(ModelConfig):
    """Stands where a trained run has the configuration of its model."""

    family: ClassVar[str] = "your own"
    kind: ClassVar[str] = "brought"


@dataclass(frozen=True)
class BroughtObjective(ObjectiveConfig):
    """Stands where a trained run has its objective, which is not known here."""

    objective: ClassVar[str] = "trained elsewhere"
    kind: ClassVar[str] = "brought"


class BroughtRun(Run):
    """A run whose model was made elsewhere. Make one with ``bring``.

    Attributes:
        code: the Python that brings it again.
    """

    def __init__(self, name: str, model: GenerativeModel, data: DataConfig, runs: Path, code: str) -> None:
        self._own_name, self.code = name, code
        self.path = runs / ".brought" / weights_digest(model)[:16]
        self.step, self._device, self._spec = None, "auto", {"format": FORMAT}
        self.experiment = Experiment(name=name, data=data, model=BroughtModel(), objective=BroughtObjective())
        self.image_shape = model.image_shape
        self.__dict__["model"] = model

    @property
    def name(self) -> str:
        """What the run is called: "brought:" and the name of its file."""
        return f"brought:{self._own_name}"

    def dataset(self, download: bool = False) -> FactorDataset:
        """The images that were brought with it.

        Raises:
            OSError: if there are none, or they are not on this machine.
        """
        if self.experiment.data.name == NO_DATA:
            raise OSError(
                "This model was brought without images; give some, such as: --data folder:PATH for your own."
            )
        return super().dataset(download)

    def at(self, step: int) -> Run:
        """Refuses: only the weights that were brought are known.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"{self.name} has the weights it was brought with alone; no step {step} is known.")

    def keep_encoder(self, model: WithEncoder) -> Run:
        """Refuses: there is no folder of a run to keep it in.

        Raises:
            OSError: always.
        """
        raise OSError(
            f"{self.name} is no folder that could keep an encoder; pass it to latentlab.adapt_model instead."
        )


def bring(
    source: str | Path,
    *,
    weights: str | Path | None = None,
    data: str | None = None,
    outputs: str | None = None,
    device: str = "auto",
    runs: str | Path = "runs",
) -> BroughtRun:
    """Opens a model of your own as a run, for the explorer and every analysis.

    Args:
        source: "FILE.py:FUNCTION", a function that returns a model, usually ``latentlab.adapt_model(decoder, …)``;
            or "FILE.onnx", a decoder whose one input is the code (batch, …).
        weights: a checkpoint for the function, which is called with {name: tensor} of it: safetensors, or what torch
            reads with ``weights_only=True``.
        data: its images, a name that ``latentlab datasets`` lists or "folder:PATH", which is read in the model's size.
        outputs: of an ONNX decoder, the range of its images: "unit" for [0, 1], "logits" or "signed" for [-1, 1];
            known where its last layer is a sigmoid, a tanh or a clip.
        device: where the model shall live; an ONNX decoder runs on the CPU.
        runs: the workspace.

    Raises:
        OSError: if a file is missing.
        ValueError: if the file, the function, the weights or the images are not what they should be; one sentence.
    """
    text = str(source)
    parts = {"weights": weights, "data": data, "outputs": outputs}
    given = "".join(f", {k}={str(v)!r}" for k, v in parts.items() if v is not None)
    if text.lower().endswith(".onnx"):
        if weights is not None:
            raise ValueError("An ONNX file holds its weights; leave --weights out.")
        file, model = Path(text).expanduser(), _from_onnx(Path(text).expanduser(), outputs)
    else:
        if outputs is not None:
            raise ValueError("--outputs goes with an ONNX file; a function of yours says it to adapt_model.")
        file, model = _from_python(text, weights)
        model.to(resolve_device(device))
    model = model.eval().requires_grad_(False)
    _check(model, text)
    run = BroughtRun(
        file.stem, model, _data(data, model.image_shape), Path(runs), f"latentlab.bring({text!r}{given})"
    )
    if data is not None:
        shape = tuple(run.dataset().image_shape)
        if shape != tuple(model.image_shape):
            raise ValueError(
                f"The model draws images {tuple(model.image_shape)} (channels, height, width); those of {data} are "
                f"{shape}."
            )
    return run


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by name; nothing in the file is executed.

    Args:
        path: a safetensors file, or one that torch reads with ``weights_only=True``: a state dict, or a checkpoint
            with one under "state_dict", "model_state_dict" or "model".

    Raises:
        OSError: if there is no such file.
        ValueError: if it is damaged, or holds more than tensors.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise OSError(f"No file {file}.")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles, which are refused in our own words
            found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{file} holds more than tensors and plain values, or is no checkpoint; such files are not loaded, since "
            "they may run code. Save the state dict alone: torch.save(model.state_dict(), …)."
        ) from None
    except (
        SafetensorError,
        RuntimeError,
        ValueError,
        EOFError,
        KeyError,
        AttributeError,
        TypeError,
    ) as error:
        why = " ".join(str(error).split())[:200]
        raise ValueError(f"{file} is damaged or no checkpoint ({type(error).__name__}: {why}).") from None
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    tensors = isinstance(found, dict) and {str(k): v for k, v in found.items() if isinstance(v, Tensor)}
    if not tensors:
        raise ValueError(
            f"{file} holds no state dict: names with tensors, or such a table under 'state_dict'."
        )
    return tensors


def _from_python(source: str, weights: str | Path | None) -> tuple[Path, Any]:
    name, colon, function = source.rpartition(":")
    if not colon or not name.endswith(".py") or not function.isidentifier():
        raise ValueError(
            f"Expected FILE.py:FUNCTION, such as my_model.py:build, or FILE.onnx; got {source!r}."
        )
    file = Path(name).expanduser()
    if not file.is_file():
        raise OSError(f"No file {file}.")
    # So that it can import its neighbours, as when it is run.
    if str(file.resolve().parent) not in sys.path:
        sys.path.insert(0, str(file.resolve().parent))
    spec = importlib.util.spec_from_file_location(f"latentlab_brought_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    _yours(file, "could not be imported", spec.loader.exec_module, module)
    build = getattr(module, function, None)
    if not callable(build):
        names = [
            n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module.__name__
        ]
        raise ValueError(f"{file} has no function {function!r}; it has {', '.join(names) or 'none'}.")
    wanted = len(inspect.signature(build).parameters)
    if wanted > 1:
        raise ValueError(f"{function}() in {file} takes nothing, or the weights; it has {wanted} arguments.")
    if wanted and weights is None:
        raise ValueError(f"{function}() in {file} takes weights; give their file: --weights FILE.")
    if weights is not None and not wanted:
        raise ValueError(
            f"{function}() in {file} takes no weights; give it an argument, {function}(weights), or leave --weights "
            "out."
        )
    return file, _yours(
        file, f"failed in {function}()", build, *((read_weights(weights),) if weights else ())
    )


def _yours(file: Path, what: str, call: Any, *arguments: Any) -> Any:
    """Calls what a user wrote; what it raises becomes a sentence with the line."""
    try:
        return call(*arguments)
    except Exception as error:
        here = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)]
        line = f", line {here[-1].lineno}" if here else ""
        why = " ".join(str(error).split())[:300]
        raise ValueError(f"{file} {what}{line}: {type(error).__name__}: {why}") from error


def _from_onnx(file: Path, outputs: str | None) -> Any:
    from latentlab.models.onnx_graph import read_onnx

    graph = read_onnx(file)
    outputs = outputs or _RANGES.get(graph.last)
    if outputs not in _OUTPUTS:
        raise ValueError(
            f"{file} ends with {graph.last or 'no layer'}, which does not tell the range of its images; say it: "
            f"--outputs {', '.join(_OUTPUTS[:-1])} or {_OUTPUTS[-1]}."
        )
    if -1 in graph.input_shape or not graph.input_shape:
        raise ValueError(f"{file} leaves open how many numbers a code has; export it with that size fixed.")
    latents = torch.Size(graph.input_shape).numel()
    return adapt_model(
        graph, latents=latents, image_shape=_image_shape(file, graph, latents), outputs=outputs
    )


def _image_shape(file: Path, graph: OnnxGraph, latents: int) -> tuple[int, int, int]:
    """The shape of what a graph draws, several at once."""
    try:
        with torch.inference_mode():
            one, three = (graph(torch.linspace(-1, 1, n * latents).view(n, latents)) for n in (1, 3))
    except (RuntimeError, ValueError, IndexError) as error:
        why = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{file} can't draw three images at once ({why}); export it with a batch of any size."
        ) from None
    if one.ndim != 4 or one.shape[1] not in (1, 3) or len(three) != 3 or one.shape[1:] != three.shape[1:]:
        raise ValueError(
            f"Expected {file} to draw images (batch, 1 or 3, height, width); of three codes it draws "
            f"{tuple(three.shape)}."
        )
    return tuple(one.shape[1:])


def _check(model: Any, source: str) -> None:
    """Refuses what is no model, before any page meets it."""
    if not isinstance(model, GenerativeModel):
        kind = type(model).__name__
        how = (
            "wrap it: latentlab.adapt_model(decoder, latents=…, image_shape=…)"
            if isinstance(model, nn.Module)
            else ("return what latentlab.adapt_model gives")
        )
        raise ValueError(f"{source} gives a {kind}, which is no generative model; {how}.")
    with torch.inference_mode():
        images = model.sample(2, 0)
    if tuple(images.shape) != (2, *model.image_shape) or not torch.isfinite(images).all():
        raise ValueError(
            f"Expected {source} to draw finite images {tuple(model.image_shape)}; it draws {tuple(images.shape[1:])}"
            + ("." if torch.isfinite(images).all() else " with numbers that are not finite.")
        )


def _data(name: str | None, shape: tuple[int, int, int]) -> DataConfig:
    if name is None:
        return DataConfig(NO_DATA)
    kind, colon, place = name.partition(":")
    if kind == "folder" and colon:
        if shape[1] != shape[2]:
            raise ValueError(
                f"A folder of images is read as squares; this model draws {shape[1]} x {shape[2]} pixels, so it goes "
                "without data."
            )
        here = Path(place).expanduser().resolve()
        return DataConfig(f"folder:{here}", {"image_size": shape[1], "channels": shape[0]})
    return DataConfig(name)
