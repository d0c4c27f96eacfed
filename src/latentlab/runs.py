"""Run: a directory that holds a trained model and how it came to be; the workspace that holds runs.

A run is data, never code: weights are safetensors, the configuration is JSON whose names are looked up in
tables. What does not fit is refused with one sentence.
"""

from __future__ import annotations

import csv
import json
import os
import re
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from latentlab.config import Experiment
from latentlab.files import atomic_write
from latentlab.models.build import build_model
from latentlab.models.contract import GenerativeModel, weights_digest
from latentlab.models.inverse import EncoderSpec, WithEncoder

try:
    import fcntl
except ImportError:  # no such locks on Windows: there two trainings that begin at once are not told apart
    fcntl = None

if TYPE_CHECKING:
    from latentlab.data.factors import FactorDataset

FORMAT = 1
CONFIG, WEIGHTS, METRICS, TIMING = "config.json", "weights.safetensors", "metrics.csv", "timing.csv"
CARD, RESUME, COMMANDS, CHECKPOINTS, PREVIEWS = (
    "README.md",
    "last.ckpt",
    "commands.jsonl",
    "checkpoints",
    "previews",
)
ENCODER, ENCODER_WEIGHTS = "encoder.json", "encoder.safetensors"
ZOO = Path(__file__).parent / "zoo"
_LARGEST_TEXT = 4_000_000
_LARGEST_TABLE = 100_000_000
_STEP_FILE = re.compile(r"step-(\d+)\.safetensors")


class FolderTaken(FileExistsError):
    """A folder that can't become a run's, since it holds one already, or something else."""


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Resolves a device: auto is the GPU where there is one, else the CPU.

    Raises:
        ValueError: on a device that this machine or torch does not have.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f"Unknown device {device!r}; use auto, cpu, cuda or cuda:0.") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"Device {device!r} was asked for, but torch sees no CUDA device here; use auto or cpu."
        )
    return chosen


