"""The notebook about the inside of a generator: it runs, says what its cells print, and its claims hold."""

import math
import re

from notebooks import check_stored, printed, run, stored

NAME = "inside.ipynb"
NUMBER = r"[+-]?\d+(?:\.\d+)?"
TOLD = r"(?<![\w.])[+-]?\d+\.\d+(?![\w.]*\d)|\b\d+ of (?:the )?\d+ units"


def _source(cell) -> str:
    return cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])


def _untold(cells) -> list[str]:
    """Numbers of the text that the cell above it does not print, sign and digits alike."""
    found, said = [], ""
    for cell in cells:
        if cell["cell_type"] == "code":
            said = printed(cell)
            continue
        for number in re.findall(TOLD, re.sub(r"`[^`]*`", "", _source(cell))):
            plain = number.replace("of the", "of")
            # A number without a sign may be told of one that is printed with it, but not the other way round.
            if not re.search(rf"(?<![\d.]){re.escape(plain)}(?![\d]|\.\d)", said):
                found.append(f"{cell['id']}: {number}")
    return found


def _apart(before: str, now: str) -> list[str]:
    """Lines in which two texts differ by more than the last digits of their numbers."""
    if re.sub(NUMBER, "#", before) != re.sub(NUMBER, "#", now):
        return [f"was {before!r}, is {now!r}"]
    lines = zip(before.splitlines(), now.splitlines(), strict=True)
    return [
        f"was {old!r}, is {new!r}"
        for old, new in lines
        if not all(
            math.isclose(float(a), float(b), rel_tol=0.05, abs_tol=0.03)
            for a, b in zip(re.findall(NUMBER, old), re.findall(NUMBER, new), strict=True)
        )
    ]


def test_the_committed_notebook_shows_its_figures_and_no_stray_output():
    """Fails a notebook committed without outputs, with an error or warning in it, or grown heavy."""
    check_stored(NAME, figures=12, bytes_at_most=2_500_000)


def test_every_number_in_the_text_is_printed_by_the_cell_above_it():
    """Fails text that was not changed with the numbers, or was written from memory."""
    cells = stored(NAME)
    assert _untold(cells) == []
    told = sum(len(re.findall(TOLD, _source(c))) for c in cells if c["cell_type"] == "markdown")
    assert told > 50
    first = next(i for i, c in enumerate(cells) if "1.69 of the 2.30 nats" in _source(c))
    wrong = {**cells[first], "source": _source(cells[first]).replace("1.69", "1.96")}
    assert _untold([*cells[:first], wrong]) == [f"{wrong['id']}: 1.96"]


def test_it_runs_from_top_to_bottom_and_its_claims_hold(tmp_path):
    """Fails a notebook that the code has left behind, claims that no longer hold, and numbers that have moved."""
    cells = run(NAME, tmp_path)
    before = {cell["id"]: printed(cell) for cell in stored(NAME) if cell["cell_type"] == "code"}
    now = {cell.id: printed(cell) for cell in cells if cell.cell_type == "code"}
    assert list(before) == list(now)
    assert [line for name in now for line in _apart(before[name], now[name])] == []
    verdicts = now[list(now)[-1]].splitlines()
    assert len(verdicts) >= 14
    assert all(line.startswith("yes ") for line in verdicts)
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_moved_are_told_apart_from_last_digits():
    """Fails a comparison that any two texts pass."""
    assert _apart("unit  1: share 0.42", "unit  1: share 0.43") == []
    assert _apart("unit  1: share 0.42", "unit  1: share 0.52") != []
    assert _apart("unit  1: share 0.42", "unit  9: share 0.42") != []
    assert _apart("unit  1: share 0.42", "share of unit  1: 0.42") != []
