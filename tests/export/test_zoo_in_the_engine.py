"""Every shipped run decodes in the browser engine as in torch: pictures, hidden maps, units that are switched off."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentlab.export import lower
from latentlab.models.edits import Edit
from latentlab.runs import Run, zoo_runs

RUNS = [summary.name for summary in zoo_runs()]
LEVEL = 1.0 / 255.0

# In 8 bits the edges of a sharp figure move, so a pixel may be far off while the picture is close.
EIGHT_BITS_MOST, EIGHT_BITS_MEAN = 30 * LEVEL, 1.5 * LEVEL


@pytest.fixture(scope="module", params=RUNS)
def shipped(request):
    """A shipped run's model, its program and eight codes of its prior."""
    model = Run.open(request.param, device="cpu").model
    return request.param, model, lower(model), model.sample_codes(8, 0)


def test_a_shipped_decoder_equals_torch(engine, shipped):
    name, model, program, z = shipped
    with torch.inference_mode():
        expected = model.decode(z).numpy()
    away, took = {}, None
    for precision in ("f32", "f16", "int8"):
        ran = engine(program, z, precision=precision, times=30 if precision == "f16" else 0)
        took = ran.ms or took
        away[precision] = np.abs(np.stack(ran.images) - expected)
    told = ", ".join(f"{p} {a.max() / LEVEL:.4f} (mean {a.mean() / LEVEL:.4f})" for p, a in away.items())
    print(
        f"\n{name}: {2 * program.multiplications / 1e6:.1f} MFLOP, {took:.2f} ms, of 255 levels at most {told}"
    )
    assert away["f32"].max() < 0.01 * LEVEL
    assert away["f16"].max() < LEVEL
    assert away["int8"].max() < EIGHT_BITS_MOST and away["int8"].mean() < EIGHT_BITS_MEAN
    assert took is not None and took < 1000 / 30


def test_hidden_maps_and_edits_equal_torch(engine, shipped):
    """Would catch an edit of the wrong channel, of a state that a later stage has written over, or of another code."""
    _, model, program, z = shipped
    addresses = [stage.address for stage in program.stages]
    middle = addresses[len(addresses) // 2]
    first = next(a for a in addresses if a.startswith("generator."))
    edits = [
        Edit(first, (0, 3)),
        Edit(middle, (1,), "scale", 2.5),
        Edit(middle, (2,), "set", 0.7, amount=0.5),
        Edit(addresses[-2], (0,), "shift", -0.2),
    ]
    with torch.inference_mode():
        plain, expected = model.decode(z).numpy(), model.decode(z, edits=edits).numpy()
        given = model.map(z, "z", "w+") if "w+" in model.spaces else z
        states = model.generator.activations(given, edits=edits)
    ran = engine(program, z, edits=[e.to_dict() for e in edits], stages=addresses)
    assert np.abs(expected - plain).max() > 5 * LEVEL, "the edits must show"
    assert np.abs(np.stack(ran.images) - expected).max() < 0.01 * LEVEL
    for name, state in states.items():
        found = np.stack([one[f"generator.{name}"] for one in ran.states])
        assert np.abs(found - state.numpy()).max() <= 2e-5 * max(1.0, float(state.abs().max())), name


def test_an_ablation_of_the_wrong_unit_is_noticed(engine, shipped):
    """The fake: the engine switches off the unit beside the one that was asked for."""
    _, model, program, z = shipped
    stage = program.stages[-2]
    with torch.inference_mode():
        most = int(
            model.generator.activations(
                model.map(z, "z", "w+") if "w+" in model.spaces else z, [stage.address.split(".")[1]]
            )[stage.address.split(".")[1]]
            .abs()
            .flatten(2)
            .mean((0, 2))
            .argmax()
        )
        expected = model.decode(z, edits=[Edit(stage.address, (most,))]).numpy()
    beside = (most + 1) % stage.state.units
    right, wrong = (engine(program, z, edits=[Edit(stage.address, (u,)).to_dict()]) for u in (most, beside))
    assert np.abs(np.stack(right.images) - expected).max() < 0.01 * LEVEL
    if stage.state.units > 1:
        assert np.abs(np.stack(wrong.images) - expected).max() > LEVEL


def test_what_the_engine_can_not_edit_it_says(engine):
    model = Run.open("zoo:digits-m2", device="cpu").model
    program, z = lower(model), model.sample_codes(1, 0)
    for edit, wording in (
        (Edit("generator.deconv1", (99,)), "The stage has 16 units; there is no unit 99."),
        (Edit("generator.nowhere", (1,)), "No stage generator.nowhere."),
        (Edit("generator.deconv1", (1,), region=((0.0, 1.0),)), "knows no edits with a region"),
    ):
        (error,) = engine(program, z, edits=[edit.to_dict()]).errors
        assert error is not None and wording in error
    (error,) = engine(program, z[:, :5]).errors
    assert error == "The code has 5 numbers; the model reads 16."
