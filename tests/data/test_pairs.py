"""Pairs: what a partner shares, and how what it does not share is drawn, against closed forms."""

import itertools
import math

import numpy as np
import pytest
import torch

from latentlab.data import FactorDataset, FactorSpace, open_dataset
from latentlab.data.pairs import Pairs

SPACE = FactorSpace(("shape", "size", "x"), (3, 2, 5))


class Planted(FactorDataset):
    """A grid without pictures, or (with ``rows``) a list of images with the given factors."""

    def __init__(self, space=SPACE, rows=None, name="planted"):
        super().__init__(name, "made here", (1, 2, 2), len(space) if rows is None else len(rows), space)
        self.rows = None if rows is None else torch.tensor(rows)

    def factors(self, indices):
        if self.rows is None:
            return super().factors(indices)
        return self.rows.to(torch.as_tensor(indices).device)[torch.as_tensor(indices)]


def draws(pairs: Pairs, index: int, n: int) -> torch.Tensor:
    """How often each image comes out as the partner of one."""
    found = pairs.of(torch.full((n,), index), seed=3, step=8)
    return torch.bincount(found, minlength=len(pairs.dataset)).double()


def chi_square(counts: torch.Tensor, expected: torch.Tensor) -> float:
    seen = expected > 0
    assert counts[~seen].sum() == 0
    return ((counts - expected)[seen].square() / expected[seen]).sum().item()


def partner_probabilities(index: int, numbers: dict[int, float]) -> torch.Tensor:
    """Of every image of the grid: ``numbers`` of factors change, which ones is drawn, and their values anew."""
    own = SPACE.factors([index])[0].tolist()
    found = torch.zeros(len(SPACE), dtype=torch.float64)
    for number, chance in numbers.items():
        subsets = list(itertools.combinations(range(3), number))
        for subset in subsets:
            for values in itertools.product(*(range(SPACE.sizes[k]) for k in subset)):
                partner = list(own)
                for k, value in zip(subset, values, strict=True):
                    partner[k] = value
                share = 1 / math.prod(SPACE.sizes[k] for k in subset)
                found[int(SPACE.index(partner))] += chance / len(subsets) * share
    return found


@pytest.mark.parametrize(("changed", "numbers"), [(1, {1: 1.0}), (2, {2: 1.0}), (None, {1: 0.5, 2: 0.5})])
def test_partners_follow_the_closed_form(changed, numbers):
    """Would catch: values that always differ, a coin for each factor, factors weighed by their size, and half of all
    pairs with a single change."""
    expected = 40_000 * partner_probabilities(17, numbers)
    # At most 29 degrees of freedom: below 70 but for one in 30,000.
    assert chi_square(draws(Pairs(Planted(), changed), 17, 40_000), expected) < 70
    wrong = 40_000 * partner_probabilities(17, {1: 0.75, 2: 0.25} if changed is None else {1: 0.5, 2: 0.5})
    assert chi_square(draws(Pairs(Planted(), changed), 17, 40_000), wrong) > 700


def test_no_more_factors_change_than_asked_for():
    data = Planted(FactorSpace(tuple("abcdef"), (4, 3, 7, 2, 5, 6)))
    indices = data.sample(3000, seed=0)
    for changed in (1, 2, 5):
        partners = Pairs(data, changed).of(indices, 0, 0)
        differ = (data.factors(partners) != data.factors(indices)).sum(1)
        assert differ.max() == changed and (differ == changed).float().mean() > 0.15
    differ = (data.factors(Pairs(data).of(indices, 0, 0)) != data.factors(indices)).sum(1)
    assert set(differ.tolist()) == {0, 1, 2, 3, 4, 5}


def test_named_factors_change_and_all_others_stay():
    """Would catch: a name taken for the factor beside it, and new values near the old ones."""
    scenes = open_dataset("scenes", image_size=28)
    indices = scenes.sample(24_000, seed=0)
    partners = scenes.factors(Pairs(scenes, changing=("orientation", "scale")).of(indices, 5, 6))
    factors = scenes.factors(indices)
    assert torch.equal(partners[:, [0, 1, 2, 4]], factors[:, [0, 1, 2, 4]])
    joint = torch.bincount((factors[:, 5] * 15 + partners[:, 5]), minlength=225).double()
    assert chi_square(joint, torch.full((225,), 24_000 / 225, dtype=torch.float64)) < 330
    assert chi_square(torch.bincount(partners[:, 3]).double(), torch.full((8,), 3000.0).double()) < 35


def test_partners_depend_on_the_arguments_alone():
    data, state = Planted(), torch.random.get_rng_state()
    legacy = np.random.get_state()[1].copy()  # noqa: NPY002
    indices = torch.arange(30)
    straight = [Pairs(data).of(indices, 3, step).tolist() for step in range(6)]
    pairs = Pairs(Planted())
    assert [pairs.of(indices, 3, step).tolist() for step in reversed(range(6))] == straight[::-1]
    assert straight[0] != straight[1] != pairs.of(indices, 4, 1).tolist()
    assert torch.equal(state, torch.random.get_rng_state())
    assert (legacy == np.random.get_state()[1]).all()  # noqa: NPY002
    assert len(set(pairs.of(torch.zeros(30, dtype=torch.int64), 0, 0).tolist())) > 5  # a draw for each image


