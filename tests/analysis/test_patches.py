import numpy as np
import pytest
import torch
from planted import gated
from planted.model import PlantedModel
from torch import nn

from latentlab.analysis import load_result, top_inputs
from latentlab.data.factors import FactorDataset
from latentlab.latents import Block, LatentSpace
from latentlab.models.adapt import adapt_model
from latentlab.models.staged import StagedNetwork

SIDE = 16


@pytest.fixture(scope="module")
def model():
    """A discriminator of two strided convolutions; unit 0 of the first is a detector of one bright pixel."""
    torch.manual_seed(0)
    one, two = nn.Conv2d(1, 3, 4, stride=2, padding=1), nn.Conv2d(3, 4, 3, stride=2, padding=1)
    with torch.no_grad():
        one.weight[0].zero_()
        one.weight[0, 0, 1, 1] = 1.0
        one.bias[0] = 0.0
    stages = {
        "conv1": nn.Sequential(one, nn.ReLU()),
        "conv2": nn.Sequential(two, nn.ReLU()),
        "score": nn.Sequential(nn.Flatten(), nn.Linear(64, 1)),
    }
    generator = nn.Sequential(nn.Linear(2, SIDE * SIDE), nn.Sigmoid(), nn.Unflatten(1, (1, SIDE, SIDE)))
    return PlantedModel(
        (1, SIDE, SIDE),
        LatentSpace([Block("z", 2)]),
        generator=StagedNetwork({"output": generator}, "generator"),
        discriminator=StagedNetwork(stages, "discriminator"),
    )


