"""Run directories: what is written is read back; what is damaged or hostile is refused with a sentence."""

import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from latentlab.config import BlockConfig, DataConfig, Experiment, VAEConfig
from latentlab.files import atomic_write
from latentlab.models.build import build_model
from latentlab.models.contract import weights_digest
from latentlab.runs import FolderTaken, Run, Workspace, list_runs, read_table, resolve_device, save_weights

EXPERIMENT = Experiment(
    name="tiny",
    data=DataConfig("digits", {"split": "train"}),
    model=VAEConfig(blocks=[BlockConfig("pose", 2), BlockConfig("content", 3)], width=4, hidden=8),
)
SHAPE = (1, 32, 32)


@pytest.fixture
def run(tmp_path) -> Run:
    run = Run.create(tmp_path / "tiny", EXPERIMENT, SHAPE)
    save_weights(build_model(EXPERIMENT.model, SHAPE, seed=5), run.path / "weights.safetensors")
    return run


def test_a_run_gives_back_its_model_ready_for_analysis(run):
    opened = Run.open(run.path, device="cpu")
    original = build_model(EXPERIMENT.model, SHAPE, seed=5).eval()
    assert opened.experiment == EXPERIMENT and opened.name == "tiny"
    assert opened.digest == weights_digest(original)
    assert not opened.model.training and not any(p.requires_grad for p in opened.model.parameters())
    assert torch.equal(opened.model.sample(3, 0), original.sample(3, 0).detach())
    assert opened.model is opened.model


def test_weights_of_earlier_steps_can_be_opened(run):
    for step in (0, 10, 100):
        model = build_model(EXPERIMENT.model, SHAPE, seed=step)
        save_weights(model, run.path / "checkpoints" / f"step-{step}.safetensors")
    assert run.steps == [0, 10, 100]
    assert run.at(10).digest == weights_digest(build_model(EXPERIMENT.model, SHAPE, seed=10))
    assert run.at(10).digest != run.digest
    with pytest.raises(ValueError, match=r"No weights of step 11 .*kept: 0, 10, 100"):
        run.at(11)


def test_missing_and_taken_folders_are_said(run, tmp_path):
    with pytest.raises(OSError, match=r"No run at .*nowhere: a run is a folder with config\.json"):
        Run.open(tmp_path / "nowhere")
    with pytest.raises(OSError, match="No run 'zoo:nope' ships"):
        Run.open("zoo:nope")
    with pytest.raises(OSError, match=r"No run 'zoo:\.\./runs' ships"):
        Run.open("zoo:../runs")
    with pytest.raises(OSError, match=r"A run is at .*tiny already; continue it with --resume"):
        Run.create(run.path, EXPERIMENT, SHAPE)
    (run.path / "weights.safetensors").unlink()
    with pytest.raises(OSError, match="No weights at"):
        _ = Run.open(run.path).model
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="can't be written"):
        Run.create(tmp_path / "file" / "run", EXPERIMENT, SHAPE)


class _Bomb:
    def __reduce__(self):
        return (exec, ("import pathlib; pathlib.Path('/tmp/latentlab-bomb').write_text('went off')",))


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def _pickled(path):
    path.write_bytes(pickle.dumps(_Bomb()))


def _torch_pickled(path):
    torch.save({"a": torch.zeros(1)}, path)


def _reshaped(path):
    tensors = load_file(path)
    key = sorted(tensors)[0]
    save_file({**tensors, key: torch.zeros(7)}, path)


def _extra(path):
    save_file({**load_file(path), "evil": torch.zeros(7)}, path)


