"""The command line: every verb on a small run, and one line for what went wrong."""

import subprocess
import sys

import pytest
from PIL import Image

from latentlab.cli import main
from latentlab.config import MODELS, OBJECTIVES
from latentlab.runs import Run

TINY = [
    "--data.options", '{"image_size": 32}',
    "--model.width", "4", "--model.hidden", "8", "--model.latents", "3",
    "--batch_size", "8", "--log_every", "2", "--device", "cpu", "--quiet",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    out = str(folder / "a")
    assert (
        main(["train", "sprites-beta-vae", *TINY, "--max_steps", "4", "--objective.beta", "6", "--out", out])
        == 0
    )
    return folder / "a"


def test_train_overrides_a_named_experiment_and_writes_a_card(trained):
    run = Run.open(trained, "cpu")
    assert run.experiment.objective.beta == 6.0 and run.experiment.max_steps == 4
    assert run.experiment.learning_rate == 5e-4  # what was not overridden is the experiment's own
    assert run.experiment.model.latents == 3
    assert run.card.startswith("---\nlibrary_name: latentlab")
    for figure in (
        "R² on held-out images",
        "| scale | orientation | x | y |",
        "KL by latent",
        run.digest[:16],
    ):
        assert figure in run.card
    for picture in ("samples.png", "traversal.png"):
        with Image.open(trained / picture) as image:
            assert image.width > 64


def test_train_reads_yaml_and_picks_a_free_folder(tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: mine\ndata: {name: sprites, options: {image_size: 32}}\nmax_steps: 2\nbatch_size: 4\n"
        "objective: {class_path: BetaVAE, init_args: {beta: 3}}\n"
        "model: {class_path: VAEConfig, init_args: {latents: 2, width: 4, hidden: 8, network: locatello}}\n"
    )
    for _ in range(2):
        assert main(["train", str(file), "--runs", str(tmp_path), "--device", "cpu", "--quiet"]) == 0
    names = sorted(p.name for p in tmp_path.iterdir() if p.is_dir())
    assert names == ["mine", "mine-2"]
    assert Run.open(tmp_path / "mine", "cpu").experiment.model.network == "locatello"
    assert "latentlab explore --runs" in capsys.readouterr().out


def test_two_trainings_that_begin_at_once_take_two_folders(tmp_path, monkeypatch):
    """Fails looking for a free folder and taking it later: the other training's folder would be an error."""
    from latentlab.config import named_experiment

    other = tmp_path / "sprites-beta-vae"

    def beaten(path, experiment, image_shape, create=Run.create):
        if not other.exists():  # the other training is a moment faster
            beaten.held = create(other, named_experiment("sprites-beta-vae")[0], (1, 64, 64))
        return create(path, experiment, image_shape)

    monkeypatch.setattr(Run, "create", beaten)
    assert main(["train", "sprites-beta-vae", *TINY, "--max_steps", "2", "--runs", str(tmp_path)]) == 0
    assert [p.name for p in other.iterdir()] == ["config.json"]
    assert Run.open(tmp_path / "sprites-beta-vae-2", "cpu").experiment.max_steps == 2


def test_training_never_writes_over_what_is_in_the_folder(tmp_path, capsys):
    """Fails a guard for runs only: somebody's project would lose its config.json and README.md."""
    for name in ("config.json", "README.md"):
        (tmp_path / name).write_text("mine")
    assert main(["train", "sprites-beta-vae", *TINY, "--max_steps", "2", "--out", str(tmp_path)]) == 2
    assert "holds other files (README.md, config.json)" in capsys.readouterr().err
    assert sorted((p.name, p.read_text()) for p in tmp_path.iterdir()) == [
        ("README.md", "mine"),
        ("config.json", "mine"),
    ]


def test_resume_refuses_what_it_would_not_follow(trained, capsys):
    """Fails ignoring values: a person believes that the run went on with them."""
    before = (trained / "config.json").read_bytes()
    for arguments, odd in (
        (["--max_steps", "4000"], "--max_steps"),
        (["--objective.beta=9"], "--objective.beta"),
        (["--out", "elsewhere"], "--out"),
        (["--smoke"], "--smoke"),
    ):
        assert main(["train", "--resume", str(trained), *arguments]) == 2
        assert f"so it takes no {odd}; beside it go --device and --quiet" in capsys.readouterr().err
    assert main(["train", "digits-vae", f"--resume={trained}"]) == 2
    assert "so it takes no digits-vae" in capsys.readouterr().err
    assert (trained / "config.json").read_bytes() == before


def test_resuming_a_run_that_ended_changes_nothing(trained, capsys):
    """Fails writing the card anew: what a person noted in it would be lost, its date would be wrong."""
    card = trained / "README.md"
    before, text = card.stat().st_mtime_ns, card.read_text()
    assert main(["train", "--resume", str(trained), "--device", "cpu", "--quiet"]) == 0
    assert "was trained to its end already (4 steps)" in capsys.readouterr().out
    assert (card.stat().st_mtime_ns, card.read_text()) == (before, text)


def test_the_last_line_names_the_folder_that_lists_the_run(tmp_path, monkeypatch, capsys):
    """Fails "--runs ." for a run in the working directory, where the explorer would find nothing."""
    from latentlab.runs import list_runs

    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    assert main(["train", "sprites-beta-vae", *TINY, "--max_steps", "2", "--out", "."]) == 0
    folder = capsys.readouterr().out.strip().rpartition("--runs ")[2]
    assert [found.path.name for found in list_runs(folder)] == ["a"]


def test_smoke_runs_a_few_steps(tmp_path):
    assert main(["train", "sprites-beta-vae", *TINY, "--smoke", "--out", str(tmp_path / "s")]) == 0
    assert Run.open(tmp_path / "s", "cpu").experiment.max_steps == 20


@pytest.mark.parametrize("name", ["digits-vae", "sprites-beta-vae"])
@pytest.mark.parametrize("family", MODELS)
def test_one_line_trains_every_family_on_digits_and_on_sprites(family, name, tmp_path, monkeypatch):
    """Nothing but the family is said; sizes keep it short. Would catch: a family that needs more than its name."""
    monkeypatch.setattr("latentlab.card._IMAGES", 400)
    sizes = ["--model.width", "4", "--batch_size", "4", "--smoke", "--device", "cpu", "--quiet"]
    chosen = ["train", name, "--model", MODELS[family].__name__]
    assert main([*chosen, *sizes, "--out", str(tmp_path / "run")]) == 0
    run = Run.open(tmp_path / "run", "cpu")
    assert run.experiment.model.family == family and run.experiment.max_steps == 20
    assert run.experiment.data.name == name.partition("-")[0] and run.card
    assert run.image_shape == ((1, 32, 32) if name == "digits-vae" else (1, 64, 64))


def test_an_experiment_file_is_a_script(tmp_path):
    from latentlab.config import experiments_folder

    script = experiments_folder() / "sprites_beta_vae.py"
    done = subprocess.run(
        [sys.executable, str(script), *TINY, "--max_steps", "2", "--out", str(tmp_path / "r")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert Run.open(tmp_path / "r", "cpu").experiment.max_steps == 2


@pytest.mark.parametrize("name", ["strip.png", "strip.gif"])
def test_traverse_draws_the_named_dims(trained, tmp_path, name):
    out = tmp_path / "new" / name
    assert main(["traverse", str(trained), "--dims", "0,z2", "--steps", "5", "--out", str(out)]) == 0
    with Image.open(out) as image:
        assert image.format == name.split(".")[1].upper()
        assert name == "strip.png" or image.n_frames >= 5


def test_traverse_makes_grids_and_starts_from_an_image(trained, tmp_path):
    out = tmp_path / "grid.png"
    arguments = ["--grid", "z0,z1", "--steps", "4", "--image", "1000", "--span", "2", "--at", "0"]
    assert main(["traverse", str(trained), *arguments, "--out", str(out)]) == 0
    assert out.stat().st_size > 500


def test_project_draws_a_map_and_saves_its_result(trained, tmp_path):
    from latentlab import load_result

    out, codes = tmp_path / "map.png", tmp_path / "map"
    arguments = ["--count", "200", "--colour", "shape", "--out", str(out), "--codes", str(codes)]
    assert main(["project", str(trained), *arguments]) == 0
    with Image.open(out) as image:
        assert image.width >= 300
    assert load_result(codes).points.shape == (200, 2)


def test_lists_name_what_there_is(trained, capsys):
    assert main(["models", "--runs", str(trained.parent)]) == 0
    shown = capsys.readouterr().out
    assert str(trained) in shown and "BetaVAE(beta=6.0)" in shown and "sprites-beta-vae" in shown
    for kind in (*MODELS.values(), *OBJECTIVES.values()):  # each with its year, its paper and where to use it
        assert f"{kind.__name__:22} {kind.year}  https://" in shown and f"use: {kind.use}" in shown
        assert kind.year > 2012 and kind.use
    assert "latents: normal Z, learned W" in shown and "trained by: beta-vae, annealed-vae" in shown
    assert main(["datasets"]) == 0
    shown = capsys.readouterr().out
    assert "737,280 images, 1 x 64 x 64" in shown and "shape, scale, orientation, x, y" in shown
    assert main(["doctor"]) == 0
    assert "torch" in capsys.readouterr().out


def test_a_style_gan_is_traversed_in_the_space_that_is_named(tmp_path, capsys):
    """Would catch: coordinates of Z moved under the name of W."""
    pictures = {}
    for space in ("z", "w"):
        out = tmp_path / f"{space}.png"
        chosen = ["--space", space, "--dims", f"{space}0,{space}5", "--steps", "3", "--seed", "2"]
        assert main(["traverse", "zoo:digits-stylegan", *chosen, "--out", str(out)]) == 0
        pictures[space] = out.read_bytes()
    assert pictures["z"] != pictures["w"]
    wrong = ["--space", "w", "--dims", "z0", "--out", str(tmp_path / "no.png")]
    assert main(["traverse", "zoo:digits-stylegan", *wrong]) == 2
    assert "Expected a coordinate of latent space 'w'; got 'z0'" in capsys.readouterr().err
    assert main(["traverse", "zoo:digits-m2", "--space", "w", "--out", str(tmp_path / "no.png")]) == 2
    assert "No space 'w' in this model" in capsys.readouterr().err


def test_suggest_says_why(capsys):
    assert main(["suggest", "digits", "--latents", "4"]) == 0
    shown = capsys.readouterr().out
    assert (
        "likelihood: Gaussian, since" in shown and "--model.latents 4" in shown and "4th strongest" in shown
    )
    assert main(["suggest", "cats"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "sprites"], "Unknown experiment 'sprites'; known: digits-"),
        (["train", "nowhere.yaml"], "No file nowhere.yaml"),
        (["train", "sprites-beta-vae", "--objective.bita", "6"], "Option 'bita' is not accepted"),
        (["train", "sprites-beta-vae", "--objective.beta", "-1"], r"objective.beta must lie in"),
        (["train", "sprites-beta-vae", "--max_steps", "many"], "max_steps"),
        (["train", "sprites-beta-vae", "--data.name", "cats", "--out", "x"], "cats"),
        (["train", "--resume", "nowhere"], "No run at nowhere"),
        (["traverse", "zoo:nope", "--out", "a.png"], "No run 'zoo:nope' ships with latentlab"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_status_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("latentlab: ") and message in line
    assert not list(tmp_path.iterdir())


def test_wrong_dims_and_spans_are_answered_with_the_valid_ones(trained, tmp_path, capsys):
    out = ["--out", str(tmp_path / "a.png")]
    for arguments, message in (
        (["--dims", "z9"], "z0, z1, z2"),
        (["--grid", "z0"], "--grid takes two latents"),
        (["--span", "wide"], '--span takes "posterior", "prior" or a number'),
        (["--swap", "z"], "no blocks to swap"),
        (["--dims", "0", "--swap", "z"], "Choose one of --dims, --grid and --swap"),
    ):
        assert main(["traverse", str(trained), *arguments, *out]) == 2
        assert message in capsys.readouterr().err
