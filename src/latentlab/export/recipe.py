"""Recipe: all that an exported file was made from, as JSON, so that it can be made again bit for bit.

A recipe names its run and the digest of the run's weights, and holds every number that the file depends on: codes,
ranges and edits as they are, not the choices that led to them. ``latentlab.rendering`` makes the file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from latentlab.analysis.direction import Direction
from latentlab.analysis.inference import check_edits, input_spaces
from latentlab.export.program import PRECISIONS
from latentlab.export.recipe_values import CHECKS
from latentlab.files import atomic_write
from latentlab.latents import UNORDERED, Categorical, Codebook
from latentlab.models.contract import is_inference_model, space_of, weights_digest
from latentlab.models.edits import Edit

VERSION = 1
ENDING = ".recipe.json"
_LARGEST = 20_000_000
_PIXELS = 300_000_000  # of all images of a picture or a movie together: about a gigabyte
_CODE = ("space", "z", "start", "seed", "edits")
_MOVING = ("dims", "ranges", "span", "steps", "scale")
# Kind -> the files it can be, and the fields that decide its content.
KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "image": (("png",), (*_CODE, "scale")),
    "traversal": (("png",), (*_CODE, *_MOVING, "caption")),
    "grid": (("png",), (*_CODE, *_MOVING, "caption")),
    "movie": (("gif", "mp4"), (*_CODE, *_MOVING, "fps")),
    "codes": (("npz",), ("space", "source", "count", "z", "start", "seed")),
    "onnx": (("onnx",), ("network", "space", "edits")),
    "page": (("html",), ("space", "z", "start", "seed", "precision", "labels", "directions")),
}
SOURCES = ("given", "prior", "data")
NETWORKS = ("generator", "encoder")
SPANS = ("prior", "posterior", "sigma", "values")
_ALLOWED = {"source": SOURCES, "network": NETWORKS, "span": SPANS, "precision": PRECISIONS}
_ALWAYS = ("kind", "file", "run", "step", "weights_digest")
_NOTES = ("made_with", "output")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a file was made from. A kind of file has the fields that decide it, the others keep their defaults.

    Attributes:
        kind: "image" (one image or a sheet of several), "traversal" (strips), "grid" (a plane of two latents), "movie"
            (strips that move), "codes", "onnx" or "page", the self-contained one.
        file: ending of the file: "png", "gif", "mp4", "npz", "onnx" or "html".
        run: what ``Run.open`` takes: a folder, or "zoo:NAME".
        step: None for the run's latest weights, or the step of a kept checkpoint.
        weights_digest: SHA-256 of the weights, hex.
        space: name of the space that the codes belong to.
        z: codes, (n, dim) exact numbers; one code unless the kind is "image", "codes" or "page", which may do without.
        start: where the codes come from, in words.
        seed: the seed that they were drawn with, None where no chance was involved.
        edits: edits of the network.
        dims: latents that move, by name; a categorical block by its own name.
        ranges: low and high end of each, None for what runs over categories.
        span: what the ranges are: "prior", "posterior", "sigma" or "values".
        steps: images along each range.
        scale: pixels of the picture an image's pixel.
        caption: whether the caption is written below a still picture.
        fps: frames a second.
        source: of "codes": "given" (``z``), "prior" (draws of ``seed``) or "data" (images of the run's data set, drawn
            by ``seed`` and encoded).
        count: of "codes": how many are drawn or encoded.
        network: of "onnx": "generator" or "encoder".
        precision: of the weights of a "page": "f32", "f16" or "int8".
        labels: of a "page": {latent: (factor it knows most of, nats)}; None to measure them.
        directions: of a "page": those with sliders of their own; None for those that ``export_html`` chooses.
        made_with: versions and device that made the file.
        output: size and SHA-256 of the file, {"bytes": n, "sha256": hex}; None before it was made.

    Raises:
        ValueError: on a value that no recipe has; the message names the field.
    """

    kind: str
    file: str
    run: str
    weights_digest: str
    step: int | None = None
    space: str = "z"
    z: tuple[tuple[float, ...], ...] = ()
    start: str = ""
    seed: int | None = None
    edits: tuple[Edit, ...] = ()
    dims: tuple[str, ...] = ()
    ranges: tuple[tuple[float, float] | None, ...] = ()
    span: str = "values"
    steps: int = 2
    scale: int = 1
    caption: bool = True
    fps: float = 12.0
    source: str = "given"
    count: int = 1
    network: str = "generator"
    precision: str = "f16"
    labels: Mapping[str, tuple[str, float]] | None = None
    directions: tuple[Direction, ...] | None = None
    made_with: Mapping[str, Any] = field(default_factory=dict)
    output: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"A recipe's kind is one of {', '.join(KINDS)}; got {self.kind!r}.")
        endings = KINDS[self.kind][0]
        if self.file not in endings:
            raise ValueError(
                f"A recipe of kind {self.kind!r} makes {' or '.join(endings)}; got {self.file!r}."
            )
        for name, check in CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))
        for spec in fields(self):
            if spec.name not in (*_ALWAYS, *_NOTES, *self._own, "space"):
                if getattr(self, spec.name) != spec.default:
                    raise ValueError(f"A recipe of kind {self.kind!r} has no {spec.name}; it would be lost.")
        if not re.fullmatch(r"[0-9a-f]{64}", self.weights_digest):
            raise ValueError(f"weights_digest must be 64 hex digits; got {self.weights_digest!r}.")
        if len(self.ranges) != len(self.dims):
            raise ValueError(f"ranges needs one entry a latent ({len(self.dims)}); got {len(self.ranges)}.")
        if len({len(code) for code in self.z}) > 1:
            raise ValueError("z must be codes of one length; theirs differ.")
        optional = self.kind == "page" or (self.kind == "codes" and self.source != "given")
        if "z" in self._own and not self.z and not optional:
            raise ValueError(f"A recipe of kind {self.kind!r} needs a code z; got none.")
        if "dims" in self._own and not self.dims:
            raise ValueError(f"A recipe of kind {self.kind!r} needs latents dims; got none.")
        if "dims" in self._own and len(self.z) != 1:
            raise ValueError(f"A recipe of kind {self.kind!r} leaves from one code z; got {len(self.z)}.")
        if self.kind == "grid" and (len(self.dims) != 2 or None in self.ranges):
            raise ValueError(f"A grid needs two latents that have ranges; got {', '.join(self.dims)}.")
        for name, allowed in _ALLOWED.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is one of {', '.join(allowed)}; got {getattr(self, name)!r}.")
        if self.kind == "codes" and self.source != "given" and self.z:
            raise ValueError(f"Codes z are given, or come from {self.source!r}; not both.")
        if self.kind == "codes" and self.source != "given" and self.seed is None:
            raise ValueError(f"Codes of source {self.source!r} need a seed; got none.")

    @property
    def _own(self) -> tuple[str, ...]:
        return KINDS[self.kind][1]

    @property
    def codes(self) -> np.ndarray:
        """The codes ``z``, float32 (n, dim)."""
        return np.array(self.z, dtype=np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: what decides the file, and the two notes on it."""
        found: dict[str, Any] = {"recipe": VERSION}
        for name in (*_ALWAYS, *self._own):
            found[name] = getattr(self, name)
        found["edits"] = [edit.to_dict() for edit in self.edits]
        if "edits" not in self._own:
            del found["edits"]
        if self.directions is not None:
            found["directions"] = [direction.to_dict() for direction in self.directions]
        return {**found, "made_with": dict(self.made_with), "output": self.output and dict(self.output)}

    def to_json(self) -> str:
        """The recipe as JSON; numbers are written so that they come back exactly."""
        entries = (
            f" {json.dumps(name)}: {json.dumps(value, allow_nan=False)}"
            for name, value in self.to_dict().items()
        )
        return "{\n" + ",\n".join(entries) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The inverse of ``to_json``.

        Raises:
            ValueError: if it is no recipe, one of a newer format, or a field is missing, unknown or out of range.
        """
        try:
            spec = json.loads(text, parse_constant=_refuse_constant)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"A recipe is JSON; this text is none ({error}).") from None
        if not isinstance(spec, dict) or "recipe" not in spec:
            raise ValueError('A recipe is a JSON object with the entry "recipe"; this is none.')
        version = spec.pop("recipe")
        if type(version) is not int or version < 1:
            raise ValueError(f'"recipe" must be the number of a format, such as {VERSION}; got {version!r}.')
        if version > VERSION:
            raise ValueError(
                f"The recipe has format {version}, and this latentlab reads formats up to {VERSION}; "
                "install a newer latentlab."
            )
        kind = spec.get("kind")
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(f"A recipe's kind is one of {', '.join(KINDS)}; got {kind!r}.")
        needed = (*_ALWAYS, *KINDS[kind][1])
        if missing := [name for name in needed if name not in spec]:
            raise ValueError(f"The recipe lacks {missing[0]!r}, which a recipe of kind {kind!r} needs.")
        if odd := [name for name in spec if name not in (*needed, *_NOTES)]:
            raise ValueError(f"A recipe of kind {kind!r} has no entry {odd[0]!r}.")
        return cls(**spec)

    @classmethod
    def read(cls, path: str | Path) -> Recipe:
        """Reads a recipe's file.

        Raises:
            OSError: if there is no such file.
            ValueError: if it holds no recipe that this version knows.
        """
        path = Path(path)
        if not path.is_file():
            raise OSError(f"No recipe at {path}.")
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"{path} should be a recipe of at most {_LARGEST:,} bytes; it is larger.")
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            raise ValueError(f"{path} should be a UTF-8 text; it is not.") from None
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def save(self, path: str | Path) -> Path:
        """Writes the recipe's file, whole or not at all."""
        path = Path(path)
        with atomic_write(path, "w") as file:
            file.write(self.to_json())
        return path

    def with_output(self, output: Mapping[str, Any], made_with: Mapping[str, Any]) -> Recipe:
        """The same recipe with the notes on its file."""
        return replace(self, output=output, made_with=made_with)

    def check(self, model: Any) -> None:
        """Refuses a model that the recipe was not made with, or can't be followed with.

        Raises:
            ValueError: on other weights, or codes, latents or edits that do not fit the model.
        """
        digest = weights_digest(model)
        if digest != self.weights_digest:
            raise ValueError(
                f"The recipe was made with weights {self.weights_digest[:12]}, and the run has {digest[:12]}: "
                "its weights are other ones, so its file can't be made again from them."
            )
        space = space_of(model, self.space)
        if self.z and len(self.z[0]) != space.dim:
            raise ValueError(f"z must be codes of {space.dim} numbers, as space {self.space!r} has; "
                             f"got {len(self.z[0])}.")  # fmt: skip
        blocks = {b.name for b in space.blocks if isinstance(b.prior, Categorical)}
        for name, ends in zip(self.dims, self.ranges, strict=True):
            if name in blocks:
                if ends is not None:
                    raise ValueError(f"{name} runs over its categories, so its range is null.")
                continue
            block = space.block_of(name)
            if block.name in blocks:
                raise ValueError(f"{name} is one of a block's categories; name the block, {block.name}.")
            if ends is None:
                raise ValueError(f"{name} needs a range (low, high); the recipe has null.")
        self._check_size(model)
        if self.network == "encoder" and not is_inference_model(model):
            raise ValueError(f"{type(model).__name__} has no encoder to write as ONNX.")
        if self.network == "encoder":
            check_edits(self.edits, "encoder")
        else:
            reads = (name for name, place in input_spaces(model).items() if place == space.name)
            check_edits(self.edits, "generator", *reads)

    def _check_size(self, model: Any) -> None:
        if "scale" not in self._own:
            return
        images = {"image": len(self.z), "grid": self.steps**2}.get(self.kind, len(self.dims) * self.steps)
        images *= 2 if self.kind == "movie" else 1
        pixels = images * math.prod(model.image_shape[1:]) * self.scale**2
        if pixels > _PIXELS:
            raise ValueError(
                f"{images:,} images at scale {self.scale} make {pixels:,} pixels, more than {_PIXELS:,}; "
                "take fewer of them or a smaller scale."
            )

    def values(self, model: Any) -> np.ndarray:
        """The value of each latent at each step, (dims, steps); rows of categories are not read.

        Raises:
            ValueError: on more steps than a codebook has codes.
        """
        space = space_of(model, self.space)
        rows = []
        for name, ends in zip(self.dims, self.ranges, strict=True):
            low, high = ends or (0.0, 1.0)
            row = np.linspace(low, high, self.steps)
            prior = None if ends is None else space.block_of(name).prior
            if isinstance(prior, Codebook):
                row = row.round()
                if len(np.unique(row)) < len(row):
                    raise ValueError(
                        f"{name} is an index of a codebook with {round(high - low) + 1} codes in range, which "
                        f"allow as many steps; got {self.steps}."
                    )
            rows.append(row)
        return np.stack(rows)


def ordered(space: Any, name: str) -> bool:
    """Whether a latent has a range: categories have none, the index of a codebook has."""
    prior = space.block_of(name).prior
    return not isinstance(prior, UNORDERED) or isinstance(prior, Codebook)


def _refuse_constant(text: str) -> float:
    raise ValueError(f"A recipe holds finite numbers; this one holds {text}.")


assert set(CHECKS) == {f.name for f in fields(Recipe)} - {"kind", "file"}
