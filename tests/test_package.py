"""What `import latentlab` and `latentlab --help` cost, and that every public name leads somewhere."""

import importlib.metadata
import json
import subprocess
import sys
import time
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

# Runs CODE, then writes which heavy libraries it loaded as the last line, whatever CODE did with sys.exit.
PROBE = """
import json, sys
try:
    {code}
except SystemExit as stop:
    assert not stop.code, stop.code
print()
print(json.dumps([name for name in {heavy!r} if name in sys.modules]))
"""


def heavy_imports_of(code: str) -> tuple[list[str], str, float]:
    """Run `code` in a fresh interpreter: (heavy libraries loaded, what it printed, seconds)."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(code=code, heavy=HEAVY)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    seconds = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    printed, _, last = done.stdout.rstrip("\n").rpartition("\n")
    return json.loads(last), printed, seconds


def test_import_loads_nothing_heavy():
    loaded, _, seconds = heavy_imports_of("import latentlab; dir(latentlab); latentlab.__version__")
    assert loaded == []
    assert seconds < 10  # lenient: a shared machine; torch and umap together take longer than this when cold


@pytest.mark.parametrize("arguments", [[], ["train"], ["traverse"], ["explore"], ["doctor"]])
def test_help_loads_nothing_heavy(arguments):
    main = "import runpy; runpy.run_module('latentlab.cli', run_name='__main__')"
    code = f"sys.argv = {['latentlab', *arguments, '--help']!r}; {main}"
    loaded, printed, _ = heavy_imports_of(code)
    assert loaded == []
    assert "usage: latentlab" in printed


def test_the_probe_would_see_a_heavy_import():
    loaded, _, _ = heavy_imports_of("import sklearn")
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
