"""The factor grid, the batch sequence and the correlated distribution, against closed forms."""

import itertools

import numpy as np
import pytest
import torch

from latentlab.data import Correlation, FactorDataset, FactorSpace

SPACE = FactorSpace(("shape", "size", "x"), (3, 2, 5))


class Planted(FactorDataset):
    """Image i is constant i / len."""

    def __init__(self, size=None, space=SPACE, **options):
        super().__init__("planted", "made here", (1, 2, 2), size or len(space), space, **options)

    def _read(self, indices):
        return (indices.float() / len(self))[:, None, None, None].expand(-1, 1, 2, 2)


def test_the_last_factor_runs_fastest():
    # Would catch a column-major grid, and strides that are right only for equal sizes.
    rows = list(itertools.product(range(3), range(2), range(5)))
    assert len(SPACE) == len(rows) == 30
    assert SPACE.factors(range(30)).tolist() == [list(row) for row in rows]
    assert SPACE.index(rows).tolist() == list(range(30))
    assert SPACE.index(rows).dtype == SPACE.factors([0]).dtype == torch.int64


def test_a_large_grid_is_indexed_without_a_table():
    space = FactorSpace(("a", "b", "c"), (10**6, 10**6, 10**6))
    assert len(space) == 10**18
    index = torch.tensor([10**18 - 1, 123456789012345678])
    assert space.factors(index).tolist() == [[999999] * 3, [123456, 789012, 345678]]
    assert torch.equal(space.index(space.factors(index)), index)


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"factor 'size' must be in 0\.\.1, got 2"):
        SPACE.index([[0, 1, 4], [0, 2, 4]])
    with pytest.raises(ValueError, match=r"factor 'x' must be in 0\.\.4, got -1"):
        SPACE.index(torch.tensor([[0, 1, -1]]))
    with pytest.raises(ValueError, match=r"must be in 0\.\.29, got 30"):
        SPACE.factors([0, 30])
    with pytest.raises(ValueError, match=r"must be in 0\.\.29, got -1"):
        SPACE.factors(np.array([-1]))
    with pytest.raises(ValueError, match=r"3 columns \(shape, size, x\), got shape \(1, 2\)"):
        SPACE.index([[0, 1]])
    with pytest.raises(TypeError, match="must be integers, got float64"):
        SPACE.index(np.zeros((1, 3)))
    with pytest.raises(TypeError, match=r"must be integers, got torch\.bool"):
        SPACE.factors(torch.tensor([True]))
    with pytest.raises(ValueError, match="one size a name, got 2 names and 1 sizes"):
        FactorSpace(("a", "b"), (1,))
    with pytest.raises(ValueError, match="must be unique, got a, a"):
        FactorSpace(("a", "a"), (1, 2))
    with pytest.raises(ValueError, match="'a' must have at least 1 value, got 0"):
        FactorSpace(("a",), (0,))
    with pytest.raises(ValueError, match="unknown factor 'colour'; the factors are shape, size, x"):
        SPACE.position("colour")


def test_indices_come_as_lists_arrays_and_tensors():
    data = Planted()
    for indices in ([3, 29], np.array([3, 29], np.uint8), torch.tensor([3, 29], dtype=torch.int32)):
        assert data.images(indices)[:, 0, 0, 0].tolist() == pytest.approx([3 / 30, 29 / 30])
        assert data.factors(indices).tolist() == [[0, 0, 3], [2, 1, 4]]
    assert data.images([]).shape == (0, 1, 2, 2) and data.factors([]).shape == (0, 3)
    with pytest.raises(ValueError, match=r"an index into planted must be in 0\.\.29, got 31"):
        data.images([31])


@pytest.mark.parametrize("size", [1, 7, 30, 47, 100])
def test_an_epoch_shows_every_image_once(size):
    # Would catch draws with replacement, a permutation restarted at each batch, and a lost epoch boundary.
    data = Planted()
    epochs = 7 * size
    stream = torch.cat([data.batch(size, 5, step) for step in range(210)])[: 30 * epochs].reshape(-1, 30)
    assert all(sorted(epoch.tolist()) == list(range(30)) for epoch in stream)
    assert not torch.equal(stream[0], stream[1])


