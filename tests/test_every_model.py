"""What holds for every family of models and every objective that may train it: the contract, over the whole tables.

Would catch: a family that builds at one size only, loses its weights on the way to the disk, can't be traversed, opened
or edited, or has a part that nothing trains; and an objective that trains one family by accident.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentlab import analysis
from latentlab.card import headline, write_card
from latentlab.config import MODELS, OBJECTIVES, Adversarial, DataConfig, Experiment
from latentlab.data.arrays import ImageArray
from latentlab.data.factors import FactorSpace
from latentlab.models.build import build_model
from latentlab.models.contract import is_inference_model
from latentlab.models.edits import Edit
from latentlab.runs import WEIGHTS, Run, save_weights
from latentlab.training.fit import TRAININGS, fit

SMALL = {
    "vae": {"latents": 4, "width": 4, "hidden": 8},
    "ladder-vae": {"levels": [2, 2, 2], "width": 4, "hidden": 8},
    "vq-vae": {"codes": 4, "code_dim": 3, "width": 4, "prior_width": 16, "prior_layers": 1},
    "conditional-vae": {
        "label": "kind",
        "classes": 3,
        "latents": 3,
        "width": 4,
        "hidden": 8,
        "labelled": 0.5,
    },
    "gan": {"latents": 4, "width": 4},
    "conditional-gan": {"label": "kind", "classes": 3, "latents": 3, "width": 4},
    "info-gan": {"width": 4},
    "style-gan": {"latents": 4, "styles": 6, "mapping_layers": 2, "width": 4},
}
"""What keeps each family small; the data below have a factor "kind" of 3 values."""
BRIEF = {"factor-vae": {"layers": 1, "units": 8}, "pair-vae": {"changing": ["place"]}}
SIZES = (28, 32, 64, 128)
FAMILIES = sorted(MODELS)


def small(family: str):
    return MODELS[family](**SMALL[family])


def images(channels: int, size: int, n: int = 12) -> ImageArray:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, channels, size, size), dtype=np.uint8)
    table = np.stack([np.arange(n) % 3, np.arange(n) // 3], 1)
    return ImageArray("noise", "made here", pixels, FactorSpace(("kind", "place"), (3, n // 3)), table)


VARIATIONAL = [name for name, kind in OBJECTIVES.items() if kind.kind == "variational"]
TRAINED_BY = {
    "vae": VARIATIONAL,
    "ladder-vae": VARIATIONAL,
    "vq-vae": ["beta-vae"],
    "conditional-vae": [name for name in VARIATIONAL if name != "dip-vae"],
    "gan": ["adversarial"],
    "conditional-gan": ["adversarial"],
    "info-gan": ["adversarial"],
    "style-gan": ["adversarial"],
}
"""Which objectives train which family, by hand: a pair that is refused by accident is missed below."""
PAIRS = [(family, name) for family in FAMILIES for name in TRAINED_BY[family]]


def training(family: str, objective, batch_size: int = 6, shape: tuple[int, int] = (1, 28)):
    """A training of images of so many channels and pixels a side, whose steps can be taken one by one."""
    data = images(*shape)
    experiment = Experiment(
        data=DataConfig("digits"),
        model=small(family),
        objective=objective,
        batch_size=batch_size,
        max_steps=4,
        log_every=2,
        precision="fp32",
        keep_memory=False,
    )
    made = TRAININGS[experiment.model.kind](experiment, data)
    optimisers = made.configure_optimizers()
    made.optimizers = lambda use_pl_optimizer=False: optimisers
    return made


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", FAMILIES)
def test_it_draws_and_reads_images_of_every_size(family, size, channels):
    """Shapes, ranges, finite numbers, batches of one; equal seeds give equal weights and images."""
    shape = (channels, size, size)
    model, again = (build_model(small(family), shape, seed=3).eval() for _ in range(2))
    with torch.inference_mode():
        drawn = model.sample(2, seed=1)
        assert drawn.shape == (2, *shape) and torch.isfinite(drawn).all()
        assert drawn.min() >= 0.0 and drawn.max() <= 1.0
        assert torch.equal(drawn, again.sample(2, seed=1))
        assert not torch.equal(model.sample_codes(2, seed=1), model.sample_codes(2, seed=2))
        one = model.sample_codes(1, seed=0)
        assert one.shape == (1, model.latent_space.dim) and model.decode(one).shape == (1, *shape)
        if is_inference_model(model):
            posterior = model.encode(torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)))
            for numbers in (posterior.mean, posterior.code(), posterior.sample(0), posterior.kl()):
                assert numbers.shape == one.shape and torch.isfinite(numbers).all()
            assert model.decode(posterior.code()).shape == (1, *shape)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_comes_back_from_the_disk_and_is_opened_by_every_analysis(family, tmp_path):
    """Save and load; traversal, layers and edits, on networks of every name, and a batch of one."""
    shape = (1, 28, 28)
    objective = Adversarial() if MODELS[family].kind == "adversarial" else Experiment().objective
    run = Run.create(tmp_path / "run", Experiment(model=small(family), objective=objective), shape)
    built = build_model(small(family), shape, seed=5).eval()
    save_weights(built, tmp_path / "run" / WEIGHTS)
    run = Run.open(run.path, "cpu")
    model = run.model
    with torch.inference_mode():
        assert torch.equal(model.sample(2, seed=0), built.sample(2, seed=0))
    code = model.sample_codes(1, seed=0)[0].numpy()
    name = model.latent_space.names[0]
    assert analysis.traverse(model, code, [name], steps=3, span="prior").images.shape[-3:] == shape
    if len(model.latent_space.blocks) > 1:
        assert (
            analysis.swap_grid(model, None, model.latent_space.block_names[0], rows=2).images.shape[-3:]
            == shape
        )
    x = images(1, 28).images(np.arange(1)).numpy()
    for network in model.networks.values():
        decodes = network.name in ("generator", "mapping")
        seen = analysis.activations(model, network.name, code[None] if decodes else x)
        assert len(seen.addresses) == len(network.names)
    address = model.networks["generator"].addresses[0]
    edited = analysis.decode_latents(model, code[None], edits=[Edit(address, (0,))])
    assert edited.shape == (1, *shape) and np.isfinite(edited).all()
    if is_inference_model(model):
        found = analysis.encode_dataset(model, images(1, 28))
        assert np.isfinite(found.mean).all() and np.isfinite(found.kl).all()
        first = model.encoder.addresses[0]
        changed = analysis.encode_images(model, x, edits=[Edit(first)])
        assert changed.shape == (1, model.latent_space.dim)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_pairs_of_family_and_objective_are_these(family):
    """Would catch: a pair that a new check refuses, which the tests over all pairs would then leave out."""
    for name, kind in OBJECTIVES.items():
        objective = kind(**BRIEF.get(name, {}))
        if name in TRAINED_BY[family]:
            assert Experiment(model=small(family), objective=objective).objective == objective
            continue
        with pytest.raises(ValueError, match=r"is trained by |DIP-VAE draws covariances"):
            Experiment(model=small(family), objective=objective)


def trained_parts(made) -> dict[str, torch.nn.Parameter]:
    """Parameters that some loss should reach, by name: all but the averaged copies of a GAN's generator."""
    averaged = {id(p) for p in made.model.generating.parameters()} if hasattr(made, "raw") else set()
    named = made.named_parameters()
    return {what: p for what, p in named if id(p) not in averaged and p.requires_grad}


