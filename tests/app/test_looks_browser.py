"""Looks in a real Chromium: pictures follow the theme, letters can be read in both, the keyboard shows where it is."""

from __future__ import annotations

import pytest
from visiting import chromium, exceptions, explorer, watch

pytestmark = pytest.mark.browser

# Texts whose contrast with what lies behind them is below 4.5 (3 for large letters), as {text: ratio}; what is
# disabled, hidden or drawn on canvas is left out.
FAINT = """() => {
  const numbers = (colour) => {
    const scale = colour.startsWith('color(srgb') ? 255 : 1;
    const [r, g, b, a = 1] = colour.match(/[\\d.e-]+/g).map(Number);
    return [r * scale, g * scale, b * scale, a];
  };
  const linear = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  const above = (node) => node.parentElement ?? node.getRootNode().host ?? null;
  const found = {};
  const visit = (root) => {
    const walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT);
    for (let node = walk.nextNode(); node; node = walk.nextNode()) {
      if (node.shadowRoot) visit(node.shadowRoot);
      const text = node.textContent.trim(), box = node.parentElement;
      if (node.nodeType !== 3 || !text || !box || /STYLE|SCRIPT/.test(box.tagName)) continue;
      if (!box.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
      if (box.closest('[disabled], [aria-disabled=true], .stSlider')) continue;
      const { width, height } = box.getBoundingClientRect(), style = getComputedStyle(box);
      if (width < 2 || height < 2) continue;
      const chain = [];
      for (let e = box; e; e = above(e)) chain.unshift(e);
      let ground = [255, 255, 255], shown = 1;
      for (const e of chain) {
        const own = getComputedStyle(e);
        ground = over(numbers(own.backgroundColor), ground);
        shown *= Number(own.opacity);
      }
      const ink = numbers(style.color);
      ink[3] *= shown;
      const [low, high] = [light(over(ink, ground)), light(ground)].sort((a, b) => a - b);
      const ratio = (high + 0.05) / (low + 0.05), size = parseFloat(style.fontSize);
      if (ratio < (size >= 24 ? 3 : 4.5)) found[text.slice(0, 60)] = Number(ratio.toFixed(2));
    }
  };
  visit(document.body);
  return found;
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory):
    """Our own server over the shipped runs; its address."""
    folder = tmp_path_factory.mktemp("server")
    with explorer(folder / "runs", folder) as address:
        yield address


@pytest.fixture(scope="module")
def browser(chromium_path: str):
    with chromium(chromium_path) as browser:
        yield browser


@pytest.fixture
def visit(browser, address: str):
    """Opens a page in a theme; fails on errors and on requests that leave."""
    contexts, troubles = [], []

    def open_page(path: str, theme: str, width: int = 1440):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(90_000)
        watch(page, address, troubles)
        page.goto(address + path)
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            troubles += exceptions(page)
        context.close()
    assert not troubles


def settled(page) -> None:
    page.wait_for_function(
        "() => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'"
        " && !document.querySelector('[data-testid=stProgress]')"
    )


RING = """() => {
  const place = document.activeElement, { outlineStyle, outlineWidth } = getComputedStyle(place);
  return [place.dataset.testid ?? '', outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2];
}"""
BEYOND = """() => {
  const main = document.querySelector('[data-testid=stMain]');
  return main.scrollWidth - main.clientWidth;
}"""
CORNER = """(image) => {
  const canvas = new OffscreenCanvas(1, 1), brush = canvas.getContext('2d');
  brush.drawImage(image, 0, 0);
  return [...brush.getImageData(0, 0, 1, 1).data].slice(0, 3);
}"""


def test_a_strip_turns_dark_with_the_page_and_light_again(visit) -> None:
    """Fails white paper on a dark page, first or after a change: Streamlit alone does not draw it anew."""
    page = visit("/traverse?run=zoo%3Adigits-vae&image=12", "dark")
    strip = page.locator("img.ll-sheet-image").first
    strip.wait_for()
    settled(page)
    dark, before = strip.evaluate(CORNER), strip.get_attribute("src")
    assert max(dark) < 40
    for scheme, light in (("light", True), ("dark", False)):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function("([image, old]) => image.src !== old", arg=[strip.element_handle(), before])
        settled(page)
        assert (min(strip.evaluate(CORNER)) > 240) is light
        before = strip.get_attribute("src")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_letters_and_the_keyboards_place_can_be_seen(visit, theme: str) -> None:
    """Fails texts below a contrast of 4.5 (Web Content Accessibility Guidelines, AA), links that show no ring, and a
    page wider than its window."""
    page = visit("/", theme)
    page.locator("[data-testid=stImage] img").nth(2).wait_for()
    settled(page)
    assert page.evaluate(FAINT) == {}
    rings = {}
    for _ in range(20):
        page.keyboard.press("Tab")
        kind, ring = page.evaluate(RING)
        rings.setdefault(kind, ring)
    assert rings["stSidebarNavLink"] and rings["stPageLink-NavLink"]
    page = visit("/layers?run=zoo%3Adigits-vae&image=12", theme, 1024)
    page.wait_for_function("() => window.__latentlab?.layers?.grid")
    page.get_by_text("No edit yet").wait_for()
    settled(page)
    assert page.evaluate(FAINT) == {}
    assert page.evaluate(BEYOND) <= 0
