"""The model card of a run: what it is, what it was trained on, how well it does, how to open it.

Put together from analyses and pictures; every figure is computed from the weights on disk when the card is
written, and says on what.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from latentlab.files import atomic_write
from latentlab.latents import UNORDERED, Categorical, LatentSpace
from latentlab.models.contract import GenerativeModel, InferenceModel, is_inference_model
from latentlab.runs import CARD, Run

if TYPE_CHECKING:
    from latentlab.analysis.encoding import Encoding
    from latentlab.data.factors import FactorDataset

_IMAGES = 4000
_STRIPS = 8
_ROWS = 8
_CODES = 64
_ADVERSARIAL = {
    "D(real)": "d_real",
    "D(fake)": "d_fake",
    "diversity": "diversity",
    "diversity within labels": "diversity_within",
}


def preview(model: GenerativeModel, path: Path) -> None:
    """Draws a 4 x 8 grid of samples, always of the same codes, to a PNG that is there whole or not at all."""
    from latentlab.viz import images

    with torch.inference_mode():
        samples = model.sample(32, seed=0).float().cpu().numpy()
    with atomic_write(path) as file:
        images.grid(samples.reshape(4, 8, *samples.shape[1:])).save(file, format="PNG")


def write_card(run: Run, claim: str = "") -> str:
    """Writes README.md, samples.png and traversal.png into a run.

    What needs an encoder is left out where the model has none: its card shows a traversal of the prior and the
    course of the training. So it does where the data can't be opened any more; what then, or because there are too few
    images, can't be computed is left out, and the card says why.

    Args:
        run: a trained run in a writable folder.
        claim: what the experiment set out to show; its docstring.

    Returns:
        The card (markdown).
    """
    experiment, model = run.experiment, run.model
    dataset, missing = _data_or_reason(run)
    preview(model, run.path / "samples.png")
    if dataset is not None and is_inference_model(model):
        traversed, figures = _encoded(run, model, dataset)
    else:
        traversed, figures = _generated(run, model)
    if missing and is_inference_model(model):
        figures.append(_left_out("the figures on images of the data", missing))
    metrics, timing = run.metrics(), run.timing()
    step = int(metrics["step"][-1])
    lines = [
        "---",
        "library_name: latentlab",
        f"tags: [{experiment.model.family}, {experiment.objective.objective}]",
        f"datasets: [{experiment.data.name}]",
        "---",
        f"# {experiment.name}",
        "",
        *([claim, ""] if claim else []),
        "![samples](samples.png)",
        "",
        f"![{traversed}](traversal.png)",
        "",
        "## What it is",
        "",
        f"- model: {experiment.model!r}",
        f"- objective: {experiment.objective!r}",
        f"- data: {experiment.data.name} {experiment.data.options or ''}, images {run.image_shape}"
        + (f"; {dataset.source}" if dataset is not None else ""),
        f"- training: {step:,} steps of {experiment.batch_size}, Adam at {experiment.learning_rate}, "
        f"seed {experiment.seed}, {np.nansum(timing['seconds']) / 60:.0f} minutes "
        f"({np.nanmedian(timing['images_per_second']):,.0f} images/s in the median)",
        f"- weights: sha256 {run.digest[:16]}…, {sum(p.numel() for p in model.parameters()):,} parameters",
        "",
        "## Figures",
        "",
        *figures,
        "",
        "## Use",
        "",
        "```python",
        "import latentlab",
        "",
        f'run = latentlab.Run.open("{run.name if run.name.startswith("zoo:") else "PATH OF THIS FOLDER"}")',
        "latentlab.traverse(run.model)",
        "```",
        "",
        "Made to show and to teach how such models work; not meant to decide anything about people.",
        "",
    ]
    card = "\n".join(lines)
    with atomic_write(run.path / CARD, "w") as file:
        file.write(card)
    return card


def _data_or_reason(run: Run) -> tuple[FactorDataset | None, str]:
    """The data of a run, or None and why they can't be opened, such as a folder that was moved meanwhile."""
    try:
        return run.dataset(), ""
    except (ValueError, TypeError, OSError) as error:
        return None, str(error)


def _left_out(what: str, why: object) -> str:
    return f"- left out: {what}. {str(why).rstrip('.')}."


