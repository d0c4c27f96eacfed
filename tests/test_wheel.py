"""`pip install latentlab` alone gives the explorer, the experiments and the shipped runs.

Would catch: package data that lie only in the checkout, and paths that lead back to it.
"""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
ZOO = REPOSITORY / "src" / "latentlab" / "zoo"

pytestmark = pytest.mark.slow

OPEN_A_RUN = """
import json, pathlib, sys
import torch
import latentlab
import latentlab.app.engine, latentlab.config

run = latentlab.Run.open("zoo:{run}", device="cpu")
images = run.model.decode(run.model.latent_space.sample(1, seed=0))
print(json.dumps({{
    "package": str(pathlib.Path(latentlab.__file__).parent),
    "run": str(run.path),
    "shape": list(images.shape),
    "low": float(images.min()),
    "high": float(images.max()),
    "finite": bool(torch.isfinite(images).all()),
}}))
"""


def run_away_from_home(installed: Path, folder: Path, *command: str) -> str:
    """Run Python in `folder`, the installed wheel shadowing the checkout; return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from the checkout without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    done = subprocess.run(
        [*pip, "--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(REPOSITORY)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("latentlab-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with the wheel installed, to be put first on the path."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    done = subprocess.run(
        [*pip, "--no-index", "--target", str(target), str(wheel)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return target


def shipped(folder: str, *patterns: str) -> set[str]:
    """Files of the checkout under `folder` that match, relative to it."""
    root = REPOSITORY / folder
    return {path.relative_to(root).as_posix() for pattern in patterns for path in root.rglob(pattern)}


def test_the_wheel_holds_all_that_is_not_python(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = {
        "src/latentlab": shipped("src/latentlab", "*.py", "*.js", "*.css", "*.html", "*.wasm", "py.typed"),
        "zoo": {
            f"zoo/{name}" for name in shipped("src/latentlab/zoo", "*.json", "*.safetensors", "*.csv", "*.md")
        },
        "experiments": {f"experiments/{path.name}" for path in (REPOSITORY / "experiments").glob("*.py")},
    }
    for part, files in expected.items():
        assert files, f"{part} is empty in the checkout"
        assert {f"latentlab/{name}" for name in files} - names == set()
    assert any(name.startswith("latentlab/app/") and name.endswith(".js") for name in names)
    outside = [name for name in names if not name.startswith(("latentlab/", "latentlab-"))]
    assert outside == [], "the wheel would install files beside the package"
    assert not any("__pycache__" in name or name.endswith(".ipynb") for name in names)


def test_the_wheel_stays_small(wheel):
    """A shipped run has 3 MB, the rest, which is code, 1.5 MB. Would catch: a checkpoint, a notebook's pictures."""
    sizes: dict[str, int] = {}
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            place = entry.filename.split("/")
            run = place[2] if place[:2] == ["latentlab", "zoo"] and len(place) > 3 else "code"
            sizes[run] = sizes.get(run, 0) + entry.compress_size
    assert sizes.pop("code") < 1.5e6
    assert len(sizes) >= 10 and max(sizes.values()) < 3e6, sizes


def test_a_zoo_run_opens_away_from_the_checkout(installed, tmp_path):
    name = sorted(path.name for path in ZOO.iterdir() if (path / "config.json").is_file())[0]
    said = json.loads(
        run_away_from_home(installed, tmp_path, "-c", OPEN_A_RUN.format(run=name)).splitlines()[-1]
    )
    assert Path(said["package"]) == installed / "latentlab"
    assert Path(said["run"]).is_relative_to(installed)
    assert said["shape"][0] == 1 and len(said["shape"]) == 4
    assert said["finite"] and 0 <= said["low"] < said["high"] <= 1


def test_the_command_knows_the_experiments_away_from_the_checkout(installed, tmp_path):
    experiments = sorted((REPOSITORY / "experiments").glob("*.py"))
    name = experiments[0].stem.replace("_", "-")
    said = run_away_from_home(installed, tmp_path, "-m", "latentlab.cli", "train", name, "--print_config")
    assert "objective" in said
