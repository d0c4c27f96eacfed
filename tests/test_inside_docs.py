"""docs/inside.md: complete, of this tree, and what a run of its calls gives today.

Would catch: a row left out, a test that was renamed, a function or a tab that is gone, and numbers gone stale.
"""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from latentlab import analysis

ROOT = Path(__file__).resolve().parents[1]
ROWS = (1, 2, 3, 5, 7, 9, 10, 12, 13, 15, 22, 23, 24, 25, 26, 27, 28)
CHEAP = (
    "analysis.network_graph(model)",
    "analysis.pullback_metric(model)",
    "analysis.sefa(model, 8)",
    "analysis.ganspace(model, n=8)",
    'analysis.deconvnet(model, "encoder", "conv3", images, n_units=4, count=4)',
    'analysis.edge_bundles(model, "deconv1", "deconv2")',
)


@pytest.fixture(scope="module")
def inside():
    """The generator as a module."""
    spec = importlib.util.spec_from_file_location("inside_docs", ROOT / "docs" / "inside.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def page():
    return (ROOT / "docs" / "inside.md").read_text(encoding="utf-8")


def sections(page) -> dict[int, str]:
    parts = re.split(r"^### Row (\d+)$", page.partition("## Limits")[0], flags=re.MULTILINE)[1:]
    return {int(number): text for number, text in zip(parts[::2], parts[1::2], strict=True)}


def numbers(text) -> dict[str, str]:
    """What a line of a certificate says: {name: value}."""
    return dict(re.findall(r"(?:^|, )`(\w+)` (below [^,\s]+|[^,\n]+)", text))


def agree(old: str, new: str) -> bool:
    """Whether two written values say the same: bounds hold within a power of ten, numbers to one per cent."""
    if old == new:
        return True
    if not all(re.fullmatch(r"(below )?-?[\d.]+(e-?\d+)?", v) for v in (old, new)):
        return False
    (bound, a), (other, b) = ((v.startswith("below "), float(v.removeprefix("below "))) for v in (old, new))
    if bound or other:
        return max(a, b) <= 1e-4 and (not bound or b <= 11 * a)
    return a == pytest.approx(b, rel=0.01)


def test_every_row_has_its_line_its_call_its_tests_and_its_certificate(page):
    lines = re.findall(r"^\| \[(\d+)\]\(#row-\1\) \|(.*)\|$", page, flags=re.MULTILINE)
    assert tuple(int(number) for number, _ in lines) == ROWS == tuple(sections(page))
    for number, text in lines:
        question, functions, tests, certificate = (cell.strip() for cell in text.split(" | "))
        assert question.endswith("?") and functions and "](../tests/" in tests, number
        assert numbers(certificate.split(": ", 1)[1]), number
    for number, text in sections(page).items():
        calls = re.findall(r"```python\n# ([\w-]+)\n(.*?)```\n\n(.*)\n", text, flags=re.DOTALL)
        assert calls and re.search(r"^- `tests/\S+::test_\w+` catches .+\.$", text, flags=re.MULTILINE), (
            number
        )
        assert all(numbers(said) for _, _, said in calls), number


def test_the_page_says_what_the_rows_say(inside, page):
    """Fails a page that was not written again after a row was changed."""
    rows, limits = inside.rows_and_limits()
    assert tuple(row["number"] for row in rows) == ROWS
    found = sections(page)
    for row in rows:
        text = found[row["number"]]
        for proof in row["proof"]:
            assert f"- `{proof['test']}` catches {proof['catches']}.\n" in text
        for call in row["call"]:
            block = text.partition(f"\n{call['code']}\n```\n\n")[2].partition("\n")[0]
            assert list(numbers(block)) == list(call["shown"]), (row["number"], call["code"])
            if "picture" in call:
                figure = f"figures/inside-{call['picture']}.png"
                assert f"]({figure})" in page and (ROOT / "docs" / figure).stat().st_size < 300_000
    for limit in limits:
        assert f": {limit['text']}\n" in page


def test_every_test_named_is_in_the_tree(inside, page):
    named = set(re.findall(r"`(tests/\S+::\w+)`", page))
    assert len(named) > 2 * len(ROWS) and named <= inside.tests()
    assert "tests/test_inside_docs.py::test_every_test_named_is_in_the_tree" in inside.tests()
    for path in re.findall(r"\]\(\.\./(tests/[\w/.]+)\)", page):
        assert (ROOT / path).is_file()


def test_every_function_named_is_public_and_every_row_measures_one_of_its_own(page):
    for number, cells in re.findall(r"^\| \[(\d+)\]\(#row-\1\) \| (.*) \|$", page, flags=re.MULTILINE):
        functions = re.findall(r"`(\w+)`", cells.split(" | ")[1])
        assert functions and all(f in analysis.__all__ and callable(getattr(analysis, f)) for f in functions)
        assert set(re.findall(r"`(\w+)`, [\w-]+: ", cells.split(" | ")[3])) <= set(functions), number
    for called in set(re.findall(r"analysis\.(\w+)\(", page)):
        assert called in analysis.__all__
    for line in page.partition("## Limits\n")[2].partition("\n## ")[0].strip().splitlines():
        assert set(re.findall(r"`(\w+)`", line.partition(":")[0])) <= set(analysis.__all__), line


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "tests/analysis/test_tcav.py::test_a",
            "tests/analysis/test_tcav.py::test_no_",
            "is no test of this tree",
        ),
        ('functions = ["tcav"]', 'functions = ["tcav", "guess"]', "latentlab.analysis has no guess"),
    ],
)
def test_a_row_that_names_what_is_not_there_is_refused(inside, monkeypatch, tmp_path, old, new, words):
    text = (ROOT / "docs" / "inside.toml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "inside.toml").write_text(text.replace(old, new), encoding="utf-8")
    monkeypatch.setattr(inside, "DOCS", tmp_path)
    with pytest.raises(ValueError, match=words):
        inside.rows_and_limits()


def test_every_place_named_is_in_the_explorer(inside):
    """Fails a tab or view that was renamed."""
    from latentlab.app.views.layers import TABS

    source = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "src/latentlab/app/inside").glob("*.py"))
    rows, _ = inside.rows_and_limits()
    for row in rows:
        for tab, _, views in (place.partition(": ") for place in row["places"]):
            assert tab in (*TABS, "Unit card", "Above the tabs"), row["number"]
            if tab != "Above the tabs":
                assert all(f'"{view}"' in source for view in views.split(", ") if view), row["number"]