def headline(run: Run) -> str:
    """The last logged figures of a run in a few words, of those that its kind of training logs."""
    last = {name: column[-1] for name, column in run.metrics().items() if len(column)}
    parts = [f"{name} {last[name]:.2f}" for name in ("reconstruction", "kl") if name in last]
    if parts:
        parts[-1] += " nats per image"
    if "active_dimensions" in last:
        parts.append(f"{int(last['active_dimensions'])} latents active")
    parts += [f"{title} {last[name]:.2f}" for title, name in _ADVERSARIAL.items() if name in last]
    if last.get("collapsed"):
        parts.append(f"{_alike(run.metrics())} look alike")
    return ", ".join(parts)


def _alike(metrics: Mapping[str, np.ndarray]) -> str:
    """Which samples of a collapsed generator look alike: those of a label where it is told one, if not all."""
    within = metrics.get("diversity_within")
    apart = within is not None and within[-1] < metrics["diversity"][-1]
    return "all samples of a label" if apart else "all samples"


def _encoded(run: Run, model: InferenceModel, dataset: FactorDataset) -> tuple[str, list[str]]:
    """Draws a traversal around an encoded image; what it shows, and the figures of a model with an encoder."""
    from latentlab import viz
    from latentlab.analysis import encode_dataset, encode_images, traverse

    count = min(_IMAGES, len(dataset))
    encoding = encode_dataset(model, dataset, count, seed=1, reconstruction=True)
    start = encode_images(model, dataset.images(encoding.indices[:1]))[0]
    latents = _by_information(encoding, model.latent_space)
    shown = [name for name, _, _ in latents[:_STRIPS]]
    strips = traverse(model, start, shown, span="posterior", encoding=encoding, steps=9)
    viz.show(strips, caption=False).save(run.path / "traversal.png")
    lines = [
        *_course(run),
        f"- {count:,} images of the data: KL {encoding.kl_per_dim.sum():.2f} nats per image, "
        f"{sum(active for _, _, active in latents)} of {len(latents)} latents active (more than "
        f"{encoding.certificate['kl_threshold']:g} nats of KL), mean squared error per pixel "
        f"{float(np.mean(np.asarray(encoding.reconstruction_error))):.5f}",
        "- KL by latent, nats: " + ", ".join(f"{name} {kl:.2f}" for name, kl, _ in latents),
        *_named(model, encoding),
        *_read_by_lines(dataset, encoding),
    ]
    return "traversal of the latents with the largest KL around one encoded image", lines


def _read_by_lines(dataset: FactorDataset, encoding: Encoding) -> list[str]:
    """How well straight lines read the factors with an order; nothing where there are none."""
    from latentlab.analysis import linear_readout

    if encoding.factors is None or dataset.factor_space is None or not is_ordered(dataset):
        return []
    names = tuple(n for n in dataset.factor_space.names if n not in dataset.categories)
    try:
        readout = linear_readout(
            encoding, {k: v for k, v in dataset.circular.items() if k in names}, factors=names
        )
    except ValueError as error:
        return [_left_out("linear fits of the factors", error)]
    return [
        "",
        f"Linear fits from the latents, R² on held-out images (of {encoding.n:,}); shuffled factors give "
        f"{readout.certificate['highest_r2_of_shuffled_factors']:.2f} at most:",
        "",
        "| factor | " + " | ".join(readout.factors) + " |",
        "| --- |" + " --- |" * len(names),
        "| read as | " + " | ".join("cos, sin" if c else "value" for c in readout.circular) + " |",
        "| R² | " + " | ".join(f"{r:.2f}" for r in readout.r2) + " |",
    ]


def _by_information(encoding: Encoding, space: LatentSpace) -> list[tuple[str, float, bool]]:
    """Name, mean KL and whether it is active of each latent, the most informative first; a category is one latent."""
    found: dict[str, float] = {}
    for i in encoding.order:
        block = space.block_of(int(i))
        name = block.name if isinstance(block.prior, Categorical) else encoding.dim_names[i]
        found[name] = found.get(name, 0.0) + float(encoding.kl_per_dim[i])
    least = float(encoding.certificate["kl_threshold"])
    return [(name, kl, kl > least) for name, kl in sorted(found.items(), key=lambda latent: -latent[1])]


def _named(model: InferenceModel, encoding: Encoding) -> list[str]:
    """How often a model that reads labels names them rightly."""
    lines = []
    for factor in getattr(model, "label_factors", ()):
        if encoding.factors is None or factor not in encoding.factor_names:
            continue
        if factor not in model.latent_space.block_names:
            continue
        guesses = encoding.mean[:, model.latent_space.slice(factor)].argmax(1)
        right = float((guesses == encoding.factors[:, encoding.factor_names.index(factor)]).mean())
        share = float(getattr(model, "labelled", 1.0))
        lines.append(
            f"- {factor}: read off {100 * right:.1f} % of these images correctly; training knew that of "
            f"{100 * share:.3g} % of them"
        )
    return lines


