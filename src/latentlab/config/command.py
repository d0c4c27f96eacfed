"""An experiment from a command line: a named one or YAML files, and what is typed on top of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from latentlab.config.another import begin, fitting
from latentlab.config.experiment import MODELS, OBJECTIVES, Experiment, experiment_names
from latentlab.config.fields import read
from latentlab.config.models import ModelConfig
from latentlab.config.objectives import ObjectiveConfig

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

CLASSES: dict[str, dict[str, type]] = {
    "model": {kind.__name__: kind for kind in MODELS.values()},
    "objective": {kind.__name__: kind for kind in OBJECTIVES.values()},
}
FactorSizes = Callable[[str, dict], Mapping[str, int]]
"""From a data set's name and options to its factors and their numbers of values; none where nothing is known."""


def train_parser() -> ArgumentParser:
    """The options of ``latentlab train``: the configuration's own, and a few of the command."""
    from jsonargparse import ArgumentParser, set_parsing_settings

    set_parsing_settings(subclasses_enabled=[ModelConfig, ObjectiveConfig])
    parser = ArgumentParser(
        prog="latentlab train [EXPERIMENT | FILE.yaml]",
        description="Trains an experiment. Named ones: " + ", ".join(experiment_names()) + ".",
        exit_on_error=False,
    )
    parser.add_argument("--config", action="config", help="a YAML file with any of the values below")
    parser.add_argument("--out", type=str, help="folder of the run (default: DIR/NAME in --runs)")
    parser.add_argument("--runs", type=str, default="runs", help="folder of your runs")
    parser.add_argument("--resume", type=str, help="continue the run in this folder; takes no other values")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or cuda:0")
    parser.add_argument("--smoke", action="store_true", help="a few steps only, to see that everything works")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_class_arguments(Experiment, None)
    return parser


def read_command(
    arguments: list[str], first: Experiment, factor_sizes: FactorSizes
) -> tuple[Namespace, list[str]]:
    """What a command line asks for.

    Values come from an experiment, then from YAML files, then from the options that are typed; each of these may choose
    another class of model or objective, or other data. What was said of the class before is then no longer meant: the
    new one begins with its own defaults (see ``begin``), and with what is said beside its name.

    Args:
        arguments: the options, without the experiment's name.
        first: the experiment that they change.
        factor_sizes: of a data set, for a model that is told a label and whose label nobody named.

    Returns:
        The parsed values, ``model`` and ``objective`` as their classes, and a sentence about each thing that was
        chosen because nobody named it.

    Raises:
        ValueError: on classes that are not in the tables, and values out of range.
        argparse.ArgumentError: on what the parser refuses.
    """
    parser, state = train_parser(), _flat(first)
    named: set[str] = set()
    replaced: set[str] = set()
    notes: list[str] = []
    files, typed = _apart(arguments)
    for tokens in (*(["--config", file] for file in files), typed):
        parser.set_defaults(state)
        asked = [token for token in tokens if token.partition("=")[0] != "--print_config"]
        said = parser.parse_args(asked, defaults=False).as_dict()
        turned = _turn(state, said)
        named = {name for name in named if name.partition(".")[0] not in turned} | _named(said)
        replaced |= turned
        if tokens is typed:
            notes = _complete(state, said, named, replaced, factor_sizes)
        parser.set_defaults(state)
        parsed = parser.parse_args(tokens)
        state = {name: value for name, value in parsed.as_dict().items() if name not in ("config", "data")}
        state |= {f"data.{name}": value for name, value in parsed.as_dict()["data"].items()}
    return parser.instantiate(parsed), notes


def _flat(experiment: Experiment) -> dict[str, Any]:
    """An experiment as jsonargparse takes defaults: flat names, classes by path."""
    found = {f.name: getattr(experiment, f.name) for f in dataclasses.fields(experiment) if f.name != "data"}
    for part in CLASSES:
        found[part] = _spec(type(found[part]), dataclasses.asdict(found[part]))
    return found | {f"data.{name}": value for name, value in dataclasses.asdict(experiment.data).items()}


def _spec(kind: type, values: Mapping) -> dict[str, Any]:
    return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": dict(values)}


def _apart(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The YAML files that a command line names, and the rest of it."""
    files, rest = [], list(arguments)
    for k in reversed(range(len(rest))):
        name, equals, value = rest[k].partition("=")
        if name == "--config" and (equals or k + 1 < len(rest)):
            files.insert(0, value if equals else rest[k + 1])
            del rest[k : k + (1 if equals else 2)]
    return files, rest


def _turn(state: dict[str, Any], said: Mapping) -> set[str]:
    """Lets the parts that are now of another class, or other data, begin anew; returns their names."""
    turned = set()
    for part, classes in CLASSES.items():
        before = _class_name(state[part])
        name = _class_name(said.get(part) or {}) or before
        if name not in classes:
            raise ValueError(f"Unknown {part} class {name!r}; known: {', '.join(classes)}.")
        if name != before:
            state[part] = _spec(classes[name], begin(classes[name], state[part]["init_args"]))
            turned.add(part)
    if (said.get("data") or {}).get("name", state["data.name"]) != state["data.name"]:
        state["data.options"] = {}
        turned.add("data")
    return turned


def _class_name(spec: Mapping) -> str:
    return str(spec.get("class_path", "")).rpartition(".")[2]


def _named(said: Mapping) -> set[str]:
    """The parts that are said anything of, and their values, as "model" and "model.label"."""
    found = {part for part in CLASSES if said.get(part)}
    return found | {f"{part}.{name}" for part in found for name in said[part].get("init_args", {})}


def _complete(
    state: dict[str, Any], said: Mapping, named: set[str], replaced: set[str], factor_sizes: FactorSizes
) -> list[str]:
    """Chooses what nobody named and what does not fit other data or another model; says each choice in a sentence."""
    notes, values = [], state["model"]["init_args"]
    theirs = (said.get("model") or {}).get("init_args", {})
    if "label" in values and {"model", "data"} & replaced and not {"model.label", "model.classes"} <= named:
        data = {"name": state["data.name"], "options": state["data.options"], **(said.get("data") or {})}
        sizes = factor_sizes(data["name"], data["options"])
        if sizes and "model.label" not in named and values["label"] not in sizes:
            values["label"] = next(iter(sizes))
            notes.append(
                f"The label is {values['label']!r}, the first factor of {data['name']}; another one goes to "
                "--model.label."
            )
        if "model.classes" not in named:
            values["classes"] = sizes.get(theirs.get("label", values["label"]), values["classes"])
    if "model" in replaced and "objective" not in named:
        kinds = {part: classes[_class_name(state[part])] for part, classes in CLASSES.items()}
        objective = read(kinds["objective"], state["objective"]["init_args"])
        try:
            model = read(kinds["model"], {**values, **theirs})
        except ValueError:
            return notes  # which the parser says better
        chosen = fitting(model, objective)
        if chosen != objective:
            state["objective"] = _spec(type(chosen), dataclasses.asdict(chosen))
            notes.append(
                f"The objective is {chosen.objective}, with its defaults, since {objective.objective} can't train "
                f"the family {model.family}; another one goes to --objective."
            )
    return notes
