"""Categories of two models side by side: a button of the one moves the other's category that draws the same."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from latentlab import analysis
from latentlab.app import linking, server
from latentlab.app.components.compare import CategoryLink, Other
from latentlab.runs import Run

COMPARE = "views/compare.py"
SCRIPT = Path(server.__file__).parent / "components" / "compare.js"


@pytest.fixture(autouse=True)
def workspace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(server.RUNS_VARIABLE, str(tmp_path / "runs"))


def shown(first: str, *others: str) -> AppTest:
    app = AppTest.from_file(str(server.MAIN), default_timeout=180)
    app.query_params["run"] = first
    app = app.run().switch_page(COMPARE).run()
    app = app.multiselect(key="with").set_value(list(others)).run()
    end = time.monotonic() + 180
    while "Sure pairs" not in words(app):
        assert not app.exception and not app.error and time.monotonic() < end, words(app)
        time.sleep(0.1)
        app.run()
    return app


def words(app: AppTest) -> str:
    told = [str(e.value) for kind in ("caption", "markdown", "info", "error") for e in app.get(kind)]
    return "\n".join([*told, *(e.proto.body for e in app.get("html"))])


# Three categories of the first lead to 1, nowhere and 0 of the other's two; the other's begin at 5.
LINK = CategoryLink(0, 1, 2, (1, -1, 0))
CASES = [  # the first model's category at the start and now, the other's category at the start and now
    (0, 0, 0, 0),  # nothing was chosen: its own reading of the image stays, though 0 leads to 1
    (0, 2, 1, 0),
    (2, 0, 0, 1),
    (0, 1, 1, 1),  # leads nowhere
]


def code(first: int, other: int) -> tuple[np.ndarray, np.ndarray]:
    return np.eye(3)[first], np.array([0.5, *np.eye(2)[other]])


@pytest.mark.parametrize(("begun", "now", "before", "after"), CASES)
def test_a_category_goes_where_its_partner_leads(begun: int, now: int, before: int, after: int) -> None:
    origin, theirs = code(begun, before)
    other = Other("b", theirs, (1, 4, 4), categories=(LINK,))
    np.testing.assert_array_equal(other.followed(np.eye(3)[now], origin), code(begun, after)[1])


def test_the_page_s_own_code_follows_alike() -> None:
    """The same cases in the browser's language: a rule that differs there would show only while dragging."""
    codes = [(np.eye(3)[now], *code(begun, before)) for begun, now, before, _ in CASES]
    cases = [[values.tolist() for values in case] for case in codes]
    link = {"from": LINK.source, "to": LINK.target, "size": LINK.size, "partners": LINK.partners}
    script = (
        "const LL = { views: { traverse: class {} } };\n"
        + SCRIPT.read_text("utf-8")
        + f"\nconst cases = {json.dumps(cases)}, link = {json.dumps(link)};\n"
        "const { followed, largest } = LL.views.compare.prototype;\n"
        "const given = (other) => ({ given: { z: other, links: [], categories: [link] } });\n"
        "const page = (z, origin) => ({ z, largest, host: { data: { origin } } });\n"
        "console.log(JSON.stringify(cases.map(([z, origin, other]) =>"
        " Array.from(followed.call(page(z, origin), given(other))))));"
    )
    told = subprocess.run(["node", "-"], input=script, capture_output=True, text=True, check=True).stdout
    assert json.loads(told) == [code(begun, after)[1].tolist() for begun, _, _, after in CASES]


def test_two_shipped_runs_with_categories_are_linked() -> None:
    app = shown("zoo:digits-infogan", "zoo:digits-m2")
    said = words(app)
    assert "**class** takes **digit** along: 0 → 2 · 1 → 5" in said, "by number it would be 0 → 0"
    assert "of the images lie in categories paired one to one; of shuffled images at most" in said
    a, b = Run.open("zoo:digits-infogan", "cpu"), Run.open("zoo:digits-m2", "cpu")
    data = a.dataset()
    match = analysis.match_latents(a.model, b.model, data.images(data.sample(1000, 0)).cpu().numpy())
    (link,) = linking.category_links_of(match)
    assert (link.source, link.target, link.size) == (0, 0, 10) and sorted(link.partners) == list(range(10))
    assert f"{match.agreement('class'):.0%} of the images" in said
    names: dict[str, object] = {}
    exec(app.code[0].value, names)
    assert ("class", "digit") in {pair[:2] for pair in names["result"].pairs()}  # type: ignore[attr-defined]


def test_a_category_beside_continuous_latents_is_not_linked_and_the_page_says_why() -> None:
    said = words(shown("zoo:digits-m2", "zoo:digits-vae"))
    assert "Without a partner: digit of zoo:digits-m2." in said
    assert "A category is linked with a category only" in said and "takes" not in said
