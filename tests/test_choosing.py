"""A class chosen by name is that class: `latentlab train` and the app's form, over every ordered pair of them.

Would catch: a coefficient of the objective that was there before, which weighs another thing under the same name (gamma
1 of beta-TCVAE for gamma 35 of FactorVAE), and blocks, widths or options that belong to another family or data set.
"""

import dataclasses
import typing
from typing import Any

import pytest

from latentlab import config
from latentlab.app.training_form import with_part
from latentlab.cli import main
from latentlab.config import (
    MODELS,
    OBJECTIVES,
    Adversarial,
    AnnealedVAE,
    BetaVAE,
    BlockConfig,
    ConditionalVAEConfig,
    DataConfig,
    Experiment,
    FactorVAE,
    GANConfig,
    InfoGANConfig,
    Schedule,
    VAEConfig,
    VQVAEConfig,
    fitting,
    objectives_of,
)

OF_THE_DATA = {"likelihood", "scale", "learn_scale", "label", "classes"}
"""What means the same in every family that has it, by hand."""


class Asked(Exception):
    """Carries the experiment that would have been trained."""


@pytest.fixture
def ask(monkeypatch):
    """What ``latentlab train`` would train, beginning with a planted experiment."""

    def begin(experiment, out, **_):
        raise Asked(experiment)

    def asked(first: Experiment | str, *arguments: str) -> Experiment:
        name = first if isinstance(first, str) else "planted"
        if name == "planted":
            monkeypatch.setattr(config, "named_experiment", lambda _: (first, ""))
        with pytest.raises(Asked) as found:
            main(["train", *([name] if name else []), *arguments])
        return found.value.args[0]

    monkeypatch.setattr("latentlab.training.fit.fit", begin)
    return asked


def planted(kind: type) -> Any:
    """A configuration every value of which is another than the default, where the others let it be."""
    made, hints = kind(), typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint, now = hints[field.name], getattr(made, field.name)
        if field.name == "blocks":
            value = [BlockConfig("planted", 2)]
        elif typing.get_origin(hint) is typing.Literal:
            value = typing.get_args(hint)[-1]
        elif isinstance(now, bool):
            value = not now
        elif isinstance(now, int):
            value = now + 16
        elif isinstance(now, str):
            value = "planted"
        elif isinstance(now, list):
            value = [2, 3]
        else:
            value = 0.625
        try:
            made = dataclasses.replace(made, **{field.name: value})
        except ValueError:
            continue
    return made


def typed(made: Any) -> dict[str, Any]:
    """The last plain value of a configuration that is another than the default, as a person types a value or none: a
    class of a single field is asked for without."""
    default = type(made)()
    names = [f.name for f in dataclasses.fields(made) if getattr(made, f.name) != getattr(default, f.name)]
    plain = [name for name in names if isinstance(getattr(made, name), int | float | str)]
    return {plain[-1]: getattr(made, plain[-1])} if len(plain) > 1 else {}


def options(part: str, kind: type, values: dict[str, Any]) -> list[str]:
    return [f"--{part}", kind.__name__, *(f"--{part}.{name}={value}" for name, value in values.items())]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_chosen_by_name_is_the_class_with_what_is_typed(ask, name):
    """On the command line, after each of the others."""
    kind = OBJECTIVES[name]
    given = typed(planted(kind))
    model = VAEConfig if kind.kind == "variational" else GANConfig
    asked = [*options("model", model, {}), *options("objective", kind, given)]
    for before in (before for before in OBJECTIVES.values() if before is not kind):
        first = Experiment(
            model=VAEConfig() if before.kind == "variational" else GANConfig(), objective=planted(before)
        )
        assert ask(first, *asked).objective == kind(**given), before.__name__


def of_the_data(before: Any, kind: type) -> dict:
    names = {f.name for f in dataclasses.fields(kind)} & {f.name for f in dataclasses.fields(before)}
    return {name: getattr(before, name) for name in names & OF_THE_DATA}


@pytest.mark.parametrize("name", MODELS)
def test_a_family_chosen_by_name_is_the_class_with_what_is_typed(ask, name):
    """On the command line, after each of the others; only what speaks of the data stays."""
    kind = MODELS[name]
    given = typed(planted(kind))
    for before in map(planted, (before for before in MODELS.values() if before is not kind)):
        first = Experiment(
            data=DataConfig("no data"), model=before, objective=fitting(before, planted(BetaVAE))
        )
        found = ask(first, *options("model", kind, given))
        assert found.model == kind(**{**of_the_data(before, kind), **given}), before
        assert found.objective == fitting(found.model, first.objective)


@pytest.mark.parametrize("part", ["model", "objective"])
def test_the_form_begins_with_the_chosen_class_own_values(part):
    """Over every ordered pair."""
    key, table = ("family", MODELS) if part == "model" else ("objective", OBJECTIVES)
    for before in map(planted, table.values()):
        values = {**Experiment().to_dict(), part: {key: getattr(before, key), **dataclasses.asdict(before)}}
        for name, kind in table.items():
            if kind is type(before):
                continue
            found = {k: v for k, v in with_part(values, part, name)[part].items() if k != key}
            expected = kind(**(of_the_data(before, kind) if part == "model" else {}))
            assert found == dataclasses.asdict(expected), (before, name)


def test_the_form_brings_its_own_values_where_those_of_the_data_are_wrong():
    values = Experiment().to_dict()
    values["model"] |= {"scale": "wide", "likelihood": "laplace"}
    changed = with_part(values, "model", "ladder-vae")
    assert Experiment.from_dict(changed).model == MODELS["ladder-vae"]()


