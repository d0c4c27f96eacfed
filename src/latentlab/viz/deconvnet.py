"""How projections back to the pixels and occlusion maps are drawn."""

from __future__ import annotations

import numpy as np
from PIL import Image

from latentlab.analysis.deconvnet import Deconvolution, cut_out
from latentlab.analysis.occlusion import Occlusion
from latentlab.viz import images, lettering
from latentlab.viz.colours import diverging, tones
from latentlab.viz.drawing import Drawing, drawn

_CELL = 64


@drawn(
    Deconvolution,
    gradient_difference="the walk's own gradient is autograd's to {}",
    state_difference="its states the network's to {}",
    outside_field="{} outside the receptive field",
    homogeneity="scales with the activation to {}",
    other_unit="median cosine with another unit's map {}",
    rule_difference="the rectifiers' rule holds to {}",
    rule_share="share of the signal that it changes {}",
    switches="unpooling is autograd's to {}",
    switch_share="share changed by another image's switches {}",
    silent="silent activations {}",
)
def _deconvolution(result: Deconvolution, *, scale: int | None = None, count: int = 6) -> Drawing:
    """Two rows a unit: the patches that excite it most, and below each what is projected back from it."""
    shown = result.projections[:count]
    high, wide = result.patches.shape[3:]
    projected = cut_out(shown, result.boxes[:count], (high, wide))
    scale = scale or images.fitting_scale((high, wide), projected.shape[1], cell=_CELL)
    colour = projected.shape[2] == 3
    rows, labels = [], []
    for i, unit in enumerate(result.units[:count]):
        limit = max(float(np.abs(shown[i]).max()), 1e-12)
        rows.append([_patch(patch, scale) for patch in result.patches[i]])
        rows.append([_signed(signed, limit, scale, colour) for signed in projected[i]])
        low, top = result.activations[i].min(), result.activations[i].max()
        labels += [f"unit {unit}\nactivation\n{_span(low, top)}", f"projected\nup to {limit:.2g}"]
    still = images.sheet(rows, row_labels=labels, gap=2)
    zero = "grey is 0, darker below, lighter above" if colour else ""
    bar = Image.new("RGB", (max(still.width - 20, 1), 1), tones().paper)
    ends = [("", "")] if colour else [("below 0", "above 0")]
    if not colour:
        bar = images.with_bar(bar, diverging, ends[0][0], "0", ends[0][1])
        still = images.above([still, images.titled(bar, "", 6)])
    note = " ".join(part for part in (zero and f"Projections: {zero}.", result.caveat) if part)
    leaks = sorted({s for s in result.slopes if s})
    if leaks and result.rule != "gradient":
        note += f" Rectifiers leak by {', '.join(f'{s:g}' for s in leaks)} below 0, the signal too."
    kept = {"max": "the largest activation", "all": "the whole map"}.get(result.keep, f"place {result.keep}")
    name = {"deconvnet": "Deconvnet", "guided": "Guided back-propagation", "gradient": "Gradient"}[
        result.rule
    ]
    return Drawing(lettering.captioned(still, note), f"{name} from {kept} of units of {result.address}")


def _patch(patch: np.ndarray, scale: int) -> Image.Image:
    """In a frame, or a white patch would be lost on paper; what lies beyond the image is as grey as the frame."""
    picture = np.asarray(images.to_pil(patch)).copy()
    picture[np.isnan(patch[0])] = tones().line
    return images.framed(Image.fromarray(picture).resize(_enlarged(picture, scale), Image.Resampling.NEAREST))


def _signed(signed: np.ndarray, limit: float, scale: int, colour: bool) -> Image.Image:
    """Around 0 in one scale a unit; colour stays where there is any."""
    if colour:
        return _patch(0.5 + 0.5 * signed / limit, scale)
    picture = diverging(np.nan_to_num(signed[0]) / limit)
    picture[np.isnan(signed[0])] = tones().line
    return images.framed(Image.fromarray(picture).resize(_enlarged(picture, scale), Image.Resampling.NEAREST))


def _enlarged(picture: np.ndarray, scale: int) -> tuple[int, int]:
    return picture.shape[1] * scale, picture.shape[0] * scale


def _span(low: float, high: float) -> str:
    return f"{low:.2g}" if np.isclose(low, high) else f"{low:.2g} to {high:.2g}"


@drawn(
    Occlusion,
    empty_patch="a patch of the image itself changes {}",
    outside_field="{} outside the receptive field",
)
def _occlusion(result: Occlusion, *, scale: int | None = None, count: int = 8) -> Drawing:
    """The image, and over it for each target where covering changes it most."""
    order = np.argsort(-result.heat.max(axis=(1, 2)), kind="stable")[:count]
    scale = scale or images.fitting_scale(result.image.shape, 4, cell=128)
    cells, labels = [images.to_pil(result.image, scale)], ["image"]
    for i in order:
        heat = result.heat[i] / max(float(result.heat[i].max()), 1e-12)
        cells.append(images.overlay(result.image, heat, scale=scale))
        labels.append(
            f"{result.targets[i]}: {result.clean[i]:.2g}\nup to {np.abs(result.change[i]).max():.2g}"
        )
    columns = min(len(cells), 5)
    sheets = [
        images.sheet([cells[k : k + columns]], column_labels=labels[k : k + columns], gap=24)
        for k in range(0, len(cells), columns)
    ]
    what = "activation" if len(result.targets) == 1 else "code, in standard deviations of the prior"
    return Drawing(
        images.above(sheets),
        f"Occlusion by a patch of {result.size} pixels: change of the {what}, brightest where most",
    )
