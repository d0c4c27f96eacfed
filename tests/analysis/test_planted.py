"""The planted models themselves: what the other tests take for granted about them."""

import pytest
import torch
from planted import gated, linear, manifolds, renderer
from torch.testing import assert_close

from latentlab.analysis.meters import METERS, meter_of, region_meter


def test_the_gated_decoder_is_the_sum_of_its_units_drawings():
    model = gated.gated_model()
    z = model.sample_codes(9, 0)
    assert_close(model.decode(z), sum(gated.drawing(z, unit) for unit in range(gated.UNITS)))
    gates = model.generator.activations(z, ["gates"])["gates"]
    for unit in range(gated.UNITS):
        assert_close(gates[:, unit], gated.activation(z, unit))
    assert int(gates.mean(0).argmax()) == gated.LOUD
    assert_close(gated.drawing(z, 6) + gated.drawing(z, 7), torch.zeros(9, 1, 16, 16))


def test_the_linear_generator_is_its_matrix():
    model, weight, bias = linear.linear_model(seed=3)
    z = model.sample_codes(5, 1)
    assert_close(model.decode(z).flatten(1), z @ weight.T + bias)
    values = torch.linalg.svdvals(weight)
    assert bool((values[:-1] > 1.2 * values[1:]).all())


def test_the_manifolds_lie_where_they_should():
    z = torch.tensor([[1.0, 0.5], [2.0, 1.0]])
    assert_close(manifolds.polar().decode(z)[:, 0, 0].norm(dim=1), z[:, 0])
    assert_close(manifolds.sphere().decode(z)[:, 0, 0].norm(dim=1), torch.ones(2))
    assert_close(manifolds.half_cylinder().decode(z)[:, 0, 0, 2], z[:, 1])


def test_the_renderer_draws_what_its_meters_read():
    model = renderer.renderer_model()
    z = model.sample_codes(200, 0)
    images, factors = model.decode(z), renderer.factors_of(z)
    read = renderer.meters(images)
    assert_close(read[:, 2:], factors[:, 3:], atol=0.05, rtol=0)
    assert float((read[:, 1] - factors[:, 2]).abs().max()) < 0.06
    assert float(torch.corrcoef(torch.stack([read[:, 0], factors[:, 1]]))[0, 1]) > 0.95
    assert_close((images[:, 0] > 0.5), renderer.masks(factors))


def test_general_meters_agree_with_the_renderer():
    model = renderer.renderer_model()
    z = model.sample_codes(50, 1)
    images, factors = model.decode(z), renderer.factors_of(z)
    assert_close(METERS["x"](images) * 32, factors[:, 3], atol=0.05, rtol=0)
    assert_close(METERS["y"](images) * 32, factors[:, 4], atol=0.05, rtol=0)
    assert_close(METERS["brightness"](images), images.mean((1, 2, 3)))
    assert bool((METERS["slant"](images).sign() == factors[:, 2].sign()).float().mean() > 0.9)


def test_a_region_meter_reads_its_region_and_channel():
    images = torch.zeros(1, 3, 8, 8)
    images[:, 1, 4:, :4] = 1.0
    assert float(region_meter((0.5, 0.0, 1.0, 0.5), "green")(images)) == 1.0
    assert float(region_meter((0.0, 0.0, 0.5, 1.0), "green")(images)) == 0.0
    assert float(meter_of("green")(images)) == pytest.approx(0.25)


def test_meters_say_what_is_wrong():
    with pytest.raises(ValueError, match="No meter 'hight'; there are brightness"):
        meter_of("hight")
    with pytest.raises(ValueError, match="top, left, bottom, right"):
        region_meter((0.5, 0, 0.5, 1))
    with pytest.raises(ValueError, match="channel is one of red"):
        region_meter(channel="pink")
    with pytest.raises(TypeError, match="A meter is a name"):
        meter_of(3)
