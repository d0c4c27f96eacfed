"""Permalinks: what is written is read back to the last bit, and whatever else comes is refused in one sentence."""

from __future__ import annotations

import base64
import json
import tempfile
import time
import zlib
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis.configuration
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from latentlab import Run
from latentlab.app import permalink, server, sharing
from latentlab.app.permalink import View, decode, encode
from latentlab.app.ranges import Ranges
from latentlab.config import BlockConfig, VAEConfig
from latentlab.latents import Block, Codebook, LatentSpace
from latentlab.models.build import build_model
from latentlab.models.edits import Edit

hypothesis.configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "latentlab-hypothesis")
CALM = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}
RUN, STYLE = "zoo:sprites-beta-vae", "zoo:digits-stylegan"
STAGE = "generator.deconv1"
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.fixture(scope="module")
def run() -> Run:
    return Run.open(RUN, device="cpu")


@pytest.fixture(autouse=True)
def workspace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(server.RUNS_VARIABLE, str(tmp_path))


def view(of: Run, **changed) -> View:
    z = np.random.default_rng(0).normal(size=10).astype(np.float32)
    edits = (Edit(STAGE, (0, 3)), Edit("encoder.conv2", (1,), "scale", 2.5, 0.5))
    plain = {"run": RUN, "weights": permalink.short(of.digest), "z": z, "edits": edits, "locks": (4,)}
    return View(**{**plain, "slots": (z + 1, None), "seed": 7, "keep_edits": True, **changed})


def same(a: View, b: View) -> bool:
    """All fields alike, numbers to the last bit."""
    arrays = [(a.z, b.z), *zip(a.slots, b.slots, strict=True)]
    bits = [(None if x is None else x.tobytes(), None if y is None else y.tobytes()) for x, y in arrays]
    rest = [f.name for f in fields(View) if f.name not in ("z", "slots")]
    return all(x == y for x, y in bits) and all(getattr(a, n) == getattr(b, n) for n in rest)


def packed(plain: object) -> str:
    """A parameter of any JSON, as a forger would write it."""
    raw = plain if isinstance(plain, bytes) else json.dumps(plain).encode()
    return "1." + base64.urlsafe_b64encode(zlib.compress(raw)).decode().rstrip("=")


def floats(*numbers: float) -> str:
    return base64.b64encode(np.array(numbers, "<f4").tobytes()).decode()


@given(
    z=st.lists(FINITE, min_size=1, max_size=40).map(lambda v: np.array(v, np.float32)),
    locks=st.lists(st.integers(0, 39), max_size=8).map(tuple),
    seed=st.integers(-999, 999_999),
    stage=st.sampled_from([STAGE, "encoder.conv1", "discriminator.block2"]),
    operation=st.sampled_from(["ablate", "scale", "set", "shift"]),
    value=st.floats(-9, 9),
)
@settings(max_examples=100, **CALM)
def test_what_is_written_is_read_back_to_the_last_bit(z, locks, seed, stage, operation, value) -> None:
    """Fails codes that are rounded, as the numbers in "Take away" are: the picture would be another."""
    given_ = View(
        run="./mine",
        weights="0" * 16,
        z=z,
        locks=locks,
        seed=seed,
        slots=(None, z),
        space="w",
        directions=(("smile", "ab"),),
        cutoff=0,
        edits=(Edit(stage, (1, 2), operation, value),),
        stage=stage,
        unit=3,
        ranges=Ranges((-value - 10, value + 10 + 1e-3), ((2, -0.1, 1 / 3), (7, 0.0, abs(value) + 0.7))),
        plane=(seed + 999, abs(value) / 2, 0.3),
    )
    assert same(decode(encode(given_)), given_)


def test_a_link_of_a_usual_page_is_short(run: Run) -> None:
    assert len(encode(view(run))) < 600