class Run:
    """A trained (or training) model on disk. Open one with ``Run.open``; ``latentlab.fit`` makes one.

    Attributes:
        path: the run's directory.
        experiment: the configuration it was trained with.
        image_shape: (channels, height, width).
        step: None for the latest weights, or the step of a saved checkpoint.
        stopped_by: what ended its training early in this process ("Ctrl-C", "a stop command"), else "".
    """

    stopped_by: str = ""
    _claim: _Claim | None = None

    def __init__(
        self, path: Path, spec: dict, device: str | torch.device = "auto", step: int | None = None
    ) -> None:
        self.path = path
        self.step = step
        self._spec = spec
        self._device = device
        if not isinstance(spec, dict) or spec.get("format") != FORMAT:
            found = spec.get("format") if isinstance(spec, dict) else type(spec).__name__
            raise ValueError(
                f"{path / CONFIG} must be a run's configuration of format {FORMAT}; got {found!r}."
            )
        try:
            self.experiment = Experiment.from_dict(spec.get("experiment", {}))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path / CONFIG} could not be read: {error}") from None
        shape = spec.get("image_shape")
        if not isinstance(shape, list) or len(shape) != 3 or not all(type(n) is int for n in shape):
            raise ValueError(f"{path / CONFIG} must give image_shape as three whole numbers; got {shape!r}.")
        self.image_shape: tuple[int, int, int] = tuple(shape)

    @classmethod
    def open(cls, path: str | Path, device: str | torch.device = "auto") -> Run:
        """Opens a run for use.

        Args:
            path: its directory, or "zoo:NAME" for one that ships with the package.
            device: where its model shall live; "auto" takes the GPU where there is one.

        Raises:
            OSError: if there is no such run.
            ValueError: if its files are damaged or are not what a run holds.
        """
        if isinstance(path, str) and path.startswith("zoo:"):
            folder = ZOO / path[4:]
            names = [p.name for p in zoo_paths()]
            if path[4:] not in names:
                raise OSError(
                    f"No run {path!r} ships with latentlab; there are {', '.join('zoo:' + n for n in names)}."
                )
        else:
            folder = Path(path).expanduser()
        if not (folder / CONFIG).is_file():
            raise OSError(f"No run at {folder}: a run is a folder with {CONFIG} and {WEIGHTS} in it.")
        text = read_text(_inside(folder, CONFIG))
        try:
            spec = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{folder / CONFIG} is no JSON: {error}.") from None
        return cls(folder, spec, device)

    @classmethod
    def create(cls, path: str | Path, experiment: Experiment, image_shape: tuple[int, int, int]) -> Run:
        """Makes the directory of a new run, and holds it as long as the returned run lives.

        A start that failed before its first weights may be repeated; nothing else is ever written over.

        Raises:
            FolderTaken: (an OSError) if the folder holds a run or other files, or a start in it is under way.
            OSError: if it can't be written.
        """
        folder = Path(path).expanduser()
        spec = {"format": FORMAT, "experiment": experiment.to_dict(), "image_shape": list(image_shape)}
        claim = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            claim = _Claim(folder)
            _check_free(folder)
            if not claim.held:
                raise FolderTaken(f"Another training has just begun in {folder}; choose another --out.")
            with atomic_write(folder / CONFIG, "w") as file:
                json.dump(spec, file, indent=1)
        except FolderTaken:
            claim = None  # a kept traceback would hold it on
            raise
        except OSError as error:
            claim = None
            raise OSError(f"The run can't be written to {folder}: {error.strerror or error}.") from None
        run = cls(folder, spec)
        run._claim = claim
        return run

    @property
    def name(self) -> str:
        """What the run is called: "zoo:NAME" for shipped runs, else the name of its directory."""
        return f"zoo:{self.path.name}" if self.path.parent == ZOO else self.path.resolve().name

    @property
    def config(self) -> Experiment:
        """The configuration it was trained with."""
        return self.experiment

    @property
    def weights_path(self) -> Path:
        """The file that the model is read from."""
        if self.step is None:
            return self.path / WEIGHTS
        return self.path / CHECKPOINTS / f"step-{self.step}.safetensors"

    @cached_property
    def model(self) -> GenerativeModel:
        """The model, ready for analysis: eval mode, no parameter asks for a gradient.

        Where an encoder was kept for its generator (``keep_encoder``), it comes with it.

        Raises:
            OSError: if the weights are missing.
            ValueError: if they are damaged or belong to another network.
        """
        # Without memory until the weights are known to fit: a small file must not cost a large model.
        with torch.device("meta"):
            model = build_model(self.experiment.model, self.image_shape)
        load_weights(model, _inside(self.path, str(self.weights_path.relative_to(self.path))))
        model.to(resolve_device(self._device)).eval().requires_grad_(False)
        if self.step is None and (self.path / ENCODER).is_file():
            return self._with_encoder(model)
        return model

    def _with_encoder(self, model: GenerativeModel) -> WithEncoder:
        """The model and the encoder that was kept for it.

        Raises:
            ValueError: if the encoder's files are damaged or it was made for other weights.
        """
        try:
            kept = json.loads(read_text(_inside(self.path, ENCODER)))
            made_for, spec = kept["model"], EncoderSpec.from_dict(kept["encoder"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"{self.path / ENCODER} could not be read: {error}") from None
        if made_for != weights_digest(model):
            raise ValueError(
                f"The encoder in {self.path} was made for other weights than the run has now; "
                f"train it again, or delete {ENCODER}."
            )
        with torch.device("meta"):
            encoder = spec.build(model)
        load_weights(encoder, _inside(self.path, ENCODER_WEIGHTS))
        encoder.to(resolve_device(self._device)).eval().requires_grad_(False)
        return WithEncoder(model, encoder, spec).eval()

    def keep_encoder(self, model: WithEncoder) -> Run:
        """Puts an encoder that was made for this run's generator into its folder.

        Args:
            model: what ``latentlab.fit_encoder(run.model)`` gives as its ``model``.

        Returns:
            The run anew, which opens with the encoder.

        Raises:
            ValueError: for an encoder of other weights, one that can't be built again, or an earlier step of a run.
            OSError: for a shipped run, which is read-only, or if the folder can't be written.
        """
        if self.path.parent == ZOO:
            raise OSError(
                f"{self.name} ships with latentlab and is read-only; copy its folder and open the copy."
            )
        if self.step is not None:
            raise ValueError(
                "An encoder is kept for a run's last weights; this run is opened at an earlier step."
            )
        if not isinstance(model, WithEncoder) or model.spec is None:
            raise ValueError(
                "Expected the model that latentlab.fit_encoder returns, with the spec of its encoder."
            )
        made_for = weights_digest(model.model)
        own = self.model.model if isinstance(self.model, WithEncoder) else self.model
        if made_for != weights_digest(own):
            raise ValueError("The encoder was made for other weights than this run has.")
        # The description last: without it there is no encoder, so an interruption leaves the run as it was.
        (self.path / ENCODER).unlink(missing_ok=True)
        save_weights(model.encoder, self.path / ENCODER_WEIGHTS)
        with atomic_write(self.path / ENCODER, "w") as file:
            json.dump({"model": made_for, "encoder": model.spec.to_dict()}, file, indent=1)
        return Run(self.path, self._spec, self._device)

    @cached_property
    def digest(self) -> str:
        """Identity of the weights as they were opened: SHA-256, hex; the key of every cache."""
        return weights_digest(self.model)

    @property
    def steps(self) -> list[int]:
        """Steps at which weights were kept, ascending."""
        found = (_STEP_FILE.fullmatch(p.name) for p in (self.path / CHECKPOINTS).glob("step-*.safetensors"))
        return sorted(int(m[1]) for m in found if m)

    def at(self, step: int) -> Run:
        """The same run with the weights it had at an earlier step.

        Raises:
            ValueError: if no weights of that step were kept; the message lists the steps.
        """
        if step not in self.steps:
            kept = ", ".join(map(str, self.steps)) or "none"
            raise ValueError(f"No weights of step {step} in {self.path}; kept: {kept}.")
        return Run(self.path, self._spec, self._device, step)

    def dataset(self, download: bool = False) -> FactorDataset:
        """The data set it was trained on, on the CPU.

        Args:
            download: fetch a public set that is not on this machine; off by default, since a run that came
                from elsewhere should not start downloads by being opened.

        Raises:
            OSError: if its files are not on this machine.
        """
        from latentlab.data import DOWNLOADABLE, open_dataset

        options = dict(self.experiment.data.options)
        if self.experiment.data.name.partition(":")[0] in DOWNLOADABLE:
            options["download"] = download
        return open_dataset(self.experiment.data.name, **options)

    def metrics(self) -> dict[str, np.ndarray]:
        """The logged curves: {column: float64 (rows,)}, "step" among them; empty before the first row."""
        return read_table(_inside(self.path, METRICS))

    def timing(self) -> dict[str, np.ndarray]:
        """Seconds and images per second by step, apart from the metrics, which don't depend on the machine."""
        return read_table(_inside(self.path, TIMING))

    @property
    def card(self) -> str:
        """The model card (markdown), or an empty text."""
        path = self.path / CARD
        return read_text(_inside(self.path, CARD)) if path.is_file() else ""

    @property
    def annotations(self) -> dict:
        """Names, locks and notes that a person gave, {} where there are none or they can't be read."""
        try:
            found = json.loads(read_text(_inside(self.path, "annotations.json")))
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def command(self, **entry: object) -> None:
        """Appends a line to the run's commands, such as ``run.command(command="stop")``."""
        with (self.path / COMMANDS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def __repr__(self) -> str:
        at = "" if self.step is None else f", step {self.step}"
        return f"Run({self.name!r}, {self.experiment.model.family} on {self.experiment.data.name}{at})"


class _Claim:
    """A folder that is its holder's own until nobody keeps the claim any more, or the process has ended.

    Attributes:
        held: False where another claim on the folder lives.
    """

    def __init__(self, folder: Path) -> None:
        self.held = True
        if fcntl is None:
            return
        handle = os.open(folder, os.O_RDONLY)
        weakref.finalize(self, os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.held = False
        except OSError:  # a file system without locks
            return


def _check_free(folder: Path) -> None:
    """Refuses a folder that holds anything but a run that has no weights yet.

    Raises:
        FolderTaken: saying what is there and what is possible.
    """
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return
    try:
        Run.open(folder)
    except (OSError, ValueError):
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        raise FolderTaken(
            f"{folder} holds other files ({shown}), which are not written over; "
            "choose a new or an empty folder for --out."
        ) from None
    if {WEIGHTS, RESUME, CHECKPOINTS} & set(names):
        raise FolderTaken(
            f"A run is at {folder} already; continue it with --resume {folder}, or choose another --out."
        )


def _inside(folder: Path, name: str) -> Path:
    """The path of a run's own file; a link that leaves the run is refused."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{path} leads out of the run's folder, which is not allowed.")
    return path


def read_text(path: Path) -> str:
    """A small UTF-8 text file.

    Raises:
        OSError: if there is no such file.
        ValueError: if it is larger than any text of a run, or no UTF-8.
    """
    if not path.is_file():  # a pipe would be waited on for ever
        raise OSError(f"No file at {path}.")
    if path.stat().st_size > _LARGEST_TEXT:
        raise ValueError(f"{path} should be a small text file; it has {path.stat().st_size:,} bytes.")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} should be a UTF-8 text; it is not.") from None


def load_weights(model: nn.Module, path: Path) -> None:
    """Gives a model the weights of a safetensors file, on the CPU, all or nothing.

    The names and shapes in the file's header are compared first, so that a model that was built on torch's
    "meta" device has no memory before they fit.

    Raises:
        OSError: if the file is missing.
        ValueError: if it is no safetensors file, does not fit the model, or holds numbers that are not finite.
    """
    if not path.is_file():
        raise OSError(f"No weights at {path}; training writes them at its first checkpoint.")
    own = model.state_dict()
    shapes = _read(path, _header)
    if set(own) != set(shapes):
        odd = sorted(set(own) ^ set(shapes))[0]
        state = "missing" if odd in own else "unexpected"
        raise ValueError(f"{path} does not fit the run's model: tensor {odd!r} is {state}.")
    for key, shape in shapes.items():
        if shape != tuple(own[key].shape):
            raise ValueError(
                f"{path} does not fit the run's model: tensor {key!r} should have shape "
                f"{tuple(own[key].shape)}; got {shape}."
            )
    tensors = _read(path, load_file)
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{path} can't be used: tensor {key!r} holds numbers that are not finite.")
    # Copies, since the file's own tensors are views of the file.
    copies = {key: tensor.to(own[key].dtype, copy=True) for key, tensor in tensors.items()}
    model.load_state_dict(copies, assign=True)


def _header(path: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(path, "pt") as file:
        return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}


def _read(path: Path, read: Callable[[Path], dict]) -> dict:
    try:
        return read(path)
    except (SafetensorError, ValueError, RuntimeError, OSError) as error:
        raise ValueError(
            f"{path} is damaged or no safetensors file ({error}); pickles are not loaded."
        ) from None


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes a model's weights as safetensors, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: t.detach().cpu().contiguous() for k, t in model.state_dict().items()}
    with atomic_write(path) as file:
        file.write(save(tensors, metadata={"format": "latentlab"}))


def read_table(path: Path) -> dict[str, np.ndarray]:
    """A CSV of numbers as {column: float64 (rows,)}; a half-written last line is passed over."""
    if not path.is_file():
        return {}
    if path.stat().st_size > _LARGEST_TABLE:
        raise ValueError(
            f"{path} should be a table of at most {_LARGEST_TABLE:,} bytes; it has {path.stat().st_size:,}."
        )
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} should be a table of numbers; it can't be read ({error}).") from None
    if not rows:
        return {}
    header, values = rows[0], []
    for row in rows[1:]:
        try:
            values.append([float(v) if v else np.nan for v in row])
        except ValueError:
            continue
        if len(row) != len(header):
            values.pop()
    table = np.array(values, dtype=np.float64).reshape(-1, len(header))
    return {name: table[:, i] for i, name in enumerate(header)}


@dataclass(frozen=True)
class RunSummary:
    """A run as a list shows it, read from its configuration alone.

    Attributes:
        path: its directory.
        name: what ``Run.open`` takes.
        experiment: its configuration, None where it can't be read.
        error: why it can't be opened, "" where it can.
        has_weights: whether there is a model to open.
    """

    path: Path
    name: str
    experiment: Experiment | None
    error: str
    has_weights: bool


def _summary(path: Path) -> RunSummary:
    name = f"zoo:{path.name}" if path.parent == ZOO else str(path)
    try:
        run = Run.open(name)
    except (OSError, ValueError) as error:
        return RunSummary(path, name, None, str(error), False)
    return RunSummary(path, name, run.experiment, "", (path / WEIGHTS).is_file())


def zoo_paths() -> list[Path]:
    """Directories of the runs that ship with the package."""
    return sorted(p.parent for p in ZOO.glob(f"*/{CONFIG}"))


def zoo_runs() -> list[RunSummary]:
    """The runs that ship with the package."""
    return [_summary(path) for path in zoo_paths()]


def list_runs(folder: str | Path) -> list[RunSummary]:
    """The runs in a folder and one level below it, newest first; those that can't be read say why."""
    folder = Path(folder).expanduser()
    found = {p.parent for depth in ("*", "*/*") for p in folder.glob(f"{depth}/{CONFIG}")}

    def age(path: Path) -> float:
        try:
            return (path / CONFIG).stat().st_mtime
        except OSError:  # deleted since it was listed
            return 0.0

    return [_summary(p) for p in sorted(found, key=age, reverse=True)]


class Workspace:
    """The folder of a person's runs, with the caches of what was computed from them.

    Args:
        folder: ``--runs DIR``, ./runs by default; made when something is first written.
    """

    def __init__(self, folder: str | Path = "runs") -> None:
        self.path = Path(folder).expanduser()

    def runs(self) -> list[RunSummary]:
        """Runs in the workspace, newest first."""
        return list_runs(self.path)

    def cache(self, digest: str, key: str, suffix: str = ".npz") -> Path:
        """Where a result of the weights ``digest`` is kept; its folder is made.

        Args:
            digest: SHA-256 of the weights.
            key: a short name of the result, letters, digits, "-" and "_".
            suffix: file ending.

        Raises:
            ValueError: on a digest or key that is no plain name.
        """
        if not re.fullmatch(r"[0-9a-f]{64}", digest) or not re.fullmatch(r"[\w-]{1,120}", key):
            raise ValueError(f"A cache needs a hex digest and a plain key; got {digest!r} and {key!r}.")
        folder = self.path / ".cache" / digest[:16]
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{key}{suffix}"