def test_a_batch_depends_on_seed_and_step_alone():
    data = Planted()
    straight = [data.batch(8, 3, step).tolist() for step in range(12)]
    fresh = Planted()
    assert [fresh.batch(8, 3, step).tolist() for step in reversed(range(12))] == straight[::-1]
    assert straight[0] != straight[1] != data.batch(8, 4, 1).tolist()
    state = torch.random.get_rng_state()
    batch = data.batch(8, 3, 100)
    assert torch.equal(state, torch.random.get_rng_state())
    batch.fill_(0)  # what a caller does to a batch must not reach the permutation
    assert data.batch(8, 3, 100).tolist() == fresh.batch(8, 3, 100).tolist() != [0] * 8
    for arguments, name in (((0, 0, 0), "size"), ((1, -1, 0), "seed"), ((1, 0, -2), "step")):
        with pytest.raises(ValueError, match=f"{name} must be a whole number of at least"):
            data.batch(*arguments)


def test_sample_draws_uniformly_with_replacement():
    counts = torch.bincount(Planted().sample(30_000, seed=0), minlength=30)
    # 30 cells of 1000 expected: chi-square with 29 degrees of freedom stays below 70 but for one in 30,000.
    assert ((counts - 1000.0) ** 2 / 1000).sum() < 70
    assert (
        Planted().sample(5, 1).tolist() == Planted().sample(5, 1).tolist() != Planted().sample(5, 2).tolist()
    )


def test_the_correlated_distribution_is_the_closed_form():
    space = FactorSpace(("shape", "x", "y"), (3, 5, 9))
    data = Planted(space=space, correlation=Correlation(space, {"x": ("y", 0.3)}))
    x, y = np.meshgrid(np.arange(5) / 4, np.arange(9) / 8, indexing="ij")
    expected = np.exp(-((x - y) ** 2) / (2 * 0.3**2))
    expected /= expected.sum()
    np.testing.assert_allclose(data.correlation.table, expected, rtol=1e-12)
    drawn = data.factors(data.sample(90_000, seed=1)).numpy()
    for factors in (
        drawn,
        data.factors(torch.cat([data.batch(90, 1, step) for step in range(1000)])).numpy(),
    ):
        joint = np.zeros((5, 9))
        np.add.at(joint, (factors[:, 1], factors[:, 2]), 1 / len(factors))
        # The largest cell is near 0.05, so its standard error is below 0.0008.
        assert np.abs(joint - expected).max() < 0.004
        assert np.abs(np.bincount(factors[:, 0]) / len(factors) - 1 / 3).max() < 0.008
    assert np.corrcoef(drawn[:, 1], drawn[:, 2])[0, 1] > 0.6
    assert len(data) == 135 and data.is_grid  # the grid stays whole


def test_a_correlation_takes_pairs_in_several_forms():
    forms = (
        ("shape", "x", 0.2),
        [("shape", "x")],
        {"shape": "x"},
        {"shape": ["x", 0.2]},
        [["shape", "x", 0.2]],
    )
    assert {Correlation(SPACE, form).pairs for form in forms} == {(("shape", "x", 0.2),)}
    both = Correlation(SPACE, [("shape", "x", 0.2), ("x", "size", 1.0)])
    assert both.table.shape == (3, 2, 5)
    wrong = {
        "unknown factor 'z'; the factors are shape, size, x": ("z", "x", 0.2),
        "factor 'x' cannot be correlated with itself": ("x", "x"),
        "sigma of a correlation must be above 0, got 0.0": ("shape", "x", 0),
        "sigma of a correlation must be a number, got 'strong'": ("shape", "x", "strong"),
        "cannot read the correlation 'x'": "x",
        "names no factors": [],
    }
    for sentence, form in wrong.items():
        with pytest.raises(ValueError, match=sentence):
            Correlation(SPACE, form)


def test_sets_without_a_full_grid_say_so():
    labelled = Planted(size=50)
    with pytest.raises(ValueError, match="planted is not a full grid: factor values do not name one image"):
        labelled.index([[0, 0, 0]])
    plain = FactorDataset("plain", "made here", (1, 2, 2), 4)
    assert plain.labels == () and plain.factor_space is None and not plain.is_grid
    with pytest.raises(ValueError, match="plain has no ground-truth factors"):
        plain.factors([0])
    with pytest.raises(ValueError, match="plain holds no image"):
        FactorDataset("plain", "made here", (1, 2, 2), 0)


@pytest.mark.gpu
def test_a_cuda_set_gives_the_same_batches():
    data = Planted().to("cuda")
    batch = data.batch(20, 0, 2)
    assert batch.device.type == "cuda" and batch.cpu().tolist() == Planted().batch(20, 0, 2).tolist()
    assert data.factors(batch).device == data.images(batch).device == batch.device
    assert torch.equal(data.index(data.factors(batch)), batch)
