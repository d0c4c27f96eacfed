"""Directions found in a model, and images along them.

Symbols: z codes of a space, v unit vectors, s the length of a step: one standard deviation of the prior's codes along
v. Coordinates without an order (categories, codebook indices) have no part in any direction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentlab.analysis.direction import Direction, check_layers
from latentlab.analysis.inference import (
    BATCH_SIZE,
    as_codes,
    carry,
    check_seed,
    decoded,
    draw_codes,
    in_chunks,
    inference,
    needs_generator,
    to_numpy,
)
from latentlab.analysis.results import Result, provenance
from latentlab.analysis.traversal import Traversal
from latentlab.latents import UNORDERED, LatentSpace
from latentlab.models.contract import space_of, weights_digest
from latentlab.models.edits import Edit
from latentlab.models.style_gan import W_PLUS, W

STEPS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
_DRAWS = 4096


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Directions(Result):
    """Directions that a method found, the strongest first.

    Attributes:
        vectors: unit vectors (n, dim).
        steps: length of one step, one standard deviation of the prior's codes (or of a stage's units), (n,).
        scores: how strong each is, (n,), descending; ``score_name`` says what that is.
        stability: cosine between the directions that two halves of the draws give, (n,); None where the method draws
            nothing.
        names: what they are called.
        space: name of their space, or None for directions of a stage.
        stage: address of their stage, or None.
        layers: for W: the layers of W+ that they move; None for all.
        method: "SeFa", "GANSpace", ….
        score_name: what the scores are.

    ``directions`` and ``direction(name)`` give them as values. Each method says what its certificate holds.
    """

    vectors: np.ndarray
    steps: np.ndarray
    scores: np.ndarray
    stability: np.ndarray | None
    names: tuple[str, ...]
    space: str | None
    stage: str | None
    layers: tuple[int, ...] | None
    method: str
    score_name: str

    @property
    def directions(self) -> tuple[Direction, ...]:
        """The directions as values, the strongest first."""
        return tuple(self.direction(i) for i in range(len(self.names)))

    def direction(self, which: int | str) -> Direction:
        """One of them, by name or position.

        Raises:
            ValueError: if there is no such direction.
        """
        position = self.names.index(which) if which in self.names else which
        if isinstance(position, str) or not -len(self.names) <= int(position) < len(self.names):
            raise ValueError(f"No direction {which!r}; there are {', '.join(self.names)}.")
        return Direction(
            name=self.names[position],
            vector=tuple(np.asarray(self.vectors, dtype=float)[position]),
            space=self.space,
            stage=self.stage,
            step=float(self.steps[position]),
            layers=self.layers,
            method=self.method,
            weights_digest=self.provenance.weights_digest,
        )

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class _ShiftEach(Edit):
    """Shifts a stage's units by numbers of their own in each row of the batch."""

    rows: Tensor = field(default_factory=lambda: torch.empty(0), compare=False)

    def apply(self, h: Tensor, other: Tensor | None = None) -> Tensor:
        if h.ndim not in (2, 4) or h.shape[1] != self.rows.shape[1]:
            raise ValueError(
                f"Stage {self.stage!r} has states {tuple(h.shape[1:])}; the direction has {self.rows.shape[1]} units."
            )
        return h + (self.rows if h.ndim == 2 else self.rows[:, :, None, None]).to(h)


def home_space(model: Any) -> str:
    """The space in which directions are looked for by default: W of a style-based generator, else the codes' own."""
    return W if W in model.spaces else model.latent_space.name


def ordered(space: LatentSpace) -> np.ndarray:
    """Positions of the coordinates that have an order.

    Raises:
        ValueError: if there are none.
    """
    found = [i for i in range(space.dim) if not isinstance(space.block_of(i).prior, UNORDERED)]
    if not found:
        raise ValueError(
            f"No coordinate of space {space.name!r} has an order (its blocks are {', '.join(space.block_names)}), so "
            "there is no direction to go along."
        )
    return np.array(found)


