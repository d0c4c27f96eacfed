"""What a configuration's fields may hold: ranges, choices, and reading them from text nobody vouches for."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any


def check_range(owner: str, name: str, value: float, low: float, high: float) -> None:
    """Refuses what is no number between two ends.

    Raises:
        ValueError: always with the range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{owner}.{name} must lie in [{low}, {high}]; got {value!r}.")


def check_choice(config: Any, name: str) -> None:
    """Refuses a field that holds none of the choices its type lists.

    Raises:
        ValueError: with the choices.
    """
    choices = typing.get_args(typing.get_type_hints(type(config))[name])
    if not isinstance(getattr(config, name), str) or getattr(config, name) not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {getattr(config, name)!r}.")


def table(what: str, spec: Any) -> Mapping:
    """The same, if it is a table of keys and values.

    Raises:
        ValueError: if it is not.
    """
    if not isinstance(spec, Mapping):
        raise ValueError(f"The configuration's {what} must be a table of keys and values; got {spec!r}.")
    return spec


def known(what: str, name: Any, table: Mapping[str, type]) -> type:
    """The class that a name stands for.

    Raises:
        ValueError: with the known names.
    """
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"Unknown {what} {name!r}; known: {', '.join(table)}.")
    return table[name]


def read(kind: type, spec: Mapping) -> Any:
    """A configuration of a class from a table of its fields; tables inside become the configurations they stand for.

    Raises:
        ValueError: on unknown keys, wrong types or ranges; the message says which.
    """
    hints = typing.get_type_hints(kind)
    fields = {f.name for f in dataclasses.fields(kind)}
    if unknown := sorted(set(spec) - fields):
        raise ValueError(
            f"Unknown key {unknown[0]!r} in {kind.__name__}; known: {', '.join(sorted(fields))}."
        )
    spec = {key: _inside(hints[key], value) for key, value in spec.items()}
    for key, value in spec.items():
        plain = {int: int, float: (int, float), bool: bool, str: str}.get(hints[key])
        if plain and (not isinstance(value, plain) or (isinstance(value, bool) and hints[key] is not bool)):
            raise ValueError(f"{kind.__name__}.{key} must be of type {hints[key].__name__}; got {value!r}.")
    try:
        return kind(**spec)
    except TypeError as error:
        raise ValueError(f"{kind.__name__} could not be read: {error}.") from None


def _inside(hint: Any, value: Any) -> Any:
    """A field's value, where it may be a configuration or a list of them."""
    for option in (hint, *typing.get_args(hint)):
        if isinstance(value, Mapping) and dataclasses.is_dataclass(option) and isinstance(option, type):
            return read(option, value)
        inner = next(iter(typing.get_args(option)), None)
        if (
            not isinstance(value, list)
            or typing.get_origin(option) is not list
            or not isinstance(inner, type)
        ):
            continue
        if dataclasses.is_dataclass(inner):
            return [read(inner, table(inner.__name__, entry)) for entry in value]
    return value