def _course(run: Run) -> list[str]:
    """How training went: the last figures of a bound, or the course of a game of two players."""
    metrics = run.metrics()
    if "reconstruction" in metrics:
        return [
            f"- last {run.experiment.log_every} training steps: reconstruction {metrics['reconstruction'][-1]:.2f}, "
            f"KL {metrics['kl'][-1]:.2f} nats per image",
            *_parts(metrics),
        ]
    columns = _ADVERSARIAL | {
        name.replace("_", " "): name
        for name in metrics
        if name.endswith("_loss") or name.startswith("information_")
    }
    columns = {title: name for title, name in columns.items() if name in metrics}
    rows = np.unique(np.linspace(0, len(metrics["step"]) - 1, _ROWS).astype(int))
    lines = [
        f"Means of the {run.experiment.log_every} training steps before each row; diversity is how far samples lie "
        "apart, 1 where as far as the data's images:",
        "",
        "| step | " + " | ".join(columns) + " |",
        "| --- |" + " --- |" * len(columns),
        *(
            f"| {int(metrics['step'][i]):,} | "
            + " | ".join(f"{metrics[name][i]:.2f}" for name in columns.values())
            + " |"
            for i in rows
        ),
        "",
    ]
    if "collapsed" in metrics and metrics["collapsed"][-1]:
        lines += [f"- **collapsed**: when training ended, {_alike(metrics)} looked nearly alike"]
    return lines


def _parts(metrics: Mapping[str, np.ndarray]) -> list[str]:
    """The KL taken apart after the last step, and by what; a run of before this was measured has no such line."""
    names = {
        "mutual information of code and image": "mutual_information_half_own",
        "total correlation": "total_correlation_half_own",
        "dimension-wise KL": "dimension_wise_kl_half_own",
    }
    if not {"measured_images", *names.values()} <= set(metrics):
        return []
    figures = ", ".join(f"{title} {metrics[name][-1]:.2f}" for title, name in names.items())
    bounds = [f"{metrics[f'mutual_information_{end}'][-1]:.2f}" for end in ("least", "most")]
    return [
        f"- after the last step: {figures} nats, estimated over {int(metrics['measured_images'][-1]):,} images, a "
        f"code's own image counted by half; the mutual information lies between {' and '.join(bounds)}"
    ]


def _generated(run: Run, model: GenerativeModel) -> tuple[str, list[str]]:
    """Draws a traversal around a prior draw; what it shows, and the course of training without an encoder."""
    from latentlab import viz
    from latentlab.analysis import traverse

    order = _by_effect(model)
    categories = [b.name for b in model.latent_space.blocks if isinstance(b.prior, Categorical)]
    shown = [*categories, *(name for name, _ in order)][:_STRIPS]
    strips = traverse(model, None, shown, span="prior", steps=9)
    viz.show(strips, caption=False).save(run.path / "traversal.png")
    lines = _course(run)
    if order:
        effects = ", ".join(f"{name} {change:.4f}" for name, change in order)
        lines.append(f"- mean absolute change of a pixel for one standard deviation, by latent: {effects}")
    return "traversal of the latents with the largest effect around a draw from the prior", lines


def _by_effect(model: GenerativeModel) -> list[tuple[str, float]]:
    """Latents with an order and the mean absolute change of a pixel for one deviation, the largest first."""
    space = model.latent_space
    codes = model.sample_codes(_CODES, 0)
    with torch.inference_mode():
        before = model.decode(codes)
        effects = []
        for i, (name, std) in enumerate(zip(space.names, space.std.tolist(), strict=True)):
            if isinstance(space.block_of(i).prior, UNORDERED):
                continue
            moved = codes.clone()
            moved[:, i] += std
            effects.append((name, float((model.decode(moved) - before).abs().mean())))
    return sorted(effects, key=lambda effect: -effect[1])


def is_ordered(dataset) -> bool:
    """Whether the data set has factors with an order or a circle that a line can read."""
    return (
        any(name not in dataset.categories for name in dataset.factor_space.names)
        and len(dataset.factor_space.names) > 1
    )