def images(n: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def analytic(positions: np.ndarray, layers) -> np.ndarray:
    """Boxes by the formula of a chain of convolutions (kernel, stride, padding), the last layer first."""
    first, last = positions.astype(int), positions.astype(int)
    for kernel, stride, padding in layers:
        first, last = first * stride - padding, last * stride - padding + kernel - 1
    return np.concatenate([first.clip(0), (last + 1).clip(max=SIDE)], axis=-1)


def test_patches_are_the_receptive_fields_of_the_formula(model, left_as_found):
    left_as_found(model)
    x = images(40)
    found = top_inputs(model, "conv1", "discriminator", x, count=5, batch_size=7)
    assert np.array_equal(found.boxes, analytic(found.positions, [(4, 2, 1)]))
    found = top_inputs(model, "conv2", "discriminator", x, count=5)
    assert np.array_equal(found.boxes, analytic(found.positions, [(3, 2, 1), (4, 2, 1)]))
    assert found.certificate["outside"] == 0.0 and found.certificate["inside"] > 0.1
    assert found.role == "sees" and found.patches.shape == (4, 5, 1, 8, 8)


def test_a_patch_by_the_maps_proportions_does_not_hold_what_the_unit_sees(model):
    """The named fake: the position scaled up to the image, with a window of one stride around it."""
    x = images(20)
    found = top_inputs(model, "conv2", "discriminator", x, count=3)

    def depends_on_outside(boxes) -> bool:
        for unit in range(4):
            for k in range(3):
                top, left, bottom, right = boxes[unit, k]
                kept = torch.full((1, 1, SIDE, SIDE), 0.5)
                image = x[found.indices[unit, k]]
                kept[0, :, top:bottom, left:right] = image[:, top:bottom, left:right]
                row, column = found.positions[unit, k]
                with torch.no_grad():
                    state = model.networks["discriminator"].run(kept, stop="conv2")[0, unit, row, column]
                if abs(float(state) - found.activations[unit, k]) > 1e-6:
                    return True
        return False

    scaled = np.concatenate([found.positions * 4, found.positions * 4 + 4], axis=-1)
    assert depends_on_outside(scaled) and not depends_on_outside(found.boxes)


def test_the_top_inputs_are_those_of_a_full_sort(model):
    """Fails a running best that forgets earlier batches, or counts inputs within a batch."""
    x = images(50, 1)
    found = top_inputs(model, "conv1", "discriminator", x, units=[2, 0], count=4, batch_size=8)
    with torch.no_grad():
        state = model.networks["discriminator"].run(x, stop="conv1")[:, [2, 0]].flatten(2)
    best = state.amax(2).topk(4, dim=0)
    assert np.allclose(found.activations, best.values.T) and np.array_equal(found.indices, best.indices.T)
    assert np.allclose(found.mean, state.amax(2).mean(0), atol=1e-6)
    assert found.certificate["recomputed_difference"] < 1e-6
    # Unit 0 is one pixel: the second of the second row of its window, and the patch shows it as it is.
    for k in range(4):
        assert np.array_equal(found.images[1, k], x[found.indices[1, k]])
        row, column = 2 * found.positions[1, k]
        assert found.images[1, k, 0, row, column] == pytest.approx(found.activations[1, k])


class _Stack(FactorDataset):
    def __init__(self, rows):
        super().__init__("stack", "made here", (1, SIDE, SIDE), len(rows))
        self.rows = rows

    def _read(self, indices):
        return self.rows[indices]


def test_a_data_set_is_read_in_batches_with_progress(model):
    x, seen = images(30, 2), []
    found = top_inputs(
        model, "conv1", "discriminator", _Stack(x), batch_size=8, progress=lambda *d: seen.append(d)
    )
    whole = top_inputs(model, "conv1", "discriminator", x)
    assert np.array_equal(found.activations, whole.activations) and seen[-1] == (30, 30) and len(seen) == 4
    few = top_inputs(model, "conv1", "discriminator", _Stack(x), n=10, seed=1)
    again = top_inputs(model, "conv1", "discriminator", _Stack(x), n=10, seed=1)
    assert few.n == 10 and np.array_equal(few.images, again.images)
    with pytest.raises(ZeroDivisionError):
        top_inputs(model, "conv1", "discriminator", x, progress=lambda *_: 1 / 0)


def test_a_generators_units_draw_within_their_patch():
    """Fails a patch of another unit or place: each planted unit is active at one place and paints 2 x 2 pixels."""
    model = gated.gated_model()
    found = top_inputs(model, "maps", "generator", n=64, count=3)
    for unit in gated.PLAIN:
        assert (found.positions[unit] == gated.PLACES[unit]).all()
        top, left = 2 * np.array(gated.PLACES[unit])
        assert (found.boxes[unit] == [top, left, top + 2, left + 2]).all()
    assert found.role == "draws" and found.certificate["outside"] == 0.0 < found.certificate["inside"]
    assert np.array_equal(found.images, top_inputs(model, "maps", "generator", n=64, count=3).images)


def test_a_foreign_encoder_one_image_and_errors(model, tmp_path, left_as_found):
    encoder = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2 * 7 * 7, 4)
    )
    decoder = nn.Sequential(nn.Linear(2, SIDE * SIDE), nn.Sigmoid(), nn.Unflatten(1, (1, SIDE, SIDE)))
    foreign = adapt_model(decoder, latents=2, image_shape=(1, SIDE, SIDE), encoder=encoder)
    left_as_found(foreign)
    found = top_inputs(foreign, "2", "encoder", images(1))
    assert found.activations.shape == (2, 1) and found.patches.shape[-2:] == (4, 4)
    assert found.certificate["outside"] < 1e-6
    again = load_result(found.save(tmp_path / "top"))
    assert np.array_equal(again.patches, found.patches, equal_nan=True)
    flat = top_inputs(foreign, "4", "encoder", images(3))
    assert (flat.boxes == [0, 0, SIDE, SIDE]).all() and (flat.positions == 0).all()
    with pytest.raises(ValueError, match="reads codes; give codes"):
        top_inputs(model, "output", "generator", _Stack(images(2)))
    with pytest.raises(ValueError, match="was given alone"):
        top_inputs(model.networks["discriminator"], "conv1", inputs=images(2))
    with pytest.raises(ValueError, match="needs inputs=, such as images"):
        top_inputs(model, "conv1", "discriminator")