def test_what_is_too_long_is_refused_and_the_slots_go_first(run: Run) -> None:
    """Fails a link that a mail program would cut off, and a refusal where A and B alone are too much."""
    numbers, a, b = np.random.default_rng(1).normal(size=(3, 512)).astype(np.float32)
    found = decode(encode(view(run, z=numbers, slots=(a, b))))
    assert found.slots == (None, None) and found.z is not None and np.array_equal(found.z, numbers)
    with pytest.raises(ValueError, match=r"This code is too long for a link \(.*; at most 6,000\)"):
        encode(view(run, z=np.concatenate([numbers, a, b]), slots=(None, None)))
    source = tuple(np.random.default_rng(2).random(4096).tolist())
    with pytest.raises(ValueError, match=r"This list of edits is too long for a link.*Layers → Edits"):
        encode(view(run, edits=(Edit(STAGE, None, "replace", source=source),)))


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("", "no text that latentlab wrote"),
        ("1.", "no text that latentlab wrote"),
        ("1.a b", "no text that latentlab wrote"),
        ("2.abc", "version 2; this latentlab reads version 1"),
        ("1.abc", "damaged"),
        ("1." + "A" * 6000, "at most 6,000 are read"),
        (packed(b"\x80\x04K\x01."), "damaged"),
        (packed(b"[" * 9000), "damaged"),
        (packed([1]), "does not say what it is about"),
        (packed({"run": RUN}), "does not say what it is about"),
        (packed({"run": RUN, "weights": "0" * 16, "more": 1}), "does not say what it is about"),
        (packed({"run": RUN, "weights": "0" * 15}), "its weights can't be read"),
        (packed({"run": RUN, "weights": "0" * 16, "z": floats(np.nan)}), "NaN or infinity"),
        (packed({"run": RUN, "weights": "0" * 16, "z": "AAA="}), "its code can't be read"),
        (packed({"run": RUN, "weights": "0" * 16, "locks": [True]}), "its locks can't be read"),
        (packed({"run": RUN, "weights": "0" * 16, "seed": 10**40}), "its seed can't be read"),
        (packed(b'{"run":"a","weights":"0000000000000000","seed":NaN}'), "holds NaN"),
        (packed(b'{"run":"a","weights":"0000000000000000","seed":1e999}'), "holds 1e999"),
        (packed({"run": RUN, "weights": "0" * 16, "ranges": {"all": [3, 1]}}), "can't be used. A range goes from"),
        (packed({"run": RUN, "weights": "0" * 16, "ranges": {"all": 40}}), "2 or 3 standard deviations far; got 40"),
        (packed({"run": RUN, "weights": "0" * 16, "ranges": {"all": [-1e9, 0]}}), "between -1,000,000 and 1,000,000"),
        (packed({"run": RUN, "weights": "0" * 16, "ranges": {"own": [[0, 0, 10**400]]}}), "ranges can't be used"),
        (packed({"run": RUN, "weights": "0" * 16, "ranges": {"own": [[-1, 0, 1]]}}), "counted from 0; got -1"),
        (packed({"run": RUN, "weights": "0" * 16, "ranges": {"own": [[1, 0, 1], [1, 0, 2]]}}), "one slider"),
        (packed({"run": RUN, "weights": "0" * 16, "ranges": "x"}), "ranges can't be used"),
        (packed(b'{"run":"a","weights":"0000000000000000","ranges":{"all":[NaN,1]}}'), "holds NaN"),
        (packed({"run": RUN, "weights": "0" * 16, "plane": [0, 1]}), "its plane can't be read"),
        (packed({"run": RUN, "weights": "0" * 16, "plane": [-1, 1, 1]}), "its plane can't be read"),
        (packed({"run": RUN, "weights": "0" * 16, "plane": [0, "1", 1]}), "its plane can't be read"),
        (packed({"run": RUN, "weights": "0" * 16, "plane": [0, 10**400, 1]}), "its plane can't be read"),
        (packed(b'{"run":"a","weights":"0000000000000000","plane":[0,1e999,1]}'), "holds 1e999"),
        (packed({"run": RUN, "weights": "0" * 16, "edits": [{"stage": "x"}]}), "An edit's stage is an address"),
        (packed({"run": RUN, "weights": "0" * 16, "edits": [{"stage": "a.b", "amount": 2}]}), r"lies in \[0, 1\]"),
    ],
)  # fmt: skip
def test_what_is_no_link_is_refused_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as error:
        decode(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_a_small_text_does_not_unpack_to_a_large_one() -> None:
    """Fails a decompression without a bound: 4 kB that become 3 MB, or any more."""
    bomb = packed(b" " * 3_000_000)
    assert len(bomb) < permalink.LONGEST
    with pytest.raises(ValueError, match="ends too early or too late"):
        decode(bomb)


@given(
    text=st.one_of(
        st.text(max_size=200),
        st.text("abcXYZ019-_.", max_size=300).map("1.".__add__),
        st.binary(max_size=300).map(packed),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(st.sampled_from([f.name for f in fields(View)]), inner, max_size=8)
            ),
            max_leaves=20,
        ).map(
            lambda v: packed({"run": RUN, "weights": "0" * 16, **(v if isinstance(v, dict) else {"z": v})})
        ),
    )
)
@settings(max_examples=300, **CALM)
def test_no_text_whatsoever_does_more_than_be_refused(text: str) -> None:
    """Fails an error that is no ValueError, which the page would show as a failure of its own."""
    try:
        found = decode(text)
    except ValueError as error:
        assert str(error)
    else:
        assert isinstance(found, View)


