"""What a training run leaves behind while it goes: curves, previews, weights, and the state to resume from.

Every file is written whole or not at all, so a run that is killed loses at most the steps since the last
checkpoint. The recorder only reads the model: with it or without it, the weights are the same.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from tqdm import tqdm

from latentlab.config import Experiment
from latentlab.files import atomic_write
from latentlab.models.contract import GenerativeModel
from latentlab.runs import (
    CHECKPOINTS,
    COMMANDS,
    METRICS,
    PREVIEWS,
    RESUME,
    TIMING,
    WEIGHTS,
    Run,
    read_table,
    save_weights,
)

LOOK_EVERY = 5.0  # seconds between two looks at the run's commands

Preview = Callable[[GenerativeModel, Path], None]


class Training(Protocol):
    """What a training module tells the recorder, whatever it trains.

    All that the next step depends on lies in its submodules, its optimisers, ``step`` and ``sums``.

    Attributes:
        model: what previews show, and whose weights the run keeps.
        experiment: the configuration.
        step: number of steps made so far.
        sums: what was reported since the last row, {names: (sum of the rows, number of rows)}.
        optimizers: Lightning's method: one optimiser, or a list of them.
    """

    model: Any
    experiment: Experiment
    step: int
    sums: dict[str, tuple[Tensor, int]]
    optimizers: Any

    def take_means(self) -> dict[str, float]:
        """The next row to log; what is called "loss", or ends in "_loss", must stay finite."""
        ...

    def status(self, means: dict[str, float]) -> str:
        """The row as the progress bar shows it."""
        ...

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """Its submodules: model, objective and what else it trains."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Weights and buffers of all submodules."""
        ...


def kept_steps(max_steps: int) -> list[int]:
    """The log-spaced steps at which weights are kept: 0, 10, 20, 50, 100, …, and the last."""
    series = [m * 10**e for e in range(1, 10) for m in (1, 2, 5)]
    return [0, *(s for s in series if s < max_steps), max_steps]


