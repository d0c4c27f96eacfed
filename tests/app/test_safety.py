"""What strangers may do: malformed messages and files, foreign origins, names that lead outside. And we stay at home.

Each watch also meets an offence that is planted, which it must see: else its silence would prove nothing.
"""

from __future__ import annotations

import http.client
import json
import os
import pickle
import random
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.configuration
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live import Client, served
from streamlit.testing.v1 import AppTest
from watching import UNPICKLING, watching

from latentlab import load_result, traverse
from latentlab.analysis.direction import Direction, load_directions, save_directions
from latentlab.app import browser_engine, connection, engine, server, wire
from latentlab.app.jobs import USER_ERRORS
from latentlab.evaluation import load_report
from latentlab.models.edits import Edit, edits_from_json, edits_to_json
from latentlab.runs import Run, Workspace

hypothesis.configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "latentlab-hypothesis")
LONGEST = 2000  # characters: a list of what is possible may be long, a dump is longer


def a_sentence(text: str) -> None:
    """Refuses what a person should not be shown."""
    assert text and "\n" not in text and "Traceback" not in text and len(text) <= LONGEST, text
    assert str(Path(engine.__file__).parents[1]) not in text, text


# ---- messages ----------------------------------------------------------------------------------------------------

OPERATIONS = ("ablate", "set", "scale", "shift", "replace")
STAGES = ("generator.fc1", "generator.deconv2", "encoder.conv1", "generator.output")
ODD = (
    None,
    True,
    -1,
    0,
    3.5,
    1e38,
    -1e38,
    1e308,
    10**400,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\u2028",
    [],
    [[]],
    {},
    {"a": 1},
)


def a_code(chance: random.Random) -> list:
    """Mostly a code, else a list that is none."""
    return [
        chance.uniform(-3, 3) if chance.random() < 0.98 else chance.choice(ODD)
        for _ in range(chance.choice([6] * 9 + [0, 5, 7]))
    ]


def an_edit(chance: random.Random) -> dict:
    """An edit with something odd about it, now and then with nothing."""
    edit: dict[str, Any] = {"stage": chance.choice(STAGES), "operation": chance.choice(OPERATIONS)}
    if edit["operation"] == "replace":
        edit["source"] = a_code(chance)
    if chance.random() < 0.5:
        edit["units"] = [chance.randrange(-1, 12) for _ in range(chance.randrange(4))]
    if chance.random() < 0.5:
        edit |= {"value": chance.choice([2.0, -1, 3e38, 1e30]), "amount": chance.choice([0, 0.5, 1, 1.0, 2])}
    if chance.random() < 0.3:
        edit["region"] = [[chance.random() for _ in range(2)] for _ in range(chance.randrange(3))]
    if chance.random() < 0.4:
        edit[
            chance.choice(["stage", "units", "operation", "value", "amount", "region", "source", "__class__"])
        ] = chance.choice(ODD)
    return edit


def a_message(chance: random.Random) -> str | bytes:
    """A message as a stranger may send it: nearly right, cut, flipped, or noise."""
    kind = chance.randrange(6)
    if kind == 0:
        return chance.randbytes(chance.randrange(40))
    if kind <= 2:
        z = np.array([chance.uniform(-3, 3) for _ in range(chance.choice([6, 6, 6, 6, 0, 0, 5, 7]))], "<f4")
        message = (
            wire.HEADER.pack(
                chance.randrange(2**32), chance.choice([1, 1, 2, 3, 4, 5, 7, 0, 8, 65535]), len(z)
            )
            + z.tobytes()
        )
    else:
        control = {
            "type": chance.choice(
                ["edits", "edits", "edits", "stage", "source", "program", "rest", "ping", "shell"]
            ),
            "edits": [an_edit(chance) for _ in range(chance.randrange(3))],
            "stage": chance.choice(STAGES),
            "z": a_code(chance),
        }
        if chance.random() < 0.2:
            control[chance.choice(list(control))] = chance.choice(ODD)
        message = json.dumps(control).encode()
    if chance.random() < 0.2:
        at = chance.randrange(len(message) + 1)
        message = chance.choice(
            [message[:at], message[:at] + chance.randbytes(1) + message[at + 1 :], message + b"0"]
        )
    return message.decode("latin-1") if kind > 2 else message


