"""What `import latentlab` and `latentlab --help` cost, and that every public name leads somewhere."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

import latentlab

HEAVY = (
    "torch",
    "torchvision",
    "pytorch_lightning",
    "umap",
    "numba",
    "streamlit",
    "sklearn",
    "altair",
    "pandas",
)

# Runs CODE in a fresh interpreter; the last line says what it loaded and what it cost, whatever CODE printed.
PROBE = """
import json, sys, time
{code}
print()
print(json.dumps([[name for name in {heavy!r} if name in sys.modules], time.process_time()]))
"""

SAY_HELP = """
from latentlab.cli import main
for command in ([], ["train"], ["traverse"], ["explore"], ["doctor"]):
    try:
        main([*command, "--help"])
    except SystemExit as stop:
        assert not stop.code, command
"""


def cost_of(code: str) -> tuple[list[str], float, str]:
    """Run `code` in a fresh interpreter: (heavy libraries it loaded, processor seconds, what it printed)."""
    program = PROBE.format(code=code, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    printed, _, last = done.stdout.rstrip("\n").rpartition("\n")
    return *json.loads(last), printed


def test_import_loads_nothing_heavy():
    loaded, seconds, _ = cost_of("import latentlab; dir(latentlab); latentlab.__version__")
    assert loaded == []
    assert seconds < 1


def test_help_loads_nothing_heavy():
    loaded, seconds, printed = cost_of(SAY_HELP)
    assert loaded == []
    assert seconds < 3
    assert printed.count("usage: latentlab") == 5


def test_the_probe_would_see_a_heavy_import():
    loaded, _, _ = cost_of("import sklearn")
    assert "sklearn" in loaded


def test_every_public_name_resolves():
    assert len(latentlab.__all__) == len(set(latentlab.__all__)) > 5
    assert set(latentlab.__all__) <= set(dir(latentlab))
    for name in latentlab.__all__:
        assert getattr(latentlab, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = latentlab.no_such_name


def test_version_is_the_installed_one():
    assert latentlab.__version__ == importlib.metadata.version("latentlab")


def test_the_runs_that_ship_are_small_and_hold_nothing_to_unpickle():
    zoo = Path(latentlab.__file__).parent / "zoo"
    files = {folder.name: [path for path in folder.rglob("*") if path.is_file()] for folder in zoo.glob("*/")}
    assert {"digits-vae", "scenes-vae", "sprites-beta-vae"} <= set(files)
    for name, found in files.items():
        assert sum(path.stat().st_size for path in found) <= 3e6, name
        assert not {path.suffix for path in found} & {".ckpt", ".pt", ".pth", ".pkl", ".pickle"}, name
