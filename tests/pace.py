"""How busy the machine is, for tests that hold a time or a rate against a limit, and then stretch it."""

from __future__ import annotations

import subprocess
import sys


def slowdown() -> float:
    """How much other processes slow this machine down: wall time over processor time of two busy processes."""
    spin = "import time; t = time.time(), time.process_time(); x = [i * i for i in range(3_000_000)]; "
    spin += "print((time.time() - t[0]) / max(time.process_time() - t[1], 1e-3))"
    busy = [
        subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    return max(1.0, *(float(process.communicate()[0]) for process in busy))


def stretched(busy: float) -> float:
    """By how much a limit on a page grows on a machine slowed down ``busy`` times; 1 on a quiet one.

    A frame crosses three processes, each of which waits for its turn when there are others: what costs one busy loop
    a tenth costs a page half as much again.
    """
    return 1 + 8 * max(0.0, busy - 1.05)
