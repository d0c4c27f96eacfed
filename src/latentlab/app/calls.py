"""Calls: one call of an analysis as a page makes it, which is its cache key and its "copy as code" at once.

What a page shows and what the code says can't differ: the arguments are written as Python, and the same Python names
the answer in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from latentlab.app import state, theme
from latentlab.app.jobs import Job, Report
from latentlab.models.edits import Edit

if TYPE_CHECKING:
    from latentlab.runs import Run

Path = tuple[Any, ...]
"""Where a number stands in a result: an attribute's name, then keys: ("effect", 3), ("certificate", "change")."""


@dataclass(frozen=True)
class Made:
    """An argument that is made by a line of code rather than written out, such as images of a data set.

    Attributes:
        code: the expression.
        make: gives its value.
        before: lines that the expression needs, such as "data = run.dataset()".
    """

    code: str
    make: Callable[[], Any] = field(compare=False)
    before: tuple[str, ...] = ()


def images_of(run: Run, indices: Sequence[int]) -> Made:
    """Images of the run's data set by their numbers, as an argument."""
    numbers = [int(i) for i in indices]
    return Made(
        f"data.images(np.array({numbers})).cpu().numpy()",
        lambda: state.dataset(run).images(np.array(numbers)).cpu().numpy(),
        ("data = run.dataset()",),
    )


def some_images(run: Run, n: int, seed: int) -> Made:
    """``n`` images of the run's data set, drawn by a seed, as an argument."""

    def make() -> np.ndarray:
        data = state.dataset(run)
        return data.images(data.sample(n, seed)).cpu().numpy()

    return Made(f"data.images(data.sample({n}, {seed})).cpu().numpy()", make, ("data = run.dataset()",))


def data_of(run: Run) -> Made:
    """The run's data set, as an argument."""
    return Made("data", lambda: state.dataset(run), ("data = run.dataset()",))


@dataclass(frozen=True, eq=False)
class Call:
    """One call of an analysis on a run.

    Attributes:
        run: whose model is the first argument, where ``model`` is true.
        name: of the function in ``latentlab.analysis``.
        arguments: after the model, in order: plain values, edits, arrays, or ``Made``.
        options: by name.
        model: whether the model is the first argument.
        progress: whether the function can say how far it is.
    """

    run: Run
    name: str
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    model: bool = True
    progress: bool = False

    @property
    def expression(self) -> str:
        """The call as Python."""
        parts = ["run.model"] if self.model else []
        parts += [written(value) for value in self.arguments]
        parts += [f"{name}={written(value)}" for name, value in self.options.items()]
        line = f"analysis.{self.name}({', '.join(parts)})"
        if len(line) < 100:
            return line
        return f"analysis.{self.name}(\n" + "".join(f"    {part},\n" for part in parts) + ")"

    @property
    def key(self) -> tuple[str, ...]:
        """What decides the answer, besides the weights."""
        return (self.expression, state.data_key(self.run))

    def __call__(self, report: Report | None = None) -> Any:
        """The answer, computed anew."""
        from latentlab import analysis

        values = [_value(argument) for argument in self.arguments]
        options = {name: _value(option) for name, option in self.options.items()}
        if self.progress and report is not None:
            options["progress"] = lambda done, total: report(
                done / max(total, 1), f"{self.words}: {done:,} of {total:,}"
            )
        given = [self.run.model, *values] if self.model else values
        return getattr(analysis, self.name)(*given, **options)

    @property
    def words(self) -> str:
        """The function's name in words."""
        return self.name.replace("_", " ")

    def drawn(self) -> state.Drawn:
        """The answer with its picture, computed once."""
        return state.drawn(self.run, self.name, self.key, self)

    def job(self) -> Job:
        """The background job that answers it with its picture, started at the first call."""
        dark = theme.dark()

        def work(report: Report) -> state.Drawn:
            report(0.0, f"{self.words} …")
            found = state.Drawn(self(report))
            found.address_on(dark)  # drawn here, so that no page waits for it
            return found

        return state.job(self.run, self.name, self.key, work, heavy=True)

    def code(self, numbers: Mapping[str, Path] | None = None, result: Any = None) -> str:
        """A whole program that makes the call and prints the numbers shown.

        Args:
            numbers: where each stands in the result, by what it is called.
            result: the answer, whose numbers are written behind the prints for comparison.
        """
        before: dict[str, None] = {}
        for argument in (*self.arguments, *self.options.values()):
            for made in _made(argument):
                before.update(dict.fromkeys(made.before))
        lines = [
            *(["import numpy as np"] if "np." in self.expression + "".join(before) else []),
            "import latentlab",
            "from latentlab import analysis",
            "",
            f"run = {opened(self.run)}",
            *before,
            f"result = {self.expression}",
        ]
        for label, path in (numbers or {}).items():
            told = "" if result is None else f": {at(result, path):.9g}"
            lines.append(f"print({path_code(path)})  # {label}{told}")
        lines.append("picture = latentlab.viz.show(result)  # picture.save('figure.png')")
        return "\n".join(lines)


def place(run: Run) -> str:
    """What ``Run.open`` takes to open this run."""
    from latentlab.runs import ZOO

    return run.name if run.path.parent == ZOO else str(run.path)


def opened(run: Run) -> str:
    """The Python that opens this run."""
    return getattr(run, "code", "") or f"latentlab.Run.open({place(run)!r})"


def at(result: Any, path: Path) -> float:
    """The number that stands at a path in a result."""
    found = getattr(result, path[0])
    for key in path[1:]:
        found = found[key]
    return float(found)


def path_code(path: Path) -> str:
    """A path as Python, such as result.effect[3]."""
    return f"result.{path[0]}" + "".join(f"[{key!r}]" for key in path[1:])


def written(value: Any) -> str:
    """An argument as Python that gives it back exactly.

    Raises:
        TypeError: for what can't be written out.
    """
    if isinstance(value, Made):
        return value.code
    if isinstance(value, np.generic):
        return written(value.item())
    if isinstance(value, (str, bool, int, float, type(None))):
        return repr(value)
    if isinstance(value, Edit):
        return f"latentlab.Edit({', '.join(f'{k}={v!r}' for k, v in value.to_dict().items())})"
    if isinstance(value, np.ndarray):
        return f"np.array({_numbers(value)}, np.{value.dtype})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{written(k)}: {written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        inside = ", ".join(written(v) for v in value)
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' if len(value) == 1 else ''})"
    raise TypeError(f"A {type(value).__name__} can't be written as code.")


def _numbers(array: np.ndarray) -> str:
    """The shortest numbers that give the array back in its own type."""
    if array.ndim == 0:
        return str(array[()])
    return "[" + ", ".join(_numbers(row) for row in array) + "]"


def _made(value: Any) -> list[Made]:
    if isinstance(value, Made):
        return [value]
    if isinstance(value, (list, tuple)):
        return [made for v in value for made in _made(v)]
    return []


def _value(value: Any) -> Any:
    if isinstance(value, Made):
        return value.make()
    if isinstance(value, (list, tuple)):
        return type(value)(_value(v) for v in value)
    return value
