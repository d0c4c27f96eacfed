"""Jobs: computations in the background that say how far they are, can be cancelled and let dragged sliders go first."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from latentlab.app import engine, live_session

USER_ERRORS = (ValueError, TypeError, OSError)
"""What our functions raise with a sentence a person can act on."""

Report = Callable[[float, str], None]
"""``report(share, message)``: a job's work calls it now and then, share in [0, 1]; it may raise to cancel."""

NICENESS = 10  # of a job's own thread, where the system has such a thing
DRAGGED = 0.1  # seconds since the last live picture during which somebody is taken to be dragging
RESTS = 4.0  # how many times as long as it worked a job rests meanwhile …
LONGEST_PAUSE = 1.0  # … and how many seconds at most
DESERTED = 10.0  # seconds after which a heavy job ends whose sessions have all gone away

LAST_WAIT = 10.0  # seconds that Python's end waits for jobs, which it has cancelled

_one_at_a_time = threading.Semaphore(1)
_begun: weakref.WeakSet[Job] = weakref.WeakSet()


class Cancelled(Exception):
    """Raised inside a job at its next report, after somebody cancelled it."""


class Job:
    """One computation in the background: a page asks how far it is and is never blocked by it.

    Args:
        work: does it; receives ``report``. Work that never reports can't be cancelled before its end.
        heavy: it takes a core for seconds: such jobs go one after the other, and pause while somebody drags.

    Attributes:
        share: how much is done, in [0, 1].
        message: what it is at.
        result: what the work returned.
        error: why there is no result, one sentence.
        cancelled: whether it was ended by ``cancel``.
        deserted: whether it ended because nobody was left who waits for it.
        audience: the sessions that wait for it.
    """

    def __init__(self, work: Callable[[Report], Any], heavy: bool = False) -> None:
        self.share = 0.0
        self.message = "waiting …"
        self.result: Any = None
        self.error = ""
        self.cancelled = self.deserted = False
        self.started = time.monotonic()
        self.heavy = heavy
        self.audience: set[str] = set()
        self._work = work
        self._done = threading.Event()
        self._stop = threading.Event()
        self._reported = self._awaited = self._looked = self.started
        _begun.add(self)
        threading.Thread(target=self._run, daemon=True, name="latentlab-job").start()

    def _run(self) -> None:
        held = False
        try:
            if self.heavy:
                self.message = "waiting for another computation …"
                while not held:
                    held = _one_at_a_time.acquire(timeout=0.1)
                    self._check()
                _be_nice()
            self._reported = time.monotonic()
            self.result = self._work(self._report)
        except Cancelled:
            self.cancelled = True
        except USER_ERRORS as error:
            self.error = str(error)
        except Exception as error:  # a job must always end, and its page must say something
            self.error = f"This could not be computed ({type(error).__name__}: {error})."
        finally:
            if held:
                _one_at_a_time.release()
            self._done.set()

    def _report(self, share: float, message: str) -> None:
        self._check()
        self.share, self.message = min(max(share, 0.0), 1.0), message
        if self.heavy:
            self._yield()
        self._reported = time.monotonic()

    def _check(self) -> None:
        if self._stop.is_set():
            raise Cancelled
        now = time.monotonic()
        if not self.heavy or now - self._looked < 1.0:
            return
        self._looked = now
        if not self.audience or any(engine.present(owner) for owner in tuple(self.audience)):
            self._awaited = now
        elif now - self._awaited > DESERTED:
            self.deserted = True
            raise Cancelled

    def _yield(self) -> None:
        """Rests longer than it has worked since its last report, while pictures are being drawn live."""
        now = time.monotonic()
        end = now + min(LONGEST_PAUSE, RESTS * (now - self._reported))
        while now < end and now - live_session.last_answer() < DRAGGED:
            if self._stop.wait(min(0.01, end - now)):
                raise Cancelled
            now = time.monotonic()

    def cancel(self) -> None:
        """Ends it at its next report; ``cancelled`` is then true and there is no result."""
        if not self.done:
            self.message = "stopping …"
            self._stop.set()

    def leave(self, owner: str) -> bool:
        """Takes note that a session no longer waits for it; a heavy job that nobody waits for is cancelled.

        Returns:
            Whether it was cancelled.
        """
        self.audience.discard(owner)
        if self.heavy and not self.done and not self.audience:
            self.cancel()
            return True
        return False

    @property
    def stopping(self) -> bool:
        """Whether it was told to end and has not yet."""
        return self._stop.is_set() and not self.done

    @property
    def done(self) -> bool:
        """Whether it has ended, with a result, an error or because it was cancelled."""
        return self._done.is_set()

    @property
    def seconds(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.started

    def wait(self, seconds: float) -> bool:
        """Waits for its end for a moment, so that quick jobs need no second look; whether it has ended."""
        return self._done.wait(seconds)


def _be_nice() -> None:
    """Lets other threads go first, where the system gives each thread a priority of its own."""
    if hasattr(os, "setpriority") and os.uname().sysname == "Linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def end_all(seconds: float = LAST_WAIT) -> bool:
    """Cancels all jobs that go on and waits for them; whether all have ended. Who asks for one again gets it anew.

    Python calls it when it ends: a thread that is inside of torch by then would abort the process.
    """
    going = [job for job in tuple(_begun) if not job.done]
    for job in going:
        job.deserted = True
        job.cancel()
    end = time.monotonic() + seconds
    return all([job.wait(max(0.0, end - time.monotonic())) for job in going])


atexit.register(end_all)
