"""What a process does to its surroundings: files written, hosts asked, pickles read. Also a server that is watched.

python tests/watching.py PORT RUNS LOG        serves the explorer; each offence becomes a line of LOG
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {
    "os.mkdir": 1,
    "os.rename": 2,
    "os.link": 2,
    "os.symlink": 2,
    "os.remove": 1,
    "os.rmdir": 1,
    "os.truncate": 1,
}
LOOPBACK = ("127.", "localhost", "::1", "0.0.0.0", "::")
PROCESSES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork")
UNPICKLING = "pickle.find_class"

_watches: list[Watch] = []


class Watch:
    """Takes down what the process does outside of a folder, through Python's audit events.

    Args:
        home: the folder that may be written to.
        told: called with each offence.
        alike: further events that are offences, such as ``UNPICKLING``.
    """

    def __init__(self, home: Path, told: Callable[[str], object], alike: tuple[str, ...] = ()) -> None:
        self.home, self.told, self.alike = os.path.realpath(home), told, alike

    def see(self, event: str, arguments: tuple) -> None:
        """Judges one event."""
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING:
                self._place(event, path)
        elif event in CHANGES:
            for path in arguments[: CHANGES[event]]:
                self._place(event, path)
        elif event == "socket.connect":
            connection, address = arguments
            # A datagram socket that is "connected" sends nothing.
            if connection.type == socket.SOCK_STREAM and isinstance(address, tuple):
                self._host(event, address[0])
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            self._host(event, arguments[0])
        elif event in self.alike:
            self.told(f"{event} {arguments[:2]!r}")

    def _place(self, event: str, path: object) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return  # a file that is open already
        real = os.path.realpath(os.fsdecode(path))
        if real != os.devnull and os.path.commonpath([real, self.home]) != self.home:
            self.told(f"{event} {real}")

    def _host(self, event: str, host: object) -> None:
        name = host.decode() if isinstance(host, bytes) else host
        if name and not str(name).startswith(LOOPBACK):
            self.told(f"{event} {name}")


def _hook(event: str, arguments: tuple) -> None:
    for watch in _watches:
        watch.see(event, arguments)


@contextmanager
def watching(home: Path, alike: tuple[str, ...] = (UNPICKLING, *PROCESSES)) -> Iterator[list[str]]:
    """The offences of this process while the block runs."""
    if not getattr(sys, "_latentlab_watched", False):  # a hook can't be taken off again
        sys.addaudithook(_hook)
        sys._latentlab_watched = True  # type: ignore[attr-defined]
    offences: list[str] = []
    watch = Watch(home, offences.append, alike)
    _watches.append(watch)
    try:
        yield offences
    finally:
        _watches.remove(watch)


def main(port: str, runs: str, log: str, base_path: str = "") -> None:
    """Serves the explorer, as ``latentlab explore`` does, and takes down what it does outside of its workspace."""
    from latentlab.app import server

    file = Path(log).open("w", buffering=1)
    _watches.append(Watch(Path(runs), lambda offence: file.write(offence + "\n")))
    sys.addaudithook(_hook)
    server.serve(int(port), runs, base_path=base_path)


if __name__ == "__main__":
    main(*sys.argv[1:])
