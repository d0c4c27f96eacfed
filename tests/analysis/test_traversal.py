import numpy as np
import pytest
import torch

from latentlab.analysis import dim_range, dim_ranges, encode_dataset, swap_grid, traverse, traverse_grid
from latentlab.models.edits import Edit


def test_a_linear_generator_is_traversed_in_straight_lines(linear_model, left_as_found):
    """Fails a traversal whose steps are uneven, or that moves another coordinate than it says."""
    left_as_found(linear_model)
    z = np.array([0.3, -0.2, 0.1, 0.5], dtype=np.float32)
    strips = traverse(linear_model, z, ["z0", 2], steps=7)
    assert strips.images.shape == (2, 7, 3, 4, 4) and strips.dims == ("z0", "z2")
    for row, dim in enumerate((0, 2)):
        hops = np.diff(strips.images[row].reshape(7, -1), axis=0)
        assert np.allclose(hops, hops[0], atol=1e-6)
        step = np.diff(strips.values[row])[0]
        assert np.allclose(hops[0], linear_model.weight[:, dim].numpy() * step, atol=1e-6)
        others = np.delete(strips.z[row], dim, axis=1)
        assert np.array_equal(others, np.tile(np.delete(z, dim), (7, 1)))
    assert strips.certificate["off_axis"] == 0.0


def test_the_batch_equals_the_loop(linear_model):
    """Fails a batch whose images are mixed up, and chunks that are joined in the wrong order."""
    strips = traverse(linear_model, seed=1, steps=5, batch_size=3)
    with torch.no_grad():
        for row in range(4):
            for column in range(5):
                alone = linear_model.decode(torch.tensor(strips.z[row, column])[None])[0].numpy()
                assert np.allclose(strips.images[row, column], alone, atol=1e-6)
    assert strips.certificate["loop_difference"] <= 1e-6


def test_a_dead_coordinate_has_no_effect_and_others_as_much_as_their_weights(linear_model):
    """Fails an effect that is not measured on the images."""
    strips = traverse(linear_model, np.zeros(4), values=[-1.0, 1.0])
    expected = 2 * linear_model.weight.abs().mean(dim=0).numpy()
    assert np.allclose(strips.effect, expected, atol=1e-6)
    assert strips.effect[3] == 0.0


def test_prior_range_is_the_central_share_of_the_prior(linear_model):
    low, high = dim_range(linear_model, "z1", coverage=0.9)
    assert (low, high) == pytest.approx((-1.6448536, 1.6448536), abs=1e-5)


def test_posterior_range_holds_the_data_when_their_mean_is_not_zero(linear_model, planted_dataset):
    """Fails the range (-q, q), which leaves such data out, and a sigma without the posterior variance."""
    encoding = encode_dataset(linear_model, planted_dataset(linear_model, shift=3.0))
    low, high = dim_range(linear_model, 0, span="posterior", encoding=encoding, coverage=0.95)
    means = np.repeat(np.arange(5) / 4 + 2.5, 7)
    sigma = np.sqrt(0.1**2 + means.var())
    assert (low, high) == pytest.approx((3.0 - 1.959964 * sigma, 3.0 + 1.959964 * sigma), abs=1e-4)
    assert low < 3.0 < high and low > 2.0
    strips = traverse(linear_model, encoding.mean[0], ["z0"], span="posterior", encoding=encoding)
    assert strips.certificate["data_inside"][0] == 1.0
    assert (strips.values.min(), strips.values.max()) == pytest.approx((low, high))


def test_a_range_of_k_sigma_lies_around_the_code(linear_model):
    strips = traverse(linear_model, [2.0, 0, 0, 0], ["z0"], span=1.5, steps=3)
    assert strips.values[0] == pytest.approx([0.5, 2.0, 3.5])
    assert strips.span == "sigma" and strips.certificate["contains_start"] == 1.0


