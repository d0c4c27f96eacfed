"""How often one page may ask for what costs the server something."""

from __future__ import annotations

import threading
import time

FETCHES, MINUTE = 30, 60.0


class Allowance:
    """So many takings in each span of time, which begins with the first of them. Thread-safe.

    Args:
        most: takings in a span.
        seconds: how long a span is.
    """

    def __init__(self, most: int = FETCHES, seconds: float = MINUTE) -> None:
        self.most = most
        self.seconds = seconds
        self._lock = threading.Lock()
        self.clear()

    def take(self) -> bool:
        """Whether one more is allowed, and counts it."""
        with self._lock:
            now = time.monotonic()
            if now - self._began >= self.seconds:
                self._began, self._taken = now, 0
            if self._taken >= self.most:
                return False
            self._taken += 1
            return True

    def clear(self) -> None:
        """Begins anew."""
        self._began, self._taken = -float("inf"), 0
