"""What the engine knows equals torch, layer by layer and family by family; what it does not know is refused.

Would catch: kernels read in the wrong order, taps of a transposed convolution that belong to another phase, borders
padded on the wrong side, states flattened pixel by pixel instead of channel by channel.
"""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
from torch import nn

from latentlab.analysis.direction import Direction
from latentlab.app.pull import Pull
from latentlab.config import (
    BlockConfig,
    ConditionalGANConfig,
    GANConfig,
    LadderVAEConfig,
    StyleGANConfig,
    VAEConfig,
    VQVAEConfig,
)
from latentlab.export import lower
from latentlab.export.program import KINDS
from latentlab.models.adapt import adapt_model
from latentlab.models.build import build_model
from latentlab.models.edits import Edit

EXACT = 3e-6
LEVEL = 1.0 / 255.0
"""Of a layer, in units of its largest output: float32's rounding, summed in another order."""

SQUARE, WIDE = (5, 7, 7), (3, 6, 11)


def settled(norm: nn.Module) -> nn.Module:
    """A norm that has seen data."""
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in [*norm.parameters(), *(b for b in norm.buffers() if b.is_floating_point())]:
            tensor.copy_(torch.rand(tensor.shape, generator=chance) + 0.5)
    return norm


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear, 13 inputs to 9": (nn.Linear(13, 9), (13,)),
    "linear without bias": (nn.Linear(4, 1, bias=False), (4,)),
    "convolution 3x3": (nn.Conv2d(5, 9, 3, padding=1), SQUARE),
    "convolution to few channels": (nn.Conv2d(3, 3, 3, padding=1), WIDE),
    "strided, uneven": (nn.Conv2d(3, 17, (2, 3), stride=(2, 1), padding=(0, 2)), WIDE),
    "dilated": (nn.Conv2d(5, 4, 3, dilation=2, padding=2), SQUARE),
    "same": (nn.Conv2d(3, 8, (3, 5), padding="same", dilation=(1, 2)), WIDE),
    "grouped": (nn.Conv2d(6, 4, 3, groups=2), (6, 5, 5)),
    "transposed 4x4 stride 2": (nn.ConvTranspose2d(5, 8, 4, 2, 1), SQUARE),
    "transposed with output padding": (nn.ConvTranspose2d(3, 3, 4, 2, 1, output_padding=1), WIDE),
    "transposed 3x5 stride 3x2": (nn.ConvTranspose2d(3, 9, (3, 5), (3, 2), (1, 0)), WIDE),
    "transposed with gaps": (nn.ConvTranspose2d(5, 3, 1, 3), SQUARE),
    "transposed and dilated": (nn.ConvTranspose2d(5, 6, 3, 2, 2, dilation=2, output_padding=1), SQUARE),
    "nearest": (nn.Upsample(size=(13, 9), mode="nearest"), SQUARE),
    "nearest twice": (nn.Upsample(scale_factor=2), SQUARE),
    "bilinear": (nn.Upsample(size=(15, 10), mode="bilinear"), SQUARE),
    "bilinear smaller": (nn.Upsample(size=(3, 5), mode="bilinear"), SQUARE),
    "flatten and back": (nn.Sequential(nn.Flatten(), nn.Unflatten(1, (11, 3, 6))), WIDE),
    "batch norm": (settled(nn.BatchNorm2d(5)), SQUARE),
    "batch norm of a flat state": (settled(nn.BatchNorm1d(6)), (6,)),
    "group norm": (settled(nn.GroupNorm(2, 6)), (6, 5, 4)),
    "relu": (nn.ReLU(), SQUARE),
    "leaky relu": (nn.LeakyReLU(0.3), SQUARE),
    "silu": (nn.SiLU(), SQUARE),
    "sigmoid": (nn.Sigmoid(), SQUARE),
    "tanh": (nn.Tanh(), SQUARE),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_equals_torch(engine, name):
    torch.manual_seed(0)
    module, shape = LAYERS[name]
    assert engine.distance(module, shape) < EXACT


