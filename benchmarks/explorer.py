"""What a dragged slider feels of another session's computation, in one run.

    python benchmarks/explorer.py                                  # about two minutes on two cores
    python benchmarks/explorer.py --run zoo:scenes-vae --pictures 600

A server with our live route runs in a process of its own, as ``latentlab explore`` runs it. One session drags: it asks
for a picture 60 times a second over the WebSocket, one at a time, and waits for each. It does so alone, and while the
server computes for another session, again and again, what the Layers page computes in the background. The order is
alone, beside, alone, beside, … so that whatever else the machine does falls on both. Printed are the middle and the
95th percentile of the latencies, and the ratio of the latter, which may be 2 at most.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time

import numpy as np

RATE = 60.0  # pictures a second
ROUNDS = 3


def main() -> None:
    """Measures every job and prints the table; fails where one more than doubles the 95th percentile."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", default="zoo:scenes-vae", help="the run that is dragged and computed on")
    parser.add_argument("--pictures", type=int, default=240, help="pictures a measurement")
    parser.add_argument("--only", default="", help="only jobs whose name holds this text")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.run)
    print(f"{options.run}, {options.pictures} pictures {ROUNDS} times each, {os.cpu_count()} cores")
    print(
        f"{'beside':28} {'p50 alone':>10} {'p95 alone':>10} {'p50 beside':>11} {'p95 beside':>11} {'ratio':>6}"
    )
    worst = 0.0
    for name, (alone, beside) in measure(options.run, options.pictures, options.only).items():
        quantiles = [float(np.quantile(times, q)) for times in (alone, beside) for q in (0.5, 0.95)]
        ratio = quantiles[3] / quantiles[1]
        worst = max(worst, ratio)
        print(f"{name:28} " + " ".join(f"{1000 * q:8.1f} ms" for q in quantiles) + f" {ratio:6.2f}")
    sys.exit(f"A job slows a drag {worst:.2f} times; 2 is allowed." if worst > 2.0 else 0)


def measure(run: str, pictures: int, only: str = "") -> dict[str, tuple[list[float], list[float]]]:
    """Latencies in seconds, alone and beside each job, by the job's name; ``only`` those that hold the text."""
    command = [sys.executable, __file__, "--serve", "--run", run]
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        known = json.loads(child.stdout.readline())

        def tell(word: str) -> None:
            child.stdin.write(word + "\n")
            child.stdin.flush()
            assert child.stdout.readline().strip() == "ok"

        drag(known, 60)  # warms up
        found = {}
        for name in [n for n in known["jobs"] if only in n]:
            alone, beside = [], []
            for _ in range(ROUNDS):
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

    from latentlab.app import wire

    port, rng = known["port"], np.random.default_rng(0)
    began, end = rng.standard_normal((2, known["dim"]))
    times = []
    with connect(
        f"ws://127.0.0.1:{port}/ll/decode",
        origin=f"http://127.0.0.1:{port}",
        subprotocols=["latentlab", known["token"]],
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
        uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, access_log=False)
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
    main()
