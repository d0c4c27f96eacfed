"""A training's configuration as a form and as YAML: the same values, both ways.

A *spec* is what ``Experiment.to_dict`` gives: plain values, which may be wrong while a person is at it. The YAML is
what ``latentlab train FILE.yaml`` reads. Free of torch and of Streamlit.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from latentlab.config import MODELS, OBJECTIVES, Experiment

LARGEST_TEXT = 100_000
_PARTS = {"model": ("family", MODELS), "objective": ("objective", OBJECTIVES)}
_OF_THE_COMMAND = {"out", "runs", "resume", "device", "smoke", "quiet", "config"}


class _Loader(yaml.SafeLoader):
    """YAML without aliases, which could stand for endless values, and with numbers such as 5e-4."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


@dataclass(frozen=True)
class Field:
    """One value of a configuration, as a form shows it.

    Attributes:
        name: what it is called.
        kind: "whole", "choice", "switch" or "text".
        choices: of a choice.
        meaning: what its class says about it.
        plain: of a text, whether it is taken as it stands rather than read as YAML.
        optional: whether it may be left empty.
    """

    name: str
    kind: str
    choices: tuple[str, ...] = ()
    meaning: str = ""
    plain: bool = False
    optional: bool = False


def fields_of(kind: type) -> list[Field]:
    """The fields of a configuration class, in its order."""
    hints, told = typing.get_type_hints(kind), meanings(kind)
    found = []
    for entry in dataclasses.fields(kind):
        hint, meaning = hints[entry.name], told.get(entry.name, "")
        if hint is bool:
            found.append(Field(entry.name, "switch", meaning=meaning))
        elif hint is int:
            found.append(Field(entry.name, "whole", meaning=meaning))
        elif typing.get_origin(hint) is Literal:
            found.append(Field(entry.name, "choice", typing.get_args(hint), meaning))
        else:
            unions = (typing.Union, types.UnionType)
            optional = typing.get_origin(hint) in unions and type(None) in typing.get_args(hint)
            found.append(Field(entry.name, "text", meaning=meaning, plain=hint is str, optional=optional))
    return found


def meanings(kind: type) -> dict[str, str]:
    """What the docstrings of a class and its bases say about each argument."""
    found: dict[str, str] = {}
    for cls in reversed(kind.__mro__):
        _, _, arguments = (cls.__dict__.get("__doc__") or "").partition("Args:\n")
        arguments = re.split(r"\n\s*\n", arguments)[0]
        name = ""
        for line in arguments.splitlines():
            if begin := re.match(r" {8}(\w+): (.*)", line):
                name = begin[1]
                found[name] = begin[2].strip()
            elif name and line.startswith(" " * 12):
                found[name] += " " + line.strip()
    return {name: text[:1].upper() + text[1:] for name, text in found.items()}


def part_class(spec: Mapping, part: str) -> type:
    """The configuration class of a spec's "model" or "objective".

    Raises:
        ValueError: on an unknown name.
    """
    key, table = _PARTS[part]
    name = spec[part].get(key)
    if name not in table:
        raise ValueError(f"Unknown {part} {name!r}; known: {', '.join(table)}.")
    return table[name]


def to_yaml(spec: Mapping) -> str:
    """A spec as the YAML that ``latentlab train`` reads."""
    written = dict(spec)
    for part, (key, _) in _PARTS.items():
        values = {k: v for k, v in spec[part].items() if k != key}
        written[part] = {"class_path": part_class(spec, part).__name__, "init_args": values}
    return yaml.safe_dump(written, sort_keys=False, allow_unicode=True, width=100)


def from_yaml(text: str) -> dict:
    """The spec that a YAML stands for, whole: what it leaves out has its default.

    Takes what ``to_yaml`` writes, what ``latentlab train --print_config`` prints and a run's ``config.json``.

    Raises:
        ValueError: on what is no configuration; one sentence.
    """
    if len(text) > LARGEST_TEXT:
        raise ValueError(f"A configuration has at most {LARGEST_TEXT:,} characters; got {len(text):,}.")
    try:
        found = yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise ValueError(f"This is no YAML{where}: {getattr(error, 'problem', None) or error}.") from None
    if isinstance(found, Mapping) and isinstance(found.get("experiment"), Mapping):
        found = found["experiment"]
    if not isinstance(found, Mapping):
        raise ValueError("A configuration is a table of names and values, such as “name: first”.")
    spec = {key: value for key, value in found.items() if key not in _OF_THE_COMMAND}
    for part, (key, table) in _PARTS.items():
        given = spec.get(part)
        if isinstance(given, Mapping) and "class_path" in given:
            names = {cls.__name__: name for name, cls in table.items()}
            cls = str(given["class_path"]).rpartition(".")[2]
            if cls not in names:
                raise ValueError(f"Unknown {part} class {cls!r}; known: {', '.join(names)}.")
            spec[part] = {**(given.get("init_args") or {}), key: names[cls]}
    return Experiment.from_dict(spec).to_dict()


def fits(values: Mapping) -> bool:
    """Whether a spec is that of an experiment."""
    try:
        Experiment.from_dict(values)
    except (ValueError, TypeError):
        return False
    return True


def written(value: Any) -> str:
    """A value as one line of YAML; nothing for null."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e9:
        return str(int(value))
    return repr(value) if isinstance(value, int | float) else json.dumps(value)


def read_value(text: str) -> Any:
    """A value from one line of YAML; None for nothing, the text itself where it is no YAML."""
    if not text.strip():
        return None
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError):
        return text