def steps(made, n: int) -> dict[str, float]:
    """Takes training steps; the largest gradient that each parameter got."""
    largest = {}
    for step in range(n):
        made.training_step(step, step)
        for what, parameter in trained_parts(made).items():
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), what
            largest[what] = max(largest.get(what, 0.0), parameter.grad.abs().max().item())
    return largest


@pytest.mark.parametrize(("family", "name"), PAIRS)
def test_every_part_of_it_is_trained_by_every_objective(family, name):
    """Every parameter gets a finite gradient that is not 0 and is moved by it, the averaged copies of a GAN's generator
    aside; figures are finite."""
    made = training(family, OBJECTIVES[name](**BRIEF.get(name, {})))
    before = {what: parameter.detach().clone() for what, parameter in trained_parts(made).items()}
    largest = steps(made, 2)
    assert not [what for what, gradient in largest.items() if gradient == 0.0]
    for what, parameter in trained_parts(made).items():
        assert torch.isfinite(parameter).all() and not torch.equal(parameter, before[what]), what
    assert all(np.isfinite(value) for value in made.take_means().values())


@pytest.mark.parametrize("family", FAMILIES)
def test_it_learns_colour_images_of_64_pixels_and_comes_back_from_the_disk(family, tmp_path):
    """Training, save and load, traversal and edits at 3 channels. Would catch: a channel count that is 1 somewhere
    behind the model, and weights that a trained model has and a new one has not."""
    shape = (3, 64, 64)
    objective = Adversarial() if MODELS[family].kind == "adversarial" else Experiment().objective
    made = training(family, objective, batch_size=4, shape=(3, 64))
    assert all(gradient > 0.0 for gradient in steps(made, 2).values())
    trained = made.model.eval()
    run = Run.create(tmp_path / "run", made.experiment, shape)
    save_weights(trained, tmp_path / "run" / WEIGHTS)
    model = Run.open(run.path, "cpu").model
    with torch.inference_mode():
        drawn = model.sample(2, seed=0)
        assert drawn.shape == (2, *shape) and torch.equal(drawn, trained.sample(2, seed=0))
        assert not torch.equal(
            drawn, build_model(small(family), shape, made.experiment.seed).eval().sample(2, seed=0)
        )
    code = model.sample_codes(1, seed=0)[0].numpy()
    strips = analysis.traverse(model, code, [model.latent_space.names[0]], steps=3, span="prior").images
    assert strips.shape[-3:] == shape and np.isfinite(strips).all()
    address = model.networks["generator"].addresses[0]
    plain, edited = (
        analysis.decode_latents(model, code[None], edits=edits)
        for edits in ([], [Edit(address, operation="shift", value=3.0)])
    )
    assert plain.shape == edited.shape == (1, *shape) and np.isfinite(edited).all()
    assert not np.array_equal(plain, edited)


