"""Maps are laid out in a process of their own, so that a dragged slider never waits for UMAP's compiler.

UMAP compiles for half a minute in every new process, and t-SNE computes as long, both mostly under Python's one
lock. The explorer therefore keeps one helper process, which compiles as soon as the server starts. Requests and
answers are lines of JSON that name files; the files are results as ``Result.save`` writes them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latentlab.analysis.encoding import Encoding
    from latentlab.analysis.projection import Projection

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

    def project(self, encoding: Encoding, method: str, seed: int = 0) -> Projection:
        """Lays an encoding out, as ``analysis.project`` does.

        Raises:
            ValueError: what ``analysis.project`` refuses.
            OSError: if the process died, or its files can't be written.
        """
        from latentlab.analysis import load_result

        with self._turn, tempfile.TemporaryDirectory(prefix="latentlab-map-") as folder:
            source, target = Path(folder) / "encoding", Path(folder) / "projection"
            encoding.save(source)
            request = {"source": str(source), "target": str(target), "method": method, "seed": seed}
            process = self._ready()
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except OSError:
                line = ""
            if not line:
                self._end()
                raise OSError(BROKEN)
            answer = json.loads(line)
            if "error" in answer:
                raise ValueError(answer["error"])
            return load_result(target)  # type: ignore[return-value]

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
    from latentlab.analysis import load_result, project, warm_up

    warming = warm_up()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["method"] == "umap":
                warming.join()
            layout = project(load_result(request["source"]), request["method"], seed=request["seed"])
            layout.save(request["target"])
            answer = {"done": True}
        except Exception as error:  # the process lives on, and the page says what went wrong
            answer = {"error": str(error) or type(error).__name__}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
