"""The live engine over a real server on loopback, with a decoder whose every pixel is known in advance."""

import asyncio
import contextlib
import gc
import http.client
import json
import socket
import struct
import threading
import time
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import uvicorn
from starlette.applications import Starlette
from torch import nn
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from latentlab.app import allowance, connection, engine, live_session, server, wire
from latentlab.app.allowance import FETCHES, MINUTE
from latentlab.latents import Block, LatentSpace
from latentlab.models.edits import Edit
from latentlab.models.staged import StagedNetwork

SIDE = 4


class Plan(nn.Module):
    """Unit k of four takes z_k; the last is always 1."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(4, 3))

    def forward(self, z):
        return z @ self.weight.T + torch.tensor([0.0, 0.0, 0.0, 1.0])


class Paint(nn.Module):
    """Unit k lights quadrant k of its own map."""

    def __init__(self, side):
        super().__init__()
        masks = torch.zeros(4, side, side)
        half = side // 2
        for k in range(4):
            masks[k, (k // 2) * half : (k // 2 + 1) * half, (k % 2) * half : (k % 2 + 1) * half] = 1
        self.register_buffer("masks", masks)

    def forward(self, h):
        return h[:, :, None, None] * self.masks


class Sum(nn.Module):
    def forward(self, h):
        return h.sum(1, keepdim=True)


class Quadrants(nn.Module):
    def forward(self, x):
        half = x.shape[-1] // 2
        return nn.functional.avg_pool2d(x, half).flatten(1)


class First(nn.Module):
    def forward(self, h):
        return h[:, :3]


class Planted(nn.Module):
    """z in [0, 1]^3 is the grey of quadrants 0 to 2, quadrant 3 is white; the encoder reads it back."""

    def __init__(self, side=SIDE, wait=0.0, fail=False):
        super().__init__()
        self.latent_space = LatentSpace([Block("z", 3)])
        self.image_shape = (1, side, side)
        self.generator = StagedNetwork({"plan": Plan(), "paint": Paint(side), "output": Sum()}, "generator")
        self.encoder = StagedNetwork({"quadrants": Quadrants(), "mean": First()}, "encoder")
        self.networks = {"generator": self.generator, "encoder": self.encoder}
        self.wait, self.fail, self.decoded, self.threads = wait, fail, [], set()

    def decode(self, z, edits=()):
        if self.fail:
            raise RuntimeError("secret inner detail\nwith a second line")
        assert torch.is_inference_mode_enabled()
        self.threads.add(threading.current_thread().name)
        self.decoded.append(float(z[0, 0]))
        time.sleep(self.wait)
        return self.generator.run(z, edits=edits).clamp(0, 1)

    def encode(self, x, edits=()):
        codes = self.encoder.run(x, edits=edits)

        class Q:
            mean = codes

            def code(self):
                return codes

        return Q()


class Client:
    """Speaks the protocol."""

    def __init__(self, port, token, origin=None, path="/ll/decode", protocols=None):
        self.stack = contextlib.ExitStack()
        opening = connect(
            f"ws://127.0.0.1:{port}{path}",
            origin=f"http://127.0.0.1:{port}" if origin is None else origin or None,
            subprotocols=["latentlab", token] if protocols is None else protocols,
            compression=None,
            max_size=None,
        )
        self.socket = self.stack.enter_context(opening)
        self.serial = 0

    def send(self, z=(), flags=wire.WANT_IMAGE):
        self.serial += 1
        z = np.asarray(z, "<f4")
        self.socket.send(wire.HEADER.pack(self.serial, flags, len(z)) + z.tobytes())
        return self.serial

    def receive(self):
        message = self.socket.recv(timeout=60)
        if isinstance(message, str):
            return json.loads(message)
        size = struct.unpack_from("<I", message)[0]
        header = json.loads(message[4 : 4 + size])
        for part in header["parts"]:
            start = 4 + size + part["offset"]
            part["data"] = message[start : start + part["length"]]
        return header | {"type": "answer", **{part["kind"]: part for part in header["parts"]}}

    def ask(self, z=(), flags=wire.WANT_IMAGE):
        self.send(z, flags)
        return self.receive()

    def control(self, **message):
        self.socket.send(json.dumps(message))
        return self.receive()

    def image(self, z=(), kind="image"):
        part = self.ask(z, wire.WANT_ORIGINAL if kind == "original" else wire.WANT_IMAGE)[kind]
        return pixels(part)

    def close(self):
        self.stack.close()


def pixels(part):
    return np.frombuffer(part["data"], np.uint8).reshape(part["h"], part["w"], part["c"])


def quadrants(image):
    half = image.shape[0] // 2
    return [int(image[r * half, c * half, 0]) for r in (0, 1) for c in (0, 1)]


@pytest.fixture
def registry(monkeypatch):
    fresh = engine.Registry()
    monkeypatch.setattr(engine, "registry", fresh)
    return fresh


@pytest.fixture
def port(registry):
    """A real server with our routes, without Streamlit around it."""
    listening = socket.create_server(("127.0.0.1", 0))
    threads = torch.get_num_threads()
    app = Starlette(routes=server.routes(), lifespan=server.lifespan)
    running = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="websockets-sansio"))
    thread = threading.Thread(target=lambda: asyncio.run(running.serve(sockets=[listening])))
    thread.start()
    assert wait_until(lambda: running.started) and torch.get_num_threads() == 1
    yield listening.getsockname()[1]
    running.should_exit = True
    thread.join(60)
    listening.close()
    torch.set_num_threads(threads)
    assert not thread.is_alive()


@pytest.fixture
def client(port, registry):
    """A connection to a session over the planted decoder; ``client(z=…)`` opens more."""
    opened = []

    def open_one(model=None, owner="anna", slot="traverse", **inputs):
        token = registry.open(owner, slot, model or Planted(), **inputs).token
        opened.append(Client(port, token))
        opened[-1].token = token
        return opened[-1]

    yield open_one
    for one in opened:
        with contextlib.suppress(Exception):
            one.close()


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


# ---- pictures ----------------------------------------------------------------------------------------------------


def test_image_of_a_code_is_the_planted_one(client):
    assert quadrants(client().image([0.2, 0.4, 1.0])) == [51, 102, 255, 255]


def test_session_input_serves_requests_without_a_code(client):
    assert quadrants(client(z=[1.0, 0.0, 0.6]).image()) == [255, 0, 153, 255]


def test_image_input_is_encoded_and_encoder_edits_change_the_reconstruction(client):
    image = np.zeros((1, SIDE, SIDE), np.float32)
    image[0, :2, :2], image[0, :2, 2:], image[0, 2:, :2] = 0.2, 0.4, 0.6
    one = client(image=image)
    assert quadrants(one.image()) == [51, 102, 153, 255]
    one.control(type="edits", edits=[{"stage": "encoder.quadrants", "units": [1]}])
    assert quadrants(one.image()) == [51, 0, 153, 255]
    assert quadrants(one.image(kind="original")) == [51, 102, 153, 255]


def test_edits_change_one_connection_only_and_leave_the_model_alone(client):
    model = Planted()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    mine, yours = client(model), client(model, owner="ben")
    assert mine.control(type="edits", edits=[Edit("generator.paint", (3,)).to_dict()]) == {
        "type": "ok",
        "of": "edits",
    }
    assert quadrants(mine.image([0.2, 0.4, 1.0])) == [51, 102, 255, 0]
    assert quadrants(mine.image([0.2, 0.4, 1.0], "original")) == [51, 102, 255, 255]
    assert quadrants(yours.image([0.2, 0.4, 1.0])) == [51, 102, 255, 255]
    mine.control(
        type="edits", edits=[{"stage": "generator.paint", "units": [0], "operation": "scale", "value": 2.0}]
    )
    assert quadrants(mine.image([0.2, 0.4, 1.0])) == [102, 102, 255, 255]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_session_starts_with_the_edits_it_was_opened_with(client):
    assert quadrants(client(edits=[Edit("generator.plan", (3,))]).image([1, 1, 1])) == [255, 255, 255, 0]


def test_a_page_that_changes_its_session_is_seen_by_its_open_connection(client, registry):
    model = Planted()
    one = client(model, z=[0, 0, 0])
    one.image()
    registry.open("anna", "traverse", model, z=[0, 0, 0])
    registry.open("anna", "traverse", model, z=[1, 0, 0], edits=[Edit("generator.paint", (3,))])
    assert one.receive() == {"type": "changed"}  # once: the first call changed nothing
    assert quadrants(one.image()) == [255, 0, 0, 0]
    one.control(type="edits", edits=[])
    registry.open("anna", "traverse", model, z=[1, 0, 0])
    assert quadrants(one.image()) == [255, 0, 0, 255]  # its own edits now; the page's don't concern it


def test_source_control_sets_and_clears_a_code_of_the_connection(client):
    one = client(z=[0, 0, 0])
    one.control(type="source", z=[1, 0, 1])
    assert quadrants(one.image()) == [255, 0, 255, 255]
    one.control(type="source", z=None)
    assert quadrants(one.image()) == [0, 0, 0, 255]


def test_feature_sheet_holds_every_unit_and_its_statistics(client):
    one = client(z=[0.25, 0.5, 0.0])
    one.control(type="stage", stage="generator.paint")
    answer = one.ask(flags=wire.WANT_SHEET | wire.WANT_IMAGE)
    sheet = answer["sheet"]
    assert (sheet["units"], sheet["h"], sheet["w"], sheet["signed"], sheet["stage"]) == (
        4,
        4,
        4,
        False,
        "generator.paint",
    )
    maps = np.frombuffer(sheet["data"], np.uint8).reshape(4, 4, 4)
    assert sheet["high"] == pytest.approx(1.0)
    assert [int(maps[k].max()) for k in range(4)] == [64, 128, 0, 255]
    assert maps[0, :2, :2].min() == 64 and maps[0, 2:].max() == 0
    stats = np.frombuffer(answer["stats"]["data"], "<f4").reshape(4, 3)
    assert stats[:, 0] == pytest.approx([0.0625, 0.125, 0, 0.25]) and stats[:, 2] == pytest.approx(
        [0.25, 0.5, 0, 1]
    )
    one.control(type="edits", edits=[{"stage": "generator.paint", "units": [3]}])
    stats = np.frombuffer(one.ask(flags=wire.WANT_SHEET)["stats"]["data"], "<f4").reshape(4, 3)
    assert stats[3, 2] == 0


def test_flat_encoder_stage_and_signed_values():
    sheet, stats = wire.pack_sheet(np.array([-2.0, 0.0, 1.0], np.float32), "encoder.mean")
    assert (sheet["units"], sheet["h"], sheet["w"], sheet["signed"]) == (3, 1, 1, True)
    values = np.frombuffer(sheet["data"], np.uint8)
    assert values[0] < 2 and values[1] == 128 and 190 <= values[2] <= 193
    assert len(stats["data"]) == 3 * 3 * 4


def test_big_sheets_are_averaged_down_to_the_limit():
    maps = np.ones((64, 256, 256), np.float32)
    sheet, _ = wire.pack_sheet(maps, "generator.big")
    assert len(sheet["data"]) <= wire.MAX_SHEET_BYTES and sheet["shown"] == 64
    assert set(sheet["data"]) == {255}


def test_large_images_travel_as_jpeg(client):
    answer = client(Planted(side=160)).ask([0.0, 1.0, 0.5])
    part = answer["image"]
    assert part["format"] == "jpeg" and part["data"][:2] == b"\xff\xd8" and len(part["data"]) < 160 * 160


# ---- flow --------------------------------------------------------------------------------------------------------


def test_large_images_travel_as_they_are_where_that_is_wanted(client):
    """Catches a browser engine that is proved on a JPEG, which hides small errors."""
    one = client(Planted(side=160))
    part = one.ask([0.0, 1.0, 0.5], wire.WANT_IMAGE | wire.WANT_RAW)["image"]
    assert part["format"] == "raw" and np.unique(pixels(part)).tolist() == [0, 128, 255]
    assert one.ask([0.0, 1.0, 0.5])["image"]["format"] == "jpeg"


def test_newest_request_wins_and_at_most_one_waits(client):
    model = Planted(wait=0.05)
    one = client(model)
    for k in range(40):
        one.send([k / 40, 0, 0])
    answered, dropped = [], []
    while not answered or answered[-1] != 40:
        message = one.receive()
        (answered if message["type"] == "answer" else dropped).append(message["id"])
    assert sorted(answered + dropped) == list(range(1, 41)) and len(answered) < 10
    assert len(model.decoded) == len(answered)


def test_decoding_happens_in_the_sessions_own_single_thread(client):
    model = Planted()
    one = client(model)
    for _ in range(5):
        one.image([0, 0, 0])
    assert len(model.threads) == 1 and next(iter(model.threads)).startswith("latentlab-decode")


def test_a_slow_session_does_not_hold_up_another(client):
    began, going = threading.Event(), threading.Event()

    class Held(Planted):
        def decode(self, z, edits=()):
            began.set()
            assert going.wait(30)
            return super().decode(z, edits)

    slow, quick = client(Held()), client(owner="ben")
    slow.send([0, 0, 0])
    try:
        assert began.wait(30)
        assert quadrants(quick.image([1, 0, 0])) == [255, 0, 0, 255]  # while the other is at its picture
    finally:
        going.set()
    assert slow.receive()["type"] == "answer"


# ---- who may come in ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "", "null", "file://", "http://127.0.0.1:1", "http://[bad"]
)
def test_foreign_or_missing_origin_is_refused_before_accepting(port, registry, origin):
    token = registry.open("anna", "traverse", Planted()).token
    with pytest.raises(InvalidStatus) as refused:
        Client(port, token, origin=origin)
    assert refused.value.response.status_code == 403


def options(monkeypatch, **values):
    from streamlit import config

    original = config.get_option
    monkeypatch.setattr(config, "get_option", lambda name: values.get(name.replace(".", "_"), original(name)))


def test_origins_named_in_the_servers_options_are_let_in(port, registry, monkeypatch):
    options(monkeypatch, server_corsAllowedOrigins=["https://lab.example"])
    token = registry.open("anna", "traverse", Planted()).token
    assert quadrants(Client(port, token, origin="https://lab.example").image([0, 0, 0])) == [0, 0, 0, 255]
    with pytest.raises(InvalidStatus):
        Client(port, token, origin="https://lab.example.evil.example")


def test_hosts_outside_allowed_hosts_are_refused(port, registry, monkeypatch):
    options(monkeypatch, server_allowedHosts=["lab.example"])
    token = registry.open("anna", "traverse", Planted()).token
    with pytest.raises(InvalidStatus):
        Client(port, token)


@pytest.mark.parametrize("protocols", [["latentlab"], ["other", "x"], None, ["latentlab", "a", "b"]])
def test_a_token_is_required(port, registry, protocols):
    if protocols is None:
        one = Client(port, "guess")
        assert one.receive()["message"] == "This session has ended; the page opens a new one."
        with pytest.raises(ConnectionClosed) as closed:
            one.receive()
        assert closed.value.rcvd.code == connection.UNKNOWN_TOKEN
    else:
        with pytest.raises(InvalidStatus):
            Client(port, "", protocols=protocols)


def test_tokens_are_long_and_differ(registry):
    tokens = {registry.open(f"owner {i}", "traverse", Planted()).token for i in range(20)}
    assert len(tokens) == 20 and min(map(len, tokens)) >= 32


# ---- what may be said --------------------------------------------------------------------------------------------

HEAD = wire.HEADER.pack
BAD_BINARY = {
    b"": "at least 8 bytes",
    HEAD(1, 1, 3)[:5]: "at least 8 bytes",
    HEAD(1, 0, 0): "flags are a sum of 1, 2 and 4",
    HEAD(1, 8, 0): "flags are a sum of 1, 2 and 4",
    HEAD(1, 64, 0): "flags are a sum of 1, 2 and 4",
    HEAD(1, 1, 2) + bytes(8): "code has 3 numbers; the request has 2",
    HEAD(1, 1, 3) + bytes(11): "has 20 bytes; got 19",
    HEAD(1, 1, 3) + np.array([0, np.nan, 0], "<f4").tobytes(): "NaN or infinity",
    HEAD(1, 1, 3) + np.array([0, np.inf, 0], "<f4").tobytes(): "NaN or infinity",
    HEAD(1, 1, 0): "no input yet",
    HEAD(1, 4, 3) + bytes(12): "Choose a stage",
}
BAD_TEXT = {
    "{": "is JSON; this text is not",
    "[]": "a JSON dictionary",
    "3": "a JSON dictionary",
    '{"type": "shell"}': "edits, stage, source, program, rest or ping; got 'shell'",
    '{"type": "stage", "stage": "generator.nope"}': "No stage 'generator.nope' in this model",
    '{"type": "stage", "stage": {"a": 1}}': "No stage",
    '{"type": "source", "z": [1, 2]}': "a list of 3 numbers",
    '{"type": "source", "z": [1, 2, NaN]}': "finite numbers; got NaN",
    '{"type": "source", "z": [1, 2, 1e999]}': "NaN or infinity",
    '{"type": "source", "z": ["a", 2, 3]}': "a list of 3 numbers",
    '{"type": "edits", "edits": 7}': "a list of at most",
    '{"type": "edits", "edits": [{"stage": "generator.paint", "units": [4]}]}': "units 0 to 3; the edit names unit 4",
    '{"type": "edits", "edits": [{"stage": "generator.paint", "units": [-1]}]}': "counted from 0",
    '{"type": "edits", "edits": [{"stage": "critic.paint", "units": [0]}]}': "No stage 'critic.paint'",
    '{"type": "edits", "edits": [{"stage": "generator.paint", "operation": "melt"}]}': "ablate, set, scale",
    '{"type": "edits", "edits": [{"stage": "generator.plan", "region": [[1]]}]}': "no spatial map",
    '{"type": "edits", "edits": [{"stage": "generator.paint", "__class__": "os.system"}]}': "An edit has the keys",
    '{"type": "edits", "edits": [{"stage": "generator.paint", "operation": "scale", "value": 1e999}]}': "finite",
    "[" * 100_000: "nested",
}


@pytest.mark.parametrize("message", [*BAD_BINARY, *BAD_TEXT], ids=range(len(BAD_BINARY) + len(BAD_TEXT)))
def test_a_bad_message_gets_one_sentence_and_the_connection_goes_on(client, message):
    one = client()
    one.socket.send(message)
    answer = one.receive()
    expected = (BAD_BINARY | BAD_TEXT)[message]
    assert answer["type"] == "error" and expected in answer["message"]
    assert "\n" not in answer["message"] and "Traceback" not in answer["message"]
    assert quadrants(one.image([1, 1, 1])) == [255] * 4


def test_an_error_inside_the_model_is_one_sentence_without_its_details(client):
    one = client(Planted(fail=True))
    answer = one.ask([0, 0, 0])
    assert answer["type"] == "error" and answer["id"] == 1
    assert answer["message"] == "The model could not decode this (RuntimeError); see the server's log."
    assert one.control(type="ping") == {"type": "ok", "of": "ping"}


@pytest.mark.parametrize(
    "message", [bytes(connection.MAX_BINARY + 1), "x" * (connection.MAX_TEXT + 1)], ids=["binary", "text"]
)
def test_an_oversized_message_ends_the_connection(client, message):
    one = client()
    one.socket.send(message)
    assert "A message has at most" in one.receive()["message"]
    with pytest.raises(ConnectionClosed) as closed:
        one.receive()
    assert closed.value.rcvd.code == connection.TOO_BIG


def test_a_flood_is_slowed_down_then_cut_off(client, monkeypatch):
    monkeypatch.setattr(connection, "BURST", 50.0)
    monkeypatch.setattr(connection, "RATE", 20.0)
    monkeypatch.setattr(connection, "MAX_REFUSED", 300)
    now = [1000.0]
    monkeypatch.setattr(connection, "time", SimpleNamespace(monotonic=lambda: now[0]))
    one = client()
    ping = json.dumps({"type": "ping"})
    for seconds, answered in ((0, 50), (2, 40)):
        now[0] += seconds
        for _ in range(150):
            one.socket.send(ping)
        answers = [json.loads(one.socket.recv(timeout=60)) for _ in range(answered + 1)]
        assert [a["type"] for a in answers] == ["ok"] * answered + ["error"]
        assert answers[-1]["message"] == "Too many messages; at most 20 a second are answered."
    now[0] += 1
    assert quadrants(one.image([1, 0, 0])) == [255, 0, 0, 255]
    with pytest.raises(ConnectionClosed) as closed:
        for _ in range(2000):
            one.socket.send(ping)
        while True:
            one.receive()
    assert closed.value.rcvd is None or closed.value.rcvd.code == connection.POLICY


def test_noise_never_brings_the_server_down(client, monkeypatch):
    monkeypatch.setattr(connection, "RATE", 1e9)
    monkeypatch.setattr(connection, "BURST", 1e9)
    rng = np.random.default_rng(0)
    one = client(z=[0, 0, 0])
    for _ in range(300):
        noise = rng.integers(0, 256, int(rng.integers(0, 40))).astype(np.uint8).tobytes()
        one.socket.send(noise if rng.random() < 0.5 else noise.decode("latin-1"))
    one.control(type="edits", edits=[])
    for _ in range(1000):
        one.send([0.2, 0.4, 0.6])
        while (answer := one.receive())["type"] != "answer" or answer["id"] != one.serial:
            pass
        break
    assert quadrants(pixels(answer["image"])) == [51, 102, 153, 255]


# ---- lifetime ----------------------------------------------------------------------------------------------------


def test_the_same_page_keeps_its_session_and_another_model_replaces_it(registry):
    model = Planted()
    first = registry.open("anna", "traverse", model, z=[0, 0, 0])
    assert registry.open("anna", "traverse", model, z=[1, 1, 1]) is first and float(first.source.z[0, 0]) == 1
    assert (
        registry.open("anna", "layers", model) is not first
        and registry.open("ben", "traverse", model) is not first
    )
    other = registry.open("anna", "traverse", Planted())
    assert other.token != first.token and first.closed and registry.attach(first.token) is None


def test_edits_that_replace_are_fewer_than_others(registry):
    """Catches one limit for all edits: 256 that replace run the network 257 times for one picture."""
    session = registry.open("anna", "layers", Planted())
    replace = {"stage": "generator.plan", "operation": "replace", "source": [0.0, 0.0, 0.0]}
    others = [{"stage": "generator.plan", "units": [0]}] * 200
    most = [replace] * live_session.MAX_REPLACEMENTS
    assert len(session.check_edits(most + others)) == live_session.MAX_REPLACEMENTS + 200
    with pytest.raises(ValueError, match=r"At most 16 edits may replace by another sample.*; got 17"):
        session.check_edits([*others, *most, replace])
    with pytest.raises(ValueError, match="At most 256 edits can be made at once; got 257"):
        live_session.check_amount([Edit("generator.plan")] * 257)


def test_bad_inputs_to_a_session_are_refused(registry):
    with pytest.raises(ValueError, match="code has 3 finite numbers; got 2"):
        registry.open("anna", "traverse", Planted(), z=[0, 0])
    with pytest.raises(ValueError, match=r"images are \(1, 4, 4\)"):
        registry.open("anna", "traverse", Planted(), image=np.zeros((1, 5, 4)))


def test_a_vanished_client_frees_its_thread_and_then_its_session(client, registry, monkeypatch):
    one = client()
    one.image([0, 0, 0])
    session = registry._sessions[one.token]
    assert session.connections == 1 and session._worker is not None
    one.socket.socket.close()  # no goodbye
    assert wait_until(lambda: session.connections == 0 and session._worker is None)
    assert wait_until(lambda: not any(t.name.startswith("latentlab-decode") for t in threading.enumerate()))
    registry.sweep()
    assert len(registry) == 1  # a page that reloads finds its session again
    monkeypatch.setattr(engine, "SESSION_TTL", 0.0)
    time.sleep(0.01)
    registry.sweep()
    assert len(registry) == 0 and session.closed


def test_sessions_are_bounded_oldest_idle_first(registry, monkeypatch):
    monkeypatch.setattr(engine, "MAX_SESSIONS", 5)
    held = registry.open("first", "traverse", Planted())
    registry.attach(held.token)
    models = [Planted() for _ in range(20)]
    alive = [weakref.ref(model) for model in models]
    while models:
        registry.open(f"owner {len(models)}", "traverse", models.pop())
    assert len(registry) <= 6 and not held.closed
    gc.collect()
    assert sum(one() is not None for one in alive) <= 6  # forgotten sessions keep no model alive


def test_connections_to_one_session_are_bounded(client, port):
    one = client()
    more = [Client(port, one.token) for _ in range(engine.MAX_CONNECTIONS - 1)]
    refused = Client(port, one.token)
    assert "has ended" in refused.receive()["message"]
    for other in more:
        assert quadrants(other.image([0, 0, 0])) == [0, 0, 0, 255]
        other.close()


def test_a_closed_session_tells_its_client(client, registry):
    one = client()
    one.image([0, 0, 0])
    registry.close(one.token)
    assert "has ended" in one.ask([0, 0, 0])["message"]
    with pytest.raises(ConnectionClosed) as closed:
        one.receive()
    assert closed.value.rcvd.code == connection.UNKNOWN_TOKEN


def test_without_our_server_there_is_no_token(registry):
    assert not engine.serving()
    assert engine.open_session("traverse", Planted(), owner="anna") is None
    assert engine.publish("map", b"x", owner="anna") is None


# ---- points ------------------------------------------------------------------------------------------------------


def get(port, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, answer.headers


def test_points_are_served_to_our_own_page_only(port, registry):
    token = registry.publish("anna", "map", b"points" * 1000)
    status, body, headers = get(port, f"/ll/points/{token}", **{"Sec-Fetch-Site": "same-origin"})
    assert (status, body) == (200, b"points" * 1000)
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin" and headers["Cache-Control"] == "no-store"
    assert get(port, f"/ll/points/{token}", Origin=f"http://127.0.0.1:{port}")[0] == 200
    assert get(port, f"/ll/points/{token}", Origin="http://evil.example")[0] == 403
    assert get(port, f"/ll/points/{token}", **{"Sec-Fetch-Site": "cross-site"})[0] == 403
    assert get(port, f"/ll/points/{token[:-1]}")[0] == 404
    assert get(port, "/ll/points/..%2f..%2fetc%2fpasswd")[0] == 404


def test_points_are_sent_only_so_often(port, registry, monkeypatch):
    mine, other = (registry.publish(owner, "map", b"points") for owner in ("anna", "ben"))
    seen = [get(port, f"/ll/points/{mine}") for _ in range(FETCHES + 3)]
    assert [status for status, _, _ in seen] == [200] * FETCHES + [429] * 3
    assert seen[-1][1] == b"A page fetches the same points at most 30 times a minute."
    assert get(port, f"/ll/points/{other}")[0] == 200
    began = time.monotonic()
    monkeypatch.setattr(allowance, "time", SimpleNamespace(monotonic=lambda: began + MINUTE + 1.0))
    assert registry.may_fetch(mine)


def test_points_keep_their_token_until_they_change(registry, monkeypatch):
    first = registry.publish("anna", "map", b"a")
    assert registry.publish("anna", "map", b"a") == first
    assert registry.publish("ben", "map", b"a") != first
    second = registry.publish("anna", "map", b"b")
    assert second != first and registry.blob(first) is None and registry.blob(second) == b"b"
    monkeypatch.setattr(engine, "MAX_BLOB_BYTES", 10)
    for i in range(8):
        registry.publish(f"owner {i}", "map", bytes(4))
    assert sum(len(blob.data) for blob in registry._blobs.values()) <= 10


# ---- server ------------------------------------------------------------------------------------------------------


def test_routes_answer_under_the_servers_base_path_and_no_other(port, registry, monkeypatch):
    options(monkeypatch, server_baseUrlPath="/tools/lab/")
    token = registry.open("anna", "traverse", Planted()).token
    assert quadrants(Client(port, token, path="/tools/lab/ll/decode").image([1, 0, 0])) == [255, 0, 0, 255]
    with pytest.raises(InvalidStatus):
        Client(port, token, path="/elsewhere/ll/decode")
    points = registry.publish("anna", "map", b"x")
    assert get(port, f"/tools/lab/ll/points/{points}")[0] == 200
    assert get(port, f"/elsewhere/ll/points/{points}")[0] == 403


def test_a_taken_port_gets_one_sentence():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        number = holder.getsockname()[1]
        with pytest.raises(
            OSError, match=rf"^Port {number} on 127.0.0.1 can't be used .*; choose another port, such as"
        ):
            server.serve(port=number)
    with pytest.raises(ValueError, match="A port lies in 1 to 65535; got 0"):
        server.serve(port=0)
    with pytest.raises(ValueError, match="'light' or 'dark'; got 'pink'"):
        server.serve(theme="pink")


def test_runs_folder_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv(server.RUNS_VARIABLE, str(tmp_path))
    assert server.runs_dir() == tmp_path
    monkeypatch.delenv(server.RUNS_VARIABLE)
    monkeypatch.chdir(tmp_path)
    assert server.runs_dir() == tmp_path / "runs"
