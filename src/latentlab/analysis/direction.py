"""Direction: a way to go in a space of codes or in a hidden stage, as an immutable and serialisable value.

Symbols: z codes (n, dim) of a space, v the unit vector, s the length of one step, so that ``steps`` t lead from z to
z + t s v. A direction belongs to one space or one stage: what was found in W can't be applied in Z.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latentlab.files import atomic_write
from latentlab.models.edits import Edit
from latentlab.models.style_gan import W_PLUS, W

FORMAT = 1
_VANISHED = 1e-6


@dataclass(frozen=True)
class Direction:
    """Where to, and how far a step goes.

    Args:
        name: what it is called, such as "smile".
        vector: (dim,) coordinates of the space, or (units,) of the stage; kept at unit length.
        space: name of the space whose codes it moves; None for a direction of a stage.
        stage: address of the stage whose units it shifts, such as "generator.block2"; None for one of a space. On a
            map each unit is shifted at all positions alike.
        step: length of one step, one standard deviation of the codes (or of the stage's units) along it.
        layers: for a direction of W: the layers of W+ that it moves; None for all.
        method: how it was found.
        weights_digest: digest of the model in which it was found; "" for any.

    Raises:
        ValueError: on a vector of length 0 or with numbers that are not finite, a step that is not above 0, layers
            outside W, or unless it has either a space or a stage.
    """

    name: str
    vector: tuple[float, ...]
    space: str | None = None
    stage: str | None = None
    step: float = 1.0
    layers: tuple[int, ...] | None = None
    method: str = ""
    weights_digest: str = ""

    def __post_init__(self) -> None:
        for field in ("name", "method", "weights_digest"):
            if not isinstance(getattr(self, field), str):
                raise ValueError(f"A direction's {field} is a text; got {getattr(self, field)!r}.")
        if (self.space is None) == (self.stage is None):
            raise ValueError(
                f"A direction has either a space, such as 'z', or a stage; got {self.space!r} and {self.stage!r}."
            )
        if self.stage is not None and "." not in self.stage:
            raise ValueError(
                f"A direction's stage is an address such as 'generator.block2'; got {self.stage!r}."
            )
        numbers = np.asarray(self.vector, dtype=float)
        if numbers.ndim != 1 or not numbers.size or not np.isfinite(numbers).all():
            raise ValueError(f"A direction's vector is finite numbers (dim,); got shape {numbers.shape}.")
        length = float(np.linalg.norm(numbers))
        if length == 0.0:
            raise ValueError("A direction's vector must not be 0 throughout.")
        if not (math.isfinite(self.step) and self.step > 0.0):
            raise ValueError(f"A direction's step must be a number above 0; got {self.step}.")
        if (
            abs(length - 1.0) > 1e-6
        ):  # a unit vector is kept to the last bit, so that files give back what they got
            numbers = numbers / length
        object.__setattr__(self, "vector", tuple(float(v) for v in numbers))
        object.__setattr__(self, "step", float(self.step))
        if self.layers is not None:
            if self.space != W:
                raise ValueError(
                    f"Only a direction of 'w' has layers; this one is of {self.space or self.stage!r}."
                )
            object.__setattr__(self, "layers", check_layers(self.layers))

    @property
    def array(self) -> np.ndarray:
        """The unit vector, (dim,) float64."""
        return np.array(self.vector)

    @property
    def displacement(self) -> np.ndarray:
        """What one step adds, (dim,) float64."""
        return self.step * self.array

    def named(self, name: str) -> Direction:
        """The same direction under another name."""
        return replace(self, name=name)

    def in_layers(self, layers: Iterable[int] | None) -> Direction:
        """The same direction of W, applied to these layers of W+ alone; None for all."""
        return replace(self, layers=None if layers is None else check_layers(layers))

    def apply(self, codes: Any, steps: Any, *, space: str | None = None) -> np.ndarray:
        """Codes moved along the direction.

        Args:
            codes: (dim,) or (n, dim), or a result that holds codes and knows their space, such as an Inversion.
            steps: how many steps, one number or (n,), with one for each code; a single code gets a row a step.
            space: name of the codes' space, needed where they don't carry it. A direction of W also moves codes of W+.

        Returns:
            Codes (n, dim) of the same space, float32.

        Raises:
            ValueError: on codes of another space or length, or for a direction of a stage, which has edits instead.
        """
        if self.space is None:
            raise ValueError(
                f"Direction {self.name!r} belongs to stage {self.stage!r} and moves no codes; use its edits(steps)."
            )
        place = getattr(codes, "space", None)
        if isinstance(place, str):
            codes = codes.z
        else:
            place = space
        if place is None:
            raise ValueError(
                f"Direction {self.name!r} moves codes of {self.space!r}; say which space these are of: space=…"
            )
        if isinstance(codes, torch.Tensor):
            codes = codes.detach().cpu().numpy()
        rows = np.atleast_2d(np.asarray(codes, dtype=np.float64))
        if rows.ndim != 2:
            raise ValueError(f"Expected codes (dim,) or (n, dim); got shape {rows.shape}.")
        moved = self.spread(place, rows.shape[1])
        steps = np.asarray(steps, dtype=float)
        if steps.ndim > 1 or (steps.ndim == 1 and 1 != len(rows) != len(steps)):
            raise ValueError(f"steps must be one number or ({len(rows)},); got shape {steps.shape}.")
        return (rows + np.reshape(steps, (-1, 1)) * moved).astype(np.float32)

    def spread(self, space: str, dim: int) -> np.ndarray:
        """What one step adds to codes (dim,) of a space: the displacement, for W+ in each of the layers.

        Raises:
            ValueError: on a space in which this direction says nothing, or codes of another length.
        """
        own = len(self.vector)
        if space == W_PLUS and self.space == W and dim % own == 0:
            count = dim // own
            layers = range(count) if self.layers is None else self.layers
            if layers and max(layers) >= count:
                raise ValueError(
                    f"Direction {self.name!r} moves layer {max(layers)}; W+ has layers 0 to {count - 1}."
                )
            table = np.zeros((count, own))
            table[list(layers)] = self.displacement
            return table.ravel()
        if space != self.space:
            raise ValueError(
                f"Direction {self.name!r} was found in space {self.space!r} and can't be applied to codes of "
                f"{space!r}; "
                "carry the codes over with model.map, or look for a direction there."
            )
        if self.layers is not None:
            raise ValueError(
                f"Direction {self.name!r} moves single layers, and codes of {space!r} have none; carry the codes to "
                f"{W_PLUS!r} with model.map."
            )
        if dim != own:
            raise ValueError(f"Direction {self.name!r} has {own} coordinates; the codes have {dim}.")
        return self.displacement

    def edits(self, steps: float) -> tuple[Edit, ...]:
        """The direction of a stage as edits: a shift of each unit that it has a part in.

        Raises:
            ValueError: for a direction of a space, which is applied to codes.
        """
        if self.stage is None:
            raise ValueError(
                f"Direction {self.name!r} belongs to space {self.space!r}; use apply(codes, steps)."
            )
        shifts: dict[float, list[int]] = {}
        for unit, value in enumerate(float(steps) * self.displacement):
            if value != 0.0:
                shifts.setdefault(float(value), []).append(unit)
        return tuple(
            Edit(operation="shift", stage=self.stage, units=tuple(units), value=value)
            for value, units in shifts.items()
        )

    def __neg__(self) -> Direction:
        return replace(self, name=f"-{self.name}", vector=tuple(-v for v in self.vector))

    def __add__(self, other: Direction) -> Direction:
        if not isinstance(other, Direction):
            return NotImplemented
        _same_place(self, (other,))
        total = self.displacement + other.displacement
        step = float(np.linalg.norm(total))
        if step < _VANISHED * (self.step + other.step):
            raise ValueError(f"Directions {self.name!r} and {other.name!r} cancel; their sum leads nowhere.")
        name = f"{self.name} + {other.name}"
        return replace(self, name=name, vector=tuple(total / step), step=step, method="sum")

    def __sub__(self, other: Direction) -> Direction:
        return self + (-other) if isinstance(other, Direction) else NotImplemented

    def without(self, *others: Direction) -> Direction:
        """The part of it that is orthogonal to other directions, so that going along it moves along none of them.

        For one other, n1 - (n1 . n2) n2; several are made an orthonormal basis first. It has unit length again, and
        the step of the original.

        Raises:
            ValueError: if they belong elsewhere, or leave nothing of it.

        References:
            Interpreting the latent space of GANs for semantic face editing (Shen et al., 2020), conditional
            manipulation, https://arxiv.org/abs/1907.10786; with several conditions they subtract one after the other,
            which leaves a part along each unless they are orthogonal.
        """
        if not others:
            return self
        _same_place(self, others)
        left, values, _ = np.linalg.svd(np.stack([o.array for o in others]).T, full_matrices=False)
        basis = left[:, values > 1e-9 * values[0]]
        rest = self.array - basis @ (basis.T @ self.array)
        rest -= basis @ (basis.T @ rest)
        names = ", ".join(repr(o.name) for o in others)
        if np.linalg.norm(rest) < _VANISHED:
            raise ValueError(
                f"Nothing of direction {self.name!r} is left without {names}: it lies in their span."
            )
        name = f"{self.name} without {', '.join(o.name for o in others)}"
        return replace(self, name=name, vector=tuple(rest / np.linalg.norm(rest)), method="conditioned")

    def cosine(self, other: Direction) -> float:
        """Cosine of the angle to another direction of the same place, -1 to 1."""
        _same_place(self, (other,), layers=False)
        return float(np.clip(self.array @ other.array, -1.0, 1.0))

    def to_dict(self) -> dict:
        """Plain values for JSON, defaults left out."""
        fields = type(self).__dataclass_fields__
        plain = {k: v for k, v in asdict(self).items() if k in ("name", "vector") or v != fields[k].default}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}

    @classmethod
    def from_dict(cls, spec: Mapping) -> Direction:
        """The inverse of ``to_dict``.

        Raises:
            ValueError: on missing or unknown keys, or values that no direction has.
        """
        known = set(cls.__dataclass_fields__)
        if not isinstance(spec, Mapping) or not {"name", "vector"} <= set(spec) <= known:
            keys = sorted(spec) if isinstance(spec, Mapping) else type(spec).__name__
            raise ValueError(
                f"A direction has the keys {', '.join(sorted(known))}, name and vector among them; got {keys}."
            )
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in spec.items()}
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"A direction could not be read: {error}.") from None

    def save(self, path: str | Path) -> Path:
        """Writes the direction as JSON; see ``save_directions``."""
        return save_directions(path, [self])

    @classmethod
    def load(cls, path: str | Path) -> Direction:
        """Reads a file that holds a single direction.

        Raises:
            OSError: if the file can't be read.
            ValueError: if it holds none, or several.
        """
        found = load_directions(path)
        if len(found) != 1:
            raise ValueError(f"{path} holds {len(found)} directions; read them with load_directions.")
        return found[0]


def save_directions(path: str | Path, directions: Sequence[Direction]) -> Path:
    """Writes directions as one JSON file, which is there whole or not at all.

    Args:
        path: the file; its folder is made where it is missing.
        directions: in the order in which they shall be read again.

    Raises:
        OSError: if the folder can't be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "w") as file:
        json.dump({"format": FORMAT, "directions": [d.to_dict() for d in directions]}, file, allow_nan=False)
    return path


def load_directions(path: str | Path) -> tuple[Direction, ...]:
    """Reads what ``save_directions`` wrote.

    Raises:
        OSError: if the file can't be read.
        ValueError: if it is no list of directions.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is no JSON file of directions.") from None
    if not isinstance(content, dict) or not isinstance(content.get("directions"), list):
        raise ValueError(f"{path} is no list of directions.")
    if content.get("format") != FORMAT:
        raise ValueError(f"{path} has format {content.get('format')!r}; this version reads format {FORMAT}.")
    return tuple(Direction.from_dict(entry) for entry in content["directions"])


def check_layers(layers: Any) -> tuple[int, ...]:
    """Layers of W+ as sorted whole numbers.

    Raises:
        ValueError: on anything else, or none at all.
    """
    numbers = [layers] if isinstance(layers, int) else list(layers)
    whole = all(isinstance(k, (int, np.integer)) and not isinstance(k, bool) and k >= 0 for k in numbers)
    if not whole or not numbers:
        raise ValueError(f"Layers are whole numbers from 0, at least one; got {layers!r}.")
    return tuple(sorted({int(k) for k in numbers}))


def _same_place(one: Direction, others: Sequence[Direction], layers: bool = True) -> None:
    for other in others:
        if (one.space, one.stage) != (other.space, other.stage) or len(one.vector) != len(other.vector):
            raise ValueError(
                f"Direction {one.name!r} is of {one.space or one.stage!r} ({len(one.vector)} coordinates) and "
                f"{other.name!r} of {other.space or other.stage!r} ({len(other.vector)}); only directions of the same "
                "place can be put together."
            )
        if layers and one.layers != other.layers:
            raise ValueError(
                f"Direction {one.name!r} moves layers {one.layers} and {other.name!r} layers {other.layers}; choose "
                "the same ones first with in_layers."
            )