def test_a_kernel_that_is_turned_around_is_noticed(engine):
    """The fake: a transposed convolution whose kernel is applied as a plain convolution's is."""
    layer = LAYERS["transposed 4x4 stride 2"][0]
    turned = copy.deepcopy(layer)
    turned.weight.data = layer.weight.data.flip(2, 3)
    assert engine.distance(layer, SQUARE, engine.program(turned, SQUARE)) > 0.1


def test_the_activations_hold_far_out(engine):
    """Would catch an exponential that overflows: codes of thousands still give 0, 1 and their likes."""
    for module in (nn.Sigmoid(), nn.Tanh(), nn.SiLU()):
        program = engine.program(module, (8,))
        far = torch.tensor([[-1e4, -100.0, -88.0, -30.0, 30.0, 88.0, 100.0, 1e4]])
        assert np.allclose(engine(program, far).images[0], module(far)[0].numpy(), rtol=1e-6, atol=1e-12)


BLOCKS = [BlockConfig("kind", 3, "categorical"), BlockConfig("style", 4)]
FAMILIES = {
    "burgess": (VAEConfig(latents=5, width=12, hidden=24), (3, 37, 37)),
    "locatello": (VAEConfig(latents=5, network="locatello", width=8, hidden=24), (1, 64, 64)),
    "residual, logistic": (
        VAEConfig(latents=5, network="residual", width=6, hidden=20, likelihood="logistic", scale=0.07),
        (3, 30, 30),
    ),
    "laplace, blocks": (VAEConfig(blocks=BLOCKS, width=8, hidden=24, likelihood="laplace"), (1, 28, 28)),
    "ladder": (LadderVAEConfig(levels=[2, 3, 4], width=8, hidden=24), (1, 45, 45)),
    "vq": (VQVAEConfig(codes=16, code_dim=6, width=8, halvings=2), (3, 28, 28)),
    "dcgan": (GANConfig(latents=6, width=6), (3, 40, 40)),
    "conditional gan": (ConditionalGANConfig(width=6), (1, 32, 32)),
    "stylegan": (StyleGANConfig(latents=6, styles=10, mapping_layers=2, width=4), (3, 45, 45)),
}


def lively(model: nn.Module) -> nn.Module:
    """Fresh weights made larger, and norms that have seen data, so that every layer matters to the picture."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            settled(module)
        elif isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            module.weight.data *= 2.0 if module.weight.std() > 0.03 else 8.0
    for name, parameter in model.named_parameters():
        if name.endswith("noise.strength"):
            parameter.data += 0.3
        if name.endswith("codes.weight"):  # a codebook starts small
            parameter.data *= 20.0
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_equals_torch_at_every_stage(engine, name):
    """Odd image sizes too, where maps grow by twice and one. Would catch a stage that reads another's state."""
    config, shape = FAMILIES[name]
    model = lively(build_model(config, shape, seed=1))
    program = lower(model)
    z = model.sample_codes(3, 0)
    ran = engine(program, z, stages=[stage.address for stage in program.stages])
    with torch.no_grad():
        images = model.decode(z).numpy()
        states = {f"generator.{n}": s for n, s in model.generator.activations(_given(model, z)).items()}
        if "mapping" in model.networks:
            states |= {f"mapping.{n}": s for n, s in model.mapping.activations(z).items()}
    assert images.std(axis=0).max() > 0.02, "the codes must make a difference"
    assert np.abs(np.stack(ran.images) - images).max() < 0.1 / 255
    assert states.keys() == ran.states[0].keys()
    for address, state in states.items():
        found = np.stack([one[address] for one in ran.states])
        assert np.abs(found - state.numpy()).max() <= 2e-5 * np.abs(state.numpy()).max(), address


def test_a_decoder_of_600_mflop_keeps_30_pictures_a_second(engine):
    """Processor time of one thread, as a Worker has it."""
    model = build_model(VAEConfig(latents=10, network="residual", width=26), (3, 64, 64))
    program = lower(model)
    work = 2 * program.multiplications / 1e6
    ms = engine(program, model.sample_codes(1, 0), precision="f16", times=10).ms
    print(f"\n{work:.0f} MFLOP: {ms:.1f} ms")
    assert 550 < work < 620 and ms < 1000 / 30


