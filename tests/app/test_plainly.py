"""Texts that others wrote: they are shown as they are, and make no browser call anywhere."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from visiting import chromium, explorer

from latentlab.app import permalink, server, sharing
from latentlab.app.controls import plainly
from latentlab.app.permalink import View, decode, encode
from latentlab.models.edits import Edit

RUN = "zoo:sprites-beta-vae"
HOSTILE = (
    "![x](http://evil.example/p.png) [y](http://evil.example) <img src='http://evil.example/q.png'> $x^2$ "
    "http://evil.example/r :smile: :red[z] x:small **b** a*b* `c` ~~d~~ &lt; www.evil.example me@evil.example \\[e\\]"
)


def packed(plain: object) -> str:
    """A link's text as a stranger may write it."""
    raw = zlib.compress(json.dumps(plain).encode())
    return f"{permalink.VERSION}.{base64.urlsafe_b64encode(raw).decode().rstrip('=')}"


@pytest.mark.parametrize(
    "sentence",
    [
        "Expected 6 numbers such as 0.5, -1, 2; got 'one two'.",
        "The loss became nan between steps 3 and 4.",
        "No stage 'generator.no_where' in this model; it has generator.fc1, encoder.conv1.",
        "The link was made with other weights of 'zoo:sprites-beta-vae' (0000000000; here 1234567890).",
        "Run `latentlab train FILE_a.yaml --set data.options={'a': [1]}` first: 3 < 4 & 5 > 2, in C:\\runs? no, /tmp.",
    ],
)
def test_ordinary_sentences_stay_as_they_are(sentence: str) -> None:
    assert re.sub(r"\\([^\w\s])", r"\1", plainly(sentence)) == sentence


@pytest.mark.parametrize(
    "text",
    [
        "![a](http://evil.example/x.png)",
        "`a`![a](//evil.example/x.png)`b`",
        "`` ` ``![a](x)",
        "![a][ref]\n\n[ref]: http://evil.example/x.png",
        "\\![a](x) \\\\![a](x)",
        "a\n\n# b\n- c\n\n    d",
    ],
)
def test_nothing_is_left_that_markdown_would_take_for_a_picture(text: str) -> None:
    shown = plainly(text)
    assert "\n" not in shown
    outside = re.sub(r"(?<!`)`[^`]+`(?!`)", "", shown)
    assert not re.search(r"(?<!\\)(?:\\\\)*[\[\]]", outside), shown


def test_an_edit_that_is_none_is_not_repeated_at_length() -> None:
    """Would catch a page that shows fifty thousand characters of a damaged link."""
    long = "x" * 50_000
    for spec in (
        {long: 1},
        long,
        {"stage": long},
        {"stage": "a.b", "operation": long},
        {"stage": "a.b", "value": long},
        {"stage": "a.b", "value": [long]},
        {"stage": "a.b", "units": long},
        {"stage": "a.b", "units": [0.5] * 5_000},
        {"stage": "a.b", "units": [-1 - i for i in range(5_000)]},
        {"stage": "a.b", "region": [long]},
        {"stage": "a.b", "operation": "replace", "source": [long]},
    ):
        with pytest.raises(ValueError) as error:
            Edit.from_dict(spec)  # type: ignore[arg-type]
        assert len(str(error.value)) < 450, str(error.value)[:200]
    with pytest.raises(ValueError, match="got \\{'nostage': 1\\}"):
        Edit.from_dict({"nostage": 1})
    with pytest.raises(ValueError) as error:
        decode(packed({"run": RUN, "weights": "0" * 16, "edits": [{"x": long}]}))
    assert len(str(error.value)) < 450


def test_a_session_remembers_only_the_last_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a session that grows with each move of a slider, and one that forgets where it just was."""
    session: dict = {}
    monkeypatch.setattr(sharing.st, "session_state", session)
    for i in range(500):
        sharing._remember(f"1.{i}")
        sharing._remember("1.mine")
    (texts,) = session.values()
    assert len(texts) == 64 and texts[-1] == "1.mine" and "1.499" in texts and "1.0" not in texts


def test_a_refused_link_is_shown_without_its_markdown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(server.RUNS_VARIABLE, str(tmp_path))
    app = AppTest.from_file(str(server.MAIN), default_timeout=180).run()
    app.query_params["view"] = encode(View(run=HOSTILE[:60], weights="0" * 16))
    app.switch_page("views/traverse.py").run()
    (shown,) = [w.value for w in app.warning]
    assert "The link is about the run" in shown and "](" not in shown.replace("\\](", "")


# ---- in a browser ----


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory):
    """Our own server over the shipped runs."""
    folder = tmp_path_factory.mktemp("server")
    with explorer(folder, folder) as address:
        yield address


@pytest.mark.browser
@pytest.mark.parametrize("where", ["run", "edit"])
def test_a_hostile_link_makes_no_request(address: str, chromium_path: str, where: str) -> None:
    """Would catch a link that has a colleague's browser call a server of its maker."""
    given: dict = {"run": HOSTILE[:59] if where == "run" else RUN, "weights": "0" * 16}
    if where == "edit":
        given |= {"edits": [{"stage": HOSTILE[32:].replace(".", "")}]}
    outside: list[str] = []
    with chromium(chromium_path) as browser:
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.on(
            "request",
            lambda r: None if r.url.startswith((address, "blob:", "data:")) else outside.append(r.url),
        )
        page.goto(f"{address}/traverse?view={packed(given)}")
        alert = page.locator("[data-testid=stAlert]").first
        alert.wait_for()
        page.wait_for_timeout(500)
        assert not alert.locator("img, a, .katex, strong, em, del, [class*=Colored]").count(), (
            alert.inner_html()
        )
        shown = alert.inner_text().replace("\u2060", "")
        wanted = (
            HOSTILE[:59]
            if where == "run"
            else "[y](http://evilexample) <img src='http://evilexample/qpng'> $x^2$"
        )
        assert wanted in shown, shown
        assert where == "run" or ":smile: :red[z] x:small **b** a" in shown, shown
    assert not outside
