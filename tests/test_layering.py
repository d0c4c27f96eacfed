"""The arrows of the house: every import points to the right, and heavy libraries stay in their rooms.

Would catch: an app that trains, an analysis that draws, a Lightning import that makes the explorer slow to
start, and an import hidden in a function or behind `importlib`.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# Room -> rooms right of it; what those reach, it reaches too. `config` is below everything (see LEAVES).
ARROWS = {
    "app.py": {"app"},
    "__main__": {"cli"},
    "cli": {"app", "brought", "training", "runs", "experiments", "card", "doctor", "evaluation"},
    "experiments": {"training", "analysis", "metrics", "viz", "card", "evaluation"},
    "generation": {"runs", "analysis"},
    "evaluation": {"generation", "runs", "analysis"},  # scores and keeps, for cli, experiments and app
    "card": {"runs", "viz"},  # a run's report, put together for cli and experiments alone
    "brought": {"runs"},  # a user's own model as a run, for cli and app
    "notebook": {"export", "evaluation", "runs"},  # the explorer's sliders as a notebook widget
    "rendering": {"export", "viz", "runs"},  # files from a run, each with its recipe, for cli and app
    "app": {"brought", "rendering", "export", "viz", "runs", "evaluation"},
    "export": {"analysis"},
    "viz": {"analysis"},
    "analysis": {"metrics", "objectives"},
    "training": {"objectives", "runs"},
    "metrics": {"models", "data"},
    "objectives": {"models", "data"},
    "runs": {"models", "data"},
    "models": {"latents"},
    "data": {"latents"},
    "latents": set(),
    "doctor": {"runs"},
    "config": set(),
    "files": set(),
    "processes": {"files"},  # who trains what on this machine, for training and app
}
LEAVES = {"config", "files", "processes"}  # torch-free, and every room may read them
FACADE_READERS = {"app.py", "cli", "experiments"}  # may use `latentlab.NAME`, the public names, like any user

DRAWING = ("altair", "matplotlib", "plotly", "bokeh", "seaborn", "pydeck", "PIL.ImageDraw", "PIL.ImageFont")
# Library (or one module of it) -> modules, by prefix, that may import it.
LIBRARIES = {
    "streamlit": {"app", "app.py"},
    "pytorch_lightning": {"training"},
    "lightning": {"training"},
    "umap": {"analysis", "metrics"},
    "captum": {"analysis", "metrics"},
    "interpret": {"analysis"},
    "sklearn": {"analysis", "metrics", "data.sources"},
    **{library: {"viz", "export", "app"} for library in DRAWING},
}
TORCH_FREE = {"config", "files", "processes"}
SHAPELESS_NAMES = {"util", "utils", "helper", "helpers", "common", "misc", "base", "manager", "managers"}


def reach(room: str) -> set[str]:
    """All rooms right of `room`."""
    found: set[str] = set()
    waiting = [room]
    while waiting:
        for right in ARROWS[waiting.pop()] - found:
            found.add(right)
            waiting.append(right)
    return found


def sources(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield (dotted module inside the package, file): "viz.images", "cli", "app.py", "experiments.digits"."""
    package = root / "src" / "latentlab"
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if parts != ("__init__",):  # the hand-listed façade names every room, lazily: that is its task
            yield ".".join(part for part in parts if part != "__init__"), path
    if (root / "app.py").is_file():
        yield "app.py", root / "app.py"
    for path in sorted((root / "experiments").glob("*.py")):
        yield f"experiments.{path.stem}", path


def imports(tree: ast.Module, package: str) -> Iterator[tuple[int, str]]:
    """Yield (line, absolute dotted name) for each import anywhere in a module that lives in `package`."""

    def absolute(name: str, level: int, anchor: str = package) -> str:
        if level == 0:
            return name
        parents = anchor.split(".")
        stem = parents[: len(parents) - level + 1]
        return ".".join([*stem, name] if name else stem)

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            source = absolute(node.module or "", node.level)
            for alias in node.names:
                yield node.lineno, f"{source}.{alias.name}"
        elif isinstance(node, ast.Call) and node.args:
            function = (
                node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            )
            first = node.args[0]
            if function in {"import_module", "__import__"} and isinstance(first, ast.Constant):
                literals = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
                keywords = [k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)]
                anchor = next((str(value) for value in [*literals[1:], *keywords]), package)
                name = str(first.value)
                bare = name.lstrip(".")
                yield node.lineno, absolute(bare, len(name) - len(bare), anchor)