class Recorder(pl.Callback):
    """Writes a run's files, shows the progress, and obeys the run's commands.

    Args:
        run: the directory to write to.
        training: the module whose sums it logs.
        preview: draws a picture of the model to a path; None for no previews.
        show_progress: whether to show a bar.
    """

    def __init__(
        self, run: Run, training: Training, preview: Preview | None = None, show_progress: bool = True
    ) -> None:
        self.run = run
        self.training = training
        self.preview = preview
        self.show_progress = show_progress
        self.saved_step: int | None = None
        self.stopped_by = ""
        self._kept = set(kept_steps(training.experiment.max_steps))
        self._commands_read, self._looked = 0, 0.0
        self._tensorboard = None

    # -- Lightning's calls -------------------------------------------------------------------

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drops rows that are about to be made again and opens bar and logs."""
        experiment, step = self.training.experiment, self.training.step
        self.saved_step = step or None
        for name in (METRICS, TIMING):
            _keep_rows(self.run.path / name, step)
        self._looked = time.monotonic()
        commands = self.run.path / COMMANDS
        self._commands_read = len(commands.read_bytes()) if commands.exists() else 0
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._tensorboard = SummaryWriter(str(self.run.path / "tensorboard"), purge_step=step)
        self._since, self._since_step = time.perf_counter(), step
        self._bar = tqdm(
            total=experiment.max_steps * experiment.batch_size,
            initial=step * experiment.batch_size,
            desc=self.run.name,
            unit="img",
            unit_scale=True,
            mininterval=0.5,
            disable=not self.show_progress,
            dynamic_ncols=True,
        )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves the weights before the first step."""
        if self.training.step == 0:
            self._save(0)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        """Logs, draws and saves what is due after a step, then looks for a stop."""
        training, experiment = self.training, self.training.experiment
        step = training.step
        last = step == experiment.max_steps
        self._bar.update(experiment.batch_size)
        if step % experiment.log_every == 0 or last:
            self._log(step)
        if step % experiment.log_every == 0 or last or time.monotonic() - self._looked > LOOK_EVERY:
            self._looked = time.monotonic()
            if self._told_to_stop():
                self.stopped_by = "a stop command"
        if experiment.preview_every and (step % experiment.preview_every == 0 or last):
            self._draw(step)
        stopping = bool(self.stopped_by) and not last
        if step % experiment.checkpoint_every == 0 or step in self._kept or last or stopping:
            self._save(step)
        if stopping:
            trainer.should_stop = True

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Closes bar and logs, also after an error."""
        if hasattr(self, "_bar"):
            self._bar.close()
        if self._tensorboard:
            self._tensorboard.close()

    # -- what it writes ----------------------------------------------------------------------

    def _log(self, step: int) -> None:
        means = self.training.take_means()
        now = time.perf_counter()
        seconds, steps = now - self._since, step - self._since_step
        self._since, self._since_step = now, step
        wrong = [n for n, v in means.items() if (n == "loss" or n.endswith("_loss")) and not math.isfinite(v)]
        if wrong:
            kept = "nothing was saved yet" if self.saved_step is None else f"step {self.saved_step} is kept"
            raise FloatingPointError(
                f"The {wrong[0].replace('_', ' ')} became {means[wrong[0]]} between steps {step - steps} and {step}; "
                f"{kept}. "
                "A smaller learning_rate or precision fp32 may help."
            )
        rate = steps * self.training.experiment.batch_size / max(seconds, 1e-9)
        self._bar.set_postfix_str(self.training.status(means), refresh=False)
        with _disk(self, "log", step):
            _append(self.run.path / METRICS, {"step": step, **means})
            _append(
                self.run.path / TIMING,
                {"step": step, "seconds": round(seconds, 3), "images_per_second": round(rate, 1)},
            )
            if self._tensorboard:
                for name, value in means.items():
                    self._tensorboard.add_scalar(f"train/{name}", value, step)

    def _draw(self, step: int) -> None:
        if self.preview is None:
            return
        folder = self.run.path / PREVIEWS
        with _disk(self, "draw a preview", step):
            folder.mkdir(exist_ok=True)
            training = self.training.model.training
            self.training.model.eval()
            try:
                self.preview(self.training.model, folder / f"step-{step}.png")
            finally:
                self.training.model.train(training)

    def _save(self, step: int) -> None:
        training = self.training
        # Buffers too: a run with statistics that are not finite could not be opened.
        if not all(bool(torch.isfinite(tensor).all()) for tensor in training.state_dict().values()):
            kept = "nothing was saved yet" if self.saved_step is None else f"step {self.saved_step} is kept"
            raise FloatingPointError(f"The weights were no longer finite at step {step}; {kept}.")
        with _disk(self, "save", step):
            if step in self._kept:
                save_weights(training.model, self.run.path / CHECKPOINTS / f"step-{step}.safetensors")
            save_weights(training.model, self.run.path / WEIGHTS)
            with atomic_write(self.run.path / RESUME) as file:
                torch.save(resume_state(training), file)
        self.saved_step = step

    def _told_to_stop(self) -> bool:
        path = self.run.path / COMMANDS
        if not path.exists():
            return False
        lines = path.read_bytes()[self._commands_read :]
        whole = lines[: lines.rfind(b"\n") + 1]
        self._commands_read += len(whole)
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, dict) and entry.get("command") == "stop":
                return True
        return False


class _disk:
    """Turns a failed write into one sentence that says what is safe."""

    def __init__(self, recorder: Recorder, doing: str, step: int) -> None:
        self.recorder, self.doing, self.step = recorder, doing, step

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, (OSError, RuntimeError)) and not isinstance(error, NotImplementedError):
            saved = self.recorder.saved_step
            kept = (
                "no checkpoint was saved before"
                if saved is None
                else f"the checkpoint of step {saved} is kept"
            )
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise OSError(
                f"Could not {self.doing} at step {self.step} in {self.recorder.run.path}: {reason}; {kept}."
            ) from None


def resume_state(training: Training) -> dict:
    """Everything that the next step depends on, as plain tensors and numbers."""
    optimisers = training.optimizers(use_pl_optimizer=False)
    optimisers = optimisers if isinstance(optimisers, list) else [optimisers]
    return {
        "format": 1,
        "step": training.step,
        **{name: part.state_dict() for name, part in training.named_children()},
        "optimisers": [o.state_dict() for o in optimisers],
        "sums": dict(training.sums),
    }


def _append(path: Path, row: dict) -> None:
    """Appends a row by the names of its columns; a new name gets a column, empty in the rows before."""
    header: list[str] = []
    if path.exists() and path.stat().st_size:
        with path.open(encoding="utf-8", newline="") as file:
            header = next(csv.reader(file))
    fresh = [name for name in row if name not in header]
    if fresh and header:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        with atomic_write(path, "w") as file:
            writer = csv.DictWriter(file, [*header, *fresh], restval="")
            writer.writeheader()
            writer.writerows(rows)
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*header, *fresh], restval="")
        if not header:
            writer.writeheader()
        writer.writerow(row)


def _keep_rows(path: Path, step: int) -> None:
    """Drops the rows behind a step, which are about to be made again, and a half-written last line."""
    table = read_table(path)
    if not table:
        path.unlink(missing_ok=True)
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    with atomic_write(path, "w") as file:
        file.write(lines[0] + "\n")
        for line in lines[1:]:
            fields = line.split(",")
            if len(fields) == len(table) and fields[0].isdigit() and int(fields[0]) <= step:
                file.write(line + "\n")
