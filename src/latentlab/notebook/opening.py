"""The widget's opening: which sliders a model gets, where they start, and who draws the pictures."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latentlab.analysis import encode_dataset, encode_images
from latentlab.analysis.encoding import Encoding
from latentlab.analysis.inference import (
    as_code,
    check_seed,
    decode_latents,
    device_of,
    input_spaces,
    to_numpy,
)
from latentlab.evaluation import labels_of
from latentlab.export import PRECISIONS, lower
from latentlab.export.axes import Labels, axes_of, factor_labels
from latentlab.models.contract import is_inference_model, space_of
from latentlab.models.edits import Edit
from latentlab.models.gan import GAN
from latentlab.runs import Run

if TYPE_CHECKING:
    from latentlab.notebook.traverse_widget import TraverseWidget

ENGINES = ("auto", "browser", "kernel")


def widget(
    run: Any,
    *,
    z: Any = None,
    edits: Sequence[Edit] = (),
    space: str | None = None,
    encoding: Encoding | None = None,
    labels: Labels | None = None,
    images: int = 500,
    engine: str = "auto",
    precision: str = "f16",
    live: bool = False,
    seed: int = 0,
) -> TraverseWidget:
    """A model's sliders and picture as a widget for Jupyter and marimo notebooks.

    The picture is drawn in the browser while a slider is dragged: no kernel is asked, so it also moves while a cell
    runs, and in a saved page. A model that the browser engine can't run is drawn by the kernel instead. ``z`` and the
    other values come back to Python when the person lets go::

        w = latentlab.widget("zoo:scenes-vae")
        w                 # in a cell of its own: the sliders
        w.z               # (dim,) float32, as the person left it; w.z = … moves the sliders
        w.observe(print, "z")
        w.image           # what torch decodes there: (channels, height, width) in [0, 1]

    Args:
        run: an opened run, its path or name ("zoo:scenes-vae"), or a model.
        z: the code (dim,) to start from; None for an image of the run's data, and else for a draw from the prior.
        edits: changes of hidden units that the pictures are drawn with, such as units switched off.
        space: name of the space whose coordinates are moved, such as "w"; None for the model's first one.
        encoding: of the run's data by its model: it gives ranges and order; None to encode ``images`` images here.
        labels: {latent: (factor it knows most of, nats)}, which name the sliders; None for those of a kept report, and
            else for those measured here.
        images: how many images to encode where no encoding is given; 0 for none, and the prior's ranges.
        engine: who draws: "browser", "kernel", or "auto" for the browser where it can.
        precision: of the weights that the browser gets: "f32", "f16" or "int8".
        live: send ``z`` while a slider is dragged, too, ten times a second at most, and not only on release.
        seed: decides which images are encoded, the start without one, and the first seed of the dice.

    Raises:
        ImportError: without the extra: pip install 'latentlab[widget]'.
        TypeError: if ``run`` is neither a run, nor a name, nor a model.
        ValueError: on a code, edits, a space or an option that don't fit, or a model that ``engine`` can't draw.
        OSError: if there is no run of that name.
    """
    if importlib.util.find_spec("anywidget") is None:
        raise ImportError("The notebook widget needs anywidget: pip install 'latentlab[widget]'.")
    if engine not in ENGINES:
        raise ValueError(f"engine is one of {', '.join(ENGINES)}; got {engine!r}.")
    if precision not in PRECISIONS:
        raise ValueError(f"precision is one of {', '.join(PRECISIONS)}; got {precision!r}.")
    if not isinstance(images, int) or images < 0:
        raise ValueError(f"images is how many images to encode, 0 or more; got {images!r}.")
    seed = check_seed(seed)
    run, model = _opened(run)
    place = space_of(model, space).name
    first = place == model.latent_space.name
    data = None if run is None or (z is not None and encoding is not None) else _dataset(run)
    if encoding is None and data is not None and images and is_inference_model(model):
        encoding = encode_dataset(model, data, images, seed=seed)
    if z is None and first and data is not None and is_inference_model(model) and not isinstance(model, GAN):
        z = encode_images(
            model, to_numpy(data.images(np.array([0 if encoding is None else encoding.indices[0]])))
        )
    code = to_numpy(as_code(model, z, seed, space=place))
    if first:
        kept = labels_of(run) if labels is None and run is not None else labels
        names = run.annotations.get("names", {}) if run is not None else {}
        axes = axes_of(
            model,
            code,
            encoding=encoding,
            labels=kept or (factor_labels(encoding, seed) if labels is None else labels),
            names={str(k): str(v) for k, v in names.items()} if isinstance(names, dict) else {},
        )
    else:
        axes = _axes_of_space(model, place, code, seed)
    edits = tuple(edits)
    decode_latents(model, code, edits=edits, space=place)  # refuses edits that this model does not have
    program, steps, weights = _program(model, place, edits, engine, precision)
    content = {
        "name": type(model).__name__ if run is None else run.name,
        "axes": axes,
        "image_shape": list(model.image_shape),
        "stages": program["stages"] if program else _stages(model, place, code),
        "program": program,
        "live": bool(live),
        "seed": seed,
    }
    from latentlab.notebook.traverse_widget import TraverseWidget

    return TraverseWidget(model, run, place, content, steps, weights, z=code, edits=edits)


def _opened(run: Any) -> tuple[Run | None, Any]:
    """The run, if there is one, and the model."""
    if isinstance(run, str | Path):
        run = Run.open(run)
    if isinstance(run, Run):
        return run, run.model
    if hasattr(run, "latent_space") and callable(getattr(run, "decode", None)):
        return None, run
    raise TypeError(f"Expected a run, its name or path, or a model; got {type(run).__name__}.")


def _dataset(run: Run) -> Any:
    """The run's data, None where they are not on this machine."""
    try:
        return run.dataset()
    except (OSError, ValueError):
        return None


