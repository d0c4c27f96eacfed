"""Edits as values: what they do to a state, that they leave it alone, that they survive JSON."""

import pytest
import torch

from latentlab.models.edits import Edit, edits_from_json, edits_to_json


@pytest.fixture
def h() -> torch.Tensor:
    return torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).view(2, 3, 4, 4) + 1.0


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (Edit("g.a", (1,)), lambda h: torch.zeros_like(h)),
        (Edit("g.a", (1,), "set", 5.0), lambda h: torch.full_like(h, 5.0)),
        (Edit("g.a", (1,), "scale", 3.0), lambda h: 3.0 * h),
        (Edit("g.a", (1,), "shift", -2.0), lambda h: h - 2.0),
        (Edit("g.a", (1,), "set", 5.0, amount=0.25), lambda h: 0.75 * h + 1.25),
    ],
)
def test_each_operation_acts_on_its_unit_alone_and_on_a_copy(h, edit, expected):
    before = h.clone()
    edited = edit.apply(h)
    assert torch.equal(h, before)
    assert torch.allclose(edited[:, 1], expected(h[:, 1]))
    assert torch.equal(edited[:, [0, 2]], h[:, [0, 2]])


def test_no_units_means_all_and_amount_zero_means_nothing(h):
    assert not Edit("g.a").apply(h).any()
    assert torch.equal(Edit("g.a", amount=0.0).apply(h), h)


def test_a_region_is_stretched_over_the_map_and_weighs_the_edit(h):
    edited = Edit("g.a", (0,), region=((1.0, 0.0), (0.5, 0.0))).apply(h)
    assert not edited[:, 0, :2, :2].any()
    assert torch.allclose(edited[:, 0, 2:, :2], 0.5 * h[:, 0, 2:, :2])
    assert torch.equal(edited[:, 0, :, 2:], h[:, 0, :, 2:])


def test_replace_takes_the_other_samples_units(h):
    other = -torch.ones(1, 3, 4, 4)
    edited = Edit("g.a", (2,), "replace", source=(0.0,)).apply(h, other)
    assert torch.equal(edited[:, 2], -torch.ones(2, 4, 4))
    assert torch.equal(edited[:, :2], h[:, :2])


def test_edits_survive_json_and_are_hashable_values():
    edits = (
        Edit("generator.a", (3, 1, 3), "scale", 2.0, region=((0.0, 1.0),)),
        Edit("encoder.b", operation="replace", source=(0.5, -1.0)),
        Edit("generator.c"),
    )
    assert edits[0].units == (1, 3)
    assert edits_from_json(edits_to_json(edits)) == edits
    assert len({*edits, *edits_from_json(edits_to_json(edits))}) == 3
    assert Edit("generator.c").to_dict() == {"stage": "generator.c"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Edit("block2"), "address such as 'generator.block2'"),
        (
            lambda: Edit("g.a", operation="explode"),
            "one of ablate, set, scale, shift, replace; got 'explode'",
        ),
        (lambda: Edit("g.a", amount=1.5), r"amount lies in \[0, 1\]"),
        (lambda: Edit("g.a", value=float("nan")), "must be a finite number"),
        (lambda: Edit("g.a", (-1,)), "counted from 0"),
        (lambda: Edit("g.a", units="12"), "units must be numbers; got the text '12'"),
        (lambda: Edit("g.a", units=(1.5,)), r"whole numbers, such as 12 or \(1, 2\); got \(1\.5,\)"),
        (lambda: Edit("g.a", units=1.5), r"whole numbers, such as 12 or \(1, 2\); got 1\.5"),
        (lambda: Edit("g.a", region=("01", "10")), "region must be numbers; got the text '01'"),
        (lambda: Edit("g.a", operation="replace", source="12"), "source must be numbers; got the text '12'"),
        (lambda: Edit("g.a", (1,)).apply(torch.ones(2, 5, 7)), r"\(5, 7\) numbers a sample, such as tokens"),
        (lambda: Edit("g.a", region=((0.0, 1.0), (1.0,))), "equal, non-zero length"),
        (lambda: Edit("g.a", region=((2.0,),)), r"weights in \[0, 1\]"),
        (lambda: Edit("g.a", operation="replace"), "A source is needed"),
        (lambda: Edit("g.a", source=(1.0,)), "for no other"),
        (lambda: Edit("g.a", (7,)).apply(torch.ones(1, 3, 2, 2)), "units 0 to 2; the edit names unit 7"),
        (lambda: Edit("g.a", region=((1.0,),)).apply(torch.ones(1, 3)), "no spatial map"),
        (lambda: edits_from_json("{"), "no JSON"),
        (lambda: edits_from_json("{}"), "a JSON list of edits; got dict"),
        (lambda: edits_from_json('[{"units": [1]}]'), "'stage' among them"),
        (lambda: edits_from_json('[{"stage": "g.a", "evil": 1}]'), "An edit has the keys"),
        (lambda: edits_from_json('[{"stage": "g.a", "value": null}]'), "could not be read"),
    ],
)
def test_a_wrong_edit_is_refused_with_a_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_state_of_several_tensors_is_refused_with_a_sentence():
    with pytest.raises(ValueError, match="gives tuple, not one tensor"):
        Edit("g.a").apply((torch.zeros(1, 2), torch.zeros(1, 2)))


def test_units_may_be_any_whole_numbers():
    """Fails a check of types that knows only Python's own."""
    import numpy as np

    assert (
        Edit("g.a", 12).units
        == Edit("g.a", np.array([12])).units
        == Edit("g.a", {np.int64(12)}).units
        == (12,)
    )


def test_all_of_a_token_state_can_be_edited():
    """Fails refusing what needs no units."""
    assert not Edit("g.a").apply(torch.ones(2, 5, 7)).any()
