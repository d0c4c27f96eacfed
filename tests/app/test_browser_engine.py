"""The browser engine's server side: what is offered to whom, the route, what is kept, and that nobody waits for it."""

from __future__ import annotations

import base64
import gc
import http.client
import json
import random
import struct
import threading
import time
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from live import Client, served

from latentlab.analysis.direction import Direction
from latentlab.app import browser_engine, engine, live_session
from latentlab.app.allowance import FETCHES
from latentlab.app.browser_engine import Programs, offer
from latentlab.app.pull import Pull
from latentlab.config import VAEConfig
from latentlab.export import lower
from latentlab.models.build import build_model
from latentlab.models.edits import Edit
from latentlab.runs import Run


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Programs of a test's own."""
    monkeypatch.setattr(browser_engine, "programs", Programs())


@pytest.fixture(scope="module")
def style():
    return Run.open("zoo:digits-stylegan", device="cpu").model


def small(seed: int = 0, **options: Any):
    return (
        build_model(VAEConfig(latents=4, width=4, hidden=16, **options), (1, 32, 32), seed)
        .eval()
        .requires_grad_(False)
    )


def session(model: Any, **options: Any) -> live_session.LiveSession:
    return engine.Registry().open("one", "traverse", model, **{"drawing": "auto", **options})


def unpacked(data: bytes) -> tuple[dict, dict[str, bytes]]:
    size = struct.unpack_from("<I", data)[0]
    header = json.loads(data[4 : 4 + size])
    parts = {k: data[4 + size + at : 4 + size + at + n] for k, (at, n) in header["parts"].items()}
    assert sum(n for _, n in header["parts"].values()) == len(data) - 4 - size
    return header["program"], parts


# ---- what is offered ---------------------------------------------------------------------------------------------


def test_a_program_travels_as_it_was_lowered():
    model = small()
    found = offer(session(model))
    data = browser_engine.programs.data(model, None)
    assert data is not None and found == {
        "digest": browser_engine.programs.of(model, None).digest,
        "size": len(data),
        "edits": [],
    }
    program, parts = unpacked(data)
    packed = lower(model).pack("f16")
    assert program["precision"] == "f16" and program["constants"] == packed["constants"]
    assert base64.b64encode(parts["weights"]).decode() == packed["weights"]
    assert base64.b64encode(parts["steps"]).decode() == packed["steps"]
    assert parts["wasm"][:4] == b"\0asm" and b"class LatentEngine" in parts["source"]


def test_equal_weights_have_one_program_and_others_another():
    first, same, other = (offer(session(small(seed)))["digest"] for seed in (0, 0, 1))
    assert first == same != other
    assert len(browser_engine.programs) == 2


def test_who_wants_the_server_has_no_program_made(monkeypatch):
    monkeypatch.setattr(browser_engine, "lower", lambda *_, **__: pytest.fail("lowered in vain"))
    assert offer(session(small(), drawing="server")) == {"why": "Chosen in the sidebar"}


def test_what_a_browser_can_not_do_is_said_in_a_sentence(monkeypatch, style):
    model = small()

    class Other(type(model)):
        def decode(self, z, edits=(), space=None):
            return super().decode(z, edits)

    other = small()
    other.__class__ = Other
    assert (
        offer(session(other))["why"]
        == "The browser engine decodes latentlab's own VAEs and GANs; got a Other"
    )
    stages = list(lower(model).stages)
    for edit, wording in (
        (
            Edit(stages[-2].address, (0,), region=((0.0, 1.0),)),
            "has a region or takes another sample's units",
        ),
        (
            Edit(stages[-2].address, (0,), "replace", source=(0.0,) * 4),
            "has a region or takes another sample's",
        ),
        (Edit("encoder.conv1", (0,)), "An edit of encoder.conv1 is one that only the server can make"),
        (Edit(stages[-2].address, (999,)), "names a unit that"),
    ):
        assert wording in offer(session(model, edits=(edit,)))["why"]
    edits = (Edit(stages[0].address, (0, 3)), Edit(stages[-2].address, None, "scale", 2.0, amount=0.5))
    assert offer(session(model, edits=edits))["edits"] == [edit.to_dict() for edit in edits]
    # Codes of W don't meet what was done to the mapping; those of Z do.
    mapped = Edit(next(s.address for s in lower(style).stages if s.address.startswith("mapping.")), (0,))
    assert "digest" in offer(session(style, edits=(mapped,)))
    assert "only the server" in offer(session(style, edits=(mapped,), pull=Pull("w")))["why"]
    monkeypatch.setattr(browser_engine, "QUICK", 1000)
    assert "too many for a browser" in offer(session(model))["why"]
    assert "digest" in offer(session(model, drawing="browser"))


