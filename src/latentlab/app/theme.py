"""One look for every page: the options Streamlit is started with, and the few rules it has no option for."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

SIDEBAR = 248  # pixels: narrow enough for screens 1024 px wide

_SHARED = {
    "font": "sans-serif",
    "baseFontSize": 14,
    "headingFontSizes": ["1.5rem", "1.2rem", "1.05rem"],
    "headingFontWeights": [600, 600, 600],
    "baseRadius": "6px",
    "buttonRadius": "6px",
    "showWidgetBorder": True,
    "metricValueFontSize": "1.25rem",
}
_LIGHT = {
    "primaryColor": "#0b6e8a",
    "backgroundColor": "#ffffff",
    "secondaryBackgroundColor": "#f4f6f7",
    "textColor": "#1d2327",
    "borderColor": "#dde3e6",
    "linkColor": "#0b6e8a",
    "codeTextColor": "#1d2327",
}
_DARK = {
    "primaryColor": "#3fb3cf",
    "backgroundColor": "#14181b",
    "secondaryBackgroundColor": "#1d2327",
    "textColor": "#e6eaec",
    "borderColor": "#333c42",
    "linkColor": "#5cc4dd",
    "codeTextColor": "#e6eaec",
}

CONFIG: dict[str, object] = {
    "browser.gatherUsageStats": False,
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",
    "client.showErrorLinks": False,  # they lead to sites elsewhere
    "global.disableWidgetStateDuplicationWarning": True,  # links set what has a default (links.follow_link)
    "runner.magicEnabled": False,
    "server.fileWatcherType": "none",
    "server.maxUploadSize": 0,  # no page takes files, and what a client sent unasked would be kept in memory
    **{f"theme.{name}": value for name, value in _SHARED.items()},
    **{f"theme.light.{name}": value for name, value in _LIGHT.items()},
    **{f"theme.dark.{name}": value for name, value in _DARK.items()},
}
"""Streamlit options of the explorer, keyed as ``st.App.run(config=…)`` takes them."""

_CSS = """
.stMainBlockContainer { padding: 2.6rem 1.6rem 3rem; max-width: 1480px; }
[data-testid="stSidebarContent"] [data-testid="stSidebarHeader"] { height: 2.6rem; }
[data-testid="stMain"] h1 { padding: 0 0 .15rem; }
[data-testid="stImage"] img { border-radius: 4px; }
[class*="st-key-paper-"] [data-testid="stImage"] img {
  padding: 10px 12px; box-sizing: border-box; border: 1px solid color-mix(in srgb, currentColor 14%, transparent);
}
[data-testid="stCaptionContainer"] { line-height: 1.45; opacity: .7; }
[data-testid="stAlertContainer"]:has([data-testid="stAlertContentInfo"]) {
  padding: .15rem 0 .15rem .8rem; border-radius: 0; background: none; color: inherit;
  border-left: 2px solid color-mix(in srgb, #1489a8 70%, transparent);
}
[data-testid="stMain"] button[data-variant="segmented_control"] { min-height: 2.5rem; }  /* as high as a menu */
.st-key-turned { display: none; }
/* Room for what is drawn in the browser, so that what follows it does not jump when it comes. */
.st-key-start, .st-key-image, .st-key-layout, .st-key-points { min-height: 60px; }
.st-key-pull { min-height: 336px; } .st-key-open, .st-key-compare { min-height: 460px; }
.st-key-map { min-height: 620px; }
.st-key-engine button p { text-transform: capitalize; }
[class*="st-key-chips-"] { flex-wrap: nowrap; overflow: hidden; }  /* one line, so that a row's pictures align */
[class*="st-key-chips-"] > * { flex: none; }
[class*="st-key-chips-"] > :last-child { flex: 0 1 auto; min-width: 0; }
[class*="st-key-chips-"] p { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
[class*="st-key-thumb"] button { padding: 2px; min-height: 0; line-height: 0; border-radius: 6px; }
[class*="st-key-thumb"] button p { line-height: 0; }
[class*="st-key-thumb"] button img {
  height: 52px !important; max-height: none !important; width: auto; margin: 0; object-fit: contain !important;
  image-rendering: pixelated; border-radius: 4px;
}
[class*="st-key-thumb-chosen"] button { outline: 2px solid var(--st-primary-color, #0b6e8a); }
[data-testid="stPageLink"] a {
  border: 1px solid color-mix(in srgb, #808a90 45%, transparent); border-radius: 6px; padding: .22rem .7rem;
}
[data-testid="stPageLink"] a:hover { border-color: #1489a8; }
[data-testid="stSidebarNavLink"]:focus-visible, [data-testid="stPageLink"] a:focus-visible {
  outline: 2px solid #1489a8; outline-offset: 1px;
}
.ll-facts {
  display: grid; grid-template-columns: auto 1fr; gap: .15rem .7rem; font-size: .86rem;
  margin: 0; padding: 0 !important;
}
.ll-facts dt { opacity: .72; } .ll-facts dd { margin: 0; text-align: right; overflow-wrap: anywhere; }
.ll-bars {
  display: grid; grid-template-columns: minmax(60px, auto) minmax(120px, 340px) auto; gap: .2rem .7rem;
  font-size: .86rem; margin: 0; padding: 0 !important; align-items: center; justify-content: start;
}
.ll-bars dd { margin: 0; position: relative; min-height: 12px; font-variant-numeric: tabular-nums; }
.ll-bars i { display: block; height: 12px; border-radius: 3px; background: #1489a8; }
.ll-bars u { position: absolute; left: 0; top: 4px; height: 4px; border-radius: 2px; background: #808a90; }
.ll-figures { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; font-size: .86rem; }
.ll-figures b { font-weight: 600; font-variant-numeric: tabular-nums; }
.ll-figures span { opacity: .72; margin-right: .3rem; }
"""


# White letters on the dark page's bright tone would be too faint.
_CSS_DARK = """
[data-testid="stBaseButton-primary"], [data-testid="stBaseButton-primary"] p,
[data-testid="stMultiSelectTagsContainer"] :is(span, button, svg) { color: #0b2129 !important; }
"""


def icon() -> Image.Image:
    """The tab's icon: a traversal strip in small. Drawn here, since named icons are fetched from elsewhere."""
    size, cells = 32, 3
    picture = np.zeros((size, size, 4), dtype=np.uint8)
    for row in range(cells):
        for column in range(cells):
            shade = (row + column) / (2 * cells - 2)
            colour = [int(11 + 90 * shade), int(110 + 90 * shade), int(138 + 90 * shade), 255]
            top, left = 1 + row * 10, 1 + column * 10
            picture[top : top + 9, left : left + 9] = colour
    return Image.fromarray(picture)


def wordmark() -> str:
    """The name in the sidebar, as SVG, in a tone that reads on light and on dark."""
    cells = "".join(
        f'<rect x="{2 + 8 * c}" y="{3 + 8 * r}" width="7" height="7" rx="1.5" fill="#1489a8" '
        f'opacity="{0.35 + 0.16 * (r + c):.2f}"/>'
        for r in range(3)
        for c in range(3)
    )
    look = 'font-family="sans-serif" font-size="18" font-weight="600" fill="#1489a8"'
    name = f'<text x="34" y="21" {look}>latentlab</text>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="122" height="30" viewBox="0 0 122 30">{cells}{name}</svg>'


def dark() -> bool:
    """Whether the page that is drawn is dark, as the browser last said; False where no page is drawn."""
    return st.context.theme.type == "dark"


@contextmanager
def paper() -> Iterator[None]:
    """Draws the pictures made within on the page's own paper, dark or light."""
    from latentlab.viz import colours

    with colours.on_dark(dark()):
        yield


def chart(drawn: Any) -> Any:
    """An Altair chart with letters that read on the page, dark or light; Streamlit's own are too faint."""
    tone = "#b4bcc1" if dark() else "#515a60"
    letters = {"labelColor": tone, "titleColor": tone}
    return drawn.configure_axis(**letters).configure_legend(**letters).configure_header(**letters)


def apply() -> None:
    """Sets the page up; the first call of every script run."""
    st.set_page_config(page_title="latentlab", page_icon=icon(), layout="wide", initial_sidebar_state=SIDEBAR)
    st.logo(wordmark(), size="large")
    st.html(f"<style>{_CSS}{_CSS_DARK if dark() else ''}</style>")


def data_uri(picture: Image.Image) -> str:
    """A picture as a PNG ``data:`` address: it belongs to the page that shows it and can't go stale."""
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=1)  # ten times faster than the default, a fifth larger
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