def attacked(planted, folder: Path, attack: Any) -> None:
    """Lets ``attack(client, counts)`` send what it likes to one of two sessions; nothing may come of it."""
    model = planted["alpha"].model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    counts = {"ok": 0, "error": 0, "answer": 0, "program": 0}
    z = np.linspace(-1, 1, 6)
    with served() as port:
        one = Client(port, engine.registry.open("one", "layers", model, z=z, drawing="auto").token)
        other = Client(port, engine.registry.open("other", "layers", model).token)
        plain = other.image(z)

        def send(message: str | bytes) -> None:
            answer = one.say(message)
            counts[answer["type"]] += 1
            if answer["type"] == "error":
                a_sentence(answer["message"])

        attack(send)
        assert np.array_equal(other.image(z), plain)
        one.control(type="edits", edits=[])
        assert np.array_equal(one.image(z), plain)
        one.close()
        other.close()
    print(counts)
    assert counts.pop("program") > 0
    assert min(counts.values()) > sum(counts.values()) // 50  # the messages reach beyond the first check
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.fixture
def no_limit(monkeypatch):
    """Takes the limit of messages a second away, which has tests of its own."""
    monkeypatch.setattr(connection, "RATE", 1e9)
    monkeypatch.setattr(connection, "BURST", 1e9)


@pytest.mark.parametrize("seed, count", [(0, 4000), pytest.param(1, 10_000, marks=pytest.mark.slow)])
def test_malformed_messages_get_a_sentence_each_and_change_nothing(planted, no_limit, tmp_path, seed, count):
    """Catches a message that ends the server, a worker that dies, an answer no browser can read, a leaked trace,
    a file written, a pickle read, and edits that reach another session."""
    chance = random.Random(seed)
    with watching(tmp_path) as offences:
        attacked(planted, tmp_path, lambda send: [send(a_message(chance)) for _ in range(count)])
    assert not offences


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
EDIT = st.fixed_dictionaries(
    {"stage": st.sampled_from(STAGES) | ANY},
    optional={
        "units": st.lists(st.integers(-1, 40), max_size=4) | ANY,
        "operation": st.sampled_from(OPERATIONS),
        "value": st.floats() | ANY,
        "amount": st.floats(0, 1) | st.floats(),
        "region": st.lists(st.lists(st.floats(0, 1), max_size=3), max_size=3) | ANY,
        "source": st.lists(st.floats(), max_size=7) | ANY,
    },
)
REQUEST = st.builds(
    lambda flags, z: wire.HEADER.pack(1, flags, len(z)) + np.array(z, "<f4").tobytes(),
    st.sampled_from([1, 2, 3, 5]),
    st.lists(st.floats(-3, 3), min_size=6, max_size=6) | st.lists(st.floats(width=32), max_size=7),
)
CONTROL = st.fixed_dictionaries(
    {"type": st.sampled_from(["edits", "stage", "source", "program", "rest", "ping"]) | ANY},
    optional={"edits": st.lists(EDIT, max_size=2) | ANY, "stage": st.sampled_from(STAGES) | ANY, "z": ANY},
)
# What a page itself sends, between the rest: the tool's own share of it changes with the modules that are loaded, whose
# constants it draws from.
PLAIN = st.sampled_from(
    [
        {"type": "ping"},
        {"type": "edits", "edits": []},
        *({"type": "stage", "stage": stage} for stage in STAGES[:2]),
    ]
)


# Threads of the server draw from the module random while the tool makes its messages, which it takes for its own doing.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_no_message_that_hypothesis_finds_does_harm(planted, no_limit, tmp_path, count):
    """As above, with the edge cases of a tool that looks for them and cuts what it finds to the smallest."""

    def attack(send: Any) -> None:
        quiet = list(HealthCheck)
        settings(
            max_examples=count, database=None, derandomize=True, deadline=None, suppress_health_check=quiet
        )(
            given(
                REQUEST
                | CONTROL.map(json.dumps)
                | PLAIN.map(json.dumps)
                | st.text(max_size=40)
                | st.binary(max_size=40)
            )(lambda message: send(message))
        )()

    attacked(planted, tmp_path, attack)


