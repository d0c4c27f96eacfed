"""What an analysis returns: arrays, where they came from, and the numbers that prove them.

A Result is frozen and holds only numpy arrays and plain values, so it can be cached, saved and sent about.
``viz`` registers how each kind is drawn; this module draws nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NoReturn

import numpy as np

from latentlab.files import atomic_write

FORMAT = 1
_SEPARATOR = "/"
_HTML: dict[type, Callable[[Any], str]] = {}


class FrozenDict(dict):
    """A dictionary that can't be changed; it equals, prints, pickles and goes to JSON as a dict does."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("A result is frozen; make a copy with dict(…) to change it.")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse  # type: ignore[assignment]

    def __reduce__(self) -> tuple:
        return type(self), (dict(self),)


@dataclass(frozen=True)
class Provenance:
    """Where a result came from.

    Attributes:
        weights_digest: sha256 of the weights of the model that was analysed; "" where no model took part.
        parameters: the arguments of the call, as plain values.
        seed: the seed of the call, or None where no chance was involved.
        versions: versions of the packages that computed it.
        created: time of the call, ISO 8601, UTC.
    """

    weights_digest: str
    parameters: Mapping[str, Any]
    seed: int | None
    versions: Mapping[str, str]
    created: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", _frozen(self.parameters))
        object.__setattr__(self, "versions", _frozen(self.versions))


@cache
def _versions() -> Mapping[str, str]:
    found = {}
    for package in ("latentlab", "torch", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


def provenance(model: Any, parameters: Mapping[str, Any], seed: int | None = None) -> Provenance:
    """Writes down where a result comes from.

    Args:
        model: the analysed model, or None, or the digest itself as a string.
        parameters: the arguments of the call; arrays are recorded by shape and digest.
        seed: the seed that decided what chance decided.
    """
    if model is None or isinstance(model, str):
        digest = model or ""
    else:
        from latentlab.models.contract import weights_digest

        digest = weights_digest(model)
    plain = {name: _plain(value) for name, value in parameters.items()}
    return Provenance(digest, plain, seed, dict(_versions()), datetime.now(UTC).isoformat(timespec="seconds"))


def array_digest(array: np.ndarray) -> str:
    """Sha256 of an array's dtype, shape and bytes, in hex."""
    array = np.ascontiguousarray(array)
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()


def _plain(value: Any) -> Any:
    """A JSON value that says the same; long arrays are named by shape and digest."""
    if isinstance(value, (str, bool, int, float, type(None))):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, range)):
        return [_plain(v) for v in value]
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        if value.size <= 512:
            return value.tolist()
        return {"shape": list(value.shape), "sha256": array_digest(value)}
    if hasattr(value, "to_dict"):
        return _plain(value.to_dict())
    return repr(value)


def _frozen_array(value: Any) -> np.ndarray:
    view = np.asarray(value).view()
    view.flags.writeable = False
    return view


def _frozen(value: Any) -> Any:
    """Dictionaries that refuse changes, all the way down; their lists are the result's own copies."""
    if isinstance(value, Mapping):
        return FrozenDict({k: _frozen(v) for k, v in value.items()})
    if isinstance(value, (list, tuple)):
        return type(value)(_frozen(v) for v in value)
    return value


