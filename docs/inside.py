"""Writes docs/inside.md: for each look inside a network its question, its proof and a certificate measured now.

    python docs/inside.py                # all rows, the page and its figures; two to three minutes on two cores
    python docs/inside.py --only 9       # measures one row and prints it; writes nothing

The rows are in docs/inside.toml. Every call is made on a shipped run with a fixed seed; the page is written whole or
not at all.
"""

from __future__ import annotations

import argparse
import ast
import io
import math
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import latentlab
from latentlab import analysis, viz
from latentlab.files import atomic_write

DOCS = Path(__file__).resolve().parent
ROOT, PAGE, FIGURES = DOCS.parent, DOCS / "inside.md", DOCS / "figures"
LARGEST = 300_000
EFFECTS = 23  # the row whose call holds the best units of the scenes decoder
_DONE: dict[tuple[str, str], Any] = {}

Row = Mapping[str, Any]
Call = Mapping[str, Any]


def rows_and_limits() -> tuple[list[Row], list[Row]]:
    """The rows of the table and the sentences on limits.

    Raises:
        ValueError: if one of them names a test or a function that there is not.
    """
    with (DOCS / "inside.toml").open("rb") as file:
        found = tomllib.load(file)
    rows, limits = found["row"], found["limit"]
    known = tests()
    for row in rows:
        for proof in row["proof"]:
            if proof["test"] not in known:
                raise ValueError(f"Row {row['number']} names {proof['test']}, which is no test of this tree.")
    named = {function for entry in (*rows, *limits) for function in entry["functions"]}
    if unknown := sorted(named - set(analysis.__all__)):
        raise ValueError(f"latentlab.analysis has no {', '.join(unknown)}.")
    return rows, limits


@cache
def tests() -> frozenset[str]:
    """The tests of the tree as pytest names them, without parameters."""
    return frozenset(
        f"{path.relative_to(ROOT).as_posix()}::{item.name}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for item in ast.parse(path.read_text()).body
        if isinstance(item, ast.FunctionDef) and item.name.startswith("test_")
    )


def evaluated(call: Call) -> dict[str, Any]:
    """All names of a call and its ``result``; equal expressions of one run are computed once."""
    run = call["run"]
    if (run, "") not in _DONE:
        opened = latentlab.Run.open(f"zoo:{run}")
        data = opened.dataset()
        names = {"model": opened.model, "data": data, "images": data.images(data.sample(64, 0))}
        _DONE[run, ""] = {"analysis": analysis, **names}
    names = dict(_DONE[run, ""])
    for name, code in (*call.get("given", {}).items(), ("result", call["code"])):
        if (run, code) not in _DONE:
            started = time.perf_counter()
            _DONE[run, code] = eval(code, names)
            print(f"  {run}: {code} ({time.perf_counter() - started:.1f} s)", flush=True)
        names[name] = _DONE[run, code]
    return names


def certificate(call: Call) -> dict[str, str]:
    """The numbers of one call by name, as they are written."""
    names = evaluated(call)
    held = names["result"].certificate
    return {f"`{name}`": written(held[name]) for name in call["shown"]} | {
        f"{words}:": written(eval(code, names)) for words, code in call.get("also", {}).items()
    }


def written(value: Any) -> str:
    """A number in digits that can be repeated; rounding errors by a power of ten that they stay below."""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (str, int, np.integer)):
        return str(value)
    if isinstance(value, (tuple, list)):
        least, most = written(min(value)), written(max(value))
        return least if least == most else f"{least} to {most}"
    if 0 < abs(value) < 1e-4:
        return f"below 1e{math.ceil(math.log10(4 * abs(value)))}"
    return f"{value:.3g}"


def table(rows: Sequence[Row]) -> Iterator[str]:
    """The table: question, functions, tests and the first numbers of each call."""
    yield "| row | question | functions | truth tests | certificate |"
    yield "| ---: | --- | --- | --- | --- |"
    for row in rows:
        tests = (
            f"[{p['test'].rsplit('::test_', 1)[1].replace('_', ' ')}](../{p['test'].split('::')[0]})"
            for p in row["proof"]
        )
        numbers = (
            f"{asked(c)}, {c['run']}: " + ", ".join(f"{k} {v}" for k, v in list(certificate(c).items())[:3])
            for c in row["call"]
        )
        cells = (f"[{row['number']}](#row-{row['number']})", row["question"], named(row["functions"]))
        yield f"| {' | '.join(cells)} | {'<br>'.join(tests)} | {'<br>'.join(numbers)} |"


def asked(call: Call) -> str:
    """The function that a call asks, as code."""
    return f"`{call['code'].partition('(')[0].removeprefix('analysis.')}`"


def named(functions: Sequence[str]) -> str:
    """Functions as code, separated by commas."""
    return ", ".join(f"`{function}`" for function in functions)


def place(row: Row) -> str:
    """Where the explorer shows it."""
    if not row["places"]:
        return "Not in the explorer: `latentlab.viz.show(result)` draws it in a notebook or file."
    shown = (f"*{tab}*" + (f" ({views})" if views else "") for tab, _, views in _split(row["places"]))
    return f"In the explorer: Layers, {'; '.join(shown)}."


