"""What `import latentlab` and `latentlab --help` cost, and that every public name leads somewhere."""

import ast
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


def bare_parts(source: str) -> list[int]:
    """Lines which import a part of scikit-learn, or UMAP that does, in a function which has not imported it whole."""
    found = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        imports = [node for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)]
        whole = [
            n.lineno
            for n in imports
            if isinstance(n, ast.Import) and any(a.name == "sklearn" for a in n.names)
        ]
        for node in imports:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            parts = any(name.startswith("sklearn.") or name == "umap" for name in names)
            if parts and not any(line < node.lineno for line in whole):
                found.append(node.lineno)
    return found


def test_scikit_learn_is_imported_whole_before_its_parts():
    # A part's import does not wait for the package's own where another thread is at that one: each then holds what
    # the other wants, and Python lets one of them go on with half a module. The plain import of the package waits.
    assert bare_parts("def f():\n    from sklearn.manifold import TSNE") == [2]
    assert bare_parts("def f():\n    import umap\n    import sklearn") == [2]
    assert bare_parts("def f():\n    import sklearn\n    from sklearn.manifold import TSNE") == []
    package = Path(latentlab.__file__).parent
    assert {
        str(file): lines for file in package.rglob("*.py") if (lines := bare_parts(file.read_text()))
    } == {}