def _not_finite(path):
    tensors = load_file(path)
    next(iter(tensors.values())).fill_(float("nan"))
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "is damaged or no safetensors file"),
        (_pickled, "is damaged or no safetensors file .*pickles are not loaded"),
        (_torch_pickled, "is damaged or no safetensors file"),
        (_reshaped, r"should have shape .*; got \(7,\)"),
        (_extra, "tensor 'evil' is unexpected"),
        (_not_finite, "numbers that are not finite"),
    ],
)
def test_damaged_and_hostile_weights_are_refused_and_never_executed(run, damage, message):
    from pathlib import Path

    Path("/tmp/latentlab-bomb").unlink(missing_ok=True)
    damage(run.path / "weights.safetensors")
    with pytest.raises(ValueError, match=message):
        _ = Run.open(run.path).model
    assert not Path("/tmp/latentlab-bomb").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "must be a run's configuration of format 1; got 'list'"),
        ('{"format": 99}', "of format 1; got 99"),
        (
            '{"format": 1, "experiment": {"model": {"family": "os.system"}}}',
            "Unknown model family 'os.system'",
        ),
        ('{"format": 1, "experiment": {"name": "../../x"}}', "can't be empty, hidden or a path"),
        ('{"format": 1, "experiment": {}}', "image_shape as three whole numbers; got None"),
        ('{"format": 1, "experiment": {}, "image_shape": [1, 64, "64"]}', "three whole numbers"),
        ("\xff", "should be a UTF-8 text"),
    ],
)
def test_a_damaged_or_hostile_configuration_is_refused(run, text, message):
    (run.path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        Run.open(run.path)


def test_a_configuration_that_asks_for_a_giant_model_is_refused(run):
    spec = json.loads((run.path / "config.json").read_text())
    spec["image_shape"] = [1, 10**6, 10**6]
    (run.path / "config.json").write_text(json.dumps(spec))
    with pytest.raises(ValueError, match="square images of 28 to 128"):
        _ = Run.open(run.path).model
    (run.path / "config.json").write_text(" " * 5_000_000)
    with pytest.raises(ValueError, match="should be a small text file"):
        Run.open(run.path)


def test_a_link_out_of_the_run_is_refused(run, tmp_path):
    secret = tmp_path / "secret.safetensors"
    (run.path / "weights.safetensors").rename(secret)
    (run.path / "weights.safetensors").symlink_to(secret)
    with pytest.raises(ValueError, match="leads out of the run's folder"):
        _ = Run.open(run.path).model
    (tmp_path / "passwords").write_text("x")
    (run.path / "README.md").symlink_to(tmp_path / "passwords")
    with pytest.raises(ValueError, match="leads out of the run's folder"):
        _ = run.card


def test_a_failed_write_leaves_what_stood_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path, "w") as file:
        file.write("new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_tables_skip_a_half_written_line(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n1,2.5\n2,1.5\n3,")
    table = read_table(path)
    assert np.array_equal(table["step"][:2], [1, 2]) and np.isnan(table["loss"][-1])
    path.write_text("step,loss\n1,2.5\n2")
    assert np.array_equal(read_table(path)["loss"], [2.5])
    assert read_table(tmp_path / "none.csv") == {}


def test_lists_show_good_and_bad_runs(run, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text("{")
    found = {s.path.name: s for s in list_runs(tmp_path)}
    assert found["tiny"].experiment == EXPERIMENT and found["tiny"].has_weights and not found["tiny"].error
    assert "is no JSON" in found["bad"].error
    assert Workspace(tmp_path).runs() == list_runs(tmp_path)
    assert list_runs(tmp_path / "none") == []


def test_cache_paths_are_plain_names_under_the_digest(run, tmp_path):
    workspace = Workspace(tmp_path)
    path = workspace.cache(run.digest, "encoding-2000")
    assert path.parent.is_dir() and path.is_relative_to(tmp_path) and run.digest[:16] in str(path)
    for digest, key in ((run.digest, "../x"), ("../..", "a"), (run.digest, "")):
        with pytest.raises(ValueError, match="a plain key"):
            workspace.cache(digest, key)


def test_devices_are_resolved_or_refused():
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="Unknown device 'gpu0'"):
        resolve_device("gpu0")
    if not torch.cuda.is_available():
        assert resolve_device("auto").type == "cpu"
        with pytest.raises(ValueError, match="no CUDA device"):
            resolve_device("cuda")


@pytest.mark.parametrize(
    "blocks", ["abc", [1], [{"name": "z", "dim": 2, "prior": "foo"}], {"a": 1}, [{"name": "z"}]]
)
def test_malformed_blocks_are_refused_and_do_not_break_a_list(run, tmp_path, blocks):
    spec = json.loads((run.path / "config.json").read_text())
    spec["experiment"]["model"]["blocks"] = blocks
    (run.path / "config.json").write_text(json.dumps(spec))
    with pytest.raises(ValueError, match="could not be read"):
        Run.open(run.path)
    (summary,) = list_runs(tmp_path)
    assert summary.error


def test_deeply_nested_text_is_no_configuration(run, tmp_path):
    (run.path / "config.json").write_text("[" * 100_000)
    (summary,) = list_runs(tmp_path)
    assert "is no JSON" in summary.error


def test_opening_a_runs_data_downloads_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTLAB_DATA", str(tmp_path / "none"))
    spec = json.loads((run.path / "config.json").read_text())
    for name in ("mnist", "mnist:", "celeba"):
        spec["experiment"]["data"] = {"name": name, "options": {"download": True}}
        (run.path / "config.json").write_text(json.dumps(spec))
        with pytest.raises((OSError, ValueError)):
            Run.open(run.path).dataset()
    assert not (tmp_path / "none").exists()


def test_a_table_that_is_no_csv_is_refused_with_a_sentence(run):
    (run.path / "metrics.csv").write_bytes(b"step,loss\n1,\xff\xfe\n")
    with pytest.raises(ValueError, match="should be a table of numbers"):
        run.metrics()


def test_a_start_that_failed_before_its_first_weights_can_be_repeated(tmp_path):
    Run.create(tmp_path / "a", EXPERIMENT, SHAPE)
    assert Run.create(tmp_path / "a", EXPERIMENT, SHAPE).experiment == EXPERIMENT