def _split(places: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    return (where.partition(": ") for where in places)


def section(row: Row) -> Iterator[str]:
    """One row in full: calls, certificates, tests and the place in the explorer."""
    yield f"### Row {row['number']}\n\n{row['question']} {place(row)}\n"
    for call in row["call"]:
        given = (f"{name} = {code}" for name, code in call.get("given", {}).items())
        yield "\n".join(["```python", f"# {call['run']}", *given, call["code"], "```\n"])
        yield ", ".join(f"{name} {value}" for name, value in certificate(call).items()) + "\n"
        if "picture" in call and row["number"] != EFFECTS:  # shown above
            yield f"![{call['alt']}](figures/inside-{call['picture']}.png)\n"
    if "note" in row:
        yield f"{row['note']}\n"
    for proof in row["proof"]:
        yield f"- `{proof['test']}` catches {proof['catches']}."
    yield ""


def units(call: Call) -> Iterator[str]:
    """The best units of a dissection with what they do, from the call that measured both."""
    names = evaluated(call)
    found, effects, segment = names["units"], names["result"], names["segment"]
    yield f"\n## The best units of the scenes decoder\n\nOf {found.address} of {call['run']}, by IoU above chance.\n"
    yield "| unit | concept | IoU | by chance, 95 % | p | causal effect on it | 95 % interval | p |"
    yield "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    others = effects.certificate["draws"]
    strength = [abs(effects.ace[i, c]) for i, c in enumerate(effects.best)]
    for i in np.argsort(strength)[::-1]:
        unit, c = effects.units[i], int(effects.best[i])
        ace, low, high = (round(float(v), 3) + 0.0 for v in (effects.ace[i, c], *effects.interval[i, c]))
        yield (
            f"| {unit} | {effects.concepts[c]} | {found.best_iou[unit]:.2f} | {found.best_chance[unit]:.2f} | "
            f"{found.p_value[unit]:.2f} | {ace:.3f} | {low:.3f} to {high:.3f} | {effects.p_value[i, c]:.2f} |"
        )
    yield (
        "\nThe calls are those of rows [22](#row-22) and [23](#row-23). The effect is the change of the concept's "
        "share of the picture, with the unit inserted at its mean where the concept is, less without it; its p is "
        f"against the {others} other units, so not below {1 / (1 + others):.2f}. Concepts are found in pictures by "
        f"`nearest_masks`, whose masks agree with true ones to {segment.agreement:.2f} (mean IoU). A unit may look "
        "like a concept and do nothing to it: such rows are shown, too.\n\n"
        f"![{call['alt']}](figures/inside-{call['picture']}.png)\n"
    )


def page(rows: Sequence[Row], limits: Sequence[Row]) -> str:
    """The whole page."""
    effects = next(row for row in rows if row["number"] == EFFECTS)["call"][0]
    lines = [
        "# Looks inside, and what proves them\n",
        "Written by `python docs/inside.py`: it measured every number below, on the shipped runs named and with the "
        "functions' default seed, 0. `python docs/inside.py --only 9` measures row 9 again; `python -m pytest TEST` "
        "runs a test named here. In the calls\n",
        '```python\nrun = latentlab.Run.open("zoo:NAME")\nmodel, data = run.model, run.dataset()\n'
        "images = data.images(data.sample(64, 0))\n```\n",
        "A *truth test* asks for what is known in closed form, or was planted, and catches the fakes named beside it; "
        "a fake that is written out in the test fails the same check. A *certificate* is the numbers by which a result "
        "proves itself, measured in the call that made it; the docstrings say what each means, and very small ones are "
        "given as below a power of ten. The explorer's *unit card* opens with a click on a unit.\n",
        *table(rows),
        *units(effects),
        "## Row by row\n",
        *(line for row in rows for line in section(row)),
        "## Limits\n",
        *(f"- {named(limit['functions'])}: {limit['text']}" for limit in limits),
        "\n## What they cost\n",
        "`OMP_NUM_THREADS=2 python benchmarks/inside.py` measures seconds on two cores.",
    ]
    return "\n".join(lines) + "\n"


def draw(name: str, call: Call) -> None:
    """Writes the figure of a call's result with 256 colours, refused above the size that a figure may have."""
    buffer = io.BytesIO()
    picture = viz.show(evaluated(call)["result"], caption=False).image
    few = picture.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(buffer, "PNG", optimize=True)
    if buffer.tell() >= LARGEST:
        raise ValueError(f"Figure {name} has {buffer.tell():,} bytes; expected fewer than {LARGEST:,}.")
    with atomic_write(FIGURES / f"inside-{name}.png") as file:
        file.write(buffer.getvalue())


def main() -> None:
    """Measures one row, or all of them and writes the page."""
    rows, limits = rows_and_limits()
    parser = argparse.ArgumentParser(description="Measures what docs/inside.md says, and writes it.")
    parser.add_argument("--only", type=int, metavar="ROW", choices=[row["number"] for row in rows])
    only = parser.parse_args().only
    for row in rows:
        if only in (None, row["number"]):
            print(f"row {row['number']}: {row['question']}", flush=True)
            for call in row["call"]:
                print("    " + ", ".join(f"{k} {v}" for k, v in certificate(call).items()), flush=True)
    if only is None:
        text = page(rows, limits)
        for call in (call for row in rows for call in row["call"] if "picture" in call):
            draw(call["picture"], call)
        with atomic_write(PAGE, "w") as file:
            file.write(text)
        print(PAGE.relative_to(ROOT), flush=True)


if __name__ == "__main__":
    main()
