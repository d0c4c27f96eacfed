"""Recipes as values: exact numbers there and back, and one sentence for each thing that can't be a recipe."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from latentlab.analysis.direction import Direction
from latentlab.export.recipe import KINDS, VERSION, Recipe
from latentlab.models.edits import Edit
from latentlab.rendering import (
    codes_recipe,
    image_recipe,
    onnx_recipe,
    open_run,
    page_recipe,
    render,
    traversal_recipe,
)
from latentlab.runs import Run


@pytest.fixture(scope="module")
def run():
    return Run.open("zoo:digits-vae", "cpu")


@pytest.fixture(scope="module")
def recipes(run):
    """One recipe of each kind, with an edit where there can be one."""
    edit = Edit(run.model.generator.addresses[1], (3, 5), "scale", 0.1 + 0.2, amount=1 / 3)
    slant = Direction("slant", tuple(np.eye(10)[2]), space="z", step=0.5)
    return {
        "image": image_recipe(run, count=3, edits=[edit], seed=7),
        "traversal": traversal_recipe(run, dims=["z1", "z4"], span=2.5, edits=[edit]),
        "grid": traversal_recipe(run, dims=["z0", "z4"], kind="grid", steps=3),
        "movie": traversal_recipe(run, dims="z2", kind="movie", file="mp4", fps=7.5),
        "codes": codes_recipe(run, count=20, seed=2),
        "onnx": onnx_recipe(run, edits=[edit]),
        "page": page_recipe(run, np.full(10, 0.1), labels={"z1": ("stroke", 0.7)}, directions=[slant]),
    }


def test_every_kind_comes_back_from_json_as_it_was(recipes):
    """Would catch a kind whose fields are written but not read, or the other way round."""
    assert set(recipes) == set(KINDS)
    for recipe in recipes.values():
        assert Recipe.from_json(recipe.to_json()) == recipe


def test_codes_and_ranges_come_back_bit_for_bit(run, recipes):
    """Would catch numbers written with a fixed count of digits: the rounded copy below is found out."""
    codes = run.model.sample_codes(3, 7).numpy()
    back = Recipe.from_json(recipes["image"].to_json())
    assert back.codes.tobytes() == codes.tobytes()
    rounded = json.loads(recipes["image"].to_json())
    rounded["z"] = [[round(v, 6) for v in row] for row in rounded["z"]]
    assert Recipe.from_json(json.dumps(rounded)).codes.tobytes() != codes.tobytes()
    ends = Recipe.from_json(recipes["traversal"].to_json()).ranges
    assert ends == recipes["traversal"].ranges
    start = float(run.model.sample_codes(1, 0)[0, 1])
    assert ends[0] == pytest.approx((start - 2.5, start + 2.5), abs=1e-6)


def test_a_recipe_holds_what_the_brief_of_it_says(recipes, run):
    spec = json.loads(recipes["traversal"].to_json())
    assert spec["weights_digest"] == run.digest and spec["run"] == "zoo:digits-vae" and spec["step"] is None
    assert spec["space"] == "z" and spec["seed"] == 0 and spec["recipe"] == VERSION
    assert spec["edits"][0]["stage"] == run.model.generator.addresses[1]
    assert np.shape(spec["z"]) == (1, 10) and np.shape(spec["ranges"]) == (2, 2)
    assert "/" not in spec["run"].removeprefix("zoo:")  # no path of this machine


def changed(original, /, **values):
    spec = json.loads(original.to_json())
    for name, value in values.items():
        if value is ...:
            del spec[name]
        else:
            spec[name] = value
    return json.dumps(spec)


@pytest.mark.parametrize(
    ("kind", "values", "wording"),
    [
        ("traversal", {"z": ...}, "lacks 'z', which a recipe of kind 'traversal' needs"),
        ("movie", {"fps": ...}, "lacks 'fps'"),
        ("image", {"weights_digest": ...}, "lacks 'weights_digest'"),
        ("image", {"steps": 3}, "has no entry 'steps'"),
        ("image", {"recipe": VERSION + 1}, "format 2, and this latentlab reads formats up to 1"),
        ("image", {"recipe": "1"}, "must be the number of a format"),
        ("image", {"recipe": ...}, "this is none"),
        ("image", {"kind": "film"}, "kind is one of image, traversal, grid"),
        ("image", {"kind": ["image"]}, "kind is one of image, traversal, grid"),
        ("image", {"file": "gif"}, "makes png; got 'gif'"),
        ("image", {"weights_digest": "abc"}, "64 hex digits"),
        ("image", {"z": [[float("nan")] * 10]}, "finite numbers; this one holds NaN"),
        ("image", {"z": [[float("inf")] * 10]}, "finite numbers; this one holds Infinity"),
        ("image", {"z": [[1.0, "2"]]}, "z must hold finite numbers; got '2'"),
        ("image", {"z": [[1.0], [1.0, 2.0]]}, "codes of one length"),
        ("image", {"z": []}, "needs a code z"),
        ("image", {"z": "12"}, "z must be a list"),
        ("image", {"z": [[10**400]]}, "z must hold finite numbers; got 1000"),
        ("traversal", {"z": [[0.0] * 10] * 2}, "leaves from one code z; got 2"),
        ("traversal", {"ranges": [[-1, 1]]}, "one entry a latent (2); got 1"),
        ("traversal", {"ranges": [[-1, 1], [0, 0]]}, "pairs of a low and a high end"),
        ("traversal", {"ranges": [[-1, 1], [0, True]]}, "finite numbers; got True"),
        ("traversal", {"dims": [], "ranges": []}, "needs latents dims"),
        ("traversal", {"steps": 1}, "steps must be a whole number from 2 to 500"),
        ("traversal", {"steps": 10**9}, "steps must be a whole number from 2 to 500"),
        ("traversal", {"scale": 0}, "scale must be a whole number from 1"),
        ("traversal", {"caption": "yes"}, "caption must be true or false"),
        ("grid", {"dims": ["z0"], "ranges": [[-1, 1]]}, "A grid needs two latents"),
        ("movie", {"fps": 0}, "fps must lie above 0"),
        ("codes", {"source": "elsewhere"}, "source is one of given, prior, data"),
        ("codes", {"source": "given"}, "needs a code z"),
        ("codes", {"z": [[0.0] * 10]}, "Codes z are given, or come from 'prior'; not both"),
        ("codes", {"seed": None}, "need a seed"),
        ("codes", {"seed": -1}, "seed must be a whole number from 0"),
        ("onnx", {"network": "discriminator"}, "network is one of generator, encoder"),
        ("onnx", {"edits": [{"operation": "ablate"}]}, "An edit has the keys"),
        ("onnx", {"output": 3}, "output must be a JSON object"),
    ],
)
def test_what_is_no_recipe_is_refused(recipes, kind, values, wording):
    with pytest.raises(ValueError, match=re.escape(wording)) as caught:
        Recipe.from_json(changed(recipes[kind], **values))
    assert "\n" not in str(caught.value)


def test_a_field_of_another_kind_is_not_lost_silently(recipes):
    """Would catch edits that somebody asks for and no file shows."""
    with pytest.raises(ValueError, match="A recipe of kind 'codes' has no edits; it would be lost"):
        replace(recipes["codes"], edits=(Edit("generator.fc1"),))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"a": 1}', "[" * 100_000])
def test_a_text_that_is_no_recipe_is_refused(text):
    with pytest.raises(ValueError, match="recipe"):
        Recipe.from_json(text)


@pytest.mark.parametrize(
    ("kind", "values", "wording"),
    [
        ("image", {"weights_digest": "0" * 64}, "made with weights 000000000000, and the run has"),
        ("image", {"z": [[0.0] * 9]}, "codes of 10 numbers, as space 'z' has; got 9"),
        ("image", {"space": "w"}, "No space 'w' in this model"),
        ("traversal", {"dims": ["z1", "q"]}, "got 'q'"),
        ("traversal", {"ranges": [None, [0, 1]]}, "z1 needs a range (low, high); the recipe has null"),
        ("image", {"edits": [{"stage": "encoder.conv1"}]}, "has no effect on network 'generator'"),
        ("image", {"edits": [{"stage": "generator.nowhere"}]}, "No stage 'generator.nowhere'"),
        (
            "movie",
            {"steps": 500, "scale": 64},
            "1,000 images at scale 64 make 4,194,304,000 pixels, more than 300",
        ),
        ("image", {"run": "zoo:nowhere"}, "No run 'zoo:nowhere' ships"),
        ("image", {"step": 3}, "No weights of step 3"),
    ],
)
def test_a_recipe_that_does_not_fit_its_run_is_not_rendered(recipes, kind, values, wording):
    """Would catch a file made from other weights, or with fields that are silently passed over."""
    recipe = Recipe.from_json(changed(recipes[kind], **values))
    with pytest.raises((ValueError, OSError), match=re.escape(wording)):
        render(recipe)


def test_categories_have_no_range():
    run = Run.open("zoo:digits-infogan", "cpu")
    recipe = traversal_recipe(run, dims=["class3", "class", "code0"])
    assert recipe.dims == ("class", "code0") and recipe.ranges[0] is None
    for values, wording in (
        ({"ranges": [[0, 1], [0, 1]]}, "class runs over its categories"),
        ({"dims": ["class3", "code0"]}, "name the block, class"),
    ):
        with pytest.raises(ValueError, match=wording):
            Recipe.from_json(changed(recipe, **values)).check(run.model)


def test_a_codebook_has_no_more_steps_than_codes():
    from latentlab.config import VQVAEConfig
    from latentlab.models.build import build_model
    from latentlab.models.contract import weights_digest

    model = build_model(VQVAEConfig(codes=8, code_dim=2, halvings=3, width=4), (1, 32, 32)).eval()
    made = {"kind": "traversal", "file": "png", "run": "none", "weights_digest": weights_digest(model)}
    z = (tuple(model.sample_codes(1, 0)[0].tolist()),)
    names = (model.latent_space.names[0],)
    recipe = Recipe(**made, z=z, dims=names, ranges=((0, 7),), steps=8)
    recipe.check(model)
    assert recipe.values(model).tolist() == [list(range(8))]
    with pytest.raises(ValueError, match="8 codes in range, which allow as many steps; got 9"):
        Recipe(**made, z=z, dims=names, ranges=((0, 7),), steps=9).values(model)


def test_a_run_is_found_where_it_was_moved_to(run, recipes):
    recipe = Recipe.from_json(changed(recipes["image"], run="gone/elsewhere"))
    with pytest.raises(OSError, match="No run at gone"):
        render(recipe)
    assert render(recipe, open_run(recipe, run.path)) == render(recipes["image"], run)


def test_files_that_hold_no_recipe(tmp_path, recipes):
    path = recipes["image"].save(tmp_path / "a.recipe.json")
    assert Recipe.read(path) == recipes["image"] and [p.name for p in tmp_path.iterdir()] == [path.name]
    with pytest.raises(OSError, match="No recipe at"):
        Recipe.read(tmp_path / "b.recipe.json")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="UTF-8"):
        Recipe.read(path)
