"""Twenty people at once: what each feels, what the server needs, and that nobody gets another's picture.

    python benchmarks/soak.py                                   # a minute on two cores
    python benchmarks/soak.py --sessions 40 --seconds 120 --after 150

An explorer is started in a process of its own, as ``latentlab explore`` starts it. Each session opens the Traverse page
over Streamlit's own socket with a run, a seed and edits of its own, then drags: it asks for a picture 60 times a second
over the WebSocket, one at a time. Every answer is compared with what the session's own model draws of that code under
its own edits. Printed are the latencies, the pictures a second, and the server's memory and threads before, during and
after; with ``--after`` also what is left so many seconds after everybody has vanished without a goodbye (sessions are
kept for two minutes, since a page that is loaded anew finds its own again).
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

RATE = 60.0  # pictures a second that a session asks for
STOPS = 24  # codes of its path
LARGEST_GROWTH = 200.0  # MB
RUNS = ("zoo:digits-vae", "zoo:sprites-beta-vae", "zoo:scenes-vae", "zoo:digits-m2")
SERVE = "import sys; from latentlab.app import server; server.serve(int(sys.argv[1]), sys.argv[2])"


@dataclass
class Session:
    """One person: a page, a connection, a path, and what was seen on it."""

    number: int
    run: str
    codes: np.ndarray
    edits: list[dict]
    expected: list[bytes]
    page: Any = None
    live: Any = None
    times: list[float] = field(default_factory=list)
    wrong: int = 0
    error: str = ""


@dataclass
class Outcome:
    """What a soak found.

    Args:
        growth: of the server's memory while all drag, in MB.
        wrong: pictures that were not the session's own.
        errors: sessions that ended in an error.
        p95: 95th percentile of all latencies in milliseconds.
        rate: pictures a second, of all sessions together.
        told: the figures in words, a line each.
        trouble: what must not be, a sentence each.
    """

    growth: float
    wrong: int
    errors: int
    p95: float
    rate: float
    told: list[str]
    trouble: list[str]


def main() -> None:
    """Runs the soak and prints what it found; fails on an error, a wrong picture or too much memory."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each drags")
    parser.add_argument("--after", type=float, default=0.0, help="seconds to wait after all have vanished")
    parser.add_argument("--runs", default=",".join(RUNS))
    options = parser.parse_args()
    found = outcome(options.sessions, options.seconds, options.after, options.runs.split(","))
    print("\n".join(found.told))
    sys.exit("\n".join(found.trouble) or 0)


def outcome(count: int, seconds: float, after: float = 0.0, runs: Sequence[str] = RUNS) -> Outcome:
    """Starts a server, lets so many sessions drag for so many seconds, and says what was found."""
    torch.set_num_threads(1)
    sessions = [person(i, list(runs)) for i in range(count)]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as log:
        port = free_port()
        server = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(port), folder],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
        )
        try:
            wait_for(port)
            found = soak(sessions, port, server.pid, seconds, after)
        finally:
            server.kill()
            server.wait()
        log.seek(0)
        if "Traceback" in (text := log.read()):
            found.trouble.append(f"the server's log holds a traceback: {text[-2000:]}")
    return found


def soak(sessions: list[Session], port: int, process: int, seconds: float, after: float) -> Outcome:
    """Opens the sessions, lets them drag, and says what came of it."""
    started = memory(process)
    for session in sessions:
        enter(session, port)
    for session in sessions:
        drag(session, 1.0)  # everything is imported and warm
        session.times.clear()
    before = memory(process)
    held = threads(process)
    most = [before]
    over = threading.Event()
    watch = threading.Thread(target=sample, args=(process, most, over))
    people = [threading.Thread(target=drag, args=(session, seconds)) for session in sessions]
    for thread in (watch, *people):
        thread.start()
    for thread in people:
        thread.join()
    over.set()
    watch.join()
    times = np.array([t for session in sessions for t in session.times]) * 1e3
    slowest = max(np.quantile(session.times, 0.95) for session in sessions) * 1e3
    rates = [len(session.times) / seconds for session in sessions]
    growth = max(most) - before
    load = os.getloadavg()[0]
    p50, p95, p99 = np.quantile(times, (0.5, 0.95, 0.99))
    wrong, errors = sum(s.wrong for s in sessions), sum(bool(s.error) for s in sessions)
    told = [
        f"{len(sessions)} sessions, {seconds:g} s, {os.cpu_count()} cores, load average {load:.0f}",
        f"pictures: {len(times):,}, {len(times) / seconds:.0f} a second, "
        f"{min(rates):.1f} to {max(rates):.1f} a session",
        f"latency: p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms, worst session's p95 {slowest:.1f} ms",
        f"memory: {started:.0f} MB empty, {before:.0f} MB with all sessions open, growth over the soak "
        f"{growth:.1f} MB",
        f"wrong pictures: {wrong}, sessions with an error: {errors}",
    ]
    for session in sessions:
        vanish(session)
    deadline = time.monotonic() + 20
    while threads(process) > held - len(sessions) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = threads(process)
    told.append(f"threads: {held} while all drag, {left} after they vanished")
    if after:
        time.sleep(after)
        told.append(f"memory {memory(process):.0f} MB, {threads(process)} threads, {after:g} s later")
    trouble = [f"session {s.number}: {s.error}" for s in sessions if s.error]
    trouble += [
        f"session {s.number} got {s.wrong} pictures that are not its own" for s in sessions if s.wrong
    ]
    if growth > LARGEST_GROWTH:
        trouble.append(f"The server's memory grew by {growth:.0f} MB; {LARGEST_GROWTH:.0f} are allowed.")
    if left > held - len(sessions):
        trouble.append(f"{left} of {held} threads are left, though {len(sessions)} sessions are gone.")
    return Outcome(growth, wrong, errors, float(p95), len(times) / seconds, told, trouble)


