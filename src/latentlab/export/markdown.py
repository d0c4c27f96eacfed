"""A model card as HTML: the few marks that cards use, everything else as plain text."""

from __future__ import annotations

import html
import re

_CODE = re.compile(r"`{1,2}([^`]+)`{1,2}")
_LINK = re.compile(r"\[([^\]]+)\]\((https?://[^\s)]+)\)|(https?://[^\s<>)]+[^\s<>).,;])")


def headline_of(card: str) -> str:
    """A card's first sentence about the run, without the run's own name in front; "" where there is none."""
    paragraph: list[str] = []
    for line in _body(card):
        if line.startswith(("#", "!", "|", "-")) or not line.strip():
            if paragraph:
                break
            continue
        paragraph.append(line.strip())
    sentence = re.sub(r"^[\w.-]+: ", "", " ".join(paragraph))
    return sentence[:1].upper() + sentence[1:]


def to_html(card: str) -> str:
    """A card's text as HTML: headings, paragraphs, lists, tables, code; pictures are left out, markup is escaped."""
    out: list[str] = []
    lines, i = _body(card), 0
    while i < len(lines):
        line = lines[i]
        if line.startswith("```"):
            end = next((k for k in range(i + 1, len(lines)) if lines[k].startswith("```")), len(lines))
            out.append(f"<pre><code>{html.escape(chr(10).join(lines[i + 1 : end]))}</code></pre>")
            i = end + 1
        elif heading := re.match(r"(#{1,4}) +(.*)", line):
            level = len(heading[1])
            if level > 1:  # the page has a title
                out.append(f"<h{level}>{_inline(heading[2])}</h{level}>")
            i += 1
        elif line.startswith("|"):
            i, table = _table(lines, i)
            out.append(table)
        elif line.startswith("- "):
            end = i
            while end < len(lines) and lines[end].startswith("- "):
                end += 1
            out.append("<ul>" + "".join(f"<li>{_inline(item[2:])}</li>" for item in lines[i:end]) + "</ul>")
            i = end
        elif not line.strip() or line.startswith("!["):
            i += 1
        else:
            end = i
            while (
                end < len(lines)
                and lines[end].strip()
                and not lines[end].startswith(("#", "|", "- ", "```", "!["))
            ):
                end += 1
            out.append(f"<p>{_inline(' '.join(lines[i:end]))}</p>")
            i = end
    return "\n".join(out)


def _body(card: str) -> list[str]:
    """A card's lines behind its front matter."""
    lines = card.replace("\r\n", "\n").split("\n")
    if lines[0].strip() == "---" and "---" in lines[1:]:
        lines = lines[lines.index("---", 1) + 1 :]
    return lines


def _table(lines: list[str], begin: int) -> tuple[int, str]:
    end = begin
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines[begin:end]]
    ruled = len(rows) > 1 and all(re.fullmatch(r":?-+:?", cell) for cell in rows[1])
    head, body = (rows[0], rows[2:]) if ruled else (None, rows)
    cells = "".join(f"<th>{_inline(cell)}</th>" for cell in head or ())
    text = f"<thead><tr>{cells}</tr></thead>" if head else ""
    text += "<tbody>"
    for row in body:
        text += "<tr>" + "".join(f"<td>{_inline(cell)}</td>" for cell in row) + "</tr>"
    return end, f'<div class="ll-table"><table>{text}</tbody></table></div>'


def _inline(text: str) -> str:
    parts = _CODE.split(text)  # text and code in turn
    return "".join(
        f"<code>{html.escape(part)}</code>" if i % 2 else _words(part) for i, part in enumerate(parts)
    )


def _words(text: str) -> str:
    out, at = "", 0
    for link in _LINK.finditer(text):
        address = link[2] or link[3]
        out += _bold(text[at : link.start()])
        out += f'<a href="{html.escape(address)}" rel="noreferrer noopener">{html.escape(link[1] or address)}</a>'
        at = link.end()
    return out + _bold(text[at:])


def _bold(text: str) -> str:
    return re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", html.escape(text))
