"""Files from recipes: the right pixels, and the same bytes in another process and with another number of threads."""

import hashlib
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from latentlab import rendering
from latentlab.analysis import decode_latents, encode_dataset, traverse
from latentlab.cli import main
from latentlab.export.recipe import Recipe
from latentlab.latents import Categorical
from latentlab.models.edits import Edit
from latentlab.rendering import (
    codes_recipe,
    image_recipe,
    onnx_recipe,
    page_recipe,
    render,
    traversal_recipe,
    write,
)
from latentlab.runs import Run

NAMES = ("digits-vae", "digits-infogan", "digits-m2", "digits-stylegan")
AGAIN = """
import hashlib, pathlib, sys
from latentlab.export.recipe import Recipe
from latentlab.rendering import render
import torch
assert torch.get_num_threads() == 2, torch.get_num_threads()
for name in sys.stdin.read().split():
    print(name, hashlib.sha256(render(Recipe.read(name))).hexdigest())
assert torch.get_num_threads() == 2
"""


@pytest.fixture(scope="module")
def runs():
    return {name: Run.open(f"zoo:{name}", "cpu") for name in NAMES}


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def levels(images):
    """Images (channels, height, width) in [0, 1] as bytes (height, width, 3)."""
    return (255 * np.broadcast_to(images, (3, *images.shape[1:]))).round().astype(np.uint8).transpose(1, 2, 0)


def recipes_of(run):
    """A recipe of each kind of file; the names are those of the files."""
    space = run.model.latent_space
    first = space.block_names[0] if isinstance(space.blocks[0].prior, Categorical) else space.names[0]
    # The last block is normal or uniform in every one of these models.
    x, y = (space.names[i] for i in (-1, -2))
    edit = Edit(run.model.generator.addresses[1], (0, 1))
    found = {
        "image.png": image_recipe(run, seed=5, edits=[edit]),
        "sheet.png": image_recipe(run, count=5),
        "strips.png": traversal_recipe(run, dims=[x, first], steps=4, edits=[edit]),
        "plane.png": traversal_recipe(run, dims=[x, y], kind="grid", steps=3),
        "movie.gif": traversal_recipe(run, dims=[x, y], kind="movie", steps=5),
        "movie.mp4": traversal_recipe(run, dims=x, kind="movie", file="mp4", steps=5),
        "codes.npz": codes_recipe(run, count=30),
    }
    if "w" in run.model.spaces:
        found["w.png"] = traversal_recipe(run, dims=["w0", "w3"], space="w", span=2.0, steps=4)
    if run.name == "zoo:digits-vae":
        found["data.npz"] = codes_recipe(run, source="data", count=40, seed=3)
        found["page.html"] = page_recipe(run, run.model.sample_codes(1, 4)[0], precision="int8")
    if run.name == "zoo:digits-infogan":
        found["generator.onnx"] = onnx_recipe(run, edits=[edit])
    return found


