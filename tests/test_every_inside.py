"""Every method that looks inside, on a small fresh model of every family: a result that is proved, or a plain refusal.

Would catch: a method that was only tried on the families it was written for, and meets the others with an error of
torch or Python; one that needs weights which were opened frozen; a certificate of NaN; a method that leaves the model
changed.
"""

from __future__ import annotations

import copy
import math
import re
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from test_every_model import FAMILIES, images, small

import latentlab
from latentlab import analysis
from latentlab.analysis.results import Result
from latentlab.latents import Normal, Uniform
from latentlab.models.build import build_model
from latentlab.models.contract import weights_digest

SHAPE = (1, 28, 28)
PICTURES = images(*SHAPE[:2], n=24)


def middle(network) -> str:
    """A stage half-way whose units can be told."""
    return network.names[len(network.names) // 2]


def reading(model):
    """The networks that read images, by name."""
    return [name for name in model.networks if name not in ("generator", "mapping")]


def pictures(n: int = 3) -> np.ndarray:
    return PICTURES.images(np.arange(n)).numpy()


def given(model, network: str, n: int = 3):
    """Inputs: prior draws for networks of codes, else images."""
    return pictures(n) if network in reading(model) else None


def codes(model, n: int, seed: int = 0) -> np.ndarray:
    return model.sample_codes(n, seed).numpy()


def concepts(model, network: str) -> dict:
    rows = pictures(24) if network in reading(model) else codes(model, 24)
    return {"one": rows[:6], "other": rows[6:12]}


def dim(model) -> str:
    return model.latent_space.names[0]


def two(model) -> list[str]:
    """Two coordinates that can be moved, where the model has them."""
    space = model.latent_space
    moved = [name for name in space.names if isinstance(space.block_of(name).prior, (Normal, Uniform))]
    return (moved or list(space.names))[:2]


Call = Callable[[Any, str, str], Any]
"""A method at tiny sizes: model, name of a network, one of its stages."""

OF_STAGES: dict[str, Call] = {
    "activations": lambda m, k, s: analysis.activations(m, k, given(m, k)),
    "rank_units": lambda m, k, s: analysis.rank_units(m, s, k, given(m, k), n=2, n_draws=1),
    "unit_draws": lambda m, k, s: analysis.unit_draws(m, s, (0, 1), given(m, k), k, n=2),
    "unit_isolates": lambda m, k, s: analysis.unit_isolates(m, s, (0, 1), given(m, k), k, n=2, baseline="mean"),
    "pixel_reads": lambda m, k, s: analysis.pixel_reads(m, (0, 0, 0.5, 0.5), given(m, k), s, k),
    "pixel_reads of inputs": lambda m, k, s: analysis.pixel_reads(m, (0, 0, 0.5, 0.5), given(m, k), None, k),
    "top_inputs": lambda m, k, s: analysis.top_inputs(m, s, k, given(m, k, 4), units=(0, 1), count=2, n=4),
    "network_graph": lambda m, k, s: analysis.network_graph(m, k, given(m, k), n=2),
    "deconvnet": lambda m, k, s: analysis.deconvnet(m, k, s, pictures(), (0, 1), count=1),
    "occlusion": lambda m, k, s: analysis.occlusion(m, k, pictures(1)[0], s, 0, size=8, stride=8),
    "dissect": lambda m, k, s: analysis.dissect(
        m, s, k, inputs=given(m, k, 6), n_images=6, n_draws=2, n_controls=1
    ),
    "causal_effect": lambda m, k, s: analysis.causal_effect(
        m, s, (0, 1), analysis.light_map(), k, inputs=given(m, k), n=3, n_draws=20, n_boot=20
    ),
    "effects_of_units": lambda m, k, s: analysis.effects_of_units(
        m, s, [analysis.light_map()], k, inputs=given(m, k), units=(0,), n=3, n_boot=20
    ),
    "datapath": lambda m, k, s: analysis.datapath(
        m, given(m, k, 2), k, [s], n=2, n_draws=2, steps=4, tolerance=0.2
    ),
    "conductance": lambda m, k, s: analysis.conductance(
        m, s, given(m, k, 1), network=k, units=(0, 1), steps=4, most_steps=8
    ),
    "integrated_gradients": lambda m, k, s: analysis.integrated_gradients(
        m, given(m, k, 1), network=k, steps=4, most_steps=8
    ),
    "sobol": lambda m, k, s: analysis.sobol(m, network=k, n=8, n_draws=20),
    "sobol of a stage": lambda m, k, s: analysis.sobol(m, stage=s, network=k, n=8, n_draws=20),
    "influence_by_stage": lambda m, k, s: analysis.influence_by_stage(
        m, [s], dims=two(m), network=k, n=2, n_draws=2, steps=3
    ),
    "latent_unit_pixel": lambda m, k, s: analysis.latent_unit_pixel(
        m, s, dims=two(m), network=k, n=2, top=1, n_draws=2, steps=3
    ),
    "jacobian": lambda m, k, s: analysis.jacobian(m, given(m, k, 1), network=k),
    "jacobian of a stage": lambda m, k, s: analysis.jacobian(m, given(m, k, 1), network=k, stage=s),
    "tcav": lambda m, k, s: analysis.tcav(
        m, s, concepts(m, k), None if k in reading(m) else "brightness", network=k, inputs=given(m, k),
        random_examples=given(m, k, 24), n=3, n_draws=30, n_partners=2,
    ),
    "unit_facets": lambda m, k, s: analysis.unit_facets(
        m, s, given(m, k, 12), {"kind": np.arange(12) % 3} if k in reading(m) else None, network=k, n=32, n_draws=2
    ),
    "edge_bundles": lambda m, k, s: analysis.edge_bundles(
        m, m.networks[k].names[0], m.networks[k].names[1], given(m, k), network=k, n=2
    ),
    "emergence": lambda m, k, s: analysis.emergence(m, k, inputs=given(m, k, 6), stages=[s], n_images=6, n_draws=2),
    "maximise_activation": lambda m, k, s: analysis.maximise_activation(
        m, k, s, 0, steps=2, n_seeds=1, n_reference=4, reference=given(m, k, 4)
    ),
    "unit_spread": lambda m, k, s: analysis.unit_spread(m, s, pictures(1)[0], k, n_draws=32),
    "surrogate of a unit": lambda m, k, s: analysis.surrogate(m, f"{k}.{s}:0", n=100, refits=1, n_draws=20),
    "ganspace": lambda m, k, s: analysis.ganspace(m, s, network=k, n=2, draws=32),
}  # fmt: skip
"""What looks at one network and its stage."""

OF_MODELS: dict[str, Callable[[Any], Any]] = {
    "surrogate": lambda m: analysis.surrogate(m, "brightness", n=100, refits=1, n_draws=20),
    "sefa": lambda m: analysis.sefa(m, n=2),
    "ganspace of codes": lambda m: analysis.ganspace(m, n=2, draws=32),
    "boundary": lambda m: analysis.boundary(m, n=100, share=0.2),
    "direction_effects": lambda m: analysis.direction_effects(
        m, analysis.boundary(m, n=100, share=0.2), ["brightness"], n=2, n_draws=2
    ),
    "predictive_maps": lambda m: analysis.predictive_maps(m, z=codes(m, 1)[0], n_draws=32, keep=2),
    "predictive_maps of an image": lambda m: analysis.predictive_maps(
        m, x=pictures(1)[0], n_draws=32, keep=2
    ),
    "traverse": lambda m: analysis.traverse(m, codes(m, 1)[0], [dim(m)], steps=3, span="prior"),
    "geodesic": lambda m: analysis.geodesic(m, *codes(m, 2), steps=3, knots=2, grid=5, most=3),
    "interpolate": lambda m: analysis.interpolate(m, *codes(m, 2), steps=3),
    "magnification_map": lambda m: analysis.magnification_map(m, two(m), steps=3, span="prior"),
    "pullback_metric": lambda m: analysis.pullback_metric(m, n=1),
    "invert": lambda m: analysis.invert(m, pictures(1), steps=2, candidates=4),
    "attribute_vector": lambda m: analysis.attribute_vector(m, codes(m, 20), np.arange(20) % 2, n_draws=2),
    "latent_arithmetic": lambda m: analysis.latent_arithmetic(
        m, *codes(m, 3), steps=3, data_codes=codes(m, 20, 1)
    ),
}
"""What looks at a model, or at its generator."""


@cache
def fresh(family: str):
    """A model as built: in training mode, its weights ready for gradients."""
    return build_model(small(family), SHAPE, seed=3)


def finite(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(finite(v) for v in value.values())
    if isinstance(value, (tuple, list)):
        return all(finite(v) for v in value)
    return not isinstance(value, (float, np.floating)) or math.isfinite(value)


def answer(call: Callable[[], object]) -> Result | None:
    """The proved result of a call; None where it refuses with a sentence of ours."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = call()
    except (ValueError, TypeError) as refusal:
        assert re.fullmatch(r"\S.* .*\.", str(refusal), re.S), f"no sentence: {refusal!r}"
        return None
    assert isinstance(found, Result)
    assert found.certificate and finite(found.certificate), found.certificate
    return found


def answers(family: str, method: str) -> dict[str, Result | None]:
    """A method on a family: what it answers for each network, or for the model as a whole."""
    model = fresh(family)
    if method in OF_MODELS:
        return {"": answer(lambda: OF_MODELS[method](model))}
    found = {}
    for name, network in model.networks.items():
        found[name] = answer(lambda n=name, k=network: OF_STAGES[method](model, n, middle(k)))
    return found


@pytest.mark.parametrize("method", [*OF_STAGES, *OF_MODELS])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_proves_what_it_shows_or_says_why_not(family, method):
    """No bare error of torch or Python on any network of any family; the model stays as it was."""
    model = fresh(family)
    before = weights_digest(model)
    found = answers(family, method)
    assert weights_digest(model) == before
    assert all(module.training for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    if family == ("style-gan" if method == "ganspace of codes" else "vae"):
        assert any(result is not None for result in found.values()), "it refuses what it is made for"


class Halves(torch.nn.Module):
    """A foreign decoder, which knows nothing of latent spaces."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act, self.out = torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Conv2d(1, 1, 1)

    def forward(self, z):
        return self.out(self.act(self.fc(z)).view(-1, 1, 2, 2)).sigmoid()


ALONE: dict[str, Callable[[Any], Any]] = {
    "sobol": lambda m: analysis.sobol(m),
    "surrogate": lambda m: analysis.surrogate(m, "brightness"),
    "sefa": lambda m: analysis.sefa(m),
    "ganspace": lambda m: analysis.ganspace(m),
    "boundary": lambda m: analysis.boundary(m),
    "direction_effects": lambda m: analysis.direction_effects(
        m, analysis.Direction("d", (1.0, 0.0, 0.0), space="z")
    ),
    "traverse": lambda m: analysis.traverse(m, None, [0]),
    "traverse_grid": lambda m: analysis.traverse_grid(m, None, [0, 1]),
    "swap_grid": lambda m: analysis.swap_grid(m, None, "z"),
    "traverse_direction": lambda m: analysis.traverse_direction(
        m, analysis.Direction("d", (1.0, 0.0, 0.0), space="z")
    ),
    "interpolate": lambda m: analysis.interpolate(m, np.zeros(3), np.ones(3)),
    "geodesic": lambda m: analysis.geodesic(m, np.zeros(3), np.ones(3)),
    "predictive_maps": lambda m: analysis.predictive_maps(m, z=np.zeros(3)),
    "magnification_map": lambda m: analysis.magnification_map(m, [0, 1]),
    "pullback_metric": lambda m: analysis.pullback_metric(m),
    "invert": lambda m: analysis.invert(m, np.zeros((1, 1, 2, 2))),
    "decode_latents": lambda m: analysis.decode_latents(m, np.zeros(3)),
    "group_direction": lambda m: analysis.group_direction(m, np.zeros((3, 3)), np.ones((3, 3))),
}
"""What needs a latent space."""


@pytest.mark.parametrize("method", ALONE)
def test_a_network_alone_is_refused_where_a_latent_space_is_needed(method):
    """Would catch an AttributeError deep inside, which doesn't say what to bring instead."""
    alone = latentlab.adapt(Halves(), torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"AdaptedNetwork has no latent space; .*latentlab\.adapt_model"):
        ALONE[method](alone)


def test_no_gradient_through_a_codebook_is_said_so():
    """Would catch torch's words about graphs, and a Jacobian of zeros in their place."""
    model = fresh("vq-vae")
    with pytest.raises(
        ValueError, match=r"No gradient leads .* indices of a codebook; name a stage before them"
    ):
        analysis.jacobian(model, pictures(1), network="encoder")
    with pytest.raises(
        ValueError, match=r"No gradient leads .* indices of a codebook; name a stage behind it"
    ):
        analysis.pixel_reads(model, (0, 0, 1, 1))


def test_weights_in_training_are_as_good_as_frozen_ones():
    """Codes carried to W under inference mode must not keep gradients from weights that ask for them."""
    model = fresh("style-gan")
    frozen = copy.deepcopy(model).requires_grad_(False)
    for call in (
        lambda m: analysis.surrogate(m, "generator.conv3:0", n=100, refits=1, n_draws=20).weights,
        lambda m: OF_STAGES["tcav"](m, "generator", "conv1").effect,
    ):
        np.testing.assert_array_equal(call(model), call(frozen))


def test_a_learned_constant_depends_on_no_code():
    """Would catch torch's words about numpy and gradients: the first stage of a StyleGAN is a parameter."""
    found = analysis.jacobian(fresh("style-gan"), stage="constant")
    assert not found.jacobian.any() and found.certificate["vanishing"] == 1.0
    assert found.certificate["finite_difference"] == 0.0


@pytest.mark.parametrize("steps", [3, [], [0.0, np.nan]])
def test_places_along_a_direction_are_a_list(steps):
    """Would catch "'int' object is not iterable", since other methods take the number of steps."""
    direction = analysis.Direction("d", (1.0, 0.0, 0.0, 0.0), space="z")
    for method in (analysis.direction_effects, analysis.traverse_direction):
        with pytest.raises(ValueError, match="steps must be a list of finite numbers, at least one; got"):
            method(fresh("vae"), direction, steps=steps)


def test_too_few_resamples_give_no_interval():
    with pytest.raises(ValueError, match="n_draws at least 20; got"):
        analysis.surrogate(fresh("vae"), "brightness", n=100, n_draws=1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_pictures_of_nothing_are_refused_by_a_network_alone(bad):
    """Would catch projections of NaN: a model checks its images, a network alone must too."""
    alone = latentlab.adapt(
        torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU()), torch.zeros(1, 1, 8, 8)
    )
    x = np.zeros((2, 1, 8, 8), np.float32)
    x[1, 0, 2, 2] = bad
    with pytest.raises(ValueError, match="inputs must hold finite numbers"):
        analysis.deconvnet(alone, alone.name, alone.names[0], x)


UNITS: dict[str, Callable] = {
    "rank_units": lambda m, u: analysis.rank_units(m, "fc1", n=2, n_draws=0, units=u),
    "unit_draws": lambda m, u: analysis.unit_draws(m, "fc1", u),
    "unit_isolates": lambda m, u: analysis.unit_isolates(m, "fc1", u),
    "top_inputs": lambda m, u: analysis.top_inputs(m, "fc1", "generator", units=u, n=4, count=1),
    "conductance": lambda m, u: analysis.conductance(m, "fc1", units=u, steps=4, most_steps=4),
    "effects_of_units": lambda m, u: analysis.effects_of_units(
        m, "fc1", [analysis.light_map()], units=u, n=2, n_boot=2
    ),
    "causal_effect": lambda m, u: analysis.causal_effect(
        m, "fc1", u, analysis.light_map(), n=2, n_draws=20, n_boot=2
    ),
    "deconvnet": lambda m, u: analysis.deconvnet(m, "encoder", "conv1", pictures(), u, count=1),
    "maximise_activation": lambda m, u: analysis.maximise_activation(
        m, "generator", "fc1", u, steps=1, n_seeds=1, n_reference=2
    ),
}
"""What takes units by number."""


@pytest.mark.parametrize("method", UNITS)
def test_one_unit_is_a_number_and_each_is_named_once(method):
    model = fresh("vae")
    for three in (3, np.int64(3), [3]):
        assert list(UNITS[method](model, three).units) == [3]
    with pytest.raises(ValueError, match=r"units must name each unit of stage .* once; got \[1, 1\]\."):
        UNITS[method](model, [1, 1])
    with pytest.raises(ValueError, match=r"has units 0 to \d+; got \[1000\]"):
        UNITS[method](model, 1000)
    with pytest.raises(ValueError, match=r"has units 0 to \d+; got \[0\.5\]"):
        UNITS[method](model, 0.5)