def test_strips_come_in_the_order_of_kl_when_an_encoding_is_given(linear_model, planted_dataset):
    encoding = encode_dataset(linear_model, planted_dataset(linear_model, shift=3.0))
    strips = traverse(linear_model, np.zeros(4), encoding=encoding, steps=2)
    assert strips.dims[0] == "z0"
    assert list(strips.dims) == [
        encoding.dim_names[i] for i in np.argsort(-encoding.kl_per_dim, kind="stable")
    ]


def test_a_categorical_block_is_one_strip_over_its_categories(categorical_model):
    """Fails a slider on one entry of a one-hot code."""
    strips = traverse(categorical_model, [0, 1, 0, 0.5], steps=5)
    assert strips.dims == ("class", "z0") and strips.categorical == (True, False)
    assert strips.lengths.tolist() == [3, 5] and strips.images.shape[:2] == (2, 5)
    assert np.array_equal(strips.z[0, :3, :3], np.eye(3))
    assert strips.images[0, :3, 0, 0, 0] == pytest.approx([0.525, 0.625, 0.725])
    assert np.isnan(strips.images[0, 3:]).all() and np.isfinite(strips.images[1]).all()
    assert traverse(categorical_model, dims=["class1", "class"]).dims == ("class",)


def test_a_grid_moves_x_along_columns_and_y_along_rows(linear_model):
    grid = traverse_grid(linear_model, np.zeros(4), ("z1", "z0"), steps=(3, 5))
    assert grid.images.shape[:2] == (5, 3) and grid.dims == ("z1", "z0")
    assert np.allclose(grid.z[:, :, 1], grid.x_values[None]) and np.allclose(
        grid.z[:, :, 0], grid.y_values[:, None]
    )
    expected = 0.5 + grid.z.reshape(-1, 4) @ linear_model.weight.numpy().T
    assert np.allclose(grid.images.reshape(15, -1), expected, atol=1e-6)


def test_edits_reach_every_image(linear_model):
    edit = Edit("generator.output", operation="scale", value=0.0)
    strips = traverse(linear_model, np.zeros(4), ["z0"], edits=[edit])
    assert (strips.images == 0).all()
    assert strips.provenance.parameters["edits"] == [edit.to_dict()]


def test_equal_seeds_give_equal_codes_and_none_means_a_prior_draw(linear_model):
    a, b, c = (traverse(linear_model, seed=s, steps=2) for s in (5, 5, 6))
    assert np.array_equal(a.images, b.images) and not np.array_equal(a.start, c.start)
    assert np.array_equal(a.start, linear_model.latent_space.sample(1, 5)[0].numpy())


def _spread(values: np.ndarray, within: int) -> float:
    """Variance along one axis of the grid, relative to the variance between the other's means."""
    return float(values.var(axis=within).mean() / values.mean(axis=within).var())


def test_swapped_pose_stays_in_its_column_and_content_in_its_row(two_block_model, factor_meters):
    """Fails a grid sorted by eye, and blocks that are exchanged: measured on the images by their moments."""
    grid = swap_grid(two_block_model(), None, "pose", rows=8, seed=4)
    measured = factor_meters(grid.images)
    for name in ("x", "y"):
        assert _spread(measured[name], within=0) < 1e-3, name
    for name in ("size", "intensity", "elongation"):
        assert _spread(measured[name], within=1) < 1e-3, name
    assert grid.certificate["block_spread"] == grid.certificate["rest_spread"] == 0.0
    diagonal = grid.images[np.arange(8), np.arange(8)]
    assert np.allclose(diagonal, grid.row_images, atol=1e-6)


def test_permuted_blocks_fail_the_meters(two_block_model, factor_meters):
    """The fault planted: the model calls "pose" what draws the content."""
    grid = swap_grid(two_block_model(permuted=True), None, "pose", rows=8, seed=4)
    measured = factor_meters(grid.images)
    assert min(_spread(measured[n], within=0) for n in ("x", "y")) > 0.1
    assert min(_spread(measured[n], within=1) for n in ("size", "intensity")) > 0.1


