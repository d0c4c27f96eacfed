"""Twenty people at once, for five seconds; `benchmarks/soak.py` does the same with real pages, for half a minute.

Every picture is compared with what the session's own model draws of that code under the session's own edits, so one
picture of somebody else's fails. The fake that is caught is written down here too: sessions that share their edits.
"""

from __future__ import annotations

import gc
import json
import os
import threading
import time
import weakref
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from live import Client, served
from pace import slowdown

from latentlab.app import engine, wire
from latentlab.models.edits import Edit
from latentlab.runs import Run

SESSIONS, SECONDS, STOPS = 20, 5.0, 12
RUNS = ("alpha", "beta", "blocks", "kinds")


@dataclass
class Person:
    """A session's connection, path and edits, and what came of them."""

    client: Client
    codes: np.ndarray
    expected: list[np.ndarray]
    times: list[float] = field(default_factory=list)
    wrong: int = 0
    error: str = ""

    def drag(self, seconds: float) -> None:
        """Asks for picture after picture, now and then with a pause for the others."""
        end = time.monotonic() + seconds
        try:
            while (start := time.monotonic()) < end:
                at = len(self.times) % STOPS
                seen = self.client.image(self.codes[at])
                self.times.append(time.monotonic() - start)
                self.wrong += seen.shape != self.expected[at].shape or bool(
                    np.abs(seen.astype(int) - self.expected[at]).max() > 1
                )
        except Exception as error:
            self.error = repr(error)


def pictures(model, codes: np.ndarray, edits: tuple[Edit, ...]) -> list[np.ndarray]:
    with torch.inference_mode():
        images = model.decode(torch.from_numpy(codes), edits=edits).numpy()
    parts = [wire.pack_image(image) for image in images]
    return [np.frombuffer(p["data"], np.uint8).reshape(p["h"], p["w"], p["c"]).astype(int) for p in parts]


def edits_of(number: int) -> tuple[Edit, ...]:
    return (
        Edit("generator.fc1", (number, number + 3)),
        Edit("generator.deconv1", (number % 8,), "scale", 2.0),
    )


def enter(port: int, number: int, model, edits: tuple[Edit, ...]) -> Person:
    """A session of its own for a run that it shares; half bring their edits, half send them."""
    begin, end = model.sample_codes(2, number).numpy()
    codes = (begin + (end - begin) * np.linspace(0, 1, STOPS)[:, None]).astype(np.float32)
    held = edits if number % 2 else ()
    session = engine.registry.open(f"owner {number}", "traverse", model, z=codes[0], edits=held)
    client = Client(port, session.token)
    if not held:
        sent = client.control(type="edits", edits=[edit.to_dict() for edit in edits])
        assert sent == {"type": "ok", "of": "edits"}
    return Person(client, codes, pictures(model, codes, edits))


def together(people: list[Person], seconds: float) -> None:
    threads = [threading.Thread(target=person.drag, args=(seconds,)) for person in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def resident() -> float:
    """Memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def decoding() -> int:
    return sum(thread.name.startswith("latentlab-decode") for thread in threading.enumerate())


def until(condition, seconds: float = 180.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_twenty_sessions_drag_at_once_and_each_sees_its_own_pictures(planted: dict[str, Run], monkeypatch):
    """Catches state that is shared between sessions or threads, an error under load, memory that grows with the number
    of pictures, and sessions that outlive the people who opened them."""
    models = {name: Run.open(planted[name].path).model for name in RUNS}
    alive = [weakref.ref(model) for model in models.values()]
    with served() as port:
        people = [enter(port, i, models[RUNS[i % len(RUNS)]], edits_of(i)) for i in range(SESSIONS)]
        busy = slowdown()
        together(people, 0.5 * busy)
        gc.collect()
        before = resident()
        together(people, SECONDS * busy)
        growth = resident() - before
        times = np.array([t for person in people for t in person.times]) * 1e3
        print(f"{len(times)} pictures, p95 {np.quantile(times, 0.95):.0f} ms, growth {growth:.1f} MB")
        assert not [person.error for person in people if person.error]
        assert not [person.wrong for person in people if person.wrong]
        assert min(len(person.times) for person in people) > STOPS  # nobody starves
        assert growth < 50
        assert decoding() == SESSIONS
        for person in people:
            person.client.socket.socket.close()  # no goodbye
        assert until(lambda: decoding() == 0)
        assert len(engine.registry) == SESSIONS  # a page that is loaded anew finds its session again …
        monkeypatch.setattr(engine, "SESSION_TTL", 0.0)
        time.sleep(0.01)
        engine.registry.sweep()
        assert len(engine.registry) == 0  # … for a while
        models.clear()
        people.clear()
        assert until(lambda: gc.collect() >= 0 and not any(one() for one in alive))


def test_the_check_sees_sessions_that_share_their_edits(planted: dict[str, Run]):
    """The fake: one connection's edits reach another's pictures."""
    model = planted["alpha"].model
    with served() as port:
        person = enter(port, 0, model, edits_of(0))
        person.drag(0.2)
        assert person.times and not person.wrong
        person.client.control(type="edits", edits=[edit.to_dict() for edit in edits_of(1)])
        person.drag(0.2)
        assert person.wrong
        person.client.close()


def test_a_session_is_its_owners_alone(planted: dict[str, Run]):
    """Catches a slot that two owners share: what one page is given would move the other's picture."""
    model = planted["alpha"].model
    with served() as port:
        one, two = (enter(port, number, model, edits_of(number)) for number in (1, 3))
        engine.registry.open("owner 1", "traverse", model, z=one.codes[5], edits=())
        assert json.loads(one.client.socket.recv(timeout=10)) == {"type": "changed"}
        with pytest.raises(TimeoutError):
            two.client.socket.recv(timeout=0.2)
        assert np.abs(two.client.image().astype(int) - two.expected[0]).max() <= 1
        assert np.array_equal(one.client.image(), pictures(model, one.codes[5:6], ())[0])
        one.client.close()
        two.client.close()