@pytest.mark.parametrize("name", ["config.json", "README.md", "notes.txt", ".git"])
def test_a_folder_with_other_files_is_never_written_to(tmp_path, name):
    """Fails a guard that looks for weights only: somebody's config.json or README.md would be lost."""
    (tmp_path / name).write_text("mine")
    with pytest.raises(FolderTaken, match=rf"holds other files \({name}\).*a new or an empty folder"):
        Run.create(tmp_path, EXPERIMENT, SHAPE)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(name, "mine")]


@pytest.mark.parametrize("name", ["weights.safetensors", "last.ckpt", "checkpoints"])
def test_a_run_with_weights_of_any_kind_is_kept(tmp_path, name):
    """Fails a guard that knows only one of the places where weights lie."""
    Run.create(tmp_path / "a", EXPERIMENT, SHAPE)
    (tmp_path / "a" / name).mkdir()
    with pytest.raises(FolderTaken, match=r"A run is at .* already; continue it with --resume"):
        Run.create(tmp_path / "a", EXPERIMENT, SHAPE)


def test_a_folder_belongs_to_the_training_that_began_first(tmp_path):
    """Fails looking and then writing: of trainings that begin at once, several would write one folder."""
    first = Run.create(tmp_path / "a", EXPERIMENT, SHAPE)
    with pytest.raises(FolderTaken, match=r"Another training has just begun in .*choose another --out"):
        Run.create(tmp_path / "a", EXPERIMENT, SHAPE)
    del first

    def begin(_):
        try:
            return Run.create(tmp_path / "b", EXPERIMENT, SHAPE)
        except FolderTaken:
            return None

    with ThreadPoolExecutor(8) as pool:
        assert sum(run is not None for run in list(pool.map(begin, range(16)))) == 1


def test_weights_that_do_not_fit_are_refused_before_the_model_has_memory(run, monkeypatch):
    """Fails building first: a few bytes of configuration would cost gigabytes and many seconds."""
    built = []

    def watch(*arguments):
        built.append(build_model(*arguments))
        return built[-1]

    monkeypatch.setattr("latentlab.runs.build_model", watch)
    spec = json.loads((run.path / "config.json").read_text())
    spec["image_shape"] = [3, 128, 128]
    spec["experiment"]["model"].update(width=512, hidden=4096)
    (run.path / "config.json").write_text(json.dumps(spec))
    with pytest.raises(ValueError, match="does not fit the run's model: tensor"):
        _ = Run.open(run.path, "cpu").model
    assert all(p.device.type == "meta" for p in built[0].parameters())


def test_an_opened_model_does_not_hang_on_its_file(run):
    """Fails weights that are views of the file: half precision, or a file cut short later, would show."""
    tensors = load_file(run.weights_path)
    save_file({k: t.double() for k, t in tensors.items()}, run.weights_path)
    model = Run.open(run.path, "cpu").model
    run.weights_path.write_bytes(b"")
    assert all(torch.equal(t, tensors[k]) and t.dtype == torch.float32 for k, t in model.state_dict().items())


def test_opening_a_model_leaves_the_global_generator_alone(run):
    """Fails drawing weights only to overwrite them."""
    before = torch.get_rng_state()
    _ = Run.open(run.path, "cpu").model
    assert torch.equal(torch.get_rng_state(), before)


def test_annotations_that_are_no_file_or_nest_too_deeply_are_none(run):
    """Fails waiting for a pipe for ever, and a RecursionError that reaches the page."""
    (run.path / "annotations.json").write_text("[" * 100_000)
    assert run.annotations == {}
    (run.path / "annotations.json").unlink()
    os.mkfifo(run.path / "annotations.json")
    assert run.annotations == {}
    (run.path / "annotations.json").unlink()
    (run.path / "annotations.json").write_text('{"names": {"z0": "size"}}')
    assert run.annotations == {"names": {"z0": "size"}}


def test_a_table_of_any_size_is_not_read(run):
    """Fails reading whatever a run from elsewhere holds into memory."""
    with (run.path / "metrics.csv").open("w") as file:
        file.truncate(200_000_000)  # sparse: takes no room on the disk
    with pytest.raises(ValueError, match="at most 100,000,000 bytes; it has 200,000,000"):
        run.metrics()


def test_every_shipped_run_is_what_its_experiment_makes():
    from latentlab.config import named_experiment
    from latentlab.runs import zoo_paths

    names = [path.name for path in zoo_paths()]
    assert {"digits-vae", "sprites-beta-vae", "scenes-vae"} <= set(names)
    for name in names:
        run = Run.open(f"zoo:{name}", "cpu")
        assert run.experiment == named_experiment(name)[0]
        assert run.metrics()["step"][-1] == run.experiment.max_steps
        assert run.digest[:16] in run.card
        assert sum(p.stat().st_size for p in run.path.iterdir()) < 3_000_000