def test_answers_are_json_whatever_the_numbers(planted):
    """Catches NaN and Infinity in a header, on which a browser's parser throws and its page stands still."""
    with served() as port:
        one = Client(port, engine.registry.open("one", "layers", planted["alpha"].model, z=np.zeros(6)).token)
        huge = {"stage": "generator.fc1", "operation": "set", "value": 3e38}
        one.control(
            type="edits", edits=[huge, {"stage": "generator.deconv1", "operation": "scale", "value": -3e38}]
        )
        for stage in ("generator.fc1", "generator.deconv1", "generator.output"):
            one.control(type="stage", stage=stage)
            assert one.ask(flags=wire.WANT_IMAGE | wire.WANT_SHEET)["sheet"]["h"] >= 1


def _status(port: int, method: str, path: str, **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read().decode(errors="replace")
    connection.close()
    assert "Traceback" not in body and "site-packages" not in body
    return answer.status


@pytest.mark.parametrize("place", ["points", "program"])
def test_malformed_requests_are_refused_and_the_server_goes_on(planted, tmp_path, place):
    """Catches a path that is opened as a file, a method that writes, and noise that ends the server."""
    chance = random.Random(0)
    with served() as port, watching(tmp_path) as offences:
        if place == "points":
            name, mine = engine.registry.publish("one", "map", b"points"), {}
        else:
            session = engine.registry.open("one", "traverse", planted["alpha"].model, drawing="auto")
            name, mine = browser_engine.offer(session)["digest"], {browser_engine.TOKEN: session.token}
        for path in (
            "..%2f..%2fetc%2fpasswd",
            "%00",
            "x" * 5000,
            "%ff%fe",
            ";",
            "a/b",
            name[:-1],
            f"{name}/",
        ):
            assert _status(port, "GET", f"/ll/{place}/{path}", **mine) in (307, 404)
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert _status(port, method, f"/ll/{place}/{name}", **mine) == 405
        for origin in ("http://evil.example", "null", "http://[", "javascript:0"):
            assert _status(port, "GET", f"/ll/{place}/{name}", **mine, Origin=origin) == 403
        for token in ("", "x" * 5000, "../..", "'"):
            if mine:
                assert _status(port, "GET", f"/ll/{place}/{name}", **{browser_engine.TOKEN: token}) == 404
        assert _status(port, "GET", "/ll/decode") == 404
        for _ in range(300):
            with socket.create_connection(("127.0.0.1", port)) as raw:
                raw.sendall(chance.randbytes(chance.randrange(1, 200)) + b"\r\n\r\n")
        assert _status(port, "GET", f"/ll/{place}/{name}", **mine) == 200
    assert not offences


# ---- files -------------------------------------------------------------------------------------------------------


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return (Path.write_text, (self.target, "owned"))


@pytest.fixture
def workspace(planted, tmp_path) -> Path:
    """A workspace with every kind of file that the explorer reads."""
    home = tmp_path / "home"
    folder = home / "alpha"
    shutil.copytree(planted["alpha"].path, folder)
    run = Run.open(folder)
    (folder / "annotations.json").write_text(json.dumps({"names": {"z1": "size"}}))
    (folder / "timing.csv").write_text("step,seconds\n100,2.5\n")
    traverse(run.model, np.zeros(6), dims=["z1"], steps=3).save(home / "strip")
    (home / "edits.json").write_text(edits_to_json([Edit("generator.fc1", (1, 2))]))
    save_directions(home / "directions.json", [Direction("size", (1.0,) + (0.0,) * 5, space="z")])
    report = folder / "scores" / "dlib.json"
    report.parent.mkdir()
    report.write_text(json.dumps({"format": 1, "subject": "alpha", "scores": []}))
    return home


def readers(home: Path) -> dict[str, tuple]:
    """What reads each file of the workspace, by the file's name."""
    folder = home / "alpha"
    opened = (lambda: Workspace(home).runs(), lambda: Run.open(folder).model)
    strip = (lambda: load_result(home / "strip"),)
    return {
        "config.json": opened,
        "weights.safetensors": opened[1:],
        "metrics.csv": (lambda: Run.open(folder).metrics(),),
        "timing.csv": (lambda: Run.open(folder).timing(),),
        "README.md": (lambda: Run.open(folder).card,),
        "annotations.json": (lambda: Run.open(folder).annotations,),
        "strip.npz": strip,
        "strip.json": strip,
        "edits.json": (lambda: edits_from_json((home / "edits.json").read_text(encoding="utf-8")),),
        "directions.json": (lambda: load_directions(home / "directions.json"),),
        "dlib.json": (lambda: load_report(Run.open(folder), "dlib", Workspace(home)),),
    }


def read(home: Path, name: str) -> list[Exception]:
    """Reads a file as the explorer does, and returns why it was refused."""
    refused = []
    for reader in readers(home)[name]:
        try:
            reader()
        except USER_ERRORS as error:
            refused.append(error)
    return refused


def damaged(whole: bytes, others: list[bytes], target: Path, chance: random.Random) -> bytes:
    """A file as an accident or a stranger may leave it."""
    at, end = sorted(chance.randrange(len(whole) + 1) for _ in range(2))
    value = chance.choice(
        [b"null", b"1e999", b"NaN", b"-1", b'"../../x"', b"[]", b"{}", b"99999999999999999999", b"true"]
    )
    words = [i for i in range(len(whole)) if whole[i : i + 1] in b":,["] or [0]
    place = chance.choice(words) + 1
    stop = min((i for i in (whole.find(c, place) for c in (b",", b"]", b"}")) if i >= 0), default=len(whole))
    return chance.choice(
        [
            lambda: whole[:at],
            lambda: whole[:at] + chance.randbytes(end - at if end - at < 500 else 50) + whole[end:],
            lambda: whole[:at] + bytes([chance.randrange(256)]) + whole[at + 1 :],
            lambda: whole[:place] + value + whole[stop:],
            lambda: whole[:place] + value + whole[stop:],
            lambda: chance.choice(others),
            lambda: pickle.dumps(Payload(target)),
            lambda: b"[" * 100_000,
            lambda: (2**40).to_bytes(8, "little") + whole[8:],
            lambda: b"\xff\xfe" + whole,
        ]
    )()


@pytest.mark.parametrize("count", [600, pytest.param(10_000, marks=pytest.mark.slow)])
def test_malformed_files_are_refused_in_a_sentence_and_nothing_is_run(workspace, tmp_path, count):
    """Catches a pickle that is read, a path that is followed, a crash, and a file written outside the workspace."""
    chance, target = random.Random(1), tmp_path / "owned"
    assert {path.name for path in workspace.rglob("*") if path.is_file()} == set(readers(workspace))
    assert not any(read(workspace, name) for name in readers(workspace))
    files = sorted(path for path in workspace.rglob("*") if path.is_file())
    contents = {path: path.read_bytes() for path in files}
    small = [content for content in contents.values() if len(content) < 10_000]
    refusals = 0
    with watching(workspace, (UNPICKLING,)) as offences:
        for _ in range(count):
            path = chance.choice(files)
            path.write_bytes(damaged(contents[path], small, target, chance))
            for error in read(workspace, path.name):
                refusals += 1
                a_sentence(str(error).replace(str(workspace), ""))
            path.write_bytes(contents[path])
    assert not offences and not target.exists()
    assert refusals > count // 4


def test_pickles_in_place_of_any_file_are_not_read(workspace, tmp_path):
    """Catches torch.load or numpy.load of what a stranger put into a workspace."""
    target = tmp_path / "owned"
    pickle.loads(pickle.dumps(Payload(target)))
    assert target.read_text() == "owned"  # the payload works
    target.unlink()
    objects = tmp_path / "objects.npz"
    np.savez(objects, codes=np.array([Payload(target)], dtype=object))
    for path in [path for path in workspace.rglob("*") if path.is_file()]:
        whole = path.read_bytes()
        for content in (pickle.dumps(Payload(target)), objects.read_bytes()):
            path.write_bytes(content)
            read(workspace, path.name)
            assert not target.exists(), path
        path.write_bytes(whole)
    torch.save({"state_dict": Payload(target)}, workspace / "alpha" / "weights.safetensors")
    assert "pickles are not loaded" in str(read(workspace, "weights.safetensors")[0])
    assert not target.exists()


# ---- names -------------------------------------------------------------------------------------------------------

OUTSIDE = (
    "../alpha",
    "..",
    "/etc/passwd",
    "zoo:../../../etc",
    "./zoo:..",
    "alpha/../../secret",
    "alpha\0",
    "~",
    "file:///etc/passwd",
    "<script>alert(1)</script>",
)


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_out_of_the_workspace_open_nothing(workspace, tmp_path, monkeypatch, name):
    """Catches a run that is opened because an address names its path."""
    shutil.copytree(workspace / "alpha", tmp_path / "secret")
    shutil.copytree(workspace / "alpha", tmp_path / "alpha")
    monkeypatch.setenv(server.RUNS_VARIABLE, str(workspace))
    from latentlab.app import state

    opened = []
    monkeypatch.setattr(state, "_open_run", lambda *arguments: opened.append(arguments))
    with pytest.raises(ValueError, match="There is no run"):
        state.open_run(name)
    assert not opened


def test_an_address_that_names_what_is_outside_shows_the_page_with_a_known_run(workspace, monkeypatch):
    """Catches a page that fails, or follows the name, when its address holds one."""
    monkeypatch.setenv(server.RUNS_VARIABLE, str(workspace))
    page = AppTest.from_file(str(server.MAIN), default_timeout=180)
    for name in ("run", "to-run", "seed", "image", "z", "to-z", "to-image", "to-start"):
        page.query_params[name] = "../secret"
    page.run()
    assert not page.exception
    page.switch_page("views/traverse.py").run()
    assert not page.exception
    run = page.selectbox(key="run")
    assert run.value in run.options
    for error in page.error:
        a_sentence(error.value)


def test_links_inside_a_run_that_lead_out_are_refused(workspace, tmp_path):
    """Catches weights or configurations that are read through a link."""
    shutil.copytree(workspace / "alpha", tmp_path / "secret")
    for name in ("weights.safetensors", "config.json", "metrics.csv", "README.md"):
        shutil.rmtree(workspace / "alpha")
        shutil.copytree(tmp_path / "secret", workspace / "alpha")
        (workspace / "alpha" / name).unlink()
        (workspace / "alpha" / name).symlink_to(tmp_path / "secret" / name)
        run = None
        with pytest.raises(ValueError, match="leads out of the run's folder"):
            run = Run.open(workspace / "alpha")
            run.metrics(), run.card, run.model


def test_keys_of_caches_and_names_of_downloads_stay_plain(tmp_path):
    """Catches a result that is written beside the workspace by its name."""
    from latentlab.app.controls import file_name

    with pytest.raises(ValueError, match="plain key"):
        Workspace(tmp_path / "home").cache("0" * 64, "../../x")
    with pytest.raises(ValueError, match="hex digest"):
        Workspace(tmp_path / "home").cache("../" * 20, "x")
    assert not (tmp_path / "home").exists()
    assert os.sep not in file_name("../../etc/passwd", "a/b")


# ---- staying at home ---------------------------------------------------------------------------------------------


def test_the_watch_sees_what_it_is_for(tmp_path):
    """The fakes: a file beside the workspace, a name that is looked up, a connection, a pickle."""
    home = tmp_path / "home"
    home.mkdir()
    with watching(home) as offences:
        (home / "inside").write_text("x")
        assert not offences
        (tmp_path / "beside").write_text("x")
        with pytest.raises(OSError):
            socket.getaddrinfo("host.invalid", 80)
        with socket.socket() as out, pytest.raises(OSError):
            out.settimeout(0.01)
            out.connect(("192.0.2.1", 9))
        pickle.loads(pickle.dumps(Path("x")))
    assert [offence.split()[0] for offence in offences if "pathlib" not in offence] == [
        "open",
        "socket.getaddrinfo",
        "socket.connect",
    ]
    assert any(offence.startswith(UNPICKLING) for offence in offences)


def test_every_page_is_drawn_without_a_request_or_a_file_outside(workspace, monkeypatch):
    """Catches telemetry, a font or a picture fetched by the server, and results kept beside the workspace."""
    monkeypatch.setenv(server.RUNS_VARIABLE, str(workspace))
    page = AppTest.from_file(str(server.MAIN), default_timeout=180)
    page.query_params["run"] = "alpha"
    page.run()  # imports everything first, which may write byte code
    with watching(workspace, ()) as offences:
        for name in ("gallery", "traverse", "layers", "map", "scores"):
            page.switch_page(f"views/{name}.py").run()
            assert not page.exception
    assert not [offence for offence in offences if "__pycache__" not in offence]


def test_telemetry_is_off_and_errors_stay_in_the_terminal():
    from latentlab.app.theme import CONFIG

    assert CONFIG["browser.gatherUsageStats"] is False and CONFIG["client.showErrorDetails"] == "none"
