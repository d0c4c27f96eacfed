"""What a workspace keeps is read, changed and written again: two people, or two servers, lose nothing of each other."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from latentlab import files
from latentlab.analysis.direction import Direction
from latentlab.app import server, state
from latentlab.app.kept_codes import KeptCode, codes_file, forget_code, keep_code, load_codes
from latentlab.app.mapping.groups import ImageGroup, forget_group, groups_file, keep_group, load_groups
from latentlab.files import sole_writer
from latentlab.runs import Workspace

RUN: Any = SimpleNamespace(digest="0123456789abcdef" * 4)
MANY = 24


@dataclass(frozen=True)
class Store:
    """One of the files that people add to and take from by name."""

    file: Callable[[Path], Path]
    keep: Callable[[Path, str], None]
    forget: Callable[[Path, str], None]
    names: Callable[[Path], list[str]]


def _codes(home: Path) -> Path:
    return codes_file(Workspace(home), RUN)


def _groups(home: Path) -> Path:
    return groups_file(Workspace(home), "data")


STORES = {
    "codes": Store(
        _codes,
        lambda home, name: keep_code(_codes(home), KeptCode(name, "z", np.zeros(3))),
        lambda home, name: forget_code(_codes(home), name),
        lambda home: [c.name for c in load_codes(_codes(home))],
    ),
    "groups": Store(
        _groups,
        lambda home, name: keep_group(_groups(home), ImageGroup(name, np.arange(3))),
        lambda home, name: forget_group(_groups(home), name),
        lambda home: [g.name for g in load_groups(_groups(home))],
    ),
    "directions": Store(
        lambda home: home / "directions" / f"{RUN.digest[:16]}.json",
        lambda home, name: state.save_direction(RUN, Direction(name, (1.0, 0.0), space="z")),
        lambda home, name: state.drop_direction(RUN, name),
        lambda home: [d.name for d in state.directions(RUN)],
    ),
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Store:
    """Each of them in turn."""
    return STORES[request.param]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv(server.RUNS_VARIABLE, str(tmp_path))
    return tmp_path


def at_once(calls: list[Callable[[], None]]) -> None:
    start = threading.Barrier(len(calls))
    failed: list[BaseException] = []

    def do(call: Callable[[], None]) -> None:
        start.wait()
        try:
            call()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=do, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed


def test_threads_that_keep_and_forget_at_once_lose_nothing(store: Store, home: Path) -> None:
    """Would catch a list that is written over what others have put there since it was read."""
    old, new = ([f"{word} {i}" for i in range(MANY)] for word in ("old", "new"))
    at_once([lambda name=name: store.keep(home, name) for name in old])
    assert sorted(store.names(home)) == sorted(old)
    gone = [lambda name=name: store.forget(home, name) for name in old]
    at_once([*gone, *(lambda name=name: store.keep(home, name) for name in new)])
    assert sorted(store.names(home)) == sorted(new)
    assert [path.name for path in store.file(home).parent.iterdir()] == [store.file(home).name]


def test_what_another_process_writes_meanwhile_is_not_lost(
    store: Store, home: Path, holder: Callable[[Path], subprocess.Popen]
) -> None:
    """Would catch a lock that only the threads of one server share."""
    store.keep(home, "mine")
    path = store.file(home)
    other = holder(path)
    writer = threading.Thread(target=store.keep, args=(home, "mine, later"))
    writer.start()
    writer.join(0.3)
    assert writer.is_alive() and store.names(home) == ["mine"]  # it waits for its turn; readers don't
    path.unlink()  # what the other server makes of the file while it is its turn
    assert other.stdin is not None
    other.stdin.close()
    writer.join()
    assert store.names(home) == ["mine, later"]


@pytest.fixture
def holder() -> Iterator[Callable[[Path], subprocess.Popen]]:
    """Starts another process whose turn it is to write a file, until its input is closed."""
    held: list[subprocess.Popen] = []

    def hold(path: Path) -> subprocess.Popen:
        code = (
            "import sys; from pathlib import Path; from latentlab.files import sole_writer\n"
            "with sole_writer(Path(sys.argv[1])):\n"
            "    print('held', flush=True)\n"
            "    sys.stdin.read()"
        )
        held.append(
            subprocess.Popen(
                [sys.executable, "-c", code, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        stdout = held[-1].stdout
        assert stdout is not None and stdout.readline() == "held\n"
        return held[-1]

    yield hold
    for process in held:
        with process:
            process.kill()


def test_who_gets_no_turn_is_told_and_changes_nothing(
    store: Store,
    home: Path,
    holder: Callable[[Path], subprocess.Popen],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store.keep(home, "mine")
    other = holder(store.file(home))
    with monkeypatch.context() as patched:
        patched.setattr(files, "PATIENCE", 0.1)
        with pytest.raises(OSError, match=r"written by somebody else for 0[.]1 seconds; try again"):
            store.keep(home, "too late")
    assert store.names(home) == ["mine"]
    other.kill()  # a server that is killed while it is its turn keeps nobody waiting
    other.wait()
    store.keep(home, "now")
    assert store.names(home) == ["mine", "now"]


def test_where_no_turns_can_be_taken_files_are_written_all_the_same(
    store: Store, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network file systems know no locks."""

    def refuse(*_: object) -> None:
        raise OSError(95, os.strerror(95))

    if files.fcntl is not None:
        monkeypatch.setattr(files.fcntl, "flock", refuse)
    at_once([lambda i=i: store.keep(home, f"code {i}") for i in range(8)])
    assert len(store.names(home)) == 8


@pytest.mark.parametrize("content", [b"{", b'{"format": 2, "codes": [], "directions": []}', b"\xff\x00"])
def test_a_file_that_is_not_understood_is_left_as_it_is(store: Store, home: Path, content: bytes) -> None:
    """Would catch: one damaged byte, or a file of a later version, and everything kept so far is written over."""
    path = store.file(home)
    path.parent.mkdir()
    path.write_bytes(content)
    for act in (store.keep, store.forget):
        with pytest.raises(ValueError, match=f"^Nothing was saved: .*{path.stem}"):
            act(home, "mine")
    assert path.read_bytes() == content


def test_a_turn_is_given_back_when_the_writer_fails(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), sole_writer(tmp_path / "new" / "file"):
            raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["new"] and not list((tmp_path / "new").iterdir())