def test_shipped_experiments_are_left_for_another_objective_family_or_data_set(ask):
    """As a person types it, and as it went wrong: gamma 1, no KL, no blocks, the digits' option "split"."""
    assert ask("sprites-beta-tcvae", "--objective", "FactorVAE").objective == FactorVAE()
    assert ask("sprites-beta-tcvae", "--objective", "AnnealedVAE").objective == AnnealedVAE()
    gan = ask("digits-vae", "--model", "InfoGANConfig")
    assert (gan.model, gan.objective, gan.data.options) == (
        InfoGANConfig(),
        Adversarial(),
        {"split": "train"},
    )
    scenes = ask("digits-infogan", "--data.name", "sprites")
    assert scenes.data == DataConfig("sprites") and scenes.model.latents == 14
    named = ask("digits-infogan", "--data.name", "scenes", "--data.options", '{"image_size": 32}')
    assert named.data == DataConfig("scenes", {"image_size": 32})
    kept = ask("digits-infogan", "--data.options.split", "test", "--objective.ema", "0.5")
    assert kept.data == DataConfig("digits", {"split": "test"})
    assert kept.objective.ema == 0.5 and kept.objective.beta1 == 0.5


def test_blocks_of_null_are_the_families_own(ask):
    assert InfoGANConfig(blocks=None) == InfoGANConfig()
    found = ask("digits-infogan", "--model.blocks", "null")
    assert [block.name for block in found.model.latent_blocks] == ["class", "code", "noise"]


def test_a_label_that_the_data_lack_becomes_their_first_factor(ask, capsys):
    """Would catch: a model of sprites that asks for their digit, and 10 classes of 3 shapes."""
    assert ask("sprites-beta-vae", "--model", "ConditionalVAEConfig").model == ConditionalVAEConfig(
        label="shape", classes=3
    )
    assert "The label is 'shape', the first factor of sprites" in capsys.readouterr().out
    moved = ask("digits-m2", "--data.name", "sprites", "--model.label", "scale").model
    assert (moved.label, moved.classes, moved.labelled) == ("scale", 6, 0.035)
    given = ask("digits-m2", "--data.name", "sprites", "--model.classes", "4").model
    assert (given.label, given.classes) == ("shape", 4)
    stays = ask("digits-m2", "--model.latents", "3").model
    assert (stays.label, stays.classes) == ("digit", 10)


def test_an_objective_is_chosen_only_where_none_was_named_and_this_is_said(ask, capsys):
    """Would catch: another objective than the named one, without a word."""
    assert ask("sprites-beta-tcvae", "--model", "VQVAEConfig").objective == BetaVAE()
    assert "since beta-tcvae can't train the family vq-vae" in capsys.readouterr().out
    assert ask("sprites-beta-tcvae", "--model", "LadderVAEConfig").objective.objective == "beta-tcvae"
    assert not capsys.readouterr().out
    for wrong in (
        ["--model", "GANConfig", "--objective", "BetaVAE"],
        ["--model", "VQVAEConfig", "--objective.beta", "3"],
    ):
        assert main(["train", "sprites-beta-tcvae", *wrong]) == 2
        assert "is trained by" in capsys.readouterr().err
    assert main(["train", "digits-vae", "--objective", "latentlab.config.ObjectiveConfig"]) == 2
    assert "Unknown objective class 'ObjectiveConfig'; known: BetaVAE, " in capsys.readouterr().err


def test_what_a_file_says_of_one_class_is_not_meant_for_another(ask, tmp_path):
    """Would catch: a written-out configuration whose values stay under the name of another class."""
    file = tmp_path / "mine.yaml"
    file.write_text(
        "data: {name: digits, options: {split: train}}\nmax_steps: 7\n"
        "objective: {class_path: BetaTCVAE, init_args: {beta: 2, gamma: 3}}\n"
    )
    first = ask("", "--config", str(file))
    assert (first.objective.beta, first.objective.gamma, first.max_steps) == (2.0, 3.0, 7)
    assert ask(str(file), "--objective.alpha", "4").objective == config.BetaTCVAE(2.0, 4.0, 3.0)
    other = ask(str(file), "--objective", "FactorVAE", "--objective.units", "9", "--data.name", "sprites")
    assert (other.objective, other.data, other.max_steps) == (FactorVAE(units=9), DataConfig("sprites"), 7)
    second = tmp_path / "second.yaml"
    second.write_text("objective: AnnealedVAE\nmodel: {class_path: VQVAEConfig}\nmax_steps: 8\n")
    assert ask("", f"--config={file}", f"--config={second}", "--objective", "BetaVAE") == dataclasses.replace(
        first, model=VQVAEConfig(), objective=BetaVAE(), max_steps=8
    )
    rising = ask("", "--objective", "AnnealedVAE", "--objective.capacity.end", "7").objective
    assert rising == AnnealedVAE(capacity=Schedule("linear", 0.0, 7.0, 100_000))


def test_the_list_of_families_names_the_objectives_that_train_each(capsys):
    """Would catch: a list by kind, in which eight objectives train a vq-vae."""
    assert main(["models", "--runs", "nowhere"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = [line.partition("trained by: ")[2].split(", ") for line in lines if "trained by: " in line]
    assert len(shown) == len(MODELS)
    for family, names in zip(MODELS.values(), shown, strict=True):
        accepted = []
        for name, objective in OBJECTIVES.items():
            try:
                Experiment(model=family(), objective=objective())
            except ValueError:
                continue
            accepted.append(name)
        assert names == accepted == objectives_of(family())
    assert shown[list(MODELS).index("vq-vae")] == ["beta-vae"]
    assert "dip-vae" not in shown[list(MODELS).index("conditional-vae")]
