"""Pictures on dark paper: the same picture in every way but its paper and letters."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from latentlab import viz
from latentlab.viz import colours

KINDS = (
    "Traversal",
    "TraversalGrid",
    "SwapGrid",
    "Interpolation",
    "Encoding",
    "UnitRanking",
    "EditComparison",
)


@pytest.mark.parametrize("kind", KINDS)
def test_dark_paper_changes_no_size_and_leaves_no_light_ground(results, kind):
    """Fails one place that was left white, such as a corner, a legend or the ground of turned letters."""
    result = results[kind]
    light, dark = viz.show(result), viz.show(result, dark=True)
    assert light.image.size == dark.image.size and light.caption == dark.caption
    before, after = (np.asarray(picture.image).reshape(-1, 3) for picture in (light, dark))
    ground = (before == colours.LIGHT.paper).all(-1)
    margin = np.asarray(dark.image)[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (margin == colours.DARK.paper).all()
    assert ground.any() and not np.array_equal(before, after)
    # What was paper is paper or a rim; images that are white themselves lie in cells.
    allowed = [colours.DARK.paper, colours.DARK.rim]
    if light.cells is None and kind != "EditComparison":
        assert (after[ground][:, None] == allowed).all(-1).any(-1).mean() > 0.98


@pytest.mark.parametrize("kind", ["Traversal", "TraversalGrid", "SwapGrid", "Interpolation"])
def test_what_the_model_drew_is_the_same_on_any_paper(results, kind):
    """Fails colours swapped in the finished picture, which would turn an image's own white dark."""
    light, dark = viz.show(results[kind]), viz.show(results[kind], dark=True)
    assert light.cells is not None and dark.cells is not None and np.array_equal(light.cells, dark.cells)
    on_light, on_dark = np.asarray(light.image), np.asarray(dark.image)
    for left, top, right, bottom in light.cells.reshape(-1, 4):
        assert np.array_equal(on_light[top:bottom, left:right], on_dark[top:bottom, left:right])


def test_a_movie_keeps_its_paper_however_late_it_is_drawn(results):
    dark = viz.show(results["Traversal"], dark=True)
    frame = np.asarray(dark.frames[0])
    assert tuple(frame[-1, -1]) == colours.DARK.paper
    assert tuple(np.asarray(viz.show(results["Traversal"]).frames[0])[-1, -1]) == colours.LIGHT.paper


def test_dark_paper_in_one_thread_is_not_dark_in_another(results):
    """Fails a colour held in a global, which would darken the picture that another person sees."""
    seen: list[tuple[int, ...]] = []
    with colours.on_dark():
        other = threading.Thread(target=lambda: seen.append(colours.tones().paper))
        other.start()
        other.join()
        assert colours.tones() is colours.DARK
        with colours.on_dark(False):
            assert colours.tones() is colours.LIGHT
    assert colours.tones() is colours.LIGHT and seen == [colours.LIGHT.paper]


def _luminance(colour) -> float:
    parts = np.asarray(colour, float) / 255
    linear = np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(a, b) -> float:
    """The contrast ratio of two colours (Web Content Accessibility Guidelines 2.1)."""
    low, high = sorted((_luminance(a), _luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_letters_and_categories_show_on_their_paper(dark):
    with colours.on_dark(dark):
        tones = colours.tones()
        assert min(contrast(tone, tones.paper) for tone in (tones.ink, tones.faint)) >= 4.5
        assert contrast(tones.accent, tones.paper) >= 3
        if dark:
            assert min(contrast(colours.category(i), tones.paper) for i in range(12)) >= 3
            assert contrast(colours.on_paper(np.array(0.0)), tones.paper) > 1.2


def test_nothing_is_the_papers_own_colour_in_a_difference():
    for dark in (False, True):
        with colours.on_dark(dark):
            assert contrast(colours.diverging(np.array(0.0)), colours.tones().paper) < 1.15


def test_a_certificates_yes_and_no_are_words():
    from latentlab.viz.drawing import _proof

    certified = SimpleNamespace(certificate={"kept_to": True, "can_go": np.False_})
    assert _proof(certified) == "kept to yes, can go no"  # type: ignore[arg-type]