def test_columns_may_be_other_codes_than_rows(two_block_model, factor_meters):
    model = two_block_model()
    rows, columns = model.latent_space.sample(3, 0), model.latent_space.sample(5, 1)
    grid = swap_grid(model, rows, "pose", columns=columns)
    assert grid.images.shape[:2] == (3, 5)
    assert np.allclose(grid.z[:, :, 3:], columns[None, :, 3:]) and np.allclose(
        grid.z[:, :, :3], rows[:, None, :3]
    )
    x = factor_meters(grid.images)["x"]
    assert np.allclose(x, factor_meters(grid.column_images)["x"][None], atol=1e-3)


def test_a_model_of_one_block_says_that_it_has_none_to_swap(linear_model):
    with pytest.raises(ValueError, match="has no blocks to swap: its latent space 'z' is one block"):
        swap_grid(linear_model, None, "z")


@pytest.mark.parametrize(
    ("arguments", "wording"),
    [
        ({"dims": ["z9"]}, "Valid: z0, z1, z2, z3"),
        ({"dims": []}, "at least one coordinate"),
        ({"span": "data"}, "span must be 'prior', 'posterior' or a number"),
        ({"span": "posterior"}, "needs encoding="),
        ({"span": -1.0}, "span must be"),
        ({"coverage": 1.0}, "coverage is a share strictly between 0 and 1"),
        ({"steps": 1}, "steps must be a whole number of at least 2"),
        ({"values": [[1, 2]]}, "values must be finite numbers"),
        ({"values": [1, np.nan]}, "values must be finite numbers"),
        ({"z": np.zeros(3)}, r"z must be codes \(4,\) or \(n, 4\); got shape \(3,\)"),
        ({"z": np.full(4, np.inf)}, "z must hold finite numbers"),
        ({"z": np.zeros((2, 4))}, "z must be one code"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_wrong_arguments_get_a_sentence(linear_model, arguments, wording):
    with pytest.raises(ValueError, match=wording):
        traverse(linear_model, **arguments)


def test_grids_and_swaps_refuse_what_makes_no_grid(linear_model, two_block_model, categorical_model):
    with pytest.raises(ValueError, match=r"two different coordinates with an order; got \['class', 'z0'\]"):
        traverse_grid(categorical_model, dims=("class", "z0"))
    with pytest.raises(ValueError, match="two coordinates"):
        traverse_grid(linear_model, dims=("z0",))
    with pytest.raises(ValueError, match="not none or all"):
        swap_grid(two_block_model(), block=("pose", "content"))
    with pytest.raises(ValueError, match="No block 'style'"):
        swap_grid(two_block_model(), block="style")


def test_an_encoding_of_another_space_is_refused(linear_model, two_block_model, planted_dataset):
    encoding = encode_dataset(linear_model, planted_dataset(linear_model))
    with pytest.raises(ValueError, match="belongs to another latent space"):
        dim_ranges(two_block_model(), span="posterior", encoding=encoding)


def test_an_encoding_of_other_weights_is_refused(linear_model, planted_dataset):
    """Fails comparing names only: another model's ranges and order would pass as this one's."""
    encoding = encode_dataset(linear_model, planted_dataset(linear_model))
    with torch.no_grad():
        linear_model.encoder.stages["posterior"][1].weight.mul_(2.0)
    for call in (
        lambda: traverse(linear_model, seed=0, encoding=encoding),
        lambda: traverse_grid(linear_model, seed=0, span="posterior", encoding=encoding),
        lambda: dim_ranges(linear_model, span="posterior", encoding=encoding),
    ):
        with pytest.raises(
            ValueError, match=r"'planted' was made by a model with other weights \(\w{8}, this one"
        ):
            call()
    traverse(linear_model, seed=0, encoding=encode_dataset(linear_model, planted_dataset(linear_model)))