def test_steps_along_directions_equal_torch(engine):
    """In Z, in W, in some layers of W+ and in a stage, all at once, and with an edit of that stage before.

    Would catch a direction of W that is added to Z, one that moves every layer, steps that are mixed up.
    """
    model = lively(build_model(StyleGANConfig(latents=6, styles=10, width=4), (3, 32, 32), seed=3))
    rng = np.random.default_rng(0)
    stage = "generator.conv3"
    units = int(model.generator.activations(_given(model, model.sample_codes(1, 0)))["conv3"].shape[1])
    places = [(6, {"space": "z"}), (10, {"space": "w", "step": 0.5}), (10, {"space": "w", "layers": (1, 3)}),
              (units, {"stage": stage, "step": 2.0})]  # fmt: skip
    ways = [Direction(f"d{i}", tuple(rng.standard_normal(n)), **place) for i, (n, place) in enumerate(places)]
    steps = [1.5, -2.0, 2.5, 1.0]
    z = model.sample_codes(4, 0).numpy()
    edit = Edit(stage, (2,))

    def expected(order: list[int]) -> np.ndarray:
        a, b, c, d = (steps[i] for i in order)
        w = model.map(torch.tensor(ways[0].apply(z, a, space="z")), "z", "w").numpy()
        styles = model.map(torch.tensor(ways[1].apply(w, b, space="w")), "w", "w+").numpy()
        styles = torch.tensor(ways[2].apply(styles, c, space="w+"))
        return model.decode(styles, edits=[edit, *ways[3].edits(d)], space="w+").numpy()

    numbers = np.concatenate([z, np.tile(np.float32(steps), (4, 1))], axis=1)
    found = np.stack(engine(lower(model, ways), numbers, edits=[edit.to_dict()]).images)
    assert np.abs(found - expected([0, 1, 2, 3])).max() < 0.05 / 255
    assert np.abs(found - expected([1, 0, 2, 3])).max() > 3 / 255  # the fake: two steps are mixed up


@pytest.mark.parametrize("space", ["z", "w"])
@pytest.mark.parametrize("cutoff", [None, 0, 3])
def test_the_numbers_of_a_pull_equal_torch(engine, space, cutoff):
    """Would catch a truncation behind the steps, of other layers or towards 0, and a code of W that is mapped."""
    torch.manual_seed(0)
    config, shape = FAMILIES["stylegan"]
    model = lively(build_model(config, shape)).eval()
    model.mapping.mean.copy_(torch.randn(10))
    ways = (
        Direction("all", tuple(torch.randn(10).tolist()), space="w", step=2.0),
        Direction("some", tuple(torch.randn(10).tolist()), space="w", step=2.0, layers=(1, 4)),
    )
    if space == "z":
        ways += (Direction("code", tuple(torch.randn(6).tolist()), space="z"),)
    pull = Pull(space, ways, cutoff)
    numbers = torch.randn(4, pull.dim(model))
    if cutoff is not None:
        numbers[:, -1] = torch.tensor([0.0, 0.5, 0.9, 1.0])
    program = lower(model, ways, space=space, cutoff=cutoff)
    with torch.inference_mode():
        expected = [pull.decode(model, row[None])[0].numpy() for row in numbers]
        moved = numbers.clone()
        moved[:, -1] += 0.2
        other = [pull.decode(model, row[None])[0].numpy() for row in moved]
    assert np.abs(np.stack(other) - np.stack(expected)).max() > 2 * LEVEL, "the last number must show"
    ran = engine(program, numbers)
    assert np.abs(np.stack(ran.images) - np.stack(expected)).max() < 0.05 * LEVEL


def test_a_pull_of_what_is_not_there_is_refused():
    plain, style = (build_model(*FAMILIES[name]) for name in ("burgess", "stylegan"))
    for model, options, wording in (
        (plain, {"cutoff": 0}, "Only styles are truncated"),
        (plain, {"space": "w"}, "No space 'w' in this model"),
        (style, {"space": "w+"}, "decodes codes of 'z' or 'w'; these are of 'w+'"),
    ):
        with pytest.raises(ValueError, match=re.escape(wording)):
            lower(model, **options)