def test_a_factor_with_one_value_is_none_that_could_change():
    """Would catch: pairs that differ in nothing, because the colour that never varies was drawn."""
    data = Planted(FactorSpace(("color", "shape", "x"), (1, 400, 500)))
    indices = data.sample(2000, seed=1)
    differ = (data.factors(Pairs(data, 1).of(indices, 0, 0)) != data.factors(indices)).sum(1)
    assert (differ == 1).float().mean() > 0.98
    with pytest.raises(
        ValueError, match="'planted' allows for 1 changed factors at most, from 1 to 1; got 2"
    ):
        Pairs(data, 2)


def test_without_a_grid_the_partner_is_another_image_with_the_same_factors():
    """Would catch: an image paired with itself, or with the next one in the file alone."""
    rows = [[1, 0, 4], [0, 0, 2], [1, 0, 3], [1, 0, 4], [2, 1, 1], [1, 0, 0]]
    pairs = Pairs(Planted(rows=rows), changing=["x"])
    expected = torch.tensor([0, 0, 1, 1, 0, 1], dtype=torch.float64) * 2000
    assert chi_square(draws(pairs, 0, 6000), expected) < 20
    assert draws(pairs, 1, 50)[1] == 50  # alone with its shape and size: its own partner
    same = Pairs(Planted(rows=rows), changing=[])
    assert draws(same, 0, 50)[3] == 50 and draws(same, 3, 50)[0] == 50


def test_digits_are_paired_within_their_class():
    digits = open_dataset("digits")
    indices = torch.arange(len(digits))
    partners = Pairs(digits, changing=[]).of(indices, 0, 0)
    assert torch.equal(digits.factors(partners), digits.factors(indices))
    assert (partners != indices).all() and len(set(partners.tolist())) > 1000
    with pytest.raises(
        ValueError, match="need a full grid of them, and data set 'digits' is none; name the factors"
    ):
        Pairs(digits)


def test_pairs_that_share_nothing_or_change_nothing_are_refused():
    data = Planted()
    refused = [
        ((data, None, []), "'planted' each image has factors of its own, so a pair must change one of shape"),
        (
            (data, None, ["shape", "x", "size"]),
            "must share a factor, and shape, x, size are all that data set",
        ),
        ((data, 3), "allows for 2 changed factors at most, from 1 to 2; got 3"),
        ((data, 0), "allows for 2 changed factors at most, from 1 to 2; got 0"),
        ((data, 1, ["x"]), r"change 1 factors drawn at random or the named ones \['x'\]; give one"),
        ((data, None, ["hue"]), "unknown factor 'hue'; the factors are shape, size, x"),
        ((Planted(FactorSpace(("x",), (9,))),), "'planted' allows for 0 changed factors at most"),
        ((Planted(rows=[[0, 0, 0], [1, 0, 0]]), None, ["x"]), "No two images .* share their shape, size"),
        ((FactorDataset("photos", "here", (1, 2, 2), 4),), "'photos' has no ground-truth factors"),
    ]
    for arguments, sentence in refused:
        with pytest.raises(ValueError, match=sentence):
            Pairs(*arguments)


@pytest.mark.gpu
def test_a_cuda_set_gives_the_same_partners():
    indices = torch.arange(30)
    found = Pairs(Planted().to("cuda")).of(indices, 0, 2)
    assert found.device.type == "cuda" and found.cpu().tolist() == Pairs(Planted()).of(indices, 0, 2).tolist()
    rows = [[k % 3, 0, k % 5] for k in range(30)]
    grouped = Pairs(Planted(rows=rows).to("cuda"), changing=["x"]).of(indices, 0, 2)
    assert grouped.cpu().tolist() == Pairs(Planted(rows=rows), changing=["x"]).of(indices, 0, 2).tolist()


def test_mirrored_pairs_change_the_other_factors_in_the_second_half():
    """Would catch: halves of one kind, and partners that change everything."""
    sprites = open_dataset("sprites")
    indices = sprites.sample(400, seed=0)
    partners = Pairs(sprites, changing=["x", "y"], mirrored=True).of(indices, 0, 0)
    before, after = sprites.factors(indices), sprites.factors(partners)
    kept = before == after
    assert kept[:200, :3].all() and kept[200:, 3:].all()
    assert not kept[:200, 3:].all() and not kept[200:, :3].all()
    with pytest.raises(ValueError, match="Mirrored pairs need named factors that change and a full grid"):
        Pairs(open_dataset("digits"), changing=[], mirrored=True)