@pytest.mark.parametrize("family", [f for f in FAMILIES if MODELS[f].kind == "adversarial"])
@pytest.mark.parametrize(("loss", "penalty"), [("wasserstein", "gradient"), ("hinge", "none")])
def test_every_gan_trains_by_every_loss(family, loss, penalty):
    made = training(family, Adversarial(loss=loss, penalty=penalty))
    made.training_step(0, 0)
    assert all(np.isfinite(value) for value in made.take_means().values())


def test_every_family_is_trained_by_some_objective_and_every_objective_trains_some_family():
    """Would catch: an entry of either table that nobody can use."""
    families, objectives = zip(*PAIRS, strict=True)
    assert set(families) == set(MODELS) and set(objectives) == set(OBJECTIVES)


@pytest.mark.parametrize("family", [family for family, name in PAIRS if name == "info-vae"])
def test_an_objective_that_compares_images_refuses_a_single_one(family):
    with pytest.raises(ValueError, match="needs at least 2 images a batch; got batch_size=1"):
        training(family, OBJECTIVES["info-vae"](), batch_size=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_of_it_is_trained_and_gets_its_card(family, tmp_path):
    """Would catch: a card that asks a GAN with an encoder for its reconstruction."""
    digits = {"label": "digit", "classes": 10} if "label" in SMALL[family] else {}
    model = MODELS[family](**{**SMALL[family], **digits})
    made = Experiment(
        name=family,
        data=DataConfig("digits"),
        model=model,
        objective=Adversarial() if model.kind == "adversarial" else Experiment().objective,
        max_steps=2,
        batch_size=4,
        log_every=1,
        preview_every=0,
        keep_memory=False,
    )
    run = fit(made, tmp_path / "run", device="cpu", progress=False)
    card = write_card(run, "Claim.")
    assert f"tags: [{family}, {made.objective.objective}]" in card and "](traversal.png)" in card
    assert ("nats per image" in card) == is_inference_model(run.model)
    assert ("| step | D(real) | D(fake) |" in card) == (model.kind == "adversarial")
    assert headline(run)
