"""One measurement, and the table of them."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Finding:
    """What was measured and what is allowed.

    Args:
        what: what somebody does and waits for.
        measured: the number that is held against the budget.
        unit: of both, such as "ms".
        budget: the largest number allowed, or the smallest; None where nothing is promised.
        at_least: whether the budget is the smallest number allowed.
        more: other numbers of the same measurement, in words.
    """

    what: str
    measured: float
    unit: str
    budget: float | None = None
    at_least: bool = False
    more: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the budget is kept; None where there is none. What isn't a number keeps no budget."""
        if self.budget is None:
            return None
        return bool(self.measured >= self.budget if self.at_least else self.measured <= self.budget)

    def cells(self) -> tuple[str, str, str, str]:
        """The row of the table."""
        measured = f"{number(self.measured)} {self.unit}" + (f" ({self.more})" if self.more else "")
        sign = "≥" if self.at_least else "≤"
        budget = "" if self.budget is None else f"{sign} {number(self.budget)} {self.unit}"
        return self.what, measured, budget, {None: "", True: "yes", False: "NO"}[self.holds]


def number(value: float) -> str:
    """Three digits, no more."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"


def times(what: str, milliseconds: Sequence[float], budget: float | None, more: str = "") -> Finding:
    """The 95th percentile of some times in milliseconds, which is what a budget is about, and their middle."""
    middle, late = np.quantile(milliseconds, (0.5, 0.95))
    told = f"p50 {number(middle)}, n {len(milliseconds)}" + (f", {more}" if more else "")
    return Finding(f"{what}, p95", float(late), "ms", budget, more=told)


HEADS = ("what", "measured", "budget", "holds")


def table(findings: Iterable[Finding]) -> str:
    """The findings as a Markdown table, padded to be read as it is."""
    rows = [HEADS, *(finding.cells() for finding in findings)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "| " + " | ".join("-" * w for w in widths) + " |", *lines[1:]])


def machine() -> dict[str, str]:
    """What the findings were measured on and with."""
    packages = {name: version(name) for name in ("latentlab", "torch", "streamlit", "numpy")}
    return {
        "cores": str(os.cpu_count()),
        "load average": f"{os.getloadavg()[0]:.2f}",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        **packages,
    }


def write(path: Path, findings: Sequence[Finding], where: dict[str, str]) -> None:
    """Writes the table: as JSON where the name ends so, else as Markdown."""
    if path.suffix == ".json":
        rows = [{**asdict(finding), "holds": finding.holds} for finding in findings]
        path.write_text(json.dumps({"machine": where, "findings": rows}, indent=1) + "\n", encoding="utf-8")
    else:
        words = ", ".join(f"{name} {value}" for name, value in where.items())
        path.write_text(f"{table(findings)}\n\n{words}\n", encoding="utf-8")
