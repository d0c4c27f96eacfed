import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from latentlab.analysis import Direction, load_directions, save_directions
from latentlab.models.edits import Edit

SMILE = Direction("smile", (3.0, 4.0), space="w", step=2.0)


def test_a_step_is_a_standard_deviation_along_the_unit_vector():
    """Fails vectors applied at the length they were found with."""
    assert np.linalg.norm(SMILE.array) == pytest.approx(1.0)
    moved = SMILE.apply([[1.0, 1.0]], 1.5, space="w")
    assert moved.dtype == np.float32 and moved == pytest.approx(np.array([[1 + 1.8, 1 + 2.4]]))
    assert SMILE.apply(torch.zeros(3, 2), [0, 1, -1], space="w")[2] == pytest.approx([-1.2, -1.6])
    assert SMILE.apply([0.0, 0.0], [0, 1], space="w").shape == (2, 2)
    assert SMILE.apply(SimpleNamespace(space="w", z=np.zeros((1, 2))), 1).shape == (1, 2)


def test_a_direction_of_w_is_not_applied_in_z():
    """Fails a slider of W that moves Z, whose codes have the same length."""
    for call in (
        lambda: SMILE.apply(np.zeros((1, 2)), 1, space="z"),
        lambda: SMILE.apply(SimpleNamespace(space="z", z=np.zeros((1, 2))), 1),
    ):
        with pytest.raises(ValueError, match="found in space 'w' and can't be applied to codes of 'z'"):
            call()
    with pytest.raises(ValueError, match="say which space these are of: space="):
        SMILE.apply(np.zeros((1, 2)), 1)
    with pytest.raises(ValueError, match="has 2 coordinates; the codes have 3"):
        SMILE.apply(np.zeros((1, 3)), 1, space="w")


def test_a_direction_of_w_moves_chosen_layers_of_w_plus():
    every = SMILE.apply(np.zeros((1, 6)), 1, space="w+")
    assert every == pytest.approx(np.array([[1.2, 1.6] * 3]))
    some = SMILE.in_layers(range(1, 3))
    assert some.layers == (1, 2)
    assert some.apply(np.zeros((1, 6)), 1, space="w+") == pytest.approx(np.array([[0, 0] + [1.2, 1.6] * 2]))
    with pytest.raises(ValueError, match=r"moves single layers, and codes of 'w' have none"):
        some.apply(np.zeros((1, 2)), 1, space="w")
    with pytest.raises(ValueError, match=r"moves layer 7; W\+ has layers 0 to 2"):
        SMILE.in_layers([7]).apply(np.zeros((1, 6)), 1, space="w+")
    with pytest.raises(ValueError, match="Only a direction of 'w' has layers"):
        Direction("a", (1.0,), space="z", layers=(0,))


def test_a_direction_of_a_stage_is_shifts_of_its_units():
    """Fails one shift for all units, and a shift of units that have no part in it."""
    direction = Direction("glow", (0.0, 0.6, -0.8), stage="generator.maps", step=10.0)
    assert direction.edits(0.5) == (
        Edit("generator.maps", (1,), "shift", 3.0),
        Edit("generator.maps", (2,), "shift", -4.0),
    )
    with pytest.raises(ValueError, match=r"moves no codes; use its edits"):
        direction.apply(np.zeros((1, 3)), 1, space="z")
    with pytest.raises(ValueError, match="belongs to space 'w'; use apply"):
        SMILE.edits(1)


def test_sum_negation_and_condition():
    """Fails n1 - (n1 . n2) n2 done one after the other with two conditions that are not orthogonal."""
    a, b, c = (
        Direction(n, tuple(np.random.default_rng(i).standard_normal(5)), space="z", step=1.0 + i)
        for i, n in enumerate("abc")
    )
    assert (a + b).displacement == pytest.approx(a.displacement + b.displacement)
    assert (a - b).displacement == pytest.approx(a.displacement - b.displacement)
    assert (-a).array == pytest.approx(-a.array) and (-a).name == "-a"
    one = a.without(b)
    expected = a.array - (a.array @ b.array) * b.array
    assert one.array == pytest.approx(expected / np.linalg.norm(expected)) and one.step == a.step
    two = a.without(b, c, b)
    assert abs(two.cosine(b)) < 1e-12 and abs(two.cosine(c)) < 1e-12
    fake = expected - (expected @ c.array) * c.array
    assert abs(fake / np.linalg.norm(fake) @ b.array) > 1e-3
    with pytest.raises(ValueError, match="Nothing of direction 'a' is left without 'b', 'a'"):
        a.without(b, a)
    with pytest.raises(ValueError, match="cancel"):
        a + (-a)
    with pytest.raises(ValueError, match="only directions of the same place"):
        a + SMILE
    with pytest.raises(ValueError, match="choose the same ones first with in_layers"):
        SMILE + SMILE.in_layers([0])


def test_directions_survive_a_file_to_the_last_bit(tmp_path):
    many = [
        Direction("é", tuple(np.random.default_rng(i).standard_normal(7)), space="w", step=0.3, layers=(2, 5))
        for i in range(3)
    ] + [Direction("glow", (1.0, 2.0), stage="generator.maps", method="TCAV", weights_digest="ab")]
    path = save_directions(tmp_path / "sub" / "mine.json", many)
    assert load_directions(path) == tuple(many)
    assert Direction.from_dict(json.loads(json.dumps(many[3].to_dict()))) == many[3]
    assert Direction.load(SMILE.save(tmp_path / "smile.json")) == SMILE
    assert list(tmp_path.glob("**/*.part")) == []
    with pytest.raises(ValueError, match="holds 4 directions; read them with load_directions"):
        Direction.load(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no JSON file of directions"),
        ("[]", "is no list of directions"),
        ('{"format": 9, "directions": []}', "has format 9; this version reads format 1"),
        ('{"format": 1, "directions": [{"name": "a"}]}', "A direction has the keys .* got \\['name'\\]"),
        (
            '{"format": 1, "directions": [{"name": "a", "vector": [0, 0], "space": "z"}]}',
            "must not be 0 throughout",
        ),
    ],
)
def test_a_damaged_file_gets_a_sentence(tmp_path, text, words):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        load_directions(tmp_path / "bad.json")


def test_a_direction_is_frozen_and_checked():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SMILE.name = "frown"
    assert SMILE.named("frown").vector == SMILE.vector and hash(SMILE)
    for wrong, words in (
        ({"space": None}, "either a space"),
        ({"stage": "generator.maps"}, "either a space"),
        ({"step": 0.0}, "step must be a number above 0"),
        ({"vector": (float("nan"), 1.0)}, "finite numbers"),
        ({"space": None, "stage": "maps"}, "address such as"),
    ):
        with pytest.raises(ValueError, match=words):
            dataclasses.replace(SMILE, **wrong)
