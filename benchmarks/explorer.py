"""How the explorer feels: every budget it is built to, measured in one command and printed as one table.

    python benchmarks/explorer.py                         # about eight minutes on two idle cores
    python benchmarks/explorer.py --only drag map         # some of it: see --help for the names
    python benchmarks/explorer.py --out budgets.md        # or budgets.json
    python benchmarks/explorer.py --smoke                 # does everything work? briefly; its numbers mean nothing

Server and browser (Chromium, headless, no GPU) share the machine's cores, as on a laptop. Where a time is held against
a budget it is the 95th percentile, unless the row says otherwise. Fails when a budget is broken. Wall times: whatever
else the machine does makes them longer, so the load average is printed with them.

- drag: a slider dragged on Traverse by each engine, pictures a second of the browser engine at the largest decoder that
  it has a budget for, and a slider let go where no live connection can be had
- toggle: a unit switched off on Layers
- pages: each page from its address to its first image
- html: every shipped run as one file, opened from disk without a network
- map: a hundred thousand and a million points: first draw, pan, zoom, lasso (map.py)
- beside: a drag while the server computes for somebody else
- soak: twenty people at once (soak.py)
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import map as points
import soak
from budgets import beside, drags, exported, pages
from budgets.chromium import Explorer, explorer
from budgets.finding import Finding, machine, table, write

FRAMES = 60.0
JITTER = 2.0  # frames a second: a count over three seconds is off by one at either end


def map_figures(explorer: Explorer) -> Iterator[Finding]:
    """First draw, lasso, panning and zooming of large maps."""
    sizes = (100_000,) if explorer.smoke else (100_000, points.MILLION)
    with points.prepared() as address:
        for size, found in points.figures(explorer.browser, address, sizes):
            what = f"map of {size:,} points"
            yield Finding(f"{what}, first draw", found["first draw, s"], "s", points.BUDGET["first draw"])
            told = f"p50 of {points.LASSOS}, the first {found['lasso, s (first)']:.2f}"
            yield Finding(
                f"{what}, lasso to images", found["lasso, s (middle)"], "s", points.BUDGET["lasso"], more=told
            )
            for move in points.MOVES:
                rate, told = (
                    found[f"{move}, frames a second"],
                    f"{found[f'{move}, ms a frame']:.1f} ms a frame",
                )
                # A screen of 60 Hz shows no more than 60.
                yield Finding(f"{what}, {move}", rate, "frames a second", FRAMES - JITTER, True, told)


def soak_figures(explorer: Explorer) -> Iterator[Finding]:
    """Many sessions at once: memory, errors, pictures of others."""
    count, seconds = (4, 2.0) if explorer.smoke else (20, 20.0)
    found = soak.outcome(count, seconds)
    told = f"{found.rate:.0f} pictures a second, p95 {found.p95:.0f} ms"
    what = f"{count} sessions, {seconds:g} s"
    yield Finding(f"{what}: memory growth", found.growth, "MB", soak.LARGEST_GROWTH, more=told)
    told = "; ".join(found.trouble)[:200] or "each picture compared with the session's own model"
    yield Finding(f"{what}: errors and wrong pictures", len(found.trouble), "", 0, more=told)


MEASUREMENTS: dict[str, tuple[Callable[[Explorer], Iterator[Finding]], ...]] = {
    "drag": (drags.engines, exported.largest_decoder),
    "toggle": (drags.toggles,),
    "pages": (pages.first_images,),
    "html": (exported.files,),
    "map": (map_figures,),
    "beside": (beside.slowdowns,),
    "soak": (soak_figures,),
}


def main() -> None:
    """Measures, prints the table, and fails where a budget is broken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=list(MEASUREMENTS), choices=list(MEASUREMENTS))
    parser.add_argument("--out", type=Path, help="write the table here too, as Markdown or as .json")
    parser.add_argument("--smoke", action="store_true", help="once and briefly, to see that everything works")
    options = parser.parse_args()
    findings, began = [], time.monotonic()
    with explorer(options.smoke) as running:
        where = {**machine(), "Chromium": running.browser.version}
        print(", ".join(f"{name} {value}" for name, value in where.items()), flush=True)
        for name in options.only:
            for measure in MEASUREMENTS[name]:
                for finding in measure(running):
                    findings.append(finding)
                    print(f"[{time.monotonic() - began:4.0f} s] {': '.join(finding.cells()[:2])}", flush=True)
    print(f"\n{table(findings)}")
    if options.out:
        write(options.out, findings, where)
    broken = [finding.what for finding in findings if finding.holds is False]
    sys.exit(f"Broken: {'; '.join(broken)}." if broken else 0)


if __name__ == "__main__":
    main()