def person(number: int, runs: list[str]) -> Session:
    """A session's run, path and edits, and the pictures it must see."""
    from latentlab import Edit, Run
    from latentlab.app import wire

    name = runs[number % len(runs)]
    model = Run.open(name, device="cpu").model
    rng = np.random.default_rng(number)
    begin, end = model.sample_codes(2, number).float().numpy()
    shares = (1 - np.cos(np.linspace(0, 2 * np.pi, STOPS, endpoint=False))) / 2
    codes = (begin + (end - begin) * shares[:, None]).astype("<f4")
    first = model.generator.addresses[0]
    edits = (
        Edit(first, (int(rng.integers(8)), 8 + int(rng.integers(8)))),
        Edit(first, (16 + number % 8,), "scale", 2.0),
    )
    with torch.inference_mode():
        images = model.decode(torch.from_numpy(codes), edits=edits).float().numpy()
    expected = [wire.pack_image(image)["data"] for image in images]
    return Session(number, name, codes, [edit.to_dict() for edit in edits], expected)


def enter(session: Session, port: int) -> None:
    """Opens the page over Streamlit's socket, reads the session's token off it, and connects."""
    import json

    from streamlit.proto.BackMsg_pb2 import BackMsg

    session.page = dial(port, "/_stcore/stream", ["streamlit"])
    message = BackMsg()
    message.rerun_script.query_string = f"run={session.run}&seed={session.number}&start=Seed"
    message.rerun_script.page_name = "traverse"
    session.page.send(message.SerializeToString())
    token = None
    while token is None:
        token = re.search(rb'"token": ?"([\w-]{20,})"', session.page.recv(timeout=120))
    threading.Thread(target=drain, args=(session.page,), daemon=True).start()
    session.live = dial(port, "/ll/decode", ["latentlab", token[1].decode()])
    session.live.send(json.dumps({"type": "edits", "edits": session.edits}))
    while '"ok"' not in session.live.recv(timeout=60):
        pass


def dial(port: int, path: str, protocols: list[str]):
    """A WebSocket, as a page of the server opens it."""
    from websockets.sync.client import connect
    from websockets.typing import Origin, Subprotocol

    origin = f"http://127.0.0.1:{port}"
    return connect(
        origin.replace("http", "ws") + path,
        origin=Origin(origin),
        subprotocols=[Subprotocol(protocol) for protocol in protocols],
        compression=None,
        max_size=None,
        legacy=True,
    )


def drain(page) -> None:
    """Reads what Streamlit sends to the page, as a browser does."""
    with suppress(Exception):
        while True:
            page.recv()


def drag(session: Session, seconds: float) -> None:
    """Asks for picture after picture along the path, and compares each."""
    from latentlab.app import wire

    number, due = 0, time.perf_counter()
    end = due + seconds
    try:
        while (start := time.perf_counter()) < end:
            at = number % STOPS
            z = session.codes[at]
            session.live.send(wire.HEADER.pack(number, wire.WANT_IMAGE, len(z)) + z.tobytes())
            while isinstance(answer := session.live.recv(timeout=60), str):
                if '"error"' in answer:
                    raise RuntimeError(answer)
            session.times.append(time.perf_counter() - start)
            size = struct.unpack_from("<I", answer)[0]
            seen = np.frombuffer(answer, np.uint8, offset=4 + size).astype(int)
            wanted = np.frombuffer(session.expected[at], np.uint8)
            # One step of grey: another processor's order of sums.
            session.wrong += seen.shape != wanted.shape or int(np.abs(seen - wanted).max()) > 1
            number += 1
            due = max(due + 1 / RATE, time.perf_counter() - 1 / RATE)
            time.sleep(max(0.0, due - time.perf_counter()))
    except Exception as error:
        session.error = f"{type(error).__name__}: {error}"


def vanish(session: Session) -> None:
    """Leaves without a goodbye."""
    for connection in (session.live, session.page):
        with suppress(Exception):
            connection.socket.shutdown(socket.SHUT_RDWR)


def sample(process: int, most: list[float], over: threading.Event) -> None:
    """Takes the server's memory down twice a second."""
    while not over.wait(0.5):
        most.append(memory(process))


def memory(process: int) -> float:
    """Resident memory in MB (10**6 bytes)."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def threads(process: int) -> int:
    """How many threads a process has."""
    return sum(1 for _ in Path(f"/proc/{process}/task").iterdir())


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int) -> None:
    """Waits until the server answers."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2):
            return
        time.sleep(0.2)
    sys.exit("The server did not start.")


if __name__ == "__main__":
    main()