def _tuples(value: Any) -> Any:
    """Lists as tuples and numpy scalars as Python numbers, so that a value equals what JSON gives back."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return tuple(_tuples(v) for v in value)
    if isinstance(value, Mapping):
        return FrozenDict({k: _tuples(v) for k, v in value.items()})
    return value


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Result:
    """The outcome of one analysis: numpy arrays, plain values, provenance and certificate.

    Subclasses are frozen dataclasses whose fields are arrays (annotated ``np.ndarray``, possibly ``| None``),
    dictionaries of arrays (``dict[str, np.ndarray]``) or plain JSON values. Arrays are read-only views.

    Attributes:
        provenance: where the result comes from.
        certificate: the numbers that prove it, by name; each analysis says which.
    """

    provenance: Provenance
    certificate: Mapping[str, Any]

    kinds: ClassVar[dict[str, type[Result]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        Result.kinds[cls.__name__] = cls

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.name == "provenance":
                continue
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                value = _frozen_array(value)
            elif isinstance(value, Mapping) and any(isinstance(v, np.ndarray) for v in value.values()):
                value = MappingProxyType({k: _frozen_array(v) for k, v in value.items()})
            else:
                value = _tuples(value)
            object.__setattr__(self, field.name, value)

    @property
    def kind(self) -> str:
        """Name of the kind of result, such as "Traversal"."""
        return type(self).__name__

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name; those of a dictionary field are called "field/key"."""
        found: dict[str, np.ndarray] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                found[field.name] = value
            elif isinstance(value, MappingProxyType):
                found.update({field.name + _SEPARATOR + k: v for k, v in value.items()})
        return found

    def _values(self) -> dict[str, Any]:
        skip = {name.split(_SEPARATOR)[0] for name in self.arrays()} | {"provenance", "certificate"}
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in skip}

    def save(self, path: str | Path) -> Path:
        """Writes the result as PATH.npz (the arrays) and PATH.json (all else).

        Each is written under a temporary name and renamed, so that no half-written file is left behind.

        Args:
            path: the file's name, with or without one of the two endings.

        Returns:
            The path of the .npz file.

        Raises:
            OSError: if the folder can't be written.
        """
        stem = _stem(path)
        stem.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **self.arrays())  # type: ignore[arg-type]
        content = buffer.getvalue()
        header = {
            "format": FORMAT,
            "kind": self.kind,
            "arrays_sha256": hashlib.sha256(content).hexdigest(),
            "values": self._values(),
            "certificate": dict(self.certificate),
            "provenance": dataclasses.asdict(self.provenance),
        }
        text = json.dumps(header, indent=1, default=_plain)
        arrays = _ending(stem, ".npz")
        _write(arrays, content)
        _write(_ending(stem, ".json"), text.encode())
        return arrays

    def __repr__(self) -> str:
        shapes = ", ".join(f"{k} {'×'.join(map(str, v.shape)) or 'scalar'}" for k, v in self.arrays().items())
        proof = ", ".join(f"{k} {_short(v)}" for k, v in self.certificate.items())
        return f"{self.kind}({shapes}; certificate: {proof or 'none'})"

    def _repr_html_(self) -> str | None:
        draw = next((_HTML[c] for c in type(self).__mro__ if c in _HTML), None)
        return None if draw is None else draw(self)

    def __getstate__(self) -> dict[str, Any]:
        # Views of dictionaries can't be pickled, and st.cache_data pickles what it keeps.
        return {
            f.name: dict(v) if isinstance(v := getattr(self, f.name), MappingProxyType) else v
            for f in dataclasses.fields(self)
        }

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)
        self.__post_init__()


def draw_with(kind: type, draw: Callable[[Any], str]) -> None:
    """Registers how notebooks show a kind of result: a function from the result to HTML."""
    _HTML[kind] = draw


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(_short(v) for v in value[:4])}{', …' if len(value) > 4 else ''}]"
    return str(value)


def _stem(path: str | Path) -> Path:
    path = Path(path)
    return path.with_suffix("") if path.suffix in (".npz", ".json") else path


def _ending(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)


def load_result(path: str | Path) -> Result:
    """Reads a result that ``Result.save`` wrote. Nothing in the files is executed.

    Args:
        path: the file's name, with or without its .npz or .json ending.

    Raises:
        OSError: if one of the two files is missing or can't be read.
        ValueError: if a file is damaged, or is no result that this version knows.
    """
    import latentlab.analysis  # noqa: F401  (registers every kind)

    stem = _stem(path)
    content = _ending(stem, ".npz").read_bytes()
    text = _ending(stem, ".json").read_bytes()
    try:
        header = json.loads(text)
        kind, digest = header["kind"], header["arrays_sha256"]
        values, certificate, origin = (
            header["values"],
            header["certificate"],
            Provenance(**header["provenance"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(
            f"{_ending(stem, '.json')} is damaged: it is not the description of a result."
        ) from None
    if header.get("format") != FORMAT:
        raise ValueError(f"{stem} has format {header.get('format')!r}; this version reads format {FORMAT}.")
    if kind not in Result.kinds:
        raise ValueError(f"{stem} is a {kind!r}, which is none of {', '.join(sorted(Result.kinds))}.")
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(
            f"{_ending(stem, '.npz')} is damaged, or belongs to another result: its digest differs."
        )
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            loaded = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile, EOFError):
        raise ValueError(f"{_ending(stem, '.npz')} is damaged: it holds no readable arrays.") from None
    fields: dict[str, Any] = dict(values)
    for name, array in loaded.items():
        field, _, key = name.partition(_SEPARATOR)
        if key:
            fields.setdefault(field, {})[key] = array
        else:
            fields[field] = array
    try:
        return Result.kinds[kind](**fields, certificate=certificate, provenance=origin)
    except TypeError as error:
        raise ValueError(f"{stem} does not hold a complete {kind}: {error}.") from None