def layers_of(space: LatentSpace, layers: Iterable[int] | None) -> tuple[int, ...] | None:
    """Layers of W+, checked; only directions of W have them."""
    if layers is None:
        return None
    if space.name != W:
        raise ValueError(
            f"layers= restricts directions of {W!r} to layers of {W_PLUS!r}; got space {space.name!r}."
        )
    return check_layers(layers)


def lengths(model: Any, space: str, vectors: np.ndarray, seed: int) -> np.ndarray:
    """Standard deviation of the prior's codes along unit vectors (n, dim), measured on 4096 draws."""
    codes = to_numpy(draw_codes(model, _DRAWS, seed, space)).astype(np.float64)
    return np.maximum((codes @ np.asarray(vectors, dtype=float).T).std(axis=0), 1e-12)


def signed(vectors: np.ndarray) -> np.ndarray:
    """Vectors (n, dim) turned so that the largest entry of each is positive: a sign that no library decides."""
    rows = np.arange(len(vectors))
    signs = np.sign(vectors[rows, np.abs(vectors).argmax(axis=1)])
    return vectors * np.where(signs == 0, 1.0, signs)[:, None]


def listed(given: Any, model: Any) -> tuple[Direction, ...]:
    """Directions given as one, several or a result that holds some; those of other weights are refused.

    Raises:
        ValueError: on none, on equal names, or on directions found in another model.
        TypeError: on what is no direction.
    """
    parts = [given] if isinstance(given, Direction) or hasattr(given, "directions") else list(given)
    found: list[Direction] = []
    for part in parts:
        found += getattr(part, "directions", [part])
    if not found:
        raise ValueError("Expected at least one direction; got none.")
    digest = weights_digest(model)
    for direction in found:
        if not isinstance(direction, Direction):
            raise TypeError(f"Expected directions; got {type(direction).__name__}.")
        if direction.weights_digest not in ("", digest):
            raise ValueError(
                f"Direction {direction.name!r} was found in model {direction.weights_digest[:8]}, and this is model "
                f"{digest[:8]}; dataclasses.replace(direction, weights_digest='') lets it be tried here."
            )
    names = [d.name for d in found]
    if twice := [n for n in names if names.count(n) > 1]:
        raise ValueError(f"Two directions are called {twice[0]!r}; rename one with direction.named(…).")
    return tuple(found)


def move(
    model: Any, codes: Tensor, space: str, direction: Direction, steps: Any
) -> tuple[Tensor, str, tuple]:
    """Codes (n, dim) moved along a direction: what to decode, in which space, with which edits.

    The codes are carried on to the direction's space where a map leads there.
    """
    steps = torch.as_tensor(np.broadcast_to(np.asarray(steps, dtype=np.float32), len(codes)).copy())
    if direction.space is None:
        shift = steps[:, None] * torch.as_tensor(direction.displacement, dtype=torch.float32)[None]
        edit = _ShiftEach(stage=direction.stage or "", rows=shift.to(codes.device))
        return codes, space, (edit,)
    target = W_PLUS if direction.layers is not None and W_PLUS in model.spaces else direction.space
    if space != target and not (space == W_PLUS and direction.space == W):
        space_of(model, target)
        codes, space = (
            (carry(model, codes, target), target)
            if space == model.latent_space.name
            else (model.map(codes, space, target), target)
        )
    added = torch.as_tensor(direction.spread(space, codes.shape[1]), dtype=torch.float32, device=codes.device)
    return codes + steps.to(codes)[:, None] * added, space, ()


def moved_images(
    model: Any, codes: Tensor, space: str, direction: Direction, steps: Any, batch_size: int = BATCH_SIZE
) -> np.ndarray:
    """Images (n, channels, height, width) of codes (n, dim) after ``steps``, one number or (n,), of a direction."""
    steps = np.broadcast_to(np.asarray(steps, dtype=np.float32), len(codes))
    number = torch.as_tensor(steps.copy(), device=codes.device)[:, None].to(codes)

    def run(part: Tensor) -> Tensor:
        there, place, edits = move(model, part[:, :-1], space, direction, part[:, -1].cpu().numpy())
        return decoded(model, there, edits, place)

    with inference(model):
        return in_chunks(run, torch.cat([codes, number], dim=1), batch_size)


