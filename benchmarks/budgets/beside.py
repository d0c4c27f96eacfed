"""What a dragged slider feels of another session's computation.

A server with our live route runs in a process of its own, as ``latentlab explore`` runs it. One session drags: it asks
for a picture 60 times a second over the WebSocket, one at a time, and waits for each. It does so alone, and while the
server computes for another session, again and again, what the Layers page computes in the background. The order is
alone, beside, alone, beside, … so that whatever else the machine does falls on both.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from budgets.chromium import Explorer
from budgets.finding import Finding

RUN = "zoo:scenes-vae"
RATE = 60.0  # pictures a second
ROUNDS = 2
PICTURES = 180
LARGEST_RATIO = 2.0


def slowdowns(explorer: Explorer) -> Iterator[Finding]:
    """For each job, the 95th percentile of the latencies beside it, by that alone."""
    found = measure(RUN, 40, "dissection", 1) if explorer.smoke else measure(RUN, PICTURES)
    for name, (alone, beside) in found.items():
        quantiles = [1000 * float(np.quantile(times, q)) for times in (alone, beside) for q in (0.5, 0.95)]
        told = "alone p50 {:.1f} ms, p95 {:.1f} ms; beside {:.1f}, {:.1f}".format(*quantiles)
        yield Finding(
            f"drag beside {name}, p95 over that alone",
            quantiles[3] / quantiles[1],
            "times",
            LARGEST_RATIO,
            more=told,
        )


def measure(
    run: str, pictures: int, only: str = "", rounds: int = ROUNDS
) -> dict[str, tuple[list[float], list[float]]]:
    """Latencies in seconds, alone and beside each job, by the job's name; ``only`` those that hold the text."""
    command = [sys.executable, "-m", "budgets.beside", run]
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    told, answers = child.stdin, child.stdout
    assert told is not None and answers is not None
    try:
        known = json.loads(answers.readline())

        def tell(word: str) -> None:
            told.write(word + "\n")
            told.flush()
            assert answers.readline().strip() == "ok"

        drag(known, 60)  # warms up
        found = {}
        for name in [n for n in known["jobs"] if only in n]:
            alone, beside = [], []
            for _ in range(rounds):
                alone += drag(known, pictures)
                tell(name)
                beside += drag(known, pictures)
                tell("stop")
            found[name] = (alone, beside)
        return found
    finally:
        child.kill()
        child.wait()


def drag(known: dict, pictures: int) -> list[float]:
    """The latency of each picture of a drag."""
    from websockets.sync.client import connect
    from websockets.typing import Origin, Subprotocol

    from latentlab.app import wire

    port, rng = known["port"], np.random.default_rng(0)
    began, end = rng.standard_normal((2, known["dim"]))
    times = []
    with connect(
        f"ws://127.0.0.1:{port}/ll/decode",
        origin=Origin(f"http://127.0.0.1:{port}"),
        subprotocols=[Subprotocol("latentlab"), Subprotocol(known["token"])],
        compression=None,
    ) as live:
        due = time.perf_counter()
        for number in range(pictures):
            z = (began + (end - began) * 0.5 * (1 + np.sin(number / 12))).astype("<f4")
            start = time.perf_counter()
            live.send(wire.HEADER.pack(number, wire.WANT_IMAGE, len(z)) + z.tobytes())
            while isinstance(live.recv(timeout=30), str):
                pass
            times.append(time.perf_counter() - start)
            due = max(due + 1 / RATE, time.perf_counter() - 1 / RATE)
            time.sleep(max(0.0, due - time.perf_counter()))
    return times


def jobs(run) -> dict:
    """What the Layers page computes in the background, on the generator's first map or the encoder's."""
    from latentlab import analysis
    from latentlab.app.calls import Call, data_of, some_images

    maps = [s.address for s in analysis.stages_of(run.model) if len(s.shape) == 3]
    sees = [s.address for s in analysis.stages_of(run.model, "encoder") if len(s.shape) == 3]
    images = some_images(run, 64, 0)
    found = {
        "ranking of units": Call(
            run, "rank_units", (sees[1], "encoder", images), {"batch_size": 64}, progress=True
        ),
        "dissection": Call(
            run, "dissect", (sees[1], "encoder", data_of(run)), {"n_images": 128}, progress=True
        ),
        "latent to unit to pixel": Call(
            run, "latent_unit_pixel", (maps[0],), {"n": 8, "batch_size": 64}, progress=True
        ),
        "datapath": Call(
            run, "datapath", (None, "generator", [maps[0]]), {"n": 12, "steps": 60}, progress=True
        ),
        "deconvnet": Call(run, "deconvnet", ("encoder", sees[1], images), progress=True),
        "activation maximisation": Call(
            run,
            "maximise_activation",
            ("generator", maps[0], (1,)),
            {"n_reference": 2000, "batch_size": 64},
            progress=True,
        ),
    }
    return found


def serve(name: str) -> None:
    """The server: prints where it is, then starts and stops jobs as it is told on its standard input."""
    import uvicorn
    from starlette.applications import Starlette

    from latentlab import Run
    from latentlab.app import engine, server
    from latentlab.app.jobs import Job

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = Starlette(routes=server.routes(), lifespan=server.lifespan)
    running = uvicorn.Server(
        uvicorn.Config(
            app, host="127.0.0.1", port=port, log_config=None, log_level="warning", access_log=False
        )
    )
    threading.Thread(target=lambda: asyncio.run(running.serve()), daemon=True).start()
    while not running.started:
        time.sleep(0.01)
    run = Run.open(name)
    known, task = jobs(run), None
    session = engine.registry.open("one", "traverse", run.model, z=run.model.latent_space.sample(1, 0)[0])
    told = {"port": port, "token": session.token, "dim": session.dim, "jobs": list(known)}
    print(json.dumps(told), flush=True)
    for line in sys.stdin:
        word = line.strip()
        if task is not None:
            task.cancel()
            task.wait(60)
            task = None
        if word != "stop":

            def again(report, call=known[word]) -> None:
                while True:
                    report(0.0, "again")
                    call(report)

            task = Job(again, heavy=True)
            time.sleep(0.3)  # it is in its stride
        print("ok", flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