def test_another_process_with_two_threads_makes_the_same_bytes(runs, tmp_path):
    """Would catch a time, a path, a hash's order or the number of threads in a file."""
    made = {}
    for name, run in runs.items():
        for file, recipe in recipes_of(run).items():
            write(recipe, tmp_path / f"{name}-{file}", run)
            path = tmp_path / f"{name}-{file}.recipe.json"
            made[str(path)] = hashlib.sha256((tmp_path / f"{name}-{file}").read_bytes()).hexdigest()
            assert Recipe.read(path).output["sha256"] == made[str(path)]
    again = subprocess.run(
        [sys.executable, "-c", AGAIN],
        input="\n".join(made),
        env={**os.environ, "OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert dict(line.split() for line in again.stdout.splitlines()) == made
    assert len(made) == 32


def test_an_image_is_what_the_model_decodes_and_nothing_else(runs):
    run = runs["digits-vae"]
    recipe = image_recipe(run, seed=5, scale=3)
    image = decode_latents(run.model, run.model.sample_codes(1, 5))[0]
    expected = np.kron(levels(image), np.ones((3, 3, 1), dtype=np.uint8))
    assert np.array_equal(pixels(render(recipe, run)), expected)


def test_the_code_of_a_recipe_counts_and_not_its_seed(runs):
    """A renderer that draws the code anew from the seed fails."""
    run = runs["digits-vae"]
    spec = json.loads(image_recipe(run, seed=5, scale=1).to_json())
    spec["z"] = run.model.sample_codes(1, 6).tolist()
    image = decode_latents(run.model, run.model.sample_codes(1, 6))[0]
    changed = pixels(render(Recipe.from_json(json.dumps(spec)), run))
    assert np.array_equal(changed, levels(image))
    anew = image_recipe(run, seed=spec["seed"], scale=1)  # what the fake would make
    assert not np.array_equal(changed, pixels(render(anew, run)))


def test_edits_are_part_of_the_picture(runs):
    run = runs["digits-vae"]
    edits = [Edit(run.model.generator.addresses[2], tuple(range(8)))]
    edited = pixels(render(image_recipe(run, seed=5, scale=1, edits=edits), run))
    image = decode_latents(run.model, run.model.sample_codes(1, 5), edits=edits)[0]
    assert np.array_equal(edited, levels(image))
    assert not np.array_equal(edited, pixels(render(image_recipe(run, seed=5, scale=1), run)))


def test_strips_are_those_of_traverse(runs):
    """Ranges are stored as numbers: they must give what the span gave."""
    run = runs["digits-vae"]
    encoding = encode_dataset(run.model, run.dataset(), 200)
    recipe = traversal_recipe(run, dims=["z2"], span="posterior", encoding=encoding, steps=4, scale=1)
    wanted = traverse(run.model, recipe.codes[0], ["z2"], span="posterior", encoding=encoding, steps=4)
    sheet = pixels(render(recipe, run))
    for image in wanted.images[0]:
        assert contains(sheet, levels(image))
    other = traverse(run.model, recipe.codes[0], ["z2"], span=1.0, steps=4)
    assert not contains(sheet, levels(other.images[0, 0]))
    assert recipe.span == "posterior"


def contains(sheet, part):
    high, wide = part.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(sheet[..., 0], (high, wide))
    return bool((windows == part[..., 0]).all(axis=(2, 3)).any())


def test_a_movie_goes_there_and_back(runs):
    run = runs["digits-vae"]
    movie = Image.open(
        io.BytesIO(render(traversal_recipe(run, dims="z1", kind="movie", steps=6, fps=10), run))
    )
    assert (movie.format, movie.n_frames, movie.info["duration"]) == ("GIF", 10, 100)
    frames = []
    for k in range(10):
        movie.seek(k)
        frames.append(np.asarray(movie.convert("RGB"), dtype=float))
    assert all(np.abs(frames[k] - frames[10 - k]).max() == 0 for k in range(1, 5))
    assert np.abs(frames[0] - frames[5]).mean() > 1


def test_a_video_has_its_frames(runs):
    import av

    run = runs["digits-vae"]
    content = render(traversal_recipe(run, dims="z1", kind="movie", file="mp4", steps=6, fps=10), run)
    with av.open(io.BytesIO(content)) as video:
        assert video.streams.video[0].average_rate == 10
        assert sum(1 for _ in video.decode(video=0)) == 10


def test_codes_are_the_prior_s_or_the_data_s(runs):
    run = runs["digits-vae"]
    drawn = np.load(io.BytesIO(render(codes_recipe(run, count=20, seed=4), run)))
    assert drawn["z"].tobytes() == run.model.sample_codes(20, 4).numpy().tobytes()
    assert drawn["names"].tolist() == list(run.model.latent_space.names) and drawn["space"] == "z"
    assert str(drawn["weights_digest"]) == run.digest
    encoded = np.load(io.BytesIO(render(codes_recipe(run, source="data", count=20, seed=4), run)))
    assert np.array_equal(encoded["z"], encode_dataset(run.model, run.dataset(), 20, seed=4).mean)
    assert set(encoded) >= {"z", "log_var", "kl", "indices"}
    given = np.load(io.BytesIO(render(codes_recipe(run, drawn["z"][3:5]), run)))
    assert np.array_equal(given["z"], drawn["z"][3:5])
    w = np.load(
        io.BytesIO(render(codes_recipe(runs["digits-stylegan"], count=3, space="w"), runs["digits-stylegan"]))
    )
    assert w["z"].shape == (3, 32) and w["space"] == "w"


@pytest.mark.parametrize(
    ("make", "wording"),
    [
        (lambda run: codes_recipe(run, source="data"), "no codes of its data"),
        (lambda run: image_recipe(run, count=0), "count must be at least 1"),
        (lambda run: image_recipe(run, [1.0, 2.0]), "z must be codes"),
        (lambda run: image_recipe(run, seed=-1), "seed must be a whole number"),
        (lambda run: traversal_recipe(run, dims=["nothing"]), "got 'nothing'"),
        (lambda run: traversal_recipe(run, span="posterior"), "needs encoding="),
        (lambda run: traversal_recipe(run, dims=["z0"], kind="grid"), "A grid needs two latents"),
        (lambda run: traversal_recipe(run, dims=["z0"], kind="movie", file="webm"), "makes gif or mp4"),
        (lambda run: onnx_recipe(run, "encoder"), "StyleGAN has no encoder"),
    ],
)
def test_what_can_t_be_made_is_refused(runs, make, wording):
    with pytest.raises(ValueError, match=wording):
        make(runs["digits-stylegan"])


def test_nothing_is_left_behind(runs, tmp_path):
    run = runs["digits-vae"]
    weights = {k: v.clone() for k, v in run.model.state_dict().items()}
    state = torch.get_rng_state()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        write(traversal_recipe(run, dims="z1", steps=3), tmp_path / "a.png", run)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(state, torch.get_rng_state()) and not run.model.training
    assert all(torch.equal(v, weights[k]) for k, v in run.model.state_dict().items())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "a.png.recipe.json"]
    with pytest.raises(ValueError, match=r"makes a \.png file here; got 'b\.gif'"):
        write(traversal_recipe(run, dims="z1", steps=3), tmp_path / "b.gif", run)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_model_on_another_device_is_opened_again_on_the_cpu():
    """Would catch a file whose last bits a GPU decided; "meta" stands for any device that is not the CPU."""
    here, away = Run.open("zoo:digits-vae", "cpu"), Run.open("zoo:digits-vae", "cpu")
    recipe = image_recipe(here, seed=2)
    away.model.to("meta")
    assert render(recipe, away) == render(recipe, here)


# -- the command line ----------------------------------------------------------------------------


def test_export_and_render(tmp_path, capsys):
    edits = tmp_path / "edits.json"
    edits.write_text('[{"stage": "generator.fc2", "units": [1, 2]}]')
    files = {ending: tmp_path / "out" / f"a.{ending}" for ending in ("png", "gif", "npz")}
    words = [word for ending, path in files.items() for word in (f"--{ending}", str(path))]
    options = ["--dims", "z1,z4", "--steps", "3", "--span", "2", "--seed", "9", "--edits", str(edits)]
    assert main(["export", "zoo:digits-vae", *words, *options]) == 0
    recipe = Recipe.read(rendering.recipe_path(files["gif"]))
    assert (recipe.dims, recipe.steps, recipe.seed, recipe.span) == (("z1", "z4"), 3, 9, "sigma")
    assert recipe.edits == (Edit("generator.fc2", (1, 2)),)
    capsys.readouterr()
    for path in files.values():
        before = path.read_bytes()
        path.unlink()
        assert main(["render", str(rendering.recipe_path(path))]) == 0
        assert path.read_bytes() == before
        assert "the same bit for bit" in capsys.readouterr().out


def test_render_says_when_the_file_comes_out_different(tmp_path, capsys):
    """Would catch a render that claims what it has not compared."""
    path = tmp_path / "a.png"
    assert main(["export", "zoo:digits-vae", "--png", str(path)]) == 0
    note = rendering.recipe_path(path)
    spec = json.loads(note.read_text())
    spec["output"]["sha256"], spec["made_with"]["torch"] = "0" * 64, "1.0"
    note.write_text(json.dumps(spec))
    capsys.readouterr()
    assert main(["render", str(note), "--out", str(tmp_path / "b.png")]) == 1
    assert f"What differs: torch {torch.__version__.split('+')[0]}" in capsys.readouterr().err
    path.write_bytes(b"mine")
    assert main(["render", str(note)]) == 2
    assert "another file than the recipe makes here; choose one with --out" in capsys.readouterr().err
    assert path.read_bytes() == b"mine"


def test_a_factor_names_the_latent_that_knows_it_best(tmp_path):
    from latentlab.evaluation import labels_of

    known = labels_of(Run.open("zoo:sprites-beta-vae"))
    best = max((d for d, (factor, _) in known.items() if factor == "x"), key=lambda d: known[d][1])
    path = tmp_path / "x.png"
    options = ["--dims", "x", "--steps", "3", "--span", "prior", "--runs", str(tmp_path)]
    assert main(["export", "zoo:sprites-beta-vae", "--png", str(path), *options]) == 0
    assert Recipe.read(rendering.recipe_path(path)).dims == (best,)


def test_render_finds_a_run_that_has_moved(tmp_path, capsys):
    from latentlab.runs import ZOO

    path = tmp_path / "a.png"
    assert main(["export", "zoo:digits-vae", "--png", str(path)]) == 0
    note = rendering.recipe_path(path)
    note.write_text(note.read_text().replace("zoo:digits-vae", "gone/elsewhere"))
    assert main(["render", str(note)]) == 2
    assert "If the run has moved, say where it is with --run." in capsys.readouterr().err
    assert main(["render", str(note), "--run", str(ZOO / "digits-vae")]) == 0
    assert main(["render", str(note), "--run", "zoo:digits-pooled"]) == 2
    assert "its weights are other ones" in capsys.readouterr().err


def test_a_code_of_a_file_or_of_an_image(tmp_path, capsys):
    code = tmp_path / "code.json"
    code.write_text(json.dumps([0.1 * i for i in range(10)]))
    path = tmp_path / "a.png"
    assert main(["export", "zoo:digits-vae", "--png", str(path), "--z", str(code)]) == 0
    recipe = Recipe.read(rendering.recipe_path(path))
    assert recipe.codes[0].tolist() == np.float32([0.1 * i for i in range(10)]).tolist()
    assert recipe.seed is None and recipe.start == "the code of code.json"
    assert main(["export", "zoo:digits-vae", "--png", str(path), "--image", "4"]) == 0
    plain = Recipe.read(rendering.recipe_path(path))
    assert plain.start == "image 4 of digits, encoded"
    code.write_text('[{"stage": "encoder.fc1"}]')  # an edit of the encoder counts where an image is encoded
    options = ["--png", str(path), "--edits", str(code)]
    assert main(["export", "zoo:digits-vae", *options, "--image", "4"]) == 0
    assert np.abs(Recipe.read(rendering.recipe_path(path)).codes - plain.codes).max() > 0.01
    assert main(["export", "zoo:digits-vae", *options]) == 2
    assert "edits of the encoder go with --image or --onnx" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "wording"),
    [
        ([], "Say what to write: --html FILE, --png FILE"),
        (["--png", "a.jpg"], "makes a .png file here; got 'a.jpg'"),
        (["--png", "a.png", "--dims", "z0", "--grid", "z0,z1"], "Choose one of --dims and --grid"),
        (["--gif", "a.gif", "--grid", "z0,z1"], "which goes to --png"),
        (["--png", "a.png", "--image", "1", "--z", "b.json"], "Choose one of --image and --z"),
        (["--png", "a.png", "--dims", "z0", "--span", "far"], "--span takes"),
        (["--png", "a.png", "--count", "0"], "count must be at least 1"),
        (["--png", "a.png", "--dims", "z0,scale"], "got 'scale'"),
    ],
)
def test_a_command_that_can_t_be_followed(options, wording, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "zoo:digits-vae", *options]) == 2
    assert wording in capsys.readouterr().err and not list(tmp_path.iterdir())