@given(data=st.data())
@settings(max_examples=150, **CALM)
def test_a_changed_link_is_refused_or_fits_the_model(run: Run, data: st.DataObject) -> None:
    """Fails a state that passes the reading and then breaks the page: a unit, a lock or a length that isn't there."""
    plain = json.loads(zlib.decompress(base64.urlsafe_b64decode(encode(view(run))[2:] + "==")))
    junk = st.one_of(
        st.integers(-3, 10**6),
        st.text(max_size=5),
        st.lists(st.integers(-2, 99), max_size=4),
        st.lists(FINITE, max_size=12).map(lambda v: floats(*v)),
        st.none(),
        st.lists(st.tuples(st.integers(-1, 12), FINITE, FINITE), max_size=3).map(lambda v: {"own": v}),
        st.tuples(FINITE, FINITE).map(lambda v: {"all": v}),
        st.tuples(st.integers(0, 10**6), FINITE, FINITE),
        st.sampled_from(["w", "z", "w+", STAGE, "encoder.fc1", "discriminator.x"]),
    )
    name = data.draw(st.sampled_from([f.name for f in fields(View)]))
    if name == "edits" and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(["stage", "units", "operation", "value", "region", "source"]))
        plain["edits"][data.draw(st.integers(0, 1))][key] = data.draw(junk)
    else:
        plain[name] = data.draw(junk)
    try:
        found, held = sharing.checked(decode(packed(plain)))
    except (ValueError, OSError) as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert found.digest == run.digest
        assert held is None or (held.z.shape == (10,) and np.isfinite(held.z).all())
        assert held is None or all(i < 10 and low < high for i, low, high in held.ranges.own)


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"run": "nobody"}, "about the run 'nobody', which is not here"),
        ({"weights": "0" * 16}, "made with other weights of 'zoo:sprites-beta-vae'"),
        ({"z": np.zeros(9, np.float32)}, "has 9 numbers; the sliders here take 10"),
        ({"slots": (np.zeros(9, np.float32), None)}, "A or B"),
        ({"locks": (10,)}, "locks a slider that is not there"),
        ({"edits": (Edit("generator.none"),)}, "edits the stage 'generator.none', which this model has not"),
        ({"edits": (Edit(STAGE, (32,)),)}, "edits unit 32 of 'generator.deconv1', which has 32 units"),
        ({"edits": (Edit("generator.fc1", region=((1.0,),)),)}, "which has no map"),
        ({"edits": (Edit(STAGE, None, "replace", source=(1.0,)),)}, "needs 10 numbers; got 1"),
        ({"space": "w"}, "pulls codes of 'w', for which this model has no sliders"),
        ({"space": "z", "directions": (("smile", "00"),)}, "direction 'smile', which is not saved here"),
        ({"cutoff": 0}, "its sliders have no space"),
        ({"stage": STAGE, "unit": 32}, "looks at unit 32"),
        ({"unit": 3}, "looks at unit 3"),
        ({"ranges": Ranges(None, ((10, 0.0, 1.0),))}, "range of a slider that is not there; there are 10"),
        ({"plane": (0, 6.5, 0.0)}, "beside the seed plane, which reaches from 0 to 6"),
        ({"plane": (0, 0.0, -0.5)}, "beside the seed plane"),
        ({"plane": (10**7, 0.0, 0.5)}, "beside the seed plane"),
    ],
)
def test_a_link_that_does_not_fit_is_refused_in_one_sentence(run: Run, changed: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as error:
        sharing.checked(view(run, **changed))
    assert "\n" not in str(error.value)


def test_styles_and_truncation_travel(run: Run) -> None:
    """Fails a link that gives a code of W to sliders of Z."""
    style = Run.open(STYLE, device="cpu")
    dim = style.model.spaces["w"].dim
    z = np.arange(dim + 1, dtype=np.float32) / dim
    given_ = View(run=STYLE, weights=permalink.short(style.digest), z=z, space="w", cutoff=2)
    _, held = sharing.checked(decode(encode(given_)))
    assert held is not None and held.pull is not None and np.array_equal(held.z, z)
    assert (held.pull.space, held.pull.cutoff) == ("w", 2)


def opened(**parameters: str) -> AppTest:
    app = AppTest.from_file(str(server.MAIN), default_timeout=60)
    app = app.run()
    app.query_params.update(parameters)
    return app.switch_page("views/traverse.py").run()


def sliders(app: AppTest) -> dict:
    (found,) = [e for e in app.get("bidi_component") if e.proto.component_name.endswith(".traverse")]
    return json.loads(found.proto.json)


def plane(app: AppTest) -> dict:
    (found,) = [e for e in app.get("bidi_component") if e.proto.component_name.endswith(".seed_plane")]
    return json.loads(found.proto.json)


def settled(app: AppTest) -> AppTest:
    """Runs the page until the seeds' codes are drawn."""
    end = time.monotonic() + 60
    while not any(e.proto.component_name.endswith(".seed_plane") for e in app.get("bidi_component")):
        assert time.monotonic() < end, "the plane never came"
        time.sleep(0.1)
        app = app.run()
    return app


def test_a_link_opens_the_seed_plane_at_its_place(run: Run) -> None:
    """Fails a place that is the middle for whoever opens the link, or for whoever comes back from another tab."""
    sent = view(run, edits=(), plane=(20, 1.25, 4.875))
    app = settled(opened(run=RUN, start="Seed", below="Seed plane", plane="20", view=encode(sent)))
    assert not app.exception and not app.warning
    data = plane(app)
    assert (data["x"], data["y"]) == (1.25, 4.875)
    app.session_state["seed-plane"] = {"state": {"x": 0.5, "y": 2.0, "revision": data["revision"]}}
    app = app.run()
    assert decode(str(app.query_params["view"])).plane == (20, 0.5, 2.0)  # the address follows
    app.session_state["below"] = "Strips"
    app = app.run()
    assert decode(str(app.query_params["view"])).plane is None
    app.session_state["below"], app.session_state["plane"] = "Seed plane", 20
    app = settled(app.run())
    assert (plane(app)["x"], plane(app)["y"]) == (0.5, 2.0)  # kept while another tab was open
    assert not app.exception


def test_indices_and_categories_take_no_foreign_range() -> None:
    """Fails a range between two codes of a codebook, and one of a category, of which there is none."""
    blocks = [BlockConfig("kind", 3, "categorical"), BlockConfig("style", 2)]
    model = build_model(VAEConfig(blocks=blocks, width=8, hidden=32), (1, 64, 64), 0)
    held: Any = SimpleNamespace(model=model)
    sharing._check_ranges(Ranges(2.0, ((3, -5.0, 5.0),)), held, None, 5)
    with pytest.raises(ValueError, match="sets the range of a category, 'kind'"):
        sharing._check_ranges(Ranges(None, ((2, 0.0, 1.0),)), held, None, 5)
    space = LatentSpace([Block("code", 2, Codebook(8))])
    held = SimpleNamespace(model=SimpleNamespace(latent_space=space, spaces={"z": space}))
    sharing._check_ranges(Ranges(None, ((0, 2.0, 7.0),)), held, None, 2)
    for low, high in ((0.5, 3.0), (-1.0, 3.0), (0.0, 8.0)):
        with pytest.raises(ValueError, match="none of its 8 indices"):
            sharing._check_ranges(Ranges(None, ((1, low, high),)), held, None, 2)


def test_a_page_opened_by_a_link_holds_its_state(run: Run) -> None:
    sent = view(run, edits=(Edit(STAGE, (0, 3)),), ranges=Ranges(3.0, ((2, -7.5, 0.1),)))
    app = opened(run=RUN, start="Seed", view=encode(sent))
    assert not app.exception and not app.warning
    data = sliders(app)
    assert sent.z is not None and data["z"] == sent.z.tolist() and data["locks"] == [4] and data["seed"] == 7
    assert Ranges.read(data["ranges"]) == sent.ranges
    assert data["slots"][1] is None and data["slots"][0] == (sent.z + 1).tolist()
    assert app.session_state["edits"][run.digest] == sent.edits
    assert app.toggle(key="keep-edits").value is True
    moved = {"z": [0.5] * 10, "locks": [], "revision": data["revision"], "engine": "server", "seed": 9}
    app.session_state["pull"] = {"state": {**moved, "slots": [None, None]}}
    app = app.run()  # the link does not come back
    assert sliders(app)["z"] == [0.5] * 10
    found = decode(str(app.query_params["view"]))  # the address follows
    assert found.z is not None and found.z.tolist() == [0.5] * 10
    assert found.ranges == Ranges()


def test_a_link_that_is_refused_says_so_until_it_is_put_away(run: Run) -> None:
    app = opened(run=RUN, start="Seed", view=encode(view(run, weights="0" * 16)))
    assert not app.exception
    assert "other weights" in app.warning[0].value and "shown without it" in app.warning[0].value
    assert "view" not in app.query_params
    before = sliders(app)["z"]
    app = app.run()
    assert app.warning and sliders(app)["z"] == before
    app = app.button(key="close-refusal").click().run()
    assert not app.warning


def test_a_state_that_became_too_long_leaves_the_address(run: Run) -> None:
    app = opened(run=RUN, start="Seed", view=encode(view(run)))
    source = tuple(np.random.default_rng(2).random(4096).tolist())
    app.session_state["edits"] = {run.digest: (Edit("encoder.conv1", None, "replace", source=source),)}
    app = app.run()
    assert "view" not in app.query_params and not app.exception
