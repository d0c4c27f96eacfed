"""The form of a new training: widgets made from the configuration's classes, and the same values as YAML."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import streamlit as st

from latentlab.app import controls, training_advice
from latentlab.app.configuration import (
    Field,
    fields_of,
    fits,
    from_yaml,
    meanings,
    part_class,
    read_value,
    to_yaml,
    written,
)
from latentlab.config import MODELS, OBJECTIVES, Experiment, begin, experiment_names, named_experiment
from latentlab.config.fields import read

SPEC, TEXT, WRONG, PRESET = "train-spec", "train-yaml", "train-wrong", "train-preset"
FIRST = "digits-vae"
COLUMNS = 3
SOURCES = {
    "folder": "Folder of images",
    "dsprites": "Original dSprites file (.npz)",
    "shapes3d": "Original 3D Shapes file (.h5)",
}
OFTEN = ("max_steps", "batch_size", "learning_rate", "seed", "precision")


def spec() -> dict:
    """The values as they stand, which may be wrong; at first those of a small shipped experiment."""
    if SPEC not in st.session_state:
        put(named_experiment(FIRST)[0].to_dict())
    return st.session_state[SPEC]


def put(values: dict) -> None:
    """Replaces all values: form and YAML follow."""
    st.session_state[SPEC] = values
    st.session_state[TEXT] = to_yaml(values)
    st.session_state[WRONG] = ""


def draw() -> Experiment | None:
    """Form and YAML side by side; the experiment they stand for, or None while they are wrong, which is then said."""
    values = spec()
    form, text = st.columns([3, 2], gap="large")
    with form:
        _beginning(values)
        _data(values)
        _part(values, "model", "Model", MODELS)
        _part(values, "objective", "Objective", OBJECTIVES)
        training_advice.offer(values, put)
        _steps(values)
    with text:
        st.html("<style>.st-key-train-yaml textarea { font-family: monospace; font-size: .86rem; }</style>")
        st.session_state.setdefault(TEXT, to_yaml(values))
        st.text_area(
            "The same as YAML",
            key=TEXT,
            height=620,
            on_change=_take_text,
            help="What `latentlab train FILE.yaml` reads. Change it here or in the form: each follows the other. "
            "Press Ctrl+Enter to take a change.",
        )
        if wrong := st.session_state.get(WRONG):
            st.error(f"{controls.plainly(wrong)} The form keeps the values before.")
            return None
        try:
            return Experiment.from_dict(values)
        except (ValueError, TypeError) as error:
            st.error(controls.plainly(error))
            return None


def _take_text() -> None:
    try:
        put(from_yaml(st.session_state[TEXT]))
    except (ValueError, TypeError) as error:
        st.session_state[WRONG] = str(error)


def _beginning(values: dict) -> None:
    with st.container(horizontal=True, gap="small"):
        _widget(values, "", Field("name", "text", meaning=meanings(Experiment)["name"], plain=True))
        st.selectbox(
            "Fill in from",
            experiment_names(),
            index=None,
            key=PRESET,
            placeholder="a shipped experiment",
            on_change=_take_preset,
            help="Puts a shipped experiment's values into the form.",
        )


def _take_preset() -> None:
    name = st.session_state[PRESET]
    if name:
        put(named_experiment(name)[0].to_dict())


def _data(values: dict) -> None:
    from latentlab.data import list_datasets

    entries = {entry.name.partition(":")[0]: entry for entry in list_datasets()}
    kind, _, path = str(values["data"]["name"]).partition(":")
    kind = kind if kind in entries else next(iter(entries))
    st.session_state["train-data"], st.session_state["train-path"] = kind, path
    st.session_state["train-options"] = written(values["data"].get("options", {}))

    def take() -> None:
        chosen = st.session_state["train-data"]
        given = st.session_state.get("train-path", "") if chosen in SOURCES else ""
        options = read_value(st.session_state["train-options"]) if chosen == kind else {}
        changed = copy.deepcopy(values)
        name = f"{chosen}:{given}" if given else chosen
        changed["data"] = {"name": name, "options": {} if options is None else options}
        put(with_label(changed))

    st.subheader("Data", anchor=False)
    with st.container(horizontal=True, gap="small"):
        st.selectbox(
            "Data set",
            list(entries),
            format_func=lambda name: SOURCES.get(str(name), str(name)),
            key="train-data",
            on_change=take,
            help="Which images to learn from.",
        )
        if kind in SOURCES:
            st.text_input(
                "Path",
                key="train-path",
                on_change=take,
                placeholder="/path/of/your/files",
                help="Where your files lie on the machine that trains.",
            )
        st.text_input(
            "Options",
            key="train-options",
            on_change=take,
            help='Of the data set, as YAML, such as {"split": "train"}.',
        )
    entry = entries[kind]
    size = f"{entry.size:,} images" if entry.size else "your images"
    shape = " × ".join(map(str, entry.image_shape)) if entry.image_shape else ""
    factors = f"factors {', '.join(entry.factors)}" if entry.factors else ""
    told = ", ".join(filter(None, (size, shape, factors)))
    missing = "" if entry.available or kind in SOURCES else f" Not on this machine yet: training {entry.how}."
    st.caption(told + "." + missing)


def _part(values: dict, part: str, title: str, table: Mapping[str, Any]) -> None:
    kind = part_class(values, part)
    st.subheader(title, anchor=False)
    key = f"train-{part}"
    names = list(table)
    if part == "objective":
        names = [name for name, cls in table.items() if cls.kind == part_class(values, "model").kind]
        names += [] if values[part]["objective"] in names else [values[part]["objective"]]
    st.session_state[key] = values[part]["family" if part == "model" else "objective"]
    st.selectbox(
        title,
        names,
        key=key,
        label_visibility="collapsed",
        on_change=_take_part,
        args=(values, part, key),
    )
    st.caption(f"{(kind.__doc__ or '').strip().splitlines()[0]} Use: {kind.use}.")
    _grid(values, part, _fields(values, part, kind))


def _take_part(values: dict, part: str, key: str) -> None:
    put(with_label(with_part(values, part, st.session_state[key])))


def label_sizes(values: Mapping) -> dict[str, int]:
    """The factors that a spec's data have as labels, and their numbers of values; {} where only the files tell."""
    from latentlab.data import factor_sizes

    options = values["data"].get("options")
    return factor_sizes(values["data"]["name"], options if isinstance(options, Mapping) else {})


