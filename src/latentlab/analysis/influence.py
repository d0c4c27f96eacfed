"""Latent to unit to pixel: which units of which stage carry a latent, and what they paint.

Symbols: a *slider* moves one latent k of a code from the low to the high quantile of its prior, all else held; D_k is
the change of the image; C_u the conductance of unit u along the slider (see ``conductance``). The matrix is
m(k, u) = sum over codes <C_u, D_k> / sum over codes |D_k|^2: u's share in what k does to the image. Where every route
passes through the stage, each row adds up to 1. Units that cancel one another or paint nothing have no share, however
much they move.

Every row adds up to 1 however little its latent does, so rows are not for comparing latents: that is what ``through``
is for. A latent is *live* if its slider changes the image by at least 5 % of what the strongest one does; certificates
count live latents only, since the shares of a change that nobody sees prove nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.inference import evaluating, named
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.sliders import Sliders, hold, paint, sliders_of, sweep
from latentlab.analysis.ways import Way, way_of
from latentlab.models.edits import Edit

LIVE = 0.05
"""Share of the largest effect that a latent must have to be live."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LatentUnits(Result):
    """The units of one stage that carry each latent, and what they paint.

    Attributes:
        matrix: (dims, units), u's share in what the slider of latent k does to the images; a row adds up to 1 for a
            cut. Negative where a unit works against the change.
        null: (draws, units), the same for random directions of the latent space, as long as the mean slider.
        through: (dims, units), |share| times effect: how much of its change of the image, root mean squared, each
            latent hands on through u. These compare latents of one unit, which shares do not.
        held: (dims, units), share of the change that is lost when u alone is held at its value at the slider's start:
            the causal check.
        painted: (dims, top, channels, height, width), signed, what the strongest units of each latent add to the change
            of the first code.
        painted_units: numbers of those units, (dims, top).
        changes: (dims, channels, height, width), signed, the whole change of the first code.
        images: (dims, 2, channels, height, width), the first code's images at both ends of each slider.
        effect: (dims,), root mean squared change of the image between the ends of each slider; a latent without any
            has no shares.
        live: (dims,), whether the effect is at least 5 % of the largest of the latents asked for.
        dims: name of each latent or categorical block.
        stage: name of the stage.
        address: its address within the model.
        cut: whether every route passes through the stage.
        network: name of the network.
        space: name of the space of the sliders.

    The certificate, of live latents only, holds ``row_gap``, the largest distance of a row's sum from 1 (of what the
    derivatives miss, and of what goes around the stage where it is no cut); ``held_correlation``, that of ``matrix``
    and ``held`` over all their entries; ``half_difference``, the largest difference between the matrices of the two
    halves of the codes; ``units_for_half`` and ``units_for_half_null``, how many units carry half of the absolute
    shares of a latent and of a random direction, in the mean; and ``live_latents``, how many there are.
    """

    matrix: np.ndarray
    null: np.ndarray
    through: np.ndarray
    held: np.ndarray
    painted: np.ndarray
    painted_units: np.ndarray
    changes: np.ndarray
    images: np.ndarray
    effect: np.ndarray
    live: np.ndarray
    dims: tuple[str, ...]
    stage: str
    address: str
    cut: bool
    network: str
    space: str


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class InfluenceByStage(Result):
    """Which units carry each latent, at every stage.

    Attributes:
        matrices: {stage: (dims, units)}, as in LatentUnits.
        nulls: {stage: (draws, units)}, those of random directions.
        effective: (dims, stages), number of units that carry a latent, 1 / the sum of squared absolute shares: 1 where
            one unit carries it, the number of units where all do alike.
        effective_null: (stages,), the mean of that for random directions.
        overlap: (dims, dims, stages), cosine of two latents' absolute shares: 0 where no unit carries both.
        top: (dims, stages), the unit with the largest share.
        carried: (dims, stages), the sum of a row, 1 for a cut.
        effect: (dims,), root mean squared change of the image between the ends of each slider; a latent without any
            has no shares.
        live: (dims,), whether the effect is at least 5 % of the largest of the latents asked for.
        dims: name of each latent or categorical block.
        stages: names of the stages.
        addresses: their addresses.
        cut: whether every route passes through each stage.
        network: name of the network.
        space: name of the space of the sliders.

    The certificate holds, of live latents only, ``row_gap``, the largest distance of a row's sum from 1 at the stages
    that are cuts, and ``half_difference``, the largest difference, over all stages, between the matrices of the two
    halves of the codes; ``live_latents``, how many there are; and ``cuts``, how many of the stages are.
    """

    matrices: Mapping[str, np.ndarray]
    nulls: Mapping[str, np.ndarray]
    effective: np.ndarray
    effective_null: np.ndarray
    overlap: np.ndarray
    top: np.ndarray
    carried: np.ndarray
    effect: np.ndarray
    live: np.ndarray
    dims: tuple[str, ...]
    stages: tuple[str, ...]
    addresses: tuple[str, ...]
    cut: tuple[bool, ...]
    network: str
    space: str


