"""What directions do: the change of image meters a step, against random directions of the same length.

Symbols: m a meter of an image, z codes, t steps along a direction; the effect is (m(+1) - m(-1)) / 2, averaged over
codes, in spreads of m: its standard deviation over the codes' own images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from latentlab.analysis.direction import Direction
from latentlab.analysis.directions import STEPS, check_steps, listed, moved_images, ordered, random_directions
from latentlab.analysis.inference import (
    BATCH_SIZE,
    as_codes,
    check_seed,
    decode_latents,
    draw_codes,
    needs_generator,
    to_numpy,
)
from latentlab.analysis.meters import CHANNELS, METERS, Meter, meter_of
from latentlab.analysis.results import Result, provenance
from latentlab.models.contract import space_of

_STILL = 1e-4
_ALIKE = 1.25


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class DirectionEffects(Result):
    """The matrix of directions and meters, with images along each direction.

    Attributes:
        effect: mean change of each meter a step, in its spreads, (directions, meters), signed.
        low: lower end of the 95 % interval of that mean over codes, (directions, meters).
        high: upper end.
        size: mean absolute change a step of single codes, in spreads, (directions, meters): a change whose sign depends
            on the code shows here alone.
        null: 95 % quantile of the absolute effects of random directions whose step is as long (up to a quarter longer),
            (directions, meters).
        significant: whether the interval lies outside -null to null, (directions, meters).
        image_change: mean absolute change of the pixels a step, (directions,), in [0, 1].
        null_image_change: the same of the random directions, mean, (directions,).
        spread: standard deviation of each meter over the codes' images, in its own unit, (meters,).
        images: one code along each direction, (directions, steps, channels, height, width) in [0, 1].
        steps: of the images, (steps,).
        direction_names: names of the directions.
        meters: names of the meters.

    The certificate holds ``loop_difference``, the largest difference between batched images and one decoded alone;
    ``zero_step_change``, the largest change of an image by 0 steps; and ``beyond_random``, the share of the
    matrix that is significant.
    """

    effect: np.ndarray
    low: np.ndarray
    high: np.ndarray
    size: np.ndarray
    null: np.ndarray
    significant: np.ndarray
    image_change: np.ndarray
    null_image_change: np.ndarray
    spread: np.ndarray
    images: np.ndarray
    steps: np.ndarray
    direction_names: tuple[str, ...]
    meters: tuple[str, ...]


def direction_effects(
    model: Any,
    directions: Any,
    meters: Sequence[Any] | None = None,
    *,
    codes: Any = None,
    space: str | None = None,
    n: int = 64,
    n_draws: int = 20,
    steps: Sequence[float] = STEPS,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], object] | None = None,
) -> DirectionEffects:
    """Measures what each direction changes in the image.

    Args:
        model: a generative model.
        directions: a Direction, several, or a result that holds some; of a space, or of a stage.
        meters: names in METERS, Meters or functions of images; None for all that vary over the codes' images.
        codes: codes (n, dim) to start from; None is ``n`` prior draws.
        space: name of the codes' space, the model's first one where it is not given; they are carried on to a
            direction's space where a map leads there.
        n: number of draws, at least 2.
        n_draws: random directions for the null.
        steps: of the images that are kept, of the first code.
        seed: of the draws and random directions.
        batch_size: codes decoded at a time.
        progress: called with (directions done, directions in all, random ones counted); it may raise to cancel.

    Raises:
        ValueError: on directions of another model or space, meters that don't vary, or fewer than 2 codes.
    """
    needs_generator(model)
    seed, values = check_seed(seed), check_steps(steps)
    given = listed(directions, model)
    place = space_of(model, space)
    start = draw_codes(model, n, seed, place.name) if codes is None else as_codes(model, codes, space=space)
    if len(start) < 2 or n_draws < 2:
        raise ValueError(
            f"Expected at least 2 codes and 2 random directions; got {len(start)} and {n_draws}."
        )
    base = decode_latents(model, start, space=place.name if space else None, batch_size=batch_size)
    chosen, spread = _meters(meters, base)

    def read(images: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(images)
        return np.stack([to_numpy(m(tensor)).astype(np.float64) for m in chosen], axis=1)

    def change(direction: Direction) -> tuple[np.ndarray, float]:
        """Change a step of each code and meter, in spreads, and of the pixels."""
        ahead, behind = (
            moved_images(model, start, place.name, direction, t, batch_size) for t in (1.0, -1.0)
        )
        return (read(ahead) - read(behind)) / 2 / spread, float(np.abs(ahead - behind).mean() / 2)

    # Directions of one place whose steps are alike share their random ones, which take the longest of the steps.
    nulls: dict[tuple, tuple[np.ndarray, float]] = {}
    kinds = {_kind(d): d for d in sorted(given, key=lambda d: d.step)}
    total, done = len(given) + n_draws * len(kinds), 0
    rows = []
    for direction in given:
        rows.append(change(direction))
        done += 1
        if progress is not None:
            progress(done, total)
    for kind, direction in kinds.items():
        where = None if direction.space is None else ordered(space_of(model, direction.space))
        found = []
        for chance in random_directions(direction, n_draws, seed, where):
            found.append(change(chance))
            done += 1
            if progress is not None:
                progress(done, total)
        effects = np.stack([np.abs(f.mean(axis=0)) for f, _ in found])
        nulls[kind] = (np.quantile(effects, 0.95, axis=0), float(np.mean([c for _, c in found])))
    each = np.stack([r for r, _ in rows])
    effect = each.mean(axis=1)
    margin = 1.96 * each.std(axis=1, ddof=1) / np.sqrt(each.shape[1])
    null = np.stack([nulls[_kind(d)][0] for d in given])
    significant = np.where(effect > 0, effect - margin, -(effect + margin)) > null
    one = start[:1].expand(len(values), -1)
    strips = np.stack([moved_images(model, one, place.name, d, values, batch_size) for d in given])
    still = max(
        float(np.abs(moved_images(model, start[:4], place.name, d, 0.0) - base[:4]).max()) for d in given
    )
    alone = [moved_images(model, start[:1], place.name, d, values[-1])[0] for d in given]
    return DirectionEffects(
        effect=effect,
        low=effect - margin,
        high=effect + margin,
        size=np.abs(each).mean(axis=1),
        null=null,
        significant=significant,
        image_change=np.array([c for _, c in rows]),
        null_image_change=np.array([nulls[_kind(d)][1] for d in given]),
        spread=spread,
        images=strips,
        steps=values,
        direction_names=tuple(d.name for d in given),
        meters=tuple(m.name for m in chosen),
        certificate={
            "loop_difference": float(np.abs(np.stack(alone) - strips[:, -1]).max()),
            "zero_step_change": still,
            "beyond_random": float(significant.mean()),
        },
        provenance=provenance(
            model,
            {"directions": given, "meters": [m.name for m in chosen], "codes": start, "space": place.name,
             "n_draws": n_draws, "steps": values},
            seed,
        ),
    )  # fmt: skip


def _meters(given: Sequence[Any] | None, images: np.ndarray) -> tuple[list[Meter], np.ndarray]:
    """The meters and their spreads; of the default ones only those that vary."""
    if isinstance(given, (str, Meter)) or callable(given):
        given = [given]
    names = [*METERS, *(CHANNELS if images.shape[1] == 3 else ())]
    meters = [meter_of(m) for m in (names if given is None else given)]
    tensor = torch.from_numpy(images)
    spreads = [float(to_numpy(m(tensor)).astype(np.float64).std()) for m in meters]
    if given is None:
        kept = [(m, s) for m, s in zip(meters, spreads, strict=True) if s > _STILL]
        meters, spreads = [m for m, _ in kept], [s for _, s in kept]
    if flat := [m.name for m, s in zip(meters, spreads, strict=True) if not s > 0.0]:
        raise ValueError(f"Meter {flat[0]!r} is the same in all images of the codes, so it has no spread.")
    if not meters:
        raise ValueError("No meter varies over the images of the codes; give meters of your own.")
    return meters, np.array(spreads)


def _kind(direction: Direction) -> tuple:
    bucket = round(np.log(direction.step) / np.log(_ALIKE))
    return direction.space, direction.stage, direction.layers, bucket