def test_a_direction_beside_the_way_is_refused():
    model = build_model(VAEConfig(latents=3, width=8, hidden=16), (1, 32, 32))
    one = np.eye(16)[0]
    for direction, wording in (
        (Direction("smile", tuple(one), stage="encoder.fc1"), "'smile' of 'encoder.fc1' is not on the way"),
        (Direction("smile", tuple(one), space="w"), "'smile' of 'w' is not on the way"),
        (Direction("smile", (1.0, 0.0), stage="generator.fc1"), "has 2 units; stage 'generator.fc1' has 16"),
        (Direction("smile", (1.0, 0.0), space="z"), "has 2 coordinates; the codes have 3"),
        (Direction("smile", (1.0, 0.0, 0.0), space="z", weights_digest="ab"), "was found in model ab"),
    ):
        with pytest.raises(ValueError) as refused:
            lower(model, [direction])
        assert wording in str(refused.value)


def _given(model, z):
    return model.map(z, "z", "w+") if "w+" in model.spaces else z


@pytest.mark.parametrize(
    ("layer", "wording"),
    [
        (nn.PReLU(), "knows no PReLU; it knows BatchNorm1d, BatchNorm2d"),
        (nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"), "padding mode 'reflect' is not 'zeros'"),
        (nn.BatchNorm2d(8, track_running_stats=False), "depends on the batch"),
        (nn.ConvTranspose2d(8, 8, 3, padding=1, groups=2), "of 2 groups"),
        (nn.Upsample(size=(8, 8), mode="bilinear", align_corners=True), "without aligned corners"),
        (nn.Linear(8, 8), "is given (8, 8, 8)"),
    ],
)
def test_a_layer_it_does_not_know_is_refused_when_the_page_is_made(layer, wording):
    """Would catch a page that opens and shows something else than the model."""
    model = build_model(VAEConfig(latents=3, width=8, hidden=16), (1, 32, 32))
    stage = model.generator.stages["deconv1"]
    stage.append(layer)
    with pytest.raises(ValueError, match=r"Stage 'generator\.deconv1' can't run in a browser") as refused:
        lower(model)
    assert wording in str(refused.value)


def test_a_subclass_is_refused_since_it_may_run_otherwise():
    class Doubled(nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    model = build_model(VAEConfig(latents=3, width=8, hidden=16), (1, 32, 32))
    model.generator.stages["fc1"][0] = Doubled(3, 16)
    with pytest.raises(ValueError, match="knows no Doubled"):
        lower(model)


def test_a_foreign_model_is_refused():
    decoder = nn.Sequential(nn.Linear(2, 64), nn.Unflatten(1, (1, 8, 8)), nn.Sigmoid())
    model = adapt_model(decoder, latents=2, image_shape=(1, 8, 8))
    with pytest.raises(ValueError, match="decodes latentlab's own VAEs and GANs; got a"):
        lower(model)


def test_a_precision_it_does_not_know_is_refused(engine):
    with pytest.raises(ValueError, match="one of f32, f16, int8; got 'f8'"):
        engine.program(nn.Linear(2, 2), (2,)).pack("f8")


def test_weights_that_half_precision_can_not_hold_are_refused(engine):
    """Would catch a page whose weights are infinite."""
    layer = nn.Linear(2, 2)
    layer.weight.data[0, 0] = 1e6
    with pytest.raises(ValueError, match="no finite numbers in f16"):
        engine.program(layer, (2,)).pack("f16")


def test_a_model_is_left_as_it_was():
    model = lively(build_model(VAEConfig(latents=3, width=8, hidden=16), (1, 32, 32)))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert lower(model).pack("f32") == lower(model).pack("f32")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and not model.training


def test_steps_name_known_kinds_and_places_inside_the_memory():
    program = lower(build_model(StyleGANConfig(latents=6, styles=10, width=4), (3, 45, 45)))
    for kind, *addresses in (step[:6] for step in program.steps):
        assert 0 <= kind < len(KINDS)
        assert all(-1 <= address < program.size for address in addresses)