def script_lines(tree: ast.Module) -> range:
    """Lines of the `if __name__ == "__main__":` block, empty where there is none."""
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'":
            return range(node.lineno, (node.end_lineno or node.lineno) + 1)
    return range(0)


def complaint(module: str, target: str) -> str | None:
    """Say what is wrong with `module` importing `target`, or None."""
    room = module if module == "app.py" else module.split(".")[0]
    for library, homes in LIBRARIES.items():
        if (target + ".").startswith(library + ".") and not any(
            (module + ".").startswith(home + ".") for home in homes
        ):
            return f"{library} belongs only in {', '.join(sorted(homes))}"
    top, _, rest = target.partition(".")
    if room in TORCH_FREE and top in {"torch", "torchvision"}:
        return f"{room} must stay free of torch"
    if top != "latentlab":
        return None
    name = rest.split(".")[0]
    if name in ARROWS:
        allowed = reach(room) | LEAVES | {room}
        return None if name in allowed else f"{room} may not import {name}"
    if name == "__version__" or room in FACADE_READERS:
        return None
    return f"{room} must import from a room, not the façade `latentlab`"


def violations(root: Path) -> list[str]:
    """List every import under `root` that points to the left or takes a library out of its room."""
    found = []
    for module, path in sources(root):
        where = path.relative_to(root)
        room = module if module == "app.py" else module.split(".")[0]
        if room not in ARROWS:
            found.append(f"{where}: {room} has no place among the rooms (see ARROWS)")
            continue
        if module == "app.py":
            package = ""
        else:
            dotted = f"latentlab.{module}"
            package = dotted if path.name == "__init__.py" else dotted.rpartition(".")[0]
        tree = ast.parse(path.read_text(encoding="utf-8"))
        script = script_lines(tree) if room == "experiments" else range(0)
        for line, target in imports(tree, package):
            # Run as a script, an experiment is the command line with its own name; imported, it knows no cli.
            by_hand = line in script and (target + ".").startswith("latentlab.cli.")
            wrong = complaint(module, target)
            if wrong and not by_hand:
                found.append(f"{where}:{line}: {wrong}")
    return found


def shapeless_names(root: Path) -> list[str]:
    """List files and folders whose name says nothing about what is in them."""
    paths = (
        path for part in ("src", "experiments", "benchmarks", "tests") for path in (root / part).rglob("*")
    )
    return [
        str(path.relative_to(root))
        for path in paths
        if (path.suffix == ".py" or path.is_dir()) and SHAPELESS_NAMES & set(path.stem.lower().split("_"))
    ]


def test_imports_point_only_to_the_right():
    assert violations(REPOSITORY) == []


def test_no_file_has_a_name_that_says_nothing():
    assert shapeless_names(REPOSITORY) == []


def test_the_arrows_make_no_circle():
    assert [room for room in ARROWS if room in reach(room)] == []
    assert {"training", "runs"}.isdisjoint(reach("analysis")) and "analysis" not in reach("training")
    assert "training" not in reach("app")


def plant(root: Path, files: dict[str, str]) -> None:
    for name, source in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")


SCRIPT = "if __name__ == '__main__':\n    "
VIZ, ANALYSIS = "src/latentlab/viz/images.py", "src/latentlab/analysis/traversal.py"