def _axes_of_space(model: Any, space: str, code: np.ndarray, seed: int) -> list[dict[str, Any]]:
    """Sliders of a space that codes are carried to, the widest first."""
    from latentlab.analysis import dim_ranges

    ranges = dim_ranges(model, span="prior", coverage=0.98, space=space, seed=seed)
    order = np.argsort(ranges[:, 0] - ranges[:, 1], kind="stable")
    return [
        {
            "name": space_of(model, space).names[i],
            "meaning": "",
            "known": "",
            "help": f"An axis of {space.upper()}: the widest come first",
            "index": int(i),
            "low": float(min(ranges[i, 0], code[i])),
            "high": float(max(ranges[i, 1], code[i])) + 1e-6,
            "default": float(code[i]),
            "std": float((ranges[i, 1] - ranges[i, 0]) / 4.65),  # 98 % of a normal spans so many
            "sigma": [float(ranges[i].mean()), float((ranges[i, 1] - ranges[i, 0]) / 4.65)],
            "kl": None,
            "inactive": False,
            "group": "",
            "choices": [],
            "whole": False,
        }
        for i in order
    ]


def _program(
    model: Any, space: str, edits: tuple[Edit, ...], engine: str, precision: str
) -> tuple[dict[str, Any] | None, bytes, bytes]:
    """What the browser runs: the program, its steps and weights; no program where the kernel draws."""
    if engine == "kernel":
        return None, b"", b""
    try:
        check_drawable(edits)
        program, steps, weights = lower(model, space=space).packed(precision)
    except ValueError:
        if engine == "browser":
            raise
        return None, b"", b""
    known = {stage["address"] for stage in program["stages"]}
    if {edit.stage for edit in edits} <= known:
        return program, steps, weights
    if engine == "browser":
        raise ValueError(
            f"The browser engine has the stages {', '.join(sorted(known))}; an edit names another."
        )
    return None, b"", b""


def check_drawable(edits: Sequence[Edit]) -> None:
    """Refuses edits that the browser engine does not know.

    Raises:
        ValueError: naming the edit, and the engine that draws it.
    """
    for edit in edits:
        if edit.region is not None or edit.operation == "replace":
            raise ValueError(
                f"The browser draws edits of whole maps; the edit of {edit.stage!r} has a region or another sample: "
                "open the widget with engine='kernel'."
            )


def _stages(model: Any, space: str, code: np.ndarray) -> list[dict[str, Any]]:
    """The stages whose units can be shown and switched by the kernel: of a generator that reads these codes itself."""
    from latentlab.analysis.inference import inference, to_tensor

    if input_spaces(model).get("generator") != space:
        return []
    with inference(model):
        described = model.generator.describe(to_tensor(code[None], device_of(model)))
    return [
        {"address": stage.address, "kind": stage.kind, "shape": list(stage.shape)}
        for stage in described
        if len(stage.shape) in (1, 3)
    ]
