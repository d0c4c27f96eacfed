"""What the page on factors says in words of what was measured."""

from planted import gated

from latentlab import analysis
from latentlab.app.inside.factors import GAP, gap_in_words


def test_a_gap_of_conductance_is_held_against_what_the_page_allows():
    """Fails a page that shows a gap and not whether it is within what was asked for."""
    within = analysis.conductance(gated.gated_model(), "gates", seed=1, tolerance=GAP).certificate
    assert gap_in_words(within).startswith(f"The gap, {within['gap_share']:.2%}, is within the 0.50% ")
    beyond = {**within, "gap_share": 0.0152, "complete": False, "nodes": 256}
    assert gap_in_words(beyond).startswith("The gap, 1.52%, is beyond the 0.50% ")
    assert "256 nodes do not reach it" in gap_in_words(beyond)