@pytest.mark.parametrize(
    ("path", "source", "wording"),
    [
        (ANALYSIS, "from latentlab.viz import images", "analysis may not import viz"),
        (ANALYSIS, "from latentlab import viz", "analysis may not import viz"),
        (ANALYSIS, "import latentlab.runs as r", "analysis may not import runs"),
        (ANALYSIS, "from ..training import fit", "analysis may not import training"),
        (ANALYSIS, "from .. import training", "analysis may not import training"),
        ("src/latentlab/analysis/__init__.py", "from ..viz import show", "analysis may not import viz"),
        (ANALYSIS, "def f():\n    import latentlab.app.main", "analysis may not import app"),
        (ANALYSIS, "import importlib\nm = importlib.import_module('latentlab.app')", "may not import app"),
        (ANALYSIS, "from importlib import import_module as i\nimport_module('..viz', __package__)", "viz"),
        (ANALYSIS, "import_module('.show', package='latentlab.viz')", "analysis may not import viz"),
        (ANALYSIS, "if TYPE_CHECKING:\n    from latentlab.viz import show", "analysis may not import viz"),
        (ANALYSIS, "from latentlab import traverse", "not the façade"),
        (ANALYSIS, "import latentlab", "not the façade"),
        ("src/latentlab/training/fit.py", "import latentlab.metrics", "training may not import metrics"),
        ("src/latentlab/models/vae.py", "import latentlab.data", "models may not import data"),
        ("src/latentlab/data/factors.py", "import latentlab.models", "data may not import models"),
        ("src/latentlab/latents.py", "import latentlab.models", "latents may not import models"),
        ("src/latentlab/runs.py", "import latentlab.training", "runs may not import training"),
        ("src/latentlab/metrics/mig.py", "import latentlab.objectives", "metrics may not import objectives"),
        ("src/latentlab/app/main.py", "import latentlab.training", "app may not import training"),
        ("src/latentlab/export/media.py", "import latentlab.viz", "export may not import viz"),
        ("src/latentlab/config/models.py", "import latentlab.models", "config may not import models"),
        ("src/latentlab/config/models.py", "import torch", "config must stay free of torch"),
        ("src/latentlab/extras.py", "", "extras has no place among the rooms"),
        ("app.py", "import latentlab.training", "app.py may not import training"),
        ("experiments/digits.py", "import latentlab.app", "experiments may not import app"),
        ("experiments/digits.py", "from latentlab.cli import main", "experiments may not import cli"),
        ("experiments/digits.py", f"{SCRIPT}import latentlab.app", "experiments may not import app"),
        ("src/latentlab/viz/show.py", f"{SCRIPT}import latentlab.cli", "viz may not import cli"),
        (VIZ, "import streamlit as st", "streamlit belongs only in app, app.py"),
        ("src/latentlab/cli.py", "import pytorch_lightning", "pytorch_lightning belongs only in training"),
        ("src/latentlab/viz/charts.py", "import umap", "umap belongs only in analysis, metrics"),
        ("src/latentlab/data/sprites.py", "import sklearn.datasets", "sklearn belongs only in"),
        (ANALYSIS, "from PIL import ImageDraw", "PIL.ImageDraw belongs only in app, export, viz"),
        (ANALYSIS, "def f():\n    import matplotlib.pyplot", "matplotlib belongs only in"),
    ],
)
def test_a_planted_violation_is_found(tmp_path, path, source, wording):
    plant(tmp_path, {path: source})
    found = violations(tmp_path)
    assert len(found) == 1 and wording in found[0] and found[0].startswith(path)


def test_imports_along_the_arrows_pass(tmp_path):
    src = "src/latentlab"
    plant(
        tmp_path,
        {
            f"{src}/__init__.py": "from latentlab.viz import show",
            f"{src}/cli.py": "from . import doctor, config\nimport latentlab\nfrom .training import fit",
            f"{src}/doctor.py": "def report():\n    import torch",
            f"{src}/config/models.py": "import json",
            f"{src}/data/sources.py": "from PIL import Image\nimport sklearn.datasets\nfrom .. import config",
            f"{src}/runs.py": "from .models import build\nfrom latentlab import __version__",
            f"{src}/analysis/units.py": "import umap, umapping\nfrom latentlab.metrics import mig",
            f"{src}/app/state.py": "import streamlit\nfrom latentlab.latents import LatentSpace",
            VIZ: "from PIL import ImageDraw\nimport altair\nfrom latentlab.analysis.results import Result",
            "app.py": "import streamlit\nfrom latentlab.app import decode",
            "experiments/digits.py": f"import latentlab.training.fit\n{SCRIPT}from latentlab.cli import main",
        },
    )
    assert violations(tmp_path) == []


def test_a_planted_shapeless_name_is_found(tmp_path):
    plant(tmp_path, {"src/latentlab/viz/image_utils.py": "", "src/latentlab/common/x.py": "", VIZ: ""})
    found = {Path(name).as_posix() for name in shapeless_names(tmp_path)}
    assert found == {"src/latentlab/viz/image_utils.py", "src/latentlab/common"}