def random_directions(direction: Direction, n: int, seed: int, coordinates: np.ndarray | None = None) -> list:
    """Random directions of the same place and with the same length of a step, in the same layers."""
    rng = np.random.default_rng(check_seed(seed))
    table = np.zeros((n, len(direction.vector)))
    where = np.arange(table.shape[1]) if coordinates is None else coordinates
    table[:, where] = rng.standard_normal((n, len(where)))
    return [
        Direction(
            f"random{i}", tuple(row), direction.space, direction.stage, direction.step, direction.layers
        )
        for i, row in enumerate(table)
    ]


def check_steps(steps: Any) -> np.ndarray:
    """Places along a direction in its steps, (steps,).

    Raises:
        ValueError: unless they are finite numbers, at least one.
    """
    values = np.asarray(list(steps) if isinstance(steps, Iterable) else steps, dtype=float)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"steps must be a list of finite numbers, at least one; got {steps!r}.")
    return values


def traverse_direction(
    model: Any,
    directions: Any,
    z: Any = None,
    steps: Sequence[float] = STEPS,
    *,
    space: str | None = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
) -> Traversal:
    """Moves one code along directions and decodes the strips.

    Args:
        model: a generative model.
        directions: a Direction, several, or a result that holds some.
        z: the code (dim,) to start from; None is a prior draw of ``seed``.
        steps: how many steps along each, standard deviations; 0 is the start itself.
        space: name of the code's space, the model's first one where it is not given; it is carried on to a direction's
            space where a map leads there.
        seed: decides ``z`` where it is None.
        batch_size: codes decoded at a time.

    Returns:
        A Traversal with a strip a direction, its ``span`` "direction". Its ``z`` are the codes in the start's space
        where they were moved there, NaN where they were moved in another space or in a stage.

    Raises:
        ValueError: on directions of another model or of a space that no map leads to.
    """
    needs_generator(model)
    given = listed(directions, model)
    place = space_of(model, space)
    start = draw_codes(model, 1, seed, place.name)[:1] if z is None else as_codes(model, z, space=space)[:1]
    values = check_steps(steps)
    images, codes = [], np.full((len(given), len(values), place.dim), np.nan, dtype=np.float32)
    off, gap = 0.0, 0.0
    with inference(model):
        for row, direction in enumerate(given):
            strip = moved_images(
                model, start.expand(len(values), -1), place.name, direction, values, batch_size
            )
            images.append(strip)
            there, where, _ = move(model, start.expand(len(values), -1), place.name, direction, values)
            if where == place.name and direction.space is not None:
                codes[row] = to_numpy(there)
                along = direction.spread(where, place.dim)
                rest = codes[row] - to_numpy(start) - values[:, None] * along
                off = max(off, float(np.abs(rest).max()))
            alone = moved_images(model, start, place.name, direction, values[-1])
            gap = max(gap, float(np.abs(alone[0] - strip[-1]).max()))
        image = to_numpy(decoded(model, start, (), place.name))[0]
    stack = np.stack(images)
    return Traversal(
        images=stack,
        z=codes,
        values=np.tile(values, (len(given), 1)),
        lengths=np.full(len(given), len(values)),
        start=to_numpy(start)[0],
        start_image=image,
        effect=np.abs(stack[:, -1] - stack[:, 0]).mean(axis=(1, 2, 3)),
        dims=tuple(d.name for d in given),
        categorical=(False,) * len(given),
        span="direction",
        space=place.name,
        certificate={
            "loop_difference": gap,
            "off_axis": off,
            "contains_start": float(values.min() <= 0.0 <= values.max()),
        },
        provenance=provenance(
            model,
            {"directions": given, "z": start, "steps": values, "space": place.name},
            seed if z is None else None,
        ),
    )