def with_label(values: dict) -> dict:
    """A spec whose model, if it is told a label, is told one that its data have: else their first, with its classes."""
    sizes = label_sizes(values)
    if "label" not in values["model"] or not sizes:
        return values
    label = values["model"]["label"]
    label = label if label in sizes else next(iter(sizes))
    return {**values, "model": {**values["model"], "label": label, "classes": sizes[label]}}


def _fields(values: Mapping, part: str, kind: type) -> list[Field]:
    """The fields of a part; a label is one of the data's factors, where they are known."""
    fields, sizes = fields_of(kind), label_sizes(values)
    if part != "model" or not sizes:
        return fields
    now = values[part].get("label")
    labels = (*sizes, *(() if now in sizes else (str(now),)))
    return [
        dataclasses.replace(field, kind="choice", choices=labels) if field.name == "label" else field
        for field in fields
    ]


def with_part(values: Mapping, part: str, name: str) -> dict:
    """A spec with another model or objective, which begins with its own defaults, and an objective that fits.

    What speaks of the data stays, as with ``latentlab train --model`` (see ``latentlab.config.begin``).
    """
    key, table = ("family", MODELS) if part == "model" else ("objective", OBJECTIVES)
    own = begin(table[name], values[part])
    own = own if _reads(table[name], own) else dataclasses.asdict(table[name]())
    changed = {**copy.deepcopy(dict(values)), part: {key: name, **own}}
    if part == "model" and not fits(changed):
        for other, cls in OBJECTIVES.items():
            fitting = {**changed, "objective": {"objective": other, **dataclasses.asdict(cls())}}
            if fits(fitting):
                return fitting
    return changed


def _reads(kind: type, values: Mapping) -> bool:
    try:
        read(kind, values)
    except (ValueError, TypeError):
        return False
    return True


def _steps(values: dict) -> None:
    st.subheader("Training", anchor=False)
    fields = {field.name: field for field in fields_of(Experiment)}
    _grid(values, "", [fields[name] for name in OFTEN])
    with st.expander("What is written, and how often"):
        _grid(
            values, "", [fields[n] for n in ("log_every", "preview_every", "checkpoint_every", "keep_memory")]
        )


def _grid(values: dict, part: str, fields: list[Field]) -> None:
    for first in range(0, len(fields), COLUMNS):
        for column, field in zip(
            st.columns(COLUMNS, vertical_alignment="bottom"), fields[first : first + COLUMNS], strict=False
        ):
            with column:
                _widget(values, part, field)


def _widget(values: dict, part: str, field: Field) -> None:
    """One field: it shows what the spec holds, and a change goes into the spec."""
    key = f"train-{part}-{field.name}"
    now = (values[part] if part else values)[field.name]
    label = field.name.replace("_", " ").capitalize()

    def take() -> None:
        value = st.session_state[key]
        if field.kind == "text" and not field.plain:
            value = read_value(value)
        changed = copy.deepcopy(values)
        (changed[part] if part else changed)[field.name] = value
        put(with_label(changed) if (part, field.name) == ("model", "label") else changed)

    common = {"key": key, "on_change": take, "help": field.meaning or None}
    if field.kind == "switch":
        st.session_state[key] = bool(now)
        st.toggle(label, **common)
    elif field.kind == "choice":
        st.session_state[key] = now if now in field.choices else field.choices[0]
        st.selectbox(label, field.choices, **common)
    elif field.kind == "whole" and isinstance(now, int):
        st.session_state[key] = now
        st.number_input(label, step=1, **common)
    else:
        st.session_state[key] = written(now)
        st.text_input(label, placeholder="none" if field.optional else None, **common)