def test_calls_made_again_give_the_certificates_written(inside, page):
    """Fails a page of another version's numbers: 40 of them are measured anew."""
    rows, _ = inside.rows_and_limits()
    calls = [(row["number"], call) for row in rows for call in row["call"] if call["code"] in CHEAP]
    assert {call["code"] for _, call in calls} == set(CHEAP)
    for number, call in calls:
        text = sections(page)[number].partition(f"# {call['run']}\n{call['code']}\n```\n\n")[2]
        said = numbers(text.partition("\n")[0])
        names = inside.evaluated(call)
        for name in call["shown"]:
            now = inside.written(names["result"].certificate[name])
            assert agree(said[name], now), (number, name, said[name], now)


def test_numbers_are_written_in_digits_that_can_be_repeated(inside):
    assert [inside.written(v) for v in (True, 3, "fc1", 0.0, 0.045678, 12.3456, (1.0, 0.5, 0.25))] == [
        "yes", "3", "fc1", "0", "0.0457", "12.3", "0.25 to 1",
    ]  # fmt: skip
    assert inside.written(2e-7) == "below 1e-6" and inside.written(9e-7) == "below 1e-5"
    assert agree("0.0457", "0.0456") and agree("below 1e-6", "below 1e-5") and agree("below 1e-6", "0")
    assert not agree("0.0457", "0.05") and not agree("below 1e-6", "0.001") and not agree("yes", "no")


def test_one_row_is_printed_and_nothing_written(inside, page, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["inside.py", "--only", "12"])
    monkeypatch.setattr(inside, "PAGE", ROOT / "docs" / "nowhere" / "inside.md")  # can't be written
    inside.main()
    printed = capsys.readouterr().out
    assert (
        "row 12:" in printed
        and "`edges_missed` 0" in printed
        and "row 9:" not in printed
        and "\r" not in printed
    )
