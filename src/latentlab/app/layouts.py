"""Maps are laid out in a process of their own, so that a dragged slider never waits for UMAP's compiler.

UMAP compiles for half a minute in every new process, and t-SNE computes as long, both mostly under Python's one
lock. The explorer therefore keeps one helper process, which compiles as soon as the server starts. Requests and
answers are lines of JSON that name files; the files are results as ``Result.save`` writes them.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from latentlab.analysis.projection import Projection

NAMES = {"pca": "PCA", "umap": "UMAP", "tsne": "t-SNE"}
BROKEN = "The process that lays maps out has ended; it is started again at the next try."


class LayoutProcess:
    """The helper process, started when it is first needed and again after it has died."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Starts the process, unless it runs; it prepares itself in the background."""
        with self._turn:
            self._ready()

    def project(
        self,
        codes: np.ndarray,
        method: str,
        seed: int = 0,
        start: np.ndarray | None = None,
        report: Callable[[float, str], None] | None = None,
    ) -> Projection:
        """Lays codes out, as ``analysis.project`` does.

        Args:
            codes: (n, dim).
            method: "pca", "umap" or "tsne".
            seed: of the layout.
            start: positions (n, 2) to start from.
            report: told how far it is, several times a second; when it raises, the layout is given up.

        Raises:
            ValueError: what ``analysis.project`` refuses.
            OSError: if the process died, or its files can't be written.
        """
        import numpy as np

        from latentlab.analysis import load_result

        with self._turn, tempfile.TemporaryDirectory(prefix="latentlab-map-") as folder:
            source, target = Path(folder) / "codes.npz", Path(folder) / "projection"
            arrays: Any = {"codes": codes} if start is None else {"codes": codes, "start": start}
            np.savez(source, **arrays)
            request = {"source": str(source), "target": str(target), "method": method, "seed": seed}
            answer = self._ask(request, report or (lambda share, message: None))
            if "error" in answer:
                raise ValueError(answer["error"])
            return load_result(target)  # type: ignore[return-value]

    def _ask(self, request: dict, report: Callable[[float, str], None]) -> dict:
        process = self._ready()
        assert process.stdin is not None and process.stdout is not None
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        except OSError:
            self._end()
            raise OSError(BROKEN) from None
        stdout = process.stdout

        def read() -> None:  # a pipe can't be waited for with a limit on every system
            answered = False
            while not answered:
                line = ""
                with suppress(OSError, ValueError):
                    line = stdout.readline()
                line = line if line.endswith("\n") else ""  # cut off where the process was ended
                lines.put(line)
                answered = not line or "share" not in json.loads(line)

        threading.Thread(target=read, daemon=True, name="latentlab-layout").start()
        share, message = 0.0, "preparing …"
        try:
            while True:
                with suppress(queue.Empty):
                    line = lines.get(timeout=0.25)
                    if not line:
                        raise OSError(BROKEN)
                    answer = json.loads(line)
                    if "share" not in answer:
                        return answer
                    share, message = answer["share"], answer["message"]
                report(share, message)
        except BaseException:
            self._end()  # nobody wants its answer any more, and it can't be told to stop
            raise

    def close(self) -> None:
        """Ends the process."""
        with self._turn:
            self._end()

    def _ready(self) -> subprocess.Popen[str]:
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._process is None:
            self._process = subprocess.Popen(
                # -P: a file in the folder one stands in must not shadow a module.
                [sys.executable, "-P", "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):  # what was not yet written has nobody to read it
                    if pipe is not None:
                        pipe.close()


def serve() -> None:
    """The helper process: answers requests until its input ends with the server."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not be taken for an answer
    if hasattr(os, "nice"):
        os.nice(10)  # a dragged slider goes first
    import numpy as np

    from latentlab.analysis import project, warm_up

    def say(answer: dict) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    warming = warm_up()
    for line in sys.stdin:
        request = json.loads(line)
        method = request["method"]
        try:
            if method == "umap":
                say({"share": 0.02, "message": "compiling UMAP, once in a session …"})
                warming.join()
            say({"share": 0.05, "message": f"{NAMES[method]} looks for neighbours …"})
            with np.load(request["source"], allow_pickle=False) as file:
                codes, start = file["codes"], file["start"] if "start" in file else None
            layout = project(
                codes,
                method,
                seed=request["seed"],
                start=start,
                progress=lambda done, total: say(
                    {
                        "share": 0.1 + 0.9 * done / total,
                        "message": f"{NAMES[method]} round {done} of {total}",  # noqa: B023
                    }
                ),
            )
            layout.save(request["target"])
            answer = {"done": True}
        except Exception as error:  # the process lives on, and the page says what went wrong
            answer = {"error": str(error) or type(error).__name__}
        say(answer)


if __name__ == "__main__":
    serve()
