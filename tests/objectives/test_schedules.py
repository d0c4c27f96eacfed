"""Schedules: their values at the steps that can be worked out by hand."""

import dataclasses
import json

import pytest

from latentlab.config import AnnealedVAE, BetaVAE, Experiment, Schedule
from latentlab.objectives.schedules import at, scheduled


def test_a_linear_schedule_rises_from_its_delay_and_then_stays():
    """Would catch: a schedule that goes on rising, or counts in epochs."""
    schedule = Schedule("linear", 2.0, 6.0, 100, delay=10)
    assert [at(schedule, t) for t in (0, 10, 35, 110, 10**6)] == [2.0, 2.0, 3.0, 6.0, 6.0]
    assert at(Schedule("linear", 1.0, 0.0, 4), 1) == 0.75
    assert at(3.5, 10**6) == 3.5


def test_a_cosine_schedule_begins_and_ends_flat():
    """Would catch: a full wave, which would come back to its start."""
    schedule = Schedule("cosine", 0.0, 8.0, 100)
    assert [at(schedule, t) for t in (0, 50, 100, 400)] == pytest.approx([0.0, 4.0, 8.0, 8.0])
    assert at(schedule, 1) < 0.01 and at(schedule, 99) > 7.99
    assert at(schedule, 25) == pytest.approx(8.0 * 0.5 * (1 - 2**-0.5))


def test_a_cyclic_schedule_rises_for_half_a_period_and_starts_anew():
    """Would catch: a saw without the half at the top, or a cycle that happens once."""
    schedule = Schedule("cyclic", 0.0, 1.0, 100, delay=5)
    values = [at(schedule, 5 + t) for t in (0, 25, 50, 99, 100, 125, 1050)]
    assert values == pytest.approx([0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0])


def test_only_schedules_are_reported():
    """Would catch: constant coefficients that fill the table with a column of the same number."""

    class Owner:
        def __init__(self):
            self.beta, self.gamma, self.name = Schedule("linear", 0.0, 4.0, 4), 3.0, "x"

    assert scheduled(Owner(), 1) == {"beta": 1.0}


def test_a_schedule_survives_json_inside_an_experiment():
    """Would catch: a run that is resumed with a table of numbers where its schedule was."""
    for objective in (BetaVAE(Schedule("cyclic", 0.0, 4.0, 500)), AnnealedVAE(), BetaVAE(2.0)):
        experiment = Experiment(objective=objective)
        assert Experiment.from_dict(json.loads(json.dumps(experiment.to_dict()))) == experiment


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": "saw"}, "shape must be one of linear, cosine, cyclic; got 'saw'"),
        ({"steps": 0}, r"schedule.steps must lie in \[1, 1000000000\]; got 0"),
        ({"steps": 1.5}, r"must be of type int|must be a whole number"),
        ({"end": float("nan")}, "schedule.end must lie in"),
        ({"until": 3}, "Unknown key 'until' in Schedule"),
        ({"end": -1.0}, r"objective.beta must lie in \[0.0, 1000000.0\]; got -1.0"),
    ],
)
def test_a_wrong_schedule_is_refused_by_name(change, message):
    """Would catch: a typing slip in a schedule that trains something else without a word."""
    spec = Experiment().to_dict()
    spec["objective"]["beta"] = {**dataclasses.asdict(Schedule()), **change}
    with pytest.raises(ValueError, match=message):
        Experiment.from_dict(spec)
    with pytest.raises(ValueError, match=r"objective.beta must lie in .*; got '4'"):
        Experiment.from_dict({**spec, "objective": {"objective": "beta-vae", "beta": "4"}})
