"""Who trains what: a note that no old file, no copy and no other process with the same number can pass for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from latentlab import processes
from latentlab.processes import JOB, announced, process_birth, trainings

ANNOUNCE = """
import sys, time
from pathlib import Path
from latentlab import processes
with processes.announced(Path(sys.argv[1]), "cpu", lambda: ""):
    print("there", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def locks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """This test's own list of trainings."""
    folder = tmp_path / "locks"
    folder.mkdir()
    monkeypatch.setattr(processes, "locks_folder", lambda: folder)
    return folder


def note(folder: Path) -> dict:
    return json.loads((folder / JOB).read_text())


def test_a_training_is_there_as_long_as_it_lasts(tmp_path: Path) -> None:
    with announced(tmp_path, "cpu", lambda: ""):
        assert note(tmp_path)["pid"] == os.getpid() and "outcome" not in note(tmp_path)
        (found,) = trainings()
        assert (found.folder, found.device, found.pid) == (tmp_path.resolve(), "cpu", os.getpid())
    assert trainings() == [] and note(tmp_path)["outcome"] == "finished"


@pytest.mark.parametrize(
    ("raised", "told", "outcome", "sentence"),
    [
        (None, "a stop command", "stopped", ""),
        (KeyboardInterrupt(), "", "stopped", ""),
        (
            FloatingPointError("The loss became nan\n between steps."),
            "",
            "failed",
            "The loss became nan between steps.",
        ),
        (SystemExit(), "", "failed", "SystemExit"),
    ],
)
def test_how_it_ended_is_noted(tmp_path: Path, raised, told: str, outcome: str, sentence: str) -> None:
    try:
        with announced(tmp_path, "cpu", lambda: told):
            if raised is not None:
                raise raised
    except BaseException as error:
        assert error is raised, "nothing is swallowed"
    assert (note(tmp_path)["outcome"], note(tmp_path)["sentence"]) == (outcome, sentence)
    assert trainings() == []


def test_a_killed_process_is_none_whatever_its_files_say(tmp_path: Path) -> None:
    """Catches liveness by a file, by fresh timestamps and by the number alone."""
    process = subprocess.Popen(
        [sys.executable, "-c", ANNOUNCE, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None and process.stdout.readline() == "there\n"
    (place,) = tmp_path.glob("latentlab-*")
    assert [t.pid for t in trainings(place)] == [process.pid]
    assert process_birth(process.pid) == note(tmp_path)["birth"]
    process.kill()
    process.wait()
    process.stdout.close()
    assert list((place / "trainings").iterdir()), "its file is still there"
    assert trainings(place) == [] and not list((place / "trainings").iterdir())
    assert "outcome" not in note(tmp_path)
    # The number is given to another process, ours.
    stale = {**note(tmp_path), "pid": os.getpid(), "folder": str(tmp_path)}
    (place / "trainings" / "1.json").write_text(json.dumps(stale))
    assert trainings(place) == []


def test_the_explorer_s_note_is_left_alone_and_what_can_t_be_written_is_not(
    tmp_path: Path, locks: Path
) -> None:
    kept = {"pid": os.getpid(), "birth": process_birth(os.getpid()), "origin": "explorer", "device": "cpu"}
    (tmp_path / JOB).write_text(json.dumps(kept))
    with announced(tmp_path, "cpu", lambda: ""):
        assert note(tmp_path) == kept and len(trainings()) == 1
    assert note(tmp_path) == kept
    shutil.rmtree(locks)
    with announced(tmp_path / "gone", "cpu", lambda: ""):
        assert not (tmp_path / "gone").exists()


def test_a_second_training_in_the_folder_keeps_its_own_note(tmp_path: Path) -> None:
    """One that ends must not say of the next that it has ended."""
    first = announced(tmp_path, "cpu", lambda: "")
    first.__enter__()
    time.sleep(0.01)
    with announced(tmp_path, "cuda:0", lambda: ""):
        first.__exit__(None, None, None)
        assert "outcome" not in note(tmp_path) and note(tmp_path)["device"] == "cuda:0"
        assert [t.device for t in trainings()] == ["cuda:0"]


def test_half_a_file_is_no_training(locks: Path) -> None:
    (locks / "trainings").mkdir()
    for name, text in (("a", "{"), ("b", "[]"), ("c", '{"pid": "x"}'), ("d", "[" * 9000)):
        (locks / "trainings" / f"{name}.json").write_text(text)
    assert trainings() == []
