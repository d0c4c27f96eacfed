"""The model card of a run: what it is, what it was trained on, how well it does, how to open it.

Put together from analyses and pictures; every figure is computed from the weights on disk when the card is
written, and says on what.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from latentlab.files import atomic_write
from latentlab.models.contract import GenerativeModel
from latentlab.runs import CARD, Run

_IMAGES = 4000
_STRIPS = 8


def preview(model: GenerativeModel, path: Path) -> None:
    """Draws a 4 x 8 grid of samples, always of the same codes, to a PNG."""
    from latentlab.viz import images

    with torch.inference_mode():
        samples = model.sample(32, seed=0).float().cpu().numpy()
    images.grid(samples.reshape(4, 8, *samples.shape[1:])).save(path)


def write_card(run: Run, claim: str = "") -> str:
    """Writes README.md, samples.png and traversal.png into a run.

    Args:
        run: a trained run in a writable folder.
        claim: what the experiment set out to show; its docstring.

    Returns:
        The card (markdown).
    """
    from latentlab import viz
    from latentlab.analysis import encode_dataset, linear_readout, traverse

    experiment, model = run.experiment, run.model
    dataset = run.dataset()
    count = min(_IMAGES, len(dataset))
    encoding = encode_dataset(model, dataset, count, seed=1, reconstruction=True)
    preview(model, run.path / "samples.png")
    start = encoding.mean[0]
    shown = [encoding.dim_names[i] for i in encoding.order[:_STRIPS]]
    strips = traverse(model, start, shown, span="posterior", encoding=encoding, steps=9)
    viz.show(strips, caption=False).save(run.path / "traversal.png")

    order = [int(i) for i in encoding.order]
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
        "![traversal of the latents with the largest KL around one encoded image](traversal.png)",
        "",
        "## What it is",
        "",
        f"- model: {experiment.model!r}",
        f"- objective: {experiment.objective!r}",
        f"- data: {experiment.data.name} {experiment.data.options or ''}, images {run.image_shape}; {dataset.source}",
        f"- training: {step:,} steps of {experiment.batch_size}, Adam at {experiment.learning_rate}, "
        f"seed {experiment.seed}, {np.nansum(timing['seconds']) / 60:.0f} minutes "
        f"({np.nanmedian(timing['images_per_second']):,.0f} images/s in the median)",
        f"- weights: sha256 {run.digest[:16]}…, {sum(p.numel() for p in model.parameters()):,} parameters",
        "",
        "## Figures",
        "",
        f"- last {experiment.log_every} training steps: reconstruction {metrics['reconstruction'][-1]:.2f}, "
        f"KL {metrics['kl'][-1]:.2f} nats per image",
        f"- {count:,} images of the data: KL {encoding.kl_per_dim.sum():.2f} nats per image, "
        f"{int(encoding.active.sum())} of {len(order)} latents active, mean squared error per pixel "
        f"{float(np.mean(np.asarray(encoding.reconstruction_error))):.5f}",
        "- KL by latent, nats: "
        + ", ".join(f"{encoding.dim_names[i]} {encoding.kl_per_dim[i]:.2f}" for i in order),
    ]
    if encoding.factors is not None and dataset.factor_space is not None and is_ordered(dataset):
        names = tuple(n for n in dataset.factor_space.names if n not in dataset.categories)
        readout = linear_readout(
            encoding, {k: v for k, v in dataset.circular.items() if k in names}, factors=names
        )
        lines += [
            "",
            f"Linear fits from the latents, R² on held-out images (of {count:,}); shuffled factors give "
            f"{readout.certificate['highest_r2_of_shuffled_factors']:.2f} at most:",
            "",
            "| factor | " + " | ".join(readout.factors) + " |",
            "| --- |" + " --- |" * len(names),
            "| read as | " + " | ".join("cos, sin" if c else "value" for c in readout.circular) + " |",
            "| R² | " + " | ".join(f"{r:.2f}" for r in readout.r2) + " |",
        ]
    lines += [
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


def is_ordered(dataset) -> bool:
    """Whether the data set has factors with an order or a circle that a line can read."""
    return (
        any(name not in dataset.categories for name in dataset.factor_space.names)
        and len(dataset.factor_space.names) > 1
    )