def latent_unit_pixel(
    model: Any,
    stage: str,
    *,
    dims: Sequence[int | str] | int | str | None = None,
    network: str = "generator",
    space: str | None = None,
    n: int = 16,
    coverage: float = 0.8,
    top: int = 4,
    n_draws: int = 4,
    held: int = 2,
    steps: int = 8,
    edits: Sequence[Edit] = (),
    seed: int = 0,
    batch_size: int = 64,
    progress: Callable[[int, int], object] | None = None,
) -> LatentUnits:
    """Which units of a stage carry each latent, what they paint, and whether the image needs them for it.

    Args:
        model: a generative model.
        stage: name or address of the stage.
        dims: latents by name or position, or names of blocks; None for all. A categorical block slides from each code's
            category to the next.
        network: a network that reads codes: "generator", or "mapping" of a style GAN.
        space: name of the space of the sliders, the model's first one where it is not given.
        n: prior draws whose sliders are moved, at least 2.
        coverage: share of the prior between a slider's ends.
        top: units a latent whose pictures are painted.
        n_draws: random directions of the null, at least 1.
        held: codes for which every unit is held, at least 1: the causal check costs a forward pass a unit.
        steps: nodes of Gauss-Legendre, two a panel, on each slider.
        edits: edits in force throughout.
        seed: decides codes and directions.
        batch_size: rows run at a time.
        progress: called with (rows done, rows in all); it may raise to cancel.

    Raises:
        ValueError: on a network that reads no codes, codes that are indices, unknown names, or numbers out of range.

    References:
        How important is a neuron? (Dhamdhere, Sundararajan and Yan, 2018), https://arxiv.org/abs/1805.12233; the
        projection on the whole change, which turns images into shares, is ours.
    """
    way = way_of(model, network, space, edits)
    if top < 1 or not 1 <= held <= n:
        raise ValueError(
            f"Expected top of at least 1 and held from 1 to n; got top={top}, held={held}, n={n}."
        )
    name = way.subject.network.stage_name(stage)
    sliders = sliders_of(way, dims, n, coverage, n_draws, seed)
    with evaluating(model):
        width = way.state(sliders.low[:1, 0], name).shape[1]
        extra = len(sliders.names) * held * width
        flow = sweep(way, sliders, [name], steps, batch_size, progress, extra)
        matrix, null = flow.matrices[name], flow.nulls[name]
        painted_units = np.argsort(-np.abs(matrix), axis=1, kind="stable")[:, : min(top, width)]
        painted = paint(way, sliders, name, painted_units, steps)
        lost = hold(way, sliders, name, held, batch_size, flow.rows, flow.rows + extra, progress)
        cut = _is_cut(way, sliders, name)
    images = np.stack([flow.starts, flow.ends], axis=1)
    live = _live(flow.effect)
    place = "" if way.space is None else way.space.name
    return LatentUnits(
        matrix=matrix,
        null=null,
        through=np.abs(matrix) * flow.effect[:, None],
        held=lost,
        painted=painted,
        painted_units=painted_units,
        changes=images[:, 1] - images[:, 0],
        images=images,
        effect=flow.effect,
        live=live,
        dims=tuple(sliders.names),
        stage=name,
        address=way.subject.address(name),
        cut=cut,
        network=way.subject.name,
        space=place,
        certificate={
            "row_gap": float(np.abs(matrix.sum(axis=1) - 1.0)[live].max(initial=0.0)),
            "held_correlation": _correlation(matrix[live], lost[live]),
            "half_difference": float(flow.half_differences[live].max(initial=0.0)),
            "units_for_half": _mean_half(matrix[live]),
            "units_for_half_null": _mean_half(null),
            "live_latents": int(live.sum()),
        },
        provenance=provenance(
            model,
            {"network": way.subject.name, "stage": name, "dims": list(sliders.names), "n": n, "coverage": coverage,
             "n_draws": n_draws, "held": held, "steps": steps, "edits": way.edits, **named(space)},
            seed,
        ),
    )  # fmt: skip


