"""How the uncertainty of images and units is drawn."""

from __future__ import annotations

import numpy as np
from PIL import Image

from latentlab.analysis.uncertainty import PredictiveMaps, UnitSpread
from latentlab.viz import images
from latentlab.viz.colours import sequential
from latentlab.viz.drawing import Drawing, drawn
from latentlab.viz.raster import bars

_BARS = 24


@drawn(
    PredictiveMaps,
    standard_error="Monte-Carlo error of the mean at most {}",
    error_slope="error falls with draws to the power {}",
    beyond_linear="linear theory misses the spread by {} of it",
)
def _predictive_maps(result: PredictiveMaps, *, scale: int | None = None, count: int = _BARS) -> Drawing:
    shape = result.mean.shape
    scale = scale or images.fitting_scale(shape, 7, cell=112)
    pictures = [(name, images.to_pil(image, scale)) for name, image in (
        ("given", result.x), ("its code's image", result.x_hat), ("mean of draws", result.mean)
    ) if image is not None]  # fmt: skip
    for name, std in (("s.d. from z", result.latent_std), ("s.d. of noise", result.noise_std)):
        if std is not None:
            pictures.append((f"{name}, to {std.max():.2g}", _heat(std, scale)))
    rows = [images.sheet([[p for _, p in pictures]], column_labels=[n for n, _ in pictures])]
    if len(result.draws):
        small = images.fitting_scale(shape, len(result.draws), cell=72)
        rows.append(images.titled(images.strip(result.draws, scale=min(scale, small)), "Draws", 8))
    if result.sigma is not None and result.kl is not None:
        order = np.argsort(result.sigma, kind="stable")[:count]
        rows.append(
            bars(
                result.sigma[order],
                [f"{result.dims[i]}  {result.kl[i]:.2f} nats" for i in order],
                title="Posterior s.d. of each latent, in prior s.d.",
                faint=[bool(result.kl[i] < 0.1) for i in order],
            )
        )
    what = {"posterior": "given an image", "code": "given a code", "prior": "over the prior"}[result.source]
    return Drawing(images.above(rows), f"Predictive mean and spread {what}, {result.n_draws} draws")


@drawn(
    UnitSpread,
    error_slope="error falls with draws to the power {}",
    left_open="s.d. {} of the prior's, mean over units",
)
def _unit_spread(result: UnitSpread, *, count: int = _BARS) -> Drawing:
    top = result.order[:count]
    still = bars(
        result.std[top],
        [f"unit {i}  mean {result.mean[i]:.2f}" for i in top],
        title=f"{result.address}: s.d. of each unit's mean activation over draws",
    )
    what = "the posterior" if result.source == "posterior" else "the prior"
    return Drawing(still, f"Units of {result.address} over {result.n_draws} draws of {what}")


def _heat(std: np.ndarray, scale: int) -> Image.Image:
    values = std.mean(axis=0)
    heat = sequential(values / max(float(values.max()), 1e-12))
    return Image.fromarray(heat.repeat(scale, 0).repeat(scale, 1))