def test_large_decoders_stay_on_the_server_before_they_are_read(monkeypatch):
    monkeypatch.setattr(browser_engine, "LARGEST", 1000)
    monkeypatch.setattr(browser_engine, "lower", lambda *_, **__: pytest.fail("a large decoder was read"))
    assert "too large for a browser" in offer(session(small()))["why"]
    monkeypatch.undo()
    monkeypatch.setattr(browser_engine, "LARGEST_MEMORY", 1000)
    assert "too large for a browser" in offer(session(small(1)))["why"]


@pytest.mark.parametrize("kind", ["space", "stage", "w"])
def test_steps_along_directions_are_part_of_the_program(kind, style):
    if kind == "w":
        pull = Pull("w", (Direction("up", tuple(np.eye(style.spaces["w"].dim)[0]), space="w"),))
        model = style
    else:
        model = small()
        stage = lower(model).stages[-2]
        units = stage.state.units
        pull = Pull(
            model.latent_space.name,
            (
                Direction("up", (1.0,) * 4, space=model.latent_space.name)
                if kind == "space"
                else Direction("up", (1.0,) * units, stage=stage.address),
            ),
        )
    found = session(model, pull=pull)
    assert "digest" in offer(found)
    program, _ = unpacked(browser_engine.programs.data(model, pull) or b"")
    assert program["input"]["shape"] == [found.dim]
    assert offer(session(model))["digest"] != offer(found)["digest"]


def test_weights_that_half_precision_would_blur_travel_whole():
    """Two large weights that cancel but for a little: a half keeps none of the little."""
    model = small()
    assert unpacked(browser_engine.programs.data(model, None) or b"")[0]["precision"] == "f16"
    first = next(m for m in model.generator.modules() if isinstance(m, torch.nn.Linear))
    last = [m for m in model.generator.modules() if isinstance(m, torch.nn.ConvTranspose2d)][-1]
    first.weight.data += 1000.37
    first.bias.data -= 3000.0
    for gain in (10.0, 1e6):  # a change that shows, and numbers that a half has not
        last.weight.data *= gain
        other = small()
        other.load_state_dict(model.state_dict())
        assert unpacked(browser_engine.programs.data(other, None) or b"")[0]["precision"] == "f32"


def test_no_more_is_kept_than_there_is_room_for_and_no_model_is_held():
    programs = Programs()
    models = [small(seed) for seed in range(browser_engine.KEPT + 3)]
    digests = [programs.of(model, None).digest for model in models]
    assert len(programs) == browser_engine.KEPT and len(set(digests)) == len(models)
    assert programs.data(models[0], None)  # made anew
    assert programs.of(models[0], None).digest == digests[0] and len(programs) == browser_engine.KEPT
    alive = [weakref.ref(model) for model in models]
    models.clear()
    gc.collect()
    assert not any(ref() for ref in alive)
    programs.of(small(), None)
    assert len(programs._lowered) == 1


