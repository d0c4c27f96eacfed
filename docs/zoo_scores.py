"""Scores the shipped runs and writes the reports and the cards' sections into the package's sources.

    python docs/zoo_scores.py [RUN …]

About half an hour for all on two cores. Encodings are kept in ./runs/.cache meanwhile.
"""

from __future__ import annotations

import sys

from latentlab import Run
from latentlab.evaluation import evaluate, save_report
from latentlab.runs import Workspace

# Run -> protocol -> number of states (None: all of them); scenes are ray-traced, so a part of them is scored.
WANTED = {
    "sprites-beta-vae": {"dlib": None, "continuous": None, "images": None},
    "scenes-vae": {"dlib": 60_000},
    "scenes-beta-vae": {"dlib": 60_000},
    "scenes-pairs": {"dlib": 60_000},
    "scenes-growing": {"dlib": 20_000},
    "sprites-beta-tcvae": {"dlib": None, "continuous": None, "images": None},
    "digits-vae": {"images": None},
    "digits-pooled": {"images": None},
    "digits-m2": {"images": None},
    "digits-infogan": {"images": None},
    "digits-stylegan": {"images": None},
}


def main() -> None:
    """Scores the runs that are named, or all."""
    home = Workspace("runs")
    for name in sys.argv[1:] or WANTED:
        run = Run.open(f"zoo:{name}")
        for protocol, states in WANTED[name].items():
            report = evaluate(run, protocol, states=states, workspace=home)
            path = save_report(run, report)
            print(f"{path}\n{report.table()}\n", flush=True)


if __name__ == "__main__":
    main()