def influence_by_stage(
    model: Any,
    stages: Sequence[str] | None = None,
    *,
    dims: Sequence[int | str] | int | str | None = None,
    network: str = "generator",
    space: str | None = None,
    n: int = 8,
    coverage: float = 0.8,
    n_draws: int = 4,
    steps: int = 8,
    edits: Sequence[Edit] = (),
    seed: int = 0,
    batch_size: int = 64,
    progress: Callable[[int, int], object] | None = None,
) -> InfluenceByStage:
    """The latent-to-unit matrix of every stage, in one sweep: one gradient a node serves all stages.

    Args:
        model: a generative model.
        stages: names or addresses; None for all that have units.
        dims: as for ``latent_unit_pixel``, and so all others.
        network: a network that reads codes.
        space: name of the space of the sliders.
        n: prior draws, at least 2.
        coverage: share of the prior between a slider's ends.
        n_draws: random directions of the null.
        steps: nodes on each slider.
        edits: edits in force throughout.
        seed: decides codes and directions.
        batch_size: rows run at a time.
        progress: called with (rows done, rows in all); it may raise to cancel.

    Raises:
        ValueError: as ``latent_unit_pixel``.
    """
    way = way_of(model, network, space, edits)
    sliders = sliders_of(way, dims, n, coverage, n_draws, seed)
    network_ = way.subject.network
    with evaluating(model):
        with torch.no_grad():
            states = network_.activations(way.enter(sliders.low[:1, 0]), None, way.edits)
        able = [s for s, h in states.items() if isinstance(h, Tensor) and h.ndim in (2, 4)]
        chosen = able if stages is None else [network_.stage_name(s) for s in stages]
        if unable := [s for s in chosen if s not in able]:
            raise ValueError(
                f"Stage {unable[0]!r} has no units that can be told; expected some of {', '.join(able)}."
            )
        flow = sweep(way, sliders, chosen, steps, batch_size, progress, 0)
        cut = tuple(_is_cut(way, sliders, s) for s in chosen)
    shares = {s: np.abs(flow.matrices[s]) for s in chosen}
    live = _live(flow.effect)
    carried = np.stack([flow.matrices[s].sum(axis=1) for s in chosen], axis=1)
    unit = [m / np.maximum(np.linalg.norm(m, axis=1, keepdims=True), 1e-12) for m in shares.values()]
    place = "" if way.space is None else way.space.name
    return InfluenceByStage(
        matrices=flow.matrices,
        nulls=flow.nulls,
        effective=np.stack([_effective(m) for m in shares.values()], axis=1),
        effective_null=np.array([_effective(np.abs(flow.nulls[s])).mean() for s in chosen]),
        overlap=np.stack([m @ m.T for m in unit], axis=2),
        top=np.stack([m.argmax(axis=1) for m in shares.values()], axis=1),
        carried=carried,
        effect=flow.effect,
        live=live,
        dims=tuple(sliders.names),
        stages=tuple(chosen),
        addresses=tuple(way.subject.address(s) for s in chosen),
        cut=cut,
        network=way.subject.name,
        space=place,
        certificate={
            "row_gap": float(np.abs(carried[:, list(cut)] - 1.0)[live].max(initial=0.0)),
            "cuts": sum(cut),
            "half_difference": float(flow.half_differences[live].max(initial=0.0)),
            "live_latents": int(live.sum()),
        },
        provenance=provenance(
            model,
            {"network": way.subject.name, "stages": chosen, "dims": list(sliders.names), "n": n, "coverage": coverage,
             "n_draws": n_draws, "steps": steps, "edits": way.edits, **named(space)},
            seed,
        ),
    )  # fmt: skip


def _is_cut(way: Way, sliders: Sliders, stage: str) -> bool:
    """By the graph; where it is not known, by whether the stage's state alone brings the outcome over."""
    by_graph = way.is_cut(stage)
    if by_graph is not None:
        return by_graph
    return way.bypass(sliders.low[:1, 0], sliders.high[:1, 0], stage) <= 1e-5


def _live(effect: np.ndarray) -> np.ndarray:
    """Which latents change the image by at least a twentieth of what the strongest does."""
    return (effect > 0) & (effect >= LIVE * effect.max(initial=0.0))


def _mean_half(shares: np.ndarray) -> float:
    """How few units hold half of a row's absolute shares, in the mean over rows; 0 of no rows."""
    ranked = np.cumsum(np.sort(np.abs(shares), axis=1)[:, ::-1], axis=1)
    counts = [int(np.searchsorted(row, row[-1] / 2) + 1) if row[-1] > 0 else 0 for row in ranked]
    return float(np.mean(counts)) if counts else 0.0


def _effective(shares: np.ndarray) -> np.ndarray:
    """1 / the sum of squares of absolute shares (rows, units), scaled to add up to 1; 0 where there are none."""
    total = shares.sum(axis=1, keepdims=True)
    squares = np.square(shares / np.maximum(total, 1e-12)).sum(axis=1)
    return np.where(total[:, 0] > 1e-12, 1.0 / np.maximum(squares, 1e-12), 0.0)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's, 0 where one of them is constant."""
    if not a.size:
        return 0.0
    a, b = a.ravel() - a.mean(), b.ravel() - b.mean()
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size > 0 else 0.0
