"""fit: from an experiment to a run, and from an interrupted run to its end."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch

from latentlab.config import Experiment
from latentlab.data import open_dataset
from latentlab.data.factors import FactorDataset
from latentlab.models.build import build_model
from latentlab.models.gan import GAN
from latentlab.models.precision import in_bf16
from latentlab.models.vae import VAE
from latentlab.objectives.adversarial import build_adversarial
from latentlab.objectives.build import build_objective
from latentlab.objectives.variational import DataDescription
from latentlab.processes import announced
from latentlab.runs import RESUME, Run, resolve_device
from latentlab.training.gan import GANTraining
from latentlab.training.memory import keep_memory
from latentlab.training.recorder import Preview, Recorder
from latentlab.training.vae import VAETraining

Training = VAETraining | GANTraining


def fit(
    experiment: Experiment,
    out: str | Path,
    *,
    device: str = "auto",
    preview: Preview | None = None,
    progress: bool = True,
    callbacks: Sequence[pl.Callback] = (),
) -> Run:
    """Trains a model from scratch and returns its run.

    Args:
        experiment: what to train, on what, how long.
        out: directory of the run; it must not hold one yet.
        device: "auto", "cpu", "cuda".
        preview: called as ``preview(model, path)`` every ``preview_every`` steps to draw a PNG.
        progress: show a bar with images per second, the figures that the model's training reports, and time left.
        callbacks: further Lightning callbacks; they run after the run's own.

    Returns:
        The run, with its weights on disk. A Ctrl-C or a stop command ends early, saved at that step.

    Raises:
        ValueError: on a configuration that does not fit together.
        OSError: on data or a folder that can't be read or written; the last good checkpoint is kept.
        FloatingPointError: if the loss stops being finite; the last good checkpoint is kept.
    """
    resolve_device(device)
    in_bf16(experiment.precision, resolve_device(device))
    dataset = open_dataset(experiment.data.name, **experiment.data.options)
    training = _training(experiment, dataset)
    run = Run.create(out, experiment, dataset.image_shape)
    return _train(run, training, device, preview, progress, callbacks)


def resume(
    path: str | Path,
    *,
    max_steps: int | None = None,
    device: str = "auto",
    preview: Preview | None = None,
    progress: bool = True,
    callbacks: Sequence[pl.Callback] = (),
) -> Run:
    """Continues a run from its last checkpoint, to the same bits as if it had never stopped (on the CPU).

    Args:
        path: directory of the run.
        max_steps: must be the run's own or None; a run's length belongs to its configuration.
        device: "auto", "cpu", "cuda".
        preview: as in ``fit``.
        progress: as in ``fit``.
        callbacks: as in ``fit``.

    Raises:
        OSError: if there is no run, or no checkpoint in it.
        ValueError: if the checkpoint is damaged or does not fit.
    """
    run = Run.open(path)
    experiment = run.experiment
    if max_steps is not None and max_steps != experiment.max_steps:
        raise ValueError(
            f"{run.path} is a run of {experiment.max_steps} steps; max_steps can't be {max_steps}."
        )
    state = _read_state(run.path / RESUME)
    dataset = open_dataset(experiment.data.name, **experiment.data.options)
    training = _training(experiment, dataset)
    try:
        for name, part in training.named_children():
            part.load_state_dict(state[name])
        training.step, training.sums = state["step"], state["sums"]
        optimiser_states = state["optimisers"]
    except (RuntimeError, KeyError, TypeError) as error:
        raise ValueError(f"{run.path / RESUME} does not fit this run: {str(error).splitlines()[0]}") from None
    if training.step >= experiment.max_steps:
        return run
    return _train(run, training, device, preview, progress, callbacks, optimiser_states)


def _variational(experiment: Experiment, dataset: FactorDataset) -> VAETraining:
    model = build_model(experiment.model, dataset.image_shape, experiment.seed)
    assert isinstance(model, VAE)
    data = DataDescription.of(dataset)
    objective = build_objective(experiment.objective, model, data, experiment.seed)
    return VAETraining(model, objective, dataset, experiment)


def _adversarial(experiment: Experiment, dataset: FactorDataset) -> GANTraining:
    model = build_model(experiment.model, dataset.image_shape, experiment.seed)
    assert isinstance(model, GAN)
    return GANTraining(model, build_adversarial(experiment.objective), dataset, experiment)


TRAININGS: dict[str, Callable[[Experiment, FactorDataset], Training]] = {
    "variational": _variational,
    "adversarial": _adversarial,
}
"""The training of each kind of model: all that is particular to a kind lies behind it."""


def _training(experiment: Experiment, dataset: FactorDataset) -> Training:
    """Model, objective and data of an experiment, joined; the seed decides all initial weights."""
    return TRAININGS[experiment.model.kind](experiment, dataset)


def _read_state(path: Path) -> dict:
    if not path.is_file():
        raise OSError(f"Nothing to resume at {path.parent}: it has no {RESUME}.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file; none may pass as something else
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is damaged or not a checkpoint of a run ({reason}).") from None
    if not isinstance(state, dict) or state.get("format") != 1 or not isinstance(state.get("step"), int):
        raise ValueError(f"{path} is not a checkpoint of a run.")
    return state


class _Steps:
    """The numbers of the steps still to go: batches are made on the device from the step alone."""

    def __init__(self, begin: int, end: int) -> None:
        self.steps = range(begin, end)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self):
        return iter(self.steps)


class _Restore(pl.Callback):
    """Puts the optimisers' state back once Lightning has made them."""

    def __init__(self, states: list[dict]) -> None:
        self.states = states

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for optimiser, state in zip(trainer.optimizers, self.states, strict=True):
            optimiser.load_state_dict(state)


class _Interrupt:
    """Turns the first Ctrl-C into a stop after the step at hand; the second one is Python's own."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def __enter__(self) -> None:
        self.usable = threading.current_thread() is threading.main_thread()
        if self.usable:
            self.previous = signal.signal(signal.SIGINT, self._note)

    def _note(self, number: int, frame: object) -> None:
        self.recorder.stopped_by = "Ctrl-C"
        signal.signal(signal.SIGINT, self.previous)

    def __exit__(self, *_: object) -> None:
        if self.usable:
            signal.signal(signal.SIGINT, self.previous)


def _train(
    run: Run,
    training: Training,
    device: str,
    preview: Preview | None,
    progress: bool,
    callbacks: Sequence[pl.Callback],
    optimiser_states: list[dict] | None = None,
) -> Run:
    chosen = resolve_device(device)
    experiment = training.experiment
    if experiment.keep_memory:
        keep_memory()
    recorder = Recorder(run, training, preview, progress)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
        trainer = pl.Trainer(
            accelerator="gpu" if chosen.type == "cuda" else "cpu",
            devices=[chosen.index or 0] if chosen.type == "cuda" else 1,
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[recorder, *([_Restore(optimiser_states)] if optimiser_states else []), *callbacks],
        )
        place = f"cuda:{chosen.index or 0}" if chosen.type == "cuda" else chosen.type
        with _Interrupt(recorder), announced(run.path, place, lambda: recorder.stopped_by):
            trainer.fit(training, _Steps(training.step, experiment.max_steps))
    finished = Run.open(run.path, device)
    finished.stopped_by = recorder.stopped_by
    return finished