def test_sliders_of_many_kinds_over_one_model_are_forgotten_the_oldest_first(monkeypatch):
    """Catches a note for each direction that was ever tried, kept as long as the model."""
    made = []
    lowered = browser_engine._lowered
    monkeypatch.setattr(
        browser_engine, "_lowered", lambda *given: made.append(given[1].directions[0].name) or lowered(*given)
    )
    monkeypatch.setattr(browser_engine, "KNOWN", 4)
    programs, model = Programs(), small()
    space = model.latent_space.name
    pulls = [Pull(space, (Direction(f"d{i}", (1.0, float(i), 0.0, 0.0), space=space),)) for i in range(6)]
    for pull in pulls:
        programs.of(model, pulls[0])
        programs.of(model, pull)
    assert len(programs._lowered) == 4
    assert made == [f"d{i}" for i in range(6)], "who asks again stays known"
    assert programs.of(model, pulls[1]).digest and made[-1] == "d1" and len(programs._lowered) == 4


def test_a_model_is_left_as_it_was():
    model = small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    chance = torch.get_rng_state()
    offer(session(model))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), chance)


# ---- over the wire -----------------------------------------------------------------------------------------------


def fetch(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(
        method, path, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    answer = connection.getresponse()
    found = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    connection.close()
    return found


def opened(model: Any, owner: str = "one", **options: Any) -> live_session.LiveSession:
    return engine.registry.open(owner, "traverse", model, z=np.zeros(4), **{"drawing": "auto", **options})


def test_the_route_gives_a_session_its_own_program_alone():
    model, other = small(), small(1)
    with served() as port:
        mine, theirs = opened(model), opened(other, "two")
        client = Client(port, mine.token)
        told = client.control(type="program")
        path = f"/ll/program/{told['digest']}"
        status, headers, data = fetch(port, path, X_Latentlab_Session=mine.token)
        assert (
            status == 200 and data == browser_engine.programs.data(model, None) and len(data) == told["size"]
        )
        assert "immutable" in headers["cache-control"] and "private" in headers["cache-control"]
        assert headers["cross-origin-resource-policy"] == "same-origin"
        known = {"X_Latentlab_Session": mine.token, "If_None_Match": headers["etag"]}
        assert fetch(port, path, **known)[::2] == (304, b"")
        for refused in (
            fetch(port, path),
            fetch(port, path, X_Latentlab_Session=mine.token[:-1]),
            fetch(port, path, X_Latentlab_Session=theirs.token),
            fetch(port, path[:-1], X_Latentlab_Session=mine.token),
        ):
            assert refused[0] == 404 and b"weights" not in refused[2]
        for foreign in (
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Sec_Fetch_Site": "cross-site"},
        ):
            assert fetch(port, path, X_Latentlab_Session=mine.token, **foreign)[0] == 403
        assert (
            fetch(port, f"/elsewhere{path}", X_Latentlab_Session=mine.token)[0] == 403
        )  # no base path of ours
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert fetch(port, path, method, X_Latentlab_Session=mine.token)[0] == 405
        engine.registry.close(mine.token)
        assert fetch(port, path, X_Latentlab_Session=mine.token)[0] == 404
        client.close()


def test_noise_at_the_route_is_refused_and_the_program_still_comes():
    chance = random.Random(0)
    with served() as port:
        mine = opened(small())
        path = f"/ll/program/{offer(mine)['digest']}"
        for _ in range(300):
            name = "".join(chance.choice("abcdef0123456789%2./-_~") for _ in range(chance.randrange(1, 60)))
            token = "".join(chr(chance.randrange(33, 126)) for _ in range(chance.randrange(60)))
            status, _, body = fetch(port, f"/ll/program/{name}", X_Latentlab_Session=token)
            assert status in (307, 403, 404) and len(body) < 200 and b"Traceback" not in body
        for name in ("..%2f..%2fetc%2fpasswd", "%00", "x" * 5000, "%ff%fe", "a/b"):
            assert fetch(port, f"/ll/program/{name}", X_Latentlab_Session=mine.token)[0] in (403, 404)
        assert fetch(port, path, X_Latentlab_Session=mine.token)[0] == 200


def test_a_session_may_fetch_only_so_often():
    with served() as port:
        mine, other = opened(small()), opened(small(), "two")
        path = f"/ll/program/{offer(mine)['digest']}"
        seen = [fetch(port, path, X_Latentlab_Session=mine.token)[0] for _ in range(FETCHES + 3)]
        assert seen == [200] * FETCHES + [429] * 3
        assert fetch(port, path, X_Latentlab_Session=other.token)[0] == 200
        mine.fetches.clear()
        assert fetch(port, path, X_Latentlab_Session=mine.token)[0] == 200


def test_who_has_no_session_takes_nobodys_turn():
    """Catches tokens that are looked up in the one thread that makes programs: guesses would queue before it."""
    going, begun = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert going.wait(30)

    with served() as port:
        mine = opened(small())
        path = f"/ll/program/{offer(mine)['digest']}"
        held = browser_engine.worker.submit(hold)
        try:
            assert begun.wait(60)
            for token in ("", "guess", mine.token[:-1]):
                assert fetch(port, path, X_Latentlab_Session=token)[0] == 404
            while mine.fetches.take():
                pass
            assert fetch(port, path, X_Latentlab_Session=mine.token)[0] == 429
        finally:
            going.set()
        held.result()


def test_pictures_and_other_routes_go_on_while_a_program_is_made(monkeypatch):
    """Catches lowering in the event loop, in the session's own thread, or in the connection's reading loop."""
    going, begun = threading.Event(), threading.Event()

    def slow(*arguments: Any, **options: Any):
        begun.set()
        assert going.wait(30)
        return lower(*arguments, **options)

    monkeypatch.setattr(browser_engine, "lower", slow)
    with served() as port:
        client = Client(port, opened(small()).token)
        client.socket.send(json.dumps({"type": "program"}))
        try:
            assert begun.wait(60)
            for _ in range(5):
                assert client.image(np.zeros(4)).shape == (32, 32, 1)
            assert client.control(type="ping")["of"] == "ping"
            token = engine.registry.publish("one", "map", b"points")
            assert fetch(port, f"/ll/points/{token}")[0] == 200
        finally:
            going.set()
        assert client.receive()["digest"]
        client.close()


def test_a_browser_is_told_of_other_edits_and_of_another_choice():
    model = small()
    stage = lower(model).stages[-2].address
    with served() as port:
        client = Client(port, opened(model).token)
        digest = client.control(type="program")["digest"]
        opened(model, edits=(Edit(stage, (1,)),))
        assert client.receive() == {"type": "changed"}
        told = client.control(type="program")
        assert told["digest"] == digest and told["edits"] == [{"stage": stage, "units": [1]}]
        opened(model, edits=(Edit(stage, (1,)),), drawing="server")
        assert client.receive() == {"type": "changed"}
        assert client.control(type="program") == {"type": "program", "why": "Chosen in the sidebar"}
        client.close()


def decoding() -> int:
    return sum(thread.name.startswith("latentlab-decode") for thread in threading.enumerate())


def test_a_session_whose_browser_draws_keeps_no_thread():
    model = small()
    with served() as port:
        before = decoding()
        client = Client(port, opened(model).token)
        shown = client.image(np.ones(4))
        assert decoding() == before + 1
        assert client.control(type="rest") == {"type": "ok", "of": "rest"}
        deadline = time.monotonic() + 60
        while decoding() > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert decoding() == before
        assert np.array_equal(client.image(np.ones(4)), shown)  # whenever it is asked again
        client.socket.send(client.request(np.ones(4)))
        client.socket.send(json.dumps({"type": "rest"}))
        answers = [client.receive()["type"] for _ in range(2)]
        assert sorted(answers) == ["answer", "ok"]  # nothing that was asked before is lost
        client.close()


def test_two_windows_of_a_session_do_not_stop_each_other():
    with served() as port:
        mine = opened(small())
        one, two = Client(port, mine.token), Client(port, mine.token)
        one.image(np.ones(4))
        one.control(type="rest")
        assert two.image(np.ones(4)).shape == (32, 32, 1) and decoding() >= 1
        one.close()
        two.close()
